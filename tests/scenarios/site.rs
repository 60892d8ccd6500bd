//! The mail system that most scenarios use, and the steps that they have in common.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scenarios::{Builder, Instance, Smtp, messages, wait_for};

/// A plain message.
pub(crate) const NOTE: &str = "From: jane@client.example\r\nSubject: note\r\n\r\nHello.\r\n";

/// Mail for local users, aliases with all kinds of ends, a domain of virtual aliases and one of virtual mailboxes.
pub(crate) fn usual() -> Builder {
    Builder::new()
        .main("virtual_alias_domains = lists.example.com")
        .main("virtual_alias_maps = hash:$root/etc/virtual")
        .main("virtual_mailbox_domains = box.example.com")
        .main("virtual_mailbox_base = $root/mail")
        .main("virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ } }")
        .main("virtual_uid_maps = static:$uid")
        .main("virtual_gid_maps = static:$gid")
        .main("virtual_minimum_uid = 1")
        .main("smtpd_error_sleep_time = 0")
        .file(
            "aliases",
            "postmaster: $user\n\
             team: $user, ann@box.example.com\n\
             astray: no-such-user\n\
             broken: \"|echo out of order; exit 1\"\n\
             later: \"|exit 75\"\n",
        )
        .table(
            "virtual",
            "admin@lists.example.com  $user\n\
             all@lists.example.com    some@lists.example.com, ann@box.example.com\n\
             some@lists.example.com   few@lists.example.com\n\
             few@lists.example.com    $user\n",
        )
}

/// A client that has said EHLO.
pub(crate) fn greeted(site: &Instance) -> Smtp {
    let mut client = site.smtp();
    client.expect("EHLO client.example", 250);
    client
}

/// Sends a message that must be taken, and gives its queue id.
pub(crate) fn send(site: &Instance, sender: &str, recipients: &[&str], content: &str) -> String {
    let mut client = greeted(site);
    let reply = client.message(sender, recipients, content);
    assert_eq!(reply.code, 250, "{reply:?}");
    client.command("QUIT");
    queue_id(&reply.text())
}

/// The id in `queued as …`.
pub(crate) fn queue_id(reply: &str) -> String {
    reply.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// The only message of a recipient, once it has come and nothing is on its way any more.
pub(crate) fn only_mail(site: &Instance, user: &str) -> String {
    site.wait_for_mail(user, 1);
    site.wait_for_empty_queue();
    let mut found = messages(&site.maildir(user));
    assert_eq!(found.len(), 1, "one message for {user}\n{}", site.log());
    String::from_utf8_lossy(&found.remove(0)).into_owned()
}

/// Sends a message that cannot be delivered yet, waits until it is deferred, and gives its queue id.
pub(crate) fn send_deferred(site: &Instance) -> String {
    let id = send(site, &format!("{}@example.com", site.user()), &["later@example.com"], NOTE);
    wait_for_state(site, &id, "deferred");
    id
}

/// Waits until a message is in this folder of the queue.
pub(crate) fn wait_for_state(site: &Instance, id: &str, state: &str) {
    wait_for(&format!("{id} to be {state}"), || (state_of(site, id).as_deref() == Some(state)).then_some(()));
}

/// The folder that a message is in, as `postqueue -j` has it.
pub(crate) fn state_of(site: &Instance, id: &str) -> Option<String> {
    entry(site, id).and_then(|entry| Some(entry["queue_name"].as_str()?.to_owned()))
}

/// What `postqueue -j` says of a message.
pub(crate) fn entry(site: &Instance, id: &str) -> Option<serde_json::Value> {
    let list = site.run("postqueue", &["-j"], "").ok().stdout;
    let entries = list.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    entries.into_iter().find(|entry: &serde_json::Value| entry["queue_id"] == id)
}

/// Sends every process of a program a signal.
pub(crate) fn signal(site: &Instance, program: &str, signal: Signal) {
    site.pids(program).iter().for_each(|pid| kill(Pid::from_raw(*pid), signal).unwrap());
}
