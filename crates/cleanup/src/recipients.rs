//! The envelope in its final form: addresses completed, canonical and masqueraded, aliases expanded, copies added,
//! duplicates left out.

use std::collections::HashSet;

use ipc::cleanup::{Options, Refusal};
use ipc::log;
use lookup::canonical::Usage;
use lookup::rewrite::RewriteContext;
use lookup::{LookupError, fold};
use mail::{Address, Dsn, Envelope, Notify, Origin, QueueId, Recipient};

use crate::rules::Rules;

/// Brings the envelope of a message into its final form.
pub(crate) fn finalize(
    rules: &Rules,
    id: QueueId,
    mut envelope: Envelope,
    options: Options,
) -> Result<Envelope, Refusal> {
    let mut list = List::new(rules, id, &envelope, options);
    let given = std::mem::take(&mut envelope.recipients);
    envelope.sender = sender(rules, &envelope.sender, options).map_err(|error| list.unreachable(&error))?;
    if list.copies
        && !given.is_empty()
        && let Some(copy) = rules.sender_bcc(&envelope.sender).map_err(|error| list.unreachable(&error))?
    {
        list.add_copy(&copy)?;
    }
    for recipient in given {
        list.add(recipient)?;
    }
    if let Some(copy) = rules.always_bcc.as_ref().filter(|_| list.copies && !list.recipients.is_empty()) {
        list.add_copy(copy)?;
    }
    envelope.recipients = list.recipients;
    if envelope.recipients.is_empty() {
        log::warning!("{id}: message rejected: no recipients");
        return Err(Refusal::Rejected(Dsn::new(5, 1, 0), "no recipients specified".into()));
    }
    Ok(envelope)
}

/// Adds a recipient that header or body checks ask for, expanded like any other.
pub(crate) fn add_copy(
    rules: &Rules,
    id: QueueId,
    envelope: &mut Envelope,
    options: Options,
    copy: &Address,
) -> Result<(), Refusal> {
    let mut list = List::new(rules, id, envelope, options);
    list.recipients = std::mem::take(&mut envelope.recipients);
    let result = list.add_copy(copy);
    envelope.recipients = list.recipients;
    result
}

fn sender(rules: &Rules, given: &Address, options: Options) -> Result<Address, LookupError> {
    if given.is_null() {
        return Ok(Address::null());
    }
    let complete = rules.canonical_form(given, RewriteContext::Local, Usage::EnvelopeSender, false)?;
    // Mail that claims to come from the mail system must not be answered with notifications.
    if complete.as_str().eq_ignore_ascii_case(rules.mailer_daemon.as_str()) {
        return Ok(Address::null());
    }
    rules.canonical_form(given, RewriteContext::Local, Usage::EnvelopeSender, options.map_addresses)
}

/// The recipients that were gathered so far.
struct List<'a> {
    rules: &'a Rules,
    id: QueueId,
    options: Options,
    /// Automatic copies are made of mail from outside, not of notifications and forwarded mail.
    copies: bool,
    recipients: Vec<Recipient>,
    seen: HashSet<Box<str>>,
}

impl<'a> List<'a> {
    fn new(rules: &'a Rules, id: QueueId, envelope: &Envelope, options: Options) -> Self {
        let copies = options.map_addresses && envelope.origin != Origin::Internal;
        let recipients = Vec::with_capacity(envelope.recipients.len());
        Self { rules, id, options, copies, recipients, seen: HashSet::new() }
    }

    fn add(&mut self, given: Recipient) -> Result<(), Refusal> {
        let original = given.original.unwrap_or_else(|| given.address.clone());
        let notify = given.notify.as_requested();
        let address =
            if given.address.is_null() { &self.rules.empty_address_recipient } else { &given.address };
        let address = self.canonical(address)?;
        let copy = if self.copies {
            self.rules.recipient_bcc(&address).map_err(|error| self.unreachable(&error))?
        } else {
            None
        };
        self.expand(address, &original, notify, given.orcpt)?;
        copy.map_or(Ok(()), |copy| self.add_copy(&copy))
    }

    /// Nobody is told what becomes of an automatic copy.
    fn add_copy(&mut self, copy: &Address) -> Result<(), Refusal> {
        let address = self.canonical(copy)?;
        let original = address.clone();
        self.expand(address, &original, Notify::NEVER, None)
    }

    fn canonical(&self, address: &Address) -> Result<Address, Refusal> {
        let map = self.options.map_addresses;
        let form = self.rules.canonical_form(address, RewriteContext::Local, Usage::EnvelopeRecipient, map);
        form.map_err(|error| self.unreachable(&error))
    }

    /// Adds what an address in canonical form stands for.
    ///
    /// What becomes of an alias's members is none of the sender's business, and how many they are neither: who asked for a
    /// success report is told that the alias was expanded (RFC 3461 section 5.2.7.3, b), and the members are asked
    /// for the rest of the request.
    fn expand(
        &mut self,
        address: Address,
        original: &Address,
        notify: Notify,
        orcpt: Option<String>,
    ) -> Result<(), Refusal> {
        let expanded = if self.options.map_addresses {
            self.rules.aliases.expand(&address).map_err(|error| self.not_expanded(&address, &error))?
        } else {
            None
        };
        let Some(addresses) = expanded.filter(|addresses| **addresses != [address.clone()]) else {
            self.push(address, original, notify, notify, orcpt);
            return Ok(());
        };
        if notify.contains(Notify::SUCCESS) {
            self.push(address, original, notify, Notify::SUCCESS.and(Notify::EXPANDED), orcpt.clone());
        }
        for address in addresses {
            self.push(address, original, notify, notify.without_success(), orcpt.clone());
        }
        Ok(())
    }

    /// Adds a recipient, of whom it is asked `asked` and to be done `notify`, unless it is there already.
    fn push(
        &mut self,
        address: Address,
        original: &Address,
        asked: Notify,
        notify: Notify,
        orcpt: Option<String>,
    ) {
        if self.options.record_original && !self.is_new(&address, original, asked, orcpt.as_deref()) {
            return;
        }
        let record = self.options.record_original && *original != address;
        let original = record.then(|| original.clone());
        self.recipients.push(Recipient { address, original, notify, orcpt });
    }

    /// Whether such a recipient was not there before. With `enable_original_recipient`, two aliases of one mailbox
    /// are two recipients: the mailbox shall see under which name it was written to.
    fn is_new(&mut self, address: &Address, original: &Address, notify: Notify, orcpt: Option<&str>) -> bool {
        let limit = self.rules.duplicate_filter_limit;
        let key = if self.rules.enable_original_recipient {
            let parts = format!("{}\n{}\n{original}\n{address}", orcpt.unwrap_or_default(), notify.bits());
            fold(&parts).into_owned()
        } else {
            fold(address.as_str()).into_owned()
        };
        if limit > 0 && self.seen.len() >= limit {
            return !self.seen.contains(key.as_str());
        }
        self.seen.insert(key.into_boxed_str())
    }

    fn unreachable(&self, error: &LookupError) -> Refusal {
        let id = self.id;
        log::warning!("{id}: {error} -- message not accepted, try again later");
        Refusal::Temporary(format!("table lookup problem: {error}"))
    }

    fn not_expanded(&self, address: &Address, error: &lookup::expand::ExpandError) -> Refusal {
        let id = self.id;
        log::warning!("{id}: {address}: {error} -- message not accepted, try again later");
        Refusal::Rejected(error.dsn(), "Alias expansion error".into())
    }
}
