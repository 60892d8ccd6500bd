//! Messages to many recipients: 50 mailboxes in one transaction; an alias that stands for 10,000.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use super::super::Scale;
use super::super::load::Load;
use super::super::meter::{Figure, mib};
use super::super::system::{Side, System};
use crate::shell::Result;

const FIFTY: usize = 50;

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    let (messages, members) = (scale.of(200), scale.of(10_000));
    let lines = [
        "virtual_mailbox_maps = texthash:$root/etc/boxes",
        "alias_maps = texthash:$root/etc/lists",
        "local_recipient_maps = $alias_maps",
    ];
    let mut system = System::prepare(side, &lines, "")?;
    let (mut boxes, mut list) = (String::from("user@virtual.example user/\n"), String::from("list"));
    for number in 1..=members.max(FIFTY) {
        let _ = writeln!(boxes, "{number}user@virtual.example {number}user/");
        if number <= members {
            let _ = write!(list, "{} {number}user@virtual.example", if number == 1 { "" } else { "," });
        }
    }
    let write = |name: &str, text: &str| {
        let path = system.path("etc").join(name);
        fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))
    };
    write("boxes", &boxes)?;
    write("lists", &(list + "\n"))?;
    system.launch()?;
    // Each recipient has a number before its name but the last, as smtp-source does it.
    let names =
        || (2..=FIFTY).map(|number| format!("mail/{number}user/new")).chain(["mail/user/new".to_owned()]);
    let delivered = |system: &System| names().map(|name| system.files(&name)).sum::<usize>();

    let load = Load { messages, sessions: 10, recipients: FIFTY, ..Load::default() };
    // Mailboxes are made by the first message.
    Load { messages: 1, sessions: 1, ..load }.send(system.port, "user@virtual.example")?;
    system.wait_for("the mailboxes are there", |system| delivered(system) == FIFTY)?;
    let (began, cpu) = (Instant::now(), system.group.cpu());
    load.send(system.port, "user@virtual.example")?;
    system.wait_for("all mailboxes have all", |system| delivered(system) == FIFTY * (messages + 1))?;
    let (elapsed, cpu) = (began.elapsed(), system.group.cpu().saturating_sub(cpu));

    // The second one finds the mailboxes made.
    let first = send_to_list(&system, members)?;
    let second = send_to_list(&system, members)?;
    let all = (FIFTY * messages) as f64;
    Ok(vec![
        Figure("recipients per second", all / elapsed.as_secs_f64()),
        Figure("CPU ms per recipient", cpu.as_secs_f64() * 1000.0 / all),
        Figure("alias that makes mailboxes, per second", members as f64 / first.elapsed.as_secs_f64()),
        Figure("alias, per second", members as f64 / second.elapsed.as_secs_f64()),
        Figure("alias, CPU ms per member", second.cpu.as_secs_f64() * 1000.0 / members as f64),
        Figure("qmgr at most MiB", mib(first.most.max(second.most))),
        Figure("memory at the end MiB", mib(system.group.memory())),
    ])
}

/// What a message to the list came to.
struct Listed {
    elapsed: Duration,
    cpu: Duration,
    /// The memory of qmgr, in KiB.
    most: u64,
}

/// Sends it and waits until nothing is left in the queue, which takes less to see than that the mailboxes have it.
fn send_to_list(system: &System, members: usize) -> Result<Listed> {
    let before = system.files("mail");
    let (began, cpu) = (Instant::now(), system.group.cpu());
    Load { messages: 1, sessions: 1, ..Load::default() }.send(system.port, "list@localhost")?;
    let mut most = 0;
    let mut empty = 0;
    system.wait_for("every member has it", |system| {
        most = most.max(system.group.memory_of("qmgr"));
        let queued =
            ["incoming", "active", "deferred"].map(|folder| system.files(&format!("queue/{folder}")));
        // A message that moves meanwhile may be overlooked, once.
        empty = if queued == [0; 3] { empty + 1 } else { 0 };
        empty > 2
    })?;
    let (elapsed, cpu) = (began.elapsed(), system.group.cpu().saturating_sub(cpu));
    match system.files("mail") - before {
        all if all == members => Ok(Listed { elapsed, cpu, most }),
        other => Err(format!("of {members} members {other} got a message to the list")),
    }
}
