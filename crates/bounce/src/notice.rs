//! Who is to be told: the notices that a request gives rise to.

use ipc::bounce::Kind;
use mail::{Address, Notify};

use crate::policy::Policy;
use crate::report::{Reader, Returned};

/// One notification to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Its envelope sender.
    pub(crate) sender: Address,
    /// To whom it goes.
    pub(crate) to: Address,
    /// How the reader is spoken to.
    pub(crate) reader: Reader,
    /// The most that it may return of the message.
    pub(crate) returned: Returned,
}

/// The notices for a message from `sender`. None is what a sender gets who cannot be told, or a postmaster who does not
/// want to know.
///
/// Mail that cannot be returned ends here: a notification has the null sender, so that its own failure can only go to
/// the postmaster, and a notice to the postmaster has the double-bounce sender, to whom nothing is ever sent.
pub(crate) fn notices(kind: Kind, sender: &Address, policy: &Policy) -> Vec<Notice> {
    let to_sender =
        |returned| Notice { sender: Address::null(), to: sender.clone(), reader: Reader::Sender, returned };
    let to_postmaster = |to: &Address, returned| Notice {
        sender: policy.double_bounce.clone(),
        to: to.clone(),
        reader: Reader::Postmaster,
        returned,
    };
    let classes = policy.classes;
    let mut notices = Vec::new();
    if policy.is_double_bounce(sender) {
        return notices;
    }
    match kind {
        Kind::Failure if sender.is_null() => {
            if classes.double_bounce {
                notices.push(to_postmaster(&policy.double_bounce_recipient, Returned::Full));
            }
        }
        Kind::Failure => {
            notices.push(to_sender(Returned::Full));
            if classes.bounce {
                notices.push(to_postmaster(&policy.bounce_recipient, Returned::Headers));
            }
        }
        Kind::Delay => {
            if !sender.is_null() {
                notices.push(to_sender(Returned::Headers));
            }
            if classes.delay {
                notices.push(to_postmaster(&policy.delay_recipient, Returned::Headers));
            }
        }
        Kind::Success | Kind::Trace => {
            if !sender.is_null() {
                notices.push(to_sender(Returned::Headers));
            }
        }
    }
    notices
}

/// Whether the sender wants to be told this of a recipient with these requests (RFC 3461 section 4.1). Who said nothing
/// is told of failures and delays.
pub(crate) fn is_wanted(kind: Kind, notify: Notify) -> bool {
    match kind {
        Kind::Failure => notify.wants_failure(),
        Kind::Delay => notify == Notify::UNSET || notify.contains(Notify::DELAY),
        Kind::Success => notify.contains(Notify::SUCCESS),
        Kind::Trace => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Classes;
    use crate::policy::tests::policy;

    fn address(text: &str) -> Address {
        Address::new(text).unwrap()
    }

    /// `from -> to returned`, or nothing.
    fn told(kind: Kind, sender: &str, classes: Classes) -> Vec<String> {
        let sender = if sender.is_empty() { Address::null() } else { address(sender) };
        let notices = notices(kind, &sender, &policy(classes));
        notices
            .iter()
            .map(|notice| format!("<{}> {} {:?}", notice.sender, notice.to, notice.returned))
            .collect()
    }

    const NONE: Classes = Classes { bounce: false, double_bounce: false, delay: false };
    const ALL: Classes = Classes { bounce: true, double_bounce: true, delay: true };

    #[test]
    fn a_sender_is_told() {
        assert_eq!(told(Kind::Failure, "a@b", NONE), ["<> a@b Full"]);
        assert_eq!(told(Kind::Delay, "a@b", NONE), ["<> a@b Headers"]);
        assert_eq!(told(Kind::Success, "a@b", NONE), ["<> a@b Headers"]);
    }

    #[test]
    fn the_postmaster_is_told_what_notify_classes_has() {
        let double = "<double-bounce@mail.example.org>";
        assert_eq!(told(Kind::Failure, "", ALL), [format!("{double} 2bounce@example.org Full")]);
        let copy = format!("{double} postmaster@example.org Headers");
        assert_eq!(told(Kind::Failure, "a@b", ALL), ["<> a@b Full", &copy]);
        let copy = format!("{double} delay@example.org Headers");
        assert_eq!(told(Kind::Delay, "a@b", ALL), ["<> a@b Headers", &copy]);
        assert_eq!(told(Kind::Delay, "", ALL), [copy]);
    }

    #[test]
    fn reports_on_reports_end() {
        for kind in [Kind::Failure, Kind::Delay, Kind::Success] {
            assert_eq!(told(kind, "", NONE), [""; 0]);
            assert_eq!(told(kind, "Double-Bounce@mail.example.org", ALL), [""; 0]);
        }
    }

    #[test]
    fn requests_of_rfc_3461_are_respected() {
        assert!(is_wanted(Kind::Failure, Notify::UNSET) && is_wanted(Kind::Delay, Notify::UNSET));
        assert!(!is_wanted(Kind::Success, Notify::UNSET));
        for kind in [Kind::Failure, Kind::Delay, Kind::Success] {
            assert!(!is_wanted(kind, Notify::NEVER));
        }
        assert!(!is_wanted(Kind::Failure, Notify::SUCCESS) && is_wanted(Kind::Success, Notify::SUCCESS));
        assert!(!is_wanted(Kind::Delay, Notify::FAILURE) && is_wanted(Kind::Delay, Notify::DELAY));
    }
}
