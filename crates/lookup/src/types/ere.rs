//! POSIX regular expressions, as the C library reads them, written in the syntax of the `regex` crate.
//!
//! The syntaxes look alike and differ where it hurts: a backslash in `[…]` is an ordinary character in POSIX, `\d` is the
//! letter d, `a*?` is no lazy match, `(?…)` is an error, `)` by itself is a character. So an expression is taken apart and
//! written anew, and nothing of it reaches the other syntax unquoted. What remains different: of several alternatives the
//! first that matches is taken, where POSIX takes the longest. That does not change whether an expression matches, only
//! what its groups hold in rare cases. Back-references (`\1`) are refused; no linear-time matcher can have them.
//!
//! A character is a byte, as for a mail system in the C locale: `.` matches one byte of an `ü`, and case means ASCII's.

use std::iter::{Map, Peekable};
use std::str::Bytes;

/// Which of the two syntaxes of POSIX.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Basic,
    Extended,
}

/// The most repetitions that `{n}` may ask for, POSIX's RE_DUP_MAX.
const MOST_REPETITIONS: u32 = 255;

enum Token {
    /// Something that matches a character, already in the other syntax.
    Atom(String),
    /// Something that matches a place: an anchor, the edge of a word. It cannot be repeated.
    Place(&'static str),
    Open,
    Close,
    Alternative,
    /// `*`, `+`, `?` or `{n,m}`, and how it was written.
    Repeat(String),
}

/// An expression in the other syntax.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translation {
    pub(super) text: String,
    /// A letter that stands behind a backslash without meaning anything there, as in `\d`: it was probably meant to.
    pub(super) odd_escape: Option<char>,
}

/// Translates `expression`. With `lines`, the expression is matched against single lines: nothing but `\n` itself matches an
/// end of line.
///
/// # Errors
/// What the C library would refuse, and back-references.
pub(super) fn translate(expression: &str, dialect: Dialect, lines: bool) -> Result<Translation, String> {
    let chars = expression.bytes().map(char::from as fn(u8) -> char).peekable();
    let mut input = Input { chars, dialect, lines, fresh: true, repeatable: false, odd_escape: None };
    let mut output = String::new();
    // Where the groups that are still open begin in the output.
    let mut groups = Vec::new();
    // Where the last thing that can be repeated begins.
    let mut last: Option<usize> = None;
    while let Some(token) = input.token()? {
        input.fresh = matches!(token, Token::Open | Token::Alternative);
        input.repeatable = !input.fresh && !matches!(token, Token::Place(_));
        match token {
            Token::Atom(atom) => {
                last = Some(output.len());
                output.push_str(&atom);
            }
            Token::Place(place) => {
                last = None;
                output.push_str(place);
            }
            Token::Open => {
                groups.push(output.len());
                last = None;
                output.push('(');
            }
            Token::Close => match groups.pop() {
                Some(start) => {
                    last = Some(start);
                    output.push(')');
                }
                None if dialect == Dialect::Extended => {
                    last = Some(output.len());
                    output.push_str("\\)");
                }
                None => return Err("`\\)` without `\\(`".to_owned()),
            },
            Token::Alternative => {
                last = None;
                output.push('|');
            }
            Token::Repeat(repeat) => {
                let start = last.ok_or_else(|| format!("nothing before `{repeat}` to repeat"))?;
                // In its own group, because what follows may repeat it again.
                output.insert_str(start, "(?:");
                output.push_str(&repeat);
                output.push(')');
            }
        }
    }
    if groups.is_empty() {
        Ok(Translation { text: output, odd_escape: input.odd_escape })
    } else {
        Err("`(` without `)`".to_owned())
    }
}

/// The bytes of an expression, each as the character of that number.
type Characters<'a> = Peekable<Map<Bytes<'a>, fn(u8) -> char>>;

struct Input<'a> {
    chars: Characters<'a>,
    dialect: Dialect,
    lines: bool,
    /// At the beginning of the expression, of a group or of an alternative: there the basic syntax takes `^` for an anchor.
    fresh: bool,
    /// After something that can be repeated: elsewhere the basic syntax takes `*` for a character.
    repeatable: bool,
    odd_escape: Option<char>,
}

