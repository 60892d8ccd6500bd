//! Serving qmgr: requests over lasting connections, a few of them worked on at a time.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use config::param;
use crossbeam_channel::Receiver;
use ipc::bounce::{Reply, Request};
use ipc::{cleanup, frame, log, verify};
use mail::Trace;
use service::{Fatal, Service, Stream};

use crate::findings;
use crate::notice::notices;
use crate::policy::Policy;
use crate::report::Reader;
use crate::send::send;
use crate::subject::Subject;

/// Reports of one connection that are written side by side: each waits for the disk most of its time, and the disk
/// commits several at once.
const WRITERS: usize = 8;

/// `bounce`.
///
/// # Errors
/// A notice recipient that is no address; what the daemon skeleton says.
pub fn run(service: Service) -> Result<(), Fatal> {
    let verify: String = service.config.get(param::ADDRESS_VERIFY_SERVICE_NAME);
    let bounce = Arc::new(Bounce {
        policy: Policy::new(&service.config)?,
        cleanup: service.cleanup(),
        verify: verify::Client::new(service.socket_of(true, &verify)),
    });
    service.serve_sessions(move |_, connection| {
        let Stream::Unix(socket) = &*connection.stream else { return };
        if let Err(error) = bounce.serve(socket) {
            log::warning!("connection from the queue manager: {error}");
        }
    })
}

struct Bounce {
    policy: Policy,
    cleanup: cleanup::Client,
    verify: verify::Client,
}

impl Bounce {
    /// Takes requests until qmgr closes the connection, and answers all of them.
    fn serve(&self, socket: &UnixStream) -> std::io::Result<()> {
        let replies = Mutex::new(socket);
        let (requests, waiting) = crossbeam_channel::bounded(WRITERS);
        std::thread::scope(|scope| {
            for _ in 0..WRITERS {
                let waiting: Receiver<(Request, OwnedFd)> = waiting.clone();
                let replies = &replies;
                std::thread::Builder::new().name("report".into()).stack_size(512 * 1024).spawn_scoped(
                    scope,
                    move || {
                        for (request, descriptor) in waiting {
                            reply(replies, request.number, self.handle(&request, descriptor));
                        }
                    },
                )?;
            }
            drop(waiting);
            let mut receiver = frame::Receiver::new();
            while let Some(request) = receiver.next_message::<Request>(socket)? {
                let descriptor = frame::expect_descriptor(&mut receiver)?;
                if requests.send((request, descriptor.into())).is_err() {
                    break;
                }
            }
            drop(requests);
            Ok(())
        })
    }

    /// A panic is an answer too: qmgr asks again later.
    fn handle(&self, request: &Request, descriptor: OwnedFd) -> Result<(), String> {
        let result = catch_unwind(AssertUnwindSafe(|| self.notify(request, descriptor)));
        result.unwrap_or_else(|_| {
            log::error!("{}: internal error while a notification was written", request.id);
            Err("internal error".into())
        })
    }

    fn notify(&self, request: &Request, descriptor: OwnedFd) -> Result<(), String> {
        let subject = Subject::read(request, descriptor)?;
        let sender = subject.stored.sender();
        // What address verification finds out goes to who asked, not to the message's sender.
        if subject.stored.trace() == Trace::Verification {
            return findings::tell(&self.verify, &subject);
        }
        if self.policy.is_double_bounce(sender) {
            log::warning!("{}: undeliverable postmaster notification discarded", request.id);
        }
        for notice in notices(request.kind, sender, &self.policy) {
            if subject.reported_to(notice.reader).recipients.is_empty() {
                continue;
            }
            let result = send(&notice, request, &subject, &self.policy, &self.cleanup);
            match (result, notice.reader) {
                (Ok(()), _) => {}
                // To ask qmgr to come again would send the sender's notification twice.
                (Err(reason), Reader::Postmaster) if !sender.is_null() => {
                    log::warning!("{}: copy to <{}> is dropped: {reason}", request.id, notice.to);
                }
                (Err(reason), _) => return Err(reason),
            }
        }
        Ok(())
    }
}

/// A qmgr that went away asks again when it is back. One that is there would wait for ever for a reply that could not be
/// sent: closing the connection makes it ask again, too.
fn reply(socket: &Mutex<&UnixStream>, number: u64, result: Result<(), String>) {
    let socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = frame::send(&socket, &Reply { number, result }, None) {
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            log::warning!("reply to the queue manager: {error}");
        }
        let _ = socket.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests;
