//! The protocol, against small servers.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use config::{Config, Snapshot};
use mail::Address;

use super::*;
use crate::client::Client;
use crate::names::HostNames;

fn config(main_cf: &str) -> Config {
    let main_cf = format!("compatibility_level = 3.6\nsmtpd_policy_service_retry_delay = 0\n{main_cf}");
    let snapshot = Snapshot { main_cf: main_cf.into_bytes(), master_cf: Vec::new() };
    Config::from_snapshot(Path::new("/etc/postroad"), &snapshot, &[]).unwrap().0
}

/// A server that answers so many requests on each connection; gives its address and the requests, with the number of the
/// connection before each.
fn server(answer: &'static str, requests_each: usize) -> (String, Receiver<(u32, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("inet:{}", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming()) {
            let sender = sender.clone();
            std::thread::spawn(move || {
                serve(stream.unwrap(), answer, requests_each, &|r| drop(sender.send((number, r))))
            });
        }
    });
    (name, received)
}

fn serve(mut stream: TcpStream, answer: &str, requests: usize, received: &dyn Fn(String)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..requests {
        let mut request = String::new();
        while reader.read_line(&mut request).unwrap() > 1 {}
        if request.is_empty() {
            return;
        }
        received(request);
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

fn subject<'a>(client: &'a Client, sender: &'a Address) -> Subject<'a> {
    Subject {
        queue_id: None,
        place: "RCPT",
        client,
        helo: Some("h\n=x"),
        sender: Some(sender),
        recipient: None,
        recipients: 3,
        protocol: "ESMTP",
        out_of_step: false,
        size: 17,
        sasl_sender: "",
        etrn_domain: None,
        instance: 5,
    }
}

fn client() -> Client {
    Client::new("192.0.2.1:99".parse().ok(), "192.0.2.9:25".parse().ok(), &HostNames::disabled())
}

#[test]
fn a_request_has_all_attributes_and_nothing_can_be_smuggled_into_it() {
    let (name, received) = server("action=DEFER_IF_PERMIT later on\n\n", 9);
    let config = config("smtpd_policy_service_policy_context = here");
    let (services, service) = (Services::new(&config), Service::parse(&config, &name).unwrap());
    let (client, sender) = (client(), Address::new("a@b.example").unwrap());
    assert_eq!(services.ask(&service, &subject(&client, &sender)), "DEFER_IF_PERMIT later on");
    let (_, request) = received.recv().unwrap();
    for line in [
        "request=smtpd_access_policy",
        "protocol_state=RCPT",
        "protocol_name=ESMTP",
        "client_address=192.0.2.1",
        "client_name=unknown",
        "client_port=99",
        "reverse_client_name=unknown",
        "server_address=192.0.2.9",
        "server_port=25",
        "helo_name=h?=x",
        "sender=a@b.example",
        "recipient=",
        "recipient_count=0",
        "queue_id=",
        "size=17",
        "etrn_domain=",
        "stress=",
        "sasl_method=",
        "sasl_username=",
        "sasl_sender=",
        "ccert_subject=",
        "ccert_issuer=",
        "ccert_fingerprint=",
        "ccert_pubkey_fingerprint=",
        "encryption_protocol=",
        "encryption_cipher=",
        "encryption_keysize=0",
        "policy_context=here",
        "compatibility_level=3.6",
    ] {
        assert!(request.lines().any(|other| other == line), "{line} in {request}");
    }
    assert!(request.contains("\ninstance="));
    assert!(request.ends_with("\n\n"));
}

#[test]
fn a_connection_is_used_again_and_belongs_to_one_message_at_a_time() {
    let (name, received) = server("action=dunno\n\n", 99);
    let config = config("");
    let (services, service) = (Services::new(&config), Service::parse(&config, &name).unwrap());
    let (client, sender) = (client(), Address::null());
    let first = subject(&client, &sender);
    let ask = |subject: &Subject<'_>| {
        assert_eq!(services.ask(&service, subject), "dunno");
        received.recv().unwrap().0
    };
    assert_eq!((ask(&first), ask(&first)), (0, 0));
    assert_eq!(ask(&Subject { instance: 6, ..first }), 1);
    assert_eq!(ask(&first), 0);
    services.release(5);
    assert_eq!(ask(&Subject { instance: 7, ..first }), 0);
    assert_eq!(ask(&Subject { instance: 6, ..first }), 1);
}

#[test]
fn a_service_that_closes_after_each_answer_is_asked_anew() {
    let (name, received) = server("action=ok\n\n", 1);
    let config = config("");
    let (client, sender) = (client(), Address::null());
    let services = Services::new(&config);
    for settings in ["", ", request_limit=1"] {
        let service = Service::parse(&config, &format!("{{ {name}{settings} }}")).unwrap();
        for _ in 0..3 {
            assert_eq!(services.ask(&service, &subject(&client, &sender)), "ok");
            received.recv().unwrap();
        }
    }
}

#[test]
fn without_an_answer_the_default_action_stands() {
    let config = config("");
    let (client, sender) = (client(), Address::null());
    let services = Services::new(&config);
    let nobody = "inet:127.0.0.1:1";
    for (text, expected) in [
        (nobody.to_owned(), "451 4.3.5 Server configuration problem"),
        (format!("{{ {nobody}, default_action=DUNNO }}"), "DUNNO"),
        (format!("{{ {nobody}, {{ default_action = 450 4.7.1 see us }} }}"), "450 4.7.1 see us"),
        (format!("{{ {nobody}, {{ default_action = check_policy_service x:y }} }}"), LAST_RESORT),
        ("unix:nowhere/at/all".to_owned(), "451 4.3.5 Server configuration problem"),
    ] {
        let service = Service::parse(&config, &text).unwrap();
        assert_eq!(services.ask(&service, &subject(&client, &sender)), expected);
    }
    for answer in ["\n", "foo=bar\n\n", "action=ok\n", "\u{7}"] {
        let (name, _received) = server(answer, 1);
        let service = Service::parse(&config, &format!("{{ {name}, timeout=1s, try_limit=1 }}")).unwrap();
        assert!(services.ask(&service, &subject(&client, &sender)).starts_with("451 "), "{answer:?}");
    }
}
