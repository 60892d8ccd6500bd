//! The command line of `sendmail`: Postfix's options, read as getopt(3) reads them.
//!
//! It is read by hand and not by clap, which has no place for `-oi`, `-qIID` or `-XV`, for options that are ignored,
//! and for an option that takes its value or does not depending on how long it is. `tests/options.txt` is the
//! specification, line by line.

use std::ffi::OsString;
use std::path::PathBuf;

use mail::{Body, DsnReturn, Notify};

use crate::failure::{Exit, Failure};

/// The options; a colon follows those that take a value.
const OPTIONS: &[u8] = b"A:B:C:F:GIL:N:O:R:UV:X:b:ce:f:h:imno:p:r:q:tvx";

/// The longest ENVID: RFC 3461 section 4.4.
const MAX_ENVID: usize = 100;

/// What the command is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Take a message from standard input (`-bm`, and nothing else said).
    Submit,
    /// List the queue (`-bp`, `mailq`).
    ListQueue,
    /// Build the alias databases (`-bi`, `-I`, `newaliases`).
    BuildAliases,
    /// Try queued mail now (`-q`, `-qIID`, `-qRSITE`).
    Flush(Flush),
    /// Start the mail system (`-bd`, `-bl`).
    Start,
    /// An option that Sendmail has and that asks for nothing here (`-bh`, `-bH`, `-q15m`).
    Nothing,
    /// SMTP on standard input and output (`-bs`).
    Smtp,
    /// A report on what would be done with the recipients (`-bv`).
    Verify,
}

/// Which mail to try now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// All of it.
    All,
    /// The message with this queue id.
    Message(String),
    /// What waits for this destination.
    Site(String),
}

/// The command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches of a command line")]
pub(crate) struct CommandLine {
    /// What to do.
    pub(crate) mode: Mode,
    /// `-C`.
    pub(crate) config_directory: Option<PathBuf>,
    /// `-f` or `-r`, as given.
    pub(crate) sender: Option<String>,
    /// `-F`.
    pub(crate) full_name: Option<String>,
    /// `-t`: the recipients are in the header.
    pub(crate) extract_recipients: bool,
    /// A line with a dot ends the message (not with `-i`).
    pub(crate) dot_ends: bool,
    /// `-B`.
    pub(crate) body: Body,
    /// `-N`.
    pub(crate) notify: Notify,
    /// `-R`.
    pub(crate) ret: Option<DsnReturn>,
    /// `-V`.
    pub(crate) envid: Option<String>,
    /// `-XV`: a personal return path for each recipient; the delimiters, empty for those of the configuration.
    pub(crate) verp: Option<String>,
    /// `-oA`.
    pub(crate) alias_database: Option<String>,
    /// `-v`.
    pub(crate) verbose: bool,
    /// What is odd but no reason to stop.
    pub(crate) warnings: Vec<String>,
    /// What follows the options.
    pub(crate) arguments: Vec<String>,
}

impl CommandLine {
    /// Reads the command line. `mode` is what the name of the program says.
    ///
    /// # Errors
    /// With the exit code [`Exit::Usage`], what is wrong.
    pub(crate) fn parse(mode: Mode, arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let mut line = Self::new(mode);
        let mut words = Words { left: decode(arguments)?.into_iter() };
        while let Some(word) = words.next_option() {
            line.take_word(&word, &mut words)?;
        }
        line.arguments = words.left.collect();
        Ok(line)
    }

    /// One with nothing said.
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            config_directory: None,
            sender: None,
            full_name: None,
            extract_recipients: false,
            dot_ends: true,
            body: Body::Unspecified,
            notify: Notify::UNSET,
            ret: None,
            envid: None,
            verp: None,
            alias_database: None,
            verbose: false,
            warnings: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// One word that begins with a dash: the forms that getopt does not know first, then a run of letters.
    fn take_word(&mut self, word: &str, words: &mut Words) -> Result<(), Failure> {
        match word {
            "-q" => return self.flush(Flush::All),
            "-XV" => return self.take_verp(""),
            "-V" if words.peek().is_some_and(|next| next.len() == 2) => {
                self.warnings.push(
                    "-V with two characters asks for VERP as it did before Postfix 2.3; say -XV".into(),
                );
                let delimiters = words.left.next().unwrap_or_default();
                return self.take_verp(&delimiters);
            }
            _ if word.len() == 4 && word.starts_with("-V") => {
                self.warnings
                    .push(format!("{word} asks for VERP as it did before Postfix 2.3; say -X{}", &word[1..]));
                return self.take_verp(&word[2..]);
            }
            _ => {}
        }
        let letters = word[1..].char_indices();
        for (at, letter) in letters {
            let rest = &word[1 + at + letter.len_utf8()..];
            match arity(letter) {
                None => {
                    return Err(usage(format!(
                        "unknown option -{letter}; usage: sendmail [options] [recipient ...]"
                    )));
                }
                Some(Arity::Switch) => self.take_switch(letter)?,
                Some(Arity::Value) => {
                    let value = if rest.is_empty() { words.left.next() } else { Some(rest.to_owned()) };
                    let value = value.ok_or_else(|| usage(format!("option -{letter} needs a value")))?;
                    return self.take_value(letter, value);
                }
            }
        }
        Ok(())
    }

