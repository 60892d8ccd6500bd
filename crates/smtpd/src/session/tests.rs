//! Runs every `tests/dialogues/*.smtp` against a server with a configuration and a cleanup that only remembers.

mod access;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use config::Config;
use ipc::cleanup::{Begin, Committed, End, Part, Refusal, Server as CleanupServer};

use mail::Dsn;
use service::{Connection, Stream};

use super::serve;
use crate::server::Server;

/// Long enough for anything but a server that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "smtp"));
    files.sort();
    assert!(files.len() > 3);
    for file in files {
        let script = std::fs::read_to_string(&file).unwrap();
        run(&file.file_name().unwrap().to_string_lossy(), &script);
    }
}

fn run(name: &str, script: &str) {
    let instance = Instance::new(script);
    let mut client = instance.connect();
    for (number, line) in script.lines().enumerate() {
        let place = format!("{name}:{}", number + 1);
        let text = line.get(3..).unwrap_or("");
        match line.get(..2).unwrap_or("") {
            "C:" => client.send(&format!("{text}\r\n")),
            "C+" => client.gathered.push_str(&format!("{text}\r\n")),
            "S:" => {
                let got = client.line();
                assert!(matches(text, &got), "{place}: expected {text:?}, got {got:?}");
            }
            "M:" => {
                let (message, content) = instance.delivered.recv_timeout(PATIENCE).unwrap();
                let got = describe(&message, &content);
                assert!(matches(text, &got), "{place}: expected {text:?}, got {got:?}");
            }
            "X" => assert_eq!(client.line(), "", "{place}: the connection is open"),
            _ => {}
        }
    }
}

/// `sender -> recipients proto helo hold: content`.
fn describe(message: &Begin, content: &str) -> String {
    let envelope = &message.envelope;
    let to: Vec<_> = envelope.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    let hold = if message.options.hold { " hold" } else { "" };
    let client = &envelope.client;
    let (sender, to) = (&envelope.sender, to.join(" "));
    format!("{sender} -> {to} {} {}{hold}: {}", client.protocol, client.helo, content.escape_debug())
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => pattern == text,
    }
}

struct Instance {
    server: Arc<Server>,
    listener: TcpListener,
    delivered: Receiver<(Begin, String)>,
    stopping: Arc<Mutex<bool>>,
    /// A session has come to its end.
    served: Arc<AtomicBool>,
    _kept: (tempfile::TempDir, UnixListener),
}

impl Instance {
    /// A server with the `main.cf:` lines of the script.
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut main_cf =
            format!("queue_directory = {}\nmyhostname = mx.example.com\n", folder.path().display());
        main_cf
            .push_str("compatibility_level = 3.6\nmydestination = example.com\nmynetworks = 192.0.2.0/24\n");
        main_cf
            .push_str("local_recipient_maps = inline:{ joe=x, postmaster=x }\nsmtpd_peername_lookup = no\n");
        main_cf.push_str("alias_maps =\n");
        for line in script.lines().filter_map(|line| line.strip_prefix("main.cf: ")) {
            main_cf.push_str(line);
            main_cf.push('\n');
        }
        std::fs::write(folder.path().join("main.cf"), main_cf).unwrap();
        std::fs::write(folder.path().join("master.cf"), "").unwrap();
        write_passwords(script, folder.path());
        let (config, _) = Config::load(folder.path()).unwrap();
        // The queue manager: nobody reads what it is told.
        std::fs::create_dir(folder.path().join("public")).unwrap();
        let queue_manager = UnixListener::bind(folder.path().join("public/qmgr")).unwrap();
        let socket = folder.path().join("cleanup");
        let (sender, delivered) = channel();
        if !script.contains("\nno cleanup\n") {
            let cleanup = UnixListener::bind(&socket).unwrap();
            std::thread::spawn(move || {
                while let Ok((stream, _)) = cleanup.accept() {
                    remember(CleanupServer::new(stream), &sender);
                }
            });
        }
        let server = Server::new(&config, "smtp", ipc::cleanup::Client::new(socket)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            server: Arc::new(server),
            listener,
            delivered,
            stopping: Arc::default(),
            served: Arc::default(),
            _kept: (folder, queue_manager),
        }
    }

    fn connect(&self) -> TestClient {
        TestClient { reader: BufReader::new(self.stream()), gathered: String::new() }
    }

    /// A connection that a session serves.
    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (accepted, peer) = self.listener.accept().unwrap();
        let local = accepted.local_addr().ok();
        let connection = Connection { stream: Arc::new(Stream::Tcp(accepted)), peer: Some(peer), local };
        let (server, stopping) = (Arc::clone(&self.server), Arc::clone(&self.stopping));
        let served = Arc::clone(&self.served);
        std::thread::spawn(move || {
            serve(&server, &connection, &|| *stopping.lock().unwrap());
            served.store(true, Ordering::Relaxed);
        });
        stream
    }
}

/// `password: NAME PASSWORD [locked]` lines become the file `passwords`.
fn write_passwords(script: &str, folder: &Path) {
    use smtp_proto::sasl::Secret;
    let mut table = passwords::Table::default();
    for line in script.lines().filter_map(|line| line.strip_prefix("password: ")) {
        let words: Vec<_> = line.split(' ').collect();
        let schemes = [passwords::Scheme::ScramSha256];
        let mut user = passwords::User::new(&Secret::from(words[1]), &schemes).unwrap();
        user.locked = words.len() > 2;
        table.insert(words[0], user).unwrap();
    }
    std::fs::write(folder.join("passwords"), &*table.to_text()).unwrap();
}

