//! What import has to say.

use std::fmt;

/// What a line of the report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// What was copied as it is.
    Taken,
    /// What has another name or form here.
    Converted,
    /// What has no effect here, or is no longer there.
    Unsupported,
    /// What works, under a name of former times.
    Deprecated,
    /// What import does not touch, and the operator must do.
    ToDo,
    /// What cannot stay as it is.
    Wrong,
}

const SECTIONS: [(Section, &str); 6] = [
    (Section::Taken, "taken as it is"),
    (Section::Converted, "converted"),
    (Section::Unsupported, "not supported"),
    (Section::Deprecated, "deprecated"),
    (Section::ToDo, "to be done by you"),
    (Section::Wrong, "wrong"),
];

/// The report, in the order in which things were found within each section.
#[derive(Debug, Default)]
pub(super) struct Report {
    lines: Vec<(Section, String)>,
}

impl Report {
    /// Says something, once.
    pub(super) fn say(&mut self, section: Section, text: impl Into<String>) {
        let line = (section, text.into());
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }

    pub(super) fn has(&self, section: Section) -> bool {
        self.lines.iter().any(|(of, _)| *of == section)
    }

    pub(super) fn tells(&self, text: &str) -> bool {
        self.lines.iter().any(|(_, told)| told.contains(text))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, title) in SECTIONS {
            let mut lines = self.lines.iter().filter(|(of, _)| *of == section).peekable();
            if lines.peek().is_some() {
                writeln!(f, "{title}:")?;
            }
            lines.try_for_each(|(_, line)| writeln!(f, "  {line}"))?;
        }
        Ok(())
    }
}
