//! Address lists as they stand in header fields, in `sendmail -t` input and on the right-hand side of aliases: found,
//! taken out, or rewritten in place.
//!
//! The grammar is RFC 5322 section 3.4, read as generously as Postfix reads it: the obsolete forms (routes, blanks and
//! comments around dots), 8-bit text, missing brackets and missing commas. Nothing is ever refused: what is no address
//! is skipped, what would be one but for its length or its bytes is told as [`Unfit`], and a rewritten value differs from
//! the original in the bytes of the changed addresses alone. Parsing takes time and memory linear in the value, whose
//! length the caller limits.

use std::fmt;
use std::ops::Range;

use crate::{Address, AddressError};

/// One address of a list, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// The address in internal form.
    pub address: Address,
    /// Where its text stands in the value: without brackets, route and the comments around it.
    pub range: Range<usize>,
}

/// Where an address stands that nothing here can work with. Whoever takes recipients from a list must not leave it out in
/// silence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Unfit {
    why: AddressError,
    beginning: String,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why, self.beginning)
    }
}

impl std::error::Error for Unfit {}

/// How much of an unfit address is shown.
const SHOWN: usize = 60;

impl Unfit {
    fn new(why: AddressError, text: &[u8]) -> Self {
        let beginning = String::from_utf8_lossy(&text[..text.len().min(SHOWN)]);
        let rest = if text.len() > SHOWN { "..." } else { "" };
        Self { why, beginning: beginning.into_owned() + rest }
    }
}

/// The addresses of a list in order, in internal form.
///
/// `"|command args"`, `/file` and `:include:/file` of aliases come out as addresses of that text.
///
/// # Errors
/// The first that cannot be an [`Address`].
pub fn parse_list(value: &str) -> Result<Vec<Address>, Unfit> {
    let mut mailboxes = Mailboxes::new(value.as_bytes());
    let found = mailboxes.by_ref().map(|mailbox| mailbox.address).collect();
    mailboxes.unfit().map_or(Ok(found), Err)
}

/// The first address of a list.
///
/// # Errors
/// That it cannot be an [`Address`].
pub fn parse_first(value: &str) -> Result<Option<Address>, Unfit> {
    let mut mailboxes = Mailboxes::new(value.as_bytes());
    let first = mailboxes.next().map(|mailbox| mailbox.address);
    mailboxes.unfit().map_or(Ok(first), Err)
}

/// Appends `value` to `out` with each address replaced for which `change` returns another one; says whether there was
/// any. Where there was none, `out` has the same bytes as `value`.
///
/// # Errors
/// The first error of `change`; `out` is then incomplete.
pub fn rewrite<E>(
    value: &[u8],
    out: &mut Vec<u8>,
    mut change: impl FnMut(&Address) -> Result<Option<Address>, E>,
) -> Result<bool, E> {
    let mut copied = 0;
    for mailbox in Mailboxes::new(value) {
        let Some(new) = change(&mailbox.address)?.filter(|new| *new != mailbox.address) else { continue };
        out.extend_from_slice(&value[copied..mailbox.range.start]);
        out.extend_from_slice(new.to_path().as_bytes());
        push_comments(out, &value[mailbox.range.clone()]);
        copied = mailbox.range.end;
        // In `"a"b` nothing parts two addresses; the second must not become a part of the first one's domain.
        if next_token(value, copied).is_some_and(|(kind, _)| kind.is_word()) {
            out.push(b' ');
        }
    }
    out.extend_from_slice(&value[copied..]);
    Ok(copied > 0)
}

/// Comments inside a replaced address are kept behind it.
fn push_comments(out: &mut Vec<u8>, replaced: &[u8]) {
    if !replaced.contains(&b'(') {
        return;
    }
    let mut at = 0;
    while let Some((kind, end)) = next_token(replaced, at) {
        if kind == Kind::Comment {
            out.push(b' ');
            out.extend_from_slice(&replaced[at..end]);
        }
        at = end;
    }
}

