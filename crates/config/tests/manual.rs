//! The manual is lint-clean wherever mandoc is at hand.

use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn mandoc_has_nothing_to_object_to() {
    let frame = "\
.Dd November 22, 2026\n.Dt SMTPD 8\n.Os Postroad\n.Sh NAME\n.Nm smtpd\n.Nd the server\n.Sh DESCRIPTION\nText.\n";
    for page in [config::manual::postconf_5(), format!("{frame}{}", config::manual::section_for("smtpd"))] {
        let Ok(mut mandoc) =
            Command::new("mandoc").args(["-T", "lint"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        else {
            return;
        };
        mandoc.stdin.take().expect("a pipe").write_all(page.as_bytes()).expect("mandoc reads");
        let output = mandoc.wait_with_output().expect("mandoc ends");
        let told = String::from_utf8_lossy(&output.stdout);
        // Pages of this suite need not be installed where the tests run; and it is no operating system.
        let is_fine = |line: &&str| {
            line.contains("referenced manual not found")
                || line.contains("operating system explicitly specified")
        };
        let told: Vec<&str> = told.lines().filter(|line| !is_fine(line)).collect();
        assert!(told.is_empty(), "{}", told.join("\n"));
    }
}

#[test]
fn every_program_that_reads_main_cf_has_its_section() {
    let section = config::manual::section_for("smtpd");
    assert!(section.contains(".It Va smtpd_timeout Pq \"time, at least 1 s\""), "{section}");
    assert!(!section.contains("smtpd_tls_dh512_param_file"), "what has no effect is not in it");
}
