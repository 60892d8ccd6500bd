//! Which transport takes a recipient, and which destination it counts for.

use config::Config;
use ipc::log;
use lookup::resolve::Resolver;
use mail::{Address, Dsn, Outcome};
use service::Fatal;

/// Where a recipient goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The name of a service of master.cf.
    pub(crate) transport: String,
    /// What the agent is told.
    pub(crate) nexthop: String,
    /// The recipient as the agent is to see it.
    pub(crate) recipient: Address,
}

/// Asks the same tables as cleanup and smtpd do, on the disk threads: a table may be slow.
pub(crate) struct Router {
    resolver: Resolver,
}

impl Router {
    pub(crate) fn new(config: &Config) -> Result<Self, Fatal> {
        let resolver = Resolver::new(config).map_err(|error| Fatal::new(error.to_string()))?;
        Ok(Self { resolver })
    }

    /// The way of a recipient, or the deferral where a table cannot tell.
    pub(crate) fn way_of(&self, sender: &Address, recipient: &Address) -> Result<Way, Outcome> {
        match self.resolver.resolve(sender, recipient) {
            Ok(route) => {
                Ok(Way { transport: route.transport, nexthop: route.nexthop, recipient: route.recipient })
            }
            Err(error) => {
                log::warning!("resolve <{recipient}>: {error}");
                let text = "address resolver failure: a lookup table is unavailable";
                Err(Outcome::deferred("none", Dsn::new(4, 3, 0), text))
            }
        }
    }
}
