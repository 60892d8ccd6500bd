//! master.cf as physical lines.

use std::fmt;

use super::EditError;
use crate::diagnostic::Remarks;
use crate::lines::{LineKind, is_space, kind_of};
use crate::main_cf;
use crate::master_cf::{Argument, RawService, interpret_strictly, raw_services, split_columns};

/// The lines of a master.cf that is being edited or listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterCf {
    lines: Vec<String>,
    services: Vec<ServiceLine>,
}

/// One service, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceLine {
    raw: RawService,
}

/// A column of master.cf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// First column.
    Service,
    /// Second column.
    Type,
    /// Third column.
    Private,
    /// Fourth column.
    Unprivileged,
    /// Fifth column.
    Chroot,
    /// Sixth column.
    Wakeup,
    /// Seventh column.
    ProcessLimit,
    /// Eighth column, with all arguments.
    Command,
}

impl Field {
    /// All columns in their order.
    pub const ALL: [Self; 8] = [
        Self::Service,
        Self::Type,
        Self::Private,
        Self::Unprivileged,
        Self::Chroot,
        Self::Wakeup,
        Self::ProcessLimit,
        Self::Command,
    ];

    /// What `postconf -F` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Type => "type",
            Self::Private => "private",
            Self::Unprivileged => "unprivileged",
            Self::Chroot => "chroot",
            Self::Wakeup => "wakeup",
            Self::ProcessLimit => "process_limit",
            Self::Command => "command",
        }
    }

    /// The column of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// Its place among the seven columns before the command.
    fn column(self) -> Option<usize> {
        Self::ALL[..7].iter().position(|field| *field == self)
    }
}

impl ServiceLine {
    /// The text of a column.
    #[must_use]
    pub fn field(&self, field: Field) -> String {
        match field.column() {
            Some(column) => self.raw.columns[column].clone(),
            None => self.words().join(" "),
        }
    }

    /// The `-o name=value` in their order.
    #[must_use]
    pub fn overrides(&self) -> Vec<(String, String)> {
        self.override_places()
            .into_iter()
            .filter_map(|at| main_cf::split(&self.raw.argv[at].text).ok())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The same service with other values of its `-o`.
    #[must_use]
    pub fn map_overrides(&self, change: impl Fn(&str) -> String) -> Self {
        let mut changed = self.clone();
        for at in self.override_places() {
            if let Ok((name, value)) = main_cf::split(&self.raw.argv[at].text) {
                changed.raw.argv[at].text = format!("{name}={}", change(value));
            }
        }
        changed
    }

    /// The service in one line, in columns.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        let mut line = self.columns();
        for word in self.words() {
            line.push_str(&word);
            line.push(' ');
        }
        line.trim_end().to_owned()
    }

    /// The service in columns; long lines are broken, and each `-o` begins a line.
    #[must_use]
    pub fn folded(&self) -> String {
        const WIDTH: usize = 80;
        const INDENT: &str = "    ";
        let mut text = self.columns();
        let mut length = text.len();
        let mut words = self.words().into_iter().peekable();
        let mut first = true;
        while let Some(mut word) = words.next() {
            let is_option = word == "-o";
            if is_option && let Some(value) = words.next() {
                word = format!("-o {value}");
            }
            if !first && (is_option || length + 1 + word.len() > WIDTH) {
                text.push('\n');
                text.push_str(INDENT);
                length = INDENT.len();
            } else if !first {
                text.push(' ');
                length += 1;
            }
            length += word.len();
            text.push_str(&word);
            first = false;
        }
        text
    }

    /// The seven columns, each at its place where the ones before it are short enough.
    fn columns(&self) -> String {
        const PLACES: [usize; 7] = [11, 17, 25, 33, 41, 49, 57];
        let mut line = String::new();
        for (column, place) in self.raw.columns.iter().zip(PLACES) {
            line.push_str(column);
            line.push(' ');
            line.extend(std::iter::repeat_n(' ', place.saturating_sub(line.len())));
        }
        line
    }

    /// The command and its arguments; braces only where they are needed.
    fn words(&self) -> Vec<String> {
        let places = self.override_places();
        self.raw
            .argv
            .iter()
            .enumerate()
            .map(|(at, argument)| match main_cf::split(&argument.text) {
                Ok((name, value)) if places.contains(&at) => override_word(name, value),
                _ => argument.as_written(),
            })
            .collect()
    }

