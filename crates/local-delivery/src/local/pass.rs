//! `mailbox_transport` and its kin: another agent delivers. It is asked as the queue manager would ask it.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ipc::agent::{Reply, Request};
use ipc::frame::{self, Receiver};
use mail::{Dsn, Outcome};
use service::{Delivery, DeliveryRecipient};

use super::attempt::Context;
use crate::failure::{Failure, describe};

/// As long as the slowest delivery that the other agent may make.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Has the agent of `route` (`transport:nexthop`) deliver to this recipient: its outcome is ours, and it has logged it.
///
/// # Errors
/// The agent could not be asked.
pub(super) fn deliver(
    queue_directory: &Path,
    route: &str,
    delivery: &Delivery,
    recipient: &DeliveryRecipient,
    context: &Context,
) -> Result<Outcome, Failure> {
    let (transport, nexthop) = route.split_once(':').unwrap_or((route, ""));
    let domain = context.recipient.domain().unwrap_or_default();
    let nexthop = if nexthop.is_empty() { domain } else { nexthop };
    let failed = |error: &std::io::Error| {
        let text = format!("mail transport {transport} unavailable: {}", describe(error));
        Failure::defer(Dsn::new(4, 3, 0), text)
    };
    let original = recipient.original.as_ref().unwrap_or(&recipient.address);
    let recipient = DeliveryRecipient {
        address: context.recipient.clone(),
        original: Some(original.clone()).filter(|original| *original != context.recipient),
        ..recipient.clone()
    };
    let request = Request {
        nexthop: nexthop.to_owned(),
        sender: context.sender.clone(),
        recipients: vec![recipient],
        ..delivery.request.clone()
    };
    let socket = ipc::socket_path(queue_directory, true, transport);
    let outcome = ask(&socket, &request, delivery).map_err(|error| failed(&error))?;
    Ok(Outcome { logged: true, ..outcome })
}

fn ask(socket: &Path, request: &Request, delivery: &Delivery) -> std::io::Result<Outcome> {
    let socket = UnixStream::connect(socket)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    frame::send(&socket, request, Some(delivery.file.as_fd()))?;
    let mut receiver = Receiver::new();
    let mut result = None;
    loop {
        match receiver.next_message::<Reply>(&socket)? {
            Some(Reply::Ready) => {}
            Some(Reply::Outcome { outcome, .. }) => result = Some(outcome),
            Some(Reply::Done { .. }) => break,
            None => return Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
    result.ok_or_else(|| std::io::Error::other("it gave no outcome"))
}
