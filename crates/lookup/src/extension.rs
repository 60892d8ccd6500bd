//! Address extensions: `user+extension@domain` and the characters that set them off.

/// `recipient_delimiter` with the local parts that are never split.
#[derive(Clone, Debug, Default)]
pub struct Delimiters {
    characters: Box<str>,
    owner_request_special: bool,
    double_bounce_sender: Box<str>,
}

impl Delimiters {
    /// Takes the values of `recipient_delimiter`, `owner_request_special` and `double_bounce_sender`.
    #[must_use]
    pub fn new(recipient_delimiter: &str, owner_request_special: bool, double_bounce_sender: &str) -> Self {
        Self {
            characters: recipient_delimiter.into(),
            owner_request_special,
            double_bounce_sender: double_bounce_sender.into(),
        }
    }

    /// Splits a local part at the first delimiter into the user and the extension, which keeps its delimiter.
    ///
    /// Not split are the addresses that must always work, an extension without a user, and, where `-` is a delimiter
    /// and `owner_request_special` is on, the names around mailing lists.
    #[must_use]
    pub fn split<'a>(&self, local: &'a str) -> Option<(&'a str, &'a str)> {
        if self.characters.is_empty() || self.is_reserved(local) {
            return None;
        }
        let at = local.find(|c| self.characters.contains(c))?;
        (at > 0).then(|| local.split_at(at))
    }

    fn is_reserved(&self, local: &str) -> bool {
        let reserved = ["postmaster", "mailer-daemon", &self.double_bounce_sender];
        reserved.iter().any(|name| local.eq_ignore_ascii_case(name))
            || (self.owner_request_special && self.characters.contains('-') && is_list_officer(local))
    }
}

/// `owner-LIST` or `LIST-request`.
fn is_list_officer(local: &str) -> bool {
    let starts = local.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("owner-"));
    let ends = local.len().checked_sub(8).filter(|at| *at > 0).and_then(|at| local.get(at..));
    starts || ends.is_some_and(|end| end.eq_ignore_ascii_case("-request"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_delimiters_splits() {
        let delimiters = Delimiters::new("+-", true, "double-bounce");
        assert_eq!(delimiters.split("jane+a-b"), Some(("jane", "+a-b")));
        assert_eq!(delimiters.split("jane-a+b"), Some(("jane", "-a+b")));
        assert_eq!(delimiters.split("jane+"), Some(("jane", "+")));
        assert_eq!(delimiters.split("+jane"), None);
        assert_eq!(delimiters.split("jane"), None);
        assert_eq!(Delimiters::new("", true, "double-bounce").split("jane+a"), None);
    }

    #[test]
    fn reserved_names_and_list_officers_are_whole() {
        let delimiters = Delimiters::new("-", true, "double-bounce");
        for whole in ["MAILER-DAEMON", "Double-Bounce", "owner-list", "OWNER-list-x", "list-request"] {
            assert_eq!(delimiters.split(whole), None, "{whole}");
        }
        assert_eq!(delimiters.split("-request"), None);
        assert_eq!(delimiters.split("list-requests"), Some(("list", "-requests")));
        let plain = Delimiters::new("-", false, "double-bounce");
        assert_eq!(plain.split("owner-list"), Some(("owner", "-list")));
        let plus = Delimiters::new("+", true, "double-bounce");
        assert_eq!(plus.split("owner-list+a"), Some(("owner-list", "+a")));
    }
}
