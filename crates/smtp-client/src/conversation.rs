//! A session with a server, driven over its stream: what it waits for decides how long it waits.

use std::io;
use std::time::{Duration, Instant};

use service::transcript::{PROTOCOL, Transcript};
use smtp_proto::client::{Event, Response, Session, Settings as SessionSettings, Stage};

use crate::agent::Client;
use crate::reply_filter::ReplyFilter;
use crate::server::Server;
use crate::settings::Timeouts;
use crate::stream::{Broken, Limit, Plain, Stream};

/// How much is read at a time: replies are short.
const READ: usize = 4096;

/// Content is written when so much has gathered.
const WRITE: usize = 64 * 1024;

/// Why a conversation is over before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The connection broke, in this stage.
    Broken(Broken, Stage),
    /// The server closes it, in this stage, with these words if it had any.
    Closed(Option<Response>, Stage),
    /// What the server says is not SMTP.
    Protocol(String),
}

/// A conversation with one server.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) session: Session,
    pub(crate) stream: Stream,
    pub(crate) server: Server,
    timeouts: Timeouts,
    /// What is waited for, and since when.
    waiting: (Stage, Instant),
    /// What the server replied to last.
    answered: Stage,
    /// Bytes of content since the stage began.
    sent: u64,
    buffer: Box<[u8]>,
    filter: Option<ReplyFilter>,
    /// When it began.
    pub(crate) began: Instant,
    /// How many deliveries it has served.
    pub(crate) uses: u64,
    /// A transaction failed in a way that leaves it of no use to others.
    pub(crate) spoiled: bool,
    /// What was said, for the postmaster.
    pub(crate) transcript: Transcript,
    /// The server is one of the best for its destination: a loop through it is one for good.
    pub(crate) is_best: bool,
}

impl Conversation {
    pub(crate) fn new(plain: Plain, server: Server, client: &Client) -> Self {
        let settings = &client.settings;
        let mut transcript = client.notices.begin(PROTOCOL);
        let level = server.address().map_or(0, |ip| client.debug_peers.level_of(&server.host, ip));
        transcript.show((level > 0).then(|| server.with_port()));
        let session = Session::new(SessionSettings {
            protocol: settings.protocol,
            discard_keywords: client.discarded_keywords(server.address()),
            line_length_limit: settings.line_length_limit,
        });
        Self {
            session,
            stream: Stream::new(plain, Limit::Each(settings.timeouts.hello)),
            server,
            timeouts: settings.timeouts,
            waiting: (Stage::Greeting, Instant::now()),
            answered: Stage::Greeting,
            sent: 0,
            buffer: vec![0; READ].into(),
            filter: ReplyFilter::new(&client.reply_filter),
            began: Instant::now(),
            uses: 0,
            spoiled: false,
            transcript,
            is_best: false,
        }
    }

    /// What happens next that somebody has to decide about.
    pub(crate) fn next(&mut self) -> Result<Event, Trouble> {
        loop {
            match self.session.next_event() {
                Ok(Event::Read) => self.exchange()?,
                Ok(Event::Closed(response)) => {
                    return Err(Trouble::Closed(response, self.answered));
                }
                Ok(Event::Reply { to, accepted, response }) => {
                    self.answered = to;
                    return Ok(Event::Reply { to, accepted, response });
                }
                Ok(event) => return Ok(event),
                Err(error) => return Err(Trouble::Protocol(error.to_string())),
            }
        }
    }

    /// Writes what there is to write, and reads.
    fn exchange(&mut self) -> Result<(), Trouble> {
        self.flush()?;
        let stage = self.stage();
        match self.stream.read(&mut self.buffer) {
            Ok(read) => {
                let filtered = self.filter.as_mut().map(|filter| filter.take(&self.buffer[..read]));
                let bytes = filtered.as_deref().unwrap_or(&self.buffer[..read]);
                note_heard(&mut self.transcript, stage, bytes);
                self.session.receive(bytes);
                Ok(())
            }
            Err(broken) => Err(Trouble::Broken(broken, stage)),
        }
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        if self.session.output().is_empty() {
            return Ok(());
        }
        let stage = self.stage();
        let output = std::mem::take(self.session.output());
        note_said(&mut self.transcript, stage, &output);
        let written = self.stream.write(&output);
        self.sent += output.len() as u64;
        let mut output = output;
        if stage == Stage::Auth {
            // The memory serves again; no secret stays in it.
            output.fill(0);
        }
        output.clear();
        *self.session.output() = output;
        written.map_err(|broken| Trouble::Broken(broken, stage))
    }

    /// The stage, whose time limit holds from here on.
    fn stage(&mut self) -> Stage {
        let stage = self.session.awaits();
        if stage != self.waiting.0 {
            self.waiting = (stage, Instant::now());
            self.sent = 0;
        }
        let time = self.time_of(stage);
        let limit = if self.timeouts.per_request {
            Limit::Until(self.waiting.1 + time + self.earned(stage))
        } else {
            Limit::Each(time)
        };
        self.stream.limit(limit);
        stage
    }

