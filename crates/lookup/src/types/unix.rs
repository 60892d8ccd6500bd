//! `unix:passwd.byname` and `unix:group.byname`: the system's users and groups, one line of passwd(5) or group(5) each.

use std::ffi::CStr;
use std::sync::Arc;

use nix::unistd::{Group, User};

use super::Request;
use crate::fold::fold;
use crate::table::{LookupError, OpenError, Options, Table};

struct Unix {
    label: String,
    options: Options,
    line_of: fn(&str) -> nix::Result<Option<String>>,
}

pub(super) fn open(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    let line_of = match request.name {
        "passwd.byname" => user,
        "group.byname" => group,
        _ => return Err(request.configuration_error("expected unix:passwd.byname or unix:group.byname")),
    };
    Ok(Arc::new(Unix { label: request.label.to_owned(), options: request.options, line_of }))
}

fn user(name: &str) -> nix::Result<Option<String>> {
    Ok(User::from_name(name)?.map(|user| {
        let text = |text: &CStr| text.to_string_lossy().into_owned();
        let (password, gecos) = (text(&user.passwd), text(&user.gecos));
        let (home, shell) = (user.dir.display(), user.shell.display());
        format!("{}:{password}:{}:{}:{gecos}:{home}:{shell}", user.name, user.uid, user.gid)
    }))
}

fn group(name: &str) -> nix::Result<Option<String>> {
    Ok(Group::from_name(name)?.map(|group| {
        let password = group.passwd.to_string_lossy();
        format!("{}:{password}:{}:{}", group.name, group.gid, group.mem.join(","))
    }))
}

impl Table for Unix {
    fn get(&self, key: &str) -> Result<Option<String>, LookupError> {
        let line = if self.options.fold { (self.line_of)(&fold(key)) } else { (self.line_of)(key) };
        match line {
            // A name with a NUL is nobody's.
            Err(nix::errno::Errno::EINVAL) => Ok(None),
            Ok(None) => match sys::accounts::are_readable() {
                Ok(()) => Ok(None),
                Err(error) => Err(LookupError::new(&self.label, format!("look \"{key}\" up: {error}"))),
            },
            line => line.map_err(|errno| {
                LookupError::new(&self.label, format!("look \"{key}\" up: {}", errno.desc()))
            }),
        }
    }

    fn label(&self) -> &str {
        &self.label
    }
}
