use super::*;

/// Keeps what it takes, and counts what had no end.
#[derive(Default)]
struct Kept(Vec<(String, String)>, usize);

impl Taker for Kept {
    fn take(&mut self, envelope: Envelope, content: &mut dyn Read) -> Result<(), Failure> {
        let recipients: Vec<String> = envelope.recipients.iter().map(Address::to_path).collect();
        let body = if envelope.eight_bit { " 8bit" } else { "" };
        let envelope = format!("{} > {}{body}", envelope.sender.to_path(), recipients.join(" "));
        if envelope.starts_with("refused@") {
            content.read_exact(&mut [0; 3]).unwrap();
            return Err(Failure::new(Exit::Temporary, "not now"));
        }
        let mut text = String::new();
        let read = content.read_to_string(&mut text);
        self.1 += usize::from(read.is_err());
        read.map_err(|error| Failure::new(Exit::Data, error.to_string()))?;
        self.0.push((envelope, text));
        Ok(())
    }
}

fn talk(said: &str) -> (Vec<String>, Kept) {
    talk_bytes(said.as_bytes())
}

fn talk_bytes(said: &[u8]) -> (Vec<String>, Kept) {
    let mut output = Vec::new();
    let mut dialogue = Dialogue {
        input: said,
        output: &mut output,
        taker: Kept::default(),
        envelope: None,
        line: Vec::new(),
    };
    dialogue.run("mail.example.com").unwrap();
    let taker = dialogue.taker;
    let text = String::from_utf8(output).unwrap();
    (text.split_terminator("\r\n").map(str::to_owned).collect(), taker)
}

#[test]
fn messages_are_taken_one_after_another() {
    let (replies, kept) = talk(
        "EHLO [127.0.0.1]\r\nMAIL FROM:<joe@example.com> BODY=8BITMIME SIZE=10\r\nRCPT TO:<a@b.test>\r\n\
         rcpt to: <\"x >y\"@b.test>\r\nDATA\r\nSubject: ü\r\n\r\n..\r\n.a\r\n.\r\n\
         MAIL FROM:<>\nRCPT TO:<c@d>\nDATA\nx\n.\nQUIT\nNOOP\n",
    );
    assert_eq!(replies[0], "220 mail.example.com ESMTP Postroad");
    assert_eq!(replies[4], "250 SMTPUTF8");
    let codes: Vec<&str> = replies[5..].iter().map(|reply| &reply[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "354", "250", "250", "250", "354", "250", "221"]);
    let expected =
        [("joe@example.com > a@b.test \"x >y\"@b.test 8bit", "Subject: ü\n\n.\na\n"), (" > c@d", "x\n")];
    assert_eq!(kept.0, expected.map(|(envelope, text)| (envelope.to_owned(), text.to_owned())));
}

#[test]
fn what_is_out_of_place_is_refused() {
    for (said, code) in [
        ("RCPT TO:<a@b>", "503"),
        ("DATA", "503"),
        ("MAIL FROM:", "501"),
        ("MAIL <a@b>", "501"),
        ("MAIL FROM:<a@b> COLOUR=blue", "555"),
        ("MAIL FROM:<a@b>\nMAIL FROM:<a@b>", "503"),
        ("MAIL FROM:<a@b>\nDATA", "554"),
        ("MAIL FROM:<a@b>\nRCPT TO:<>", "501"),
        ("MAIL FROM:<a@b>\nRCPT TO:<c@d> NOTIFY=NEVER", "555"),
        ("MAIL FROM:<a@b>\nRSET\nRCPT TO:<c@d>", "503"),
        ("HELO x\nAUTH PLAIN", "500"),
    ] {
        let (replies, kept) = talk(&format!("{said}\n"));
        assert_eq!(&replies.last().unwrap()[..3], code, "{said}");
        assert!(kept.0.is_empty(), "{said}");
    }
    let (replies, _) = talk(&format!("NOOP {}\nNOOP\n", "x".repeat(10_000)));
    assert_eq!(replies[1..], ["500 5.5.2 Error: line too long", "250 2.0.0 Ok"]);
}

#[test]
fn a_message_without_an_end_is_not_taken() {
    for said in ["", "x", "x\r\n", "x\r\n."] {
        let (replies, kept) = talk(&format!("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n{said}"));
        assert_eq!((kept.1, &replies.last().unwrap()[..3]), (1, "354"), "{said:?}");
    }
}

#[test]
fn what_is_refused_is_read_over() {
    let (replies, kept) = talk(
        "MAIL FROM:<refused@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.x\r\nmore\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n\
         DATA\r\nx\r\n.\r\n",
    );
    let codes: Vec<&str> = replies[1..].iter().map(|reply| &reply[..3]).collect();
    assert_eq!(codes, ["250", "250", "354", "451", "250", "250", "354", "250"]);
    assert_eq!(kept.0, [("a@b > c@d".to_owned(), "x\n".to_owned())]);
}

#[test]
fn an_address_in_another_encoding_is_not_guessed_at() {
    let (replies, kept) = talk_bytes(b"MAIL FROM:<a@b>\r\nRCPT TO:<jos\xe9@d>\r\nDATA\r\nNOOP\r\n");
    assert_eq!(
        replies[2..],
        ["500 5.5.2 Error: bad UTF-8 syntax", "554 5.5.1 Error: no valid recipients", "250 2.0.0 Ok"]
    );
    assert!(kept.0.is_empty());
}

#[test]
fn long_lines_are_content_whatever_is_in_them() {
    let line = format!("{}.", "y".repeat(usize::try_from(MAX_LINE).unwrap()));
    let (_, kept) = talk(&format!("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n{line}\r\n.\r\n"));
    assert_eq!(kept.0[0].1, format!("{line}\n"));
}
