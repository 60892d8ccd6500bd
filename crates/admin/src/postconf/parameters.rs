//! Showing parameters of main.cf.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use config::{
    Config, Presence, ServiceEntry, Severity, Snapshot, TRANSPORT_SUFFIXES, find, param, parameters,
};
use ipc::log;

use super::{Kind, Options, default_directory, format, inspect, tell};
use crate::command::Failure;

pub(super) fn show(
    out: &mut impl Write,
    directory: &Path,
    options: &Options,
) -> Result<io::Result<()>, Failure> {
    let (config, remarks) = if options.defaults && !directory.join("main.cf").exists() {
        Config::inspect(directory, &Snapshot::default(), &[])
    } else {
        inspect(directory, options)?
    };
    let lists_everything = options.names.is_empty();
    if !options.defaults {
        let least = if lists_everything { Severity::Warning } else { Severity::Error };
        tell(&remarks, |remark| remark.severity >= least);
    }
    // Defaults are those of a main.cf that sets nothing.
    let empty = || Config::inspect(default_directory(), &Snapshot::default(), &[]).0;
    let shown = if options.defaults { empty() } else { config.clone() };
    Ok(if lists_everything {
        all(out, &shown, &config, directory, options)
    } else {
        named(out, &shown, options)
    })
}

fn all(
    out: &mut impl Write,
    shown: &Config,
    config: &Config,
    directory: &Path,
    options: &Options,
) -> io::Result<()> {
    let names = names(config, options);
    for name in names {
        let is_told = |name: &str| {
            // Where the files are is worth telling where it is not the usual place.
            config.is_set(name)
                || (name == param::CONFIG_DIRECTORY.name() && directory != default_directory())
        };
        if !options.non_default || is_told(&name) {
            one(out, shown, options, &name)?;
        }
    }
    Ok(())
}

fn named(out: &mut impl Write, shown: &Config, options: &Options) -> io::Result<()> {
    for name in &options.names {
        if shown.raw(name).is_none() {
            log::warning!("{name}: unknown parameter");
        } else if !options.non_default || shown.is_set(name) {
            one(out, shown, options, name)?;
        }
    }
    Ok(())
}

fn one(out: &mut impl Write, shown: &Config, options: &Options, name: &str) -> io::Result<()> {
    let value = if options.expand && find(name).is_none_or(|row| row.kind != config::Kind::Raw) {
        shown.text(name)
    } else {
        shown.raw(name)
    };
    format::definition(out, options, name, &value.unwrap_or_default())
}

/// The names of the kinds asked for, sorted.
fn names(config: &Config, options: &Options) -> BTreeSet<String> {
    let wants = |kind: Kind| {
        options.kinds.is_empty() || options.kinds.contains(&kind) || options.kinds.contains(&Kind::All)
    };
    let mut names = BTreeSet::new();
    if wants(Kind::Builtin) {
        let listed = parameters().filter(|row| row.listed);
        names.extend(listed.map(|row| row.name.to_owned()));
    }
    if wants(Kind::Service) {
        names.extend(config.services().iter().flat_map(service_names));
    }
    if wants(Kind::User) && !options.defaults {
        names.extend(config.own_names().iter().cloned());
        let former = parameters().filter(|row| !row.listed && config.is_set(row.name));
        names.extend(former.map(|row| row.name.to_owned()));
    }
    names
}

/// The parameters that exist because master.cf has this service.
fn service_names(service: &ServiceEntry) -> Vec<String> {
    const AGENTS: [&str; 7] = ["discard", "error", "lmtp", "local", "pipe", "smtp", "virtual"];
    let is_agent = AGENTS.contains(&service.command.as_str()) && service.presence != Presence::Absorbed;
    let has_time_limit = matches!(service.command.as_str(), "pipe" | "spawn");
    TRANSPORT_SUFFIXES
        .iter()
        .map(|(suffix, _)| *suffix)
        .filter(|suffix| if *suffix == "_time_limit" { has_time_limit } else { is_agent })
        .map(|suffix| format!("{}{suffix}", service.name))
        .filter(|name| find(name).is_none())
        .collect()
}
