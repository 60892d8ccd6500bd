//! Tables that are an ordered list of rules, `regexp:` and `cidr:`; the first rule that matches the key answers.
//!
//! ```text
//! pattern result        !pattern result       if pattern … endif       if !pattern … endif
//! ```
//!
//! A rule that cannot be understood is skipped with a warning, so that one slip does not stop the mail. If the slip is in
//! an `if`, so are the rules up to its `endif`; Postfix applies them to everything.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Request;
use crate::braces::{split_list, unbrace};
use crate::source::{LogicalLines, excerpt};
use crate::table::{LookupError, OpenError, Table};
use crate::warning::warn;
use crate::watch::Watched;

/// What rules are made of: the part in which the types differ.
pub(super) trait Pattern: Sized + Send + Sync + 'static {
    /// A key as the patterns compare it.
    type Key<'k>: Copy;
    /// What a rule gives.
    type Value: Send + Sync;

    /// `None` for a key that no pattern could be about.
    fn key(text: &str) -> Option<Self::Key<'_>>;
    /// Reads the pattern at the beginning of `text`; returns it and the text behind it. What is valid but looks like a slip
    /// goes to `doubt`.
    fn parse<'t>(text: &'t str, doubt: &dyn Fn(&str)) -> Result<(Self, &'t str), String>;
    /// Reads the value of a rule with this pattern. It is not empty.
    fn value(&self, text: &str, negated: bool, substitute: bool) -> Result<Self::Value, String>;
    fn matches(&self, key: Self::Key<'_>) -> bool;
    /// The value for a key that the rule applies to.
    fn answer(&self, value: &Self::Value, key: Self::Key<'_>) -> String;
}

struct Ruled<P: Pattern> {
    label: String,
    rules: Watched<Vec<Rule<P>>>,
}

struct Rule<P: Pattern> {
    /// `None` for a condition that could not be understood: never true.
    pattern: Option<P>,
    negated: bool,
    action: Action<P::Value>,
}

enum Action<V> {
    Answer(V),
    /// The rules up to (without) this one count only where the pattern applies.
    Guard(usize),
}

pub(super) fn open<P: Pattern>(request: &Request<'_>) -> Result<Arc<dyn Table>, OpenError> {
    let substitute = request.options.substitute;
    let rules = if request.name.starts_with('{') {
        let text = inline_text(request)?;
        let label = request.label;
        let rules = read(Cursor::new(text), label, substitute);
        Watched::fixed(rules.map_err(|e| OpenError::io("read", label.as_ref(), &e))?)
    } else {
        let name = request.name.to_owned();
        let load = move |file: &File| {
            let reader = BufReader::with_capacity(1 << 16, file);
            read(reader, &name, substitute).map_err(|e| OpenError::io("read", Path::new(&name), &e))
        };
        Watched::open(PathBuf::from(request.name), load, |_| true)?
    };
    Ok(Arc::new(Ruled::<P> { label: request.label.to_owned(), rules }))
}

/// The rules of `type:{ { rule }, { rule } }`, one a line.
fn inline_text(request: &Request<'_>) -> Result<String, OpenError> {
    let expected =
        || request.configuration_error(format!("expected {}:{{ {{ rule }}, {{ rule }} }}", request.kind));
    let list = request.braced().ok_or_else(expected)?;
    let mut text = String::new();
    for item in split_list(list).map_err(|error| request.configuration_error(error))? {
        text.push_str(unbrace(item).ok_or_else(expected)?);
        text.push('\n');
    }
    Ok(text)
}

fn read<P: Pattern>(reader: impl BufRead, name: &str, substitute: bool) -> std::io::Result<Vec<Rule<P>>> {
    let mut rules: Vec<Rule<P>> = Vec::new();
    // The rules that wait for their endif, with the lines they are on.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut lines = LogicalLines::new(reader, name);
    while let Some(line) = lines.next()? {
        let number = line.number;
        let complain = |why: &str| warn(format_args!("{name}, line {number}: {why}"));
        let Ok(text) = std::str::from_utf8(line.text) else {
            complain(&format!("non-UTF-8 input \"{}\": skipping this rule", excerpt(line.text)));
            continue;
        };
        if let Some(rest) = keyword(text, "endif") {
            if !rest.is_empty() {
                complain("ignoring the text after endif");
            }
            match open.pop() {
                Some((guard, _)) => rules[guard].action = Action::Guard(rules.len()),
                None => complain("ignoring an endif without its if"),
            }
        } else if let Some(condition) = keyword(text, "if") {
            open.push((rules.len(), number));
            rules.push(guard(condition, &complain));
        } else {
            match rule(text, substitute, &complain) {
                Ok(rule) => rules.push(rule),
                Err(why) => complain(&format!("{why}: skipping this rule")),
            }
        }
    }
    // Rules that an endif is missing for reach to the end of the table.
    for (guard, number) in open {
        warn(format_args!("{name}, line {number}: this if has no endif"));
        rules[guard].action = Action::Guard(rules.len());
    }
    Ok(rules)
}

/// What follows `word` at the beginning of a line, if it stands there by itself.
fn keyword<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let start = text.get(..word.len())?;
    let rest = text.get(word.len()..)?;
    let alone = !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == ':');
    (start.eq_ignore_ascii_case(word) && alone).then(|| rest.trim_ascii())
}

