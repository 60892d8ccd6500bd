//! Who may submit mail: `authorized_submit_users`.
//!
//! The list has user names, `!name`, `/file/with/names`, `static:all` and lookup tables, of which only the local ones
//! are linked here: a set-gid program speaks with no database.

use crate::failure::{Exit, Failure};
use crate::invoker::Invoker;
use crate::settings::Settings;

/// How deep files may name files.
const MAX_DEPTH: usize = 10;

/// Who is to say whether a submission may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It may be.
    Allowed,
    /// postdrop: the list has a table, and a program that is started for each message does not carry what reads those.
    Postdrops,
}

/// Whether a table has an entry for a name, whatever it says.
type TableHas = fn(&str, &str) -> Result<bool, String>;

/// What `sendmail` can say: whether the invoking user may submit mail.
///
/// # Errors
/// [`Exit::NotPermitted`], or [`Exit::Config`] for a list that cannot be used.
pub(crate) fn judge(invoker: &Invoker, settings: &Settings) -> Result<Decision, Failure> {
    decide(invoker, settings, None)
}

/// Checks that the invoking user may submit mail.
///
/// # Errors
/// As [`judge`].
pub(crate) fn check(invoker: &Invoker, settings: &Settings) -> Result<(), Failure> {
    decide(invoker, settings, Some(table_has)).map(|_| ())
}

fn decide(invoker: &Invoker, settings: &Settings, table_has: Option<TableHas>) -> Result<Decision, Failure> {
    let list = settings.authorized_submit_users();
    // So almost everywhere; spares the question who this is.
    if list.first().is_some_and(|item| item.starts_with("static:")) {
        return Ok(Decision::Allowed);
    }
    let name = invoker.name().unwrap_or("unknown");
    match (Matcher { name, table_has }).matches(&list, 0) {
        Ok(Some(true)) => Ok(Decision::Allowed),
        Ok(_) => Err(Failure::new(
            Exit::NotPermitted,
            format!("User {name}({}) is not allowed to submit mail", invoker.uid()),
        )),
        Err(Stop::Table) => Ok(Decision::Postdrops),
        Err(Stop::Wrong(item, why)) => {
            Err(Failure::new(Exit::Config, format!("authorized_submit_users: {item}: {why}")))
        }
    }
}

/// Why it is not known what a list says of a user.
#[derive(Debug)]
enum Stop {
    /// A table is asked here for nothing.
    Table,
    /// An item, and why it cannot be used.
    Wrong(String, String),
}

struct Matcher<'a> {
    name: &'a str,
    table_has: Option<TableHas>,
}

impl Matcher<'_> {
    /// What the first item that speaks of the user says; `None` if none does.
    fn matches(&self, list: &[String], depth: usize) -> Result<Option<bool>, Stop> {
        let wrong = |item: &str, why: &str| Stop::Wrong(item.to_owned(), why.to_owned());
        for item in list {
            let (wanted, pattern) =
                item.strip_prefix('!').map_or((true, item.as_str()), |pattern| (false, pattern));
            let found = if pattern.starts_with('/') {
                if depth == MAX_DEPTH {
                    return Err(wrong(item, "files name files too deeply"));
                }
                let text =
                    std::fs::read_to_string(pattern).map_err(|error| wrong(item, &error.to_string()))?;
                let lines = text.lines().filter(|line| !line.starts_with('#'));
                self.matches(&lines.flat_map(config::split_list).collect::<Vec<_>>(), depth + 1)?
            } else if pattern.starts_with("static:") {
                Some(true)
            } else if pattern.contains(':') {
                let table_has = self.table_has.ok_or(Stop::Table)?;
                table_has(pattern, self.name).map_err(|error| wrong(item, &error))?.then_some(true)
            } else {
                pattern.eq_ignore_ascii_case(self.name).then_some(true)
            };
            if let Some(found) = found {
                return Ok(Some(found == wanted));
            }
        }
        Ok(None)
    }
}

fn table_has(table: &str, name: &str) -> Result<bool, String> {
    let maps = lookup::Maps::open(&[table.to_owned()]).map_err(|error| error.to_string())?;
    let found = maps.get(&name.to_lowercase()).map_err(|error| error.to_string())?;
    Ok(found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(list: &str, name: &str) -> Option<bool> {
        matches(list, name).unwrap()
    }

    fn matches(list: &str, name: &str) -> Result<Option<bool>, Stop> {
        Matcher { name, table_has: Some(table_has) }.matches(&config::split_list(list), 0)
    }

    #[test]
    fn the_first_item_that_speaks_of_the_user_decides() {
        assert_eq!(verdict("joe, jane", "jane"), Some(true));
        assert_eq!(verdict("!joe, static:all", "joe"), Some(false));
        assert_eq!(verdict("!joe, static:all", "jane"), Some(true));
        assert_eq!(verdict("joe", "jane"), None);
        assert_eq!(verdict("", "jane"), None);
    }

    #[test]
    fn a_file_lists_users() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("users");
        std::fs::write(&file, "# who may\njoe\njane, jim\n").unwrap();
        assert_eq!(verdict(&format!("{}", file.display()), "jim"), Some(true));
        assert_eq!(verdict(&format!("!{}, static:all", file.display()), "jim"), Some(false));
        std::fs::write(&file, file.display().to_string()).unwrap();
        assert!(matches(&file.display().to_string(), "jim").is_err());
    }

    #[test]
    fn a_table_has_users() {
        assert_eq!(verdict("inline:{joe=x}", "Joe"), Some(true));
        assert_eq!(verdict("inline:{joe=x}", "jane"), None);
        assert_eq!(verdict("!inline:{joe=x}, static:all", "joe"), Some(false));
        let error = matches("hash:/nonexistent/users", "joe").unwrap_err();
        assert!(matches!(error, Stop::Wrong(item, _) if item == "hash:/nonexistent/users"));
    }

    #[test]
    fn who_asks_no_table_knows_what_precedes_one() {
        let without = |list| Matcher { name: "joe", table_has: None }.matches(&config::split_list(list), 0);
        assert!(matches!(without("!joe, inline:{joe=x}"), Ok(Some(false))));
        assert!(matches!(without("jane, inline:{joe=x}, static:all"), Err(Stop::Table)));
    }
}
