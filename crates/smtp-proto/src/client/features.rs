//! What a server says it can do: the reply to EHLO or LHLO.

use super::response::Response;

/// The extensions of a server. After HELO there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// How the server named itself, the first word of its reply: the own name there tells of a loop.
    pub server_name: String,
    /// It answered EHLO or LHLO, not only HELO.
    pub extended: bool,
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870; the limit in bytes where it gave one other than 0.
    pub size: Option<Option<u64>>,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 2034.
    pub enhanced_status_codes: bool,
    /// RFC 8689.
    pub requiretls: bool,
    /// RFC 4954: AUTH was offered; the mechanisms in upper case, in the server's order. `AUTH=` of servers that were
    /// written to a draft counts too.
    pub auth: Option<Vec<String>>,
    /// The attributes that Postfix's XFORWARD takes, in upper case.
    pub xforward: Vec<String>,
    /// The attributes that Postfix's XCLIENT takes, in upper case.
    pub xclient: Vec<String>,
}

impl Features {
    /// Reads a positive reply. Keywords in `discard` are passed over (`smtp_discard_ehlo_keywords`).
    pub(super) fn from_response(response: &Response, extended: bool, discard: &[String]) -> Self {
        let mut lines = response.texts();
        let server_name = lines.next().and_then(|line| line.split_ascii_whitespace().next()).unwrap_or("");
        let mut features = Self { server_name: server_name.to_owned(), extended, ..Self::default() };
        if !extended {
            return features;
        }
        for line in lines {
            let mut words = line.split_ascii_whitespace();
            let Some(word) = words.next() else { continue };
            // `AUTH=LOGIN` is what an early draft had; others write `SIZE=1000`.
            let (keyword, value) = match word.split_once('=') {
                Some((keyword, value)) => (keyword, Some(value)),
                None => (word, None),
            };
            if !discard.iter().any(|unwanted| unwanted.eq_ignore_ascii_case(keyword)) {
                features.take(keyword, value.into_iter().chain(words).filter(|value| !value.is_empty()));
            }
        }
        features
    }

    fn take<'a>(&mut self, keyword: &str, values: impl Iterator<Item = &'a str>) {
        let upper = |value: &str| value.to_ascii_uppercase();
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => self.size = Some(size(values)),
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "CHUNKING" => self.chunking = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "REQUIRETLS" => self.requiretls = true,
            "AUTH" => {
                let mechanisms = self.auth.get_or_insert_default();
                for mechanism in values.map(upper) {
                    if !mechanisms.contains(&mechanism) {
                        mechanisms.push(mechanism);
                    }
                }
            }
            "XFORWARD" => self.xforward.extend(values.map(upper)),
            "XCLIENT" => self.xclient.extend(values.map(upper)),
            _ => {}
        }
    }
}

/// The limit after SIZE; a number too large to be one is none.
fn size<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<u64> {
    values.next().and_then(|value| value.parse().ok()).filter(|limit| *limit > 0)
}
