//! What main.cf and master.cf allow a transport.

use std::time::Duration;

use config::{Config, Feedback, Param, Rate, Value, param};

/// The limits of a transport.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Deliveries at a time: the process limit of master.cf.
    pub(crate) deliveries: usize,
    /// Deliveries at a time to one destination, at most.
    pub(crate) most: u32,
    /// Deliveries at a time to a destination of which nothing is known.
    pub(crate) initial: u32,
    /// How a good delivery changes that number.
    pub(crate) positive: Feedback,
    /// How a failure of the destination does.
    pub(crate) negative: Feedback,
    /// After how many failed cohorts in a row a destination is given up for a while; 0 for never.
    pub(crate) failed_cohorts: f64,
    /// For how long.
    pub(crate) retry: Duration,
    /// Recipients in one delivery; with 1, each recipient is a destination of its own.
    pub(crate) destination_recipients: usize,
    /// The time from the begin of a delivery to a destination to that of the next.
    pub(crate) interval: Option<Duration>,
    /// The time from the end of a delivery to a destination to the begin of the next; there is one at a time then.
    pub(crate) destination_delay: Duration,
    /// The time from the begin of any delivery to that of the next.
    pub(crate) transport_delay: Duration,
}

impl Limits {
    /// Whether a delivery may have to wait for the time after another.
    pub(crate) fn are_paced(&self) -> bool {
        self.interval.is_some() || !self.destination_delay.is_zero() || !self.transport_delay.is_zero()
    }

    /// The limits of a transport. `deliveries` is what master.cf says.
    pub(crate) fn new(config: &Config, transport: &str, deliveries: Option<u32>) -> Self {
        let of = Of { config, transport };
        let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let unless_zero = |value: u64| if value == 0 { u64::MAX } else { value };
        let concurrency =
            of.get("destination_concurrency_limit", param::DEFAULT_DESTINATION_CONCURRENCY_LIMIT);
        let recipients = of.get("destination_recipient_limit", param::DEFAULT_DESTINATION_RECIPIENT_LIMIT);
        let cohorts = of.get(
            "destination_concurrency_failed_cohort_limit",
            param::DEFAULT_DESTINATION_CONCURRENCY_FAILED_COHORT_LIMIT,
        );
        let rate: Rate = of.get("destination_rate", param::DEFAULT_DESTINATION_RATE);
        Self {
            deliveries: deliveries.map_or(usize::MAX, |most| number(most.into())).max(1),
            most: small(unless_zero(concurrency)),
            initial: small(of.get("initial_destination_concurrency", param::INITIAL_DESTINATION_CONCURRENCY))
                .max(1),
            positive: of.get(
                "destination_concurrency_positive_feedback",
                param::DEFAULT_DESTINATION_CONCURRENCY_POSITIVE_FEEDBACK,
            ),
            negative: of.get(
                "destination_concurrency_negative_feedback",
                param::DEFAULT_DESTINATION_CONCURRENCY_NEGATIVE_FEEDBACK,
            ),
            failed_cohorts: f64::from(small(cohorts)),
            retry: config.get(param::MINIMAL_BACKOFF_TIME),
            destination_recipients: number(unless_zero(recipients)),
            interval: rate.interval(),
            destination_delay: of.get("destination_rate_delay", param::DEFAULT_DESTINATION_RATE_DELAY),
            transport_delay: of.get("transport_rate_delay", param::DEFAULT_TRANSPORT_RATE_DELAY),
        }
    }
}

struct Of<'a> {
    config: &'a Config,
    transport: &'a str,
}

impl Of<'_> {
    fn get<T: Value>(&self, suffix: &str, default: Param<T>) -> T {
        self.config.for_transport(self.transport, suffix, default)
    }
}

/// Limits as the defaults of main.cf make them.
#[cfg(test)]
pub(crate) fn usual() -> Limits {
    Limits {
        deliveries: 100,
        most: 20,
        initial: 5,
        positive: Feedback::default(),
        negative: Feedback::default(),
        failed_cohorts: 1.0,
        retry: Duration::from_secs(300),
        destination_recipients: 50,
        interval: None,
        destination_delay: Duration::ZERO,
        transport_delay: Duration::ZERO,
    }
}
