//! What `tests/fuzz` reaches of the screening. No program uses it.

use std::sync::Arc;

use config::Config;
use smtp_proto::parameter::Extensions;

use super::passed::Passed;
use super::refusing::{Refusing, Step};
use super::settings::Settings;

/// What a client that has failed, and sends `pieces`, is told.
///
/// # Errors
/// A configuration that cannot work.
pub fn turned_away<'a>(
    config: &Config,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<String>, String> {
    let settings = Arc::new(Settings::new(config).map_err(|error| error.to_string())?);
    let refusal = "550 5.7.1 Service unavailable".to_owned();
    let mut dialogue = Refusing::new(&settings, ("192.0.2.1", 4711), Extensions::ALL_PLAIN, refusal);
    let mut told = Vec::new();
    for piece in pieces {
        dialogue.heard(piece);
        loop {
            match dialogue.step() {
                Step::Read => break,
                Step::Say(text) | Step::Reject(text, _) | Step::StartTls(text) => told.push(text),
                Step::Hurry(..) => {}
                Step::Offence(_, text) | Step::End(text) => {
                    told.push(text);
                    return Ok(told);
                }
            }
        }
    }
    Ok(told)
}

/// What is remembered of a client, read and written again.
#[must_use]
pub fn passed_entry(value: &str) -> Option<String> {
    Passed::from_value(value).map(Passed::to_value)
}
