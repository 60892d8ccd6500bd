//! Runs a program as a user and hands it the message: `|command` of local(8), `argv=` of pipe(8).
//!
//! Contract: the program runs in a process group of its own, with the uid and gid it is given and no other groups, with
//! exactly the environment it is given, and for no longer than its time limit, after which the whole group is killed.
//! Its exit status says what becomes of the mail (sysexits), unless its output begins with an enhanced status code.
//! Whatever the sender could choose never reaches a shell: a command line is the recipient's or the administrator's own
//! text, and the words of pipe(8) go to the program as they are.

use std::ffi::CString;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mail::Dsn;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Gid, Pid, Uid};
use sys::process::Confinement;

use crate::failure::{Failure, describe};
use crate::letter::Letter;

/// How much of the message is handed over at once.
const CHUNK: usize = 64 * 1024;

/// How much output is kept for the report; the rest is read and dropped.
const MAX_OUTPUT: usize = 4096;

/// A command made of these alone needs no shell.
const PLAIN: &str = "!@%-_=+:,./ \t";

const SHELL: &str = "/bin/sh";

/// How late the end of a program that says nothing more may be noticed.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Where programs are looked for, whatever the mail system's own `PATH`.
pub(crate) const DEFAULT_PATH: &str = "/usr/bin:/bin";

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program<'a> {
    /// A command line, for a shell where it needs one.
    Line {
        /// The text.
        text: &'a str,
        /// `local_command_shell`: this program gets every command as its last argument.
        shell: Option<&'a str>,
    },
    /// A program and its arguments.
    Words(&'a [String]),
}

impl<'a> Program<'a> {
    /// What the log calls it.
    fn name(self) -> &'a str {
        match self {
            Self::Line { text, .. } => text,
            Self::Words(words) => words.first().map_or("", String::as_str),
        }
    }
}

/// What the program reads.
pub(crate) trait Input {
    /// The next piece; an empty one is the end.
    ///
    /// # Errors
    /// What the file says.
    fn next_piece(&mut self) -> io::Result<Vec<u8>>;
}

/// A message as it is, behind some fields of its own.
pub(crate) struct Prefixed<'a> {
    preamble: Vec<u8>,
    letter: &'a Letter<'a>,
    offset: u64,
}

impl<'a> Prefixed<'a> {
    /// The fields of `preamble` must not be empty.
    pub(crate) fn new(preamble: Vec<u8>, letter: &'a Letter<'a>) -> Self {
        Self { preamble, letter, offset: 0 }
    }
}

impl Input for Prefixed<'_> {
    fn next_piece(&mut self) -> io::Result<Vec<u8>> {
        if !self.preamble.is_empty() {
            return Ok(std::mem::take(&mut self.preamble));
        }
        let piece = self.letter.read_at(self.offset, CHUNK)?;
        self.offset += piece.len() as u64;
        Ok(piece)
    }
}

/// How a program is run.
pub(crate) struct Invocation<'a> {
    /// The program.
    pub(crate) program: Program<'a>,
    /// It sees this folder as the root of all.
    pub(crate) chroot: Option<&'a Path>,
    /// Who runs it; `None` where the mail system's own user is the one.
    pub(crate) identity: Option<(Uid, Gid)>,
    /// The whole environment but for `PATH`.
    pub(crate) environment: &'a [(String, String)],
    /// The folder it runs in.
    pub(crate) directory: &'a Path,
    /// No file that it writes gets larger; 0 for no limit.
    pub(crate) file_size_limit: u64,
    /// How long it may take.
    pub(crate) time_limit: Duration,
}

/// Runs the program with `input`; what it says, on one line.
///
/// # Errors
/// [`Failure`] for every end but exit status 0.
pub(crate) fn run(invocation: &Invocation<'_>, input: &mut dyn Input) -> Result<String, Failure> {
    let name = invocation.program.name();
    let mut child = spawn(invocation)?;
    let deadline = Instant::now() + invocation.time_limit;
    let mut conversation = Conversation::default();
    match conversation.hold(&mut child, input, deadline) {
        Ok(()) | Err(Broken::Late) => {}
        Err(Broken::Message(error)) => return Err(give_up(&mut child, &error, "read the message")),
        Err(Broken::Pipe(error)) => {
            return Err(give_up(&mut child, &error, format_args!("pipe to \"{name}\"")));
        }
    }
    let status = wait(&mut child, deadline);
    let Some(status) = status.map_err(|error| Failure::from_io(&error, "wait for command"))? else {
        kill(&mut child);
        let output = &conversation.kept;
        let text = format!("Command time limit exceeded: \"{name}\"{}", quote_output(output));
        return Err(Failure::bounce(Dsn::new(5, 3, 0), text).of_program(&one_line(output)));
    };
    judge(name, status, &conversation.kept)
}

