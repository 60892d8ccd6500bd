//! The user who runs the program.
//!
//! A program that is started for each message asks for one user, and the C library takes longer to find out whom to ask than
//! to read the answer: it looks for its cache daemon twice and makes ready all databases that there are. Where the answer is a
//! plain line of `/etc/passwd` in any case, it is read there.

use std::cell::OnceCell;
use std::fs::File;
use std::io::Read;

use nix::unistd::{Uid, User, getuid};

/// A longer file is left to the C library.
const MAX_FILE: u64 = 16 * 1024;

/// The user who runs the program, looked up when somebody asks: the user database may be on the network.
#[derive(Debug, Default)]
pub(crate) struct Invoker {
    account: OnceCell<Option<Account>>,
}

/// What is wanted of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    name: String,
    gecos: String,
}

impl Invoker {
    /// The real uid: who runs the program, also if it is set-uid or set-gid.
    pub(crate) fn uid(&self) -> Uid {
        getuid()
    }

    /// The login name, where the user database has this user.
    pub(crate) fn name(&self) -> Option<&str> {
        self.account().map(|account| account.name.as_str())
    }

    /// The full name in the user database: the GECOS field up to the first comma, `&` standing for the login name.
    pub(crate) fn full_name(&self) -> Option<String> {
        let account = self.account()?;
        let first = account.gecos.split(',').next().unwrap_or_default();
        let mut letters = account.name.chars();
        let capitalised: String =
            letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect();
        Some(first.replace('&', &capitalised)).filter(|name| !name.is_empty())
    }

    fn account(&self) -> Option<&Account> {
        self.account.get_or_init(|| in_passwd(self.uid()).or_else(|| in_database(self.uid()))).as_ref()
    }
}

fn in_database(uid: Uid) -> Option<Account> {
    let user = User::from_uid(uid).ok().flatten()?;
    Some(Account { gecos: user.gecos.to_string_lossy().into_owned(), name: user.name })
}

/// The user's line of `/etc/passwd`, where nsswitch.conf(5) has no other source come before that file.
fn in_passwd(uid: Uid) -> Option<Account> {
    let switch = text_of("/etc/nsswitch.conf").filter(|switch| asks_files_first(switch))?;
    drop(switch);
    account_in(&text_of("/etc/passwd")?, uid)
}

fn text_of(path: &str) -> Option<String> {
    let mut text = Vec::with_capacity(4096);
    File::open(path).ok()?.take(MAX_FILE).read_to_end(&mut text).ok()?;
    String::from_utf8(text).ok().filter(|text| (text.len() as u64) < MAX_FILE)
}

/// Whether what the file has is the answer: it is asked first, and what it says is final.
fn asks_files_first(switch: &str) -> bool {
    let mut lines = switch
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("passwd")?.trim_start().strip_prefix(':'));
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let mut sources = line.split_ascii_whitespace();
    // Behind a source there may be what is to become of its answers.
    sources.next() == Some("files")
        && sources.next().is_none_or(|next| next.bytes().all(|c| c.is_ascii_alphanumeric()))
}

/// The first line with this uid. `None` as well where a line before it is none that anybody reads alike, such as one that
/// stands for users of NIS.
fn account_in(passwd: &str, uid: Uid) -> Option<Account> {
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, found, gid, gecos, _, _] = fields[..] else { return None };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        let is_plain = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if !is_plain || !is_number(found) || !is_number(gid) {
            return None;
        }
        if found.parse() == Ok(uid.as_raw()) {
            return Some(Account { name: name.to_owned(), gecos: gecos.to_owned() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_answer_where_nobody_is_asked_before_it() {
        let yes = ["passwd: files\n", "# x\n passwd :\tfiles systemd\nshadow: files\n", "passwd: files sss"];
        let no = [
            "",
            "group: files\n",
            "passwd: sss files\n",
            "passwd: files [SUCCESS=continue] sss\n",
            "passwd: files[SUCCESS=continue] sss\n",
            "passwd: compat\n",
            "passwd:\n",
            "passwd: files\npasswd: sss\n",
            "# passwd: files\n",
        ];
        assert_eq!(yes.map(asks_files_first), [true; 3]);
        assert_eq!(no.map(asks_files_first), [false; 9]);
    }

    #[test]
    fn a_user_is_his_first_line_unless_a_strange_one_precedes() {
        let find = |passwd: &str| account_in(passwd, Uid::from_raw(7)).map(|account| account.name);
        assert_eq!(
            find("root:x:0:0::/:/bin/sh\njoe:x:7:7:J:/:\njim:x:7:7::/:\n+::::::\n"),
            Some("joe".into())
        );
        for strange in [
            "+::::::",
            "-joe:x:7:7::/:",
            "+@us:x:7:7::/:",
            "# x",
            "",
            "a:b",
            " joe:x:8:7::/:",
            "a:x:-1:7::/:",
        ] {
            assert_eq!(find(&format!("{strange}\njoe:x:7:7:J:/:\n")), None, "{strange}");
        }
        assert_eq!(find("root:x:0:0::/:/bin/sh\n"), None);
    }

    #[test]
    fn both_ways_find_the_same_user() {
        let uid = getuid();
        if let Some(account) = in_passwd(uid) {
            assert_eq!(Some(account), in_database(uid));
        }
    }

    #[test]
    fn the_full_name_is_what_precedes_the_first_comma() {
        let full = |name: &str, gecos: &str| {
            let account = Account { name: name.into(), gecos: gecos.into() };
            Invoker { account: OnceCell::from(Some(account)) }.full_name()
        };
        assert_eq!(full("joe", "Joe Doe,room 1,,"), Some("Joe Doe".into()));
        assert_eq!(full("joe", "& Doe"), Some("Joe Doe".into()));
        assert_eq!(full("joe", ",x"), None);
    }
}
