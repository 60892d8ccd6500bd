//! Sessions that say nothing: what each costs, and how fast they begin.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use scenarios::{Authority, free_port};

use super::super::Scale;
use super::super::meter::Figure;
use super::super::system::{Side, System};
use crate::shell::Result;

/// Clients that connect at the same time.
const CLIENTS: usize = 8;

/// Opens sessions with TLS, says so, and holds them until its input ends.
const TLS_CLIENT: &str = "
import socket, ssl, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
context = ssl._create_unverified_context()
held = []
for _ in range(count):
    plain = socket.create_connection(('127.0.0.1', port))
    reader = plain.makefile('rb')
    reader.readline()
    plain.sendall(b'EHLO client.example\\r\\n')
    while reader.readline()[3:4] == b'-': pass
    plain.sendall(b'STARTTLS\\r\\n')
    reader.readline()
    held.append(context.wrap_socket(plain))
print('held', flush=True)
sys.stdin.read()
";

pub fn run(side: Side, scale: Scale) -> Result<Vec<Figure>> {
    // A process for each session fills a machine's memory early.
    let (plain, encrypted) = match side {
        Side::Postroad => (scale.of(10_000), scale.of(1_000)),
        Side::Postfix => (scale.of(10_000) / 20, scale.of(1_000) / 5),
    };
    let (system, port) = start(side, &[])?;
    let before = system.group.memory();
    let began = Instant::now();
    let held = hold(port, plain)?;
    let elapsed = began.elapsed();
    let plain_each = (system.group.memory().saturating_sub(before)) as f64 / held.len() as f64;
    drop((held, system));

    let authority = Authority::new();
    authority.issue("server", &["mail.example.com"]);
    let chain = format!("smtpd_tls_chain_files = {}", authority.path("server.chain").display());
    let (system, port) = start(side, &[&chain, "smtpd_tls_security_level = may"])?;
    // What the first session with TLS brings into memory is no session's.
    drop(TlsClients::start(port, 1)?);
    let before = system.group.memory();
    let clients = TlsClients::start(port, encrypted)?;
    let encrypted_each = (system.group.memory().saturating_sub(before)) as f64 / encrypted as f64;
    drop(clients);
    Ok(vec![
        Figure("sessions", plain as f64),
        Figure("new sessions per second", plain as f64 / elapsed.as_secs_f64()),
        Figure("KiB per session", plain_each),
        Figure("KiB per session with TLS", encrypted_each),
    ])
}

/// A system with a port that any number of sessions may come in by.
fn start(side: Side, lines: &[&str]) -> Result<(System, u16)> {
    let port = free_port();
    let mut all = vec!["smtpd_client_connection_count_limit = 0"];
    all.extend(lines);
    let mut system = System::prepare(side, &all, &format!("127.0.0.1:{port} inet n - n - 0 smtpd\n"))?;
    system.launch()?;
    drop(connect(port)?);
    Ok((system, port))
}

fn hold(port: u16, sessions: usize) -> Result<Vec<TcpStream>> {
    std::thread::scope(|scope| {
        let threads = [(); CLIENTS].map(|()| {
            scope.spawn(|| (0..sessions.div_ceil(CLIENTS)).map(|_| connect(port)).collect::<Result<Vec<_>>>())
        });
        let mut all = Vec::with_capacity(sessions);
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a client panicked")??);
        }
        Ok(all)
    })
}

/// Connects and waits for the greeting.
fn connect(port: u16) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| format!("connect: {e}"))?;
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let mut greeting = [0; 128];
    match stream.read(&mut greeting) {
        Ok(3..) if greeting.starts_with(b"220") => Ok(stream),
        Ok(read) => Err(format!("greeted with {}", String::from_utf8_lossy(&greeting[..read]).trim())),
        Err(error) => Err(format!("wait for the greeting: {error}")),
    }
}

/// The sessions of [`TLS_CLIENT`].
struct TlsClients(Child);

impl TlsClients {
    fn start(port: u16, sessions: usize) -> Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-c", TLS_CLIENT, &port.to_string(), &sessions.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut clients = Self(command.spawn().map_err(|e| format!("run python3: {e}"))?);
        let mut line = String::new();
        if let Some(output) = clients.0.stdout.take() {
            BufReader::new(output).read_line(&mut line).map_err(|e| format!("read from python3: {e}"))?;
        }
        if line == "held\n" { Ok(clients) } else { Err("the sessions with TLS did not come about".into()) }
    }
}

impl Drop for TlsClients {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
