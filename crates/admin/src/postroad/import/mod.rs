//! `postroad import`: a configuration of Postfix becomes one of Postroad.
//!
//! Contract: the source is only read. Everything is decided before anything is written; a file that could not be replaced
//! without loss stops the import before its first step. A second run with nothing new changes nothing.

mod files;
mod parameters;
mod paths;
mod place;
mod report;
mod services;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use config::{Config, Severity, Snapshot, param};

use files::{Found, Index};
use paths::{Places, USUAL, with_ending};
use place::{Step, Target, Wanted};
use report::{Report, Section};

/// The configuration was taken over, and `postroad check` finds errors in it.
const UNUSABLE: u8 = 3;

/// What is imported, and how.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The folder with Postfix's main.cf and master.cf.
    #[arg(default_value = USUAL)]
    source: PathBuf,
    /// Say what would be done, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Replace files that were changed since the last import, too; they are kept as FILE.before-import.
    #[arg(long)]
    force: bool,
    /// Make the indexes of tables outside of the folder anew as well; Postfix cannot read them any more then.
    #[arg(long)]
    rebuild: bool,
}

/// Imports, reports, checks.
pub(super) fn run(target: &Path, options: &Options) -> ExitCode {
    match import(target, options) {
        Ok(outcome) => {
            super::print(&outcome.lines);
            outcome.exit
        }
        Err(lines) => super::complain(&lines),
    }
}

struct Outcome {
    lines: Vec<String>,
    exit: ExitCode,
}

/// Both files as they were and as they will be, and what goes with them.
struct Plan {
    snapshot: Snapshot,
    files: Vec<(Wanted, Step)>,
    indexes: Vec<Index>,
    report: Report,
}

fn import(target: &Path, options: &Options) -> Result<Outcome, Vec<String>> {
    let source =
        fs::canonicalize(&options.source).map_err(|e| vec![format!("{}: {e}", options.source.display())])?;
    let target = absolute(target).map_err(|error| vec![error])?;
    if source == target {
        return Err(vec![format!("{} cannot be imported into itself", source.display())]);
    }
    let mut place = Target::open(&target).map_err(|error| vec![error])?;
    let mut plan = plan(&source, &place, options)?;
    let refused: Vec<String> = plan
        .files
        .iter()
        .filter(|(_, step)| *step == Step::Refuse)
        .map(|(file, _)| {
            let path = target.join(&file.name);
            format!(
                "{} was changed since the last import; --force replaces it and keeps a copy",
                path.display()
            )
        })
        .collect();
    if !refused.is_empty() {
        return Err(refused.into_iter().chain(["nothing was imported".to_owned()]).collect());
    }
    let changes = plan.files.iter().filter(|(_, step)| *step != Step::Nothing).count();
    let mut lines = vec![format!("{} → {}", options.source.display(), target.display())];
    if options.dry_run {
        judge(&mut plan, &target, None);
        lines.push(format!("{changes} files would be written; nothing is changed in a dry run"));
    } else {
        let written = write(&mut place, &mut plan, &source).map_err(|error| vec![error])?;
        index(&mut plan, options);
        judge(&mut plan, &target, Some(super::check::check(&target)));
        lines.push(format!("{} files written, {} were right already", written, plan.files.len() - written));
    }
    lines.extend(plan.report.to_string().lines().map(str::to_owned));
    let unusable = plan.report.has(Section::Wrong);
    lines.push(match unusable {
        true => "mend what is wrong, then: postroad check".to_owned(),
        false => "the configuration can be used".to_owned(),
    });
    Ok(Outcome { lines, exit: if unusable { ExitCode::from(UNUSABLE) } else { ExitCode::SUCCESS } })
}

fn absolute(path: &Path) -> Result<PathBuf, String> {
    std::path::absolute(path)
        .map(|path| fs::canonicalize(&path).unwrap_or(path))
        .map_err(|e| format!("{}: {e}", path.display()))
}

