use super::*;

/// Keeps what it takes.
#[derive(Default)]
struct Kept(Vec<(String, String)>, usize);

impl Taker for Kept {
    type Taking = Vec<u8>;

    fn begin(&mut self, envelope: &Envelope) -> io::Result<Vec<u8>> {
        let recipients: Vec<String> = envelope.recipients.iter().map(Address::to_path).collect();
        let body = if envelope.eight_bit { " 8bit" } else { "" };
        self.0
            .push((format!("{} > {}{body}", envelope.sender.to_path(), recipients.join(" ")), String::new()));
        Ok(Vec::new())
    }

    fn end(&mut self, taking: Vec<u8>) -> String {
        self.0.last_mut().unwrap().1 = String::from_utf8(taking).unwrap();
        "250 2.0.0 Ok".to_owned()
    }

    fn abandon(&mut self, _: Vec<u8>) {
        self.1 += 1;
    }
}

fn talk(said: &str) -> (Vec<String>, Kept) {
    let mut output = Vec::new();
    let mut dialogue = Dialogue {
        input: said.as_bytes(),
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
fn long_lines_are_content_whatever_is_in_them() {
    let line = format!("{}.", "y".repeat(usize::try_from(MAX_LINE).unwrap()));
    let (_, kept) = talk(&format!("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n{line}\r\n.\r\n"));
    assert_eq!(kept.0[0].1, format!("{line}\n"));
}
