//! System calls, by seccomp.
//!
//! What is not on the list of a program fails with `EPERM`: the program says in its log what did not work, with operation
//! and object, and goes on with its other sessions. What no daemon ever does ends the process at once, since then
//! somebody else's code runs in it; the kernel's log names the call. Calls that are younger than the list fail with
//! `ENOSYS`, upon which the C library does without them, so that a newer library finds what an older kernel would offer.
//!
//! A filter cannot look into memory, so `clone3` is one of the last: threads are made by `clone`, whose flags can be seen.

use std::collections::BTreeMap;
use std::io;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// What a program may do beyond reading files, computing, and talking through descriptors that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallSet {
    /// Change files and their names.
    Write,
    /// Make files in memory.
    Memory,
    /// Ask the kernel for the addresses of this host.
    Interfaces,
    /// TCP and UDP.
    Internet,
    /// Act on files as another user, and give files away: what delivery to mailboxes needs.
    Identity,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Number = libc::c_long;

/// Holds all threads of this process to [`BASE`] and `sets`. It implies `no_new_privs`.
///
/// # Errors
/// What the kernel says; `ENOSYS` and `EINVAL` where it has no seccomp filters.
pub fn confine(sets: &[CallSet]) -> io::Result<()> {
    let allowed = allowed(sets)?;
    let deadly: Rules =
        DEADLY.iter().filter(|number| !allowed.contains_key(number)).map(|n| (*n, Vec::new())).collect();
    install(deadly, SeccompAction::Allow, SeccompAction::KillProcess)?;
    let absent: Rules = absent().filter(|n| !allowed.contains_key(n)).map(|n| (n, Vec::new())).collect();
    let mut known = allowed;
    known.extend(absent.clone());
    install(absent, SeccompAction::Allow, SeccompAction::Errno(errno(libc::ENOSYS)))?;
    // The last one: with it, no further filter can be installed.
    install(known, SeccompAction::Errno(errno(libc::EPERM)), SeccompAction::Allow)
}

/// Whether this kernel has filters of system calls.
#[must_use]
pub fn are_filtered() -> bool {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the kernel reads one number, and answers whether it knows that action.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

fn errno(number: i32) -> u32 {
    number.unsigned_abs()
}

fn install(rules: Rules, otherwise: SeccompAction, matching: SeccompAction) -> io::Result<()> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, otherwise, matching, architecture).map_err(io::Error::other)?;
    let program = BpfProgram::try_from(filter).map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| match error {
        seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error) => error,
        other => io::Error::other(other),
    })
}

fn allowed(sets: &[CallSet]) -> io::Result<Rules> {
    let mut rules: Rules = BASE.iter().map(|number| (*number, Vec::new())).collect();
    rules.extend(arguments_of_base()?);
    for set in sets {
        let numbers = match set {
            CallSet::Write => WRITE.to_vec(),
            CallSet::Memory => vec![libc::SYS_memfd_create],
            CallSet::Interfaces => vec![libc::SYS_bind],
            CallSet::Internet => vec![libc::SYS_bind, libc::SYS_sendmmsg, libc::SYS_recvmmsg],
            CallSet::Identity => IDENTITY.to_vec(),
        };
        rules.extend(numbers.into_iter().map(|number| (number, Vec::new())));
        let sockets = rules.entry(libc::SYS_socket).or_default();
        match set {
            CallSet::Write | CallSet::Memory | CallSet::Identity => {}
            CallSet::Interfaces => sockets.push(interfaces()?),
            CallSet::Internet => {
                sockets.push(interfaces()?);
                sockets.extend(internet()?);
            }
        }
    }
    Ok(rules)
}

