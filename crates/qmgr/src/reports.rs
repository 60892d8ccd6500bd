//! Reports under way: requests to the bounce service, and which message waits for which.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ipc::bounce::{Kind, Reply, Request};
use mail::QueueId;
use service::Mailbox;

use crate::event_loop::Input;
use crate::link::{Heard, Link};

/// The way to the bounce service.
pub(crate) struct Reports {
    socket: PathBuf,
    inbox: Arc<Mailbox<Input>>,
    link: Option<Link>,
    next_number: u64,
    /// The reports by their numbers, each with the number of the connection it was asked for over.
    waiting: HashMap<u64, (u64, Report)>,
}

/// A report that bounce is asked to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) id: QueueId,
    pub(crate) kind: Kind,
    pub(crate) recipients: Vec<u32>,
}

impl Reports {
    pub(crate) fn new(socket: PathBuf, inbox: Arc<Mailbox<Input>>) -> Self {
        Self { socket, inbox, link: None, next_number: 1, waiting: HashMap::new() }
    }

    /// Asks for a report.
    ///
    /// # Errors
    /// The report, for the caller to put off, and why bounce could not be asked.
    pub(crate) fn ask(&mut self, report: Report, file: &File) -> Result<(), (Report, io::Error)> {
        self.next_number += 1;
        let number = self.next_number;
        let request =
            Request { number, id: report.id, kind: report.kind, recipients: report.recipients.clone() };
        match self.send(&request, file) {
            Ok(link) => {
                self.waiting.insert(number, (link, report));
                Ok(())
            }
            Err(error) => {
                // What else was asked for over this connection comes back when its end is heard of.
                self.link = None;
                Err((report, error))
            }
        }
    }

    /// Sends a request, and gives the number of the connection.
    fn send(&mut self, request: &Request, file: &File) -> io::Result<u64> {
        let link = match &mut self.link {
            Some(link) => link,
            None => {
                let (inbox, number) = (Arc::clone(&self.inbox), self.next_number);
                let heard = move |heard: Heard<Reply>| inbox.put(Input::Bounce(number, heard));
                self.link.insert(Link::connect(&self.socket, number, Instant::now(), heard)?)
            }
        };
        link.send(request, file.as_fd()).map(|()| link.number)
    }

    /// The report that a reply is about.
    pub(crate) fn answered(&mut self, reply: &Reply) -> Option<Report> {
        self.waiting.remove(&reply.number).map(|(_, report)| report)
    }

    /// The connection with this number is gone: the reports that were asked for over it, whether or not it was still in
    /// use.
    pub(crate) fn closed(&mut self, number: u64) -> Vec<Report> {
        self.link.take_if(|link| link.number == number);
        self.waiting.extract_if(|_, (link, _)| *link == number).map(|(_, (_, report))| report).collect()
    }

    /// Whether no report is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Goes over to the bounce service of a new generation as soon as nothing waits for the old one.
    pub(crate) fn renew_when_idle(&mut self) {
        if self.waiting.is_empty() {
            self.link = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use ipc::frame::Receiver;

    use super::*;

    #[test]
    fn reports_come_back_when_the_service_goes_away_between_two_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bounce");
        let listener = UnixListener::bind(&path).unwrap();
        let inbox = Arc::new(Mailbox::default());
        let mut reports = Reports::new(path, Arc::clone(&inbox));
        let id = QueueId::generate(std::time::SystemTime::now());
        let report = || Report { id, kind: Kind::Failure, recipients: vec![1] };
        let file = tempfile::tempfile().unwrap();
        assert!(reports.ask(report(), &file).is_ok());
        let (service, _) = listener.accept().unwrap();
        assert!(Receiver::new().next_message::<Request>(&service).unwrap().is_some());
        drop((service, listener));
        // The end of the connection is not heard of before the next report is asked for.
        assert!(reports.ask(report(), &file).is_err());
        assert!(!reports.is_idle());
        let mut inputs = Vec::new();
        inbox.take(&mut inputs, None);
        let Some(Input::Bounce(number, Heard::Closed(_))) = inputs.pop() else { panic!("not the end") };
        assert_eq!(reports.closed(number), [report()]);
        assert!(reports.is_idle());
    }
}
