//! Whose rights the daemons and users' commands have: accounts that are root's, or each other's, are Postfix's errors, too.

use config::{Config, param};
use nix::unistd::{Gid, Group, Uid, User};

/// What is wrong with the accounts that main.cf names; where this process is not root's, nobody's rights are taken. Each text
/// begins with the parameter that it is about. Where `mail_owner` and `setgid_group` do not exist, the folders cannot be made.
pub(crate) fn problems(config: &Config) -> Vec<String> {
    if !Uid::effective().is_root() {
        return Vec::new();
    }
    let user = |name: String| User::from_name(&name).ok().flatten();
    let others = config.get(param::DEFAULT_PRIVS);
    if User::from_name(&others) == Ok(None) {
        return vec![format!("default_privs: there is no user {others}; create it or name another")];
    }
    let group = Group::from_name(&config.get(param::SETGID_GROUP)).ok().flatten();
    let owner = user(config.get(param::MAIL_OWNER)).map(|user| Account::of_user("mail_owner", user));
    let others = user(others).map(|user| Account::of_user("default_privs", user));
    let group =
        group.map(|group| Account { parameter: "setgid_group", name: group.name, uid: None, gid: group.gid });
    conflicts(&[owner, group, others].into_iter().flatten().collect::<Vec<_>>())
}

/// An account, or a group, which has no user.
#[derive(Clone, Debug)]
struct Account {
    parameter: &'static str,
    name: String,
    uid: Option<Uid>,
    gid: Gid,
}

impl Account {
    fn of_user(parameter: &'static str, user: User) -> Self {
        Self { parameter, name: user.name, uid: Some(user.uid), gid: user.gid }
    }

    /// Who has the same user or group, root before all.
    fn shares(&self, earlier: &[Self]) -> Option<String> {
        if self.uid.is_some_and(Uid::is_root) || self.gid.as_raw() == 0 {
            let what = if self.uid.is_some_and(Uid::is_root) { "rights" } else { "group" };
            return Some(format!("the {what} of root"));
        }
        let by = |account: &Self| format!("of {} ({})", account.parameter, account.name);
        let same_user = earlier.iter().find(|other| other.uid.is_some() && other.uid == self.uid);
        let same_group = earlier.iter().find(|other| other.gid == self.gid);
        let user = same_user.map(|other| format!("the user ID {}", by(other)));
        user.or_else(|| same_group.map(|other| format!("the group ID {}", by(other))))
    }
}

fn conflicts(accounts: &[Account]) -> Vec<String> {
    let conflict = |(at, account): (usize, &Account)| {
        let shared = account.shares(&accounts[..at])?;
        let right = match account.parameter {
            "mail_owner" => "a user that has nothing but the mail system",
            "setgid_group" => "a group of which nobody is a member",
            _ => "an unprivileged user that owns nothing of the mail system, such as nobody",
        };
        Some(format!("{}: {} has {shared}; name {right}", account.parameter, account.name))
    };
    accounts.iter().enumerate().filter_map(conflict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(parameter: &'static str, name: &str, uid: Option<u32>, gid: u32) -> Account {
        Account { parameter, name: name.to_owned(), uid: uid.map(Uid::from_raw), gid: Gid::from_raw(gid) }
    }

    fn told(owner: (u32, u32), group: u32, others: (u32, u32)) -> Vec<String> {
        conflicts(&[
            account("mail_owner", "postfix", Some(owner.0), owner.1),
            account("setgid_group", "postdrop", None, group),
            account("default_privs", "nobody", Some(others.0), others.1),
        ])
    }

    #[test]
    fn accounts_that_share_rights_are_told_as_postfix_tells_them() {
        assert_eq!(told((1, 1), 2, (3, 3)), [""; 0]);
        let owner = "name a user that has nothing but the mail system";
        assert_eq!(told((0, 1), 2, (3, 3)), [format!("mail_owner: postfix has the rights of root; {owner}")]);
        assert_eq!(told((1, 0), 2, (3, 3)), [format!("mail_owner: postfix has the group of root; {owner}")]);
        let group = "name a group of which nobody is a member";
        assert_eq!(
            told((1, 1), 0, (3, 3)),
            [format!("setgid_group: postdrop has the group of root; {group}")]
        );
        assert_eq!(
            told((1, 1), 1, (3, 3)),
            [format!("setgid_group: postdrop has the group ID of mail_owner (postfix); {group}")]
        );
        let others = "name an unprivileged user that owns nothing of the mail system, such as nobody";
        for (ids, shared) in [
            ((0, 0), "the rights of root"),
            ((1, 3), "the user ID of mail_owner (postfix)"),
            ((3, 1), "the group ID of mail_owner (postfix)"),
            ((3, 2), "the group ID of setgid_group (postdrop)"),
        ] {
            assert_eq!(told((1, 1), 2, ids), [format!("default_privs: nobody has {shared}; {others}")]);
        }
    }
}
