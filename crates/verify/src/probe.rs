//! Probes: messages without content that nobody delivers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::{Config, param};
use ipc::cleanup::{CleanupError, Client, Options};
use lookup::{RewriteContext, Rewriter};
use mail::{Address, Body, Envelope, QueueId, Recipient, Trace};

/// The digits of the changing part of the sender: no vowels, so that it makes no words.
const DIGITS: &[u8] = b"0123456789bcdfghjklmnpqrstvwxyz";

/// `address_verify_sender`, with the part that `address_verify_sender_ttl` changes.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    address: Address,
    ttl: Duration,
}

impl Sender {
    /// # Errors
    /// A sender that is no address.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let text: String = config.get(param::ADDRESS_VERIFY_SENDER);
        let text = text.trim();
        let address = match text {
            "" | "<>" => Address::null(),
            text => {
                let address = Address::new(text)
                    .map_err(|error| format!("address_verify_sender = {text}: no address: {error}"))?;
                Rewriter::new(config).rewrite(&address, RewriteContext::Local).into_owned()
            }
        };
        Ok(Self { address, ttl: config.get(param::ADDRESS_VERIFY_SENDER_TTL) })
    }

    /// The sender of a probe that is sent at this time since the Unix epoch. The null sender never changes.
    pub(crate) fn at(&self, now: Duration) -> Address {
        let (false, 1..) = (self.address.is_null(), self.ttl.as_secs()) else { return self.address.clone() };
        let period = encode(now.as_secs() / self.ttl.as_secs());
        let local = self.address.local_part();
        let text = match self.address.domain() {
            Some(domain) => format!("{local}{period}@{domain}"),
            None => format!("{local}{period}"),
        };
        Address::new(text).unwrap_or_else(|_| self.address.clone())
    }
}

fn encode(mut number: u64) -> String {
    let base = DIGITS.len() as u64;
    let mut text = Vec::new();
    loop {
        text.push(
            DIGITS.get(usize::try_from(number % base).unwrap_or_default()).copied().map_or('0', char::from),
        );
        number /= base;
        if number == 0 {
            return text.into_iter().rev().collect();
        }
    }
}

/// Puts a probe into the queue.
///
/// # Errors
/// Why cleanup did not take it.
pub(crate) fn send(cleanup: &Client, sender: &Sender, recipient: &Address) -> Result<(), CleanupError> {
    let now = SystemTime::now();
    let arrival = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let envelope = Envelope {
        body: Body::SevenBit,
        smtputf8: !recipient.is_ascii(),
        trace: Trace::Verification,
        ..Envelope::new(sender.at(arrival), vec![Recipient::new(recipient.clone())], arrival)
    };
    // Nothing of it is written by people: there is nothing to check, and a check could only spoil the answer.
    let options = Options { filter: false, ..Options::default() };
    cleanup.begin(QueueId::generate(now), &envelope, options)?.commit().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sender_changes_with_time() {
        let sender =
            Sender { address: Address::new("probe@example.com").unwrap(), ttl: Duration::from_secs(100) };
        let at = |seconds| sender.at(Duration::from_secs(seconds)).to_string();
        assert_eq!(at(0), "probe0@example.com");
        assert_eq!(at(99), at(0));
        assert_eq!(at(3100), "probe10@example.com");
        let fixed = Sender { ttl: Duration::ZERO, ..sender };
        assert_eq!(fixed.at(Duration::from_secs(3100)).as_str(), "probe@example.com");
        let null = Sender { address: Address::null(), ttl: Duration::from_secs(1) };
        assert!(null.at(Duration::from_secs(5)).is_null());
    }
}
