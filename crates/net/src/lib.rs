//! The network as mail sees it: the DNS, and TLS. No other crate names the libraries behind them.

pub mod dns;
#[doc(hidden)]
pub mod fuzzing;
pub mod tls;
