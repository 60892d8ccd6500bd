use super::*;

/// Path, what it is taken for unless `strict_rfc821_envelopes`, and whether it is with it. `!` is for what is no address.
const PATHS: [(&str, &str, bool); 61] = [
    ("<a@b.c>", "a@b.c", true),
    ("a@b.c", "a@b.c", false),
    ("<a>", "a", true),
    ("<>", "", true),
    ("", "", false),
    ("<@r.c:a@b.c>", "a@b.c", true),
    ("<@r.c,@s.c:a@b.c>", "a@b.c", true),
    ("<@r.c:>", "", true),
    ("<@r.c>", "@r.c", false),
    ("<\"a b\"@b.c>", "a b@b.c", true),
    ("<\"a\\\"b\"@b.c>", "a\"b@b.c", true),
    ("<\"a@b\"@b.c>", "a@b@b.c", true),
    ("<\"a>b\"@b.c>", "a>b@b.c", true),
    ("<a\\ b@b.c>", "a b@b.c", true),
    ("<a b@b.c>", "!", false),
    ("<\"a\"b@b.c>", "!", false),
    ("<a\"b\"@b.c>", "!", false),
    ("<a@@b.c>", "!", false),
    ("<\"a@\"@b.c>", "a@@b.c", true),
    ("<\"a\".b@b.c>", "a.b@b.c", true),
    ("< a@b.c >", "a@b.c", false),
    ("<a @ b.c>", "a@b.c", false),
    ("<a@b.c>(home)", "a@b.c", false),
    ("<a(x(y))@b.c>", "a@b.c", false),
    ("Joe<a@b.c>", "a@b.c", false),
    ("\"Joe, Jr.\"<a@b.c>", "a@b.c", false),
    ("<a@b.c", "!", false),
    ("a@b.c>", "a@b.c", false),
    ("<a@b.c>>", "a@b.c", true),
    ("<<a@b.c>", "a@b.c", true),
    ("<<<a@b.c>", "!", false),
    ("a@b.c>>", "!", false),
    ("<>>", "", true),
    (">", "!", false),
    ("<a@b.c><d@e.f>", "!", false),
    ("<a@b.c>d", "!", false),
    ("a@b.c,d@e.f", "!", false),
    ("<a@b.c,d@e.f>", "!", false),
    ("<<a@b.c>>", "a@b.c", true),
    ("<a@[127.0.0.1]>", "a@[127.0.0.1]", true),
    ("<a@[IPv6:::1]>", "a@[IPv6:::1]", true),
    ("<a@[127.0.0]>", "!", false),
    ("<a@[::1]>", "!", false),
    ("<a@[x]>", "!", false),
    ("<a@127.0.0.1>", "!", false),
    ("<a@b..c>", "!", false),
    ("<a@.b>", "!", false),
    ("<a@b.c.>", "a@b.c.", true),
    ("<a@-b.c>", "!", false),
    ("<a@b_c.d>", "a@b_c.d", true),
    ("<a@b c>", "!", false),
    ("<a@>", "!", false),
    ("<a@b%c>", "!", false),
    ("<a%c@b>", "a%c@b", true),
    ("<c!a@b>", "c!a@b", true),
    ("<jürgen@bücher.example>", "jürgen@bücher.example", true),
    ("<a\x01@b.c>", "!", false),
    ("<\"a\n\"@b.c>", "!", false),
    ("<\"a@b.c>", "!", false),
    ("<a;b@c>", "!", false),
    ("group:a@b.c;", "!", false),
];

#[test]
fn paths() {
    for (path, expected, strict) in PATHS {
        let rules = PathRules { allow_null: true, ..PathRules::default() };
        let lenient =
            parse(path, rules).map_or_else(|_| "!".to_owned(), |address| address.as_str().to_owned());
        assert_eq!(lenient, expected, "{path}");
        let taken = parse(path, PathRules { strict: true, ..rules });
        assert_eq!(taken.is_ok(), strict, "strict {path}");
    }
}

#[test]
fn the_null_sender_is_no_recipient() {
    assert_eq!(parse("<>", PathRules::default()), Err(PathError));
}

#[test]
fn a_numeric_domain_is_one_where_that_is_allowed() {
    let rules = PathRules { numeric_domain: true, ..PathRules::default() };
    assert_eq!(parse("<a@192.0.2.1>", PathRules::default()), Err(PathError));
    assert_eq!(
        parse("<a@192.0.2.1>", rules).map(|address| address.as_str().to_owned()),
        Ok("a@192.0.2.1".into())
    );
    assert_eq!(parse("<a@192.0.2>", rules), Err(PathError));
    assert_eq!(parse("<a@192.0.2.256>", rules), Err(PathError));
}

#[test]
fn white_space_ends_a_path_only_outside_of_quotes() {
    assert_eq!(split("<a@b> SIZE=1"), ("<a@b>", "SIZE=1"));
    assert_eq!(split("a@b  SIZE=1 X"), ("a@b", "SIZE=1 X"));
    assert_eq!(split("<\"a> b\"@c> X"), ("<\"a> b\"@c>", "X"));
    assert_eq!(split("\"a b\"@c X"), ("\"a b\"@c", "X"));
    assert_eq!(split("<a b"), ("<a b", ""));
}

#[test]
fn nothing_makes_it_panic() {
    let alphabet = ['<', '>', '@', ':', ',', '"', '\\', '(', ')', '[', ']', '.', ' ', 'a', 'ü'];
    let mut number: usize = 7;
    for _ in 0..20_000 {
        let mut path = String::new();
        for _ in 0..12 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            path.push(alphabet[(number >> 33) % alphabet.len()]);
        }
        let (head, tail) = split(&path);
        assert!(head.len() + tail.len() <= path.len());
        let _ = parse(
            &path,
            PathRules { strict: number & 1 == 0, numeric_domain: number & 2 == 0, allow_null: true },
        );
    }
}
