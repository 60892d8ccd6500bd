//! The arguments of MAIL and RCPT: an address and ESMTP parameters (RFC 5321 section 4.1.1.11).

use mail::{Address, Body, DsnReturn, Notify};

use crate::path::{self, PathRules};
use crate::reply::Fault;
use crate::xtext;

/// What the server offers, so far as it decides which parameters and commands there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extensions(u16);

impl Extensions {
    /// RFC 2920.
    pub const PIPELINING: Self = Self(1);
    /// RFC 1870.
    pub const SIZE: Self = Self(2);
    /// VRFY of RFC 5321.
    pub const VRFY: Self = Self(4);
    /// RFC 1985.
    pub const ETRN: Self = Self(8);
    /// RFC 3207.
    pub const STARTTLS: Self = Self(16);
    /// RFC 4954.
    pub const AUTH: Self = Self(32);
    /// RFC 2034.
    pub const ENHANCEDSTATUSCODES: Self = Self(64);
    /// RFC 6152.
    pub const EIGHTBITMIME: Self = Self(128);
    /// RFC 3461.
    pub const DSN: Self = Self(256);
    /// RFC 6531.
    pub const SMTPUTF8: Self = Self(512);
    /// RFC 3030.
    pub const CHUNKING: Self = Self(1024);
    /// Postfix's.
    pub const XCLIENT: Self = Self(2048);
    /// Postfix's.
    pub const XFORWARD: Self = Self(4096);

    /// None at all.
    pub const NONE: Self = Self(0);

    /// What this crate does by itself.
    pub const ALL_PLAIN: Self = Self(1 | 2 | 4 | 8 | 64 | 128 | 256 | 512 | 1024);

