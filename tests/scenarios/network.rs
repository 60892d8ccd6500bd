//! Hosts with a network and a DNS of their own: what the scenarios of several hosts stand on.

use std::fs;
use std::path::Path;

use scenarios::{Builder, Host, Network, is_root, peer, run};

/// What `dig` says of a name, with the flags of the answer where they are asked for.
fn dig(host: &Host, arguments: &[&str]) -> String {
    let mut command = host.command("dig");
    command.args(["+tries=1", "+time=5"]).args(arguments);
    run(command, b"").stdout
}

#[test]
fn hosts_find_each_other_by_name_and_speak_at_port_25() {
    if !is_root("a network of several hosts") {
        return;
    }
    let mut network = Network::new();
    let mx = network.host("mx1.example.com");
    let client = network.host("client.example.org");
    network.zone("example.com", "@ MX 10 mx1\nalias CNAME mx1");
    network.zone("example.org", "@ MX 0 .\nclient A 192.0.2.77");
    assert_eq!(dig(&client, &["+short", "example.com", "MX"]), "10 mx1.example.com.\n");
    assert_eq!(dig(&client, &["+short", "mx1.example.com", "AAAA"]), format!("{}\n", mx.ipv6));
    assert_eq!(dig(&client, &["+short", "-x", &mx.ip.to_string()]), "mx1.example.com.\n");
    assert_eq!(dig(&client, &["+short", "-x", &mx.ipv6.to_string()]), "mx1.example.com.\n");
    assert_eq!(dig(&client, &["+short", "client.example.org"]), "192.0.2.77\n");
    assert!(dig(&client, &["nowhere.example.com"]).contains("status: NXDOMAIN"));
    assert!(dig(&client, &["nowhere.example.net"]).contains("status: NXDOMAIN"));
    // The C library sees the same.
    let mut getent = client.command("getent");
    getent.args(["ahostsv4", "alias.example.com"]);
    assert!(run(getent, b"").ok().stdout.starts_with("192.0.2.10 "));

    let site = Builder::new().on(&mx).start();
    let mut smtp = client.smtp(mx.ip);
    assert!(smtp.command("EHLO client.example.org").text().starts_with("mx1.example.com"));
    assert_eq!(client.smtp(mx.ipv6).command("QUIT").code, 221);
    site.wait_for_log(&["connect from", "[192.0.2.11]"]);

    network.zone("example.com", "@ MX 20 mx2");
    assert_eq!(dig(&client, &["+short", "example.com", "MX"]), "20 mx2.example.com.\n");
    network.stop_dns();
    assert!(!dig(&client, &["+time=1", "example.com", "MX"]).contains("status:"));
}

#[test]
fn what_is_signed_is_validated() {
    if !is_root("a signed zone") {
        return;
    }
    let mut network = Network::new();
    let host = network.host("host.plain.example");
    network.zone("plain.example", "");
    network.signed_zone("signed.example", "@ MX 10 mx\nmx A 192.0.2.20\n_25._tcp.mx TLSA 3 1 1 00ff");
    network.bogus_zone("bogus.example", "@ MX 10 mx");
    let flags = |name: &str| {
        let text = dig(&host, &["+adflag", "+dnssec", name, "MX"]);
        let line = text.lines().find(|line| line.contains("flags:")).unwrap_or_default();
        (text.contains("status: NOERROR"), line.contains(" ad"))
    };
    assert_eq!(flags("signed.example"), (true, true));
    assert_eq!(flags("plain.example"), (true, false));
    assert_eq!(flags("bogus.example"), (false, false));
}

#[test]
fn what_a_killed_test_has_left_behind_is_removed() {
    if !is_root("stale name spaces") {
        return;
    }
    // No process has this number: the highest is 4194303.
    let stale = "postroad-test-9999999-0-dns";
    let exists = || Path::new("/run/netns").join(stale).exists();
    assert!(peer("ip").args(["netns", "add", stale]).status().unwrap().success());
    let etc = Path::new("/etc/netns").join(stale);
    fs::create_dir_all(&etc).unwrap();
    let mut sleeper = peer("ip").args(["netns", "exec", stale, "sleep", "1000"]).spawn().unwrap();
    scenarios::wait_for("a program to run there", || {
        let pids = peer("ip").args(["netns", "pids", stale]).output().unwrap();
        (!pids.stdout.is_empty()).then_some(())
    });
    let network = Network::new();
    assert!(!exists() && !etc.exists());
    assert!(!sleeper.wait().unwrap().success());
    drop(network);
    let own = format!("postroad-test-{}-", std::process::id());
    let left = fs::read_dir("/etc/netns").unwrap().filter_map(Result::ok);
    // Other tests of this process have networks, too; none of them is without its name space.
    let left: Vec<_> = left.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let orphan =
        |name: &&String| name.starts_with(&own) && !Path::new("/run/netns").join(name.as_str()).exists();
    assert_eq!(left.iter().find(orphan), None);
}
