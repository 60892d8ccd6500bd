//! The programs as an operator runs them.

// Clippy knows tests by their attribute, and these helpers have none.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder with files, and the programs run in it.
struct Folder(TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.path().join("main.cf"), "compatibility_level = 3.6\n").unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path().join(name)).unwrap().mode() & 0o777
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path().join(name), Permissions::from_mode(mode)).unwrap();
    }

    fn postmap(&self, arguments: &[&str]) -> Outcome {
        self.run(env!("CARGO_BIN_EXE_postmap"), arguments, b"")
    }

    fn postalias(&self, arguments: &[&str]) -> Outcome {
        self.run(env!("CARGO_BIN_EXE_postalias"), arguments, b"")
    }

    fn postmap_reading(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        self.run(env!("CARGO_BIN_EXE_postmap"), arguments, input)
    }

    fn run(&self, program: &str, arguments: &[&str], input: &[u8]) -> Outcome {
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(self.path())
            .env("MAIL_CONFIG", self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // The program may end without reading it.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        Outcome(output)
    }
}

struct Outcome(Output);

impl Outcome {
    #[track_caller]
    fn prints(&self, text: &str) -> &Self {
        assert_eq!(String::from_utf8_lossy(&self.0.stdout), text, "{}", self.complaint());
        self
    }

    #[track_caller]
    fn complains(&self, words: &str) -> &Self {
        assert!(self.complaint().contains(words), "{}", self.complaint());
        self
    }

    /// Ends well and says nothing to standard error.
    #[track_caller]
    fn succeeds(&self) -> &Self {
        assert!(self.0.status.success() && self.0.stderr.is_empty(), "{}", self.complaint());
        self
    }

    #[track_caller]
    fn fails(&self) -> &Self {
        assert_eq!(self.0.status.code(), Some(1), "{}", self.complaint());
        self
    }

