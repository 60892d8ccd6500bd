//! master.cf: eight columns, and what follows the command.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Remarks;
use crate::lines::{is_space, logical_lines};
use crate::main_cf;
use crate::near::nearest;

/// One line of master.cf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// First column: `smtp`, `127.0.0.1:10025`, `[::1]:submission`, the name of a socket.
    pub name: String,
    /// Second column.
    pub kind: ServiceKind,
    /// Whether only the mail system may connect.
    pub private: bool,
    /// Whether it runs as `mail_owner`.
    pub unprivileged: bool,
    /// Whether the line asks for a chroot; `-` does not, whatever it stood for in former times.
    pub chroot: bool,
    /// When it is woken by itself.
    pub wakeup: Option<Wakeup>,
    /// How many sessions or deliveries at a time; `None` stands for no limit.
    pub maxproc: Option<u32>,
    /// The program, without its directory.
    pub command: String,
    /// Its arguments without `-o` and `-v`.
    pub args: Vec<String>,
    /// Its `-o name=value`, in their order; values unexpanded.
    pub overrides: Vec<(String, String)>,
    /// How many `-v`.
    pub verbosity: u8,
    /// Whether there is a process for it here.
    pub presence: Presence,
    /// The file it stands in.
    pub file: PathBuf,
    /// Its first line.
    pub line: u32,
    /// Its last line.
    pub last_line: u32,
}

/// Second column of master.cf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServiceKind {
    /// Listens on TCP.
    Inet,
    /// Listens on a UNIX stream socket.
    Unix,
    /// Is handed connections by another service.
    Pass,
    /// Listens on a UNIX datagram socket.
    UnixDgram,
    /// A named pipe, in old files; served as [`ServiceKind::Unix`].
    Fifo,
}

/// Sixth column of master.cf: how often, and whether only once it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakeup {
    /// Time between two wake-ups.
    pub every: Duration,
    /// `60?`: not before the service was used for the first time.
    pub only_if_used: bool,
}

/// What stands behind the command of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// One of our programs.
    Program,
    /// Postfix has a process for it; here its work is done elsewhere, so that nothing is started.
    Absorbed,
    /// Postfix has it and we do not have it yet; nothing is started.
    Missing,
}

/// Programs of this suite that master starts, sorted.
pub const PROGRAMS: &[&str] = &[
    "anvil",
    "bounce",
    "cleanup",
    "discard",
    "error",
    "lmtp",
    "local",
    "pickup",
    "pipe",
    "postscreen",
    "qmgr",
    "showq",
    "smtp",
    "smtpd",
    "spawn",
    "verify",
    "virtual",
];

/// Programs of Postfix whose work is done elsewhere here.
const ABSORBED: &[&str] =
    &["dnsblog", "flush", "postlogd", "proxymap", "scache", "tlsmgr", "tlsproxy", "trivial-rewrite"];

/// Programs of Postfix that do not exist here yet.
const MISSING: &[&str] = &["qmqpd"];

/// Former programs of Postfix, and what stands for them.
const FORMER: &[(&str, &str)] = &[("nqmgr", "qmgr"), ("oqmgr", "qmgr")];

/// Programs whose arguments are not options alone.
const TAKES_ARGUMENTS: &[&str] = &["pipe", "spawn"];

/// The eight columns of one service as they are written: what is edited and listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawService {
    /// The seven columns before the command.
    pub(crate) columns: [String; 7],
    /// The command and its arguments; `{ … }` is one argument without its braces.
    pub(crate) argv: Vec<Argument>,
    pub(crate) line: u32,
    pub(crate) last: u32,
}

/// One argument of a service's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Argument {
    pub(crate) text: String,
    pub(crate) braced: bool,
}

/// What a column needs to know that is set in main.cf.
pub(crate) struct Defaults {
    pub(crate) process_limit: u32,
}

