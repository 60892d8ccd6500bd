//! Who a delivery acts as: users of the system, and what this process may become.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mail::Dsn;
use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid};
use sys::credentials::AsUser;

use crate::failure::{Failure, describe};

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The login name.
    pub(crate) name: String,
    /// The user.
    pub(crate) uid: Uid,
    /// The primary group; no other group is ever used, as in Postfix.
    pub(crate) gid: Gid,
    /// The home directory.
    pub(crate) home: PathBuf,
    /// The login shell.
    pub(crate) shell: PathBuf,
}

/// Where users are looked up.
pub(crate) trait Users: Send + Sync {
    /// The user of this name; `None` where there is none.
    ///
    /// # Errors
    /// A deferral: the user database could not be asked, which is not the same as "unknown".
    fn by_name(&self, name: &str) -> Result<Option<User>, Failure>;

    /// The user with this number; `None` where there is none.
    ///
    /// # Errors
    /// As [`Users::by_name`].
    fn by_uid(&self, uid: Uid) -> Result<Option<User>, Failure>;
}

/// For how long an answer of the user database counts.
const REMEMBERED_FOR: Duration = Duration::from_secs(1);

/// The most users that are remembered at once.
const MAX_REMEMBERED: usize = 1024;

/// The system's user database. A user who was found is remembered for a second, so that much mail to few users asks
/// seldom; who was not found is asked for each time.
#[derive(Debug, Default)]
pub(crate) struct SystemUsers {
    remembered: Mutex<HashMap<String, (Instant, User)>>,
}

impl SystemUsers {
    fn recall(&self, name: &str) -> Option<User> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, user) = remembered.get(name)?;
        (since.elapsed() < REMEMBERED_FOR).then(|| user.clone())
    }

    fn remember(&self, user: &User) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(user.name.clone(), (Instant::now(), user.clone()));
    }
}

impl Users for SystemUsers {
    fn by_name(&self, name: &str) -> Result<Option<User>, Failure> {
        // No such name can exist, and the C library would read it in pieces.
        if name.is_empty() || name.contains(['/', ':', '\0', '\n']) {
            return Ok(None);
        }
        if let Some(user) = self.recall(name) {
            return Ok(Some(user));
        }
        let user = found(unistd::User::from_name(name), format_args!("name {name}"))?;
        // Some databases answer to other spellings, too: those are asked each time.
        if let Some(user) = user.as_ref().filter(|user| user.name == name) {
            self.remember(user);
        }
        Ok(user)
    }

    fn by_uid(&self, uid: Uid) -> Result<Option<User>, Failure> {
        found(unistd::User::from_uid(uid), format_args!("uid {uid}"))
    }
}

impl User {
    /// The home directory as text for templates.
    #[must_use]
    pub(crate) fn home_text(&self) -> &str {
        self.home.to_str().unwrap_or_default()
    }

    /// The login shell as text for templates.
    #[must_use]
    pub(crate) fn shell_text(&self) -> &str {
        self.shell.to_str().unwrap_or_default()
    }
}

fn found(
    answer: nix::Result<Option<unistd::User>>,
    whom: std::fmt::Arguments<'_>,
) -> Result<Option<User>, Failure> {
    let failed = |error: io::Error| {
        let text = format!("error looking up passwd info for {whom}: {}", describe(&error));
        Failure::defer(Dsn::new(4, 3, 0), text)
    };
    match answer {
        Ok(Some(user)) => Ok(Some(User {
            name: user.name,
            uid: user.uid,
            gid: user.gid,
            home: user.dir,
            shell: user.shell,
        })),
        // How some sources say "not found", see getpwnam(3).
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => {
            sys::accounts::are_readable().map_err(failed).map(|()| None)
        }
        Err(error) => Err(failed(error.into())),
    }
}

/// What this process may become: anybody where root started it, only itself otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance {
    own: Uid,
}

impl Instance {
    /// As this process was started.
    #[must_use]
    pub(crate) fn current() -> Self {
        Self { own: Uid::effective() }
    }

    /// As an ordinary user would have started it.
    #[cfg(test)]
    pub(crate) fn of_user(own: u32) -> Self {
        Self { own: Uid::from_raw(own) }
    }

    /// Whether it can become others.
    #[must_use]
    pub(crate) fn is_root(self) -> bool {
        self.own.is_root()
    }

    /// The user this process is.
    #[must_use]
    pub(crate) fn own_uid(self) -> Uid {
        self.own
    }

    /// Touches files as this user until the guard goes.
    ///
    /// # Errors
    /// A deferral that says what this instance cannot do, and why.
    pub(crate) fn act_as(self, uid: Uid, gid: Gid) -> Result<AsUser, Failure> {
        self.check(uid)?;
        AsUser::become_user(uid, gid, &[gid]).map_err(|error| {
            Failure::defer(Dsn::new(4, 3, 0), format!("act as uid {uid}: {}", describe(&error)))
        })
    }

    /// What a command's process is to become; `None` for what this process is already.
    ///
    /// # Errors
    /// As [`Instance::act_as`].
    pub(crate) fn identity(self, uid: Uid, gid: Gid) -> Result<Option<(Uid, Gid)>, Failure> {
        self.check(uid)?;
        Ok(self.is_root().then_some((uid, gid)))
    }

    fn check(self, uid: Uid) -> Result<(), Failure> {
        if self.is_root() || uid == self.own {
            return Ok(());
        }
        let text = format!(
            "cannot deliver as uid {uid}: this mail system was started by uid {} and can deliver only to that user; \
             start it as root to deliver to others",
            self.own
        );
        Err(Failure::defer(Dsn::new(4, 3, 5), text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_impossible_names_are_nobody() {
        for name in ["", "no-such-user-here", "../etc", "a:b", "x\0y"] {
            assert_eq!(SystemUsers::default().by_name(name).unwrap(), None, "{name:?}");
        }
        let root = SystemUsers::default().by_name("root").unwrap().unwrap();
        assert_eq!(SystemUsers::default().by_uid(root.uid).unwrap(), Some(root));
    }

    #[test]
    fn an_ordinary_users_instance_says_what_it_cannot_do() {
        let instance = Instance::of_user(1000);
        let failure = instance.identity(Uid::from_raw(0), Gid::from_raw(0)).unwrap_err();
        assert!(failure.is_temporary() && failure.text.contains("started by uid 1000"), "{failure:?}");
        assert_eq!(instance.identity(Uid::from_raw(1000), Gid::from_raw(1000)), Ok(None));
    }
}
