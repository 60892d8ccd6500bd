//! The address in MAIL FROM and RCPT TO: RFC 5321 section 4.1.2, with what mailers are known to send instead.
//!
//! Like Postfix, unless `strict_rfc821_envelopes = yes`: angle brackets may be missing or doubled, comments and a display name
//! are dropped, and white space between the parts is overlooked. A source route is dropped in any case (RFC 5321 appendix
//! C). Whatever the form, the result must be one address with a domain that could exist.

use std::iter::Peekable;
use std::str::Chars;

use mail::Address;

/// How deep comments may nest; what nests deeper is no address.
const MAX_COMMENT_DEPTH: u32 = 16;

/// What the command allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// `strict_rfc821_envelopes`.
    pub strict: bool,
    /// `resolve_numeric_domain`: an IP address without brackets is a domain.
    pub numeric_domain: bool,
    /// The null sender `<>` is an address here.
    pub allow_null: bool,
}

/// The bytes are not one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathError;

/// Parts the path from the parameters after it: white space ends it, except between quotes, brackets and angle brackets.
#[must_use]
pub fn split(arguments: &str) -> (&str, &str) {
    let (mut quoted, mut escaped, mut angle, mut bracket) = (false, false, false, false);
    for (place, c) in arguments.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '[' => bracket = true,
            ']' => bracket = false,
            '<' => angle = true,
            '>' => angle = false,
            ' ' | '\t' if !angle && !bracket => {
                return (&arguments[..place], arguments[place..].trim_start_matches([' ', '\t']));
            }
            _ => {}
        }
    }
    (arguments, "")
}

/// Reads one path.
///
/// # Errors
/// When it is not one address, or not one that the rules allow.
pub fn parse(path: &str, rules: PathRules) -> Result<Address, PathError> {
    if rules.strict && !(path.starts_with('<') && path.ends_with('>')) {
        return Err(PathError);
    }
    let rest = without_stray_brackets(path).chars().peekable();
    let mut reader = Reader { rest, strict: rules.strict, address: Spelling::default() };
    let text = reader.path()?;
    if text.is_empty() {
        return if rules.allow_null { Ok(Address::null()) } else { Err(PathError) };
    }
    let address = Address::new(text).map_err(|_| PathError)?;
    if rules.strict && address.local_part().is_empty() {
        return Err(PathError);
    }
    match address.domain() {
        Some(domain) if !(is_domain(domain) || rules.numeric_domain && is_address(domain)) => Err(PathError),
        _ => Ok(address),
    }
}

/// Programs that put brackets around what has them send `<<user@domain>>`, or half of that.
fn without_stray_brackets(path: &str) -> &str {
    let path = path.strip_prefix('<').filter(|rest| rest.starts_with('<')).unwrap_or(path);
    let closed = |rest: &&str| rest.ends_with('>') || !rest.is_empty() && !rest.contains('<');
    path.strip_suffix('>').filter(closed).unwrap_or(path)
}

/// An address as it is put together, without its quotes.
#[derive(Default)]
struct Spelling {
    text: String,
    /// White space or a comment came last.
    gap: bool,
    after_atom: bool,
    after_quotes: bool,
}

impl Spelling {
    /// A character of an atom. Two atoms with nothing but a blank between them are no address.
    fn atom(&mut self, c: char) -> Result<(), PathError> {
        if self.gap && self.after_atom || self.after_quotes {
            return Err(PathError);
        }
        self.text.push(c);
        (self.gap, self.after_atom) = (false, true);
        Ok(())
    }

    fn special(&mut self, c: char) {
        self.text.push(c);
        (self.gap, self.after_atom, self.after_quotes) = (false, false, false);
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    strict: bool,
    address: Spelling,
}

impl Reader<'_> {
    /// Either a bare address, or one between angle brackets with a display name before it.
    fn path(&mut self) -> Result<String, PathError> {
        let mut bracketed = false;
        while let Some(c) = self.rest.next() {
            match c {
                '<' if bracketed => return Err(PathError),
                '<' => {
                    bracketed = true;
                    self.address = Spelling::default();
                    self.bracketed()?;
                }
                ' ' | '\t' => self.address.gap = true,
                '(' => self.comment()?,
                // A second address after the first one.
                _ if bracketed => return Err(PathError),
                _ => self.part(c)?,
            }
        }
        Ok(std::mem::take(&mut self.address.text))
    }

