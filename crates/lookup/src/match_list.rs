//! Lists of patterns such as `mydestination`, `relay_domains` and `mynetworks`.
//!
//! The items of a list are tried from left to right and the first that matches decides: `!` before an item turns its
//! "yes" into a "no". An item is a literal, a `/file` whose lines are items, or a `type:table` that is asked for the
//! name. Everything that can be found out about an item is found out when the list is opened; a match looks at the
//! literals in sets and allocates nothing for a name in lower case.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::domain::Parents;
use crate::network::{Network, NetworkError};
use crate::table::cause;
use crate::types::open_or_wait;
use crate::warning::warn;
use crate::{LookupError, OpenError, Options, Table, fold, split_list};

/// A file of patterns that is larger is taken for a mistake.
const FILE_LIMIT: u64 = 64 * 1024 * 1024;
/// A file may name a file, which may name a file …
const NESTING_LIMIT: usize = 10;

/// An opened list of patterns.
#[derive(Default)]
pub struct MatchList {
    items: Vec<Item>,
    parents: Option<Parents>,
}

struct Item {
    /// What a match means: `false` after an odd number of `!`.
    verdict: bool,
    pattern: Pattern,
}

enum Pattern {
    /// Neighbouring literals with the same verdict, folded: a long list in a file costs one probe.
    Words(HashSet<Box<str>>),
    Network(Network),
    Table(Arc<dyn Table>),
    /// A file that could not be read: nobody knows whether it would have matched.
    Unreadable(LookupError),
}

/// What kind of text a list is matched with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Strings,
    Domains,
    Hosts,
}

impl MatchList {
    /// A list that is matched with whole strings: `mydestination`, `virtual_alias_domains`, `masquerade_exceptions`.
    ///
    /// # Errors
    /// The first item that can never work, with the list's `parameter` and what would be right.
    pub fn strings(parameter: &str, items: &[String]) -> Result<Self, OpenError> {
        Self::open(parameter, items, Kind::Strings, None)
    }

    /// A list that is matched with domain names and their parents: `relay_domains`.
    ///
    /// # Errors
    /// As [`MatchList::strings`].
    pub fn domains(parameter: &str, items: &[String], parents: Parents) -> Result<Self, OpenError> {
        Self::open(parameter, items, Kind::Domains, Some(parents))
    }

    /// A list that is matched with a host's name and address: `mynetworks`.
    ///
    /// # Errors
    /// As [`MatchList::strings`].
    pub fn hosts(parameter: &str, items: &[String], parents: Parents) -> Result<Self, OpenError> {
        Self::open(parameter, items, Kind::Hosts, Some(parents))
    }

    fn open(
        parameter: &str,
        items: &[String],
        kind: Kind,
        parents: Option<Parents>,
    ) -> Result<Self, OpenError> {
        let mut opener = Opener { kind, items: Vec::new() };
        for item in items {
            opener.add(item, true, &Place { parameter, file: None }, 0)?;
        }
        Ok(Self { items: opener.items, parents })
    }

    /// Whether there is nothing to match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether the list holds `text`, in any case.
    ///
    /// # Errors
    /// A table or file that stands before the first match could not be asked.
    pub fn matches(&self, text: &str) -> Result<bool, LookupError> {
        let text = fold(text);
        self.first_match(|pattern| match pattern {
            Pattern::Words(words) => Ok(words.contains(text.as_ref())),
            Pattern::Network(_) => Ok(false),
            Pattern::Table(table) => Ok(table.get(&text)?.is_some()),
            Pattern::Unreadable(error) => Err(error.clone()),
        })
    }

    /// Whether the list holds `domain` or, in the way the list names them, one of its parents.
    ///
    /// # Errors
    /// As [`MatchList::matches`].
    pub fn matches_domain(&self, domain: &str) -> Result<bool, LookupError> {
        let domain = fold(domain);
        self.first_match(|pattern| self.domain_matches(pattern, &domain))
    }

    /// Whether the list holds the host by its name (`unknown` where there is none) or by its address.
    ///
    /// # Errors
    /// As [`MatchList::matches`].
    pub fn matches_host(&self, name: &str, ip: IpAddr) -> Result<bool, LookupError> {
        let name = fold(name);
        let ip = ip.to_canonical();
        self.first_match(|pattern| match pattern {
            Pattern::Network(network) => Ok(network.contains(ip)),
            Pattern::Table(table) => {
                Ok(self.domain_matches(pattern, &name)? || table.get(&ip.to_string())?.is_some())
            }
            Pattern::Words(_) | Pattern::Unreadable(_) => self.domain_matches(pattern, &name),
        })
    }

