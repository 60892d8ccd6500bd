//! System calls, as far as they change the disk or tell somebody something.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::libc::{self, user_regs_struct};
use nix::unistd::Pid;

/// How much of what is said over a socket is looked at.
const MOST_SAID: usize = 512;

/// What a server says when a message is its business from there on.
pub(crate) const TAKEN: &str = "queued as";

/// The programs whose exit status somebody relies on.
const COMMANDS: [&str; 4] = ["sendmail", "postdrop", "postsuper", "postroad"];

/// The longest path.
const MOST_PATH: usize = 4096;

/// What a call has done.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// A file was opened that may have been made or emptied by that.
    Opened {
        path: PathBuf,
        made: bool,
        emptied: bool,
    },
    /// A file without a name was made, which goes by this path until it has one ([`unnamed`]).
    MadeUnnamed {
        path: PathBuf,
        mode: u32,
    },
    Written {
        path: PathBuf,
        offset: u64,
        bytes: Vec<u8>,
    },
    Resized {
        path: PathBuf,
        size: u64,
    },
    /// `removed`: it has no name any more; the path is the one that it had.
    Synced {
        path: PathBuf,
        data_only: bool,
        removed: bool,
    },
    /// The data of a file is on the disk, but nothing says that it can be found again.
    WrittenOut {
        path: PathBuf,
    },
    AllSynced,
    Renamed {
        from: PathBuf,
        to: PathBuf,
    },
    Linked {
        from: PathBuf,
        to: PathBuf,
    },
    Unlinked {
        path: PathBuf,
    },
    FolderMade {
        path: PathBuf,
    },
    FolderRemoved {
        path: PathBuf,
    },
    ModeSet {
        path: PathBuf,
        mode: u32,
    },
    TimeSet {
        path: PathBuf,
        time: SystemTime,
    },
    /// The owner was changed.
    Given,
    /// Something was said over a socket; the beginning of it.
    Said(Vec<u8>),
    /// Something was heard over a socket; the beginning of it.
    Heard(Vec<u8>),
    /// The program ends with this status.
    Ends(i32),
}

/// A process that is followed.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: Pid,
    pub(crate) program: String,
}

impl Process {
    /// The process that a thread belongs to; none if it is gone.
    pub(crate) fn of(thread: Pid) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
        let id = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
        // By the name it was called by: one file may be several programs.
        let words = fs::read(format!("/proc/{thread}/cmdline")).ok()?;
        let program = Path::new(OsStr::from_bytes(words.split(|byte| *byte == 0).next()?)).file_name()?;
        Some(Self { id: Pid::from_raw(id), program: program.to_string_lossy().into_owned() })
    }
}

/// A call that begins.
#[derive(Debug)]
pub(crate) struct Call {
    what: What,
    /// What it works on, where it is not told the path.
    descriptor: Option<u64>,
    /// The path of that, which is empty when it has none any more, or the path or paths that it works on.
    path: PathBuf,
    to: PathBuf,
}

#[derive(Debug)]
enum What {
    Open {
        truncate: bool,
        existed: bool,
    },
    /// In the folder at the path.
    OpenUnnamed {
        mode: u32,
    },
    /// At this offset, where it is given.
    Write {
        at: Option<u64>,
    },
    Resize,
    Sync {
        data_only: bool,
        removed: bool,
    },
    WriteOut,
    SyncAll,
    Rename,
    Link,
    Unlink,
    MakeFolder,
    RemoveFolder,
    SetMode {
        mode: u32,
    },
    SetTime,
    Give,
    Say {
        bytes: Vec<u8>,
    },
    Hear {
        address: u64,
        is_message: bool,
    },
    End {
        status: i32,
    },
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Say { bytes } => write!(f, "says {:?}", String::from_utf8_lossy(bytes)),
            what => write!(f, "{what:?} {} {}", self.path.display(), self.to.display()),
        }
    }
}

impl Call {
    /// Whether calls of this number are looked at, so that the others cost little.
    pub(crate) fn may_matter(number: u64) -> bool {
        i64::try_from(number).is_ok_and(|number| NUMBERS.contains(&number))
    }

