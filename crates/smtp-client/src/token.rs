//! Access tokens of OAuth 2: from a file that somebody else keeps fresh, or from a command that prints one.
//!
//! Either holds a bare token in its first line, or a JSON object as authorization servers send it (RFC 6749 section 5.1):
//! `access_token`, and `expires_in` in seconds or `expires_at` since the Unix epoch. A file is read whenever a session
//! logs in, so that a new token counts at once. A command is run when there is no token, when it expires, and when a
//! server refused it; but at most once a minute where that is likely to give the same: a token that never served.

use std::collections::HashMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use smtp_proto::sasl::Secret;

/// The longest token with what stands around it.
const MAX_SIZE: u64 = 64 * 1024;

/// Between two runs of a command.
const PAUSE: Duration = Duration::from_secs(60);

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A token is not used in its last moments, or its second half where it lives no longer: it must still be good when the
/// server looks at it.
const MARGIN: Duration = Duration::from_secs(60);

/// A token that expires sooner is used on for so long.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// Where a token comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Token {
    File(String),
    Command(String),
}

/// The tokens that commands gave.
pub(crate) struct Tokens {
    /// Between two runs of a command.
    pause: Duration,
    commands: Mutex<HashMap<String, Arc<Mutex<Fresh>>>>,
}

/// What is known of a command's token.
#[derive(Default)]
struct Fresh {
    token: Option<Secret>,
    good_until: Option<Instant>,
    /// A server has taken it.
    has_served: bool,
    last_run: Option<Instant>,
    error: String,
}

/// What an authorization server sends.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
    expires_at: Option<u64>,
}

impl Token {
    /// Reads what stands in place of a password; none where it is one.
    pub(crate) fn parse(password: &str) -> Option<Self> {
        let file = password.strip_prefix("token-file:").map(|path| Self::File(path.to_owned()));
        file.or_else(|| password.strip_prefix("token-command:").map(|line| Self::Command(line.to_owned())))
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self { pause: PAUSE, commands: Mutex::default() }
    }
}

impl Tokens {
    /// The token, as good as it can be had now.
    ///
    /// # Errors
    /// Why there is none; nothing secret is in it.
    pub(crate) fn get(&self, token: &Token) -> Result<Secret, String> {
        match token {
            Token::File(path) => from_file(path),
            Token::Command(line) => {
                let fresh = self.of(line);
                let mut fresh = fresh.lock().unwrap_or_else(PoisonError::into_inner);
                let stale = fresh.good_until.is_some_and(|end| Instant::now() >= end);
                if stale {
                    // However short it lives, it is not asked for more often than each second.
                    fresh.run(line, self.pause.min(SHORTEST_LIFE));
                } else if fresh.token.is_none() {
                    fresh.run(line, self.pause);
                }
                fresh.token.clone().ok_or_else(|| fresh.error.clone())
            }
        }
    }

    /// A server took the token.
    pub(crate) fn taken(&self, token: &Token) {
        if let Token::Command(line) = token {
            self.of(line).lock().unwrap_or_else(PoisonError::into_inner).has_served = true;
        }
    }

    /// A server refused the token. True where there is another now.
    pub(crate) fn refused(&self, token: &Token) -> bool {
        let Token::Command(line) = token else { return false };
        let fresh = self.of(line);
        let mut fresh = fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let before = fresh.token.take();
        let pause = if fresh.has_served { Duration::ZERO } else { self.pause };
        fresh.run(line, pause);
        match (&before, &fresh.token) {
            (Some(before), Some(now)) => **before != **now,
            _ => false,
        }
    }

    fn of(&self, line: &str) -> Arc<Mutex<Fresh>> {
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(commands.entry(line.to_owned()).or_default())
    }
}

impl Fresh {
    /// Runs the command, unless it was run a moment ago.
    fn run(&mut self, line: &str, pause: Duration) {
        if self.last_run.is_some_and(|last| last.elapsed() < pause) {
            if self.token.is_none() && self.error.is_empty() {
                self.error = "the token was refused, and its command ran less than a minute ago".to_owned();
            }
            return;
        }
        self.last_run = Some(Instant::now());
        self.has_served = false;
        match output_of(line).and_then(|text| parse(&text, &format!("the output of {}", program_of(line)))) {
            Ok((token, lifetime)) => {
                self.good_until =
                    lifetime.map(|time| Instant::now() + time.saturating_sub(MARGIN.min(time / 2)));
                self.token = Some(token);
                self.error.clear();
            }
            Err(error) => {
                self.token = None;
                self.error = error;
            }
        }
    }
}

