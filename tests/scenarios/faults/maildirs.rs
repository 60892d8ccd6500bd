//! Maildirs where a file without a name cannot be made, or gets none: each way to `new/` that is left is gone.

use std::fs;

use scenarios::{Call, Strace, Tracing, is_root, messages};

use crate::site::{NOTE, send, usual};

/// What fails, which calls of a thread, and the call by which the message comes to its place then.
const WAYS: [(&str, &str, &str, (&str, &str)); 5] = [
    // NFS, some FUSE.
    ("openat", "EOPNOTSUPP", "1", MOVED),
    // A kernel that does not know the flag: nobody may write to a folder.
    ("openat", "EISDIR", "1", MOVED),
    // Who confines programs may forbid it.
    ("linkat", "EPERM", "1+", MOVED),
    // Linux before 6.10.
    ("linkat", "ENOENT", "1", ("linkat", "\"/proc/self/fd/")),
    // The same where /proc is not mounted.
    ("linkat", "ENOENT", "1+", MOVED),
];

/// From `tmp/`.
const MOVED: (&str, &str) = ("renameat2", "RENAME_NOREPLACE");

#[test]
fn mail_comes_into_a_maildir_that_takes_no_file_without_a_name() {
    if !is_root("faults in the place of system calls") {
        return;
    }
    // The folder's descriptor is in the calls then, by which strace knows those that it has to do with.
    let site = usual().main("maildir_trusts_journal = no").start();
    let user = format!("{}@example.com", site.user());
    for (agent, recipient, mailbox) in
        [("virtual", "ann@box.example.com", "ann"), ("local", &user, site.user())]
    {
        let maildir = site.maildir(mailbox);
        send(&site, "", &[recipient], NOTE);
        site.wait_for_mail(mailbox, 1);
        for (number, (call, error, when, (way, how))) in (2..).zip(WAYS) {
            let tracing = Tracing {
                calls: "openat,linkat,renameat2".to_owned(),
                about: Some(maildir.join("new")),
                fault: Some(format!("{call}:error={error}")),
                when: when.to_owned(),
            };
            let strace = Strace::attach(&site.pids(agent), &tracing, &site.path("strace"));
            let id = send(&site, "", &[recipient], NOTE);
            let line = site.wait_for_log(&[&id, "status="]);
            let calls = strace.detach();
            let what = format!("{agent} {call} {error} {when}: {calls:?}");
            assert!(line.contains("status=sent (delivered to maildir)"), "{line}; {what}");
            assert!(calls.iter().any(|call| call.is_injected), "{what}");
            let is_the_way =
                |call: &Call| call.name == way && call.text.contains(how) && call.text.ends_with(" = 0");
            assert!(calls.iter().any(is_the_way), "{what}");
            let found = messages(&maildir);
            let whole = found.iter().filter(|mail| mail.ends_with(b"Hello.\n")).count();
            assert_eq!((found.len(), whole), (number, number), "{what}");
            assert_eq!(fs::read_dir(maildir.join("tmp")).unwrap().count(), 0, "{what}");
        }
    }
}
