//! `$name` and its relatives.
//!
//! ```text
//! $$                                  a dollar sign
//! $name  $(name)  ${name}             the value of name, itself expanded
//! ${name?text}  ${name?{text}}        text if the value is not empty
//! ${name:text}  ${name:{text}}        text if the value is empty
//! ${name?{yes}:{no}}                  both
//! ${{a} == {b} ? {yes} : {no}}        comparison with == != < <= >= >; numbers compare as numbers
//! ${{a} <level {b} ? {yes} : {no}}    comparison of compatibility levels
//! ```
//! Everything inside may contain references again. Depth and length are bounded.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use crate::lines::is_space;

/// Where the values of names come from.
pub(crate) trait Source {
    /// The unexpanded value of `name`; `None` if there is no such name.
    fn lookup(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// Why a text cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpandError {
    /// The `$…` does not follow the grammar.
    Syntax(String),
    /// A value refers to itself, or references are nested too deeply.
    Nesting(String),
    /// The result is too long.
    TooLong,
}

impl fmt::Display for ExpandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => f.write_str(text),
            Self::Nesting(name) => write!(f, "${name} refers to itself, or is nested too deeply"),
            Self::TooLong => write!(f, "the expanded value is longer than {MAX_LENGTH} bytes"),
        }
    }
}

impl std::error::Error for ExpandError {}

/// References within references; Postfix gives up at a similar depth.
const MAX_DEPTH: u32 = 100;
/// Bytes of an expanded value: far beyond any real one, small enough to stop `$a$a` doublings.
const MAX_LENGTH: usize = 1 << 20;

/// What a reference counts for beside its text: some sixty thousand of them are far beyond any real value.
const REFERENCE: usize = 32;

/// Expands `template`; names without a value count as empty.
pub(crate) fn expand(source: &dyn Source, template: &str) -> Result<String, ExpandError> {
    Expansion { source, missing: None, work: 0 }.text(template, 0)
}

/// As [`expand`], and tells which names had no value.
pub(crate) fn expand_noting(
    source: &dyn Source,
    template: &str,
    missing: &mut Vec<String>,
) -> Result<String, ExpandError> {
    Expansion { source, missing: Some(missing), work: 0 }.text(template, 0)
}

/// Every name that `template` refers to, at any depth of braces. Text with bad syntax yields what can be found.
pub(crate) fn names_in(template: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in template.match_indices('$') {
        let rest = template[at + 1..].trim_start_matches(['{', '(', ' ', '\t']);
        let name = &rest[..name_length(rest)];
        if !name.is_empty() {
            names.push(name);
        }
    }
    names
}

struct Expansion<'a> {
    source: &'a dyn Source,
    missing: Option<&'a mut Vec<String>>,
    /// Bytes written so far over all levels, and something for each reference, of which there may be many to nothing at all:
    /// bounds the time as well as the space.
    work: usize,
}

impl Expansion<'_> {
    fn text(&mut self, template: &str, depth: u32) -> Result<String, ExpandError> {
        let mut out = String::new();
        let mut rest = template;
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            match rest.chars().next() {
                Some('$') => {
                    out.push('$');
                    rest = &rest[1..];
                }
                Some(open @ ('{' | '(')) => {
                    let inside =
                        balanced(rest, open).ok_or_else(|| syntax("a reference is not closed", template))?;
                    out.push_str(&self.reference(inside, depth)?);
                    rest = &rest[inside.len() + 2..];
                }
                _ => {
                    let length = name_length(rest);
                    if length == 0 {
                        return Err(syntax("no name after $ (write $$ for a dollar sign)", template));
                    }
                    out.push_str(&self.value(&rest[..length], depth)?);
                    rest = &rest[length..];
                }
            }
        }
        out.push_str(rest);
        self.work += out.len() + REFERENCE;
        if self.work > 2 * MAX_LENGTH || out.len() > MAX_LENGTH {
            return Err(ExpandError::TooLong);
        }
        Ok(out)
    }

    /// What stands between `${` and `}`.
    fn reference(&mut self, inside: &str, depth: u32) -> Result<String, ExpandError> {
        let start = inside.trim_start_matches(is_space);
        if start.starts_with('{') {
            return self.comparison(start, depth);
        }
        let (name, tail) = start.split_at(name_length(start));
        let tail = tail.trim_start_matches(is_space);
        if tail.is_empty() {
            return if name.is_empty() {
                Err(syntax("no name in ${}", inside))
            } else {
                self.value(name, depth)
            };
        }
        let branches = Branches::parse(tail)?;
        let value = self.value(name, depth)?;
        self.branch(branches.choose(!value.is_empty()), depth)
    }

    /// `{a} == {b} ? {yes} : {no}`. Without branches it is the word `true`, or nothing.
    fn comparison(&mut self, text: &str, depth: u32) -> Result<String, ExpandError> {
        let (left, rest) = braced(text)?;
        let rest = rest.trim_start_matches(is_space);
        let (operator, rest) = Operator::parse(rest)?;
        let (right, rest) = braced(rest.trim_start_matches(is_space))?;
        let rest = rest.trim_start_matches(is_space);
        let branches =
            if rest.is_empty() { Branches { if_true: "true", if_false: "" } } else { Branches::parse(rest)? };
        let left = self.branch(left, depth)?;
        let right = self.branch(right, depth)?;
        self.branch(branches.choose(operator.holds(&left, &right)?), depth)
    }

    fn branch(&mut self, text: &str, depth: u32) -> Result<String, ExpandError> {
        if depth >= MAX_DEPTH {
            return Err(ExpandError::Nesting(text.to_owned()));
        }
        self.text(text, depth + 1)
    }

    fn value(&mut self, name: &str, depth: u32) -> Result<String, ExpandError> {
        if depth >= MAX_DEPTH {
            return Err(ExpandError::Nesting(name.to_owned()));
        }
        if let Some(value) = self.source.lookup(name) {
            return self.text(&value, depth + 1);
        }
        if let Some(missing) = &mut self.missing
            && !missing.iter().any(|known| known == name)
        {
            missing.push(name.to_owned());
        }
        Ok(String::new())
    }
}

