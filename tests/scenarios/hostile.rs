//! Clients that mean harm: what they cost the server is bounded, and mail of the others passes meanwhile. And many clients that
//! only stay.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use scenarios::{Authority, Network, Postfix, Smtp, free_port, is_root, peer, wait_for};

use crate::site::{NOTE, greeted, usual};

const ANN: &str = "ann@box.example.com";

/// So many good messages must pass in the midst of it.
const MAILS: usize = 30;

/// What a process has in memory of its own: the kernel's count of it, in KiB.
fn memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Says the same over and over, until the server has had enough.
fn repeat(mut stream: TcpStream, text: Vec<u8>, pause: Duration) {
    while stream.write_all(&text).is_ok() {
        thread::sleep(pause);
    }
}

type Attack = fn(TcpStream);

const ATTACKS: [(&str, Attack); 7] = [
    ("a byte now and then", |stream| repeat(stream, b"N".to_vec(), Duration::from_millis(300))),
    ("silence", |mut stream| drop(stream.read_to_end(&mut Vec::new()))),
    ("a line without end", |stream| repeat(stream, vec![b'a'; 4096], Duration::from_millis(1))),
    ("garbage", |stream| repeat(stream, (0..=255).collect(), Duration::from_millis(1))),
    ("commands whose replies nobody reads", |stream| repeat(stream, b"NOOP\r\n".repeat(500), Duration::ZERO)),
    ("content a byte at a time", |mut stream| {
        begin_content(&mut stream);
        repeat(stream, b"x".to_vec(), Duration::from_millis(300));
    }),
    ("a header that is far too long", |mut stream| {
        begin_content(&mut stream);
        // As long as it comes fast enough, it is read to its end, to be refused then.
        let header = b"X-Long: 0123456789\r\n ".repeat(200);
        (0..500).for_each(|_| drop(stream.write_all(&header)));
    }),
];

fn begin_content(stream: &mut TcpStream) {
    let text = format!("EHLO c\r\nMAIL FROM:<a@client.example>\r\nRCPT TO:<{ANN}>\r\nDATA\r\n");
    let _ = stream.write_all(text.as_bytes());
    thread::sleep(Duration::from_millis(500));
}

/// Good clients; gives how many messages a second passed.
fn good_mail(mut connect: impl FnMut() -> Smtp) -> f64 {
    let began = Instant::now();
    for _ in 0..MAILS {
        let mut client = connect();
        client.expect("EHLO client.example", 250);
        let reply = client.message("jane@client.example", &[ANN], NOTE);
        assert_eq!(reply.code, 250, "{reply:?}");
        client.expect("QUIT", 221);
    }
    f64::from(u32::try_from(MAILS).unwrap()) / began.elapsed().as_secs_f64()
}

#[test]
fn hostile_clients_cost_the_others_nothing() {
    let site = usual()
        .main("smtpd_timeout = 10s\nsmtpd_per_request_deadline = yes\nsmtpd_min_data_rate = 500")
        .main("smtpd_client_connection_count_limit = 0\nmessage_size_limit = 1000000")
        .start();
    drop(greeted(&site));
    let pid = site.pids("smtpd")[0];
    let before = memory(pid);
    let attackers: Vec<JoinHandle<()>> = (0..8)
        .flat_map(|_| ATTACKS)
        .map(|(_, attack)| {
            let stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
            thread::spawn(move || attack(stream))
        })
        .collect();
    let (count, rate) = (attackers.len(), good_mail(|| site.smtp()));
    let during = memory(pid);
    println!("beside {count} hostile clients: {rate:.0} messages/s; smtpd {before} KiB, then {during} KiB");
    assert!(during < before + 32 * 1024, "smtpd grew from {before} to {during} KiB");
    site.wait_for_mail("ann", MAILS);
    // The server gets rid of all of them, each in its time.
    wait_for("the hostile clients to be sent away", || {
        attackers.iter().all(JoinHandle::is_finished).then_some(())
    });
    assert_eq!(site.pids("smtpd"), [pid], "{}", site.log());
}

