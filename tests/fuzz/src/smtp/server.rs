//! The server's session, which hears whatever a client says.

use std::sync::Arc;

use smtp_proto::Reply;
use smtp_proto::content::BareNewline;
use smtp_proto::sasl::Secret;
use smtp_proto::server::{AuthOffer, Event, Policy, Session, Settings};

use super::bare_newline;
use crate::pieces::{cut, take_byte};

/// A whole session: the same events, replies and messages however its bytes are cut; no message ends but at the standard's
/// end of data or with its last chunk; replies are whole lines.
pub fn smtp_server(mut data: &[u8]) {
    let options = take_byte(&mut data);
    let seed = take_byte(&mut data);
    let whole = Heard::session(options, data, 0);
    let pieces = Heard::session(options, data, seed | 1);
    assert_eq!(whole.events, pieces.events, "other events when it is cut");
    assert_eq!(whole.messages, pieces.messages, "other messages when it is cut");
    assert_eq!(
        String::from_utf8_lossy(&whole.said),
        String::from_utf8_lossy(&pieces.said),
        "other replies when it is cut"
    );
    assert_replies(&whole.said);
    if bare_newline(options) != BareNewline::Allow {
        let ends = data.windows(5).filter(|five| five == b"\r\n.\r\n").count();
        assert!(whole.by_data <= ends, "a message ended where the standard sees no end of data");
    }
}

/// Every reply is three digits, a blank or hyphen, printable text and a line end.
fn assert_replies(said: &[u8]) {
    assert!(said.is_empty() || said.ends_with(b"\r\n"));
    for line in said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let shown = String::from_utf8_lossy(line);
        let text = line.strip_suffix(b"\r").unwrap_or_default();
        let coded =
            text.len() >= 4 && text[..3].iter().all(u8::is_ascii_digit) && matches!(text[3], b' ' | b'-');
        assert!(coded, "no reply: {shown:?}");
        assert!(!text.iter().any(u8::is_ascii_control), "a control character in the reply {shown:?}");
    }
}

#[derive(Default)]
struct Heard {
    events: Vec<String>,
    messages: Vec<Vec<u8>>,
    content: Vec<u8>,
    said: Vec<u8>,
    by_data: usize,
    closed: bool,
    challenged: bool,
}

impl Heard {
    fn session(options: u8, data: &[u8], seed: u8) -> Self {
        let settings = Settings {
            // What looks improper depends on how bytes arrive together: it must not decide what happens here.
            forbid_unauth_pipelining: false,
            helo_required: options & 4 > 0,
            strict_envelopes: options & 8 > 0,
            soft_bounce: options & 16 > 0,
            message_size_limit: if options & 32 > 0 { 100 } else { 0 },
            line_length_limit: if options & 64 > 0 { 100 } else { 2048 },
            recipient_limit: 5,
            ..Settings::default()
        };
        let policy = Policy { bare_newline: bare_newline(options), ..Policy::default() };
        let mut session = Session::new(Arc::new(settings), policy, vec![0; 4096]);
        session.offer_auth(Some(Arc::new(AuthOffer {
            mechanisms: "PLAIN LOGIN".to_owned(),
            response_limit: 300,
            ..AuthOffer::default()
        })));
        session.greet(&Reply::plain(220, "mx.example.com ESMTP"), "client[192.0.2.1]");
        let mut heard = Self::default();
        heard.turn(&mut session);
        for mut piece in cut(data, seed) {
            while !piece.is_empty() && !heard.closed {
                let space = session.input().space();
                assert!(!space.is_empty(), "there is no room for what comes");
                let length = piece.len().min(space.len());
                space[..length].copy_from_slice(&piece[..length]);
                session.input().filled(length);
                piece = &piece[length..];
                heard.turn(&mut session);
            }
        }
        heard
    }

    fn turn(&mut self, session: &mut Session) {
        loop {
            let event = session.next_event();
            match event {
                Event::Read => break,
                Event::Notice(_) => continue,
                Event::Content(bytes) => {
                    self.content.extend_from_slice(bytes);
                    continue;
                }
                _ => {}
            }
            self.events.push(format!("{event:?}"));
            match event {
                Event::Close(_) => {
                    self.closed = true;
                    break;
                }
                Event::Begin(_) => {
                    self.content.clear();
                    session.accept();
                }
                Event::Rcpt(rcpt) if rcpt.recipient.as_str().starts_with("no") => {
                    session.answer(&Reply::plain(550, "no"));
                }
                Event::End { chunked, .. } => {
                    self.by_data += usize::from(chunked.is_none());
                    self.messages.push(std::mem::take(&mut self.content));
                    session.answer(&Reply::plain(250, "taken"));
                }
                Event::Auth { .. } => {
                    self.challenged = true;
                    session.challenge("VXNlcm5hbWU6");
                }
                Event::AuthResponse(response) => {
                    let right = *response == Secret::from("c2VjcmV0");
                    session.answer(&Reply::plain(if right { 235 } else { 535 }, "that was it"));
                }
                Event::Helo(_) | Event::Mail(_) | Event::Rcpt(_) | Event::Verify(_) | Event::Other(..) => {
                    session.accept();
                }
                Event::Unknown(..) => session.accept(),
                _ => {}
            }
        }
        self.said.append(session.output());
    }
}
