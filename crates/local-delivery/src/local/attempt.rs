//! One delivery to one recipient, from the loop check to the last leaf of its expansion.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::log;
use mail::{Address, Dsn, Outcome, QueueId, Served};
use service::{Delivery, DeliveryRecipient};

use super::agent::{LocalAgent, RELAY};
use super::alias::{Alias, Rights};
use super::environment::Parts;
use super::expansion::{Expansion, Leaf, MAX_DEPTH, Trail, too_deep};
use super::{forward_file, forwarding};
use crate::failure::{Delivered, Failure, outcome};
use crate::letter::{Letter, Preamble};
use crate::rights::User;
use crate::template;

/// How many addresses the answer to a probe names.
const MAX_NAMED: usize = 10;

/// What changes on the way through aliases.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// Reverse path: the message's, or an alias's owner.
    pub(super) sender: Address,
    /// Whom the message is for now.
    pub(super) recipient: Address,
    /// What `Delivered-To:` says.
    pub(super) delivered: Address,
    /// An alias with an owner was passed: a mailing list.
    pub(super) list: bool,
}

/// One delivery to one recipient.
pub(super) struct Attempt<'a> {
    pub(super) agent: &'a LocalAgent,
    pub(super) delivery: &'a Delivery,
    pub(super) recipient: &'a DeliveryRecipient,
    pub(super) letter: &'a Letter<'a>,
    /// Whose mailbox it was in the end, where aliases led to ONE other address.
    reached: RefCell<Option<Address>>,
    /// The outcome that another agent gave, where all of the mail went to that one.
    pub(super) passed: RefCell<Option<Outcome>>,
    /// What the first alias or `.forward` file on the way makes of a success; that it was expanded is told even if what
    /// it stands for fails.
    served: Cell<Option<Served>>,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        agent: &'a LocalAgent,
        delivery: &'a Delivery,
        recipient: &'a DeliveryRecipient,
        letter: &'a Letter<'a>,
    ) -> Self {
        Self {
            agent,
            delivery,
            recipient,
            letter,
            reached: RefCell::default(),
            passed: RefCell::default(),
            served: Cell::default(),
        }
    }

    pub(super) fn deliver(&self) -> Delivered {
        let address = &self.recipient.address;
        if address.local_part().is_empty() {
            return Err(Failure::bounce(Dsn::new(5, 1, 3), format!("null username in \"{address}\"")));
        }
        let looped = self.letter.was_delivered_to(address);
        if looped.map_err(|error| Failure::from_io(&error, "read the queue file"))? {
            let text = format!("mail forwarding loop for {address}");
            return Err(Failure::bounce(Dsn::new(5, 4, 6), text));
        }
        let context = Context {
            sender: self.delivery.request.sender.clone(),
            recipient: address.clone(),
            delivered: address.clone(),
            list: false,
        };
        let delivered = self.deliver_address(&context, &mut Trail::default());
        if !matches!(&delivered, Err(failure) if failure.is_temporary()) {
            self.agent.served.forget(&self.expansion());
        }
        delivered
    }

    /// Delivers, and says what became of it and of whom that is said.
    pub(super) fn conclude_with_outcome(self) -> Outcome {
        let delivered = self.deliver();
        let outcome = self.passed.into_inner().unwrap_or_else(|| outcome(RELAY, delivered));
        let final_recipient = self.reached.into_inner().filter(|reached| *reached != self.recipient.address);
        let served = self.served.get().unwrap_or(outcome.served);
        Outcome { final_recipient, served, ..outcome }
    }

    /// How a success counts from here on: what an alias stands for is none of the sender's business (RFC 3461 section
    /// 5.2.7.3); a list with an owner has the message, and is its last recipient (section 5.2.7.4).
    fn passes(&self, list: bool) {
        let served = if list { Served::Delivered } else { Served::Expanded };
        self.served.set(self.served.get().or(Some(served)));
    }

    /// Nothing is to be delivered: what would be done is the answer.
    pub(super) fn is_probe(&self) -> bool {
        self.delivery.request.trace.is_probe()
    }

    pub(super) fn id(&self) -> QueueId {
        self.delivery.request.id
    }

    /// The address before any rewriting.
    pub(super) fn original(&self) -> &Address {
        self.recipient.original.as_ref().unwrap_or(&self.recipient.address)
    }

    /// The header fields of a delivery to a file or command.
    pub(super) fn preamble<'b>(&'b self, context: &'b Context, delivered_header: bool) -> Preamble<'b> {
        let original = self.agent.settings.enable_original_recipient.then(|| self.original());
        let delivered = delivered_header.then_some(&context.delivered);
        Preamble { sender: &context.sender, original, delivered }
    }

    /// Aliases first, then users.
    fn deliver_address(&self, context: &Context, trail: &mut Trail) -> Delivered {
        let local = context.recipient.local_part().to_lowercase();
        if let Some(user) = local.strip_prefix('\\') {
            return self.deliver_mailbox_of(user, context);
        }
        match self.agent.find_alias(&local)?.filter(|alias| !trail.aliases.contains(&alias.name)) {
            Some(alias) => self.deliver_alias(&alias, context, trail),
            None => self.deliver_user(context, trail),
        }
    }

    fn deliver_alias(&self, alias: &Alias, context: &Context, trail: &mut Trail) -> Delivered {
        let domain = context.recipient.domain().unwrap_or_default();
        let mut context = self.moved_to(context.recipient.clone(), context);
        if let Some(owner) = self.agent.owner_of(&alias.name, domain)? {
            context.list = true;
            // A bounce that becomes a list's mail stays one that nothing may be sent back for.
            if !context.sender.is_null() {
                context.sender = owner;
            }
        }
        trail.aliases.push(alias.name.clone());
        let leaves = Expansion::new(self.agent, &context.sender).alias(alias, trail)?;
        self.passes(context.list);
        if leaves.is_empty() {
            log::warning!("{}: no recipient in alias lookup result for {}", self.id(), alias.name);
        }
        self.settle(leaves, &context, trail)
    }

    fn deliver_user(&self, context: &Context, trail: &mut Trail) -> Delivered {
        if trail.depth() > MAX_DEPTH {
            return Err(too_deep(context.recipient.as_str()));
        }
        let parts = Parts::new(context, &self.agent.settings);
        let Some(user) = self.agent.users.by_name(parts.user())? else {
            return self.deliver_unknown(&parts, context, trail);
        };
        let user = Arc::new(user);
        let way = self.mailbox_way(parts.user(), &user)?;
        if trail.users.contains(&user.name) {
            return self.deliver_mailbox(&way, &user, None, context);
        }
        let paths = self.forward_paths(&user, &parts, context)?;
        let acting = self.agent.instance.act_as(user.uid, user.gid)?;
        self.check_home(&user)?;
        // An empty file, and none, mean: do not forward.
        match forward_file::read(self.id(), &user, paths.into_iter())? {
            Some(text) if !text.is_empty() => {
                drop(acting);
                trail.users.push(user.name.clone());
                self.deliver_forward(&text, &user, &parts, context, trail)
            }
            _ => self.deliver_mailbox(&way, &user, Some(acting), context),
        }
    }

    /// Delivers to what the `.forward` file of the user on top of the trail says.
    fn deliver_forward(
        &self,
        text: &[u8],
        user: &Arc<User>,
        parts: &Parts<'_>,
        context: &Context,
        trail: &mut Trail,
    ) -> Delivered {
        let context = self.moved_to(context.recipient.clone(), context);
        let extension = Some(&parts.local[parts.user().len()..]).filter(|extension| !extension.is_empty());
        let expansion = Expansion::new(self.agent, &context.sender);
        let leaves = expansion.forward_file(text, &Rights::User(Arc::clone(user)), extension, trail)?;
        if leaves.is_empty() {
            return self.deliver_mailbox(&self.mailbox_way(parts.user(), user)?, user, None, &context);
        }
        if !matches!(&leaves[..], [Leaf::Mailbox(name)] if *name == user.name) {
            self.passes(false);
        }
        self.settle(leaves, &context, trail)
    }

    /// `require_home_directory`, looked for as the user.
    fn check_home(&self, user: &User) -> Result<(), Failure> {
        if !self.agent.settings.require_home_directory {
            return Ok(());
        }
        std::fs::metadata(&user.home).map(drop).map_err(|error| {
            let text = format!("cannot access home directory {}", user.home.display());
            let failure = Failure::from_io(&error, text);
            Failure { dsn: Dsn::new(4, 3, 0), ..failure }
        })
    }

    /// Where this user's `.forward` may be.
    fn forward_paths(
        &self,
        user: &User,
        parts: &Parts<'_>,
        context: &Context,
    ) -> Result<Vec<String>, Failure> {
        let settings = &self.agent.settings;
        let mut paths: Vec<String> = Vec::with_capacity(2);
        for template in &settings.forward_path {
            let expanded =
                template::expand(template, &parts.names(context, Some(user)), &settings.forward_filter)
                    .map_err(|error| Failure::configuration(format_args!("forward_path: {}", error.0)))?;
            if !expanded.undefined && !paths.contains(&expanded.text) {
                paths.push(expanded.text);
            }
        }
        Ok(paths)
    }

    /// Somebody who is neither alias nor user.
    fn deliver_unknown(&self, parts: &Parts<'_>, context: &Context, trail: &mut Trail) -> Delivered {
        let settings = &self.agent.settings;
        let route = self.mailbox_transport(parts.user())?;
        if let Some(route) = route.map_or_else(|| self.fallback_transport(parts.user()), |r| Ok(Some(r)))? {
            return self.pass(&route, context);
        }
        if !settings.luser_relay.is_empty() {
            let names = parts.names(context, None);
            let relay = template::expand(&settings.luser_relay, &names, &settings.forward_filter)
                .map_err(|error| Failure::configuration(format_args!("luser_relay: {}", error.0)))?;
            // Named on the trail, a relay that leads back here ends as an unknown user.
            let name = format!("luser_relay for {}", parts.local);
            if !trail.aliases.contains(&name) && trail.depth() < MAX_DEPTH {
                trail.aliases.push(name);
                let leaves = Expansion::new(self.agent, &context.sender).line(&relay.text, trail)?;
                self.passes(false);
                return self.settle(leaves, context, trail);
            }
        }
        if matches!(parts.user(), "postmaster" | "mailer-daemon") {
            log::warning!("required alias not found: {}", parts.user());
        }
        Err(Failure::bounce(Dsn::new(5, 1, 1), format!("unknown user: \"{}\"", parts.user())))
    }

    /// Delivers an expansion; see the head of [`super`] for the rule.
    fn settle(&self, mut leaves: Vec<Leaf>, context: &Context, trail: &mut Trail) -> Delivered {
        if leaves.is_empty() {
            return Ok("alias expanded".to_owned());
        }
        if leaves.len() == 1 && !context.list {
            return self.deliver_leaf(leaves.remove(0), context, trail);
        }
        let (members, direct): (Vec<Leaf>, Vec<Leaf>) =
            leaves.into_iter().partition(|leaf| matches!(leaf, Leaf::Local(_) | Leaf::Remote(_)));
        let mut results = Vec::new();
        for leaf in direct {
            results.push(self.deliver_once(leaf, context, trail));
        }
        let waits = results.iter().any(|end| is_temporary(&end.delivered));
        if !members.is_empty() && !waits {
            let addresses = members.into_iter().filter_map(|leaf| match leaf {
                Leaf::Local(address) | Leaf::Remote(address) => Some(address),
                _ => None,
            });
            let begin = Instant::now();
            let delivered = self.forward(addresses.collect(), context);
            results.push(End { delivered, delivering: Some(begin.elapsed()), reached: None });
        }
        self.conclude(results)
    }

    /// One outcome stands for the recipient: what waits, else what failed, else the last. The others are logged here,
    /// but for those without a duration, which an earlier attempt has logged.
    fn conclude(&self, mut results: Vec<End>) -> Delivered {
        let position =
            |wanted: fn(&Delivered) -> bool| results.iter().rposition(|end| wanted(&end.delivered));
        let chosen =
            position(is_temporary).or_else(|| position(Result::is_err)).or(results.len().checked_sub(1));
        let Some(chosen) = chosen else { return Ok("alias expanded".to_owned()) };
        let chosen = results.remove(chosen);
        for End { delivered, delivering, reached } in results {
            let Some(delivering) = delivering else { continue };
            let delays = log::Delays { delivering, ..log::Delays::default() };
            let address = reached.as_ref().unwrap_or(&self.recipient.address);
            let original = reached.as_ref().map(|_| self.original()).or(self.recipient.original.as_ref());
            let log = if self.is_probe() { log::probed } else { log::outcome };
            log(self.id(), address, original, delays, &outcome(RELAY, delivered));
        }
        self.reached.replace(chosen.reached);
        chosen.delivered
    }

    /// Delivers a leaf among several, unless an earlier attempt has done so.
    fn deliver_once(&self, leaf: Leaf, context: &Context, trail: &mut Trail) -> End {
        let (expansion, key) = (self.expansion(), leaf.key());
        if let Some(delivered) = self.agent.served.recall(&expansion, &key) {
            return End { delivered, delivering: None, reached: None };
        }
        let begin = Instant::now();
        let delivered = self.deliver_leaf(leaf, context, &mut trail.clone());
        // It speaks of one of several.
        self.passed.take();
        let reached = self.reached.take();
        if !is_temporary(&delivered) {
            self.agent.served.remember(&expansion, key, delivered.clone());
        }
        End { delivered, delivering: Some(begin.elapsed()), reached }
    }

    fn deliver_leaf(&self, leaf: Leaf, context: &Context, trail: &mut Trail) -> Delivered {
        match leaf {
            Leaf::Local(address) => {
                if trail.depth() > MAX_DEPTH {
                    return Err(too_deep(address.as_str()));
                }
                self.reached.replace(Some(address.clone()));
                self.deliver_address(&self.moved_to(address, context), trail)
            }
            Leaf::User(address) => self.deliver_user(&self.moved_to(address, context), trail),
            Leaf::Mailbox(name) => self.deliver_mailbox_of(&name, context),
            Leaf::Remote(address) => self.forward(vec![address], context),
            Leaf::Command(command, rights) => self.deliver_command(&command, &rights, context),
            Leaf::File(path, rights) => self.deliver_file(&path, &rights, context),
            Leaf::Refused(_, failure) => Err(failure),
            Leaf::Within(alias, leaf) => {
                self.reached.replace(Some(alias.clone()));
                self.deliver_leaf(*leaf, &self.moved_to(alias, context), trail)
            }
        }
    }

    fn forward(&self, addresses: Vec<Address>, context: &Context) -> Delivered {
        if self.is_probe() {
            let list: Vec<&str> = addresses.iter().take(MAX_NAMED).map(Address::as_str).collect();
            let more = if addresses.len() > MAX_NAMED { ", ..." } else { "" };
            return Ok(format!("forwards to {}{more}", list.join(", ")));
        }
        let (agent, header) = (self.agent, self.agent.settings.delivered_header.forward);
        let letter = self.letter;
        forwarding::forward(&agent.cleanup, self.delivery, self.recipient, context, addresses, header, letter)
    }

    /// `\user`: past aliases and `.forward`.
    fn deliver_mailbox_of(&self, name: &str, context: &Context) -> Delivered {
        let name = self.agent.settings.delimiters.split(name).map_or(name, |(user, _)| user);
        if let Some(user) = self.agent.users.by_name(name)? {
            return self.deliver_mailbox(&self.mailbox_way(name, &user)?, &user, None, context);
        }
        match self.mailbox_transport(name)? {
            Some(route) => self.pass(&route, context),
            None => Err(Failure::bounce(Dsn::new(5, 1, 1), format!("unknown user: \"{name}\""))),
        }
    }

    /// The context behind an alias or `.forward` file.
    fn moved_to(&self, recipient: Address, context: &Context) -> Context {
        let frozen = self.agent.settings.frozen_delivered_to;
        let delivered = if frozen { context.delivered.clone() } else { recipient.clone() };
        Context { recipient, delivered, ..context.clone() }
    }

    /// The name under which [`super::served`] keeps what is done of this recipient's expansion.
    fn expansion(&self) -> (QueueId, String) {
        (self.id(), self.recipient.address.as_str().to_owned())
    }
}

/// What became of one of several leaves.
struct End {
    delivered: Delivered,
    /// How long that took; nothing where an earlier attempt did it.
    delivering: Option<Duration>,
    /// Whom it is said of, if not the recipient.
    reached: Option<Address>,
}

fn is_temporary(delivered: &Delivered) -> bool {
    matches!(delivered, Err(failure) if failure.is_temporary())
}
