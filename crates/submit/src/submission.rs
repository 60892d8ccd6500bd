//! `sendmail` takes a message: from standard input into `maildrop/`, itself where it may, else through postdrop.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mail::header_address::{Mailboxes, parse_first};
use mail::submission::{Head, MAX_HEAD, MAX_RECIPIENTS, trailer};
use mail::{Address, Recipient};

use crate::authorization::{self, Invoker};
use crate::failure::{Exit, Failure, warn};
use crate::maildrop::{Maildrop, wake_pickup};
use crate::message::{CHUNK, Header, Message, Rules};
use crate::options::CommandLine;
use crate::sendmail::PROGRAM;
use crate::settings::Settings;

/// How long a header may be, if it is only looked at for a `From:`.
const MAX_HEADER: usize = 64 * 1024;

/// How long a header may be that has the recipients.
const MAX_HEADER_WITH_RECIPIENTS: usize = MAX_HEAD;

/// Takes the message in `input`. Returns when it is safe on disk.
///
/// # Errors
/// Why it is not.
pub(crate) fn submit(line: &CommandLine, settings: &Settings, input: impl Read) -> Result<(), Failure> {
    let invoker = Invoker::default();
    authorization::check(&invoker, settings)?;
    let recipients = recipients_of_command_line(line);
    if recipients.is_empty() && !line.extract_recipients {
        let text = "recipient addresses must be specified on the command line or via the -t option";
        return Err(Failure::new(Exit::Usage, text));
    }
    let rules = Rules { line_endings: settings.line_endings()?, dot_ends: line.dot_ends };
    let mut message = Message::new(input, rules);
    let header = read_header(&mut message, line.extract_recipients)?;
    let head = head(line, &invoker, recipients, &header)?;

    let mut out = Outgoing::new(settings, &head, &header);
    while message.read(&mut out.buffer).map_err(|error| reading_failed(&error))? {
        out.transmit()?;
    }
    out.finish()
}

/// Addresses as people write them in a header, so that one argument may hold several.
fn recipients_of_command_line(line: &CommandLine) -> Vec<Address> {
    let mailboxes = line.arguments.iter().flat_map(|argument| Mailboxes::new(argument.as_bytes()));
    mailboxes.map(|mailbox| mailbox.address).filter(|address| !address.is_null()).collect()
}

fn read_header<R: Read>(message: &mut Message<R>, has_recipients: bool) -> Result<Header, Failure> {
    let limit = if has_recipients { MAX_HEADER_WITH_RECIPIENTS } else { MAX_HEADER };
    let header = message.read_header(limit).map_err(|error| reading_failed(&error))?;
    if has_recipients && !header.is_whole {
        return Err(Failure::new(Exit::Data, format!("message header is longer than {limit} bytes")));
    }
    Ok(header)
}

fn reading_failed(error: &io::Error) -> Failure {
    Failure::new(Exit::Data, format!("read the message from standard input: {error}"))
}

fn head(
    line: &CommandLine,
    invoker: &Invoker,
    mut recipients: Vec<Address>,
    header: &Header,
) -> Result<Head, Failure> {
    if line.extract_recipients {
        recipients.extend(header.recipients());
        if recipients.is_empty() {
            return Err(Failure::new(Exit::Usage, "no recipient addresses found in message header"));
        }
    }
    if recipients.len() > MAX_RECIPIENTS {
        return Err(Failure::new(Exit::Data, format!("more than {MAX_RECIPIENTS} recipients")));
    }
    let mut head = Head::new(sender(line, invoker)?);
    // Only a message without `From:` needs a name, and the user database may be slow to give it.
    if !(header.is_whole && header.has("from")) {
        head.full_name = full_name(line, invoker);
    }
    head.smtputf8 = !head.sender.is_ascii() || recipients.iter().any(|recipient| !recipient.is_ascii());
    head.recipients = recipients.into_iter().map(Recipient::new).collect();
    for recipient in &mut head.recipients {
        recipient.notify = line.notify;
    }
    head.envid = line.envid.as_deref().map(xtext);
    head.ret = line.ret;
    head.body = line.body;
    Ok(head)
}

/// What `-f` says (`-f ''` and `-f '<>'` are the null sender), or the login name.
fn sender(line: &CommandLine, invoker: &Invoker) -> Result<Address, Failure> {
    match &line.sender {
        Some(sender) => Ok(parse_first(sender).unwrap_or_default()),
        None => {
            let uid = invoker.uid();
            let name = invoker.name();
            let name = name.ok_or_else(|| {
                Failure::new(Exit::NoUser, format!("no login name found for user id {uid}"))
            })?;
            Address::new(name)
                .map_err(|error| Failure::new(Exit::NoUser, format!("login name of user id {uid}: {error}")))
        }
    }
}

fn full_name(line: &CommandLine, invoker: &Invoker) -> String {
    let environment = || std::env::var("NAME").ok().filter(|name| !name.is_empty());
    line.full_name.clone().or_else(environment).or_else(|| invoker.full_name()).unwrap_or_default()
}

/// ENVID goes through the mail system as xtext (RFC 3461 section 4), which `-V` gives in plain.
fn xtext(plain: &str) -> String {
    let mut out = String::with_capacity(plain.len());
    for byte in plain.bytes() {
        if byte.is_ascii_graphic() && !matches!(byte, b'+' | b'=') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("+{byte:02X}"));
        }
    }
    out
}

