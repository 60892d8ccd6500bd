use super::client::{Credentials, Exchange as Client};
use super::scram::{ChannelBinding, Hash, Keys};
use super::server::{Context, Exchange as Server, Reason, Step, Unavailable, Verifier};
use super::*;

/// One user, in every form.
struct User(&'static str, &'static str);

impl Verifier for User {
    fn check(&mut self, username: &str, password: &Secret) -> Result<bool, Unavailable> {
        if username == "broken" {
            return Err(Unavailable("no answer".to_owned()));
        }
        Ok(username == self.0 && **password == *self.1.as_bytes())
    }
    fn scram_keys(&mut self, hash: Hash, username: &str) -> Result<Option<Keys>, Unavailable> {
        let keys = || Keys::derive(hash, self.1.as_bytes(), b"salt and pepper".to_vec(), 4096);
        Ok((username == self.0).then(keys))
    }
    fn password(&mut self, username: &str) -> Result<Option<Secret>, Unavailable> {
        Ok((username == self.0).then(|| Secret::from(self.1)))
    }
    fn check_token(&mut self, username: &str, token: &Secret) -> Result<bool, Unavailable> {
        self.check(username, token)
    }
}

fn context() -> Context {
    let binding = |kind| ChannelBinding { kind, data: vec![0, 44, 255] };
    Context {
        hostname: "mx".to_owned(),
        nonce: "server-nonce".to_owned(),
        bindings: vec![binding("tls-exporter"), binding("tls-server-end-point")],
        plus_offered: true,
        external: Some("tim".to_owned()),
        decoy_seed: Secret::from("seed"),
    }
}

/// The result, and how many challenges it took.
fn run(mut client: Client, mechanism: Mechanism, user: &mut User) -> (Step, usize) {
    let mut server = Server::new(mechanism, context());
    let mut response = client.initial();
    for count in 0.. {
        match server.step(response.as_ref(), user) {
            Step::Challenge(challenge) => response = Some(client.respond(&challenge).unwrap()),
            step => {
                assert_eq!(
                    matches!(step, Step::Accepted(_)),
                    client.succeeded().is_ok() && matches!(step, Step::Accepted(_))
                );
                return (step, count);
            }
        }
    }
    unreachable!()
}

fn client(mechanism: Mechanism, username: &str, password: &str) -> Client {
    let credentials = Credentials { username: username.to_owned(), password: password.into() };
    let binding = context().bindings[0].clone();
    Client::new(mechanism, credentials, "client-nonce".to_owned(), Some(&binding)).unwrap()
}

#[test]
fn both_sides_of_every_mechanism_agree() {
    for mechanism in Mechanism::ALL {
        for (name, password) in [("tim", "tanstaaftanstaaf"), ("a,b=c", "p,w=="), ("jürgen", "paßwort\u{ad}")]
        {
            if mechanism == Mechanism::External && name != "tim" {
                continue;
            }
            let (step, _) = run(client(mechanism, name, password), mechanism, &mut User(name, password));
            assert!(matches!(&step, Step::Accepted(user) if user == name), "{mechanism:?} {name}: {step:?}");
        }
        let (step, _) = run(client(mechanism, "mallory", "x"), mechanism, &mut User("tim", "y"));
        let Step::Refused(refusal) = step else { panic!("{mechanism:?}: {step:?}") };
        assert_eq!(
            refusal.username.as_deref(),
            Some(if mechanism == Mechanism::External { "tim" } else { "mallory" })
        );
    }
}

#[test]
fn a_verifier_without_answer_is_no_wrong_password() {
    for mechanism in [Mechanism::Plain, Mechanism::Login, Mechanism::XOAuth2, Mechanism::OAuthBearer] {
        let (step, _) = run(client(mechanism, "broken", "x"), mechanism, &mut User("tim", "y"));
        let Step::Refused(refusal) = step else { panic!("{step:?}") };
        assert_eq!(refusal.reason, Reason::Unavailable("no answer".to_owned()));
    }
}

