//! Editing main.cf and master.cf.

use std::path::Path;

use config::edit::{self, EditError, Field, MainCf, MasterCf};
use config::{Config, Severity, Snapshot};
use ipc::log;

use super::{Options, assignment, services, tell};
use crate::command::{Exit, Failure};

/// `-e`, `-X` and `-#`.
pub(super) fn main_cf(directory: &Path, options: &Options) -> Result<(), Failure> {
    let names = some_names(options)?;
    let removes = options.remove || options.comment_out;
    let settings = if removes {
        Vec::new()
    } else {
        names.iter().map(|text| assignment(text)).collect::<Result<Vec<_>, _>>()?
    };
    if removes && let Some(name) = names.iter().find(|name| name.contains('=')) {
        return Err(Failure::new(Exit::Usage, format!("“{name}”: -X and -# take names only")));
    }
    let path = directory.join("main.cf");
    edit_file(&path, |text| {
        let mut file = MainCf::parse(text);
        for (name, value) in &settings {
            file.set(name, value);
        }
        for name in names.iter().filter(|_| removes) {
            if options.remove {
                file.remove(name)
            } else {
                file.comment_out(name)
            };
        }
        Ok(file.to_string())
    })?;
    judge(directory, &settings);
    Ok(())
}

/// Says what is wrong with what was just set: the sooner a slip of the pen is seen, the better.
fn judge(directory: &Path, settings: &[(String, String)]) {
    let Ok((snapshot, _)) = Snapshot::read(directory) else { return };
    let (config, remarks) = Config::inspect(directory, &snapshot, &[]);
    let lines: Vec<u32> = settings.iter().filter_map(|(name, _)| config.line_of(name)).collect();
    let file = directory.join("main.cf");
    tell(&remarks, |remark| {
        remark.file == file && remark.severity >= Severity::Warning && lines.contains(&remark.line)
    });
}

/// `-M`, `-F` and `-P` with `-e`, `-X` or `-#`.
pub(super) fn master_cf(directory: &Path, options: &Options) -> Result<(), Failure> {
    let names = some_names(options)?;
    let requests = names.iter().map(|text| Request::parse(text, options)).collect::<Result<Vec<_>, _>>()?;
    edit_file(&directory.join("master.cf"), |text| {
        let mut file = MasterCf::parse(text)?;
        for request in &requests {
            request.carry_out(&mut file, options)?;
        }
        Ok(file.to_string())
    })
}

/// One argument of the command line.
struct Request<'a> {
    text: &'a str,
    /// `SERVICE/TYPE`, and a third part with `-F` and `-P`.
    path: Vec<&'a str>,
    value: &'a str,
}

impl<'a> Request<'a> {
    fn parse(text: &'a str, options: &Options) -> Result<Self, Failure> {
        let usage = |what: &str| Failure::new(Exit::Usage, format!("“{text}”: {what}"));
        let removes = options.remove || options.comment_out;
        let (path, value) = match text.split_once('=') {
            Some(_) if removes => return Err(usage("-X and -# take names only")),
            Some((path, value)) => (path.trim(), value.trim()),
            None if removes => (text, ""),
            None => return Err(usage("“=” and what is to be set are missing")),
        };
        let path: Vec<&str> = path.split('/').collect();
        let parts = if options.services { 2 } else { 3 };
        if path.len() != parts || path.iter().any(|part| part.is_empty()) {
            return Err(usage(match parts {
                2 => "write SERVICE/TYPE",
                _ if options.fields => "write SERVICE/TYPE/COLUMN",
                _ => "write SERVICE/TYPE/PARAMETER",
            }));
        }
        if options.fields && removes {
            return Err(usage("a column can be changed, not removed"));
        }
        if options.service_parameters && options.comment_out {
            return Err(usage("a setting of a service can be removed, not turned into a comment"));
        }
        Ok(Self { text, path, value })
    }

    fn carry_out(&self, file: &mut MasterCf, options: &Options) -> Result<(), EditError> {
        let matches = |service: &edit::ServiceLine| services::matches(service, &self.path);
        let found = if options.services {
            match (options.remove, options.comment_out) {
                (true, _) => file.remove(&matches)?,
                (_, true) => file.comment_out(&matches)?,
                _ => {
                    file.set_service(self.path[0], self.path[1], self.value)?;
                    1
                }
            }
        } else if options.fields {
            let field = Field::named(self.path[2]).ok_or_else(|| {
                let names: Vec<&str> = Field::ALL.iter().map(|field| field.name()).collect();
                EditError::Request(format!(
                    "“{}” is no column; there are: {}",
                    self.path[2],
                    names.join(", ")
                ))
            })?;
            file.set_field(&matches, field, self.value)?
        } else {
            let value = (!options.remove).then_some(self.value);
            file.set_override(&matches, self.path[2], value)?
        };
        if found == 0 {
            log::warning!("unmatched service_name/type: \"{}\"", self.text);
        }
        Ok(())
    }
}

fn some_names(options: &Options) -> Result<&[String], Failure> {
    if options.names.is_empty() {
        return Err(Failure::new(Exit::Usage, "-e, -X and -# need something to edit"));
    }
    Ok(&options.names)
}

fn edit_file(path: &Path, change: impl FnOnce(&str) -> Result<String, EditError>) -> Result<(), Failure> {
    edit::file(path, change).map_err(|error| {
        let exit = if matches!(error, EditError::Request(_)) { Exit::Usage } else { Exit::System };
        Failure::new(exit, error.to_string())
    })
}
