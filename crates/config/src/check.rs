//! Judging what main.cf and master.cf say.
//!
//! Rule: what works in Postfix is not refused. An error is what Postfix itself would stop at, and a name that nothing
//! uses and that is nearly the name of a parameter: one such slip of the pen has left a relay open.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::path::Path;

use crate::config::{Settings, first_line};
use crate::diagnostic::{Diagnostic, Remarks};
use crate::expand::{self, Source};
use crate::lines::{LineKind, is_space, kind_of};
use crate::listeners;
use crate::main_cf::Setting;
use crate::master_cf::ServiceEntry;
use crate::near::nearest;
use crate::parameter::{Kind, Parameter, find, param, parameters};
use crate::transport;
use crate::value::{self, split_list};

/// Both files against the table. Returns the names that main.cf makes up for itself and uses, sorted.
pub(crate) fn all(
    settings: &Settings,
    services: &[ServiceEntry],
    main: &Path,
    master: &Path,
    found: &mut Vec<Diagnostic>,
) -> Vec<String> {
    let names = Names::gather(settings, services);
    let mut remarks = Remarks { file: main.to_owned(), list: found };
    let mut in_order: Vec<&Setting> = settings.iter().collect();
    in_order.sort_by_key(|setting| setting.line);
    for setting in in_order {
        one_setting(settings, setting, &names, &mut remarks);
    }
    inherited_values(settings, parameters(), &mut remarks);
    sizes(settings, &mut remarks);
    log_file(settings, &mut remarks);

    let mut remarks = Remarks { file: master.to_owned(), list: found };
    listeners::clashes(settings, services, &mut remarks);
    for service in services.iter().filter(|service| !service.overrides.is_empty()) {
        let overlay = settings.with(&service.overrides, service.line);
        for (name, _) in &service.overrides {
            if let Some(setting) = overlay.get(name) {
                one_setting(&overlay, setting, &names, &mut remarks);
            }
        }
    }

    let own = |name: &str| find(name).is_none() && transport::default_of(name).is_none() && names.uses(name);
    let mut own: Vec<String> =
        settings.iter().map(|setting| setting.name.clone()).filter(|name| own(name)).collect();
    own.sort();
    own
}

/// Main.cf, as far as these parameters are concerned.
pub(crate) fn only(settings: &Settings, names: &[&str], main: &Path, found: &mut Vec<Diagnostic>) {
    let mut remarks = Remarks { file: main.to_owned(), list: found };
    let is_judged = |setting: &&Setting| names.contains(&&*setting.name) || find(&setting.name).is_none();
    let mut judged: Vec<&Setting> = settings.iter().filter(is_judged).collect();
    judged.sort_by_key(|setting| setting.line);
    let all_names = OnceCell::new();
    for setting in judged {
        one_setting(settings, setting, all_names.get_or_init(|| Names::gather(settings, &[])), &mut remarks);
    }
    inherited_values(settings, names.iter().filter_map(|name| find(name)), &mut remarks);
}

/// Settings of a command line.
pub(crate) fn overrides(settings: &Settings, overrides: &[(String, String)], found: &mut Vec<Diagnostic>) {
    let mut remarks = Remarks { file: "-o".into(), list: found };
    for (name, _) in overrides {
        if let (Some(row), Some(setting)) = (find(name), settings.get(name)) {
            check_value(settings, setting, &row, &mut remarks);
        }
    }
}

/// `name = value # comment`: the comment would be part of the value.
pub(crate) fn trailing_comments(source: &str, remarks: &mut Remarks<'_>) {
    for (number, line) in (1..).zip(source.split('\n')) {
        if kind_of(line) == LineKind::Ignored {
            continue;
        }
        if let Some(at) = line.find(" #").or_else(|| line.find("\t#")) {
            let comment = line[at..].trim_matches(is_space);
            remarks.warning(
                number,
                format!("“{comment}” is part of the value; a comment must stand on a line of its own"),
            );
        }
    }
}

/// Which names mean something besides the table's.
struct Names {
    /// Referred to as `$name` by some value.
    referred: HashSet<String>,
    /// Restriction classes.
    classes: HashSet<String>,
    /// The services of master.cf, for `TRANSPORT_…`.
    transports: HashSet<String>,
    /// `ldap:NAME` and the like of former times: main.cf then holds `NAME_server_host` and so on.
    prefixes: Vec<String>,
}

