//! A relay that takes its time, beside one that does not: mail to the second is not slowed by mail to the first.

use scenarios::free_port;

use super::super::Scale;
use super::super::load::Load;
use super::super::meter::{Figure, Stretch};
use super::super::sink::Sink;
use super::super::system::{Side, System};
use crate::shell::Result;

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let (slow, fast) = (free_port(), free_port());
    let transports = format!(
        "transport_maps = inline:{{slow.example=smtp:[127.0.0.1]:{slow}, fast.example=smtp:[127.0.0.1]:{fast}}}"
    );
    // The slow relay takes a second over each DATA.
    let (_slow, sink) = (Sink::start(slow, &["-w", "1"])?, Sink::start(fast, &[])?);
    let system = System::start(side, &[&transports])?;
    let load = Load { messages: scale.of(10_000), sessions: 20, ..Load::default() };
    let rate_of_fast = || -> Result<f64> {
        let wanted = sink.taken() + load.messages;
        let stretch = Stretch::begin(&system.group);
        load.send(system.port, "user@fast.example")?;
        system.wait_for("the fast relay has everything", |_| sink.taken() >= wanted)?;
        Ok(stretch.end(load.messages)[0].1)
    };
    // Everything is started and warm before the clock runs.
    load.send(system.port, "user@fast.example")?;
    system.wait_for("the fast relay has everything", |_| sink.taken() >= load.messages)?;
    let alone = rate_of_fast()?;
    Load { messages: load.messages / 2, ..load }.send(system.port, "user@slow.example")?;
    let beside = rate_of_fast()?;
    Ok(vec![
        Figure("messages per second alone", alone),
        Figure("beside mail to the slow one", beside),
        Figure("share that is left", beside / alone),
    ])
}
