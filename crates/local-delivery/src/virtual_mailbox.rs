//! virtual(8): mailboxes of people who are no users of this system. Everything about them comes from tables: where the
//! mailbox is, and which uid and gid own it.
//!
//! Contract: no aliases, no `.forward`, no commands. A uid below `virtual_minimum_uid` is never acted as, so that no
//! table can name root. Addresses are looked up in lower case: `user+extension@domain`, `user@domain`, `@domain`.

use std::path::Path;

use config::{Config, param};
use ipc::log;
use lookup::address_search::AddressSearch;
use lookup::{LookupError, Maps};
use mail::{Address, Dsn, Outcome};
use nix::unistd::{Gid, Uid};
use queue::Content;
use service::{Agent, Delivery, DeliveryRecipient, Fatal, Service};
use sys::credentials::AsUser;

use crate::failure::{Delivered, Failure, outcome};
use crate::letter::{self, Letter, Preamble, Queued};
use crate::local::settings::{locking, open_maps};
use crate::lock::Locking;
use crate::maildir::{Begun, Lasting};
use crate::rights::Instance;
use crate::{maildir, mbox};

/// What `relay=` says.
const RELAY: &str = "virtual";

/// Maildirs that the disk is at on behalf of one delivery. Twice as many are no faster, half as many a tenth slower.
const MOST_AT_A_TIME: usize = 16;

/// How much of a message is written before the disk is waited for, but for the first one: what there is room for only one
/// after another is not to fill a disk at once.
const MOST_BYTES: u64 = 1024 * 1024;

/// Files that the process may have open for each of them: twice as many as it has deliveries, mostly.
const FILES_FOR_EACH: u64 = 256;

/// The program `virtual`.
///
/// # Errors
/// A table cannot be opened, a setting makes no sense, or the skeleton's.
pub fn run(service: Service) -> Result<(), Fatal> {
    let files = service.allow_most_files().unwrap_or(0);
    let agent = VirtualAgent { at_a_time: at_a_time(files), ..VirtualAgent::new(&service.config)? };
    service.serve_deliveries(agent)
}

/// A mailbox, by what the tables say.
struct Place {
    path: String,
    /// uid and gid.
    owner: (u32, u32),
}

impl Place {
    fn is_maildir(&self) -> bool {
        self.path.ends_with('/')
    }
}

/// A message for one of several recipients.
struct Addressed<'a> {
    /// Which of them.
    number: usize,
    place: Place,
    preamble: Preamble<'a>,
}

/// As whom this thread acts.
struct Acting {
    instance: Instance,
    now: Option<((u32, u32), AsUser)>,
}

impl Acting {
    /// Acts as the owner of a mailbox until the next one, or the end.
    fn become_owner(&mut self, owner: (u32, u32)) -> Result<(), Failure> {
        if self.now.as_ref().is_none_or(|(now, _)| *now != owner) {
            // Only who is root again becomes somebody else.
            self.now = None;
            self.now = Some((owner, self.instance.act_as(Uid::from_raw(owner.0), Gid::from_raw(owner.1))?));
        }
        Ok(())
    }
}

struct VirtualAgent {
    search: AddressSearch,
    mailboxes: Maps,
    uids: Maps,
    gids: Maps,
    base: String,
    minimum_uid: u64,
    limit: u64,
    locking: Locking,
    strict_ownership: bool,
    enable_original_recipient: bool,
    instance: Instance,
    lasting: Lasting,
    at_a_time: usize,
}

