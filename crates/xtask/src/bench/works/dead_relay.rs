//! Mail for a relay that is dead for a while: everything is put aside, and leaves when the relay is back, each message once.

use std::time::Instant;

use scenarios::free_port;

use super::super::Scale;
use super::super::load::Load;
use super::super::meter::{Figure, mib};
use super::super::sink::Sink;
use super::super::system::{Side, System};
use crate::shell::Result;

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let messages = scale.of(20_000);
    let port = free_port();
    let relayhost = format!("relayhost = [127.0.0.1]:{port}");
    let system = System::start(side, &[&relayhost])?;
    let began = Instant::now();
    Load { messages, ..Load::default() }.send(system.port, "user@elsewhere.example")?;
    system.wait_for("everything is put aside", |system| system.files("queue/deferred") == messages)?;
    let settled = began.elapsed();

    // The kernel still writes what came; the list would wait for it as for nothing of its own.
    nix::unistd::sync();
    let began = Instant::now();
    let list = system.run("postqueue", &["-p"])?;
    let listed = began.elapsed();
    let mut lines = list.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"-- "));
    let told = lines.next_back().map(|line| String::from_utf8_lossy(line).into_owned()).unwrap_or_default();
    if !told.contains(&format!(" {messages} Requests")) {
        return Err(format!("{side}: {messages} messages are put aside, and the list says \"{told}\""));
    }
    let waiting = system.group.memory_of("qmgr");

    let sink = Sink::start_keeping(port)?;
    let (began, cpu) = (Instant::now(), system.group.cpu());
    system.run("postqueue", &["-f"])?;
    let mut most = 0;
    let mut looks = 0_u32;
    system.wait_for("everything has left", |system| {
        looks += 1;
        if looks.is_multiple_of(20) {
            most = most.max(system.group.memory_of("qmgr"));
        }
        sink.taken() >= messages
    })?;
    let drained = began.elapsed();
    let cpu = system.group.cpu().saturating_sub(cpu);
    system.wait_for("the queue is empty", |system| {
        ["incoming", "active", "deferred"].iter().all(|folder| system.files(&format!("queue/{folder}")) == 0)
    })?;
    let (taken, different) = (sink.taken(), sink.different()?);
    if (taken, different) != (messages, messages) {
        return Err(format!(
            "{side}: of {messages} messages the relay took {taken}, {different} different ones"
        ));
    }
    Ok(vec![
        Figure("settled after s", settled.as_secs_f64()),
        Figure("list s", listed.as_secs_f64()),
        Figure("qmgr while all waits MiB", mib(waiting)),
        Figure("qmgr at most while it drains MiB", mib(most)),
        Figure("drained after s", drained.as_secs_f64()),
        Figure("drained per second", messages as f64 / drained.as_secs_f64()),
        Figure("CPU ms per drained message", cpu.as_secs_f64() * 1000.0 / messages as f64),
    ])
}
