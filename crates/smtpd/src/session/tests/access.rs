//! Runs every `tests/access/*.smtp` in this process.

use std::net::TcpStream;
use std::path::Path;

use super::Instance;

#[path = "../../../tests/access/script.rs"]
mod script;

#[test]
fn the_access_language_is_as_its_table_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/access");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "smtp"));
    files.sort();
    assert!(files.len() > 5);
    let mut wrong = Vec::new();
    for file in files {
        let script = script::Script::parse(&std::fs::read_to_string(&file).unwrap());
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        wrong.extend(run(&script).into_iter().map(|text| format!("{name}:{text}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn run(script: &script::Script) -> Vec<String> {
    let tables = tempfile::tempdir().unwrap();
    let root = tables.path().display().to_string();
    for (name, content) in &script.files {
        std::fs::write(tables.path().join(name), content).unwrap();
    }
    let lines: Vec<String> = script.main_cf.iter().map(|line| format!("main.cf: {line}")).collect();
    let instance = Instance::new(&lines.join("\n").replace("$root", &root));
    let connect = || -> TcpStream { instance.stream() };
    script.run(&script::Server { is_postfix: false, connect: &connect, log_has: &|_| true })
}
