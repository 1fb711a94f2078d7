//! The first words on a connection, before anything else: which versions each end speaks, and which is spoken.
//!
//! A hello is a little-endian u16 length and that many bytes of postcard. Its encoding never changes but by fields
//! at its end, so that any two releases can at least tell each other that they do not go together.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error::Error;

/// The longest hello, in bytes.
const HELLO_BYTES_MAX: usize = 1024;

/// Versions of the transport that a release speaks, all from `oldest` to `newest`.
///
/// A version covers the bodies of all services: a release that changes a message bumps it and goes on speaking
/// the one before, so that two releases run side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest that is still spoken.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Versions {
    /// What this release speaks. 1: the first one.
    pub const OURS: Versions = Versions { oldest: 1, newest: 1 };

    /// The highest version that both speak.
    pub fn common(self, other: Versions) -> Option<u16> {
        let highest = self.newest.min(other.newest);
        (highest >= self.oldest.max(other.oldest)).then_some(highest)
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

/// What the client says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    versions: Versions,
    /// The release it runs, for logs alone.
    release: String,
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Welcome {
    /// This version is spoken from now on.
    Version(u16),
    /// There is none in common; these are spoken here.
    NoneInCommon(Versions),
}

/// Greets as the client; gives the version that is spoken.
pub(crate) async fn greet<S>(stream: &mut S, ours: Versions) -> Result<u16, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = Hello { versions: ours, release: env!("CARGO_PKG_VERSION").into() };
    write(stream, &hello).await?;
    match read(stream).await? {
        Welcome::Version(version) if (ours.oldest..=ours.newest).contains(&version) => Ok(version),
        Welcome::Version(version) => Err(Error::Garbled(format!("version {version} was not offered"))),
        Welcome::NoneInCommon(theirs) => Err(Error::NoCommonVersion { ours, theirs }),
    }
}

/// Answers as the server; gives the version that is spoken.
pub(crate) async fn answer<S>(stream: &mut S, ours: Versions) -> Result<u16, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello: Hello = read(stream).await?;
    match ours.common(hello.versions) {
        Some(version) => {
            write(stream, &Welcome::Version(version)).await?;
            Ok(version)
        }
        None => {
            write(stream, &Welcome::NoneInCommon(ours)).await?;
            stream.shutdown().await.map_err(Error::io)?;
            Err(Error::NoCommonVersion { ours, theirs: hello.versions })
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, message: &impl Serialize) -> Result<(), Error> {
    let body = postcard::to_stdvec(message).map_err(|e| Error::Garbled(e.to_string()))?;
    let length = u16::try_from(body.len()).map_err(|_| Error::Garbled("a hello too long".into()))?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(body);
    stream.write_all(&bytes).await.map_err(Error::io)?;
    stream.flush().await.map_err(Error::io)
}

async fn read<S: AsyncRead + Unpin, T: DeserializeOwned>(stream: &mut S) -> Result<T, Error> {
    let length = usize::from(stream.read_u16_le().await.map_err(Error::io)?);
    if length > HELLO_BYTES_MAX {
        return Err(Error::io(io::Error::other("a hello too long")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(Error::io)?;
    // Bytes behind the known fields are a newer release's.
    postcard::take_from_bytes(&body).map(|(message, _)| message).map_err(|e| Error::Garbled(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(oldest: u16, newest: u16) -> Versions {
        Versions { oldest, newest }
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        assert_eq!(versions(1, 3).common(versions(2, 4)), Some(3));
        assert_eq!(versions(1, 1).common(versions(1, 2)), Some(1));
        assert_eq!(versions(1, 2).common(versions(3, 4)), None);
    }

    #[tokio::test]
    async fn both_ends_agree_or_both_know_why_not() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let both = tokio::join!(greet(&mut client, versions(1, 2)), answer(&mut server, versions(2, 5)));
        assert!(matches!(both, (Ok(2), Ok(2))));
        let (mut client, mut server) = tokio::io::duplex(4096);
        let both = tokio::join!(greet(&mut client, versions(1, 2)), answer(&mut server, versions(3, 5)));
        let (Err(theirs), Err(ours)) = both else { panic!("they agreed") };
        assert!(theirs.to_string().contains("1 to 2") && theirs.to_string().contains("3 to 5"));
        assert!(matches!(ours, Error::NoCommonVersion { .. }));
    }

    #[tokio::test]
    async fn fields_of_a_newer_release_are_passed_over() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let newer = (Hello { versions: versions(1, 9), release: "9".into() }, "more", 7u32);
        write(&mut client, &newer).await.unwrap();
        assert_eq!(answer(&mut server, versions(1, 1)).await.unwrap(), 1);
    }
}
