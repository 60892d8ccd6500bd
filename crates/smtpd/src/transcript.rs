//! `notify_classes` in a server: which replies are trouble, and what of a session must not be told. Passwords are not in
//! a transcript, nor is content: responses in AUTH are left out, and of what came together with AUTH, DATA or BDAT nothing
//! is kept.

use config::Config;
use ipc::cleanup::Client;
use lookup::OpenError;
use service::transcript::{
    self, BOUNCE, Classes, DATA, Ended, MAX_KEPT, POLICY, PROTOCOL, RESOURCE, SOFTWARE,
};

/// Of what the postmaster is told, and how.
pub(crate) struct Notices(transcript::Notices);

impl Notices {
    pub(crate) fn new(config: &Config) -> Result<Self, OpenError> {
        transcript::Notices::new(config).map(Self)
    }

    /// The transcript of a session that begins.
    pub(crate) fn begin(&self) -> Transcript {
        Transcript { kept: self.0.begin(Classes::MAX), partial: Vec::new() }
    }

    /// The session is over: tells the postmaster, where there is something to tell.
    pub(crate) fn end(&self, transcript: &Transcript, client: &str, reason: Option<&str>, cleanup: &Client) {
        let after =
            reason.map_or_else(String::new, |reason| format!("Session aborted, reason: {reason}\n")) + "\n";
        let ended = Ended { program: "SMTP server", peer: client, before: "", after: &after };
        self.0.tell(&transcript.kept, &ended, cleanup);
    }
}

/// What was said so far.
pub(crate) struct Transcript {
    kept: transcript::Transcript,
    /// The beginning of a line of the client's.
    partial: Vec<u8>,
}

impl Transcript {
    /// From here on the log shows what is said to and by this client.
    pub(crate) fn show(&mut self, client: Option<String>) {
        self.kept.show(client);
    }

    /// The server said this.
    pub(crate) fn said(&mut self, output: &[u8]) {
        if !self.kept.wants() {
            return;
        }
        for line in String::from_utf8_lossy(output).lines() {
            self.kept.note(class_of(line));
            self.kept.out(line);
        }
    }

    /// The client said this; `is_secret` while its lines are responses in AUTH.
    pub(crate) fn heard(&mut self, input: &[u8], is_secret: bool) {
        if !self.kept.wants() {
            return;
        }
        let mut rest = input;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (end_of_line, behind) = rest.split_at(end + 1);
            let is_last = if self.partial.is_empty() {
                self.heard_line(end_of_line, is_secret)
            } else {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(end_of_line);
                self.heard_line(&line, is_secret)
            };
            rest = if is_last { &[] } else { behind };
        }
        if self.partial.len() + rest.len() > MAX_KEPT {
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(rest);
        }
    }

    /// A line is whole. Says whether nothing of what came together with it may be kept.
    fn heard_line(&mut self, line: &[u8], is_secret: bool) -> bool {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        let mut words = line.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default();
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        let mechanism = words.next().filter(|_| is("AUTH") && words.next().is_some());
        match mechanism {
            _ if is_secret => self.kept.heard("..."),
            Some(mechanism) => self.kept.heard(&format!("AUTH {mechanism} ...")),
            None => self.kept.heard(line),
        }
        is("AUTH") || is("BDAT") || is("DATA")
    }
}

/// The class of a reply's line; nothing for what is no trouble, or has another line behind it.
fn class_of(line: &str) -> Classes {
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
        (code, "1.0" | "1.1" | "1.6") if code.starts_with(['4', '5']) => BOUNCE,
        (code, _) if code.starts_with(['4', '5']) => POLICY,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_classes() {
        let table = [
            ("250 2.1.0 Ok", 0),
            ("550-5.7.1 more", 0),
            ("500 5.5.2 Error: command not recognized", PROTOCOL),
            ("554 5.5.1 Error: no valid recipients", PROTOCOL),
            ("554 5.7.1 <a@b>: Recipient address rejected: Access denied", POLICY),
            ("550 5.1.1 <a@b>: Recipient address rejected: User unknown", BOUNCE),
            ("550 5.1.6 <a@b>: Recipient address rejected: User has moved to c@d", BOUNCE),
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
        let main_cf = "myhostname = mail.example.org\nnotify_classes = protocol, policy\n";
        let snapshot = config::Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
        let (config, _) =
            Config::from_snapshot(std::path::Path::new("/etc/postroad"), &snapshot, &[]).unwrap();
        let mut transcript = Notices::new(&config).unwrap().begin();
        transcript.said(b"220 mail.example.org ESMTP\r\n");
        transcript.heard(b"AUTH PLAIN c2VjcmV0\r\nc2VjcmV0\r\n", false);
        transcript.heard(b"AUTH LOG", false);
        transcript.heard(b"IN\r\n", false);
        transcript.heard(b"c2VjcmV0\r\n", true);
        transcript.heard(b"DATA\r\nsecret content\r\nmore", false);
        transcript.said(b"554 5.7.1 no\r\n");
        let text = transcript.kept.text();
        assert!(
            text.contains(" In:  AUTH PLAIN ...\n In:  AUTH LOGIN\n In:  ...\n In:  DATA\n Out: 554"),
            "{text}"
        );
        assert!(!text.contains("ecret") && !text.contains("c2Vj"), "{text}");
        assert_eq!(transcript.kept.classes(), POLICY);
    }
}
