//! The dialogue with a client that has failed: it may say who it is and to whom it would send, for the log, and is refused
//! at each recipient. No I/O. It is offered what Postfix offers such a client, TLS among it, so that a client which must have
//! that comes far enough to be logged.

use std::sync::Arc;

use smtp_proto::Reply;
use smtp_proto::parameter::Extensions;
use smtp_proto::server::SiteRules;

use super::settings::Settings;

/// What is known of the dialogue.
pub(super) struct Refusing {
    settings: Arc<Settings>,
    site: Option<Arc<dyn SiteRules>>,
    offered: Extensions,
    encrypted: bool,
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
    /// Say this, and go on encrypted; what has come behind the command is forgotten.
    StartTls(String),
    /// Say this, and end.
    End(String),
    /// Wait for more.
    Read,
}

impl Refusing {
    /// The dialogue with a client at this address and port, that is told `refusal`. `offered` is what is not kept from it.
    pub(super) fn new(
        settings: &Arc<Settings>,
        (address, port): (&str, u16),
        offered: Extensions,
        refusal: String,
    ) -> Self {
        Self {
            settings: Arc::clone(settings),
            site: settings.site.rules_for(address, port),
            offered,
            encrypted: false,
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

    /// The connection is encrypted: the dialogue begins anew (RFC 3207 section 4.2).
    pub(super) fn encrypted(&mut self) {
        self.input.clear();
        (self.encrypted, self.protocol, self.helo, self.sender) = (true, "SMTP", None, None);
    }

    /// The next step; to be asked until it is [`Step::Read`], [`Step::StartTls`] or an end.
    pub(super) fn step(&mut self) -> Step {
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
            if self.input.len() < self.settings.line_length_limit {
                return Step::Read;
            }
            return Step::Offence("COMMAND LENGTH LIMIT".into(), self.unavailable());
        };
        // As in Postfix, a command ends at a zero byte.
        let line = String::from_utf8_lossy(&self.input[..end]).into_owned();
        let line = line.split('\0').next().unwrap_or_default().trim_end_matches('\r');
        let changed = self.site.as_ref().and_then(|site| site.command(line));
        let line = changed.as_deref().unwrap_or(line);
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

    /// A reply as it goes over the wire, with the site's footer.
    pub(super) fn wire(&self, reply: &str) -> String {
        with_footer(self.site.as_deref(), reply)
    }

    fn unavailable(&self) -> String {
        format!("421 {} Service unavailable - try again later", self.settings.hostname)
    }

    fn command(&mut self, verb: &str, argument: &str) -> Step {
        let say = |text: &str| Step::Say(text.to_owned());
        let may_come_in_clear = matches!(verb, "EHLO" | "HELO" | "STARTTLS" | "NOOP" | "RSET" | "QUIT");
        if self.settings.must_encrypt && !self.encrypted && !may_come_in_clear {
            return say("530 5.7.0 Must issue a STARTTLS command first");
        }
        match verb {
            "HELO" | "EHLO" if argument.is_empty() => Step::Say(format!("501 Syntax: {verb} hostname")),
            "HELO" => self.greeted("SMTP", argument, format!("250 {}", self.settings.hostname)),
            "EHLO" => self.greeted("ESMTP", argument, self.offer()),
            "STARTTLS" => self.start_tls(argument),
            "MAIL" => self.mail(argument),
            "RCPT" => self.rcpt(argument),
            "DATA" | "BDAT" => self.content(verb, argument),
            "RSET" => {
                self.sender = None;
                say("250 2.0.0 Ok")
            }
            "NOOP" => say("250 2.0.0 Ok"),
            "VRFY" if self.settings.disable_vrfy => say("502 5.5.1 VRFY command is disabled"),
            "VRFY" if argument.is_empty() => say("501 5.5.4 Syntax: VRFY address"),
            "VRFY" => Step::Say(self.refusal.clone()),
            "ETRN" if argument.is_empty() => say("500 Syntax: ETRN domain"),
            "ETRN" => say("458 Unable to queue messages"),
            "QUIT" => Step::End("221 2.0.0 Bye".to_owned()),
            _ => say("502 5.5.2 Error: command not recognized"),
        }
    }

    /// The answer to EHLO: in Postfix's order, and as little of it.
    fn offer(&self) -> String {
        let size = format!("SIZE {}", self.settings.size_limit);
        let rows = [
            (Extensions::SIZE, size.as_str()),
            (Extensions::VRFY, "VRFY"),
            (Extensions::ETRN, "ETRN"),
            (Extensions::STARTTLS, "STARTTLS"),
            (Extensions::ENHANCEDSTATUSCODES, "ENHANCEDSTATUSCODES"),
            (Extensions::EIGHTBITMIME, "8BITMIME"),
            (Extensions::DSN, "DSN"),
            (Extensions::SMTPUTF8, "SMTPUTF8"),
            (Extensions::CHUNKING, "CHUNKING"),
        ];
        let shown = |extension| match extension {
            Extensions::VRFY => !self.settings.disable_vrfy,
            Extensions::STARTTLS => !self.encrypted,
            _ => true,
        };
        let mut lines = vec![self.settings.hostname.as_str()];
        let offered = rows.iter().filter(|(e, _)| self.offered.contains(*e) && shown(*e));
        lines.extend(offered.map(|(_, text)| *text));
        let last = lines.pop().unwrap_or_default();
        let before: String = lines.iter().map(|line| format!("250-{line}\r\n")).collect();
        format!("{before}250 {last}")
    }

    fn greeted(&mut self, protocol: &'static str, name: &str, reply: String) -> Step {
        (self.protocol, self.helo, self.sender) = (protocol, Some(name.to_owned()), None);
        Step::Say(reply)
    }

    fn start_tls(&self, argument: &str) -> Step {
        let say = |text: &str| Step::Say(text.to_owned());
        match () {
            () if !argument.is_empty() => say("501 5.5.4 Syntax: STARTTLS"),
            () if self.encrypted => say("554 5.5.1 Error: TLS already active"),
            () if !self.offered.contains(Extensions::STARTTLS) => {
                say("502 5.5.1 Error: command not implemented")
            }
            () => Step::StartTls("220 2.0.0 Ready to start TLS".to_owned()),
        }
    }

    /// A client that goes on to send content has not understood, and gets no further.
    fn content(&self, verb: &str, argument: &str) -> Step {
        let reply = match (verb, &self.sender) {
            ("DATA", _) if !argument.is_empty() => "501 5.5.4 Syntax: DATA",
            ("DATA", None) => "503 5.5.1 Error: need RCPT command",
            (_, None) if argument.is_empty() => "501 5.5.4 Syntax: BDAT count [LAST]",
            (_, None) => "554 5.5.1 Error: need MAIL command",
            (_, Some(_)) => "554 5.5.1 Error: no valid recipients",
        };
        Step::Offence(format!("{verb} without valid RCPT"), reply.to_owned())
    }

    fn mail(&mut self, argument: &str) -> Step {
        if self.settings.helo_required && self.helo.is_none() {
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
        let Some(recipient) = path(argument, "TO:") else {
            return Step::Say("501 5.5.4 Syntax: RCPT TO:<address>".to_owned());
        };
        let helo = self.helo.as_deref().unwrap_or_default();
        let context = format!("from=<{sender}>, to=<{recipient}>, proto={}, helo=<{helo}>", self.protocol);
        Step::Reject(self.refusal.clone(), context)
    }
}

/// A reply as it goes over the wire; refusals with the footer of these rules.
pub(super) fn with_footer(site: Option<&dyn SiteRules>, reply: &str) -> String {
    let refusal = site.zip(Reply::parse(reply).filter(|reply| !reply.is_positive()));
    let footed = refusal.and_then(|(site, reply)| site.footer(&reply).map(|text| reply.with_footer(&text)));
    let Some(reply) = footed else { return format!("{reply}\r\n") };
    let mut bytes = Vec::new();
    reply.write(&mut bytes, true);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What stands between the angle brackets, or the first word where there are none; bots need not close brackets.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let start = argument.get(..keyword.len())?;
    if !start.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = argument[keyword.len()..].trim_start();
    match rest.strip_prefix('<') {
        Some(inside) => Some(inside.split_once('>').map_or(inside, |(path, _)| path)),
        None => Some(rest.split_whitespace().next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::{Config, Snapshot};

    use super::*;

    fn dialogue() -> Refusing {
        let main_cf = "compatibility_level = 3.6\nmyhostname = mx.example\nmynetworks = 192.0.2.0/24\n\
                       postscreen_helo_required = yes\nline_length_limit = 512\npostscreen_command_count_limit = 8\n\
                       postscreen_cache_map =\npostscreen_tls_security_level = encrypt\n\
                       postscreen_reject_footer = ask $server_name\n";
        let snapshot = Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
        let (config, _) = Config::from_snapshot(Path::new("/etc/postroad"), &snapshot, &[]).unwrap();
        let settings = Arc::new(Settings::new(&config).unwrap());
        let offered = settings.offered_to("192.0.2.1");
        let mut dialogue = Refusing::new(&settings, ("192.0.2.1", 25), offered, "550 5.7.1 no".into());
        dialogue.encrypted();
        dialogue
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
        assert_eq!(bot.wire("550 5.7.1 no"), "550-5.7.1 no\r\n550 5.7.1 ask mx.example\r\n");
        assert_eq!(bot.wire("250 2.0.0 Ok"), "250 2.0.0 Ok\r\n");
    }

    #[test]
    fn what_came_in_clear_is_forgotten() {
        let mut bot = dialogue();
        bot.encrypted = false;
        assert_eq!(
            say(&mut bot, "MAIL FROM:<a@b>"),
            Step::Say("530 5.7.0 Must issue a STARTTLS command first".into())
        );
        bot.heard(b"STARTTLS\r\nRSET\r\n");
        assert!(matches!(bot.step(), Step::Hurry(..)));
        assert!(matches!(bot.step(), Step::StartTls(_)));
        bot.encrypted();
        assert_eq!(bot.step(), Step::Read);
        assert_eq!(say(&mut bot, "STARTTLS"), Step::Say("554 5.5.1 Error: TLS already active".into()));
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
