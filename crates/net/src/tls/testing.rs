//! What tests of both sides need: certificates, made by openssl, and configurations.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use config::{Config, Snapshot};
use rustls_pki_types::CertificateDer;

/// A key that takes no time to make.
pub(super) const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1";

/// Certificates of one test, in a folder of their own.
pub(super) struct Authority {
    folder: tempfile::TempDir,
}

impl Authority {
    pub(super) fn new() -> Self {
        let authority = Self { folder: tempfile::tempdir().unwrap() };
        authority.openssl(&format!(
            "req -x509 {NEW_KEY} -nodes -keyout ca.key -out ca.pem -subj /CN=TestCA -days 30 \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
        ));
        authority
    }

    pub(super) fn openssl(&self, arguments: &str) {
        let done = Command::new("openssl")
            .args(arguments.split_ascii_whitespace())
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// `NAME.pem` and `NAME.key`, signed by the authority; `more` are arguments for the request.
    pub(super) fn issue(&self, name: &str, dns: &str, more: &str) {
        self.openssl(&format!(
            "req {more} -nodes -keyout {name}.key -out {name}.csr -subj /CN={dns} -addext subjectAltName=DNS:{dns}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -copy_extensions copy -out {name}.pem"
        ));
    }

    /// As [`Authority::issue`], by an authority `middle` that this one vouches for.
    pub(super) fn issue_deep(&self, name: &str, dns: &str) {
        self.openssl(&format!(
            "req {NEW_KEY} -nodes -keyout middle.key -out middle.csr -subj /CN=Middle \
             -addext basicConstraints=critical,CA:TRUE"
        ));
        self.openssl("x509 -req -in middle.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -copy_extensions copy -out middle.pem");
        self.issue(name, dns, NEW_KEY);
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA middle.pem -CAkey middle.key -CAcreateserial -days 30 -copy_extensions copy -out {name}.pem"
        ));
    }

    pub(super) fn der(&self, name: &str) -> Vec<u8> {
        use rustls_pki_types::pem::PemObject as _;
        CertificateDer::from_pem_file(self.path(name)).unwrap().to_vec()
    }

    /// `openssl s_server` with these arguments, on a port that the system chose.
    pub(super) fn serve(&self, arguments: &str) -> Server {
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0"])
            .args(arguments.split_ascii_whitespace())
            .current_dir(self.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "openssl s_server {arguments} ended");
            if let Some((_, port)) = line.trim_end().rsplit_once(':').filter(|_| line.starts_with("ACCEPT")) {
                break port.parse().unwrap();
            }
        };
        Server { process, port, _output: output }
    }

    /// Where the files are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A program that serves until this is dropped.
pub(super) struct Server {
    process: Child,
    pub(super) port: u16,
    /// It would be killed by the signal of a closed pipe.
    _output: BufReader<ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A configuration of these lines.
pub(super) fn config(main_cf: &str) -> Config {
    let main_cf = format!("myhostname = mail.example.net\n{main_cf}").into_bytes();
    let snapshot = Snapshot { main_cf, master_cf: Vec::new() };
    Config::inspect(Path::new("/nowhere"), &snapshot, &[]).0
}
