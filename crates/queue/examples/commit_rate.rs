//! How many messages per second go through the queue: commit by many threads, as cleanup does it; claim and remove by one, as
//! qmgr does it, or by as many as deliver at a time where there is a Maildir to deliver into. No mail system around it:
//! this is what the disk and this crate allow.
//!
//! `commit_rate QUEUE_DIRECTORY [THREADS [MESSAGES [SIZE [MAILDIR]]]]`. Give it a fresh file system: ext4 is slow to reuse
//! inodes that were freed a short while ago, so that the second run in one place measures something else.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mail::{Address, Envelope, Origin, QueueId, Recipient};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use queue::{Active, Incoming, Root};

/// What went wrong.
type Failure = Box<dyn Error + Send + Sync>;

/// Deliveries at a time: what one destination may have.
const DELIVERIES: usize = 20;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory: PathBuf = arguments.next().ok_or("which queue directory?")?.into();
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (threads, messages, size) = (number(50)?, number(20_000)?, number(4096)?);
    let maildir: Option<PathBuf> = arguments.next().map(PathBuf::from);
    for folder in maildir.iter().flat_map(|maildir| ["tmp", "new"].map(|name| maildir.join(name))) {
        fs::create_dir_all(folder)?;
    }

    let root = Root::prepare(&directory, None)?;
    let (incoming, active) = (root.incoming()?, root.active()?);
    let (sender, arrived) = mpsc::channel();
    let arrived = Mutex::new(arrived);
    let started = Instant::now();
    let taken = AtomicUsize::new(0);
    let failures: Vec<Failure> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for _ in 0..threads {
            let sender = sender.clone();
            let (incoming, taken) = (&incoming, &taken);
            running.push(scope.spawn(move || {
                while taken.fetch_add(1, Ordering::Relaxed) < messages {
                    let id = commit(incoming, size)?;
                    let _ = sender.send(id);
                }
                Ok::<(), Failure>(())
            }));
        }
        drop(sender);
        for _ in 0..if maildir.is_some() { DELIVERIES } else { 1 } {
            let (active, arrived, maildir) = (&active, &arrived, maildir.as_deref());
            running.push(scope.spawn(move || {
                let next = || arrived.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
                std::iter::from_fn(next).try_for_each(|id| pass(active, id, maildir))
            }));
        }
        running.into_iter().filter_map(|thread| thread.join().ok()?.err()).collect()
    });
    if let Some(error) = failures.into_iter().next() {
        return Err(error);
    }
    report(messages, threads, started.elapsed())
}

/// Takes a message up, writes it into the Maildir so that it lasts, and removes it.
fn pass(active: &Active, id: QueueId, maildir: Option<&Path>) -> Result<(), Failure> {
    let message = active.claim(id)?;
    if let Some(maildir) = maildir {
        let (temporary, name) =
            (maildir.join("tmp").join(id.to_string()), maildir.join("new").join(id.to_string()));
        let mut content = queue::Content::from_file(message.share())?;
        let mut file = File::create_new(&temporary)?;
        io::copy(&mut content, &mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, &name)?;
    }
    Ok(message.remove()?)
}

fn commit(incoming: &Incoming, size: usize) -> Result<QueueId, Failure> {
    let now = SystemTime::now();
    let address = |text: &str| Address::new(text).unwrap_or_default();
    let envelope = Envelope {
        origin: Origin::Smtp { rewrite_headers: false },
        ..Envelope::new(
            address("sender@example.org"),
            vec![Recipient::new(address("recipient@example.com"))],
            now.duration_since(UNIX_EPOCH).unwrap_or_default(),
        )
    };
    let id = QueueId::generate(now);
    let mut writer = incoming.create(id, &envelope, false)?;
    writer.append(&vec![b'x'; size])?;
    writer.commit()?;
    Ok(id)
}

fn report(messages: usize, threads: usize, elapsed: Duration) -> Result<(), Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let messages = u32::try_from(messages)?;
    let rate = f64::from(messages) / elapsed.as_secs_f64();
    let cpu = f64::from(u32::try_from(cpu)?) / f64::from(messages) / 1000.0;
    writeln!(std::io::stdout(), "{threads} threads: {rate:.0} messages/s, {cpu:.3} ms of CPU each")?;
    Ok(())
}
