//! Whether a certificate is that of the server that was meant (RFC 6125, with Postfix's patterns).

/// Whether a name in a certificate matches what was asked for: `mail.example.com`, or `.example.com` for any name below it.
/// `many` says whether the asterisk of a certificate stands for more than one label (`tls_wildcard_matches_multiple_labels`).
#[must_use]
pub(super) fn matches(certified: &str, wanted: &str, many: bool) -> bool {
    let certified = certified.strip_suffix('.').unwrap_or(certified);
    let wanted = wanted.strip_suffix('.').unwrap_or(wanted);
    if wanted.is_empty() || wanted == "." {
        return false;
    }
    if wanted.starts_with('.') {
        // A pattern of the operator's: what lies below the domain, whatever it is.
        return split_at_end(certified, wanted).is_some_and(|rest| !rest.is_empty());
    }
    if certified.eq_ignore_ascii_case(wanted) {
        return true;
    }
    // RFC 6125 section 6.4.3: the asterisk is the whole leftmost label, and not all of the name.
    let Some(domain) =
        certified.strip_prefix('*').filter(|domain| domain.len() > 1 && domain.starts_with('.'))
    else {
        return false;
    };
    split_at_end(wanted, domain).is_some_and(|rest| !rest.is_empty() && (many || !rest.contains('.')))
}

/// What of `name` stands before `end`.
fn split_at_end<'a>(name: &'a str, end: &str) -> Option<&'a str> {
    let at = name.len().checked_sub(end.len())?;
    let tail = name.get(at..)?;
    tail.eq_ignore_ascii_case(end).then(|| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn names_match_as_in_postfix() {
        for (certified, wanted, many, expected) in [
            ("mail.example.com", "MAIL.example.com", true, true),
            ("mail.example.com", "mail.example.org", true, false),
            ("*.example.com", "mail.example.com", false, true),
            ("*.example.com", "a.b.example.com", false, false),
            ("*.example.com", "a.b.example.com", true, true),
            ("*.example.com", "example.com", true, false),
            ("mail.example.com", ".example.com", true, true),
            ("*.example.com", ".example.com", true, true),
            ("example.com", ".example.com", true, false),
            ("badexample.com", ".example.com", true, false),
            ("m*.example.com", "mail.example.com", true, false),
            ("*", "localhost", true, false),
            ("*.", "localhost", true, false),
            ("mail.example.com.", "mail.example.com", true, true),
            ("", "", true, false),
            ("x", ".", true, false),
        ] {
            assert_eq!(matches(certified, wanted, many), expected, "{certified} {wanted} {many}");
        }
    }
}
