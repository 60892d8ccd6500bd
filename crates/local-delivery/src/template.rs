//! `forward_path`, `luser_relay` and `command_execution_directory`: templates whose `$names` are those of one delivery.
//!
//! Pure. The text of the template is the administrator's and stays as it is; what a name stands for comes from outside
//! and is passed through a filter of allowed characters.

/// The names a template may use. An empty value counts as not defined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    /// The bare user name.
    pub(crate) user: &'a str,
    /// The user's home directory.
    pub(crate) home: &'a str,
    /// The user's login shell.
    pub(crate) shell: &'a str,
    /// The whole address.
    pub(crate) recipient: &'a str,
    /// The address extension.
    pub(crate) extension: &'a str,
    /// What follows the `@`.
    pub(crate) domain: &'a str,
    /// What precedes the `@`.
    pub(crate) local: &'a str,
    /// The delimiter that was found, or else the first that is configured.
    pub(crate) recipient_delimiter: &'a str,
}

/// What became of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expanded {
    /// The text.
    pub(crate) text: String,
    /// A plain `$name` had no value: a `.forward` path with an extension that was not given is not tried at all.
    pub(crate) undefined: bool,
}

/// The template cannot be read; the text says where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateError(pub String);

/// Conditions nest no deeper; each level is one recursion.
const MAX_DEPTH: usize = 20;

/// Puts the values into the template; characters of a value that `allowed` does not list become `_`.
///
/// # Errors
/// [`TemplateError`] for an unknown name or a brace that is not closed.
pub(crate) fn expand(template: &str, names: &Names<'_>, allowed: &str) -> Result<Expanded, TemplateError> {
    let mut expanded = Expanded { text: String::with_capacity(template.len() + 32), undefined: false };
    expand_into(&mut expanded, template, names, allowed, 0)?;
    Ok(expanded)
}

fn expand_into(
    out: &mut Expanded,
    template: &str,
    names: &Names<'_>,
    allowed: &str,
    depth: usize,
) -> Result<(), TemplateError> {
    if depth > MAX_DEPTH {
        return Err(TemplateError(format!("conditions nest too deeply in \"{template}\"")));
    }
    let mut rest = template;
    while let Some(dollar) = rest.find('$') {
        out.text.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.text.push('$');
            rest = after;
            continue;
        }
        let (inner, after) = take_expression(rest)?;
        rest = after;
        expand_expression(out, inner, names, allowed, depth)?;
    }
    out.text.push_str(rest);
    Ok(())
}

/// What stands behind a `$` and before the following text: `name`, or what `{…}` or `(…)` encloses.
fn take_expression(text: &str) -> Result<(&str, &str), TemplateError> {
    match text.as_bytes().first() {
        Some(b'{') => take_enclosed(text, '{', '}'),
        Some(b'(') => take_enclosed(text, '(', ')'),
        _ => {
            let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
            if end == 0 {
                return Err(TemplateError(format!("no name follows the $ before \"{text}\"")));
            }
            Ok(text.split_at(end))
        }
    }
}

fn take_enclosed(text: &str, open: char, close: char) -> Result<(&str, &str), TemplateError> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return Ok((&text[1..at], &text[at + 1..]));
            }
        }
    }
    Err(TemplateError(format!("no closing {close} in \"{text}\"")))
}

/// `name`, `name?text`, `name:text`, `name?{text}:{text}`.
fn expand_expression(
    out: &mut Expanded,
    expression: &str,
    names: &Names<'_>,
    allowed: &str,
    depth: usize,
) -> Result<(), TemplateError> {
    let end = expression.find(|c: char| !is_name(c)).unwrap_or(expression.len());
    let (name, condition) = expression.split_at(end);
    let value = names.get(name).ok_or_else(|| TemplateError(format!("unknown name \"{name}\"")))?;
    let chosen = match condition.as_bytes().first() {
        None => {
            out.undefined |= value.is_empty();
            out.text.extend(value.chars().map(|c| if allowed.contains(c) { c } else { '_' }));
            return Ok(());
        }
        Some(b'?') => {
            let (then, otherwise) = split_branches(&condition[1..])?;
            if value.is_empty() { otherwise } else { then }
        }
        Some(b':') => {
            let (text, _) = split_branches(&condition[1..])?;
            if value.is_empty() { text } else { "" }
        }
        _ => return Err(TemplateError(format!("expected ? or : behind the name in \"{expression}\""))),
    };
    expand_into(out, chosen, names, allowed, depth + 1)
}

/// `text`, `{text}` or `{text}:{text}`.
fn split_branches(text: &str) -> Result<(&str, &str), TemplateError> {
    if !text.starts_with('{') {
        return Ok((text, ""));
    }
    let (then, rest) = take_enclosed(text, '{', '}')?;
    match rest.strip_prefix(':') {
        None if rest.trim().is_empty() => Ok((then.trim(), "")),
        Some(otherwise) if otherwise.starts_with('{') => {
            Ok((then.trim(), take_enclosed(otherwise, '{', '}')?.0.trim()))
        }
        Some(otherwise) => Ok((then.trim(), otherwise)),
        None => Err(TemplateError(format!("unexpected \"{rest}\" behind {{{then}}}"))),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl<'a> Names<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        Some(match name {
            "user" => self.user,
            "home" => self.home,
            "shell" => self.shell,
            "recipient" => self.recipient,
            "extension" => self.extension,
            "domain" => self.domain,
            "local" => self.local,
            "recipient_delimiter" => self.recipient_delimiter,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &str = "abcdefghijklmnopqrstuvwxyz./+@";

    fn names<'a>(extension: &'a str, delimiter: &'a str) -> Names<'a> {
        Names {
            user: "al;ice",
            home: "/home/alice",
            shell: "",
            recipient: "alice@example.com",
            extension,
            domain: "example.com",
            local: "alice",
            recipient_delimiter: delimiter,
        }
    }

    /// Each line of the table: a template, ` => `, and the result with the extension `list`.
    #[test]
    fn the_table_of_templates() {
        for line in include_str!("../tests/templates.table").lines().filter(|l| !l.starts_with('#')) {
            let (template, wanted) = line.split_once(" => ").unwrap_or_else(|| panic!("no => in {line}"));
            let text = match expand(template, &names("list", "+"), ALLOWED) {
                Ok(expanded) => expanded.text,
                Err(_) => "error".to_owned(),
            };
            assert_eq!(text, wanted, "{template}");
        }
    }

    #[test]
    fn a_plain_name_without_value_is_noticed_and_a_condition_is_not() {
        let path = "$home/.forward${recipient_delimiter}${extension}";
        assert!(expand(path, &names("", ""), ALLOWED).unwrap().undefined);
        assert!(!expand(path, &names("x", "+"), ALLOWED).unwrap().undefined);
        assert!(!expand("$home/${extension?x}", &names("", ""), ALLOWED).unwrap().undefined);
    }
}
