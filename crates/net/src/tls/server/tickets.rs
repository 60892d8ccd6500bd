//! Session tickets: sessions are resumed without anything being kept here.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::server::ProducesTickets;

/// A key for session tickets (RFC 8446 section 4.6.1): what a ticket holds is encrypted and can be made by nobody else.
pub(super) struct TicketKey {
    key: LessSafeKey,
    random: SystemRandom,
}

const NONCE: usize = 12;

/// A fresh one.
pub(super) fn ticket_key() -> Result<TicketKey, rustls::crypto::GetRandomFailed> {
    let random = SystemRandom::new();
    let mut bytes = [0; 32];
    random.fill(&mut bytes).map_err(|_| rustls::crypto::GetRandomFailed)?;
    let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| rustls::crypto::GetRandomFailed)?;
    Ok(TicketKey { key: LessSafeKey::new(key), random })
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").finish_non_exhaustive()
    }
}

impl ProducesTickets for TicketKey {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // The rotator says how long.
        0
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let used = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(used, Aad::empty(), &mut sealed).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = cipher.split_at_checked(NONCE)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::empty(), &mut sealed).ok()?.len();
        sealed.truncate(plain);
        Some(sealed)
    }
}
