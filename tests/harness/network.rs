//! Hosts with a network between them, and names in a DNS of their own.
//!
//! Each host is a network namespace of Linux; all are connected by a bridge in one more, so that nothing of it is seen
//! outside and every network may use the same addresses: the first host is 192.0.2.10 and 2001:db8::10. Programs in a
//! host see an own /etc/resolv.conf and /etc/hosts. Everything ends with the value, and what a killed test has left
//! behind ends with the next network that is made. It needs root.
//!
//! ```no_run
//! # use scenarios::{Builder, Network};
//! let mut network = Network::new();
//! let mx = network.host("mx1.example.com");
//! network.zone("example.com", "@ MX 10 mx1");
//! let site = Builder::new().on(&mx).start();
//! let client = network.host("client.example.org");
//! let mut smtp = client.smtp(mx.ip);
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dns::{NameServers, Signed};
use crate::{Smtp, peer};

/// Where `ip netns` keeps its name spaces, and the files of /etc that programs in them see.
const NAMESPACES: &str = "/run/netns";
const ETC: &str = "/etc/netns";

/// What all names of name spaces of ours begin with.
const PREFIX: &str = "postroad-test-";

/// The last number of the first host's addresses.
const FIRST: u8 = 10;

/// Hosts that are connected.
pub struct Network {
    prefix: String,
    switch: String,
    hosts: Vec<Host>,
    servers: NameServers,
}

/// A host. A clone is the same host; it lives as long as its network.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name; the DNS knows it with both addresses, and they lead back to it.
    pub name: String,
    /// Its IPv4 address.
    pub ip: IpAddr,
    /// Its IPv6 address.
    pub ipv6: IpAddr,
    namespace: String,
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Network {
    /// A network with name servers and no hosts yet.
    ///
    /// # Panics
    /// When it cannot be made; only root can.
    #[must_use]
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}", std::process::id());
        let switch = format!("{prefix}-switch");
        add_namespace(&switch);
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", "bridge", "up"]);
        let mut network = Self { servers: NameServers::new(), prefix, switch, hosts: Vec::new() };
        let dns = network.connect("dns", crate::dns::ADDRESS_NUMBER);
        network.servers.live_in(dns);
        network.servers.serve();
        network
    }

    /// A new host. The zone of its name, where there is one, gets to know it.
    ///
    /// # Panics
    /// When it cannot be made, or the network is full.
    pub fn host(&mut self, name: &str) -> Host {
        let number = u8::try_from(self.hosts.len()).ok().and_then(|count| count.checked_add(FIRST));
        let host = self.connect(name, number.filter(|number| *number < 50).expect("few hosts"));
        self.hosts.push(host.clone());
        self.servers.add_host(&host);
        self.servers.serve();
        host
    }

    /// A zone, as lines of a zone file whose origin is its name; `@ MX 10 mx1`. Its hosts are in it as soon as they are made,
    /// unless the lines begin with their names.
    ///
    /// # Panics
    /// When the name server does not take it.
    pub fn zone(&mut self, name: &str, records: &str) {
        self.servers.add_zone(name, records, Signed::No);
        self.servers.serve();
    }

    /// A signed zone that the resolver validates: what is in it is secure.
    ///
    /// # Panics
    /// As [`Network::zone`].
    pub fn signed_zone(&mut self, name: &str, records: &str) {
        self.servers.add_zone(name, records, Signed::Yes);
        self.servers.serve();
    }

    /// A zone whose signatures are another key's: the resolver fails for all that is in it.
    ///
    /// # Panics
    /// As [`Network::zone`].
    pub fn bogus_zone(&mut self, name: &str, records: &str) {
        self.servers.add_zone(name, records, Signed::Badly);
        self.servers.serve();
    }

    /// Ends the name servers: every question goes unanswered until the next zone or host.
    pub fn stop_dns(&mut self) {
        self.servers.stop();
    }

    /// A name space with one interface, on the bridge.
    fn connect(&self, name: &str, number: u8) -> Host {
        let namespace = format!("{}-{}", self.prefix, name.replace('.', "-"));
        add_namespace(&namespace);
        // Names of interfaces are short: at most 15 characters.
        let port = format!("port{number}");
        let peer = ["peer", "name", "eth0", "netns", &namespace];
        ip(&[&["-n", &self.switch, "link", "add", &port, "type", "veth"][..], &peer[..]].concat());
        ip(&["-n", &self.switch, "link", "set", &port, "master", "bridge", "up"]);
        let host = Host {
            name: name.to_owned(),
            ip: Ipv4Addr::new(192, 0, 2, number).into(),
            // 10 is 2001:db8::10, not ::a.
            ipv6: format!("2001:db8::{number}").parse::<Ipv6Addr>().expect("an address").into(),
            namespace,
        };
        host.add_address(host.ip);
        host.add_address(host.ipv6);
        ip(&["-n", &host.namespace, "link", "set", "lo", "up"]);
        ip(&["-n", &host.namespace, "link", "set", "eth0", "up"]);
        host.write_etc("resolv.conf", &crate::dns::resolv_conf());
        host.write_etc("hosts", "127.0.0.1 localhost\n::1 localhost\n");
        host
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.servers.stop();
        for namespace in names_of_ours()
            .into_iter()
            .filter(|name| name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('-')))
        {
            remove_namespace(&namespace);
        }
    }
}

