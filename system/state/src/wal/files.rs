//! The two files of the log: what is in them, found at the start and kept in memory frame by frame; reading; appending.
//!
//! One appends (`writer`), any may read. It must never write over a frame that somebody may still need, nor give out
//! one that is not as it was written.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::frame::{self, BLOCK, BYTES_MAX, HEAD, Head, Kind, Rows, padded};
use crate::kv::StoreError;

/// A file of the log: anything that can hold bytes.
pub(crate) type LogFile = Box<dyn StorageBackend>;

/// A file grows by this part of what it may have, in zeros, so that the size is not news with each frame.
const STEPS: u64 = 16;

/// The log of a replica.
pub(crate) struct Log {
    files: [LogFile; 2],
    replica: u64,
    /// So long a file becomes before the other is begun.
    file_bytes: u64,
    known: Mutex<Known>,
}

/// What memory knows of the files.
#[derive(Debug, Default)]
struct Known {
    /// The frames that have entries, in order.
    frames: VecDeque<Place>,
    /// The file that is appended to, and where.
    file: usize,
    end: u64,
    lap: u64,
    /// The number of the last frame.
    number: u64,
    /// How long the files are.
    len: [u64; 2],
}

/// Where the entries `first..next` are.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    at: u64,
    length: usize,
    first: u64,
    next: u64,
}

/// A frame, where it is in its file, and how many entries it has.
struct Frame {
    head: Head,
    at: u64,
    count: u64,
}

/// The frames at the beginning of a file that belong together.
#[derive(Default)]
struct Found {
    frames: Vec<Frame>,
    end: u64,
}

impl Found {
    fn first(&self) -> Option<&Head> {
        self.frames.first().map(|frame| &frame.head)
    }

    fn last(&self) -> Option<&Head> {
        self.frames.last().map(|frame| &frame.head)
    }
}

fn failed(e: std::io::Error) -> StoreError {
    StoreError::Storage(format!("the store's log: {e}"))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Storage(format!("the store's log is damaged: {what}"))
}

impl Log {
    /// Finds what the files have of this replica. What is there may not have been promised to anybody yet; from here on
    /// it is on stable media.
    pub(crate) fn open(files: [LogFile; 2], replica: u64, file_bytes: u64) -> Result<Log, StoreError> {
        let log = Log { files, replica, file_bytes, known: Mutex::default() };
        let found = [log.scan(0)?, log.scan(1)?];
        let lap = |file: usize| found[file].first().map_or(0, |head| head.lap);
        let newer = usize::from(lap(1) > lap(0));
        let mut known = log.known();
        known.len = [log.len(0)?, log.len(1)?];
        (known.file, known.end, known.lap) = (newer, found[newer].end, lap(newer));
        known.number = found[newer].last().map_or(0, |head| head.number);
        // What is before a file that has been begun since is needed by nobody.
        let before = found[newer].first().map(|head| head.number - 1);
        if found[1 - newer].last().map(|head| head.number) == before {
            found[1 - newer].frames.iter().for_each(|frame| known.note(1 - newer, frame));
        }
        found[newer].frames.iter().for_each(|frame| known.note(newer, frame));
        let number = known.number;
        drop(known);
        log.look_beyond(0, &found[0], number)?;
        log.look_beyond(1, &found[1], number)?;
        log.files.iter().try_for_each(|file| file.sync_data().map_err(failed))?;
        Ok(log)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self, file: usize) -> Result<u64, StoreError> {
        self.files[file].len().map_err(failed)
    }

    /// The frame of this replica that begins here, if a whole one does.
    fn frame(&self, file: usize, at: u64, len: u64) -> Result<Option<Frame>, StoreError> {
        if at + HEAD as u64 > len {
            return Ok(None);
        }
        let mut head = [0; HEAD];
        self.files[file].read(at, &mut head).map_err(failed)?;
        let Some(head) = Head::read(&head).filter(|head| head.replica == self.replica) else {
            return Ok(None);
        };
        // The padding need not be there: a file that grows again would complete what was taken for no frame.
        if at + (HEAD + head.length) as u64 > len {
            return Ok(None);
        }
        let mut frame = vec![0; HEAD + head.length];
        self.files[file].read(at, &mut frame).map_err(failed)?;
        Ok(head.entries(&frame).map(|entries| Frame { head, at, count: frame::rows(entries).count() as u64 }))
    }

    /// The frames from the beginning of a file up to the first that does not follow the one before it.
    fn scan(&self, file: usize) -> Result<Found, StoreError> {
        let len = self.len(file)?;
        let mut found = Found::default();
        while let Some(frame) = self.frame(file, found.end, len)? {
            let head = &frame.head;
            let follows = found.last().is_none_or(|l| l.lap == head.lap && l.number + 1 == head.number);
            if !follows {
                break;
            }
            found.end += padded(head.length) as u64;
            found.frames.push(frame);
        }
        Ok(found)
    }

