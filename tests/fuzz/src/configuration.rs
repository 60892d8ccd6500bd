//! What the operator writes: main.cf, master.cf, the texts of notifications.

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use config::edit::{MainCf, MasterCf};
use config::templates::Templates;
use config::{Config, Snapshot, parameters};

use crate::messages::CONFIG;

/// The longest value that a small main.cf may expand to.
const MAX_VALUE: usize = 4 << 20;

/// main.cf: judged without regard to what is in it; values are bounded, and editing changes what it is asked to and no more.
pub fn main_cf(data: &[u8]) {
    let snapshot = Snapshot { main_cf: data.to_vec(), master_cf: Vec::new() };
    let (config, remarks) = Config::inspect("/nowhere".as_ref(), &snapshot, &[]);
    assert!(remarks.len() <= 100 + 4 * data.len());
    for parameter in parameters().step_by(7) {
        let value = config.text(parameter.name).unwrap_or_default();
        assert!(value.len() <= MAX_VALUE, "{} has {} bytes", parameter.name, value.len());
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(value) = config.expand(&text) {
        assert!(value.len() <= MAX_VALUE);
    }
    let file = MainCf::parse(&text);
    let printed = file.to_string();
    assert_eq!(MainCf::parse(&printed), file, "another file after it was printed");
    let mut edited = file.clone();
    edited.set("myhostname", "edited.example.com");
    let snapshot = Snapshot { main_cf: edited.to_string().into_bytes(), master_cf: Vec::new() };
    let (config, _) = Config::inspect("/nowhere".as_ref(), &snapshot, &[]);
    assert_eq!(config.text("myhostname").as_deref(), Some("edited.example.com"), "an edit had no effect");
    edited.remove("myhostname");
    assert_eq!(edited.remove("myhostname"), 0, "a setting was left");
}

/// master.cf: the daemon's reader and the editor's see the same services.
pub fn master_cf(data: &[u8]) {
    let snapshot = Snapshot { main_cf: Vec::new(), master_cf: data.to_vec() };
    let (config, _) = Config::inspect("/nowhere".as_ref(), &snapshot, &[]);
    for service in config.services() {
        let _ = (service.plain_args(), service.host_and_port());
    }
    let text = String::from_utf8_lossy(data);
    let Ok(file) = MasterCf::parse(&text) else { return };
    for service in file.services() {
        let line = service.in_one_line();
        assert!(!line.contains('\n'));
        // A value with blanks is written in braces: one that has an open brace of its own cannot be written at all.
        if line.matches('{').count() != line.matches('}').count() {
            continue;
        }
        let again = MasterCf::parse(&line);
        let fields = |service: &config::edit::ServiceLine| service.in_one_line();
        let again = again.ok().and_then(|file| file.services().first().map(fields));
        assert_eq!(again.as_ref(), Some(&line), "another service after it was printed");
        let folded = MasterCf::parse(&service.folded());
        let folded = folded.ok().and_then(|file| file.services().first().map(fields));
        assert_eq!(folded.as_ref(), Some(&line), "another service after it was folded");
    }
}

/// The texts of notifications: read whatever they are, and expanded within bounds.
pub fn bounce_template(data: &[u8]) {
    let Ok(file) = sys::descriptors::memory_file("bounce.cf", data) else { return };
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let (templates, _) = Templates::from_file(&path, &CONFIG);
    for (_, template) in templates.all() {
        let (text, _) = template.expand(&CONFIG, &[("myhostname", "x")]);
        assert!(text.len() <= MAX_VALUE);
        let _ = template.source();
    }
}