impl Names {
    fn gather(settings: &Settings, services: &[ServiceEntry]) -> Self {
        let mut names = Self {
            referred: HashSet::new(),
            classes: HashSet::new(),
            transports: services.iter().map(|service| service.name.clone()).collect(),
            prefixes: Vec::new(),
        };
        for setting in settings.iter() {
            names.take(settings, &setting.name, &setting.value);
        }
        for service in services {
            for (name, value) in &service.overrides {
                names.take(settings, name, value);
            }
            for argument in &service.args {
                names.referred.extend(expand::names_in(argument).into_iter().map(str::to_owned));
            }
        }
        names
    }

    fn take(&mut self, settings: &Settings, name: &str, value: &str) {
        const IN_MAIN_CF: [&str; 5] = ["ldap:", "mysql:", "pgsql:", "sqlite:", "memcache:"];
        self.referred.extend(expand::names_in(value).into_iter().map(str::to_owned));
        if name == param::SMTPD_RESTRICTION_CLASSES.name() {
            self.classes.extend(split_list(&expand::expand(settings, value).unwrap_or_default()));
        }
        for item in value.split([',', ' ', '\t', '{', '}']) {
            let item = item.strip_prefix("proxy:").unwrap_or(item);
            let table = IN_MAIN_CF.iter().find_map(|kind| item.strip_prefix(kind));
            if let Some(table) = table.filter(|table| !table.starts_with(['/', '.'])) {
                self.prefixes.push(format!("{table}_"));
            }
        }
    }

    fn uses(&self, name: &str) -> bool {
        self.referred.contains(name)
            || self.classes.contains(name)
            || self.prefixes.iter().any(|prefix| name.starts_with(prefix))
    }
}

fn one_setting(settings: &Settings, setting: &Setting, names: &Names, remarks: &mut Remarks<'_>) {
    let name = setting.name.as_str();
    if let Some(row) = find(name) {
        if check_value(settings, setting, &row, remarks) {
            status(settings, setting, &row, remarks);
        }
    } else if let Some((service, default)) = transport::default_of(name) {
        let row = find(default);
        if let Some(row) = row {
            check_value(settings, setting, &row, remarks);
        }
        if let Some(row) = row.filter(|row| !row.implemented) {
            remarks.warning(setting.line, without_effect(name, &row));
        } else if !names.transports.contains(service) && !names.uses(name) {
            remarks
                .warning(setting.line, format!("{name} has no effect: master.cf has no service {service}"));
        }
    } else if names.uses(name) {
        check_text(settings, setting, remarks);
    } else if let Some(near) = nearest(name, parameters().map(|row| row.name)) {
        remarks.error(setting.line, format!("there is no parameter {name}; did you mean {near}?"));
    } else {
        remarks.warning(setting.line, format!("there is no parameter {name}, and nothing refers to ${name}"));
    }
}

/// Paths on which programs with different working directories must agree.
const ABSOLUTE: [&str; 5] =
    ["command_directory", "daemon_directory", "data_directory", "maillog_file", "queue_directory"];

/// Whether the value is one that the parameter can have.
fn check_value(settings: &Settings, setting: &Setting, row: &Parameter, remarks: &mut Remarks<'_>) -> bool {
    if row.kind == Kind::Raw {
        return true;
    }
    let Some(text) = check_text(settings, setting, remarks) else { return false };
    let name = setting.name.as_str();
    if name == param::MYORIGIN.name() && setting.value.starts_with('/') {
        let found = first_line(&setting.value);
        if let Err(error) = &found {
            remarks.error(setting.line, format!("{name} = {}: cannot be read: {error}", setting.value));
        }
        return found.is_ok();
    }
    let judged = if name == param::COMPATIBILITY_LEVEL.name() {
        expand::level(&text).map(drop).map_err(|_| "must be a version such as 3.6".to_owned())
    } else if ABSOLUTE.contains(&name) && !text.is_empty() && !text.starts_with('/') {
        Err("must begin with /".to_owned())
    } else {
        value::check(&text, row)
    };
    if let Err(right) = &judged {
        let from =
            if text == setting.value { String::new() } else { format!(" (from “{}”)", setting.value) };
        remarks.error(setting.line, format!("{name} = {text}{from}: {right}"));
    }
    judged.is_ok()
}

