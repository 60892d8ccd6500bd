//! The table of passwords that smtpd checks logins against (`smtpd_sasl_type = postroad`) and postpasswd keeps.
//!
//! Contract: pure but for randomness and time spent. A table is text, a user in each line:
//!
//! ```text
//! # a comment
//! NAME:FLAGS:SECRET SECRET …
//! joe@example.com::$argon2id$v=19$m=19456,t=2,p=1$… SCRAM-SHA-256$10000:SALT$STOREDKEY:SERVERKEY
//! ann:locked:$6$…
//! ```
//!
//! A secret is a hash in the form of crypt(3), Argon2 or SHA-512-crypt, or what SCRAM needs, in the form that PostgreSQL
//! gave it. Any of a user's secrets opens; passwords themselves are never kept.

use std::collections::BTreeMap;
use std::fmt;

use argon2::{Argon2, PasswordHash, PasswordHasher, PasswordVerifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha_crypt::ShaCrypt;
use smtp_proto::sasl::Secret;
use smtp_proto::sasl::scram::{Hash, ITERATIONS, Keys};

/// The longest name of a user.
pub const MAX_NAME: usize = 255;
/// The longest password: more is an attempt to keep the processor busy.
pub const MAX_PASSWORD: usize = 1024;
/// How many secrets a user may have.
const MAX_SECRETS: usize = 8;

/// All users, by name.
#[derive(Debug, Default)]
pub struct Table {
    users: BTreeMap<String, User>,
}

/// One user.
#[derive(Debug)]
pub struct User {
    /// Not let in, whatever it knows.
    pub locked: bool,
    secrets: Vec<Stored>,
}

/// What is kept of a password.
#[derive(Debug)]
enum Stored {
    Argon2(Secret),
    Sha512Crypt(Secret),
    Scram(Hash, Keys),
}

/// What new passwords are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Argon2id, for PLAIN and LOGIN.
    Argon2id,
    /// SHA-512-crypt, for PLAIN and LOGIN, where other programs read the table.
    Sha512Crypt,
    /// For SCRAM-SHA-256, and for PLAIN and LOGIN.
    ScramSha256,
    /// For SCRAM-SHA-1, and for PLAIN and LOGIN.
    ScramSha1,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Argon2id, Self::Sha512Crypt, Self::ScramSha256, Self::ScramSha1];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Argon2id => "argon2id",
            Self::Sha512Crypt => "sha512-crypt",
            Self::ScramSha256 => "scram-sha-256",
            Self::ScramSha1 => "scram-sha-1",
        }
    }
}

/// What is wrong with a table or an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The line, from 1; 0 where it is not about a line.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.text)
    }
}

impl std::error::Error for Malformed {}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut users = BTreeMap::new();
        for (place, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |text: String| Malformed { line: place + 1, text };
            let (name, user) = parse_user(line).map_err(wrong)?;
            if users.insert(name.to_owned(), user).is_some() {
                return Err(wrong(format!("{name} is there twice")));
            }
        }
        Ok(Self { users })
    }

    /// The user of this name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// The same, to be changed.
    pub fn user_mut(&mut self, name: &str) -> Option<&mut User> {
        self.users.get_mut(name)
    }

    /// All of them, in the order of their names.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users.iter().map(|(name, user)| (name.as_str(), user))
    }

    /// Adds a user, or replaces it.
    ///
    /// # Errors
    /// The name cannot stand in a table.
    pub fn insert(&mut self, name: &str, user: User) -> Result<(), Malformed> {
        check_name(name).map_err(|text| Malformed { line: 0, text })?;
        self.users.insert(name.to_owned(), user);
        Ok(())
    }

    /// Removes a user; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.users.remove(name).is_some()
    }

    /// Whether every user who may log in has what this mechanism needs: only then can it be offered.
    #[must_use]
    pub fn all_have_scram(&self, hash: Hash) -> bool {
        let mut able = self.users.values().filter(|user| !user.locked).peekable();
        able.peek().is_some() && able.all(|user| user.scram_keys(hash).is_some())
    }

    /// The text of the table, with its comments gone.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        let mut text = String::from(
            "# Passwords of those who may log in; kept by postpasswd. NAME:FLAGS:SECRET SECRET …\n",
        );
        for (name, user) in &self.users {
            let flags = if user.locked { "locked" } else { "" };
            let secrets: Vec<_> = user.secrets.iter().map(Stored::to_text).collect();
            text.push_str(&format!("{name}:{flags}:{}\n", secrets.join(" ")));
        }
        Secret::from(text)
    }
}

