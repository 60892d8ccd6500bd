//! Tests of the whole program but its daemon skeleton.

mod instance;
mod pairs;
mod sessions;

pub(crate) use instance::Instance;

/// What every test's main.cf begins with.
const SETTINGS: &str = "\
myhostname = mail.example.com
mydestination = $myhostname, localhost, example.org
inet_interfaces = 127.0.0.1
myorigin = example.com
mail_name = Postfix
";

/// The rules of some settings, whose `$config_directory` is `directory`.
fn rules(directory: &std::path::Path, settings: &str) -> crate::Rules {
    let main_cf = format!("{SETTINGS}{settings}").into_bytes();
    let snapshot = config::Snapshot { main_cf, master_cf: Vec::new() };
    let (config, _) = config::Config::from_snapshot(directory, &snapshot, &[]).unwrap();
    let mut rules = crate::Rules::new(&config).unwrap();
    rules.zone = jiff::tz::TimeZone::UTC;
    rules
}