/// Expands a value, and remarks upon what it refers to in vain.
fn check_text(settings: &Settings, setting: &Setting, remarks: &mut Remarks<'_>) -> Option<String> {
    let mut missing = Vec::new();
    let expanded = expand::expand_noting(settings, &setting.value, &mut missing);
    for name in missing {
        match nearest(&name, parameters().map(|row| row.name)) {
            Some(near) => remarks.error(
                setting.line,
                format!("{}: ${name} is not defined; did you mean ${near}?", setting.name),
            ),
            None => remarks.warning(
                setting.line,
                format!("{}: ${name} is not defined and counts as empty", setting.name),
            ),
        }
    }
    match expanded {
        Ok(text) => Some(text),
        Err(error) => {
            remarks.error(setting.line, format!("{}: {error}", setting.name));
            None
        }
    }
}

/// Former names, and what has no effect here.
fn status(settings: &Settings, setting: &Setting, row: &Parameter, remarks: &mut Remarks<'_>) {
    if let Some(instead) = row.deprecated {
        remarks.note(setting.line, format!("{} is a former name; use {instead}", row.name));
    }
    let heir = row.deprecated.and_then(find);
    if row.implemented || (row.instead.is_none() && heir.is_some_and(|heir| heir.implemented)) {
        return;
    }
    // A value that changes nothing needs no remark.
    let default = expand::expand(settings, row.default).unwrap_or_default();
    let value = expand::expand(settings, &setting.value).unwrap_or_default();
    if value != default && Some(value.as_str()) != row.inert {
        remarks.warning(setting.line, without_effect(row.name, row));
    }
}

fn without_effect(name: &str, row: &Parameter) -> String {
    match row.instead {
        Some(instead) => format!("{name} has no effect: {instead}"),
        None => format!("{name} is not implemented yet and has no effect"),
    }
}

/// Defaults that refer to what was set may have become wrong by it.
fn inherited_values(settings: &Settings, rows: impl Iterator<Item = Parameter>, remarks: &mut Remarks<'_>) {
    let can_be_wrong = |row: &Parameter| {
        matches!(row.kind, Kind::Bool | Kind::Int | Kind::Time | Kind::Choice | Kind::Rate | Kind::Feedback)
    };
    let inherits = |row: &Parameter| row.default.contains('$') && !settings.contains(row.name);
    for row in rows.filter(can_be_wrong).filter(inherits) {
        let culprit = expand::names_in(row.default).into_iter().find_map(|name| settings.get(name));
        let Some(culprit) = culprit else { continue };
        let is_bad_itself = find(&culprit.name)
            .is_some_and(|row| settings.value_of(&row).is_ok_and(|text| value::check(&text, &row).is_err()));
        if is_bad_itself {
            continue;
        }
        if let Ok(text) = settings.value_of(&row)
            && let Err(right) = value::check(&text, &row)
        {
            remarks.error(
                culprit.line,
                format!(
                    "{} = {}: {}, which takes its value from it, {right}",
                    culprit.name, culprit.value, row.name
                ),
            );
        }
    }
}

/// A mailbox that cannot take the largest message would return mail that was accepted.
fn sizes(settings: &Settings, remarks: &mut Remarks<'_>) {
    let number = |name: &str| -> Option<u64> {
        settings.lookup(name).and_then(|text| expand::expand(settings, &text).ok()?.parse().ok())
    };
    let Some(message) = number("message_size_limit") else { return };
    for name in ["mailbox_size_limit", "virtual_mailbox_limit"] {
        let Some(mailbox) = number(name) else { continue };
        let culprit = settings.get("message_size_limit").or_else(|| settings.get(name));
        let too_small = mailbox > 0 && (mailbox < message || message == 0);
        if let Some(culprit) = culprit.filter(|_| too_small) {
            remarks.warning(
                culprit.line,
                format!("{name} ({mailbox}) is smaller than message_size_limit ({message}); raise it, or set it to 0"),
            );
        }
    }
}

/// A slip in `maillog_file` must not make root append to any file there is.
fn log_file(settings: &Settings, remarks: &mut Remarks<'_>) {
    let Some(setting) = settings.get(param::MAILLOG_FILE.name()) else { return };
    let path = settings.value_of(&param::MAILLOG_FILE.row()).unwrap_or_default();
    let prefixes = settings.value_of(&param::MAILLOG_FILE_PREFIXES.row()).unwrap_or_default();
    let lies_in = |prefix: &String| {
        let rest = path.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if path.starts_with('/') && !split_list(&prefixes).iter().any(lies_in) {
        remarks.error(
            setting.line,
            format!("maillog_file = {path}: must lie in one of maillog_file_prefixes, which is “{prefixes}”"),
        );
    }
}
