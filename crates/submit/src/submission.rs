//! `sendmail` takes a message: from standard input to pickup, or where that does not take it into `maildrop/`.

use std::io::{self, Read, Write};

use mail::header_address::{Unfit, parse_first, parse_list};
use mail::submission::{Head, MAX_HEAD, MAX_RECIPIENTS};
use mail::{Address, Recipient, Trace};

use crate::authorization;
use crate::failure::{Exit, Failure};
use crate::invoker::Invoker;
use crate::message::{Header, Message, Rules};
use crate::options::{CommandLine, Mode};
use crate::outgoing::Outgoing;
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
    let decision = authorization::judge(&invoker, settings)?;
    let recipients = recipients_of_command_line(line)?;
    if recipients.is_empty() && !line.extract_recipients {
        let text = "recipient addresses must be specified on the command line or via the -t option";
        return Err(Failure::new(Exit::Usage, text));
    }
    let rules = Rules { line_endings: settings.line_endings()?, dot_ends: line.dot_ends };
    let mut message = Message::new(input, rules);
    let header = read_header(&mut message, line.extract_recipients)?;
    let mut head = head(line, &invoker, recipients, &header)?;
    if line.verbose {
        head.trace = Trace::Deliveries;
        announce_report(&head)?;
    }

    let out = Outgoing::new(settings, decision, &head, &header);
    pass_on(message, if line.mode == Mode::Smtp { out.with_more_to_come() } else { out })
}

/// `-bv`: nothing is read and nothing delivered; the sender gets a report on the recipients.
///
/// # Errors
/// Why not.
pub(crate) fn probe(line: &CommandLine, settings: &Settings) -> Result<(), Failure> {
    let invoker = Invoker::default();
    let decision = authorization::judge(&invoker, settings)?;
    let recipients = recipients_of_command_line(line)?;
    if line.extract_recipients || recipients.is_empty() {
        return Err(Failure::new(Exit::Usage, "-bv needs recipient addresses on the command line"));
    }
    let list: Vec<String> = recipients.iter().map(Address::to_path).collect();
    let text = format!("Subject: probe\nTo: {}\n\n", list.join(",\n\t"));
    let rules = Rules { line_endings: settings.line_endings()?, dot_ends: false };
    let mut message = Message::new(text.as_bytes(), rules);
    let header = read_header(&mut message, true)?;
    let head = Head { trace: Trace::Probe, ..head(line, &invoker, recipients, &header)? };
    announce_report(&head)?;
    pass_on(message, Outgoing::new(settings, decision, &head, &header))
}

fn pass_on<R: Read>(mut message: Message<R>, mut out: Outgoing<'_>) -> Result<(), Failure> {
    loop {
        let enough = out.enough();
        if !message.read(&mut out.buffer, enough).map_err(|error| reading_failed(&error))? {
            return out.finish();
        }
        out.transmit()?;
    }
}

/// Said before the submission, because postdrop may take this process's place. Nobody may be there to read it.
fn announce_report(head: &Head) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "Mail Delivery Status Report will be mailed to <{}>.", head.sender) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Temporary, format!("write to standard output: {}", config::cause(&error))))
        }
        _ => out.flush().or(Ok(())),
    }
}

/// Addresses as people write them in a header, so that one argument may hold several.
fn recipients_of_command_line(line: &CommandLine) -> Result<Vec<Address>, Failure> {
    let lists: Result<Vec<_>, _> = line.arguments.iter().map(|argument| parse_list(argument)).collect();
    lists.map(|lists| lists.concat()).map_err(|why| unfit("recipient", &why))
}

/// The others are not sent to either: nobody would hear of the one that is missing.
fn unfit(who: &str, why: &Unfit) -> Failure {
    Failure::new(Exit::Data, format!("{who} {why}"))
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
        recipients.extend(header.recipients().map_err(|why| unfit("recipient", &why))?);
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
        Some(sender) => Ok(parse_first(sender).map_err(|why| unfit("sender", &why))?.unwrap_or_default()),
        None => {
            let uid = invoker.uid();
            let name = invoker.name();
            let name = name.ok_or_else(|| match sys::accounts::are_readable() {
                Ok(()) => Failure::new(Exit::NoUser, format!("no login name found for user id {uid}")),
                Err(error) => Failure::new(Exit::Temporary, format!("look up user id {uid}: {error}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_id_becomes_xtext() {
        assert_eq!(xtext("QQ+1=2 x"), "QQ+2B1+3D2+20x");
    }
}
