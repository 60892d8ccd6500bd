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
    waiting: HashMap<u64, Report>,
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
            Ok(()) => {
                self.waiting.insert(number, report);
                Ok(())
            }
            Err(error) => {
                self.link = None;
                Err((report, error))
            }
        }
    }

    fn send(&mut self, request: &Request, file: &File) -> io::Result<()> {
        let link = match &mut self.link {
            Some(link) => link,
            None => {
                let (inbox, number) = (Arc::clone(&self.inbox), self.next_number);
                let heard = move |heard: Heard<Reply>| inbox.put(Input::Bounce(number, heard));
                self.link.insert(Link::connect(&self.socket, number, Instant::now(), heard)?)
            }
        };
        link.send(request, file.as_fd())
    }

    /// The report that a reply is about.
    pub(crate) fn answered(&mut self, reply: &Reply) -> Option<Report> {
        self.waiting.remove(&reply.number)
    }

    /// The connection with this number is gone: the reports that were asked for over it, if it is the one in use.
    pub(crate) fn closed(&mut self, number: u64) -> Vec<Report> {
        if self.link.as_ref().is_none_or(|link| link.number != number) {
            return Vec::new();
        }
        self.link = None;
        self.waiting.drain().map(|(_, report)| report).collect()
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
