//! A configuration in use.

use std::path::Path;
use std::time::Duration;

use config::{Config, Snapshot, param, split_list};

fn config(main_cf: &str) -> Config {
    with_overrides(main_cf, &[])
}

fn with_overrides(main_cf: &str, overrides: &[(&str, &str)]) -> Config {
    let snapshot = Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
    let overrides: Vec<(String, String)> =
        overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::from_snapshot(Path::new("/etc/postroad"), &snapshot, &overrides).expect("no errors").0
}

#[test]
fn values_have_the_type_of_their_parameter() {
    let config =
        config("mydestination = a, b\tc\nbiff = No\nmessage_size_limit = 7\nhome_mailbox = Maildir/\n");
    assert_eq!(config.get(param::MYDESTINATION), ["a", "b", "c"]);
    assert!(!config.get(param::BIFF));
    assert_eq!(config.get(param::MESSAGE_SIZE_LIMIT), 7);
    assert_eq!(config.get(param::HOME_MAILBOX), "Maildir/");
    assert_eq!(config.get(param::QUEUE_DIRECTORY), Path::new("/var/spool/postroad"));
}

#[test]
fn times_have_units() {
    let time = |value: &str| {
        config(&format!("maximal_queue_lifetime = {value}\n")).get(param::MAXIMAL_QUEUE_LIFETIME)
    };
    assert_eq!(time("90s"), Duration::from_secs(90));
    assert_eq!(time("2m"), Duration::from_secs(120));
    assert_eq!(time("3h"), Duration::from_secs(3 * 3600));
    assert_eq!(time("1w"), Duration::from_secs(7 * 86400));
    // The default is 5d: without a letter, days.
    assert_eq!(time("2"), Duration::from_secs(2 * 86400));
    // The unit of a default that is an expression stands at its end.
    assert_eq!(config("smtpd_timeout = 4\n").get(param::SMTPD_TIMEOUT), Duration::from_secs(4));
}

#[test]
fn every_default_is_a_value_of_its_type() {
    for level in ["0", "1", "2", "3.6", "3.10"] {
        config(&format!("compatibility_level = {level}\n"));
        config(&format!("compatibility_level = {level}\nstress = yes\n"));
    }
}

#[test]
fn defaults_depend_on_the_compatibility_level() {
    assert!(config("").get(param::APPEND_DOT_MYDOMAIN));
    assert!(!config("compatibility_level = 3.6\n").get(param::APPEND_DOT_MYDOMAIN));
    assert_eq!(config("mydestination = x\n").get(param::RELAY_DOMAINS), ["x"]);
    assert!(config("compatibility_level = 2\n").get(param::RELAY_DOMAINS).is_empty());
}

#[test]
fn the_domain_follows_the_host_name_and_the_other_way_round() {
    let both = |main_cf: &str| {
        let config = config(main_cf);
        (config.get(param::MYHOSTNAME), config.get(param::MYDOMAIN))
    };
    assert_eq!(both("myhostname = a.example.org\n"), ("a.example.org".into(), "example.org".into()));
    assert_eq!(both("myhostname = short\n"), ("short".into(), "localdomain".into()));
    assert!(both("mydomain = example.org\n").0.contains('.'));
    // Each from the other ends somewhere.
    assert!(!both("myhostname = mail.$mydomain\n").0.is_empty());
    assert!(!both("myhostname = $mydomain\nmydomain = example.org\n").0.is_empty());
    assert!(!config("inet_interfaces = $mynetworks\n").get(param::MYNETWORKS).contains(&"x".to_owned()));
}

#[test]
fn networks_are_asked_of_the_host() {
    let networks = config("mynetworks_style = host\n").get(param::MYNETWORKS);
    assert!(networks.contains(&"127.0.0.1/32".to_owned()), "{networks:?}");
    let networks = config("mynetworks_style = class\ninet_protocols = ipv4\n").get(param::MYNETWORKS);
    assert!(networks.contains(&"127.0.0.0/8".to_owned()), "{networks:?}");
    assert!(networks.iter().all(|network| !network.contains(':')), "{networks:?}");
}

#[test]
fn the_origin_may_stand_in_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("mailname");
    std::fs::write(&path, "mail.example.org\nmore\n").expect("the file");
    let config = config(&format!("myorigin = {}\nmydomain = $myorigin\n", path.display()));
    assert_eq!(config.get(param::MYORIGIN), "mail.example.org");
    assert_eq!(config.get(param::MYDOMAIN), "mail.example.org");
}

#[test]
fn overrides_win_also_where_others_refer_to_them() {
    let config =
        with_overrides("myhostname = a.example\n", &[("myhostname", "b.example"), ("service_name", "smtp")]);
    assert_eq!(config.get(param::SMTPD_BANNER), "b.example ESMTP Postroad");
    assert_eq!(config.get(param::SERVICE_NAME), "smtp");
}