    /// The call that a thread is about to make, where it matters.
    pub(crate) fn read(thread: Pid, process: &Process, registers: &user_regs_struct) -> Option<Self> {
        let (one, two, three) = (registers.rdi, registers.rsi, registers.rdx);
        let (four, five) = (registers.r10, registers.r8);
        let caller = Caller { thread };
        let here = at_current();
        let on = |what, path: Option<PathBuf>| path.map(|path| Self { path, ..Self::without_path(what) });
        match i64::try_from(registers.orig_rax).ok()? {
            libc::SYS_open => Self::open(caller.path(here, one)?, two, three),
            libc::SYS_creat => Self::open(caller.path(here, one)?, flags(libc::O_CREAT | libc::O_TRUNC), two),
            libc::SYS_openat => Self::open(caller.path(one, two)?, three, four),
            libc::SYS_write | libc::SYS_writev => caller.write(process, one, None, two, three, registers),
            libc::SYS_pwrite64 | libc::SYS_pwritev | libc::SYS_pwritev2 => {
                caller.on(What::Write { at: Some(four) }, one)
            }
            libc::SYS_sendfile => caller.on(What::Write { at: None }, one),
            libc::SYS_copy_file_range | libc::SYS_splice => {
                let at = if four == 0 { None } else { Some(caller.number(four)?) };
                caller.on(What::Write { at }, three)
            }
            libc::SYS_sendto | libc::SYS_sendmsg => {
                caller.say(process, one, two, three, registers).map(Self::without_path)
            }
            libc::SYS_read | libc::SYS_recvfrom => caller.hear(process, one, two, false),
            libc::SYS_recvmsg => caller.hear(process, one, two, true),
            libc::SYS_fsync => caller.on(What::Sync { data_only: false, removed: false }, one),
            libc::SYS_fdatasync => caller.on(What::Sync { data_only: true, removed: false }, one),
            // Whatever waits for less than all of the data promises nothing.
            libc::SYS_sync_file_range if (two, three, four) == (0, 0, u64::from(WAITED_FOR)) => {
                caller.on(What::WriteOut, one)
            }
            libc::SYS_sync | libc::SYS_syncfs => Some(Self::without_path(What::SyncAll)),
            libc::SYS_rename => Self::between(What::Rename, caller.path(here, one), caller.path(here, two)),
            libc::SYS_renameat | libc::SYS_renameat2 => {
                assert!(five & 2 == 0 || registers.orig_rax == 264, "an exchange of names is not followed");
                Self::between(What::Rename, caller.path(one, two), caller.path(three, four))
            }
            libc::SYS_link => Self::between(What::Link, caller.path(here, one), caller.path(here, two)),
            libc::SYS_linkat => Self::between(What::Link, caller.path(one, two), caller.path(three, four)),
            libc::SYS_unlink => on(What::Unlink, caller.path(here, one)),
            libc::SYS_unlinkat if three & flags(libc::AT_REMOVEDIR) != 0 => {
                on(What::RemoveFolder, caller.path(one, two))
            }
            libc::SYS_unlinkat => on(What::Unlink, caller.path(one, two)),
            libc::SYS_rmdir => on(What::RemoveFolder, caller.path(here, one)),
            libc::SYS_mkdir => on(What::MakeFolder, caller.path(here, one)),
            libc::SYS_mkdirat => on(What::MakeFolder, caller.path(one, two)),
            libc::SYS_truncate => on(What::Resize, caller.path(here, one)),
            libc::SYS_ftruncate | libc::SYS_fallocate => caller.on(What::Resize, one),
            libc::SYS_chmod => on(What::SetMode { mode: mode(two) }, caller.path(here, one)),
            libc::SYS_fchmod => caller.on(What::SetMode { mode: mode(two) }, one),
            libc::SYS_fchmodat => on(What::SetMode { mode: mode(three) }, caller.path(one, two)),
            libc::SYS_utimensat if two == 0 => caller.on(What::SetTime, one),
            libc::SYS_utimensat => on(What::SetTime, caller.path(one, two)),
            libc::SYS_fchown => caller.on(What::Give, one),
            libc::SYS_exit_group if COMMANDS.contains(&process.program.as_str()) => {
                let status = i32::try_from(one & 0xff).unwrap_or(-1);
                Some(Self::without_path(What::End { status }))
            }
            libc::SYS_mmap => {
                let shared = four & flags(libc::MAP_SHARED) != 0 && three & flags(libc::PROT_WRITE) != 0;
                // Stored through memory, a change would be missed.
                assert!(
                    !shared || !caller.file(five).is_some_and(|path| is_mail(&path)),
                    "mail is mapped for writing"
                );
                None
            }
            _ => None,
        }
        .filter(Self::is_of_interest)
    }

