//! Which files belong to a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use config::edit::{MainCf, MasterCf};
use config::{Config, ServiceEntry};

use super::parameters::{OTHER_INDEXES, is_cache, is_certificate, names_aliases};
use super::paths::{Named, Places, named_in, with_ending};
use super::place::Wanted;
use super::report::{Report, Section};

/// More than any table; a mailbox that is named by mistake is not copied.
const MAX_FILE: u64 = 256 << 20;

/// How many files a configuration may name.
const MAX_FILES: usize = 10_000;

/// Types of tables that are looked up in an index beside their text.
const INDEXED: [&str; 3] = ["hash", "btree", "cdb"];

/// What Postfix's own packages put beside main.cf.
const OF_THE_PACKAGE: [&str; 11] = [
    "main.cf",
    "master.cf",
    "main.cf.proto",
    "master.cf.proto",
    "postfix-files",
    "postfix-script",
    "post-install",
    "dynamicmaps.cf",
    "makedefs.out",
    "postfix-files.d",
    "dynamicmaps.cf.d",
];

/// A table that needs an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Index {
    pub(super) aliases: bool,
    pub(super) kind: String,
    /// Its text; where it will be, if it is imported.
    pub(super) path: PathBuf,
    /// Whether the text is imported: what lies elsewhere is Postfix's as well.
    pub(super) imported: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<Wanted>,
    pub(super) indexes: BTreeSet<Index>,
}

/// Looks for everything that the configuration names.
pub(super) fn find(
    config: &Config,
    sources: (&str, &str),
    places: &Places,
    target: &Path,
    report: &mut Report,
) -> Found {
    let mut search = Search {
        places,
        target,
        report,
        found: Found::default(),
        seen: BTreeMap::new(),
        waiting: Vec::new(),
    };
    for (name, value) in values(config, sources) {
        if !is_cache(&name) && !is_certificate(&name) {
            named_in(&value).iter().for_each(|named| search.take(&name, named));
        }
    }
    while let Some(inside) = search.waiting.pop() {
        search.copy(&inside);
    }
    search.strangers();
    search.found.files.sort_by(|one, other| one.name.cmp(&other.name));
    search.found
}

/// Every value of both files, expanded, with the parameter it is of.
fn values(config: &Config, (main_cf, master_cf): (&str, &str)) -> Vec<(String, String)> {
    let mut names = BTreeSet::new();
    MainCf::parse(main_cf).rewrite(&mut |name, _| {
        names.insert(name.to_owned());
        None
    });
    let mut values: Vec<(String, String)> = names
        .into_iter()
        .filter(|name| {
            !matches!(name.as_str(), "config_directory" | "meta_directory" | "alternate_config_directories")
        })
        .map(|name| {
            let value = config.text(&name).unwrap_or_default();
            (name, value)
        })
        .collect();
    let of_services = |service: &ServiceEntry| {
        let mut list = service.overrides.clone();
        list.extend(service.args.iter().map(|argument| (String::new(), argument.clone())));
        list
    };
    let services: Vec<(String, String)> = match config.services().is_empty() {
        // A file that is wrong somewhere is searched all the same.
        true => MasterCf::parse(master_cf)
            .iter()
            .flat_map(MasterCf::services)
            .flat_map(|line| line.overrides())
            .collect(),
        false => config.services().iter().flat_map(of_services).collect(),
    };
    values.extend(services.into_iter().map(|(name, value)| {
        let expanded = config.expand(&value).unwrap_or_default();
        (name, if expanded.is_empty() { value } else { expanded })
    }));
    values
}

struct Search<'a> {
    places: &'a Places,
    target: &'a Path,
    report: &'a mut Report,
    found: Found,
    seen: BTreeMap<PathBuf, ()>,
    waiting: Vec<PathBuf>,
}

