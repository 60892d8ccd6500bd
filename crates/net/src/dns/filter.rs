//! `smtp_dns_reply_filter`: records of an answer that are passed over, for hosts whose records cannot be lived with.
//!
//! A record is looked up as a line, `name ttl class type preference value`: names end in a dot, the class is always `IN`,
//! the preference is there for MX alone. An answer of which nothing is left is none for the moment: mail waits.

use std::fmt;
use std::fmt::Write as _;

use hickory_resolver::proto::rr::RData;
use lookup::{Maps, OpenError};

use super::servers::{Found, text_of};

/// The tables of one of the parameters.
#[derive(Clone)]
pub struct ReplyFilter {
    parameter: &'static str,
    maps: Maps,
}

impl fmt::Debug for ReplyFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyFilter").field("parameter", &self.parameter).finish_non_exhaustive()
    }
}

/// Why an answer is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Nothing is left of it.
    Emptied,
    /// The tables cannot be asked, or say what is no action; the log has it.
    Unusable,
}

impl ReplyFilter {
    /// The tables of `parameter`; none where it is empty.
    ///
    /// # Errors
    /// A table that cannot be one.
    pub fn open(parameter: &'static str, tables: &str) -> Result<Option<Self>, OpenError> {
        let maps = Maps::open(&config::split_list(tables))
            .map_err(|error| OpenError::Configuration(format!("{parameter}: {error}")))?;
        Ok((!maps.is_empty()).then_some(Self { parameter, maps }))
    }

    /// Takes out what is to be passed over.
    pub(super) fn apply(&self, found: Found) -> Result<Found, Refused> {
        let mut left = Vec::with_capacity(found.records.len());
        for (ttl, data) in found.records {
            let line = line(&found.canonical, ttl, &data);
            if self.ignores(&line)? {
                ipc::log::info!("ignoring DNS RR: {line}");
            } else {
                left.push((ttl, data));
            }
        }
        if left.is_empty() { Err(Refused::Emptied) } else { Ok(Found { records: left, ..found }) }
    }

    fn ignores(&self, line: &str) -> Result<bool, Refused> {
        let action = self.maps.get(line).map_err(|error| {
            ipc::log::warning!("{}: {error}", self.parameter);
            Refused::Unusable
        })?;
        match action.as_deref().map(str::trim) {
            None => Ok(false),
            Some(action) if action.eq_ignore_ascii_case("IGNORE") => Ok(true),
            Some(action) => {
                let parameter = self.parameter;
                ipc::log::warning!("{parameter}: unknown DNS filter action: \"{action}\"");
                Err(Refused::Unusable)
            }
        }
    }
}

/// A record as it is looked up.
fn line(name: &str, ttl: u32, data: &RData) -> String {
    let mut line = format!("{} {ttl} IN {} ", absolute(name), data.record_type());
    let _ = match data {
        RData::A(a) => write!(line, "{}", a.0),
        RData::AAAA(aaaa) => write!(line, "{}", aaaa.0),
        RData::MX(mx) => write!(line, "{} {}", mx.preference, absolute(&text_of(&mx.exchange))),
        RData::NS(name) => write!(line, "{}", absolute(&text_of(name))),
        RData::PTR(name) => write!(line, "{}", absolute(&text_of(name))),
        RData::SRV(srv) => {
            let target = absolute(&text_of(&srv.target));
            write!(line, "{} {} {} {target}", srv.priority, srv.weight, srv.port)
        }
        RData::TXT(txt) => write!(line, "{}", String::from_utf8_lossy(&txt.txt_data.concat())),
        RData::TLSA(tlsa) => {
            let (usage, selector) = (u8::from(tlsa.cert_usage), u8::from(tlsa.selector));
            let begun = write!(line, "{usage} {selector} {} ", u8::from(tlsa.matching));
            begun.and_then(|()| tlsa.cert_data.iter().try_for_each(|byte| write!(line, "{byte:02X}")))
        }
        other => write!(line, "{other}"),
    };
    line
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::super::{DnsError, Family};
    use super::*;
    use crate::dns::fake::FakeServer;

    fn filter(table: &str) -> ReplyFilter {
        ReplyFilter::open("smtp_dns_reply_filter", table).unwrap().unwrap()
    }

    #[test]
    fn records_are_passed_over_by_their_lines() {
        let server = FakeServer::start();
        let all = server.resolver();
        assert!(all.addresses("both.example", Family::Any).unwrap().value.len() > 1);
        let four = all.clone().filtered(filter("regexp:{{/ IN AAAA /  IGNORE}}"));
        let found = four.addresses("both.example", Family::Any).unwrap().value;
        assert!(!found.is_empty() && found.iter().all(std::net::IpAddr::is_ipv4), "{found:?}");
        let error = four.addresses("both.example", Family::V6).unwrap_err();
        assert!(matches!(&error, DnsError::Filtered { .. }) && error.is_temporary(), "{error:?}");
        assert_eq!(
            error.to_string(),
            "Error looking up name=both.example type=AAAA: DNS reply filter drops all results"
        );
        let odd = all.clone().filtered(filter("regexp:{{/./ REJECT}}"));
        let error = odd.addresses("both.example", Family::V4).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Error looking up name=both.example type=A: Invalid DNS reply filter syntax"
        );
        assert!(ReplyFilter::open("smtp_dns_reply_filter", "").unwrap().is_none());
    }

    #[test]
    fn lines_are_as_the_manual_has_them() {
        use hickory_resolver::proto::rr::Name;
        use hickory_resolver::proto::rr::rdata::{A, MX};
        let mx = RData::MX(MX::new(10, Name::from_ascii("mx.example.").unwrap()));
        assert_eq!(line("example", 300, &mx), "example. 300 IN MX 10 mx.example.");
        assert_eq!(line("mx.example.", 5, &RData::A(A::new(192, 0, 2, 1))), "mx.example. 5 IN A 192.0.2.1");
    }
}
