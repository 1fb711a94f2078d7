//! The way to nodes' compute agents, for console logs and diagnostics: the data socket of this node's own, the nodes'
//! transport to any other.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use cairn_gateway::{ApiError, ApiResult};
use cairn_wire::local_http::Client;
use cairn_wire::remote::Peers;
use http::Request;
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;

use crate::agent::remote::{self, Question};
use crate::agent::{Book, Diagnostics};
use crate::model::Server;

/// The most bytes of a console log that are taken.
const LOG_MAX: usize = 1 << 20;

/// How long another node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The other nodes' compute agents.
#[derive(Clone)]
pub struct Others {
    /// The name of this node, whose own agent is reached by its socket.
    pub node: String,
    /// The others; their addresses are kept by whoever made this.
    pub peers: Peers,
    /// Who is who.
    pub book: Arc<dyn Book>,
}

/// The compute agents of all nodes.
pub struct NodeSocket {
    client: Client,
    others: OnceLock<Others>,
}

impl NodeSocket {
    /// This node's agent, behind this socket.
    pub fn new(path: impl Into<PathBuf>) -> NodeSocket {
        NodeSocket { client: Client::new(path), others: OnceLock::new() }
    }

    /// Makes the other nodes' agents known; once.
    pub fn reach(&self, others: Others) {
        if self.others.set(others).is_err() {
            tracing::warn!("the other nodes are known already");
        }
    }

    /// The other nodes, if the server is on one of them.
    fn elsewhere<'a>(&'a self, server: &'a Server) -> Option<(&'a Others, &'a str)> {
        let (others, host) = (self.others.get()?, server.host.as_deref()?);
        (host != others.node).then_some((others, host))
    }

    /// The last lines of a server's console log, or all that is kept.
    pub async fn console(&self, server: &Server, lines: Option<u64>) -> ApiResult<String> {
        if let Some((others, host)) = self.elsewhere(server) {
            let log: String = others.ask(host, remote::CONSOLE, server, lines).await?;
            return Ok(printable(&log));
        }
        let query = lines.map(|n| format!("?lines={n}")).unwrap_or_default();
        let request = Request::get(format!("/console/{}{query}", server.id)).body(Body::empty());
        let answer = self.client.send(request.map_err(ApiError::internal)?).await.map_err(away)?;
        if !answer.status().is_success() {
            return Err(ApiError::unavailable("The console log cannot be read now."));
        }
        let bytes = Limited::new(answer.into_body(), LOG_MAX).collect().await.map_err(|e| {
            tracing::warn!(error = %e, "a console log was cut off");
            ApiError::unavailable("The console log cannot be read now.")
        })?;
        Ok(printable(&String::from_utf8_lossy(&bytes.to_bytes())))
    }

    /// What a server's guest has used.
    pub async fn diagnostics(&self, server: &Server) -> ApiResult<Diagnostics> {
        if let Some((others, host)) = self.elsewhere(server) {
            return others.ask(host, remote::DIAGNOSTICS, server, None).await;
        }
        self.client.get_json(&format!("/diagnostics/{}", server.id)).await.map_err(away)
    }
}

impl Others {
    async fn ask<A: DeserializeOwned>(
        &self,
        host: &str,
        method: &str,
        server: &Server,
        lines: Option<u64>,
    ) -> ApiResult<A> {
        let question = Question { server_id: server.id.clone(), lines };
        let unknown = || ApiError::unavailable(format!("The way to {host} is not known here; try again."));
        let peer = self.book.id_of(host).ok_or_else(unknown)?;
        let method = format!("{}/{method}", remote::SERVICE);
        self.peers.call(peer, &method, &question, ANSWER_MAX).await.map_err(away)
    }
}

fn away(e: impl Display) -> ApiError {
    tracing::warn!(error = %e, "the compute agent does not answer");
    ApiError::unavailable("The node's compute service does not answer; try again.")
}

/// Leaves out what no terminal shows and some clients choke on.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| *c == '\n' || *c == '\t' || *c == '\u{1b}' || *c == '\r' || !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_left_out() {
        assert_eq!(printable("a\0b\u{1b}[0m\r\n\u{7}"), "ab\u{1b}[0m\r\n");
    }
}
