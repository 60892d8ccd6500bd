//! TLS 1.2 and 1.3 as Postfix's parameters describe them, over rustls with ring.
//!
//! [`client`] is what smtp and lmtp do, [`server`] what smtpd does. Certificates are judged here and not by rustls, because mail is
//! opportunistic: most connections go on with a certificate that proves nothing, and the log says so.

mod anchors;
mod certificate;
mod ciphers;
pub mod client;
pub mod dane;
mod dane_host;
mod handshake;
mod info;
mod keys;
mod names;
mod own;
mod policy;
mod protocols;
pub mod server;
mod sessions;
mod settings;
mod store;
pub mod sts;
#[cfg(test)]
mod testing;
mod verifier;

/// What of the parameters of `prefix` works, but hardly as it was meant: each text begins with the parameter.
#[must_use]
pub fn warnings(config: &config::Config, prefix: &str) -> Vec<String> {
    let settings = settings::Settings { config, prefix };
    let mut found = Vec::new();
    for rest in ["tls_protocols", "tls_mandatory_protocols"] {
        let old = protocols::too_old(&settings.list(rest));
        if !old.is_empty() {
            let names = old.join(" and ");
            found.push(format!(
                "{}: {names} cannot be had; what is spoken is TLSv1.2 and TLSv1.3",
                settings.name(rest)
            ));
        }
    }
    found.extend(dane_host::warning(config, prefix));
    if prefix == "smtpd"
        && settings.flag("tls_req_ccert")
        && server::Level::from_config(config) == Ok(server::Level::May)
    {
        found.push("smtpd_tls_req_ccert: clients are only asked for a certificate where smtpd_tls_security_level = encrypt is not set".into());
    }
    found
}

pub use certificate::{Certificate, Digest, Key};
pub use ciphers::Ciphers;
pub use handshake::Socket;
pub use info::{Algorithm, Info, Trust};
pub use own::{Own, own_certificates};
#[doc(hidden)]
pub use policy::policy_level;
pub use protocols::Protocols;
