//! Files and TCP ports, by Landlock.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};
use nix::libc;

/// What may be done with a file, or below a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileAccess {
    /// Listing folders.
    List,
    /// Listing folders and reading files.
    Read,
    /// Reading and removing files, and moving them elsewhere.
    Take,
    /// Receiving files that are moved there.
    Receive,
    /// Making, reading, changing, moving and removing files, but no folders.
    Change,
    /// The same, and making folders.
    Build,
}

impl FileAccess {
    fn rights(self) -> BitFlags<AccessFs> {
        let list = make_bitflags!(AccessFs::{ReadDir});
        let read = list | AccessFs::ReadFile;
        let change = read | make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile | Refer});
        match self {
            Self::List => list,
            Self::Read => read,
            Self::Take => read | AccessFs::RemoveFile | AccessFs::Refer,
            // Moved there is also what is no file.
            Self::Receive => {
                list | make_bitflags!(AccessFs::{
                    MakeReg | MakeFifo | MakeSock | MakeSym | MakeChar | MakeBlock | Refer
                })
            }
            Self::Change => change,
            Self::Build => change | AccessFs::MakeDir,
        }
    }

    /// Whether whoever has this may do all that `other` allows.
    #[must_use]
    pub fn includes(self, other: Self) -> bool {
        self.rights().contains(other.rights())
    }
}

/// What a process may reach; nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Files and folders; one that does not exist gives no right. `None` for all.
    pub files: Option<Vec<(PathBuf, FileAccess)>>,
    /// The TCP ports that may be connected to; `None` for all.
    pub connect: Option<Vec<u16>>,
    /// The TCP ports that may be bound to; 0 is a port that the kernel chooses.
    pub bind: Vec<u16>,
}

/// How much of a [`Reach`] the kernel holds a process to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforced {
    /// All of it.
    Fully,
    /// What this version of the kernel's interface knows.
    Partly(u32),
    /// Nothing: the kernel has no Landlock, or not switched on.
    Not,
}

/// The version of Landlock that has all of it: files since 1, moves 2, truncation 3, ports 4, devices 5, signals and
/// abstract sockets 6.
pub const WHOLE: i64 = 6;

/// The version of the kernel's Landlock, where it has it.
#[must_use]
pub fn version() -> Option<i64> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`
    const ASK: u32 = 1;
    // SAFETY: with this flag, nothing is pointed to and nothing is made.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, ASK)
    };
    (answer > 0).then_some(answer)
}

/// The rule for a path; `None` for one that does not exist, or that this process could not come to anyway. Whatever else is wrong
/// with it is an error, as it may be so for a moment only: the process would be without it for good.
fn rule(path: &Path, access: FileAccess) -> io::Result<Option<PathBeneath<File>>> {
    const NOT_THERE: [i32; 6] =
        [libc::ENOENT, libc::ENOTDIR, libc::EACCES, libc::EPERM, libc::ELOOP, libc::ENAMETOOLONG];
    let file = match File::options().read(true).custom_flags(libc::O_PATH).open(path) {
        Ok(file) => file,
        // What holds a zero byte is no path, of which the system was not even asked.
        Err(error) if error.raw_os_error().is_none_or(|number| NOT_THERE.contains(&number)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let of_files = AccessFs::from_file(ABI::V5);
    let rights = access.rights();
    let rights = if file.metadata()?.is_dir() { rights } else { rights & of_files };
    Ok(Some(PathBeneath::new(file, rights)))
}

/// Confines this thread and those that it starts. Signals and abstract sockets of other processes are out of reach too,
/// where the kernel is new enough, and so is the memory of processes that are not confined alike.
///
/// # Errors
/// What the kernel says to a rule.
pub fn confine(reach: &Reach) -> io::Result<Enforced> {
    let all = AccessFs::from_all(ABI::V5);
    let mut rules = Ruleset::default();
    if reach.files.is_some() {
        rules = rules.handle_access(all).map_err(io::Error::other)?;
    }
    rules = rules.handle_access(AccessNet::BindTcp).map_err(io::Error::other)?;
    if reach.connect.is_some() {
        rules = rules.handle_access(AccessNet::ConnectTcp).map_err(io::Error::other)?;
    }
    let rules = rules.scope(Scope::from_all(ABI::V6)).map_err(io::Error::other)?;
    let mut created = rules.create().map_err(io::Error::other)?;
    for (path, access) in reach.files.iter().flatten() {
        let rule =
            rule(path, *access).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        if let Some(rule) = rule {
            created = created.add_rule(rule).map_err(io::Error::other)?;
        }
    }
    for port in &reach.bind {
        created = created.add_rule(NetPort::new(*port, AccessNet::BindTcp)).map_err(io::Error::other)?;
    }
    for port in reach.connect.iter().flatten() {
        created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(io::Error::other)?;
    }
    let status = created.restrict_self().map_err(io::Error::other)?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => Enforced::Fully,
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            Enforced::Partly(effective_abi as u32)
        }
        _ => Enforced::Not,
    })
}