/// The submission on its way out. A small one is a single write.
struct Outgoing<'a> {
    settings: &'a Settings,
    sink: Option<Sink>,
    buffer: Vec<u8>,
    /// How much of the content was sent, less what is in `buffer`; the head does not count.
    content: u64,
    /// How much of `buffer` is the head.
    head: usize,
}

impl<'a> Outgoing<'a> {
    fn new(settings: &'a Settings, head: &Head, header: &Header) -> Self {
        let mut buffer = head.encode();
        let head = buffer.len();
        buffer.reserve(CHUNK);
        buffer.extend_from_slice(&header.bytes);
        Self { settings, sink: None, buffer, content: 0, head }
    }

    fn transmit(&mut self) -> Result<(), Failure> {
        self.count()?;
        self.write()
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.count()?;
        self.buffer.extend_from_slice(&trailer(self.content));
        self.write()?;
        match self.sink.take() {
            Some(sink) => sink.finish(self.settings),
            None => Ok(()),
        }
    }

    fn count(&mut self) -> Result<(), Failure> {
        self.content += (self.buffer.len() - std::mem::take(&mut self.head)) as u64;
        match self.settings.message_size_limit() {
            Some(limit) if self.content > limit => Err(too_big()),
            _ => Ok(()),
        }
    }

    fn write(&mut self) -> Result<(), Failure> {
        let sink = match &mut self.sink {
            Some(sink) => sink,
            None => self.sink.insert(Sink::open(self.settings)?),
        };
        let result = sink.write_all(&self.buffer);
        self.buffer.clear();
        match (result, self.sink.take()) {
            (Ok(()), sink) => {
                self.sink = sink;
                Ok(())
            }
            // postdrop has ended, and said why.
            (Err(error), Some(Sink::Postdrop(child))) if error.kind() == ErrorKind::BrokenPipe => {
                Err(ended(child).err().unwrap_or_else(|| Failure::new(Exit::Software, "postdrop left early")))
            }
            (Err(error), _) => {
                Err(Failure::new(Exit::Temporary, format!("write the maildrop file: {error}")))
            }
        }
    }
}

/// What a message beyond `message_size_limit` is refused with.
pub(crate) fn too_big() -> Failure {
    Failure::new(Exit::Unavailable, "message file too big")
}

/// Who writes the file.
enum Sink {
    /// This process, which runs as the owner of the queue or as root.
    Maildrop(Maildrop),
    /// postdrop, which has the group's rights.
    Postdrop(Child),
}

impl Sink {
    fn open(settings: &Settings) -> Result<Self, Failure> {
        let queue = settings.queue_directory();
        match Maildrop::create(&queue) {
            Ok(file) => Ok(Self::Maildrop(file)),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Self::postdrop(settings),
            Err(error) => Err(create_failed(&queue, &error)),
        }
    }

    fn postdrop(settings: &Settings) -> Result<Self, Failure> {
        let program = settings.command("postdrop");
        // It trusts nothing of the environment anyway; TZ and the like would only be a surprise in its log lines.
        let child = Command::new(&program)
            .arg("-r")
            .env_clear()
            .env("MAIL_CONFIG", settings.directory())
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new(Exit::System, format!("run {}: {error}", program.display())))?;
        Ok(Self::Postdrop(child))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Maildrop(file) => file.write_all(bytes),
            Self::Postdrop(child) => match &mut child.stdin {
                Some(pipe) => pipe.write_all(bytes),
                None => Err(ErrorKind::BrokenPipe.into()),
            },
        }
    }

    /// Returns when the message is durable.
    fn finish(self, settings: &Settings) -> Result<(), Failure> {
        match self {
            Self::Maildrop(file) => commit(PROGRAM, file, &settings.queue_directory()),
            Self::Postdrop(child) => ended(child),
        }
    }
}

/// Makes a maildrop file durable and tells pickup.
///
/// # Errors
/// That it could not be made durable; a pickup that is not there is only worth a warning.
pub(crate) fn commit(program: &str, file: Maildrop, queue: &Path) -> Result<(), Failure> {
    file.commit()
        .map_err(|error| Failure::new(Exit::Temporary, format!("sync the maildrop file: {error}")))?;
    if let Err(error) = wake_pickup(queue) {
        let socket = queue.join("public/pickup");
        warn(
            program,
            &format!(
                "mail system is down: connect to {}: {error}; the message is queued for later",
                socket.display()
            ),
        );
    }
    Ok(())
}

/// What is said where `maildrop/` does not take a file.
pub(crate) fn create_failed(queue: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Temporary, format!("create a file in {}: {error}", queue.join("maildrop").display()))
}

/// Waits for postdrop, which reports its own failures: its exit code is passed on.
fn ended(mut child: Child) -> Result<(), Failure> {
    drop(child.stdin.take());
    let status =
        child.wait().map_err(|error| Failure::new(Exit::System, format!("wait for postdrop: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let exit = status.code().and_then(Exit::from_code).unwrap_or(Exit::Software);
    Err(Failure::new(exit, format!("postdrop did not take the message: {status}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_id_becomes_xtext() {
        assert_eq!(xtext("QQ+1=2 x"), "QQ+2B1+3D2+20x");
    }
}
