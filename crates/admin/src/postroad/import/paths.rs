//! What a configuration of Postfix calls its places, and what they are called here.

use std::path::{Path, PathBuf};

/// A table or a file, as a value names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// `hash` of `hash:/etc/postfix/virtual`; empty for a plain path.
    pub(super) kind: String,
    pub(super) path: PathBuf,
}

/// The places of Postfix, and what stands for them here.
#[derive(Debug)]
pub(super) struct Places {
    /// The folder that is imported.
    source: PathBuf,
    target: String,
    /// What the files call the folder that is imported.
    aliases: Vec<String>,
    /// Other folders, the longest first.
    folders: Vec<(String, String)>,
}

/// Where Debian's and other packages of Postfix have the configuration.
pub(super) const USUAL: &str = "/etc/postfix";

impl Places {
    pub(super) fn new(source: &Path, target: &Path, mut folders: Vec<(String, String)>) -> Self {
        let mut aliases = vec![text(source), USUAL.to_owned()];
        aliases.extend(source.canonicalize().ok().map(|path| text(&path)));
        aliases.dedup();
        folders.retain(|(from, to)| from != to && from.len() > 1);
        folders.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        Self { source: source.to_owned(), target: text(target), aliases, folders }
    }

    /// The same text with the places' names here.
    pub(super) fn translate(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((start, end)) = next_path(rest, out.chars().next_back()) {
            out.push_str(&rest[..start]);
            out.push_str(&self.translate_path(&rest[start..end]));
            rest = &rest[end..];
        }
        out.push_str(rest);
        out
    }

    fn translate_path(&self, path: &str) -> String {
        if let Some(inside) = self.within_source(Path::new(path)) {
            let inside = text(&inside);
            let slash = if path.ends_with('/') && !inside.is_empty() { "/" } else { "" };
            return match inside.is_empty() {
                true => format!("{}{}", self.target, if path.ends_with('/') { "/" } else { "" }),
                false => format!("{}/{inside}{slash}", self.target),
            };
        }
        let folder = self.folders.iter().find_map(|(from, to)| Some((to, below(path, from)?)));
        folder.map_or_else(|| path.to_owned(), |(to, rest)| format!("{to}{rest}"))
    }

    /// Where a path leads below the folder that is imported; `None` for what lies elsewhere, and for what is only
    /// in the folder that usually has the configuration.
    pub(super) fn within_source(&self, path: &Path) -> Option<PathBuf> {
        let inside = self.aliases.iter().find_map(|alias| path.strip_prefix(alias).ok())?;
        let is_safe = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let lives_elsewhere = !path.starts_with(&self.source)
            && path.exists()
            && !self.source.join(inside).exists()
            && !with_ending(&self.source.join(inside), "db").exists();
        (is_safe && !lives_elsewhere).then(|| inside.to_owned())
    }

    pub(super) fn source_of(&self, inside: &Path) -> PathBuf {
        self.source.join(inside)
    }
}

/// `path` with `.ENDING` behind it.
pub(super) fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().trim_end_matches('/').to_owned()
}

/// What follows `folder` in a path that is it or lies below it.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    path.strip_prefix(folder.trim_end_matches('/')).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Everything that a text names by an absolute path.
pub(super) fn named_in(text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((start, end)) = next_path(&text[at..], text[..at].chars().next_back()) {
        let before = &text[..at + start];
        let kind = before.strip_suffix(':').map_or("", |before| {
            let word = before.rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
            &before[word..]
        });
        let path = text[at + start..at + end].trim_end_matches('/');
        if !path.is_empty() {
            found.push(Named { kind: kind.to_ascii_lowercase(), path: path.into() });
        }
        at += end;
    }
    found
}

/// Where the next absolute path begins and ends; `before` is the character in front of the text.
fn next_path(text: &str, before: Option<char>) -> Option<(usize, usize)> {
    let mut previous = before;
    for (start, c) in text.char_indices() {
        let begins = c == '/' && previous.is_none_or(|c| !(c.is_alphanumeric() || "/._-$})*?".contains(c)));
        if begins {
            let end = text[start..].find(ends_path).map_or(text.len(), |length| start + length);
            return Some((start, end));
        }
        previous = Some(c);
    }
    None
}

fn ends_path(c: char) -> bool {
    c.is_whitespace() || ",;:\"'{}()<>|&`$=".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        let folders = vec![
            ("/var/spool/postfix".to_owned(), "/var/spool/postroad".to_owned()),
            ("/usr/lib/postfix".to_owned(), "/usr/lib/postroad".to_owned()),
            ("/usr/lib/postfix/sbin".to_owned(), "/usr/lib/postroad/sbin".to_owned()),
        ];
        Places::new(Path::new("/nowhere/postfix"), Path::new("/etc/postroad"), folders)
    }

    #[test]
    fn paths_are_translated_at_their_boundaries() {
        for (from, to) in [
            ("hash:/etc/postfix/virtual", "hash:/etc/postroad/virtual"),
            ("a=/etc/postfix/x, pcre:/nowhere/postfix/y", "a=/etc/postroad/x, pcre:/etc/postroad/y"),
            ("/etc/postfix-out/x /srv/etc/postfix/x", "/etc/postfix-out/x /srv/etc/postfix/x"),
            ("unix:/var/spool/postfix/private/auth", "unix:/var/spool/postroad/private/auth"),
            ("/usr/lib/postfix/sbin/smtpd", "/usr/lib/postroad/sbin/smtpd"),
            ("\"|/etc/postfix/run arg\"", "\"|/etc/postroad/run arg\""),
            (":include:/etc/postfix/lists/all", ":include:/etc/postroad/lists/all"),
            ("$config_directory/x ${x}/etc/postfix", "$config_directory/x ${x}/etc/postfix"),
            ("/^etc/ ok", "/^etc/ ok"),
            ("/etc/postfix/ /etc/postfix", "/etc/postroad/ /etc/postroad"),
        ] {
            assert_eq!(places().translate(from), to, "{from}");
        }
    }

    #[test]
    fn a_path_does_not_lead_out_of_the_folder() {
        assert_eq!(places().within_source(Path::new("/etc/postfix/../passwd")), None);
        assert_eq!(places().within_source(Path::new("/etc/postfix/a/b")), Some("a/b".into()));
    }

    #[test]
    fn tables_are_found_with_their_types() {
        let named = |kind: &str, path: &str| Named { kind: kind.to_owned(), path: path.into() };
        assert_eq!(
            named_in("proxy:hash:/a/b, /c, pipemap:{lmdb:/d,regexp:/e} check_x cidr:/f unix:private/x"),
            [
                named("hash", "/a/b"),
                named("", "/c"),
                named("lmdb", "/d"),
                named("regexp", "/e"),
                named("cidr", "/f")
            ]
        );
    }
}