    /// Refuses a file that has a frame newer than this number: one before it is lost, which was on stable media.
    fn look_beyond(&self, file: usize, found: &Found, number: u64) -> Result<(), StoreError> {
        let len = self.len(file)?;
        let mut newer = found.last().is_some_and(|head| head.number > number);
        for at in (found.end..len).step_by(BLOCK) {
            newer |= self.frame(file, at, len)?.is_some_and(|frame| frame.head.number > number);
        }
        match newer {
            true => Err(damaged(&format!("no frame {} in it, but later ones", number + 1))),
            false => Ok(()),
        }
    }

    /// The number of the last frame.
    pub(crate) fn number(&self) -> u64 {
        self.known().number
    }

    /// The entries that follow each other without a gap up to the last: from this index, and to before this one.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        let known = self.known();
        let last = known.frames.back()?;
        let (mut first, next) = (last.first, last.next);
        for place in known.frames.iter().rev().skip(1) {
            if place.next != first {
                break;
            }
            first = place.first;
        }
        Some((first, next))
    }

    /// The entries of `from..to` that are here, in order, until `take` has enough.
    pub(crate) fn read(
        &self,
        from: u64,
        to: u64,
        mut take: impl FnMut(&[u8]) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        // Held all the while: what is read must not be written over.
        let known = self.known();
        let begin = known.frames.partition_point(|place| place.next <= from);
        for place in known.frames.range(begin..).take_while(|place| place.first < to) {
            let mut frame = vec![0; HEAD + place.length];
            self.files[place.file].read(place.at, &mut frame).map_err(failed)?;
            let head = frame.first_chunk().and_then(Head::read);
            let entries = head.and_then(|head| head.entries(&frame));
            let entries = entries.ok_or_else(|| damaged("a frame is not as it was written"))?;
            for (index, entry) in (place.first..place.next).zip(frame::rows(entries)) {
                if index >= to || index >= from && !take(entry)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Nobody needs an entry up to this one any more.
    pub(crate) fn release(&self, upto: u64) {
        let mut known = self.known();
        while known.frames.front().is_some_and(|place| place.next <= upto + 1) {
            known.frames.pop_front();
        }
    }

    /// Appends entries from this index on, in the place of any that have it or a higher one. They are on stable media
    /// when this returns. For the writer alone.
    pub(crate) fn append(&self, first: u64, rows: &Rows, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        self.write(Kind::Entries, first, rows, buffer)
    }

    /// Takes away the entries from this index on, as [`Log::append`].
    pub(crate) fn cut(&self, next: u64, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        self.write(Kind::Cut, next, &Rows::default(), buffer)
    }

    fn write(&self, kind: Kind, first: u64, rows: &Rows, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let length = rows.bytes.len();
        if length > BYTES_MAX {
            return Err(StoreError::TooLarge(format!("{length} bytes for one frame of the log")));
        }
        let (file, at, head) = {
            let known = self.known();
            let head =
                |lap| Head { kind, replica: self.replica, lap, number: known.number + 1, first, length };
            match known.other_is_free(self.file_bytes) {
                true => (1 - known.file, 0, head(known.lap + 1)),
                false => (known.file, known.end, head(known.lap.max(1))),
            }
        };
        head.write(&rows.bytes, buffer);
        let end = at + buffer.len() as u64;
        self.grow(file, end)?;
        self.files[file].write(at, buffer).map_err(failed)?;
        self.files[file].sync_data().map_err(failed)?;
        let mut known = self.known();
        (known.file, known.end, known.lap, known.number) = (file, end, head.lap, head.number);
        known.note(file, &Frame { head, at, count: rows.count });
        Ok(())
    }

    /// Has a file reach to there.
    fn grow(&self, file: usize, end: u64) -> Result<(), StoreError> {
        let len = self.known().len[file];
        if end <= len {
            return Ok(());
        }
        let step = (self.file_bytes / STEPS).max(BLOCK as u64);
        let new = end.next_multiple_of(step);
        self.files[file].set_len(new).map_err(failed)?;
        // Written, so that its blocks are there and not only promised.
        self.files[file].write(len, &vec![0; (new - len) as usize]).map_err(failed)?;
        self.known().len[file] = new;
        Ok(())
    }
}

impl Known {
    /// Takes note of a frame that is the last.
    fn note(&mut self, file: usize, Frame { head, at, count }: &Frame) {
        let (first, next) = (head.first, head.first + count);
        while let Some(last) = self.frames.back_mut().filter(|last| last.next > first) {
            last.next = first;
            if last.first >= first {
                self.frames.pop_back();
            }
        }
        if head.kind == Kind::Entries {
            self.frames.push_back(Place { file, at: *at, length: head.length, first, next });
        }
    }

    /// Whether the file is full, and nobody needs anything in the other.
    fn other_is_free(&self, file_bytes: u64) -> bool {
        self.end >= file_bytes && self.frames.front().is_none_or(|oldest| oldest.file == self.file)
    }
}
