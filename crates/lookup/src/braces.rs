//! Postfix's brace grammar: lists whose items may be `{…}`, and `name = value` pairs.

/// Splits a list at commas and white space that stand outside of `{…}`. Items keep their braces.
///
/// # Errors
/// A brace without its partner.
pub fn split_list(text: &str) -> Result<Vec<&str>, String> {
    let mut items = Vec::new();
    let mut depth = 0usize;
    let mut start = None;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1).ok_or_else(|| format!("`}}` without `{{` in \"{text}\""))?;
            }
            _ => {}
        }
        let separator = depth == 0 && (c == ',' || c.is_ascii_whitespace());
        match start {
            None if !separator => start = Some(at),
            Some(from) if separator => {
                items.push(&text[from..at]);
                start = None;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(format!("missing `}}` in \"{text}\""));
    }
    items.extend(start.map(|from| &text[from..]));
    Ok(items)
}

/// What stands between the braces of `{ … }`, without white space at its ends; `None` where `text` is not one group in
/// braces from its first to its last character.
pub(crate) fn unbrace(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut depth = 0usize;
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    (depth == 0).then(|| inner.trim_ascii())
}

/// Splits `name = value` or `name=value`. White space around the name, the `=` and the value does not count.
pub(crate) fn split_pair(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    Some((name.trim_ascii(), value.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_split_outside_of_braces_only() {
        assert_eq!(split_list(" a, b  c,,d ").unwrap(), ["a", "b", "c", "d"]);
        assert_eq!(
            split_list("inline:{a=b, c=d}, { x y } z").unwrap(),
            ["inline:{a=b, c=d}", "{ x y }", "z"]
        );
        assert!(split_list("").unwrap().is_empty());
        assert!(split_list("{ a").is_err());
        assert!(split_list("a }").is_err());
    }

    #[test]
    fn only_a_whole_group_is_unbraced() {
        assert_eq!(unbrace("{ a {b} c }"), Some("a {b} c"));
        assert_eq!(unbrace("{a} {b}"), None);
        assert_eq!(unbrace("{a"), None);
        assert_eq!(unbrace("{}"), Some(""));
    }
}
