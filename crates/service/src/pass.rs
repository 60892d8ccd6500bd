//! A delivery that another agent makes, asked as the queue manager would ask it: `mailbox_transport`, `best_mx_transport`.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ipc::agent::{Reply, Request};
use ipc::frame::{self, Receiver};
use mail::Outcome;

use crate::Delivery;

/// As long as the slowest delivery that the other agent may make.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Has the agent of a transport deliver the message of `delivery` as `request` says; `give` gets the number of each
/// recipient and its outcome, which that agent has logged.
///
/// # Errors
/// The agent could not be asked, or went away: some recipients may have no outcome.
pub fn deliver(
    queue_directory: &Path,
    transport: &str,
    request: &Request,
    delivery: &Delivery,
    mut give: impl FnMut(u32, Outcome),
) -> io::Result<()> {
    let socket = UnixStream::connect(ipc::socket_path(queue_directory, true, transport))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    frame::send(&socket, request, Some(delivery.file.as_fd()))?;
    let mut receiver = Receiver::new();
    loop {
        match receiver.next_message::<Reply>(&socket)? {
            Some(Reply::Ready) => {}
            Some(Reply::Outcome { recipient, outcome, .. }) => {
                give(recipient, Outcome { logged: true, ..outcome });
            }
            // The other agent sees by the file whether that is done, and says what becomes of the recipient where it is not.
            Some(Reply::Keep { .. }) => drop(delivery.keep()),
            Some(Reply::Done { .. }) => return Ok(()),
            None => return Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::agent::tests::{delivery_from_memory, request};

    /// The other agent: it has the message kept, and delivers.
    fn serve(listener: &UnixListener) {
        let (socket, _) = listener.accept().unwrap();
        let say = |reply: Reply| frame::send(&socket, &reply, None).unwrap();
        say(Reply::Ready);
        let mut receiver = Receiver::new();
        let asked: Request = receiver.next_message(&socket).unwrap().unwrap();
        let file = frame::expect_descriptor(&mut receiver).unwrap();
        // Its numbers need not be those of who passes the delivery on.
        say(Reply::Keep { delivery: asked.delivery });
        while sys::lent::is_only_here(&file).unwrap() {
            std::thread::sleep(Duration::from_millis(1));
        }
        say(Reply::Outcome {
            delivery: asked.delivery,
            recipient: asked.recipients[0].index,
            outcome: Outcome::sent("other", "ok"),
        });
        say(Reply::Done { delivery: asked.delivery, site: None });
    }

    #[test]
    fn the_other_agent_has_the_message_kept_by_who_asked_for_the_delivery() {
        let queue = tempfile::tempdir().unwrap();
        std::fs::create_dir(queue.path().join("private")).unwrap();
        let listener = UnixListener::bind(ipc::socket_path(queue.path(), true, "other")).unwrap();
        let (delivery, queue_manager) = delivery_from_memory();
        let lent = delivery.file.try_clone().unwrap();
        let passed = Request { delivery: 99, ..request(1) };
        let mut outcomes = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&listener));
            scope.spawn(|| {
                let asked = Receiver::new().next_message::<Reply>(&queue_manager).unwrap();
                assert_eq!(asked, Some(Reply::Keep { delivery: 7 }));
                sys::lent::note_stored(&lent).unwrap();
            });
            let give = |index, outcome: Outcome| outcomes.push((index, outcome.text));
            deliver(queue.path(), "other", &passed, &delivery, give).unwrap();
        });
        assert_eq!(outcomes, [(0, "ok".to_owned())]);
    }
}