#[test]
fn transports_have_values_of_their_own() {
    let config = config(
        "default_destination_concurrency_limit = 7\nslow_destination_concurrency_limit = 1\nlocal_destination_rate_delay = 2m\n",
    );
    let limit = |transport: &str| {
        config.for_transport(
            transport,
            "_destination_concurrency_limit",
            param::DEFAULT_DESTINATION_CONCURRENCY_LIMIT,
        )
    };
    assert_eq!((limit("slow"), limit("smtp"), limit("local")), (1, 7, 2));
    let delay =
        config.for_transport("local", "_destination_rate_delay", param::DEFAULT_DESTINATION_RATE_DELAY);
    assert_eq!(delay, Duration::from_secs(120));
    assert_eq!(config.text("smtp_destination_concurrency_limit").as_deref(), Some("7"));
}

#[test]
fn former_names_are_honoured() {
    let config = config("virtual_maps = hash:/etc/virtual\nfallback_relay = [a.example]\n");
    assert_eq!(config.get(param::VIRTUAL_ALIAS_MAPS), ["hash:/etc/virtual"]);
    assert_eq!(config.get(param::SMTP_FALLBACK_RELAY), ["[a.example]"]);
}

#[test]
fn what_programs_fill_in_themselves_is_left_to_them() {
    let config = config("mailbox_command = /bin/deliver $user ${extension} $\nluser_relay = $local@x\n");
    assert_eq!(config.get(param::MAILBOX_COMMAND), "/bin/deliver $user ${extension} $");
    assert_eq!(config.get(param::LUSER_RELAY), "$local@x");
}

#[test]
fn names_of_the_operator_can_be_asked_for() {
    let config =
        config("smtpd_restriction_classes = greylist\ngreylist = check_x $mydomain\nmydomain = a.b\n");
    assert_eq!(config.text("greylist").as_deref(), Some("check_x a.b"));
    assert_eq!(config.text("nothing"), None);
    assert_eq!(config.expand("<$mydomain>").as_deref(), Ok("<a.b>"));
    assert_eq!(config.own_names(), ["greylist"]);
}

#[test]
fn items_in_braces_stay_together() {
    assert_eq!(split_list("a, {b, c} inline:{x=y, z=w},,d"), ["a", "{b, c}", "inline:{x=y, z=w}", "d"]);
    assert_eq!(split_list(" , \t"), Vec::<String>::new());
}

#[test]
fn doublings_are_stopped() {
    // Of nothing at all, too: what does not grow takes as long.
    for first in ["xxxxxxxxxxxxxxxx", ""] {
        let mut main_cf = format!("a0 = {first}\n");
        for number in 1..40 {
            let before = number - 1;
            main_cf.push_str(&format!("a{number} = $a{before}$a{before}\n"));
        }
        main_cf.push_str("mydestination = $a39\n");
        let snapshot = Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
        assert!(Config::from_snapshot(Path::new("/"), &snapshot, &[]).is_err());
    }
}

#[test]
fn garbage_is_told_and_does_no_harm() {
    let mut state = 1_u32;
    for length in 0..400 {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"a=${}()?:<>\n \t#-o{levlsmtpd\xff\0"[usize::try_from(state >> 16).unwrap_or(0) % 29]
            })
            .collect();
        let snapshot = Snapshot { main_cf: bytes.clone(), master_cf: bytes };
        let (config, _) = Config::inspect(Path::new("/"), &snapshot, &[]);
        assert!(config.get(param::MESSAGE_SIZE_LIMIT) > 0);
    }
}

#[test]
fn a_command_is_told_of_what_it_reads_and_of_slips_of_the_pen_only() {
    let main_cf = b"message_size_limit = much\nmailbox_size_limit = more\nqueue_directry = /x\nmine = 5\n\
        queue_directory = $nothing/here # why\nsmtpd_banner = $mine\n";
    let names = ["message_size_limit", "queue_directory"];
    let (config, remarks) = Config::inspect_for(Path::new("/"), main_cf, &names);
    let lines: Vec<u32> = remarks.iter().map(|remark| remark.line).collect();
    assert_eq!(lines, [1, 3, 5], "{remarks:?}");
    assert_eq!(config.get(param::MAILBOX_SIZE_LIMIT), 51_200_000);
}

#[test]
fn a_configuration_that_cannot_be_read_is_not_taken_for_an_empty_one() {
    let folder = tempfile::tempdir().expect("make a folder");
    let error = Config::load_readable(folder.path()).expect_err("there is no main.cf");
    assert!(error.to_string().contains("/main.cf: No such file"), "{error}");
    std::fs::write(folder.path().join("main.cf"), "queue_directory = /elsewhere\n").expect("write main.cf");
    // No file, and none that could be read.
    std::fs::create_dir(folder.path().join("master.cf")).expect("make a folder");
    for config in [
        Config::load_readable(folder.path()).expect("main.cf is there"),
        Config::load_regardless(folder.path()),
    ] {
        assert_eq!(config.get(param::QUEUE_DIRECTORY), Path::new("/elsewhere"));
    }
}