    fn override_places(&self) -> Vec<usize> {
        let argv = &self.raw.argv;
        (1..argv.len())
            .filter(|at| argv[at - 1] == Argument { text: "-o".to_owned(), braced: false })
            .collect()
    }

    fn set_override(&mut self, name: &str, value: Option<&str>) {
        let places = self.override_places();
        let of_that_name =
            |at: &&usize| main_cf::split(&self.raw.argv[**at].text).is_ok_and(|(there, _)| there == name);
        let found: Vec<usize> = places.iter().filter(of_that_name).copied().collect();
        let argument =
            value.map(|value| Argument { text: format!("{name}={value}"), braced: value.contains(is_space) });
        match (argument, found.split_last()) {
            (Some(argument), Some((last, _))) => self.raw.argv[*last] = argument,
            (Some(argument), None) => {
                self.raw.argv.push(Argument { text: "-o".to_owned(), braced: false });
                self.raw.argv.push(argument);
            }
            (None, _) => {
                for at in found.into_iter().rev() {
                    self.raw.argv.drain(at - 1..=at);
                }
            }
        }
    }
}

fn override_word(name: &str, value: &str) -> String {
    if value.contains(is_space) { format!("{{{name}={value}}}") } else { format!("{name}={value}") }
}

impl MasterCf {
    /// Takes the content of a master.cf.
    ///
    /// # Errors
    /// Lines that are no services.
    pub fn parse(source: &str) -> Result<Self, EditError> {
        let mut found = Vec::new();
        let services = raw_services(source, &mut Remarks { file: "master.cf".into(), list: &mut found });
        if let Some(remark) = found.iter().find(|remark| remark.severity == crate::Severity::Error) {
            return Err(EditError::Request(remark.to_string()));
        }
        Ok(Self {
            lines: source.lines().map(str::to_owned).collect(),
            services: services.into_iter().map(|raw| ServiceLine { raw }).collect(),
        })
    }

    /// The services in their order.
    #[must_use]
    pub fn services(&self) -> &[ServiceLine] {
        &self.services
    }

    /// Puts a whole service in the place of `name`/`kind`, or at the end.
    ///
    /// # Errors
    /// A `line` that is no service.
    pub fn set_service(&mut self, name: &str, kind: &str, line: &str) -> Result<(), EditError> {
        let new = service(line)?;
        let text = new.folded();
        if self.replace(&|there| there.is(name, kind), |_, own| Ok(Some(with_comments(&text, own))))? == 0 {
            self.lines.extend(text.lines().map(str::to_owned));
        }
        self.reread()
    }

    /// Changes one column of every service that `matches`; says of how many.
    ///
    /// # Errors
    /// A value that the column cannot have.
    pub fn set_field(
        &mut self,
        matches: &dyn Fn(&ServiceLine) -> bool,
        field: Field,
        value: &str,
    ) -> Result<usize, EditError> {
        let found = self.replace(matches, |there, own| {
            let Some(column) = field.column() else {
                let new = service(&format!("{} {value}", there.columns()))?;
                return Ok(Some(with_comments(&new.folded(), own)));
            };
            let mut changed = there.clone();
            value.clone_into(&mut changed.raw.columns[column]);
            service(&changed.in_one_line())?;
            let mut lines = own.to_vec();
            lines[0] = with_column(&lines[0], column, value);
            Ok(Some(lines))
        })?;
        self.reread().map(|()| found)
    }

    /// Sets (`Some`) or removes (`None`) a `-o` of every service that `matches`; says of how many.
    ///
    /// # Errors
    /// Text that cannot stand in master.cf.
    pub fn set_override(
        &mut self,
        matches: &dyn Fn(&ServiceLine) -> bool,
        name: &str,
        value: Option<&str>,
    ) -> Result<usize, EditError> {
        let found = self.replace(matches, |there, own| {
            let mut changed = there.clone();
            changed.set_override(name, value);
            if changed == *there {
                return Ok(None);
            }
            let new = service(&changed.in_one_line())?;
            Ok(Some(with_comments(&new.folded(), own)))
        })?;
        self.reread().map(|()| found)
    }

