//! The content of one message on its way from the client to the queue.

use ipc::cleanup::{Late, Options, Refusal};
use ipc::log;
use lookup::LookupError;
use lookup::canonical::Usage;
use lookup::rewrite::RewriteContext;
use mail::fields::{self, Kind, Role, Seen};
use mail::header::{Field, Next};
use mail::mime::Structure;
use mail::{Envelope, Origin, QueueId, Recipient, header, header_address};
use memchr::memchr;

use crate::checks::{Action, Part, Subject};
use crate::clock::Clock;
use crate::rules::Rules;
use crate::{missing, received, recipients};

/// How much of a header block is gathered before it goes on its way. Until then a check may still change the recipients.
const GATHERED: usize = 256 * 1024;

/// How much of a first line is looked at to see whether it is a mailbox file's.
const MAX_FIRST_LINE: usize = 2048;

/// Where the message goes. Nothing of it is kept unless the caller then commits it.
pub(crate) trait Sink {
    /// Begins it; called once, before any content.
    fn open(&mut self, envelope: &Envelope, hold: bool) -> Result<(), Refusal>;
    /// Appends content.
    fn append(&mut self, content: &[u8]) -> Result<(), Refusal>;
    /// Another envelope than it was begun with.
    fn replace_envelope(&mut self, envelope: &Envelope) -> Result<(), Refusal>;
    /// Into the hold queue, although it was begun otherwise.
    fn hold(&mut self);
}

/// What a client says of a message.
pub(crate) struct Given {
    pub(crate) id: QueueId,
    pub(crate) envelope: Envelope,
    pub(crate) options: Options,
    pub(crate) full_name: String,
}

/// Memory that is used again for the next message.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// The beginning of a field whose end has not come yet.
    rest: Vec<u8>,
    /// Header fields that are done.
    out: Vec<u8>,
    /// The beginning of a body line that is to be looked at, and whose end has not come yet.
    pub(crate) line: Vec<u8>,
    /// A piece of content without its stray carriage returns.
    clean: Vec<u8>,
}

/// A message that is being taken.
pub(crate) struct Message<'a> {
    pub(crate) rules: &'a Rules,
    clock: &'a mut Clock,
    pub(crate) buffers: &'a mut Buffers,
    pub(crate) id: QueueId,
    options: Options,
    full_name: String,
    /// In its final form.
    envelope: Envelope,
    /// How addresses in headers are completed; `None` where headers are left alone.
    rewrite: Option<RewriteContext>,
    stage: Stage,
    seen: Seen,
    hops: u64,
    /// Content that came in.
    size: u64,
    last_byte: u8,
    pub(crate) inspects: bool,
    /// The MIME structure, where it matters to checks.
    pub(crate) structure: Structure,
    /// How much of the body, or of the attachment that is being read, body checks have looked at.
    pub(crate) inspected: usize,
    opened: bool,
    holds: bool,
    /// All recipients were replaced by one.
    redirected: bool,
    pub(crate) discards: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing but `From ` lines of a mailbox file was seen.
    Start,
    Headers,
    /// Inside a field that is too long to be held; `line_ended` says that its last known byte was an LF.
    LongField {
        keep: bool,
        line_ended: bool,
    },
    Body,
}

/// What a check leaves of a field or line.
pub(crate) enum Left<'a> {
    Same,
    Nothing,
    Other(&'a str),
}

