//! A volume as its users see it, over one that holds ciphertext. It adds no state: whatever is beneath may be a volume on
//! a disk here or the writer of several replicas.
//!
//! Bytes are copied out of the guest's memory before they are encrypted, so that what a guest changes meanwhile never
//! reaches a disk as something between.

use std::io;
use std::sync::Arc;

use super::xts::Cipher;
use crate::format::SECTOR;
use crate::media::{End, Media};
use crate::sys::{Pieces, Sink, Source};
use crate::volume::{CHUNK, chunks};

/// What is served of an encrypted volume.
pub struct Encrypted {
    inner: Arc<dyn Media>,
    cipher: Arc<Cipher>,
}

impl Encrypted {
    /// The plaintext of `inner` under this cipher.
    pub fn new(inner: Arc<dyn Media>, cipher: Arc<Cipher>) -> Encrypted {
        Encrypted { inner, cipher }
    }

    /// Takes a write's bytes and encrypts them; nothing is taken if there are too few.
    fn sealed(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len as usize];
        if !from.take(&mut bytes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.cipher.encrypt(offset / SECTOR, &mut bytes);
        Ok(bytes)
    }

    /// Decrypts what was read and hands it out.
    fn unsealed(&self, offset: u64, bytes: &mut [u8], to: &mut Pieces<'_, Sink>) -> bool {
        self.cipher.decrypt(offset / SECTOR, bytes);
        to.put(bytes)
    }
}

fn is_whole(offset: u64, len: u64) -> bool {
    offset.is_multiple_of(SECTOR) && len.is_multiple_of(SECTOR)
}

fn check(offset: u64, len: u64) -> io::Result<()> {
    if is_whole(offset, len) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "an encrypted volume is read and written by whole sectors",
    ))
}

impl Media for Encrypted {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn is_full(&self) -> bool {
        self.inner.is_full()
    }

    fn read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<()> {
        check(offset, len)?;
        let mut buffer = vec![0; len.min(CHUNK) as usize];
        for (at, len) in chunks(offset, len) {
            let bytes = &mut buffer[..len as usize];
            self.inner.read_slice(at, bytes)?;
            if !self.unsealed(at, bytes, to) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<()> {
        check(offset, len)?;
        for (at, len) in chunks(offset, len) {
            let bytes = self.sealed(at, len, from)?;
            self.inner.write_slice(at, &bytes)?;
        }
        Ok(())
    }

    fn try_read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> bool {
        if len > CHUNK || !is_whole(offset, len) {
            return false;
        }
        let mut bytes = vec![0; len as usize];
        let mut pieces = Pieces::<Sink>::default();
        pieces.push_slice(&mut bytes);
        let read = self.inner.try_read(offset, len, &mut pieces);
        drop(pieces);
        read && self.unsealed(offset, &mut bytes, to)
    }

    fn try_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> bool {
        // Who writes elsewhere never does so without waiting: nothing is encrypted for naught.
        if len > CHUNK || !is_whole(offset, len) || self.inner.ends_later() {
            return false;
        }
        let before = from.position();
        let Ok(bytes) = self.sealed(offset, len, from) else { return false };
        let mut pieces = Pieces::<Source>::default();
        pieces.push_bytes(&bytes);
        let written = self.inner.try_write(offset, len, &mut pieces);
        if !written {
            from.rewind(before);
        }
        written
    }

    fn ends_later(&self) -> bool {
        self.inner.ends_later()
    }

    fn begin_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>, end: End) -> Option<End> {
        let before = from.position();
        if len > CHUNK || !is_whole(offset, len) {
            return Some(end);
        }
        let Ok(bytes) = self.sealed(offset, len, from) else { return Some(end) };
        let mut pieces = Pieces::<Source>::default();
        pieces.push_bytes(&bytes);
        let refused = self.inner.begin_write(offset, len, &mut pieces, end);
        if refused.is_some() {
            from.rewind(before);
        }
        refused
    }

    fn begin_flush(&self, end: End) -> Option<End> {
        self.inner.begin_flush(end)
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check(offset, len)?;
        self.inner.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        check(offset, len)?;
        self.inner.write_zeroes(offset, len, unmap)
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn settle(&self) -> io::Result<()> {
        self.inner.settle()
    }

    fn interrupt(&self, on: bool) {
        self.inner.interrupt(on);
    }
}
