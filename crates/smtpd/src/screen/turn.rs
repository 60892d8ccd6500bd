//! What is done about a client that has failed when it has said something: the log, and the words that go back.

use ipc::log;

use super::peer::Shown;
use super::refusing::{Refusing, Step};

/// What there is to do with the connection.
pub(super) enum Turn {
    Wait,
    Say(String),
    /// Say this, and go on encrypted.
    StartTls(String),
    /// Say this, and end.
    End(String),
}

/// The next turn, which is logged; what is to be said is ready for the wire.
pub(super) fn turn(dialogue: &mut Refusing, shown: &Shown) -> Turn {
    loop {
        return match dialogue.step() {
            Step::Read => Turn::Wait,
            Step::Hurry(verb, rest) => {
                let rest = escaped(rest.as_bytes());
                log::info!("COMMAND PIPELINING from {shown} after {verb:.100}: {rest}");
                continue;
            }
            Step::Say(reply) => Turn::Say(dialogue.wire(&reply)),
            Step::Reject(reply, context) => {
                log::info!("NOQUEUE: reject: RCPT from {shown}: {reply}; {context}");
                Turn::Say(dialogue.wire(&reply))
            }
            Step::Offence(what, reply) => {
                log::info!("{what} from {shown}");
                Turn::End(dialogue.wire(&reply))
            }
            Step::StartTls(reply) => Turn::StartTls(dialogue.wire(&reply)),
            Step::End(reply) => Turn::End(dialogue.wire(&reply)),
        };
    }
}

/// As Postfix shows what is not printable: `\r\n`, `\000`.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(100) {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\r' => text.push_str("\\r"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            7 => text.push_str("\\a"),
            8 => text.push_str("\\b"),
            11 => text.push_str("\\v"),
            12 => text.push_str("\\f"),
            32..=126 => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:03o}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bots_say_is_shown_as_text() {
        assert_eq!(escaped(b"EHLO x\r\n\0\\\xff"), "EHLO x\\r\\n\\000\\\\\\377");
    }
}
