//! Runs every `dialogues/*.smtp` against the server's session. `dialogues/README` says how they are written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use smtp_proto::content::BareNewline;
use smtp_proto::parameter::Extensions;
use smtp_proto::server::{AuthOffer, Ending, Event, Notice, Policy, Session, Settings};
use smtp_proto::{Reply, Verb};

use notation::{matches, unescape};

mod notation;

#[test]
fn dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "smtp"));
    files.sort();
    assert!(files.len() > 5);
    for file in files {
        let script = fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        // However the network cuts it, the dialogue is the same.
        for step in [usize::MAX, 1, 7] {
            Dialogue::run(&name, &script, step);
        }
    }
}

struct Dialogue {
    session: Session,
    /// Command, what its argument must contain, the reply.
    refusals: Vec<(String, String, Reply)>,
    replies: VecDeque<String>,
    events: VecDeque<String>,
    content: Vec<u8>,
    delivered: VecDeque<String>,
    closed: bool,
}

impl Dialogue {
    fn run(name: &str, script: &str, step: usize) {
        let (settings, policy, refusals) = read_settings(name, script);
        let greeting = Reply::plain(220, "mx.example.com ESMTP");
        let mut dialogue = Self {
            session: Session::new(Arc::new(settings), policy, vec![0; 4096]),
            refusals,
            replies: VecDeque::new(),
            events: VecDeque::new(),
            content: Vec::new(),
            delivered: VecDeque::new(),
            closed: false,
        };
        if let Some(offer) = auth_offer(script) {
            dialogue.session.offer_auth(Some(Arc::new(offer)));
        }
        let greeting = dialogue.refusal("CONNECT", "").unwrap_or(greeting);
        let mut greeted = false;
        let mut sent = Vec::new();
        for (number, line) in script.lines().enumerate() {
            let place = format!("{name}:{} in steps of {step}", number + 1);
            let text = line.get(3..).unwrap_or("");
            match line.get(..2).unwrap_or("") {
                "C:" | "C+" => {
                    sent.extend_from_slice(text.as_bytes());
                    sent.extend_from_slice(b"\r\n");
                }
                "C=" => sent.extend(unescape(text)),
                "S:" | "M:" | "E:" | "X" => {
                    if !greeted {
                        dialogue.session.greet(&greeting, "client[192.0.2.1]");
                        greeted = true;
                        dialogue.turn();
                    }
                    let queue = match &line[..1] {
                        "S" => &mut dialogue.replies,
                        "M" => &mut dialogue.delivered,
                        "E" => &mut dialogue.events,
                        _ => {
                            assert!(dialogue.closed, "{place}: the session goes on");
                            continue;
                        }
                    };
                    let got = queue.pop_front();
                    let right = got.as_deref().is_some_and(|got| matches(text, got));
                    assert!(right, "{place}: expected {text:?}, got {got:?}, then {queue:?}");
                    continue;
                }
                _ => continue,
            }
            if !line.starts_with("C+") {
                assert!(dialogue.replies.is_empty(), "{place}: replies left: {:?}", dialogue.replies);
                // Only bytes of one group may come together; within it, they may come in any pieces.
                dialogue.send(&std::mem::take(&mut sent), step);
            }
        }
        assert!(dialogue.replies.is_empty(), "{name}: replies left: {:?}", dialogue.replies);
        assert!(dialogue.delivered.is_empty(), "{name}: content left: {:?}", dialogue.delivered);
    }

    fn send(&mut self, bytes: &[u8], step: usize) {
        // A group is one segment: cutting it would make improper pipelining look proper.
        let whole = bytes.iter().filter(|b| **b == b'\n').count() > 1;
        let step = if whole { 4096 } else { step.min(4096) };
        for piece in bytes.chunks(step) {
            self.session.input().space()[..piece.len()].copy_from_slice(piece);
            self.session.input().filled(piece.len());
            self.turn();
        }
    }

