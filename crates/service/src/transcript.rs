//! `notify_classes`: what was said in a session in which something went wrong goes to the postmaster.
//!
//! Contract: bounded, and nothing at all where no class asks for it. What is secret its callers leave out.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use config::{Config, param};
use ipc::cleanup::{CleanupError, Client, Options};
use ipc::log;
use lookup::OpenError;
use mail::{Address, Envelope, QueueId, Recipient};

/// No more than this of a session is kept.
pub const MAX_KEPT: usize = 64 * 1024;

/// A longer line is folded.
const WIDTH: usize = 78;

/// Kinds of trouble, a bit each.
pub type Classes = u8;

/// Mail for nobody.
pub const BOUNCE: Classes = 1;
/// A table or file that cannot be read.
pub const DATA: Classes = 2;
/// What this site does not want.
pub const POLICY: Classes = 4;
/// What is not said as the protocol has it.
pub const PROTOCOL: Classes = 8;
/// Too little of something.
pub const RESOURCE: Classes = 16;
/// What should not happen.
pub const SOFTWARE: Classes = 32;

const NAMES: [(&str, Classes); 6] = [
    ("bounce", BOUNCE),
    ("data", DATA),
    ("policy", POLICY),
    ("protocol", PROTOCOL),
    ("resource", RESOURCE),
    ("software", SOFTWARE),
];

/// Of what the postmaster is told, and how.
pub struct Notices {
    classes: Classes,
    sender: Address,
    error_recipient: Address,
    bounce_recipient: Address,
    hostname: String,
    mail_name: String,
    options: Options,
}

/// A session that is over.
pub struct Ended<'a> {
    /// Who took part in it for this host: `SMTP server`.
    pub program: &'a str,
    /// The other side, as the log shows it.
    pub peer: &'a str,
    /// What stands before the transcript; may be empty.
    pub before: &'a str,
    /// What stands behind it; may be empty.
    pub after: &'a str,
}

impl Notices {
    /// As the parameters say.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(config: &Config) -> Result<Self, OpenError> {
        let words = config.get(param::NOTIFY_CLASSES);
        let has = |name: &str| words.iter().any(|word| word.eq_ignore_ascii_case(name));
        let (hostname, origin) = (config.get(param::MYHOSTNAME), config.get(param::MYORIGIN));
        let filters = config.get(param::INTERNAL_MAIL_FILTER_CLASSES);
        Ok(Self {
            classes: NAMES.iter().filter(|(name, _)| has(name)).fold(0, |all, (_, class)| all | class),
            sender: address("double_bounce_sender", &config.get(param::DOUBLE_BOUNCE_SENDER), &hostname)?,
            error_recipient: address(
                "error_notice_recipient",
                &config.get(param::ERROR_NOTICE_RECIPIENT),
                &origin,
            )?,
            bounce_recipient: address(
                "bounce_notice_recipient",
                &config.get(param::BOUNCE_NOTICE_RECIPIENT),
                &origin,
            )?,
            hostname,
            mail_name: config.get(param::MAIL_NAME),
            options: Options { filter: filters.iter().any(|class| class == "notify"), ..Options::default() },
        })
    }

    /// The transcript of a session that begins, if any trouble of these classes is to be told.
    #[must_use]
    pub const fn begin(&self, classes: Classes) -> Transcript {
        let wants = self.classes & classes != 0;
        Transcript { wants, shown: None, text: String::new(), classes: 0, is_cut: false }
    }

    /// Whether this is the sender of notices: trouble with them is told in no further ones.
    #[must_use]
    pub fn is_sender(&self, sender: &Address) -> bool {
        *sender == self.sender
    }

    /// Tells the postmaster, where there is something to tell.
    pub fn tell(&self, transcript: &Transcript, ended: &Ended<'_>, cleanup: &Client) {
        if transcript.classes & self.classes == 0 {
            return;
        }
        if let Err(error) = self.send(transcript, ended, cleanup) {
            log::warning!("notice to the postmaster about the session of {}: {error}", ended.peer);
        }
    }

    fn send(&self, transcript: &Transcript, ended: &Ended<'_>, cleanup: &Client) -> Result<(), CleanupError> {
        let now = SystemTime::now();
        let is_bounce = transcript.classes & BOUNCE != 0;
        let to = if is_bounce { &self.bounce_recipient } else { &self.error_recipient };
        let envelope = Envelope::new(
            self.sender.clone(),
            vec![Recipient::new(to.clone())],
            now.duration_since(UNIX_EPOCH).unwrap_or_default(),
        );
        let mut message = cleanup.begin(QueueId::generate(now), &envelope, self.options)?;
        let text = self.text(transcript, ended, to);
        message.write_all(text.as_bytes()).map_err(CleanupError::Unreachable)?;
        message.commit().map(drop)
    }

    fn text(&self, transcript: &Transcript, ended: &Ended<'_>, to: &Address) -> String {
        let (host, name) = (&self.hostname, &self.mail_name);
        let cut = if transcript.is_cut { " ... the rest is left out\n" } else { "" };
        let Ended { program, peer, before, after } = ended;
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\nTo: Postmaster <{}>\n\
             Subject: {name} {program}: errors from {peer}\nAuto-Submitted: auto-generated\n\n\
             {before}Transcript of session follows.\n\n{}{cut}\n{after}\
             For other details, see the local mail logfile\n",
            to.to_path(),
            transcript.text
        )
    }
}

