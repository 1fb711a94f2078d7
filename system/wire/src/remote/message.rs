//! Messages in the bodies of calls and answers, alone or many in a row.
//!
//! A message is a frame: a little-endian u32 length of what follows, the protocol version as a little-endian u16,
//! one byte for what it is (0 a message, 1 a refusal, which ends the body), and postcard. The version is that
//! of the connection; another is not understood.
//!
//! Bodies flow by HTTP/2's windows: who does not read holds up its own stream only, and nothing is gathered
//! here beyond one frame.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{Code, Error, Refusal};

/// Bytes before the postcard: length, version, kind.
const HEAD_BYTES: usize = 4 + 2 + 1;
const MESSAGE: u8 = 0;
const REFUSAL: u8 = 1;

type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;
/// A body as it is sent.
pub(crate) type Body = StreamBody<BoxStream<Result<Frame<Bytes>, Infallible>>>;

/// What one end sends: one message, or many as they come.
pub struct Outgoing {
    messages: BoxStream<Result<Vec<u8>, Refusal>>,
}

impl Outgoing {
    /// One message.
    pub fn message(message: &impl Serialize) -> Result<Outgoing, Refusal> {
        let encoded = encode(message)?;
        Ok(Outgoing { messages: Box::pin(stream::iter([Ok(encoded)])) })
    }

    /// Messages as the stream gives them, no faster than the other end reads. A refusal ends it.
    pub fn stream<T: Serialize>(
        messages: impl Stream<Item = Result<T, Refusal>> + Send + 'static,
    ) -> Outgoing {
        Outgoing { messages: Box::pin(messages.map(|message| encode(&message?))) }
    }

    pub(crate) fn refusal(refusal: Refusal) -> Outgoing {
        Outgoing { messages: Box::pin(stream::iter([Err(refusal)])) }
    }

    pub(crate) fn into_body(self, version: u16) -> Body {
        let frames = stream::unfold(Some(self.messages), move |messages| async move {
            let mut messages = messages?;
            Some(match messages.next().await? {
                Ok(message) => (frame(version, MESSAGE, &message), Some(messages)),
                Err(refusal) => (frame(version, REFUSAL, &encode(&refusal).unwrap_or_default()), None),
            })
        });
        StreamBody::new(Box::pin(frames.map(|bytes| Ok(Frame::data(bytes)))))
    }
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    let encoded = postcard::to_stdvec(message).map_err(|e| Refusal::invalid(format!("not encoded: {e}")))?;
    match u32::try_from(encoded.len() + HEAD_BYTES) {
        Ok(_) => Ok(encoded),
        Err(_) => Err(Refusal::new(Code::TooLarge, "a message of more than 4 GiB")),
    }
}

fn frame(version: u16, kind: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + message.len());
    frame.put_u32_le((message.len() + HEAD_BYTES - 4) as u32);
    frame.put_u16_le(version);
    frame.put_u8(kind);
    frame.put_slice(message);
    frame.freeze()
}

/// What the other end sends, message by message.
pub struct Messages {
    body: Incoming,
    buffer: BytesMut,
    version: u16,
    bytes_max: usize,
}

impl Messages {
    pub(crate) fn new(body: Incoming, version: u16, bytes_max: usize) -> Messages {
        Messages { body, buffer: BytesMut::new(), version, bytes_max }
    }

    /// The version its messages are of.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The next message; `None` after the last.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(message) = self.take()? {
                return postcard::from_bytes(&message).map(Some).map_err(|e| Error::Garbled(e.to_string()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(e)) => return Err(Error::http(&e)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Error::Broken("it ended within a message".into())),
            }
        }
    }

    /// The one message that is expected.
    pub async fn only<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.next().await?.ok_or_else(|| Error::Garbled("no message".into()))
    }

    /// A whole message from the buffer, if one is there.
    fn take(&mut self) -> Result<Option<Bytes>, Error> {
        let Some((head, _)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > self.bytes_max + HEAD_BYTES {
            let text = format!("a message of {length} bytes, at most {}", self.bytes_max);
            return Err(Refusal::new(Code::TooLarge, text).into());
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        let mut frame = self.buffer.split_to(length).freeze();
        if frame.len() < HEAD_BYTES - 4 {
            return Err(Error::Garbled("a frame without a head".into()));
        }
        let (version, kind) = (frame.get_u16_le(), frame.get_u8());
        match kind {
            _ if version != self.version => {
                Err(Error::Garbled(format!("version {version} where {} was agreed", self.version)))
            }
            MESSAGE => Ok(Some(frame)),
            REFUSAL => {
                let refusal = postcard::from_bytes(&frame).map_err(|e| Error::Garbled(e.to_string()))?;
                Err(Error::Refused(refusal))
            }
            kind => Err(Error::Garbled(format!("a frame of kind {kind}"))),
        }
    }
}
