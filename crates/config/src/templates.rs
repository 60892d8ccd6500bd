//! The texts of notifications: `bounce_template_file` and the built-in texts in its place.
//!
//! Contract: the grammar is that of Postfix's bounce(5). A template with an error is told with file and line and does not
//! count: the built-in one stands in, so that a notification is always written.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::config::Config;
use crate::diagnostic::{Diagnostic, Remarks};
use crate::expand::{self, Source};
use crate::parameter::param;

/// The built-in templates, as a file of them.
pub const BUILT_IN: &str = include_str!("../../../etc/bounce.cf.default");

/// More than any text that somebody reads.
const MAX_FILE: u64 = 256 * 1024;

/// What a template is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Mail that is returned.
    Failure,
    /// Mail that is late.
    Delay,
    /// Mail that was delivered, and whose sender asked to know.
    Success,
    /// What `sendmail -v` and `-bv` ask for.
    Verify,
}

/// The names in the file, in the order in which they are shown.
const PURPOSES: [(Purpose, &str); 4] = [
    (Purpose::Failure, "failure"),
    (Purpose::Delay, "delay"),
    (Purpose::Success, "success"),
    (Purpose::Verify, "verify"),
];

/// The text of one kind of notification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// `Charset:`, the character set of the text.
    pub charset: String,
    /// `From:`
    pub from: String,
    /// `Subject:`
    pub subject: String,
    /// `Postmaster-Subject:`
    pub postmaster_subject: String,
    /// The text, before `$name` is replaced. Where the file is no UTF-8, each byte above 127 is a character of that
    /// number.
    pub text: String,
    /// The text was such bytes.
    single_bytes: bool,
    /// Where the text begins in its file.
    line: u32,
}

/// All four.
#[derive(Clone, Debug)]
pub struct Templates([Template; 4]);

impl Templates {
    /// The built-in ones.
    #[must_use]
    pub fn built_in() -> Self {
        let mut templates = Self(std::array::from_fn(|_| Template::default()));
        let mut nothing = Vec::new();
        let mut remarks = Remarks { file: "built-in".into(), list: &mut nothing };
        templates.take_file(BUILT_IN.as_bytes(), &mut remarks);
        templates
    }

    /// Those that the configuration asks for, and what is wrong with them.
    #[must_use]
    pub fn from_config(config: &Config) -> (Self, Vec<Diagnostic>) {
        let path = config.get(param::BOUNCE_TEMPLATE_FILE);
        if path.as_os_str().is_empty() {
            return (Self::built_in(), Vec::new());
        }
        Self::from_file(&path, config)
    }

    /// Those of a file, and what is wrong with them.
    #[must_use]
    pub fn from_file(path: &Path, config: &Config) -> (Self, Vec<Diagnostic>) {
        let (mut templates, mut found) = (Self::built_in(), Vec::new());
        let mut remarks = Remarks { file: path.to_owned(), list: &mut found };
        match read(path) {
            Ok(bytes) => {
                templates.take_file(&bytes, &mut remarks);
                templates.check_names(config, &mut remarks);
            }
            Err(error) => {
                let text = crate::diagnostic::cause(&error);
                remarks.warning(0, format!("cannot be read: {text}; the built-in texts are used"));
            }
        }
        (templates, found)
    }

    /// The template for this.
    #[must_use]
    pub fn get(&self, purpose: Purpose) -> &Template {
        &self.0[purpose as usize]
    }

    /// The names of the templates without `_template`, and the templates.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &Template)> {
        PURPOSES.iter().map(|(purpose, name)| (*name, self.get(*purpose)))
    }

    /// Takes what the bytes of a file define.
    fn take_file(&mut self, bytes: &[u8], remarks: &mut Remarks<'_>) {
        let (text, single_bytes) = match std::str::from_utf8(bytes) {
            Ok(text) => (Cow::Borrowed(text), false),
            Err(_) => (bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into(), true),
        };
        let mut lines = (1_u32..).zip(text.lines());
        while let Some((number, line)) = lines.next() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, end)) = beginning(line) else {
                remarks.warning(
                    number,
                    format!("“{}”: here a template must begin, as in “failure_template = <<EOF”; the rest of the file is left out", line.trim()),
                );
                return;
            };
            let mut body = Vec::new();
            let mut ended = false;
            for (number, line) in lines.by_ref() {
                ended = line == end;
                if ended {
                    break;
                }
                body.push((number, line));
            }
            if !ended {
                remarks.warning(number, format!("{name}: no line “{end}” ends it"));
            }
            self.take(name, number, &body, single_bytes, remarks);
        }
    }

    fn take(
        &mut self,
        name: &str,
        number: u32,
        body: &[(u32, &str)],
        single_bytes: bool,
        remarks: &mut Remarks<'_>,
    ) {
        let known = |purpose: &str| name.strip_suffix("_template") == Some(purpose);
        let Some((purpose, _)) = PURPOSES.iter().find(|(_, purpose)| known(purpose)) else {
            let names = PURPOSES.map(|(_, name)| format!("{name}_template")).join(", ");
            remarks.warning(number, format!("there is no template {name}; there are {names}"));
            return;
        };
        let slot = &mut self.0[*purpose as usize];
        match Template::parse(slot, number, body) {
            Ok(template) => *slot = Template { single_bytes, ..template },
            Err((line, what)) => {
                remarks.warning(line, format!("{name}: {what}; the built-in one is used"));
            }
        }
    }

    /// What refers to nothing counts as empty, as everywhere; here it is most likely a slip of the pen.
    fn check_names(&self, config: &Config, remarks: &mut Remarks<'_>) {
        let built_in = Self::built_in();
        for (purpose, name) in PURPOSES {
            let template = self.get(purpose);
            if template == built_in.get(purpose) {
                continue;
            }
            let (_, found) = template.expand(config, &[]);
            for what in found {
                remarks.warning(template.line, format!("{name}_template: {what}"));
            }
        }
    }
}