    fn open(path: PathBuf, how: u64, permissions: u64) -> Option<Self> {
        if how & flags(libc::O_TMPFILE) == flags(libc::O_TMPFILE) {
            return Some(Self { path, ..Self::without_path(What::OpenUnnamed { mode: mode(permissions) }) });
        }
        if how & flags(libc::O_CREAT | libc::O_TRUNC) == 0 {
            return None;
        }
        let truncate = how & flags(libc::O_TRUNC) != 0;
        Some(Self { path, ..Self::without_path(What::Open { truncate, existed: false }) })
    }

    fn between(what: What, path: Option<PathBuf>, to: Option<PathBuf>) -> Option<Self> {
        Some(Self { path: path?, to: to?, ..Self::without_path(what) })
    }

    fn without_path(what: What) -> Self {
        Self { what, descriptor: None, path: PathBuf::new(), to: PathBuf::new() }
    }

    fn is_of_interest(&self) -> bool {
        let has_path = !self.path.as_os_str().is_empty();
        !has_path || is_mail(&self.path) || is_mail(&self.to)
    }

    /// Whether it ends without waiting for anybody, so that no other need begin before it has.
    pub(crate) fn is_brief(&self) -> bool {
        !matches!(self.what, What::Hear { .. })
    }

    /// Just before it is made: what must be known of how things were.
    pub(crate) fn begin(&mut self, thread: Pid) {
        let caller = Caller { thread };
        if let Some(descriptor) = self.descriptor {
            // While this one waited, another call may have renamed or removed it.
            let named = caller.file(descriptor);
            if let (What::Sync { removed, .. }, None) = (&mut self.what, &named) {
                *removed = true;
            }
            self.path = named.or_else(|| self.last_path(&caller)).unwrap_or_default();
        }
        match (&mut self.what, self.descriptor) {
            (What::Open { existed, .. }, _) => *existed = self.path.symlink_metadata().is_ok(),
            (What::Write { at: at @ None }, Some(descriptor)) => *at = caller.position(descriptor),
            _ => {}
        }
    }

    /// The path that a file had, of which more is to be done than of others.
    fn last_path(&self, caller: &Caller) -> Option<PathBuf> {
        matches!(self.what, What::Sync { .. }).then(|| caller.removed(self.descriptor?)).flatten()
    }

    /// What the end of a program says; no call returns from that.
    pub(crate) fn last_word(&self) -> Option<Effect> {
        if let What::End { status } = self.what { Some(Effect::Ends(status)) } else { None }
    }

