//! What `tests/fuzz` reaches of this crate. No program uses it.

pub use crate::dns::resolv_conf_bounds;
pub use crate::tls::dane::certificate_matches;
pub use crate::tls::policy_level;