    fn complaint(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

#[test]
fn an_index_answers_and_is_listed() {
    let folder =
        Folder::new(&[("virtual", "Jane@example.org  jane\n# nobody\njoe@example.org\n\tjoe, jane\n")]);
    for table in ["hash:virtual", "btree:virtual", "cdb:virtual", "virtual"] {
        folder.postmap(&[table]).succeeds();
        folder.postmap(&["-q", "jane@EXAMPLE.org", table]).succeeds().prints("jane\n");
        folder.postmap(&["-q", "nobody", table]).fails().prints("");
        folder
            .postmap(&["-s", table])
            .succeeds()
            .prints("jane@example.org\tjane\njoe@example.org\tjoe, jane\n");
    }
    assert!(folder.path().join("virtual.db").exists() && folder.path().join("virtual.cdb").exists());
    assert!(!folder.path().join("virtual.db.new").exists());
}

/// Root keeps the tables of a program that runs as a user of its own, in that user's folder.
#[test]
fn root_makes_the_index_of_a_user_in_the_users_folder() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = Folder::new(&[("t", "a 1\n")]);
    for path in [folder.path().to_owned(), folder.path().join("t")] {
        std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
    }
    for _ in 0..2 {
        folder.postmap(&["t"]).succeeds();
    }
    folder.postmap_reading(&["-i", "t"], b"b 2\n").succeeds();
    folder.postmap(&["-s", "t"]).succeeds().prints("a\t1\nb\t2\n");
    assert_eq!(fs::metadata(folder.path().join("t.db")).unwrap().uid(), 65_534);
}

#[test]
fn keys_come_from_standard_input_and_are_printed_as_they_came() {
    let folder = Folder::new(&[("t", "a 1\nb c 2\n")]);
    folder.postmap(&["t"]).succeeds();
    folder
        .postmap_reading(&["-q", "-", "t"], b"A\nzz\n\nb\nb \n\xff\na")
        .succeeds()
        .prints("A\t1\nb\tc 2\na\t1\n");
    folder.postmap_reading(&["-q", "-", "t"], b"zz\n").fails().prints("");
    folder.postmap_reading(&["-q", "-", "t", "static:x"], b"a\nzz\n").succeeds().prints("a\t1\nzz\tx\n");
}

#[test]
fn a_message_is_divided_into_headers_and_body_lines() {
    let folder = Folder::new(&[]);
    let message = b"Subject: a\n b\nTo: q\n\nbody 1\n";
    let table = "regexp:{ {/.+/ seen} }";
    folder.postmap_reading(&["-hq", "-", table], message).prints("Subject: a\n b\tseen\nTo: q\tseen\n");
    folder.postmap_reading(&["-bq", "-", table], message).prints("body 1\tseen\n");
    folder.postmap(&["-hq", "x", table]).fails().complains("specify -b and -h only with \"-q -\"");
    folder.postmap(&["-hmq", "-", table]).fails().complains("not supported yet");
}

#[test]
fn aliases_have_a_grammar_of_their_own() {
    let aliases = "root: jane\n\"john doe\": john\nlist: :include:/x, \"|cmd a:b\"\nbad\nx@y: z\n";
    let folder = Folder::new(&[("aliases", aliases)]);
    folder
        .postalias(&["hash:aliases"])
        .complains("postalias: warning: aliases, line 4: expected format: name: value -- ignoring this line")
        .complains("aliases, line 5: the name of an alias has no @domain");
    folder.postalias(&["-q", "John Doe", "aliases"]).succeeds().prints("john\n");
    folder
        .postalias(&["-s", "aliases"])
        .prints("root:\tjane\njohn doe:\tjohn\nlist:\t:include:/x, \"|cmd a:b\"\n");
    folder.run(env!("CARGO_BIN_EXE_postalias"), &["-q", "-", "aliases"], b"ROOT\n").prints("ROOT:\tjane\n");
}

#[test]
fn malformed_lines_are_named_and_left_out() {
    let folder = Folder::new(&[("t", "a\nb 2\nroot: x\n\"q 1\n")]);
    fs::OpenOptions::new()
        .append(true)
        .open(folder.path().join("t"))
        .unwrap()
        .write_all(b"c \xff\nd \0\n")
        .unwrap();
    let outcome = folder.postmap(&["t"]);
    outcome
        .complains("postmap: warning: t, line 1: expected format: key whitespace value -- ignoring this line")
        .complains("postmap: warning: t, line 3: the key ends with a colon; is this an alias file")
        .complains("postmap: warning: t, line 4: unbalanced '\"' in '\"q 1' -- ignoring this line")
        .complains("postmap: warning: t, line 5: not UTF-8")
        .complains("postmap: warning: t, line 6: a NUL character");
    assert!(outcome.0.status.success());
    folder.postmap(&["-s", "t"]).prints("b\t2\nroot:\tx\n");
    folder.postmap(&["-uw", "t"]).complains("line 1");
    assert_eq!(folder.postmap(&["-s", "t"]).0.stdout, b"b\t2\nroot:\tx\nc\t\xff\n");
}

#[test]
fn of_entries_with_one_key_the_first_stays_unless_told_otherwise() {
    let folder = Folder::new(&[("t", "a 1\nb 2\nA 3\n")]);
    folder.postmap(&["t"]).complains("postmap: warning: t, line 3: duplicate entry: \"a\"");
    folder.postmap(&["-s", "t"]).prints("a\t1\nb\t2\n");
    folder.postmap(&["-w", "t"]).succeeds();
    folder.postmap(&["-s", "t"]).prints("a\t1\nb\t2\n");
    folder.postmap(&["-r", "t"]).succeeds();
    folder.postmap(&["-s", "t"]).prints("b\t2\na\t3\n");
    folder.postmap(&["-f", "t"]).succeeds();
    folder.postmap(&["-s", "t"]).prints("a\t1\nb\t2\nA\t3\n");
    folder.postmap(&["-fq", "A", "t"]).prints("3\n");
}

#[test]
fn entries_are_added_and_deleted() {
    let folder = Folder::new(&[]);
    folder.postmap_reading(&["-i", "hash:t"], b"a 1\nb 2\n").succeeds();
    folder
        .postmap_reading(&["-i", "hash:t"], b"b 9\nC 3\n")
        .complains("standard input, line 1: duplicate entry: \"b\"");
    folder.postmap_reading(&["-ir", "hash:t"], b"a 4\n").succeeds();
    folder.postmap(&["-s", "hash:t"]).prints("b\t2\nc\t3\na\t4\n");
    folder.postmap(&["-d", "B", "hash:t"]).succeeds();
    folder.postmap(&["-d", "B", "hash:t"]).fails();
    folder.postmap_reading(&["-d", "-", "hash:t"], b"x\nc\n").succeeds();
    folder.postmap(&["-s", "hash:t"]).prints("a\t4\n");
    folder
        .postmap(&["-d", "a", "hash:nosuch"])
        .fails()
        .complains("open nosuch.db: No such file or directory");
    assert!(!folder.path().join("nosuch.db.new").exists());
}

#[test]
fn an_index_is_readable_to_those_who_may_read_its_source() {
    let folder = Folder::new(&[("secret", "a 1\n"), ("open", "a 1\n")]);
    folder.set_mode("secret", 0o640);
    folder.set_mode("open", 0o666);
    folder.postmap(&["secret", "open"]).succeeds();
    assert_eq!((folder.mode("secret.db"), folder.mode("open.db")), (0o640, 0o644));
    folder.set_mode("secret.db", 0o600);
    folder.postmap(&["secret"]).succeeds();
    assert_eq!(folder.mode("secret.db"), 0o600);
    fs::remove_file(folder.path().join("secret.db")).unwrap();
    folder.postmap(&["-p", "secret"]).succeeds();
    assert_eq!(folder.mode("secret.db"), 0o644);
}

#[test]
fn runs_on_one_index_wait_for_each_other() {
    let folder = Folder::new(&[]);
    folder.postmap_reading(&["-i", "hash:t"], b"first 0\n").succeeds();
    std::thread::scope(|scope| {
        for runner in 0..4 {
            let folder = &folder;
            scope.spawn(move || {
                for n in 0..10 {
                    folder
                        .postmap_reading(&["-i", "hash:t"], format!("k{runner}-{n} v\n").as_bytes())
                        .succeeds();
                }
            });
        }
    });
    assert_eq!(folder.postmap(&["-s", "hash:t"]).0.stdout.iter().filter(|&&b| b == b'\n').count(), 41);
}

#[test]
fn what_a_killed_run_leaves_is_in_nobodys_way() {
    let folder =
        Folder::new(&[("t", "a 1\n"), ("t.db.new", "half an index, and more bytes than the next one has")]);
    folder.postmap(&["t"]).succeeds();
    folder.postmap(&["-q", "a", "t"]).prints("1\n");
    assert!(!folder.path().join("t.db.new").exists());
}

#[test]
fn an_index_behind_a_symbolic_link_is_replaced_where_it_is() {
    let folder = Folder::new(&[("t", "a 1\n")]);
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    fs::write(folder.path().join("elsewhere/real"), "").unwrap();
    symlink("elsewhere/real", folder.path().join("t.db")).unwrap();
    folder.postmap(&["t"]).succeeds();
    assert!(fs::symlink_metadata(folder.path().join("t.db")).unwrap().is_symlink());
    folder.postmap(&["-q", "a", "t"]).prints("1\n");
}

#[test]
fn a_bad_index_is_named_with_the_remedy() {
    let folder = Folder::new(&[("t", "a 1\n"), ("t.db", "garbage")]);
    folder.postmap(&["-q", "a", "t"]).fails().complains("postmap: fatal: t.db is damaged");
    folder.postmap(&["-q", "a", "t"]).complains("run `postmap hash:t`");
    folder.postmap_reading(&["-i", "t"], b"b 2\n").fails().complains("t.db is damaged");
    let mut berkeley = vec![0; 8192];
    berkeley[12..16].copy_from_slice(&0x0006_1561u32.to_le_bytes());
    fs::write(folder.path().join("t.db"), berkeley).unwrap();
    folder.postmap(&["-q", "a", "t"]).fails().complains("is a Berkeley DB file");
    folder.postmap(&["t"]).succeeds();
    folder.postmap(&["-q", "a", "t"]).prints("1\n");
    folder
        .postmap(&["-q", "a", "cdb:t"])
        .fails()
        .complains("open t.cdb: No such file or directory (run `postmap cdb:t`)");
}

#[test]
fn the_type_may_come_from_the_configuration() {
    let folder = Folder::new(&[("t", "a 1\n"), ("main.cf", "default_database_type = cdb\n")]);
    folder.postmap(&["t"]).succeeds();
    assert!(folder.path().join("t.cdb").exists());
    folder.postmap(&["-c", "/nonexistent", "t"]).fails().complains("open /nonexistent/main.cf: No such file");
}

#[test]
fn values_may_be_the_contents_of_files() {
    let folder = Folder::new(&[("t", "a one, two\nb three\n"), ("one", "first"), ("two", "second\n")]);
    folder.postmap(&["-F", "t"]).complains("t, line 2: open three: No such file");
    folder.postmap(&["-Fq", "a", "t"]).succeeds().prints("first\nsecond\n\n");
    folder.postmap(&["-q", "a", "t"]).prints("Zmlyc3QKc2Vjb25kCg==\n");
}

#[test]
fn what_cannot_be_done_says_what_can() {
    let folder = Folder::new(&[("t", "a 1\n")]);
    folder.postmap(&["texthash:t"]).fails().complains("type texthash has no index");
    folder.postmap(&["-d", "a", "static:x"]).fails().complains("type static has no index");
    folder.postmap(&["-s", "static:x"]).fails().complains("has no list of entries");
    folder.postmap(&["lmdb:t"]).fails().complains("there are hash, btree and cdb");
    folder.postmap(&["-q", "a", "lmdb:t"]).fails().complains("not supported yet: use hash:");
    folder
        .postmap(&["hash:nosuch"])
        .fails()
        .complains("postmap: fatal: open nosuch: No such file or directory");
    folder.postmap(&["-s", "-q", "x", "t"]).fails().complains("specify only one of");
    folder.postmap(&[]).fails().complains("required arguments");
    folder.postmap(&["-q", "x", "fail:now"]).fails().complains("always fails");
}

#[test]
fn a_stored_nul_does_not_show() {
    let folder = Folder::new(&[("t", "a 1\n")]);
    folder.postmap(&["-N", "t"]).succeeds();
    folder.postmap_reading(&["-i", "t"], b"b 2\n").succeeds();
    folder.postmap(&["-s", "t"]).prints("a\t1\nb\t2\n");
    assert!(fs::read(folder.path().join("t.db")).unwrap().windows(4).any(|bytes| bytes == b"b\x002\0"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let text: String = (0..200_000).map(|n| format!("key{n} value\n")).collect();
    let folder = Folder::new(&[("t", &text)]);
    folder.postmap(&["t"]).succeeds();
    let mut child = Command::new(env!("CARGO_BIN_EXE_postmap"))
        .args(["-s", "t"])
        .current_dir(folder.path())
        .env("MAIL_CONFIG", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let outcome = Outcome(child.wait_with_output().unwrap());
    assert_eq!(outcome.complaint(), "");
}
