//! The load: Postfix's own smtp-source, from its Debian package.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::peers;
use crate::shell::{Result, command};

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages.
    pub messages: usize,
    /// Simultaneous sessions.
    pub sessions: usize,
    /// Bytes in a message.
    pub size: usize,
    /// A new connection for each message.
    pub reconnect: bool,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.reconnect { "a new connection for each" } else { "connections kept open" };
        write!(f, "{} messages of {} bytes, {} sessions, {kind}", self.messages, self.size, self.sessions)
    }
}

/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(300);

impl Load {
    /// Sends everything to this port, and waits until all of it is in the Maildir, which held `before` messages.
    pub fn run(&self, port: u16, recipient: &str, maildir: &Path, before: usize) -> Result<Duration> {
        let began = Instant::now();
        self.send(port, recipient)?;
        while count(maildir) < before + self.messages {
            if began.elapsed() > PATIENCE {
                return Err(format!(
                    "only {} of {} messages arrived",
                    count(maildir) - before,
                    self.messages
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(began.elapsed())
    }

    fn send(&self, port: u16, recipient: &str) -> Result<()> {
        let postfix = peers::unpack_postfix()?;
        let program = postfix.join("usr/sbin/smtp-source").display().to_string();
        let (sessions, messages, size) =
            (self.sessions.to_string(), self.messages.to_string(), self.size.to_string());
        let server = format!("inet:127.0.0.1:{port}");
        let mut arguments =
            vec!["-s", &sessions, "-m", &messages, "-l", &size, "-f", "sender@example.net", "-t", recipient];
        if !self.reconnect {
            arguments.push("-d");
        }
        arguments.push(&server);
        let mut source = command(&program, &arguments);
        let output = source.env("LD_LIBRARY_PATH", postfix.join("usr/lib/postfix")).output();
        let output = output.map_err(|e| format!("run smtp-source: {e}"))?;
        if output.status.success() && output.stderr.is_empty() {
            return Ok(());
        }
        Err(format!("smtp-source: {} {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

fn count(maildir: &Path) -> usize {
    std::fs::read_dir(maildir.join("new")).map_or(0, Iterator::count)
}
