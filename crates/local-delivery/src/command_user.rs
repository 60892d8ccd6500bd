//! Whom `user=` of pipe(8) and spawn(8) may name: nobody who owns something of the system or of the mail system.

use config::{Config, param};
use nix::unistd::{Gid, Group, Uid};

use crate::rights::{Instance, SystemUsers, Users};

/// The users that there are, and what this process may become.
pub(crate) struct CommandUsers {
    pub(crate) users: SystemUsers,
    pub(crate) instance: Instance,
    pub(crate) mail_owner: String,
    pub(crate) submission_group: String,
}

/// Why nobody can be run as that user.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// There is no such user or group, at least for now.
    Unknown(String),
    /// It is one of those that must not run what messages trigger.
    Forbidden(String),
}

impl CommandUsers {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            users: SystemUsers::default(),
            instance: Instance::current(),
            mail_owner: config.get(param::MAIL_OWNER),
            submission_group: config.get(param::SETGID_GROUP),
        }
    }

    /// Who runs the program. Looked up each time, so that a user who is added counts at once.
    ///
    /// # Errors
    /// [`Unusable`]
    pub(crate) fn find(&self, name: &str, group: Option<&str>) -> Result<(Uid, Gid), Unusable> {
        let user = self.users.by_name(name).map_err(|failure| Unusable::Unknown(failure.text))?;
        let user = user.ok_or_else(|| Unusable::Unknown(format!("user={name}: no such user")))?;
        let gid = match group {
            Some(group) => group_of(group)?
                .ok_or_else(|| Unusable::Unknown(format!("user={name}:{group}: no such group")))?,
            None => user.gid,
        };
        // An ordinary user's instance is its user in everything, and can become no other.
        if self.instance.is_root() {
            self.check(name, user.uid, gid)?;
        }
        Ok((user.uid, gid))
    }

    fn check(&self, name: &str, uid: Uid, gid: Gid) -> Result<(), Unusable> {
        let refuse = |text: String| {
            let advice = "name a user and a group that own nothing of the mail system";
            Err(Unusable::Forbidden(format!("user={name}: {text}; {advice}")))
        };
        // Who cannot be looked up may be just the one that must not run it.
        let owner =
            self.users.by_name(&self.mail_owner).map_err(|failure| Unusable::Unknown(failure.text))?;
        if uid.is_root() {
            return refuse("commands are never run with root's rights".to_owned());
        }
        if owner.as_ref().is_some_and(|owner| owner.uid == uid) {
            return refuse(format!("this is the mail system's own user, mail_owner = {}", self.mail_owner));
        }
        if gid.as_raw() == 0 {
            return refuse("commands are never run with root's group".to_owned());
        }
        if owner.is_some_and(|owner| owner.gid == gid) {
            return refuse(format!("this is the group of mail_owner = {}", self.mail_owner));
        }
        if group_of(&self.submission_group)? == Some(gid) {
            return refuse(format!("this is the group setgid_group = {}", self.submission_group));
        }
        Ok(())
    }
}

fn group_of(name: &str) -> Result<Option<Gid>, Unusable> {
    match Group::from_name(name) {
        Ok(group) => Ok(group.map(|group| group.gid)),
        Err(error) => Err(Unusable::Unknown(format!("look up group {name}: {}", error.desc()))),
    }
}
