//! Going through a list until a rule decides.

use lookup::LookupError;
use smtp_proto::Reply;

use super::class::{Class, refuse};
use super::judge::Judge;
use super::parse::{Argument, List, Rule};
use super::verbs;
use super::{Effects, misconfigured};
use crate::refusal;
use crate::report::{self, Subject};

/// How deep entries of access tables may name further restrictions.
const MAX_DEPTH: u32 = 10;

/// What a rule says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing: the next rule is asked.
    Dunno,
    /// Enough: the rest of the list is not asked.
    Permit,
    /// No.
    Refuse(Reply),
    /// If nothing refuses later, this does.
    DeferIfPermit(Reply),
    /// If something refuses for good later, this takes its place.
    DeferIfReject(Reply),
}

impl Decision {
    /// The number that Postfix's verbose log has for it.
    const fn status(&self) -> u8 {
        match self {
            Self::Dunno | Self::DeferIfPermit(_) | Self::DeferIfReject(_) => 0,
            Self::Permit => 1,
            Self::Refuse(_) => 2,
        }
    }
}

/// The evaluation of the lists of one stage.
pub(super) struct Evaluation<'a> {
    pub(super) judge: &'a Judge,
    pub(super) subject: &'a Subject<'a>,
    pub(super) effects: Effects,
    pub(super) depth: u32,
    /// What a table was last asked about, where that is not what the list is about.
    pub(super) asked: Option<Class>,
    defer_if_permit: Option<Reply>,
    defer_if_reject: Option<Reply>,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(judge: &'a Judge, subject: &'a Subject<'a>) -> Self {
        Self {
            judge,
            subject,
            effects: Effects::default(),
            depth: 0,
            asked: None,
            defer_if_permit: None,
            defer_if_reject: None,
        }
    }

    /// Evaluates a list; a reply if it refuses.
    ///
    /// A deferral that waits for a refusal waits within its list only; one that waits for a permission waits on.
    pub(super) fn list(&mut self, list: &List, class: Class) -> Option<Reply> {
        self.defer_if_reject = None;
        self.show(|| format!(">>> START {} RESTRICTIONS <<<", class.words()));
        let decision = self.decide(list, class);
        self.show(|| format!(">>> END {} RESTRICTIONS <<<", class.words()));
        self.reply(decision, class)
    }

    /// Evaluates one verb that needs no argument.
    pub(super) fn verb(&mut self, name: &str, class: Class) -> Option<Reply> {
        let ask = verbs::find(name)?.ask()?;
        let decision = ask(self, class, &Argument::None);
        self.reply(decision, class)
    }

    /// Begins with what an earlier stage has put off.
    pub(super) fn after(mut self, postponed: Option<&Reply>) -> Self {
        self.defer_if_permit = postponed.cloned();
        self
    }

    /// What was put off until it was clear that nothing refuses.
    pub(super) fn postponed(&mut self) -> Option<Reply> {
        self.defer_if_permit.take()
    }

    /// The end of all lists that are due: what was put off, or else what the verb says.
    pub(super) fn conclude(&mut self, verb: Option<&str>, class: Class) -> Option<Reply> {
        self.postponed().or_else(|| self.verb(verb?, class))
    }

    fn reply(&mut self, decision: Result<Decision, LookupError>, class: Class) -> Option<Reply> {
        match decision {
            Ok(Decision::Refuse(reply)) if reply.code() >= 500 => {
                Some(self.defer_if_reject.take().unwrap_or(reply))
            }
            Ok(Decision::Refuse(reply)) => Some(reply),
            Ok(_) => None,
            Err(error) => {
                let class = self.asked.unwrap_or(class);
                Some(refusal::from_lookup(&error, &class.name_in(self.subject)))
            }
        }
    }

    /// Goes through a list.
    pub(super) fn decide(&mut self, list: &List, class: Class) -> Result<Decision, LookupError> {
        for rule in &list.0 {
            // Whatever came next, the answer would be "try again".
            if self.defer_if_permit.is_some() && self.defer_if_reject.is_some() {
                break;
            }
            match self.rule(rule, class)? {
                Decision::Dunno => {}
                Decision::DeferIfPermit(reply) => drop(self.defer_if_permit.get_or_insert(reply)),
                Decision::DeferIfReject(reply) => drop(self.defer_if_reject.get_or_insert(reply)),
                decision @ (Decision::Permit | Decision::Refuse(_)) => return Ok(decision),
            }
        }
        Ok(Decision::Dunno)
    }

    fn rule(&mut self, rule: &Rule, class: Class) -> Result<Decision, LookupError> {
        match rule {
            Rule::Verb { verb, argument } => match verb.ask() {
                Some(ask) => {
                    self.show(|| format!("generic_checks: name={}", verb.name));
                    self.asked = None;
                    let decision = ask(self, class, argument)?;
                    self.show(|| format!("generic_checks: name={} status={}", verb.name, decision.status()));
                    if decision == Decision::Permit && !argument.has_entries() {
                        self.permitted(verb.name, verb.permits(class), "");
                    }
                    Ok(decision)
                }
                None => Ok(Decision::Dunno),
            },
            Rule::Class(list) => self.decide(list, class),
            Rule::Unknown => Ok(Decision::Refuse(misconfigured())),
            Rule::Warn(rule) => match self.rule(rule, class)? {
                Decision::Refuse(reply) | Decision::DeferIfPermit(reply) | Decision::DeferIfReject(reply) => {
                    report::acted("reject_warning", self.subject, &reply);
                    Ok(Decision::Dunno)
                }
                decision => Ok(decision),
            },
        }
    }

    /// Logs how a decision comes about, for a client in `debug_peer_list`.
    fn show(&self, text: impl FnOnce() -> String) {
        if self.subject.client.debug_level >= 2 {
            ipc::log::info!("{}", text());
        }
    }

    /// Evaluates a list that an access table named.
    pub(super) fn nested(&mut self, list: &List, class: Class) -> Result<Decision, LookupError> {
        if self.depth >= MAX_DEPTH {
            ipc::log::warning!(
                "access tables name each other more than {MAX_DEPTH} times; the request is deferred"
            );
            return Ok(Decision::Refuse(misconfigured()));
        }
        self.depth += 1;
        let decision = self.decide(list, class);
        self.depth -= 1;
        decision
    }

    /// `smtpd_log_access_permit_actions`: logs a permission, where that is wanted.
    pub(super) fn permitted(&self, action: &str, class: Class, detail: &str) {
        if self.judge.logged_permissions.matches(action).unwrap_or(true) {
            let text =
                format!("action={action} for {}={} {detail}", class.words(), class.name_in(self.subject));
            report::acted("permit", self.subject, &text);
        }
    }

    /// The reply of `defer_if_permit` and `defer_if_reject`, whose code no parameter changes.
    pub(super) fn requested(&self, class: Class, verb: &str) -> Reply {
        refuse(self.subject, class, 450, (7, 0), &format!("{verb} requested"))
    }
}
