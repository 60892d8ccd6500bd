//! The relay that mail is sent to: Postfix's own smtp-sink, from its Debian package.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::User;
use scenarios::postfix_peer;

use super::system::MAIL_OWNER;
use crate::shell::Result;

/// A relay that takes everything. Dropping it ends it.
pub struct Sink {
    program: Child,
    taken: Arc<AtomicUsize>,
    folder: Option<PathBuf>,
}

impl Sink {
    /// Starts one at this port, with these options.
    pub fn start(port: u16, options: &[&str]) -> Result<Self> {
        Self::start_in(port, options, None)
    }

    /// Starts one that keeps what it took, so that it can be asked whether everything came once.
    pub fn start_keeping(port: u16) -> Result<Self> {
        // In memory where that is possible: what is measured is not this disk.
        let base = Some(PathBuf::from("/dev/shm")).filter(|path| path.is_dir());
        let folder = base.unwrap_or_else(std::env::temp_dir);
        let folder = folder.join(format!("postroad-bench-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|e| format!("create {}: {e}", folder.display()))?;
        let owner = User::from_name(MAIL_OWNER).ok().flatten().map(|user| user.uid.as_raw());
        chown(&folder, owner, None).map_err(|e| format!("chown {}: {e}", folder.display()))?;
        let file = folder.join("mail").display().to_string();
        Self::start_in(port, &["-D", &file], Some(folder))
    }

    fn start_in(port: u16, options: &[&str], folder: Option<PathBuf>) -> Result<Self> {
        let mut command = postfix_peer("smtp-sink");
        command.args(["-c", "-u", MAIL_OWNER]).args(options);
        command.args([&format!("127.0.0.1:{port}"), "1000"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut program = command.spawn().map_err(|e| format!("run smtp-sink: {e}"))?;
        // Mail that was sent on before it listens would wait for minutes.
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > Duration::from_secs(30) {
                let _ = program.kill();
                return Err(format!("smtp-sink does not listen at port {port}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let taken = Arc::new(AtomicUsize::new(0));
        if let Some(counts) = program.stdout.take() {
            let taken = Arc::clone(&taken);
            std::thread::spawn(move || follow(counts, &taken));
        }
        Ok(Self { program, taken, folder })
    }

    /// How many messages it took.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many different messages it took, of those that it kept.
    pub fn different(&self) -> Result<usize> {
        let Some(folder) = &self.folder else { return Ok(0) };
        let text = fs::read(folder.join("mail")).map_err(|e| format!("read what the relay took: {e}"))?;
        let lines = text.split(|byte| *byte == b'\n');
        let ids: HashSet<&[u8]> = lines.filter(|line| is_message_id(line)).collect();
        Ok(ids.len())
    }
}

fn is_message_id(line: &[u8]) -> bool {
    line.get(..11).is_some_and(|name| name.eq_ignore_ascii_case(b"Message-Id:"))
}

/// Reads `sess=1 quit=1 mesg=1\r` again and again.
fn follow(mut counts: ChildStdout, taken: &AtomicUsize) {
    let (mut buffer, mut line) = ([0; 4096], Vec::new());
    while let Ok(read @ 1..) = counts.read(&mut buffer) {
        for byte in &buffer[..read] {
            if *byte != b'\r' {
                line.push(*byte);
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            if let Some(count) = text.rsplit("mesg=").next().and_then(|count| count.trim().parse().ok()) {
                taken.store(count, Ordering::Relaxed);
            }
            line.clear();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir_all(Path::new(folder));
        }
    }
}