fn plan(source: &Path, place: &Target, options: &Options) -> Result<Plan, Vec<String>> {
    let told = |list: Vec<config::Diagnostic>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (snapshot, _) = Snapshot::read(source).map_err(told)?;
    let main_cf = String::from_utf8_lossy(&snapshot.main_cf).into_owned();
    let master_cf = String::from_utf8_lossy(&snapshot.master_cf).into_owned();
    let (theirs, _) = Config::inspect(source, &snapshot, &[]);
    let here = Config::load_regardless(place.folder());
    let own = |name: &str| {
        let text = here.is_set(name).then(|| here.raw(name)).flatten()?;
        Some(text).filter(|text| !text.is_empty())
    };
    let places = Places::new(source, place.folder(), folders(&theirs, &here));
    let mut report = Report::default();
    let Found { mut files, indexes } =
        files::find(&theirs, (&main_cf, &master_cf), &places, place.folder(), &mut report);
    let main_cf = parameters::convert(&main_cf, &places, &own, &mut report);
    let master_cf = services::convert(&master_cf, &places, &mut report).map_err(|error| vec![error])?;
    let snapshot = Snapshot { main_cf: main_cf.into_bytes(), master_cf: master_cf.into_bytes() };
    for (name, content) in [("master.cf", &snapshot.master_cf), ("main.cf", &snapshot.main_cf)] {
        let like = fs::metadata(source.join(name)).or_else(|_| fs::metadata(source.join("main.cf")));
        let like = like.map_err(|e| vec![format!("stat {}: {e}", source.join(name).display())])?;
        files.push(Wanted { name: name.into(), content: content.clone(), like });
    }
    let with_step = |file: Wanted| place.step(&file, options.force).map(|step| (file, step));
    let files: Result<Vec<_>, String> = files.into_iter().map(with_step).collect();
    sockets(&snapshot, place.folder(), &mut report);
    Ok(Plan { snapshot, files: files.map_err(|e| vec![e])?, indexes: indexes.into_iter().collect(), report })
}

/// Postfix's folders and ours.
fn folders(theirs: &Config, here: &Config) -> Vec<(String, String)> {
    let text = |config: &Config, name: &str| config.text(name).unwrap_or_default();
    let mut list = Vec::new();
    for (name, usual) in [
        ("queue_directory", &["/var/spool/postfix"][..]),
        ("data_directory", &["/var/lib/postfix"]),
        ("daemon_directory", &["/usr/lib/postfix/sbin", "/usr/libexec/postfix", "/usr/lib/postfix"]),
    ] {
        let ours = text(here, name);
        list.extend(usual.iter().map(|usual| ((*usual).to_owned(), ours.clone())));
        if theirs.is_set(name) {
            list.push((text(theirs, name), ours));
        }
    }
    list
}

/// Sockets of other programs within the queue directory: those programs must be told that it is another one.
fn sockets(snapshot: &Snapshot, target: &Path, report: &mut Report) {
    let (config, _) = Config::inspect(target, snapshot, &[]);
    let queue = config.get(param::QUEUE_DIRECTORY).display().to_string();
    let is_ours = |name: &str| config.services().iter().any(|service| service.name == name);
    let texts =
        [&snapshot.main_cf, &snapshot.master_cf].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    for line in texts.iter().flat_map(|text| text.lines()).filter(|line| !line.trim_start().starts_with('#'))
    {
        for word in line.split([' ', '\t', ',', '=', '{', '}']) {
            let path = word.rsplit("unix:").next().unwrap_or(word);
            let relative = path.strip_prefix(&format!("{queue}/")).unwrap_or(path);
            let has_type = word.contains("unix:") && !path.starts_with('/');
            let known = ["private/", "public/"].iter().any(|folder| relative.starts_with(folder));
            let name = relative.rsplit('/').next().unwrap_or_default();
            if (known || has_type) && !is_ours(name) && !relative.contains(':') && !relative.is_empty() {
                report.say(
                    Section::ToDo,
                    format!("have the program that makes the socket {name} make it as {queue}/{relative}"),
                );
            }
        }
    }
}

