//! The gateway's own few pages: the status page at `/`, `/healthz`, and the cloud's CA certificate at `/ca.pem`.
//!
//! Anybody may read them, so they hold nothing that helps an attacker: no node names, no addresses.

use axum::extract::Request;
use axum::response::{Html, IntoResponse, Response};
use http::{Method, StatusCode, header};

use super::dispatch::no_such_path;
use crate::error::ApiError;

/// How the cloud is, for the status page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The release that runs.
    pub version: String,
    /// What is wrong, each in a sentence for a person; empty when all is well.
    pub problems: Vec<String>,
    /// The APIs: name and path, as (`Compute`, `/compute`).
    pub endpoints: Vec<(String, String)>,
}

/// Says how the cloud is. Called for each request of the page, so it must be cheap.
pub trait StatusPage: Send + Sync + 'static {
    /// How the cloud is now.
    fn status(&self) -> Status;
    /// The certificate of the cloud's CA, in PEM: what clients verify the endpoint with.
    fn ca_pem(&self) -> Option<String>;
}

/// Answers a path that belongs to no service.
pub(super) fn answer(page: Option<&dyn StatusPage>, request: &Request) -> Response {
    let path = request.uri().path();
    if !matches!(path, "/" | "/healthz" | "/ca.pem") {
        return no_such_path().into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Only GET is allowed here.").into_response();
    }
    match (path, page) {
        ("/healthz", page) => healthz(page),
        ("/", Some(page)) => Html(html(&page.status())).into_response(),
        ("/ca.pem", Some(page)) => match page.ca_pem() {
            Some(pem) => ([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response(),
            None => no_such_path().into_response(),
        },
        _ => no_such_path().into_response(),
    }
}

fn healthz(page: Option<&dyn StatusPage>) -> Response {
    let problems = page.map(|p| p.status().problems).unwrap_or_default();
    match problems.is_empty() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", problems.join("\n"))).into_response(),
    }
}

fn html(status: &Status) -> String {
    let health = match status.problems.as_slice() {
        [] => "<p>All is well.</p>".to_owned(),
        some => {
            let items: String = some.iter().map(|p| format!("<li>{}</li>", escape(p))).collect();
            format!("<p>Needs attention:</p><ul>{items}</ul>")
        }
    };
    let rows: String = status
        .endpoints
        .iter()
        .map(|(name, path)| format!("<li>{}: <code>{}</code></li>", escape(name), escape(path)))
        .collect();
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Cairn</title></head><body>\
         <h1>Cairn</h1><p>Version {}</p>{health}<h2>APIs</h2><ul>{rows}</ul>\
         <p><a href=\"/ca.pem\">This cloud's CA certificate</a></p></body></html>\n",
        escape(&status.version)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_escaped() {
        let status = Status { problems: vec!["<b>&".into()], ..Status::default() };
        assert!(html(&status).contains("<li>&lt;b&gt;&amp;</li>"));
    }
}