impl VirtualAgent {
    fn new(config: &Config) -> Result<Self, Fatal> {
        let base = config.get(param::VIRTUAL_MAILBOX_BASE).to_string_lossy().into_owned();
        if !base.is_empty() && !Path::new(&base).is_absolute() {
            return Err(Fatal::new(format!("virtual_mailbox_base = {base}: expected an absolute path")));
        }
        Ok(Self {
            search: AddressSearch::from_config(config).map_err(|error| Fatal::new(error.to_string()))?,
            mailboxes: open_maps(config, param::VIRTUAL_MAILBOX_MAPS)?,
            uids: open_maps(config, param::VIRTUAL_UID_MAPS)?,
            gids: open_maps(config, param::VIRTUAL_GID_MAPS)?,
            base,
            minimum_uid: config.get(param::VIRTUAL_MINIMUM_UID),
            limit: config.get(param::VIRTUAL_MAILBOX_LIMIT),
            locking: locking(config, param::VIRTUAL_MAILBOX_LOCK)?,
            strict_ownership: config.get(param::STRICT_MAILBOX_OWNERSHIP),
            enable_original_recipient: config.get(param::ENABLE_ORIGINAL_RECIPIENT),
            instance: Instance::current(),
            lasting: Lasting::from_config(config),
            at_a_time: 1,
        })
    }

    /// Where the mail of this recipient goes, and whose that is.
    fn place(&self, recipient: &DeliveryRecipient) -> Result<Place, Failure> {
        let address = &recipient.address;
        let key = Address::new(lookup::fold(address.as_str()).into_owned());
        let key = key.map_err(|error| Failure::bounce(Dsn::new(5, 1, 3), error.to_string()))?;
        let Some(mailbox) = self.find(&self.mailboxes, &key)? else {
            return Err(Failure::bounce(Dsn::new(5, 1, 1), format!("unknown user: \"{address}\"")));
        };
        let uid = self.id(&self.uids, "virtual_uid_maps", &key, self.minimum_uid)?;
        let gid = self.id(&self.gids, "virtual_gid_maps", &key, 1)?;
        Ok(Place { path: self.path(&mailbox)?, owner: (uid, gid) })
    }

    fn preamble<'a>(&self, delivery: &'a Delivery, recipient: &'a DeliveryRecipient) -> Preamble<'a> {
        let original = recipient.original.as_ref().unwrap_or(&recipient.address);
        Preamble {
            sender: &delivery.request.sender,
            original: self.enable_original_recipient.then_some(original),
            delivered: Some(&recipient.address),
        }
    }