impl<'a> Message<'a> {
    /// Takes the envelope.
    pub(crate) fn begin(
        rules: &'a Rules,
        clock: &'a mut Clock,
        buffers: &'a mut Buffers,
        given: Given,
    ) -> Result<Self, Refusal> {
        let Given { id, envelope, options, full_name } = given;
        buffers.rest.clear();
        buffers.out.clear();
        buffers.line.clear();
        let mut trace = String::with_capacity(256);
        received::push(&mut trace, rules, id, &envelope, clock);
        buffers.out.extend_from_slice(trace.as_bytes());
        let rewrite = match envelope.origin {
            Origin::Smtp { rewrite_headers: false } => {
                rules.rewrites_remote_headers().then_some(RewriteContext::Remote)
            }
            _ => Some(RewriteContext::Local),
        };
        Ok(Self {
            envelope: recipients::finalize(rules, id, envelope, options)?,
            rules,
            clock,
            buffers,
            id,
            options,
            full_name,
            rewrite,
            stage: Stage::Start,
            seen: Seen::default(),
            // The one that was just added.
            hops: 1,
            size: 0,
            last_byte: b'\n',
            inspects: options.filter,
            structure: Structure::new(rules.checks.limits),
            inspected: 0,
            opened: false,
            holds: options.hold,
            redirected: false,
            discards: false,
        })
    }

