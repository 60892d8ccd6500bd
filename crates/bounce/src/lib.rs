//! Delivery status notifications, and the two agents that deliver nothing.
pub mod report;
