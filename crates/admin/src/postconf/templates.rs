//! `postconf -b` and `-t`: the texts of notifications.

use std::io::{self, Write};
use std::path::Path;

use config::templates::{Template, Templates};
use config::{Config, param};

use super::{Options, inspect, tell};
use crate::command::Failure;

/// Shows them in the form of a template file, and says what is wrong with them.
pub(super) fn show(
    out: &mut impl Write,
    directory: &Path,
    options: &Options,
) -> Result<io::Result<()>, Failure> {
    let (config, _) = inspect(directory, options)?;
    let (templates, found) = match options.names.first() {
        Some(file) => Templates::from_file(Path::new(file), &config),
        None => Templates::from_config(&config),
    };
    tell(&found, |_| true);
    let mut all = templates.all().enumerate();
    Ok(all.try_for_each(|(number, (name, template))| {
        if number > 0 {
            writeln!(out)?;
        }
        if options.templates { source(out, name, template) } else { expanded(out, name, template, &config) }
    }))
}

fn expanded(out: &mut impl Write, name: &str, template: &Template, config: &Config) -> io::Result<()> {
    let (text, found) = template.expand(config, &[]);
    if config.get(param::BOUNCE_TEMPLATE_FILE).as_os_str().is_empty() {
        // What a file says was told when it was read.
        found.iter().for_each(|what| ipc::log::warning!("{name}_template: {what}"));
    }
    writeln!(out, "expanded_{name}_text = <<EOF")?;
    out.write_all(&text)?;
    writeln!(out, "EOF")
}

fn source(out: &mut impl Write, name: &str, template: &Template) -> io::Result<()> {
    writeln!(out, "{name}_template = <<EOF")?;
    let headers = [
        ("Charset", &template.charset),
        ("From", &template.from),
        ("Subject", &template.subject),
        ("Postmaster-Subject", &template.postmaster_subject),
    ];
    for (label, value) in headers.into_iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{label}: {value}")?;
    }
    writeln!(out)?;
    out.write_all(&template.source())?;
    writeln!(out, "EOF")
}
