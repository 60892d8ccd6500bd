//! What this machine's files say: configuration, tables, folders, space, clock.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use config::{Config, Diagnostic, Severity, Snapshot, param};
use lookup::recipient_check::Verdict;
use lookup::{OpenError, RecipientCheck};
use mail::Address;
use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, User};

use crate::finding::Report;

/// Less of the whole is soon nothing.
const FEW_PERCENT: u64 = 5;

/// All of it.
pub(crate) fn check(
    config: &Config,
    snapshot: &Snapshot,
    remarks: &[Diagnostic],
    domain: &str,
    report: &mut Report,
) {
    configuration(config, snapshot, remarks, report);
    tables(config, report);
    postmaster(config, domain, report);
    queue(config, report);
    mailboxes(config, report);
    clock(report);
}

fn configuration(config: &Config, snapshot: &Snapshot, remarks: &[Diagnostic], report: &mut Report) {
    let mut remarks = remarks.to_vec();
    match ipc::check::ask_all(config, snapshot) {
        Ok(found) => remarks.extend(found),
        Err(error) => return report.fail("configuration", error.to_string(), "postroad check"),
    }
    let count = |severity| remarks.iter().filter(|remark| remark.severity == severity).count();
    let first = |severity| remarks.iter().find(|remark| remark.severity == severity).map(ToString::to_string);
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => report.pass("configuration", "no errors, no warnings"),
        (0, warnings) => {
            let text =
                format!("{warnings} warnings; the first: {}", first(Severity::Warning).unwrap_or_default());
            report.warn("configuration", text, "postroad check lists them all");
        }
        (errors, _) => {
            let text = format!("{errors} errors; the first: {}", first(Severity::Error).unwrap_or_default());
            report.fail("configuration", text, "postroad check lists them all");
        }
    }
}

/// Indexes that are older than their texts: what was edited has no effect.
fn tables(config: &Config, report: &mut Report) {
    let mut names: Vec<&str> =
        config::parameters().map(|row| row.name).filter(|name| name.ends_with("_maps")).collect();
    names.push("alias_database");
    let mut specs: Vec<String> = names
        .into_iter()
        .filter(|name| !name.starts_with("proxy_"))
        .flat_map(|name| config::split_list(&config.text(name).unwrap_or_default()))
        .collect();
    specs.sort();
    specs.dedup();
    let mut checked = 0;
    for spec in specs {
        let Some((kind, path)) = spec.strip_prefix("proxy:").unwrap_or(&spec).split_once(':') else {
            continue;
        };
        let Some(index) = lookup::index_file(kind, path) else { continue };
        checked += 1;
        let program =
            if path.contains("alias") && !path.contains("virtual") { "postalias" } else { "postmap" };
        let advice = format!("{program} {kind}:{path}");
        let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let is_old =
            modified(Path::new(path)).zip(modified(&index)).is_some_and(|(text, index)| text > index);
        if is_old {
            report.warn("tables", format!("{path} was changed after its index was made"), advice);
        } else if let Err(error) = lookup::open(&format!("{kind}:{path}")) {
            let text = match error {
                OpenError::Configuration(text) | OpenError::Unavailable(text) => text,
            };
            report.fail("tables", text, advice);
        }
    }
    if !report.findings.iter().any(|finding| finding.check == "tables") {
        report.pass("tables", format!("the indexes of {checked} tables are as new as their texts"));
    }
}

/// RFC 5321 section 4.5.1: every domain that takes mail has one.
fn postmaster(config: &Config, domain: &str, report: &mut Report) {
    let advice = "add “postmaster: root” to the aliases (or postmaster@DOMAIN to the virtual ones), and run newaliases";
    let check = match RecipientCheck::new(config) {
        Ok(check) => check,
        Err(error) => return report.fail("postmaster", error.to_string(), "postroad check"),
    };
    let name = format!("postmaster@{domain}");
    let Ok(address) = Address::new(name.clone()) else {
        return report.fail("postmaster", format!("{domain} is no domain"), "name a domain");
    };
    match (check.check(&address, &Address::null()), check.relay_permitted(&address)) {
        (Err(error), _) | (_, Err(error)) => report.warn("postmaster", error.to_string(), "mend the table"),
        (Ok(Verdict::Unknown(why)), _) => report.fail("postmaster", format!("{name}: {}", why.text), advice),
        (Ok(Verdict::Malformed), _) => {
            report.fail("postmaster", format!("{name} is no address"), "name a domain")
        }
        (_, Ok(false)) => {
            let advice = "add the domain to mydestination, virtual_alias_domains, virtual_mailbox_domains or relay_domains";
            report.fail("postmaster", format!("this host takes no mail for {domain}"), advice);
        }
        (Ok(Verdict::Known { .. }), Ok(true)) => report.pass("postmaster", format!("{name} is taken")),
    }
}

