//! Starting, reloading, and being there.

use std::time::{Duration, Instant};

use super::super::Scale;
use super::super::load::Load;
use super::super::meter::{Figure, mib};
use super::super::system::{RECIPIENT, Side, System};
use crate::shell::Result;

pub fn run(side: Side, _: Scale) -> Result<Vec<Figure>> {
    let mut system = System::prepare_packaged(side)?;
    let started = system.launch()?;
    // Every program has been needed once.
    Load { messages: 1, sessions: 1, ..Load::default() }.send(system.port, RECIPIENT)?;
    system.wait_for("a message is delivered", |system| system.files("mail/user/new") == 1)?;
    std::thread::sleep(Duration::from_secs(1));
    let memory = system.group.memory();
    let cpu = system.group.cpu();
    std::thread::sleep(Duration::from_secs(2));
    let idle = system.group.cpu().saturating_sub(cpu);
    let program = match side {
        Side::Postroad => "postroad",
        Side::Postfix => "postfix",
    };
    let began = Instant::now();
    system.run(program, &["reload"])?;
    Ok(vec![
        Figure("start to greeting s", started.as_secs_f64()),
        Figure("reload s", began.elapsed().as_secs_f64()),
        Figure("memory at rest MiB", mib(memory)),
        Figure("CPU ms per second at rest", idle.as_secs_f64() * 500.0),
    ])
}
