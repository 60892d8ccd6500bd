//! All daemons and the operator's commands in one file, which packages ship: each is a link to it, and it does what the
//! program of that name does. Programs that run with a group's rights or with a stranger's input on a terminal
//! (postdrop, postqueue, sendmail) are not in it.
//!
//! It has nothing of its own: the programs' main files are its modules.

use std::path::Path;
use std::process::ExitCode;

#[path = "../../anvil/src/main.rs"]
mod anvil;
#[path = "../../bounce/src/bin/bounce.rs"]
mod bounce;
#[path = "../../cleanup/src/bin/cleanup.rs"]
mod cleanup;
#[path = "../../bounce/src/bin/discard.rs"]
mod discard;
#[path = "../../doctor/src/main.rs"]
mod doctor;
#[path = "../../bounce/src/bin/error.rs"]
mod error;
#[path = "../../smtp-client/src/bin/lmtp.rs"]
mod lmtp;
#[path = "../../local-delivery/src/bin/local.rs"]
mod local;
#[path = "../../master/src/main.rs"]
mod master;
#[path = "../../cleanup/src/bin/pickup.rs"]
mod pickup;
#[path = "../../local-delivery/src/bin/pipe.rs"]
mod pipe;
#[path = "../../postmap/src/bin/postalias.rs"]
mod postalias;
#[path = "../../admin/src/bin/postcat.rs"]
mod postcat;
#[path = "../../admin/src/bin/postconf.rs"]
mod postconf;
#[path = "../../admin/src/bin/postlog.rs"]
mod postlog;
#[path = "../../postmap/src/bin/postmap.rs"]
mod postmap;
#[path = "../../postpasswd/src/main.rs"]
mod postpasswd;
#[path = "../../admin/src/bin/postroad.rs"]
mod postroad;
#[path = "../../smtpd/src/bin/postscreen.rs"]
mod postscreen;
#[path = "../../admin/src/bin/postsuper.rs"]
mod postsuper;
#[path = "../../qmgr/src/main.rs"]
mod qmgr;
#[path = "../../admin/src/bin/showq.rs"]
mod showq;
#[path = "../../smtp-client/src/bin/smtp.rs"]
mod smtp;
#[path = "../../smtpd/src/main.rs"]
mod smtpd;
#[path = "../../local-delivery/src/bin/spawn.rs"]
mod spawn;
#[path = "../../verify/src/main.rs"]
mod verify;
#[path = "../../local-delivery/src/bin/virtual.rs"]
mod virtual_mailbox;

/// A program's name, and what it does.
type Program = (&'static str, fn() -> ExitCode);

const PROGRAMS: [Program; 27] = [
    ("anvil", anvil::main),
    ("bounce", bounce::main),
    ("cleanup", cleanup::main),
    ("discard", discard::main),
    ("doctor", doctor::main),
    ("error", error::main),
    ("lmtp", lmtp::main),
    ("local", local::main),
    ("master", master::main),
    ("pickup", pickup::main),
    ("pipe", pipe::main),
    ("postalias", postalias::main),
    ("postcat", postcat::main),
    ("postconf", postconf::main),
    ("postlog", postlog::main),
    ("postmap", postmap::main),
    ("postpasswd", postpasswd::main),
    ("postroad", postroad::main),
    ("postscreen", postscreen::main),
    ("postsuper", postsuper::main),
    ("qmgr", qmgr::main),
    ("showq", showq::main),
    ("smtp", smtp::main),
    ("smtpd", smtpd::main),
    ("spawn", spawn::main),
    ("verify", verify::main),
    ("virtual", virtual_mailbox::main),
];

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    // For scripts that were written for Postfix.
    let name = if name == "postfix" { "postroad" } else { name.as_str() };
    match PROGRAMS.iter().find(|(program, _)| *program == name) {
        Some((_, program)) => program(),
        None => unknown(name),
    }
}

#[expect(clippy::print_stderr, reason = "whoever called it by a wrong name reads it there")]
fn unknown(name: &str) -> ExitCode {
    let programs: Vec<&str> = PROGRAMS.iter().map(|(program, _)| *program).collect();
    eprintln!(
        "{name}: no such program; this file is to be called by one of the names {}",
        programs.join(" ")
    );
    ExitCode::from(64)
}