impl Search<'_> {
    /// What a parameter names.
    fn take(&mut self, name: &str, named: &Named) {
        let kind = match OTHER_INDEXES.contains(&named.kind.as_str())
            && !lookup::types().contains(&named.kind.as_str())
        {
            true => "hash",
            false => named.kind.as_str(),
        };
        if let Err(lookup::OpenError::Configuration(text)) =
            lookup::open(&format!("{kind}:{}", named.path.display()))
            && text.contains("not supported")
        {
            self.report.say(Section::Unsupported, format!("{name}: {text}"));
        }
        let inside = self.places.within_source(&named.path);
        if INDEXED.contains(&kind) || kind == "lmdb" {
            let path = inside.as_ref().map_or_else(|| named.path.clone(), |inside| self.target.join(inside));
            let source =
                inside.as_ref().map_or_else(|| named.path.clone(), |inside| self.places.source_of(inside));
            if !self.has_text(name, named, &source) {
                return;
            }
            let imported = inside.is_some();
            self.found.indexes.insert(Index {
                aliases: names_aliases(name),
                kind: kind.to_owned(),
                path,
                imported,
            });
        }
        if let Some(inside) = inside {
            self.want(inside);
        }
    }

    /// An index is made from its text: without that there is nothing to be done.
    fn has_text(&mut self, name: &str, named: &Named, source: &Path) -> bool {
        if source.is_file() {
            return true;
        }
        // A parameter of the operator's own with the beginning of names: `indexed = hash:$config_directory/`.
        if source.is_dir() {
            return false;
        }
        let (kind, path) = (&named.kind, named.path.display());
        let index = ["db", "lmdb", "cdb", "dir"]
            .into_iter()
            .map(|ending| with_ending(source, ending))
            .find(|i| i.exists());
        let text = match index {
            Some(index) => format!(
                "{name}: {kind}:{path}: its text is missing and {} cannot be read here; \
                 write the text with Postfix's `postmap -s {kind}:{path} > {path}`, and import again",
                index.display()
            ),
            None => format!("{name}: {kind}:{path}: there is no such file"),
        };
        self.report.say(Section::Wrong, text);
        false
    }

    fn want(&mut self, inside: PathBuf) {
        if inside.as_os_str().is_empty() || self.seen.contains_key(&inside) || self.seen.len() >= MAX_FILES {
            return;
        }
        self.seen.insert(inside.clone(), ());
        self.waiting.push(inside);
    }

    fn copy(&mut self, inside: &Path) {
        let path = self.places.source_of(inside);
        let like = match fs::metadata(&path) {
            // A folder is only the beginning of names; what is in it is named by itself.
            Ok(like) if like.is_dir() => return,
            Ok(like) => like,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.report.say(Section::Wrong, format!("{}: there is no such file", path.display()));
            }
            Err(error) => {
                return self.report.say(Section::Wrong, format!("open {}: {error}", path.display()));
            }
        };
        if !like.is_file() {
            return self.report.say(Section::Wrong, format!("{}: is no file", path.display()));
        }
        match read(&path) {
            Ok(content) => {
                let content = self.content(inside, &path, content, like.mode());
                self.found.files.push(Wanted { name: inside.to_owned(), content, like });
            }
            Err(error) => self.report.say(Section::Wrong, format!("read {}: {error}", path.display())),
        }
    }

    /// A table's text names files, too. A program is left as it is.
    fn content(&mut self, inside: &Path, path: &Path, content: Vec<u8>, mode: u32) -> Vec<u8> {
        let is_program = mode & 0o111 != 0 || content.starts_with(b"#!");
        let text = match String::from_utf8(content) {
            Ok(text) if !text.contains('\0') => text,
            Ok(text) => return text.into_bytes(),
            Err(error) => return error.into_bytes(),
        };
        let mut out = String::with_capacity(text.len());
        let mut changed = 0;
        for line in text.split_inclusive('\n') {
            let is_comment = line.trim_start().starts_with('#');
            for named in named_in(line).iter().filter(|_| !is_comment) {
                if let Some(other) = self.places.within_source(&named.path) {
                    self.want(other);
                }
            }
            let translated = if is_comment { line.to_owned() } else { self.places.translate(line) };
            changed += usize::from(translated != line);
            out.push_str(&translated);
        }
        if changed > 0 && is_program {
            self.report.say(
                Section::ToDo,
                format!(
                    "{}: is a program that names Postfix's folders; look through it",
                    self.target.join(inside).display()
                ),
            );
            return text.into_bytes();
        }
        if changed > 0 {
            self.report.say(Section::Converted, format!("{}: paths in {changed} lines", inside.display()));
        } else {
            self.report.say(Section::Taken, path.display().to_string());
        }
        out.into_bytes()
    }

    /// What lies beside main.cf and is named by nothing is not taken, and told.
    fn strangers(&mut self) {
        let entries = fs::read_dir(self.places.source_of(Path::new(""))).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !OF_THE_PACKAGE.contains(&name.as_str()))
            .filter(|name| {
                let index =
                    [".db", ".lmdb", ".cdb", ".dir", ".pag"].into_iter().any(|ending| name.ends_with(ending));
                !index && !self.seen.keys().any(|taken| taken.starts_with(name))
            })
            .collect();
        names.sort();
        if !names.is_empty() {
            self.report.say(
                Section::ToDo,
                format!("not taken, because no parameter names it; copy what you need: {}", names.join(", ")),
            );
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut content)?;
    match content.len() as u64 > MAX_FILE {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {MAX_FILE} bytes"))),
        false => Ok(content),
    }
}
