//! Which transport takes a recipient, and which destination it counts for.

use config::{Config, param};
use ipc::log;
use lookup::resolve::Resolver;
use mail::{Address, Dsn, Outcome};
use queue::Message;
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
    /// `content_filter`; empty for none.
    filter: String,
    /// `default_filter_nexthop`
    filter_nexthop: String,
    myhostname: String,
}

impl Router {
    pub(crate) fn new(config: &Config) -> Result<Self, Fatal> {
        let resolver = Resolver::new(config).map_err(|error| Fatal::new(error.to_string()))?;
        Ok(Self {
            resolver,
            filter: config.get(param::CONTENT_FILTER),
            filter_nexthop: config.get(param::DEFAULT_FILTER_NEXTHOP),
            myhostname: config.get(param::MYHOSTNAME),
        })
    }

    /// The content filter that a message goes through. One that the operator put back into the queue goes through what
    /// main.cf names by now: so mail gets past a filter that was given up.
    pub(crate) fn filter_of<'a>(&'a self, message: &'a Message) -> Option<&'a str> {
        if message.is_requeued() {
            return Some(self.filter.as_str()).filter(|filter| !filter.is_empty());
        }
        message.content_filter()
    }

    /// The way of a recipient of a message that goes through the content filter `transport:nexthop` first.
    pub(crate) fn way_through(&self, filter: &str, recipient: &Address) -> Way {
        let (transport, nexthop) = filter.split_once(':').unwrap_or((filter, ""));
        let nexthop = match nexthop {
            "" if !self.filter_nexthop.is_empty() => &self.filter_nexthop,
            "" => recipient.domain().unwrap_or(&self.myhostname),
            nexthop => nexthop,
        };
        Way { transport: transport.to_owned(), nexthop: nexthop.to_owned(), recipient: recipient.clone() }
    }

    /// The way of a recipient, or the deferral where a table cannot tell.
    pub(crate) fn way_of(&self, sender: &Address, recipient: &Address) -> Result<Way, Box<Outcome>> {
        match self.resolver.resolve(sender, recipient) {
            Ok(route) => {
                Ok(Way { transport: route.transport, nexthop: route.nexthop, recipient: route.recipient })
            }
            Err(error) => {
                log::warning!("resolve <{recipient}>: {error}");
                let text = "address resolver failure: a lookup table is unavailable";
                Err(Box::new(Outcome::deferred("none", Dsn::new(4, 3, 0), text)))
            }
        }
    }
}
