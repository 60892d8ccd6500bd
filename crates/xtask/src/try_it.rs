//! `cargo xtask try`: the main job, from a build to two delivered messages.

use std::path::Path;

use scenarios::{Builder, Instance, messages};

use crate::shell::{self, Result, cargo, target};

/// Runs the main job in a scratch folder and shows what happens.
pub fn run(keep: bool) -> Result<()> {
    build()?;
    let programs = target().join("release");
    let instance = Builder::new()
        .programs(&programs)
        .main("virtual_alias_domains = lists.example.com")
        .main("virtual_alias_maps = hash:$root/etc/virtual")
        .prepare();
    let user = instance.user().to_owned();
    say("A virtual alias file in the scratch folder, and its index:");
    let aliases = format!("admin@lists.example.com  {user}\n@lists.example.com       {user}\n");
    instance.write("etc/virtual", &aliases);
    print!("{aliases}");
    show(&instance, "postmap", &["etc/virtual"])?;
    say("The mail system, as the ordinary user it is started by:");
    show(&instance, "postroad", &["start"])?;
    send_over_smtp(&instance);
    send_with_sendmail(&instance)?;
    let found = instance.wait_for_mail(&user, 2);
    instance.wait_for_empty_queue();
    // Each program writes its own lines of the log.
    ["status=sent", "removed"].iter().for_each(|part| instance.wait_for_lines(&[part], 2));
    say("The mail log:");
    print!("{}", instance.log());
    say(&format!("The Maildir {}:", instance.maildir(&user).display()));
    show_maildir(&instance.maildir(&user));
    if found.len() != 2 {
        return Err(format!("{} messages were delivered, 2 were sent", found.len()));
    }
    if keep {
        return explain(instance);
    }
    show(&instance, "postroad", &["stop"])?;
    say("Both messages went all the way. `cargo xtask try --keep` leaves the mail system running.");
    Ok(())
}

fn build() -> Result<()> {
    shell::run(&cargo(), &["build", "--release", "--workspace", "--bins", "--exclude", "xtask"])
}

fn send_over_smtp(instance: &Instance) {
    say("One message over SMTP, to the alias:");
    let mut client = instance.smtp();
    for line in [
        "EHLO client.example.com",
        "MAIL FROM:<jane@example.com>",
        "RCPT TO:<admin@lists.example.com>",
        "DATA",
    ] {
        let reply = client.command(line);
        println!("C: {line}\nS: {} {}", reply.code, reply.lines.last().map_or("", String::as_str));
    }
    client.send_raw(b"From: Jane <jane@example.com>\r\nTo: admin@lists.example.com\r\nSubject: over SMTP\r\n\r\nHello.\r\n");
    let reply = client.command(".");
    println!("C: (the message) .\nS: {} {}", reply.code, reply.text());
    client.command("QUIT");
}

fn send_with_sendmail(instance: &Instance) -> Result<()> {
    say("One message with sendmail, to a catch-all address:");
    let message = "From: cron\nTo: anybody@lists.example.com\nSubject: with sendmail\n\nHello.\n";
    println!("$ sendmail -t <<END\n{message}END");
    let output = instance.run("sendmail", &["-t"], message);
    if output.status == 0 { Ok(()) } else { Err(format!("sendmail: {}", output.stderr)) }
}

fn show(instance: &Instance, program: &str, arguments: &[&str]) -> Result<()> {
    println!("$ {program} {}", arguments.join(" "));
    let output = instance.run(program, arguments, "");
    print!("{}{}", output.stdout, output.stderr);
    if output.status == 0 { Ok(()) } else { Err(format!("{program} exited with status {}", output.status)) }
}

fn show_maildir(maildir: &Path) {
    for message in messages(maildir) {
        println!("----\n{}", String::from_utf8_lossy(&message));
    }
}

fn explain(instance: Instance) -> Result<()> {
    let (port, user) = (instance.port, instance.user().to_owned());
    let root = instance.keep();
    let (root, maildir) = (root.display(), root.join("mail").join(&user));
    say("The mail system is still running:");
    println!(
        "export MAIL_CONFIG={root}/etc PATH={root}/sbin:$PATH\n\
         swaks -s 127.0.0.1 -p {port} -t admin@lists.example.com   # send a message (package swaks)\n\
         sendmail admin@lists.example.com < /etc/hostname          # another one\n\
         mailq; postroad status; tail -f {root}/log                # look at it\n\
         s-nail -f {}                                              # read the mail (package s-nail)\n\
         postroad stop; rm -r {root}                               # the end",
        maildir.display()
    );
    Ok(())
}

fn say(text: &str) {
    println!("\n== {text}");
}
