//! `postroad doctor`: everything that must be right for mail to work, a line each, with what to do about it.
//!
//! Contract: nothing is changed and nothing is sent; the relay test ends before DATA. A check that cannot be made says so and
//! is no failure. What depends on the DNS is asked through [`dns::Dns`], so that tests give the answers.

pub mod dns;
pub mod domain;
pub mod finding;
mod host;
mod services;
mod smtp;
mod spf;
#[doc(hidden)]
pub use spf::is_permitted;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use config::{Config, Snapshot, param};
use lookup::interfaces::{Protocols, addresses};
use net::dns::{DnsSettings, Resolver};

use domain::Site;
use finding::{Level, Report};

/// Looks for what is wrong with a mail system: exit status 0 for nothing, 1 for warnings, 2 for failures.
#[derive(Debug, Parser)]
#[command(name = "postroad doctor", version)]
struct CommandLine {
    /// Directory of main.cf and master.cf.
    #[arg(short = 'c', value_name = "DIR", env = "MAIL_CONFIG", default_value = "/etc/postroad")]
    config_directory: PathBuf,
    /// The domain whose mail this host takes; without it, mydomain.
    domain: Option<String>,
    /// A selector of DKIM keys to look at, instead of the usual ones; may be given several times.
    #[arg(long, value_name = "NAME")]
    selector: Vec<String>,
    /// Ask no other host.
    #[arg(long)]
    offline: bool,
    /// Write the report as JSON.
    #[arg(long)]
    json: bool,
}

/// The program.
#[must_use]
pub fn run() -> ExitCode {
    let line = CommandLine::parse();
    let (snapshot, mut remarks) = match Snapshot::read(&line.config_directory) {
        Ok(read) => read,
        Err(remarks) => {
            let mut report = Report::default();
            let text = remarks.first().map(ToString::to_string).unwrap_or_default();
            report.fail("configuration", text, "give the directory of main.cf with -c");
            return print(&report, line.json);
        }
    };
    let (config, more) = Config::inspect(&line.config_directory, &snapshot, &[]);
    remarks.extend(more);
    let domain = line.domain.unwrap_or_else(|| config.get(param::MYDOMAIN));
    let mut report = Report::default();
    host::check(&config, &snapshot, &remarks, &domain, &mut report);
    let own = own_addresses(&config);
    services::check(&config, &own, &mut report);
    if line.offline {
        report.skip("dns", "resolver, mx, ptr, spf, dkim and dmarc: not asked for (--offline)");
    } else {
        let resolver = Resolver::system(DnsSettings { dnssec: true, ..DnsSettings::default() });
        let site = Site {
            dns: &resolver,
            domain: &domain,
            host: &config.get(param::MYHOSTNAME),
            addresses: own.into_iter().filter(|ip| is_public(*ip)).collect(),
            selectors: line.selector,
        };
        domain::check(&site, &mut report);
    }
    print(&report, line.json)
}

/// The addresses that this host takes mail at or is seen by, other than those of the loopback interface.
fn own_addresses(config: &Config) -> Vec<IpAddr> {
    let protocols = Protocols::new(&config.get(param::INET_PROTOCOLS));
    let of = |name: &str, items: &[String]| addresses(name, items, protocols).unwrap_or_default();
    let mut found = of("proxy_interfaces", &config.get(param::PROXY_INTERFACES));
    found.extend(of("inet_interfaces", &config.get(param::INET_INTERFACES)));
    found.retain(|ip| !ip.is_loopback() && !ip.is_unspecified());
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether others can reach the address.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !(v4.is_private() || v4.is_link_local()),
        IpAddr::V6(v6) => !(v6.is_unicast_link_local() || v6.is_unique_local()),
    }
}

fn print(report: &Report, json: bool) -> ExitCode {
    let mut out = io::stdout().lock();
    // A reader that closed the pipe has seen what it wanted.
    if json {
        let text = serde_json::to_string_pretty(&report.findings).unwrap_or_default();
        let _ = writeln!(out, "{text}");
        return ExitCode::from(report.exit_status());
    }
    for finding in &report.findings {
        let word = match finding.level {
            Level::Pass => "pass",
            Level::Skip => "skip",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        let _ = writeln!(out, "{word}  {:<13}  {}", finding.check, finding.text);
        if !finding.advice.is_empty() {
            let _ = writeln!(out, "{:21}→ {}", "", finding.advice);
        }
    }
    ExitCode::from(report.exit_status())
}
