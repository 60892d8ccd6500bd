//! What these programs want to know of main.cf, and which main.cf a privileged one believes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Config, Diagnostic, Severity, param};

use crate::failure::{Exit, Failure};
use crate::message::LineEndings;

/// Larger files are no main.cf.
const MAX_MAIN_CF: u64 = 4 * 1024 * 1024;

/// The parameters that are read here.
const READ_HERE: [&str; 8] = [
    "alias_database",
    "alternate_config_directories",
    "authorized_submit_users",
    "command_directory",
    "message_size_limit",
    "multi_instance_directories",
    "queue_directory",
    "sendmail_fix_line_endings",
];

/// The parameters of one instance.
#[derive(Debug)]
pub(crate) struct Settings {
    config: Config,
}

impl Settings {
    /// Reads `DIR/main.cf`. master.cf is none of a command's business: it says what daemons do.
    ///
    /// While an operator edits main.cf the daemons go on with what they have, and mail of the machine's own programs must
    /// not be lost for a slip that does not concern it: an error counts only if it names a parameter that is read here.
    ///
    /// # Errors
    /// [`Exit::Config`] with the first error that counts.
    pub(crate) fn load(directory: &Path) -> Result<Self, Failure> {
        let main_cf = read_main_cf(&directory.join("main.cf"))?;
        let (config, remarks) = Config::inspect_for(directory, &main_cf, &READ_HERE);
        let counts = |remark: &&Diagnostic| {
            remark.severity == Severity::Error && READ_HERE.iter().any(|name| remark.text.contains(name))
        };
        match remarks.iter().find(counts) {
            None => Ok(Self { config }),
            Some(error) => Err(Failure::new(Exit::Config, error.to_string())),
        }
    }

    /// Where main.cf was read.
    pub(crate) fn directory(&self) -> &Path {
        self.config.directory()
    }

    /// The name of this host.
    pub(crate) fn hostname(&self) -> String {
        self.config.get(param::MYHOSTNAME)
    }

    /// The root of the queue.
    pub(crate) fn queue_directory(&self) -> PathBuf {
        self.config.get(param::QUEUE_DIRECTORY)
    }

    /// Another program of the suite that users run.
    pub(crate) fn command(&self, name: &str) -> PathBuf {
        self.config.get(param::COMMAND_DIRECTORY).join(name)
    }

    /// The largest content; `None` for no limit.
    pub(crate) fn message_size_limit(&self) -> Option<u64> {
        Some(self.config.get(param::MESSAGE_SIZE_LIMIT)).filter(|limit| *limit > 0)
    }

    /// Who may submit mail.
    pub(crate) fn authorized_submit_users(&self) -> Vec<String> {
        self.config.get(param::AUTHORIZED_SUBMIT_USERS)
    }

    /// The alias databases that `newaliases` builds.
    pub(crate) fn alias_databases(&self) -> Vec<String> {
        self.config.get(param::ALIAS_DATABASE)
    }

    /// When CR LF becomes LF.
    ///
    /// # Errors
    /// [`Exit::Config`] for another word than Postfix knows.
    pub(crate) fn line_endings(&self) -> Result<LineEndings, Failure> {
        match self.config.get(param::SENDMAIL_FIX_LINE_ENDINGS).as_str() {
            "always" => Ok(LineEndings::Always),
            "strict" => Ok(LineEndings::Strict),
            "never" => Ok(LineEndings::Never),
            other => Err(Failure::new(
                Exit::Config,
                format!("sendmail_fix_line_endings = {other}: expected always, strict or never"),
            )),
        }
    }

    fn other_instances(&self) -> Vec<String> {
        let mut directories = self.config.get(param::ALTERNATE_CONFIG_DIRECTORIES);
        directories.extend(self.config.get(param::MULTI_INSTANCE_DIRECTORIES));
        directories
    }
}

fn read_main_cf(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
    use std::io::Read as _;
    let failed = |doing: &str, error: &std::io::Error| {
        // A system in trouble may be better tomorrow; what is not there stays so.
        let lasts = matches!(error.kind(), NotFound | PermissionDenied | IsADirectory);
        let exit = if lasts { Exit::Config } else { Exit::Temporary };
        Failure::new(exit, format!("{doing} {}: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| failed("open", &error))?;
    let mut bytes = Vec::with_capacity(8 * 1024);
    file.take(MAX_MAIN_CF + 1).read_to_end(&mut bytes).map_err(|error| failed("read", &error))?;
    if bytes.len() as u64 > MAX_MAIN_CF {
        let text = format!("{}: longer than any main.cf", path.display());
        return Err(Failure::new(Exit::Config, text));
    }
    Ok(bytes)
}

/// The configuration directory where nothing else is said.
pub(crate) fn default_directory() -> &'static Path {
    Path::new(param::CONFIG_DIRECTORY.row().default)
}

/// The configuration directory of an unprivileged command: what the command line says, or the environment.
pub(crate) fn chosen_directory(given: Option<PathBuf>) -> PathBuf {
    let environment = std::env::var_os("MAIL_CONFIG").filter(|value| !value.is_empty());
    given.or_else(|| environment.map(PathBuf::from)).unwrap_or_else(|| default_directory().to_path_buf())
}

/// Whether a program that runs with more rights than its user may read its configuration from `directory`: the
/// default one, and those which the main.cf there lists. Otherwise anybody could have it write into any folder that its
/// group may write to.
pub(crate) fn is_trusted_directory(directory: &Path) -> bool {
    let default = default_directory();
    // A main.cf that cannot be read lists nobody.
    directory == default
        || Settings::load(default)
            .is_ok_and(|settings| lists(&settings.other_instances(), directory.as_os_str().to_owned()))
}

fn lists(directories: &[String], wanted: OsString) -> bool {
    wanted.into_string().is_ok_and(|wanted| directories.contains(&wanted))
}
