//! pipe(8): delivery to a program that master.cf names, for all recipients of a delivery at once.
//!
//! Contract: the program runs as the user of `user=`, who is neither root nor the mail system's own, and never through a
//! shell; `command` bounds what it may do. Its end is the outcome of every recipient of the delivery.

mod arguments;
mod attributes;
mod content;
#[doc(hidden)]
pub mod fuzzing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Config, Diagnostic, Severity, param};
use ipc::check::Asked;
use ipc::log;
use lookup::Delimiters;
use mail::{Dsn, Outcome, Served};
use service::{Delivery, Fatal, Results, Service, SiteAgent};

use crate::command::{self, Invocation, Program};
use crate::command_user::{CommandUsers, Unusable};
use crate::failure::{Delivered, Failure, outcome};
use crate::letter::{self, Letter, Queued};
use crate::local::settings::exported;
use crate::program::Place;
use arguments::Values;
use attributes::Attributes;
use content::Content;

/// How much of what a program says is shown when all went well.
const MAX_SHOWN: usize = 100;

/// The program `pipe`.
///
/// # Errors
/// What master.cf says makes no sense, or the skeleton's.
pub fn run(service: Service) -> Result<(), Fatal> {
    let agent = PipeAgent::new(&service.config, &service.name, &service.arguments)?;
    service.serve_site_deliveries(agent)
}

/// What is wrong with a service of this program.
#[must_use]
pub fn judge(asked: &Asked) -> Vec<Diagnostic> {
    let mut found = service::judge(&asked.config);
    let file = asked.config.directory().join("master.cf");
    let mut say = |severity, text: String| {
        let text = format!("{}: {text}", asked.service);
        found.push(Diagnostic { severity, file: file.clone(), line: 0, text });
    };
    let mut warnings = Vec::new();
    match Attributes::parse(&asked.arguments, |text| warnings.push(text)) {
        Err(text) => say(Severity::Error, text),
        Ok(attributes) => {
            match CommandUsers::new(&asked.config).find(&attributes.user, attributes.group.as_deref()) {
                Err(Unusable::Forbidden(text)) => say(Severity::Error, text),
                // The services that come with a distribution name users who need not exist.
                Err(Unusable::Unknown(text)) => say(Severity::Warning, text),
                Ok(_) => {
                    let agent = PipeAgent::with(&asked.config, &asked.service, attributes);
                    warnings.extend(agent.missing_program());
                }
            }
        }
    }
    warnings.into_iter().for_each(|text| say(Severity::Warning, text));
    found
}

struct PipeAgent {
    service: String,
    attributes: Attributes,
    users: CommandUsers,
    delimiters: Delimiters,
    environment: Vec<(String, String)>,
    queue_directory: PathBuf,
    time_limit: Duration,
}

impl PipeAgent {
    fn new(config: &Config, service: &str, arguments: &[String]) -> Result<Self, Fatal> {
        let warn = |text: String| log::warning!("master.cf: service {service}: {text}");
        let attributes = Attributes::parse(arguments, warn)
            .map_err(|text| Fatal::new(format!("master.cf: service {service}: {text}")))?;
        Ok(Self::with(config, service, attributes))
    }

    fn with(config: &Config, service: &str, attributes: Attributes) -> Self {
        Self {
            service: service.to_owned(),
            attributes,
            users: CommandUsers::new(config),
            delimiters: Delimiters::new(
                &config.get(param::RECIPIENT_DELIMITER),
                config.get(param::OWNER_REQUEST_SPECIAL),
                &config.get(param::DOUBLE_BOUNCE_SENDER),
            ),
            environment: exported(config),
            queue_directory: config.get(param::QUEUE_DIRECTORY),
            time_limit: config.for_transport(service, "_time_limit", param::COMMAND_TIME_LIMIT),
        }
    }

    /// That the program cannot be run. One that is named by the message is known with the message only.
    fn missing_program(&self) -> Option<String> {
        let program = self.attributes.command.first()?.fixed()?;
        let (chroot, directory) = self.place();
        let place = Place { chroot, directory, environment: &self.environment };
        place.trouble_with(program).map(|text| format!("{text}; until then mail for it waits"))
    }

    /// The folder that is the root of all for the program, and the one it runs in.
    fn place(&self) -> (Option<&Path>, &Path) {
        let chroot = self.attributes.chroot.as_deref().map(Path::new);
        let directory = match (&self.attributes.directory, chroot) {
            (Some(directory), _) => Path::new(directory),
            (None, Some(_)) => Path::new("/"),
            (None, None) => &self.queue_directory,
        };
        (chroot, directory)
    }

