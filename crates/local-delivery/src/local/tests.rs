//! Whole deliveries into scratch folders: a real queue file, real tables, a cleanup service that only listens.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use config::{Config, Snapshot};
use ipc::cleanup::{Begin, Committed, Part, Server};
use mail::{Address, Outcome, QueueId, Status};
use nix::unistd::{Gid, Uid};
use service::Agent;

use super::agent::LocalAgent;
use crate::failure::Failure;
use crate::rights::{User, Users};
use crate::scratch;

const TEXT: &[u8] = b"Subject: hello\n\nFrom here\n";

/// The users of a test, with homes of their own.
struct Listed(Vec<User>);

impl Users for Listed {
    fn by_name(&self, name: &str) -> Result<Option<User>, Failure> {
        Ok(self.0.iter().find(|user| user.name == name).cloned())
    }

    fn by_uid(&self, uid: Uid) -> Result<Option<User>, Failure> {
        Ok(self.0.iter().find(|user| user.uid == uid).cloned())
    }
}

/// A message as cleanup got it.
type Forwarded = (Begin, Vec<u8>);

/// A mail system of one test: users alice and bob, and `nobody` for root's aliases.
struct Site {
    folder: tempfile::TempDir,
    agent: LocalAgent,
    forwarded: Arc<Mutex<Vec<Forwarded>>>,
}

impl Site {
    fn new(main_cf: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let root = folder.path().display();
        let text = format!(
            "queue_directory = {root}/queue\nmyhostname = mail.example.com\nmydomain = example.com\n\
             mydestination = example.com\nmyorigin = example.com\nalias_maps = texthash:{root}/aliases\n\
             home_mailbox = Maildir/\nrecipient_delimiter = +\ncommand_time_limit = 10s\n{main_cf}\n"
        );
        let text = text.replace("ROOT", &root.to_string());
        let snapshot =
            Snapshot { main_cf: text.into_bytes(), master_cf: b"local unix - n n - - local\n".to_vec() };
        let (config, _) = Config::from_snapshot(folder.path(), &snapshot, &[]).unwrap();
        for name in ["queue/public", "home", "spool"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join("aliases"), "").unwrap();
        let forwarded = Arc::new(Mutex::new(Vec::new()));
        let socket = folder.path().join("queue/public/cleanup");
        listen(UnixListener::bind(&socket).unwrap(), Arc::clone(&forwarded));
        let mut agent = LocalAgent::new(&config, "local", ipc::cleanup::Client::new(socket)).unwrap();
        agent.users = Box::new(Listed(users(&folder.path().join("home"))));
        Self { folder, agent, forwarded }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets the aliases; `ROOT` stands for the site's folder.
    fn aliases(self, text: &str) -> Self {
        let text = text.replace("ROOT", &self.folder.path().display().to_string());
        fs::write(self.path("aliases"), text).unwrap();
        // Tables look at most every ten milliseconds whether they have changed.
        std::thread::sleep(Duration::from_millis(30));
        self
    }

    /// Writes a file in a user's home, as that user.
    fn home_file(self, user: &str, name: &str, text: &str) -> Self {
        let path = self.path("home").join(user).join(name);
        fs::write(&path, text.replace("ROOT", &self.folder.path().display().to_string())).unwrap();
        let owner = self.agent.users.by_name(user).unwrap().unwrap();
        chown(&path, Some(owner.uid.as_raw()), Some(owner.gid.as_raw())).unwrap();
        self
    }

    fn deliver(&self, recipient: &str) -> Outcome {
        self.deliver_message(scratch::id(), recipient, TEXT)
    }

    fn deliver_message(&self, id: QueueId, recipient: &str, text: &[u8]) -> Outcome {
        let delivery = scratch::delivery(&self.path("queue-files"), id, text);
        let content = self.agent.open(&delivery).unwrap();
        self.agent.deliver(&delivery, &content, &scratch::recipient(recipient))
    }

    /// The messages in a user's Maildir.
    fn maildir(&self, user: &str) -> Vec<String> {
        let folder = self.path("home").join(user).join("Maildir/new");
        let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    /// The sender and the recipients of the one message that was forwarded.
    fn forwarded(&self) -> (String, Vec<String>, String) {
        let forwarded = self.forwarded.lock().unwrap();
        let [(begin, text)] = forwarded.as_slice() else { panic!("{} messages forwarded", forwarded.len()) };
        let recipients = begin.envelope.recipients.iter().map(|r| r.address.to_string()).collect();
        (begin.envelope.sender.to_string(), recipients, String::from_utf8(text.clone()).unwrap())
    }
}

fn users(home: &Path) -> Vec<User> {
    let root = Uid::effective().is_root();
    let user = |name: &str, uid: u32| {
        let uid = if root { Uid::from_raw(uid) } else { Uid::effective() };
        let gid = if root { Gid::from_raw(uid.as_raw()) } else { Gid::effective() };
        let home = home.join(name);
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
        chown(&home, Some(uid.as_raw()), Some(gid.as_raw())).unwrap();
        User { name: name.to_owned(), uid, gid, home, shell: "/bin/sh".into() }
    };
    vec![user("alice", 61_001), user("bob", 61_002), user("nobody", 65_534)]
}

fn listen(listener: UnixListener, forwarded: Arc<Mutex<Vec<Forwarded>>>) {
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut server = Server::new(socket.unwrap());
            while let Ok(Some(begin)) = server.next_message() {
                let mut text = Vec::new();
                while let Ok(Part::Content(content)) = server.next_part() {
                    text.extend_from_slice(content);
                }
                forwarded.lock().unwrap().push((begin, text));
                server.answer(&Ok(Committed { size: 0 })).unwrap();
            }
        }
    });
}

