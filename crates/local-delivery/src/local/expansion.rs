//! From an alias or `.forward` file to its leaves: nested aliases and `:include:` files are followed to their ends.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use mail::{Address, Dsn};

use super::agent::LocalAgent;
use super::alias::{Alias, Rights, unavailable};
use super::include;
use super::routing::Routed;
use super::settings::Origin;
use crate::destination::{self, Destination};
use crate::failure::Failure;

/// The most destinations of one expansion. Beyond it, a mailing list manager is the better tool.
const MAX_DESTINATIONS: usize = 50_000;

/// How deep aliases, `.forward` files and `:include:` files nest.
pub(super) const MAX_DEPTH: usize = 100;

/// A destination that is not expanded further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// An address that this agent delivers.
    Local(Address),
    /// An address that goes elsewhere.
    Remote(Address),
    /// A user found in the expansion of his own name: past the alias, to `.forward` and mailbox.
    User(Address),
    /// A user past his `.forward`, too.
    Mailbox(String),
    /// A command, and whose rights it runs with.
    Command(String, Rights),
    /// A file or Maildir, and whose rights it is written with.
    File(PathBuf, Rights),
    /// A destination that is not allowed, or could not be expanded, and what to say.
    Refused(String, Failure),
    /// What an alias within the alias stands for: that one's address is what is said of it.
    Within(Address, Box<Leaf>),
}

impl Leaf {
    /// What tells it from the others of an expansion.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Local(address) | Self::Remote(address) => address.as_str().to_ascii_lowercase(),
            Self::User(address) => format!("\\\\{}", address.as_str().to_ascii_lowercase()),
            Self::Mailbox(name) => format!("\\{name}"),
            Self::Command(command, _) => format!("|{command}"),
            Self::File(path, _) => path.display().to_string(),
            Self::Refused(text, _) => text.clone(),
            Self::Within(_, leaf) => leaf.key(),
        }
    }

    /// As the end of this alias, unless it has an address of its own.
    fn within(self, alias: &Address) -> Self {
        match self {
            Self::Command(..) | Self::File(..) | Self::Refused(..) => {
                Self::Within(alias.clone(), Box::new(self))
            }
            other => other,
        }
    }
}

/// The names whose expansion led here: what stops circles.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    /// Aliases.
    pub(super) aliases: Vec<String>,
    /// Users whose `.forward` was read.
    pub(super) users: Vec<String>,
}

impl Trail {
    pub(super) fn depth(&self) -> usize {
        self.aliases.len() + self.users.len()
    }
}

/// An expansion under way.
pub(super) struct Expansion<'a> {
    agent: &'a LocalAgent,
    sender: &'a Address,
    seen: HashSet<String>,
    leaves: Vec<Leaf>,
    includes: usize,
}

/// Where destinations come from.
#[derive(Clone, Copy)]
struct Place<'a> {
    rights: &'a Rights,
    origin: Origin,
    /// An extension to be handed on.
    extension: Option<&'a str>,
}

impl<'a> Expansion<'a> {
    pub(super) fn new(agent: &'a LocalAgent, sender: &'a Address) -> Self {
        Self { agent, sender, seen: HashSet::new(), leaves: Vec::new(), includes: 0 }
    }

    /// Expands an alias whose name is on the trail.
    pub(super) fn alias(mut self, alias: &Alias, trail: &mut Trail) -> Result<Vec<Leaf>, Failure> {
        self.add_alias(alias, trail)?;
        Ok(self.leaves)
    }

    /// Expands text that has the form of an alias's right-hand side, as `luser_relay` has.
    pub(super) fn line(mut self, text: &str, trail: &mut Trail) -> Result<Vec<Leaf>, Failure> {
        let place = Place { rights: &Rights::Root, origin: Origin::Alias, extension: None };
        self.add(destination::parse_line(text), place, trail)?;
        Ok(self.leaves)
    }

