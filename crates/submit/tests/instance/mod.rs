//! An instance in a scratch folder: a main.cf and a queue, nobody running.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mail::submission::{Head, TRAILER_LENGTH, content_length};

pub(crate) struct Instance {
    folder: tempfile::TempDir,
}

impl Instance {
    /// `more` is appended to main.cf.
    pub(crate) fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
        for part in ["conf", "queue", "queue/maildrop", "queue/public"] {
            std::fs::create_dir(root.join(part)).unwrap();
        }
        let bin = Path::new(env!("CARGO_BIN_EXE_postdrop")).parent().unwrap().display().to_string();
        let queue = root.join("queue").display().to_string();
        let main_cf = format!(
            "compatibility_level = 3.6\nqueue_directory = {queue}\ncommand_directory = {bin}\n{more}\n"
        );
        std::fs::write(root.join("conf/main.cf"), main_cf).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    /// A program of the suite that finds this instance through its environment.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("MAIL_CONFIG", self.path("conf"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn sendmail(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_sendmail"));
        run(command.args(arguments), input.as_ref())
    }

    /// What lies in maildrop: mode and bytes.
    pub(crate) fn files(&self) -> Vec<(u32, Vec<u8>)> {
        let entries =
            std::fs::read_dir(self.path("queue/maildrop")).unwrap().map(|entry| entry.unwrap().path());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        entries.map(|path| (mode(&path), std::fs::read(path).unwrap())).collect()
    }

    /// The one finished message in maildrop.
    pub(crate) fn message(&self) -> (Head, String) {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(files[0].0, 0o744);
        let bytes = &files[0].1;
        let (head, start) = Head::decode(bytes).unwrap().unwrap();
        let end = bytes.len() - TRAILER_LENGTH;
        assert_eq!(content_length(&bytes[end..]), Some((end - start) as u64));
        (head, String::from_utf8(bytes[start..end].to_vec()).unwrap())
    }
}

/// Gives the command its input; one that does not read it is no failure of the test.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Copies a program by another process: one that is open for writing here while another test forks could not be run.
pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}
