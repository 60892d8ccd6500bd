//! `sendmail`, one at a time and four in parallel.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::super::Scale;
use super::super::meter::{Figure, mib};
use super::super::system::{RECIPIENT, Side, System};
use crate::shell::Result;

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let messages = scale.of(1_000);
    let system = System::start(side, &[])?;
    submit(&system, 1)?;
    system.wait_for("the mailbox is there", |system| system.files("mail/user/new") == 1)?;
    let (cpu, own) = (system.group.cpu(), children());
    let began = Instant::now();
    submit(&system, messages)?;
    let alone = began.elapsed();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads = [(); 4].map(|()| scope.spawn(|| submit(&system, messages / 4)));
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a client panicked".to_owned())?)
    })?;
    let parallel = began.elapsed();
    let all = messages + messages / 4 * 4;
    system.wait_for("all is delivered", |system| system.files("mail/user/new") == all + 1)?;
    let cpu = system.group.cpu().saturating_sub(cpu) + children().saturating_sub(own);
    Ok(vec![
        Figure("one at a time per second", messages as f64 / alone.as_secs_f64()),
        Figure("four in parallel per second", (messages / 4 * 4) as f64 / parallel.as_secs_f64()),
        Figure("CPU ms per message", cpu.as_secs_f64() * 1000.0 / all as f64),
        Figure("memory at the end MiB", mib(system.group.memory())),
    ])
}

fn submit(system: &System, messages: usize) -> Result<()> {
    let text =
        format!("Subject: one of many\n\n{}", "All work and no play makes mail a dull thing.\n".repeat(80));
    for _ in 0..messages {
        let mut command = system.command("sendmail", &["-i", "-f", "sender@example.net", RECIPIENT]);
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut sendmail = command.spawn().map_err(|e| format!("run sendmail: {e}"))?;
        if let Some(mut input) = sendmail.stdin.take() {
            input.write_all(text.as_bytes()).map_err(|e| format!("write to sendmail: {e}"))?;
        }
        let status = sendmail.wait().map_err(|e| format!("wait for sendmail: {e}"))?;
        if !status.success() {
            return Err(format!("sendmail: {status}"));
        }
    }
    Ok(())
}

/// Processor time of the commands that have ended.
fn children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
    let micros = usage
        .map_or(0, |usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