/// The services of `source` in their order; of two with the same name and type the last one counts.
pub(crate) fn parse(source: &str, defaults: &Defaults, remarks: &mut Remarks<'_>) -> Vec<ServiceEntry> {
    let mut services: Vec<ServiceEntry> = Vec::new();
    let mut known: HashMap<(String, ServiceKind), usize> = HashMap::new();
    for raw in raw_services(source, remarks) {
        let Some(entry) = interpret(&raw, defaults, remarks) else { continue };
        let key = (entry.name.clone(), same_socket(entry.kind));
        match known.get(&key) {
            Some(&at) => {
                remarks.warning(
                    entry.line,
                    format!(
                        "service {} {} stands already in line {}; this one counts",
                        raw.columns[0], raw.columns[1], services[at].line
                    ),
                );
                services[at] = entry;
            }
            None => {
                known.insert(key, services.len());
                services.push(entry);
            }
        }
    }
    note_absorbed(&services, remarks);
    warn_of_chroot(&services, remarks);
    services
}

/// The lines of `source` in columns, without a look at what they mean.
pub(crate) fn raw_services(source: &str, remarks: &mut Remarks<'_>) -> Vec<RawService> {
    let mut services = Vec::new();
    for line in logical_lines(source) {
        if line.orphan {
            remarks.warning(
                line.number,
                "begins with white space and there is nothing above that it could continue; it is ignored",
            );
            continue;
        }
        match split_columns(&line.text) {
            Ok((columns, argv)) => {
                services.push(RawService { columns, argv, line: line.number, last: line.last });
            }
            Err(what) => remarks.error(line.number, what),
        }
    }
    services
}

/// One logical line in its columns.
pub(crate) fn split_columns(text: &str) -> Result<([String; 7], Vec<Argument>), String> {
    let mut rest = text.trim_matches(is_space);
    let mut columns: [String; 7] = Default::default();
    for (number, column) in (1..).zip(columns.iter_mut()) {
        let end = rest.find(is_space).unwrap_or(rest.len());
        if end == 0 {
            return Err(format!(
                "{} of 8 columns are there; a service is “name type private unpriv chroot wakeup maxproc command”",
                number - 1
            ));
        }
        rest[..end].clone_into(column);
        rest = rest[end..].trim_start_matches(is_space);
    }
    let argv = arguments(rest)?;
    if argv.is_empty() {
        return Err("the eighth column, the command, is missing".to_owned());
    }
    Ok((columns, argv))
}

fn arguments(mut rest: &str) -> Result<Vec<Argument>, String> {
    let mut list = Vec::new();
    loop {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            return Ok(list);
        }
        if rest.starts_with('{') {
            let mut depth = 0_usize;
            let end = rest.char_indices().find_map(|(at, c)| {
                depth = match c {
                    '{' => depth + 1,
                    '}' => depth - 1,
                    _ => depth,
                };
                (depth == 0).then_some(at)
            });
            let end = end.ok_or_else(|| format!("a {{ is not closed: “{rest}”"))?;
            let text = rest[1..end].trim_matches(is_space).to_owned();
            list.push(Argument { text, braced: true });
            rest = &rest[end + 1..];
            if rest.starts_with(|c| !is_space(c)) {
                return Err(format!("a blank must stand after “}}”, before “{rest}”"));
            }
        } else {
            let end = word_end(rest);
            list.push(Argument { text: rest[..end].to_owned(), braced: false });
            rest = &rest[end..];
        }
    }
}

/// Where a word ends: at white space that no braces enclose.
fn word_end(text: &str) -> usize {
    let mut depth = 0_usize;
    let end = text.char_indices().find(|(_, c)| {
        depth = match c {
            '{' => depth + 1,
            '}' => depth.saturating_sub(1),
            _ => depth,
        };
        depth == 0 && is_space(*c)
    });
    end.map_or(text.len(), |(at, _)| at)
}

/// A fifo of an old file and a UNIX socket are one thing here.
fn same_socket(kind: ServiceKind) -> ServiceKind {
    if kind == ServiceKind::Fifo { ServiceKind::Unix } else { kind }
}