/// Iterates over the addresses of a value.
#[derive(Debug)]
pub struct Mailboxes<'a> {
    value: &'a [u8],
    at: usize,
    /// Words and operators of the item that is being read; blanks and comments are not kept.
    item: Vec<Token>,
    /// How many tokens of `item` were handed out.
    handed_out: usize,
    /// The item stood between `<` and `>`: it is one address, whatever blanks are in it.
    bracketed: bool,
    unfit: Option<Unfit>,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blank,
    Comment,
    Atom,
    Quoted,
    DomainLiteral,
    /// One of `< > , ; : @ .`
    Operator(u8),
}

impl Kind {
    const fn is_word(self) -> bool {
        matches!(self, Self::Atom | Self::Quoted | Self::DomainLiteral)
    }
}

impl<'a> Mailboxes<'a> {
    /// The addresses of this value.
    #[must_use]
    pub fn new(value: &'a [u8]) -> Self {
        Self { value, at: 0, item: Vec::new(), handed_out: 0, bracketed: false, unfit: None }
    }

    /// The first of what was passed that would be an address, but cannot be an [`Address`].
    #[must_use]
    pub fn unfit(self) -> Option<Unfit> {
        self.unfit
    }

    /// Reads up to the end of an item: a comma, a closing bracket, the end of the value.
    fn read_item(&mut self) {
        self.item.clear();
        (self.handed_out, self.bracketed) = (0, false);
        while let Some(token) = self.next_significant() {
            match token.kind {
                Kind::Operator(b',' | b';' | b'>') if self.item.is_empty() => {}
                Kind::Operator(b',' | b';') => return,
                Kind::Operator(b'>') => {}
                Kind::Operator(b':') if self.read_include(token) => return,
                // What stood before it is the name of a group.
                Kind::Operator(b':') => self.item.clear(),
                Kind::Operator(b'<') => {
                    // What stood before it is a display name.
                    self.item.clear();
                    self.read_bracketed();
                    if !self.item.is_empty() {
                        self.bracketed = true;
                        return;
                    }
                }
                _ => self.item.push(token),
            }
        }
    }

    /// `:include:/file` of aliases, up to the next blank or comma.
    fn read_include(&mut self, colon: Token) -> bool {
        const INCLUDE: &[u8] = b":include:";
        let rest = &self.value[colon.start..];
        let is_include = self.item.is_empty()
            && rest.get(..INCLUDE.len()).is_some_and(|text| text.eq_ignore_ascii_case(INCLUDE));
        if is_include {
            let length =
                rest.iter().position(|b| b.is_ascii_whitespace() || *b == b',').unwrap_or(rest.len());
            self.at = colon.start + length;
            self.item.push(Token { kind: Kind::Atom, start: colon.start, end: self.at });
        }
        is_include
    }

    /// Reads what stands between `<` and `>`, without the route `@a,@b:` of RFC 5322 section 4.4. A comma outside a
    /// route ends it too: a forgotten `>` must not swallow the addresses behind it.
    fn read_bracketed(&mut self) {
        let mut in_route = false;
        while let Some(token) = self.next_significant() {
            match token.kind {
                Kind::Operator(b'>' | b';') => return,
                Kind::Operator(b',') if !in_route => return,
                Kind::Operator(b':') if in_route => {
                    in_route = false;
                    self.item.clear();
                    continue;
                }
                Kind::Operator(b'<') => {
                    self.item.clear();
                    continue;
                }
                Kind::Operator(b'@') if self.item.is_empty() => in_route = true,
                _ => {}
            }
            self.item.push(token);
        }
    }

    fn next_significant(&mut self) -> Option<Token> {
        loop {
            let start = self.at;
            let (kind, end) = next_token(self.value, start)?;
            self.at = end;
            if !matches!(kind, Kind::Blank | Kind::Comment) {
                return Some(Token { kind, start, end });
            }
        }
    }