fn sent(outcome: &Outcome) -> &str {
    assert_eq!(outcome.status, Status::Sent, "{outcome:?}");
    &outcome.text
}

fn bounced(outcome: &Outcome) -> String {
    assert_eq!(outcome.status, Status::Bounced, "{outcome:?}");
    format!("{} {}", outcome.dsn, outcome.text)
}

fn deferred(outcome: &Outcome) -> String {
    assert_eq!(outcome.status, Status::Deferred, "{outcome:?}");
    format!("{} {}", outcome.dsn, outcome.text)
}

#[test]
fn a_user_gets_mail_in_the_maildir_with_the_usual_headers() {
    let site = Site::new("");
    assert_eq!(sent(&site.deliver("Alice@example.com")), "delivered to maildir");
    let [text] = site.maildir("alice").try_into().unwrap();
    let head = "Return-Path: <sender@example.org>\nX-Original-To: Alice@example.com\nDelivered-To: Alice@example.com\n";
    assert_eq!(text, format!("{head}{}", String::from_utf8_lossy(TEXT)));
}

#[test]
fn the_extension_is_taken_off() {
    let site = Site::new("");
    assert_eq!(sent(&site.deliver("alice+lists@example.com")), "delivered to maildir");
    assert_eq!(site.maildir("alice").len(), 1);
}

#[test]
fn an_unknown_user_bounces() {
    let site = Site::new("");
    assert_eq!(bounced(&site.deliver("carol+x@example.com")), "5.1.1 unknown user: \"carol\"");
    assert_eq!(bounced(&site.deliver("@example.com")), "5.1.3 null username in \"@example.com\"");
}

#[test]
fn a_message_that_was_here_before_bounces() {
    let site = Site::new("");
    let id = scratch::id();
    let outcome = site.deliver_message(id, "alice@example.com", b"Delivered-To: ALICE@example.com\n\nx\n");
    assert_eq!(bounced(&outcome), "5.4.6 mail forwarding loop for alice@example.com");
}

#[test]
fn a_chain_of_aliases_ends_in_one_mailbox_without_a_new_message() {
    let site = Site::new("").aliases("postmaster root\nroot alice\n");
    assert_eq!(sent(&site.deliver("postmaster@example.com")), "delivered to maildir");
    assert!(site.maildir("alice")[0].contains("\nDelivered-To: postmaster@example.com\n"));
    assert!(site.forwarded.lock().unwrap().is_empty());
}

#[test]
fn several_addresses_become_one_message() {
    let site = Site::new("")
        .aliases("staff alice, bob, carol@example.org, managers\nmanagers alice, dave@example.net\n");
    let outcome = site.deliver("staff@example.com");
    assert!(sent(&outcome).starts_with("forwarded as "), "{outcome:?}");
    let (sender, recipients, text) = site.forwarded();
    assert_eq!(sender, "sender@example.org");
    assert_eq!(recipients, ["alice@example.com", "bob@example.com", "carol@example.org", "dave@example.net"]);
    assert!(text.starts_with("Delivered-To: staff@example.com\nSubject: hello\n"), "{text}");
    let forwarded = site.forwarded.lock().unwrap();
    let original = forwarded[0].0.envelope.recipients[0].original.as_ref();
    assert_eq!(original.map(Address::as_str), Some("staff@example.com"));
}

