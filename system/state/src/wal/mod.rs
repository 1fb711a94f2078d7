//! The write-ahead log: entries in frames, appended to two files in turn, and on stable media before anybody is told
//! that they are there.
//!
//! It knows indexes and bytes, not what they mean. A frame is begun only when the one before it is on stable media, so
//! what is no frame at the end was never promised to anybody, and what is no frame anywhere else is damage: it must
//! never be taken for an end. A file is written over, from its beginning, once nothing in it is needed any more: its
//! blocks are the file system's already, and a commit then costs one write and one flush of the disk's cache.
//!
//! `frame` is a frame, byte by byte; `files` finds, reads and appends; `writer` is the one that appends.

mod files;
mod frame;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use self::files::{Log, LogFile};
pub(crate) use self::frame::Rows;
pub(crate) use self::writer::{Queue, Task, Writer, writer};