    /// Takes a piece of content.
    pub(crate) fn take(&mut self, content: &[u8], sink: &mut impl Sink) -> Result<(), Refusal> {
        let Some(last) = content.last() else { return Ok(()) };
        self.size += content.len() as u64;
        self.last_byte = *last;
        if self.rules.message_size_limit > 0 && self.size > self.rules.message_size_limit {
            log::warning!("{}: queue file size limit exceeded", self.id);
            return Err(Refusal::TooBig);
        }
        if self.discards {
            return Ok(());
        }
        if !self.rules.replace_stray_cr || memchr(b'\r', content).is_none() {
            return self.take_clean(content, sink);
        }
        let mut clean = std::mem::take(&mut self.buffers.clean);
        clean.clear();
        clean.extend(content.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }));
        let taken = self.take_clean(&clean, sink);
        self.buffers.clean = clean;
        taken
    }

    fn take_clean(&mut self, content: &[u8], sink: &mut impl Sink) -> Result<(), Refusal> {
        match self.stage {
            Stage::Body => self.take_body(content, sink),
            _ => self.take_headers(content, false, sink),
        }
    }

    /// Does what the client decided when it had seen all of the content.
    pub(crate) fn decide_late(&mut self, late: &Late, sink: &mut impl Sink) -> Result<(), Refusal> {
        let Late { hold, filter, redirect, bcc } = late;
        let actions = [
            hold.then_some(Action::Hold),
            filter.clone().map(Action::Filter),
            bcc.clone().map(Action::Bcc),
            redirect.clone().map(Action::Redirect),
        ];
        let inspects = self.inspects;
        let done = actions.iter().flatten().try_for_each(|action| self.apply(action, sink).map(drop));
        self.inspects = inspects;
        done
    }

    /// The content has ended. What is left goes to the sink, unless the message is to be discarded: then the result is
    /// `false`, and there is nothing to be committed.
    pub(crate) fn finish(&mut self, sink: &mut impl Sink) -> Result<bool, Refusal> {
        if self.last_byte != b'\n' {
            self.take(b"\n", sink)?;
        }
        if !self.discards && self.stage != Stage::Body {
            self.take_headers(&[], true, sink)?;
        }
        if !self.discards && self.stage == Stage::Body {
            self.inspect_rest(sink)?;
        }
        if self.discards {
            return Ok(false);
        }
        self.flush(sink)?;
        Ok(true)
    }

    /// The size of the content that came in.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn take_headers(&mut self, content: &[u8], last: bool, sink: &mut impl Sink) -> Result<(), Refusal> {
        if self.buffers.rest.is_empty() {
            let used = self.scan(content, last, sink)?;
            self.buffers.rest.extend_from_slice(&content[used..]);
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut self.buffers.rest);
        bytes.extend_from_slice(content);
        let used = self.scan(&bytes, last, sink)?;
        bytes.drain(..used);
        self.buffers.rest = bytes;
        Ok(())
    }

    /// Takes as many fields as there are; from their end on, takes everything as body. The result is what was used.
    fn scan(&mut self, bytes: &[u8], last: bool, sink: &mut impl Sink) -> Result<usize, Refusal> {
        let limit = self.rules.header_size_limit;
        let mut at = 0;
        while !self.discards {
            let rest = &bytes[at..];
            match self.stage {
                Stage::Body => {
                    self.take_body(rest, sink)?;
                    return Ok(bytes.len());
                }
                Stage::LongField { keep, line_ended } => {
                    at += self.long_field(rest, keep, line_ended, sink)?;
                    if at == bytes.len() && !last {
                        return Ok(at);
                    }
                }
                Stage::Start => match self.mailbox_line(rest, last) {
                    Some(length) => at += length,
                    None => return Ok(at),
                },
                Stage::Headers => match header::next(rest, last) {
                    Next::Field(field) if field.bytes().len() <= limit => {
                        self.field(field, sink)?;
                        at += field.bytes().len();
                    }
                    Next::Incomplete if rest.len() <= limit => return Ok(at),
                    Next::Field(_) | Next::Incomplete => match header::name(rest) {
                        Some(name) => self.begin_long_field(name, &rest[..limit], sink)?,
                        None => at += self.end_headers(rest, sink)?,
                    },
                    Next::End => at += self.end_headers(rest, sink)?,
                },
            }
            if self.buffers.out.len() > GATHERED {
                self.flush(sink)?;
            }
        }
        Ok(bytes.len())
    }

    /// `From ` lines at the beginning, as mailbox files have them, become a header field: they are no body. The result
    /// is the length of such a line, `None` where more bytes are needed to tell.
    fn mailbox_line(&mut self, bytes: &[u8], last: bool) -> Option<usize> {
        let unquoted = bytes.iter().position(|b| *b != b'>').map_or(&[][..], |start| &bytes[start..]);
        let may_be_one = unquoted.starts_with(b"From ") || b"From ".starts_with(unquoted);
        if may_be_one && bytes.len() < MAX_FIRST_LINE && memchr(b'\n', bytes).is_none() && !last {
            return None;
        }
        let length = memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
        if !unquoted.starts_with(b"From ") {
            self.stage = Stage::Headers;
            return Some(0);
        }
        self.buffers.out.extend_from_slice(b"X-Mailbox-Line: ");
        self.push_line(&bytes[..length]);
        Some(length)
    }

    fn push_line(&mut self, line: &[u8]) {
        self.buffers.out.extend_from_slice(line);
        if line.last() != Some(&b'\n') {
            self.buffers.out.push(b'\n');
        }
    }

    /// One header field, whole.
    fn field(&mut self, field: Field<'_>, sink: &mut impl Sink) -> Result<(), Refusal> {
        let known = fields::find(field.name());
        self.note_structure(&field);
        let action = self.action(Part::of(known), field.bytes())?;
        match self.apply(&action, sink)? {
            Left::Nothing => Ok(()),
            Left::Same => self.known_field(field, known),
            Left::Other(text) => self.replacement(text),
        }
    }

    /// A field that a check puts in the place of another.
    fn replacement(&mut self, text: &str) -> Result<(), Refusal> {
        let line = format!("{text}\n");
        match header::next(line.as_bytes(), true) {
            Next::Field(field) => self.known_field(field, fields::find(field.name())),
            // A table's value has one line, and it was seen to begin with a name.
            _ => Ok(()),
        }
    }

    fn known_field(&mut self, field: Field<'_>, known: Option<(Kind, Role)>) -> Result<(), Refusal> {
        let Some((kind, role)) = known else {
            if !self.is_dropped(field.name()) {
                self.push_line(field.bytes());
            }
            return Ok(());
        };
        self.see(kind)?;
        match kind {
            Kind::MessageId => log::message_id(self.id, &shown(field.trimmed_value())),
            Kind::ResentMessageId => {
                log::info!("{}: resent-message-id={}", self.id, shown(field.trimmed_value()));
            }
            _ => {}
        }
        if self.is_dropped(field.name()) {
            return Ok(());
        }
        match (role, self.rewrite) {
            (Role::Sender, Some(context)) => self.rewrite_field(field, context, Usage::HeaderSender),
            (Role::Recipient, Some(context)) => self.rewrite_field(field, context, Usage::HeaderRecipient),
            _ => {
                self.push_line(field.bytes());
                Ok(())
            }
        }
    }

    /// Takes note of a field. A message with too many trace headers goes in a circle (RFC 5321 section 6.3).
    fn see(&mut self, kind: Kind) -> Result<(), Refusal> {
        self.seen.add(kind);
        self.hops += u64::from(kind == Kind::Received);
        if self.hops < self.rules.hopcount_limit || kind != Kind::Received {
            return Ok(());
        }
        log::warning!("{}: message rejected: hopcount exceeded", self.id);
        Err(Refusal::TooManyHops)
    }

    fn is_dropped(&self, name: &[u8]) -> bool {
        self.rules.message_drop_headers.iter().any(|drop| name.eq_ignore_ascii_case(drop.as_bytes()))
    }

    fn rewrite_field(
        &mut self,
        field: Field<'_>,
        context: RewriteContext,
        usage: Usage,
    ) -> Result<(), Refusal> {
        let (rules, map) = (self.rules, self.options.map_addresses);
        self.buffers.out.extend_from_slice(field.label());
        header_address::rewrite(field.value(), &mut self.buffers.out, |address| {
            rules.canonical_form(address, context, usage, map).map(Some)
        })
        .map_err(|error| self.unreachable(&error))?;
        if self.buffers.out.last() != Some(&b'\n') {
            self.buffers.out.push(b'\n');
        }
        Ok(())
    }

    /// A field beyond `header_size_limit`, of which this is the beginning, goes on as it is, or not at all, piece by piece.
    fn begin_long_field(
        &mut self,
        name: &[u8],
        beginning: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), Refusal> {
        log::warning!(
            "{}: header {} is longer than header_size_limit; its addresses are not rewritten",
            self.id,
            String::from_utf8_lossy(name)
        );
        let known = fields::find(name);
        if let Some((kind, _)) = known {
            self.see(kind)?;
        }
        let action = self.action(Part::of(known), beginning)?;
        let keep = match self.apply(&action, sink)? {
            Left::Same => !self.is_dropped(name),
            Left::Nothing => false,
            Left::Other(text) => {
                self.replacement(text)?;
                false
            }
        };
        self.stage = Stage::LongField { keep, line_ended: false };
        Ok(())
    }

    /// Passes on what belongs to the long field; the result is its length.
    fn long_field(
        &mut self,
        bytes: &[u8],
        keep: bool,
        mut line_ended: bool,
        sink: &mut impl Sink,
    ) -> Result<usize, Refusal> {
        let mut end = 0;
        while let Some(byte) = bytes.get(end) {
            if line_ended && !matches!(byte, b' ' | b'\t') {
                self.stage = Stage::Headers;
                break;
            }
            let line = memchr(b'\n', &bytes[end..]);
            end = line.map_or(bytes.len(), |length| end + length + 1);
            line_ended = line.is_some();
            self.stage = Stage::LongField { keep, line_ended };
        }
        if bytes.is_empty() {
            self.stage = Stage::Headers;
        }
        if keep {
            self.flush(sink)?;
            self.append(&bytes[..end], sink)?;
        }
        Ok(end)
    }

    /// The header block has ended before `rest`; the result is the length of the empty line, if it is one.
    fn end_headers(&mut self, rest: &[u8], sink: &mut impl Sink) -> Result<usize, Refusal> {
        self.stage = Stage::Body;
        let completes = self.rewrite.is_some() || self.rules.always_add_missing_headers;
        if !self.seen.has(Kind::MessageId) && (self.seen.resent || !completes) {
            log::message_id(self.id, "<>");
        }
        if completes {
            let facts = missing::Facts {
                id: self.id,
                arrival: self.envelope.arrival,
                sender: &self.envelope.sender,
                full_name: &self.full_name,
            };
            let mut added = String::new();
            missing::push(&mut added, self.rules, self.seen, &facts, self.clock);
            self.buffers.out.extend_from_slice(added.as_bytes());
        }
        // A body that begins without an empty line before it gets one, or it would be taken for header.
        let with_empty_line = rest.first() == Some(&b'\n');
        if !rest.is_empty() {
            self.buffers.out.push(b'\n');
        }
        if self.inspects {
            self.end_headers_of_part(with_empty_line)?;
        }
        self.flush(sink)?;
        Ok(usize::from(with_empty_line))
    }

    fn take_body(&mut self, content: &[u8], sink: &mut impl Sink) -> Result<(), Refusal> {
        if self.inspects && !self.rules.checks.ignore_body() {
            return self.inspect(content, sink);
        }
        // The beginning of a line that was to be looked at.
        let line = std::mem::take(&mut self.buffers.line);
        if !line.is_empty() {
            self.append(&line, sink)?;
        }
        self.append(content, sink)
    }

    pub(crate) fn action(&self, part: Part, text: &[u8]) -> Result<Action, Refusal> {
        if !self.inspects {
            return Ok(Action::Pass);
        }
        let subject = Subject { id: self.id, envelope: &self.envelope };
        self.rules.checks.action(part, text, &subject).map_err(|error| self.unreachable(&error))
    }

    pub(crate) fn apply<'b>(
        &mut self,
        action: &'b Action,
        sink: &mut impl Sink,
    ) -> Result<Left<'b>, Refusal> {
        match action {
            Action::Pass => {}
            Action::PassAll => self.inspects = false,
            Action::Drop => return Ok(Left::Nothing),
            Action::Replace(text) => return Ok(Left::Other(text)),
            Action::Prepend(text) => self.push_line(text.as_bytes()),
            Action::Hold => {
                self.holds = true;
                if self.opened {
                    sink.hold();
                }
            }
            Action::Discard => self.discards = true,
            Action::Filter(filter) => {
                self.envelope.content_filter = Some(filter.clone()).filter(|_| !self.redirected);
                self.envelope_changed(sink)?;
            }
            Action::Redirect(address) => {
                // Who redirects has seen enough; a content filter is not asked either.
                self.redirected = true;
                self.envelope.content_filter = None;
                self.inspects = false;
                let original = self.envelope.recipients.first().map(|recipient| recipient.address.clone());
                let original = original.filter(|original| original != address);
                self.envelope.recipients = vec![Recipient { original, ..Recipient::new(address.clone()) }];
                self.envelope_changed(sink)?;
            }
            Action::Bcc(address) => {
                if !self.redirected {
                    recipients::add_copy(self.rules, self.id, &mut self.envelope, self.options, address)?;
                    self.envelope_changed(sink)?;
                }
            }
            Action::Reject(refusal) => return Err(refusal.clone()),
        }
        Ok(Left::Same)
    }

    /// The envelope stands before the content in the queue file; where that is begun, it is written anew.
    fn envelope_changed(&self, sink: &mut impl Sink) -> Result<(), Refusal> {
        if self.opened { sink.replace_envelope(&self.envelope) } else { Ok(()) }
    }

    pub(crate) fn flush(&mut self, sink: &mut impl Sink) -> Result<(), Refusal> {
        if !self.opened {
            self.opened = true;
            sink.open(&self.envelope, self.holds)?;
        }
        if !self.buffers.out.is_empty() {
            sink.append(&self.buffers.out)?;
            self.buffers.out.clear();
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, content: &[u8], sink: &mut impl Sink) -> Result<(), Refusal> {
        if self.opened { sink.append(content) } else { Ok(()) }
    }

    fn unreachable(&self, error: &LookupError) -> Refusal {
        log::warning!("{}: {error} -- message not accepted, try again later", self.id);
        Refusal::Temporary(format!("table lookup problem: {error}"))
    }
}

/// A header value for the log, on one line.
fn shown(value: &[u8]) -> String {
    const LONGEST: usize = 1000;
    let value = &value[..value.len().min(LONGEST)];
    String::from_utf8_lossy(value).replace(['\n', '\t'], " ")
}
