//! `sendmail -bs`: SMTP on standard input and output (RFC 5321), for programs that hand over mail in no other way.
//!
//! Here is only the dialogue. Each message goes to a `sendmail -i` of its own, which does with it what it does for anybody;
//! 250 is said when that has ended well. A message whose end does not come is taken back.

use std::io::{self, BufRead, Read, Write};
use std::process::{Child, Command, Stdio};

use mail::Address;
use mail::header_address::parse_first;

use crate::failure::{Exit, Failure};
use crate::settings::Settings;

/// The longest command (RFC 5321 section 4.5.3.1.4 demands 512), and the longest piece of content that is looked at.
const MAX_LINE: u64 = 2048;

/// The most recipients of a message.
const MAX_RECIPIENTS: usize = 1000;

/// Whom a message is from, and for.
#[derive(Debug, Default)]
struct Envelope {
    sender: Address,
    recipients: Vec<Address>,
    eight_bit: bool,
}

/// Who takes messages.
trait Taker {
    /// A message that is being taken.
    type Taking: Write;
    fn begin(&mut self, envelope: &Envelope) -> io::Result<Self::Taking>;
    /// The message is complete; the reply.
    fn end(&mut self, taking: Self::Taking) -> String;
    /// It never will be.
    fn abandon(&mut self, taking: Self::Taking);
}

/// Serves the program at the other end of standard input and output until it leaves.
///
/// # Errors
/// When it cannot be read from or written to.
pub(crate) fn serve(settings: &Settings) -> Result<(), Failure> {
    let host = settings.hostname();
    let mut dialogue = Dialogue {
        input: io::stdin().lock(),
        output: io::stdout().lock(),
        taker: Processes { settings },
        envelope: None,
        line: Vec::new(),
    };
    match dialogue.run(&host) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Temporary, format!("speak SMTP on standard input: {error}")))
        }
        _ => Ok(()),
    }
}

struct Dialogue<R, W, T> {
    input: R,
    output: W,
    taker: T,
    envelope: Option<Envelope>,
    line: Vec<u8>,
}

impl<R: BufRead, W: Write, T: Taker> Dialogue<R, W, T> {
    fn run(&mut self, host: &str) -> io::Result<()> {
        self.say(&format!("220 {host} ESMTP Postroad"))?;
        while self.read_line()? {
            let text = String::from_utf8_lossy(&self.line).into_owned();
            let text = text.trim_end_matches(['\r', '\n']);
            if !self.line.ends_with(b"\n") {
                self.say("500 5.5.2 Error: line too long")?;
                while self.read_line()? && !self.line.ends_with(b"\n") {}
                continue;
            }
            let (verb, arguments) = text.split_once(' ').unwrap_or((text, ""));
            let reply = match verb.to_ascii_uppercase().as_str() {
                "HELO" => self.reset(&format!("250 {host}")),
                "EHLO" => {
                    self.reset(&format!("250-{host}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8"))
                }
                "MAIL" => self.mail(arguments),
                "RCPT" => self.rcpt(arguments),
                "DATA" => {
                    self.data()?;
                    continue;
                }
                "RSET" => self.reset("250 2.0.0 Ok"),
                "NOOP" => "250 2.0.0 Ok".to_owned(),
                "VRFY" => "252 2.0.0 It is found out when it is delivered".to_owned(),
                "QUIT" => return self.say("221 2.0.0 Bye"),
                _ => "500 5.5.2 Error: command not recognized".to_owned(),
            };
            self.say(&reply)?;
        }
        Ok(())
    }

    fn say(&mut self, reply: &str) -> io::Result<()> {
        self.output.write_all(format!("{reply}\r\n").as_bytes())?;
        self.output.flush()
    }

