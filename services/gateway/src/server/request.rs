//! A request's way through the gateway: id, limits, base URL, token, service, answer, log line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http::uri::Authority;
use http::{HeaderMap, Method, StatusCode, header};
use uuid::Uuid;

use super::currency::{self, View};
use super::{Shared, finish, pages};
use crate::caller::{BaseUrl, Caller, RequestId};
use crate::error::{ApiError, ErrorStyle};

/// The header of a token.
const TOKEN: &str = "x-auth-token";
/// The longest token that is looked at, in bytes.
const TOKEN_MAX: usize = 4096;

/// What the log says of a request.
struct Seen {
    method: http::Method,
    path: String,
    id: RequestId,
    global_id: Option<String>,
    peer: IpAddr,
    started: Instant,
}

impl Seen {
    fn of(request: &Request) -> Seen {
        // In-process callers (tests) have no address.
        let peer = request
            .extensions()
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(Ipv4Addr::LOCALHOST.into(), |c| c.0.ip());
        Seen {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            id: RequestId(format!("req-{}", Uuid::new_v4())),
            global_id: global_id(request.headers()),
            peer,
            started: Instant::now(),
        }
    }

    fn log(&self, status: StatusCode, caller: Option<&Caller>) {
        tracing::info!(
            target: "cairn_gateway::access",
            method = %self.method,
            path = %self.path,
            status = status.as_u16(),
            ms = self.started.elapsed().as_secs_f64() * 1000.0,
            request_id = %self.id.0,
            global_id = self.global_id.as_deref().unwrap_or(""),
            peer = %self.peer,
            project = caller.map_or("", |c| &c.project_id),
            user = caller.map_or("", |c| &c.user_id),
            "request"
        );
    }
}

/// Handles one request, whatever it is. Never panics, always answers.
pub(super) async fn handle(shared: &Shared, mut request: Request) -> Response {
    let seen = Seen::of(&request);
    let place = shared.places.iter().find(|p| p.holds(&seen.path));
    let style = place.map_or(ErrorStyle::Keystone, |p| p.style);
    request.extensions_mut().insert(seen.id.clone());
    let (caller, view) = match admit(shared, &mut request, seen.peer, place.is_some()).await {
        Ok(admitted) => admitted,
        Err(e) => {
            seen.log(e.status, None);
            return finish::answer(e.into_response(), style, &seen.id, &seen.path);
        }
    };
    let work = async {
        match place {
            Some(place) => place.call(request).await,
            None => pages::answer(shared.status.as_deref(), &request),
        }
    };
    let response = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_| {
        ApiError::internal(format!("a handler panicked on {} {}", seen.method, seen.path)).into_response()
    });
    if response.status() == StatusCode::UNAUTHORIZED {
        shared.limiter.failed(seen.peer);
    }
    seen.log(response.status(), caller.as_deref());
    let mut answer = finish::answer(response, style, &seen.id, &seen.path);
    currency::mark(answer.headers_mut(), view);
    answer
}

/// Lets the request in, and puts what is known of it into its extensions.
async fn admit(
    shared: &Shared,
    request: &mut Request,
    peer: IpAddr,
    placed: bool,
) -> Result<(Option<Arc<Caller>>, View), ApiError> {
    if !shared.limiter.admit(peer) {
        return Err(too_many("Too many requests; try again in a second."));
    }
    if let Some(base) = base_url(request)? {
        request.extensions_mut().insert(base);
    }
    let view = match placed {
        true => {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            catch_up(shared, &method, &path).await?
        }
        false => View::Current,
    };
    let token = request.headers().get(TOKEN).and_then(|t| t.to_str().ok()).map(str::to_owned);
    let caller = match token {
        Some(token) if !token.is_empty() && token.len() <= TOKEN_MAX => {
            shared.auth.authenticate_for(&token, request.method(), request.uri().path()).await?
        }
        _ => None,
    };
    match &caller {
        Some(caller) => drop(request.extensions_mut().insert(caller.clone())),
        None if shared.limiter.is_suspect(peer) => {
            return Err(too_many("Too many failed attempts to authenticate; try again in a minute."));
        }
        None => {}
    }
    Ok((caller, view))
}

/// Waits until this node's replica of the store shows all that clients were told anywhere: the token that another node
/// has just given out among it. Without a majority reads see what was, and all else is refused.
async fn catch_up(shared: &Shared, method: &Method, path: &str) -> Result<View, ApiError> {
    match &shared.currency {
        Some(currency) => currency.admit(method, path).await,
        None => Ok(View::Current),
    }
}

fn too_many(message: &str) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, message)
}

/// The URL the client used: the request's own authority (HTTP/2), else its Host header. `None` if there is
/// neither; 400 if it is not one that links could be built from.
fn base_url(request: &Request) -> Result<Option<BaseUrl>, ApiError> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => match request.headers().get(header::HOST) {
            Some(host) => host.to_str().unwrap_or("\0"),
            None => return Ok(None),
        },
    };
    if !is_plain_authority(authority) {
        return Err(ApiError::bad_request("The Host header is not valid."));
    }
    Ok(Some(BaseUrl(format!("https://{authority}"))))
}

/// Whether this is `host[:port]` and nothing else: it will stand in links and pages.
pub(super) fn is_plain_authority(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if text.len() > 260 || !text.chars().all(plain) {
        return false;
    }
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let port = text.strip_prefix(authority.host()).unwrap_or(":");
    let is_port = |p: &str| p.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
    !authority.host().is_empty() && (port.is_empty() || is_port(port))
}

/// The id a client gave to a whole chain of requests, if it has the form of one.
fn global_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-openstack-request-id")?.to_str().ok()?;
    Uuid::parse_str(text.strip_prefix("req-")?).ok()?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_a_port() {
        for good in ["10.0.0.5", "cairn.local:8443", "[fe80::1]:443", "localhost"] {
            assert!(is_plain_authority(good), "{good}");
        }
        for bad in ["", "a b", "user@host", "host/path", "<script>", "host:99999999", ":80", &"a".repeat(300)]
        {
            assert!(!is_plain_authority(bad), "{bad}");
        }
    }

    #[test]
    fn only_a_well_formed_global_id_is_taken() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-openstack-request-id", value.parse().unwrap());
            global_id(&headers)
        };
        assert!(id("req-7f0c4f1e-8a2b-4d0c-9e55-000000000000").is_some());
        assert_eq!(id("7f0c4f1e-8a2b-4d0c-9e55-000000000000"), None);
        assert_eq!(id("req-$(reboot)"), None);
    }
}
