//! From the text of a value to a Rust value.

use std::path::PathBuf;
use std::time::Duration;

use crate::pace::{Feedback, Rate};
use crate::parameter::{Kind, Parameter};

/// A Rust type that a parameter can have.
pub trait Value: Sized + Default {
    /// Reads the expanded text of a value.
    ///
    /// # Errors
    /// Says what would be right, as in "must be a whole number".
    fn parse(text: &str, row: &Parameter) -> Result<Self, String>;
}

impl Value for String {
    fn parse(text: &str, row: &Parameter) -> Result<Self, String> {
        // The words of a choice may be written in any case; the program that asks sees one spelling.
        let choice = row.choices.iter().find(|choice| choice.eq_ignore_ascii_case(text));
        Ok(choice.unwrap_or(text).to_owned())
    }
}

impl Value for PathBuf {
    fn parse(text: &str, _: &Parameter) -> Result<Self, String> {
        Ok(text.into())
    }
}

impl Value for Vec<String> {
    fn parse(text: &str, _: &Parameter) -> Result<Self, String> {
        Ok(split_list(text))
    }
}

impl Value for bool {
    fn parse(text: &str, _: &Parameter) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("yes") {
            Ok(true)
        } else if text.eq_ignore_ascii_case("no") {
            Ok(false)
        } else {
            Err("must be yes or no".to_owned())
        }
    }
}

impl Value for u64 {
    fn parse(text: &str, row: &Parameter) -> Result<Self, String> {
        within(digits(text).ok_or("must be a whole number")?, row, "")
    }
}

impl Value for u32 {
    fn parse(text: &str, row: &Parameter) -> Result<Self, String> {
        u64::parse(text, row)?.try_into().map_err(|_| format!("must be at most {}", u32::MAX))
    }
}

impl Value for usize {
    fn parse(text: &str, row: &Parameter) -> Result<Self, String> {
        u64::parse(text, row)?.try_into().map_err(|_| format!("must be at most {}", usize::MAX))
    }
}

impl Value for i64 {
    fn parse(text: &str, _: &Parameter) -> Result<Self, String> {
        text.parse().map_err(|_| "must be a whole number".to_owned())
    }
}

impl Value for Duration {
    fn parse(text: &str, row: &Parameter) -> Result<Self, String> {
        const RIGHT: &str = "must be a number followed by s, m, h, d or w";
        let number_ends = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(number_ends);
        let scale = match unit {
            "" => seconds_per(row.unit),
            "s" | "m" | "h" | "d" | "w" => seconds_per(unit.chars().next().unwrap_or('s')),
            _ => return Err(RIGHT.to_owned()),
        };
        let number = digits(number).ok_or(RIGHT)?;
        let seconds = number.checked_mul(scale).filter(|seconds| *seconds <= LONGEST_TIME);
        let seconds = seconds.ok_or("is too long a time")?;
        Ok(Self::from_secs(within(seconds, row, " seconds")?))
    }
}

/// The longest time in seconds, as in Postfix: some 68 years, and far from where dates overflow.
const LONGEST_TIME: u64 = i32::MAX as u64;

/// Whether `text` can be the value of a parameter; says what would be right if not.
pub(crate) fn check(text: &str, row: &Parameter) -> Result<(), String> {
    match row.kind {
        Kind::Bool => bool::parse(text, row).map(drop),
        Kind::Int => u64::parse(text, row).map(drop),
        Kind::Time => Duration::parse(text, row).map(drop),
        Kind::Rate => Rate::parse(text, row).map(drop),
        Kind::Feedback => Feedback::parse(text, row).map(drop),
        Kind::Choice if text.is_empty() && row.default.is_empty() => Ok(()),
        Kind::Choice if row.choices.iter().any(|choice| choice.eq_ignore_ascii_case(text)) => Ok(()),
        Kind::Choice => Err(format!("must be one of: {}", row.choices.listed())),
        Kind::Text | Kind::Raw | Kind::Path | Kind::List if text.is_empty() && row.minimum > 0 => {
            Err("must not be empty".to_owned())
        }
        Kind::List
            if !row.choices.is_empty() && !split_list(text).iter().all(|item| row.choices.contains(item)) =>
        {
            Err(format!("each item must be one of: {}", row.choices.listed()))
        }
        Kind::Text | Kind::Raw | Kind::Path | Kind::List => Ok(()),
    }
}

/// The items of a list: separated by commas, white space or both; `{…}` keeps its inside together, braces included.
#[must_use]
pub fn split_list(text: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut item = String::new();
    let mut depth = 0_usize;
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' | ' ' | '\t' | '\r' | '\n' if depth == 0 => {
                if !item.is_empty() {
                    items.push(std::mem::take(&mut item));
                }
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    if !item.is_empty() {
        items.push(item);
    }
    items
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn within(number: u64, row: &Parameter, unit: &str) -> Result<u64, String> {
    if number < row.minimum {
        Err(format!("must be at least {}{unit}", row.minimum))
    } else if number > row.maximum {
        Err(format!("must be at most {}{unit}", row.maximum))
    } else {
        Ok(number)
    }
}

fn seconds_per(unit: char) -> u64 {
    match unit {
        'w' => 7 * 24 * 3600,
        'd' => 24 * 3600,
        'h' => 3600,
        'm' => 60,
        _ => 1,
    }
}
