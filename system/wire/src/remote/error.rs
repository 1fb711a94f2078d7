//! What can go wrong between nodes, as the caller sees it.

use std::io;

use serde::{Deserialize, Serialize};

use super::hello::Versions;
use super::peer::PeerId;

/// Why a call had no good answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No address of the node could be connected to, or none is known. Nothing was done there.
    #[error("{0} cannot be reached")]
    Unreachable(String),
    /// Whoever answers is not whom was meant. Nothing was done there.
    #[error("the node that answers is not trusted: {0}")]
    Untrusted(String),
    /// The other end says that this node's key was removed from its cloud.
    #[error("this node was removed from the cloud: reset it to join again")]
    Removed,
    /// The releases are too far apart. Nothing was done there.
    #[error("no common protocol version: spoken here {ours}, there {theirs}; upgrade the older node")]
    NoCommonVersion {
        /// What this node speaks.
        ours: Versions,
        /// What the other speaks.
        theirs: Versions,
    },
    /// The service refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection broke; what was asked may or may not have been done.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// No answer in time; what was asked may or may not have been done.
    #[error("no answer within {0} ms")]
    TimedOut(u128),
    /// What came is not of the protocol.
    #[error("not understood: {0}")]
    Garbled(String),
}

impl Error {
    pub(crate) fn io(e: io::Error) -> Error {
        match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Error::tls(tls),
            None => Error::Broken(e.to_string()),
        }
    }

    fn tls(e: &rustls::Error) -> Error {
        use rustls::{AlertDescription, CertificateError};
        match e {
            rustls::Error::AlertReceived(AlertDescription::CertificateRevoked) => Error::Removed,
            rustls::Error::InvalidCertificate(CertificateError::Revoked) => {
                Error::Untrusted("its key was removed from the cloud".into())
            }
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                Error::Untrusted("it is no member of this cloud".into())
            }
            rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                Error::Untrusted("it is another node".into())
            }
            rustls::Error::InvalidCertificate(e) => Error::Untrusted(format!("{e:?}")),
            e => Error::Broken(e.to_string()),
        }
    }

    pub(crate) fn http(e: &hyper::Error) -> Error {
        let mut source = std::error::Error::source(e);
        while let Some(cause) = source {
            if let Some(io) = cause.downcast_ref::<io::Error>()
                && let Some(tls) = io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
            {
                return Error::tls(tls);
            }
            source = cause.source();
        }
        Error::Broken(e.to_string())
    }

    pub(crate) fn unreachable(node: PeerId) -> Error {
        Error::Unreachable(format!("node {node:?}: no address of it is known"))
    }

    /// Whether it is certain that nothing was done at the other end.
    pub const fn nothing_done(&self) -> bool {
        matches!(
            self,
            Error::Unreachable(_) | Error::Untrusted(_) | Error::Removed | Error::NoCommonVersion { .. }
        )
    }
}

/// Why a service refused a call, as it crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What kind of refusal.
    pub code: Code,
    /// For people; never a secret.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, text: impl Into<String>) -> Refusal {
        Refusal { code, text: text.into() }
    }

    /// The call is not one, or its content is not valid.
    pub fn invalid(text: impl Into<String>) -> Refusal {
        Refusal::new(Code::Invalid, text)
    }

    /// The peer may not.
    pub fn forbidden(text: impl Into<String>) -> Refusal {
        Refusal::new(Code::Forbidden, text)
    }

    /// Too much at once: try again later.
    pub fn busy(text: impl Into<String>) -> Refusal {
        Refusal::new(Code::Busy, text)
    }

    /// What is needed is not there now.
    pub fn unavailable(text: impl Into<String>) -> Refusal {
        Refusal::new(Code::Unavailable, text)
    }
}

/// The kinds of refusals. On the wire a number; one of a newer release is [`Code::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum Code {
    /// No such service, method or thing.
    NotFound,
    /// The peer may not.
    Forbidden,
    /// The call is not valid.
    Invalid,
    /// A message is larger than the service takes.
    TooLarge,
    /// Too much at once; later it may work.
    Busy,
    /// What is needed is not there now.
    Unavailable,
    /// It took longer than the service allows.
    TooSlow,
    /// A newer release's.
    Other(u16),
}

impl From<u16> for Code {
    fn from(number: u16) -> Code {
        match number {
            1 => Code::NotFound,
            2 => Code::Forbidden,
            3 => Code::Invalid,
            4 => Code::TooLarge,
            5 => Code::Busy,
            6 => Code::Unavailable,
            7 => Code::TooSlow,
            other => Code::Other(other),
        }
    }
}

impl From<Code> for u16 {
    fn from(code: Code) -> u16 {
        match code {
            Code::NotFound => 1,
            Code::Forbidden => 2,
            Code::Invalid => 3,
            Code::TooLarge => 4,
            Code::Busy => 5,
            Code::Unavailable => 6,
            Code::TooSlow => 7,
            Code::Other(other) => other,
        }
    }
}
