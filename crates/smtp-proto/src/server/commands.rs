//! The commands: what each needs before it, and what it asks of the program.

use super::{Ending, Helo, Notice, Question, Session, State, Step};
use crate::command::{self, Verb};
use crate::content::BareNewline;
use crate::input::Line;
use crate::parameter::{self, Extensions};
use crate::path::{self, PathRules};
use crate::reply::{Fault, Reply};

/// The longest name that is kept of HELO: RFC 5321 section 4.5.3.1.2.
const MAX_HELO: usize = 255;

impl Session {
    /// Takes the next command line; none when it was dealt with in silence.
    pub(super) fn command(&mut self) -> Option<Step> {
        if self.errors >= self.settings.hard_error_limit {
            self.say(&Fault::TooManyErrors.reply(&self.settings.hostname));
            self.close(Ending::TooManyErrors);
            return None;
        }
        let line = match self.input.line(self.settings.line_length_limit) {
            Line::Partial => return Some(Step::Read),
            Line::TooLong => {
                self.verb = Verb::Unknown;
                return Some(self.refuse(&Fault::LineTooLong));
            }
            Line::Whole { place, bare } => {
                if bare && self.bare_newline_ends_it() {
                    return None;
                }
                std::str::from_utf8(self.input.at(place)).map(str::to_owned)
            }
        };
        let Ok(mut line) = line else {
            self.verb = Verb::Unknown;
            return Some(self.refuse(&Fault::BadUtf8));
        };
        if let Some(changed) = self.site.as_ref().and_then(|site| site.command(line.trim_start())) {
            line = changed;
        }
        let (verb, word, arguments) = command::split(&line);
        self.verb = verb;
        self.place = verb.name();
        if word.is_empty() {
            return Some(self.refuse(&Fault::BadSyntax));
        }
        if self.speaks_too_early(verb) && self.out_of_step(verb.name()) {
            return None;
        }
        if verb.is_junk() {
            self.junk += 1;
            self.errors += u32::from(self.junk > self.settings.junk_command_limit);
        }
        self.dispatch(verb, word, arguments, &line)
    }

    /// A bare line feed after a command. Says whether it ends the session.
    fn bare_newline_ends_it(&mut self) -> bool {
        match self.policy.bare_newline {
            BareNewline::Allow | BareNewline::Normalize => false,
            BareNewline::Note => {
                self.notices.push_back(Notice::BareNewline { after: self.place });
                false
            }
            BareNewline::Reject => {
                self.notices.push_back(Notice::BareNewline { after: self.place });
                let fault = Fault::BareNewline(self.settings.bare_newline_reject_code);
                self.say(&fault.reply(&self.settings.hostname));
                self.close(Ending::Dropped);
                true
            }
        }
    }

    /// More has come with this command although the client must wait for its reply (RFC 2920 section 3.1), or has not
    /// learned yet that it need not.
    fn speaks_too_early(&self, verb: Verb) -> bool {
        let may_pipeline = self.helo.as_ref().is_some_and(|helo| helo.extended);
        // What follows BDAT is its chunk.
        let must_wait = verb.ends_group() || !(may_pipeline || verb == Verb::Bdat);
        must_wait && !self.input.pending().is_empty()
    }

    fn dispatch(&mut self, verb: Verb, word: &str, arguments: &str, line: &str) -> Option<Step> {
        // What is no command may be a reason to hang up, whatever else would be said to it: the program decides.
        match self.barred(verb) {
            Some(fault) if verb != Verb::Unknown => return Some(self.refuse(&fault)),
            _ => {}
        }
        if self.settings.noop_commands.iter().any(|noop| noop.eq_ignore_ascii_case(word)) {
            return self.done("Ok");
        }
        let asked = match verb {
            Verb::Helo | Verb::Ehlo => hello(verb, arguments),
            Verb::Mail => self.mail(arguments),
            Verb::Rcpt => self.rcpt(arguments),
            Verb::Data => self.data(arguments),
            Verb::Bdat => return self.bdat(arguments),
            Verb::Vrfy => self.verify(arguments),
            Verb::Rset if !arguments.is_empty() => Err(Fault::RsetSyntax),
            Verb::Rset => {
                self.drop_transaction();
                return self.done("Ok");
            }
            Verb::Noop => return self.done("Ok"),
            Verb::Help => return self.help(),
            Verb::Quit => {
                self.answered(&Reply::new(221, mail::Dsn::new(2, 0, 0), "Bye"));
                self.close(Ending::Quit);
                return None;
            }
            Verb::Lhlo => Err(Fault::NotRecognized),
            Verb::StartTls if !arguments.is_empty() => Err(Fault::StartTlsSyntax),
            Verb::StartTls if self.encrypted => Err(Fault::TlsActive),
            Verb::Etrn if self.settings.helo_required && self.helo.is_none() => Err(Fault::NeedHelo),
            Verb::Xclient | Verb::Xforward | Verb::Etrn if self.transaction().is_some() => {
                Err(Fault::MailInProgress)
            }
            Verb::Etrn if arguments.is_empty() => Err(Fault::EtrnSyntax),
            Verb::Auth => self.auth(arguments),
            Verb::Xclient | Verb::Xforward | Verb::StartTls | Verb::Etrn => {
                Ok(Question::Other(verb, arguments.to_owned()))
            }
            Verb::Unknown => Ok(Question::Unknown(word.to_owned(), line.to_owned())),
        };
        Some(match asked {
            Ok(question) => {
                self.question = Some(question);
                Step::Asked
            }
            Err(fault) => {
                arguments.clone_into(&mut self.arguments);
                self.refuse_command(&fault)
            }
        })
    }

