//! What master.cf says behind `pipe`: `flags=DRhu user=vmail argv=/usr/bin/deliver -d ${recipient}`.
//!
//! Pure. Users and groups are names here; who they are is looked up by the agent.

use super::arguments::Template;
use super::content::ContentFlags;

/// The attributes of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `user=NAME`, required.
    pub(super) user: String,
    /// `user=NAME:GROUP`.
    pub(super) group: Option<String>,
    /// `chroot=`
    pub(super) chroot: Option<String>,
    /// `directory=`
    pub(super) directory: Option<String>,
    /// `null_sender=`, in the place of the null sender.
    pub(super) null_sender: String,
    /// `size=`; 0 for no limit.
    pub(super) size_limit: u64,
    /// What of `flags=` is about the content.
    pub(super) content: ContentFlags,
    /// What of it is about addresses in arguments.
    pub(super) addresses: AddressFlags,
    /// `X`: the command is where the mail ends.
    pub(super) final_delivery: bool,
    /// `argv=`, required.
    pub(super) command: Vec<Template>,
}

/// How addresses are written in arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressFlags {
    /// `h`: domains in lower case.
    pub(super) fold_domain: bool,
    /// `u`: local parts in lower case.
    pub(super) fold_local: bool,
    /// `q`: local parts quoted as RFC 5321 has them.
    pub(super) quote: bool,
}

impl Attributes {
    /// Reads the arguments. What is odd but harmless is told to `warn`.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub(super) fn parse(arguments: &[String], mut warn: impl FnMut(String)) -> Result<Self, String> {
        let mut attributes = Self { null_sender: "MAILER-DAEMON".to_owned(), ..Self::default() };
        for (at, argument) in arguments.iter().enumerate() {
            let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
            match name.to_ascii_lowercase().as_str() {
                "flags" => attributes.read_flags(value, &mut warn),
                "user" => attributes.read_user(value)?,
                "chroot" => attributes.chroot = Some(absolute(name, value)?),
                "directory" => attributes.directory = Some(value.to_owned()),
                "null_sender" => value.clone_into(&mut attributes.null_sender),
                "eol" => attributes.content.eol = unescape(value),
                "size" => attributes.size_limit = size(value)?,
                "argv" => {
                    let rest = arguments.get(at + 1..).unwrap_or_default().iter().map(String::as_str);
                    let words = std::iter::once(value).chain(rest);
                    attributes.command = words.map(Template::parse).collect::<Result<_, _>>()?;
                    break;
                }
                _ => return Err(format!("unknown attribute \"{argument}\": {KNOWN}")),
            }
        }
        if attributes.user.is_empty() {
            return Err("user= is missing: expected user=NAME or user=NAME:GROUP".to_owned());
        }
        if attributes.command.first().is_none_or(Template::is_empty) {
            return Err("argv= is missing: expected argv=COMMAND ARGUMENT..., after all others".to_owned());
        }
        Ok(attributes)
    }

    fn read_flags(&mut self, flags: &str, warn: &mut impl FnMut(String)) {
        for flag in flags.chars() {
            match flag {
                'B' => self.content.blank_line = true,
                'D' => self.content.delivered_to = true,
                'F' => self.content.from_line = true,
                'O' => self.content.original_to = true,
                'R' => self.content.return_path = true,
                'X' => self.final_delivery = true,
                'h' => self.addresses.fold_domain = true,
                'q' => self.addresses.quote = true,
                'u' => self.addresses.fold_local = true,
                '.' => self.content.dots = true,
                '>' => self.content.quote_from = true,
                other => warn(format!("flags={flags}: there is no flag {other}; it is ignored")),
            }
        }
    }

    fn read_user(&mut self, value: &str) -> Result<(), String> {
        let (user, group) = match value.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (value, None),
        };
        if user.is_empty() || group.is_some_and(str::is_empty) {
            return Err(format!("user={value}: expected user=NAME or user=NAME:GROUP"));
        }
        user.clone_into(&mut self.user);
        self.group = group.map(str::to_owned);
        Ok(())
    }
}

const KNOWN: &str =
    "expected chroot=, directory=, eol=, flags=, null_sender=, size=, user= and, after all others, argv=";

fn absolute(name: &str, path: &str) -> Result<String, String> {
    if path.starts_with('/') {
        Ok(path.to_owned())
    } else {
        Err(format!("{name}={path}: expected an absolute path"))
    }
}

fn size(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("size={value}: expected a number of bytes"))
}

/// `\r\n` and the other escapes of C: `\a \b \f \n \r \t \v \\` and up to three octal digits.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'a') => out.push(7),
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(11),
            Some(digit @ b'0'..=b'7') => {
                let mut number = u32::from(digit - b'0');
                for _ in 0..2 {
                    let Some(digit) = bytes.next_if(|next| matches!(next, b'0'..=b'7')) else { break };
                    number = number * 8 + u32::from(digit - b'0');
                }
                out.push(number.to_le_bytes()[0]);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Attributes, String> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        Attributes::parse(&words, |_| ())
    }

    #[test]
    fn everything_that_the_manual_lists_is_read() {
        let text = "flags=BDFORXhqu.> user=vmail:mail chroot=/jail directory=/tmp eol=\\r\\n size=1000 \
                    null_sender= argv=/bin/cmd -f ${sender} argv=x user=y";
        let read = parse(text).unwrap();
        assert_eq!((read.user.as_str(), read.group.as_deref()), ("vmail", Some("mail")));
        assert_eq!((read.chroot.as_deref(), read.directory.as_deref()), (Some("/jail"), Some("/tmp")));
        assert_eq!((read.size_limit, read.null_sender.as_str()), (1000, ""));
        assert_eq!(read.addresses, AddressFlags { fold_domain: true, fold_local: true, quote: true });
        let content = ContentFlags {
            blank_line: true,
            delivered_to: true,
            from_line: true,
            original_to: true,
            return_path: true,
            dots: true,
            quote_from: true,
            eol: b"\r\n".to_vec(),
        };
        assert_eq!(read.content, content);
        assert!(read.final_delivery);
        assert_eq!(read.command.len(), 5);
    }

    #[test]
    fn mistakes_are_named_with_what_would_be_right() {
        for (text, wanted) in [
            ("argv=/bin/true", "user= is missing"),
            ("user=x", "argv= is missing"),
            ("user=x argv=", "argv= is missing"),
            ("user= argv=/bin/true", "expected user=NAME"),
            ("user=x: argv=/bin/true", "expected user=NAME"),
            ("user=x size=big argv=/bin/true", "a number of bytes"),
            ("user=x chroot=here argv=/bin/true", "an absolute path"),
            ("user=x colour=red argv=/bin/true", "unknown attribute \"colour=red\""),
            ("user=x argv=/bin/true ${nothing}", "unknown name \"nothing\""),
            ("user=x argv=/bin/true ${user", "no closing }"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let mut said = Vec::new();
        let words = ["flags=Dz".to_owned(), "user=x".to_owned(), "argv=/bin/true".to_owned()];
        Attributes::parse(&words, |text| said.push(text)).unwrap();
        assert_eq!(said, ["flags=Dz: there is no flag z; it is ignored"]);
    }

    #[test]
    fn escapes_are_those_of_c() {
        assert_eq!(unescape("\\r\\n"), b"\r\n");
        assert_eq!(unescape("a\\0141\\7x\\\\\\q\\"), b"a\x0c1\x07x\\q");
        assert_eq!(unescape("\\a\\b\\f\\t\\v\\377"), [7, 8, 12, 9, 11, 255]);
    }
}
