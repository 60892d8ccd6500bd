//! Showing services of master.cf.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use config::edit::{Field, MasterCf, ServiceLine};
use config::{Config, Severity};
use ipc::log;

use super::{Options, format, inspect, tell};
use crate::command::{Exit, Failure};

pub(super) fn show(
    out: &mut impl Write,
    directory: &Path,
    options: &Options,
) -> Result<io::Result<()>, Failure> {
    let (config, remarks) = inspect(directory, options)?;
    let file = directory.join("master.cf");
    tell(&remarks, |remark| remark.file == file && remark.severity >= Severity::Warning);
    let master = read(&file)?;
    let show = Show { config: &config, options };
    if options.names.is_empty() {
        return Ok(master
            .services()
            .iter()
            .try_for_each(|service| show.matching(out, service, &[]).map(drop)));
    }
    for name in &options.names {
        let pattern: Vec<&str> = name.split('/').collect();
        let mut found = false;
        for service in master.services().iter().filter(|service| matches(service, &pattern)) {
            match show.matching(out, service, &pattern) {
                Ok(any) => found |= any,
                Err(error) => return Ok(Err(error)),
            }
        }
        if !found {
            log::warning!("unmatched request: \"{name}\"");
        }
    }
    Ok(Ok(()))
}

pub(super) fn read(file: &Path) -> Result<MasterCf, Failure> {
    let source = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(Exit::Config, format!("read {}: {error}", file.display())))?;
    MasterCf::parse(&source).map_err(|error| Failure::new(Exit::Config, error.to_string()))
}

/// Whether `SERVICE/TYPE…` is about this service; `*` and what is missing is about every one.
pub(super) fn matches(service: &ServiceLine, pattern: &[&str]) -> bool {
    let fits = |at: usize, field: Field| {
        pattern.get(at).is_none_or(|wanted| *wanted == "*" || *wanted == service.field(field))
    };
    fits(0, Field::Service) && fits(1, Field::Type)
}

struct Show<'a> {
    config: &'a Config,
    options: &'a Options,
}

impl Show<'_> {
    /// Shows of a service what `pattern` asks for; says whether there was any.
    fn matching(&self, out: &mut impl Write, service: &ServiceLine, pattern: &[&str]) -> io::Result<bool> {
        let wanted = pattern.get(2).filter(|wanted| **wanted != "*");
        let is_wanted = |name: &str| wanted.is_none_or(|wanted| *wanted == name);
        let label = format!("{}/{}", service.field(Field::Service), service.field(Field::Type));
        let mut any = false;
        if self.options.fields {
            for field in Field::ALL.into_iter().filter(|field| is_wanted(field.name())) {
                let name = format!("{label}/{}", field.name());
                format::definition(out, self.options, &name, &service.field(field))?;
                any = true;
            }
        } else if self.options.service_parameters {
            // Sorted; of two with the same name the last one counts.
            let settings: BTreeMap<String, String> = service.overrides().into_iter().collect();
            for (name, value) in settings.iter().filter(|(name, _)| is_wanted(name)) {
                format::definition(out, self.options, &format!("{label}/{name}"), &self.expanded(value))?;
                any = true;
            }
        } else {
            let service = self.with_values_expanded(service);
            let text = if self.options.fold { service.folded() } else { service.in_one_line() };
            writeln!(out, "{text}")?;
            any = true;
        }
        Ok(any)
    }

    fn expanded(&self, value: &str) -> String {
        if !self.options.expand {
            return value.to_owned();
        }
        self.config.expand(value).unwrap_or_else(|_| value.to_owned())
    }

    fn with_values_expanded(&self, service: &ServiceLine) -> ServiceLine {
        if !self.options.expand {
            return service.clone();
        }
        service.map_overrides(|value| self.expanded(value))
    }
}
