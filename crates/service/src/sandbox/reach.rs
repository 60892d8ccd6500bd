//! From the table and a configuration to paths and ports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use config::{Config, Kind, ServiceKind, param, parameters};
use sys::sandbox::files::{FileAccess, Reach};

use super::table::{MAILBOX_ACCESS, Place, Ports};

/// What everybody may read: the time zone for the log, and where nothing and chance come from.
const EVERYBODY: [&str; 4] = ["/etc/localtime", "/usr/share/zoneinfo", "/dev/null", "/dev/urandom"];

/// [`Place::Names`]. `/run` and `/var` are those of systemd and sssd, which know users, and of systemd's resolver.
const NAMES: [&str; 9] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/run/systemd/userdb",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/var/lib/sss",
];

/// Lists whose paths are not read by daemons, or only where a place of their own says so.
const NOT_READ: [&str; 7] = [
    "alias_database",
    "export_environment",
    "import_environment",
    "maillog_file_prefixes",
    "proxy_read_maps",
    "proxy_write_maps",
    "sandbox_writable_directories",
];

const DNS: u16 = 53;

/// The largest table that is searched for tokens.
const MAX_TABLE: u64 = 16 * 1024 * 1024;

/// The texts of a configuration that a program may take files and ports from.
pub(super) struct Texts<'a> {
    program: &'a str,
    configs: Vec<Config>,
}

impl<'a> Texts<'a> {
    /// Of a service with this configuration. A server that holds the sessions of another service has that one's, too.
    pub(super) fn new(program: &'a str, config: &Config) -> Self {
        let mut configs = vec![config.clone()];
        if program == "postscreen" {
            let passed = config.services().iter().filter(|entry| entry.kind == ServiceKind::Pass);
            configs.extend(passed.map(|entry| {
                let apply = |config: Config, (name, value): &(String, String)| config.with_text(name, value);
                entry.overrides.iter().fold(config.clone(), apply)
            }));
        }
        Self { program, configs }
    }

    /// The reach of the places and ports of a row.
    pub(super) fn reach(&self, places: &[Place], connects: Ports) -> Reach {
        let files = self.files(places).map(|files| files.into_iter().collect());
        let connect = match connects {
            Ports::None => Some(Vec::new()),
            Ports::Named => Some(self.ports().into_iter().collect()),
            Ports::Any => None,
        };
        // A client may be told which address to come from, at a port that the kernel chooses.
        let bind = if connects == Ports::Any { vec![0] } else { Vec::new() };
        Reach { files, connect, bind }
    }

    /// `None` for the whole file system.
    fn files(&self, places: &[Place]) -> Option<BTreeSet<(PathBuf, FileAccess)>> {
        let config = &self.configs[0];
        let queue: PathBuf = config.get(param::QUEUE_DIRECTORY);
        let mut files: BTreeSet<(PathBuf, FileAccess)> = BTreeSet::new();
        let mut add = |path: PathBuf, access| {
            // Landlock knows files, not names: what a link leads to is what counts.
            if let Ok(real) = path.canonicalize()
                && real != path
            {
                files.insert((real, access));
            }
            files.insert((path, access));
        };
        EVERYBODY.iter().for_each(|path| add(PathBuf::from(path), FileAccess::Read));
        // Debian's convention: a file whose first line is the name; it is read whenever the value is asked for.
        if let Some(path) = config.raw("myorigin").filter(|value| value.starts_with('/')) {
            add(PathBuf::from(path), FileAccess::Read);
        }
        for place in places {
            match *place {
                Place::Queue(folder, access) => add(queue.join(folder), access),
                Place::Data(access) => add(config.get(param::DATA_DIRECTORY), access),
                Place::Names => NAMES.iter().for_each(|path| add(PathBuf::from(path), FileAccess::Read)),
                Place::Tables => self.table_folders().into_iter().for_each(|p| add(p, FileAccess::Read)),
                Place::Cache(name) => {
                    let text = config.text(name).unwrap_or_default();
                    tables_in(&text).iter().filter_map(|path| path.parent()).for_each(|folder| {
                        add(folder.to_owned(), FileAccess::Change);
                    });
                }
                Place::Journals => add(PathBuf::from("/proc/fs/jbd2"), FileAccess::List),
                Place::Mailboxes => {
                    let base: PathBuf = config.get(param::VIRTUAL_MAILBOX_BASE);
                    if base.as_os_str().is_empty() {
                        return None;
                    }
                    add(base, MAILBOX_ACCESS);
                }
            }
        }
        for folder in config.get(param::SANDBOX_DIRECTORIES) {
            add(PathBuf::from(folder), FileAccess::Read);
        }
        for folder in config.get(param::SANDBOX_WRITABLE_DIRECTORIES) {
            add(PathBuf::from(folder), MAILBOX_ACCESS);
        }
        Some(files)
    }