    /// Delivers to several, one after another as each owner. Maildirs first: all are written before the disk is waited for,
    /// and what waits for the lock of an mbox holds none of them up.
    fn deliver_together(&self, letter: &Letter<'_>, letters: &[Addressed<'_>]) -> Vec<(usize, Delivered)> {
        let (maildirs, mboxes): (Vec<_>, Vec<_>) = letters.iter().partition(|to| to.place.is_maildir());
        let mut acting = Acting { instance: self.instance, now: None };
        let mut results = Vec::with_capacity(letters.len());
        let mut begun = Vec::with_capacity(maildirs.len());
        for to in &maildirs {
            match acting.become_owner(to.place.owner).and_then(|()| self.begin(to, letter, maildirs.len())) {
                Ok(one) => begun.push((to, one)),
                Err(failure) => results.push((to.number, explained(Err(failure), to.place.owner))),
            }
        }
        for (to, one) in begun {
            let delivered = acting.become_owner(to.place.owner).and_then(|()| one.finish(letter));
            results.push((to.number, explained(delivered, to.place.owner)));
        }
        for to in mboxes {
            let owner = acting.become_owner(to.place.owner);
            results.push((to.number, owner.and_then(|()| self.deliver_mbox(to, letter))));
        }
        results
    }

    /// Begins with one of so many Maildirs.
    fn begin<'a>(
        &self,
        to: &'a Addressed<'_>,
        letter: &Letter<'_>,
        count: usize,
    ) -> Result<Begun<'a>, Failure> {
        let folder = Path::new(&to.place.path);
        let begun = maildir::begin(folder, letter, &to.preamble, self.limit, self.lasting)?;
        if count > 1 {
            begun.write_out()?;
        }
        Ok(begun)
    }

    fn find(&self, maps: &Maps, address: &Address) -> Result<Option<String>, Failure> {
        let unavailable = |error: LookupError| Failure::defer(Dsn::new(4, 3, 0), error.to_string());
        Ok(self.search.mailbox(maps, address).map_err(unavailable)?.map(|found| found.value))
    }

    /// The number that a table gives, at least `minimum`.
    fn id(&self, maps: &Maps, parameter: &str, address: &Address, minimum: u64) -> Result<u32, Failure> {
        let Some(text) = self.find(maps, address)? else {
            let text = format_args!("recipient {address}: not found in {parameter}");
            return Err(Failure::configuration(text));
        };
        let number = text.trim().parse::<u32>().ok().filter(|number| u64::from(*number) >= minimum);
        number.filter(|number| *number != u32::MAX).ok_or_else(|| {
            Failure::configuration(format_args!(
                "recipient {address}: bad number \"{text}\" in {parameter}: expected one of at least {minimum}"
            ))
        })
    }

    /// The base, a slash and the table's value; the value may not climb out of the base.
    fn path(&self, mailbox: &str) -> Result<String, Failure> {
        let path = if self.base.is_empty() { mailbox.to_owned() } else { format!("{}/{mailbox}", self.base) };
        let climbs = Path::new(mailbox).components().any(|part| part == std::path::Component::ParentDir);
        if climbs || !Path::new(&path).is_absolute() {
            return Err(Failure::configuration(format_args!(
                "mailbox \"{path}\": expected an absolute path without \"..\"; set virtual_mailbox_base"
            )));
        }
        Ok(path)
    }

    fn deliver_mbox(&self, to: &Addressed<'_>, letter: &Letter<'_>) -> Delivered {
        let path = Path::new(&to.place.path);
        let rules = mbox::Rules {
            locking: &self.locking,
            owner: self.strict_ownership.then_some(to.place.owner.0),
            regular_only: true,
            refuse_executable: false,
            named_by_user: false,
            chown: None,
            limit: self.limit,
        };
        mbox::deliver(path, letter, &to.preamble, &rules).map_err(|failure| {
            failure.within(format_args!("delivery failed to mailbox {}: ", path.display()))
        })?;
        Ok("delivered to mailbox".to_owned())
    }
}

/// How many messages are open at a time, where this process may have so many files open: all deliveries that there may be
/// take a part of them.
fn at_a_time(most_files: u64) -> usize {
    usize::try_from(most_files / FILES_FOR_EACH).unwrap_or(MOST_AT_A_TIME).clamp(1, MOST_AT_A_TIME)
}

/// What the log says besides of a Maildir that may not be written in.
fn explained(delivered: Delivered, (uid, gid): (u32, u32)) -> Delivered {
    if let Err(failure) = &delivered
        && failure.text.ends_with("Permission denied")
    {
        log::warning!("maildir access problem for UID/GID={uid}/{gid}: {}", failure.text);
        log::warning!("perhaps you need to create the maildirs in advance");
    }
    delivered
}

impl Agent for VirtualAgent {
    type Message = Content;

    fn open(&self, delivery: &Delivery) -> Result<Content, Box<Outcome>> {
        letter::content_of(delivery).map_err(|failure| outcome(RELAY, Err(failure)).into())
    }

    fn deliver(&self, delivery: &Delivery, content: &Content, recipient: &DeliveryRecipient) -> Outcome {
        let mut became = None;
        let recipient = std::slice::from_ref(recipient);
        self.deliver_some(delivery, content, recipient, &mut |_, outcome| became = Some(outcome));
        // There is one for each.
        became.unwrap_or_else(|| outcome(RELAY, Err(Failure::defer(Dsn::new(4, 3, 0), "not delivered"))))
    }

    fn at_a_time(&self) -> usize {
        self.at_a_time
    }