impl Input<'_> {
    fn token(&mut self) -> Result<Option<Token>, String> {
        let Some(c) = self.chars.next() else { return Ok(None) };
        let extended = self.dialect == Dialect::Extended;
        Ok(Some(match c {
            '\\' => return self.escaped().map(Some),
            '[' => Token::Atom(self.bracket()?),
            '.' => Token::Atom(".".to_owned()),
            '*' if extended || self.repeatable => Token::Repeat("*".to_owned()),
            '^' if extended || self.fresh => Token::Place("^"),
            '$' if extended || self.at_end_of_branch() => Token::Place("$"),
            '(' if extended => Token::Open,
            ')' if extended => Token::Close,
            '|' if extended => Token::Alternative,
            '+' | '?' if extended => Token::Repeat(c.to_string()),
            '{' if extended => Token::Repeat(self.interval()?),
            _ => literal(c),
        }))
    }

    /// Whether a `$` just read in the basic syntax is an anchor: nothing, `\)` or `\|` follows.
    fn at_end_of_branch(&self) -> bool {
        let mut ahead = self.chars.clone();
        match ahead.next() {
            None => true,
            Some('\\') => matches!(ahead.next(), Some(')' | '|')),
            Some(_) => false,
        }
    }

    fn escaped(&mut self) -> Result<Token, String> {
        let c = self.chars.next().ok_or("a backslash at the end")?;
        let atom = |text: &str| Token::Atom(text.to_owned());
        Ok(match c {
            '1'..='9' => return Err(format!("back-references (\\{c}) are not supported")),
            '<' => Token::Place(r"\b{start}"),
            '>' => Token::Place(r"\b{end}"),
            'b' => Token::Place(r"\b"),
            'B' => Token::Place(r"\B"),
            '`' => Token::Place(r"\A"),
            '\'' => Token::Place(r"\z"),
            'w' => atom("[0-9A-Za-z_]"),
            'W' => atom("[^0-9A-Za-z_]"),
            's' => atom("[[:space:]]"),
            'S' => atom("[^[:space:]]"),
            '(' if self.dialect == Dialect::Basic => Token::Open,
            ')' if self.dialect == Dialect::Basic => Token::Close,
            '|' if self.dialect == Dialect::Basic => Token::Alternative,
            '+' | '?' if self.dialect == Dialect::Basic && self.repeatable => Token::Repeat(c.to_string()),
            '{' if self.dialect == Dialect::Basic => Token::Repeat(self.interval()?),
            _ => {
                self.odd_escape = self.odd_escape.or(c.is_ascii_alphabetic().then_some(c));
                literal(c)
            }
        })
    }

    /// `n}`, `n,}`, `n,m}` or `,m}`, what follows a brace that begins a number of repetitions.
    fn interval(&mut self) -> Result<String, String> {
        let invalid =
            || "expected {n}, {n,}, {n,m} or {,m} after `{` (write \\{ for the character)".to_owned();
        let mut text = String::new();
        loop {
            match self.chars.next().ok_or_else(invalid)? {
                '}' => break,
                '\\' if self.dialect == Dialect::Basic && self.chars.next_if_eq(&'}').is_some() => break,
                c if c.is_ascii_digit() || c == ',' => text.push(c),
                _ => return Err(invalid()),
            }
        }
        let number = |digits: &str| digits.parse::<u32>().map_err(|_| invalid());
        let (least, most) = match text.split_once(',') {
            None => (number(&text)?, Some(number(&text)?)),
            Some(("", most)) => (0, Some(number(most)?)),
            Some((least, "")) => (number(least)?, None),
            Some((least, most)) => (number(least)?, Some(number(most)?)),
        };
        if most.is_some_and(|most| least > most) {
            return Err(format!("{{{text}}}: the first number is larger than the second"));
        }
        if least.max(most.unwrap_or(0)) > MOST_REPETITIONS {
            return Err(format!("{{{text}}}: more than {MOST_REPETITIONS} repetitions"));
        }
        Ok(most.map_or_else(|| format!("{{{least},}}"), |most| format!("{{{least},{most}}}")))
    }

    /// The rest of `[…]`.
    fn bracket(&mut self) -> Result<String, String> {
        const UNMATCHED: &str = "`[` without `]`";
        let negated = self.chars.next_if_eq(&'^').is_some();
        let mut class = String::from(if negated { "[^" } else { "[" });
        if negated && self.lines {
            class.push_str("\\n");
        }
        let mut first = true;
        loop {
            let c = self.chars.next().ok_or(UNMATCHED)?;
            if c == ']' && !first {
                break;
            }
            first = false;
            if c == '[' && self.chars.next_if_eq(&':').is_some() {
                class.push_str(self.named_class()?);
                continue;
            }
            let from = self.member(c)?;
            push_member(&mut class, from);
            let mut ahead = self.chars.clone();
            if ahead.next() == Some('-') && ahead.next().is_some_and(|end| end != ']') {
                self.chars.next();
                let c = self.chars.next().ok_or(UNMATCHED)?;
                let to = self.member(c)?;
                if from > to {
                    return Err(format!("[{from}-{to}]: the range ends before it begins"));
                }
                class.push('-');
                push_member(&mut class, to);
            }
        }
        class.push(']');
        Ok(class)
    }

    /// One character of a bracket expression, of which `c` was read: itself, `[.c.]` or `[=c=]`.
    fn member(&mut self, c: char) -> Result<char, String> {
        if c != '[' {
            return Ok(c);
        }
        let Some(mark) = self.chars.next_if(|&mark| mark == '.' || mark == '=') else { return Ok(c) };
        let member = self.chars.next();
        let end = (self.chars.next(), self.chars.next());
        member
            .filter(|_| end == (Some(mark), Some(']')))
            .ok_or_else(|| format!("expected one character between [{mark} and {mark}]"))
    }

    /// The rest of `[:name:]`.
    fn named_class(&mut self) -> Result<&'static str, String> {
        let mut name = String::new();
        while let Some(c) = self.chars.next_if(char::is_ascii_alphanumeric) {
            name.push(c);
        }
        if (self.chars.next(), self.chars.next()) != (Some(':'), Some(']')) {
            return Err(format!("expected `:]` after [:{name}"));
        }
        Ok(match name.as_str() {
            "alpha" => "[:alpha:]",
            "digit" => "[:digit:]",
            "alnum" => "[:alnum:]",
            "upper" => "[:upper:]",
            "lower" => "[:lower:]",
            "space" => "[:space:]",
            "blank" => "[:blank:]",
            "punct" => "[:punct:]",
            "print" => "[:print:]",
            "graph" => "[:graph:]",
            "cntrl" => "[:cntrl:]",
            "xdigit" => "[:xdigit:]",
            _ => return Err(format!("there is no character class [:{name}:]")),
        })
    }
}

