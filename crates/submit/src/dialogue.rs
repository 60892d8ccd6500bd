//! `sendmail -bs`: SMTP on standard input and output (RFC 5321), for programs that hand over mail in no other way.
//!
//! Each message goes the way of one that `sendmail -i` reads, and 250 is said when that has ended well. It is read here and not
//! by a process behind a pipe: to that one, the end of a program that is killed would be the end of a message.

use std::io::{self, BufRead, ErrorKind, Read, Write};

use mail::header_address::parse_first;
use mail::{Address, Body};

use crate::failure::{Exit, Failure, warn};
use crate::options::{CommandLine, Mode};
use crate::sendmail::PROGRAM;
use crate::settings::Settings;
use crate::submission::submit;

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
    /// Takes a message for good, or nothing of it: content that cannot be read to its end is an error.
    fn take(&mut self, envelope: Envelope, content: &mut dyn Read) -> Result<(), Failure>;
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
        taker: Submissions { settings },
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
            if !self.line.ends_with(b"\n") {
                self.say("500 5.5.2 Error: line too long")?;
                while self.read_line()? && !self.line.ends_with(b"\n") {}
                continue;
            }
            let Ok(text) = String::from_utf8(self.line.clone()) else {
                self.say("500 5.5.2 Error: bad UTF-8 syntax")?;
                continue;
            };
            let text = text.trim_end_matches(['\r', '\n']);
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

    fn read_line(&mut self) -> io::Result<bool> {
        read_line(&mut self.input, &mut self.line)
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
        if self.envelope.as_ref().is_some_and(|envelope| envelope.recipients.is_empty()) {
            return self.say("554 5.5.1 Error: no valid recipients");
        }
        let Some(envelope) = self.envelope.take() else {
            return self.say("503 5.5.1 Error: need RCPT command");
        };
        self.say("354 End data with <CR><LF>.<CR><LF>")?;
        let mut content = Content::new(&mut self.input, &mut self.line);
        let taken = self.taker.take(envelope, &mut content);
        match content.skip() {
            // Nobody is left to hear that nothing was taken.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.say(&reply_to(taken)),
        }
    }
}

fn reply_to(taken: Result<(), Failure>) -> String {
    let Err(failure) = taken else { return "250 2.0.0 Ok".to_owned() };
    warn(PROGRAM, &failure.text);
    match failure.exit {
        Exit::Usage | Exit::Data | Exit::NoUser | Exit::Unavailable | Exit::NotPermitted => {
            format!("554 5.3.0 Error: {failure}")
        }
        _ => format!("451 4.3.0 Error: {failure}"),
    }
}

/// What follows DATA, as lines that end with LF, without what stands for dots (RFC 5321 section 4.5.2).
struct Content<'a, R> {
    input: &'a mut R,
    line: &'a mut Vec<u8>,
    /// How much of `line` was read.
    read: usize,
    /// A line begins with what comes next.
    begins: bool,
    /// The line with the dot has come.
    is_over: bool,
}

impl<'a, R: BufRead> Content<'a, R> {
    fn new(input: &'a mut R, line: &'a mut Vec<u8>) -> Self {
        line.clear();
        Self { input, line, read: 0, begins: true, is_over: false }
    }

    /// Reads over what was not taken.
    fn skip(&mut self) -> io::Result<()> {
        while !self.is_over {
            self.next_line()?;
        }
        Ok(())
    }

    /// Reads the next line, or a part of a longer one.
    fn next_line(&mut self) -> io::Result<()> {
        if !read_line(self.input, self.line)? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let ends = self.line.ends_with(b"\n");
        if ends {
            self.line.pop();
            self.line.pop_if(|last| *last == b'\r');
        }
        self.is_over = self.begins && ends && *self.line == b".";
        self.read = usize::from(self.is_over || self.begins && self.line.starts_with(b"."));
        if ends && !self.is_over {
            self.line.push(b'\n');
        }
        self.begins = ends;
        Ok(())
    }
}

impl<R: BufRead> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.line.len() && !self.is_over {
            self.next_line()?;
        }
        let read = (&self.line[self.read..]).read(buffer)?;
        self.read += read;
        Ok(read)
    }
}

/// A line with its end, or a part of a longer one; `false` at the end of the input.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    Ok(input.take(MAX_LINE).read_until(b'\n', line)? > 0)
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
        path => parse_first(path).ok().flatten().filter(|address| !address.is_null()),
    }
}

/// The mail system.
struct Submissions<'a> {
    settings: &'a Settings,
}

impl Taker for Submissions<'_> {
    fn take(&mut self, envelope: Envelope, content: &mut dyn Read) -> Result<(), Failure> {
        let mut line = CommandLine::new(Mode::Smtp);
        line.sender = Some(envelope.sender.to_path());
        line.arguments = envelope.recipients.iter().map(Address::to_path).collect();
        line.dot_ends = false;
        if envelope.eight_bit {
            line.body = Body::EightBitMime;
        }
        submit(&line, self.settings, content)
    }
}

#[cfg(test)]
mod tests;
