//! The name servers of a network: NSD, which has the zones, and Unbound, which hosts ask and which validates.
//!
//! Unbound remembers nothing, so that a changed zone counts at once. All that no zone has does not exist.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::network::{Host, Running};
use crate::{peer, run, scratch_folder, wait_for};

/// The last number of the addresses of the name servers' host, and of NSD's other one.
pub(crate) const ADDRESS_NUMBER: u8 = 53;
const AUTHORITY: &str = "192.0.2.54";

/// What the hosts of a network have in /etc/resolv.conf.
pub(crate) fn resolv_conf() -> String {
    format!("nameserver 192.0.2.{ADDRESS_NUMBER}\noptions timeout:10 attempts:1 edns0 trust-ad\n")
}

/// Whether a zone is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    No,
    Yes,
    /// With a key that is not the one that is trusted.
    Badly,
}

struct Zone {
    records: String,
    signed: Signed,
}

pub(crate) struct NameServers {
    folder: TempDir,
    place: Option<Host>,
    zones: BTreeMap<String, Zone>,
    hosts: Vec<Host>,
    running: Vec<Running>,
}

impl NameServers {
    pub(crate) fn new() -> Self {
        let folder = scratch_folder("dns-");
        Self { folder, place: None, zones: BTreeMap::new(), hosts: Vec::new(), running: Vec::new() }
    }

    pub(crate) fn live_in(&mut self, host: Host) {
        host.add_address(AUTHORITY.parse().expect("an address"));
        self.place = Some(host);
    }

    pub(crate) fn add_host(&mut self, host: &Host) {
        self.hosts.push(host.clone());
    }

    pub(crate) fn add_zone(&mut self, name: &str, records: &str, signed: Signed) {
        self.zones.insert(name.to_owned(), Zone { records: records.to_owned(), signed });
    }

    pub(crate) fn stop(&mut self) {
        self.running.clear();
    }

    /// Starts both again with the zones as they are.
    pub(crate) fn serve(&mut self) {
        self.stop();
        let files: Vec<(String, String)> = self
            .zone_texts()
            .into_iter()
            .map(|(name, text, signed)| {
                let file = self.write(&format!("{name}.zone"), &text);
                (name.clone(), if signed == Signed::No { file } else { self.sign(&name, &file, signed) })
            })
            .collect();
        let root = self.folder.path().display().to_string();
        let mut conf = format!(
            "server:\n ip-address: {AUTHORITY}\n username: \"\"\n chroot: \"\"\n zonesdir: \"{root}\"\n \
             pidfile: \"\"\n database: \"\"\n logfile: \"{root}/nsd.log\"\n xfrdfile: \"{root}/xfrd\"\n \
             zonelistfile: \"{root}/zones\"\n cookie-secret-file: \"\"\n server-count: 1\nremote-control:\n control-enable: no\n"
        );
        for (name, file) in &files {
            let _ = write!(conf, "zone:\n name: \"{name}\"\n zonefile: \"{file}\"\n");
        }
        let conf = self.write("nsd.conf", &conf);
        let resolver = self.write("unbound.conf", &self.resolver_conf(&root));
        let place = self.place.as_ref().expect("a host for the name servers");
        self.running.push(place.start("nsd", &["-d", "-c", &conf]));
        self.running.push(place.start("unbound", &["-d", "-c", &resolver]));
        self.wait_until_served();
    }

    /// All zones: those that were asked for, the addresses' own, and the root, which makes all else non-existent.
    fn zone_texts(&self) -> Vec<(String, String, Signed)> {
        let mut texts = Vec::new();
        for (name, zone) in &self.zones {
            let records = format!("{}\n{}", zone.records, self.host_records(name, &zone.records));
            texts.push((name.clone(), zone_text(name, &records), zone.signed));
        }
        for (origin, of) in [
            ("2.0.192.in-addr.arpa", Host::v4 as fn(&Host) -> IpAddr),
            ("8.b.d.0.1.0.0.2.ip6.arpa", Host::v6),
        ] {
            if !self.zones.contains_key(origin) {
                let records: Vec<String> = self
                    .hosts
                    .iter()
                    .map(|host| format!("{}. PTR {}.", reverse(of(host)), host.name))
                    .collect();
                texts.push((origin.to_owned(), zone_text(origin, &records.join("\n")), Signed::No));
            }
        }
        texts.push((".".to_owned(), zone_text("", "root-of-tests TXT ready"), Signed::No));
        texts
    }

