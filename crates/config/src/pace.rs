//! Values that say how fast something may go: rates, and steps of a concurrency.

use std::time::Duration;

use crate::parameter::Parameter;
use crate::value::Value;

/// So many events in a time: `30/m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    interval: Option<Duration>,
}

/// The most events in a second that a rate may name: beyond that it bounds nothing.
const MOST_IN_A_SECOND: u64 = 1_000;

impl Rate {
    /// The time between two events, if there must be one.
    #[must_use]
    pub fn interval(self) -> Option<Duration> {
        self.interval
    }
}

impl Value for Rate {
    fn parse(text: &str, _: &Parameter) -> Result<Self, String> {
        const RIGHT: &str =
            "must be a number of deliveries in a second, minute, hour or day, as in 30/m, or 0 for any";
        if text == "0" {
            return Ok(Self::default());
        }
        let (number, unit) = text.split_once('/').ok_or(RIGHT)?;
        let (number, unit) = (number.trim(), unit.trim());
        let seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => return Err(RIGHT.to_owned()),
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(RIGHT.to_owned());
        }
        let most = MOST_IN_A_SECOND * seconds;
        let number = number.parse().unwrap_or(u64::MAX);
        match number {
            0 => Err("would let nothing through; 0 alone is for any number".to_owned()),
            _ if number > most => Err(format!("must be at most {most}/{unit}")),
            _ => Ok(Self { interval: Some(Duration::from_micros(seconds * 1_000_000 / number)) }),
        }
    }
}

/// How far one delivery moves the concurrency: `1`, `0.5`, `1/3`, `1/concurrency`, `1/sqrt_concurrency`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Feedback {
    amount: f64,
    divisor: Divisor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Divisor {
    One,
    Concurrency,
    SquareRoot,
}

impl Default for Feedback {
    fn default() -> Self {
        Self { amount: 1.0, divisor: Divisor::One }
    }
}

impl Feedback {
    /// The step at this concurrency.
    #[must_use]
    pub fn at(self, concurrency: f64) -> f64 {
        match self.divisor {
            Divisor::One => self.amount,
            Divisor::Concurrency => self.amount / concurrency.max(1.0),
            Divisor::SquareRoot => self.amount / concurrency.max(1.0).sqrt(),
        }
    }
}

impl Value for Feedback {
    fn parse(text: &str, _: &Parameter) -> Result<Self, String> {
        const RIGHT: &str = "must be a number from 0 to 1, number/concurrency or number/sqrt_concurrency";
        let number = |text: &str| -> Option<f64> {
            let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            text.parse().ok().filter(|_| is_plain)
        };
        let (amount, divisor) = match text.split_once('/').map(|(a, b)| (a.trim(), b.trim())) {
            None => (number(text.trim()), Divisor::One),
            Some((amount, "concurrency")) => (number(amount), Divisor::Concurrency),
            Some((amount, "sqrt_concurrency")) => (number(amount), Divisor::SquareRoot),
            Some((amount, below)) => {
                let below = number(below).filter(|below| *below > 0.0).ok_or(RIGHT)?;
                (number(amount).map(|amount| amount / below), Divisor::One)
            }
        };
        let amount = amount.filter(|amount| (0.0..=1.0).contains(amount)).ok_or(RIGHT)?;
        Ok(Self { amount, divisor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameter::param;

    fn interval(text: &str) -> Result<Option<Duration>, String> {
        Rate::parse(text, &param::DEFAULT_DESTINATION_RATE.row()).map(Rate::interval)
    }

    #[test]
    fn rates_name_their_unit() {
        assert_eq!(interval("0"), Ok(None));
        assert_eq!(interval("30/m"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(interval("4 / h"), Ok(Some(Duration::from_secs(900))));
        assert_eq!(interval("1/d"), Ok(Some(Duration::from_secs(86400))));
        assert_eq!(interval("1000/s"), Ok(Some(Duration::from_millis(1))));
        for wrong in [
            "",
            "30",
            "0/m",
            "-1/m",
            "1.5/m",
            "30/x",
            "30/",
            "/m",
            "1001/s",
            "+3/m",
            "99999999999999999999/d",
        ] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn steps_may_depend_on_the_concurrency() {
        let row = param::DEFAULT_DESTINATION_CONCURRENCY_POSITIVE_FEEDBACK.row();
        let at = |text: &str| Feedback::parse(text, &row).map(|feedback| feedback.at(4.0));
        assert_eq!(at("1"), Ok(1.0));
        assert_eq!(at("1/2"), Ok(0.5));
        assert_eq!(at("1 / concurrency"), Ok(0.25));
        assert_eq!(at("1/sqrt_concurrency"), Ok(0.5));
        for wrong in ["", "2", "-1", "1/0", "x", "1/x", "inf", "NaN", "1e0", "3/concurrency", "1/2/3"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
    }
}
