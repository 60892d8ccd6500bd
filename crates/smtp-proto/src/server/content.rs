//! Content on its way in: after DATA to its end, or chunk by chunk.

use std::ops::Range;

use super::{Notice, Question, Session, State, Step};
use crate::command::Verb;
use crate::content::{BareNewline, Chunk, Data};
use crate::parameter::Extensions;
use crate::reply::{Fault, Reply};

/// What decodes the content of one message.
#[derive(Debug)]
pub(super) struct Receiver {
    form: Form,
    /// The message is refused for this when all of it is in; what still comes is thrown away.
    failed: Option<Reply>,
    /// The last byte is decoded, though perhaps not yet passed on.
    complete: bool,
}

#[derive(Debug)]
enum Form {
    Data(Data),
    Chunks {
        decoder: Chunk,
        /// The size that BDAT announced, and how much of it is still to come.
        announced: u64,
        left: u64,
        last: bool,
    },
}

impl Receiver {
    const fn data(mode: BareNewline) -> Self {
        Self { form: Form::Data(Data::new(mode)), failed: None, complete: false }
    }

    const fn chunk(mode: BareNewline, announced: u64, last: bool) -> Self {
        let form = Form::Chunks { decoder: Chunk::new(mode), announced, left: announced, last };
        Self { form, failed: None, complete: false }
    }

    fn with_next_chunk(mut self, size: u64, is_last: bool) -> Self {
        if let Form::Chunks { announced, left, last, .. } = &mut self.form {
            (*announced, *left, *last) = (size, size, is_last);
        }
        self.complete = false;
        self
    }

    pub(super) const fn size(&self) -> u64 {
        match &self.form {
            Form::Data(data) => data.size(),
            Form::Chunks { decoder, .. } => decoder.size(),
        }
    }

    const fn bare_newline(&self) -> bool {
        match &self.form {
            Form::Data(data) => data.bare_newline(),
            Form::Chunks { decoder, .. } => decoder.bare_newline(),
        }
    }

    /// Whether the end of this content, or of this chunk, ends the message.
    const fn is_last(&self) -> bool {
        !matches!(self.form, Form::Chunks { last: false, .. })
    }

    /// The size of content that came in chunks.
    const fn chunked_size(&self) -> Option<u64> {
        match self.form {
            Form::Chunks { .. } => Some(self.size()),
            Form::Data(_) => None,
        }
    }

    const fn announced(&self) -> Option<u64> {
        match self.form {
            Form::Chunks { announced, .. } => Some(announced),
            Form::Data(_) => None,
        }
    }
}

/// A piece of content: in the buffer, or owed from before.
enum Piece {
    Buffered(Range<usize>),
    Owed(&'static [u8]),
    /// Nothing can be said without more input.
    None,
}

impl Session {
    pub(super) fn data(&self, arguments: &str) -> Result<Question, Fault> {
        self.check_recipients()?;
        match arguments.is_empty() {
            true => Ok(Question::Begin(Receiver::data(self.policy.bare_newline))),
            false => Err(Fault::DataSyntax),
        }
    }

    /// Content needs somebody to go to.
    fn check_recipients(&self) -> Result<(), Fault> {
        match &self.state {
            State::Chunks(..) if self.verb == Verb::Data => Err(Fault::DataAfterBdat),
            State::Chunks(..) => Ok(()),
            State::Mail(transaction) if transaction.recipients.is_empty() => Err(Fault::NoValidRecipients),
            State::Mail(_) => Ok(()),
            _ => Err(Fault::NeedRcpt),
        }
    }

