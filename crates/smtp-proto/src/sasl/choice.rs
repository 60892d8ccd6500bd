//! Which mechanisms are good enough, and which is best.

use super::Mechanism;

/// `smtp_sasl_security_options` and `smtpd_sasl_security_options`: what a mechanism must not be or must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// `noplaintext`: none that shows the password to whoever listens.
    pub no_plain_text: bool,
    /// `noactive`: none that an active attacker can take over.
    pub no_active: bool,
    /// `nodictionary`: none that lets a listener try passwords.
    pub no_dictionary: bool,
    /// `noanonymous`: none that lets anybody in. There is no such mechanism here; others offer them.
    pub no_anonymous: bool,
    /// `forward_secrecy`: none whose past exchanges a found password opens.
    pub forward_secrecy: bool,
    /// `mutual_auth`: only those in which the server proves itself as well.
    pub mutual_auth: bool,
}

impl SecurityOptions {
    /// Reads a parameter's value: words parted by commas or blanks.
    ///
    /// # Errors
    /// The word that is none of them.
    pub fn parse(value: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for word in value.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()) {
            let option = match word.to_ascii_lowercase().as_str() {
                "noplaintext" => &mut options.no_plain_text,
                "noactive" => &mut options.no_active,
                "nodictionary" => &mut options.no_dictionary,
                "noanonymous" => &mut options.no_anonymous,
                "forward_secrecy" => &mut options.forward_secrecy,
                "mutual_auth" => &mut options.mutual_auth,
                _ => return Err(word.to_owned()),
            };
            *option = true;
        }
        Ok(options)
    }

    /// Whether a mechanism is good enough, as Cyrus SASL judges them.
    #[must_use]
    pub const fn allow(self, mechanism: Mechanism) -> bool {
        use Mechanism as M;
        let plain_text = matches!(mechanism, M::Plain | M::Login | M::OAuthBearer | M::XOAuth2);
        let scram =
            matches!(mechanism, M::ScramSha1 | M::ScramSha1Plus | M::ScramSha256 | M::ScramSha256Plus);
        let external = matches!(mechanism, M::External);
        let guessable = matches!(mechanism, M::Plain | M::Login | M::CramMd5) || scram;
        let refused = self.no_plain_text && plain_text
            || self.no_active && !(scram || external)
            || self.no_dictionary && guessable
            || self.mutual_auth && !scram
            || self.forward_secrecy && !external;
        !refused
    }
}

/// The best mechanism that the server offers, the options allow, and the caller can do.
#[must_use]
pub fn choose(
    offered: &[String],
    options: SecurityOptions,
    can: impl Fn(Mechanism) -> bool,
) -> Option<Mechanism> {
    let is_offered =
        |mechanism: &Mechanism| offered.iter().any(|name| name.eq_ignore_ascii_case(mechanism.name()));
    Mechanism::ALL
        .into_iter()
        .find(|mechanism| is_offered(mechanism) && options.allow(*mechanism) && can(*mechanism))
}