    /// What it has done, its result being this.
    pub(crate) fn effect(&self, thread: Pid, result: i64) -> Option<Effect> {
        let path = self.path.clone();
        if self.descriptor.is_some() && path.as_os_str().is_empty() {
            return None;
        }
        let length = u64::try_from(result).unwrap_or_default();
        Some(match &self.what {
            What::Open { truncate, existed } => {
                Effect::Opened { path, made: !existed, emptied: *truncate && *existed }
            }
            What::OpenUnnamed { mode } => Effect::MadeUnnamed {
                path: Caller { thread }.file(u64::try_from(result).ok()?)?,
                mode: *mode,
            },
            What::Write { at } => {
                let file = File::open(format!("/proc/{thread}/fd/{}", self.descriptor?)).ok()?;
                let mut bytes = vec![0; usize::try_from(length).ok()?];
                let offset = at.unwrap_or_default();
                file.read_exact_at(&mut bytes, offset).ok()?;
                Effect::Written { path, offset, bytes }
            }
            What::Resize => Effect::Resized { size: fs::metadata(&path).ok()?.len(), path },
            What::Sync { data_only, removed } => {
                Effect::Synced { path, data_only: *data_only, removed: *removed }
            }
            What::WriteOut => Effect::WrittenOut { path },
            What::SyncAll => Effect::AllSynced,
            What::Rename => Effect::Renamed { from: path, to: self.to.clone() },
            What::Link => Effect::Linked { from: path, to: self.to.clone() },
            What::Unlink => Effect::Unlinked { path },
            What::MakeFolder => Effect::FolderMade { path },
            What::RemoveFolder => Effect::FolderRemoved { path },
            What::SetMode { mode } => Effect::ModeSet { path, mode: *mode },
            What::SetTime => Effect::TimeSet { time: fs::metadata(&path).ok()?.modified().ok()?, path },
            What::Give => Effect::Given,
            What::Say { bytes } => Effect::Said(bytes.clone()),
            What::Hear { address, is_message } => {
                let caller = Caller { thread };
                let address = if *is_message { caller.first_piece(*address)?.0 } else { *address };
                Effect::Heard(caller.memory(address, usize::try_from(length).ok()?.min(MOST_SAID))?)
            }
            What::End { .. } => return None,
        })
    }
}

/// `sync_file_range` waits until all data is on the disk.
const WAITED_FOR: u32 =
    libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;

/// The calls that are looked at.
const NUMBERS: [i64; 41] = [
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_openat,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_splice,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_fchown,
    libc::SYS_exit_group,
    libc::SYS_mmap,
];

/// Whether a path is one of those that mail is kept at: below `queue/` or `mail/` of an instance.
fn is_mail(path: &Path) -> bool {
    let mut parts = path.iter().skip_while(|part| !part.as_bytes().starts_with(b"postroad-"));
    parts.next();
    match parts.next().map(OsStr::as_bytes) {
        Some(b"mail") => true,
        Some(b"queue") => {
            !matches!(parts.next().map(OsStr::as_bytes), Some(b"pid" | b"public" | b"private" | b"submit"))
        }
        _ => false,
    }
}

fn flags(flags: i32) -> u64 {
    u64::from(flags.cast_unsigned())
}

fn mode(argument: u64) -> u32 {
    u32::try_from(argument & 0o7777).unwrap_or_default()
}

/// `AT_FDCWD` as it comes in a register.
fn at_current() -> u64 {
    flags(libc::AT_FDCWD)
}

/// What the system puts behind the path of a file that has none any more.
const REMOVED: &[u8] = b" (deleted)";

/// The path by which the system shows a file that never had a name: its folder, and its number behind a `#`.
fn unnamed(link: &Path) -> Option<PathBuf> {
    let path = link.as_os_str().as_bytes().strip_suffix(REMOVED)?;
    let path = Path::new(OsStr::from_bytes(path));
    let number = path.file_name()?.as_bytes().strip_prefix(b"#")?;
    number.iter().all(u8::is_ascii_digit).then(|| path.to_owned())
}

/// The thread that makes a call, stopped.
struct Caller {
    thread: Pid,
}

impl Caller {
    fn memory(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        let memory = File::open(format!("/proc/{}/mem", self.thread)).ok()?;
        let mut bytes = vec![0; length];
        // A string may end before a page that is not there.
        let read = memory.read_at(&mut bytes, address).ok()?;
        bytes.truncate(read);
        Some(bytes)
    }

    fn number(&self, address: u64) -> Option<u64> {
        Some(u64::from_ne_bytes(self.memory(address, 8)?.try_into().ok()?))
    }

    /// A path in memory, from the folder of that descriptor on.
    fn path(&self, folder: u64, address: u64) -> Option<PathBuf> {
        let mut bytes = self.memory(address, MOST_PATH)?;
        bytes.truncate(bytes.iter().position(|byte| *byte == 0)?);
        let path = Path::new(OsStr::from_bytes(&bytes));
        if let Ok(descriptor) = path.strip_prefix("/proc/self/fd") {
            return self.file(descriptor.to_str()?.parse().ok()?);
        }
        if path.is_absolute() {
            return Some(path.to_owned());
        }
        let current = folder & u64::from(u32::MAX) == at_current();
        let base = if current { self.link("cwd")? } else { self.link(&format!("fd/{folder}"))? };
        // An empty one is the descriptor's own.
        Some(if bytes.is_empty() { unnamed(&base).unwrap_or(base) } else { base.join(path) })
    }

