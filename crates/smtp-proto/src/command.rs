//! The table of verbs, and how a command line is taken apart.

/// What a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// RFC 5321 section 4.1.1.1.
    Helo,
    /// RFC 5321 section 4.1.1.1.
    Ehlo,
    /// RFC 2033 section 4.1.
    Lhlo,
    /// Postfix's, by which a trusted client names the one it speaks for.
    Xclient,
    /// Postfix's, by which a content filter passes on where a message came from.
    Xforward,
    /// RFC 3207.
    StartTls,
    /// RFC 4954.
    Auth,
    /// RFC 5321 section 4.1.1.2.
    Mail,
    /// RFC 5321 section 4.1.1.3.
    Rcpt,
    /// RFC 5321 section 4.1.1.4.
    Data,
    /// RFC 3030.
    Bdat,
    /// RFC 5321 section 4.1.1.5.
    Rset,
    /// RFC 5321 section 4.1.1.9.
    Noop,
    /// RFC 5321 section 4.1.1.6.
    Vrfy,
    /// RFC 1985.
    Etrn,
    /// RFC 5321 section 4.1.1.8.
    Help,
    /// RFC 5321 section 4.1.1.10.
    Quit,
    /// Anything else.
    Unknown,
}

/// One row of the table.
struct Row {
    verb: Verb,
    name: &'static str,
    /// Must be the last of a pipelined group: the client has to wait for the reply (RFC 2920 section 3.1).
    last: bool,
    /// Does nothing for mail: `smtpd_junk_command_limit` counts it.
    junk: bool,
}

const fn row(verb: Verb, name: &'static str, last: bool, junk: bool) -> Row {
    Row { verb, name, last, junk }
}

/// In the order in which `disconnect from` counts them.
const TABLE: [Row; Verb::COUNT] = [
    row(Verb::Helo, "HELO", true, true),
    row(Verb::Ehlo, "EHLO", true, true),
    row(Verb::Lhlo, "LHLO", true, true),
    row(Verb::Xclient, "XCLIENT", false, false),
    row(Verb::Xforward, "XFORWARD", false, false),
    // What a client sends in clear after STARTTLS must not be obeyed: nothing may follow it.
    row(Verb::StartTls, "STARTTLS", true, false),
    row(Verb::Auth, "AUTH", false, false),
    row(Verb::Mail, "MAIL", false, false),
    row(Verb::Rcpt, "RCPT", false, false),
    row(Verb::Data, "DATA", true, false),
    row(Verb::Bdat, "BDAT", false, false),
    row(Verb::Rset, "RSET", false, true),
    row(Verb::Noop, "NOOP", true, true),
    row(Verb::Vrfy, "VRFY", true, true),
    row(Verb::Etrn, "ETRN", false, true),
    row(Verb::Help, "HELP", true, true),
    row(Verb::Quit, "QUIT", false, false),
    row(Verb::Unknown, "UNKNOWN", false, false),
];

impl Verb {
    /// How many there are, [`Verb::Unknown`] included.
    pub const COUNT: usize = Self::Unknown as usize + 1;

    /// All of them, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.verb)
    }

    /// The verb that this word means, whatever its case.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        let found = TABLE.iter().find(|row| row.verb != Self::Unknown && row.name.eq_ignore_ascii_case(word));
        found.map_or(Self::Unknown, |row| row.verb)
    }

    /// Its name, in upper case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether a client has to wait for the reply before it says more.
    #[must_use]
    pub const fn ends_group(self) -> bool {
        self.row().last
    }

    /// Whether it does nothing for mail.
    #[must_use]
    pub const fn is_junk(self) -> bool {
        self.row().junk
    }

    /// Whether it is obeyed before TLS where nothing else is: RFC 3207 section 4.
    #[must_use]
    pub const fn goes_in_clear(self) -> bool {
        matches!(
            self,
            Self::Helo | Self::Ehlo | Self::StartTls | Self::Noop | Self::Quit | Self::Help | Self::Xclient
        )
    }

    const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// A line as its verb and the rest, without the white space around it.
#[must_use]
pub fn split(line: &str) -> (Verb, &str, &str) {
    let line = line.trim_matches([' ', '\t']);
    let (word, arguments) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    (Verb::from_word(word), word, arguments.trim_start_matches([' ', '\t']))
}

/// Whether the line looks like a header of a message or like a request of another protocol that a browser was made to
/// send: a client that says such a thing does not know that it speaks to a mail server.
#[must_use]
pub fn is_header(word: &str) -> bool {
    match word.split_once(':') {
        Some((name, _)) => !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_verbs() {
        for (place, verb) in Verb::all().enumerate() {
            assert_eq!(verb as usize, place);
        }
    }

    #[test]
    fn a_line_is_parted_whatever_its_case_and_blanks() {
        assert_eq!(split("  mail  FROM:<a>  "), (Verb::Mail, "mail", "FROM:<a>"));
        assert_eq!(split("MAILX"), (Verb::Unknown, "MAILX", ""));
        assert_eq!(split("quit"), (Verb::Quit, "quit", ""));
        assert_eq!(split(""), (Verb::Unknown, "", ""));
    }
}
