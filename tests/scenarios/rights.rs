//! Who does what with whose rights, in a mail system that root has started.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

use nix::unistd::{Group, User};
use scenarios::{Builder, Instance, is_root, peer, run};

use crate::site::{NOTE, only_mail, send};

/// Users that every Debian has and that nobody uses.
pub(crate) const RECIPIENT: &str = "games";
const MAIL_OWNER: &str = "news";

pub(crate) fn user(name: &str) -> User {
    User::from_name(name).unwrap().unwrap()
}

/// Root's mail system, with a virtual mailbox of the recipient's.
pub(crate) fn roots() -> Builder {
    let number = user(RECIPIENT).uid;
    Builder::new()
        .as_root()
        .main("virtual_mailbox_domains = box.example.com")
        .main("virtual_mailbox_base = $root/mail")
        .main("virtual_mailbox_maps = inline:{ { ann@box.example.com = ann/ }, { root@box.example.com = root/ } }")
        .main(&format!("virtual_uid_maps = inline:{{ {{ ann@box.example.com = {number} }}, {{ root@box.example.com = 0 }} }}"))
        .main("virtual_gid_maps = static:60")
        .main("virtual_minimum_uid = 1")
        .file("aliases", "postmaster: games\nwho: \"|id -nu > $root/mail/who\"\nfile: $root/mail/file\n")
}

/// The effective user of each process of a program.
fn owners(site: &Instance, program: &str) -> Vec<u32> {
    let status = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/status")).ok();
    let uid = |text: String| {
        text.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())
    };
    site.pids(program).iter().filter_map(status).filter_map(uid).collect()
}

#[test]
fn only_those_who_need_them_keep_roots_rights() {
    if !is_root("the rights of the daemons") {
        return;
    }
    let site = roots().start();
    let recipients = ["ann@box.example.com", "games@example.com", "no-such-user@box.example.com"];
    send(&site, "games@example.com", &recipients[..2], NOTE);
    site.run("sendmail", &["-f", "games@example.com", "missing@example.com"], NOTE).ok();
    site.wait_for_mail("ann", 1);
    // The copy, and what bounce has written.
    site.wait_for_mail("games", 2);
    let owner = user(MAIL_OWNER).uid.as_raw();
    let programs = ["master", "local", "virtual", "smtpd", "cleanup", "qmgr", "pickup", "bounce"];
    let found: BTreeMap<_, _> = programs.map(|program| (program, owners(&site, program))).into();
    for (program, owners) in &found {
        let expected = if ["master", "local", "virtual"].contains(program) { 0 } else { owner };
        assert!(!owners.is_empty() && owners.iter().all(|uid| *uid == expected), "{program}: {found:?}");
    }
}

#[test]
fn mail_is_delivered_as_its_recipient() {
    if !is_root("delivery as the recipient") {
        return;
    }
    let site = roots().start();
    send(&site, "jane@client.example", &["ann@box.example.com", "games@example.com"], NOTE);
    site.wait_for_mail("ann", 1);
    site.wait_for_mail("games", 1);
    for mailbox in ["ann", "games"] {
        for folder in ["", "new", "tmp", "cur"] {
            let about = fs::metadata(site.maildir(mailbox).join(folder)).unwrap();
            assert_eq!(
                (about.uid(), about.mode() & 0o777),
                (user(RECIPIENT).uid.as_raw(), 0o700),
                "{mailbox}/{folder}"
            );
        }
        let mail = fs::read_dir(site.maildir(mailbox).join("new"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .metadata()
            .unwrap();
        assert_eq!((mail.uid(), mail.mode() & 0o777), (user(RECIPIENT).uid.as_raw(), 0o600), "{mailbox}");
    }
}

#[test]
fn commands_and_files_of_roots_aliases_are_nobodys() {
    if !is_root("default_privs") {
        return;
    }
    let site = roots().start();
    send(&site, "jane@client.example", &["who@example.com", "file@example.com"], NOTE);
    site.wait_for_empty_queue();
    assert_eq!(fs::read_to_string(site.path("mail/who")).unwrap(), "nobody\n");
    assert_eq!(fs::metadata(site.path("mail/file")).unwrap().uid(), user("nobody").uid.as_raw());
    assert!(fs::read_to_string(site.path("mail/file")).unwrap().ends_with("\nHello.\n\n"));
}

#[test]
fn no_table_makes_virtual_act_as_root() {
    if !is_root("virtual_minimum_uid") {
        return;
    }
    let site = roots().start();
    let id = send(&site, "jane@client.example", &["root@box.example.com"], NOTE);
    site.wait_for_log(&[&id, "to=<root@box.example.com>", "status=deferred"]);
    assert!(!site.maildir("root").exists());
}

/// Gives a program the rights that an installation gives it: a copy, as what is there is a link to what was built.
pub(crate) fn make_set_gid(site: &Instance, program: &str) {
    let (built, copy) = (site.path("sbin").join(program), site.path("sbin/copy"));
    fs::copy(&built, &copy).unwrap();
    fs::rename(&copy, &built).unwrap();
    chown(&built, Some(0), Some(Group::from_name("irc").unwrap().unwrap().gid.as_raw())).unwrap();
    fs::set_permissions(&built, fs::Permissions::from_mode(0o2755)).unwrap();
}

/// Set-gid programs take a configuration from elsewhere only where /etc/postroad/main.cf permits it; so these see one
/// that does, in a name space of their own.
const AS_GAMES: &str = r#"
    root=$1; shift
    mkdir -p $root/upper $root/work
    mount -t overlay overlay -o lowerdir=/etc,upperdir=$root/upper,workdir=$root/work /etc
    mkdir -p /etc/postroad
    echo "alternate_config_directories = $root/etc" >/etc/postroad/main.cf
    MAIL_CONFIG=$root/etc exec setpriv --reuid games --regid games --clear-groups "$@"
"#;

/// A command of an ordinary user, who sees a /etc in which the instance is known.
pub(crate) fn as_games(site: &Instance, command: &[&str]) -> Command {
    let mut shell = peer("unshare");
    shell.args(["--mount", "sh", "-ec", AS_GAMES, "sh", &site.root().display().to_string()]).args(command);
    shell.current_dir("/");
    shell
}

#[test]
fn a_user_submits_mail_through_the_set_gid_postdrop_and_cannot_look_at_others() {
    if !is_root("set-gid postdrop") {
        return;
    }
    // Where only some may submit mail, postdrop sees to that.
    let site = roots().main("authorized_submit_users = !nobody, static:all").start();
    ["postdrop", "postqueue"].iter().for_each(|program| make_set_gid(&site, program));
    let as_games = |command: &[&str], input: &str| run(as_games(&site, command), input.as_bytes());
    let program = |name: &str| site.path("sbin").join(name).display().to_string();
    as_games(&[&program("sendmail"), "ann@box.example.com"], "Subject: from games\n\nHello.\n").ok();
    let mail = only_mail(&site, "ann");
    assert!(mail.contains(&format!("(Postroad, from userid {})", user(RECIPIENT).uid)), "{mail}");
    assert_eq!(as_games(&[&program("mailq")], "").ok().stdout, "Mail queue is empty\n");
    for folder in ["maildrop", "incoming", "deferred", "private"] {
        let path = site.path("queue").join(folder).display().to_string();
        assert_ne!(as_games(&["ls", &path], "").status, 0, "{folder} can be listed by anybody");
    }
}