#[test]
fn an_owner_becomes_the_sender() {
    let site = Site::new("").aliases("list alice\nowner-list bob\n");
    assert!(sent(&site.deliver("list@example.com")).starts_with("forwarded as "));
    let (sender, recipients, _) = site.forwarded();
    assert_eq!(
        (sender.as_str(), recipients),
        ("owner-list@example.com", vec!["alice@example.com".to_owned()])
    );
    let site = Site::new("expand_owner_alias = yes").aliases("list alice\nowner-list bob\n");
    site.deliver("list@example.com");
    assert_eq!(site.forwarded().0, "bob@example.com");
    let site = Site::new("owner_request_special = no").aliases("list alice\nowner-list bob\n");
    assert_eq!(sent(&site.deliver("list@example.com")), "delivered to maildir");
}

#[test]
fn an_address_in_its_own_expansion_is_the_user() {
    let site = Site::new("").aliases("alice alice, carol@example.org\nbob \\bob\n");
    sent(&site.deliver("alice@example.com"));
    assert_eq!(site.maildir("alice").len(), 1);
    assert_eq!(site.forwarded().1, ["carol@example.org"]);
    assert_eq!(sent(&site.deliver("bob@example.com")), "delivered to maildir");
}

#[test]
fn aliases_in_a_circle_end() {
    let site = Site::new("").aliases("a b\nb a\nc d, e\nd c\ne d\n");
    assert_eq!(bounced(&site.deliver("a@example.com")), "5.4.6 alias database loop for b");
    assert_eq!(bounced(&site.deliver("c@example.com")), "5.4.6 alias database loop for d");
    let itself = Site::new("").aliases("a a\n");
    assert_eq!(bounced(&itself.deliver("a@example.com")), "5.1.1 unknown user: \"a\"");
}

#[test]
fn users_who_forward_to_each_other_are_told_of_the_circle() {
    let site = Site::new("").home_file("alice", ".forward", "bob\n").home_file("bob", ".forward", "alice\n");
    let looped = "5.4.6 mail forwarding loop for alice@example.com";
    assert_eq!(bounced(&site.deliver("alice@example.com")), looped);
    let site = Site::new("").aliases("info alice\n").home_file("alice", ".forward", "info\n");
    assert_eq!(bounced(&site.deliver("info@example.com")), "5.4.6 alias database loop for info");
}

#[test]
fn a_forward_file_names_files_below_the_home() {
    let site = Site::new("").home_file("alice", ".forward", "~/copy\n");
    assert!(sent(&site.deliver("alice@example.com")).ends_with("/home/alice/copy"));
    let site = Site::new("").aliases("box ~/copy\n");
    assert!(deferred(&site.deliver("box@example.com")).contains("~/copy: an alias has no home"));
}

#[test]
fn forward_files_are_followed_and_name_the_mailbox_by_their_owners_name() {
    let site = Site::new("").home_file(
        "alice",
        ".forward",
        "# my mail\nalice, carol@example.org\n\n\"|cat > ROOT/home/alice/copy\"\n",
    );
    sent(&site.deliver("alice@example.com"));
    assert_eq!(site.maildir("alice").len(), 1);
    assert_eq!(site.forwarded().1, ["carol@example.org"]);
    let copy = fs::read_to_string(site.path("home/alice/copy")).unwrap();
    assert!(copy.starts_with("From sender@example.org ") && copy.ends_with("\nFrom here\n"), "{copy}");
}

#[test]
fn the_extension_chooses_the_forward_file() {
    let site = Site::new("").home_file("alice", ".forward+x", "carol@example.org\n");
    let site = site.home_file("alice", ".forward", "");
    assert_eq!(sent(&site.deliver("alice+y@example.com")), "delivered to maildir");
    assert!(sent(&site.deliver("alice+x@example.com")).starts_with("forwarded as "));
}