    /// BDAT, whose chunk must be read whether it is wanted or not (RFC 3030 section 2).
    pub(super) fn bdat(&mut self, arguments: &str) -> Option<Step> {
        if !self.policy.extensions.contains(Extensions::CHUNKING) {
            return Some(self.refuse(&Fault::BdatNotOffered));
        }
        let Some((size, last)) = parse_bdat(arguments) else {
            return Some(self.refuse(&Fault::BdatSyntax));
        };
        if let Err(fault) = self.check_recipients().and_then(|()| self.check_chunk(size, last)) {
            self.fail_message(size, last, fault.reply(&self.settings.hostname));
            return None;
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Chunks(transaction, Some(receiver)) => {
                self.state = State::Content(transaction, receiver.with_next_chunk(size, last));
                None
            }
            state => {
                self.state = state;
                self.question = Some(Question::Begin(Receiver::chunk(self.policy.bare_newline, size, last)));
                Some(Step::Asked)
            }
        }
    }

    fn check_chunk(&self, size: u64, last: bool) -> Result<(), Fault> {
        let before = match &self.state {
            State::Chunks(_, None) => return Err(Fault::ChunkDiscarded(size)),
            State::Chunks(_, Some(receiver)) => receiver.size(),
            _ => 0,
        };
        let limit = self.settings.message_size_limit;
        match () {
            () if size == 0 && !last => Err(Fault::NullBdat),
            () if limit > 0 && size > limit.saturating_sub(before) => Err(Fault::ChunkTooBig),
            () => Ok(()),
        }
    }

    /// Reads over a chunk, then says `reply` and goes on from `then`.
    fn skip(&mut self, left: u64, reply: Reply, then: State) {
        self.state = State::Skip { left, reply, then: Box::new(then) };
    }

    /// Reads over a chunk; no chunk that follows can save the message.
    fn fail_message(&mut self, left: u64, last: bool, reply: Reply) {
        let before = std::mem::replace(&mut self.state, State::Idle);
        self.abandoned |= matches!(before, State::Chunks(_, Some(_)));
        let then = match before {
            State::Mail(transaction) | State::Chunks(transaction, _) if !last => {
                State::Chunks(transaction, None)
            }
            _ => State::Idle,
        };
        self.skip(left, reply, then);
    }

    /// Part of an unwanted chunk.
    pub(super) fn skip_on(&mut self) -> Option<Step> {
        let State::Skip { left, .. } = &mut self.state else { return None };
        self.input.take(*left, |bytes| {
            *left -= u64::try_from(bytes.len()).unwrap_or(u64::MAX).min(*left);
            (bytes.len(), 0)
        });
        if *left > 0 {
            return Some(Step::Read);
        }
        let State::Skip { reply, then, .. } = std::mem::replace(&mut self.state, State::Idle) else {
            return None;
        };
        self.state = *then;
        Some(self.refuse_with(reply))
    }

    /// The program has said whether it wants the content.
    pub(super) fn begin_answered(&mut self, receiver: Receiver, reply: &Reply) {
        match (reply.is_positive(), &receiver.form) {
            (true, form) => {
                if matches!(form, Form::Data(_)) {
                    self.say(reply);
                }
                if let State::Mail(transaction) = std::mem::replace(&mut self.state, State::Idle) {
                    self.state = State::Content(transaction, receiver);
                }
            }
            (false, Form::Data(_)) => self.answered(reply),
            // The chunk is on its way already: the refusal has to wait for its end.
            (false, Form::Chunks { announced, last, .. }) => {
                self.fail_message(*announced, *last, reply.clone())
            }
        }
    }

    /// Content is coming.
    pub(super) fn receive(&mut self) -> Option<Step> {
        let State::Content(_, receiver) = &mut self.state else { return None };
        if !receiver.complete {
            let piece = decode(receiver, &mut self.input);
            self.check_content();
            let State::Content(_, receiver) = &self.state else { return None };
            let wanted = receiver.failed.is_none();
            match piece {
                Piece::Buffered(place) if wanted && !place.is_empty() => return Some(Step::Content(place)),
                Piece::Owed(bytes) if wanted && !bytes.is_empty() => return Some(Step::Bytes(bytes)),
                Piece::None => return Some(Step::Read),
                Piece::Buffered(_) | Piece::Owed(_) => return None,
            }
        }
        self.content_end()
    }

