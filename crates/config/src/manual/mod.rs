//! The manual's tables of parameters, made from the table of parameters.

use std::fmt::Write as _;

use crate::parameter::{Kind, Parameter, parameters};
use crate::transport::SUFFIXES;

/// The manual page postroad(5), in mdoc.
#[must_use]
pub fn postconf_5() -> String {
    let mut page = include_str!("intro.mdoc").to_owned();
    for row in parameters().filter(|row| row.listed) {
        page.push_str(&item(&row, true));
    }
    page.push_str(".El\n.Sh FORMER NAMES\nThese names are honoured.\n.Bl -tag -width Ds\n");
    for row in parameters().filter(|row| !row.listed) {
        page.push_str(&item(&row, true));
    }
    page.push_str(".El\n");
    page.push_str(include_str!("outro.mdoc"));
    page.push_str(".Bl -tag -width Ds\n");
    for (suffix, default) in SUFFIXES {
        // Writing to a string cannot fail.
        let _ = write!(page, ".It Ar service Ns Va {suffix}\n.Va {default}\n");
    }
    page.push_str(".El\n.Sh FILES\n.Pa /etc/postroad/main.cf\n.Sh SEE ALSO\n.Xr postconf 1 ,\n.Xr postroad 1 ,\n.Xr master.cf 5\n");
    page
}

/// The section of a program's manual page that lists what it reads from main.cf, in mdoc.
#[must_use]
pub fn section_for(program: &str) -> String {
    let mut section = ".Sh CONFIGURATION PARAMETERS\n\
        These parameters of\n.Pa main.cf\nare of use to this program;\n.Xr postroad 5\ndescribes all of them.\n\
        .Bl -tag -width Ds\n"
        .to_owned();
    for row in parameters().filter(|row| row.implemented && row.listed && row.users.contains(program)) {
        section.push_str(&item(&row, false));
    }
    section.push_str(".El\n");
    section
}

/// One parameter: its name and the kind of its value, what it is for, its default.
fn item(row: &Parameter, is_whole: bool) -> String {
    let mut text = format!(".It Va {} Pq {}\n", row.name, argument(&kind(row)));
    paragraph(&mut text, row.doc);
    match row.default {
        _ if is_asked_of_the_host(row.name) => text.push_str("The default is asked of the system.\n"),
        "" => text.push_str("The default is empty.\n"),
        default => {
            let _ = write!(text, "The default is\n.Ql {} .\n", argument(default));
        }
    }
    if !is_whole {
        return text;
    }
    if let Some(instead) = row.deprecated {
        let _ = write!(text, "Use\n.Va {instead} .\n");
    } else if let Some(instead) = row.instead.filter(|_| !row.implemented) {
        paragraph(&mut text, &format!("It has no effect: {instead}."));
    } else if !row.implemented {
        text.push_str("It has no effect yet.\n");
    }
    text
}

fn kind(row: &Parameter) -> String {
    let kind = match row.kind {
        Kind::Text => "text",
        Kind::Raw => "text with $user and the like",
        Kind::Choice => return row.choices.listed(),
        Kind::Bool => "yes or no",
        Kind::Int => "number",
        Kind::Time => "time",
        Kind::List => "list",
        Kind::Path => "file name",
        Kind::Rate => return "number/s, number/m, number/h, number/d or 0".to_owned(),
        Kind::Feedback => {
            return "number, number/concurrency or number/sqrt_concurrency, with number from 0 to 1"
                .to_owned();
        }
    };
    if matches!(row.kind, Kind::Text | Kind::Raw | Kind::Path | Kind::List) {
        // A text has no bounds but that some may not be empty.
        return kind.to_owned();
    }
    let unit = if row.kind == Kind::Time { " s" } else { "" };
    match (row.minimum, row.maximum) {
        (0, u64::MAX) => kind.to_owned(),
        (minimum, u64::MAX) => format!("{kind}, at least {minimum}{unit}"),
        (minimum, maximum) => format!("{kind}, {minimum} to {maximum}{unit}"),
    }
}

fn is_asked_of_the_host(name: &str) -> bool {
    matches!(
        name,
        "myhostname"
            | "mydomain"
            | "mynetworks"
            | "process_id"
            | "process_name"
            | "mail_version"
            | "service_name"
    )
}

/// An argument of a macro: in quotes, so that no word of it is taken for a macro.
fn argument(text: &str) -> String {
    // A point at its end would be taken for the sentence's.
    let end = if text.ends_with(['.', ',', ':', ';', ')', ']', '?', '!']) { "\\&" } else { "" };
    format!("\"{}{end}\"", escaped(text).replace('"', "\\(dq"))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('`', "\\(ga").replace('^', "\\(ha").replace('~', "\\(ti")
}

/// Running text in lines of at most 78 bytes.
fn paragraph(out: &mut String, text: &str) {
    const WIDTH: usize = 78;
    let mut length = 0;
    for word in escaped(text).split(' ') {
        if length > 0 && length + 1 + word.len() > WIDTH {
            out.push('\n');
            length = 0;
        } else if length > 0 {
            out.push(' ');
            length += 1;
        }
        // A line that begins with one of these would be a macro.
        if length == 0 && word.starts_with(['.', '\'']) {
            out.push_str("\\&");
            length += 2;
        }
        out.push_str(word);
        length += word.len();
    }
    out.push('\n');
}
