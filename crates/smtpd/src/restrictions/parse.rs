//! From the text of a list to rules.

use std::fmt;

use config::{Config, param, split_list};
use lookup::Maps;

use super::certificate::{Feature, Search};
use super::dns_list::DnsList;
use super::verbs::{self, Takes, Verb};
use crate::policy::Service;

/// How deep classes may name classes.
const MAX_DEPTH: usize = 10;

/// How many classes a list may come to: two classes that name each other twice would come to any number within that depth.
const MAX_ENTERED: usize = 1000;

/// A list of restrictions.
#[derive(Default)]
pub(super) struct List(pub(super) Vec<Rule>);

/// One restriction.
pub(super) enum Rule {
    /// A verb of the table, with what follows it.
    Verb { verb: &'static Verb, argument: Argument },
    /// `warn_if_reject`, and what it is about.
    Warn(Box<Rule>),
    /// A class of `smtpd_restriction_classes`.
    Class(List),
    /// A word that is nothing: refuses everything for now.
    Unknown,
}

/// What follows a verb.
pub(super) enum Argument {
    None,
    Table { maps: Maps, label: String },
    Certificate { maps: Maps, label: String, order: Vec<Feature> },
    Text(String),
    Policy(Service),
    DnsList(DnsList),
}

impl Argument {
    /// Whether it is asked for actions, which log by themselves whom they permit.
    pub(super) const fn has_entries(&self) -> bool {
        matches!(self, Self::Table { .. } | Self::Certificate { .. } | Self::Policy(_))
    }
}

/// What is wrong with a list.
pub(super) enum Problem {
    /// A verb of Postfix's that has no effect here yet.
    NotImplemented { verb: &'static str, why: &'static str },
    /// A list that cannot work.
    Mistake(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotImplemented { verb, why } => {
                write!(f, "{verb} has no effect in this version: {why}; remove it, or do not rely on it")
            }
            Self::Mistake(text) => f.write_str(text),
        }
    }
}

/// Reads lists; gathers what is wrong with them.
pub(super) struct Parser<'a> {
    config: &'a Config,
    classes: Vec<String>,
    /// How many classes were entered, each as often as it is named.
    entered: usize,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self {
            config,
            classes: config.get(param::SMTPD_RESTRICTION_CLASSES),
            entered: 0,
            problems: Vec::new(),
        }
    }

    pub(super) fn list(&mut self, items: &[String]) -> List {
        self.nested(items, 0)
    }

    fn nested(&mut self, items: &[String], depth: usize) -> List {
        let mut rules = Vec::new();
        let mut words = items.iter();
        while let Some(word) = words.next() {
            rules.push(self.rule(word, &mut words, depth));
        }
        List(rules)
    }

    fn rule(&mut self, word: &str, rest: &mut std::slice::Iter<'_, String>, depth: usize) -> Rule {
        if word.eq_ignore_ascii_case("warn_if_reject") {
            return match rest.next() {
                Some(next) => Rule::Warn(Box::new(self.rule(next, rest, depth))),
                None => self.mistake("warn_if_reject needs a restriction after it".to_owned()),
            };
        }
        if self.classes.iter().any(|class| class == word) {
            return self.class(word, depth);
        }
        if let Some(verb) = verbs::find(word) {
            let argument = self.argument(word, verb.takes, rest);
            if let Some(why) = verb.missing() {
                self.problems.push(Problem::NotImplemented { verb: verb.name, why });
            }
            return argument
                .map_or_else(|mistake| self.mistake(mistake), |argument| Rule::Verb { verb, argument });
        }
        // A table by itself is asked about what the list is about.
        if word.contains(':') {
            return match table(word) {
                Ok(argument) => Rule::Verb { verb: &verbs::BARE_TABLE, argument },
                Err(mistake) => self.mistake(mistake),
            };
        }
        let near = verbs::nearest(word).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
        self.mistake(format!("unknown restriction \"{word}\"{near}"))
    }

    fn class(&mut self, name: &str, depth: usize) -> Rule {
        self.entered += 1;
        if depth == MAX_DEPTH || self.entered > MAX_ENTERED {
            return self.mistake(format!("restriction class {name}: classes name each other too deeply"));
        }
        match self.config.text(name) {
            Some(text) => Rule::Class(self.nested(&split_list(&text), depth + 1)),
            None => {
                self.mistake(format!("restriction class {name} is not defined: set {name} = … in main.cf"))
            }
        }
    }

    fn argument(
        &mut self,
        word: &str,
        takes: Takes,
        rest: &mut std::slice::Iter<'_, String>,
    ) -> Result<Argument, String> {
        match takes {
            Takes::Nothing => Ok(Argument::None),
            Takes::Text(what) => match rest.next() {
                Some(text) => Ok(Argument::Text(text.clone())),
                None => Err(format!("{word} needs {what} after it")),
            },
            Takes::PolicyService => match rest.next() {
                Some(text) => Service::parse(self.config, text)
                    .map(Argument::Policy)
                    .map_err(|mistake| format!("{word}: {mistake}")),
                None => Err(format!("{word} needs the address of a policy service after it")),
            },
            Takes::DnsList => match rest.next() {
                Some(text) => DnsList::parse(text).map(Argument::DnsList).map_err(|mistake| {
                    format!("{word} needs the domain name of a DNS list after it: {mistake}")
                }),
                None => Err(format!("{word} needs the domain name of a DNS list after it")),
            },
            Takes::Table => match rest.next() {
                Some(name) => named_table(word, name),
                None => Err(format!("{word} needs a lookup table after it")),
            },
            Takes::CertificateTable => match rest.next() {
                Some(text) => certificate_table(word, text),
                None => Err(format!("{word} needs a lookup table after it")),
            },
        }
    }

    fn mistake(&mut self, text: String) -> Rule {
        self.problems.push(Problem::Mistake(text));
        Rule::Unknown
    }

    /// The restrictions that an entry of an access table names.
    pub(super) fn names(config: &'a Config, text: &str) -> List {
        Self::new(config).list(&split_list(text))
    }
}

fn certificate_table(word: &str, text: &str) -> Result<Argument, String> {
    let search = Search::parse(text).map_err(|mistake| format!("{word}: {mistake}"))?;
    Ok(match named_table(word, &search.table)? {
        Argument::Table { maps, label } => Argument::Certificate { maps, label, order: search.order },
        other => other,
    })
}

fn named_table(word: &str, name: &str) -> Result<Argument, String> {
    if name.contains(':') {
        return table(name);
    }
    Err(format!("{word} needs a lookup table like hash:/etc/postroad/access, not \"{name}\""))
}

fn table(name: &str) -> Result<Argument, String> {
    let maps = Maps::open(&[name.to_owned()]).map_err(|error| error.to_string())?;
    Ok(Argument::Table { maps, label: name.to_owned() })
}

impl List {
    /// Whether something in it keeps strangers from sending anywhere.
    pub(super) fn guards_relaying(&self) -> bool {
        self.0.iter().any(|rule| match rule {
            Rule::Verb { verb, .. } => verb.guards_relaying,
            Rule::Class(list) => list.guards_relaying(),
            Rule::Warn(_) => false,
            Rule::Unknown => true,
        })
    }

    /// Whether a word in it is nothing.
    pub(super) fn has_unknown(&self) -> bool {
        self.0.iter().any(|rule| matches!(rule, Rule::Unknown))
    }
}
