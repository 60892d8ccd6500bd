use super::*;

fn session() -> Session {
    let mut session = Session::new(Arc::new(Settings::default()), Policy::default(), vec![0; 4096]);
    session.greet(&Reply::plain(220, "mx"), "client");
    session
}

fn say(session: &mut Session, bytes: &[u8]) {
    session.input().space()[..bytes.len()].copy_from_slice(bytes);
    session.input().filled(bytes.len());
}

fn output(session: &mut Session) -> String {
    String::from_utf8(std::mem::take(session.output())).unwrap()
}

#[test]
fn a_question_without_an_answer_lets_nothing_in() {
    let mut session = session();
    say(&mut session, b"HELO c\r\n");
    assert!(matches!(session.next_event(), Event::Helo(_)));
    output(&mut session);
    assert_eq!(session.next_event(), Event::Close(Ending::Dropped));
    assert_eq!(output(&mut session), "421 4.3.0 localhost Server local error\r\n");
}

#[test]
fn who_is_dismissed_before_the_greeting_is_not_greeted() {
    let mut session = Session::new(Arc::new(Settings::default()), Policy::default(), vec![0; 4096]);
    session.encrypted();
    session.dismiss(&Reply::plain(421, "no certificate"));
    session.greet(&Reply::plain(220, "mx"), "client");
    assert_eq!(session.next_event(), Event::Close(Ending::Dropped));
    assert_eq!(output(&mut session), "421 no certificate\r\n");
}

#[test]
fn a_place_says_how_much_content_came() {
    let mut session = session();
    assert_eq!(session.place(), "CONNECT");
    say(&mut session, b"HELO c\r\n");
    for line in ["MAIL FROM:<>\r\n", "RCPT TO:<a@b>\r\n", "DATA\r\n", "text\r\n"] {
        session.next_event();
        session.accept();
        session.next_event();
        say(&mut session, line.as_bytes());
    }
    assert_eq!(session.next_event(), Event::Content(b"text\n"));
    assert_eq!(session.place(), "DATA (6 bytes)");
    assert_eq!(session.counters().to_string(), " helo=1 mail=1 rcpt=1 commands=3");
}

#[test]
fn no_bytes_make_it_panic_or_stand_still() {
    let words: [&[u8]; 16] = [
        b"EHLO c",
        b"MAIL FROM:<a@b>",
        b"RCPT TO:<a@b>",
        b"DATA",
        b"BDAT 3",
        b"BDAT 0 LAST",
        b"\r\n",
        b"\n",
        b".",
        b"\r",
        b"RSET",
        b"\0",
        b"x",
        b"\xff",
        b" LAST",
        b"BDAT 70000 LAST",
    ];
    let mut number: u64 = 1;
    for round in 0..3000 {
        let settings = Settings { forbid_unauth_pipelining: round % 2 == 0, ..Settings::default() };
        let mut session = Session::new(Arc::new(settings), Policy::default(), vec![0; 4096]);
        session.greet(&Reply::plain(220, "mx"), "client");
        for _ in 0..60 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let word = words[usize::try_from(number >> 40).unwrap() % words.len()];
            say(&mut session, word);
            if number & 1 == 0 {
                say(&mut session, b"\r\n");
            }
            let mut turns = 0;
            loop {
                turns += 1;
                assert!(turns < 1000, "stands still");
                match session.next_event() {
                    Event::Read | Event::Close(_) => break,
                    Event::End { .. } => session.answer(&Reply::plain(250, "Ok")),
                    Event::Begin(_) if number & 2 == 0 => session.answer(&Reply::plain(451, "no")),
                    _ => session.accept(),
                }
            }
            output(&mut session);
        }
    }
}