fn interpret(raw: &RawService, defaults: &Defaults, remarks: &mut Remarks<'_>) -> Option<ServiceEntry> {
    let found = Columns { raw, defaults }.read();
    let mut entry = match found {
        Ok(entry) => entry,
        Err(what) => {
            remarks.error(raw.line, what);
            return None;
        }
    };
    entry.file.clone_from(&remarks.file);
    if entry.kind == ServiceKind::Inet && entry.private {
        if raw.columns[2] == "y" {
            remarks
                .warning(raw.line, "a service of type inet cannot be private; write n in the third column");
        }
        entry.private = false;
    }
    if let Err(what) = check_name(&entry) {
        remarks.error(raw.line, what);
        return None;
    }
    if let Some((former, now)) = FORMER.iter().find(|(former, _)| *former == entry.command) {
        remarks.note(raw.line, format!("{former} is a former program; {now} stands for it"));
        (*now).clone_into(&mut entry.command);
    }
    entry.presence = match presence_of(&entry.command) {
        // What is handed on by postscreen is served in its process.
        Ok(_) if entry.kind == ServiceKind::Pass => Presence::Absorbed,
        Ok(presence) => presence,
        Err(what) => {
            remarks.error(raw.line, what);
            return None;
        }
    };
    if entry.presence == Presence::Missing {
        remarks.warning(
            raw.line,
            format!("there is no {} yet: the service {} is not started", entry.command, entry.name),
        );
    }
    match read_arguments(&raw.argv[1..], &mut entry) {
        Ok(()) => Some(entry),
        Err(what) => {
            remarks.error(raw.line, what);
            None
        }
    }
}

/// Ports that master.cf files name and that a machine without /etc/services must know as well.
const WELL_KNOWN: [(&str, u16); 6] =
    [("smtp", 25), ("smtps", 465), ("submissions", 465), ("submission", 587), ("lmtp", 24), ("qmqp", 628)];

/// A port by number, by /etc/services, or by what everybody knows.
#[must_use]
pub fn port_number(name: &str) -> Option<u16> {
    if let Ok(number) = name.parse() {
        return Some(number).filter(|number| *number > 0);
    }
    let services = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let listed = services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (first, port) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (first == name || words.any(|alias| alias == name)).then(|| port.parse().ok())?
    });
    listed.or_else(|| WELL_KNOWN.iter().find(|(known, _)| *known == name).map(|(_, port)| *port))
}

impl ServiceEntry {
    /// The arguments without the braces that hold one together.
    #[must_use]
    pub fn plain_args(&self) -> Vec<String> {
        let plain = |arg: &String| match arg.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            Some(inner) => inner.trim_matches(is_space).to_owned(),
            None => arg.clone(),
        };
        self.args.iter().map(plain).collect()
    }

    /// Where a service of type inet listens, by its name `port`, `host:port` or `[v6]:port`: the host, if one is named,
    /// and the port. `None` for a name without a port.
    #[must_use]
    pub fn host_and_port(&self) -> Option<(Option<&str>, u16)> {
        let (host, port) = match self.name.rsplit_once(':') {
            Some((host, port)) => (host.trim_start_matches('[').trim_end_matches(']'), port),
            None => ("", self.name.as_str()),
        };
        Some((Some(host).filter(|host| !host.is_empty()), port_number(port)?))
    }
}

/// Whether there can be a socket of that name.
fn check_name(entry: &ServiceEntry) -> Result<(), String> {
    let name = &entry.name;
    if entry.kind == ServiceKind::Inet {
        entry.host_and_port().map(drop).ok_or_else(|| {
            let port = name.rsplit_once(':').map_or(name.as_str(), |(_, port)| port);
            format!("there is no port “{port}”; column 1 of a service of type inet is PORT or HOST:PORT")
        })
    } else if name.contains('/') || name.starts_with('.') {
        Err(format!(
            "the service name “{name}” would lead out of its folder; write a name without / and dots"
        ))
    } else {
        Ok(())
    }
}

/// Whether the seven columns are right; the command may be any.
pub(crate) fn interpret_strictly(raw: &RawService) -> Result<(), String> {
    let defaults = Defaults { process_limit: 100 };
    Columns { raw, defaults: &defaults }.read().map(drop)
}