    fn deliver_some(
        &self,
        delivery: &Delivery,
        content: &Content,
        recipients: &[DeliveryRecipient],
        give: &mut dyn FnMut(usize, Outcome),
    ) {
        let mut letters = Vec::with_capacity(recipients.len());
        for (number, recipient) in recipients.iter().enumerate() {
            match self.place(recipient) {
                Ok(place) => {
                    let preamble = self.preamble(delivery, recipient);
                    letters.push(Addressed { number, place, preamble });
                }
                Err(failure) => give(number, outcome(RELAY, Err(failure))),
            }
        }
        let queued = Queued { content, delivery };
        let letter = match Letter::open(&queued) {
            Ok(letter) => letter,
            Err(error) => {
                let failure = Failure::from_io(&error, "read the queue file");
                return letters.iter().for_each(|to| give(to.number, outcome(RELAY, Err(failure.clone()))));
            }
        };
        let together = MOST_BYTES.checked_div(letter.size()).and_then(|count| usize::try_from(count).ok());
        for some in letters.chunks(together.unwrap_or(usize::MAX).max(1)) {
            // What becomes of them is said as who this process is: a thread that is started for it must not be a user's.
            for (number, delivered) in self.deliver_together(&letter, some) {
                give(number, outcome(RELAY, delivered));
            }
        }
    }

    fn probe(&self, _: &Delivery, _: &Content, recipient: &DeliveryRecipient) -> Outcome {
        let delivers = |place: Place| match place.is_maildir() {
            true => "delivers to maildir".to_owned(),
            false => "delivers to mailbox".to_owned(),
        };
        outcome(RELAY, self.place(recipient).map(delivers))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::PathBuf;

    use config::Snapshot;
    use mail::Status;

    use super::*;
    use crate::scratch;

    fn site(folder: &Path, main_cf: &str) -> VirtualAgent {
        let (uid, gid) = ids();
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(folder, Some(uid), Some(gid)).unwrap();
        let base = folder.display();
        let text = format!(
            "mydestination =\nvirtual_mailbox_base = {base}\nvirtual_minimum_uid = 1\nrecipient_delimiter = +\n\
             virtual_uid_maps = inline:{{@example.com={uid}, root@example.com=0, odd@example.com=x}}\n\
             virtual_gid_maps = static:{gid}\n\
             virtual_mailbox_maps = inline:{{jane@example.com=jane/, jane+x@example.com=jane/.x/, \
             box@example.com=mail/box, root@example.com=root/, odd@example.com=odd/, up@example.com=../up/}}\n{main_cf}\n"
        );
        let snapshot = Snapshot { main_cf: text.into_bytes(), master_cf: Vec::new() };
        VirtualAgent::new(&Config::from_snapshot(folder, &snapshot, &[]).unwrap().0).unwrap()
    }

    fn ids() -> (u32, u32) {
        let (uid, gid) = (Uid::effective(), Gid::effective());
        if uid.is_root() { (61_003, 61_004) } else { (uid.as_raw(), gid.as_raw()) }
    }

    fn deliver(agent: &VirtualAgent, recipient: &str) -> Outcome {
        let queue = tempfile::tempdir().unwrap();
        let delivery = scratch::delivery(queue.path(), scratch::id(), b"Subject: x\n\nbody\n");
        let content = agent.open(&delivery).unwrap();
        agent.deliver(&delivery, &content, &scratch::recipient(recipient))
    }

    fn only_file(folder: PathBuf) -> PathBuf {
        let files: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [file] = files.try_into().unwrap();
        file
    }

    #[test]
    fn a_table_names_mailbox_and_owner() {
        let folder = tempfile::tempdir().unwrap();
        let agent = site(folder.path(), "");
        let outcome = deliver(&agent, "Jane+other@Example.COM");
        assert_eq!((outcome.status, outcome.text.as_str()), (Status::Sent, "delivered to maildir"));
        let file = only_file(folder.path().join("jane/new"));
        let stat = std::fs::metadata(&file).unwrap();
        assert_eq!((stat.uid(), stat.gid()), ids());
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("\nDelivered-To: Jane+other@Example.COM\nSubject: x\n"), "{text}");
        deliver(&agent, "jane+x@example.com");
        only_file(folder.path().join("jane/.x/new"));
    }

