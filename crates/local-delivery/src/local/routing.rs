//! Which addresses of an expansion this agent delivers itself.

use config::Config;
use lookup::LookupError;
use lookup::resolve::Resolver;
use lookup::rewrite::{RewriteContext, Rewriter};
use mail::Address;
use service::Fatal;

/// An address of an expansion, completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Routed {
    /// It comes back to this agent.
    Local(Address),
    /// It goes elsewhere.
    Remote(Address),
}

pub(super) struct Routing {
    rewriter: Rewriter,
    resolver: Resolver,
    /// The master.cf service this agent is.
    service: String,
}

impl Routing {
    pub(super) fn new(config: &Config, service: &str) -> Result<Self, Fatal> {
        let resolver = Resolver::new(config).map_err(|error| Fatal::new(error.to_string()))?;
        Ok(Self { rewriter: Rewriter::new(config), resolver, service: service.to_owned() })
    }

    /// Completes an address as it was written in an alias, and says whose it is.
    pub(super) fn route(&self, sender: &Address, address: &Address) -> Result<Routed, LookupError> {
        let standard = self.complete(address);
        let route = self.resolver.resolve(sender, &standard)?;
        Ok(if route.transport == self.service {
            Routed::Local(route.recipient)
        } else {
            Routed::Remote(standard)
        })
    }

    /// The address with a domain.
    pub(super) fn complete(&self, address: &Address) -> Address {
        self.rewriter.rewrite(address, RewriteContext::Local).into_owned()
    }
}
