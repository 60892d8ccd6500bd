//! Keys in one case.

use std::borrow::Cow;

/// `key` in lower case, as tables with fixed keys store and look it up.
///
/// Each character is folded by itself. `str::to_lowercase` is not used because it looks at the neighbours of a Greek
/// sigma, so that a key and its part could fold differently.
#[must_use]
pub fn fold(key: &str) -> Cow<'_, str> {
    if key.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii()) {
        Cow::Owned(key.chars().flat_map(char::to_lowercase).collect())
    } else {
        Cow::Borrowed(key)
    }
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn every_character_is_folded_by_itself() {
        assert_eq!(fold("jane@example"), "jane@example");
        assert_eq!(fold("Jane@EXAMPLE"), "jane@example");
        assert_eq!(fold("JÜRGEN"), "jürgen");
        assert_eq!(fold("ΣΑΣ"), "σασ");
    }
}