    /// Removes every service that `matches`; says how many. Comments stay.
    ///
    /// # Errors
    /// None that can happen with a file that was read before.
    pub fn remove(&mut self, matches: &dyn Fn(&ServiceLine) -> bool) -> Result<usize, EditError> {
        let found = self.replace(matches, |_, own| Ok(Some(with_comments("", own))))?;
        self.reread().map(|()| found)
    }

    /// Turns every service that `matches` into a comment; says how many.
    ///
    /// # Errors
    /// None that can happen with a file that was read before.
    pub fn comment_out(&mut self, matches: &dyn Fn(&ServiceLine) -> bool) -> Result<usize, EditError> {
        let mut found = 0;
        for place in self.services.iter().filter(|there| matches(there)) {
            found += 1;
            for line in &mut self.lines[place.range()] {
                if kind_of(line) != LineKind::Ignored {
                    line.insert(0, '#');
                }
            }
        }
        self.reread().map(|()| found)
    }

    /// Every line that is no comment becomes what `change` makes of it; `None` leaves it.
    ///
    /// # Errors
    /// Text that cannot stand in master.cf.
    pub fn rewrite(&mut self, change: &mut dyn FnMut(&str) -> Option<String>) -> Result<(), EditError> {
        for line in self.lines.iter_mut().filter(|line| kind_of(line) != LineKind::Ignored) {
            if let Some(changed) = change(line) {
                *line = changed;
            }
        }
        self.reread()
    }

    /// The lines of every service that `matches` become what `change` makes of them; `None` leaves them.
    fn replace(
        &mut self,
        matches: &dyn Fn(&ServiceLine) -> bool,
        change: impl Fn(&ServiceLine, &[String]) -> Result<Option<Vec<String>>, EditError>,
    ) -> Result<usize, EditError> {
        let mut found = 0;
        // From the end, so that the places before stay right.
        for there in self.services.iter().rev().filter(|there| matches(there)) {
            found += 1;
            if let Some(lines) = change(there, &self.lines[there.range()])? {
                self.lines.splice(there.range(), lines);
            }
        }
        Ok(found)
    }

    fn reread(&mut self) -> Result<(), EditError> {
        *self = Self::parse(&self.to_string())?;
        Ok(())
    }
}

impl ServiceLine {
    fn is(&self, name: &str, kind: &str) -> bool {
        self.raw.columns[0] == name && self.raw.columns[1] == kind
    }

    /// Its physical lines, counted from 0.
    fn range(&self) -> std::ops::Range<usize> {
        let index = |line: u32| usize::try_from(line).unwrap_or(usize::MAX);
        index(self.raw.line) - 1..index(self.raw.last)
    }
}

impl fmt::Display for MasterCf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// The new text of a service, and behind it the comments that stood between its former lines.
fn with_comments(text: &str, former: &[String]) -> Vec<String> {
    let comments = former.iter().filter(|line| kind_of(line) == LineKind::Ignored);
    text.lines().map(str::to_owned).chain(comments.cloned()).collect()
}

/// The line with another word in a column; the words behind it stay where they are if there is room.
fn with_column(line: &str, column: usize, value: &str) -> String {
    let mut start = 0;
    let mut end = 0;
    for _ in 0..=column {
        start = end + line[end..].find(|c| !is_space(c)).unwrap_or(0);
        end = start + line[start..].find(is_space).unwrap_or(line.len() - start);
    }
    let behind = &line[end..];
    let rest = behind.trim_start_matches(is_space);
    let gap = (end - start + behind.len() - rest.len()).saturating_sub(value.len()).max(1);
    format!("{}{value}{}{rest}", &line[..start], " ".repeat(gap))
}

/// One line that must be a service.
fn service(line: &str) -> Result<ServiceLine, EditError> {
    if line.contains('\n') {
        return Err(EditError::Request("a service is written in one line here".to_owned()));
    }
    let (columns, argv) = split_columns(line).map_err(EditError::Request)?;
    let raw = RawService { columns, argv, line: 0, last: 0 };
    interpret_strictly(&raw).map_err(EditError::Request)?;
    Ok(ServiceLine { raw })
}
