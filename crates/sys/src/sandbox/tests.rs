//! Each act runs in a process of its own: this test binary again, told what to do by its environment.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use super::calls::{self, CallSet};
use super::files::{self, Enforced, FileAccess, Reach};
use super::{capabilities, do_without};

const ACT: &str = "SANDBOX_TEST_ACT";

/// Runs this act of [`acts`] in a process of its own.
fn run(act: &str) -> ExitStatus {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "--nocapture", "sandbox::tests::acts"]).env(ACT, act);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.status().unwrap()
}

/// Not a test by itself: what [`run`] has done. A failed assertion shows in the exit status.
#[test]
fn acts() {
    let Ok(act) = std::env::var(ACT) else { return };
    let denied = |error: &std::io::Error| error.raw_os_error() == Some(nix::libc::EPERM);
    match act.as_str() {
        "calls" => {
            calls::confine(&[]).unwrap();
            std::thread::spawn(|| ()).join().unwrap();
            let error = TcpStream::connect("127.0.0.1:9").unwrap_err();
            assert!(denied(&error), "{error}");
            assert!(std::fs::rename("/nonexistent/a", "/nonexistent/b").is_err_and(|error| denied(&error)));
        }
        "internet" => {
            calls::confine(&[CallSet::Internet]).unwrap();
            let error = TcpStream::connect("127.0.0.1:9").unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            assert!(TcpListener::bind("127.0.0.1:0").is_err(), "listen must fail");
        }
        "exec" => {
            calls::confine(&[CallSet::Internet, CallSet::Write]).unwrap();
            let _ = std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true"));
        }
        "other thread" => {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let other = std::thread::spawn(move || {
                wait.recv().unwrap();
                assert!(TcpStream::connect("127.0.0.1:9").is_err_and(|error| denied(&error)));
            });
            calls::confine(&[]).unwrap();
            go.send(()).unwrap();
            other.join().unwrap();
        }
        "files" => {
            let reach = Reach {
                files: Some(vec![
                    (PathBuf::from("/etc"), FileAccess::Read),
                    (PathBuf::from("/nonexistent"), FileAccess::Build),
                ]),
                connect: Some(vec![9]),
                bind: Vec::new(),
            };
            // The test's own folder is made before.
            let enforced = files::confine(&reach).unwrap();
            if enforced == Enforced::Not {
                return;
            }
            assert!(File::open("/etc/passwd").is_ok());
            assert!(File::open("/usr/bin/env").is_err());
            assert!(File::create(std::env::temp_dir().join("sys-sandbox")).is_err());
            if enforced == Enforced::Fully {
                let refused = |port| TcpStream::connect(("127.0.0.1", port)).unwrap_err().kind();
                assert_eq!(refused(9), std::io::ErrorKind::ConnectionRefused);
                assert_eq!(refused(10), std::io::ErrorKind::PermissionDenied);
            }
        }
        "memory" => {
            use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
            calls::confine(&[CallSet::Internet, CallSet::Write, CallSet::Identity]).unwrap();
            let (length, both) = (4096.try_into().unwrap(), ProtFlags::PROT_WRITE | ProtFlags::PROT_EXEC);
            // SAFETY: fresh memory at a place of the kernel's choice, which nothing else uses.
            unsafe {
                assert!(mmap_anonymous(None, length, both, MapFlags::MAP_PRIVATE).is_err());
                let memory =
                    mmap_anonymous(None, length, ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE).unwrap();
                assert!(mprotect(memory, 4096, ProtFlags::PROT_EXEC).is_err());
            }
        }
        "capabilities" => {
            capabilities::keep_only(&[capabilities::Capability::Setuid], true).unwrap();
            assert_eq!(capabilities::held().unwrap() & !(1 << 7), 0);
            let core = nix::sys::resource::Resource::RLIMIT_CORE;
            do_without(&[core]).unwrap();
            assert!(nix::sys::resource::setrlimit(core, 1, 1).is_err());
        }
        _ => unreachable!(),
    }
}

#[test]
fn a_confined_process_can_do_what_it_is_for_and_nothing_else() {
    for act in ["calls", "internet", "other thread", "files", "memory", "capabilities"] {
        assert!(run(act).success(), "{act}");
    }
}

#[test]
fn who_executes_a_program_is_ended() {
    assert_eq!(run("exec").signal(), Some(nix::libc::SIGSYS));
}
