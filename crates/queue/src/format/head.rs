//! The fixed-size head of a queue file.

use crate::Damage;
use crate::format::fields::Fields;

/// The size of the head, and the place of the first recipient's state.
pub(crate) const HEAD_SIZE: usize = 128;

/// Where the part begins that may change after commit; no checksum covers it.
pub(crate) const MUTABLE_OFFSET: usize = 64;

/// More recipients than any list: what a damaged count may make a reader believe.
pub(crate) const MAX_RECIPIENTS: u32 = 1 << 20;

/// The largest envelope, all recipients included.
pub(crate) const MAX_ENVELOPE: u64 = 1 << 30;

/// The largest records of the message itself (not of its recipients), which are held in memory whole.
pub(crate) const MAX_MESSAGE_RECORDS: u64 = 1 << 16;

/// The largest content: far more than `message_size_limit`, far less than what overflows an offset.
const MAX_CONTENT: u64 = 1 << 48;

const MAGIC: &[u8; 8] = b"Postroad";
const VERSION: u32 = 1;
const CHECKSUM_OFFSET: usize = MUTABLE_OFFSET - 4;

/// Where the parts of a queue file are, and their checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// How many recipients there are, and so how many state bytes follow the head.
    pub(crate) recipients: u32,
    /// The offset of the first recipient's record.
    pub(crate) recipients_offset: u64,
    /// The offset of the content, which is the end of the envelope.
    pub(crate) content_offset: u64,
    /// The size of the content.
    pub(crate) content_size: u64,
    /// CRC-32 of the content.
    pub(crate) content_checksum: u32,
    /// CRC-32 of the envelope, then of the head before this field.
    pub(crate) envelope_checksum: u32,
}

impl Head {
    /// The offset of the envelope: behind the states.
    pub(crate) fn envelope_offset(&self) -> u64 {
        HEAD_SIZE as u64 + u64::from(self.recipients)
    }

    /// The offset of the journal: behind the content.
    pub(crate) fn journal_offset(&self) -> u64 {
        self.content_offset.saturating_add(self.content_size)
    }

    /// The head as bytes.
    pub(crate) fn encode(&self) -> [u8; HEAD_SIZE] {
        let mut bytes = [0; HEAD_SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.recipients.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.recipients_offset.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.content_offset.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.content_size.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.content_checksum.to_le_bytes());
        bytes[CHECKSUM_OFFSET..MUTABLE_OFFSET].copy_from_slice(&self.envelope_checksum.to_le_bytes());
        bytes
    }

    /// The checksum of the envelope, whose bytes `envelope` was fed with, and of the head itself. The envelope goes
    /// first: it is written before the content, whose size and checksum the head has to name.
    pub(crate) fn sealed(mut self, mut envelope: crc32fast::Hasher) -> Self {
        envelope.update(sealed_part(&self.encode()));
        self.envelope_checksum = envelope.finalize();
        self
    }

    /// Takes the head from the first bytes of a file of `file_size` bytes, and checks all that can be checked without
    /// the envelope: every offset it returns lies in the file.
    pub(crate) fn decode(bytes: &[u8], file_size: u64) -> Result<Self, Damage> {
        if bytes.is_empty() {
            return Err(Damage::Empty);
        }
        let Some(bytes) = bytes.get(..HEAD_SIZE) else {
            return Err(Damage::Truncated);
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(Damage::Unfinished);
        }
        let head = Self::take_apart(bytes)?;
        if head.recipients > MAX_RECIPIENTS
            || head.recipients_offset < head.envelope_offset()
            || head.recipients_offset - head.envelope_offset() > MAX_MESSAGE_RECORDS
            || head.content_offset < head.recipients_offset
            || head.content_offset - head.envelope_offset() > MAX_ENVELOPE
            || head.content_size > MAX_CONTENT
        {
            return Err(Damage::Head);
        }
        if head.journal_offset() > file_size {
            return Err(Damage::Truncated);
        }
        Ok(head)
    }

    fn take_apart(bytes: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields::new(bytes);
        if fields.bytes(MAGIC.len()) != Some(MAGIC) {
            return Err(Damage::NotAQueueFile);
        }
        let version = fields.u32().ok_or(Damage::Truncated)?;
        if version != VERSION {
            return Err(Damage::Version(version));
        }
        let mut take = || {
            Some(Self {
                recipients: fields.u32()?,
                recipients_offset: fields.u64()?,
                content_offset: fields.u64()?,
                content_size: fields.u64()?,
                content_checksum: fields.u32()?,
                envelope_checksum: {
                    fields.bytes(CHECKSUM_OFFSET - 44)?;
                    fields.u32()?
                },
            })
        };
        take().ok_or(Damage::Truncated)
    }
}

/// The part of the head that the checksum covers: up to the checksum itself.
pub(crate) fn sealed_part(head: &[u8]) -> &[u8] {
    head.get(..CHECKSUM_OFFSET).unwrap_or_default()
}

/// The operator's wishes and what the sender was told: the first byte that may change after commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Flags(u8);

impl Flags {
    /// `postsuper -e`: the message is to be returned at its next attempt.
    pub(crate) const EXPIRE: Self = Self(1);
    /// The sender was told that the message is late (`delay_warning_time`).
    pub(crate) const DELAY_REPORTED: Self = Self(2);
    /// `postsuper -r`: it goes through the content filter that main.cf names, whatever it was to go through before.
    pub(crate) const REQUEUED: Self = Self(4);

    /// Where they are in the file.
    pub(crate) const OFFSET: u64 = MUTABLE_OFFSET as u64;

    pub(crate) fn from_head(head: &[u8]) -> Self {
        Self(head.get(MUTABLE_OFFSET).copied().unwrap_or_default())
    }

    pub(crate) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) fn with(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }

    pub(crate) fn byte(self) -> u8 {
        self.0
    }
}
