//! Takes a stream of bytes in: hashes it and writes it, on a blocking thread, with the sender held back when the
//! disk is slower.
//!
//! Writes only into a staging directory it is given. It gathers nothing: a few chunks are in flight at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use md5::Md5;
use sha2::{Digest, Sha512};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::DataError;
use crate::format;

/// Chunks between the socket and the disk.
const IN_FLIGHT: usize = 8;
/// The unit in which zeroes are left out, in bytes.
const BLOCK: usize = 64 << 10;
/// What is read and thrown away after a refusal, in bytes: room for any image but a huge one.
const DRAIN_MAX: u64 = 8 << 30;

/// Both hashes of a stream.
#[derive(Default)]
pub struct Hashes {
    md5: Md5,
    sha512: Sha512,
    size: u64,
}

impl Hashes {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.sha512.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The count of bytes, and both hashes in hex.
    pub fn finish(self) -> (u64, String, String) {
        (self.size, hex::encode(self.md5.finalize()), hex::encode(self.sha512.finalize()))
    }
}

/// Where the bytes of a stream go.
pub trait Target: Send + 'static {
    /// Writes bytes that belong at `offset`.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// All into one file.
pub struct OneFile(pub File);

impl Target for OneFile {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}

/// Into the segments of a volume, leaving out blocks of zeroes.
pub struct Segments {
    /// The directory.
    pub dir: PathBuf,
    /// Bytes per segment.
    pub size: u64,
    /// The segment written last.
    pub open: Option<(usize, File)>,
}

impl Target for Segments {
    fn write(&mut self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (index, within) = ((offset / self.size) as usize, offset % self.size);
            let to_border = (BLOCK - offset as usize % BLOCK).min((self.size - within) as usize);
            let (block, rest) = bytes.split_at(bytes.len().min(to_border));
            if block.iter().any(|b| *b != 0) {
                self.segment(index)?.write_all_at(block, within)?;
            }
            (offset, bytes) = (offset + block.len() as u64, rest);
        }
        Ok(())
    }
}

impl Segments {
    fn segment(&mut self, index: usize) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(i, _)| *i != index) {
            let path = self.dir.join(format::segment_name(index));
            self.open = Some((index, File::create_new(path)?));
        }
        self.open.as_ref().map(|(_, file)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Takes a body in, at most `max` bytes of it. Answers its size and hashes, and the target.
pub async fn take<T: Target>(body: Body, max: u64, target: T) -> Result<(Hashes, T), DataError> {
    let mut stream = body.into_data_stream();
    let (sender, receiver) = mpsc::channel::<Bytes>(IN_FLIGHT);
    let writer = spawn_blocking(move || write(receiver, max, target));
    let mut broken = None;
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(bytes) => {
                if sender.send(bytes).await.is_err() {
                    break; // The writer has failed, and says why below.
                }
            }
            Err(e) => {
                broken = Some(DataError::refused(format!("the upload broke off: {e}")));
                break;
            }
        }
    }
    drop(sender);
    let written = writer.await.map_err(io::Error::other)?;
    if let Some(broken) = broken {
        return Err(broken);
    }
    if written.is_err() {
        drain(stream).await;
    }
    written
}

fn write<T: Target>(
    mut chunks: mpsc::Receiver<Bytes>,
    max: u64,
    mut target: T,
) -> Result<(Hashes, T), DataError> {
    let mut hashes = Hashes::default();
    while let Some(bytes) = chunks.blocking_recv() {
        if hashes.size + bytes.len() as u64 > max {
            return Err(DataError::refused(format!("the upload is over the limit of {max} bytes")));
        }
        target.write(hashes.size, &bytes)?;
        hashes.update(&bytes);
    }
    Ok((hashes, target))
}

/// Reads the rest of a refused body and throws it away. Most clients read no answer before they have sent all, and
/// see but a broken connection if it is closed before.
pub async fn drain(mut stream: axum::body::BodyDataStream) {
    let mut left = DRAIN_MAX;
    while let Some(Ok(bytes)) = stream.next().await {
        match left.checked_sub(bytes.len() as u64) {
            Some(less) => left = less,
            None => return,
        }
    }
}
