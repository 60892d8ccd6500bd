//! Names that exist for each service of master.cf: `TRANSPORT_destination_concurrency_limit` and the like.

/// What may follow `TRANSPORT`, and the parameter whose value counts where it is not set.
pub const SUFFIXES: &[(&str, &str)] = &[
    ("_delivery_slot_cost", "default_delivery_slot_cost"),
    ("_delivery_slot_discount", "default_delivery_slot_discount"),
    ("_delivery_slot_loan", "default_delivery_slot_loan"),
    ("_destination_concurrency_failed_cohort_limit", "default_destination_concurrency_failed_cohort_limit"),
    ("_destination_concurrency_limit", "default_destination_concurrency_limit"),
    ("_destination_concurrency_negative_feedback", "default_destination_concurrency_negative_feedback"),
    ("_destination_concurrency_positive_feedback", "default_destination_concurrency_positive_feedback"),
    ("_destination_rate", "default_destination_rate"),
    ("_destination_rate_delay", "default_destination_rate_delay"),
    ("_destination_recipient_limit", "default_destination_recipient_limit"),
    ("_extra_recipient_limit", "default_extra_recipient_limit"),
    ("_initial_destination_concurrency", "initial_destination_concurrency"),
    ("_minimum_delivery_slots", "default_minimum_delivery_slots"),
    ("_recipient_limit", "default_recipient_limit"),
    ("_recipient_refill_delay", "default_recipient_refill_delay"),
    ("_recipient_refill_limit", "default_recipient_refill_limit"),
    ("_time_limit", "command_time_limit"),
    ("_transport_rate_delay", "default_transport_rate_delay"),
];

/// For `smtp_destination_rate_delay`: `smtp` and `default_destination_rate_delay`.
#[must_use]
pub fn default_of(name: &str) -> Option<(&str, &'static str)> {
    // `_destination_recipient_limit` ends in `_recipient_limit` too: the longest suffix is meant.
    SUFFIXES
        .iter()
        .filter_map(|(suffix, default)| Some((name.strip_suffix(suffix)?, *default)))
        .filter(|(transport, _)| !transport.is_empty())
        .min_by_key(|(transport, _)| transport.len())
}
