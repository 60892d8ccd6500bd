//! What each program may do: the one table.
//!
//! A row is about a program that serves; before that, it has opened what only root can open, within the same rows. Paths
//! stand for what the configuration says, so that an instance may live anywhere. Whoever is to be allowed more gets it
//! here, with the reason.

use nix::sys::resource::Resource;
use sys::sandbox::calls::CallSet::{self, Identity, Interfaces, Internet, Memory, Write};
use sys::sandbox::capabilities::Capability;
use sys::sandbox::files::FileAccess::{self, Build, Change, Read, Receive, Take};

/// A program of master.cf, and what it is held to.
#[derive(Debug)]
pub struct Row {
    /// Its name in master.cf.
    pub program: &'static str,
    /// What it may do.
    pub hold: Hold,
    /// The capabilities that it keeps where master.cf has it serve with root's rights.
    pub keeps: &'static [Capability],
}

/// What a program is held to.
#[derive(Debug)]
pub enum Hold {
    /// To its files, ports and system calls; it never gains rights, and never starts a program.
    Whole {
        /// Besides the time zone, `/dev/null` and `/dev/urandom`, which everybody may read.
        files: &'static [Place],
        /// Where it may connect to by TCP.
        connects: Ports,
        /// System calls beyond those of everybody.
        calls: &'static [CallSet],
    },
    /// To nothing but its capabilities, for this reason.
    Capabilities(&'static str),
}

/// A part of the file system.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A folder of the queue.
    Queue(&'static str, FileAccess),
    /// `data_directory`.
    Data(FileAccess),
    /// The folders of lists, tables, keys and certificates that the configuration names. The folders, because postmap
    /// puts a fresh file in the place of the old one; a file that lies in `/etc` itself opens that.
    Tables,
    /// The folder of the file that keeps what was found out, by the parameter that names it.
    Cache(&'static str),
    /// What the C library needs to find users, hosts and services, the DNS and the system's certificates: `/etc`,
    /// because its files are replaced by others too (nothing secret there is anybody's but root's), and libraries.
    Names,
    /// Where the kernel lists the journals of file systems, which tell what a delivery must wait for.
    Journals,
    /// `virtual_mailbox_base`; all of the file system where that is empty, and tables say where mailboxes are.
    Mailboxes,
}

/// TCP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// None.
    None,
    /// The DNS, and what the server's parameters name: policy services, login services, proxies.
    Named,
    /// Any: mail is delivered to whatever port a table says.
    Any,
}

/// Root's rights over users' files, and no others: to act as the recipient, and to keep its mail its own.
const DELIVERY: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Setgid,
    Capability::Setuid,
];

/// The same, to end commands that do not end, and to enter the root that master.cf gives them.
const COMMANDS: &[Capability] = &[
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::SysChroot,
];

/// What no program has that is held to its row as a whole: core dumps, which would put mail and keys on disk, message queues,
/// real-time priority, and memory that is kept from being swapped.
///
/// There is no limit of processes, since the kernel counts the threads of all programs of a user together, and none of the
/// size of files, since the mail log is a file that grows.
pub static DENIED: &[Resource] =
    &[Resource::RLIMIT_CORE, Resource::RLIMIT_MSGQUEUE, Resource::RLIMIT_RTPRIO, Resource::RLIMIT_MEMLOCK];