fn spawn(invocation: &Invocation<'_>) -> Result<Child, Failure> {
    let name = invocation.program.name();
    let spawned = match invocation.program {
        Program::Words(words) => spawn_words(invocation, words.iter().map(String::as_str)),
        Program::Line { text, shell } => spawn_line(invocation, text, shell),
    };
    spawned.map_err(|error| {
        let place = invocation.directory.display();
        let text = format!("execute command \"{name}\" in {place}: {}", describe(&error));
        Failure::defer(Dsn::new(4, 3, 0), text)
    })
}

fn spawn_line(invocation: &Invocation<'_>, words: &str, shell: Option<&str>) -> io::Result<Child> {
    match (shell, plain_words(words)) {
        (Some(shell), _) => spawn_words(invocation, shell.split_whitespace().chain([words])),
        (None, Some(plain)) => match spawn_words(invocation, plain) {
            // `exit 67` and other commands of the shell's own. A program that is named by its path and is not there
            // may come back, as after an upgrade: the mail waits.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && !words.split_whitespace().next().is_some_and(|program| program.contains('/'))
                    && invocation.directory.is_dir() =>
            {
                spawn_words(invocation, [SHELL, "-c", words])
            }
            result => result,
        },
        (None, None) => spawn_words(invocation, [SHELL, "-c", words]),
    }
}

/// The words of a command that has no meaning to a shell beyond them.
fn plain_words(command: &str) -> Option<impl Iterator<Item = &str>> {
    let plain = command.chars().all(|c| c.is_ascii_alphanumeric() || PLAIN.contains(c));
    let words = command.split([' ', '\t']).filter(|word| !word.is_empty());
    (plain && words.clone().next().is_some()).then_some(words)
}

fn spawn_words<'a>(
    invocation: &Invocation<'_>,
    words: impl IntoIterator<Item = &'a str>,
) -> io::Result<Child> {
    let mut words = words.into_iter();
    let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    let (output, its_output) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(words).env_clear().env("PATH", DEFAULT_PATH);
    command.envs(invocation.environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(its_output.try_clone()?).stderr(its_output);
    command.process_group(0);
    let folder = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
    let bounds = Confinement {
        chroot: invocation.chroot.map(folder).transpose()?,
        identity: invocation.identity,
        directory: Some(folder(invocation.directory)?),
        file_size_limit: Some(invocation.file_size_limit).filter(|limit| *limit > 0),
    };
    sys::process::confine(&mut command, bounds);
    let mut child = command.spawn()?;
    // Both of the program's outputs are one pipe; it takes the place of the one that `Child` knows of.
    child.stdout = Some(ChildStdout::from(std::os::fd::OwnedFd::from(output)));
    Ok(child)
}

/// Feeds the program and listens to it at the same time, so that neither side waits for the other for ever.
#[derive(Default)]
struct Conversation {
    input: Option<ChildStdin>,
    output: Option<ChildStdout>,
    kept: Vec<u8>,
}

/// Why a conversation ended before its time.
enum Broken {
    /// The message cannot be read.
    Message(io::Error),
    /// The program cannot be spoken to.
    Pipe(io::Error),
    /// The time limit.
    Late,
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Pipe(error)
    }
}

