//! Which transport takes a recipient, and which destination it counts for.

use config::{Config, param};
use ipc::log;
use lookup::resolve::Resolver;
use lookup::{Absorbed, Class};
use mail::{Address, Dsn, Outcome, Trace};
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
    /// As `address_verify_*` has it, for probes; `None` where that is the same.
    probe_resolver: Option<Resolver>,
    absorbed: Absorbed,
    /// `content_filter`; empty for none.
    filter: String,
    /// `default_filter_nexthop`
    filter_nexthop: String,
    myhostname: String,
}

impl Router {
    pub(crate) fn new(config: &Config) -> Result<Self, Fatal> {
        let opened = |config: &Config| Resolver::new(config).map_err(|error| Fatal::new(error.to_string()));
        Ok(Self {
            resolver: opened(config)?,
            probe_resolver: probe_routing(config).map(|config| opened(&config)).transpose()?,
            absorbed: Absorbed::from_config(config),
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

    /// The way of a recipient, or what became of it without one: a deferral where a table cannot tell.
    pub(crate) fn way_of(
        &self,
        sender: &Address,
        recipient: &Address,
        trace: Trace,
    ) -> Result<Way, Box<Outcome>> {
        let of_probes = self.probe_resolver.as_ref().filter(|_| trace == Trace::Verification);
        match of_probes.unwrap_or(&self.resolver).resolve(sender, recipient) {
            // Nobody reads what is sent to the sender of notices and probes; there need not even be a mailbox.
            Ok(route) if route.class == Class::Local && self.absorbed.contains(&route.recipient) => {
                let text = "undeliverable postmaster notification discarded";
                Err(Box::new(Outcome::sent("none", text)))
            }
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

/// The configuration that probes are routed by, where it differs: each parameter of routing has one for them.
fn probe_routing(config: &Config) -> Option<Config> {
    let mut own = config.clone();
    let mut differs = false;
    for name in [
        "relayhost",
        "transport_maps",
        "local_transport",
        "virtual_transport",
        "relay_transport",
        "default_transport",
        "sender_dependent_relayhost_maps",
        "sender_dependent_default_transport_maps",
    ] {
        let (usual, probes) = (config.text(name), config.text(&format!("address_verify_{name}")));
        if let Some(probes) = probes.filter(|probes| usual.as_ref() != Some(probes)) {
            own = own.with_text(name, &probes);
            differs = true;
        }
    }
    differs.then_some(own)
}
