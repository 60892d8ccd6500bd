//! The asynchronous half: the name servers, asked one after the other, and what they said before.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::config::{NameServerConfig, ResolverOpts, ServerOrderingStrategy};
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError as HickoryError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, ResponseCache, TlsConfig, TtlConfig};

use super::DnsSettings;
use super::resolv_conf::ResolvConf;
use super::sockets::Sockets;

/// Answers that are remembered.
const CACHE_SIZE: u64 = 4096;

/// The longest that an answer is used without asking again, and that nothing is taken for an answer.
const TTL_LIMIT: Duration = Duration::from_secs(86_400);
const NEGATIVE_TTL_LIMIT: Duration = Duration::from_secs(3600);

/// Aliases of aliases that are followed beyond what one answer has.
const ALIAS_LIMIT: usize = 10;

/// How long a server that did not answer is asked last.
const SHUNNED: Duration = Duration::from_secs(30);

/// Queries over one connection that may wait for their answers: more than threads ask at once.
const REQUEST_LIMIT: usize = 4096;

/// The records of an answer, and what is known about it.
#[derive(Debug)]
pub(super) struct Found {
    /// With their times to live; they all belong to `canonical`.
    pub(super) records: Vec<(u32, RData)>,
    pub(super) secure: bool,
    pub(super) ttl: Duration,
    pub(super) canonical: String,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Failure {
    NotFound,
    NoData,
    Circle,
    Temporary(String),
}

/// The servers of one resolv.conf, and their answers.
pub(super) struct Servers {
    conf: ResolvConf,
    list: Vec<Server>,
    turn: AtomicUsize,
    cache: ResponseCache,
    dnssec: bool,
    completes_names: bool,
    searches_domains: bool,
}

struct Server {
    address: String,
    handle: NameServerPool<Sockets>,
    shunned_until: Mutex<Option<Instant>>,
}

impl Servers {
    pub(super) fn new(conf: ResolvConf, settings: &DnsSettings) -> Result<Self, NetError> {
        let mut options = ResolverOpts::default();
        options.timeout = conf.timeout;
        options.attempts = 0;
        options.num_concurrent_reqs = 1;
        options.max_active_requests = REQUEST_LIMIT;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.positive_max_ttl = Some(TTL_LIMIT);
        options.negative_max_ttl = Some(NEGATIVE_TTL_LIMIT);
        let cache = ResponseCache::new(CACHE_SIZE, TtlConfig::from_opts(&options));
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        let server = |address: &std::net::SocketAddr| {
            let mut config = match conf.tcp {
                true => NameServerConfig::tcp(address.ip()),
                false => NameServerConfig::udp_and_tcp(address.ip()),
            };
            for connection in &mut config.connections {
                connection.port = address.port();
            }
            Server {
                address: address.to_string(),
                handle: NameServerPool::from_config([config], Arc::clone(&context), Sockets::default()),
                shunned_until: Mutex::new(None),
            }
        };
        Ok(Self {
            list: conf.servers.iter().map(server).collect(),
            conf,
            turn: AtomicUsize::new(0),
            cache,
            dnssec: settings.dnssec,
            completes_names: settings.completes_names,
            searches_domains: settings.searches_domains,
        })
    }

    /// Finds the records of this name, which is a valid one, or of those that it may be short for.
    pub(super) async fn resolve(&self, name: &str, kind: RecordType) -> Result<Found, Failure> {
        let servers = u32::try_from(self.list.len()).unwrap_or(1);
        let attempts = u32::try_from(self.conf.attempts).unwrap_or(1);
        let limit = self.conf.timeout * servers * attempts + Duration::from_secs(1);
        match tokio::time::timeout(limit, self.resolve_any(name, kind)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Temporary(format!("no answer within {} seconds", limit.as_secs()))),
        }
    }

