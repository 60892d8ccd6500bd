//! The standard form of addresses: what is incomplete is completed, old ways of writing a route become `user@domain`.
//!
//! These are the rules of Postfix's trivial-rewrite(8), made on the internal form of an address: a local part that
//! needs quotes is one word whose `!` and `%` mean nothing. Source routes are gone by then: whoever parses the external
//! form of an address (RFC 5321 appendix C) drops them.

use std::borrow::Cow;

use mail::Address;

use crate::address_search::is_quoted_outside;

/// Whose incomplete addresses are completed, and so with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RewriteContext {
    /// Envelopes, and the headers of local submissions: with `myorigin` and `mydomain`.
    Local,
    /// Headers from elsewhere: with `remote_header_rewrite_domain`, or not at all where that is empty.
    Remote,
}

/// The rules in force.
#[derive(Clone, Debug)]
pub struct Rewriter {
    pub(crate) swap_bangpath: bool,
    pub(crate) allow_percent_hack: bool,
    pub(crate) append_at_myorigin: bool,
    pub(crate) append_dot_mydomain: bool,
    pub(crate) myorigin: Box<str>,
    pub(crate) mydomain: Box<str>,
    pub(crate) remote_header_rewrite_domain: Box<str>,
}

impl Rewriter {
    /// Whether headers from remote clients are rewritten at all.
    #[must_use]
    pub fn rewrites_remote_headers(&self) -> bool {
        !self.remote_header_rewrite_domain.is_empty()
    }

    /// The address in standard form. The null address stays null; most addresses come back as they are, borrowed.
    ///
    /// An address that would become longer than an address may be is left alone.
    #[must_use]
    pub fn rewrite<'a>(&self, address: &'a Address, context: RewriteContext) -> Cow<'a, Address> {
        let standard = self.standard_form(address.as_str(), context);
        if standard == address.as_str() {
            return Cow::Borrowed(address);
        }
        Address::new(standard.into_owned()).map_or(Cow::Borrowed(address), Cow::Owned)
    }

    pub(crate) fn standard_form<'a>(&self, address: &'a str, context: RewriteContext) -> Cow<'a, str> {
        let (origin, domain) = match context {
            RewriteContext::Local => (&self.myorigin, &self.mydomain),
            RewriteContext::Remote => {
                (&self.remote_header_rewrite_domain, &self.remote_header_rewrite_domain)
            }
        };
        match address {
            "" | "@" => Cow::Borrowed(""),
            text if text.contains('@') => self.with_whole_domain(text.into(), domain),
            text => self.with_whole_domain(self.with_domain(text, origin), domain),
        }
    }

    /// `local`, which has no domain, with one: taken out of it, or appended.
    fn with_domain<'a>(&self, local: &'a str, origin: &str) -> Cow<'a, str> {
        if !is_quoted_outside(local) {
            if self.swap_bangpath
                && let Some((site, user)) = local.split_once('!')
            {
                return format!("{user}@{site}").into();
            }
            if self.allow_percent_hack
                && let Some((user, site)) = local.rsplit_once('%')
            {
                return format!("{user}@{site}").into();
            }
        }
        if self.append_at_myorigin && !origin.is_empty() {
            return format!("{local}@{origin}").into();
        }
        local.into()
    }

    /// `address` with `.mydomain` after a domain of one label, and without the dot after a domain. What is no domain at
    /// all is left to be refused as it is.
    fn with_whole_domain<'a>(&self, address: Cow<'a, str>, mydomain: &str) -> Cow<'a, str> {
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        if domain.is_empty() {
            return address;
        }
        if !domain.contains(['.', '[']) {
            let append = self.append_dot_mydomain && !mydomain.is_empty();
            return if append { format!("{address}.{mydomain}").into() } else { address };
        }
        match without_last_dot(domain) {
            Some(_) => address[..address.len() - 1].to_owned().into(),
            None => address,
        }
    }
}

/// `domain` without the dot at its end; `None` where there is none, or nothing but dots there.
pub(crate) fn without_last_dot(domain: &str) -> Option<&str> {
    domain.strip_suffix('.').filter(|rest| !rest.is_empty() && !rest.ends_with('.'))
}