    /// An option without a value. The others that [`OPTIONS`] names are taken for Sendmail's sake.
    fn take_switch(&mut self, letter: char) -> Result<(), Failure> {
        match letter {
            'I' => self.mode = Mode::BuildAliases,
            'i' => self.dot_ends = false,
            't' => self.extract_recipients = true,
            'v' => self.verbose = true,
            'n' => return Err(usage("option -n (no aliases) is not supported")),
            _ => {}
        }
        Ok(())
    }

    fn take_value(&mut self, letter: char, value: String) -> Result<(), Failure> {
        match letter {
            'B' => self.body = body(&value)?,
            'C' => self.config_directory = Some(config_directory(&value)),
            'F' => self.full_name = Some(value),
            'N' => match notify(&value) {
                Some(notify) => self.notify = notify,
                None => self.warnings.push(format!(
                    "ignored: -N {value}: expected never, or some of success, failure and delay with commas between"
                )),
            },
            'R' => match value.to_ascii_lowercase().as_str() {
                "full" => self.ret = Some(DsnReturn::Full),
                "hdrs" => self.ret = Some(DsnReturn::Headers),
                _ => self.warnings.push(format!("ignored: -R {value}: expected full or hdrs")),
            },
            'V' if value.len() > MAX_ENVID => {
                self.warnings.push(format!("ignored: -V: an envelope id has at most {MAX_ENVID} characters"));
            }
            'V' if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
                self.warnings.push("ignored: -V: an envelope id consists of printable ASCII characters".into());
            }
            'V' => self.envid = Some(value),
            'X' => match value.strip_prefix('V') {
                Some(delimiters) => return self.take_verp(delimiters),
                None => return Err(usage(format!("unsupported: -X{value}"))),
            },
            'b' => return self.take_mode(&value),
            'f' | 'r' => self.sender = Some(value),
            'o' => return self.take_sendmail_option(&value),
            'q' => return self.take_flush(&value),
            _ => {}
        }
        Ok(())
    }

    fn take_mode(&mut self, value: &str) -> Result<(), Failure> {
        self.mode = match value.chars().next() {
            Some('d' | 'l') => {
                if matches!(self.mode, Mode::Flush(_)) {
                    self.warnings.push("ignored: -q together with -bd".into());
                }
                Mode::Start
            }
            Some('h' | 'H') => Mode::Nothing,
            Some('i') => Mode::BuildAliases,
            Some('m') => Mode::Submit,
            Some('p') => Mode::ListQueue,
            Some('s') => Mode::Smtp,
            Some('v') => Mode::Verify,
            _ => return Err(usage(format!("unsupported: -b{value}"))),
        };
        Ok(())
    }

    fn take_sendmail_option(&mut self, value: &str) -> Result<(), Failure> {
        match value.split_at_checked(1) {
            Some(("i", _)) => self.dot_ends = false,
            Some(("A", "")) => return Err(usage("option -oA needs the name of an alias database")),
            Some(("A", database)) => self.alias_database = Some(database.to_owned()),
            _ => {}
        }
        Ok(())
    }

    fn take_flush(&mut self, value: &str) -> Result<(), Failure> {
        match value.split_at_checked(1) {
            Some(("R", "")) => Err(usage("specify a destination: -qRsitename")),
            Some(("R", site)) => self.flush(Flush::Site(site.to_owned())),
            Some(("I", "")) => Err(usage("specify a message: -qIqueueid")),
            Some(("I", id)) => self.flush(Flush::Message(id.to_owned())),
            Some((digit, _)) if digit.bytes().all(|byte| byte.is_ascii_digit()) => {
                // An interval. Together with -bd it is how Sendmail is started, and the daemon is what is wanted.
                if self.mode != Mode::Start {
                    self.mode = Mode::Nothing;
                }
                Ok(())
            }
            _ => Err(usage(format!(
                "-q{value}: mail can be chosen by message (-qI) or by site (-qR) only; plain -q tries all of it"
            ))),
        }
    }

    fn flush(&mut self, flush: Flush) -> Result<(), Failure> {
        if self.mode == Mode::Start {
            self.warnings.push("ignored: -q together with -bd".into());
        } else {
            self.mode = Mode::Flush(flush);
        }
        Ok(())
    }

    fn take_verp(&mut self, delimiters: &str) -> Result<(), Failure> {
        if !matches!(delimiters.len(), 0 | 2) {
            return Err(usage(format!("-XV{delimiters}: expected two delimiters or none")));
        }
        self.verp = Some(delimiters.to_owned());
        Ok(())
    }
}

/// The words of the command line that were not yet read.
struct Words {
    left: std::vec::IntoIter<String>,
}

impl Words {
    /// The next word if it is an option. `--` ends them and is dropped; a lone dash is no option.
    fn next_option(&mut self) -> Option<String> {
        let next = self.peek()?;
        if next == "--" {
            self.left.next();
            return None;
        }
        if next.len() > 1 && next.starts_with('-') { self.left.next() } else { None }
    }

