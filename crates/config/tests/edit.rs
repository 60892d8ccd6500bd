//! Edits of main.cf and master.cf: what changes, and what stays.

use config::edit::{Field, MainCf, MasterCf, ServiceLine};

const MAIN: &str = "\
# head
myhostname = a

mydestination = x,
  # inner comment

   y
# about relay
relayhost=

myhostname = b
   c
# tail";

#[test]
fn a_value_takes_the_place_of_the_former_one() {
    let mut file = MainCf::parse(MAIN);
    file.set("mydestination", "p q");
    file.set("relayhost", "[z]");
    file.set("biff", "no");
    let expected = "\
# head
myhostname = a

mydestination = p q
  # inner comment

# about relay
relayhost = [z]

myhostname = b
   c
# tail
biff = no
";
    assert_eq!(file.to_string(), expected);
}

#[test]
fn every_definition_of_a_name_is_changed() {
    let mut file = MainCf::parse(MAIN);
    file.set("myhostname", "z");
    assert_eq!(file.to_string().matches("myhostname = z\n").count(), 2);
    assert!(!file.to_string().contains("   c\n"));
}

#[test]
fn removal_leaves_comments_behind() {
    let mut file = MainCf::parse(MAIN);
    assert_eq!((file.remove("myhostname"), file.remove("mydestination"), file.remove("biff")), (2, 1, 0));
    assert_eq!(file.to_string(), "# head\n\n  # inner comment\n\n# about relay\nrelayhost=\n\n# tail\n");
}

#[test]
fn a_definition_becomes_a_comment_with_its_continuation() {
    let mut file = MainCf::parse(MAIN);
    file.comment_out("mydestination");
    assert!(file.to_string().contains("#mydestination = x,\n  # inner comment\n\n#   y\n"), "{file}");
}

const MASTER: &str = "\
# head
smtp      inet  n       -       y       -       -       smtpd -v
  -o smtpd_banner=$myhostname
  # inner comment
  -o content_filter=
# between
pickup    unix  n       -       y       60      1       pickup
";

fn is(name: &'static str) -> impl Fn(&ServiceLine) -> bool {
    move |service| service.field(Field::Service) == name
}

fn edited(edit: impl FnOnce(&mut MasterCf)) -> String {
    let mut file = MasterCf::parse(MASTER).expect("it is well formed");
    edit(&mut file);
    file.to_string()
}

#[test]
fn a_column_changes_in_its_place() {
    let text = edited(|file| assert_eq!(file.set_field(&|_| true, Field::Chroot, "n").ok(), Some(2)));
    assert_eq!(text, MASTER.replace(" y  ", " n  "));
    let text = edited(|file| drop(file.set_field(&is("pickup"), Field::ProcessLimit, "123456789")));
    assert!(text.ends_with("60      123456789 pickup\n"), "{text}");
}

#[test]
fn a_column_takes_no_nonsense() {
    let mut file = MasterCf::parse(MASTER).expect("it is well formed");
    for (field, value) in
        [(Field::Private, "z"), (Field::Type, "tcp"), (Field::Wakeup, "soon"), (Field::Command, "")]
    {
        assert!(file.set_field(&is("smtp"), field, value).is_err(), "{field:?} {value}");
    }
    assert_eq!(file.to_string(), MASTER);
}

#[test]
fn a_setting_of_a_service_comes_and_goes() {
    let text = edited(|file| {
        file.set_override(&is("smtp"), "smtpd_banner", Some("hello world")).expect("it is there");
        file.set_override(&is("smtp"), "content_filter", None).expect("it is there");
        file.set_override(&is("pickup"), "biff", Some("no")).expect("it is there");
    });
    let expected = "\
# head
smtp       inet  n       -       y       -       -       smtpd -v
    -o {smtpd_banner=hello world}
  # inner comment
# between
pickup     unix  n       -       y       60      1       pickup
    -o biff=no
";
    assert_eq!(text, expected);
}

#[test]
fn a_service_comes_and_goes() {
    let text = edited(|file| {
        file.set_service("smtp", "inet", "smtp inet n - n - 5 smtpd -o a=b").expect("a service");
        file.set_service("showq", "unix", "showq unix n - n - - showq").expect("a service");
        file.comment_out(&is("pickup")).expect("it is there");
    });
    let expected = "\
# head
smtp       inet  n       -       n       -       5       smtpd
    -o a=b
  # inner comment
# between
#pickup    unix  n       -       y       60      1       pickup
showq      unix  n       -       n       -       -       showq
";
    assert_eq!(text, expected);
    assert_eq!(edited(|file| drop(file.remove(&|_| true))), "# head\n  # inner comment\n# between\n");
}
