//! The dialogue with a client that has failed: it may say who it is and to whom it would send, for the log, and is refused
//! at each recipient. No I/O. Neither TLS nor anything else is offered that such a client could want.

use std::fmt;

/// What is known of the dialogue.
pub(super) struct Refusing {
    hostname: String,
    size_limit: u64,
    helo_required: bool,
    line_limit: usize,
    commands_left: usize,
    refusal: String,
    input: Vec<u8>,
    helo: Option<String>,
    protocol: &'static str,
    sender: Option<String>,
    hurried: bool,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Say this.
    Say(String),
    /// Say this, and log that a recipient was refused: the reply, and the fields behind it.
    Reject(String, String),
    /// Log that it has not waited for the reply to a command, and what it has sent behind it; go on.
    Hurry(String, String),
    /// Log this about the client, say this, and end.
    Offence(String, String),
    /// Say this, and end.
    End(String),
    /// Wait for more.
    Read,
}

impl Refusing {
    pub(super) fn new(settings: &super::settings::Settings, refusal: String) -> Self {
        Self {
            hostname: settings.hostname.clone(),
            size_limit: settings.size_limit,
            helo_required: settings.helo_required,
            line_limit: settings.line_length_limit,
            commands_left: settings.command_count_limit,
            refusal,
            input: Vec::new(),
            helo: None,
            protocol: "SMTP",
            sender: None,
            hurried: false,
        }
    }

    pub(super) fn heard(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next step; to be asked until it is [`Step::Read`] or an end.
    pub(super) fn step(&mut self) -> Step {
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
            if self.input.len() < self.line_limit {
                return Step::Read;
            }
            return Step::Offence("COMMAND LENGTH LIMIT".into(), self.unavailable());
        };
        // As in Postfix, a command ends at a zero byte.
        let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
        let line = line.split('\0').next().unwrap_or_default().trim_end_matches('\r');
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        if !self.hurried && self.input.len() > end + 1 {
            self.hurried = true;
            let rest = String::from_utf8_lossy(&self.input[end + 1..]).into_owned();
            return Step::Hurry(verb.to_owned(), rest);
        }
        self.input.drain(..=end);
        if self.commands_left == 0 {
            return Step::Offence("COMMAND COUNT LIMIT".into(), self.unavailable());
        }
        self.commands_left -= 1;
        self.command(&verb.to_ascii_uppercase(), argument.trim())
    }

    fn unavailable(&self) -> String {
        format!("421 {} Service unavailable - try again later", self.hostname)
    }

    fn command(&mut self, verb: &str, argument: &str) -> Step {
        let say = |text: &str| Step::Say(text.to_owned());
        match verb {
            "HELO" | "EHLO" if argument.is_empty() => Step::Say(format!("501 Syntax: {verb} hostname")),
            "HELO" => self.greeted("SMTP", argument, format!("250 {}", self.hostname)),
            "EHLO" => {
                let reply = format!(
                    "250-{}\r\n250-SIZE {}\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8",
                    self.hostname, self.size_limit
                );
                self.greeted("ESMTP", argument, reply)
            }
            "MAIL" => self.mail(argument),
            "RCPT" => self.rcpt(argument),
            "DATA" if self.sender.is_none() => say("503 5.5.1 Error: need RCPT command"),
            "DATA" => {
                Step::Offence("DATA without valid RCPT".into(), "554 5.5.1 Error: no valid recipients".into())
            }
            "BDAT" => {
                Step::Offence("BDAT without valid RCPT".into(), "554 5.5.1 Error: no valid recipients".into())
            }
            "RSET" => {
                self.sender = None;
                say("250 2.0.0 Ok")
            }
            "NOOP" => say("250 2.0.0 Ok"),
            "VRFY" => say("502 5.5.1 VRFY command is disabled"),
            "ETRN" => say("458 Unable to queue messages"),
            "STARTTLS" | "AUTH" => say("502 5.5.1 Error: command not implemented"),
            "QUIT" => Step::End("221 2.0.0 Bye".to_owned()),
            _ => say("502 5.5.2 Error: command not recognized"),
        }
    }

    fn greeted(&mut self, protocol: &'static str, name: &str, reply: String) -> Step {
        (self.protocol, self.helo, self.sender) = (protocol, Some(name.to_owned()), None);
        Step::Say(reply)
    }

