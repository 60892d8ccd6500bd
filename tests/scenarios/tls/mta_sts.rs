//! MTA-STS (RFC 8461): policies on a web server decide, unless DANE does.

use scenarios::{Builder, Network, Postfix, is_root};

use super::certificates;

/// A domain below `sts.example`: the mode of its policy, the mail exchanger that the policy names, which certificate the web server
/// has, which the mail exchanger, its TLSA record where there is one, and what the log must say.
const CASES: [(&str, &str, &str, &str, &str, &str, &str); 8] = [
    ("enforced", "enforce", "mx.enforced", "good", "good", "", "Verified TLS"),
    ("starred", "enforce", "*.starred", "good", "good", "", "Verified TLS"),
    ("untrusted", "enforce", "mx.untrusted", "good", "self", "", "Server certificate not verified"),
    (
        "unlisted",
        "enforce",
        "mx.elsewhere",
        "good",
        "good",
        "",
        "does not name the host mx.unlisted.sts.example",
    ),
    ("testing", "testing", "mx.testing", "good", "self", "", "status=sent"),
    ("unlisted-testing", "testing", "mx.elsewhere", "good", "good", "", "status=sent"),
    // Who cannot be believed has no policy.
    ("impostor", "enforce", "mx.elsewhere", "self", "self", "", "status=sent"),
    ("danish", "enforce", "mx.elsewhere", "good", "self", "3 1 1 @self", "Verified TLS"),
];

/// Serves one policy for each name, under its certificate.
const WEB_SERVER: &str = r#"
import http.server, ssl, sys
folder = sys.argv[1]
policies = dict(case.split("=", 1) for case in sys.argv[2:])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        mode, mx, _ = policies[self.headers["Host"]].split(",")
        text = f"version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n".encode()
        self.send_response(200 if self.path == "/.well-known/mta-sts.txt" else 404)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
contexts = {}
for certificate in ["web", "self"]:
    contexts[certificate] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    contexts[certificate].load_cert_chain(f"{folder}/{certificate}.chain")
def choose(socket, name, context):
    if name and policies[name].split(",")[2] == "self":
        socket.context = contexts["self"]
contexts["web"].sni_callback = choose
server = http.server.ThreadingHTTPServer(("0.0.0.0", 443), Answer)
server.socket = contexts["web"].wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

#[test]
fn policies_of_domains_are_kept() {
    if !is_root("hosts with MTA-STS") {
        return;
    }
    let mut network = Network::new();
    let authority = certificates();
    let names = |first: &str| CASES.map(|(name, ..)| format!("{first}.{name}.sts.example"));
    let (web_names, mx_names) = (names("mta-sts"), names("mx"));
    authority.issue("web", &web_names.each_ref().map(String::as_str));
    authority.issue("good", &mx_names.each_ref().map(String::as_str));
    let (good, bad) = (network.host("good.example.net"), network.host("bad.example.net"));
    let web = network.host("web.example.net");
    let mut zone = String::new();
    let mut policies = Vec::new();
    for (name, mode, mx, web_key, key, tlsa, _) in CASES {
        let address = if key == "good" { good.ip } else { bad.ip };
        zone += &format!("{name} MX 10 mx.{name}\nmx.{name} A {address}\nmta-sts.{name} A {}\n", web.ip);
        zone += &format!("_mta-sts.{name} TXT \"v=STSv1; id=1;\"\n");
        if !tlsa.is_empty() {
            zone += &format!(
                "_25._tcp.mx.{name} TLSA {}\n",
                tlsa.replace("@self", &authority.key_digest("self"))
            );
        }
        policies.push(format!("mta-sts.{name}.sts.example={mode},{mx}.sts.example,{web_key}"));
    }
    network.zone("sender.example", "");
    network.zone("example.net", "");
    network.signed_zone("sts.example", &zone);
    let folder = authority.path("").display().to_string();
    let mut arguments = vec!["-c", WEB_SERVER, &folder];
    arguments.extend(policies.iter().map(String::as_str));
    let _web = web.start("/usr/bin/python3", &arguments);
    let receiver = |host, name: &str| {
        let chain = format!("smtpd_tls_chain_files = {}", authority.path(&format!("{name}.chain")).display());
        let lines = ["mydestination =", "mynetworks = 192.0.2.0/24", "default_transport = discard:"];
        Postfix::start_on(host, &[&lines[..], &["smtpd_tls_security_level = may", &chain]].concat())
    };
    let _receivers = [receiver(&good, "good"), receiver(&bad, "self")];
    let host = network.host("postroad.sender.example");
    scenarios::wait_for("the web server", || host.connect((web.ip, 443).into()).ok().map(drop));
    let site = Builder::new()
        .on(&host)
        .main("inet_protocols = ipv4\nmynetworks = 192.0.2.0/24\nmydestination =")
        .main("smtp_tls_security_level = dane\nsmtp_dns_support_level = dnssec\nsmtp_tls_mta_sts = enforce")
        .main(&format!("smtp_tls_CAfile = {}\nsmtp_tls_loglevel = 1", authority.path("ca.pem").display()))
        .master("smtp unix - - n - - smtp")
        .start();
    for (name, ..) in CASES {
        let mut smtp = super::greeted(host.smtp(host.ip));
        let recipient = format!("user@{name}.sts.example");
        assert_eq!(smtp.message("a@sender.example", &[&recipient], "Subject: x\r\n\r\nbody\r\n").code, 250);
    }
    let cases = CASES.map(|(name, .., says)| (name, says));
    let found = super::wait_for_cases("Postroad", &cases, &|| site.log());
    let said = |name: &str, part: &str| found[name].iter().any(|line| line.contains(part));
    site.wait_for_log(&["to=<user@danish.sts.example>", "status=sent"]);
    site.wait_for_log(&["mx.testing.sts.example", "only testing"]);
    site.wait_for_log(&["mx.unlisted-testing.sts.example", "only testing"]);
    site.wait_for_log(&["MTA-STS policy of impostor.sts.example: get https://mta-sts.impostor.sts.example"]);
    for name in ["untrusted", "unlisted"] {
        assert!(!said(name, "status=sent") && said(name, "dsn=4.7.5, status=deferred"), "{found:#?}");
    }
}
