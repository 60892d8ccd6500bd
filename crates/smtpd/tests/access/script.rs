//! Reads and runs the files of this folder; shared by the tests in the process and those against real servers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What every configuration begins with.
pub(crate) const SETTINGS: [&str; 12] = [
    "myhostname = mx.example.com",
    "mydestination = example.com",
    "myorigin = $myhostname",
    "mynetworks = 192.0.2.0/24",
    "local_recipient_maps = inline:{ joe=x, postmaster=x }",
    "smtpd_peername_lookup = no",
    "alias_maps =",
    "smtpd_authorized_xclient_hosts = 127.0.0.1",
    "smtpd_error_sleep_time = 0",
    "inet_interfaces = 127.0.0.1",
    "smtpd_forbid_unauth_pipelining = yes",
    "smtpd_banner = $myhostname ESMTP",
];

/// Long enough for anything but a server that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// One file.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) main_cf: Vec<String>,
    /// Names and contents.
    pub(crate) files: BTreeMap<String, String>,
    steps: Vec<(usize, Step)>,
}

enum Step {
    Connect,
    Send(String),
    Gather(String),
    Reply { ours: Vec<String>, postfix: Vec<String> },
    Log(String),
    Closed,
}

/// Who is talked to.
pub(crate) struct Server<'a> {
    pub(crate) is_postfix: bool,
    pub(crate) connect: &'a dyn Fn() -> TcpStream,
    /// Whether the log has a line with this, now or soon.
    pub(crate) log_has: &'a dyn Fn(&str) -> bool,
}

impl Script {
    pub(crate) fn parse(text: &str) -> Self {
        let mut script = Self { main_cf: SETTINGS.map(str::to_owned).to_vec(), ..Self::default() };
        for (number, line) in (1..).zip(text.lines()) {
            let rest = line.get(3..).unwrap_or("").to_owned();
            if let Some(setting) = line.strip_prefix("main.cf: ") {
                script.main_cf.push(setting.to_owned());
            } else if let Some((name, text)) = line.strip_prefix("file: ").and_then(|l| l.split_once(": ")) {
                let file = script.files.entry(name.to_owned()).or_default();
                file.push_str(text);
                file.push('\n');
            } else if line == "session" {
                script.steps.push((number, Step::Connect));
            } else if line.starts_with("C:") {
                script.steps.push((number, Step::Send(rest)));
            } else if line.starts_with("C+") {
                script.steps.push((number, Step::Gather(rest)));
            } else if line.starts_with("L:") {
                script.steps.push((number, Step::Log(rest)));
            } else if line == "X" {
                script.steps.push((number, Step::Closed));
            } else if line.starts_with("S:") || line.starts_with("P:") {
                script.reply(number, line.starts_with("P:"), rest);
            }
        }
        script
    }

    /// Lines of a reply that follow each other belong together.
    fn reply(&mut self, number: usize, of_postfix: bool, text: String) {
        if !matches!(self.steps.last(), Some((_, Step::Reply { .. }))) {
            self.steps.push((number, Step::Reply { ours: Vec::new(), postfix: Vec::new() }));
        }
        if let Some((_, Step::Reply { ours, postfix })) = self.steps.last_mut() {
            if of_postfix { postfix.push(text) } else { ours.push(text) }
        }
    }

    /// Plays the file; gives every line where the server said something else.
    pub(crate) fn run(&self, server: &Server<'_>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut client: Option<BufReader<TcpStream>> = None;
        let mut gathered = String::new();
        for (number, step) in &self.steps {
            let said = match (step, &mut client) {
                (Step::Connect, client) => {
                    let stream = (server.connect)();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let reader = client.insert(BufReader::new(stream));
                    expect(&["220 *".to_owned()], &reply(reader))
                }
                (_, None) => Err("no session has begun".to_owned()),
                (Step::Gather(text), _) => {
                    gathered.push_str(&format!("{text}\r\n"));
                    Ok(())
                }
                (Step::Send(text), Some(client)) => {
                    let bytes = std::mem::take(&mut gathered) + text + "\r\n";
                    client.get_mut().write_all(bytes.as_bytes()).map_err(|e| e.to_string())
                }
                (Step::Reply { ours, postfix }, Some(client)) => {
                    let wanted = if server.is_postfix && !postfix.is_empty() { postfix } else { ours };
                    expect(wanted, &reply(client))
                }
                (Step::Closed, Some(client)) => expect(&[String::new()], &reply(client)),
                (Step::Log(text), _) => match (server.log_has)(text) {
                    true => Ok(()),
                    false => Err(format!("the log has no line with {text:?}")),
                },
            };
            if let Err(text) = said {
                wrong.push(format!("{number}: {text}"));
            }
        }
        wrong
    }
}

/// The lines of one reply; one empty line when the server has closed.
fn reply(client: &mut BufReader<TcpStream>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if let Err(error) = client.read_line(&mut line) {
            line = format!("({error})");
        }
        let line = line.trim_end_matches("\r\n").to_owned();
        let goes_on = line.as_bytes().get(3) == Some(&b'-');
        lines.push(line);
        if !goes_on {
            return lines;
        }
    }
}

fn expect(wanted: &[String], got: &[String]) -> Result<(), String> {
    let anything = matches!(wanted, [only] if only == "*") && got.last().is_some_and(|line| !line.is_empty());
    let same = wanted.len() == got.len() && wanted.iter().zip(got).all(|(wanted, got)| matches(wanted, got));
    if anything || same { Ok(()) } else { Err(format!("expected {wanted:?}, got {got:?}")) }
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => text.starts_with(start),
        None => pattern == text,
    }
}
