//! The way to the data socket of this node's compute agent: console logs and diagnostics.

use std::path::PathBuf;

use axum::body::Body;
use cairn_gateway::{ApiError, ApiResult};
use cairn_wire::local_http::{Client, Error};
use http::Request;
use http_body_util::{BodyExt, Limited};

use crate::agent::Diagnostics;
use crate::model::Server;

/// The most bytes of a console log that are taken.
const LOG_MAX: usize = 1 << 20;

/// The compute agent of this node.
#[derive(Debug, Clone)]
pub struct NodeSocket {
    client: Client,
}

impl NodeSocket {
    /// The agent behind this socket.
    pub fn new(path: impl Into<PathBuf>) -> NodeSocket {
        NodeSocket { client: Client::new(path) }
    }

    /// The last lines of a server's console log, or all that is kept.
    pub async fn console(&self, server: &Server, lines: Option<u64>) -> ApiResult<String> {
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
        self.client.get_json(&format!("/diagnostics/{}", server.id)).await.map_err(away)
    }
}

fn away(e: Error) -> ApiError {
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
