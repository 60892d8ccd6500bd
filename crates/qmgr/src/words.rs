//! `public/qmgr`: what cleanup, postqueue and postsuper say.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use ipc::frame::{Receiver, expect_descriptor};
use ipc::log;
use ipc::queue_manager::Word;
use service::Mailbox;

use crate::event_loop::Input;
use crate::offers::Asker;

/// How long to wait after `accept` failed for want of descriptors.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Listens on a thread of its own, and on one more for each connection: cleanup keeps one or two.
///
/// # Errors
/// What the system says to a new thread.
pub(crate) fn listen(listener: UnixListener, inbox: Arc<Mailbox<Input>>) -> std::io::Result<()> {
    listener.set_nonblocking(false)?;
    let thread = std::thread::Builder::new().name("words".into()).stack_size(128 * 1024);
    let started = thread.spawn(move || {
        loop {
            match listener.accept() {
                Ok((socket, _)) => hear(socket, Arc::clone(&inbox)),
                Err(error) => {
                    log::warning!("accept connection at public/qmgr: {error}; trying again");
                    std::thread::sleep(BACK_OFF);
                }
            }
        }
    });
    started
        .map(drop)
        .map_err(|e| std::io::Error::other(format!("start the thread that listens to words: {e}")))
}

fn hear(socket: UnixStream, inbox: Arc<Mailbox<Input>>) {
    let thread = std::thread::Builder::new().name("words".into()).stack_size(256 * 1024);
    let started = Asker::new(socket).and_then(|asker| {
        let asker = Arc::new(asker);
        thread.spawn(move || listen_to(&asker, &inbox))
    });
    if let Err(error) = started {
        log::warning!("start a thread: {error}; a client of the queue manager is turned away");
    }
}

/// Passes on what a client says until it closes.
fn listen_to(client: &Arc<Asker>, inbox: &Mailbox<Input>) {
    let mut receiver = Receiver::new();
    loop {
        match receiver.next_message(client.socket()) {
            Ok(Some(Word::Offered(id))) => match expect_descriptor(&mut receiver) {
                Ok(file) => inbox.put(Input::Offered(id, file, Arc::clone(client))),
                // Who offered hears nothing, and sees to it.
                Err(error) => {
                    log::warning!("{id}: offered to the queue manager: {error}; the connection is closed");
                    break;
                }
            },
            Ok(Some(word)) => inbox.put(Input::Word(word)),
            Ok(None) => break,
            Err(error) => {
                log::warning!("connection to the queue manager: {error}; it is closed");
                break;
            }
        }
    }
    client.close();
    inbox.put(Input::Left(Arc::clone(client)));
}
