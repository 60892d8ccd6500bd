//! main.cf as physical lines.

use crate::lines::{LineKind, is_space, kind_of};

/// The lines of a main.cf that is being edited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MainCf {
    lines: Vec<String>,
}

impl MainCf {
    /// Takes the content of a main.cf.
    #[must_use]
    pub fn parse(source: &str) -> Self {
        Self { lines: source.lines().map(str::to_owned).collect() }
    }

    /// Sets `name`: in its place where it is set (everywhere, if it is set several times), else at the end.
    pub fn set(&mut self, name: &str, value: &str) {
        let definition = format!("{name} = {value}").trim_end_matches(is_space).to_owned();
        let found = self.change(name, |kind, _| match kind {
            LineKind::Start => Some(definition.clone()),
            _ => None,
        });
        if found == 0 {
            self.lines.push(definition);
        }
    }

    /// Removes every definition of `name`; says how many there were. Comments stay.
    pub fn remove(&mut self, name: &str) -> usize {
        self.change(name, |_, _| None)
    }

    /// Turns every definition of `name` into a comment; says how many there were.
    pub fn comment_out(&mut self, name: &str) -> usize {
        self.change(name, |_, line| Some(format!("#{line}")))
    }

    /// Every line of every definition becomes what `change` makes of its name and itself; `None` leaves it. Comments stay.
    pub fn rewrite(&mut self, change: &mut dyn FnMut(&str, &str) -> Option<String>) {
        let mut name = None;
        for line in &mut self.lines {
            match kind_of(line) {
                LineKind::Ignored => continue,
                LineKind::Start => name = name_of(line).map(str::to_owned),
                LineKind::Continuation => {}
            }
            if let Some(changed) = name.as_deref().and_then(|name| change(name, line)) {
                *line = changed;
            }
        }
    }

    /// Every line that belongs to a definition of `name` becomes what `change` says, or goes.
    fn change(&mut self, name: &str, change: impl Fn(LineKind, &str) -> Option<String>) -> usize {
        let mut found = 0;
        let mut inside = false;
        let mut lines = Vec::with_capacity(self.lines.len() + 1);
        for line in std::mem::take(&mut self.lines) {
            let kind = kind_of(&line);
            if kind == LineKind::Start {
                inside = name_of(&line) == Some(name);
                found += usize::from(inside);
            }
            if inside && kind != LineKind::Ignored {
                lines.extend(change(kind, &line));
            } else {
                lines.push(line);
            }
        }
        self.lines = lines;
        found
    }
}

impl std::fmt::Display for MainCf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn name_of(line: &str) -> Option<&str> {
    let (name, _) = line.split_once('=')?;
    Some(name.trim_matches(is_space))
}