    fn attempt(&self, delivery: &Delivery) -> Delivered {
        let (request, attributes) = (&delivery.request, &self.attributes);
        self.check_single_recipient(request.recipients.len())?;
        if attributes.size_limit > 0 && request.size > attributes.size_limit {
            return Err(Failure::bounce(Dsn::new(5, 2, 3), "message too large"));
        }
        let command = self.command(delivery)?;
        if request.trace.is_probe() {
            return Ok(format!("delivers to command: {}", command.first().map_or("", String::as_str)));
        }
        let content = letter::content_of(delivery)?;
        let queued = Queued { content: &content, delivery };
        let letter =
            Letter::open(&queued).map_err(|error| Failure::from_io(&error, "read the queue file"))?;
        let Some(first) = request.recipients.first() else { return Ok(String::new()) };
        if attributes.content.delivered_to {
            let address = &first.address;
            let looped = letter.was_delivered_to(address);
            if looped.map_err(|error| Failure::from_io(&error, "read the queue file"))? {
                let text = format!("mail forwarding loop for {address}");
                return Err(Failure::bounce(Dsn::new(5, 4, 6), text));
            }
        }
        let flags = &attributes.content;
        let preamble = flags.preamble(request, &attributes.null_sender, first, &ipc::log::now());
        let said = self.execute(&command, &mut Content::new(flags, preamble, &letter))?;
        let said = match &said[..said.floor_char_boundary(MAX_SHOWN)] {
            "" => String::new(),
            said => format!(" ({said})"),
        };
        Ok(format!("delivered via {} service{said}", self.service))
    }

    /// The `D` and `O` flags speak of THE recipient.
    fn check_single_recipient(&self, recipients: usize) -> Result<(), Failure> {
        let flags = [('D', self.attributes.content.delivered_to), ('O', self.attributes.content.original_to)];
        let Some((flag, _)) = flags.into_iter().find(|(_, set)| *set).filter(|_| recipients > 1) else {
            return Ok(());
        };
        log::warning!(
            "pipe flag {flag} requires {}_destination_recipient_limit = 1 in main.cf",
            self.service
        );
        Err(Failure::defer(Dsn::new(4, 3, 5), "mail system configuration error"))
    }

    fn command(&self, delivery: &Delivery) -> Result<Vec<String>, Failure> {
        let values = Values {
            request: &delivery.request,
            recipients: &delivery.request.recipients,
            delimiters: &self.delimiters,
            attributes: &self.attributes,
        };
        values.command().map_err(|text| Failure::bounce(Dsn::new(5, 1, 3), text))
    }

    fn execute(&self, words: &[String], content: &mut Content<'_>) -> Result<String, Failure> {
        let attributes = &self.attributes;
        let (uid, gid) =
            self.users.find(&attributes.user, attributes.group.as_deref()).map_err(|reason| {
                let (Unusable::Forbidden(text) | Unusable::Unknown(text)) = reason;
                log::warning!("master.cf: service {}: {text}", self.service);
                Failure::defer(Dsn::new(4, 3, 5), "mail system configuration error")
            })?;
        let (chroot, directory) = self.place();
        let invocation = Invocation {
            program: Program::Words(words),
            chroot,
            identity: self.users.instance.identity(uid, gid)?,
            environment: &self.environment,
            directory,
            file_size_limit: 0,
            time_limit: self.time_limit,
        };
        command::run(&invocation, content)
    }
}

impl SiteAgent for PipeAgent {
    fn deliver(&self, delivery: &Delivery, results: &mut Results<'_>) -> Option<ipc::agent::SiteFailure> {
        results.set_up();
        let served = if self.attributes.final_delivery { Served::Delivered } else { Served::Relayed };
        let outcome: Outcome = outcome(&self.service, self.attempt(delivery)).counted_as(served);
        for position in 0..delivery.request.recipients.len() {
            results.give(position, outcome.clone());
        }
        None
    }

    fn probe(&self, delivery: &Delivery, results: &mut Results<'_>) -> Option<ipc::agent::SiteFailure> {
        self.deliver(delivery, results)
    }

    fn relay(&self) -> &str {
        &self.service
    }
}

#[cfg(test)]
mod tests;
