//! What the tests of both agents deliver.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipc::agent::Request;
use mail::{Address, Body, Client, Envelope, Notify, QueueId};
use service::{Delivery, DeliveryRecipient};

/// The id of a new message.
pub(crate) fn id() -> QueueId {
    QueueId::generate(SystemTime::now())
}

/// A recipient without history.
pub(crate) fn recipient(address: &str) -> DeliveryRecipient {
    let address = Address::new(address).unwrap();
    DeliveryRecipient { index: 0, address, original: None, notify: Notify::UNSET, orcpt: None }
}

/// A queue file with this content, as the queue manager hands it over.
pub(crate) fn delivery(folder: &Path, id: QueueId, text: &[u8]) -> Delivery {
    let envelope = Envelope {
        client: Client { name: "host.example.org".into(), address: "192.0.2.1".into(), ..Client::default() },
        ..Envelope::new(
            Address::new("sender@example.org").unwrap(),
            Vec::new(),
            Duration::from_secs(1_700_000_000),
        )
    };
    let incoming = queue::Root::prepare(folder, None).unwrap().incoming().unwrap();
    let file_id = self::id();
    let mut writer = incoming.create(file_id, &envelope, true).unwrap();
    writer.append(text).unwrap();
    writer.commit().unwrap();
    let request = Request {
        delivery: 1,
        id,
        nexthop: "example.com".into(),
        sender: envelope.sender,
        arrival: envelope.arrival,
        active_since: envelope.arrival,
        size: text.len() as u64,
        envid: None,
        ret: None,
        body: Body::Unspecified,
        smtputf8: false,
        trace: envelope.trace,
        client: envelope.client,
        first_id: None,
        is_local: true,
        recipients: Vec::new(),
    };
    Delivery::new(request, File::open(folder.join("hold").join(file_id.as_str())).unwrap().into())
}

/// The same in memory, as cleanup lends it, and its file.
pub(crate) fn delivery_from_memory(text: &[u8]) -> (Delivery, Arc<File>) {
    let folder = tempfile::tempdir().unwrap();
    let Delivery { request, file, .. } = delivery(folder.path(), id(), text);
    let mut lent = sys::lent::make("message").unwrap();
    io::copy(&mut &*file, &mut lent).unwrap();
    sys::lent::seal(&lent).unwrap();
    let lent = Arc::new(lent);
    (Delivery::new(request, Arc::clone(&lent)), lent)
}
