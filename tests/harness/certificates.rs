//! Certificates, made by `openssl` for one scenario.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::{peer, run, scratch_folder};

/// An authority with a folder of its own, and what it signed. `NAME.chain` has the key and the certificate, `NAME.pem` the
/// certificate alone; everybody may read all of it.
pub struct Authority {
    folder: TempDir,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one; its certificate is `ca.pem`.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn new() -> Self {
        let folder = scratch_folder("certificates-");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .expect("open the scratch folder");
        let authority = Self { folder };
        authority.openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=Test-Authority -days 30 \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
        );
        authority
    }

    /// Runs `openssl` in the folder and gives what it writes.
    ///
    /// # Panics
    /// When it fails.
    pub fn openssl(&self, arguments: &str) -> String {
        let mut command = peer("openssl");
        command.args(arguments.split_ascii_whitespace()).current_dir(self.folder.path());
        run(command, b"").ok().stdout
    }

    /// The path of a file in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A certificate for these names, the first of which is the subject's.
    ///
    /// # Panics
    /// When `openssl` fails.
    pub fn issue(&self, name: &str, dns: &[&str]) {
        self.issue_for(name, dns, "rsa:2048", 30);
    }

    /// As [`Authority::issue`], with this kind of key, as `openssl req -newkey` has it, for so many days: those that have passed
    /// where there is a minus.
    ///
    /// # Panics
    /// When `openssl` fails.
    pub fn issue_for(&self, name: &str, dns: &[&str], key: &str, days: i32) {
        let names: Vec<String> = dns.iter().map(|dns| format!("DNS:{dns}")).collect();
        let subject = dns.first().copied().unwrap_or(name);
        self.openssl(&format!(
            "req -newkey {key} -nodes -keyout {name}.key -out {name}.csr -subj /CN={subject} -addext subjectAltName={}",
            names.join(",")
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -copy_extensions copy -out {name}.pem"
        ));
        self.bundle(name);
    }

    /// A certificate that nobody but itself vouches for.
    ///
    /// # Panics
    /// When `openssl` fails.
    pub fn self_signed(&self, name: &str, dns: &str) {
        self.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.pem -subj /CN={dns} -days 30 \
             -addext subjectAltName=DNS:{dns} -addext basicConstraints=critical,CA:FALSE"
        ));
        self.bundle(name);
    }

    /// The digest of a certificate, or of its public key, in capitals with colons, as Postfix writes fingerprints.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn fingerprint(&self, name: &str) -> String {
        let text = self.openssl(&format!("x509 -in {name}.pem -noout -fingerprint -sha256"));
        text.trim().split_once('=').map(|(_, digits)| digits.to_owned()).unwrap_or_default()
    }

    /// The data of a TLSA record about a certificate with selector 1 and matching type 1: the SHA-256 of the public key.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn key_digest(&self, name: &str) -> String {
        self.openssl(&format!("x509 -in {name}.pem -noout -pubkey -out {name}.pub"));
        self.openssl(&format!("pkey -pubin -in {name}.pub -outform DER -out {name}.spki"));
        let text = self.openssl(&format!("dgst -sha256 -r {name}.spki"));
        text.split_whitespace().next().unwrap_or_default().to_owned()
    }

    /// Puts certificate and key into one file.
    fn bundle(&self, name: &str) {
        let read = |end: &str| {
            fs::read_to_string(self.path(&format!("{name}.{end}"))).expect("read what openssl wrote")
        };
        fs::write(self.path(&format!("{name}.chain")), read("key") + &read("pem")).expect("write a chain");
        for end in ["key", "chain"] {
            let readable = fs::Permissions::from_mode(0o644);
            fs::set_permissions(self.path(&format!("{name}.{end}")), readable).expect("open a key");
        }
    }
}