    /// Expands the text of a `.forward` file of the user on top of the trail.
    pub(super) fn forward_file(
        mut self,
        text: &[u8],
        rights: &Rights,
        extension: Option<&str>,
        trail: &mut Trail,
    ) -> Result<Vec<Leaf>, Failure> {
        let place = Place { rights, origin: Origin::Forward, extension };
        let destinations = self.parse(text)?;
        self.add(destinations, place, trail)?;
        Ok(self.leaves)
    }

    fn add_alias(&mut self, alias: &Alias, trail: &mut Trail) -> Result<(), Failure> {
        let place =
            Place { rights: &alias.rights, origin: Origin::Alias, extension: alias.extension.as_deref() };
        self.add(destination::parse_line(&alias.value), place, trail)
    }

    fn parse(&self, text: &[u8]) -> Result<Vec<Destination>, Failure> {
        let limit = self.agent.settings.line_length_limit;
        destination::parse_file(text, limit, MAX_DESTINATIONS).map_err(|_| too_many())
    }

    fn add(&mut self, list: Vec<Destination>, place: Place<'_>, trail: &mut Trail) -> Result<(), Failure> {
        for destination in list {
            match destination {
                Destination::Address(address) => self.add_address(&address, place, trail)?,
                Destination::Mailbox(name) => self.push(Leaf::Mailbox(name.to_lowercase()))?,
                Destination::Command(command) => {
                    let allowed = self.agent.settings.commands_from.contain(place.origin);
                    let leaf = Leaf::Command(command, place.rights.clone());
                    self.push(if allowed { leaf } else { restricted(&leaf, "command") })?;
                }
                Destination::File(path) => self.add_file(path, place)?,
                Destination::HomeFile(path) => match place.rights {
                    Rights::User(user) => self.add_file(user.home.join(path), place)?,
                    Rights::Root => {
                        let text = format!("~/{}", path.display());
                        let failure = Failure::configuration(format_args!("{text}: an alias has no home"));
                        self.push(Leaf::Refused(text, failure))?;
                    }
                },
                Destination::Include(path) => self.add_include(&path, place, trail)?,
                Destination::Unfit(why) => {
                    self.push(Leaf::Refused(why.to_string(), Failure::configuration(why)))?;
                }
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: PathBuf, place: Place<'_>) -> Result<(), Failure> {
        let allowed = self.agent.settings.files_from.contain(place.origin);
        let leaf = Leaf::File(path, place.rights.clone());
        self.push(if allowed { leaf } else { restricted(&leaf, "file") })
    }

    fn add_address(&mut self, address: &Address, place: Place<'_>, trail: &mut Trail) -> Result<(), Failure> {
        let extended = self.extend(address, place);
        let routed = self.agent.routing.route(self.sender, extended.as_ref().unwrap_or(address));
        let address = match routed.map_err(|error| unavailable(&error))? {
            Routed::Remote(address) => return self.push(Leaf::Remote(address)),
            Routed::Local(address) => address,
        };
        let local = address.local_part().to_lowercase();
        let user = self.agent.settings.delimiters.split(&local).map_or(local.as_str(), |(user, _)| user);
        // His own name means his mailbox; a way back to him over others is a circle.
        if trail.users.last().is_some_and(|name| name == user) {
            return self.push(Leaf::Mailbox(user.to_owned()));
        }
        if trail.users.iter().any(|name| name == user) {
            let failure = Failure::bounce(Dsn::new(5, 4, 6), format!("mail forwarding loop for {address}"));
            return self.push(Leaf::Refused(address.as_str().to_owned(), failure));
        }
        match self.agent.find_alias(&local)? {
            Some(alias) if trail.aliases.contains(&alias.name) => {
                let names_itself =
                    place.origin != Origin::Forward && trail.aliases.last() == Some(&alias.name);
                let found_in = trail.aliases.last().unwrap_or(&alias.name);
                let refused = || Leaf::Refused(alias.name.clone(), too_deep(found_in));
                self.push(if names_itself { Leaf::User(address) } else { refused() })
            }
            Some(alias) if !self.agent.has_owner(&alias.name)? => self.add_nested(&alias, &address, trail),
            // A list with an owner of its own is expanded on its own.
            Some(_) | None => self.push(Leaf::Local(address)),
        }
    }

    fn add_nested(&mut self, alias: &Alias, address: &Address, trail: &mut Trail) -> Result<(), Failure> {
        if trail.depth() >= MAX_DEPTH {
            return Err(too_deep(&alias.name));
        }
        // A list that two others contain is expanded once.
        if !self.seen.insert(format!("{}:", alias.name)) {
            return Ok(());
        }
        trail.aliases.push(alias.name.clone());
        let before = self.leaves.len();
        let result = self.add_alias(alias, trail);
        trail.aliases.pop();
        let inside = self.leaves.split_off(before);
        self.leaves.extend(inside.into_iter().map(|leaf| leaf.within(address)));
        result
    }

    /// `propagate_unmatched_extensions`: the address with the extension that the alias's name lacked.
    fn extend(&self, address: &Address, place: Place<'_>) -> Option<Address> {
        let settings = &self.agent.settings;
        let extension = place.extension.filter(|_| settings.extensions_to.contain(place.origin))?;
        if settings.delimiters.split(address.local_part()).is_some() {
            return None;
        }
        let local = format!("{}{extension}", address.local_part());
        let extended = address.domain().map_or(local.clone(), |domain| format!("{local}@{domain}"));
        Address::new(extended).ok()
    }

    fn add_include(&mut self, path: &Path, place: Place<'_>, trail: &mut Trail) -> Result<(), Failure> {
        self.includes += 1;
        if self.includes > MAX_DEPTH {
            return Err(too_deep(&path.display().to_string()));
        }
        let (text, rights) = match self.agent.read_include(path, place.rights) {
            Ok(read) => read,
            Err(failure) => return self.push(Leaf::Refused(format!(":include:{}", path.display()), failure)),
        };
        let destinations = self.parse(&text)?;
        self.add(destinations, Place { rights: &rights, origin: Origin::Include, ..place }, trail)
    }

    fn push(&mut self, leaf: Leaf) -> Result<(), Failure> {
        if self.leaves.len() >= MAX_DESTINATIONS {
            return Err(too_many());
        }
        if self.seen.insert(leaf.key()) {
            self.leaves.push(leaf);
        }
        Ok(())
    }
}

impl LocalAgent {
    /// The text of an `:include:` file, and with whose rights its commands run and its files are written.
    fn read_include(&self, path: &Path, rights: &Rights) -> Result<(Vec<u8>, Rights), Failure> {
        if !path.is_absolute() {
            return Err(include::unusable(format_args!(":include:{} uses a relative path", path.display())));
        }
        let rights = match rights {
            Rights::User(_) => rights.clone(),
            Rights::Root => {
                let owner = include::least_trusted_owner(path).map_err(|error| {
                    let path = path.display();
                    include::unreadable(&error, format_args!("unable to lookup :include: file {path}"))
                })?;
                self.rights_of_uid(owner, format_args!(":include: file {}", path.display()))?
            }
        };
        let text = match &rights {
            // Root's file in root's folders: nobody else could have put anything there.
            Rights::Root => include::read(path)?,
            Rights::User(user) => {
                let _guard = self.instance.act_as(user.uid, user.gid)?;
                include::read(path)?
            }
        };
        Ok((text, rights))
    }
}

fn restricted(leaf: &Leaf, what: &str) -> Leaf {
    let failure = Failure::bounce(Dsn::new(5, 7, 1), format!("mail to {what} is restricted"));
    Leaf::Refused(leaf.key(), failure)
}

fn too_many() -> Failure {
    Failure::configuration(format_args!("an alias or list has more than {MAX_DESTINATIONS} destinations"))
}

pub(super) fn too_deep(name: &str) -> Failure {
    Failure::bounce(Dsn::new(5, 4, 6), format!("alias database loop for {name}"))
}
