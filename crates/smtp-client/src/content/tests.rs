use config::Config;
use smtp_proto::client::Protocol;

use super::*;
use crate::settings::Own;

/// What becomes of a message under these settings, given in pieces of this size.
fn transformed(settings: &str, to_seven_bits: bool, message: &str, step: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    let main = format!("compatibility_level = 3.6\nmyhostname = mail.example.com\nalias_maps =\n{settings}");
    std::fs::write(folder.path().join("main.cf"), main).unwrap();
    std::fs::write(folder.path().join("master.cf"), "").unwrap();
    let (config, _) = Config::load(folder.path()).unwrap();
    let own = Own { config: &config, protocol: Protocol::Smtp };
    let generic = own.get(config::param::SMTP_GENERIC_MAPS);
    let rules = Transformer {
        id: "4hLv2p4lmqz5Bj".parse().unwrap(),
        generic: &Generic::from_config(&config, "smtp_generic_maps", &generic).unwrap(),
        checks: &Checks::new(&own).unwrap(),
        to_seven_bits,
    };
    let mut passage = Passage::new(&rules);
    for piece in message.as_bytes().chunks(step) {
        passage.take(piece, false).unwrap();
    }
    passage.take(b"", true).unwrap();
    String::from_utf8(passage.out).unwrap()
}

fn however_cut(settings: &str, to_seven_bits: bool, message: &str) -> String {
    let whole = transformed(settings, to_seven_bits, message, message.len().max(1));
    for step in [1, 2, 7] {
        assert_eq!(transformed(settings, to_seven_bits, message, step), whole);
    }
    whole
}

#[test]
fn nothing_changes_that_nobody_asked_to_change() {
    for message in ["", "\n", "A: b\n", "no header\n", "A: b\n\nbody ä\n.\n", "A: b\n c\n\n\n\nno end"] {
        assert_eq!(however_cut("", true, message), message);
    }
}

#[test]
fn declared_eight_bit_parts_become_quoted_printable() {
    let message = "MIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\nContent-Type: multipart/mixed; boundary=b\n\n\
                   --b\nContent-Transfer-Encoding: 8BIT (really)\n\nä=\n--b\nContent-Type: text/plain\n\nä\n\
                   --b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: x\n\
                   Content-Transfer-Encoding: binary\n\nö\n--b\nContent-Type: message/partial\n\
                   Content-Transfer-Encoding: 8bit\n\nü\n--b--\n";
    let expected = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 7bit\n\n\
                   --b\nContent-Transfer-Encoding: quoted-printable\n\n=C3=A4=3D\n--b\nContent-Type: text/plain\n\nä\n\
                   --b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: 7bit\n\nSubject: x\n\
                   Content-Transfer-Encoding: quoted-printable\n\n=C3=B6\n--b\nContent-Type: message/partial\n\
                   Content-Transfer-Encoding: 8bit\n\nü\n--b--\n";
    assert_eq!(however_cut("", true, message), expected);
    assert_eq!(however_cut("", false, message), message);
}

#[test]
fn an_international_message_is_encoded_as_a_whole() {
    let message = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/global\n\
                   Content-Transfer-Encoding: 8bit\n\nSubject: ü\nContent-Transfer-Encoding: 8bit\n\nä\n--b\n\
                   Content-Transfer-Encoding: 8bit\n\nö\n--b--\n";
    let expected = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/global\n\
                   Content-Transfer-Encoding: quoted-printable\n\nSubject: =C3=BC\nContent-Transfer-Encoding: 8bit\n\n\
                   =C3=A4\n--b\nContent-Transfer-Encoding: quoted-printable\n\n=C3=B6\n--b--\n";
    assert_eq!(however_cut("", true, message), expected);
    assert_eq!(however_cut("", false, message), message);
}

#[test]
fn checks_and_generic_addresses_change_what_they_name() {
    let settings = "smtp_header_checks = inline:{ { A: 1 = IGNORE }, { B: 1 = REPLACE B: 2 }, { C: 1 = PREPEND X: y }, \
                    { D: 1 = REJECT no } }\nsmtp_mime_header_checks = inline:{ { Content-Id: z = STRIP } }\n\
                    smtp_body_checks = inline:{ { secret = REPLACE public }, { gone = IGNORE } }\n\
                    smtp_generic_maps = inline:{ { joe@here.example = joe@example.com } }\n";
    let message = "A: 1\nB: 1\nC: 1\nD: 1\nContent-Id: z\nTo: Joe <joe@here.example>,\n other@example.net\nSubject: joe@here.example\n\n\
                   secret\ngone\nleft\n";
    let expected = "B: 2\nX: y\nC: 1\nD: 1\nTo: Joe <joe@example.com>,\n other@example.net\nSubject: joe@here.example\n\n\
                    public\nleft\n";
    assert_eq!(however_cut(settings, false, message), expected);
}
