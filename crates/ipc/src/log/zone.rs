//! The time zone that people of this host read times in.

use std::fs;
use std::sync::OnceLock;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Where the host says it.
const LOCAL: &str = "/etc/localtime";

/// The host's time zone, or that of the environment; UTC where there is none.
///
/// The host's is read from its one file: jiff would look through all zones that there are to find its name, and keep all
/// their names, 150 KiB, in each program for as long as it runs.
pub fn zone() -> TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    let is_named = std::env::var_os("TZ").is_some_and(|name| !name.is_empty());
    ZONE.get_or_init(|| if is_named { TimeZone::system() } else { of_file(LOCAL) }).clone()
}

/// This moment, in [`zone`].
pub fn now() -> Zoned {
    Timestamp::now().to_zoned(zone())
}

fn of_file(path: &str) -> TimeZone {
    let zone = fs::read(path).ok().and_then(|data| TimeZone::tzif("Local", &data).ok());
    zone.unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_zone_says_what_its_name_says() {
        let path = "/usr/share/zoneinfo/Europe/Berlin";
        let Ok(named) = TimeZone::get("Europe/Berlin") else { return };
        for second in [0, 1_750_000_000, 1_790_000_000, 4_000_000_000] {
            let time = Timestamp::from_second(second).unwrap();
            let words = |zone: TimeZone| time.to_zoned(zone).strftime("%a %b %e %H:%M:%S %z %Z").to_string();
            assert_eq!(words(of_file(path)), words(named.clone()));
        }
        assert_eq!(of_file("/nowhere/at/all"), TimeZone::UTC);
    }
}
