//! `postroad import-queue`: mail that Postfix has not delivered yet becomes this queue's.
//!
//! Contract: no message is lost and none is taken twice, wherever a crash falls. A message keeps its queue id. It is stored
//! where nobody delivers it (`hold/`, or an unfinished file in `maildrop/`), durably; then the ledger in `data_directory` says
//! so; then it is released. A second run finds at any of these points what the first one did. What Postfix's cleanup has
//! made is stored byte for byte; what waits in `maildrop/` goes through pickup and cleanup, as it would have.

mod ledger;
mod message;
mod record;
#[doc(hidden)]
pub use record::records_in;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use config::{Config, param};
use ipc::queue_manager::{Client, Word};
use mail::submission::{Head, trailer};
use mail::{Origin, QueueId};
use nix::unistd::{Uid, User};
use queue::{Folder, QueueError, Root};
use sys::credentials::AsUser;

use ledger::{Ledger, Step};
use message::{Found, Message};

/// Where originals go that are set aside, below Postfix's queue directory.
const ASIDE: &str = "imported";

/// The folders of Postfix's queue that hold mail.
const FOLDERS: [&str; 5] = ["hold", "maildrop", "deferred", "incoming", "active"];

/// Folders whose files Postfix lets go of when they are moved while it runs.
const QUIET: [&str; 2] = ["hold", "deferred"];

/// How deep Postfix hashes its folders.
const DEEPEST: u8 = 5;

/// Which queue, and what becomes of it.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Postfix's queue directory.
    #[arg(default_value = "/var/spool/postfix")]
    queue_directory: PathBuf,
    /// Move what was taken over to QUEUE_DIRECTORY/imported, so that Postfix cannot deliver it as well.
    #[arg(long)]
    set_aside: bool,
    /// Take deferred and held mail while Postfix runs; each file is moved to QUEUE_DIRECTORY/imported first.
    #[arg(long)]
    while_running: bool,
    /// Say what would be taken over, and change nothing.
    #[arg(long, conflicts_with = "while_running")]
    dry_run: bool,
}

/// Takes over what there is; the exit status is 1 if something had to be left.
pub(super) fn run(directory: &Path, options: &Options) -> ExitCode {
    let outcome = Import::prepare(directory, options).and_then(|mut import| {
        import.all()?;
        Ok(import)
    });
    match outcome {
        Ok(import) => {
            super::print(&import.lines);
            if import.left.is_empty() { ExitCode::SUCCESS } else { super::complain(&import.left) }
        }
        Err(error) => super::complain(&[error]),
    }
}

struct Import<'a> {
    options: &'a Options,
    from: PathBuf,
    root: Root,
    config: Config,
    /// Whom our queue belongs to, where root imports.
    owner: Option<User>,
    ledger: Option<Ledger>,
    lines: Vec<String>,
    left: Vec<String>,
    taken: u64,
}

/// A file of Postfix's queue.
struct Original {
    path: PathBuf,
    folder: &'static str,
    id: String,
}

