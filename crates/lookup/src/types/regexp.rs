//! `regexp:file`: rules about text, as POSIX regular expressions.

use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use super::ere::{Dialect, translate};
use super::{Request, rules};
use crate::table::{OpenError, Table};

struct Expression(Regex);

/// The value of a rule: text with places for what the groups matched.
struct Template(Vec<Part>);

enum Part {
    Text(String),
    Group(usize),
}

pub(super) fn open(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    rules::open::<Expression>(request)
}

impl rules::Pattern for Expression {
    type Key<'k> = &'k str;
    type Value = Template;

    fn key(text: &str) -> Option<&str> {
        Some(text)
    }

    /// `/expression/flags`, with any visible character that is neither letter nor digit in place of the slash.
    fn parse<'t>(text: &'t str, doubt: &dyn Fn(&str)) -> Result<(Self, &'t str), String> {
        let delimiter = text.chars().next().unwrap_or(' ');
        if delimiter.is_ascii_alphanumeric() || delimiter.is_ascii_whitespace() {
            return Err("expected /expression/flags result".to_owned());
        }
        let body = text.get(delimiter.len_utf8()..).unwrap_or_default();
        let end =
            end_of_expression(body, delimiter).ok_or_else(|| format!("missing a second {delimiter}"))?;
        let after = body.get(end + delimiter.len_utf8()..).unwrap_or_default();
        let flags_end = after.find(|c: char| c.is_ascii_whitespace()).unwrap_or(after.len());
        let (flags, rest) = after.split_at(flags_end);
        let expression = compile(body.get(..end).unwrap_or_default(), flags, doubt)?;
        Ok((Self(expression), rest))
    }

    fn value(&self, text: &str, negated: bool, substitute: bool) -> Result<Template, String> {
        let template = Template::parse(text)?;
        let highest = template.0.iter().filter_map(|part| match part {
            Part::Group(number) => Some(*number),
            Part::Text(_) => None,
        });
        match highest.max() {
            Some(_) if !substitute => {
                Err("$number in the result, which this parameter does not allow: a sender could choose it"
                    .to_owned())
            }
            Some(_) if negated => {
                Err("$number in the result of a negated pattern, which matches nothing".to_owned())
            }
            Some(number) if number >= self.0.captures_len() => Err(format!(
                "${number} in the result, but the pattern has {} groups",
                self.0.captures_len() - 1
            )),
            _ => Ok(template),
        }
    }

    fn matches(&self, key: &str) -> bool {
        self.0.is_match(key.as_bytes())
    }

    fn answer(&self, value: &Template, key: &str) -> String {
        if let [Part::Text(text)] = value.0.as_slice() {
            return text.clone();
        }
        let groups = self.0.captures(key.as_bytes());
        let mut answer = String::new();
        for part in &value.0 {
            match part {
                Part::Text(text) => answer.push_str(text),
                Part::Group(number) => {
                    let group = groups.as_ref().and_then(|groups| groups.get(*number));
                    // A group of single bytes may end within a character.
                    answer.push_str(&String::from_utf8_lossy(group.map_or(b"", |group| group.as_bytes())));
                }
            }
        }
        answer
    }
}

/// Where the delimiter stands that ends the expression. One with a backslash before it does not.
fn end_of_expression(body: &str, delimiter: char) -> Option<usize> {
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == delimiter {
            return Some(at);
        }
        if c == '\\' {
            chars.next();
        }
    }
    None
}

/// Each flag toggles what it names: ignoring case (`i`, on), `^` and `$` at every line (`m`, off), extended syntax (`x`, on).
fn compile(expression: &str, flags: &str, doubt: &dyn Fn(&str)) -> Result<Regex, String> {
    let (mut ignore_case, mut lines, mut extended) = (true, false, true);
    for flag in flags.chars() {
        match flag {
            'i' => ignore_case = !ignore_case,
            'm' => lines = !lines,
            'x' => extended = !extended,
            _ => return Err(format!("unknown flag \"{flag}\" (there are i, m and x)")),
        }
    }
    let dialect = if extended { Dialect::Extended } else { Dialect::Basic };
    let translated = translate(expression, dialect, lines)?;
    if let Some(letter) = translated.odd_escape {
        doubt(&format!(
            "\\{letter} stands for the letter {letter} only ([0-9] is a digit, [[:space:]] white space)"
        ));
    }
    RegexBuilder::new(&translated.text)
        .unicode(false)
        .case_insensitive(ignore_case)
        .multi_line(lines)
        .dot_matches_new_line(!lines)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => format!("the expression takes more than {limit} bytes"),
            error => format!("invalid expression: {}", error.to_string().replace('\n', " ")),
        })
}

impl Template {
    /// `$1`, `${1}` and `$(1)` stand for a group, `$$` for a dollar sign.
    fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected $1, ${1}, $(1) or $$ in the result";
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            plain.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                plain.push('$');
                rest = after;
                continue;
            }
            let (digits, after) = match after.chars().next() {
                Some('{') => after.get(1..).unwrap_or_default().split_once('}').ok_or(EXPECTED)?,
                Some('(') => after.get(1..).unwrap_or_default().split_once(')').ok_or(EXPECTED)?,
                _ => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            };
            let number = digits.parse().ok().filter(|&number| number > 0).ok_or(EXPECTED)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Group(number));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}