/// Writes what is to be written, main.cf last: until then the former configuration holds. Gives how much that was.
fn write(place: &mut Target, plan: &mut Plan, source: &Path) -> Result<usize, String> {
    fs::create_dir_all(place.folder()).map_err(|e| format!("make {}: {e}", place.folder().display()))?;
    let mut written = 0;
    for (file, step) in &plan.files {
        place.make_folders(&file.name, source)?;
        if let Some(backup) = place.put(file, *step)? {
            let text = format!("what was there before is kept as {}", backup.display());
            plan.report.say(Section::Taken, text);
        }
        written += usize::from(*step != Step::Nothing);
    }
    place.remember()?;
    Ok(written)
}

/// Makes the indexes that are missing, older than their text, or not ours.
fn index(plan: &mut Plan, options: &Options) {
    for table in &plan.indexes {
        let spec = format!("{}:{}", table.kind, table.path.display());
        let program = if table.aliases { "postalias" } else { "postmap" };
        if is_current(table) {
            continue;
        }
        if !table.imported && !options.rebuild {
            let text = format!(
                "once Postfix is stopped: {program} {spec} (its index is Postfix's; --rebuild does it as well)"
            );
            plan.report.say(Section::ToDo, text);
            continue;
        }
        match run_program(program, &spec) {
            Ok(said) => {
                plan.report.say(Section::Converted, format!("{spec}: index made from its text"));
                said.lines()
                    .for_each(|line| plan.report.say(Section::ToDo, line.trim_start_matches("warning: ")));
            }
            Err(error) => plan.report.say(Section::Wrong, format!("{program} {spec}: {error}")),
        }
    }
}

fn is_current(table: &Index) -> bool {
    let Some(index) = lookup::index_file(&table.kind, &table.path.display().to_string()) else {
        return with_ending(&table.path, &table.kind).exists();
    };
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let is_newer = modified(&index).zip(modified(&table.path)).is_some_and(|(index, text)| index >= text);
    is_newer && lookup::open(&format!("{}:{}", table.kind, table.path.display())).is_ok()
}

/// Runs the program that lies beside this one, or where commands are. The index is for who may read the text.
fn run_program(program: &str, spec: &str) -> Result<String, String> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned()));
    let usual = Path::new(param::COMMAND_DIRECTORY.row().default).to_owned();
    let path = beside.into_iter().chain([usual]).map(|folder| folder.join(program));
    let path = path.into_iter().find(|path| path.is_file()).unwrap_or_else(|| program.into());
    let output =
        Command::new(path).arg(spec).env_remove("MAIL_CONFIG").output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// What the configuration will be said to be, sorted into the report.
fn judge(plan: &mut Plan, target: &Path, checked: Option<Result<Vec<String>, Vec<String>>>) {
    let (_, remarks) = Config::inspect(target, &plan.snapshot, &[]);
    for remark in &remarks {
        let line = remark.to_string();
        let section = match remark.severity {
            Severity::Error => Section::Wrong,
            Severity::Note if line.contains("former") => Section::Deprecated,
            Severity::Note => continue,
            Severity::Warning if line.contains("no effect") || line.contains("not started") => {
                Section::Unsupported
            }
            Severity::Warning => Section::ToDo,
        };
        plan.report.say(section, line);
    }
    let Some(checked) = checked else { return };
    for line in checked.unwrap_or_else(|lines| lines) {
        let (severity, text) = line.split_once(": ").unwrap_or(("error", &line));
        let is_warning = severity == "warning";
        // A table whose index waits for the operator is told already.
        let is_told = plan.report.tells(text);
        let section = match is_warning {
            false => Section::Wrong,
            true if text.contains("not supported") || text.contains("no effect") => Section::Unsupported,
            true => Section::ToDo,
        };
        if !is_told {
            plan.report.say(section, text);
        }
    }
}