    fn link(&self, name: &str) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{}/{name}", self.thread)).ok()
    }

    /// The path of a descriptor's file or folder; none if it has none any more. One that never had a name has a path of
    /// its own.
    fn file(&self, descriptor: u64) -> Option<PathBuf> {
        let path = self.link(&format!("fd/{}", descriptor & u64::from(u32::MAX)))?;
        if let Some(path) = unnamed(&path) {
            return Some(path);
        }
        (path.is_absolute() && !path.as_os_str().as_bytes().ends_with(REMOVED)).then_some(path)
    }

    /// The last path of a descriptor's file, which has none any more.
    fn removed(&self, descriptor: u64) -> Option<PathBuf> {
        let path = self.link(&format!("fd/{descriptor}"))?;
        path.as_os_str().as_bytes().strip_suffix(REMOVED).map(|path| PathBuf::from(OsStr::from_bytes(path)))
    }

    /// Something that is done to a descriptor's file or folder.
    fn on(&self, what: What, descriptor: u64) -> Option<Call> {
        let descriptor = descriptor & u64::from(u32::MAX);
        let call = Call { descriptor: Some(descriptor), ..Call::without_path(what) };
        let path = self.file(descriptor).or_else(|| call.last_path(self))?;
        Some(Call { path, ..call })
    }

    fn is_socket(&self, descriptor: u64) -> bool {
        self.link(&format!("fd/{descriptor}"))
            .is_some_and(|link| link.to_string_lossy().starts_with("socket:"))
    }

    /// Where the next write goes.
    fn position(&self, descriptor: u64) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", self.thread)).ok()?;
        let field = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let how = i32::from_str_radix(field("flags:")?, 8).ok()?;
        if how & libc::O_APPEND != 0 {
            return Some(fs::metadata(self.file(descriptor)?).ok()?.len());
        }
        field("pos:")?.parse().ok()
    }

    fn write(
        &self,
        process: &Process,
        descriptor: u64,
        at: Option<u64>,
        address: u64,
        length: u64,
        registers: &user_regs_struct,
    ) -> Option<Call> {
        if let Some(call) = self.on(What::Write { at }, descriptor) {
            return Some(call);
        }
        self.say(process, descriptor, address, length, registers).map(Call::without_path)
    }

    /// What a program says to the world: those that speak with other mail systems.
    fn say(
        &self,
        process: &Process,
        descriptor: u64,
        address: u64,
        length: u64,
        registers: &user_regs_struct,
    ) -> Option<What> {
        if !matches!(process.program.as_str(), "smtpd" | "smtp") || !self.is_socket(descriptor) {
            return None;
        }
        let (address, length) = match i64::try_from(registers.orig_rax).ok()? {
            libc::SYS_writev => self.piece(address)?,
            libc::SYS_sendmsg => self.first_piece(address)?,
            _ => (address, length),
        };
        let bytes = self.memory(address, usize::try_from(length).ok()?.min(MOST_SAID))?;
        (process.program == "smtp" || String::from_utf8_lossy(&bytes).contains(TAKEN))
            .then_some(What::Say { bytes })
    }

    fn hear(&self, process: &Process, descriptor: u64, address: u64, is_message: bool) -> Option<Call> {
        (process.program == "smtp" && self.is_socket(descriptor))
            .then(|| Call::without_path(What::Hear { address, is_message }))
    }

    /// The first piece of a `msghdr`.
    fn first_piece(&self, address: u64) -> Option<(u64, u64)> {
        self.piece(self.number(address + 16)?)
    }

    /// An `iovec`.
    fn piece(&self, address: u64) -> Option<(u64, u64)> {
        Some((self.number(address)?, self.number(address + 8)?))
    }
}