struct Columns<'a> {
    raw: &'a RawService,
    defaults: &'a Defaults,
}

impl Columns<'_> {
    fn read(&self) -> Result<ServiceEntry, String> {
        let columns = &self.raw.columns;
        Ok(ServiceEntry {
            name: columns[0].clone(),
            kind: kind_of(&columns[1])?,
            private: self.flag(2, "private", true)?,
            unprivileged: self.flag(3, "unpriv", true)?,
            chroot: self.flag(4, "chroot", false)?,
            wakeup: wakeup_of(&columns[5])?,
            maxproc: self.maxproc()?,
            command: self.raw.argv.first().map(|command| command.text.clone()).unwrap_or_default(),
            args: Vec::new(),
            overrides: Vec::new(),
            verbosity: 0,
            presence: Presence::Program,
            file: PathBuf::new(),
            line: self.raw.line,
            last_line: self.raw.last,
        })
    }

    fn flag(&self, column: usize, title: &str, default: bool) -> Result<bool, String> {
        match self.raw.columns[column].as_str() {
            "-" => Ok(default),
            "y" => Ok(true),
            "n" => Ok(false),
            other => Err(format!("column {} ({title}) is “{other}”; it must be y, n or -", column + 1)),
        }
    }

    fn maxproc(&self) -> Result<Option<u32>, String> {
        let limit = match self.raw.columns[6].as_str() {
            "-" => self.defaults.process_limit,
            other => other.parse().map_err(|_| {
                format!("column 7 (maxproc) is “{other}”; it must be a number, or - for the default")
            })?,
        };
        Ok((limit > 0).then_some(limit))
    }
}

fn kind_of(text: &str) -> Result<ServiceKind, String> {
    const KINDS: [(&str, ServiceKind); 5] = [
        ("inet", ServiceKind::Inet),
        ("unix", ServiceKind::Unix),
        ("pass", ServiceKind::Pass),
        ("unix-dgram", ServiceKind::UnixDgram),
        ("fifo", ServiceKind::Fifo),
    ];
    KINDS.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind).ok_or_else(|| {
        format!("column 2 (type) is “{text}”; it must be inet, unix, pass, unix-dgram or fifo")
    })
}

fn wakeup_of(text: &str) -> Result<Option<Wakeup>, String> {
    if text == "-" {
        return Ok(None);
    }
    let (number, only_if_used) = text.strip_suffix('?').map_or((text, false), |number| (number, true));
    let seconds: u32 = number.parse().map_err(|_| {
        format!(
            "column 6 (wakeup) is “{text}”; it must be a number of seconds, perhaps with ?, or - for never"
        )
    })?;
    let every = Duration::from_secs(seconds.into());
    Ok((seconds > 0).then_some(Wakeup { every, only_if_used }))
}

fn presence_of(command: &str) -> Result<Presence, String> {
    if PROGRAMS.contains(&command) {
        Ok(Presence::Program)
    } else if ABSORBED.contains(&command) {
        Ok(Presence::Absorbed)
    } else if MISSING.contains(&command) {
        Ok(Presence::Missing)
    } else {
        let all = PROGRAMS.iter().chain(ABSORBED).chain(MISSING).copied();
        let hint = nearest(command, all).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        Err(format!("there is no program “{command}”{hint}"))
    }
}