fn parse_user(line: &str) -> Result<(&str, User), String> {
    let mut fields = line.splitn(3, ':');
    let (Some(name), Some(flags), Some(secrets)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("expected NAME:FLAGS:SECRETS".to_owned());
    };
    check_name(name)?;
    let locked = match flags {
        "" => false,
        "locked" => true,
        other => return Err(format!("\"{other}\" is no flag; there is \"locked\"")),
    };
    let secrets = secrets.split_ascii_whitespace().map(Stored::parse).collect::<Result<Vec<_>, _>>()?;
    if secrets.is_empty() || secrets.len() > MAX_SECRETS {
        return Err(format!("{name} has {} secrets; 1 to {MAX_SECRETS} are right", secrets.len()));
    }
    Ok((name, User { locked, secrets }))
}

fn check_name(name: &str) -> Result<(), String> {
    let right = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with('#') || !name.chars().all(right) {
        return Err("a name is 1 to 255 bytes without blanks and colons, and begins with no #".to_owned());
    }
    Ok(())
}

impl User {
    /// A user with this password, kept as `schemes` say.
    ///
    /// # Errors
    /// A password that nobody should have, or a system without randomness.
    pub fn new(password: &Secret, schemes: &[Scheme]) -> Result<Self, String> {
        if password.is_empty() || password.len() > MAX_PASSWORD || password.contains(&0) {
            return Err(format!("a password is 1 to {MAX_PASSWORD} bytes without NUL"));
        }
        let secrets =
            schemes.iter().map(|scheme| Stored::derive(*scheme, password)).collect::<Result<_, _>>()?;
        Ok(Self { locked: false, secrets })
    }

    /// Whether this is the password.
    #[must_use]
    pub fn opens_with(&self, password: &[u8]) -> bool {
        password.len() <= MAX_PASSWORD && self.secrets.iter().any(|stored| stored.opens_with(password))
    }

    /// What SCRAM needs.
    #[must_use]
    pub fn scram_keys(&self, hash: Hash) -> Option<&Keys> {
        self.secrets.iter().find_map(|stored| match stored {
            Stored::Scram(of, keys) if *of == hash => Some(keys),
            _ => None,
        })
    }

    /// What the password is kept as.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> {
        self.secrets.iter().map(Stored::scheme)
    }
}

/// Takes the time that it takes to check a password, for a user that is not there.
pub fn check_nothing(password: &[u8]) {
    let salt = [0; 16];
    let mut made = [0; 32];
    let password = &password[..password.len().min(MAX_PASSWORD)];
    // The result is of no interest, and neither is a failure.
    let _ = Argon2::default().hash_password_into(password, &salt, &mut made);
}

impl Stored {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("$argon2") {
            return match PasswordHash::new(text) {
                Ok(_) => Ok(Self::Argon2(Secret::from(text))),
                Err(error) => Err(format!("a hash that begins with $argon2 but is none: {error}")),
            };
        }
        if text.starts_with("$6$") {
            return Ok(Self::Sha512Crypt(Secret::from(text)));
        }
        let keys = parse_scram(text).ok_or_else(|| {
            "a secret that is neither Argon2 ($argon2id$…), SHA-512-crypt ($6$…) nor SCRAM-SHA-256$… or SCRAM-SHA-1$…"
                .to_owned()
        })?;
        Ok(Self::Scram(keys.0, keys.1))
    }

    fn derive(scheme: Scheme, password: &Secret) -> Result<Self, String> {
        let failed = |error: &dyn fmt::Display| format!("hash a password as {}: {error}", scheme.name());
        match scheme {
            Scheme::Argon2id => {
                let hash = Argon2::default().hash_password(password).map_err(|error| failed(&error))?;
                Ok(Self::Argon2(Secret::from(hash.to_string())))
            }
            Scheme::Sha512Crypt => {
                let hash = ShaCrypt::SHA512.hash_password(password).map_err(|error| failed(&error))?;
                Ok(Self::Sha512Crypt(Secret::from(hash.to_string())))
            }
            Scheme::ScramSha256 | Scheme::ScramSha1 => {
                let hash = if scheme == Scheme::ScramSha1 { Hash::Sha1 } else { Hash::Sha256 };
                let mut salt = vec![0; 16];
                getrandom::fill(&mut salt).map_err(|error| failed(&error))?;
                Ok(Self::Scram(hash, Keys::derive(hash, password, salt, ITERATIONS)))
            }
        }
    }

    fn opens_with(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2(hash) => hash
                .as_str()
                .and_then(|hash| PasswordHash::new(hash).ok())
                .is_some_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Self::Sha512Crypt(hash) => {
                hash.as_str().is_some_and(|hash| ShaCrypt::SHA512.verify_password(password, hash).is_ok())
            }
            Self::Scram(hash, keys) => keys.open_with(*hash, password),
        }
    }

    const fn scheme(&self) -> &'static str {
        match self {
            Self::Argon2(_) => Scheme::Argon2id.name(),
            Self::Sha512Crypt(_) => Scheme::Sha512Crypt.name(),
            Self::Scram(Hash::Sha256, _) => Scheme::ScramSha256.name(),
            Self::Scram(Hash::Sha1, _) => Scheme::ScramSha1.name(),
        }
    }

    fn to_text(&self) -> String {
        match self {
            Self::Argon2(hash) | Self::Sha512Crypt(hash) => hash.as_str().unwrap_or_default().to_owned(),
            Self::Scram(hash, keys) => format!(
                "{}${}:{}${}:{}",
                scram_name(*hash),
                keys.iterations,
                STANDARD.encode(&keys.salt),
                STANDARD.encode(&*keys.stored),
                STANDARD.encode(&*keys.server)
            ),
        }
    }
}