    fn first_match(
        &self,
        mut matches: impl FnMut(&Pattern) -> Result<bool, LookupError>,
    ) -> Result<bool, LookupError> {
        for item in &self.items {
            if matches(&item.pattern)? {
                return Ok(item.verdict);
            }
        }
        Ok(false)
    }

    fn domain_matches(&self, pattern: &Pattern, domain: &str) -> Result<bool, LookupError> {
        let mut keys = self.parents.unwrap_or(Parents::Dotted).keys(domain);
        match pattern {
            Pattern::Words(words) => Ok(keys.any(|key| words.contains(key))),
            Pattern::Network(_) => Ok(false),
            Pattern::Table(table) => {
                // A table of patterns is asked for the whole name only.
                let most = if table.is_pattern() { 1 } else { usize::MAX };
                for key in keys.take(most) {
                    if table.get(key)?.is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Pattern::Unreadable(error) => Err(error.clone()),
        }
    }
}

/// Where an item stands, for messages about it.
struct Place<'a> {
    parameter: &'a str,
    file: Option<(&'a Path, usize)>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parameter)?;
        match self.file {
            Some((file, line)) => write!(f, ": {}:{line}", file.display()),
            None => Ok(()),
        }
    }
}

struct Opener {
    kind: Kind,
    items: Vec<Item>,
}

impl Opener {
    fn add(&mut self, item: &str, verdict: bool, place: &Place<'_>, depth: usize) -> Result<(), OpenError> {
        let pattern = item.trim_start_matches('!');
        let verdict = verdict ^ ((item.len() - pattern.len()) % 2 == 1);
        if pattern.is_empty() {
            return Err(bad(place, item, "nothing stands after the \"!\""));
        }
        if pattern.starts_with('/') {
            return self.add_file(Path::new(pattern), verdict, place, depth);
        }
        if let Some(network) = self.network(pattern, place)? {
            self.items.push(Item { verdict, pattern: Pattern::Network(network) });
            return Ok(());
        }
        if pattern.contains(':') && !pattern.starts_with('[') {
            let table = open_or_wait(pattern, Options::default()).map_err(|error| bad(place, item, error))?;
            self.items.push(Item { verdict, pattern: Pattern::Table(table) });
            return Ok(());
        }
        self.add_word(pattern, verdict);
        Ok(())
    }

    fn add_word(&mut self, word: &str, verdict: bool) {
        let word = fold(word).into_owned().into_boxed_str();
        if let Some(Item { verdict: last, pattern: Pattern::Words(words) }) = self.items.last_mut()
            && *last == verdict
        {
            words.insert(word);
            return;
        }
        self.items.push(Item { verdict, pattern: Pattern::Words(HashSet::from([word])) });
    }

