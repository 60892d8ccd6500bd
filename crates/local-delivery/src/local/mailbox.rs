//! A user's mailbox, and the commands and files of aliases: the ends of every way.

use std::borrow::Cow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipc::log;
use mail::Status;
use nix::unistd::{Gid, Uid};
use sys::credentials::AsUser;

use super::alias::{Rights, unavailable};
use super::attempt::{Attempt, Context};
use super::environment::{Parts, environment};
use super::pass;
use crate::command::{self, Invocation, Prefixed, Program};
use crate::failure::{Delivered, Failure};
use crate::rights::User;
use crate::{maildir, mbox, template};

/// Who may write in a mail spool, and whose the files are that are made there.
struct SpoolRights {
    uid: Uid,
    gid: Gid,
    chown: Option<(u32, u32)>,
}

/// How a user's mail is delivered when aliases and `.forward` have had their say.
pub(super) enum Way {
    /// Another agent delivers: `transport:nexthop`.
    Pass(String),
    /// A command.
    Command(String),
    /// A Maildir below the home directory or in the spool: with the user's rights.
    Maildir(PathBuf),
    /// A file below the home directory.
    HomeFile(PathBuf),
    /// A file in the spool.
    SpoolFile(PathBuf),
}

impl Attempt<'_> {
    /// The way to the mailbox of `user`. Tables are asked here, before anybody's identity is taken.
    pub(super) fn mailbox_way(&self, name: &str, user: &User) -> Result<Way, Failure> {
        if let Some(route) = self.mailbox_transport(name)? {
            return Ok(Way::Pass(route));
        }
        let settings = &self.agent.settings;
        let command = settings.command_maps.get(name).map_err(|error| unavailable(&error))?;
        let command = command.map_or(Cow::Borrowed(settings.command.as_str()), Cow::Owned);
        if !command.trim().is_empty() {
            return Ok(Way::Command(command.trim().to_owned()));
        }
        Ok(match settings.home_mailbox.as_str() {
            "" if settings.spool_is_maildir => Way::Maildir(settings.spool.join(&user.name)),
            "" => Way::SpoolFile(settings.spool.join(&user.name)),
            mailbox if mailbox.ends_with('/') => Way::Maildir(user.home.join(mailbox)),
            mailbox => Way::HomeFile(user.home.join(mailbox)),
        })
    }

    /// Delivers on that way. `acting` is the user's identity where this thread has it already.
    pub(super) fn deliver_mailbox(
        &self,
        way: &Way,
        user: &User,
        acting: Option<AsUser>,
        context: &Context,
    ) -> Delivered {
        let act = |acting: Option<AsUser>| match acting {
            Some(guard) => Ok(guard),
            None => self.agent.instance.act_as(user.uid, user.gid),
        };
        match way {
            Way::Maildir(folder) => {
                let _guard = act(acting)?;
                self.deliver_maildir(folder, context, user.uid, user.gid)
            }
            Way::HomeFile(path) => {
                let _guard = act(acting)?;
                self.deliver_mbox(path, user, context, &self.mailbox_rules(user, None))
            }
            Way::SpoolFile(path) => {
                drop(acting);
                self.deliver_spool(path, user, context)
            }
            Way::Command(command) => {
                drop(acting);
                self.run_as_user(command, user, context)
            }
            Way::Pass(route) => {
                drop(acting);
                self.pass(route, context)
            }
        }
    }

    /// `mailbox_transport_maps`, `mailbox_transport`.
    pub(super) fn mailbox_transport(&self, name: &str) -> Result<Option<String>, Failure> {
        let settings = &self.agent.settings;
        let route = settings.transport_maps.get(name).map_err(|error| unavailable(&error))?;
        Ok(route.or_else(|| Some(settings.transport.clone()).filter(|route| !route.is_empty())))
    }

    /// `fallback_transport_maps`, `fallback_transport`.
    pub(super) fn fallback_transport(&self, name: &str) -> Result<Option<String>, Failure> {
        let settings = &self.agent.settings;
        let route = settings.fallback_transport_maps.get(name).map_err(|error| unavailable(&error))?;
        Ok(route.or_else(|| Some(settings.fallback_transport.clone()).filter(|route| !route.is_empty())))
    }

    pub(super) fn pass(&self, route: &str, context: &Context) -> Delivered {
        let queue = &self.agent.queue_directory;
        let outcome = pass::deliver(queue, route, self.delivery, self.recipient, context)?;
        let (text, dsn, diagnostic) = (outcome.text.clone(), outcome.dsn, outcome.diagnostic.clone());
        let status = outcome.status;
        self.passed.replace(Some(outcome));
        match status {
            Status::Sent => Ok(text),
            Status::Deferred | Status::Bounced => Err(Failure { diagnostic, ..Failure::new(dsn, text) }),
        }
    }

    /// A file in the mail spool: with the user's rights where everybody may write, with the spool's group where the
    /// group may (the usual `root:mail` 2775), else made by root and given to the user.
    fn deliver_spool(&self, path: &Path, user: &User, context: &Context) -> Delivered {
        let rights = self.spool_rights(user);
        let _guard = self.agent.instance.act_as(rights.uid, rights.gid)?;
        self.deliver_mbox(path, user, context, &self.mailbox_rules(user, rights.chown))
    }

    fn spool_rights(&self, user: &User) -> SpoolRights {
        let own = SpoolRights { uid: user.uid, gid: user.gid, chown: None };
        if !self.agent.instance.is_root() {
            return own;
        }
        let ids = Some((user.uid.as_raw(), user.gid.as_raw()));
        match std::fs::metadata(&self.agent.settings.spool) {
            Ok(spool) if spool.mode() & 0o002 != 0 => own,
            // The file gets the group by which it was made; its owner, who acts, may give it to his own group only if
            // he is a member of it, and so it stays.
            Ok(spool) if spool.mode() & 0o020 != 0 => SpoolRights { gid: Gid::from_raw(spool.gid()), ..own },
            Ok(_) => SpoolRights { uid: Uid::from_raw(0), gid: Gid::from_raw(0), chown: ids },
            Err(_) => own,
        }
    }

    fn mailbox_rules(&self, user: &User, chown: Option<(u32, u32)>) -> mbox::Rules<'_> {
        let settings = &self.agent.settings;
        mbox::Rules {
            locking: &settings.locking,
            owner: settings.strict_ownership.then(|| user.uid.as_raw()),
            regular_only: true,
            refuse_executable: false,
            named_by_user: false,
            chown,
            limit: settings.limit,
        }
    }

    fn deliver_mbox(
        &self,
        path: &Path,
        user: &User,
        context: &Context,
        rules: &mbox::Rules<'_>,
    ) -> Delivered {
        if self.is_probe() {
            return Ok("delivers to mailbox".to_owned());
        }
        let preamble = self.preamble(context, self.agent.settings.delivered_header.file);
        mbox::deliver(path, self.letter, &preamble, rules).map_err(|failure| {
            if failure.text.ends_with("is not owned by recipient") {
                log::warning!(
                    "specify \"strict_mailbox_ownership = no\" to ignore mailbox ownership mismatch"
                );
            }
            let (path, name) = (path.display(), &user.name);
            failure.within(format_args!("cannot update mailbox {path} for user {name}. "))
        })?;
        Ok("delivered to mailbox".to_owned())
    }

    fn deliver_maildir(&self, folder: &Path, context: &Context, uid: Uid, gid: Gid) -> Delivered {
        if self.is_probe() {
            return Ok("delivers to maildir".to_owned());
        }
        let settings = &self.agent.settings;
        let preamble = self.preamble(context, settings.delivered_header.file);
        let lasting = self.agent.lasting;
        let delivered = maildir::deliver(folder, self.letter, &preamble, settings.limit, lasting);
        if let Err(failure) = &delivered
            && failure.text.ends_with("Permission denied")
        {
            log::warning!("maildir access problem for UID/GID={uid}/{gid}: {}", failure.text);
            log::warning!("perhaps you need to create the maildirs in advance");
        }
        delivered
    }

    /// `/file` and `/folder/` of an alias or `.forward`.
    pub(super) fn deliver_file(&self, path: &Path, rights: &Rights, context: &Context) -> Delivered {
        if self.is_probe() {
            return Ok(format!("delivers to file: {}", path.display()));
        }
        let user = self.acting_user(rights)?;
        let _guard = self.agent.instance.act_as(user.uid, user.gid)?;
        if path.as_os_str().to_string_lossy().ends_with('/') {
            return self.deliver_maildir(path, context, user.uid, user.gid);
        }
        let settings = &self.agent.settings;
        let rules = mbox::Rules {
            owner: None,
            regular_only: false,
            refuse_executable: true,
            named_by_user: true,
            ..self.mailbox_rules(&user, None)
        };
        let preamble = self.preamble(context, settings.delivered_header.file);
        mbox::deliver(path, self.letter, &preamble, &rules).map_err(|failure| {
            failure.within(format_args!("cannot append message to file {}: ", path.display()))
        })?;
        Ok(format!("delivered to file: {}", path.display()))
    }

    /// `|command` of an alias or `.forward`.
    pub(super) fn deliver_command(&self, command: &str, rights: &Rights, context: &Context) -> Delivered {
        let acting = self.acting_user(rights)?;
        let named = match rights {
            Rights::User(user) => Some(user.as_ref()),
            Rights::Root => None,
        };
        self.run_command(command, &acting, named, context)
    }

    /// `mailbox_command`.
    fn run_as_user(&self, command: &str, user: &User, context: &Context) -> Delivered {
        let acting = if user.uid.is_root() { self.stand_in()? } else { user.clone() };
        self.run_command(command, &acting, Some(user), context)
    }

    /// Runs `command` as `acting`; `named` is who the environment speaks of.
    fn run_command(
        &self,
        command: &str,
        acting: &User,
        named: Option<&User>,
        context: &Context,
    ) -> Delivered {
        if self.is_probe() {
            return Ok(format!("delivers to command: {command}"));
        }
        let settings = &self.agent.settings;
        let original = self.original().as_str();
        let environment = environment(context, original, &self.delivery.request.client, named, settings);
        let directory = self.command_directory(named, context)?;
        let invocation = Invocation {
            program: Program::Line { text: command, shell: settings.command_shell.as_deref() },
            chroot: None,
            identity: self.agent.instance.identity(acting.uid, acting.gid)?,
            environment: &environment,
            directory: &directory,
            file_size_limit: settings.limit,
            time_limit: settings.command_time_limit,
        };
        let preamble = self.preamble(context, settings.delivered_header.command);
        let headers = preamble.mbox_headers(&ipc::log::now());
        command::run(&invocation, &mut Prefixed::new(headers, self.letter))?;
        Ok(format!("delivered to command: {command}"))
    }

    fn command_directory(&self, user: Option<&User>, context: &Context) -> Result<PathBuf, Failure> {
        let settings = &self.agent.settings;
        if settings.command_directory.is_empty() {
            return Ok(self.agent.queue_directory.clone());
        }
        let parts = Parts::new(context, settings);
        let (names, filter) = (parts.names(context, user), &settings.command_directory_filter);
        match template::expand(&settings.command_directory, &names, filter) {
            Ok(expanded) => Ok(PathBuf::from(expanded.text)),
            Err(error) => {
                Err(Failure::configuration(format_args!("command_execution_directory: {}", error.0)))
            }
        }
    }

    /// Who acts for the owner of a list: never root.
    fn acting_user(&self, rights: &Rights) -> Result<User, Failure> {
        match rights {
            Rights::User(user) if !user.uid.is_root() => Ok(user.as_ref().clone()),
            _ => self.stand_in(),
        }
    }

    fn stand_in(&self) -> Result<User, Failure> {
        let name = &self.agent.settings.default_privs;
        let unknown = || Failure::configuration(format_args!("default_privs = {name}: no such user"));
        self.agent.users.by_name(name)?.ok_or_else(unknown)
    }
}
