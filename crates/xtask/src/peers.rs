//! Real clients and servers for the tests, from Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::shell::{Result, command, output_of, run, target};

/// A program that tests run, and the package that has it.
const NEEDED: [(&str, &str); 19] = [
    ("swaks", "swaks"),
    ("gsasl", "gsasl"),
    ("openssl", "openssl"),
    ("postgrey", "postgrey"),
    ("s-nail", "s-nail"),
    ("msmtp", "msmtp"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("mandoc", "mandoc"),
    ("strace", "strace"),
    ("/usr/sbin/mkfs.xfs", "xfsprogs"),
    ("ip", "iproute2"),
    ("nsd", "nsd"),
    ("unbound", "unbound"),
    ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "libfaketime"),
    ("ldns-signzone", "ldnsutils"),
    ("dig", "bind9-dnsutils"),
    ("dovecot", "dovecot-core"),
    ("/usr/lib/dovecot/lmtp", "dovecot-lmtpd"),
];

/// The same for building the package, inspecting it and trying it.
const PACKAGING: [(&str, &str); 6] = [
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("objdump", "binutils"),
    ("lintian", "lintian"),
    ("mmdebstrap", "mmdebstrap"),
    ("systemd-nspawn", "systemd-container"),
    ("ip", "iproute2"),
];

/// Sees to it that the peers are there: installs what is missing if root runs this, or says what to install.
pub fn ensure() -> Result<()> {
    ensure_programs(&NEEDED)?;
    unpack("exim4-daemon-light", "usr/sbin")?;
    unpack_postfix().map(drop)
}

/// The same for what `cargo xtask deb` runs.
pub fn ensure_packaging() -> Result<()> {
    ensure_programs(&PACKAGING)
}

fn ensure_programs(needed: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        needed.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !Uid::effective().is_root() {
        return Err(format!(
            "packages are missing; run: sudo apt-get install --no-install-recommends {list}"
        ));
    }
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    // On a fresh machine the lists of packages are missing or old: then once more, with new ones.
    if command("apt-get", &arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .is_ok_and(|s| s.success())
    {
        return Ok(());
    }
    run("apt-get", &["update", "-qq"])?;
    run("apt-get", &arguments)
}

/// The folder that real Postfix is unpacked in.
pub fn unpack_postfix() -> Result<PathBuf> {
    unpack("postfix", "usr/sbin")
}

/// The library that has a type of tables in Postfix, which Debian has in a package of its own.
pub fn postfix_tables(kind: &str) -> Result<PathBuf> {
    let (package, library) = (format!("postfix-{kind}"), format!("usr/lib/postfix/postfix-{kind}.so"));
    Ok(unpack(&package, &library)?.join(library))
}

/// The folder that a package is unpacked in: never installed, so that the host keeps its own mail system. `has` is in
/// it once that is done.
fn unpack(package: &str, has: &str) -> Result<PathBuf> {
    let folder = target().join("peers").join(package);
    if folder.join(has).exists() {
        return Ok(folder);
    }
    let download = target().join("peers").join("download");
    fs::create_dir_all(&download).map_err(|e| format!("create {}: {e}", download.display()))?;
    let archive = fetch_package(package, &download)?;
    let needs = libraries_of(&archive)?;
    let missing: Vec<&str> =
        needs.iter().map(String::as_str).filter(|package| !is_installed(package)).collect();
    if !missing.is_empty() {
        install(&missing)?;
    }
    fs::create_dir_all(&folder).map_err(|e| format!("create {}: {e}", folder.display()))?;
    let (archive, into) = (archive.display().to_string(), folder.display().to_string());
    run("dpkg-deb", &["-x", &archive, &into])?;
    Ok(folder)
}

fn fetch_package(package: &str, folder: &Path) -> Result<PathBuf> {
    let fetch = || {
        let status = command("apt-get", &["download", "-qq", package]).current_dir(folder).status();
        status.is_ok_and(|status| status.success())
    };
    if !fetch() {
        if Uid::effective().is_root() {
            run("apt-get", &["update", "-qq"])?;
        }
        if !fetch() {
            return Err(format!("apt-get download {package} failed; run: sudo apt-get update"));
        }
    }
    let entries = fs::read_dir(folder).map_err(|e| format!("read {}: {e}", folder.display()))?;
    let found = entries.filter_map(std::result::Result::ok).map(|entry| entry.path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_")))
    });
    found.ok_or_else(|| format!("apt-get download {package} left nothing in {}", folder.display()))
}

/// The libraries that a package depends on.
fn libraries_of(archive: &Path) -> Result<Vec<String>> {
    let text = output_of("dpkg-deb", &["-f", &archive.display().to_string(), "Depends"])?;
    let names = text.split(',').filter_map(|part| part.split_whitespace().next());
    Ok(names
        .filter(|name| name.starts_with("lib"))
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
        .collect())
}

fn is_installed(package: &str) -> bool {
    let status = output_of("dpkg-query", &["-W", "-f", "${db:Status-Status}", package]);
    status.is_ok_and(|status| status.contains("installed"))
}

/// Where a program is in the search path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every Debian has, or comes with the package of another program here.
    const THERE: [&str; 14] = [
        "base64",
        "cat",
        "cp",
        "find",
        "gzip",
        "ldns-keygen",
        "modprobe",
        "nsenter",
        "readlink",
        "setpriv",
        "sh",
        "sleep",
        "tar",
        "unshare",
    ];

    fn sources(folder: &Path, texts: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("corpus") {
                sources(&path, texts);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn what_tests_run_is_installed_before_them() {
        let mut texts = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests"), &mut texts);
        let mut found = 0;
        let openings = ["peer(\"", "Command::new(\""];
        for (opening, text) in
            openings.iter().flat_map(|opening| texts.iter().map(move |text| (opening, text)))
        {
            for (at, _) in text.match_indices(opening) {
                // Programs of Postfix come from its unpacked package.
                let name = text[at + opening.len()..].split('"').next().unwrap();
                if text[..at].ends_with('_') || THERE.contains(&name) || name.starts_with('/') {
                    continue;
                }
                assert!(
                    NEEDED.iter().any(|(program, _)| *program == name),
                    "tests run {name}, which nothing installs: name its package in NEEDED"
                );
                found += 1;
            }
        }
        assert!(found > 30, "only {found} programs were found in the sources of the tests");
    }
}
