//! A transaction on its way: which commands are out, and whose replies are due.

use std::collections::VecDeque;

use super::commands::{Probe, Transaction};
use super::content::{Encoder, Framing};
use super::{Event, Features, Protocol, Response, Stage, State, WINDOW};

/// How much of a message goes in one BDAT chunk.
const CHUNK: usize = 64 * 1024;
/// How many chunks may be unanswered where the server takes pipelined commands.
const MAX_CHUNKS: usize = 8;

/// The commands before the content.
#[derive(Debug)]
pub(super) struct Transfer {
    transaction: Transaction,
    next: Option<Stage>,
    /// Commands without reply, and how long they are.
    due: VecDeque<(Stage, usize)>,
    in_flight: usize,
    accepted: Vec<usize>,
    /// MAIL or what came before it was refused: nothing more of it makes sense.
    failed: bool,
    reset: bool,
    pipelining: bool,
    chunking: bool,
    /// DATA was answered: with 354, or not.
    data: Option<bool>,
}

impl Transfer {
    pub(super) fn new(transaction: Transaction, reset: bool, chunking: bool, pipelining: bool) -> Self {
        Self {
            transaction,
            next: Some(if reset { Stage::Reset } else { Stage::ForwardClient }),
            due: VecDeque::new(),
            in_flight: 0,
            accepted: Vec::new(),
            failed: false,
            reset: false,
            pipelining,
            chunking,
            data: None,
        }
    }

    pub(super) fn awaits(&self) -> Stage {
        self.due.front().map(|(stage, _)| *stage).or(self.next).unwrap_or(Stage::Data)
    }

    /// Writes as many commands as may go out now.
    pub(super) fn write(&mut self, features: &Features, output: &mut Vec<u8>) {
        let mut command = String::new();
        while let Some(stage) = self.next.filter(|stage| self.may_go(*stage)) {
            command.clear();
            if self.transaction.write(stage, features, &mut command) {
                if !self.due.is_empty() && self.in_flight + command.len() > WINDOW {
                    return;
                }
                output.extend_from_slice(command.as_bytes());
                self.in_flight += command.len();
                self.due.push_back((stage, command.len()));
            }
            self.next = self.after(stage);
        }
    }

    /// Whether a command may go although replies are due.
    fn may_go(&self, stage: Stage) -> bool {
        if stage == Stage::Data && self.accepted.is_empty() {
            // Content for nobody would be sent in vain, or taken: only a recipient whose reply is due is worth the wager.
            return self.pipelining && self.due.iter().any(|(stage, _)| matches!(stage, Stage::Recipient(_)));
        }
        self.pipelining || self.due.is_empty()
    }

    fn after(&self, stage: Stage) -> Option<Stage> {
        let recipient = |place: usize| {
            if place < self.transaction.recipients.len() {
                Some(Stage::Recipient(place))
            } else {
                (!self.chunking && self.transaction.probe != Probe::Recipients).then_some(Stage::Data)
            }
        };
        match stage {
            Stage::Reset => Some(Stage::ForwardClient),
            Stage::ForwardClient => Some(Stage::ForwardProtocol),
            Stage::ForwardProtocol => Some(Stage::Mail),
            Stage::Mail => recipient(0),
            Stage::Recipient(place) => recipient(place + 1),
            _ => None,
        }
    }

    pub(super) fn replied(&mut self, response: Response) -> Event {
        let (stage, length) = self.due.pop_front().unwrap_or((Stage::Data, 0));
        self.in_flight -= length;
        let done = if stage == Stage::Data { response.is_intermediate() } else { response.is_positive() };
        let accepted = done && !self.failed;
        match stage {
            Stage::Recipient(place) if accepted => self.accepted.push(place),
            Stage::Recipient(_) => {}
            Stage::Data => self.data = Some(done),
            // Whom the message came from is news for the server's log: without it mail goes on.
            Stage::ForwardClient | Stage::ForwardProtocol => {}
            _ if !accepted => {
                self.failed = true;
                self.next = None;
            }
            Stage::Reset => self.reset = true,
            _ => {}
        }
        Event::Reply { to: stage, accepted, response }
    }

