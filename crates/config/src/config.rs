//! A configuration in use.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::expand::{self, ExpandError, Source};
use crate::host::{self, NetworkStyle};
use crate::main_cf::Setting;
use crate::master_cf::ServiceEntry;
use crate::parameter::{self, Kind, Param, Parameter, find, index_of};
use crate::transport;
use crate::value::{Value, split_list};

/// One generation of the configuration. Cheap to clone; never changes.
#[derive(Clone)]
pub struct Config {
    inner: Arc<Inner>,
}

/// The bytes of main.cf and master.cf: what master checked and hands to its children.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The content of main.cf.
    pub main_cf: Vec<u8>,
    /// The content of master.cf.
    pub master_cf: Vec<u8>,
}

struct Inner {
    directory: PathBuf,
    settings: Settings,
    services: Vec<ServiceEntry>,
    /// Names that main.cf makes up for itself and uses.
    own_names: Vec<String>,
    /// Values by row of the table, expanded when first asked for. None where each is asked for once or so.
    values: Box<[OnceLock<Box<str>>]>,
}

/// What is set, and what is asked of the host: enough to expand any text.
pub(crate) struct Settings {
    directory: PathBuf,
    set: HashMap<String, Setting>,
    host_name: OnceLock<String>,
    networks: OnceLock<String>,
}

impl Config {
    pub(crate) fn new(settings: Settings, services: Vec<ServiceEntry>, own_names: Vec<String>) -> Self {
        let values = (0..parameter::COUNT).map(|_| OnceLock::new()).collect();
        Self::with_room(settings, services, own_names, values)
    }

    /// One that remembers no value: for a command that ends before the room for all of them would be worth its making.
    pub(crate) fn brief(settings: Settings) -> Self {
        Self::with_room(settings, Vec::new(), Vec::new(), Box::default())
    }

    fn with_room(
        settings: Settings,
        services: Vec<ServiceEntry>,
        own_names: Vec<String>,
        values: Box<[OnceLock<Box<str>>]>,
    ) -> Self {
        let directory = settings.directory.clone();
        Self { inner: Arc::new(Inner { directory, settings, services, own_names, values }) }
    }

    /// The same configuration with another value of one parameter.
    #[must_use]
    pub fn with<T>(&self, parameter: Param<T>, value: &str) -> Self {
        self.with_text(parameter.name(), value)
    }

    /// The same configuration with another value of the parameter of this name.
    #[must_use]
    pub fn with_text(&self, name: &str, value: &str) -> Self {
        let settings = self.inner.settings.with(&[(name.to_owned(), value.to_owned())], 0);
        Self::new(settings, self.inner.services.clone(), self.inner.own_names.clone())
    }

    /// The value of a parameter.
    #[must_use]
    pub fn get<T: Value>(&self, parameter: Param<T>) -> T {
        parse_or_default(&self.value_at(parameter.index()), &parameter.row())
    }

    /// The expanded text of any name: a parameter, a user's own name such as a restriction class, or
    /// `TRANSPORT_…`. `None` if nothing has that name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        if let Some(index) = index_of(name) {
            return Some(self.value_at(index).into_owned());
        }
        let raw = self.inner.settings.lookup(name)?;
        Some(self.expand(&raw).unwrap_or_default())
    }

    /// The value of `TRANSPORT` + `suffix` (as in `_destination_concurrency_limit`) if it is set, else of `default`.
    #[must_use]
    pub fn for_transport<T: Value>(&self, transport: &str, suffix: &str, default: Param<T>) -> T {
        let name = format!("{transport}_{}", suffix.trim_start_matches('_'));
        if let Some(index) = index_of(&name) {
            return parse_or_default(&self.value_at(index), &default.row());
        }
        match self.inner.settings.set.get(&name) {
            Some(setting) => {
                parse_or_default(&self.expand(&setting.value).unwrap_or_default(), &default.row())
            }
            None => self.get(default),
        }
    }

    /// Expands `$name` and its relatives in `template`. Unknown names are empty.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn expand(&self, template: &str) -> Result<String, ExpandError> {
        expand::expand(&self.inner.settings, template)
    }

    /// The directory main.cf was read from.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The services of master.cf.
    #[must_use]
    pub fn services(&self) -> &[ServiceEntry] {
        &self.inner.services
    }

    /// Whether main.cf or an override sets `name`.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.inner.settings.contains(name)
    }

    /// The line of main.cf in which `name` is set; 0 for an override.
    #[must_use]
    pub fn line_of(&self, name: &str) -> Option<u32> {
        self.inner.settings.get(name).map(|setting| setting.line)
    }

    /// The text of any name before it is expanded.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<String> {
        // As it is written, also where a file's content stands for it.
        let set = self.inner.settings.get(name).map(|setting| setting.value.clone());
        set.or_else(|| self.inner.settings.lookup(name).map(Cow::into_owned))
    }

    /// The names that main.cf makes up for itself and uses, such as restriction classes.
    #[must_use]
    pub fn own_names(&self) -> &[String] {
        &self.inner.own_names
    }

    /// What names are looked up in.
    pub(crate) fn source(&self) -> &Settings {
        &self.inner.settings
    }

    fn value_at(&self, index: usize) -> Cow<'_, str> {
        let value = || self.inner.settings.value_of(&parameter::at(index)).unwrap_or_default();
        match self.inner.values.get(index) {
            Some(known) => Cow::Borrowed(known.get_or_init(|| value().into_boxed_str())),
            None => Cow::Owned(value()),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("directory", &self.inner.directory).finish_non_exhaustive()
    }
}