    /// The network that `pattern` names in a list of hosts; `None` for everything that is meant as a name.
    fn network(&self, pattern: &str, place: &Place<'_>) -> Result<Option<Network>, OpenError> {
        if self.kind != Kind::Hosts {
            return Ok(None);
        }
        if let Some(inner) = pattern.strip_prefix('[') {
            let (address, prefix) = inner.split_once(']').ok_or_else(|| {
                bad(place, pattern, "the \"[\" has no \"]\": expected something like \"[2001:db8::]/32\"")
            })?;
            return self.network_of(&format!("{address}{prefix}"), pattern, place).map(Some);
        }
        let bare_v6 = pattern.split('/').next().is_some_and(|a| a.parse::<std::net::Ipv6Addr>().is_ok());
        if bare_v6 {
            let (address, prefix) = pattern.split_at(pattern.find('/').unwrap_or(pattern.len()));
            let text = format!("an IPv6 address stands in brackets here: \"[{address}]{prefix}\"");
            return Err(bad(place, pattern, text));
        }
        let numeric = pattern.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'/'));
        if pattern.parse::<IpAddr>().is_ok() || (numeric && pattern.contains('/')) {
            return self.network_of(pattern, pattern, place).map(Some);
        }
        Ok(None)
    }

    fn network_of(&self, text: &str, item: &str, place: &Place<'_>) -> Result<Network, OpenError> {
        Network::parse(text).map_err(|error| match error {
            NetworkError::HostBits { meant } if item.starts_with('[') => bad(
                place,
                item,
                format!("bits are set after the network part: did you mean \"{}\"?", meant.bracketed()),
            ),
            error => bad(place, item, error),
        })
    }

    fn add_file(
        &mut self,
        path: &Path,
        verdict: bool,
        place: &Place<'_>,
        depth: usize,
    ) -> Result<(), OpenError> {
        let item = path.to_string_lossy();
        if depth >= NESTING_LIMIT {
            let text = format!("files of patterns name each other more than {NESTING_LIMIT} deep");
            return Err(bad(place, &item, text));
        }
        let text = match read(path) {
            Ok(text) => text,
            Err(why) => {
                warn(format_args!("{place}: {why}"));
                let error = LookupError::new(&item, format!("{}: {why}", place.parameter));
                self.items.push(Item { verdict, pattern: Pattern::Unreadable(error) });
                return Ok(());
            }
        };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
            let place = Place { parameter: place.parameter, file: Some((path, number + 1)) };
            for item in split_list(line).map_err(|error| bad(&place, line, error))? {
                self.add(item, verdict, &place, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let result = std::fs::File::open(path)
        .map_err(|error| format!("open {}: {}", path.display(), cause(&error)))?
        .take(FILE_LIMIT + 1)
        .read_to_string(&mut text);
    match result {
        Ok(size) if size as u64 > FILE_LIMIT => {
            Err(format!("{}: larger than {FILE_LIMIT} bytes", path.display()))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(format!("read {}: {}", path.display(), cause(&error))),
    }
}

fn bad(place: &Place<'_>, item: &str, why: impl fmt::Display) -> OpenError {
    OpenError::Configuration(format!("{place}: \"{item}\": {why}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn items(text: &str) -> Vec<String> {
        split_list(text).unwrap().into_iter().map(str::to_owned).collect()
    }

    fn refusal(text: &str) -> String {
        match MatchList::hosts("mynetworks", &items(text), Parents::Dotted) {
            Ok(_) => panic!("{text} was taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn bad_items_are_named_with_what_would_be_right() {
        let cases = [
            (
                "10.0.0.1/8",
                "\"10.0.0.1/8\": bits are set after the network part: did you mean \"10.0.0.0/8\"?",
            ),
            (
                "[2001:db8::1]/32",
                "\"[2001:db8::1]/32\": bits are set after the network part: did you mean \"[2001:db8::]/32\"?",
            ),
            ("10.0.0.0/33", "\"10.0.0.0/33\": the prefix length must be a number from 0 to 32"),
            ("::1/128", "\"::1/128\": an IPv6 address stands in brackets here: \"[::1]/128\""),
            ("[::1", "\"[::1\": the \"[\" has no \"]\": expected something like \"[2001:db8::]/32\""),
            ("[::g]", "\"[::g]\": not a numeric network address"),
            ("10/8", "\"10/8\": not a numeric network address"),
            ("!", "\"!\": nothing stands after the \"!\""),
        ];
        for (item, text) in cases {
            assert_eq!(refusal(item), format!("mynetworks: {text}"));
        }
        assert!(refusal("nosuchtype:/x").starts_with("mynetworks: \"nosuchtype:/x\": "));
    }

    #[test]
    fn a_file_stands_for_its_lines_and_errors_name_the_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "# comment\na.example, B.example\n\n!c.example").unwrap();
        let path = file.path().display().to_string();
        let list = MatchList::strings("mydestination", std::slice::from_ref(&path)).unwrap();
        let verdicts = ["a.example", "b.example", "c.example", "d.example"].map(|d| list.matches(d).unwrap());
        assert_eq!(verdicts, [true, true, false, false]);
        let list = MatchList::strings("mydestination", &[format!("!{path}"), "static:x".to_owned()]).unwrap();
        let verdicts = ["a.example", "c.example", "d.example"].map(|d| list.matches(d).unwrap());
        assert_eq!(verdicts, [false, true, true]);

        writeln!(file, "10.0.0.1/8").unwrap();
        assert!(refusal(&path).starts_with(&format!("mynetworks: {path}:5: \"10.0.0.1/8\": ")));
    }

    #[test]
    fn a_file_that_names_itself_is_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        writeln!(file, "{path}").unwrap();
        assert!(refusal(&path).contains("more than 10 deep"));
    }

    #[test]
    fn what_cannot_be_asked_is_a_temporary_error_but_only_when_it_is_reached() {
        let list = MatchList::strings("mydestination", &items("a /no/such/file b")).unwrap();
        assert_eq!(list.matches("a"), Ok(true));
        let error = list.matches("b").unwrap_err();
        assert_eq!(error.table, "/no/such/file");
        assert!(error.cause.contains("open /no/such/file: No such file or directory"), "{error}");
        let list = MatchList::domains("relay_domains", &items("a fail:x"), Parents::Bare).unwrap();
        assert_eq!(list.matches_domain("sub.a"), Ok(true));
        assert_eq!(list.matches_domain("b").unwrap_err().table, "fail:x");
    }
}