    /// The addresses of the hosts that are in a zone, and in none below it, and not in its records already.
    fn host_records(&self, zone: &str, records: &str) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            let within = |zone: &str| host.name == zone || host.name.ends_with(&format!(".{zone}"));
            let deeper = self.zones.keys().any(|other| other.len() > zone.len() && within(other));
            if !within(zone) || deeper {
                continue;
            }
            let label = host.name.strip_suffix(zone).unwrap_or("").trim_end_matches('.');
            let label = if label.is_empty() { "@" } else { label };
            if !records
                .lines()
                .any(|line| line.split_whitespace().next() == Some(label) && names_address(line))
            {
                let _ = write!(text, "{label} A {}\n{label} AAAA {}\n", host.ip, host.ipv6);
            }
        }
        text
    }

    fn resolver_conf(&self, root: &str) -> String {
        let mut conf = format!(
            "server:\n interface: 192.0.2.{ADDRESS_NUMBER}\n access-control: 0.0.0.0/0 allow\n do-ip6: no\n \
             username: \"\"\n chroot: \"\"\n directory: \"{root}\"\n pidfile: \"\"\n use-syslog: no\n \
             logfile: \"{root}/unbound.log\"\n module-config: \"validator iterator\"\n cache-max-ttl: 0\n \
             cache-max-negative-ttl: 0\n infra-host-ttl: 0\n val-bogus-ttl: 0\n qname-minimisation: no\n \
             do-daemonize: no\n num-threads: 1\n outgoing-range: 200\n so-rcvbuf: 0\n"
        );
        for zone in ["2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa", "test", "invalid"] {
            let _ = writeln!(conf, " local-zone: \"{zone}.\" nodefault");
        }
        for (name, _) in self.zones.iter().filter(|(_, zone)| zone.signed != Signed::No) {
            let _ = writeln!(conf, " trust-anchor-file: \"{root}/{name}.anchor\"");
        }
        let _ = write!(
            conf,
            "stub-zone:\n name: \".\"\n stub-addr: {AUTHORITY}\nremote-control:\n control-enable: no\n"
        );
        conf
    }

    /// Signs a zone file; the trusted key is left in `NAME.anchor`.
    fn sign(&self, name: &str, file: &str, signed: Signed) -> String {
        let key = self.new_key(name);
        fs::copy(format!("{key}.key"), self.folder.path().join(format!("{name}.anchor")))
            .expect("copy a key");
        let key = if signed == Signed::Badly { self.new_key(name) } else { key };
        let mut command = peer("ldns-signzone");
        command
            .args(["-o", name, "-f", &format!("{file}.signed"), file, &key])
            .current_dir(self.folder.path());
        run(command, b"").ok();
        format!("{file}.signed")
    }

    fn new_key(&self, name: &str) -> String {
        let mut command = peer("ldns-keygen");
        command.args(["-a", "ECDSAP256SHA256", "-k", name]).current_dir(self.folder.path());
        let name = run(command, b"").ok().stdout.trim().to_owned();
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("write a file of the name servers");
        path.display().to_string()
    }

    /// Unbound answers for the root zone when both are up.
    fn wait_until_served(&self) {
        let place = self.place.as_ref().expect("a host for the name servers");
        let server = format!("@192.0.2.{ADDRESS_NUMBER}");
        wait_for("the name servers to answer", || {
            let mut dig = place.command("dig");
            dig.args([&server, "root-of-tests.", "TXT", "+short", "+tries=1", "+time=1"]);
            let output = dig.stdin(Stdio::null()).output().expect("run dig");
            if output.stdout.starts_with(b"\"ready\"") {
                return Some(());
            }
            let log = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let complaints = ["nsd.log", "unbound.log"].map(log).concat();
            assert!(!complaints.contains("rror:"), "the name servers do not start:\n{complaints}");
            thread::sleep(Duration::from_millis(10));
            None
        });
    }
}

impl Host {
    const fn v4(&self) -> IpAddr {
        self.ip
    }

    const fn v6(&self) -> IpAddr {
        self.ipv6
    }
}

/// A zone file. The records' names are below the origin.
fn zone_text(origin: &str, records: &str) -> String {
    format!(
        "$ORIGIN {origin}.\n$TTL 60\n@ SOA ns.invalid. postmaster.invalid. 1 3600 600 86400 60\n@ NS ns.invalid.\n{records}\n"
    )
}

fn names_address(line: &str) -> bool {
    line.split_whitespace().any(|word| ["A", "AAAA", "CNAME"].contains(&word))
}

/// The name in the DNS of an address.
fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let digits =
                v6.octets().into_iter().rev().map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4));
            format!("{}ip6.arpa", digits.collect::<String>())
        }
    }
}
