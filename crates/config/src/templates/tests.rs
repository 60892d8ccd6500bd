use std::path::Path;

use super::*;
use crate::config::Snapshot;

fn config(main_cf: &str) -> Config {
    let snapshot = Snapshot { main_cf: main_cf.into(), master_cf: Vec::new() };
    Config::from_snapshot(Path::new("/etc/postroad"), &snapshot, &[]).expect("no errors").0
}

/// The templates of a file with this content, and the remarks on it.
fn read_text(content: &[u8]) -> (Templates, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bounce.cf");
    std::fs::write(&path, content).unwrap();
    let (templates, found) = Templates::from_file(&path, &config("myhostname = mx.example.org\n"));
    let remarks = found.iter().map(|remark| format!("{}: {}", remark.line, remark.text)).collect();
    (templates, remarks)
}

fn expanded(template: &Template, main_cf: &str) -> String {
    String::from_utf8(template.expand(&config(main_cf), &[]).0).unwrap()
}

#[test]
fn the_built_in_templates_are_whole() {
    let templates = Templates::built_in();
    for (name, template) in templates.all() {
        assert!(!template.text.is_empty() && !template.subject.is_empty(), "{name}");
        assert_eq!(
            (template.charset.as_str(), template.from.as_str()),
            ("us-ascii", "Mail Delivery System <MAILER-DAEMON>")
        );
        assert_eq!(template.expand(&config("delay_warning_time = 4h\n"), &[]).1, [""; 0], "{name}");
    }
}

#[test]
fn times_are_given_in_the_unit_that_the_name_asks_for() {
    let (templates, remarks) = read_text(
        b"delay_template = <<END\n\n${delay_warning_time_hours} $(delay_warning_time_minutes) $delay_warning_time_weeks \
          $maximal_queue_lifetime_days $$5 $myhostname\nEND\n",
    );
    assert_eq!(remarks, [""; 0], "a time of 0 has no better unit");
    let text = expanded(templates.get(Purpose::Delay), "myhostname = a.b\ndelay_warning_time = 90m\n");
    assert_eq!(text, "1 90 0 5 $5 a.b\n");
    let found = templates.get(Purpose::Delay).expand(&config("delay_warning_time = 90m\n"), &[]).1;
    assert_eq!(found, ["$delay_warning_time_weeks is 0; take a smaller unit of time"]);
}

#[test]
fn a_template_says_what_it_wants_and_inherits_the_rest() {
    let (templates, remarks) = read_text(
        b"# comment\n\nfailure_template = <<XX\nSUBJECT: Too bad\n\n# no comment\n  indented\\\n\nEOF\nXX\nverify_template=<<EOF\nHello\nEOF\n",
    );
    assert_eq!(remarks, [""; 0]);
    let failure = templates.get(Purpose::Failure);
    assert_eq!(failure.subject, "Too bad");
    assert_eq!(failure.postmaster_subject, "Postmaster Copy: Undelivered Mail");
    assert_eq!(failure.text, "# no comment\n  indented\\\n\nEOF\n");
    assert_eq!(templates.get(Purpose::Verify).text, "Hello\n");
    assert_eq!(templates.get(Purpose::Success), Templates::built_in().get(Purpose::Success));
}

#[test]
fn a_template_with_an_error_is_told_and_the_built_in_one_used() {
    let table: [(&[u8], &str); 7] = [
        (
            b"failure_template = <<E\nFoo: x\n\ntext\nE\n",
            "2: failure_template: there is no header Foo; there are Charset, From, Subject, Postmaster-Subject; the built-in one is used",
        ),
        (
            b"failure_template = <<E\nSubject:\n\ntext\nE\n",
            "2: failure_template: Subject: must have a value, in ASCII; the built-in one is used",
        ),
        (
            b"\nfailure_template = <<E\nSubject: x\n\nE\n",
            "2: failure_template: it has no text; the built-in one is used",
        ),
        (
            "failure_template = <<E\nSubject: x\n\ngrüß\nE\n".as_bytes(),
            "3: failure_template: its text is not ASCII; name its character set, as in “Charset: utf-8”; the built-in one is used",
        ),
        (
            b"failed_template = <<E\ntext\nE\n",
            "1: there is no template failed_template; there are failure_template, delay_template, success_template, verify_template",
        ),
        (
            b"failure_template = text\n",
            "1: “failure_template = text”: here a template must begin, as in “failure_template = <<EOF”; the rest of the file is left out",
        ),
        (
            b"failure_template = <<EOF\n$nothing_of_the_kind\nEOF\n",
            "2: failure_template: $nothing_of_the_kind is not defined and counts as empty",
        ),
    ];
    for (content, remark) in table {
        let (templates, remarks) = read_text(content);
        assert_eq!(remarks, [remark]);
        let is_built_in = templates.get(Purpose::Failure) == Templates::built_in().get(Purpose::Failure);
        assert_eq!(is_built_in, !remark.contains("nothing_of_the_kind"), "{remark}");
    }
    let (templates, remarks) = read_text(b"failure_template = <<E\ntext\n");
    assert_eq!(remarks, ["1: failure_template: no line “E” ends it"]);
    assert_eq!(templates.get(Purpose::Failure).text, "text\n", "as Postfix does");
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let missing = config("bounce_template_file = /no/such/file\n");
    let (_, found) = Templates::from_config(&missing);
    assert_eq!(
        found[0].to_string(),
        "/no/such/file: cannot be read: No such file or directory; the built-in texts are used"
    );
}

#[test]
fn other_character_sets_go_through_unchanged() {
    let (templates, remarks) =
        read_text(b"failure_template = <<E\nCharset: iso-8859-1\n\ngr\xfc\xdf $myhostname\nE\n");
    assert_eq!(remarks, [""; 0]);
    let template = templates.get(Purpose::Failure);
    let (bytes, _) = template.expand(&config("myhostname = a.b\n"), &[("myhostname", "c.d")]);
    assert_eq!((template.charset.as_str(), bytes.as_slice()), ("iso-8859-1", &b"gr\xfc\xdf c.d\n"[..]));
}