/// What was said so far.
#[derive(Debug, Default)]
pub struct Transcript {
    wants: bool,
    /// The other side's name, where `debug_peer_list` has what is said logged.
    shown: Option<Box<str>>,
    text: String,
    classes: Classes,
    is_cut: bool,
}

impl Transcript {
    /// Whether anybody wants to hear what is said.
    #[must_use]
    pub const fn wants(&self) -> bool {
        self.wants || self.shown.is_some()
    }

    /// From here on the log shows what is said to and by `peer`; what is secret is left out there as well.
    pub fn show(&mut self, peer: Option<String>) {
        self.shown = peer.map(String::into_boxed_str);
    }

    /// What was said so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The troubles so far.
    #[must_use]
    pub const fn classes(&self) -> Classes {
        self.classes
    }

    /// There was trouble of these classes.
    pub const fn note(&mut self, classes: Classes) {
        self.classes |= classes;
    }

    /// The same of a session that goes on; what was said up to here is given away.
    #[must_use]
    pub fn split(&mut self) -> Self {
        let next = Self { wants: self.wants, shown: self.shown.clone(), ..Self::default() };
        std::mem::replace(self, next)
    }

    /// This host said the line.
    pub fn out(&mut self, line: &str) {
        if let Some(peer) = &self.shown {
            log::info!("> {peer}: {line}");
        }
        self.push(" Out: ", line);
    }

    /// The other side said the line.
    pub fn heard(&mut self, line: &str) {
        if let Some(peer) = &self.shown {
            log::info!("< {peer}: {line}");
        }
        self.push(" In:  ", line);
    }

    fn push(&mut self, mark: &str, line: &str) {
        if !self.wants {
            return;
        }
        if self.text.len() + line.len() > MAX_KEPT {
            self.is_cut = true;
            return;
        }
        self.text.push_str(mark);
        if mark.len() + line.len() <= WIDTH && line.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            self.text.push_str(line);
            self.text.push('\n');
            return;
        }
        let mut column = mark.len();
        for (number, word) in line.split(' ').enumerate() {
            let width = word.chars().count();
            if number > 0 && column + 1 + width > WIDTH {
                self.text.push_str("\n     ");
                column = 5;
            } else if number > 0 {
                self.text.push(' ');
                column += 1;
            }
            self.text.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }));
            column += width;
        }
        self.text.push('\n');
    }
}

/// A name without a domain belongs to `domain`.
fn address(parameter: &str, value: &str, domain: &str) -> Result<Address, OpenError> {
    let value = value.trim();
    let complete = if value.contains('@') { value.to_owned() } else { format!("{value}@{domain}") };
    Address::new(complete)
        .map_err(|error| OpenError::Configuration(format!("{parameter} = {value}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notices(main_cf: &str) -> Notices {
        let main_cf = format!("myhostname = mail.example.org\nmyorigin = example.org\n{main_cf}");
        let snapshot = config::Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
        let (config, _) =
            Config::from_snapshot(std::path::Path::new("/etc/postroad"), &snapshot, &[]).unwrap();
        Notices::new(&config).unwrap()
    }

    #[test]
    fn a_notice_tells_who_said_what() {
        let notices = notices("notify_classes = protocol, policy\nerror_notice_recipient = en@box.example\n");
        let mut transcript = notices.begin(POLICY);
        transcript.heard("DATA");
        transcript.out(&format!("554 5.7.1 {}", "word ".repeat(30).trim_end()));
        let ended = Ended {
            program: "SMTP server",
            peer: "c[1.2.3.4]",
            before: "",
            after: "Session aborted, reason: lost connection\n",
        };
        let text = notices.text(&transcript, &ended, &notices.error_recipient);
        assert!(text.contains("\n In:  DATA\n Out: 554") && text.contains("\n     word"), "{text}");
        assert!(text.contains(
            "To: Postmaster <en@box.example>\nSubject: Postroad SMTP server: errors from c[1.2.3.4]\n"
        ));
        assert!(text.contains("Session aborted, reason: lost connection\n"), "{text}");
        assert!(notices.is_sender(&Address::new("double-bounce@mail.example.org").unwrap()));
    }

    #[test]
    fn nothing_is_kept_where_nobody_asks() {
        let mut transcript = notices("notify_classes = delay\n").begin(PROTOCOL);
        transcript.out("500 5.5.2 no");
        assert!(transcript.text.is_empty() && !transcript.wants());
    }

    #[test]
    fn a_long_session_is_cut() {
        let mut transcript = notices("").begin(RESOURCE);
        for _ in 0..10_000 {
            transcript.out("250 2.0.0 Ok");
        }
        assert!(transcript.text.len() <= MAX_KEPT + WIDTH && transcript.is_cut);
        let before = transcript.split();
        assert!(before.is_cut && transcript.wants() && transcript.text.is_empty());
    }
}