fn guard<P: Pattern>(text: &str, complain: &dyn Fn(&str)) -> Rule<P> {
    let (text, negated) = without_negation(text);
    let action = Action::Guard(usize::MAX);
    match P::parse(text, complain) {
        Ok((pattern, rest)) => {
            if !rest.trim_ascii().is_empty() {
                complain("ignoring the text after the pattern of an if");
            }
            Rule { pattern: Some(pattern), negated, action }
        }
        Err(why) => {
            complain(&format!("{why}: skipping the rules from this if to its endif"));
            Rule { pattern: None, negated, action }
        }
    }
}

fn rule<P: Pattern>(text: &str, substitute: bool, doubt: &dyn Fn(&str)) -> Result<Rule<P>, String> {
    let (text, negated) = without_negation(text);
    let (pattern, rest) = P::parse(text, doubt)?;
    let result = rest.trim_ascii();
    if result.is_empty() {
        return Err("no result after the pattern".to_owned());
    }
    let value = pattern.value(result, negated, substitute)?;
    Ok(Rule { pattern: Some(pattern), negated, action: Action::Answer(value) })
}

fn without_negation(mut text: &str) -> (&str, bool) {
    let mut negated = false;
    while let Some(rest) = text.strip_prefix('!') {
        negated = !negated;
        text = rest.trim_ascii_start();
    }
    (text, negated)
}

impl<P: Pattern> Table for Ruled<P> {
    fn get(&self, key: &str) -> Result<Option<String>, LookupError> {
        let rules = self.rules.current().map_err(|error| LookupError::opening(&self.label, &error))?;
        let Some(subject) = P::key(key) else { return Ok(None) };
        let mut at = 0;
        while let Some(rule) = rules.get(at) {
            at += 1;
            let applies = rule.pattern.as_ref().filter(|pattern| pattern.matches(subject) != rule.negated);
            match (&rule.action, applies) {
                (Action::Answer(value), Some(pattern)) => {
                    // What a pattern has matched may be nothing; to take it for "not there" could let somebody in.
                    return match pattern.answer(value, subject) {
                        value if value.is_empty() => {
                            Err(LookupError::new(&self.label, format!("the value of \"{key}\" is empty")))
                        }
                        value => Ok(Some(value)),
                    };
                }
                (Action::Guard(end), None) => at = *end,
                _ => {}
            }
        }
        Ok(None)
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn is_pattern(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_answer_that_comes_out_empty_is_an_error() {
        let table = crate::open("regexp:{ {/^(a|b)*c$/ $1} }").unwrap();
        assert_eq!(table.get("ac").unwrap().as_deref(), Some("a"));
        assert_eq!(table.get("c").unwrap_err().cause, "the value of \"c\" is empty");
        assert_eq!(table.get("d").unwrap(), None);
    }
}
