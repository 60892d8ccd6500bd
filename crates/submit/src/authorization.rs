//! Who may submit mail: `authorized_submit_users`.
//!
//! The list has user names, `!name`, `/file/with/names`, `static:all` and lookup tables, of which only the local ones
//! are linked here: a set-gid program speaks with no database.

use std::cell::OnceCell;

use nix::unistd::{Uid, User, getuid};

use crate::failure::{Exit, Failure};
use crate::settings::Settings;

/// How deep files may name files.
const MAX_DEPTH: usize = 10;

/// The user who runs the program, looked up when somebody asks: the user database may be on the network.
#[derive(Debug, Default)]
pub(crate) struct Invoker {
    user: OnceCell<Option<User>>,
}

impl Invoker {
    /// The real uid: who runs the program, also if it is set-uid or set-gid.
    pub(crate) fn uid(&self) -> Uid {
        getuid()
    }

    /// The login name, where the user database has this user.
    pub(crate) fn name(&self) -> Option<&str> {
        self.user().map(|user| user.name.as_str())
    }

    /// The full name in the user database: the GECOS field up to the first comma, `&` standing for the login name.
    pub(crate) fn full_name(&self) -> Option<String> {
        let user = self.user()?;
        let gecos = user.gecos.to_string_lossy();
        let first = gecos.split(',').next().unwrap_or_default();
        let mut letters = user.name.chars();
        let capitalised: String =
            letters.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(letters).collect();
        Some(first.replace('&', &capitalised)).filter(|name| !name.is_empty())
    }

    fn user(&self) -> Option<&User> {
        self.user.get_or_init(|| User::from_uid(self.uid()).ok().flatten()).as_ref()
    }
}

/// Checks that the invoking user may submit mail.
///
/// # Errors
/// [`Exit::NotPermitted`], or [`Exit::Config`] for a list that cannot be used.
pub(crate) fn check(invoker: &Invoker, settings: &Settings) -> Result<(), Failure> {
    let list = settings.authorized_submit_users();
    // So almost everywhere; spares the question who this is.
    if list.first().is_some_and(|item| item.starts_with("static:")) {
        return Ok(());
    }
    let name = invoker.name().unwrap_or("unknown");
    if matches(&list, name, 0)?.unwrap_or(false) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::NotPermitted,
        format!("User {name}({}) is not allowed to submit mail", invoker.uid()),
    ))
}

/// What the first item that speaks of the user says; `None` if none does.
fn matches(list: &[String], name: &str, depth: usize) -> Result<Option<bool>, Failure> {
    let wrong =
        |item: &str, why: &str| Failure::new(Exit::Config, format!("authorized_submit_users: {item}: {why}"));
    for item in list {
        let (wanted, pattern) =
            item.strip_prefix('!').map_or((true, item.as_str()), |pattern| (false, pattern));
        let found = if pattern.starts_with('/') {
            if depth == MAX_DEPTH {
                return Err(wrong(item, "files name files too deeply"));
            }
            let text = std::fs::read_to_string(pattern).map_err(|error| wrong(item, &error.to_string()))?;
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            matches(&lines.flat_map(config::split_list).collect::<Vec<_>>(), name, depth + 1)?
        } else if pattern.starts_with("static:") {
            Some(true)
        } else if pattern.contains(':') {
            table_has(pattern, name).map_err(|error| wrong(item, &error))?.then_some(true)
        } else {
            pattern.eq_ignore_ascii_case(name).then_some(true)
        };
        if let Some(found) = found {
            return Ok(Some(found == wanted));
        }
    }
    Ok(None)
}

/// Whether the table has an entry for the user, whatever it says.
fn table_has(table: &str, name: &str) -> Result<bool, String> {
    let maps = lookup::Maps::open(&[table.to_owned()]).map_err(|error| error.to_string())?;
    let found = maps.get(&name.to_lowercase()).map_err(|error| error.to_string())?;
    Ok(found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(list: &str, name: &str) -> Option<bool> {
        matches(&config::split_list(list), name, 0).unwrap()
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
        assert!(matches(&[file.display().to_string()], "jim", 0).is_err());
    }

    #[test]
    fn a_table_has_users() {
        assert_eq!(verdict("inline:{joe=x}", "Joe"), Some(true));
        assert_eq!(verdict("inline:{joe=x}", "jane"), None);
        assert_eq!(verdict("!inline:{joe=x}, static:all", "joe"), Some(false));
        let error = matches(&["hash:/nonexistent/users".into()], "joe", 0).unwrap_err();
        assert!(error.text.contains("hash:/nonexistent/users"), "{error}");
    }
}
