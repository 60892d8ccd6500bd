//! What is edited is read back, and what is not stays, whatever the file was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use config::edit::{MainCf, MasterCf, ServiceLine};
use config::{Config, Snapshot};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Lines that a main.cf is made of, well-formed or not.
fn main_cf() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "#\\PC{0,20}",
        "[ \t]{1,3}\\PC{0,20}",
        "(myorigin|relayhost|mydomain)[ ]?=\\PC{0,20}",
        "\\PC{0,10}",
    ];
    vec(line, 0..12).prop_map(|lines| lines.into_iter().map(|line| line + "\n").collect())
}

/// A service as its parts: name, type, columns, command, and the `-o`.
fn service() -> impl Strategy<Value = (String, Vec<(String, String)>)> {
    let columns = ("[a-z][a-z0-9]{0,14}", select(vec!["inet", "unix", "fifo"]));
    let flags = (
        vec(select(vec!["-", "y", "n"]), 3),
        select(vec!["-", "0", "60", "60?"]),
        select(vec!["-", "0", "20"]),
    );
    let overrides = vec(("[a-z_]{1,20}", value()), 0..4);
    (columns, flags, "[a-z]{1,8}", overrides).prop_map(
        |((name, kind), (flags, wakeup, limit), command, set)| {
            let columns = format!("{name} {kind} {} {wakeup} {limit} {command}", flags.join(" "));
            let line =
                set.iter().fold(columns, |line, (name, value)| format!("{line} -o {{{name}={value}}}"));
            (line, set)
        },
    )
}

/// What can be the value of a `-o`: in braces it may have blanks.
fn value() -> impl Strategy<Value = String> {
    "[!-z]{1,12}( [!-z]{1,12}){0,2}"
}

fn only_service(text: &str) -> ServiceLine {
    let file = MasterCf::parse(text).unwrap();
    let [service] = file.services() else { panic!("not one service: {text:?}") };
    service.clone()
}

proptest! {
    #[test]
    fn a_main_cf_is_the_same_after_it_was_printed(text in main_cf()) {
        let file = MainCf::parse(&text);
        prop_assert_eq!(file.to_string(), text);
        prop_assert_eq!(MainCf::parse(&file.to_string()), file);
    }

    #[test]
    fn a_value_that_was_set_is_read_and_goes_again(text in main_cf(), value in "[!-#%-~]{1,20}( [!-#%-~]{1,20})?") {
        let mut file = MainCf::parse(&text);
        file.set("mail_name", &value);
        let snapshot = Snapshot { main_cf: file.to_string().into_bytes(), master_cf: Vec::new() };
        let (config, _) = Config::inspect("/nowhere".as_ref(), &snapshot, &[]);
        prop_assert_eq!(config.text("mail_name"), Some(value));
        prop_assert_eq!(file.remove("mail_name"), 1);
        prop_assert_eq!(file.to_string(), text);
    }

    #[test]
    fn a_service_is_the_same_however_it_is_printed((line, overrides) in service()) {
        let service = only_service(&line);
        prop_assert_eq!(service.overrides(), overrides);
        let printed = service.in_one_line();
        prop_assert_eq!(only_service(&printed).in_one_line(), printed.as_str());
        prop_assert_eq!(only_service(&service.folded()).in_one_line(), printed.as_str());
    }

    #[test]
    fn an_override_is_read_as_it_was_set_and_the_rest_stays(
        services in vec(service(), 1..4), comment in "#\\PC{0,20}", value in value()
    ) {
        let text: String = services.iter().map(|(line, _)| format!("{comment}\n{line}\n")).collect();
        let mut file = MasterCf::parse(&text).unwrap();
        let everywhere = |_: &ServiceLine| true;
        prop_assert_eq!(file.set_override(&everywhere, "mail_name", Some(&value)).unwrap(), services.len());
        let read = MasterCf::parse(&file.to_string()).unwrap();
        prop_assert_eq!(&read, &file);
        for (service, (_, overrides)) in read.services().iter().zip(&services) {
            let (last, others) = service.overrides().split_last().map(|(l, o)| (l.clone(), o.to_vec())).unwrap();
            prop_assert_eq!(last, ("mail_name".to_owned(), value.clone()));
            prop_assert_eq!(&others, overrides);
        }
        prop_assert_eq!(file.to_string().lines().filter(|line| *line == comment).count(), services.len());
        file.set_override(&everywhere, "mail_name", None).unwrap();
        let left: Vec<_> = file.services().iter().map(ServiceLine::overrides).collect();
        prop_assert_eq!(left, services.into_iter().map(|(_, overrides)| overrides).collect::<Vec<_>>());
    }
}
