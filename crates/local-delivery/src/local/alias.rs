//! aliases(5): the search, the rights of a database, and `owner-` companions.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use lookup::{LookupError, Table};
use mail::{Address, Dsn, header_address};
use nix::unistd::Uid;

use super::agent::LocalAgent;
use crate::failure::{Failure, describe};
use crate::rights::User;

/// With whose rights commands and files of an expansion are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Root wrote the list: `default_privs` stands in for root.
    Root,
    /// This user did.
    User(Arc<User>),
}

/// An alias that was found.
#[derive(Debug)]
pub(super) struct Alias {
    /// The key it stands under: the local part, or its user without the extension.
    pub(super) name: String,
    /// The right-hand side.
    pub(super) value: String,
    /// The extension that the key lacks, with its delimiter.
    pub(super) extension: Option<String>,
    pub(super) rights: Rights,
}

impl LocalAgent {
    /// The alias of a local part, which is in lower case: `user+ext` in every table, then `user`.
    pub(super) fn find_alias(&self, local: &str) -> Result<Option<Alias>, Failure> {
        let split = self.settings.delimiters.split(local);
        let keys = [Some((local, None)), split.map(|(user, extension)| (user, Some(extension)))];
        for (key, extension) in keys.into_iter().flatten() {
            for table in self.settings.aliases.tables() {
                if let Some(value) = table.get(key).map_err(|error| unavailable(&error))? {
                    return Ok(Some(Alias {
                        name: key.to_owned(),
                        value,
                        extension: extension.map(str::to_owned),
                        rights: self.rights_of(table.as_ref())?,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Whether an alias has an owner of its own.
    pub(super) fn has_owner(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.owner_value(name)?.is_some())
    }

    /// The sender that takes the place of the message's own when it goes to the members of the alias `name`.
    pub(super) fn owner_of(&self, name: &str, domain: &str) -> Result<Option<Address>, Failure> {
        let Some(value) = self.owner_value(name)? else { return Ok(None) };
        let members = header_address::parse_list(&value).map_err(Failure::configuration)?;
        if let (true, [member]) = (self.settings.expand_owner_alias, &members[..]) {
            return Ok(Some(self.routing.complete(member)));
        }
        let owner =
            if domain.is_empty() { format!("owner-{name}") } else { format!("owner-{name}@{domain}") };
        let owner = Address::new(owner).map_err(Failure::configuration)?;
        Ok(Some(self.routing.complete(&owner)))
    }

    fn owner_value(&self, name: &str) -> Result<Option<String>, Failure> {
        // The companions themselves have none, or a list's trouble would go in circles.
        let special = self.settings.owner_request_special;
        if !special || name.starts_with("owner-") || name.ends_with("-request") {
            return Ok(None);
        }
        self.settings.aliases.get(&format!("owner-{name}")).map_err(|error| unavailable(&error))
    }

    /// The rights of whoever owns the file of the table; root's for a table without one, as it is part of main.cf.
    fn rights_of(&self, table: &dyn Table) -> Result<Rights, Failure> {
        if !self.instance.is_root() {
            // Nobody else's rights can be had.
            return self.own_rights();
        }
        let Some(path) = file_of(table.label()) else { return Ok(Rights::Root) };
        let owner = std::fs::metadata(&path).map(|stat| Uid::from_raw(stat.uid())).map_err(|error| {
            let text =
                format!("cannot find alias database owner for {}: {}", table.label(), describe(&error));
            Failure::defer(Dsn::new(4, 3, 0), text)
        })?;
        self.rights_of_uid(owner, format_args!("alias database {}", table.label()))
    }

    /// The rights of a file's owner.
    pub(super) fn rights_of_uid(&self, uid: Uid, what: std::fmt::Arguments<'_>) -> Result<Rights, Failure> {
        if uid.is_root() {
            return Ok(Rights::Root);
        }
        match self.users.by_uid(uid)? {
            Some(user) => Ok(Rights::User(Arc::new(user))),
            None => Err(Failure::configuration(format_args!(
                "cannot find the user with uid {uid}, who owns {what}"
            ))),
        }
    }

    fn own_rights(&self) -> Result<Rights, Failure> {
        match self.users.by_uid(self.instance.own_uid())? {
            Some(user) => Ok(Rights::User(Arc::new(user))),
            None => {
                Err(Failure::configuration("the user who runs this mail system is not in the user database"))
            }
        }
    }
}

/// A table could not be asked: never the same as "no such alias".
pub(super) fn unavailable(error: &LookupError) -> Failure {
    Failure::defer(Dsn::new(4, 3, 0), format!("alias database unavailable: {error}"))
}

/// The file behind `type:name`, where the type has one and its rules do not stand in main.cf.
fn file_of(label: &str) -> Option<PathBuf> {
    let label = label.strip_prefix("proxy:").unwrap_or(label);
    let (kind, name) = label.split_once(':').filter(|(_, name)| !name.starts_with('{'))?;
    lookup::index_file(kind, name).or_else(|| {
        let plain = matches!(kind, "texthash" | "regexp" | "pcre" | "cidr");
        plain.then(|| PathBuf::from(name))
    })
}
