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
mod policy;
mod protocols;
pub mod server;
mod sessions;
mod settings;
#[cfg(test)]
mod testing;
mod verifier;

pub use certificate::{Certificate, Digest, Key};
pub use ciphers::Ciphers;
pub use handshake::Socket;
pub use info::{Algorithm, Info, Trust};
pub use protocols::Protocols;
