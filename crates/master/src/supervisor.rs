//! The loop: clients who wait, children who speak or end, signals, operators, time.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use config::{Diagnostic, Presence, ServiceEntry, ServiceKind, Severity};
use ipc::control::{ToChild, ToMaster};
use ipc::log;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::child::{Child, PATIENCE};
use crate::notifier::Notifier;
use crate::operator::Operator;
use crate::service::Service;
use crate::sockets::{Endpoint, Sockets, endpoints_of};
use crate::startup::{self, Generation, Options};

/// The program whose configuration is replaced while it runs: a second queue manager beside it would own the same mail.
const QUEUE_MANAGER: &str = "qmgr";

/// Programs that take a reload without a restart: what they have in memory is of the mail system, not of a configuration.
const KEEPS_STATE: [&str; 3] = [QUEUE_MANAGER, "anvil", "verify"];

/// How long a stop waits for sessions and deliveries before it ends them. Nothing is lost by that: what was not
/// acknowledged is the client's, what was is in the queue.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What it means that a daemon is ended by SIGSYS.
const FORBIDDEN_CALL: &str = "its sandbox forbids a system call that it made, which no program of ours makes; the kernel's log has the number";

pub(crate) struct Supervisor {
    options: Options,
    generation: Generation,
    services: Vec<Service>,
    /// Programs of services that a reload has taken out of master.cf, until they have drained.
    retired: Vec<Service>,
    sockets: Sockets,
    operator: Operator,
    signals: SignalFd,
    notifier: Notifier,
    log_file: Option<File>,
    started: Instant,
    stopping: Option<Stopping>,
    /// Held, locked, as long as this instance runs.
    _lock: File,
}

/// How far a stop has come. The order lets each finish with the help of those behind it: who takes mail in, then the
/// queue manager, then agents and cleanup.
struct Stopping {
    deadline: Instant,
    stage: u8,
}

/// What made the loop wake up.
enum Source {
    Signal,
    Operator,
    Client(usize),
    /// By its process: what is done for one source may take children off the lists before the next is attended to.
    Child(Pid),
}

/// Why a reload changes nothing.
enum Refusal {
    Configuration(Vec<Diagnostic>),
    System(io::Error),
}

impl Supervisor {
    pub(crate) fn new(
        options: Options,
        generation: Generation,
        lock: File,
        log_file: Option<File>,
        signals: SignalFd,
    ) -> io::Result<Self> {
        let mut sockets = Sockets::default();
        let services = services_of(&generation)?;
        sockets.open(&endpoints(&services))?;
        let operator = Operator::listen(&generation.config)?;
        Ok(Self {
            options,
            generation,
            services,
            retired: Vec::new(),
            sockets,
            operator,
            signals,
            notifier: Notifier::from_environment(),
            log_file,
            started: Instant::now(),
            stopping: None,
            _lock: lock,
        })
    }

