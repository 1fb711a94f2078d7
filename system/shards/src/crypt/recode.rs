//! Content that comes under another key, or under one for the first time: read through one cipher, written through
//! another, by each node that has a replica for itself. The same content under the same keys gives the same bytes
//! everywhere.

use std::io;
use std::sync::Arc;

use super::xts::{self, Cipher};
use crate::format::SECTOR;
use crate::volume::Volume;

/// How much is read at a time, in bytes.
const CHUNK: u64 = 1 << 20;
/// What holds zeroes alone in this many bytes is not written, so that it takes no room.
const GRAIN: usize = 64 << 10;

/// Between which ciphers content is copied; `None` is plaintext.
#[derive(Debug, Clone)]
pub struct Recode {
    /// What it is under.
    pub from: Option<Arc<Cipher>>,
    /// What it comes under.
    pub to: Option<Arc<Cipher>>,
}

impl Recode {
    /// Copies all of `source`, which must not change meanwhile, into an empty volume that is at least as large.
    pub fn copy(&self, source: &Volume, target: &Volume) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK as usize];
        let mut at = 0;
        while at < source.size() {
            let len = CHUNK.min(source.size() - at);
            if !source.is_hole(at, len)? {
                let bytes = &mut buffer[..len as usize];
                source.read_slice(at, bytes)?;
                self.put(at, bytes, target)?;
            }
            at += len;
        }
        target.flush()
    }

    fn put(&self, at: u64, bytes: &mut [u8], target: &Volume) -> io::Result<()> {
        if let Some(from) = &self.from {
            from.decrypt(at / SECTOR, bytes);
        }
        for (at, grain) in (at..).step_by(GRAIN).zip(bytes.chunks_mut(GRAIN)) {
            if xts::is_zero(grain) {
                continue;
            }
            if let Some(to) = &self.to {
                to.encrypt(at / SECTOR, grain);
            }
            target.write_slice(at, grain)?;
        }
        Ok(())
    }
}
