//! The session's lines in the log that quote what the client said: Postfix's fields in Postfix's order.

use std::fmt;

use ipc::log;
use mail::{Address, QueueId};

use crate::client::Client;
use crate::policy::Instance;

/// All that is known of a session at some moment: what restrictions judge, and what the log shows of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) queue_id: Option<QueueId>,
    /// The command, `CONNECT` or `END-OF-MESSAGE`.
    pub(crate) place: &'a str,
    pub(crate) client: &'a Client,
    pub(crate) helo: Option<&'a str>,
    pub(crate) sender: Option<&'a Address>,
    pub(crate) recipient: Option<&'a Address>,
    /// How many recipients were accepted before.
    pub(crate) recipients: usize,
    /// `SMTP` or `ESMTP`.
    pub(crate) protocol: &'a str,
    /// The client has sent commands before their time.
    pub(crate) out_of_step: bool,
    /// The size that MAIL announced, or of the content that came.
    pub(crate) size: u64,
    /// AUTH of MAIL (RFC 4954 section 5): who submitted the message elsewhere.
    pub(crate) sasl_sender: &'a str,
    /// The argument of ETRN.
    pub(crate) etrn_domain: Option<&'a str>,
    /// Distinguishes this message from others, for policy services.
    pub(crate) instance: Instance,
}

/// `QUEUEID: ACTION: PLACE from NAME[ADDRESS]: TEXT; from=<> to=<> proto=ESMTP helo=<>`. The action is `reject`,
/// `reject_warning`, `hold` … as in Postfix.
pub(crate) fn acted(action: &str, subject: &Subject<'_>, text: &impl fmt::Display) {
    log::judged(subject.queue_id, action, subject.place, subject.client, text, &Context(subject));
}

/// What follows the `;`.
struct Context<'a>(&'a Subject<'a>);

impl fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.0;
        if let Some(sender) = subject.sender {
            write!(f, " from=<{}>", sender.to_path())?;
        }
        if let Some(recipient) = subject.recipient {
            write!(f, " to=<{}>", recipient.to_path())?;
        }
        write!(f, " proto={}", subject.protocol)?;
        if let Some(helo) = subject.helo {
            write!(f, " helo=<{helo}>")?;
        }
        match &subject.client.login {
            Some(login) => write!(f, " sasl_username=<{}>", login.username),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::HostNames;

    #[test]
    fn fields_have_postfix_order() {
        let client = Client::new("192.0.2.1:9".parse().ok(), None, &HostNames::disabled());
        let (sender, recipient) = (Address::null(), Address::new("a@b").unwrap());
        let mut subject = Subject {
            queue_id: None,
            place: "RCPT",
            client: &client,
            helo: Some("h"),
            sender: Some(&sender),
            recipient: Some(&recipient),
            recipients: 0,
            protocol: "ESMTP",
            out_of_step: false,
            size: 0,
            sasl_sender: "",
            etrn_domain: None,
            instance: 1,
        };
        assert_eq!(Context(&subject).to_string(), " from=<> to=<a@b> proto=ESMTP helo=<h>");
        (subject.helo, subject.sender, subject.recipient) = (None, None, None);
        assert_eq!(Context(&subject).to_string(), " proto=ESMTP");
    }
}