fn from_file(path: &str) -> Result<Secret, String> {
    let cannot = |error: std::io::Error| format!("read token file {path}: {error}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(MAX_SIZE).read_to_string(&mut text).map_err(cannot)?;
    parse(&text, path).map(|(token, _)| token)
}

/// A token, and how long it is good for, where that is known.
fn parse(text: &str, origin: &str) -> Result<(Secret, Option<Duration>), String> {
    let text = text.trim();
    if !text.starts_with('{') {
        let token = text.lines().next().unwrap_or_default().trim();
        return match token.is_empty() || token.contains(|c: char| c.is_control() || c.is_whitespace()) {
            true => Err(format!("{origin}: there is no token")),
            false => Ok((Secret::from(token), None)),
        };
    }
    // The text of the error would show what was read.
    let granted: Granted = serde_json::from_str(text)
        .map_err(|_| format!("{origin}: the JSON object has no text named access_token"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let until = granted.expires_at.map(|end| Duration::from_secs(end).saturating_sub(now));
    let lifetime = granted.expires_in.map(Duration::from_secs).or(until);
    Ok((Secret::from(granted.access_token), lifetime))
}

/// Whether this is a token as a file or command gives it.
#[doc(hidden)]
#[must_use]
pub fn is_granted(text: &str) -> bool {
    parse(text, "here").is_ok()
}

fn program_of(line: &str) -> &str {
    line.split_ascii_whitespace().next().unwrap_or_default()
}

/// What a command prints. It is run without a shell, in an empty environment but for `PATH`.
fn output_of(line: &str) -> Result<String, String> {
    let program = program_of(line);
    let mut command = Command::new(program);
    command.args(line.split_ascii_whitespace().skip(1));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("run {program}: {error}"))?;
    let stdout = child.stdout.take();
    // Read on a thread of its own: a command that closes its output and goes on would not be waited for in time.
    let reading = std::thread::Builder::new().spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|stdout| stdout.take(MAX_SIZE).read_to_string(&mut text));
        (text, read.is_some_and(|read| read.is_ok()))
    });
    let reading = reading.map_err(|error| {
        let _ = child.kill().and_then(|()| child.wait());
        format!("start a thread that reads what {program} prints: {error}")
    })?;
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(|error| format!("wait for {program}: {error}"))? {
            Some(status) => break status,
            None if Instant::now() >= end => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} took longer than {} seconds", PATIENCE.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    if !status.success() {
        return Err(format!("{program}: {status}"));
    }
    match reading.join() {
        Ok((text, true)) => Ok(text),
        _ => Err(format!("{program}: its output cannot be read")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(secret: &Secret) -> &str {
        secret.as_str().unwrap()
    }

    #[test]
    fn tokens_are_bare_or_json() {
        assert_eq!(text(&parse("abc\nrest\n", "x").unwrap().0), "abc");
        let (token, lifetime) =
            parse("{\"access_token\": \"t\", \"expires_in\": 3600, \"scope\": 1}", "x").unwrap();
        assert_eq!((text(&token), lifetime), ("t", Some(Duration::from_secs(3600))));
        for wrong in ["", "a b", "{", "{\"access_token\": 1}"] {
            let error = parse(wrong, "FILE").unwrap_err();
            assert!(error.starts_with("FILE: "), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::File(path.display().to_string());
        let tokens = Tokens::default();
        assert!(tokens.get(&token).unwrap_err().contains("read token file"));
        for content in ["one\n", "two\n"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(text(&tokens.get(&token).unwrap()), content.trim());
        }
    }

    #[test]
    fn what_has_expired_is_fetched_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (script, count) = (folder.path().join("script"), folder.path().join("count"));
        let object = "{\\\"access_token\\\": \\\"t$(wc -l < COUNT)\\\", \\\"expires_in\\\": $(cat LIFE)}";
        let line = format!("echo x >> COUNT; echo \"{object}\"");
        let life = folder.path().join("life");
        let line = line.replace("COUNT", &count.display().to_string());
        std::fs::write(&script, line.replace("LIFE", &life.display().to_string())).unwrap();
        let token = Token::parse(&format!("token-command:/bin/sh {}", script.display())).unwrap();
        let tokens = Tokens { pause: Duration::ZERO, ..Tokens::default() };
        for (seconds, expected) in [("0", "t1"), ("60", "t2"), ("3600", "t2")] {
            std::fs::write(&life, seconds).unwrap();
            assert_eq!(text(&tokens.get(&token).unwrap()), expected, "{seconds}");
        }
    }

    #[test]
    fn a_command_runs_once_a_minute_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let (script, count) = (folder.path().join("script"), folder.path().join("count"));
        std::fs::write(&script, format!("echo x >> {0}; cat {0} | wc -l", count.display())).unwrap();
        let token = Token::parse(&format!("token-command:/bin/sh {}", script.display())).unwrap();
        let tokens = Tokens::default();
        assert_eq!(text(&tokens.get(&token).unwrap()), "1");
        assert_eq!(text(&tokens.get(&token).unwrap()), "1");
        assert!(!tokens.refused(&token));
        assert!(tokens.get(&token).unwrap_err().contains("less than a minute"));
        // When time has passed, there is another token, with which a refused login is tried once more.
        let tokens = Tokens { pause: Duration::ZERO, ..Tokens::default() };
        assert_eq!(text(&tokens.get(&token).unwrap()), "2");
        assert!(tokens.refused(&token));
        assert_eq!(text(&tokens.get(&token).unwrap()), "3");
        // One that has served is worth asking for another at once.
        let tokens = Tokens::default();
        assert_eq!(text(&tokens.get(&token).unwrap()), "4");
        tokens.taken(&token);
        assert!(tokens.refused(&token) && !tokens.refused(&token));
        let failing = Token::Command("/bin/false".into());
        assert!(tokens.get(&failing).unwrap_err().contains("/bin/false"));
    }
}