    /// A line with its end, or a part of a longer one; `false` at the end of the input.
    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        Ok(self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line)? > 0)
    }

    fn reset(&mut self, reply: &str) -> String {
        self.envelope = None;
        reply.to_owned()
    }

    fn mail(&mut self, arguments: &str) -> String {
        if self.envelope.is_some() {
            return "503 5.5.1 Error: nested MAIL command".to_owned();
        }
        let Some((path, parameters)) = path_of(arguments, "FROM:") else {
            return "501 5.5.4 Syntax: MAIL FROM:<address>".to_owned();
        };
        let Some(sender) = address(path) else {
            return "501 5.1.7 Bad sender address syntax".to_owned();
        };
        let mut envelope = Envelope { sender, ..Envelope::default() };
        for parameter in parameters.split_ascii_whitespace() {
            match parameter.to_ascii_uppercase().as_str() {
                "BODY=8BITMIME" => envelope.eight_bit = true,
                "BODY=7BIT" | "SMTPUTF8" => {}
                other if other.starts_with("SIZE=") => {}
                _ => return format!("555 5.5.4 Unsupported option: {parameter}"),
            }
        }
        self.envelope = Some(envelope);
        "250 2.1.0 Ok".to_owned()
    }

    fn rcpt(&mut self, arguments: &str) -> String {
        let Some(envelope) = &mut self.envelope else {
            return "503 5.5.1 Error: need MAIL command".to_owned();
        };
        let Some((path, parameters)) = path_of(arguments, "TO:") else {
            return "501 5.5.4 Syntax: RCPT TO:<address>".to_owned();
        };
        let Some(recipient) = address(path).filter(|recipient| !recipient.is_null()) else {
            return "501 5.1.3 Bad recipient address syntax".to_owned();
        };
        if let Some(parameter) = parameters.split_ascii_whitespace().next() {
            return format!("555 5.5.4 Unsupported option: {parameter}");
        }
        if envelope.recipients.len() >= MAX_RECIPIENTS {
            return "452 4.5.3 Error: too many recipients".to_owned();
        }
        envelope.recipients.push(recipient);
        "250 2.1.5 Ok".to_owned()
    }

    fn data(&mut self) -> io::Result<()> {
        let Some(envelope) = &self.envelope else { return self.say("503 5.5.1 Error: need RCPT command") };
        if envelope.recipients.is_empty() {
            return self.say("554 5.5.1 Error: no valid recipients");
        }
        let mut taking = match self.taker.begin(envelope) {
            Ok(taking) => taking,
            Err(error) => return self.say(&format!("451 4.3.0 Error: {error}")),
        };
        self.envelope = None;
        self.say("354 End data with <CR><LF>.<CR><LF>")?;
        let mut begins = true;
        // What is not taken any more is read over.
        let mut takes = true;
        loop {
            if !self.read_line()? {
                self.taker.abandon(taking);
                return Ok(());
            }
            let ends = self.line.ends_with(b"\n");
            let mut text = self.line.as_slice();
            if ends {
                text = &text[..text.len() - 1];
                text = text.strip_suffix(b"\r").unwrap_or(text);
            }
            if begins && ends && text == b"." {
                break;
            }
            let text = if begins { text.strip_prefix(b".").unwrap_or(text) } else { text };
            takes = takes && taking.write_all(text).is_ok() && (!ends || taking.write_all(b"\n").is_ok());
            begins = ends;
        }
        let reply = self.taker.end(taking);
        self.say(&reply)
    }
}

/// The path behind `FROM:` or `TO:`, and what follows it.
fn path_of<'a>(arguments: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let head = arguments.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word))?;
    let rest = arguments[head.len()..].trim_start();
    let Some(inner) = rest.strip_prefix('<') else {
        return (!rest.is_empty()).then(|| rest.split_once(' ').unwrap_or((rest, "")));
    };
    let (mut quoted, mut escaped) = (false, false);
    let end = inner.char_indices().find(|(_, c)| {
        let is_end = *c == '>' && !quoted && !escaped;
        quoted ^= *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        is_end
    });
    end.map(|(at, _)| (&inner[..at], &inner[at + 1..]))
}

/// The address of a path, the null one of an empty path.
fn address(path: &str) -> Option<Address> {
    match path.trim() {
        "" => Some(Address::null()),
        path => parse_first(path).filter(|address| !address.is_null()),
    }
}

/// A `sendmail -i` for each message.
struct Processes<'a> {
    settings: &'a Settings,
}

/// One of them.
struct Process(Child);

impl Write for Process {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0.stdin {
            Some(stdin) => stdin.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Taker for Processes<'_> {
    type Taking = Process;

    fn begin(&mut self, envelope: &Envelope) -> io::Result<Process> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["-i", "-f", &envelope.sender.to_path()]);
        if envelope.eight_bit {
            command.arg("-B8BITMIME");
        }
        command.arg("--").args(envelope.recipients.iter().map(Address::to_path));
        command.env("MAIL_CONFIG", self.settings.directory());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map(Process)
    }

    fn end(&mut self, taking: Process) -> String {
        let output = match taking.0.wait_with_output() {
            Ok(output) => output,
            Err(error) => return format!("451 4.3.0 Error: {error}"),
        };
        if output.status.success() {
            return "250 2.0.0 Ok".to_owned();
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or_default();
        let why = said.strip_prefix("sendmail: fatal: ").unwrap_or(said);
        match output.status.code().and_then(Exit::from_code) {
            Some(Exit::Usage | Exit::Data | Exit::NoUser | Exit::Unavailable | Exit::NotPermitted) => {
                format!("554 5.3.0 Error: {why}")
            }
            _ => format!("451 4.3.0 Error: {why}"),
        }
    }

    fn abandon(&mut self, mut taking: Process) {
        // Before its input ends, which would be the end of the message.
        let _ = taking.0.kill();
        let _ = taking.0.wait();
    }
}

#[cfg(test)]
mod tests;