#[test]
fn clients_that_vanish_without_a_word_are_given_up() {
    if !is_root("a host that goes off the network") {
        return;
    }
    let authority = Authority::new();
    authority.issue("mx", &["mx.example.com"]);
    let mut network = Network::new();
    let [mx, vanishing, good] =
        ["mx.example.com", "gone.example.org", "good.example.org"].map(|name| network.host(name));
    let site = usual()
        .on(&mx)
        .main("smtpd_timeout = 10s\nsmtpd_starttls_timeout = 10s\nsmtpd_tls_security_level = may")
        .main(&format!("smtpd_tls_chain_files = {}", authority.path("mx.chain").display()))
        .start();
    let begun = ["HELO c", "MAIL FROM:<a@client.example>", "RCPT TO:<postmaster>"];
    // The commands that are answered before it is gone, what else it has said, and what the log says of its end.
    let stages: [(&[&str], &str, &str); 5] = [
        (&[], "", "timeout after CONNECT"),
        (&["EHLO c"], "MAIL FR", "timeout after EHLO"),
        (&[begun[0], begun[1], begun[2], "DATA"], "Subject: h", "timeout after DATA (10 bytes)"),
        (&begun, "BDAT 1000\r\nhalf", "timeout after BDAT (4 bytes)"),
        (&["EHLO c", "STARTTLS"], "\x16\x03\x01", "lost connection after STARTTLS"),
    ];
    let gone: Vec<Smtp> = stages
        .iter()
        .map(|(commands, more, _)| {
            let mut smtp = vanishing.smtp(mx.ip);
            commands.iter().for_each(|command| drop(smtp.command(command)));
            smtp.send_raw(more.as_bytes());
            smtp
        })
        .collect();
    vanishing.set_connected(false);
    good_mail(|| good.smtp(mx.ip));
    for (_, _, end) in stages {
        site.wait_for_log(&[&format!("{end} from unknown[{}]", vanishing.ip)]);
    }
    drop(gone);
}

