//! The agents that deliver nothing: error (and the same under the name retry) returns mail, discard drops it.

use mail::{Dsn, Outcome};
use service::{Agent, Delivery, DeliveryRecipient, Fatal, Service};

/// There is no host that took or refused the message.
const RELAY: &str = "none";

/// `error`: the next hop says why, as `5.1.1 user has moved`. A code of class 4 defers, and so does every text when
/// the service is called `retry`.
///
/// # Errors
/// What the daemon skeleton says.
pub fn error(service: Service) -> Result<(), Fatal> {
    let defers = service.name == "retry";
    service.serve_deliveries(Returning { defers })
}

/// `discard`: every message is delivered, to nowhere; the next hop says why.
///
/// # Errors
/// What the daemon skeleton says.
pub fn discard(service: Service) -> Result<(), Fatal> {
    service.serve_deliveries(Discarding)
}

struct Returning {
    defers: bool,
}

impl Agent for Returning {
    type Message = ();

    fn open(&self, _: &Delivery) -> Result<(), Box<Outcome>> {
        Ok(())
    }

    fn deliver(&self, delivery: &Delivery, (): &(), _: &DeliveryRecipient) -> Outcome {
        returned(&delivery.request.nexthop, self.defers)
    }

    fn probe(&self, delivery: &Delivery, (): &(), recipient: &DeliveryRecipient) -> Outcome {
        self.deliver(delivery, &(), recipient)
    }
}

struct Discarding;

impl Agent for Discarding {
    type Message = ();

    fn open(&self, _: &Delivery) -> Result<(), Box<Outcome>> {
        Ok(())
    }

    fn deliver(&self, delivery: &Delivery, (): &(), _: &DeliveryRecipient) -> Outcome {
        discarded(&delivery.request.nexthop)
    }

    fn probe(&self, delivery: &Delivery, (): &(), recipient: &DeliveryRecipient) -> Outcome {
        self.deliver(delivery, &(), recipient)
    }
}

fn returned(nexthop: &str, defers: bool) -> Outcome {
    let (dsn, text) = split_dsn(nexthop);
    let text = if text.is_empty() { "mail for this destination is returned" } else { text };
    match dsn {
        Some(dsn) if defers || dsn.class() == 4 => Outcome::deferred(RELAY, dsn, text),
        Some(dsn) => Outcome::bounced(RELAY, dsn, text),
        None if defers => Outcome::deferred(RELAY, Dsn::new(4, 0, 0), text),
        None => Outcome::bounced(RELAY, Dsn::new(5, 0, 0), text),
    }
}

fn discarded(nexthop: &str) -> Outcome {
    let (_, text) = split_dsn(nexthop);
    Outcome::sent(RELAY, if text.is_empty() { "message discarded" } else { text })
}

/// An enhanced status code that begins the text, and the rest.
fn split_dsn(nexthop: &str) -> (Option<Dsn>, &str) {
    let text = nexthop.trim();
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    first.parse().map_or((None, text), |dsn| (Some(dsn), rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use mail::Status;

    use super::*;

    fn line(outcome: &Outcome) -> String {
        format!("{} {} {}", outcome.status.as_str(), outcome.dsn, outcome.text)
    }

    #[test]
    fn the_code_in_the_next_hop_decides() {
        assert_eq!(line(&returned("5.1.6 user has moved", false)), "bounced 5.1.6 user has moved");
        assert_eq!(line(&returned("4.3.5 later", false)), "deferred 4.3.5 later");
        assert_eq!(line(&returned("no code here", false)), "bounced 5.0.0 no code here");
        assert_eq!(line(&returned("", false)), "bounced 5.0.0 mail for this destination is returned");
        assert_eq!(line(&returned("5.1.6", false)), "bounced 5.1.6 mail for this destination is returned");
    }

    #[test]
    fn retry_defers_whatever_the_code() {
        assert_eq!(line(&returned("5.4.1 down", true)), "deferred 4.4.1 down");
        assert_eq!(line(&returned("down", true)), "deferred 4.0.0 down");
    }

    #[test]
    fn discard_delivers_to_nowhere() {
        assert_eq!(line(&discarded("2.0.0 spam")), "sent 2.0.0 spam");
        assert_eq!(discarded("").status, Status::Sent);
        assert_eq!(discarded("").text, "message discarded");
    }
}
