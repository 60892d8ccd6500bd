//! What a round of mail over the network needs: a host to send from, one to send to, name servers, and certificates.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use scenarios::{Authority, Builder, Host, Instance, Network, Smtp};

use super::round::next_mark;

/// The mailbox there.
pub(super) const MAILBOX: &str = "far";

/// Everything but the mail system that is tried.
pub(super) struct Abroad {
    client: Host,
    /// Where that listens.
    door: SocketAddr,
    pub(super) server: Instance,
    _certificates: Authority,
    _network: Network,
}

impl Abroad {
    /// This, and the mail system, which is not started yet.
    pub(super) fn new() -> (Self, Builder) {
        let certificates = Authority::new();
        certificates.issue("chain", &["mx.example.net"]);
        let mut network = Network::new();
        let [here, mx, client] =
            ["here.example.com", "mx.example.net", "client.example.org"].map(|name| network.host(name));
        network.zone("example.com", "");
        // Every round has domains that nobody has asked for.
        network.zone("example.net", "*.far MX 10 mx");
        network.zone("example.org", "*.from A 192.0.2.77");
        network.zone("blocked.example", "");
        let chain = certificates.path("chain.chain").display().to_string();
        let tls = format!("smtpd_tls_security_level = may\nsmtpd_tls_chain_files = {chain}");
        let server = with_mailboxes(Builder::new().on(&mx), "static:all", MAILBOX).main(&tls).start();
        let builder = with_mailboxes(Builder::new().on(&here), "box.example.com", "ann")
            .main(&tls)
            .main("mynetworks = 192.0.2.0/24\nsmtp_tls_security_level = encrypt")
            .main("smtp_connection_cache_on_demand = no\ninet_protocols = ipv4")
            .main("smtpd_recipient_restrictions = reject_rhsbl_sender blocked.example, permit_mynetworks, reject")
            .main("minimal_backoff_time = 1s\nqueue_run_delay = 1s\ntransport_retry_time = 1s")
            .master("smtp unix - - n - - smtp");
        let door = SocketAddr::new(here.ip, 25);
        (Self { client, door, server, _certificates: certificates, _network: network }, builder)
    }

    /// A sender in a domain of its own, and a recipient in another.
    pub(super) fn addresses() -> (String, String) {
        let mark = next_mark();
        (format!("jane@{mark}.from.example.org"), format!("joe@{mark}.far.example.net"))
    }

    /// A connection in clear.
    pub(super) fn knock(&self) -> Option<Smtp> {
        self.client.connect(self.door).ok().map(Smtp::over)
    }

    /// One with TLS, over which nothing was said yet.
    pub(super) fn knock_securely(&self) -> Option<Smtp> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let own = TcpStream::connect(listener.local_addr().ok()?).ok()?;
        let end = OwnedFd::from(listener.accept().ok()?.0);
        let mut command = self.client.command("openssl");
        command.args(["s_client", "-quiet", "-nocommands", "-no_ign_eof", "-starttls", "smtp"]);
        command.args(["-connect", &self.door.to_string()]);
        command.stdin(Stdio::from(end.try_clone().ok()?)).stdout(Stdio::from(end)).stderr(Stdio::null());
        let mut openssl = command.spawn().ok()?;
        drop(command);
        // It ends with the connection, at either end.
        std::thread::spawn(move || openssl.wait());
        Some(Smtp::over(own))
    }
}

/// Has all mail to these domains in one mailbox.
fn with_mailboxes(builder: Builder, domains: &str, mailbox: &str) -> Builder {
    builder
        .main(&format!("virtual_mailbox_domains = {domains}\nvirtual_mailbox_maps = static:{mailbox}/"))
        .main("virtual_mailbox_base = $root/mail\nvirtual_minimum_uid = 1")
        .main("virtual_uid_maps = static:65534\nvirtual_gid_maps = static:65534")
}
