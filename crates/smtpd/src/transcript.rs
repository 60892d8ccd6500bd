//! `notify_classes`: what was said in a session in which something went wrong goes to the postmaster.
//!
//! Contract: bounded, and nothing at all where no class asks for it. Passwords are not in it, nor is content: responses in
//! AUTH are left out, and of what came together with AUTH, DATA or BDAT nothing is kept.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use config::{Config, param};
use ipc::cleanup::{CleanupError, Client, Options};
use ipc::log;
use lookup::OpenError;
use mail::{Address, Envelope, QueueId, Recipient};

/// No more than this of a session is kept.
const MAX_KEPT: usize = 64 * 1024;

/// A longer line is folded.
const WIDTH: usize = 78;

/// A kind of trouble, as a bit.
type Class = u8;

const BOUNCE: Class = 1;
const DATA: Class = 2;
const POLICY: Class = 4;
const PROTOCOL: Class = 8;
const RESOURCE: Class = 16;
const SOFTWARE: Class = 32;

const NAMES: [(&str, Class); 6] = [
    ("bounce", BOUNCE),
    ("data", DATA),
    ("policy", POLICY),
    ("protocol", PROTOCOL),
    ("resource", RESOURCE),
    ("software", SOFTWARE),
];

/// Of what the postmaster is told, and how.
pub(crate) struct Notices {
    classes: Class,
    sender: Address,
    error_recipient: Address,
    bounce_recipient: Address,
    hostname: String,
    mail_name: String,
    options: Options,
}

impl Notices {
    pub(crate) fn new(config: &Config) -> Result<Self, OpenError> {
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

    /// The transcript of a session that begins.
    pub(crate) fn begin(&self) -> Transcript {
        let wants = self.classes != 0;
        Transcript { wants, text: String::new(), partial: Vec::new(), classes: 0, is_cut: false }
    }

    /// The session is over: tells the postmaster, where there is something to tell.
    pub(crate) fn end(&self, transcript: &Transcript, client: &str, reason: Option<&str>, cleanup: &Client) {
        if transcript.classes & self.classes == 0 {
            return;
        }
        if let Err(error) = self.send(transcript, client, reason, cleanup) {
            log::warning!("notice to the postmaster about the session of {client}: {error}");
        }
    }

    fn send(
        &self,
        transcript: &Transcript,
        client: &str,
        reason: Option<&str>,
        cleanup: &Client,
    ) -> Result<(), CleanupError> {
        let now = SystemTime::now();
        let is_bounce = transcript.classes & BOUNCE != 0;
        let to = if is_bounce { &self.bounce_recipient } else { &self.error_recipient };
        let envelope = Envelope::new(
            self.sender.clone(),
            vec![Recipient::new(to.clone())],
            now.duration_since(UNIX_EPOCH).unwrap_or_default(),
        );
        let mut message = cleanup.begin(QueueId::generate(now), &envelope, self.options)?;
        let text = self.text(transcript, client, reason, to);
        message.write_all(text.as_bytes()).map_err(CleanupError::Unreachable)?;
        message.commit().map(drop)
    }

    fn text(&self, transcript: &Transcript, client: &str, reason: Option<&str>, to: &Address) -> String {
        let (host, name) = (&self.hostname, &self.mail_name);
        let cut = if transcript.is_cut { " ... the rest is left out\n" } else { "" };
        let reason = reason.map_or_else(String::new, |reason| format!("Session aborted, reason: {reason}\n"));
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@{host}>\nTo: Postmaster <{}>\n\
             Subject: {name} SMTP server: errors from {client}\nAuto-Submitted: auto-generated\n\n\
             Transcript of session follows.\n\n{}{cut}\n{reason}\n\
             For other details, see the local mail logfile\n",
            to.to_path(),
            transcript.text
        )
    }
}

/// What was said so far.
pub(crate) struct Transcript {
    wants: bool,
    text: String,
    /// The beginning of a line of the client's.
    partial: Vec<u8>,
    classes: Class,
    is_cut: bool,
}

impl Transcript {
    /// The server said this.
    pub(crate) fn said(&mut self, output: &[u8]) {
        if !self.wants {
            return;
        }
        for line in String::from_utf8_lossy(output).lines() {
            self.classes |= class_of(line);
            self.push(" Out: ", line);
        }
    }