    pub(crate) fn run(mut self) -> io::Result<()> {
        let version = env!("CARGO_PKG_VERSION");
        log::info!("daemon started -- version {version}, configuration {}", self.options.directory.display());
        sys::sandbox::lacking().iter().for_each(|part| log::warning!("sandbox: this kernel lacks {part}"));
        self.start_wanted();
        startup::report_success();
        self.notifier.ready();
        sys::memory::settle();
        while !self.stopped() {
            self.notifier.alive();
            for source in self.wait()? {
                self.attend(&source);
            }
            self.start_wanted();
        }
        log::info!("daemon stopped");
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![(Source::Signal, self.signals.as_fd())];
        sources.push((Source::Operator, self.operator.as_fd()));
        for (n, service) in self.services.iter().enumerate() {
            if self.stopping.is_none() && service.waits_for_client(Instant::now()) {
                let listening = service.endpoints.iter().filter_map(|endpoint| self.sockets.get(endpoint));
                sources.extend(listening.map(|socket| (Source::Client(n), socket.as_fd())));
            }
        }
        let children = self.services.iter().chain(&self.retired).flat_map(|service| &service.children);
        let children = children.filter(|child| child.speaks);
        sources.extend(children.map(|child| (Source::Child(child.pid), child.control().as_fd())));
        let mut wanted: Vec<PollFd<'_>> =
            sources.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut wanted, self.patience()) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = wanted.iter().map(|fd| fd.revents().is_some_and(|r| !r.is_empty())).collect();
        Ok(sources
            .into_iter()
            .zip(ready)
            .filter(|(_, ready)| *ready)
            .map(|((source, _), _)| source)
            .collect())
    }

    /// How long the loop may sleep.
    fn patience(&self) -> PollTimeout {
        let deadlines = self.services.iter().filter_map(Service::deadline);
        let next =
            deadlines.chain(self.stopping.iter().map(|s| s.deadline)).chain(self.notifier.deadline()).min();
        let Some(next) = next else { return PollTimeout::NONE };
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn attend(&mut self, source: &Source) {
        match *source {
            Source::Signal => self.take_signals(),
            Source::Operator => {
                if let Some((request, connection)) = self.operator.accept() {
                    let answer = self.obey(request);
                    connection.answer(&answer);
                }
            }
            Source::Client(n) => self.start(n),
            Source::Child(pid) => self.hear(pid),
        }
    }

    fn hear(&mut self, pid: Pid) {
        let services = self.services.iter_mut().chain(&mut self.retired);
        let child = services.flat_map(|service| &mut service.children).find(|child| child.pid == pid);
        // A child that closed its end is about to be reaped; one that says anything else than "ready" was asked.
        if let Some(child) = child {
            child.ready |= child.hear();
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGCHLD) => self.reap(),
                Some(Signal::SIGHUP) => drop(self.reload()),
                Some(Signal::SIGTERM | Signal::SIGINT) => self.stop(),
                _ => {}
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let (pid, how, failed) = match status {
                WaitStatus::Exited(pid, code) => (pid, format!("exited with status {code}"), code != 0),
                WaitStatus::Signaled(pid, Signal::SIGSYS, _) => {
                    (pid, format!("was ended by signal SIGSYS: {FORBIDDEN_CALL}"), true)
                }
                WaitStatus::Signaled(pid, signal, _) => (pid, format!("was ended by signal {signal}"), true),
                WaitStatus::StillAlive => return,
                _ => continue,
            };
            let now = Instant::now();
            let mut services = self.services.iter_mut().chain(&mut self.retired);
            if !services.any(|service| service.ended(pid, &how, failed, now)) {
                log::info!("process {pid} {how}");
            }
            self.retired.retain(|service| !service.children.is_empty());
        }
        self.advance_stop();
    }

    /// Starts the programs that run without being asked for.
    fn start_wanted(&mut self) {
        self.advance_stop();
        let now = Instant::now();
        self.services.iter_mut().for_each(|service| service.end_wait(now));
        if self.stopping.is_none() {
            let wanted: Vec<usize> =
                (0..self.services.len()).filter(|n| self.services[*n].starts_by_itself(now)).collect();
            wanted.into_iter().for_each(|n| self.start(n));
        }
    }

    fn start(&mut self, n: usize) {
        let service = &mut self.services[n];
        if service.current().is_some() {
            return;
        }
        let listeners: Vec<_> =
            service.endpoints.iter().filter_map(|endpoint| self.sockets.get(endpoint)).collect();
        let foreground = self.options.foreground;
        match Child::start(&service.entry, &self.generation, &listeners, self.log_file.as_ref(), foreground) {
            Ok(child) => service.children.push(child),
            Err(error) => service.failed_to_start(&error, Instant::now()),
        }
    }

    /// Goes over to the configuration as the files have it now, or keeps the running one and says why.
    pub(crate) fn reload(&mut self) -> Result<Vec<String>, Vec<String>> {
        self.notifier.reloading();
        let outcome = self.try_reload();
        self.notifier.ready();
        match outcome {
            Ok(problems) => {
                log::info!("reload -- version {}", env!("CARGO_PKG_VERSION"));
                // As `postroad check` and the start have it: what is merely worth knowing is for the log.
                let told = problems.iter().filter(|problem| problem.severity > Severity::Note);
                Ok(told.map(Diagnostic::told).collect())
            }
            Err(refusal) => {
                let told = match refusal {
                    Refusal::Configuration(problems) => {
                        problems.iter().for_each(startup::log_diagnostic);
                        problems.iter().map(Diagnostic::told).collect()
                    }
                    Refusal::System(error) => {
                        log::error!("{error}");
                        vec![format!("{}: {error}", Severity::Error)]
                    }
                };
                log::error!("reload: the configuration has errors; the running configuration is kept");
                Err(told)
            }
        }
    }

    fn try_reload(&mut self) -> Result<Vec<Diagnostic>, Refusal> {
        let read = startup::read_generation(&self.options.directory);
        let (generation, problems) = read.map_err(Refusal::Configuration)?;
        let services = services_of(&generation).map_err(Refusal::System)?;
        let wanted = endpoints(&services);
        self.sockets.open(&wanted).map_err(Refusal::System)?;
        problems.iter().for_each(startup::log_diagnostic);
        self.sockets.keep(&wanted);
        self.generation = generation;
        self.replace_services(services);
        Ok(problems)
    }

    /// Hands each service of the new generation the programs of its predecessor, which drain.
    fn replace_services(&mut self, services: Vec<Service>) {
        let mut old = std::mem::replace(&mut self.services, services);
        for service in &mut old {
            for child in &mut service.children {
                if KEEPS_STATE.contains(&service.entry.command.as_str()) {
                    child.say(&ToChild::Reload(self.generation.snapshot.clone()), None);
                } else if !child.draining {
                    child.drain(&ToChild::Drain);
                }
            }
            let heir = self.services.iter_mut().find(|new| same_service(&new.entry, &service.entry));
            let home = heir.map(|new| &mut new.children);
            if let Some(home) = home {
                home.append(&mut service.children);
            }
        }
        for service in &mut old {
            // A queue manager that no line of master.cf names any more must end, too.
            service
                .children
                .iter_mut()
                .filter(|child| !child.draining)
                .for_each(|child| child.drain(&ToChild::Drain));
        }
        self.retired.extend(old.into_iter().filter(|service| !service.children.is_empty()));
    }

    /// Begins to stop: see [`Stopping`].
    pub(crate) fn stop(&mut self) {
        if self.stopping.is_none() {
            log::info!("stopping the mail system");
            self.notifier.stopping();
            self.stopping = Some(Stopping { deadline: Instant::now() + STOP_PATIENCE, stage: 0 });
            self.advance_stop();
        }
    }

    /// Ends everything at once.
    pub(crate) fn abort(&mut self) {
        log::info!("aborting the mail system");
        self.stopping = Some(Stopping { deadline: Instant::now(), stage: 3 });
        self.advance_stop();
    }

    fn advance_stop(&mut self) {
        let Some(stopping) = &mut self.stopping else { return };
        let mut services: Vec<&mut Service> = self.services.iter_mut().chain(&mut self.retired).collect();
        if stopping.deadline <= Instant::now() {
            services.iter().flat_map(|s| &s.children).for_each(Child::kill);
            stopping.deadline = Instant::now() + STOP_PATIENCE;
        }
        while stopping.stage < 3
            && services.iter().all(|s| s.children.is_empty() || stage_of(&s.entry) >= stopping.stage)
        {
            stopping.stage += 1;
            let due = services.iter_mut().filter(|s| stage_of(&s.entry) < stopping.stage);
            due.flat_map(|s| &mut s.children).for_each(|child| child.drain(&ToChild::Stop));
        }
    }

    fn stopped(&self) -> bool {
        self.stopping.is_some()
            && self.services.iter().chain(&self.retired).all(|service| service.children.is_empty())
    }

    /// Lines for `postroad status`.
    pub(crate) fn status(&mut self) -> Vec<String> {
        let pid = std::process::id();
        let mut lines = vec![format!("master pid {pid}, running for {} s", self.started.elapsed().as_secs())];
        lines.extend(sys::sandbox::lacking().iter().map(|part| format!("sandbox: this kernel lacks {part}")));
        let services = self.services.iter().chain(&self.retired);
        services.flat_map(|service| &service.children).for_each(|child| child.say(&ToChild::Ask, None));
        let deadline = Instant::now() + PATIENCE;
        for service in self.services.iter_mut().chain(&mut self.retired) {
            let (name, command) = (service.entry.name.clone(), service.entry.command.clone());
            if let Some(wait) = service.wait_before_start(Instant::now()) {
                lines.push(format!(
                    "{name}: {command} failed, see the log; next start in {} ms",
                    wait.as_millis()
                ));
            }
            for child in &mut service.children {
                let (pid, seconds) = (child.pid, child.started.elapsed().as_secs());
                let state = if child.draining { ", draining" } else { "" };
                let (busy, text) = match child.status_by(deadline) {
                    Some(ToMaster::Status { busy, text }) => (busy.to_string(), text),
                    _ => ("?".into(), String::new()),
                };
                let text = if text.is_empty() { text } else { format!(", {text}") };
                lines.push(format!("{name}: {command} pid {pid}, {seconds} s, busy {busy}{state}{text}"));
            }
        }
        lines
    }

    /// Opens `maillog_file` anew and hands it to all programs.
    pub(crate) fn reopen_log(&mut self) -> io::Result<()> {
        self.log_file = startup::open_log(&self.generation.config)?;
        let Some(file) = &self.log_file else { return Ok(()) };
        log::replace_file(startup::copy_of_log(file)?);
        let services = self.services.iter().chain(&self.retired);
        services.flat_map(|s| &s.children).for_each(|child| child.say(&ToChild::Log, Some(file)));
        Ok(())
    }
}

/// When a service stops: 0 who takes mail in, 1 the queue manager, 2 the rest.
fn stage_of(entry: &ServiceEntry) -> u8 {
    match entry.command.as_str() {
        QUEUE_MANAGER => 1,
        "pickup" => 0,
        _ if entry.kind == ServiceKind::Inet => 0,
        _ => 2,
    }
}

fn endpoints(services: &[Service]) -> Vec<Endpoint> {
    services.iter().flat_map(|service| service.endpoints.clone()).collect()
}

fn same_service(a: &ServiceEntry, b: &ServiceEntry) -> bool {
    a.name == b.name && a.kind == b.kind
}

/// The services of master.cf that are programs here; the rest (`rewrite`, `proxymap` …) are part of other programs.
fn services_of(generation: &Generation) -> io::Result<Vec<Service>> {
    let entries = generation.config.services().iter().filter(|entry| entry.presence == Presence::Program);
    entries.map(|entry| Ok(Service::new(entry.clone(), endpoints_of(entry, &generation.config)?))).collect()
}
