//! The access language against real servers: the files of `crates/smtpd/tests/access` hold for this one and for Postfix,
//! but for the lines of theirs that say what Postfix says instead, and why.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use scenarios::{Builder, Postfix, is_root, wait_for};

#[path = "../../crates/smtpd/tests/access/script.rs"]
mod script;

use script::{Script, Server};

/// The files, by name.
fn scripts() -> Vec<(String, Script)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/smtpd/tests/access");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the folder of files")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "smtp"));
    files.sort();
    let script = |path: &Path| Script::parse(&fs::read_to_string(path).expect("read a file"));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), script(path))).collect()
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).expect("connect to the server")
}

#[test]
fn the_access_language_is_as_its_table_says() {
    for (name, script) in scripts() {
        let mut builder = Builder::new();
        for line in &script.main_cf {
            builder = builder.main(&line.replace("$root/", "$root/etc/"));
        }
        for (name, content) in &script.files {
            builder = builder.file(name, content);
        }
        let site = builder.start();
        let log_has = |text: &str| site.wait_for_log(&[text]).contains(text);
        let connect = || connect(site.port);
        let wrong = script.run(&Server { is_postfix: false, connect: &connect, log_has: &log_has });
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
}

#[test]
fn the_access_language_is_that_of_postfix() {
    if !is_root("comparison with Postfix") {
        return;
    }
    for (name, script) in scripts() {
        let lines: Vec<String> =
            script.main_cf.iter().map(|line| line.replace("$root/", "$root/etc/")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let postfix = Postfix::start_with(&lines, &script.files);
        let log_has = |text: &str| {
            wait_for("a line in the log of Postfix", || postfix.log().contains(text).then_some(true))
        };
        let connect = || connect(postfix.port);
        let wrong = script.run(&Server { is_postfix: true, connect: &connect, log_has: &log_has });
        assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
    }
}
