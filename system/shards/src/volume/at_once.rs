//! Reads and writes that wait for nothing, for threads that must not: they are done from and to the page cache, or not
//! at all.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, TryLockError};

use super::areas::Stamps;
use super::blocks::{chunks, with_private};
use super::segment::Segment;
use super::sums::{NOTHING, Sums, sum};
use super::{Part, Slot, Stamp, Volume, shared};
use crate::format::BLOCK;
use crate::sys::{self, Pieces, Sink, Source};

/// The most bytes that are written at once: the thread that does it has others to serve.
const AT_ONCE_MAX: u64 = 1 << 20;

impl Volume {
    /// Reads like [`Volume::read`] if the page cache has all of it and it matches; else answers false, with the pieces as
    /// they were (what they point to may have changed): [`Volume::read`] then waits, or knows what is wrong. It never
    /// waits for a disk. Only whole blocks are read so.
    ///
    /// Of a volume that may get other replicas the caller holds [`Volume::use_alone`], as for the calls that wait.
    pub fn try_read(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> io::Result<bool> {
        if !offset.is_multiple_of(BLOCK) || !len.is_multiple_of(BLOCK) {
            return Ok(false);
        }
        let before = to.position();
        for part in self.parts(offset, len)? {
            let done = match self.known(part.segment) {
                Slot::Open(segment) => try_read_part(&segment, &part, to)?,
                Slot::Absent => to.fill_zeroes(part.len).map(|()| true)?,
                Slot::Unknown => false,
            };
            if !done {
                to.rewind(before);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes like [`Volume::write`] if nothing stands in the way; else answers false, with the pieces as they were and
    /// perhaps some of it written: [`Volume::write`] then does all of it. It waits for no disk, no lock and no mark. Only
    /// whole blocks are written so, 1 MiB at most, in areas that were written lately. A file system may want to wait for
    /// the first write of each tick of its clock, since that changes the time of the file; ext4 always does.
    ///
    /// Of a volume that may get other replicas the caller holds [`Volume::use_alone`], as for the calls that wait.
    pub fn try_write(&self, offset: u64, len: u64, from: &mut Pieces<'_, Source>) -> io::Result<bool> {
        self.try_write_stamped(Stamp::Flushes, offset, len, from)
    }

    /// Writes a slice as a step of a writer, in the same way.
    pub(crate) fn try_write_step(&self, step: u64, offset: u64, slice: &[u8]) -> io::Result<bool> {
        let mut from = Pieces::<Source>::default();
        from.push_bytes(slice);
        self.try_write_stamped(Stamp::Step(step), offset, slice.len() as u64, &mut from)
    }

    fn try_write_stamped(
        &self,
        stamp: Stamp,
        offset: u64,
        len: u64,
        from: &mut Pieces<'_, Source>,
    ) -> io::Result<bool> {
        let whole =
            offset.is_multiple_of(BLOCK) && len.is_multiple_of(BLOCK) && (1..=AT_ONCE_MAX).contains(&len);
        let stamps = match self.changes.try_read() {
            Ok(stamps) => stamps,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        if !whole || self.read_only || self.is_full() {
            return Ok(false);
        }
        let (before, mut at) = (from.position(), offset);
        for part in self.parts(offset, len)? {
            let done = match self.known(part.segment) {
                Slot::Open(segment) if !segment.is_shared() => {
                    self.try_write_chunks((&stamps, stamp), &segment, &part, at, from)?
                }
                Slot::Open(_) | Slot::Absent | Slot::Unknown => false,
            };
            if !done {
                from.rewind(before);
                return Ok(false);
            }
            at += part.len;
        }
        Ok(true)
    }

    fn try_write_chunks(
        &self,
        stamps: (&Stamps, Stamp),
        segment: &Segment,
        part: &Part,
        start: u64,
        from: &mut Pieces<'_, Source>,
    ) -> io::Result<bool> {
        for (offset, len) in chunks(part.offset, part.len) {
            let (chunk, at) = (Part { segment: part.segment, offset, len }, start + (offset - part.offset));
            let done = with_private(len as usize, |bytes| match from.take(bytes) {
                true => self.try_write_chunk(stamps, segment, &chunk, at, bytes),
                false => Err(io::ErrorKind::InvalidInput.into()),
            })?;
            if !done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn try_write_chunk(
        &self,
        (stamps, stamp): (&Stamps, Stamp),
        segment: &Segment,
        part: &Part,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<bool> {
        let range = offset..offset + part.len;
        let Some(_lock) = self.stripes.try_lock(segment.index, part.offset) else { return Ok(false) };
        let mut sums = Sums::of(part.offset, part.len);
        if let Some(file) = segment.sums()
            && !sums.read_cached(file)?
        {
            return Ok(false); // Writing them would wait for the page they are in.
        }
        if !stamps.touch_all(&range, self.number_of(stamp)) {
            return Ok(false);
        }
        segment.soil();
        let written = match sys::write_at_once(&segment.data, bytes, part.offset) {
            Ok(0) => return Ok(false),
            written => written,
        };
        // What is begun is ended, if it must be by waiting.
        let stored = written.and_then(|n| segment.data.write_all_at(&bytes[n..], part.offset + n as u64));
        let stored = stored.and_then(|()| match segment.sums() {
            Some(file) => {
                sums.set_all(bytes);
                file.write_all_at(sums.bytes(), sums.place())
            }
            None => Ok(()),
        });
        stamps.touch_all(&range, self.number_of(stamp));
        match stored {
            Ok(()) => Ok(true),
            Err(_) => {
                // The call that waits says what is wrong.
                self.areas.doubt(&range);
                Ok(false)
            }
        }
    }

    fn number_of(&self, stamp: Stamp) -> u64 {
        match stamp {
            Stamp::Flushes => self.flushes.load(SeqCst),
            Stamp::Step(step) => step,
        }
    }

    /// What is known of a segment without looking at the disk.
    pub(super) fn known(&self, index: usize) -> Slot {
        shared(&self.segments).get(index).cloned().unwrap_or(Slot::Unknown)
    }
}

fn try_read_part(segment: &Arc<Segment>, part: &Part, to: &mut Pieces<'_, Sink>) -> io::Result<bool> {
    for (offset, len) in chunks(part.offset, part.len) {
        let start = to.position();
        if !to.fill_cached(&segment.data, offset, len)? {
            return Ok(false);
        }
        let Some(file) = segment.complete_sums() else { continue };
        let mut sums = Sums::of(offset, len);
        if !sums.read_cached(file)? {
            return Ok(false);
        }
        to.rewind(start);
        let mut copy = NOTHING;
        for block in offset / BLOCK..(offset + len) / BLOCK {
            to.take(&mut copy);
            if sum(&copy) != sums.get(block) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::format::Manifest;
    use crate::volume::write_manifest;

    fn try_read(volume: &Volume, offset: u64, bytes: &mut [u8]) -> bool {
        let len = bytes.len() as u64;
        let mut to = Pieces::<Sink>::default();
        to.push_slice(bytes);
        let done = volume.try_read(offset, len, &mut to).unwrap();
        assert_eq!(to.len(), if done { 0 } else { len }, "{done}");
        done
    }

    fn try_write(volume: &Volume, offset: u64, bytes: &[u8]) -> bool {
        let len = bytes.len() as u64;
        let mut from = Pieces::<Source>::default();
        from.push_bytes(bytes);
        let done = volume.try_write(offset, len, &mut from).unwrap();
        assert_eq!(from.len(), if done { 0 } else { len }, "{done}");
        done
    }

    #[test]
    fn what_would_wait_or_is_wrong_is_left_to_who_may_wait() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("v1");
        std::fs::create_dir(&dir).unwrap();
        write_manifest(&dir, &Manifest::new("v1", 1 << 30, false)).unwrap();
        let volume = Volume::open(&dir).unwrap();
        let mut bytes = [1; 2 * BLOCK as usize];
        assert!(!try_write(&volume, 0, &bytes), "nothing is marked");
        assert!(!try_read(&volume, 0, &mut bytes), "nor is it known whether there is a file");
        volume.write_slice(0, &[2; 4 * BLOCK as usize]).unwrap();
        assert!(try_read(&volume, BLOCK, &mut bytes) && bytes == [2; 2 * BLOCK as usize]);
        assert!(!try_read(&volume, 512, &mut bytes) && !try_read(&volume, 0, &mut [0; 512]));
        assert!(!try_write(&volume, 512, &bytes) && !try_write(&volume, 512 << 20, &bytes));
        {
            let _lock = volume.stripes.lock(0, 0);
            assert!(!try_write(&volume, 0, &bytes));
        }
        // Not every file system can do it.
        if try_write(&volume, 0, &[3; BLOCK as usize]) {
            volume.read_slice(0, &mut bytes).unwrap();
            assert_eq!((bytes[0], bytes[BLOCK as usize]), (3, 2));
        }
        File::options().write(true).open(dir.join("seg-00000000")).unwrap().write_at(b"?", 1).unwrap();
        assert!(!try_read(&volume, 0, &mut bytes));
        assert!(volume.read_slice(0, &mut bytes).is_err());
        assert_eq!(volume.findings().mended, 0, "nothing was doubted");
    }
}