/// Takes every message, but those that ask for something else.
fn remember(mut cleanup: CleanupServer, delivered: &std::sync::mpsc::Sender<(Begin, String)>) {
    while let Ok(Some(message)) = cleanup.next_message() {
        let mut content = Vec::new();
        loop {
            match cleanup.next_part() {
                Ok(Part::Content(bytes)) => content.extend_from_slice(bytes),
                Ok(Part::End(End::Commit(_))) => break,
                Ok(Part::End(End::Abort)) | Err(_) => return,
            }
        }
        let content = String::from_utf8_lossy(&content).into_owned();
        let size = content.len() as u64;
        let answer = match content.as_str() {
            "hops\n" => Err(Refusal::TooManyHops),
            "full\n" => Err(Refusal::NoSpace),
            "bad\n" => Err(Refusal::Rejected(Dsn::new(5, 7, 1), "message content rejected".into())),
            "broken\n" => Err(Refusal::Temporary("disk on fire".into())),
            _ => Ok(Committed { size }),
        };
        if answer.is_ok() {
            delivered.send((message, content)).unwrap();
        }
        cleanup.answer(&answer).unwrap();
    }
}

struct TestClient {
    reader: BufReader<TcpStream>,
    gathered: String,
}

impl TestClient {
    fn send(&mut self, text: &str) {
        let bytes = std::mem::take(&mut self.gathered) + text;
        self.reader.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(_) => line.trim_end_matches("\r\n").to_owned(),
            Err(error) => format!("({error})"),
        }
    }
}

#[test]
fn a_silent_client_is_told_and_left() {
    let instance = Instance::new("main.cf: smtpd_timeout = 1s");
    let mut client = instance.connect();
    assert_eq!(client.line(), "220 mx.example.com ESMTP Postroad");
    assert_eq!(client.line(), "421 4.4.2 mx.example.com Error: timeout exceeded");
    assert_eq!(client.line(), "");
}

#[test]
fn a_slow_client_has_a_deadline_under_stress() {
    let instance = Instance::new("main.cf: smtpd_timeout = 2s\nmain.cf: smtpd_per_request_deadline = yes");
    let mut client = instance.connect();
    client.line();
    let start = std::time::Instant::now();
    let mut stream = client.reader.get_ref().try_clone().unwrap();
    std::thread::spawn(move || {
        // Faster than smtpd_min_data_rate, which is for content alone.
        while stream.write_all(&[b'N'; 200]).is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    assert_eq!(client.line(), "421 4.4.2 mx.example.com Error: timeout exceeded");
    assert!(start.elapsed() < PATIENCE);
}

/// A client that asks and asks and hears nothing: the server must not wait with a full socket for as long as it likes.
#[test]
fn a_client_that_reads_a_byte_now_and_then_has_a_deadline_too() {
    let instance = Instance::new("main.cf: smtpd_timeout = 2s\nmain.cf: smtpd_per_request_deadline = yes");
    let stream = instance.stream();
    let mut asking = stream.try_clone().unwrap();
    asking.set_write_timeout(Some(PATIENCE)).unwrap();
    std::thread::spawn(move || {
        let help = format!("HELP {}\r\n", "x".repeat(500)).repeat(50);
        while asking.write_all(help.as_bytes()).is_ok() {}
    });
    let (mut reader, mut byte, start) = (stream, [0], std::time::Instant::now());
    while !instance.served.load(Ordering::Relaxed) {
        assert!(start.elapsed() < PATIENCE, "the session goes on and on");
        let _ = reader.read(&mut byte);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_large_message_streams_through() {
    let instance = Instance::new("");
    let mut client = instance.connect();
    let line = "0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    let content = line.repeat(50_000);
    for command in ["EHLO c", "MAIL FROM:<a@b>", "RCPT TO:<joe@example.com>", "DATA"] {
        while client.line().as_bytes().get(3) == Some(&b'-') {}
        client.send(&format!("{command}\r\n"));
    }
    while !client.line().starts_with("354") {}
    client.send(&content);
    client.send(".\r\n");
    assert!(client.line().starts_with("250 2.0.0 Ok: queued as "));
    let (_, delivered) = instance.delivered.recv_timeout(PATIENCE).unwrap();
    assert_eq!(delivered, content.replace("\r\n", "\n"));
}

#[test]
fn a_connection_lost_in_the_middle_delivers_nothing() {
    let instance = Instance::new("");
    let mut client = instance.connect();
    client.line();
    client.send("HELO c\r\n");
    client.line();
    for command in ["MAIL FROM:<a@b>", "RCPT TO:<joe@example.com>", "DATA"] {
        client.send(&format!("{command}\r\n"));
        client.line();
    }
    client.send(&"half a message\r\n".repeat(20_000));
    client.reader.get_ref().shutdown(Shutdown::Both).unwrap();
    let mut next = instance.connect();
    next.line();
    assert!(instance.delivered.recv_timeout(Duration::from_millis(300)).is_err());
}

#[test]
fn a_client_that_waits_is_told_when_the_system_stops() {
    let instance = Instance::new("");
    let mut client = instance.connect();
    client.line();
    *instance.stopping.lock().unwrap() = true;
    client.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.line(), "421 4.3.2 mx.example.com Service shutting down");
}

#[test]
fn a_client_has_a_limit_of_connections() {
    let instance = Instance::new("main.cf: smtpd_client_connection_count_limit = 2");
    let mut clients: Vec<_> = (0..2).map(|_| instance.connect()).collect();
    clients.iter_mut().for_each(|client| assert!(client.line().starts_with("220 ")));
    let mut third = instance.connect();
    assert_eq!(third.line(), "421 4.7.0 mx.example.com Error: too many connections from 127.0.0.1");
    let mut rest = Vec::new();
    third.reader.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}