    fn peek(&self) -> Option<&String> {
        self.left.as_slice().first()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Arity {
    Switch,
    Value,
}

fn arity(letter: char) -> Option<Arity> {
    let letter = u8::try_from(letter).ok().filter(|letter| *letter != b':')?;
    let at = OPTIONS.iter().position(|option| *option == letter)?;
    Some(if OPTIONS.get(at + 1) == Some(&b':') { Arity::Value } else { Arity::Switch })
}

/// Addresses are UTF-8 here, so the command line is.
fn decode(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, Failure> {
    let decoded = arguments.into_iter().map(|argument| {
        argument
            .into_string()
            .map_err(|raw| usage(format!("argument is not UTF-8: {}", raw.to_string_lossy())))
    });
    decoded.collect()
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, text)
}

fn body(value: &str) -> Result<Body, Failure> {
    match value {
        "7BIT" => Ok(Body::SevenBit),
        "8BITMIME" => Ok(Body::EightBitMime),
        _ => Err(usage("-B option needs 8BITMIME or 7BIT")),
    }
}

/// NOTIFY of RFC 3461 section 4.1: `never` stands alone.
fn notify(value: &str) -> Option<Notify> {
    let mut notify = Notify::UNSET;
    for word in value.split([',', ' ']).filter(|word| !word.is_empty()) {
        notify = notify.and(match word.to_ascii_lowercase().as_str() {
            "never" => Notify::NEVER,
            "success" => Notify::SUCCESS,
            "failure" => Notify::FAILURE,
            "delay" => Notify::DELAY,
            _ => return None,
        });
    }
    let alone = notify == Notify::NEVER || !notify.contains(Notify::NEVER);
    (notify != Notify::UNSET && alone).then_some(notify)
}

/// `-C` takes the folder, or for Sendmail's sake the file in it.
fn config_directory(value: &str) -> PathBuf {
    let path = PathBuf::from(value);
    match path.parent() {
        Some(parent) if path.is_file() => parent.to_path_buf(),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// What differs from an empty command line, in the words of `tests/options.txt`.
    fn described(line: &CommandLine) -> String {
        let mut out = match &line.mode {
            Mode::Submit => "submit".to_owned(),
            Mode::ListQueue => "list".into(),
            Mode::BuildAliases => "aliases".into(),
            Mode::Flush(Flush::All) => "flush".into(),
            Mode::Flush(Flush::Message(id)) => format!("flush id={id}"),
            Mode::Flush(Flush::Site(site)) => format!("flush site={site}"),
            Mode::Start => "start".into(),
            Mode::Nothing => "nothing".into(),
            Mode::Smtp => "smtp".into(),
            Mode::Verify => "verify".into(),
        };
        let named = [
            ("config", line.config_directory.as_ref().map(|path| path.display().to_string())),
            ("sender", line.sender.clone()),
            ("name", line.full_name.clone()),
            ("envid", line.envid.clone()),
            ("verp", line.verp.clone()),
            ("database", line.alias_database.clone()),
            ("ret", line.ret.map(|ret| format!("{ret:?}"))),
            ("body", Some(format!("{:?}", line.body)).filter(|body| body != "Unspecified")),
            ("notify", Some(line.notify.bits().to_string()).filter(|bits| bits != "0")),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                let _ = write!(out, " {name}=\"{value}\"");
            }
        }
        let switches =
            [("extract", line.extract_recipients), ("dots-stay", !line.dot_ends), ("verbose", line.verbose)];
        out.extend(switches.iter().filter(|(_, on)| *on).map(|(name, _)| format!(" {name}")));
        if !line.warnings.is_empty() {
            out.push_str(" warned");
        }
        for argument in &line.arguments {
            let _ = write!(out, " <{argument}>");
        }
        out
    }

    /// Words with blanks between; single quotes keep blanks.
    fn words(text: &str) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quoted = false;
        for c in text.chars() {
            match c {
                '\'' => {
                    quoted = !quoted;
                    word.get_or_insert_default();
                }
                ' ' if !quoted => words.extend(word.take().map(OsString::from)),
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word.map(OsString::from));
        words
    }

    #[test]
    fn the_table_of_options_holds() {
        let table = include_str!("../tests/options.txt");
        let cases = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for case in cases {
            let (command, expected) = case.split_once("=>").unwrap();
            let found = match CommandLine::parse(Mode::Submit, words(command.trim())) {
                Ok(line) => described(&line),
                Err(failure) => format!("{:?}: {failure}", failure.exit).to_lowercase(),
            };
            assert_eq!(found, expected.trim(), "{}", command.trim());
        }
    }

    #[test]
    fn the_name_of_the_program_sets_the_mode_and_options_may_change_it() {
        let line = CommandLine::parse(Mode::ListQueue, words("-v")).unwrap();
        assert_eq!(line.mode, Mode::ListQueue);
        let line = CommandLine::parse(Mode::ListQueue, words("-bm a")).unwrap();
        assert_eq!(line.mode, Mode::Submit);
    }
}