impl<'a> Import<'a> {
    fn prepare(directory: &Path, options: &'a Options) -> Result<Self, String> {
        let from = &options.queue_directory;
        let from = fs::canonicalize(from).map_err(|error| format!("{}: {error}", from.display()))?;
        if !from.join("deferred").is_dir() || !from.join("maildrop").is_dir() {
            return Err(format!("{} is no queue directory of Postfix", from.display()));
        }
        let (config, _) = Config::load(directory)
            .map_err(|remarks| remarks.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let queue_directory: PathBuf = config.get(param::QUEUE_DIRECTORY);
        if fs::canonicalize(&queue_directory).is_ok_and(|path| path == from) {
            return Err(format!("{} is Postroad's own queue directory", from.display()));
        }
        if !options.while_running && !options.dry_run && is_running(&from) {
            return Err(format!(
                "Postfix runs on {}: stop it first (or take only deferred and held mail, with --while-running)",
                from.display()
            ));
        }
        if !options.dry_run {
            // Makes what is missing of the folders.
            super::check::check(directory).map_err(|lines| lines.join("\n"))?;
        }
        let root = Root::open(&queue_directory);
        // A dry run puts nothing there, so that any folder will do.
        let root = if options.dry_run { root.or_else(|_| Root::open(&from)) } else { root };
        let root =
            root.map_err(|e| format!("open {}: {e}; run `postroad check`", queue_directory.display()))?;
        let data: PathBuf = config.get(param::DATA_DIRECTORY);
        let ledger = (!options.dry_run).then(|| Ledger::open(&data)).transpose();
        let ledger = ledger.map_err(|error| format!("the list of what was taken over: {error}"))?;
        let name = config.get(param::MAIL_OWNER);
        let owner = match Uid::effective().is_root() {
            true => User::from_name(&name).map_err(|e| format!("look up {name}: {e}"))?,
            false => None,
        };
        let (lines, left) = (Vec::new(), Vec::new());
        Ok(Self { options, from, root, config, owner, ledger, lines, left, taken: 0 })
    }

    fn all(&mut self) -> Result<(), String> {
        let folders = if self.options.while_running { &QUIET[..] } else { &FOLDERS };
        for folder in folders {
            let places = [self.from.join(folder), self.from.join(ASIDE).join(folder)];
            for place in places {
                let mut files = Vec::new();
                files_below(&place, DEEPEST, &mut files)
                    .map_err(|e| format!("read {}: {e}", place.display()))?;
                files.sort();
                for path in files {
                    let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let original = Original { path, folder, id };
                    match self.one(original) {
                        Ok(()) => {}
                        Err(error) => self.left.push(error),
                    }
                }
            }
        }
        self.wake();
        let verb = if self.options.dry_run { "would be taken over" } else { "taken over" };
        self.lines.push(format!("{} {verb}, {} left", crate::command::messages(self.taken), self.left.len()));
        if self.taken > 0 && !self.options.dry_run && !self.options.set_aside && !self.options.while_running {
            self.lines.push(format!(
                "the originals are still in {}: Postfix would deliver them as well if it were started again; \
                 run this again with --set-aside to move them to {ASIDE}/",
                self.from.display()
            ));
        }
        Ok(())
    }

    fn one(&mut self, mut original: Original) -> Result<(), String> {
        let what = |error: &dyn std::fmt::Display, path: &Path| format!("{}: {error}", path.display());
        let path = original.path.clone();
        let file = File::open(&path).map_err(|error| what(&error, &path))?;
        let found = file.metadata().map_err(|error| what(&error, &path))?;
        if found.mode() & 0o100 == 0 {
            // Postfix never said that it has this one.
            self.lines.push(format!("{}: was never finished, and is left", original.id));
            return Ok(());
        }
        let failed = fs::read_to_string(self.from.join("bounce").join(&original.id)).unwrap_or_default();
        let failed = message::failed_recipients(&failed);
        let message = match message::read(&file, &failed, found.uid()).map_err(|error| what(&error, &path))? {
            Found::Nothing(why) => {
                self.lines.push(format!("{}: {why}", original.id));
                return Ok(());
            }
            Found::Message(message) => message,
        };
        let key = Ledger::key(&self.from, &original.id, message.envelope.arrival);
        let step = self.ledger.as_ref().and_then(|ledger| ledger.step(&key));
        if self.options.dry_run {
            self.tell(&original, &message);
            return Ok(());
        }
        if step != Some(Step::Released) {
            if self.options.while_running {
                self.set_aside(&mut original)?;
            }
            self.take(&original, &file, &message, &key, step).map_err(|error| what(&error, &path))?;
            self.tell(&original, &message);
        } else if !path.starts_with(self.from.join(ASIDE)) {
            self.lines.push(format!("{}: was taken over before", original.id));
        }
        if self.options.set_aside { self.set_aside(&mut original) } else { Ok(()) }
    }

    fn tell(&mut self, original: &Original, message: &Message) {
        self.taken += 1;
        let envelope = &message.envelope;
        let verp = if message.has_verp { "; VERP is not taken over" } else { "" };
        self.lines.push(format!(
            "{}: from=<{}>, nrcpt={}, {}{verp}",
            original.id,
            envelope.sender.as_str(),
            envelope.recipients.len(),
            original.folder
        ));
    }

    /// Store, note, release, note.
    fn take(
        &mut self,
        original: &Original,
        file: &File,
        message: &Message,
        key: &str,
        step: Option<Step>,
    ) -> Result<(), String> {
        let id: QueueId = original.id.parse().map_err(|error| format!("{error}"))?;
        let is_submission = original.folder == "maildrop";
        if step.is_none() {
            let _as_owner = self.as_owner(is_submission)?;
            let stored = match is_submission {
                true => self.submit(original, file, message),
                false => self.store(id, file, message),
            };
            stored?;
        }
        self.note(key, Step::Stored)?;
        if is_submission {
            let maildrop = self.root.maildrop().map_err(|error| error.to_string())?;
            maildrop.finish(OsStr::new(&original.id)).map_err(|error| error.to_string())?;
        } else if original.folder != "hold" {
            let operator = self.root.operator().map_err(|error| error.to_string())?;
            match operator.requeue(id, &[Folder::Hold]) {
                Ok(_) => {}
                // Released by a run that did not live to note it, or by the operator.
                Err(QueueError::NotFound(_)) if step.is_some() => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        self.note(key, Step::Released)
    }

    fn note(&mut self, key: &str, step: Step) -> Result<(), String> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        ledger.note(key, step).map_err(|error| format!("note what was taken over: {error}"))
    }

    /// Files in the queue are the mail owner's; those in `maildrop/` their submitters'.
    fn as_owner(&self, is_submission: bool) -> Result<Option<AsUser>, String> {
        let owner = self.owner.as_ref().filter(|_| !is_submission);
        owner
            .map(|owner| AsUser::become_user(owner.uid, owner.gid, &[]))
            .transpose()
            .map_err(|error| format!("act as {}: {error}", self.config.get(param::MAIL_OWNER)))
    }

    fn store(&self, id: QueueId, file: &File, message: &Message) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let envelope = &message.envelope;
        let operator = self.root.operator().map_err(|e| text(&e))?;
        operator.remove_unfinished(id, Folder::Hold).map_err(|e| text(&e))?;
        match self.root.read_only().map_err(|e| text(&e))?.find(id) {
            Err(QueueError::NotFound(_)) => {}
            Ok((Folder::Hold, there))
                if there.sender() == &envelope.sender && there.arrival() == envelope.arrived_at() =>
            {
                // A run before this one stored it and did not live to note it.
                if there.verify_content().is_ok() {
                    return Ok(());
                }
                operator.delete(id, &[Folder::Hold]).map_err(|e| text(&e))?;
            }
            Ok((folder, _)) => {
                return Err(format!("another message of this name is in {}", folder.as_str()));
            }
            Err(error) => return Err(text(&error)),
        }
        let incoming = self.root.incoming().map_err(|e| text(&e))?;
        let mut writer = incoming.create(id, envelope, true).map_err(|e| text(&e))?;
        message::copy_content(file, &mut writer).map_err(|e| text(&e))?;
        writer.commit().map(drop).map_err(|e| text(&e))
    }

    fn submit(&self, original: &Original, file: &File, message: &Message) -> Result<(), String> {
        let envelope = &message.envelope;
        let Origin::Local { uid } = envelope.origin else { return Err("no local submission".to_owned()) };
        let maildrop = self.root.maildrop().map_err(|error| error.to_string())?;
        let out = maildrop.begin(OsStr::new(&original.id), uid).map_err(|error| error.to_string())?;
        let head = Head {
            sender: envelope.sender.clone(),
            recipients: envelope.recipients.clone(),
            full_name: message.full_name.clone(),
            envid: envelope.envid.clone(),
            ret: envelope.ret,
            body: envelope.body,
            smtputf8: envelope.smtputf8,
            trace: envelope.trace,
        };
        let written = (|| -> io::Result<()> {
            let mut buffered = io::BufWriter::new(&out);
            buffered.write_all(&head.encode())?;
            let size = message::copy_content(file, &mut buffered)?;
            buffered.write_all(&trailer(size))?;
            buffered.flush()?;
            out.sync_all()
        })();
        written.map_err(|error| format!("write to maildrop: {error}"))?;
        sys::fs::sync_directory(&self.root.path().join("maildrop")).map_err(|error| error.to_string())
    }

    /// Out of Postfix's sight, and still there.
    fn set_aside(&self, original: &mut Original) -> Result<(), String> {
        let folder = self.from.join(ASIDE).join(original.folder);
        let place = folder.join(&original.id);
        if original.path == place {
            return Ok(());
        }
        fs::create_dir_all(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
        fs::rename(&original.path, &place)
            .and_then(|()| sys::fs::sync_directory(&folder))
            .map_err(|error| format!("move {} to {}: {error}", original.path.display(), folder.display()))?;
        original.path = place;
        Ok(())
    }

    /// A mail system that does not run looks for itself when it starts.
    fn wake(&self) {
        let queue_directory: PathBuf = self.config.get(param::QUEUE_DIRECTORY);
        let socket = ipc::socket_path(&queue_directory, false, &self.config.get(param::QUEUE_SERVICE_NAME));
        let _ = Client::new(socket).say(&Word::Rescan);
        let _ = std::os::unix::net::UnixStream::connect(ipc::socket_path(&queue_directory, false, "pickup"));
    }
}

/// Whether a master of Postfix holds its lock.
fn is_running(queue: &Path) -> bool {
    File::open(ipc::master::pid_file(queue)).is_ok_and(|file| file.try_lock_shared().is_err())
}

/// The regular files of a folder and of those that it is hashed into.
fn files_below(folder: &Path, depth: u8, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && depth > 0 {
            files_below(&entry.path(), depth - 1, files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}
