//! How many messages per second go through the queue: commit by many threads, as cleanup does it; claim and remove by one, as
//! qmgr does it. No mail system around it: this is what the disk and this crate allow.
//!
//! `commit_rate QUEUE_DIRECTORY [THREADS [MESSAGES [SIZE]]]`. Give it a fresh file system: ext4 is slow to reuse inodes
//! that were freed a short while ago, so that the second run in one place measures something else.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mail::{Address, Body, Client, Envelope, Origin, QueueId, Recipient};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use queue::{Incoming, QueueError, Root};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory: PathBuf = arguments.next().ok_or("which queue directory?")?.into();
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (threads, messages, size) = (number(50)?, number(20_000)?, number(4096)?);

    let root = Root::prepare(&directory, None)?;
    let (incoming, active) = (root.incoming()?, root.active()?);
    let (sender, arrived) = mpsc::channel();
    let started = Instant::now();
    let taken = AtomicUsize::new(0);
    let failures = std::thread::scope(|scope| {
        let committing = (0..threads).map(|_| {
            let sender = sender.clone();
            let (incoming, taken) = (&incoming, &taken);
            scope.spawn(move || {
                while taken.fetch_add(1, Ordering::Relaxed) < messages {
                    let id = commit(incoming, size)?;
                    let _ = sender.send(id);
                }
                Ok::<(), QueueError>(())
            })
        });
        let committing = committing.collect::<Vec<_>>();
        drop(sender);
        let removing = scope.spawn(move || arrived.iter().try_for_each(|id| active.claim(id)?.remove()));
        committing
            .into_iter()
            .chain([removing])
            .filter_map(|thread| thread.join().ok()?.err())
            .collect::<Vec<_>>()
    });
    if let Some(error) = failures.into_iter().next() {
        return Err(error.into());
    }
    report(messages, threads, started.elapsed())?;
    Ok(())
}

fn commit(incoming: &Incoming, size: usize) -> Result<QueueId, QueueError> {
    let now = SystemTime::now();
    let address = |text: &str| Address::new(text).unwrap_or_default();
    let envelope = Envelope {
        sender: address("sender@example.org"),
        recipients: vec![Recipient::new(address("recipient@example.com"))],
        arrival: now.duration_since(UNIX_EPOCH).unwrap_or_default(),
        origin: Origin::Smtp { rewrite_headers: false },
        client: Client::default(),
        envid: None,
        ret: None,
        body: Body::Unspecified,
        smtputf8: false,
        content_filter: None,
        trace: mail::Trace::default(),
    };
    let id = QueueId::generate(now);
    let mut writer = incoming.create(id, &envelope, false)?;
    writer.append(&vec![b'x'; size])?;
    writer.commit()?;
    Ok(id)
}

fn report(messages: usize, threads: usize, elapsed: Duration) -> Result<(), Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let messages = u32::try_from(messages)?;
    let rate = f64::from(messages) / elapsed.as_secs_f64();
    let cpu = f64::from(u32::try_from(cpu)?) / f64::from(messages) / 1000.0;
    writeln!(std::io::stdout(), "{threads} threads: {rate:.0} messages/s, {cpu:.3} ms of CPU each")?;
    Ok(())
}