/// Values were checked when they were loaded: the way over the default is for what cannot happen.
fn parse_or_default<T: Value>(text: &str, row: &Parameter) -> T {
    T::parse(text, row).or_else(|_| T::parse(row.default, row)).unwrap_or_default()
}

impl Settings {
    pub(crate) fn new(directory: &Path, set: HashMap<String, Setting>) -> Self {
        Self { directory: directory.to_owned(), set, host_name: OnceLock::new(), networks: OnceLock::new() }
    }

    pub(crate) fn with(&self, overrides: &[(String, String)], line: u32) -> Self {
        let mut set = self.set.clone();
        for (name, value) in overrides {
            let setting = Setting { name: name.clone(), value: value.clone(), line, last: line };
            set.insert(name.clone(), setting);
        }
        Self::new(&self.directory, set)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Setting> {
        self.set.get(name)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.set.contains_key(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.set.values()
    }

    /// The expanded value of a parameter.
    pub(crate) fn value_of(&self, row: &Parameter) -> Result<String, ExpandError> {
        let raw = self.lookup(row.name).unwrap_or_default();
        if row.kind == Kind::Raw { Ok(raw.into_owned()) } else { expand::expand(self, &raw) }
    }

    /// The value of a parameter that is asked of the host or of this process.
    fn computed(&self, name: &str) -> Option<Cow<'_, str>> {
        Some(match name {
            "myhostname" => self.host_name().into(),
            "mydomain" => self.domain().into(),
            "mynetworks" => self.networks.get_or_init(|| self.own_networks()).as_str().into(),
            "config_directory" => self.directory.to_string_lossy().into_owned().into(),
            "process_id" => std::process::id().to_string().into(),
            "process_name" => process_name().into(),
            "mail_version" => env!("CARGO_PKG_VERSION").into(),
            _ => return None,
        })
    }

    /// Completed with `mydomain` where the host knows itself by a short name.
    fn host_name(&self) -> String {
        let name = self.host_name.get_or_init(host::name);
        if name.contains('.') {
            return name.clone();
        }
        let domain = self.expanded("mydomain");
        let domain = domain.as_deref().unwrap_or(LOCAL_DOMAIN);
        format!("{name}.{domain}")
    }

    /// What follows the first dot of `myhostname`.
    fn domain(&self) -> String {
        let set = self.expanded("myhostname");
        let name = set.as_deref().unwrap_or_else(|| self.host_name.get_or_init(host::name));
        name.split_once('.').map_or(LOCAL_DOMAIN, |(_, domain)| domain).to_owned()
    }

    /// The value of `name` if main.cf sets it.
    fn expanded(&self, name: &str) -> Option<String> {
        self.set.get(name).and_then(|setting| expand::expand(&Plain(self), &setting.value).ok())
    }

    fn own_networks(&self) -> String {
        let plain = Plain(self);
        let value = |name: &str| {
            plain.lookup(name).and_then(|raw| expand::expand(&plain, &raw).ok()).unwrap_or_default()
        };
        let style = match value("mynetworks_style").as_str() {
            "subnet" => NetworkStyle::Subnet,
            "class" => NetworkStyle::Class,
            _ => NetworkStyle::Host,
        };
        let protocols = split_list(&value("inet_protocols"));
        let has = |name: &str| protocols.iter().any(|item| item == name || item == "all");
        host::networks(style, &split_list(&value("inet_interfaces")), has("ipv4"), has("ipv6"))
    }
}

/// The domain of a host that knows none.
const LOCAL_DOMAIN: &str = "localdomain";

impl Source for Settings {
    fn lookup(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(setting) = self.set.get(name) {
            // Debian's convention: a file whose first line is the name.
            if name == "myorigin" && setting.value.starts_with('/') {
                return Some(first_line(&setting.value).unwrap_or_default().replace('$', "$$").into());
            }
            return Some(setting.value.as_str().into());
        }
        if let Some(computed) = self.computed(name) {
            return Some(computed);
        }
        if let Some(row) = find(name) {
            return Some(row.default.into());
        }
        let (_, default) = transport::default_of(name)?;
        Some(format!("${default}").into())
    }
}

/// What the computed values are computed from: the same, without themselves, so that `mydomain = $myhostname` ends.
struct Plain<'a>(&'a Settings);

impl Source for Plain<'_> {
    fn lookup(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(setting) = self.0.set.get(name) {
            return Some(setting.value.as_str().into());
        }
        match name {
            "myhostname" => Some(self.0.host_name.get_or_init(host::name).as_str().into()),
            "mydomain" => Some(LOCAL_DOMAIN.into()),
            _ => find(name).map(|row| row.default.into()),
        }
    }
}

/// The first line of a file such as `/etc/mailname`.
pub(crate) fn first_line(path: &str) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn process_name() -> String {
    std::env::args_os()
        .next()
        .and_then(|path| Some(Path::new(&path).file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_default()
}
