//! A queue with a great many messages that wait.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::super::Scale;
use super::super::meter::Figure;
use super::super::system::{MAIL_OWNER, Side, System};
use crate::shell::{Result, output_of, target};

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let messages = scale.of(100_000);
    let mut empty = System::prepare(side, &[], "")?;
    empty.launch()?;
    std::thread::sleep(Duration::from_secs(1));
    let without = empty.group.memory_of("qmgr");
    drop(empty);

    let mut system = System::prepare(side, &[], "")?;
    let program = target().join("release/examples/backlog").display().to_string();
    output_of(&program, &[&system.path("queue").display().to_string(), &messages.to_string(), MAIL_OWNER])?;
    let began = Instant::now();
    let greeted = system.launch()?;
    let wanted = format!("deferred {messages},");
    system.wait_for("qmgr knows all", |system| {
        let status = system.run("postroad", &["status"]);
        status.is_ok_and(|status| String::from_utf8_lossy(&status).contains(&wanted))
    })?;
    let known = began.elapsed();
    let memory = system.group.memory_of("qmgr").saturating_sub(without) * 1024;
    let cpu = system.group.cpu();
    std::thread::sleep(Duration::from_secs(3));
    let idle = system.group.cpu().saturating_sub(cpu);
    let (first, all) = list(&system)?;
    Ok(vec![
        Figure("messages", messages as f64),
        Figure("start to greeting s", greeted.as_secs_f64()),
        Figure("start until qmgr knows all s", known.as_secs_f64()),
        Figure("bytes per message in qmgr", memory as f64 / messages as f64),
        Figure("CPU ms per second at rest", idle.as_secs_f64() * 1000.0 / 3.0),
        Figure("list, first line s", first.as_secs_f64()),
        Figure("list, all of it s", all.as_secs_f64()),
    ])
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
