//! Addresses made of everything that means something in one: none of them panics, none passes for what it is not.

use std::path::Path;

use config::{Config, Snapshot};
use lookup::{RecipientCheck, RewriteContext, Rewriter};
use mail::Address;

const MAIN_CF: &str = "\
myhostname = mail.example.com
mydestination = $myhostname, localhost
inet_interfaces = 127.0.0.1
virtual_mailbox_domains = box.example
local_recipient_maps =
relay_domains =
recipient_delimiter = +-
append_dot_mydomain = no
resolve_null_domain = yes
resolve_numeric_domain = yes
";
const OURS: [&str; 4] = ["mail.example.com", "localhost", "[127.0.0.1]", "box.example"];
const PIECES: [&str; 24] = [
    "@",
    "@",
    "%",
    "!",
    ".",
    ":",
    ",",
    "\"",
    "\\",
    " ",
    "[",
    "]",
    "+",
    "-",
    "jane",
    "owner-",
    "ü",
    "<",
    "localhost",
    "mail.example.com",
    "box.example",
    "other.example",
    "127.0.0.1",
    "[127.0.0.1]",
];

/// Small and reproducible; the test wants variety, not randomness.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % limit
    }
}

#[test]
fn no_spelling_of_an_address_leads_astray() {
    let snapshot = Snapshot { main_cf: MAIN_CF.as_bytes().to_vec(), master_cf: Vec::new() };
    let (config, _) = Config::inspect(Path::new("/nowhere"), &snapshot, &[]);
    let check = RecipientCheck::new(&config).expect("the check");
    let rewriter = Rewriter::new(&config);
    let mut numbers = Numbers(1);
    for _ in 0..200_000 {
        let length = 1 + numbers.below(9);
        let text: String = (0..length).map(|_| PIECES[numbers.below(PIECES.len())]).collect();
        let address = Address::new(text).expect("an address");

        let standard = rewriter.rewrite(&address, RewriteContext::Local);
        // `!` and `%` alone become `@`, and that the null address.
        if standard.as_str() != "@" {
            assert_eq!(
                rewriter.rewrite(&standard, RewriteContext::Local),
                standard,
                "{address}: rewritten twice"
            );
        }

        let destination = check.resolver().destinations().find(&address).expect("a destination");
        let is_ours = OURS.contains(&destination.domain());
        let permitted = check.relay_permitted(&address).expect("an answer");
        assert!(destination.malformed || !destination.domain().is_empty(), "{address}: no domain");
        assert!(is_ours || !permitted, "{address}: a stranger reaches {}", destination.recipient);
        assert!(
            !(permitted && destination.recipient.local_part().contains(['@', '%', '!'])),
            "{address}: relayed"
        );

        let again = check.resolver().destinations().find(&destination.recipient).expect("a destination");
        assert!(
            destination.malformed || again.recipient == destination.recipient,
            "{address}: {} goes on to {}",
            destination.recipient,
            again.recipient
        );
        check.check(&address, &Address::null()).expect("a verdict");
    }
}