fn literal(c: char) -> Token {
    Token::Atom(quoted(c))
}

fn push_member(class: &mut String, c: char) {
    class.push_str(&quoted(c));
}

fn quoted(byte: char) -> String {
    if byte.is_ascii() {
        regex::escape(byte.encode_utf8(&mut [0; 4]))
    } else {
        format!("\\x{:02X}", u32::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extended(expression: &str) -> Result<String, String> {
        translate(expression, Dialect::Extended, false).map(|translation| translation.text)
    }

    #[test]
    fn nothing_of_the_other_syntax_gets_through() {
        assert_eq!(extended(r"a.c").unwrap(), "a.c");
        assert_eq!(extended(r"\d\n\x41").unwrap(), "dnx41");
        assert_eq!(extended(r"a*?").unwrap(), "(?:(?:a*)?)");
        assert_eq!(extended(r"(ab)+c").unwrap(), "(?:(ab)+)c");
        assert_eq!(extended(r"[\.]").unwrap(), r"[\\\.]");
        assert_eq!(extended(r"[]a&&b-]").unwrap(), r"[\]a\&\&b\-]");
        assert_eq!(extended(r"a)b]}").unwrap(), r"a\)b\]\}");
        assert_eq!(extended(r"x{2}y{,3}").unwrap(), "(?:x{2,2})(?:y{0,3})");
    }

    #[test]
    fn every_translation_compiles() {
        let alphabet: Vec<char> = r"ab.*+?^$|()[]{}\,-:=&~#1<dwü ".chars().collect();
        let mut state = 1usize;
        for _ in 0..2000 {
            let mut expression = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                expression.push(alphabet[(state >> 33) % alphabet.len()]);
            }
            for dialect in [Dialect::Basic, Dialect::Extended] {
                if let Ok(translation) = translate(&expression, dialect, false) {
                    let compiled = regex::bytes::RegexBuilder::new(&translation.text).unicode(false).build();
                    assert!(compiled.is_ok(), "{expression} became {}", translation.text);
                }
            }
        }
    }

    #[test]
    fn what_the_c_library_refuses_is_refused() {
        for expression in [
            "*a",
            "a|*b",
            "(*b)",
            "^*a",
            "(?:x)",
            "(",
            "[a",
            "[[:foo:]]",
            "[z-a]",
            "a{",
            "w{a",
            "a\\",
            "{",
            "(a)\\1",
        ] {
            assert!(extended(expression).is_err(), "{expression}");
        }
    }

    #[test]
    fn basic_syntax_has_its_operators_behind_backslashes() {
        let basic = |expression| translate(expression, Dialect::Basic, false).unwrap().text;
        assert_eq!(basic(r"\(bre\)*"), "(?:(bre)*)");
        assert_eq!(basic(r"*a+(b)"), r"\*a\+\(b\)");
        assert_eq!(basic(r"^a^b$c$"), r"^a\^b\$c$");
        assert_eq!(basic(r"a\{2,3\}\|b"), "(?:a{2,3})|b");
    }
}
