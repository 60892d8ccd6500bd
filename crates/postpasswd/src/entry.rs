//! A password from whoever sits there, unseen, or from standard input.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use smtp_proto::sasl::Secret;

use crate::Failure;

/// Reads a password once: to compare it.
pub(crate) fn ask_once(name: &str) -> Result<Secret, Failure> {
    if !io::stdin().is_terminal() {
        return read_line();
    }
    let quiet = Quiet::begin()?;
    let password = prompt(&format!("Password of {name}: "));
    drop(quiet);
    password
}

/// Reads a password twice from a terminal, once from anything else: to keep it.
pub(crate) fn ask_twice(name: &str) -> Result<Secret, Failure> {
    if !io::stdin().is_terminal() {
        return read_line();
    }
    let quiet = Quiet::begin()?;
    let first = prompt(&format!("Password for {name}: "))?;
    let second = prompt("The same again: ")?;
    drop(quiet);
    if first == second { Ok(first) } else { Err(Failure::data("the passwords are not the same".to_owned())) }
}

fn prompt(text: &str) -> Result<Secret, Failure> {
    let mut err = io::stderr();
    let _ = write!(err, "{text}").and_then(|()| err.flush());
    let password = read_line();
    let _ = writeln!(err);
    password
}

/// A line without its end.
fn read_line() -> Result<Secret, Failure> {
    let most = u64::try_from(passwords::MAX_PASSWORD).unwrap_or(u64::MAX) + 2;
    let mut line = Vec::with_capacity(passwords::MAX_PASSWORD + 2);
    let read = io::stdin().lock().take(most).read_until(b'\n', &mut line);
    read.map_err(|error| Failure::data(format!("read the password: {error}")))?;
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(Secret::new(line))
}

/// While it lives, the terminal does not show what is typed.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> Result<Self, Failure> {
        let failed = |error: nix::Error| Failure::data(format!("switch the terminal's echo off: {error}"));
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &quiet).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSAFLUSH, &self.0);
    }
}