    /// The folders of all files that the parameters name, with those that links lead to.
    fn table_folders(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        for config in &self.configs {
            files.insert(config.directory().join("main.cf"));
            self.each_text(config, |text, kind| {
                files.extend(tables_in(text));
                if matches!(kind, Kind::List | Kind::Path) {
                    files.extend(bare_paths_in(text));
                }
            });
        }
        for (text, _) in self.password_tables() {
            files.extend(words_after(&text, "token-file:").into_iter().map(PathBuf::from));
        }
        let folder_of = |path: &Path| -> Option<PathBuf> {
            if path.is_dir() { Some(path.to_owned()) } else { path.parent().map(Path::to_owned) }
        };
        let mut folders: BTreeSet<PathBuf> = files.iter().filter_map(|path| folder_of(path)).collect();
        // Each link on the way is in a folder, and leads to another: certificates are often links to archives.
        folders.extend(files.iter().filter_map(|path| folder_of(&path.canonicalize().ok()?)));
        folders.remove(Path::new("/"));
        folders
    }

    /// Every text of the configuration that is this program's business, and what kind of value it is.
    fn each_text(&self, config: &Config, mut visit: impl FnMut(&str, Kind)) {
        let rows = parameters().filter(|row| self.concerns(row.name));
        for row in rows {
            let is_place = row.kind == Kind::Path && !is_read_path(row.name);
            if let Some(text) = config.text(row.name).filter(|text| !is_place && text.contains(['/', ':'])) {
                let kind = if is_read_path(row.name) { Kind::Path } else { row.kind };
                visit(&text, kind);
            }
        }
        // Classes of restrictions.
        let classes = ["smtpd", "postscreen"].contains(&self.program).then(|| config.own_names());
        for name in classes.into_iter().flatten() {
            config.text(name).iter().for_each(|text| visit(text, Kind::List));
        }
    }

    /// What belongs to another side's program alone is left out: passwords for other servers are no business of ours'.
    fn concerns(&self, name: &str) -> bool {
        if ["error", "discard"].contains(&self.program) {
            // What all agents share, and nothing else.
            return name.ends_with("_delivery_status_filter");
        }
        let is_client = ["smtp", "lmtp"].contains(&self.program);
        let is_server = ["smtpd", "postscreen"].contains(&self.program);
        let of_client = name.starts_with("smtp_") || name.starts_with("lmtp_");
        let of_server = name.starts_with("smtpd_") || name.starts_with("postscreen_");
        let is_cache =
            name == "address_verify_map" || name.ends_with("_cache_map") || name.ends_with("_cache_database");
        !is_cache && !NOT_READ.contains(&name) && (is_client || !of_client) && (is_server || !of_server)
    }

    /// The DNS, and the ports that the server's parameters name.
    fn ports(&self) -> BTreeSet<u16> {
        let mut ports = BTreeSet::from([DNS]);
        for config in &self.configs {
            self.each_text(config, |text, _| ports.extend(ports_in(text)));
        }
        ports
    }

