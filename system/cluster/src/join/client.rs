//! The side that asks: a handshake over the wire, then looking again until there is an answer.

use std::net::SocketAddr;
use std::time::Duration;

use cairn_wire::remote::{Connection, Endpoint, Error as WireError, Expect};

use super::applicant::{self, Doubt, Offered};
use super::messages::{Answer, Application, Offer};
use crate::token::{self, NoRandomness, Token};

/// How long the other side may take for one answer.
const WITHIN: Duration = Duration::from_secs(10);

/// Why it did not come to an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The other node was not reached, or refused.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// This node broke off.
    #[error(transparent)]
    Doubt(#[from] Doubt),
    /// No nonce could be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// A node that has asked.
#[derive(Debug, Clone)]
pub struct Applied {
    /// Whom it asked, with the words to show.
    pub offered: Offered,
    /// What was answered at once.
    pub answer: Answer,
}

/// Asks the node at these addresses, whoever it is or the one that is expected, to be let in.
pub async fn apply(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    expect: Expect,
    application: &Application,
    token: Option<&Token>,
) -> Result<Applied, Error> {
    let connection = Connection::open(endpoint, addresses, expect).await?;
    let me = endpoint.credentials.id();
    let (begun, begin) = applicant::begin(me, application, token::nonce()?)?;
    let offer: Offer = connection.call("join/begin", &begin, WITHIN).await?;
    let (offered, reveal) = begun.offered(connection.peer().id, connection.version(), &offer, token)?;
    let answer: Answer = connection.call("join/reveal", &reveal, WITHIN).await?;
    offered.answered(&answer)?;
    Ok(Applied { offered, answer })
}

/// Looks again what has become of it, at the node that was asked.
pub async fn status(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    offered: &Offered,
) -> Result<Answer, Error> {
    let connection = Connection::open(endpoint, addresses, Expect::Stranger(offered.acceptor())).await?;
    let answer: Answer = connection.call("join/status", &(), WITHIN).await?;
    offered.answered_later(&answer)?;
    Ok(answer)
}