const fn scram_name(hash: Hash) -> &'static str {
    match hash {
        Hash::Sha1 => "SCRAM-SHA-1",
        Hash::Sha256 => "SCRAM-SHA-256",
    }
}

fn parse_scram(text: &str) -> Option<(Hash, Keys)> {
    let (name, rest) = text.split_once('$')?;
    let hash = [Hash::Sha1, Hash::Sha256].into_iter().find(|hash| scram_name(*hash) == name)?;
    let (head, keys) = rest.split_once('$')?;
    let (iterations, salt) = head.split_once(':')?;
    let (stored, server) = keys.split_once(':')?;
    let decode = |text: &str| STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty());
    let key = |text: &str| decode(text).filter(|bytes| bytes.len() == hash.length()).map(Secret::new);
    let iterations = iterations.parse().ok().filter(|count| (1..=10_000_000).contains(count))?;
    Some((hash, Keys { salt: decode(salt)?, iterations, stored: key(stored)?, server: key(server)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_opens_in_every_scheme_and_after_the_table_was_written() {
        for scheme in Scheme::ALL {
            let mut table = Table::default();
            table.insert("joe@example.com", User::new(&Secret::from("pä ß"), &[scheme]).unwrap()).unwrap();
            let table = Table::parse(table.to_text().as_str().unwrap()).unwrap();
            let user = table.user("joe@example.com").unwrap();
            assert!(user.opens_with("pä ß".as_bytes()), "{scheme:?}");
            assert!(!user.opens_with("pä".as_bytes()), "{scheme:?}");
            assert_eq!(user.schemes().collect::<Vec<_>>(), [scheme.name()]);
        }
    }

    /// crypt(3) of glibc, and PostgreSQL's form of RFC 7677's user.
    #[test]
    fn hashes_of_others_are_read() {
        let sha512 = "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
        let scram = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let table = Table::parse(&format!("a::{sha512}\nb:locked:{scram}\n")).unwrap();
        assert!(table.user("a").unwrap().opens_with(b"Hello world!"));
        assert!(table.user("b").unwrap().opens_with(b"pencil"));
        assert!(table.user("b").unwrap().locked);
        assert!(!table.all_have_scram(Hash::Sha256));
        assert!(Table::parse(&format!("b::{scram}")).unwrap().all_have_scram(Hash::Sha256));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line) in [
            ("joe:secret", 1),
            ("\n# x\njoe::secret", 3),
            ("joe::", 1),
            ("joe:lokced:$6$x$y", 1),
            (":: $6$x$y", 1),
            ("a b::$6$x$y", 1),
            ("a::$6$x$y\na::$6$x$y", 2),
            ("a::$argon2id$x", 1),
            ("a::SCRAM-SHA-256$4096:AA==$AA==:AA==", 1),
        ] {
            assert_eq!(Table::parse(text).err().map(|error| error.line), Some(line), "{text}");
        }
        assert!(User::new(&Secret::default(), &[Scheme::Argon2id]).is_err());
    }
}