    /// Why no command of this kind is taken as the session stands.
    pub(super) fn barred(&self, verb: Verb) -> Option<Fault> {
        match &self.state {
            State::Denied(client) if verb != Verb::Quit => Some(Fault::AccessDenied(client.clone())),
            _ if self.settings.must_encrypt && !self.encrypted && !verb.goes_in_clear() => {
                Some(Fault::NeedEncryption)
            }
            _ => None,
        }
    }

    fn refuse_command(&mut self, fault: &Fault) -> Step {
        let before = self.errors;
        let step = self.refuse(fault);
        if *fault == Fault::TooManyRecipients {
            self.overshoot += 1;
            if self.overshoot <= self.settings.recipient_overshoot_limit {
                // RFC 5321 section 4.5.3.1.10: a client may well send the rest in another transaction.
                self.errors = before;
            }
        }
        step
    }

    fn done(&mut self, text: &'static str) -> Option<Step> {
        self.answered(&Reply::new(250, mail::Dsn::new(2, 0, 0), text));
        None
    }

    fn help(&mut self) -> Option<Step> {
        let verbs: Vec<_> = [Verb::Helo, Verb::Ehlo, Verb::Mail, Verb::Rcpt, Verb::Data, Verb::Bdat]
            .into_iter()
            .chain([Verb::Rset, Verb::Noop, Verb::Vrfy, Verb::Help, Verb::Quit])
            .map(Verb::name)
            .collect();
        self.answered(&Reply::new(214, mail::Dsn::new(2, 0, 0), format!("Commands: {}", verbs.join(" "))));
        None
    }

    fn mail(&self, arguments: &str) -> Result<Question, Fault> {
        match &self.state {
            State::Chunks(..) | State::Mail(_) => return Err(Fault::NestedMail),
            _ if self.settings.helo_required && self.helo.is_none() => return Err(Fault::NeedHelo),
            _ => {}
        }
        parameter::mail(arguments, &self.settings.argument_rules(&self.policy)).map(Question::Mail)
    }

    fn rcpt(&self, arguments: &str) -> Result<Question, Fault> {
        let transaction = match &self.state {
            State::Chunks(..) => return Err(Fault::RcptAfterBdat),
            State::Mail(transaction) => transaction,
            _ => return Err(Fault::NeedMail),
        };
        let rules = self.settings.argument_rules(&self.policy);
        let rcpt = parameter::rcpt(arguments, transaction.mail.smtputf8, &rules)?;
        if transaction.recipients.len() >= self.settings.recipient_limit {
            return Err(Fault::TooManyRecipients);
        }
        Ok(Question::Rcpt(rcpt))
    }

    fn verify(&self, arguments: &str) -> Result<Question, Fault> {
        if self.settings.disable_vrfy || !self.policy.extensions.contains(Extensions::VRFY) {
            return Err(Fault::VrfyDisabled);
        }
        let (path, rest) = path::split(arguments);
        if path.is_empty() {
            return Err(Fault::VrfySyntax { utf8: self.policy.extensions.contains(Extensions::SMTPUTF8) });
        }
        if !(rest.is_empty() || rest.eq_ignore_ascii_case("SMTPUTF8")) {
            return Err(Fault::RecipientSyntax);
        }
        // RFC 5321 section 3.5.1: VRFY takes a user name or a mailbox, which angle brackets need not surround.
        let rules = PathRules { numeric_domain: self.settings.numeric_domain, ..PathRules::default() };
        let address = path::parse(path, rules).map_err(|_| Fault::RecipientSyntax)?;
        Ok(Question::Verify(address, path.to_owned()))
    }
}

/// What a server says to a verb that it knows and does not offer.
pub(super) fn not_offered(verb: Verb, arguments: &str) -> Fault {
    match verb {
        Verb::Etrn => Fault::EtrnNotServed(arguments.to_owned()),
        Verb::Xclient | Verb::Xforward => Fault::NotAuthorized,
        _ => Fault::NotImplemented,
    }
}

fn hello(verb: Verb, arguments: &str) -> Result<Question, Fault> {
    let name: String = arguments.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    if name.is_empty() {
        return Err(Fault::HeloSyntax(verb.name()));
    }
    // What has a meaning in a trace header could forge one.
    let neutral = |c: char| if c.is_control() || " ()<>;\"\\@".contains(c) { '?' } else { c };
    let name = name.chars().map(neutral).take(MAX_HELO).collect();
    Ok(Question::Helo(Helo { name, extended: verb != Verb::Helo }, verb))
}
