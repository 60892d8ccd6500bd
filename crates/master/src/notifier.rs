//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, and that the loop still turns.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use ipc::log;

/// The way to the service manager; it leads nowhere where there is none.
pub(crate) struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
}

/// The service manager ends a master that has not spoken for a while: twice in that time it speaks.
struct Watchdog {
    interval: Duration,
    next: Instant,
}

impl Notifier {
    /// By the environment that the service manager gave us.
    pub(crate) fn from_environment() -> Self {
        let socket = match connect() {
            Ok(socket) => socket,
            Err(error) => {
                log::warning!("NOTIFY_SOCKET: {error}; the service manager is not told how it goes");
                None
            }
        };
        let watchdog = socket.as_ref().and_then(|_| watchdog_interval());
        let watchdog = watchdog.map(|interval| Watchdog { interval, next: Instant::now() });
        Self { socket, watchdog }
    }

    /// Whether a service manager listens. It also keeps the log then, so that standard error would say all twice.
    pub(crate) fn is_expected() -> bool {
        std::env::var_os("NOTIFY_SOCKET").is_some()
    }

    /// The mail system serves.
    pub(crate) fn ready(&self) {
        self.say("READY=1\nSTATUS=serving");
    }

    /// A reload begins; [`Self::ready`] ends it.
    pub(crate) fn reloading(&self) {
        // The time is asked for by Type=notify-reload.
        let clock = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let now = clock.map(Duration::from).unwrap_or_default().as_micros();
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading"));
    }

    /// A stop begins.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=finishing sessions and deliveries");
    }

    /// Called each time round the loop.
    pub(crate) fn alive(&mut self) {
        let now = Instant::now();
        let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.next <= now) else { return };
        watchdog.next = now + watchdog.interval;
        self.say("WATCHDOG=1");
    }

    /// When [`Self::alive`] wants to be called again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.next)
    }

    fn say(&self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            log::warning!("tell the service manager {text:?}: {error}");
        }
    }
}

/// A path, or after an `@` a name in the abstract namespace.
fn connect() -> io::Result<Option<UnixDatagram>> {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        path if path.starts_with(b"/") => SocketAddr::from_pathname(&name)?,
        _ => return Err(io::Error::other(format!("{} is not a local socket", name.display()))),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(Some(socket))
}

/// Half of `WATCHDOG_USEC`, where it is meant for this process.
fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    let whole = number("WATCHDOG_USEC").filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(whole) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_of_the_way_of_the_mail_system() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(&path).unwrap();
        let watchdog = Watchdog { interval: Duration::from_secs(3600), next: Instant::now() };
        let mut notifier = Notifier { socket: Some(socket), watchdog: Some(watchdog) };
        notifier.ready();
        notifier.alive();
        // Its time has not come.
        notifier.alive();
        notifier.stopping();
        let mut heard = Vec::new();
        manager.set_nonblocking(true).unwrap();
        let mut buffer = [0; 200];
        while let Ok(count) = manager.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
        assert_eq!(
            heard,
            ["READY=1\nSTATUS=serving", "WATCHDOG=1", "STOPPING=1\nSTATUS=finishing sessions and deliveries"]
        );
        assert!(notifier.deadline().is_some_and(|time| time > Instant::now()));
    }
}
