//! The daemon that lists the queue to whoever connects: it alone may read the queue, its clients need not.

use std::time::Duration;

use config::param;
use ipc::log;
use queue::Root;
use service::{Fatal, Service, Stream};

use crate::queue_list::read;

/// Serves listings until master says otherwise. It takes no input from a client.
///
/// # Errors
/// A queue that cannot be opened.
pub fn run(service: Service) -> Result<(), Fatal> {
    let config = &service.config;
    let null_sender = config.get(param::EMPTY_ADDRESS_RECIPIENT);
    let patience: Duration = config.get(param::IPC_TIMEOUT);
    let root = Root::open(&config.get(param::QUEUE_DIRECTORY))
        .map_err(|error| Fatal::new(format!("open the queue: {error}")))?;
    service.serve_sessions(move |_, connection| {
        let mut stream: &Stream = &connection.stream;
        // Who stops reading is dropped one day; until then the listing waits for the reader, as a pipe would.
        let _ = stream.set_write_timeout(Some(patience).filter(|p| !p.is_zero()));
        match root.read_only() {
            // The client went away, which is its good right.
            Ok(queue) => drop(read::list(&queue, &null_sender, &mut stream)),
            Err(error) => log::error!("{error}"),
        }
    })
}