#[test]
fn an_include_file_is_read_and_its_commands_are_not_allowed() {
    let site = Site::new("").aliases("list :include:ROOT/list\nboth :include:ROOT/list2\n");
    fs::write(site.path("list"), "# members\nalice\nbob, carol@example.org\n").unwrap();
    fs::write(site.path("list2"), "\"|true\"\n/dev/null\n").unwrap();
    assert!(sent(&site.deliver("list@example.com")).starts_with("forwarded as "));
    assert_eq!(site.forwarded().1, ["alice@example.com", "bob@example.com", "carol@example.org"]);
    assert_eq!(bounced(&site.deliver("both@example.com")), "5.7.1 mail to file is restricted");
    let site = Site::new("allow_mail_to_commands = include").aliases("x :include:ROOT/list2\ny \"|true\"\n");
    fs::write(site.path("list2"), "\"|true\"\n").unwrap();
    assert_eq!(sent(&site.deliver("x@example.com")), "delivered to command: true");
    assert_eq!(bounced(&site.deliver("y@example.com")), "5.7.1 mail to command is restricted");
}

#[test]
fn a_missing_include_file_is_told_to_the_sender_and_the_others_get_the_mail() {
    let site = Site::new("").aliases("list carol@example.org, :include:ROOT/none\n");
    assert_eq!(bounced(&site.deliver("list@example.com")), "5.3.5 mail system configuration error");
    assert_eq!(site.forwarded.lock().unwrap().len(), 1);
}

#[test]
fn an_outcome_is_about_the_address_that_an_alias_led_to() {
    let site = Site::new("")
        .aliases("boss alice\ngone nobody-here\nlist alice, carol@example.org\nrun \"|exit 67\"\n");
    let reached = |name: &str| {
        let outcome = site.deliver(&format!("{name}@example.com"));
        outcome.final_recipient.map(|address| address.to_string())
    };
    assert_eq!(reached("alice"), None);
    assert_eq!(reached("boss").as_deref(), Some("alice@example.com"));
    assert_eq!(reached("gone").as_deref(), Some("nobody-here@example.com"));
    assert_eq!(reached("list"), None);
    assert_eq!(reached("run"), None);
}

#[test]
fn an_include_file_that_its_keeper_made_a_link_is_read_with_the_keepers_rights() {
    if !Uid::effective().is_root() {
        return;
    }
    let site = Site::new("").aliases("list :include:ROOT/home/alice/list\n");
    let secret = site.path("secret");
    fs::write(&secret, "hidden@example.org\n").unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    symlink(&secret, site.path("home/alice/list")).unwrap();
    assert_eq!(bounced(&site.deliver("list@example.com")), "5.3.5 mail system configuration error");
    assert!(site.forwarded.lock().unwrap().is_empty());
}

#[test]
fn a_retry_serves_only_what_failed() {
    let site = Site::new("").aliases(
        "list \"|cat >> ROOT/spool/log\", \"|test -e ROOT/spool/mended || exit 75\", carol@example.org\n",
    );
    fs::set_permissions(site.path("spool"), PermissionsExt::from_mode(0o777)).unwrap();
    let id = scratch::id();
    for _ in 0..2 {
        let outcome = site.deliver_message(id, "list@example.com", TEXT);
        assert_eq!(deferred(&outcome), "4.3.0 temporary failure");
    }
    assert!(site.forwarded.lock().unwrap().is_empty());
    fs::write(site.path("spool/mended"), "").unwrap();
    let outcome = site.deliver_message(id, "list@example.com", TEXT);
    assert!(sent(&outcome).starts_with("forwarded as "));
    let log = fs::read_to_string(site.path("spool/log")).unwrap();
    assert_eq!(log.matches("Subject: hello").count(), 1, "{log}");
}

#[test]
fn a_member_that_fails_for_good_is_told_and_the_others_are_served() {
    let site = Site::new("").aliases("list \"|exit 67\", carol@example.org\n");
    assert_eq!(bounced(&site.deliver("list@example.com")), "5.1.1 user unknown");
    assert_eq!(site.forwarded().1, ["carol@example.org"]);
}

