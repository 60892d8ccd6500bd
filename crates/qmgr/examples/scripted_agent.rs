//! A delivery agent that does what a file says, to try the queue manager with: put it in the place of an agent of an
//! instance, and write `ok`, `dead`, `defer` or `bounce` into `data_directory/agent`, with milliseconds that each
//! delivery takes behind it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use config::param;
use ipc::agent::SiteFailure;
use mail::{Dsn, Outcome};
use service::{Delivery, Results, SiteAgent};

struct Scripted {
    script: PathBuf,
}

impl SiteAgent for Scripted {
    fn deliver(&self, _: &Delivery, results: &mut Results<'_>) -> Option<SiteFailure> {
        let script = std::fs::read_to_string(&self.script).unwrap_or_default();
        let mut words = script.split_whitespace();
        let word = words.next().unwrap_or("ok");
        let pause = words.next().and_then(|word| word.parse().ok()).unwrap_or_default();
        std::thread::sleep(Duration::from_millis(pause));
        let text = "connect to 127.0.0.1[127.0.0.1]:25: Connection refused";
        let outcome = match word {
            "dead" => Outcome::deferred("none", Dsn::new(4, 4, 1), text),
            "defer" => Outcome::deferred("scripted", Dsn::new(4, 2, 0), "try again later"),
            "bounce" => Outcome::bounced("scripted", Dsn::new(5, 1, 1), "user unknown"),
            _ => Outcome::sent("scripted", "taken"),
        };
        for position in results.undecided() {
            results.give(position, outcome.clone());
        }
        (word == "dead").then(|| SiteFailure { dsn: Dsn::new(4, 4, 1), text: text.into() })
    }
}

fn main() -> ExitCode {
    service::daemon("smtp", |service| {
        let data: PathBuf = service.config.get(param::DATA_DIRECTORY);
        service.serve_site_deliveries(Scripted { script: data.join("agent") })
    })
}