    /// What stands between `<` and `>`, without a source route (RFC 5321 `A-d-l`).
    fn bracketed(&mut self) -> Result<(), PathError> {
        let mut route = self.rest.peek() == Some(&'@');
        while let Some(c) = self.rest.next() {
            match c {
                '>' => return Ok(()),
                '<' => return Err(PathError),
                ':' if route => {
                    route = false;
                    self.address = Spelling::default();
                }
                ',' if route => self.address.special(','),
                ' ' | '\t' if self.strict => return Err(PathError),
                ' ' | '\t' => self.address.gap = true,
                '(' => self.comment()?,
                _ => self.part(c)?,
            }
        }
        Err(PathError)
    }

    /// One character, quoted string or domain literal of an address.
    fn part(&mut self, c: char) -> Result<(), PathError> {
        match c {
            '"' => self.quoted()?,
            '[' => self.literal()?,
            '\\' => {
                let escaped = self.rest.next().filter(|c| !c.is_control()).ok_or(PathError)?;
                self.address.atom(escaped)?;
            }
            '@' if self.address.text.ends_with('@') && !self.address.after_quotes => return Err(PathError),
            '.' | '@' => self.address.special(c),
            ',' | ';' | ':' | '>' | ')' | ']' => return Err(PathError),
            c if c.is_control() => return Err(PathError),
            c => self.address.atom(c)?,
        }
        Ok(())
    }

    fn quoted(&mut self) -> Result<(), PathError> {
        if self.address.after_atom || self.address.after_quotes {
            return Err(PathError);
        }
        loop {
            match self.rest.next().ok_or(PathError)? {
                '"' => {
                    (self.address.gap, self.address.after_quotes) = (false, true);
                    return Ok(());
                }
                '\\' => {
                    let escaped = self.rest.next().filter(|c| !c.is_control()).ok_or(PathError)?;
                    self.address.text.push(escaped);
                }
                c if c.is_control() => return Err(PathError),
                c => self.address.text.push(c),
            }
        }
    }

    fn literal(&mut self) -> Result<(), PathError> {
        self.address.special('[');
        loop {
            match self.rest.next().ok_or(PathError)? {
                ']' => {
                    self.address.special(']');
                    return Ok(());
                }
                c if c.is_control() || c == '[' || c == '>' => return Err(PathError),
                c => self.address.special(c),
            }
        }
    }

    fn comment(&mut self) -> Result<(), PathError> {
        if self.strict {
            return Err(PathError);
        }
        let mut depth = 1;
        while depth > 0 {
            match self.rest.next().ok_or(PathError)? {
                '(' if depth == MAX_COMMENT_DEPTH => return Err(PathError),
                '(' => depth += 1,
                ')' => depth -= 1,
                '\\' => drop(self.rest.next()),
                _ => {}
            }
        }
        self.address.gap = true;
        Ok(())
    }
}

/// Whether mail could be for it: a host name (RFC 5321 `Domain`, with the underscores that are in use, and RFC 6531's
/// letters), or an address literal.
#[must_use]
pub fn is_domain(domain: &str) -> bool {
    if let Some(literal) = domain.strip_prefix('[') {
        return literal.strip_suffix(']').is_some_and(is_literal);
    }
    is_host_name(domain.strip_suffix('.').unwrap_or(domain))
}

fn is_address(domain: &str) -> bool {
    domain.parse::<std::net::IpAddr>().is_ok()
}

/// Whether it is a host name that is not a bare number (RFC 1123 section 2.1).
#[must_use]
pub fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| {
                c.is_ascii_alphanumeric() || c == '-' || c == '_' || (!c.is_ascii() && !c.is_control())
            })
    };
    name.len() <= 255 && name.split('.').all(label) && !name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// RFC 5321 section 4.1.3, between the brackets.
#[must_use]
pub fn is_literal(literal: &str) -> bool {
    match literal.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")) {
        Some(_) => literal[5..].parse::<std::net::Ipv6Addr>().is_ok(),
        None => literal.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests;