    /// The next tokens of the item that are one address: two words side by side are two addresses without a comma
    /// between them, unless they stand in brackets.
    fn next_piece(&mut self) -> Option<Range<usize>> {
        let first = self.handed_out;
        if first >= self.item.len() {
            return None;
        }
        let rest = &self.item[first..];
        let length = if self.bracketed {
            rest.len()
        } else {
            let border = rest.windows(2).position(|pair| pair[0].kind.is_word() && pair[1].kind.is_word());
            border.map_or(rest.len(), |before| before + 1)
        };
        self.handed_out = first + length;
        Some(first..first + length)
    }

    fn mailbox(&mut self, piece: Range<usize>) -> Option<Mailbox> {
        let tokens = &self.item[piece];
        let (first, last) = (tokens.first()?, tokens.last()?);
        if !tokens.iter().any(|token| token.kind.is_word()) {
            return None;
        }
        let mut text = Vec::with_capacity(last.end - first.start);
        let mut after_word = false;
        for token in tokens {
            let is_word = token.kind.is_word();
            if is_word && after_word {
                text.push(b' ');
            }
            after_word = is_word;
            push_internal(&mut text, token.kind, &self.value[token.start..token.end]);
        }
        let range = first.start..last.end;
        match Address::from_bytes(&text) {
            Ok(address) if address.is_null() => None,
            Ok(address) => Some(Mailbox { address, range }),
            Err(why) => {
                self.unfit.get_or_insert_with(|| Unfit::new(why, &text));
                None
            }
        }
    }
}

impl Iterator for Mailboxes<'_> {
    type Item = Mailbox;

    fn next(&mut self) -> Option<Mailbox> {
        loop {
            let Some(piece) = self.next_piece() else {
                self.read_item();
                if self.item.is_empty() {
                    return None;
                }
                continue;
            };
            if let Some(mailbox) = self.mailbox(piece) {
                return Some(mailbox);
            }
        }
    }
}

/// Appends a token without quotes, backslashes and folding.
fn push_internal(text: &mut Vec<u8>, kind: Kind, token: &[u8]) {
    let inner = match kind {
        Kind::Quoted => token[1..].strip_suffix(b"\"").unwrap_or(&token[1..]),
        _ => token,
    };
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' | b'\n' => {}
            b'\\' if kind != Kind::DomainLiteral => text.extend(bytes.next()),
            byte => text.push(*byte),
        }
    }
}

/// The token at `at` and where it ends; `None` at the end of the value.
fn next_token(value: &[u8], at: usize) -> Option<(Kind, usize)> {
    let first = *value.get(at)?;
    let token = match first {
        b'(' => (Kind::Comment, comment_end(value, at)),
        b'"' => (Kind::Quoted, delimited_end(value, at, b'"')),
        b'[' => (Kind::DomainLiteral, delimited_end(value, at, b']')),
        b'<' | b'>' | b',' | b';' | b':' | b'@' | b'.' => (Kind::Operator(first), at + 1),
        // A closing bracket that was never opened means as little as a blank.
        b')' | b']' => (Kind::Blank, at + 1),
        // Exactly what ends an atom: a byte that were neither would be an atom of no length, read again for ever.
        byte if byte.is_ascii_whitespace() => (Kind::Blank, at + 1),
        _ => (Kind::Atom, atom_end(value, at)),
    };
    Some(token)
}

