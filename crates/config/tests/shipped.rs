//! The configuration that is shipped.

use std::path::Path;

use config::{Config, Presence, ServiceKind, Severity, param};

fn shipped() -> (Config, Vec<config::Diagnostic>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc");
    Config::load(&directory).expect("the shipped configuration has no errors")
}

#[test]
fn the_shipped_configuration_is_fit_to_start_with() {
    let (config, remarks) = shipped();
    assert_eq!(config.get(param::MESSAGE_SIZE_LIMIT), 51_200_000);
    assert_eq!(config.get(param::MYNETWORKS), ["127.0.0.0/8", "[::1]/128"]);
    assert!(remarks.iter().all(|remark| remark.severity < Severity::Error), "{remarks:?}");
}

#[test]
fn the_shipped_services_all_have_a_program() {
    let (config, _) = shipped();
    assert!(config.services().iter().all(|service| service.presence != Presence::Missing));
    let names: Vec<&str> = config.services().iter().map(|service| service.name.as_str()).collect();
    for name in ["smtp", "pickup", "cleanup", "qmgr", "bounce", "local", "virtual", "showq"] {
        assert!(names.contains(&name), "{name}");
    }
    let smtp = &config.services()[0];
    assert_eq!((smtp.kind, smtp.command.as_str(), smtp.maxproc), (ServiceKind::Inet, "smtpd", Some(100)));
    let qmgr = config.services().iter().find(|service| service.name == "qmgr").expect("qmgr");
    let wakeup = qmgr.wakeup.expect("it is woken");
    assert_eq!((wakeup.every.as_secs(), wakeup.only_if_used), (300, false));
}
