//! Fills a queue with messages that wait for a relay, as qmgr leaves them: `backlog QUEUE_DIRECTORY MESSAGES OWNER [RECIPIENTS]`,
//! with so many recipients each. None is due within an hour.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail::{Address, Dsn, Envelope, Origin, Outcome, QueueId, Recipient};
use nix::unistd::{User, setgid, setuid};
use queue::{Active, Attempt, Incoming, Owner, QueueError, Root};

/// Threads that are in `fsync` at the same time.
const THREADS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory: PathBuf = arguments.next().ok_or("which queue directory?")?.into();
    let messages: usize = arguments.next().ok_or("how many messages?")?.parse()?;
    let name = arguments.next().ok_or("whose are they?")?;
    let recipients: usize = arguments.next().map_or(Ok(1), |number| number.parse())?;
    let user = User::from_name(&name)?.ok_or_else(|| format!("no user {name}"))?;
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    let owner = Owner { uid, gid, submission_gid: gid };
    let root = Root::prepare(&directory, Some(owner))?;
    let (incoming, active) = (root.incoming()?, root.active()?);
    setgid(user.gid)?;
    setuid(user.uid)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (incoming, active) = (&incoming, &active);
                scope.spawn(move || {
                    (thread..messages)
                        .step_by(THREADS)
                        .try_for_each(|number| put(incoming, active, number, recipients))
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?.map_err(Box::from))
    })
}

fn put(incoming: &Incoming, active: &Active, number: usize, recipients: usize) -> Result<(), QueueError> {
    let now = SystemTime::now();
    let address = |text: &str| Address::new(text).unwrap_or_default();
    let envelope = Envelope {
        origin: Origin::Smtp { rewrite_headers: false },
        ..Envelope::new(
            address("sender@example.org"),
            (number..number + recipients)
                .map(|number| Recipient::new(address(&format!("user{number}@elsewhere.example"))))
                .collect(),
            now.duration_since(UNIX_EPOCH).unwrap_or_default(),
        )
    };
    let id = QueueId::generate(now);
    let mut writer = incoming.create(id, &envelope, false)?;
    writer.append(b"Subject: one of many\n\nThis waits.\n")?;
    writer.commit()?;
    let mut message = active.claim(id)?;
    // Spread over some hours, as the attempts of real mail are.
    let next = now + Duration::from_secs(3600 + u64::try_from(number % 10_000).unwrap_or(0));
    let text = "connect to 127.0.0.1[127.0.0.1]:25: Connection refused";
    let outcome = Outcome::deferred("none", Dsn::new(4, 4, 1), text);
    message.append_attempt(&Attempt { time: now, recipient: 0, outcome, next_attempt: Some(next) })?;
    message.defer(next)
}
