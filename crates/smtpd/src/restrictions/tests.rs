use std::path::Path;

use config::{Config, Severity, Snapshot};

use super::verify;

fn problems(main_cf: &str) -> Vec<(Severity, String)> {
    let snapshot = Snapshot { main_cf: main_cf.as_bytes().to_vec(), master_cf: Vec::new() };
    let (config, _) = Config::from_snapshot(Path::new("/etc/postroad"), &snapshot, &[]).unwrap();
    verify(&config).into_iter().map(|problem| (problem.severity, problem.text)).collect()
}

#[test]
fn the_defaults_have_no_problems() {
    assert_eq!(problems("compatibility_level = 3.6\n"), []);
}

#[test]
fn a_verb_without_effect_is_named_with_the_reason() {
    let lists = "compatibility_level = 3.6\n\
                 smtpd_client_restrictions = permit_naked_ip_address, permit_mynetworks permit_naked_ip_address\n";
    let found = problems(lists);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found.iter().all(|(severity, _)| *severity == Severity::Warning));
    assert!(
        found[0].1.starts_with("smtpd_client_restrictions: permit_naked_ip_address has no effect"),
        "{}",
        found[0].1
    );
}

#[test]
fn classes_that_name_each_other_twice_come_to_an_end() {
    let main_cf = "compatibility_level = 3.6\nsmtpd_restriction_classes = one two\none = two two one one\n\
                   two = one one two two\nsmtpd_recipient_restrictions = one\n";
    let found = problems(main_cf);
    assert!(found.iter().any(|(_, text)| text.contains("too deeply")), "{found:?}");
}

#[test]
fn mistakes_are_errors_and_say_what_was_meant() {
    let cases = [
        (
            "reject_unauth_destinaton",
            "unknown restriction \"reject_unauth_destinaton\"; did you mean \"reject_unauth_destination\"?",
        ),
        ("check_client_access", "check_client_access needs a lookup table after it"),
        (
            "check_client_access /etc/x",
            "check_client_access needs a lookup table like hash:/etc/postroad/access, not \"/etc/x\"",
        ),
        ("check_client_access hsh:/etc/x", "hsh"),
        ("reject_rbl_client", "reject_rbl_client needs the domain name of a DNS list after it"),
        ("reject_rbl_client a.example=127.0.0.[4..2]", "is no pattern like 127.0.0.2 or 127.0.0.[2..4;8]"),
        ("permit_dnswl_client 127.0.0.2", "\"127.0.0.2\" is no domain name"),
        ("warn_if_reject", "warn_if_reject needs a restriction after it"),
        ("check_policy_service", "check_policy_service needs the address of a policy service after it"),
        ("check_policy_service private/x", "must be inet:host:port or unix:path"),
        ("check_policy_service { inet:h:1, timeot=1s }", "there is no setting timeot"),
        ("check_policy_service { inet:h:1, timeout=1x }", "1x must be a number"),
        (
            "check_ccert_access { inline:{{a=OK}}, { search_order = serial } }",
            "there is no serial; there are",
        ),
        ("check_ccert_access { inline:{{a=OK}}, { order = subject_cn } }", "is not { search_order = … }"),
        ("check_ccert_access { /etc/x }", "needs a lookup table like"),
        ("sleep", "sleep needs a number of seconds after it"),
    ];
    for (list, text) in cases {
        let found = problems(&format!("compatibility_level = 3.6\nsmtpd_client_restrictions = {list}\n"));
        assert_eq!(found.len(), 1, "{list}: {found:?}");
        assert_eq!(found[0].0, Severity::Error);
        assert!(found[0].1.contains(text), "{}", found[0].1);
    }
}

#[test]
fn an_open_relay_is_an_error() {
    let found = problems(
        "compatibility_level = 3.6\nsmtpd_relay_restrictions = permit_mynetworks, warn_if_reject reject\n",
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Severity::Error);
    assert!(found[0].1.contains("reject_unauth_destination"));
    let class = "compatibility_level = 3.6\nsmtpd_restriction_classes = c\nc = reject_unauth_destination\n\
                 smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = permit_mynetworks, c\n";
    assert_eq!(problems(class), []);
}

#[test]
fn a_host_that_relays_for_everyone_says_so() {
    let world = "holds hosts all over the internet, and smtpd_relay_restrictions has permit_mynetworks: anybody can \
                 send mail anywhere through this host; list only your own networks, such as 127.0.0.0/8 [::1]/128";
    let before = "smtpd_relay_restrictions: permit stands before all that refuses strangers: anybody can send mail \
                  anywhere through this host; put reject_unauth_destination before it";
    for (settings, text) in [
        ("mynetworks = 127.0.0.0/8 0.0.0.0/0", format!("mynetworks: 0.0.0.0/0 {world}")),
        ("mynetworks = [::]/0", format!("mynetworks: [::]/0 {world}")),
        (
            "mynetworks = static:all\nsmtpd_restriction_classes = c\nc = permit_mynetworks, reject\n\
             smtpd_relay_restrictions = c\nsmtpd_recipient_restrictions = sleep 1",
            format!("mynetworks: static:all {world}"),
        ),
        ("smtpd_relay_restrictions = warn_if_reject reject, permit, reject", before.to_owned()),
    ] {
        let found = problems(&format!("compatibility_level = 3.6\ninet_protocols = all\n{settings}\n"));
        assert_eq!(found, [(Severity::Warning, text)], "{settings}");
    }
}

#[test]
fn a_world_that_is_refused_elsewhere_is_no_reason_to_warn() {
    for settings in [
        "smtpd_relay_restrictions = permit_sasl_authenticated, reject",
        "smtpd_recipient_restrictions = permit_sasl_authenticated, reject",
        "smtpd_client_restrictions = permit_sasl_authenticated, reject",
        "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = reject_unauth_destination, permit",
    ] {
        let main_cf = format!("compatibility_level = 3.6\nmynetworks = 0.0.0.0/0\n{settings}\n");
        assert_eq!(problems(&main_cf), [], "{settings}");
    }
}

#[test]
fn classes_that_name_each_other_end() {
    let main_cf = "compatibility_level = 3.6\nsmtpd_restriction_classes = a, b\na = b\nb = a\n\
                   smtpd_client_restrictions = a\n";
    let found = problems(main_cf);
    assert!(found[0].1.contains("too deeply"), "{found:?}");
}
