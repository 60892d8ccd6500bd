//! master.cf: what becomes of each service.

use config::edit::{Field, MasterCf, ServiceLine};

use super::parameters::{indexes, is_certificate, syslog_name, told};
use super::paths::Places;
use super::report::{Report, Section};

/// Turns master.cf into one for here.
pub(super) fn convert(source: &str, places: &Places, report: &mut Report) -> Result<String, String> {
    let mut master_cf = MasterCf::parse(source).map_err(|error| error.to_string())?;
    let result = screen(&mut master_cf, report)
        .and_then(|()| chroot(&mut master_cf, report))
        .and_then(|()| log_names(&mut master_cf, report))
        .and_then(|()| master_cf.rewrite(&mut |line| Some(line_of(line, places, report))));
    result.map_err(|error| format!("master.cf: {error}"))?;
    Ok(master_cf.to_string())
}

fn line_of(line: &str, places: &Places, report: &mut Report) -> String {
    let changed = match line.split_once("-o").map(|(_, setting)| setting.trim_start()) {
        // One setting stands on a line of its own, as a rule; a certificate stays where it is.
        Some(setting) if is_certificate(setting.split('=').next().unwrap_or_default().trim()) => {
            line.to_owned()
        }
        _ => indexes(&places.translate(line)),
    };
    told("master.cf", line, &changed, report);
    changed
}

/// Where postscreen has no process, smtpd takes its connections itself.
fn screen(master_cf: &mut MasterCf, report: &mut Report) -> Result<(), config::edit::EditError> {
    let is_screen = |service: &ServiceLine| program(service) == "postscreen";
    if has_program("postscreen") || !master_cf.services().iter().any(is_screen) {
        return Ok(());
    }
    let is_passed =
        |service: &ServiceLine| service.field(Field::Type) == "pass" && program(service) == "smtpd";
    let behind = master_cf.services().iter().find(|service| is_passed(service));
    let command = behind.map_or("smtpd".to_owned(), |service| service.field(Field::Command));
    master_cf.set_field(&is_screen, Field::ProcessLimit, "-")?;
    master_cf.set_field(&is_screen, Field::Command, &command)?;
    master_cf.comment_out(&is_passed)?;
    report.say(
        Section::Unsupported,
        format!(
            "master.cf: there is no postscreen here: its port is served by {command}, without its tests; \
             put what you tested into smtpd's restrictions (reject_rbl_client for postscreen_dnsbl_sites)"
        ),
    );
    Ok(())
}

fn program(service: &ServiceLine) -> String {
    service.field(Field::Command).split_whitespace().next().unwrap_or_default().to_owned()
}

/// Whether there is a process for a program of Postfix here.
fn has_program(name: &str) -> bool {
    let line = format!("x unix - - n - - {name}\n").into_bytes();
    let snapshot = config::Snapshot { main_cf: Vec::new(), master_cf: line };
    let (config, _) = config::Config::inspect(std::path::Path::new("/nowhere"), &snapshot, &[]);
    config.services().iter().any(|service| service.presence == config::Presence::Program)
}

fn chroot(master_cf: &mut MasterCf, report: &mut Report) -> Result<(), config::edit::EditError> {
    let is_confined = |service: &ServiceLine| service.field(Field::Chroot) == "y";
    let names: Vec<String> = master_cf
        .services()
        .iter()
        .filter(|service| is_confined(service))
        .map(|service| format!("{}/{}", service.field(Field::Service), service.field(Field::Type)))
        .collect();
    if !names.is_empty() {
        master_cf.set_field(&is_confined, Field::Chroot, "n")?;
        report.say(
            Section::Converted,
            format!(
                "master.cf: chroot y → n (there is none here; the files in it are not needed): {}",
                names.join(", ")
            ),
        );
    }
    Ok(())
}

/// `-o syslog_name=postfix/submission`.
fn log_names(master_cf: &mut MasterCf, report: &mut Report) -> Result<(), config::edit::EditError> {
    let named = |service: &ServiceLine| {
        let mut overrides = service.overrides().into_iter();
        overrides
            .find(|(name, value)| name == "syslog_name" && value.starts_with("postfix"))
            .map(|(_, value)| value)
    };
    let values: Vec<String> = master_cf.services().iter().filter_map(named).collect();
    for value in values {
        let setting = syslog_name(&format!("syslog_name={value}"));
        told("master.cf", &format!("syslog_name={value}"), &setting, report);
    }
    master_cf.rewrite(&mut |line| Some(line.replace("syslog_name=postfix", "syslog_name=postroad")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn converted(source: &str) -> (String, String) {
        let places = Places::new(Path::new("/nowhere"), Path::new("/etc/postroad"), Vec::new());
        let mut report = Report::default();
        let text = convert(source, &places, &mut report).unwrap();
        (text, report.to_string())
    }

    #[test]
    fn what_postscreen_stands_before_is_served_by_smtpd() {
        if has_program("postscreen") {
            return;
        }
        let (text, report) = converted(
            "# front\nsmtp      inet  n       -       y       -       1       postscreen\n\
             smtpd     pass  -       -       y       -       -       smtpd\n  -o content_filter=scan:x\n\
             dnsblog   unix  -       -       y       -       0       dnsblog\n",
        );
        assert!(text.starts_with("# front\nsmtp "), "{text}");
        let services = MasterCf::parse(&text).unwrap();
        let first = &services.services()[0];
        assert_eq!(first.field(Field::Command), "smtpd -o content_filter=scan:x");
        assert_eq!((first.field(Field::Chroot), first.field(Field::ProcessLimit)), ("n".into(), "-".into()));
        assert!(text.contains("\n#smtpd     pass"), "{text}");
        assert_eq!(services.services().len(), 2);
        assert!(report.contains("there is no postscreen here"), "{report}");
    }

    #[test]
    fn comments_layout_and_settings_stay() {
        let (text, report) = converted(
            "smtp inet n - n - - smtpd\n# submission\nsubmission inet n - y - - smtpd\n  -o syslog_name=postfix/submission\n  \
             # -o x=/etc/postfix/y\n  -o smtpd_tls_key_file=/etc/postfix/key.pem\n\
             filter unix - n n - - pipe\n  flags=Rq user=nobody argv=/etc/postfix/filter.sh ${sender}\n",
        );
        assert_eq!(
            text,
            "smtp inet n - n - - smtpd\n# submission\nsubmission inet n - n - - smtpd\n  -o syslog_name=postroad/submission\n  \
             # -o x=/etc/postfix/y\n  -o smtpd_tls_key_file=/etc/postfix/key.pem\n\
             filter unix - n n - - pipe\n  flags=Rq user=nobody argv=/etc/postroad/filter.sh ${sender}\n"
        );
        assert!(report.contains("chroot y → n") && report.contains("submission/inet"), "{report}");
        assert!(report.contains("argv=/etc/postfix/filter.sh → argv=/etc/postroad/filter.sh"), "{report}");
    }
}
