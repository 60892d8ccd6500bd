//! `smtp_reply_filter`: what servers say is replaced, line by line, before it is understood. The last resort for servers
//! whose replies cannot be lived with.

use std::fmt;

use ipc::log;
use lookup::Maps;
use memchr::memchr;

/// A line that has no end by then goes on as it is.
const MAX_LINE: usize = 16 * 1024;

/// Replaces the lines of one conversation.
pub(crate) struct ReplyFilter {
    maps: Maps,
    /// The beginning of a line whose end has not come.
    waiting: Vec<u8>,
}

impl fmt::Debug for ReplyFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyFilter").finish_non_exhaustive()
    }
}

impl ReplyFilter {
    /// None where there is nothing to replace with.
    pub(crate) fn new(maps: &Maps) -> Option<Self> {
        (!maps.is_empty()).then(|| Self { maps: maps.clone(), waiting: Vec::new() })
    }

    /// Takes bytes that were read, gives those to be understood.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.waiting.extend_from_slice(bytes);
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while let Some(length) = memchr(b'\n', &self.waiting[at..]) {
            self.line(&self.waiting[at..=at + length], &mut out);
            at += length + 1;
        }
        self.waiting.drain(..at);
        if self.waiting.len() > MAX_LINE {
            out.append(&mut self.waiting);
        }
        out
    }

    fn line(&self, line: &[u8], out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        match self.maps.get(&text) {
            Ok(Some(other)) => {
                out.extend_from_slice(other.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Ok(None) => out.extend_from_slice(line),
            Err(error) => {
                log::warning!("{error}");
                out.extend_from_slice(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_replaced_however_they_are_cut() {
        let maps = Maps::open(&["inline:{{250 odd = 550 5.0.0 even}}".to_owned()]).unwrap();
        let wire = b"220 hello\r\n250 odd\r\n250 o";
        for step in 1..wire.len() {
            let mut filter = ReplyFilter::new(&maps).unwrap();
            let out: Vec<u8> = wire.chunks(step).flat_map(|piece| filter.take(piece)).collect();
            assert_eq!(String::from_utf8(out).unwrap(), "220 hello\r\n550 5.0.0 even\r\n");
        }
        assert!(ReplyFilter::new(&Maps::default()).is_none());
    }
}
