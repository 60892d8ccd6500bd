//! What main.cf says to local(8), read once.

use std::path::PathBuf;
use std::time::Duration;

use config::{Config, param};
use lookup::{Delimiters, Maps};
use service::Fatal;

use crate::lock::Locking;
use crate::rights::{SystemUsers, Users};

/// Where a destination was written: `allow_mail_to_commands` and the like name these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Alias,
    Forward,
    Include,
}

impl Origin {
    const ALL: [(&'static str, Self); 3] =
        [("alias", Self::Alias), ("forward", Self::Forward), ("include", Self::Include)];
}

/// A set of [`Origin`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origins([bool; 3]);

impl Origins {
    /// Reads the words of a parameter; words that mean something elsewhere (`virtual`) count for nothing here.
    fn from_words(words: &[String]) -> Self {
        Self(Origin::ALL.map(|(name, _)| words.iter().any(|word| word.eq_ignore_ascii_case(name))))
    }

    pub(super) fn contain(self, origin: Origin) -> bool {
        Origin::ALL.iter().zip(self.0).any(|((_, one), chosen)| *one == origin && chosen)
    }
}

/// `prepend_delivered_header`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DeliveredHeader {
    pub(super) command: bool,
    pub(super) file: bool,
    pub(super) forward: bool,
}

pub(super) struct Settings {
    pub(super) aliases: Maps,
    pub(super) delimiters: Delimiters,
    pub(super) recipient_delimiter: String,
    pub(super) commands_from: Origins,
    pub(super) files_from: Origins,
    pub(super) extensions_to: Origins,
    pub(super) delivered_header: DeliveredHeader,
    pub(super) frozen_delivered_to: bool,
    pub(super) enable_original_recipient: bool,
    pub(super) expand_owner_alias: bool,
    pub(super) owner_request_special: bool,
    pub(super) default_privs: String,
    pub(super) forward_path: Vec<String>,
    pub(super) forward_filter: String,
    pub(super) line_length_limit: usize,
    pub(super) luser_relay: String,
    pub(super) require_home_directory: bool,
    pub(super) transport_maps: Maps,
    pub(super) transport: String,
    pub(super) fallback_transport_maps: Maps,
    pub(super) fallback_transport: String,
    pub(super) command_maps: Maps,
    pub(super) command: String,
    pub(super) home_mailbox: String,
    pub(super) spool: PathBuf,
    pub(super) spool_is_maildir: bool,
    pub(super) limit: u64,
    pub(super) locking: Locking,
    pub(super) strict_ownership: bool,
    pub(super) command_shell: Option<String>,
    pub(super) command_filter: String,
    pub(super) command_directory: String,
    pub(super) command_directory_filter: String,
    pub(super) command_time_limit: Duration,
    pub(super) exported: Vec<(String, String)>,
}

impl Settings {
    pub(super) fn new(config: &Config) -> Result<Self, Fatal> {
        let maps = |parameter: config::Param<Vec<String>>| open_maps(config, parameter);
        let delivered: Vec<String> = config.get(param::PREPEND_DELIVERED_HEADER);
        let delivered = |word: &str| delivered.iter().any(|one| one.eq_ignore_ascii_case(word));
        let shell = config.get(param::LOCAL_COMMAND_SHELL).to_string_lossy().trim().to_owned();
        let spool = config.get(param::MAIL_SPOOL_DIRECTORY);
        Ok(Self {
            aliases: maps(param::ALIAS_MAPS)?,
            delimiters: Delimiters::new(
                &config.get(param::RECIPIENT_DELIMITER),
                config.get(param::OWNER_REQUEST_SPECIAL),
                &config.get(param::DOUBLE_BOUNCE_SENDER),
            ),
            recipient_delimiter: config.get(param::RECIPIENT_DELIMITER),
            commands_from: Origins::from_words(&config.get(param::ALLOW_MAIL_TO_COMMANDS)),
            files_from: Origins::from_words(&config.get(param::ALLOW_MAIL_TO_FILES)),
            extensions_to: Origins::from_words(&config.get(param::PROPAGATE_UNMATCHED_EXTENSIONS)),
            delivered_header: DeliveredHeader {
                command: delivered("command"),
                file: delivered("file"),
                forward: delivered("forward"),
            },
            frozen_delivered_to: config.get(param::FROZEN_DELIVERED_TO),
            enable_original_recipient: config.get(param::ENABLE_ORIGINAL_RECIPIENT),
            expand_owner_alias: config.get(param::EXPAND_OWNER_ALIAS),
            owner_request_special: config.get(param::OWNER_REQUEST_SPECIAL),
            default_privs: default_privs(config)?,
            forward_path: config::split_list(&config.get(param::FORWARD_PATH)),
            forward_filter: config.get(param::FORWARD_EXPANSION_FILTER),
            line_length_limit: usize::try_from(config.get(param::LINE_LENGTH_LIMIT)).unwrap_or(2048),
            luser_relay: config.get(param::LUSER_RELAY),
            require_home_directory: config.get(param::REQUIRE_HOME_DIRECTORY),
            transport_maps: maps(param::MAILBOX_TRANSPORT_MAPS)?,
            transport: config.get(param::MAILBOX_TRANSPORT),
            fallback_transport_maps: maps(param::FALLBACK_TRANSPORT_MAPS)?,
            fallback_transport: config.get(param::FALLBACK_TRANSPORT),
            command_maps: maps(param::MAILBOX_COMMAND_MAPS)?,
            command: config.get(param::MAILBOX_COMMAND),
            home_mailbox: config.get(param::HOME_MAILBOX),
            spool_is_maildir: spool.ends_with('/'),
            spool: PathBuf::from(spool),
            limit: config.get(param::MAILBOX_SIZE_LIMIT),
            locking: locking(config, param::MAILBOX_DELIVERY_LOCK)?,
            strict_ownership: config.get(param::STRICT_MAILBOX_OWNERSHIP),
            command_shell: Some(shell).filter(|shell| !shell.is_empty()),
            command_filter: config.get(param::COMMAND_EXPANSION_FILTER),
            command_directory: config.get(param::COMMAND_EXECUTION_DIRECTORY),
            command_directory_filter: config.get(param::EXECUTION_DIRECTORY_EXPANSION_FILTER),
            command_time_limit: config.get(param::COMMAND_TIME_LIMIT),
            exported: exported(config),
        })
    }
}

/// Opens the tables of a parameter. What their patterns match does not get into their results, which name commands,
/// files and transports: a sender could choose those.
pub(crate) fn open_maps(config: &Config, parameter: config::Param<Vec<String>>) -> Result<Maps, Fatal> {
    let options = lookup::Options { substitute: false, ..lookup::Options::default() };
    Maps::open_with(&config.get(parameter), options)
        .map_err(|error| Fatal::new(format!("{}: {error}", parameter.name())))
}

/// Reads a `…_lock` parameter together with those about waiting.
pub(crate) fn locking(config: &Config, parameter: config::Param<Vec<String>>) -> Result<Locking, Fatal> {
    let locking = Locking::from_words(
        &config.get(parameter),
        u32::try_from(config.get(param::DELIVER_LOCK_ATTEMPTS)).unwrap_or(u32::MAX),
        config.get(param::DELIVER_LOCK_DELAY),
        config.get(param::STALE_LOCK_TIME),
    );
    locking.map_err(|word| {
        let name = parameter.name();
        Fatal::new(format!("{name}: {word} is no way to lock a mailbox: expected fcntl, flock or dotlock"))
    })
}

/// Root and the mail system's own user must never run what an alias names.
fn default_privs(config: &Config) -> Result<String, Fatal> {
    let name = config.get(param::DEFAULT_PRIVS);
    let is_root = matches!(SystemUsers::default().by_name(&name), Ok(Some(user)) if user.uid.is_root());
    if is_root || name == config.get(param::MAIL_OWNER) {
        let text = "must be an unprivileged user that owns nothing of the mail system, such as nobody";
        return Err(Fatal::new(format!("default_privs = {name}: {text}")));
    }
    Ok(name)
}

/// `export_environment`: names, whose values are this process's, and `name=value`. `MAIL_CONFIG` is this instance's
/// folder, so that a `sendmail` in a command is this mail system's.
pub(crate) fn exported(config: &Config) -> Vec<(String, String)> {
    let item = |item: &String| match item.split_once('=') {
        Some((name, value)) => Some((name.trim().to_owned(), value.trim().to_owned())),
        None if item == "MAIL_CONFIG" => Some((item.clone(), config.directory().display().to_string())),
        None => Some((item.clone(), std::env::var(item).ok()?)),
    };
    let items: Vec<String> = config.get(param::EXPORT_ENVIRONMENT);
    items.iter().filter_map(item).filter(|(name, _)| !name.is_empty()).collect()
}
