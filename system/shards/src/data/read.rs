//! Giving an image's bytes back, whole or a range of them (RFC 9110, section 14), streamed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use tokio::task::spawn_blocking;

use super::DataError;
use crate::format;
use crate::pool::{self, Pool};
use crate::volume::Volume;

/// Bytes read at a time.
const CHUNK: u64 = 256 << 10;

/// Where an image's bytes are.
#[derive(Clone)]
enum Content {
    File(Arc<File>),
    Volume(Arc<Volume>),
}

impl Content {
    fn read(&self, offset: u64, len: u64) -> io::Result<Bytes> {
        let mut buffer = vec![0; len as usize];
        match self {
            Content::File(file) => file.read_exact_at(&mut buffer, offset)?,
            Content::Volume(volume) => volume.read_slice(offset, &mut buffer)?,
        }
        Ok(buffer.into())
    }
}

/// The part of `size` bytes that a `Range` header asks for: all of it if there is none, or one we need not heed.
/// `Err` if it lies beyond the end.
fn part(range: Option<&str>, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some((first, last)) = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-')) else {
        return Ok(None);
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (number(first), number(last)) {
        (Some(start), Some(end)) if start > end => return Ok(None),
        (Some(start), Some(end)) => (start, end.saturating_add(1).min(size)),
        (Some(start), None) if last.trim().is_empty() => (start, size),
        (None, Some(suffix)) if first.trim().is_empty() => (size - suffix.min(size), size),
        _ => return Ok(None), // several ranges, or nonsense
    };
    if start >= end { Err(()) } else { Ok(Some((start, end - start))) }
}

/// Answers a request for an image.
pub async fn image(pool: &Arc<Pool>, id: &str, range: Option<&HeaderValue>) -> Result<Response, DataError> {
    pool::check_id(id)?;
    let (opened_in, opened) = (pool.clone(), id.to_owned());
    let opened = spawn_blocking(move || open(&opened_in, &opened)).await.map_err(io::Error::other)??;
    let (content, size) = opened.ok_or_else(|| DataError::not_found(id))?;
    let range = range.and_then(|r| r.to_str().ok());
    let response = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/octet-stream");
    let (response, offset, len) = match part(range, size) {
        Err(()) => {
            let response = response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"));
            return response.body(Body::empty()).map_err(|e| io::Error::other(e).into());
        }
        Ok(None) => (response, 0, size),
        Ok(Some((offset, len))) => {
            let what = format!("bytes {offset}-{}/{size}", offset + len - 1);
            let response = response.status(StatusCode::PARTIAL_CONTENT);
            (response.header(header::CONTENT_RANGE, what), offset, len)
        }
    };
    let response = response.header(header::CONTENT_LENGTH, len);
    response.body(stream(content, offset, len)).map_err(|e| io::Error::other(e).into())
}

fn open(pool: &Pool, id: &str) -> Result<Option<(Content, u64)>, DataError> {
    if pool.find(id).is_none() {
        return Ok(None);
    }
    let volume = pool.open(id)?;
    let Some(image) = volume.manifest().image else { return Ok(None) };
    let content = match image.original_kept {
        true => Content::File(Arc::new(File::open(volume.dir().join(format::ORIGINAL))?)),
        false => Content::Volume(volume),
    };
    Ok(Some((content, image.size)))
}

fn stream(content: Content, offset: u64, len: u64) -> Body {
    Body::from_stream(futures_util::stream::try_unfold(
        (content, offset, len),
        |(content, offset, len)| async move {
            if len == 0 {
                return Ok::<_, io::Error>(None);
            }
            let n = len.min(CHUNK);
            let reader = content.clone();
            let bytes = spawn_blocking(move || reader.read(offset, n)).await.map_err(io::Error::other)??;
            Ok(Some((bytes, (content, offset + n, len - n))))
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_standard() {
        assert_eq!(part(None, 10), Ok(None));
        assert_eq!(part(Some("bytes=0-0"), 10), Ok(Some((0, 1))));
        assert_eq!(part(Some("bytes=5-"), 10), Ok(Some((5, 5))));
        assert_eq!(part(Some("bytes=5-99"), 10), Ok(Some((5, 5))));
        assert_eq!(part(Some("bytes=-3"), 10), Ok(Some((7, 3))));
        assert_eq!(part(Some("bytes=-30"), 10), Ok(Some((0, 10))));
        assert_eq!(part(Some("bytes=10-"), 10), Err(()));
        assert_eq!(part(Some("bytes=-0"), 10), Err(()));
        for ignored in ["bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=x-2", "bytes=-"] {
            assert_eq!(part(Some(ignored), 10), Ok(None), "{ignored}");
        }
    }
}