    /// The one that has this name in EHLO's reply and in `smtpd_discard_ehlo_keywords`.
    #[must_use]
    pub fn from_keyword(keyword: &str) -> Option<Self> {
        const NAMES: [(&str, Extensions); 13] = [
            ("PIPELINING", Extensions::PIPELINING),
            ("SIZE", Extensions::SIZE),
            ("VRFY", Extensions::VRFY),
            ("ETRN", Extensions::ETRN),
            ("STARTTLS", Extensions::STARTTLS),
            ("AUTH", Extensions::AUTH),
            ("ENHANCEDSTATUSCODES", Extensions::ENHANCEDSTATUSCODES),
            ("8BITMIME", Extensions::EIGHTBITMIME),
            ("DSN", Extensions::DSN),
            ("SMTPUTF8", Extensions::SMTPUTF8),
            ("CHUNKING", Extensions::CHUNKING),
            ("XCLIENT", Extensions::XCLIENT),
            ("XFORWARD", Extensions::XFORWARD),
        ];
        NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(keyword)).map(|(_, extension)| *extension)
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without those.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` are there.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What decides how arguments are read.
#[derive(Clone, Copy, Debug)]
pub struct ArgumentRules {
    /// `strict_rfc821_envelopes`.
    pub strict_envelopes: bool,
    /// `resolve_numeric_domain`.
    pub numeric_domain: bool,
    /// `strict_smtputf8`: a UTF-8 address only after SMTPUTF8.
    pub strict_smtputf8: bool,
    /// What is offered to this client.
    pub extensions: Extensions,
    /// `message_size_limit`, 0 for none.
    pub message_size_limit: u64,
}

impl ArgumentRules {
    const fn path(&self, allow_null: bool) -> PathRules {
        PathRules { strict: self.strict_envelopes, numeric_domain: self.numeric_domain, allow_null }
    }
}

/// MAIL FROM, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The reverse path; null for notifications.
    pub sender: Address,
    /// SIZE of RFC 1870.
    pub size: Option<u64>,
    /// BODY of RFC 6152.
    pub body: Body,
    /// SMTPUTF8 of RFC 6531 was given.
    pub smtputf8: bool,
    /// RET of RFC 3461.
    pub ret: Option<DsnReturn>,
    /// ENVID of RFC 3461, as received.
    pub envid: Option<String>,
    /// AUTH of RFC 4954 section 5, as received; nothing for `<>`.
    pub auth: Option<String>,
}

/// RCPT TO, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    /// The forward path.
    pub recipient: Address,
    /// NOTIFY of RFC 3461.
    pub notify: Notify,
    /// ORCPT of RFC 3461, as received.
    pub orcpt: Option<String>,
}

/// Reads what follows `MAIL`.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn mail(arguments: &str, rules: &ArgumentRules) -> Result<Mail, Fault> {
    let rest = after_keyword(arguments, "FROM").ok_or(Fault::MailSyntax)?;
    let (path, parameters) = path::split(rest);
    if path.is_empty() {
        return Err(Fault::MailSyntax);
    }
    let sender = path::parse(path, rules.path(true)).map_err(|_| Fault::SenderSyntax)?;
    let (size, body) = (None, Body::Unspecified);
    let mut mail = Mail { sender, size, body, smtputf8: false, ret: None, envid: None, auth: None };
    for parameter in parameters.split([' ', '\t']).filter(|word| !word.is_empty()) {
        mail.take(parameter, rules)?;
    }
    if rules.message_size_limit > 0 && mail.size.is_some_and(|size| size > rules.message_size_limit) {
        return Err(Fault::SizeOverLimit);
    }
    check_utf8(&mail.sender, mail.smtputf8, rules, Fault::SenderSyntax)?;
    Ok(mail)
}

impl Mail {
    fn take(&mut self, parameter: &str, rules: &ArgumentRules) -> Result<(), Fault> {
        let (name, value) = parameter.split_once('=').map_or((parameter, None), |(n, v)| (n, Some(v)));
        let offered = |extension| rules.extensions.contains(extension);
        match (name.to_ascii_uppercase().as_str(), value) {
            // SIZE and BODY are taken from any client, as Postfix takes them: they do no harm where they were not offered.
            ("SIZE", Some(size)) => {
                let digits = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
                self.size = Some(size.parse().ok().filter(|_| digits).ok_or(Fault::SizeSyntax)?);
            }
            ("BODY", Some(body)) if body.eq_ignore_ascii_case("8BITMIME") => self.body = Body::EightBitMime,
            ("BODY", Some(body)) if body.eq_ignore_ascii_case("7BIT") => self.body = Body::SevenBit,
            ("SMTPUTF8", None) if offered(Extensions::SMTPUTF8) => self.smtputf8 = true,
            ("RET" | "ENVID", Some(_)) if !offered(Extensions::DSN) => return Err(Fault::DsnDisabled),
            ("RET", Some(ret)) => {
                let ret = match ret.to_ascii_uppercase().as_str() {
                    "FULL" => DsnReturn::Full,
                    "HDRS" => DsnReturn::Headers,
                    _ => return Err(Fault::RetSyntax),
                };
                if self.ret.replace(ret).is_some() {
                    return Err(Fault::RetSyntax);
                }
            }
            ("ENVID", Some(envid)) => {
                let right = xtext::decode(envid).is_some_and(|decoded| !decoded.is_empty());
                if !right || self.envid.replace(envid.to_owned()).is_some() {
                    return Err(Fault::EnvidSyntax);
                }
            }
            // RFC 4954 section 5: who offers AUTH takes this; Postfix takes it always, and trusts it never.
            ("AUTH", Some(auth)) => {
                let auth = if auth == "<>" { "" } else { auth };
                if self.auth.replace(auth.to_owned()).is_some() {
                    return Err(Fault::MultipleAuth);
                }
            }
            _ => return Err(Fault::UnsupportedOption(parameter.to_owned())),
        }
        Ok(())
    }
}

/// Reads what follows `RCPT`. `smtputf8` is whether MAIL declared it.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn rcpt(arguments: &str, smtputf8: bool, rules: &ArgumentRules) -> Result<Rcpt, Fault> {
    let rest = after_keyword(arguments, "TO").ok_or(Fault::RcptSyntax)?;
    let (path, parameters) = path::split(rest);
    if path.is_empty() {
        return Err(Fault::RcptSyntax);
    }
    let recipient = path::parse(path, rules.path(false)).map_err(|_| Fault::RecipientSyntax)?;
    let mut rcpt = Rcpt { recipient, notify: Notify::UNSET, orcpt: None };
    for parameter in parameters.split([' ', '\t']).filter(|word| !word.is_empty()) {
        let (name, value) = parameter.split_once('=').map_or((parameter, None), |(n, v)| (n, Some(v)));
        match (name.to_ascii_uppercase().as_str(), value) {
            ("NOTIFY" | "ORCPT", Some(_)) if !rules.extensions.contains(Extensions::DSN) => {
                return Err(Fault::DsnDisabled);
            }
            ("NOTIFY", Some(list)) if rcpt.notify == Notify::UNSET => {
                rcpt.notify = notify(list).ok_or(Fault::NotifySyntax)?;
            }
            ("NOTIFY", Some(_)) => return Err(Fault::NotifySyntax),
            ("ORCPT", Some(orcpt)) => {
                if !is_orcpt(orcpt) || rcpt.orcpt.replace(orcpt.to_owned()).is_some() {
                    return Err(Fault::OrcptSyntax);
                }
            }
            _ => return Err(Fault::UnsupportedOption(parameter.to_owned())),
        }
    }
    check_utf8(&rcpt.recipient, smtputf8, rules, Fault::RecipientSyntax)?;
    Ok(rcpt)
}

/// What follows `FROM:` or `TO:`; many clients put a blank after the colon.
fn after_keyword<'a>(arguments: &'a str, keyword: &str) -> Option<&'a str> {
    let (word, rest) = arguments.split_once(':')?;
    word.eq_ignore_ascii_case(keyword).then(|| rest.trim_start_matches([' ', '\t']))
}

/// A UTF-8 domain is one only under SMTPUTF8 (RFC 6531 section 3.1); whether the rest may be UTF-8 without it is the
/// operator's choice, because there are mailers that have always sent it.
fn check_utf8(address: &Address, declared: bool, rules: &ArgumentRules, syntax: Fault) -> Result<(), Fault> {
    if declared || address.is_ascii() {
        return Ok(());
    }
    match address.domain() {
        _ if rules.strict_smtputf8 => Err(Fault::NeedSmtpUtf8),
        Some(domain) if !domain.is_ascii() => Err(syntax),
        _ => Ok(()),
    }
}

/// RFC 3461 section 4.1: NEVER stands alone.
fn notify(list: &str) -> Option<Notify> {
    if list.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::NEVER);
    }
    list.split(',').try_fold(Notify::UNSET, |sum, word| match word.to_ascii_uppercase().as_str() {
        "SUCCESS" => Some(sum.and(Notify::SUCCESS)),
        "FAILURE" => Some(sum.and(Notify::FAILURE)),
        "DELAY" => Some(sum.and(Notify::DELAY)),
        _ => None,
    })
}

/// RFC 3461 section 4.2: an address type, `;`, xtext.
fn is_orcpt(orcpt: &str) -> bool {
    orcpt.split_once(';').is_some_and(|(kind, address)| {
        let atom = |b: u8| b.is_ascii_graphic() && !br#"()<>@,;:\".[]"#.contains(&b);
        !kind.is_empty() && kind.bytes().all(atom) && xtext::decode(address).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: ArgumentRules = ArgumentRules {
        strict_envelopes: false,
        numeric_domain: false,
        strict_smtputf8: false,
        extensions: Extensions::ALL_PLAIN,
        message_size_limit: 1000,
    };

    #[test]
    fn every_parameter_of_mail() {
        let line = "from: <a@b> SIZE=1000 body=8bitmime SMTPUTF8 RET=HDRS ENVID=x+2By";
        let expected = Mail {
            sender: Address::new("a@b").unwrap(),
            size: Some(1000),
            body: Body::EightBitMime,
            smtputf8: true,
            ret: Some(DsnReturn::Headers),
            envid: Some("x+2By".to_owned()),
            auth: None,
        };
        assert_eq!(mail(line, &RULES), Ok(expected));
        for (auth, kept) in [("a+2Bb@c", "a+2Bb@c"), ("<>", ""), ("", ""), ("a+0A+", "a+0A+")] {
            let line = format!("FROM:<a@b> AUTH={auth}");
            assert_eq!(mail(&line, &RULES).unwrap().auth.as_deref(), Some(kept));
        }
    }

    #[test]
    fn faults_of_mail() {
        let cases = [
            ("", Fault::MailSyntax),
            ("FROM:", Fault::MailSyntax),
            ("TO:<a@b>", Fault::MailSyntax),
            ("FROM:<a@b", Fault::SenderSyntax),
            ("FROM:<a@b> SIZE=", Fault::SizeSyntax),
            ("FROM:<a@b> SIZE=+1", Fault::SizeSyntax),
            ("FROM:<a@b> SIZE=99999999999999999999", Fault::SizeSyntax),
            ("FROM:<a@b> SIZE=1001", Fault::SizeOverLimit),
            ("FROM:<a@b> RET=SOME", Fault::RetSyntax),
            ("FROM:<a@b> RET=FULL RET=FULL", Fault::RetSyntax),
            ("FROM:<a@b> ENVID=a+2", Fault::EnvidSyntax),
            ("FROM:<a@b> ENVID=", Fault::EnvidSyntax),
            ("FROM:<a@b> AUTH=a AUTH=b", Fault::MultipleAuth),
            ("FROM:<a@b> AUTH", Fault::UnsupportedOption("AUTH".into())),
            ("FROM:<a@ä.b>", Fault::SenderSyntax),
            ("FROM:<a@b> SMTPUTF8=x", Fault::UnsupportedOption("SMTPUTF8=x".into())),
            ("FROM:<a@b> FOO", Fault::UnsupportedOption("FOO".into())),
        ];
        for (line, fault) in cases {
            assert_eq!(mail(line, &RULES), Err(fault), "{line}");
        }
        let strict = ArgumentRules { strict_smtputf8: true, ..RULES };
        assert_eq!(mail("FROM:<ä@b>", &strict), Err(Fault::NeedSmtpUtf8));
        let no_dsn = ArgumentRules { extensions: Extensions::NONE, ..RULES };
        assert_eq!(mail("FROM:<a@b> RET=FULL", &no_dsn), Err(Fault::DsnDisabled));
    }

    #[test]
    fn every_parameter_of_rcpt() {
        let both = rcpt("TO:<a@b> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bb@c", false, &RULES).unwrap();
        assert_eq!(both.notify, Notify::SUCCESS.and(Notify::DELAY));
        assert_eq!(both.orcpt.as_deref(), Some("rfc822;a+2Bb@c"));
        assert_eq!(rcpt("TO:<a@b> NOTIFY=NEVER", false, &RULES).unwrap().notify, Notify::NEVER);
        assert!(rcpt("TO:<a@b> ORCPT=x_y.z;a", false, &RULES).is_err());
        assert_eq!(rcpt("TO:<a@b> ORCPT=x_y+z;a", false, &RULES).unwrap().orcpt.as_deref(), Some("x_y+z;a"));
        let cases = [
            ("FROM:<a@b>", Fault::RcptSyntax),
            ("TO:<>", Fault::RecipientSyntax),
            ("TO:<a@b> NOTIFY=NEVER,DELAY", Fault::NotifySyntax),
            ("TO:<a@b> NOTIFY=", Fault::NotifySyntax),
            ("TO:<a@b> NOTIFY=DELAY NOTIFY=DELAY", Fault::NotifySyntax),
            ("TO:<a@b> ORCPT=a@b", Fault::OrcptSyntax),
            ("TO:<a@b> ORCPT=;a", Fault::OrcptSyntax),
            ("TO:<a@b> ORCPT=(x);a", Fault::OrcptSyntax),
            ("TO:<a@ä.b>", Fault::RecipientSyntax),
            ("TO:<a@b> ORCPT=rfc822;a+0Ab", Fault::OrcptSyntax),
            ("TO:<a@b> SIZE=1", Fault::UnsupportedOption("SIZE=1".into())),
        ];
        for (line, fault) in cases {
            assert_eq!(rcpt(line, false, &RULES), Err(fault), "{line}");
        }
    }
}
