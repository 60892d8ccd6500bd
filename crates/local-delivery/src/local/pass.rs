//! `mailbox_transport` and its kin: another agent delivers. It is asked as the queue manager would ask it.

use std::io::ErrorKind;
use std::path::Path;

use ipc::agent::Request;
use mail::{Dsn, Outcome};
use service::{Delivery, DeliveryRecipient};

use super::attempt::Context;
use crate::failure::{Failure, describe};

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
    let mut found = None;
    let domain = context.recipient.domain().unwrap_or_default();
    let nexthop = if nexthop.is_empty() { domain } else { nexthop };
    let failed = |error: &std::io::Error| {
        let why = match error.kind() {
            ErrorKind::NotFound => "no service of that name in master.cf".to_owned(),
            _ => describe(error),
        };
        let text = format!("mail transport {transport} unavailable: {why}");
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
    service::pass::deliver(queue_directory, transport, &request, delivery, |_, outcome| {
        found = Some(outcome)
    })
    .map_err(|error| failed(&error))?;
    found.ok_or_else(|| failed(&std::io::Error::other("it gave no outcome")))
}
