//! A round of mail that takes every way through the system, and the account of where each message came to.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use scenarios::{Builder, Instance, PATIENCE, Scripted, Smtp, free_port, messages, run};

use super::abroad::{Abroad, MAILBOX};
use crate::screening;
use crate::site::usual;

/// The mark that a message is known by, and the last line of each.
pub(crate) const MARK: &str = "X-Mark: ";
pub(crate) const END: &str = "The end.";

/// How long a client waits for a server that fails.
pub(crate) const SERVER_PATIENCE: Duration = Duration::from_secs(2);

/// Which ways the mail of a round goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ways {
    /// Mailboxes, lists, reports, a relay.
    Usual,
    /// The same, and each message is delivered before it is acknowledged where that can be.
    Early,
    /// LMTP, a command, mail that is discarded or returned by its transport, an address that is verified.
    Other,
    /// In by a port that is screened, past a policy service that is started for each question.
    Screened,
    /// In over TLS past a list of blocked domains, and out over TLS to a host that the DNS knows.
    Abroad,
}

/// A mail system with every agent, and a server that its relay sends to.
pub(crate) struct Site {
    instance: Instance,
    pub(crate) relay: Scripted,
    lmtp: Scripted,
    ways: Ways,
    /// The port that mail comes in by.
    door: u16,
    abroad: Option<Abroad>,
}

impl Deref for Site {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl Site {
    pub(crate) fn start() -> Self {
        Self::with(Ways::Usual)
    }

    pub(super) fn with(ways: Ways) -> Self {
        let (relay, lmtp) = (Scripted::start(&[]), Scripted::start(&[]));
        if ways == Ways::Abroad {
            let (abroad, builder) = Abroad::new();
            let instance = builder.start();
            let door = instance.port;
            return Self { instance, relay, lmtp, ways, door, abroad: Some(abroad) };
        }
        let builder = usual()
            .main("virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ }, { box@box.example.com = box } }")
            .main(&format!("relay_domains = relay.example\nrelay_transport = smtp:[127.0.0.1]:{}", relay.address.port()))
            .main("smtpd_hard_error_limit = 100000\nsmtpd_junk_command_limit = 100000")
            .main("minimal_backoff_time = 1s\nqueue_run_delay = 1s\ntransport_retry_time = 1s\nstale_lock_time = 2s")
            .main("allow_mail_to_files = alias, forward, include")
            .file(
                "aliases",
                "postmaster: $user\n\
                 astray: no-such-user\n\
                 file: $root/mail/file\n\
                 refused: joe@never.example\n\
                 included: :include:$root/etc/members\n\
                 command: \"|/bin/sh $root/etc/keep $root/mail\"\n",
            )
            .file("members", "ann@box.example.com\n")
            // Seen when it is whole, as a Maildir is.
            .file("keep", "part=$(mktemp -p \"$1\") && cat > \"$part\" && mv \"$part\" \"$1/kept.${part##*.}\" || exit 75\n")
            .master("smtp unix - - n - - smtp");
        let screened = free_port();
        let builder = match ways {
            Ways::Usual | Ways::Abroad => builder,
            Ways::Early => builder.main("early_delivery_concurrency = 1"),
            Ways::Other => other_ways(builder, &lmtp),
            Ways::Screened => screened_ways(builder, screened),
        };
        let instance = builder.start();
        let door = if ways == Ways::Screened { screened } else { instance.port };
        Self { instance, relay, lmtp, ways, door, abroad: None }
    }

    /// A client that comes for mail; where clients are tested, one that was never here.
    fn enter(&self, patience: Duration) -> Option<Smtp> {
        match &self.abroad {
            Some(abroad) => heard(abroad.knock_securely()?.within(patience)),
            None => greeted(self.knock()?.within(patience)),
        }
    }

    fn knock(&self) -> Option<Smtp> {
        match (self.ways, &self.abroad) {
            (_, Some(abroad)) => abroad.knock(),
            (Ways::Screened, _) => Smtp::try_connect_from(next_address(), self.door),
            _ => Smtp::try_connect(self.door),
        }
    }