/// Calls that are allowed with some arguments only.
fn arguments_of_base() -> io::Result<Rules> {
    let executable: u64 = libc::PROT_EXEC.unsigned_abs().into();
    let writable: u64 = libc::PROT_WRITE.unsigned_abs().into();
    let own = u64::from(std::process::id());
    let threads = u64::from(libc::CLONE_THREAD.unsigned_abs());
    let is = |argument: u8, value: u64| condition(argument, SeccompCmpOp::Eq, value);
    let any_of = |argument: u8, values: &[u64]| -> io::Result<Vec<SeccompRule>> {
        values.iter().map(|value| rule(vec![is(argument, *value)?])).collect()
    };
    Ok(BTreeMap::from([
        (libc::SYS_socket, any_of(0, &[domain(libc::AF_UNIX)])?),
        // Processes are never made.
        (libc::SYS_clone, vec![rule(vec![condition(0, SeccompCmpOp::MaskedEq(threads), threads)?])?]),
        // Memory is writable or executable, never both, and does not become executable.
        (
            libc::SYS_mmap,
            vec![
                rule(vec![condition(2, SeccompCmpOp::MaskedEq(executable), 0)?])?,
                rule(vec![condition(2, SeccompCmpOp::MaskedEq(writable), 0)?])?,
            ],
        ),
        (libc::SYS_mprotect, vec![rule(vec![condition(2, SeccompCmpOp::MaskedEq(executable), 0)?])?]),
        // What the C library and the standard library ask of these.
        (
            libc::SYS_prctl,
            any_of(0, &[prctl(libc::PR_SET_NAME), prctl(libc::PR_SET_VMA), prctl(libc::PR_CAPBSET_READ)])?,
        ),
        (libc::SYS_ioctl, any_of(1, &[libc::FIONBIO, libc::FIOCLEX, libc::FIONREAD, libc::TCGETS])?),
        (libc::SYS_prlimit64, any_of(0, &[0])?),
        // abort(3).
        (libc::SYS_tgkill, any_of(0, &[own])?),
    ]))
}

fn domain(number: i32) -> u64 {
    number.unsigned_abs().into()
}

fn prctl(number: i32) -> u64 {
    number.unsigned_abs().into()
}

/// Netlink's route family, which glibc asks for the addresses of this host.
fn interfaces() -> io::Result<SeccompRule> {
    let is = |argument, value| condition(argument, SeccompCmpOp::Eq, value);
    rule(vec![is(0, domain(libc::AF_NETLINK))?, is(2, 0)?])
}

/// TCP and UDP, no raw packets.
fn internet() -> io::Result<Vec<SeccompRule>> {
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM];
    let protocols = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];
    let mut rules = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        for kind in kinds {
            for protocol in protocols {
                rules.push(rule(vec![
                    condition(0, SeccompCmpOp::Eq, domain(family))?,
                    // The other bits are SOCK_CLOEXEC and SOCK_NONBLOCK.
                    condition(1, SeccompCmpOp::MaskedEq(0xf), domain(kind))?,
                    condition(2, SeccompCmpOp::Eq, domain(protocol))?,
                ])?);
            }
        }
    }
    Ok(rules)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompCondition> {
    // The kernel takes 32 bits of every argument that is looked at here.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).map_err(io::Error::other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

/// Calls that came after the last one on these lists, as far as numbers go by now, and `clone3`. From 424 on, all
/// architectures have the same numbers.
fn absent() -> impl Iterator<Item = i64> {
    (424..=511).filter(|number| !DEADLY.contains(number)).chain([libc::SYS_clone3])
}

/// Every program: memory, threads, time, descriptors, reading files, sockets to other programs.
const BASE: &[Number] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_copy_file_range,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_connect,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_umask,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Older names of the same.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_create,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_pipe,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
];

const WRITE: &[Number] = &[
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_flock,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_mkdirat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
];

const IDENTITY: &[Number] =
    &[libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_setgroups, libc::SYS_fchown, libc::SYS_fchownat];

/// What no daemon of this suite ever does once it serves: run programs, look into others, become somebody else, change
/// the system.
const DEADLY: &[Number] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_personality,
    libc::SYS_mknodat,
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
];