#[test]
fn commands_run_as_the_user_with_the_documented_environment() {
    let site = Site::new(
        "mailbox_command = env > ROOT/home/$USER/env; id -u >> ROOT/home/$USER/env; pwd >> $HOME/env",
    );
    assert!(sent(&site.deliver("alice+ext@example.com")).starts_with("delivered to command: env > "));
    let text = fs::read_to_string(site.path("home/alice/env")).unwrap();
    let variables: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let home = site.path("home/alice").display().to_string();
    let instance = site.folder.path().display().to_string();
    let wanted = [
        ("HOME", home.as_str()),
        ("LOGNAME", "alice"),
        ("SHELL", "/bin/sh"),
        ("USER", "alice"),
        ("EXTENSION", "ext"),
        ("DOMAIN", "example.com"),
        ("LOCAL", "alice+ext"),
        ("RECIPIENT", "alice+ext@example.com"),
        ("ORIGINAL_RECIPIENT", "alice+ext@example.com"),
        ("SENDER", "sender@example.org"),
        ("CLIENT_ADDRESS", "192.0.2.1"),
        ("CLIENT_HOSTNAME", "host.example.org"),
        ("PATH", "/usr/bin:/bin"),
        ("MAIL_CONFIG", instance.as_str()),
    ];
    for (name, value) in wanted {
        assert_eq!(variables.get(name), Some(&value), "{name} in {text}");
    }
    assert!(!variables.contains_key("CARGO"), "{text}");
    let uid = site.agent.users.by_name("alice").unwrap().unwrap().uid;
    assert!(text.contains(&format!("\n{uid}\n{}\n", site.path("queue").display())), "{text}");
}

#[test]
fn what_a_sender_chooses_reaches_no_shell() {
    let site = Site::new("mailbox_command = echo $EXTENSION > ROOT/home/$USER/out");
    sent(&site.deliver("alice+$(touch /tmp/x);`id`@example.com"));
    let out = fs::read_to_string(site.path("home/alice/out")).unwrap();
    assert_eq!(out, "__touch_/tmp/x___id_\n");
}

#[test]
fn roots_aliases_act_as_nobody() {
    let site =
        Site::new("").aliases("box ROOT/spool/box\ndir ROOT/spool/dir/\nwho \"|id -u > ROOT/spool/who\"\n");
    fs::set_permissions(site.path("spool"), PermissionsExt::from_mode(0o777)).unwrap();
    let text = format!("delivered to file: {}", site.path("spool/box").display());
    assert_eq!(sent(&site.deliver("box@example.com")), text);
    assert_eq!(sent(&site.deliver("dir@example.com")), "delivered to maildir");
    sent(&site.deliver("who@example.com"));
    if Uid::effective().is_root() {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(site.path("spool/box")).unwrap().uid(), 65_534);
        assert_eq!(fs::metadata(site.path("spool/dir/new")).unwrap().uid(), 65_534);
        assert_eq!(fs::read_to_string(site.path("spool/who")).unwrap(), "65534\n");
    }
}

#[test]
fn a_users_files_are_touched_with_the_users_rights_only() {
    if !Uid::effective().is_root() {
        return;
    }
    let site = Site::new("").home_file("alice", ".forward", "ROOT/protected\n");
    fs::write(site.path("protected"), "").unwrap();
    let text = bounced(&site.deliver("alice@example.com"));
    assert!(
        text.starts_with("5.2.0 cannot append message to file") && text.ends_with("Permission denied"),
        "{text}"
    );
    let missing = Site::new("").aliases("files /no/such/folder/file\n");
    assert!(bounced(&missing.deliver("files@example.com")).starts_with("5.2.0 "));
    let bob = site.path("home/bob");
    symlink(site.path("queue"), bob.join("Maildir")).unwrap();
    assert!(deferred(&site.deliver("bob@example.com")).contains("Permission denied"));
    assert!(!site.path("queue/tmp").exists());
}

#[test]
fn spool_mailboxes_belong_to_their_users() {
    use std::os::unix::fs::MetadataExt;
    let site = Site::new("home_mailbox =\nmail_spool_directory = ROOT/spool");
    assert_eq!(sent(&site.deliver("alice@example.com")), "delivered to mailbox");
    let mailbox = site.path("spool/alice");
    let stat = fs::metadata(&mailbox).unwrap();
    let uid = site.agent.users.by_name("alice").unwrap().unwrap().uid.as_raw();
    assert_eq!((stat.uid(), stat.mode() & 0o777), (uid, 0o600));
    assert!(fs::read_to_string(&mailbox).unwrap().ends_with("\n>From here\n\n"));
    if Uid::effective().is_root() {
        chown(site.path("spool"), None, Some(8)).unwrap();
        fs::set_permissions(site.path("spool"), PermissionsExt::from_mode(0o2775)).unwrap();
        assert_eq!(sent(&site.deliver("bob@example.com")), "delivered to mailbox");
        assert_eq!(fs::metadata(site.path("spool/bob")).unwrap().uid(), 61_002);
        chown(&mailbox, Some(61_002), None).unwrap();
        assert!(deferred(&site.deliver("alice@example.com")).contains("cannot update mailbox"));
    }
}

