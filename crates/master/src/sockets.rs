//! Listening sockets: opened once, kept across reloads, inherited by the programs.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use config::{Config, ServiceEntry, ServiceKind, param};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, listen, setsockopt, socket,
    sockopt,
};
use nix::sys::stat::{Mode, fchmod, umask};

/// How many clients may wait for a session; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The program that has another socket, for all users of the machine.
const TAKES_SUBMISSIONS: &str = "pickup";

/// What a socket listens at: the key by which one generation finds the sockets of the one before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// The open listening sockets.
#[derive(Default)]
pub(crate) struct Sockets(HashMap<Endpoint, OwnedFd>);

impl Sockets {
    /// Opens what is not open yet. On an error nothing has changed but for sockets that were added.
    pub(crate) fn open(&mut self, endpoints: &[Endpoint]) -> io::Result<()> {
        for endpoint in endpoints {
            if !self.0.contains_key(endpoint) {
                self.0.insert(endpoint.clone(), endpoint.listen()?);
            }
        }
        Ok(())
    }

    /// Closes all but these.
    pub(crate) fn keep(&mut self, wanted: &[Endpoint]) {
        self.0.retain(|endpoint, _| wanted.contains(endpoint));
    }

    pub(crate) fn get(&self, endpoint: &Endpoint) -> Option<&OwnedFd> {
        self.0.get(endpoint)
    }
}

impl Endpoint {
    fn listen(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Inet(address) => listen_inet(*address).map_err(|e| {
                let hint = match e.kind() {
                    io::ErrorKind::AddrInUse => " (does another mail system run here?)",
                    io::ErrorKind::PermissionDenied => " (ports below 1024 are root's)",
                    io::ErrorKind::AddrNotAvailable => {
                        " (no interface has it; inet_interfaces and column 1 of master.cf name addresses of this host)"
                    }
                    _ => "",
                };
                io::Error::new(e.kind(), format!("bind {address}: {e}{hint}"))
            }),
            Self::Unix(path) => listen_unix(path)
                .map_err(|e| io::Error::new(e.kind(), format!("bind {}: {e}", path.display()))),
        }
    }
}

fn listen_inet(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own, and `inet_protocols` decides about each.
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    // Inherited by the sessions: a reply is one write and must not wait for an acknowledgement.
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

/// Binds under another name first, so that there is never a moment without a socket at the name that clients use.
fn listen_unix(path: &Path) -> io::Result<OwnedFd> {
    let fresh = path.with_extension("new");
    remove_stale(&fresh)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // Who may reach the socket is decided by the folder: private/ is the mail system's, public/ postdrop's as well, submit/
    // everybody's. The file gets the mode of the socket that is bound: to change it by name would follow a link that
    // somebody with the rights of mail_owner, whose folders they are, puts there a moment before.
    fchmod(&socket, Mode::from_bits_truncate(0o666))?;
    let address = UnixAddr::new(&fresh)?;
    let mask = umask(Mode::empty());
    let bound = bind(socket.as_raw_fd(), &address);
    umask(mask);
    bound?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    fs::rename(&fresh, path)?;
    Ok(socket)
}

/// Removes a socket at which nobody listens any more, if there is one.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(e.kind(), format!("remove {}: {e}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Where a service of master.cf listens.
pub(crate) fn endpoints_of(entry: &ServiceEntry, config: &Config) -> io::Result<Vec<Endpoint>> {
    match entry.kind {
        ServiceKind::Inet => inet_endpoints(entry, config),
        _ => {
            let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
            let mut paths = vec![ipc::socket_path(&queue_directory, entry.private, &entry.name)];
            if entry.command == TAKES_SUBMISSIONS {
                let path = ipc::submission_socket_path(&queue_directory, &entry.name);
                // An older version has made no folder for it: local mail goes through maildrop/ then.
                match path.parent().map(fs::metadata) {
                    Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => {
                        return Err(io::Error::new(
                            e.kind(),
                            format!("look at the folder of {}: {e}", path.display()),
                        ));
                    }
                    Some(Ok(folder)) if folder.is_dir() => paths.push(path),
                    _ => {}
                }
            }
            Ok(paths.into_iter().map(Endpoint::Unix).collect())
        }
    }
}

fn inet_endpoints(entry: &ServiceEntry, config: &Config) -> io::Result<Vec<Endpoint>> {
    let name = entry.name.as_str();
    let (host, port) =
        entry.host_and_port().ok_or_else(|| io::Error::other(format!("service {name}: no such port")))?;
    let protocols = config.get(param::INET_PROTOCOLS);
    let wanted = |ip: &IpAddr| {
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        protocols.iter().any(|p| p == "all" || p == family)
    };
    let interfaces = match host {
        None => config.get(param::INET_INTERFACES),
        Some(host) => vec![host.to_owned()],
    };
    let mut addresses = Vec::new();
    for interface in &interfaces {
        for ip in interface_addresses(interface, name)?.into_iter().filter(wanted) {
            let endpoint = Endpoint::Inet(SocketAddr::new(ip, port));
            if !addresses.contains(&endpoint) {
                addresses.push(endpoint);
            }
        }
    }
    Ok(addresses)
}

/// An item of `inet_interfaces`: `all`, `loopback-only`, an address or a host name.
fn interface_addresses(interface: &str, service: &str) -> io::Result<Vec<IpAddr>> {
    match interface {
        "all" => Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]),
        "loopback-only" => Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        host => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let failed = |e: io::Error| {
                let (cause, remedy) = (config::resolver_cause(&e), "write an address of this host");
                io::Error::new(
                    e.kind(),
                    format!("service {service}: host {host} not found: {cause}; {remedy}"),
                )
            };
            Ok((host, 0).to_socket_addrs().map_err(failed)?.map(|address| address.ip()).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// The folders of sockets are `mail_owner`'s, who is not to have root change the mode of a file that is not his.
    #[test]
    fn a_link_in_the_place_of_a_socket_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("cleanup"), folder.path().join("victim"));
        fs::write(&victim, "secret").unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        let (planted, link) = (path.with_extension("new"), folder.path().join("link"));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = std::os::unix::fs::symlink(&victim, &link);
                    let _ = fs::rename(&link, &planted);
                }
            });
            // Somebody else is at work in the folder: it may fail, and harms nobody.
            (0..2000).for_each(|_| drop(listen_unix(&path)));
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::metadata(&victim).unwrap().permissions().mode() & 0o777, 0o600);
        let _ = fs::remove_file(&planted);
        let _socket = listen_unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    }

    #[test]
    fn a_unix_socket_takes_the_place_of_a_stale_one() {
        let folder = std::env::temp_dir().join(format!("master-sockets-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("cleanup");
        fs::write(&path, "stale").unwrap();
        let _socket = Endpoint::Unix(path.clone()).listen().unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