impl Template {
    /// Takes a template apart: headers, then the text. What it does not say is as in `before`.
    fn parse(before: &Self, number: u32, body: &[(u32, &str)]) -> Result<Self, (u32, String)> {
        let mut template = before.clone();
        let mut lines = body.iter();
        let mut text = Vec::new();
        for (number, line) in lines.by_ref() {
            let Some((label, value)) = header(line) else {
                template.line = *number;
                // The empty line between headers and text belongs to neither.
                if !line.trim().is_empty() {
                    text.push(*line);
                }
                break;
            };
            let field = match label.to_ascii_lowercase().as_str() {
                "charset" => &mut template.charset,
                "from" => &mut template.from,
                "subject" => &mut template.subject,
                "postmaster-subject" => &mut template.postmaster_subject,
                _ => {
                    let known = "Charset, From, Subject, Postmaster-Subject";
                    return Err((*number, format!("there is no header {label}; there are {known}")));
                }
            };
            if value.is_empty() || !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) {
                return Err((*number, format!("{label}: must have a value, in ASCII")));
            }
            value.clone_into(field);
        }
        text.extend(lines.map(|(_, line)| *line));
        if text.iter().all(|line| line.trim().is_empty()) {
            return Err((number, "it has no text".to_owned()));
        }
        template.text = text.iter().fold(String::new(), |all, line| all + line + "\n");
        if !template.text.is_ascii() && template.charset.eq_ignore_ascii_case("us-ascii") {
            let what = "its text is not ASCII; name its character set, as in “Charset: utf-8”";
            return Err((template.line, what.to_owned()));
        }
        Ok(template)
    }

    /// The text with every `$name` replaced, and what is wrong with those names. `instead` is for names that have another
    /// value here than in main.cf.
    #[must_use]
    pub fn expand(&self, config: &Config, instead: &[(&str, &str)]) -> (Vec<u8>, Vec<String>) {
        let (mut missing, mut found) = (Vec::new(), Vec::new());
        let times = [
            ("delay_warning_time", config.get(param::DELAY_WARNING_TIME)),
            ("maximal_queue_lifetime", config.get(param::MAXIMAL_QUEUE_LIFETIME)),
        ];
        let source = Names { source: config.source(), times, instead };
        let text = match expand::expand_noting(&source, &self.text, &mut missing) {
            Ok(text) => text,
            Err(error) => {
                found.push(error.to_string());
                self.text.clone()
            }
        };
        found.extend(missing.iter().map(|name| format!("${name} is not defined and counts as empty")));
        let zero = expand::names_in(&self.text).into_iter().filter(|name| source.is_rounded_away(name));
        found.extend(zero.map(|name| format!("${name} is 0; take a smaller unit of time")));
        (self.encode(&text), found)
    }

    /// The text as it stands in the file.
    #[must_use]
    pub fn source(&self) -> Vec<u8> {
        self.encode(&self.text)
    }

    fn encode(&self, text: &str) -> Vec<u8> {
        if self.single_bytes { to_single_bytes(text) } else { text.as_bytes().to_vec() }
    }
}

/// The names that a text may refer to: parameters, and times in a unit.
struct Names<'a> {
    source: &'a dyn Source,
    times: [(&'a str, Duration); 2],
    instead: &'a [(&'a str, &'a str)],
}

impl Names<'_> {
    /// The value of `delay_warning_time_hours` and its like.
    fn time(&self, name: &str) -> Option<(Duration, u64)> {
        const UNITS: [(&str, u64); 5] =
            [("seconds", 1), ("minutes", 60), ("hours", 3600), ("days", 86_400), ("weeks", 604_800)];
        self.times.iter().find_map(|(parameter, time)| {
            let unit = name.strip_prefix(parameter)?.strip_prefix('_')?;
            let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
            Some((*time, time.as_secs() / seconds))
        })
    }

    fn is_rounded_away(&self, name: &str) -> bool {
        self.time(name).is_some_and(|(time, value)| value == 0 && !time.is_zero())
    }
}

impl Source for Names<'_> {
    fn lookup(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some((_, value)) = self.instead.iter().find(|(known, _)| *known == name) {
            return Some((*value).into());
        }
        match self.time(name) {
            Some((_, value)) => Some(value.to_string().into()),
            None => self.source.lookup(name),
        }
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `name = <<EOF`
fn beginning(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once('=')?;
    let end = rest.trim().strip_prefix("<<")?.trim();
    let name = name.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !end.is_empty()).then_some((name, end))
}

/// `Label: value`
fn header(line: &str) -> Option<(&str, &str)> {
    let (label, value) = line.split_once(':')?;
    let is_label =
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_label.then(|| (label, value.trim()))
}

/// The bytes that [`Template::text`] stands for. What was put in for a name keeps its UTF-8.
fn to_single_bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u8::try_from(u32::from(c)) {
            Ok(byte) => out.push(byte),
            Err(_) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}

#[cfg(test)]
mod tests;