    /// A deadline for content moves with what was sent: `smtp_min_data_rate`.
    fn earned(&self, stage: Stage) -> Duration {
        match (stage, self.timeouts.min_data_rate) {
            (Stage::Content, rate @ 1..) => Duration::from_secs(self.sent / rate),
            _ => Duration::ZERO,
        }
    }

    const fn time_of(&self, stage: Stage) -> Duration {
        let times = &self.timeouts;
        match stage {
            Stage::StartTls => times.starttls,
            Stage::ForwardClient | Stage::ForwardProtocol => times.xforward,
            Stage::Mail => times.mail,
            Stage::Recipient(_) => times.rcpt,
            Stage::Data => times.data_init,
            Stage::Content => times.data_transfer,
            Stage::End | Stage::EndFor(_) => times.data_done,
            Stage::Reset | Stage::Noop => times.rset,
            Stage::Quit => times.quit,
            Stage::Greeting | Stage::Ehlo | Stage::Helo | Stage::Lhlo | Stage::Auth | Stage::Idle => {
                times.hello
            }
        }
    }

    /// Sends a piece of content.
    pub(crate) fn content(&mut self, piece: &[u8]) -> Result<(), Trouble> {
        self.session.content(piece).map_err(|error| Trouble::Protocol(error.to_string()))?;
        if self.session.output().len() < WRITE {
            return Ok(());
        }
        self.flush()?;
        // With BDAT, chunks are answered while others are on their way.
        match self.session.next_event() {
            Ok(Event::Content) => Ok(()),
            Ok(_) => self.await_content(),
            Err(error) => Err(Trouble::Protocol(error.to_string())),
        }
    }

    /// Reads until more content may go.
    fn await_content(&mut self) -> Result<(), Trouble> {
        loop {
            self.exchange()?;
            match self.session.next_event() {
                Ok(Event::Content) => return Ok(()),
                Ok(Event::Read) => {}
                Ok(Event::Reply { response, .. }) => {
                    return Err(Trouble::Closed(Some(response), Stage::Content));
                }
                Ok(_) => return Err(Trouble::Closed(None, Stage::Content)),
                Err(error) => return Err(Trouble::Protocol(error.to_string())),
            }
        }
    }

    /// Ends it politely, where the server still listens; gives what was said.
    pub(crate) fn quit(mut self, wait_for_reply: bool) -> Transcript {
        if self.session.is_open() && self.session.quit().is_ok() && self.flush().is_ok() && wait_for_reply {
            while !matches!(self.next(), Err(_) | Ok(Event::Idle)) {}
        }
        self.stream.close();
        self.transcript
    }
}

/// What this host said: no content, and nothing that proves who it is.
fn note_said(transcript: &mut Transcript, stage: Stage, output: &[u8]) {
    if !transcript.wants() {
        return;
    }
    match stage {
        Stage::Content => {}
        Stage::End | Stage::EndFor(_) => transcript.out("."),
        Stage::Auth => {
            let text = String::from_utf8_lossy(output);
            let mut words = text.split_ascii_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("AUTH"), Some(mechanism), None) => transcript.out(&format!("AUTH {mechanism}")),
                (Some("AUTH"), Some(mechanism), _) => transcript.out(&format!("AUTH {mechanism} ...")),
                _ => transcript.out("..."),
            }
        }
        _ => String::from_utf8_lossy(output).lines().for_each(|line| transcript.out(line)),
    }
}

/// What the server said: a challenge may tell what it is answered with.
fn note_heard(transcript: &mut Transcript, stage: Stage, input: &[u8]) {
    if !transcript.wants() {
        return;
    }
    for line in String::from_utf8_lossy(input).lines() {
        match line.get(..3) {
            Some("334") if stage == Stage::Auth => transcript.heard("334 ..."),
            _ => transcript.heard(line),
        }
    }
}

impl Trouble {
    /// The words, after Postfix's `lost connection with …`.
    pub(crate) fn text(&self, server: &Server) -> String {
        match self {
            Self::Broken(Broken::Lost, stage) | Self::Closed(None, stage) => {
                format!("lost connection with {server} while {}", stage.activity())
            }
            Self::Broken(Broken::Own(number), stage) => {
                let cause = config::cause(&io::Error::from_raw_os_error(*number));
                format!("lost connection with {server} while {}: {cause}", stage.activity())
            }
            Self::Broken(Broken::TimedOut, stage) => {
                format!("conversation with {server} timed out while {}", stage.activity())
            }
            Self::Closed(Some(response), stage) => {
                format!("host {server} said: {response} (in reply to {})", stage.request())
            }
            Self::Protocol(text) => format!("host {server}: {text}"),
        }
    }
}