fn exchange(mechanism: Mechanism, name: &str, password: &str, nonce: &str) -> Client {
    let credentials = Credentials { username: name.to_owned(), password: password.into() };
    Client::new(mechanism, credentials, nonce.to_owned(), None).unwrap()
}

/// RFC 2195 section 2.
#[test]
fn cram_md5_of_the_rfc() {
    let mut client = exchange(Mechanism::CramMd5, "tim", "tanstaaftanstaaf", "");
    assert!(client.initial().is_none());
    let answer = client.respond(b"<1896.697170952@postoffice.reston.mci.net>").unwrap();
    assert_eq!(answer.as_str(), Some("tim b913a602c7eda7a495b4e6e7334d3890"));
}

/// RFC 5802 section 5 and RFC 7677 section 3.
#[test]
fn scram_of_the_rfcs() {
    for (mechanism, nonce, first, answer, last) in [
        (
            Mechanism::ScramSha1,
            "fyko+d2lbbFgONRv9qkxdawL",
            "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Mechanism::ScramSha256,
            "rOprNGfwEbeRWgbNEkqO",
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ] {
        let mut client = exchange(mechanism, "user", "pencil", nonce);
        assert_eq!(client.initial().unwrap().as_str(), Some(format!("n,,n=user,r={nonce}").as_str()));
        assert_eq!(client.respond(first.as_bytes()).unwrap().as_str(), Some(answer));
        assert_eq!(client.succeeded(), Err(Error::ServerNotProved));
        let mut wrong = last.to_owned();
        wrong.insert(3, 'A');
        assert!(client.respond(wrong.as_bytes()).is_err());
        assert!(client.respond(last.as_bytes()).unwrap().is_empty());
        assert_eq!(client.succeeded(), Ok(()));
    }
}

#[test]
fn a_scram_server_that_weakens_the_exchange_is_left() {
    for challenge in [
        "r=other,s=QSXCR+Q6sek8bf92,i=4096",
        "r=nonce,s=QSXCR+Q6sek8bf92,i=4096",
        "r=nonceX,s=QSXCR+Q6sek8bf92,i=1",
        "r=nonceX,s=QSXCR+Q6sek8bf92,i=4294967295",
        "r=nonceX,s=!,i=4096",
        "m=x,r=nonceX,s=QSXCR+Q6sek8bf92,i=4096",
        "e=no",
        "",
    ] {
        let mut client = exchange(Mechanism::ScramSha256, "user", "pencil", "nonce");
        client.initial();
        assert!(client.respond(challenge.as_bytes()).is_err(), "{challenge}");
    }
}

fn first_step(mechanism: Mechanism, response: &[u8]) -> Step {
    Server::new(mechanism, context()).step(Some(&Secret::new(response.to_vec())), &mut User("tim", "x"))
}

#[test]
fn what_is_not_of_the_mechanism_is_refused() {
    for (mechanism, response) in [
        (Mechanism::Plain, &b"tim"[..]),
        (Mechanism::Plain, b"\0tim"),
        (Mechanism::Plain, b"\0tim\0x\0y"),
        (Mechanism::Plain, b"\0tim\0\xff"),
        (Mechanism::Plain, b"root\0tim\0x"),
        (Mechanism::Login, b"\0"),
        (Mechanism::External, b"root"),
        (Mechanism::CramMd5, b"tim 0"),
        (Mechanism::XOAuth2, b"user=tim\x01auth=Basic x\x01\x01"),
        (Mechanism::XOAuth2, b"user=\x01auth=Bearer x\x01\x01"),
        (Mechanism::OAuthBearer, b"n,,\x01auth=Bearer x\x01\x01"),
        (Mechanism::ScramSha256, b"n,,n=tim"),
        (Mechanism::ScramSha256, b"n,,m=x,n=tim,r=y"),
        (Mechanism::ScramSha256, b"n,a=root,n=tim,r=y"),
        (Mechanism::ScramSha256, b"x,,n=tim,r=y"),
        (Mechanism::ScramSha256, b"n,,n=ti=2Xm,r=y"),
        // The client believes that the server cannot bind although that was offered: somebody changed the offer.
        (Mechanism::ScramSha256, b"y,,n=tim,r=y"),
        (Mechanism::ScramSha256, b"p=tls-exporter,,n=tim,r=y"),
        (Mechanism::ScramSha256Plus, b"n,,n=tim,r=y"),
        (Mechanism::ScramSha256Plus, b"p=tls-unique,,n=tim,r=y"),
    ] {
        let step = first_step(mechanism, response);
        assert!(matches!(step, Step::Refused(_)), "{mechanism:?} {}: {step:?}", response.escape_ascii());
    }
}

#[test]
fn another_channel_is_noticed() {
    let mut client = client(Mechanism::ScramSha256Plus, "tim", "x");
    let mut context = context();
    context.bindings[0].data = b"other".to_vec();
    let mut server = Server::new(Mechanism::ScramSha256Plus, context);
    let Step::Challenge(challenge) = server.step(client.initial().as_ref(), &mut User("tim", "x")) else {
        panic!()
    };
    let answer = client.respond(&challenge).unwrap();
    let Step::Refused(refusal) = server.step(Some(&answer), &mut User("tim", "x")) else { panic!() };
    assert_eq!(refusal.reason, Reason::ChannelBinding);
}

#[test]
fn an_answer_with_another_nonce_is_no_matter_of_the_channel() {
    let first = |nonce: &str| {
        let mut client = client(Mechanism::ScramSha256Plus, "tim", "x");
        let mut context = context();
        context.nonce = nonce.to_owned();
        let mut server = Server::new(Mechanism::ScramSha256Plus, context);
        let Step::Challenge(challenge) = server.step(client.initial().as_ref(), &mut User("tim", "x")) else {
            panic!()
        };
        (server, client.respond(&challenge).unwrap())
    };
    let ((_, earlier), (mut server, _)) = (first("one"), first("two"));
    let Step::Refused(refusal) = server.step(Some(&earlier), &mut User("tim", "x")) else { panic!() };
    assert_eq!(refusal.reason, Reason::Malformed);
}

#[test]
fn an_unknown_user_is_answered_like_a_known_one() {
    let challenge = |name: &str| match first_step(Mechanism::ScramSha1, format!("n,,n={name},r=y").as_bytes())
    {
        Step::Challenge(challenge) => challenge.as_str().unwrap().to_owned(),
        step => panic!("{step:?}"),
    };
    assert_eq!(challenge("nobody"), challenge("nobody"));
    assert_ne!(challenge("nobody"), challenge("nobodyelse"));
}

#[test]
fn secrets_are_not_shown() {
    let client = client(Mechanism::Plain, "tim", "tanstaaf");
    assert!(!format!("{client:?}").contains("tanstaaf"));
    let keys = Keys::derive(Hash::Sha1, b"x", vec![1], 1);
    assert!(format!("{keys:?}").contains("stored: Secret,"));
}

#[test]
fn base64_has_a_limit() {
    assert!(from_base64(&vec![b'A'; 12_288]).is_ok());
    assert_eq!(from_base64(&vec![b'A'; 12_292]).map(|_| ()), Err(Error::NotBase64));
    assert_eq!(from_base64(b"A===").map(|_| ()), Err(Error::NotBase64));
}

#[test]
fn the_best_allowed_mechanism_is_chosen() {
    let offered: Vec<_> = ["LOGIN", "plain", "CRAM-MD5", "SCRAM-SHA-1", "XOAUTH2"].map(str::to_owned).into();
    let best = |options: &str, can: fn(Mechanism) -> bool| {
        choose(&offered, SecurityOptions::parse(options).unwrap(), can)
    };
    assert_eq!(best("noanonymous", |_| true), Some(Mechanism::ScramSha1));
    assert_eq!(best("nodictionary", |_| true), Some(Mechanism::XOAuth2));
    assert_eq!(best("mutual_auth, noplaintext", |_| true), Some(Mechanism::ScramSha1));
    assert_eq!(best("noplaintext nodictionary", |_| true), None);
    assert_eq!(best("", |m| m == Mechanism::Login || m == Mechanism::Plain), Some(Mechanism::Plain));
    assert_eq!(SecurityOptions::parse("noplain"), Err("noplain".to_owned()));
}