    /// The contents of tables of passwords for other servers, with their names; for those programs alone that log in.
    fn password_tables(&self) -> Vec<(String, String)> {
        let names = [format!("{}_sasl_password_maps", self.program)];
        let values = self.configs.iter().flat_map(|config| names.iter().filter_map(|name| config.text(name)));
        let mut found = Vec::new();
        for value in values {
            for path in tables_in(&value) {
                let index = PathBuf::from(format!("{}.db", path.display()));
                found.extend([path, index].into_iter().filter_map(|path| {
                    let is_small = std::fs::metadata(&path).is_ok_and(|file| file.len() <= MAX_TABLE);
                    let bytes = is_small.then(|| std::fs::read(&path).ok()).flatten()?;
                    Some((String::from_utf8_lossy(&bytes).into_owned(), path.display().to_string()))
                }));
            }
            found.push((value.clone(), value));
        }
        found
    }

    /// The table of passwords in which one is to be got by a command.
    pub(super) fn names_command(&self) -> Option<String> {
        self.password_tables()
            .into_iter()
            .find(|(text, _)| text.contains("token-command:"))
            .map(|(_, name)| name)
    }
}

/// Parameters that are a single path to be read, and not a list or a table.
fn is_read_path(name: &str) -> bool {
    const ENDS: [&str; 5] = ["_file", "_CAfile", "_CApath", "_sasl_path", "_sasl_local_path"];
    ENDS.iter().any(|end| name.ends_with(end)) && name != "maillog_file"
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || ",{}=".contains(c)).filter(|word| !word.is_empty())
}

/// The files of `type:/path` in a text. Sockets are none.
fn tables_in(text: &str) -> Vec<PathBuf> {
    let path_of = |word: &str| {
        let (kind, path) = word.split_once(":/")?;
        let kind = kind.rsplit(':').next().unwrap_or_default().trim_start_matches('!');
        let is_type = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let no_table = ["unix", "inet", "http", "https", "local", "dev", "egd"].contains(&kind);
        (is_type && !no_table).then(|| PathBuf::from(format!("/{path}")))
    };
    words(text).filter_map(path_of).collect()
}

/// The words of a list that are paths: files of patterns, certificates.
fn bare_paths_in(text: &str) -> Vec<PathBuf> {
    let bare = words(text).map(|word| word.trim_start_matches('!'));
    bare.filter(|word| word.starts_with('/') && word.len() > 1).map(PathBuf::from).collect()
}

/// The ports of `host:port` and `inet:host:port`, by number or by name.
fn ports_in(text: &str) -> Vec<u16> {
    let port_of = |word: &str| {
        let (before, port) = word.rsplit_once(':')?;
        let is_named = before.starts_with("inet:") || before.contains(":inet:");
        let is_number = port.bytes().all(|b| b.is_ascii_digit());
        if is_number || is_named { config::port_number(port) } else { None }
    };
    words(text).filter_map(port_of).collect()
}

/// The words that follow this mark.
fn words_after(text: &str, mark: &str) -> Vec<String> {
    let ends = |c: char| c.is_whitespace() || c.is_control() || c == '\u{fffd}';
    text.split(mark).skip(1).filter_map(|rest| rest.split(ends).next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_ports_are_found_in_the_ways_they_are_written() {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        let text =
            "hash:/etc/a, proxy:regexp:/b/c static:x !cidr:/d pipemap:{lmdb:/e/f,inline:{x=y}} unix:/run/s";
        assert_eq!(tables_in(text), paths(&["/etc/a", "/b/c", "/d", "/e/f"]));
        assert_eq!(
            bare_paths_in("/etc/domains, !/etc/others example.com"),
            paths(&["/etc/domains", "/etc/others"])
        );
        let text = "check_policy_service inet:127.0.0.1:10023, inet:host:submission [::1]:10025 permit";
        assert_eq!(ports_in(text), [10023, 587, 10025]);
        assert_eq!(words_after("a user:token-file:/run/t\nb", "token-file:"), ["/run/t"]);
    }
}
