//! `$name` in texts for replies: few names, and no character that the site does not want in a reply.

use ipc::log;

/// `smtpd_expansion_filter`: the characters that may come out of `$name`; others become `_`.
#[derive(Debug)]
pub(crate) struct Censor(String);

impl Censor {
    /// Reads the parameter, with the escapes of C: `\t`, `\40`, `\\` and the like.
    pub(crate) fn new(text: &str) -> Self {
        let mut allowed = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '\\' {
                allowed.push(c);
                continue;
            }
            let mut octal = None;
            while let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)).filter(|_| octal < Some(0o100)) {
                octal = Some(octal.unwrap_or(0) * 8 + digit);
                chars.next();
            }
            match octal {
                Some(code) => allowed.extend(char::from_u32(code)),
                None => allowed.extend(chars.next().map(|c| match c {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                })),
            }
        }
        Self(allowed)
    }

    pub(crate) fn apply(&self, text: &str) -> String {
        text.chars().map(|c| if self.0.contains(c) { c } else { '_' }).collect()
    }
}

/// Replaces `$name`, `${name}`, `$(name)`, `${name?text}`, `${name:text}`, `${name?{text}:{text}}` and `$$`; a name that
/// `attribute` does not know becomes nothing, and is warned about.
pub(crate) fn expand(
    template: &str,
    censor: &Censor,
    attribute: &dyn Fn(&str) -> Option<String>,
    parameter: &str,
) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (reference, after) = reference(rest);
        rest = after;
        let name_ends = reference.find(['?', ':']).unwrap_or(reference.len());
        let (name, condition) = reference.split_at(name_ends);
        let value = attribute(name).unwrap_or_else(|| {
            log::warning!("{parameter}: there is no ${name} in this text");
            String::new()
        });
        let chosen = match condition.chars().next() {
            None => {
                out.push_str(&censor.apply(&value));
                continue;
            }
            Some('?') => {
                let (full, empty) = alternatives(&condition[1..]);
                if value.is_empty() { empty } else { full }
            }
            Some(_) if value.is_empty() => alternatives(&condition[1..]).0,
            Some(_) => "",
        };
        out.push_str(&expand(chosen, censor, attribute, parameter));
    }
    out.push_str(rest);
    out
}

/// `text`, `{text}` or `{text}:{other text}`.
fn alternatives(text: &str) -> (&str, &str) {
    if !text.starts_with('{') {
        return (text, "");
    }
    let (first, after) = reference(text);
    let second = after.trim_start().strip_prefix(':').map(str::trim_start);
    (first, second.filter(|second| second.starts_with('{')).map_or("", |second| reference(second).0))
}

/// What stands for a name, and what follows it. Braces within braces count.
fn reference(text: &str) -> (&str, &str) {
    let closing = match text.chars().next() {
        Some('{') => '}',
        Some('(') => ')',
        _ => {
            let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
            return text.split_at(end);
        }
    };
    let opening = if closing == '}' { '{' } else { '(' };
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        if c == opening {
            depth += 1;
        } else if c == closing {
            depth -= 1;
            if depth == 0 {
                return (&text[1..at], &text[at + 1..]);
            }
        }
    }
    (&text[1..], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_conditions_and_censorship() {
        let censor = Censor::new("\\tabcdefgh\\40\\\\.0123456789");
        let attribute = |name: &str| match name {
            "a" => Some("abc <x> \\".to_owned()),
            "empty" => Some(String::new()),
            _ => None,
        };
        for (template, expected) in [
            ("", ""),
            ("x $a.", "x abc ___ \\."),
            ("${a}b$(a)", "abc ___ \\babc ___ \\"),
            ("$$a $nothing.", "$a ."),
            ("${empty?no}${empty:yes ${a?$a!}}", "yes abc ___ \\!"),
            (
                "${a?{full}:{empty}} ${empty?{full}:{empty $a}}${empty:{none}}${a:{x}}",
                "full empty abc ___ \\none",
            ),
            ("${a", "abc ___ \\"),
            ("$", ""),
        ] {
            assert_eq!(expand(template, &censor, &attribute, "x"), expected, "{template}");
        }
    }
}
