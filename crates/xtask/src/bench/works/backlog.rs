//! A queue with a great many messages that wait, and what they cost those that come and go.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::super::Scale;
use super::super::load::Load;
use super::super::meter::Figure;
use super::super::system::{MAIL_OWNER, RECIPIENT, Side, System};
use crate::shell::{Result, output_of, target};

/// What a queue of one size came to.
pub struct Sample {
    /// Messages that wait.
    pub messages: usize,
    pub greeted: Duration,
    /// From the start until qmgr knows all.
    pub known: Duration,
    /// Bytes of qmgr for each message, beyond what it has without any.
    pub memory: f64,
    /// Processor time of the whole suite per second in which nothing happens.
    pub idle: Duration,
    pub list_begins: Duration,
    pub listed: Duration,
    /// Processor time of a message that comes by SMTP and goes into a Maildir beside those that wait.
    pub passing: Duration,
}

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let sample = measure(side, scale.of(1_000_000), scale.of(5_000).min(5_000))?;
    Ok(vec![
        Figure("messages", sample.messages as f64),
        Figure("start to greeting s", sample.greeted.as_secs_f64()),
        Figure("start until qmgr knows all s", sample.known.as_secs_f64()),
        Figure("bytes per message in qmgr", sample.memory),
        Figure("CPU ms per second at rest", sample.idle.as_secs_f64() * 1000.0),
        Figure("list, first line s", sample.list_begins.as_secs_f64()),
        Figure("list, all of it s", sample.listed.as_secs_f64()),
        Figure("CPU ms per passing message", sample.passing.as_secs_f64() * 1000.0),
    ])
}

/// Measures a queue of so many messages, and so many that pass it.
pub fn measure(side: Side, messages: usize, passing: usize) -> Result<Sample> {
    let mut empty = System::prepare(side, &[], "")?;
    empty.launch()?;
    std::thread::sleep(Duration::from_secs(1));
    let without = empty.group.memory_of("qmgr");
    drop(empty);

    let mut system = System::prepare_for(side, &[], "", messages + passing)?;
    let program = target().join("release/examples/backlog").display().to_string();
    system.hurry()?;
    output_of(&program, &[&system.path("queue").display().to_string(), &messages.to_string(), MAIL_OWNER])?;
    system.forget_files()?;
    let began = Instant::now();
    let greeted = system.launch()?;
    let wanted = format!("deferred {messages},");
    system.watch_for("qmgr knows all", |system| {
        let status = system.run("postroad", &["status"]);
        status.is_ok_and(|status| String::from_utf8_lossy(&status).contains(&wanted))
    })?;
    let known = began.elapsed();
    let memory = system.group.memory_of("qmgr").saturating_sub(without) * 1024;
    let rest = Duration::from_secs(3);
    let cpu = system.group.cpu();
    std::thread::sleep(rest);
    let idle = system.group.cpu().saturating_sub(cpu).div_f64(rest.as_secs_f64());
    let (list_begins, listed) = list(&system)?;

    let cpu = system.group.cpu();
    Load { messages: passing, ..Load::default() }.send(system.port, RECIPIENT)?;
    system.wait_for("all are delivered", |system| system.files("mail/user/new") == passing)?;
    let passing = system.group.cpu().saturating_sub(cpu).div_f64(passing as f64);
    let memory = memory as f64 / messages as f64;
    Ok(Sample { messages, greeted, known, memory, idle, list_begins, listed, passing })
}

/// Lists the queue; gives the times to the first and to the last byte.
fn list(system: &System) -> Result<(Duration, Duration)> {
    let began = Instant::now();
    let mut command = system.command("postqueue", &["-p"]);
    let mut postqueue = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("run postqueue: {e}"))?;
    let mut output = postqueue.stdout.take().ok_or("postqueue has no output")?;
    let mut buffer = vec![0; 64 * 1024];
    let mut first = None;
    while output.read(&mut buffer).map_err(|e| format!("read the list: {e}"))? > 0 {
        first.get_or_insert_with(|| began.elapsed());
    }
    let status = postqueue.wait().map_err(|e| format!("wait for postqueue: {e}"))?;
    if status.success() {
        Ok((first.unwrap_or_default(), began.elapsed()))
    } else {
        Err(format!("postqueue: {status}"))
    }
}
