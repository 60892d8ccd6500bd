//! A name server for tests: UDP and TCP on a port of its own, answers from a table.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TLSA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::{DnsSettings, Resolver};

/// The table that every fake server starts with.
const ZONE: &str = include_str!("fake.zone");

/// The server; it ends with the value.
pub(super) struct FakeServer {
    pub(super) address: SocketAddr,
    pub(super) asked: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    folder: tempfile::TempDir,
}

impl FakeServer {
    pub(super) fn start() -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let (asked, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stop) = (Arc::clone(&asked), Arc::clone(&stopped));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                if let Some(reply) = answer(&buffer[..length], true) {
                    let _ = udp.send_to(&reply, peer);
                }
            }
        });
        let stop = Arc::clone(&stopped);
        thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                thread::spawn(move || serve_stream(stream));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let server = Self { address, asked, stopped, folder };
        server.configure(&format!("nameserver {address}\noptions timeout:5 attempts:1\n"));
        server
    }

    pub(super) fn configure(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("resolv.conf")
    }

    pub(super) fn settings(&self) -> DnsSettings {
        DnsSettings { resolv_conf: self.path(), ..DnsSettings::default() }
    }

    pub(super) fn resolver(&self) -> Resolver {
        Resolver::system(self.settings())
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(&[0], self.address));
        let _ = TcpStream::connect(self.address);
    }
}

fn serve_stream(mut stream: TcpStream) {
    let mut length = [0; 2];
    while stream.read_exact(&mut length).is_ok() {
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            return;
        }
        let Some(reply) = answer(&query, false) else { return };
        let mut framed = u16::try_from(reply.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(reply);
        let _ = stream.write_all(&framed);
    }
}

struct Line {
    name: String,
    ttl: u32,
    kind: String,
    data: String,
}

fn lines() -> Vec<Line> {
    ZONE.lines()
        .filter(|line| !line.starts_with(';') && !line.is_empty())
        .map(|line| {
            let (name, rest) = line.split_once(' ').unwrap();
            let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
            let (ttl, rest) = match first.parse() {
                Ok(ttl) => (ttl, after),
                Err(_) => (3600, rest),
            };
            let (kind, data) = rest.split_once(' ').unwrap_or((rest, ""));
            Line { name: name.to_owned(), ttl, kind: kind.to_owned(), data: data.to_owned() }
        })
        .collect()
}

fn answer(query: &[u8], udp: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let question = query.queries.first()?.clone();
    let mut name = question.name().to_ascii().trim_end_matches('.').to_lowercase();
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    reply.add_query(question.clone());
    let lines = lines();
    let mut validated = true;
    for _ in 0..8 {
        validated &= name.ends_with("signed.example");
        let of_name: Vec<&Line> = lines.iter().filter(|line| line.name == name).collect();
        match of_name.first().map(|line| line.kind.as_str()) {
            None => reply.metadata.response_code = ResponseCode::NXDomain,
            Some("SILENT") => return None,
            Some("SERVFAIL") => reply.metadata.response_code = ResponseCode::ServFail,
            Some("REFUSED") => reply.metadata.response_code = ResponseCode::Refused,
            Some("TRUNCATED") if udp => reply.metadata.truncation = true,
            _ => {}
        }
        let owner = Name::from_ascii(format!("{name}.")).unwrap();
        let mut alias = None;
        for line in of_name.iter().filter(|_| !reply.metadata.truncation) {
            let data = data_of(line);
            if let Some(RData::CNAME(target)) = &data {
                alias = Some(target.0.to_ascii().trim_end_matches('.').to_owned());
            } else if data.as_ref().is_none_or(|data| data.record_type() != question.query_type()) {
                continue;
            }
            reply.answers.extend(data.map(|data| Record::from_rdata(owner.clone(), line.ttl, data)));
        }
        match alias {
            Some(target) => name = target,
            None => break,
        }
    }
    if !reply.answers.iter().any(|record| record.record_type() == question.query_type()) {
        let root = Name::root();
        let soa = SOA::new(root.clone(), root.clone(), 1, 2, 3, 4, 60);
        reply.authorities.push(Record::from_rdata(root, 60, RData::SOA(soa)));
    }
    reply.metadata.authentic_data = query.metadata.authentic_data && validated;
    reply.to_vec().ok()
}

fn data_of(line: &Line) -> Option<RData> {
    // A label that no host name has, for the table's `bad..name`.
    let name = |text: &str| match text {
        "." => Name::root(),
        text => Name::from_labels(
            text.split('.').map(|label| if label.is_empty() { "?".as_bytes() } else { label.as_bytes() }),
        )
        .map(|mut name| {
            name.set_fqdn(true);
            name
        })
        .unwrap(),
    };
    let words: Vec<&str> = line.data.split(' ').collect();
    Some(match line.kind.as_str() {
        "A" => RData::A(A(line.data.parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(line.data.parse().unwrap())),
        "MX" => RData::MX(MX::new(words[0].parse().unwrap(), name(words[1]))),
        "NS" => RData::NS(NS(name(words[0]))),
        "CNAME" => RData::CNAME(CNAME(name(words[0]))),
        "PTR" => RData::PTR(PTR(name(words[0]))),
        "SRV" => {
            let number = |at: usize| words[at].parse().unwrap();
            RData::SRV(SRV::new(number(0), number(1), number(2), name(words[3])))
        }
        "TLSA" => {
            let number = |at: usize| words[at].parse::<u8>().unwrap();
            let bytes = words[3].as_bytes().chunks(2);
            let data = bytes.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap());
            RData::TLSA(TLSA::new(number(0).into(), number(1).into(), number(2).into(), data.collect()))
        }
        "TXT" => {
            let texts = line.data.trim_matches('"').split("\" \"").map(str::to_owned);
            RData::TXT(TXT::new(texts.collect()))
        }
        _ => return None,
    })
}

/// Records of a type that no test asks for are never made.
#[test]
fn the_table_can_be_read() {
    assert!(
        lines().iter().all(|line| data_of(line).is_some_and(|data| data.record_type() != RecordType::NULL)
            || ["SILENT", "SERVFAIL", "REFUSED", "TRUNCATED"].contains(&line.kind.as_str()))
    );
}
