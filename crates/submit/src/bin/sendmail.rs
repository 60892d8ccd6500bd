//! See the manual page sendmail(1).

fn main() -> std::process::ExitCode {
    submit::sendmail()
}
