//! The network as mail sees it: the DNS, and TLS. No other crate names the libraries behind them.

pub mod dns;
#[doc(hidden)]
pub mod fuzzing;
pub mod tls;

/// For tests: waits until this is so.
#[cfg(test)]
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "it is never so");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
