//! main.cf: what becomes of each parameter.

use std::collections::BTreeSet;

use config::edit::MainCf;

use super::paths::Places;
use super::report::{Report, Section};

/// Where a package has put its programs and files, and whom it runs as: each installation has its own.
const INSTALLATION: [&str; 24] = [
    "command_directory",
    "config_directory",
    "daemon_directory",
    "data_directory",
    "debugger_command",
    "html_directory",
    "mail_owner",
    "mailq_path",
    "manpage_directory",
    "meta_directory",
    "multi_instance_directories",
    "multi_instance_enable",
    "multi_instance_group",
    "multi_instance_name",
    "multi_instance_wrapper",
    "newaliases_path",
    "openssl_path",
    "process_id_directory",
    "queue_directory",
    "readme_directory",
    "sample_directory",
    "sendmail_path",
    "setgid_group",
    "shlib_directory",
];

/// What an instance keeps where the imported configuration does not say anything about it.
const KEPT_UNLESS_SET: [&str; 2] = ["maillog_file", "maillog_file_prefixes"];

/// Types of tables whose index is another file here, and what stands for them.
pub(super) const OTHER_INDEXES: [&str; 3] = ["lmdb", "dbm", "sdbm"];

/// Turns main.cf into one for here. `own` gives what the target's main.cf says of its installation.
pub(super) fn convert(
    source: &str,
    places: &Places,
    own: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> String {
    let mut main_cf = MainCf::parse(source);
    let mut set = BTreeSet::new();
    main_cf.rewrite(&mut |name, line| {
        set.insert(name.to_owned());
        (!INSTALLATION.contains(&name)).then(|| line_of(name, line, places, report))
    });
    for name in INSTALLATION {
        if main_cf.comment_out(name) > 0 {
            let instead =
                own(name).map_or("Postroad has its own".to_owned(), |own| format!("here it is {own}"));
            report.say(Section::Converted, format!("main.cf: {name} is left out: {instead}"));
        }
    }
    let kept_unless_set = KEPT_UNLESS_SET.into_iter().filter(|name| !set.contains(*name));
    let kept: Vec<String> = INSTALLATION
        .into_iter()
        .chain(kept_unless_set)
        .filter_map(|name| Some(format!("{name} = {}\n", own(name)?)))
        .collect();
    let mut text = main_cf.to_string();
    if !kept.is_empty() {
        text.push_str("\n# What main.cf of this installation said before the import:\n");
        kept.iter().for_each(|line| text.push_str(line));
    }
    text
}

fn line_of(name: &str, line: &str, places: &Places, report: &mut Report) -> String {
    if is_certificate(name) {
        for file in super::paths::named_in(line) {
            if places.within_source(&file.path).is_some() {
                let path = file.path.display();
                report.say(
                    Section::ToDo,
                    format!(
                        "main.cf: {name}: {path} stays where it is; move it before you remove that folder"
                    ),
                );
            }
        }
        return line.to_owned();
    }
    let mut changed = indexes(&places.translate(line));
    match name {
        "default_database_type" | "default_cache_db_type" => {
            for kind in OTHER_INDEXES.into_iter().filter(|kind| !lookup::types().contains(kind)) {
                if changed.split_whitespace().next_back() == Some(kind) {
                    changed = changed.replace(kind, "hash");
                }
            }
        }
        "syslog_name" => changed = syslog_name(&changed),
        _ => {}
    }
    told(&format!("main.cf: {name}"), line, &changed, report);
    changed
}

/// The first item of `syslog_name` says who logs.
pub(super) fn syslog_name(line: &str) -> String {
    match line.split_once('=') {
        Some((name, value)) if value.trim_start().starts_with("postfix") => {
            format!("{name}={}", value.replacen("postfix", "postroad", 1))
        }
        _ => line.to_owned(),
    }
}

/// The same line with types of tables that there are here.
pub(super) fn indexes(line: &str) -> String {
    let mut changed = line.to_owned();
    for kind in OTHER_INDEXES.into_iter().filter(|kind| !lookup::types().contains(kind)) {
        let mut from = 0;
        while let Some(at) = changed[from..].find(&format!("{kind}:")).map(|at| from + at) {
            let is_word =
                changed[..at].chars().next_back().is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
            if is_word {
                changed.replace_range(at..at + kind.len(), "hash");
            }
            from = at + 1;
        }
    }
    changed
}

/// Says what became of the words of a line.
pub(super) fn told(place: &str, before: &str, after: &str, report: &mut Report) {
    let words = |text: &str| -> Vec<String> {
        text.split([' ', '\t', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    for (from, to) in words(before).iter().zip(words(after)).filter(|(from, to)| *from != to) {
        report.say(Section::Converted, format!("{place}: {from} → {to}"));
    }
}

/// Names of files with keys and certificates, which a renewal writes where it always did.
pub(super) fn is_certificate(name: &str) -> bool {
    const ENDINGS: [&str; 7] = [
        "cert_file",
        "key_file",
        "_chain_files",
        "_CAfile",
        "_CApath",
        "_dh1024_param_file",
        "_dh512_param_file",
    ];
    name.contains("tls") && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Databases that Postfix keeps for itself: they begin anew.
pub(super) fn is_cache(name: &str) -> bool {
    name.ends_with("_session_cache_database") || name.ends_with("_cache_map") || name == "address_verify_map"
}

/// Parameters whose tables have the grammar of aliases.
pub(super) fn names_aliases(name: &str) -> bool {
    matches!(name, "alias_maps" | "alias_database")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn comments_and_order_stay() {
        let source = "# Our mail\nmyhostname = mail.example.com\n\n# Debian\nqueue_directory = /var/spool/postfix\n\
                      virtual_alias_maps = lmdb:/etc/postfix/virtual,\n  # old: /etc/postfix/x\n  nolmdb:/x\n\
                      smtpd_tls_cert_file = /etc/postfix/cert.pem\nsyslog_name = postfix/out\n";
        let places = Places::new(Path::new("/nowhere"), Path::new("/etc/postroad"), Vec::new());
        let mut report = Report::default();
        let own = |name: &str| (name == "queue_directory").then(|| "/srv/queue".to_owned());
        let kind = if lookup::types().contains(&"lmdb") { "lmdb" } else { "hash" };
        assert_eq!(
            convert(source, &places, &own, &mut report),
            format!(
                "# Our mail\nmyhostname = mail.example.com\n\n# Debian\n#queue_directory = /var/spool/postfix\n\
                 virtual_alias_maps = {kind}:/etc/postroad/virtual,\n  # old: /etc/postfix/x\n  nolmdb:/x\n\
                 smtpd_tls_cert_file = /etc/postfix/cert.pem\nsyslog_name = postroad/out\n\n\
                 # What main.cf of this installation said before the import:\nqueue_directory = /srv/queue\n"
            )
        );
        let report = report.to_string();
        for line in
            ["→ hash:/etc/postroad/virtual", "main.cf: queue_directory is left out: here it is /srv/queue"]
        {
            assert!(report.contains(line) || kind == "lmdb", "{report}");
        }
    }
}