    #[test]
    fn each_of_several_recipients_gets_the_message_or_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let agent = site(folder.path(), "");
        std::fs::create_dir(folder.path().join("mail")).unwrap();
        std::os::unix::fs::chown(folder.path().join("mail"), Some(ids().0), Some(ids().1)).unwrap();
        let names = ["jane", "box", "nobody", "jane+x", "odd", "jane+other"];
        let recipients = names.map(|name| scratch::recipient(&format!("{name}@example.com")));
        let queue = tempfile::tempdir().unwrap();
        let delivery = scratch::delivery(queue.path(), scratch::id(), b"Subject: x\n\nbody\n");
        let content = agent.open(&delivery).unwrap();
        let mut outcomes = HashMap::new();
        agent.deliver_some(&delivery, &content, &recipients, &mut |number, outcome| {
            assert!(outcomes.insert(names[number], outcome.text).is_none(), "one outcome for each");
            assert!(sys::credentials::file_user() == Uid::effective(), "said as who this process is");
        });
        assert_eq!(outcomes.len(), names.len());
        assert_eq!([outcomes["jane"].as_str(), &outcomes["jane+x"]], ["delivered to maildir"; 2]);
        assert_eq!(outcomes["box"], "delivered to mailbox");
        assert_eq!(outcomes["nobody"], "unknown user: \"nobody@example.com\"");
        assert!(outcomes["odd"].contains("bad number"));
        only_file(folder.path().join("jane/.x/new"));
        let to = |file: std::fs::DirEntry| {
            let text = std::fs::read_to_string(file.path()).unwrap();
            text.lines().find_map(|line| line.strip_prefix("Delivered-To: ")).unwrap().to_owned()
        };
        let files = std::fs::read_dir(folder.path().join("jane/new")).unwrap();
        let both: BTreeSet<String> = files.map(|file| to(file.unwrap())).collect();
        assert!(both.into_iter().eq(["jane+other@example.com", "jane@example.com"]));
    }

    #[test]
    fn a_message_in_memory_goes_into_a_maildir_and_waits_for_the_queue_before_an_mbox() {
        let folder = tempfile::tempdir().unwrap();
        let agent = site(folder.path(), "");
        std::fs::create_dir(folder.path().join("mail")).unwrap();
        std::os::unix::fs::chown(folder.path().join("mail"), Some(ids().0), Some(ids().1)).unwrap();
        // Whoever asks to keep it fails, since nobody hears that.
        let (delivery, lent) = scratch::delivery_from_memory(b"Subject: x\n\nbody\n");
        let content = agent.open(&delivery).unwrap();
        let to = |name| agent.deliver(&delivery, &content, &scratch::recipient(name));
        assert_eq!(to("jane@example.com").text, "delivered to maildir");
        let text = std::fs::read_to_string(only_file(folder.path().join("jane/new"))).unwrap();
        assert!(text.ends_with("\nSubject: x\n\nbody\n"), "{text}");
        let mailbox = folder.path().join("mail/box");
        let refused = to("box@example.com");
        assert!(refused.status == Status::Deferred && refused.text.contains("in memory only"), "{refused:?}");
        assert_eq!(std::fs::read(&mailbox).unwrap(), b"");
        sys::lent::note_stored(&lent).unwrap();
        assert_eq!(to("box@example.com").text, "delivered to mailbox");
        assert!(std::fs::read_to_string(&mailbox).unwrap().ends_with("\nSubject: x\n\nbody\n\n"));
    }

    #[test]
    fn one_mailbox_that_takes_no_mail_keeps_none_from_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let agent = site(folder.path(), "");
        std::fs::write(folder.path().join("jane"), "where the maildir should be").unwrap();
        let recipients = ["jane@example.com", "jane@example.com", "jane@example.com", "box@example.com"];
        let recipients = recipients.map(scratch::recipient);
        let queue = tempfile::tempdir().unwrap();
        let delivery = scratch::delivery(queue.path(), scratch::id(), b"Subject: x\n\nbody\n");
        let content = agent.open(&delivery).unwrap();
        let mut statuses = [None; 4];
        agent.deliver_some(&delivery, &content, &recipients, &mut |number, outcome| {
            statuses[number] = Some(outcome.status);
        });
        assert_eq!(statuses[..3], [Some(Status::Deferred); 3]);
        assert!(statuses[3].is_some());
    }

    #[test]
    fn mailboxes_of_several_owners_are_each_written_as_theirs_however_large_the_message() {
        let folder = tempfile::tempdir().unwrap();
        let (own, gid) = ids();
        let other = if Uid::effective().is_root() { own + 1 } else { own };
        let uids = format!(
            "virtual_uid_maps = inline:{{jane@example.com={own}, jane+x@example.com={other}, odd@example.com={own}}}"
        );
        let agent = site(folder.path(), &uids);
        // The second owner needs what the first one makes.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        for (name, owner) in [("jane", own), ("jane/.x", other)] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::os::unix::fs::chown(folder.path().join(name), Some(owner), Some(gid)).unwrap();
        }
        let text = [b"Subject: x\n\n".as_slice(), &b"a line\n".repeat(100_000)].concat();
        assert!(2 * text.len() as u64 > MOST_BYTES);
        for text in [b"Subject: x\n\nbody\n".as_slice(), &text] {
            let queue = tempfile::tempdir().unwrap();
            let delivery = scratch::delivery(queue.path(), scratch::id(), text);
            let content = agent.open(&delivery).unwrap();
            let recipients =
                ["jane", "jane+x", "odd"].map(|name| scratch::recipient(&format!("{name}@example.com")));
            let mut sent = 0;
            agent.deliver_some(&delivery, &content, &recipients, &mut |_, outcome| {
                assert_eq!((outcome.status, outcome.text.as_str()), (Status::Sent, "delivered to maildir"));
                sent += 1;
            });
            assert_eq!(sent, 3);
            for (name, owner) in [("jane", own), ("jane/.x", other), ("odd", own)] {
                let file = only_file(folder.path().join(name).join("new"));
                let stat = std::fs::metadata(&file).unwrap();
                assert!(stat.uid() == owner && stat.len() > text.len() as u64, "{name}");
                std::fs::remove_file(file).unwrap();
            }
        }
    }

    #[test]
    fn who_may_open_few_files_has_few_open() {
        assert_eq!([0, 1024, 20_000, u64::MAX].map(at_a_time), [1, 4, MOST_AT_A_TIME, MOST_AT_A_TIME]);
    }

    #[test]
    fn a_mailbox_without_a_slash_is_an_mbox() {
        let folder = tempfile::tempdir().unwrap();
        let agent = site(folder.path(), "");
        std::fs::create_dir(folder.path().join("mail")).unwrap();
        std::os::unix::fs::chown(folder.path().join("mail"), Some(ids().0), Some(ids().1)).unwrap();
        let outcome = deliver(&agent, "box@example.com");
        assert_eq!((outcome.status, outcome.text.as_str()), (Status::Sent, "delivered to mailbox"));
    }

    #[test]
    fn what_the_tables_do_not_say_bounces_or_waits() {
        let folder = tempfile::tempdir().unwrap();
        let agent = site(folder.path(), "");
        let outcome = deliver(&agent, "nobody@example.com");
        assert_eq!(outcome.status, Status::Bounced);
        assert_eq!(outcome.text, "unknown user: \"nobody@example.com\"");
        for (recipient, words) in [
            ("root@example.com", "bad number \"0\""),
            ("odd@example.com", "bad number \"x\""),
            ("up@example.com", "without \"..\""),
        ] {
            let outcome = deliver(&agent, recipient);
            assert_eq!(outcome.status, Status::Deferred, "{recipient}");
            assert!(outcome.text.contains(words), "{}", outcome.text);
        }
        let agent = site(folder.path(), "virtual_uid_maps =");
        let outcome = deliver(&agent, "jane@example.com");
        assert!(outcome.status == Status::Deferred && outcome.text.contains("not found in virtual_uid_maps"));
    }
}