    /// Where a strace writes to.
    pub(super) fn record(&self) -> PathBuf {
        self.path("strace")
    }
}

fn other_ways(builder: Builder, lmtp: &Scripted) -> Builder {
    let routes = "{ lmtp.example = lmtp:inet:[127.0.0.1]:PORT }, { keep.example = keep: }, \
                  { gone.example = discard: }, { never.example = error:5.7.1 not here }";
    let routes = routes.replace("PORT", &lmtp.address.port().to_string());
    builder
        .main(&format!("transport_maps = inline:{{ {routes} }}"))
        .main("relay_domains = relay.example, lmtp.example, keep.example, gone.example")
        .main("smtpd_recipient_restrictions = check_recipient_access inline:{relay.example=reject_unverified_recipient}")
        .main("address_verify_poll_delay = 1s\nsmtpd_client_ban_unknown_recipients = 100000")
        .main("smtpd_client_ban_exceptions =")
        .master("keep unix - n n - - pipe user=$user argv=/bin/sh $root/etc/keep $root/mail")
        .master("lmtp unix - - n - - lmtp\nanvil unix - - n - 1 anvil\nverify unix - - n - 1 verify")
}

/// Each client is tested anew, and each question gets a program of its own.
fn screened_ways(builder: Builder, port: u16) -> Builder {
    let answer = "while read line; do test -n \"$line\" || break; done\nprintf 'action=DUNNO\\n\\n'\n";
    builder
        .main("postscreen_access_list =\npostscreen_greet_action = enforce")
        .main("postscreen_greet_wait = 1s\nsmtpd_peername_lookup = no")
        .main("smtpd_recipient_restrictions = check_policy_service unix:private/policy")
        .main("smtpd_policy_service_request_limit = 1\nsmtpd_policy_service_try_limit = 1")
        .file("policy", answer)
        .master("policy unix - n n - 0 spawn user=$user argv=/bin/sh $root/etc/policy")
        .master(&screening::services(&format!("127.0.0.1:{port}")))
}

/// A message: its sender, its recipients, text, and where it must come to.
type Sent = (String, Vec<String>, String, &'static [&'static str]);

fn messages_of(site: &Site) -> Vec<Sent> {
    let user = format!("{}@example.com", site.user());
    let to = |recipients: &[&str]| recipients.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    if site.ways == Ways::Other {
        // One that nothing is known of yet.
        let probed = format!("probe{}@relay.example", next_mark());
        return vec![
            (user.clone(), to(&["joe@lmtp.example"]), String::new(), &["lmtp"]),
            (user.clone(), to(&["joe@keep.example"]), String::new(), &["kept"]),
            (user.clone(), to(&["joe@gone.example"]), String::new(), &[]),
            (user.clone(), to(&["refused@example.com"]), String::new(), &["bounce"]),
            (user, vec![probed], String::new(), &["relay"]),
        ];
    }
    if site.ways == Ways::Screened {
        return vec![
            (user.clone(), to(&["ann@box.example.com"]), String::new(), &["ann"]),
            (user, to(&["joe@relay.example"]), String::new(), &["relay"]),
        ];
    }
    if site.ways == Ways::Abroad {
        let (sender, recipient) = Abroad::addresses();
        return vec![
            (sender.clone(), to(&["joe@box.example.com"]), String::new(), &["ann"]),
            (sender, vec![recipient], String::new(), &[MAILBOX]),
        ];
    }
    let long = "0123456789 0123456789 0123456789 0123456789 0123456789\r\n".repeat(2000);
    vec![
        (String::new(), to(&["ann@box.example.com", "box@box.example.com"]), String::new(), &["ann", "box"]),
        (user.clone(), to(&[&user, "file@example.com"]), long, &["user", "file"]),
        (user.clone(), to(&["included@example.com", "command@example.com"]), String::new(), &["ann", "kept"]),
        (user.clone(), to(&["astray@example.com"]), String::new(), &["bounce"]),
        (user, to(&["joe@relay.example"]), String::new(), &["relay"]),
    ]
}

/// What was acknowledged, and where it must come to.
#[derive(Default)]
pub(super) struct Round {
    owed: Vec<(String, &'static str)>,
    /// Replies that were no acknowledgement.
    pub(super) refused: Vec<String>,
}

impl Round {
    /// Sends everything, and does not wait for what becomes of it.
    pub(super) fn send(site: &Site) -> Self {
        Self::send_within(site, SERVER_PATIENCE)
    }

    /// The same, for a server that is only slow: it may take so long for each reply.
    pub(super) fn send_within(site: &Site, patience: Duration) -> Self {
        let mut round = Self::default();
        let (mut client, mut is_gone) = (None, false);
        for (sender, recipients, text, places) in messages_of(site) {
            let mark = next_mark();
            if client.is_none() && !is_gone {
                client = site.enter(patience);
                is_gone = client.is_none();
            }
            let content = format!("From: jane@client.example\r\n{MARK}{mark}\r\n\r\n{text}{END}\r\n.");
            match client.as_mut().map(|client| transfer(client, &sender, &recipients, &content)) {
                Some(Ok(())) => round.owed.extend(places.iter().map(|place| (mark.clone(), *place))),
                Some(Err(reply)) => {
                    if reply.starts_with("lost") || reply.starts_with("421") {
                        client = None;
                    }
                    round.refused.push(reply);
                }
                None => round.refused.push("lost connection".into()),
            }
        }
        if site.ways != Ways::Abroad {
            round.submit(site);
        }
        match site.ways {
            Ways::Usual | Ways::Early | Ways::Abroad => {}
            Ways::Other => guess(site),
            Ways::Screened => rush(site),
        }
        list(site);
        round
    }