    fn mail(&mut self, argument: &str) -> Step {
        if self.helo_required && self.helo.is_none() {
            return Step::Say("503 5.5.1 Error: send HELO/EHLO first".to_owned());
        }
        if self.sender.is_some() {
            return Step::Say("503 5.5.1 Error: nested MAIL command".to_owned());
        }
        match path(argument, "FROM:") {
            Some(sender) => {
                self.sender = Some(sender.to_owned());
                Step::Say("250 2.1.0 Ok".to_owned())
            }
            None => Step::Say("501 5.5.4 Syntax: MAIL FROM:<address>".to_owned()),
        }
    }

    fn rcpt(&self, argument: &str) -> Step {
        let Some(sender) = &self.sender else {
            return Step::Say("503 5.5.1 Error: need MAIL command".to_owned());
        };
        let Some(recipient) = path(argument, "TO:").filter(|recipient| !recipient.is_empty()) else {
            return Step::Say("501 5.5.4 Syntax: RCPT TO:<address>".to_owned());
        };
        let helo = self.helo.as_deref().unwrap_or_default();
        let context = format!("from=<{sender}>, to=<{recipient}>, proto={}, helo=<{helo}>", self.protocol);
        Step::Reject(self.refusal.clone(), context)
    }
}

impl fmt::Debug for Refusing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusing").field("refusal", &self.refusal).finish_non_exhaustive()
    }
}

/// What stands between the angle brackets, or the first word where there are none.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let start = argument.get(..keyword.len())?;
    if !start.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = argument[keyword.len()..].trim_start();
    match rest.strip_prefix('<') {
        Some(inside) => inside.split_once('>').map(|(path, _)| path),
        None => rest.split_whitespace().next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialogue() -> Refusing {
        Refusing {
            hostname: "mx.example".into(),
            size_limit: 1000,
            helo_required: true,
            line_limit: 512,
            commands_left: 8,
            refusal: "550 5.7.1 no".into(),
            input: Vec::new(),
            helo: None,
            protocol: "SMTP",
            sender: None,
            hurried: false,
        }
    }

    fn say(dialogue: &mut Refusing, line: &str) -> Step {
        dialogue.heard(line.as_bytes());
        dialogue.heard(b"\r\n");
        dialogue.step()
    }

    #[test]
    fn every_recipient_is_refused_and_nothing_else_is_taken() {
        let mut bot = dialogue();
        assert_eq!(
            say(&mut bot, "MAIL FROM:<a@b>"),
            Step::Say("503 5.5.1 Error: send HELO/EHLO first".into())
        );
        assert!(
            matches!(say(&mut bot, "EHLO bot"), Step::Say(text) if text.starts_with("250-mx.example\r\n"))
        );
        assert_eq!(say(&mut bot, "mail from:<a@b> SIZE=1"), Step::Say("250 2.1.0 Ok".into()));
        let context = "from=<a@b>, to=<c@d>, proto=ESMTP, helo=<bot>".to_owned();
        assert_eq!(say(&mut bot, "RCPT TO:<c@d>"), Step::Reject("550 5.7.1 no".into(), context));
        assert!(matches!(say(&mut bot, "DATA"), Step::Offence(..)));
        assert_eq!(bot.step(), Step::Read);
    }

    #[test]
    fn lines_and_commands_have_limits() {
        let mut bot = dialogue();
        for _ in 0..8 {
            assert!(matches!(say(&mut bot, "NOOP"), Step::Say(_)));
        }
        assert!(matches!(say(&mut bot, "NOOP"), Step::Offence(what, _) if what == "COMMAND COUNT LIMIT"));
        let mut bot = dialogue();
        bot.heard(&[b'x'; 512]);
        assert!(matches!(bot.step(), Step::Offence(what, _) if what == "COMMAND LENGTH LIMIT"));
    }

    #[test]
    fn no_input_panics() {
        for line in
            ["", " ", "MAIL", "MAIL FROM:", "RCPT TO", "MAIL FROM:\u{e9}", "EHLO", "MAIL FRO\u{e9}:x", "\0"]
        {
            let mut bot = dialogue();
            say(&mut bot, "HELO x");
            let _ = say(&mut bot, line);
        }
    }
}
