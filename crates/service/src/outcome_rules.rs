//! What the configuration changes about outcomes, whatever agent gave them: `soft_bounce` and
//! `…_delivery_status_filter`.

use config::{Config, param};
use ipc::log;
use lookup::Maps;
use mail::{Dsn, Outcome};

use crate::Fatal;

/// The rules of one program.
#[derive(Default)]
pub(crate) struct OutcomeRules {
    /// `soft_bounce`
    pub(crate) soft_bounce: bool,
    pub(crate) filter: Maps,
}

impl OutcomeRules {
    /// # Errors
    /// A filter that can never be a table.
    pub(crate) fn new(config: &Config, program: &str) -> Result<Self, Fatal> {
        let own = format!("{program}_delivery_status_filter");
        let named =
            if config::find(&own).is_some() { own.as_str() } else { "default_delivery_status_filter" };
        let specs = config::split_list(&config.text(named).unwrap_or_default());
        let filter = Maps::open(&specs).map_err(|error| Fatal::new(format!("{named}: {error}")))?;
        Ok(Self { soft_bounce: config.get(param::SOFT_BOUNCE), filter })
    }

    /// The outcome as the filter wants it: `CODE text` is looked up, and what is found stands for it. A delivery cannot
    /// become a failure, nor a failure a delivery: the filter would lie about where the message is.
    pub(crate) fn filtered(&self, outcome: Outcome) -> Outcome {
        if self.filter.is_empty() {
            return outcome;
        }
        let found = match self.filter.get(&format!("{} {}", outcome.dsn, outcome.text)) {
            Ok(Some(found)) => found,
            Ok(None) => return outcome,
            Err(error) => {
                log::warning!("delivery status filter: {error}");
                return outcome;
            }
        };
        let (code, text) = found.split_once([' ', '\t']).unwrap_or((&found, ""));
        let Ok(dsn) = code.parse::<Dsn>() else {
            log::warning!(
                "delivery status filter: \"{found}\" does not begin with a status code such as 4.7.1"
            );
            return outcome;
        };
        if (dsn.class() == 2) != (outcome.dsn.class() == 2) {
            log::warning!("delivery status filter: \"{found}\" would turn {} into {dsn}", outcome.dsn);
            return outcome;
        }
        let text = if text.trim().is_empty() { outcome.text.clone() } else { text.trim().to_owned() };
        let status = match dsn.class() {
            2 => outcome.status,
            4 => mail::Status::Deferred,
            _ => mail::Status::Bounced,
        };
        Outcome { status, dsn, text, ..outcome }
    }
}

#[cfg(test)]
mod tests {
    use mail::Status;

    use super::*;

    fn shown(outcome: Outcome) -> String {
        let specs =
            ["inline:{{5.1.1 no = 4.1.1 later}, {2.0.0 ok = 5.0.0 lie}, {4.0.0 a = x}, {2.0.0 b = 2.1.5}}"];
        let filter = Maps::open(&specs.map(str::to_owned)).unwrap();
        let outcome = OutcomeRules { soft_bounce: false, filter }.filtered(outcome);
        format!("{} {} {}", outcome.status.as_str(), outcome.dsn, outcome.text)
    }

    #[test]
    fn failures_change_their_class_and_deliveries_stay_deliveries() {
        let dsn = Dsn::new(5, 1, 1);
        assert_eq!(shown(Outcome::bounced("x", dsn, "no")), "deferred 4.1.1 later");
        assert_eq!(shown(Outcome::bounced("x", dsn, "other")), "bounced 5.1.1 other");
        assert_eq!(shown(Outcome::sent("x", "ok")), "sent 2.0.0 ok");
        assert_eq!(shown(Outcome::sent("x", "b")), "sent 2.1.5 b");
        let deferred = Outcome::deferred("x", Dsn::new(4, 0, 0), "a");
        assert_eq!(deferred.status, Status::Deferred);
        assert_eq!(shown(deferred), "deferred 4.0.0 a");
    }
}