    /// Limits that the content may have broken by now.
    fn check_content(&mut self) {
        let State::Content(_, receiver) = &mut self.state else { return };
        if receiver.failed.is_some() {
            return;
        }
        let limit = self.settings.message_size_limit;
        let fault = if limit > 0 && receiver.size() > limit {
            Fault::MessageTooBig
        } else if self.policy.bare_newline == BareNewline::Reject && receiver.bare_newline() {
            Fault::BareNewline(self.settings.bare_newline_reject_code)
        } else {
            return;
        };
        receiver.failed = Some(fault.reply(&self.settings.hostname));
    }

    /// All of the content is in, or all of a chunk.
    fn content_end(&mut self) -> Option<Step> {
        let State::Content(transaction, mut receiver) = std::mem::replace(&mut self.state, State::Idle)
        else {
            return None;
        };
        if receiver.is_last() {
            self.place = "END-OF-MESSAGE";
        }
        match (receiver.failed.take(), receiver.is_last()) {
            (Some(reply), last) => {
                if !last {
                    self.state = State::Chunks(transaction, None);
                }
                self.refuse_with(reply);
                Some(Step::Abandoned { replied: true })
            }
            (None, true) => {
                if self.policy.bare_newline == BareNewline::Note && receiver.bare_newline() {
                    self.notices.push_back(Notice::BareNewline { after: self.place });
                }
                self.question = Some(Question::End(transaction, receiver.chunked_size()));
                Some(Step::Asked)
            }
            (None, false) => {
                let size = receiver.announced().unwrap_or(0);
                self.state = State::Chunks(transaction, Some(receiver));
                self.answered(&Reply::new(250, mail::Dsn::new(2, 0, 0), format!("Ok: {size} bytes")));
                None
            }
        }
    }

    /// The program has said what became of the message.
    pub(super) fn end_answered(&mut self, reply: &Reply) {
        if reply.is_positive() {
            // Postfix forgives what was wrong before a message got through.
            (self.errors, self.junk) = (0, 0);
        }
        self.answered(reply);
    }
}

/// Makes content of what is in the buffer.
fn decode(receiver: &mut Receiver, input: &mut crate::input::Input) -> Piece {
    match &mut receiver.form {
        Form::Data(_) if input.pending().is_empty() => Piece::None,
        Form::Data(data) => {
            let mut held_back = false;
            let place = input.take(u64::MAX, |bytes| {
                let decoded = data.decode(bytes);
                receiver.complete = decoded.end;
                held_back = decoded.used == 0;
                (decoded.used, decoded.made)
            });
            if held_back { Piece::None } else { Piece::Buffered(place) }
        }
        Form::Chunks { left: 0, last, decoder, .. } => {
            receiver.complete = true;
            Piece::Owed(if *last { decoder.finish() } else { &[] })
        }
        Form::Chunks { decoder, left, .. } => {
            let pending = input.pending();
            if pending.is_empty() {
                return Piece::None;
            }
            // What comes behind the chunk is no content.
            let size = usize::try_from(*left).unwrap_or(usize::MAX).min(pending.len());
            let owed = decoder.owed(&pending[..size]);
            if !owed.is_empty() {
                return Piece::Owed(owed);
            }
            let mut held_back = false;
            let place = input.take(*left, |bytes| {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                let decoded = decoder.decode(bytes, left.saturating_sub(length));
                *left = left.saturating_sub(u64::try_from(decoded.used).unwrap_or(u64::MAX));
                held_back = decoded.used == 0;
                (decoded.used, decoded.made)
            });
            if held_back { Piece::None } else { Piece::Buffered(place) }
        }
    }
}

/// `count [LAST]`.
fn parse_bdat(arguments: &str) -> Option<(u64, bool)> {
    let mut words = arguments.split_ascii_whitespace();
    let count = words.next().filter(|word| word.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some((count, last))
}