    /// The client said this; `is_secret` while its lines are responses in AUTH.
    pub(crate) fn heard(&mut self, input: &[u8], is_secret: bool) {
        if !self.wants {
            return;
        }
        self.partial.extend_from_slice(input);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let verb = words.first().copied().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                _ if is_secret => self.push(" In:  ", "..."),
                "AUTH" if words.len() > 2 => self.push(" In:  ", &format!("AUTH {} ...", words[1])),
                _ => self.push(" In:  ", &line),
            }
            if matches!(verb.as_str(), "AUTH" | "BDAT" | "DATA") {
                self.partial.clear();
            }
        }
        if self.partial.len() > MAX_KEPT {
            self.partial.clear();
        }
    }

    fn push(&mut self, mark: &str, line: &str) {
        if self.text.len() + line.len() > MAX_KEPT {
            self.is_cut = true;
            return;
        }
        self.text.push_str(mark);
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

/// The class of a reply's line; nothing for what is no trouble, or has another line behind it.
fn class_of(line: &str) -> Class {
    let (Some(code), Some(rest)) = (line.get(..3), line.get(3..)) else { return 0 };
    let Some(text) = rest.strip_prefix(' ') else { return 0 };
    let dsn = text.split(' ').next().unwrap_or_default();
    let detail = dsn.split_once('.').map_or("", |(_, detail)| detail);
    match (code, detail) {
        ("421", _) => 0,
        ("500" | "501" | "502" | "503" | "504", _) => PROTOCOL,
        (code, detail) if code.starts_with(['4', '5']) && detail.starts_with("5.") => PROTOCOL,
        ("452", _) => RESOURCE,
        ("451", _) if text.contains("lookup failure") => DATA,
        ("451", "3.0" | "3.5") => SOFTWARE,
        (code, "1.0" | "1.1") if code.starts_with(['4', '5']) => BOUNCE,
        (code, _) if code.starts_with(['4', '5']) => POLICY,
        _ => 0,
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
    fn replies_have_classes() {
        let table = [
            ("250 2.1.0 Ok", 0),
            ("550-5.7.1 more", 0),
            ("500 5.5.2 Error: command not recognized", PROTOCOL),
            ("554 5.5.1 Error: no valid recipients", PROTOCOL),
            ("554 5.7.1 <a@b>: Recipient address rejected: Access denied", POLICY),
            ("550 5.1.1 <a@b>: Recipient address rejected: User unknown", BOUNCE),
            ("450 4.1.8 <a@b>: Sender address rejected: Domain not found", POLICY),
            ("452 4.3.1 Insufficient system storage", RESOURCE),
            ("451 4.3.0 <a@b>: Temporary lookup failure", DATA),
            ("451 4.3.5 Server configuration error", SOFTWARE),
            ("421 4.4.2 timeout", 0),
        ];
        for (line, class) in table {
            assert_eq!(class_of(line), class, "{line}");
        }
    }

    #[test]
    fn a_transcript_has_neither_passwords_nor_content() {
        let notices = notices("notify_classes = protocol, policy\nerror_notice_recipient = en@box.example\n");
        let mut transcript = notices.begin();
        transcript.said(b"220 mail.example.org ESMTP\r\n");
        transcript.heard(b"AUTH PLAIN c2VjcmV0\r\nc2VjcmV0\r\n", false);
        transcript.heard(b"AUTH LOG", false);
        transcript.heard(b"IN\r\n", false);
        transcript.heard(b"c2VjcmV0\r\n", true);
        transcript.heard(b"DATA\r\nsecret content\r\nmore", false);
        let refusal = format!("554 5.7.1 {}\r\n", "word ".repeat(30).trim_end());
        transcript.said(refusal.as_bytes());
        let text = notices.text(&transcript, "c[1.2.3.4]", Some("lost connection"), &notices.error_recipient);
        assert!(
            text.contains(" In:  AUTH PLAIN ...\n In:  AUTH LOGIN\n In:  ...\n In:  DATA\n Out: 554"),
            "{text}"
        );
        assert!(!text.contains("ecret") && !text.contains("c2Vj") && text.contains("\n     word"), "{text}");
        assert!(text.contains(
            "To: Postmaster <en@box.example>\nSubject: Postroad SMTP server: errors from c[1.2.3.4]\n"
        ));
        assert!(text.contains("Session aborted, reason: lost connection\n"), "{text}");
        assert_eq!(transcript.classes, POLICY);
    }

    #[test]
    fn nothing_is_kept_where_nobody_asks() {
        let mut transcript = notices("notify_classes = delay\n").begin();
        transcript.said(b"500 5.5.2 no\r\n");
        transcript.heard(b"x\r\n", false);
        assert!(transcript.text.is_empty() && transcript.classes == 0 && transcript.partial.is_empty());
    }

    #[test]
    fn a_long_session_is_cut() {
        let mut transcript = notices("").begin();
        for _ in 0..10_000 {
            transcript.said(b"250 2.0.0 Ok\r\n");
        }
        assert!(transcript.text.len() <= MAX_KEPT + WIDTH && transcript.is_cut);
    }
}