/// Options of the command: `-o`, `-v`; `-D` (start a debugger) is of no use here.
fn read_arguments(argv: &[Argument], entry: &mut ServiceEntry) -> Result<(), String> {
    let mut rest = argv.iter();
    while let Some(argument) = rest.next() {
        let text = argument.text.as_str();
        if argument.braced {
            entry.args.push(format!("{{{text}}}"));
        } else if let Some(joined) = text.strip_prefix("-o") {
            let setting = if joined.is_empty() {
                rest.next().map(|next| next.text.as_str()).ok_or("“name=value” is missing after -o")?
            } else {
                joined
            };
            entry.overrides.push(read_override(setting, rest.as_slice())?);
        } else if !text.is_empty()
            && text.starts_with('-')
            && text[1..].bytes().all(|b| b == b'v')
            && text.len() > 1
        {
            let count = u8::try_from(text.len() - 1).unwrap_or(u8::MAX);
            entry.verbosity = entry.verbosity.saturating_add(count);
        } else if text == "-D" {
            // Postfix would start a debugger.
        } else if text.starts_with('-') || TAKES_ARGUMENTS.contains(&entry.command.as_str()) {
            entry.args.push(text.to_owned());
        } else {
            return Err(format!(
                "“{text}” is no option of {}; in “-o name=value” no blanks may stand around “=”",
                entry.command
            ));
        }
        // What follows the first argument of pipe and spawn is theirs, also if it looks like an option.
        if !entry.args.is_empty() && TAKES_ARGUMENTS.contains(&entry.command.as_str()) {
            entry.args.extend(rest.by_ref().map(Argument::as_written));
        }
    }
    Ok(())
}

fn read_override(setting: &str, after: &[Argument]) -> Result<(String, String), String> {
    if let Ok((name, value)) = main_cf::split(setting) {
        return Ok((name.to_owned(), value.to_owned()));
    }
    match after.first() {
        Some(next) if next.text.starts_with('=') => Err(format!(
            "no blanks may stand around “=” in “-o {setting} {}”; write “-o {setting}=VALUE” or “-o {{ {setting} = VALUE }}”",
            next.text
        )),
        _ => Err(format!("“-o {setting}” has no “=”; write “-o {setting}=VALUE”")),
    }
}

impl Argument {
    /// With its braces, if it had some.
    pub(crate) fn as_written(&self) -> String {
        if self.braced { format!("{{{}}}", self.text) } else { self.text.clone() }
    }
}

fn note_absorbed(services: &[ServiceEntry], remarks: &mut Remarks<'_>) {
    let absorbed: Vec<&ServiceEntry> =
        services.iter().filter(|entry| entry.presence == Presence::Absorbed).collect();
    if let Some(first) = absorbed.first() {
        let names: Vec<&str> = absorbed.iter().map(|entry| entry.name.as_str()).collect();
        let line = first.line;
        remarks.note(line, format!("no process of their own is needed here for: {}", names.join(", ")));
    }
}

/// Said where it was asked for; what was the default of old compatibility levels was nobody's wish.
fn warn_of_chroot(services: &[ServiceEntry], remarks: &mut Remarks<'_>) {
    let confined: Vec<&ServiceEntry> =
        services.iter().filter(|entry| entry.chroot && entry.presence == Presence::Program).collect();
    if let Some(first) = confined.first() {
        let names: Vec<&str> = confined.iter().map(|entry| entry.name.as_str()).collect();
        let what = format!("chroot (column 5) has no effect yet on: {}", names.join(", "));
        remarks.warning(first.line, what);
    }
}

#[cfg(test)]
mod tests {
    use super::{arguments, port_number, word_end};

    #[test]
    fn ports_have_names() {
        assert_eq!(port_number("smtp"), Some(25));
        assert_eq!(port_number("submissions"), Some(465));
        assert_eq!(port_number("10025"), Some(10025));
        assert_eq!(port_number("no-such-port"), None);
        assert_eq!(port_number("0"), None);
    }

    #[test]
    fn braces_hold_an_argument_together() {
        let written =
            |text: &str| arguments(text).unwrap().iter().map(super::Argument::as_written).collect::<Vec<_>>();
        assert_eq!(
            written("pipe user=x argv=sh -c { echo a; exit 1 } $x"),
            ["pipe", "user=x", "argv=sh", "-c", "{echo a; exit 1}", "$x"]
        );
        assert_eq!(written("a={ b c }d ${x y} e"), ["a={ b c }d", "${x y}", "e"]);
        assert!(arguments("{ open").is_err() && arguments("{a}b").is_err());
        assert_eq!(word_end("a}} b"), 3);
    }
}