    fn submit(&mut self, site: &Site) {
        let mark = next_mark();
        let mail = format!("Subject: submitted\n{MARK}{mark}\n\n{END}\n");
        let output = site.run("sendmail", &[site.user()], &mail);
        if output.status == 0 {
            self.owed.push((mark, "user"));
        } else {
            self.refused.push(format!("sendmail {} {}", output.status, output.stderr));
        }
    }

    /// Has those programs come up that only work brings.
    pub(super) fn wake(site: &Site) {
        drop(site.knock());
        // Where there is such a service.
        let _ = UnixStream::connect(site.path("queue/private/policy"));
        site.run("postqueue", &["-j"], "");
        site.try_all();
    }

    /// Gives the fault its time: until all is done, or nothing more happens.
    pub(super) fn wait_a_little(&self, site: &Site) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(300) && !self.missing(site).is_empty() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until everything has come to its place and nothing is on its way, and clears the places: how many were
    /// delivered more often than once.
    pub(super) fn settle(&mut self, site: &Site) -> Result<usize, String> {
        let began = Instant::now();
        loop {
            let (missing, waiting) = (self.missing(site), waiting(site));
            if missing.is_empty() && waiting.is_empty() {
                break;
            }
            if began.elapsed() > PATIENCE / 2 {
                let error = format!("{missing:?} are missing, {waiting:?} wait\n{}", tail(&site.log()));
                // The next point begins anew.
                site.run("postsuper", &["-d", "ALL"], "");
                clear(site);
                return Err(error);
            }
            if began.elapsed() > Duration::from_millis(100) {
                site.try_all();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let found = found(site)?;
        clear(site);
        let twice = self.owed.iter().filter_map(|owed| found.get(owed)).map(|count| count - 1).sum();
        Ok(twice)
    }

    fn missing(&self, site: &Site) -> Vec<(String, &'static str)> {
        let found = found(site).unwrap_or_default();
        self.owed.iter().filter(|owed| !found.contains_key(*owed)).cloned().collect()
    }
}

/// Asks for the list of the queue; who fails may not answer at all.
fn list(site: &Site) {
    let mut command = site.command("timeout");
    command.arg(SERVER_PATIENCE.as_secs().to_string()).arg(site.path("sbin/postqueue")).arg("-j");
    let _ = run(command, b"");
}

/// Asks for a recipient that nobody knows, of which anvil is told.
fn guess(site: &Site) {
    if let Some(mut client) = site.enter(SERVER_PATIENCE) {
        client.try_command("MAIL FROM:<>");
        client.try_command("RCPT TO:<no-such-user@example.com>");
    }
}

/// Speaks before its turn, and is refused whatever it says.
fn rush(site: &Site) {
    if let Some(client) = site.knock() {
        let mut client = client.within(SERVER_PATIENCE);
        for line in ["EHLO client.example", "MAIL FROM:<>", "RCPT TO:<ann@box.example.com>", "QUIT"] {
            client.try_command(line);
        }
    }
}

pub(crate) fn next_mark() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(1000);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// An address of this host that nobody else has come from.
fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0x7f01_0001);
    NEXT.fetch_add(1, Ordering::Relaxed).into()
}

/// The last lines of the log that tell of trouble.
pub(crate) fn tail(log: &str) -> String {
    let quiet = ["status=sent", "message-id=", ": removed", "client=", "from="];
    let lines: Vec<&str> = log.lines().filter(|line| !quiet.iter().any(|word| line.contains(word))).collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

pub(crate) fn open(port: u16, patience: Duration) -> Option<Smtp> {
    greeted(Smtp::try_connect(port)?.within(patience))
}

fn greeted(mut client: Smtp) -> Option<Smtp> {
    client.try_read_reply().filter(|greeting| greeting.code == 220)?;
    heard(client)
}

fn heard(mut client: Smtp) -> Option<Smtp> {
    (client.try_command("EHLO client.example")?.code == 250).then_some(client)
}

/// Transfers a message; the error is the first reply that refuses it.
pub(crate) fn transfer(
    client: &mut Smtp,
    sender: &str,
    recipients: &[impl AsRef<str>],
    content: &str,
) -> Result<(), String> {
    let mut lines = vec![format!("MAIL FROM:<{sender}>")];
    lines.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{}>", recipient.as_ref())));
    lines.extend(["DATA".to_owned(), content.to_owned()]);
    for line in lines {
        let Some(reply) = client.try_command(&line) else { return Err("lost connection".into()) };
        if reply.code >= 400 {
            client.try_command("RSET");
            return Err(format!("{} {}", reply.code, reply.text()));
        }
    }
    Ok(())
}

/// The messages in the queue, and in maildrop/. What was never finished is none: the next start removes it.
pub(crate) fn waiting(site: &Site) -> Vec<String> {
    waiting_in(&site.path("queue"))
}

pub(super) fn waiting_in(queue: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["maildrop", "incoming", "active", "deferred", "hold"] {
        collect_finished(&queue.join(folder), &mut names);
    }
    names
}

fn collect_finished(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() {
            collect_finished(&entry.path(), names);
        } else if found.mode() & 0o100 != 0 {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
}

/// How often each message came to each place; the error is a piece of a message.
pub(crate) fn found(site: &Site) -> Result<BTreeMap<(String, &'static str), usize>, String> {
    let mut all: Vec<(&'static str, String)> = Vec::new();
    let text = |mail: Vec<u8>| String::from_utf8_lossy(&mail).into_owned();
    let far = site.abroad.iter().flat_map(|abroad| messages(&abroad.server.maildir(MAILBOX)));
    all.extend(far.map(|mail| (MAILBOX, text(mail))));
    all.extend(messages(&site.maildir("ann")).into_iter().map(|mail| ("ann", text(mail))));
    all.extend(
        messages(&site.maildir(site.user()))
            .into_iter()
            .map(text)
            .map(|mail| (if mail.starts_with("Return-Path: <>") { "bounce" } else { "user" }, mail)),
    );
    for (place, path) in [("box", site.path("mail/box")), ("file", site.path("mail/file"))] {
        all.extend(in_mbox(&path).into_iter().map(|mail| (place, mail)));
    }
    for (place, server) in [("relay", &site.relay), ("lmtp", &site.lmtp)] {
        for session in server.sessions() {
            let taken =
                session.split("\r\n.\r\n").filter(|piece| piece.contains(MARK) && piece.ends_with(END));
            all.extend(taken.map(|mail| (place, mail.to_owned())));
        }
    }
    let kept = kept(site).into_iter().filter_map(|path| fs::read_to_string(path).ok());
    all.extend(kept.map(|mail| ("kept", mail)));
    let mut found = BTreeMap::new();
    for (place, mail) in all {
        // The postmaster is told of sessions that a fault has broken off.
        if mail.starts_with("Return-Path: <double-bounce@") || mail.contains("Transcript of session") {
            continue;
        }
        let mark = mail.lines().find_map(|line| line.strip_prefix(MARK)).unwrap_or_default().trim_end();
        if mark.is_empty() || (place != "bounce" && !mail.trim_end().ends_with(END)) {
            return Err(format!("half a message at {place}: {mail}"));
        }
        *found.entry((mark.to_owned(), place)).or_default() += 1;
    }
    Ok(found)
}

/// The files that the command of the pipe has made.
fn kept(site: &Site) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.path("mail")).into_iter().flatten().filter_map(Result::ok);
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kept.")))
        .collect()
}

fn in_mbox(path: &Path) -> Vec<String> {
    // While it is being written its end may be seen: who reads an mbox has to lock it.
    let Ok(file) = fs::File::open(path) else { return Vec::new() };
    if file.lock_shared().is_err() {
        return Vec::new();
    }
    let text = fs::read_to_string(path).unwrap_or_default();
    let pieces = text.split("\n\nFrom ").filter(|piece| !piece.is_empty());
    pieces.map(str::to_owned).collect()
}

fn clear(site: &Site) {
    let far = site.abroad.iter().map(|abroad| abroad.server.maildir(MAILBOX));
    for mailbox in ["ann", site.user()].into_iter().map(|user| site.maildir(user)).chain(far) {
        for folder in ["new", "cur"] {
            let entries = fs::read_dir(mailbox.join(folder)).into_iter().flatten();
            entries.filter_map(Result::ok).for_each(|entry| drop(fs::remove_file(entry.path())));
        }
    }
    kept(site).iter().for_each(|path| drop(fs::remove_file(path)));
    for file in ["mail/box", "mail/file"] {
        if let Ok(file) = fs::OpenOptions::new().write(true).open(site.path(file)) {
            file.set_len(0).expect("empty a mailbox");
        }
    }
}