/// Every program that master starts.
pub static TABLE: &[Row] = &[
    // Faces the network: reads tables, and the list of bans that anvil keeps in data_directory. No right to the queue.
    Row {
        program: "smtpd",
        hold: Hold::Whole {
            files: &[Place::Tables, Place::Names, Place::Data(Read)],
            connects: Ports::Named,
            calls: &[Internet],
        },
        keeps: &[],
    },
    // As smtpd, whose sessions it holds; beyond that it keeps a table of clients.
    Row {
        program: "postscreen",
        hold: Hold::Whole {
            files: &[Place::Tables, Place::Names, Place::Data(Read), Place::Cache("postscreen_cache_map")],
            connects: Ports::Named,
            calls: &[Internet, Write],
        },
        keeps: &[],
    },
    // Faces the network: a message is a descriptor that qmgr opened for reading.
    Row {
        program: "smtp",
        hold: Hold::Whole { files: &[Place::Tables, Place::Names], connects: Ports::Any, calls: &[Internet] },
        keeps: &[],
    },
    Row {
        program: "lmtp",
        hold: Hold::Whole { files: &[Place::Tables, Place::Names], connects: Ports::Any, calls: &[Internet] },
        keeps: &[],
    },
    // The only door into the queue; it reads nobody's mail there. What is to be delivered at once it writes to memory.
    Row {
        program: "cleanup",
        hold: Hold::Whole {
            files: &[
                Place::Tables,
                Place::Names,
                Place::Queue("incoming", Change),
                Place::Queue("hold", Change),
            ],
            connects: Ports::None,
            calls: &[Write, Memory, Interfaces],
        },
        keeps: &[],
    },
    // Takes submissions out of maildrop; what is none goes to corrupt. Users of the machine connect to it, who may be anybody:
    // it knows them by their numbers, which the kernel tells, and looks nobody up.
    Row {
        program: "pickup",
        hold: Hold::Whole {
            files: &[Place::Queue("maildrop", Take), Place::Queue("corrupt", Receive)],
            connects: Ports::None,
            calls: &[Write],
        },
        keeps: &[],
    },
    // The queue, and a record of its pace in data_directory. It takes a reload without a restart: tables that a new
    // configuration names elsewhere than in /etc cost one.
    Row {
        program: "qmgr",
        hold: Hold::Whole {
            files: &[
                Place::Tables,
                Place::Names,
                Place::Data(Change),
                Place::Queue("incoming", Change),
                Place::Queue("active", Change),
                Place::Queue("deferred", Change),
                Place::Queue("hold", Change),
                Place::Queue("corrupt", Change),
            ],
            connects: Ports::None,
            calls: &[Write, Interfaces],
        },
        keeps: &[],
    },
    Row {
        program: "showq",
        hold: Hold::Whole {
            files: &[
                Place::Queue("maildrop", Read),
                Place::Queue("incoming", Read),
                Place::Queue("active", Read),
                Place::Queue("deferred", Read),
                Place::Queue("hold", Read),
                Place::Queue("corrupt", Read),
            ],
            connects: Ports::None,
            calls: &[],
        },
        keeps: &[],
    },
    // A failed message comes as a descriptor, too.
    Row {
        program: "bounce",
        hold: Hold::Whole {
            files: &[Place::Tables, Place::Names],
            connects: Ports::None,
            calls: &[Interfaces],
        },
        keeps: &[],
    },
    Row {
        program: "error",
        hold: Hold::Whole { files: &[Place::Tables], connects: Ports::None, calls: &[] },
        keeps: &[],
    },
    Row {
        program: "discard",
        hold: Hold::Whole { files: &[Place::Tables], connects: Ports::None, calls: &[] },
        keeps: &[],
    },
    // Its list of bans. It takes a reload without a restart.
    Row {
        program: "anvil",
        hold: Hold::Whole {
            files: &[Place::Names, Place::Data(Change)],
            connects: Ports::None,
            calls: &[Write],
        },
        keeps: &[],
    },
    // Its table of addresses. It takes a reload without a restart.
    Row {
        program: "verify",
        hold: Hold::Whole {
            files: &[Place::Tables, Place::Names, Place::Cache("address_verify_map")],
            connects: Ports::None,
            calls: &[Write, Interfaces],
        },
        keeps: &[],
    },
    // Mailboxes of people who are no users of this system: it becomes their owner for each access, and runs nothing.
    Row {
        program: "virtual",
        hold: Hold::Whole {
            files: &[Place::Tables, Place::Names, Place::Mailboxes, Place::Journals],
            connects: Ports::None,
            calls: &[Write, Interfaces, Identity],
        },
        keeps: DELIVERY,
    },
    // What follows starts other people's programs. They may execute set-id programs, as postdrop is one, by which a
    // .forward file sends mail: so no_new_privs cannot be, and without it neither Landlock nor a filter of system calls,
    // which those programs would have to live within anyway. Each of them is its user alone, for good.
    Row {
        program: "local",
        hold: Hold::Capabilities("it starts the commands of aliases and .forward files"),
        keeps: COMMANDS,
    },
    Row {
        program: "pipe",
        hold: Hold::Capabilities("it starts the command that master.cf names"),
        keeps: COMMANDS,
    },
    Row {
        program: "spawn",
        hold: Hold::Capabilities("it starts the command that master.cf names"),
        keeps: COMMANDS,
    },
];

/// The row of a program.
#[must_use]
pub fn row_of(program: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.program == program)
}

/// The access to mailboxes.
pub(super) const MAILBOX_ACCESS: FileAccess = Build;