/// What follows a condition.
struct Branches<'a> {
    if_true: &'a str,
    if_false: &'a str,
}

impl<'a> Branches<'a> {
    fn parse(text: &'a str) -> Result<Self, ExpandError> {
        if let Some(rest) = text.strip_prefix('?') {
            let trimmed = rest.trim_start_matches(is_space);
            if !trimmed.starts_with('{') {
                return Ok(Self { if_true: rest, if_false: "" });
            }
            let (if_true, rest) = braced(trimmed)?;
            let rest = rest.trim_start_matches(is_space);
            if rest.is_empty() {
                return Ok(Self { if_true, if_false: "" });
            }
            let rest = rest.strip_prefix(':').ok_or_else(|| syntax("“:” must stand before", rest))?;
            return Ok(Self { if_true, if_false: Self::last(rest)? });
        }
        match text.strip_prefix(':') {
            Some(rest) => Ok(Self { if_true: "", if_false: Self::last(rest)? }),
            None => Err(syntax("a name has letters, digits and _ only, and this is something else", text)),
        }
    }

    fn last(text: &'a str) -> Result<&'a str, ExpandError> {
        let trimmed = text.trim_start_matches(is_space);
        if !trimmed.starts_with('{') {
            return Ok(text);
        }
        let (inside, rest) = braced(trimmed)?;
        if rest.trim_start_matches(is_space).is_empty() {
            Ok(inside)
        } else {
            Err(syntax("nothing may follow the last }", rest))
        }
    }

    fn choose(&self, condition: bool) -> &'a str {
        if condition { self.if_true } else { self.if_false }
    }
}

type Holds = fn(Ordering) -> bool;

/// Longer ones first.
const OPERATORS: [(&str, Holds); 6] = [
    ("==", Ordering::is_eq),
    ("!=", Ordering::is_ne),
    ("<=", Ordering::is_le),
    (">=", Ordering::is_ge),
    ("<", Ordering::is_lt),
    (">", Ordering::is_gt),
];

#[derive(Clone, Copy)]
struct Operator {
    holds: Holds,
    levels: bool,
}

impl Operator {
    fn parse(text: &str) -> Result<(Self, &str), ExpandError> {
        let wrong = || syntax("one of == != < <= >= > must stand before", text);
        let (holds, rest) = OPERATORS
            .iter()
            .find_map(|(sign, holds)| Some((*holds, text.strip_prefix(sign)?)))
            .ok_or_else(wrong)?;
        match rest.strip_prefix("level") {
            Some(rest) => Ok((Self { holds, levels: true }, rest)),
            None if rest.trim_start_matches(is_space).starts_with('{') => {
                Ok((Self { holds, levels: false }, rest))
            }
            None => Err(wrong()),
        }
    }

    fn holds(self, left: &str, right: &str) -> Result<bool, ExpandError> {
        let order = if self.levels { level(left)?.cmp(&level(right)?) } else { compare(left, right) };
        Ok((self.holds)(order))
    }
}

/// A compatibility level such as `3.6`: up to three numbers, missing ones are zero.
pub(crate) fn level(text: &str) -> Result<[u32; 3], ExpandError> {
    let wrong = || ExpandError::Syntax(format!("“{text}” is not a compatibility level such as 3.6"));
    let mut numbers = [0; 3];
    let parts: Vec<&str> = text.trim_matches(is_space).split('.').collect();
    if parts.len() > numbers.len() {
        return Err(wrong());
    }
    for (number, part) in numbers.iter_mut().zip(parts) {
        if !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        *number = part.parse().map_err(|_| wrong())?;
    }
    Ok(numbers)
}

/// Numbers of any length by value, everything else by its bytes.
fn compare(left: &str, right: &str) -> Ordering {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if is_number(left) && is_number(right) {
        let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
        return left.len().cmp(&right.len()).then_with(|| left.cmp(right));
    }
    left.cmp(right)
}

fn name_length(text: &str) -> usize {
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// `text` begins with `open`: what stands between it and the bracket that closes it.
fn balanced(text: &str, open: char) -> Option<&str> {
    let close = if open == '{' { '}' } else { ')' };
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Some(&text[1..at]);
            }
        }
    }
    None
}

/// `{inside} rest`.
fn braced(text: &str) -> Result<(&str, &str), ExpandError> {
    if !text.starts_with('{') {
        return Err(syntax("{…} must stand before", text));
    }
    let inside = balanced(text, '{').ok_or_else(|| syntax("a { is not closed", text))?;
    Ok((inside, &text[inside.len() + 2..]))
}

fn syntax(what: &str, place: &str) -> ExpandError {
    ExpandError::Syntax(format!("{what}: “{place}”"))
}
