//! Mail that comes in by SMTP and goes out at once: into a Maildir or to a relay.

use std::time::{Duration, Instant};

use scenarios::free_port;

use super::super::Scale;
use super::super::calls::Calls;
use super::super::load::Load;
use super::super::meter::{Figure, Stretch};
use super::super::sink::Sink;
use super::super::system::{RECIPIENT, Side, System};
use crate::shell::{Result, output_of, target};

pub fn deliver(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    run(side, Load { messages: scale.of(20_000), ..Load::default() }, Way::Maildir)
}

pub fn sessions(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    run(side, Load { messages: scale.of(20_000), sessions: 200, ..Load::default() }, Way::Maildir)
}

pub fn reconnect(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    run(side, Load { messages: scale.of(20_000), reconnect: true, ..Load::default() }, Way::Maildir)
}

pub fn large(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    run(side, Load { messages: scale.of(5_000), ..LARGE }, Way::Maildir)
}

pub fn relay(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    run(side, Load { messages: scale.of(20_000), ..Load::default() }, Way::Relay)
}

/// Messages that are too large for any buffer.
const LARGE: Load = Load { messages: 0, sessions: 10, size: 100 * 1024, recipients: 1, reconnect: false };

/// What system calls are counted for.
const FEW: Load = Load { messages: 500, size: 4096, ..LARGE };

pub fn calls_of_deliver(side: Side) -> Result<String> {
    count_calls(side, FEW, Way::Maildir)
}

pub fn calls_of_reconnect(side: Side) -> Result<String> {
    count_calls(side, Load { reconnect: true, ..FEW }, Way::Maildir)
}

pub fn calls_of_large(side: Side) -> Result<String> {
    count_calls(side, Load { messages: FEW.messages, ..LARGE }, Way::Maildir)
}

pub fn calls_of_relay(side: Side) -> Result<String> {
    count_calls(side, FEW, Way::Relay)
}

/// What the disk allows: the same files written, synced, renamed and removed by a program that does nothing else.
pub fn floor(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let system = System::prepare(side, &[], "")?;
    let program = target().join("release/examples/commit_rate").display().to_string();
    let (queue, maildir) =
        (system.path("floor").display().to_string(), system.path("box").display().to_string());
    let (messages, size) = (scale.of(20_000).to_string(), Load::default().size.to_string());
    let output = output_of(&program, &[&queue, "50", &messages, &size, &maildir])?;
    let mut numbers = output.split_whitespace().filter_map(|word| word.parse::<f64>().ok()).skip(1);
    let (rate, cpu) =
        numbers.next().zip(numbers.next()).ok_or_else(|| format!("commit_rate said {output}"))?;
    Ok(vec![Figure("messages per second", rate), Figure("CPU ms per message", cpu)])
}

/// Where mail goes.
#[derive(Clone, Copy)]
enum Way {
    Maildir,
    Relay,
}

/// A system and what it sends to.
struct Flow {
    system: System,
    sink: Option<Sink>,
}

impl Flow {
    fn start(side: Side, way: Way) -> Result<Self> {
        let port = free_port();
        let relayhost = format!("relayhost = [127.0.0.1]:{port}");
        match way {
            Way::Maildir => Ok(Self { system: System::start(side, &[])?, sink: None }),
            Way::Relay => {
                let sink = Some(Sink::start(port, &[])?);
                Ok(Self { system: System::start(side, &[&relayhost])?, sink })
            }
        }
    }

    fn arrived(&self) -> usize {
        self.sink.as_ref().map_or_else(|| self.system.files("mail/user/new"), Sink::taken)
    }

    /// Sends everything and waits until it has arrived; says how long it took until all was acknowledged.
    fn pass(&self, load: &Load) -> Result<Duration> {
        let began = Instant::now();
        let wanted = self.arrived() + load.messages;
        let recipient = if self.sink.is_some() { "user@elsewhere.example" } else { RECIPIENT };
        load.send(self.system.port, recipient)?;
        let acknowledged = began.elapsed();
        self.system.wait_for("all messages have arrived", |_| self.arrived() >= wanted)?;
        Ok(acknowledged)
    }

    /// Everything is started and warm before the clock runs.
    fn warm_up(&self, load: &Load) -> Result<()> {
        self.pass(&Load { messages: load.sessions, ..*load }).map(drop)
    }
}

fn run(side: Side, load: Load, way: Way) -> Result<Vec<Figure>> {
    let flow = Flow::start(side, way)?;
    flow.warm_up(&load)?;
    let stretch = Stretch::begin(&flow.system.group);
    let acknowledged = flow.pass(&load)?;
    let mut figures = stretch.end(load.messages);
    figures.push(Figure("acknowledged per second", load.messages as f64 / acknowledged.as_secs_f64()));
    Ok(figures)
}

fn count_calls(side: Side, load: Load, way: Way) -> Result<String> {
    let flow = Flow::start(side, way)?;
    flow.warm_up(&load)?;
    let calls = Calls::count(&flow.system.group.pids(), &flow.system.path(""))?;
    flow.pass(&load)?;
    calls.finish(load.messages)
}