#[test]
fn an_unknown_user_may_be_sent_to_a_relay() {
    let site = Site::new("luser_relay = $local@fallback.example.org");
    assert!(sent(&site.deliver("carol+x@example.com")).starts_with("forwarded as "));
    assert_eq!(site.forwarded().1, ["carol+x@fallback.example.org"]);
    let site = Site::new("luser_relay = dave");
    assert_eq!(bounced(&site.deliver("carol@example.com")), "5.1.1 unknown user: \"dave\"");
}

#[test]
fn extensions_are_handed_on_where_that_is_wanted() {
    let aliases = "sales alice@example.org, bob@example.org, carol+y@example.org\n";
    let site = Site::new("propagate_unmatched_extensions = alias").aliases(aliases);
    sent(&site.deliver("sales+x@example.com"));
    assert_eq!(site.forwarded().1, ["alice+x@example.org", "bob+x@example.org", "carol+y@example.org"]);
}

#[test]
fn a_dead_transport_or_cleanup_defers() {
    let site = Site::new("mailbox_transport = lmtp:unix:nowhere");
    let text = deferred(&site.deliver("alice@example.com"));
    assert!(
        text.starts_with("4.3.0 mail transport lmtp unavailable: no service of that name in master.cf"),
        "{text}"
    );
    let site = Site::new("").aliases("x carol@example.org\n");
    fs::remove_file(site.path("queue/public/cleanup")).unwrap();
    assert!(deferred(&site.deliver("x@example.com")).contains("unable to forward message"));
}

#[test]
fn a_table_that_cannot_be_asked_defers() {
    let site = Site::new("alias_maps = fail:broken");
    assert!(deferred(&site.deliver("alice@example.com")).contains("alias database unavailable"));
}

#[test]
fn an_alias_of_ten_thousand_is_one_message() {
    let members: Vec<String> = (0..10_000).map(|n| format!("user{n}")).collect();
    let site = Site::new("").aliases(&format!("all {}\n", members.join(", ")));
    assert!(sent(&site.deliver("all@example.com")).starts_with("forwarded as "));
    assert_eq!(site.forwarded().1.len(), 10_000);
}

#[test]
fn what_a_pattern_matched_never_gets_into_a_command() {
    let site = Site::new("alias_maps = regexp:{{/^run-(.*)$$/ \"|$$1\"}, {/^fixed/ \"|true\"}}");
    assert_eq!(bounced(&site.deliver("run-id@example.com")), "5.1.1 unknown user: \"run-id\"");
    assert_eq!(sent(&site.deliver("fixed@example.com")), "delivered to command: true");
}

#[test]
fn an_ordinary_users_instance_delivers_to_that_user_only() {
    let mut site = Site::new("");
    let alice = site.agent.users.by_name("alice").unwrap().unwrap();
    site.agent.instance = crate::rights::Instance::of_user(alice.uid.as_raw());
    if Uid::effective().is_root() {
        let text = deferred(&site.deliver("bob@example.com"));
        assert!(
            text.starts_with("4.3.5 cannot deliver as uid 61002: this mail system was started by uid 61001"),
            "{text}"
        );
        assert!(site.maildir("bob").is_empty());
    }
}

#[test]
fn a_full_disk_makes_mail_wait() {
    let site = Site::new("").aliases("full /dev/full\n");
    let text = deferred(&site.deliver("full@example.com"));
    assert_eq!(
        text,
        "4.3.1 cannot append message to file /dev/full: error writing message: No space left on device"
    );
}

#[test]
fn a_backslash_leads_to_the_mailbox() {
    let site = Site::new("").aliases("alice carol@example.org\n").home_file("alice", ".forward", "bob\n");
    assert_eq!(sent(&site.deliver("\\alice+x@example.com")), "delivered to maildir");
    assert_eq!(site.maildir("alice").len(), 1);
    assert_eq!(bounced(&site.deliver("\\carol@example.com")), "5.1.1 unknown user: \"carol\"");
}