    async fn resolve_any(&self, name: &str, kind: RecordType) -> Result<Found, Failure> {
        let mut failure = Failure::NotFound;
        for candidate in self.candidates(name) {
            let Ok(candidate) = Name::from_ascii(format!("{candidate}.")) else { continue };
            match self.follow(candidate, kind).await {
                Ok(found) => return Ok(found),
                // That a name exists, or might, says more than that another one does not.
                Err(Failure::NotFound) => {}
                Err(temporary @ Failure::Temporary(_)) => return Err(temporary),
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    /// The names that this one may stand for, in the order of resolver(3).
    fn candidates(&self, name: &str) -> Vec<String> {
        let dots = name.matches('.').count();
        let wanted = match (dots, self.searches_domains) {
            (_, true) => usize::MAX,
            (0, false) if self.completes_names => 1,
            _ => 0,
        };
        let mut names: Vec<String> =
            self.conf.search.iter().take(wanted).map(|domain| format!("{name}.{domain}")).collect();
        let position = if dots >= self.conf.ndots { 0 } else { names.len() };
        names.insert(position, name.to_owned());
        names
    }

    /// Asks, and follows aliases: those within an answer, and those that lead to another question.
    async fn follow(&self, name: Name, kind: RecordType) -> Result<Found, Failure> {
        let mut name = name;
        let mut secure = self.dnssec;
        let mut ttl = TTL_LIMIT;
        for _ in 0..ALIAS_LIMIT {
            let message = self.ask(&name, kind).await?;
            secure &= message.metadata.authentic_data;
            let end = end_of_aliases(&message, name.clone(), &mut ttl);
            let mut records = Vec::new();
            for record in message.answers.iter().filter(|r| r.record_type() == kind && r.name == end) {
                ttl = ttl.min(Duration::from_secs(record.ttl.into()));
                records.push((record.ttl, record.data.clone()));
            }
            if !records.is_empty() {
                return Ok(Found { records, secure, ttl, canonical: text_of(&end) });
            }
            if message.metadata.response_code == ResponseCode::NXDomain {
                return Err(Failure::NotFound);
            }
            if end == name {
                // Back where it started, or never left.
                let circle =
                    message.answers.iter().any(|r| r.record_type() == RecordType::CNAME && r.name == name);
                return Err(if circle { Failure::Circle } else { Failure::NoData });
            }
            name = end;
        }
        Err(Failure::Circle)
    }

    /// What is remembered, or else what the first server says that has something to say.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, Failure> {
        let query = Query::query(name.clone(), kind);
        if let Some(known) = self.cache.get(&query, Instant::now()) {
            return known.map_err(|error| failure_of(&error));
        }
        let mut cause = "no server to ask".to_owned();
        for _ in 0..self.conf.attempts {
            for server in self.order() {
                let result = server.query(&query, self.dnssec, self.conf.timeout).await;
                match &result {
                    Err(error) if !is_definite(error) => cause = format!("{}: {error}", server.address),
                    _ => {
                        server.shun(None);
                        self.cache.insert(query, result.clone(), Instant::now());
                        return result.map_err(|error| failure_of(&error));
                    }
                }
                server.shun(Instant::now().checked_add(SHUNNED));
            }
        }
        Err(Failure::Temporary(cause))
    }

    /// The servers, those that were silent lately last.
    fn order(&self) -> Vec<&Server> {
        let mut order: Vec<&Server> = self.list.iter().collect();
        if self.conf.rotates {
            order.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % self.list.len().max(1));
        }
        order.sort_by_cached_key(|server| server.is_shunned());
        order
    }
}

impl Server {
    async fn query(&self, query: &Query, dnssec: bool, timeout: Duration) -> Result<Message, NetError> {
        match self.query_once(query, dnssec, true, timeout).await {
            // A server of before 1999 that does not know what EDNS is: RFC 6891 section 7.
            Err(NetError::Dns(HickoryError::ResponseCode(ResponseCode::FormErr | ResponseCode::NotImp))) => {
                self.query_once(query, dnssec, false, timeout).await
            }
            result => result,
        }
    }

    async fn query_once(
        &self,
        query: &Query,
        dnssec: bool,
        edns: bool,
        timeout: Duration,
    ) -> Result<Message, NetError> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = edns;
        options.edns_set_dnssec_ok = dnssec;
        options.recursion_desired = true;
        let (mut message, options) = DnsRequest::from_query(query.clone(), options).into_parts();
        // The AD bit in a question says that the one in the answer is understood: RFC 6840 section 5.7.
        message.metadata.authentic_data = dnssec;
        // A truncated answer is asked for again over TCP, which may take as long once more.
        let answer = self.handle.send(DnsRequest::new(message, options)).first_answer();
        match tokio::time::timeout(timeout * 2, answer).await {
            Ok(response) => response.map(hickory_resolver::proto::op::DnsResponse::into_message),
            Err(_) => Err(NetError::Timeout),
        }
    }

    fn shun(&self, until: Option<Instant>) {
        *self.shunned_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    fn is_shunned(&self) -> bool {
        let until = *self.shunned_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

/// Whether this is an answer, if a negative one. That a server points to other servers only says that it does not recurse.
fn is_definite(error: &NetError) -> bool {
    match error {
        NetError::Dns(HickoryError::NoRecordsFound(NoRecords { response_code, soa, ns, .. })) => {
            *response_code == ResponseCode::NXDomain || soa.is_some() || ns.is_none()
        }
        _ => false,
    }
}

fn failure_of(error: &NetError) -> Failure {
    match error {
        NetError::Dns(HickoryError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Failure::NotFound,
            _ => Failure::NoData,
        },
        other => Failure::Temporary(other.to_string()),
    }
}

/// Where the aliases of this answer lead from this name.
fn end_of_aliases(message: &Message, name: Name, ttl: &mut Duration) -> Name {
    let mut end = name;
    // A circle ends with the number of records.
    for _ in &message.answers {
        let next = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == end => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        let Some((target, seconds)) = next else { break };
        *ttl = (*ttl).min(Duration::from_secs(seconds.into()));
        end = target;
    }
    end
}

/// A name without its final dot; the root's is that dot.
pub(super) fn text_of(name: &Name) -> String {
    let text = name.to_ascii();
    match text.strip_suffix('.') {
        Some(bare) if !bare.is_empty() => bare.to_owned(),
        _ if text.is_empty() => ".".to_owned(),
        _ => text,
    }
}
