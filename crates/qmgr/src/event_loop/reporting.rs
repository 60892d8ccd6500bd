//! Reports that the bounce service writes, and what follows when they are in the queue.

use std::sync::Arc;
use std::time::SystemTime;

use ipc::bounce::{Kind, Reply};
use ipc::log;
use queue::RecipientState;

use super::EventLoop;
use super::attempts::age;
use crate::disk::Job;
use crate::link::Heard;
use crate::reports::Report;

impl EventLoop {
    pub(super) fn report(&mut self, report: Report) {
        let Some(message) = self.messages.get(&report.id) else { return };
        let file = Arc::clone(&message.file);
        if let Err((report, error)) = self.reports.ask(report, &file) {
            log::warning!("{}: ask the bounce service: {error}", report.id);
            self.report_failed(&report);
        }
    }

    pub(super) fn take_reports(&mut self, link: u64, heard: Heard<Reply>) {
        match heard {
            Heard::Replies(replies) => {
                for reply in replies {
                    let Some(report) = self.reports.answered(&reply) else { continue };
                    match reply.result {
                        Ok(()) => self.reported(&report),
                        Err(reason) => {
                            log::warning!("{}: bounce service: {reason}", report.id);
                            self.report_failed(&report);
                        }
                    }
                }
            }
            Heard::Closed(error) => {
                if let Some(error) = error {
                    log::warning!("connection to the bounce service: {error}");
                }
                for report in self.reports.closed(link) {
                    log::warning!("{}: the bounce service went away before it answered", report.id);
                    self.report_failed(&report);
                }
            }
        }
    }

    /// The report is in the queue: it is not owed any more.
    fn reported(&mut self, report: &Report) {
        let id = report.id;
        match report.kind {
            Kind::Failure | Kind::Success => {
                let owed =
                    self.messages.get(&id).map(|message| message.unreported_successes()).unwrap_or_default();
                for index in &report.recipients {
                    // Of an alias whose members failed it is still to be told that it was expanded.
                    let is_owed = owed.contains(index);
                    let state = Some(if is_owed { RecipientState::Delivered } else { RecipientState::Done });
                    self.disk.ask(Job::Record { id, index: *index, state, attempt: None });
                }
            }
            Kind::Delay => {
                self.disk.ask(Job::NoteDelay { id });
                if let Some(message) = self.messages.get_mut(&id) {
                    message.note_delay_reported();
                }
            }
            Kind::Trace => {}
        }
        self.go_on(id, true);
    }

    /// The report is tried again with the message's next attempt. An account of a delivery that is over is not: there
    /// is no attempt that would bring it forth again.
    fn report_failed(&mut self, report: &Report) {
        let Some(message) = self.messages.get(&report.id) else { return };
        if report.kind == Kind::Trace && !message.trace.is_probe() {
            return self.go_on(report.id, true);
        }
        let now = SystemTime::now();
        let wait = self.settings.times.backoff_after(age(message, now), report.id);
        self.defer(report.id, now + wait);
    }
}