impl Host {
    /// A command that runs in this host, as root.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = peer("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Starts a program in this host; it is ended when the value is dropped.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, program: &str, arguments: &[&str]) -> Running {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().unwrap_or_else(|error| panic!("start {program}: {error}")))
    }

    /// Connects from this host.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub fn connect(&self, to: SocketAddr) -> std::io::Result<TcpStream> {
        self.within(move || TcpStream::connect(to))
    }

    /// Listens in this host.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn listen(&self, at: SocketAddr) -> std::io::Result<TcpListener> {
        self.within(move || TcpListener::bind(at))
    }

    /// Makes a socket in this host. It stays where it was made; only the thread that makes it moves there.
    fn within<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> std::io::Result<T> {
        let namespace = fs::File::open(Path::new(NAMESPACES).join(&self.namespace))?;
        let thread = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            make()
        });
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")))
    }

    /// An SMTP connection from this host to port 25 of another, that has read the greeting.
    ///
    /// # Panics
    /// When nobody listens or the greeting is not 220.
    #[must_use]
    pub fn smtp(&self, to: IpAddr) -> Smtp {
        let stream = self.connect(SocketAddr::new(to, 25)).expect("connect to port 25");
        let mut client = Smtp::over(stream);
        let greeting = client.read_reply();
        assert_eq!(greeting.code, 220, "{greeting:?}");
        client
    }

    /// One more address, of this network: 192.0.2.0/24 or 2001:db8::/64.
    ///
    /// # Panics
    /// When the system refuses it.
    pub fn add_address(&self, address: IpAddr) {
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        let with_prefix = format!("{address}/{prefix}");
        let mut arguments = vec!["-n", &self.namespace, "address", "add", &with_prefix, "dev", "eth0"];
        // It is known that nobody else has it; the wait for a conflict would only hold up the test.
        if address.is_ipv6() {
            arguments.push("nodad");
        }
        ip(&arguments);
    }

    /// Takes the host off the network, or puts it back: packets to it are lost meanwhile.
    ///
    /// # Panics
    /// When the system refuses it.
    pub fn set_connected(&self, connected: bool) {
        ip(&["-n", &self.namespace, "link", "set", "eth0", if connected { "up" } else { "down" }]);
    }

    /// Writes a file that programs in this host see in /etc; the file must exist outside as well. Programs that are already
    /// running see the new content too.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_etc(&self, name: &str, content: &str) {
        let folder = self.etc();
        fs::create_dir_all(&folder).expect("make the folder of a host");
        fs::write(folder.join(name), content).expect("write a file of a host");
    }

    fn etc(&self) -> PathBuf {
        Path::new(ETC).join(&self.namespace)
    }
}

/// A program in a host; it ends with the value.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap_or(0)), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn ip(arguments: &[&str]) {
    let output = peer("ip").args(arguments).output().expect("run ip");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn add_namespace(name: &str) {
    ip(&["netns", "add", name]);
}

/// The names of all name spaces that tests have made.
fn names_of_ours() -> Vec<String> {
    let entries =
        fs::read_dir(NAMESPACES).into_iter().flatten().chain(fs::read_dir(ETC).into_iter().flatten());
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(PREFIX)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Removes what tests have left behind that do not run any more.
fn remove_stale() {
    for name in names_of_ours() {
        let pid = name[PREFIX.len()..].split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            remove_namespace(&name);
        }
    }
}

/// Ends the programs in a name space, and removes it. Nothing fails: it may be half there.
fn remove_namespace(name: &str) {
    let pids = peer("ip").args(["netns", "pids", name]).output();
    let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = fs::remove_dir_all(Path::new(ETC).join(name));
    let _ = peer("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
}