/// Comments nest (RFC 5322 section 3.2.2); one that is not closed runs to the end.
fn comment_end(value: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = open;
    while let Some(byte) = value.get(at) {
        match byte {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at.min(value.len())
}

fn delimited_end(value: &[u8], open: usize, close: u8) -> usize {
    let mut at = open + 1;
    while let Some(byte) = value.get(at) {
        at += 1;
        if *byte == close {
            break;
        }
        if *byte == b'\\' {
            at += 1;
        }
    }
    at.min(value.len())
}

fn atom_end(value: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = value.get(at) {
        match byte {
            b'\\' => at += 1,
            b'(' | b')' | b'<' | b'>' | b'[' | b']' | b',' | b';' | b':' | b'@' | b'.' | b'"' => break,
            byte if byte.is_ascii_whitespace() => break,
            _ => {}
        }
        at += 1;
    }
    at.min(value.len())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn list(value: &str) -> Vec<String> {
        parse_list(value).unwrap().into_iter().map(String::from).collect()
    }

    #[test]
    fn what_would_be_an_address_is_not_left_out_in_silence() {
        let long = "x".repeat(3000);
        let told = |value: &[u8]| {
            let mut mailboxes = Mailboxes::new(value);
            let fit: Vec<String> = mailboxes.by_ref().map(|mailbox| mailbox.address.into()).collect();
            (fit, mailboxes.unfit().map(|unfit| unfit.to_string()))
        };
        let shown = format!("address is longer than 2048 bytes: {}...", "x".repeat(60));
        let (fit, why) = told(format!("a@b, {long}@c (d) , <e@{long}>, f").as_bytes());
        assert_eq!((fit, why.as_deref()), (vec!["a@b".to_owned(), "f".to_owned()], Some(&*shown)));
        let (fit, why) = told(b"a, j\xf6rg@b, c");
        assert_eq!((fit.len(), why.as_deref()), (2, Some("address is not UTF-8: j\u{fffd}rg@b")));
        assert_eq!(told(b"a\0b").1.as_deref(), Some("address contains a NUL, CR or LF: a\0b"));
        for value in ["", ",", "<>", "\"\"", "a: ;", "(J\u{f6}rg) a", "\"J\\\0rg\" <a@b>"] {
            assert_eq!(told(value.as_bytes()).1, None, "{value}");
        }
        assert_eq!(parse_first(&format!("{long}, a")).unwrap_err().to_string(), shown);
        assert_eq!(parse_first(&format!("a, {long}")), Ok(Some(Address::new("a").unwrap())));
        assert!(parse_list(&format!("a, {long}")).is_err());
    }

    #[test]
    fn alias_values_keep_commands_files_and_includes() {
        assert_eq!(list(r#""|/usr/bin/vacation joe", joe"#), ["|/usr/bin/vacation joe", "joe"]);
        assert_eq!(
            list("/var/mail/x.y, :include:/etc/lists/all.txt,joe"),
            ["/var/mail/x.y", ":include:/etc/lists/all.txt", "joe"]
        );
        assert_eq!(list("\":include:/a b\" \\joe"), [":include:/a b", "joe"]);
        assert_eq!(list("|/bin/cat"), ["|/bin/cat"]);
    }

    #[test]
    fn a_quoted_end_that_is_missing_is_no_panic() {
        for value in
            ["\"", "\"a", "[", "(", "\\", "<", "\"\\", "a\\", "<@a:", "<@", "((a)", "@", ".", ":include:"]
        {
            let _: Vec<Mailbox> = Mailboxes::new(value.as_bytes()).collect();
            let mut out = Vec::new();
            let keep = rewrite(value.as_bytes(), &mut out, |_| Ok::<_, Infallible>(None));
            assert_eq!((keep, out.as_slice()), (Ok(false), value.as_bytes()));
        }
    }

    #[test]
    fn every_byte_is_passed() {
        for byte in 0..=255 {
            let value = [b'a', byte, b'b', byte];
            assert!(Mailboxes::new(&value).count() <= 2, "{byte:#x}");
        }
        assert_eq!(list("a\u{c}b, c"), ["a", "b", "c"]);
    }

    #[test]
    fn addresses_side_by_side_stay_apart() {
        let complete = |address: &Address| Ok::<_, Infallible>(Address::new(format!("{address}@x")).ok());
        let mut out = Vec::new();
        assert_eq!(rewrite(b"\"a\"b, c", &mut out, complete), Ok(true));
        assert_eq!(out, b"a@x b@x, c@x");
    }

    #[test]
    fn text_that_is_not_utf8_is_left_alone() {
        let value = b"j\xfcrgen, joe";
        let mut out = Vec::new();
        let complete = |address: &Address| Ok::<_, Infallible>(Address::new(format!("{address}@x")).ok());
        assert_eq!(rewrite(value, &mut out, complete), Ok(true));
        assert_eq!(out, b"j\xfcrgen, joe@x");
    }
}
