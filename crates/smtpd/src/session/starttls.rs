//! STARTTLS (RFC 3207), and TLS from the first byte on (RFC 8314).

use ipc::log;
use mail::Dsn;
use smtp_proto::Reply;
use smtp_proto::parameter::Extensions;

use super::conversation::Conversation;
use crate::limits::Happening;
use crate::wire::Lost;

impl Conversation<'_> {
    /// STARTTLS: false where it is not offered to this client.
    pub(super) fn start_tls(&mut self) -> Result<bool, Lost> {
        let offered = self.proto.policy().extensions.contains(Extensions::STARTTLS);
        if !offered || self.dialogue.server.tls.is_none() {
            return Ok(false);
        }
        if let Some(reply) = self.dialogue.limit(Happening::NewTls) {
            self.proto.answer(&reply);
            return Ok(true);
        }
        self.proto.answer(&Reply::new(220, Dsn::new(2, 0, 0), "Ready to start TLS"));
        let output = std::mem::take(self.proto.output());
        self.wire.write(&output)?;
        self.encrypt()?;
        Ok(true)
    }

    /// The handshake; what was said in clear is forgotten after it.
    pub(super) fn encrypt(&mut self) -> Result<(), Lost> {
        let Some(tls) = &self.dialogue.server.tls else { return Ok(()) };
        let client = self.dialogue.client.to_string();
        let info = self.wire.encrypt(tls, &client)?;
        self.dialogue.forget_transaction();
        self.dialogue.helo = None;
        self.dialogue.client.login = None;
        self.dialogue.out_of_step = false;
        self.proto.encrypted();
        self.proto.offer_auth(None);
        let encryption = tls.encryption(&info);
        if tls.requires_certificate && !encryption.is_trusted() {
            let why = match encryption.has_certificate() {
                true => "Client certificate not trusted",
                false => "No client certificate presented",
            };
            log::info!("NOQUEUE: abort: TLS from {client}: {why}");
            let hostname = &self.dialogue.server.settings.hostname;
            self.proto.dismiss(&Reply::new(421, Dsn::new(4, 7, 1), format!("{hostname} Error: {why}")));
        }
        self.dialogue.client.tls = Some(encryption);
        Ok(())
    }
}
