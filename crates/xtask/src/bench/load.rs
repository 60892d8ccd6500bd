//! The load: Postfix's own smtp-source, from its Debian package.

use std::fmt;

use scenarios::postfix_peer;

use crate::shell::Result;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages.
    pub messages: usize,
    /// Simultaneous sessions.
    pub sessions: usize,
    /// Bytes in a message.
    pub size: usize,
    /// Recipients of a message.
    pub recipients: usize,
    /// A new connection for each message.
    pub reconnect: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { messages: 20_000, sessions: 50, size: 4096, recipients: 1, reconnect: false }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.reconnect { "a new connection for each" } else { "connections kept open" };
        write!(f, "{} messages of {} bytes, {} sessions, {kind}", self.messages, self.size, self.sessions)
    }
}

impl Load {
    /// Sends everything to this port. With several recipients, each gets a number before the address.
    pub fn send(&self, port: u16, recipient: &str) -> Result<()> {
        let numbers =
            [("-s", self.sessions), ("-m", self.messages), ("-l", self.size), ("-r", self.recipients)];
        let mut source = postfix_peer("smtp-source");
        for (option, number) in numbers {
            source.args([option, &number.to_string()]);
        }
        source.args(["-f", "sender@example.net", "-t", recipient]);
        if !self.reconnect {
            source.arg("-d");
        }
        let output = source.arg(format!("inet:127.0.0.1:{port}")).output();
        let output = output.map_err(|e| format!("run smtp-source: {e}"))?;
        if output.status.success() && output.stderr.is_empty() {
            return Ok(());
        }
        Err(format!("smtp-source: {} {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}
