//! What the probe of an address has found out, for the verify service.

use ipc::log;
use ipc::verify::{Client, Standing};
use mail::{Address, Status};

use crate::report::{Reader, Reported};
use crate::subject::Subject;

/// Tells verify what became of each address that was probed. A verify service that cannot be reached is no reason to come
/// again: it asks for another probe when it is back.
#[allow(clippy::unnecessary_wraps, reason = "one of the ways to answer the queue manager")]
pub(crate) fn tell(verify: &Client, subject: &Subject) -> Result<(), String> {
    for (address, standing, text) in findings(&subject.reported_to(Reader::Postmaster).recipients) {
        if let Err(error) = verify.update(address.clone(), standing, text) {
            log::warning!("<{address}>: result of an address probe: verify service: {error}");
        }
    }
    Ok(())
}

/// An address that stands for several is deliverable, whoever they are; one that stands for another is what the other is.
fn findings(recipients: &[Reported]) -> Vec<(Address, Standing, String)> {
    let mut found: Vec<(Address, Standing, String)> = Vec::new();
    for recipient in recipients {
        let probed = recipient.original.as_ref().unwrap_or(&recipient.address);
        if let Some(known) = found.iter_mut().find(|(address, ..)| address == probed) {
            (known.1, known.2) = (Standing::Deliverable, "aliased to multiple recipients".to_owned());
            continue;
        }
        let standing = match recipient.outcome.status {
            Status::Sent => Standing::Deliverable,
            Status::Deferred => Standing::Deferred,
            Status::Bounced => Standing::Undeliverable,
        };
        found.push((probed.clone(), standing, recipient.outcome.text.clone()));
    }
    found
}

#[cfg(test)]
mod tests {
    use mail::{Dsn, Outcome};

    use super::*;

    fn reported(original: &str, address: &str, outcome: Outcome) -> Reported {
        let parse = |text: &str| Address::new(text).unwrap();
        Reported {
            address: parse(address),
            original: Some(parse(original)),
            orcpt: None,
            outcome,
            time: None,
        }
    }

    #[test]
    fn the_address_that_was_asked_about_is_what_counts() {
        let gone = Outcome::bounced("none", Dsn::new(5, 1, 1), "unknown");
        let one = [reported("alias@example.com", "x@example.com", gone.clone())];
        let found = findings(&one);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.as_str(), found[0].1), ("alias@example.com", Standing::Undeliverable));
        let two = [one[0].clone(), reported("alias@example.com", "y@example.com", gone)];
        assert_eq!(findings(&two)[0].1, Standing::Deliverable);
    }
}
