//! master ↔ its children, over a socket pair that each child is born with.
//!
//! The end of the connection is a word of its own: a child whose master is gone drains and ends, and a master whose
//! child closed it reaps the child.

use std::path::PathBuf;

use config::{Config, Snapshot};
use serde::{Deserialize, Serialize};

/// What a child is told at its birth, as its first message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Birth {
    /// The service's name in master.cf.
    pub service: String,
    /// The instance's configuration directory.
    pub config_directory: PathBuf,
    /// main.cf and master.cf as master checked them: what the child goes by, whatever the files say by now.
    pub snapshot: Snapshot,
    /// `-o` of this service's line in master.cf.
    pub overrides: Vec<(String, String)>,
    /// What follows the command in master.cf besides options, for `pipe` and `spawn`; braces around an argument are gone.
    pub arguments: Vec<String>,
    /// The number of `-v`.
    pub verbosity: u8,
    /// The wake-up interval of master.cf.
    pub wakeup: Option<std::time::Duration>,
    /// The most sessions or deliveries at a time; `None` for no limit.
    pub max_sessions: Option<u32>,
    /// Whether to become `mail_owner` before serving.
    pub unprivileged: bool,
    /// How many listening sockets follow the control socket and the log, from descriptor 5 on.
    pub listeners: u32,
    /// Whether descriptor 4 is the mail log.
    pub log_file: bool,
}

/// What master says to a child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToChild {
    /// Go on with this configuration (only qmgr is told; other programs are replaced).
    Reload(Snapshot),
    /// Take no new work, finish what there is, end.
    Drain,
    /// The mail system stops: as `Drain`, and clients who only wait are sent away.
    Stop,
    /// How is it going? Answered by [`ToMaster::Status`].
    Ask,
    /// Write to this log from now on; its descriptor goes with the message.
    Log,
    /// The answer to [`ToMaster::Open`]: the file's descriptor goes with it, or this is why there is none.
    Opened(Result<(), String>),
}

/// What a child says to master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMaster {
    /// Up and serving.
    Ready,
    /// Sessions or deliveries at this moment, and a line for the operator.
    Status {
        /// Sessions or deliveries.
        busy: u32,
        /// What else there is to say; may be empty.
        text: String,
    },
    /// Open this file for reading: one of [`key_files`] of the child's own configuration, which nobody but root may read
    /// and which may have been renewed since the child gave up its rights.
    Open(PathBuf),
}

/// The parameters that name files of keys and certificates, behind the name of the program that they are for.
const KEY_FILES: [&str; 7] = [
    "_tls_chain_files",
    "_tls_cert_file",
    "_tls_key_file",
    "_tls_eccert_file",
    "_tls_eckey_file",
    "_tls_dcert_file",
    "_tls_dkey_file",
];

/// The files that master opens for a child that runs this program with this configuration, and no others: what shows
/// itself to servers cannot ask for what is shown to clients.
#[must_use]
pub fn key_files(config: &Config, program: &str) -> Vec<PathBuf> {
    // What postscreen lets through becomes a session in its process, with the settings of a service of its own.
    let holds_sessions = program == "postscreen";
    let program = if holds_sessions { "smtpd" } else { program };
    let names = KEY_FILES.map(|name| format!("{program}{name}"));
    let mut lists: Vec<String> = names.iter().filter_map(|name| config.text(name)).collect();
    if holds_sessions {
        let passed = config.services().iter().filter(|entry| entry.kind == config::ServiceKind::Pass);
        let settings = passed.flat_map(|entry| &entry.overrides).filter(|(name, _)| names.contains(name));
        lists.extend(settings.filter_map(|(name, value)| config.with_text(name, value).text(name)));
    }
    lists.iter().flat_map(|list| config::split_list(list)).map(PathBuf::from).collect()
}