    fn turn(&mut self) {
        loop {
            let event = match self.session.next_event() {
                Event::Read => break,
                Event::Close(ending) => {
                    if !self.closed && ending != Ending::Quit {
                        self.events.push_back(format!("{ending:?}"));
                    }
                    self.closed = true;
                    break;
                }
                Event::Helo(helo) => ("HELO", helo.name.clone()),
                Event::Mail(mail) => ("MAIL", mail.sender.to_string()),
                Event::Rcpt(rcpt) => ("RCPT", rcpt.recipient.to_string()),
                Event::Begin(_) => ("DATA", String::new()),
                Event::Content(bytes) => {
                    self.content.extend_from_slice(bytes);
                    continue;
                }
                Event::End { transaction, chunked } => {
                    let size = chunked.map(|size| format!("{size} bytes ")).unwrap_or_default();
                    let to: Vec<_> =
                        transaction.recipients.iter().map(|rcpt| rcpt.recipient.as_str()).collect();
                    self.events.push_back(format!("{} -> {}", transaction.mail.sender, to.join(" ")));
                    ("END", size)
                }
                Event::Abandoned(_) => {
                    self.content.clear();
                    self.events.push_back("abandoned".to_owned());
                    continue;
                }
                Event::Verify(address) => ("VRFY", address.to_string()),
                Event::Auth { mechanism, initial } => {
                    let said =
                        initial.map(|initial| format!(" {}", initial.as_str().unwrap())).unwrap_or_default();
                    let asked = format!("{mechanism}{said}");
                    self.auth(&asked);
                    continue;
                }
                Event::AuthResponse(response) => {
                    let said = response.as_str().unwrap().to_owned();
                    self.auth(&said);
                    continue;
                }
                Event::Other(verb, arguments) => (verb.name(), arguments.to_owned()),
                Event::Unknown(..) => (Verb::Unknown.name(), String::new()),
                Event::Refused(..) => continue,
                Event::Delay => {
                    self.events.push_back("delay".to_owned());
                    continue;
                }
                Event::Notice(Notice::ImproperPipelining { after, said }) => {
                    self.events.push_back(format!("improper command pipelining after {after}: {said}"));
                    continue;
                }
                Event::Notice(Notice::BareNewline { .. }) => {
                    self.events.push_back("bare newline".to_owned());
                    continue;
                }
            };
            self.answer(event.0, &event.1);
        }
        let output = std::mem::take(self.session.output());
        self.replies.extend(String::from_utf8(output).unwrap().split_terminator("\r\n").map(str::to_owned));
    }

    /// A server that lets everybody in who says `LOGIN b2s=`, or `b2s=` to a challenge.
    fn auth(&mut self, said: &str) {
        self.events.push_back(format!("auth {said}"));
        match said {
            "LOGIN" | "LOGIN =" => self.session.challenge("VXNlcm5hbWU6"),
            _ if said.ends_with("b2s=") => {
                let text = "Authentication successful";
                self.session.answer(&Reply::new(235, "2.7.0".parse().unwrap(), text));
            }
            _ => {
                let text = "Error: authentication failed";
                self.session.answer(&Reply::new(535, "5.7.8".parse().unwrap(), text));
            }
        }
    }

    fn answer(&mut self, command: &str, argument: &str) {
        match self.refusal(command, argument) {
            Some(reply) => {
                self.content.clear();
                self.session.answer(&reply);
            }
            None if command == "END" => {
                let content = String::from_utf8_lossy(&std::mem::take(&mut self.content)).into_owned();
                self.delivered
                    .extend(content.split_terminator('\n').map(|line| line.escape_debug().to_string()));
                let text = format!("Ok: {argument}queued as 4XYZ");
                self.session.answer(&Reply::new(250, "2.0.0".parse().unwrap(), text));
            }
            None => self.session.accept(),
        }
    }