#[test]
fn a_client_that_only_closes_its_side_hears_all_replies() {
    let site = usual().start();
    let mut stream = TcpStream::connect(("127.0.0.1", site.port)).unwrap();
    let mut client = Smtp::over(stream.try_clone().unwrap());
    assert_eq!(client.read_reply().code, 220);
    client.expect("EHLO client.example", 250);
    stream.write_all(b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nQU").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert_eq!(said, "250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    site.wait_for_log(&["lost connection after RCPT"]);
}

/// A connection that a load balancer seems to pass on from this client.
fn from(port: u16, client: &str) -> Smtp {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(format!("PROXY TCP4 {client} 192.0.2.1 4000 25\r\n").as_bytes()).unwrap();
    Smtp::over(stream)
}

#[test]
fn a_flood_over_the_limit_is_answered_421_while_mail_passes() {
    let site = usual()
        .main("smtpd_upstream_proxy_protocol = haproxy\nsmtpd_peername_lookup = no")
        .main("smtpd_client_connection_count_limit = 5\nsmtpd_client_event_limit_exceptions =")
        .start();
    let mut held: Vec<Smtp> = (0..5).map(|_| from(site.port, "203.0.113.9")).collect();
    held.iter_mut().for_each(|client| assert_eq!(client.read_reply().code, 220));
    let (stop, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let flood: Vec<_> = (0..4)
        .map(|_| {
            let (stop, refused, port) = (Arc::clone(&stop), Arc::clone(&refused), site.port);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let reply = from(port, "203.0.113.9").read_reply();
                    assert_eq!(reply.code, 421, "{reply:?}");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let rate = good_mail(|| {
        let mut client = from(site.port, "198.51.100.7");
        assert_eq!(client.read_reply().code, 220);
        client
    });
    let (count, seconds) = (refused.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    stop.store(true, Ordering::Relaxed);
    flood.into_iter().for_each(|thread| thread.join().unwrap());
    println!("{count} clients refused in {seconds:.1} s, and {rate:.0} good messages/s meanwhile");
    site.wait_for_mail("ann", MAILS);
    assert!(count > 0);
}

/// Opens so many sessions, of which the second half are encrypted, and prints what each costs.
fn idle_sessions(count: usize) {
    let authority = Authority::new();
    authority.issue("server", &["localhost"]);
    let port = free_port();
    let site = usual()
        .main("smtpd_client_connection_count_limit = 0\nsmtpd_timeout = 600s\nsmtpd_tls_security_level = may")
        .main(&format!("smtpd_tls_chain_files = {}", authority.path("server.chain").display()))
        .master(&format!("127.0.0.1:{port} inet n - n - {} smtpd", count + 10))
        .start();
    drop(Smtp::connect(port));
    let line = site.wait_for_log(&["smtpd[", "disconnect from"]);
    let pid: i32 = line.split(['[', ']']).nth(1).and_then(|pid| pid.parse().ok()).unwrap();
    let mut python = peer("python3");
    python.args(["-c", include_str!("idle.py"), &port.to_string(), &count.to_string(), &pid.to_string()]);
    let said = scenarios::run(python, b"").ok().stdout;
    print!("{said}");
    let figure = |name: &str| -> f64 {
        let words = said.lines().find_map(|line| line.strip_prefix(name));
        words.and_then(|words| words.split_whitespace().next()?.parse().ok()).unwrap_or(f64::MAX)
    };
    // Far more than it is, for builds without optimisation.
    assert!(
        figure("KiB for each plain session:") < 80.0 && figure("KiB for each TLS session:") < 120.0,
        "{said}"
    );
}

#[test]
fn idle_sessions_are_cheap() {
    idle_sessions(400);
}

#[test]
#[ignore = "needs an optimised build, 20,000 descriptors and a minute: cargo test --release -- --ignored ten_thousand"]
fn ten_thousand_idle_sessions_are_cheap() {
    idle_sessions(10_000);
    if is_root("ten_thousand_idle_sessions_are_cheap") {
        println!("Postfix: {} KiB for each plain session", postfix_process(false));
        println!("Postfix: {} KiB for each TLS session", postfix_process(true));
    }
}

/// What each process of Postfix's smtpd has in memory, in KiB, with an idle session in each of fifty.
fn postfix_process(encrypted: bool) -> u64 {
    let authority = Authority::new();
    authority.issue("server", &["localhost"]);
    let chain = format!("smtpd_tls_chain_files = {}", authority.path("server.chain").display());
    let postfix = Postfix::start(&[
        "myhostname = peer.example",
        "smtpd_client_connection_count_limit = 0",
        "smtpd_tls_security_level = may",
        "smtpd_tls_loglevel = 1",
        &chain,
    ]);
    let port = postfix.port.to_string();
    let openssl = || {
        let mut command = peer("openssl");
        command.args(["s_client", "-starttls", "smtp", "-quiet", "-connect", &format!("127.0.0.1:{port}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("openssl")
    };
    let (plain, mut in_tls): (Vec<Smtp>, Vec<Child>) = match encrypted {
        true => (Vec::new(), (0..50).map(|_| openssl()).collect()),
        false => ((0..50).map(|_| postfix.smtp()).collect(), Vec::new()),
    };
    wait_for("all handshakes", || {
        (postfix.log().matches("TLS connection established").count() >= in_tls.len()).then_some(())
    });
    let inode = fs::metadata(scenarios::postfix_package().join("usr/lib/postfix/sbin/smtpd")).unwrap().ino();
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_smtpd = |pid: &i32| fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ino() == inode);
    let of_each: Vec<u64> = processes.filter(is_smtpd).map(memory).collect();
    drop(plain);
    for child in &mut in_tls {
        let _ = child.kill();
        let _ = child.wait();
    }
    of_each.iter().sum::<u64>() / u64::try_from(of_each.len().max(1)).unwrap()
}