    /// RSET was accepted.
    pub(super) fn was_reset(&self) -> bool {
        self.reset
    }

    /// Nothing is due, and nothing will be sent.
    pub(super) fn is_done(&self) -> bool {
        self.due.is_empty() && self.next.is_none_or(|stage| !self.may_go(stage))
    }

    /// What follows.
    pub(super) fn content(&mut self, protocol: Protocol, line_length_limit: usize) -> State {
        let wanted = !self.accepted.is_empty() && !self.failed && self.transaction.probe == Probe::No;
        match (wanted, self.data) {
            (true, Some(true)) => {}
            (true, None) if self.chunking => {}
            // Any content would be one too many.
            (false, Some(true)) if self.transaction.probe == Probe::Data => return State::Closed(None),
            // The server wants content although it took no recipient: an empty message is the shortest way on (RFC 2920
            // section 3.1). Over LMTP it may give any number of replies to that.
            (false, Some(true)) => return State::Nobody,
            _ => return State::Idle,
        }
        let stages = match protocol {
            Protocol::Smtp => VecDeque::from([Stage::End]),
            Protocol::Lmtp => self.accepted.drain(..).map(Stage::EndFor).collect(),
        };
        let framing = if self.chunking { Framing::Length } else { Framing::Dots };
        let encoder = Encoder::new(framing, line_length_limit);
        State::Content(Body { encoder, stages, chunks: self.chunking.then(Chunks::default) })
    }
}

/// The content on its way.
#[derive(Debug)]
pub(super) struct Body {
    encoder: Encoder,
    /// The replies to its end.
    stages: VecDeque<Stage>,
    /// It goes by BDAT.
    chunks: Option<Chunks>,
}

#[derive(Debug, Default)]
struct Chunks {
    gathered: Vec<u8>,
    unanswered: usize,
}

impl Chunks {
    fn write(&mut self, last: &str, output: &mut Vec<u8>) {
        output.extend_from_slice(format!("BDAT {}{last}\r\n", self.gathered.len()).as_bytes());
        output.append(&mut self.gathered);
        self.unanswered += 1;
    }
}

impl Body {
    pub(super) fn encode(&mut self, content: &[u8], output: &mut Vec<u8>) {
        let Some(chunks) = &mut self.chunks else { return self.encoder.encode(content, output) };
        self.encoder.encode(content, &mut chunks.gathered);
        if chunks.gathered.len() >= CHUNK {
            chunks.write("", output);
        }
    }

    /// Ends it; gives the replies that are due then.
    pub(super) fn finish(&mut self, output: &mut Vec<u8>) -> Option<VecDeque<Stage>> {
        let mut stages = std::mem::take(&mut self.stages);
        let Some(chunks) = &mut self.chunks else {
            self.encoder.finish(output);
            return Some(stages);
        };
        self.encoder.finish(&mut chunks.gathered);
        let earlier = chunks.unanswered;
        chunks.write(" LAST", output);
        for _ in 0..earlier {
            stages.push_front(Stage::Content);
        }
        Some(stages)
    }

    /// Whether more content may be given.
    pub(super) fn may_go_on(&self, pipelining: bool) -> bool {
        let most = if pipelining { MAX_CHUNKS } else { 1 };
        self.chunks.as_ref().is_none_or(|chunks| chunks.unanswered < most)
    }

    pub(super) fn awaits_chunk(&self) -> bool {
        self.unanswered() > 0
    }

    pub(super) fn unanswered(&self) -> usize {
        self.chunks.as_ref().map_or(0, |chunks| chunks.unanswered)
    }

    pub(super) fn chunk_answered(&mut self) {
        if let Some(chunks) = &mut self.chunks {
            chunks.unanswered = chunks.unanswered.saturating_sub(1);
        }
    }
}