impl Conversation {
    /// Until the program has the whole message, or wants no more of it, and has said everything. The input of a program
    /// that has not got the whole stays open.
    fn hold(&mut self, child: &mut Child, input: &mut dyn Input, deadline: Instant) -> Result<(), Broken> {
        (self.input, self.output) = (child.stdin.take(), child.stdout.take());
        self.input.as_ref().map_or(Ok(()), set_nonblocking)?;
        self.output.as_ref().map_or(Ok(()), set_nonblocking)?;
        let (mut chunk, mut sent) = (Vec::new(), 0);
        loop {
            if self.input.is_some() && sent == chunk.len() {
                match input.next_piece().map_err(Broken::Message)? {
                    next if next.is_empty() => self.input = None,
                    next => (chunk, sent) = (next, 0),
                }
            }
            let is_over = match (&self.input, &self.output) {
                (_, Some(_)) => false,
                // Somebody else may hold the input open, and not read it.
                (Some(_), None) => child.try_wait()?.is_some(),
                (None, None) => true,
            };
            if is_over {
                return Ok(());
            }
            let (writable, readable) = self.wait(deadline)?;
            if writable {
                sent += self.feed(&chunk[sent..])?;
            }
            if readable {
                self.listen()?;
            }
        }
    }

    /// Waits until something can be done: whether to write, whether to read.
    fn wait(&self, deadline: Instant) -> Result<(bool, bool), Broken> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::Late);
        }
        let longest = if self.output.is_some() { Duration::from_secs(60) } else { LONGEST_PAUSE };
        let timeout = PollTimeout::try_from(left.min(longest) + Duration::from_millis(1));
        let input = self.input.as_ref().map(|input| PollFd::new(input.as_fd(), PollFlags::POLLOUT));
        let output = self.output.as_ref().map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<PollFd<'_>> = input.into_iter().chain(output).collect();
        match poll(&mut fds, timeout.unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let mut next = |is_there: bool| is_there && ready.next().unwrap_or(false);
        Ok((next(self.input.is_some()), next(self.output.is_some())))
    }

    /// Writes some of this: how much.
    fn feed(&mut self, piece: &[u8]) -> io::Result<usize> {
        let Some(input) = &mut self.input else { return Ok(0) };
        match input.write(piece) {
            Ok(count) => Ok(count),
            Err(error) if is_again(&error) => Ok(0),
            // Programs may stop reading when they have seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.input = None;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads some output.
    fn listen(&mut self) -> io::Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let mut buffer = [0; 4096];
        match output.read(&mut buffer) {
            Ok(0) => self.output = None,
            Ok(count) => {
                let room = MAX_OUTPUT - self.kept.len();
                self.kept.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) if is_again(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn is_again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Waits for the end of a program that has closed its output, which is usually there at once.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Kills the whole process group, and takes the program's status so that no zombie stays.
fn kill(child: &mut Child) {
    if let Ok(id) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = child.wait();
}

/// The end of its input would tell a program that it has the whole message: it is killed before that.
fn give_up(child: &mut Child, error: &io::Error, what: impl Display) -> Failure {
    kill(child);
    Failure::from_io(error, what)
}

/// What becomes of the mail.
fn judge(command: &str, status: ExitStatus, output: &[u8]) -> Result<String, Failure> {
    let text = one_line(output);
    if status.success() {
        return Ok(text);
    }
    failure_of(command, status, output).map_err(|failure| failure.of_program(&text))
}

fn failure_of(command: &str, status: ExitStatus, output: &[u8]) -> Result<String, Failure> {
    let text = one_line(output);
    if let Some((dsn, rest)) = enhanced_status(&text) {
        return Err(Failure::new(dsn, rest));
    }
    let Some(code) = status.code() else {
        let signal = status.signal().unwrap_or_default();
        let text = format!("Command died with signal {signal}: \"{command}\"{}", quote_output(output));
        // Killed from outside, by want of memory or a shutdown: not the mail's fault.
        return Err(Failure::defer(Dsn::new(4, 3, 0), text));
    };
    match sysexits(code) {
        Some((dsn, words)) => {
            let output = if text.is_empty() { String::new() } else { format!(". Command output: {text}") };
            Err(Failure::new(dsn, format!("{words}{output}")))
        }
        None => {
            let text = format!("Command died with status {code}: \"{command}\"{}", quote_output(output));
            Err(Failure::bounce(Dsn::new(5, 3, 0), text))
        }
    }
}

/// An enhanced status code of class 4 or 5 at the beginning of the output, and the text behind it.
fn enhanced_status(text: &str) -> Option<(Dsn, &str)> {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    let dsn: Dsn = code.parse().ok()?;
    (dsn.class() != 2).then_some((dsn, rest.trim()))
}

/// The output as it stands in a log line and a report: a blank for each line end and tab, `_` for what is no text.
fn one_line(output: &[u8]) -> String {
    let shown = |c: char| match c {
        '\r' | '\n' | '\t' => ' ',
        '\u{FFFD}' => '_',
        c if c.is_control() => '_',
        c => c,
    };
    String::from_utf8_lossy(output).trim().chars().map(shown).collect()
}

fn quote_output(output: &[u8]) -> String {
    let text = one_line(output);
    if text.is_empty() { String::new() } else { format!(". Command output: {text}") }
}

/// The exit statuses of `<sysexits.h>`.
const fn sysexits(code: i32) -> Option<(Dsn, &'static str)> {
    Some(match code {
        64 => (Dsn::new(5, 3, 0), "command line usage error"),
        65 => (Dsn::new(5, 6, 0), "data format error"),
        66 => (Dsn::new(5, 3, 0), "cannot open input"),
        67 => (Dsn::new(5, 1, 1), "user unknown"),
        68 => (Dsn::new(5, 1, 2), "host name unknown"),
        69 => (Dsn::new(5, 3, 0), "service unavailable"),
        70 => (Dsn::new(5, 3, 0), "internal software error"),
        71 => (Dsn::new(4, 3, 0), "system resource problem"),
        72 => (Dsn::new(5, 3, 0), "critical OS file missing"),
        73 => (Dsn::new(5, 2, 0), "can't create user output file"),
        74 => (Dsn::new(5, 3, 0), "input/output error"),
        75 => (Dsn::new(4, 3, 0), "temporary failure"),
        76 => (Dsn::new(5, 5, 0), "remote error in protocol"),
        77 => (Dsn::new(5, 7, 0), "permission denied"),
        78 => (Dsn::new(5, 3, 5), "local configuration error"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(program: Program<'_>) -> Invocation<'_> {
        Invocation {
            program,
            chroot: None,
            identity: None,
            environment: &[],
            directory: Path::new("/"),
            file_size_limit: 0,
            time_limit: Duration::from_secs(10),
        }
    }

    fn run_on(invocation: &Invocation<'_>, text: &[u8]) -> Result<String, Failure> {
        let letter = Letter::open(&text).unwrap();
        run(invocation, &mut Prefixed::new(b"X-First: 1\n".to_vec(), &letter))
    }

    fn run_text(command: &str, text: &[u8], seconds: u64) -> Result<String, Failure> {
        let environment = [("SENDER".to_owned(), "a@b".to_owned())];
        let time_limit = Duration::from_secs(seconds);
        let program = Program::Line { text: command, shell: None };
        run_on(&Invocation { environment: &environment, time_limit, ..invocation(program) }, text)
    }

    /// Each line of the table: a command, ` => `, and the outcome of running it.
    #[test]
    fn the_table_of_commands() {
        for line in include_str!("../tests/commands.table").lines().filter(|l| !l.starts_with('#')) {
            let (command, wanted) = line.split_once(" => ").unwrap_or_else(|| panic!("no => in {line}"));
            let outcome = match run_text(command, b"Subject: x\n\nbody\n", 10) {
                Ok(_) => "sent".to_owned(),
                Err(failure) => format!("{} {}", failure.dsn, failure.text),
            };
            assert_eq!(outcome, wanted, "{command}");
        }
    }

    #[test]
    fn a_large_message_passes_both_ways_without_a_standstill() {
        let text = vec![b'x'; 1_000_000];
        run_text("cat > /dev/null", &text, 10).unwrap();
        // Reads nothing, writes more than a pipe holds.
        run_text("head -c 300000 /dev/zero", &text, 10).unwrap();
        let failure = run_text("cat; exit 67", &text, 10).unwrap_err();
        assert_eq!(failure.dsn, Dsn::new(5, 1, 1));
        assert!(failure.text.len() <= MAX_OUTPUT + 100);
    }

    #[test]
    fn a_program_that_says_nothing_gets_the_whole_message() {
        let folder = tempfile::tempdir().unwrap();
        let text = vec![b'x'; 1_000_000];
        let program = Program::Line { text: "exec > /dev/null 2>&1; sleep 0.1; cat > file", shell: None };
        run_on(&Invocation { directory: folder.path(), ..invocation(program) }, &text).unwrap();
        assert!(std::fs::metadata(folder.path().join("file")).unwrap().len() > 1_000_000);
        // Ends, and leaves somebody behind who holds its input open.
        let program = Program::Line { text: "setsid sleep 3 < /dev/stdin > /dev/null 2>&1 &", shell: None };
        run_on(&invocation(program), &text).unwrap();
    }

    /// A message whose end cannot be read.
    struct Torn(bool);

    impl Input for Torn {
        fn next_piece(&mut self) -> io::Result<Vec<u8>> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::Error::other("the disk is gone"));
            }
            Ok(b"Subject: half\n".to_vec())
        }
    }

    #[test]
    fn a_part_of_a_message_is_never_taken_for_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let take = |text, input: &mut dyn Input| {
            let program = Program::Line { text, shell: None };
            let time_limit = Duration::from_secs(1);
            let invocation = Invocation { directory: folder.path(), time_limit, ..invocation(program) };
            run(&invocation, input).unwrap_err()
        };
        let failure = take("cat > part && mv part whole", &mut Torn(false));
        assert!(failure.is_temporary() && failure.text.contains("the disk is gone"), "{failure:?}");
        assert!(!folder.path().join("whole").exists());
        // Not even where it takes its time.
        let text: &[u8] = &vec![b'x'; 1_000_000];
        let letter = Letter::open(&text).unwrap();
        let mut input = Prefixed::new(b"X-First: 1\n".to_vec(), &letter);
        let failure = take("head -c 10 > part; sleep 3; cat >> part; mv part whole", &mut input);
        assert!(failure.text.starts_with("Command time limit exceeded: "), "{failure:?}");
        assert!(!folder.path().join("whole").exists());
    }

    #[test]
    fn the_time_limit_ends_the_whole_group() {
        let begin = Instant::now();
        let failure = run_text("(sleep 30; echo late) & sleep 30", b"x\n", 1).unwrap_err();
        assert!(failure.text.starts_with("Command time limit exceeded: "), "{failure:?}");
        // Closes its output and lives on.
        let failure = run_text("exec > /dev/null 2>&1; sleep 30", b"x\n", 1).unwrap_err();
        assert!(failure.text.starts_with("Command time limit exceeded: "), "{failure:?}");
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_command_shell_gets_every_command() {
        let program = Program::Line { text: "true", shell: Some("/bin/sh -c false;") };
        assert!(run_on(&invocation(program), b"x\n").is_err());
    }

    #[test]
    fn a_missing_folder_defers() {
        let program = Program::Line { text: "true", shell: None };
        let directory = Path::new("/nonexistent/folder");
        let failure = run_on(&Invocation { directory, ..invocation(program) }, b"x\n").unwrap_err();
        assert!(failure.is_temporary(), "{failure:?}");
    }

    #[test]
    fn words_reach_the_program_as_they_are() {
        let words = ["/usr/bin/printf", "[%s]", "$HOME; `id`", "two words", ""].map(str::to_owned);
        let said = run_on(&invocation(Program::Words(&words)), b"x\n").unwrap();
        assert_eq!(said, "[$HOME; `id`][two words][]");
    }

    #[test]
    fn a_program_writes_no_file_beyond_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::Line { text: "head -c 5000 /dev/zero > file", shell: None };
        let directory = folder.path();
        let failure = run_on(&Invocation { directory, file_size_limit: 1000, ..invocation(program) }, b"x\n");
        assert!(failure.unwrap_err().text.contains("File too large"));
        assert_eq!(std::fs::metadata(directory.join("file")).unwrap().len(), 1000);
    }

    #[test]
    fn a_report_tells_what_the_program_said() {
        let failure = run_text("echo who is that; exit 67", b"x\n", 10).unwrap_err();
        assert_eq!(failure.diagnostic.as_deref(), Some("x-unix; who is that"));
        let failure = run_text("exit 67", b"x\n", 10).unwrap_err();
        assert_eq!(failure.diagnostic.as_deref(), Some("x-unix; user unknown"));
    }
}
