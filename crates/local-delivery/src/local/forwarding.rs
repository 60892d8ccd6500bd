//! Mail that goes on to other addresses: one new message through cleanup, however many they are.

use std::io::Write;
use std::time::SystemTime;

use ipc::cleanup::{CleanupError, Client, Options};
use mail::{Address, Dsn, Envelope, Notify, QueueId, Recipient};
use service::{Delivery, DeliveryRecipient};

use super::attempt::Context;
use crate::failure::{Delivered, Failure};
use crate::letter::Letter;

/// Sends the message on to `addresses`; it is durable when this returns.
///
/// What the sender asked to be told goes with it, but for the success report, which says that the address was expanded
/// (RFC 3461 section 5.2.7.3); unless a list with an owner stands between them: then the owner is told.
pub(super) fn forward(
    cleanup: &Client,
    delivery: &Delivery,
    recipient: &DeliveryRecipient,
    context: &Context,
    addresses: Vec<Address>,
    delivered_header: bool,
    letter: &Letter<'_>,
) -> Delivered {
    let request = &delivery.request;
    let original = recipient.original.as_ref().unwrap_or(&recipient.address);
    let member = |address| Recipient {
        address,
        // What a list with an owner sends is the owner's mail, not that of who wrote to the list.
        original: (!context.list).then(|| original.clone()),
        notify: if context.list { Notify::UNSET } else { recipient.notify.without_success() },
        orcpt: if context.list { None } else { recipient.orcpt.clone() },
    };
    let envelope = Envelope {
        client: request.client.clone(),
        envid: if context.list { None } else { request.envid.clone() },
        ret: if context.list { None } else { request.ret },
        body: request.body,
        smtputf8: request.smtputf8,
        trace: if context.list { mail::Trace::None } else { request.trace },
        ..Envelope::new(context.sender.clone(), addresses.into_iter().map(member).collect(), request.arrival)
    };
    let id = QueueId::generate(SystemTime::now());
    let options = Options { filter: false, ..Options::default() };
    let mut submission = cleanup.begin(id, &envelope, options).map_err(|error| failure(&error))?;
    let mut write = |bytes: &[u8]| submission.write_all(bytes);
    let written = if delivered_header {
        write(format!("Delivered-To: {}\n", context.delivered.to_path()).as_bytes())
    } else {
        Ok(())
    };
    let written = written.and_then(|()| letter.for_each_chunk(write));
    written.map_err(|error| Failure::from_io(&error, "unable to forward message"))?;
    submission.commit().map_err(|error| failure(&error))?;
    Ok(format!("forwarded as {id}"))
}

fn failure(error: &CleanupError) -> Failure {
    let dsn = match error {
        CleanupError::Unreachable(_) => Dsn::new(4, 3, 0),
        CleanupError::Refused(refusal) => refusal.dsn(),
    };
    Failure::new(dsn, format!("unable to forward message: {error}"))
}