fn queue(config: &Config, report: &mut Report) {
    let queue: PathBuf = config.get(param::QUEUE_DIRECTORY);
    let owner = config.get(param::MAIL_OWNER);
    let owner = User::from_name(&owner).ok().flatten().map(|user| user.uid.as_raw());
    let mut is_right = true;
    for folder in ["incoming", "active", "deferred", "hold", "maildrop"] {
        let path = queue.join(folder);
        let advice = "postroad check makes what is missing, with owner and mode; stop the mail system first";
        match fs::metadata(&path) {
            Err(error) => {
                is_right = false;
                report.fail("queue", format!("{}: {error}", path.display()), advice);
            }
            Ok(found) => {
                let others = if folder == "maildrop" { 0o005 } else { 0o077 };
                let is_ours = !Uid::effective().is_root()
                    || found.uid() == 0
                    || owner.is_none_or(|owner| owner == found.uid());
                if !found.is_dir() || found.mode() & others != 0 || !is_ours {
                    is_right = false;
                    let (mode, uid) = (found.mode() & 0o7777, found.uid());
                    report.fail(
                        "queue",
                        format!("{} has mode {mode:o} and owner {uid}", path.display()),
                        advice,
                    );
                }
            }
        }
    }
    if is_right {
        report.pass("queue", format!("the folders of {} are right", queue.display()));
    }
    space("queue", &queue, config.get(param::QUEUE_MINFREE), report);
}

fn mailboxes(config: &Config, report: &mut Report) {
    let mut places = Vec::new();
    let base = config.text("virtual_mailbox_base").unwrap_or_default();
    if !config.text("virtual_mailbox_domains").unwrap_or_default().is_empty() && !base.is_empty() {
        places.push(("virtual_mailbox_base", PathBuf::from(base)));
    }
    if config.text("home_mailbox").unwrap_or_default().is_empty() {
        let spool = config.text("mail_spool_directory").unwrap_or_default();
        places.push(("mail_spool_directory", PathBuf::from(spool)));
    } else {
        places.push(("home_mailbox", PathBuf::from("/home")));
    }
    for (name, path) in places {
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {
                let is_open = found.mode() & 0o002 != 0 && found.mode() & 0o1000 == 0;
                if is_open {
                    let advice = format!("chmod o-w {0}, or chmod +t {0}", path.display());
                    report.fail(
                        "mailboxes",
                        format!("{name} = {}: all may remove what is in it", path.display()),
                        advice,
                    );
                } else {
                    space("mailboxes", &path, 0, report);
                }
            }
            Ok(_) => {
                report.fail("mailboxes", format!("{name} = {} is no folder", path.display()), "name a folder")
            }
            Err(error) => {
                let advice = format!("make the folder, for the users that {name} is about");
                report.fail("mailboxes", format!("{name} = {}: {error}", path.display()), advice);
            }
        }
    }
}

/// Room for mail: bytes and names.
fn space(check: &'static str, path: &Path, least: u64, report: &mut Report) {
    let found = match statvfs(path) {
        Ok(found) => found,
        Err(errno) => {
            return report.warn(check, format!("{}: {}", path.display(), errno.desc()), "see what it is");
        }
    };
    let (size, free) =
        (found.blocks() * found.fragment_size(), found.blocks_available() * found.fragment_size());
    // A file system without a count of its inodes makes them as it needs them.
    let few_names = found.files() > 0 && found.files_available() * 100 < found.files() * FEW_PERCENT;
    let text = format!("{}: {} MiB free of {}", path.display(), free >> 20, size >> 20);
    if free < least {
        report.fail(check, text, "make room: queue_minfree refuses mail until then");
    } else if few_names {
        report.warn(check, format!("{}: few inodes are left", path.display()), "remove small files");
    } else if free * 100 < size * FEW_PERCENT {
        report.warn(check, text, "make room");
    } else {
        report.pass(check, text);
    }
}

/// A wrong clock makes signatures and certificates invalid, and mail look like spam.
fn clock(report: &mut Report) {
    match sys::clock::is_synchronised() {
        Ok(true) => report.pass("clock", "is synchronised"),
        Ok(false) => report.warn("clock", "is not synchronised", "timedatectl set-ntp true"),
        Err(error) => report.skip("clock", format!("cannot be asked: {error}")),
    }
}