    fn refusal(&self, command: &str, argument: &str) -> Option<Reply> {
        let found = self
            .refusals
            .iter()
            .find(|(which, what, _)| which == command && argument.contains(what.as_str()));
        found.map(|(_, _, reply)| reply.clone())
    }
}

/// The `set` and `refuse` lines.
fn read_settings(name: &str, script: &str) -> (Settings, Policy, Vec<(String, String, Reply)>) {
    let (mut settings, mut policy, mut refusals) = (Settings::default(), Policy::default(), Vec::new());
    if auth_offer(script).is_some() {
        policy.extensions = policy.extensions.and(Extensions::AUTH);
    }
    settings.hostname = "mx.example.com".to_owned();
    for line in script.lines() {
        if let Some(rule) = line.strip_prefix("refuse ") {
            let (command, rest) = rule.split_once(' ').unwrap();
            let (what, reply) = match Reply::parse(rest) {
                Some(reply) => ("", reply),
                None => {
                    rest.split_once(' ').map(|(what, reply)| (what, Reply::parse(reply).unwrap())).unwrap()
                }
            };
            refusals.push((command.to_owned(), what.to_owned(), reply));
        }
        let Some((setting, value)) = line.strip_prefix("set ").and_then(|line| line.split_once(" = ")) else {
            continue;
        };
        let number = value.parse::<u32>().unwrap_or(0);
        let yes = value == "yes";
        match setting {
            "line_length_limit" => settings.line_length_limit = number as usize,
            "message_size_limit" => settings.message_size_limit = u64::from(number),
            "smtpd_helo_required" => settings.helo_required = yes,
            "smtpd_tls_security_level" => settings.must_encrypt = value == "encrypt",
            "strict_rfc821_envelopes" => settings.strict_envelopes = yes,
            "resolve_numeric_domain" => settings.numeric_domain = yes,
            "strict_smtputf8" => settings.strict_smtputf8 = yes,
            "soft_bounce" => settings.soft_bounce = yes,
            "disable_vrfy_command" => settings.disable_vrfy = yes,
            "smtpd_recipient_limit" => settings.recipient_limit = number as usize,
            "smtpd_recipient_overshoot_limit" => settings.recipient_overshoot_limit = number,
            "smtpd_soft_error_limit" => settings.soft_error_limit = number,
            "smtpd_hard_error_limit" => settings.hard_error_limit = number,
            "smtpd_junk_command_limit" => settings.junk_command_limit = number,
            "smtpd_noop_commands" => settings.noop_commands = value.split(' ').map(str::to_owned).collect(),
            "smtpd_forbid_unauth_pipelining" => settings.forbid_unauth_pipelining = yes,
            "smtpd_forbid_bare_newline" => {
                policy.bare_newline = match value {
                    "no" => BareNewline::Allow,
                    "note" => BareNewline::Note,
                    "reject" => BareNewline::Reject,
                    _ => BareNewline::Normalize,
                };
            }
            "smtpd_discard_ehlo_keywords" => {
                for keyword in value.split(' ') {
                    policy.extensions = policy.extensions.without(Extensions::from_keyword(keyword).unwrap());
                }
            }
            _ => panic!("{name}: unknown setting {setting}"),
        }
    }
    (settings, policy, refusals)
}

/// The `auth` line: mechanisms, perhaps with `broken`, `needs_tls`, `limit=N`.
fn auth_offer(script: &str) -> Option<AuthOffer> {
    let words = script.lines().find_map(|line| line.strip_prefix("auth "))?;
    let mut offer = AuthOffer { response_limit: 100, ..AuthOffer::default() };
    for word in words.split(' ') {
        match word {
            "broken" => offer.broken_clients = true,
            "needs_tls" => offer.needs_tls = true,
            mechanism => offer.mechanisms = format!("{} {mechanism}", offer.mechanisms).trim().to_owned(),
        }
    }
    Some(offer)
}
