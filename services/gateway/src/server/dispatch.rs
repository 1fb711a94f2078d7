//! Which mount a path belongs to, and how its router is called. No answer is made here but "not found".

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, OriginalUri, Request};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use tower::ServiceExt;

use crate::error::{ApiError, ErrorStyle};
use crate::input::BodyMax;
use crate::mount::Mount;

/// A mounted service.
pub(super) struct Place {
    pub(super) prefix: &'static str,
    pub(super) style: ErrorStyle,
    body_max: usize,
    router: Router,
}

/// Carries a request that no route took out of the router, its body unread.
#[derive(Clone)]
struct Unrouted(Arc<Mutex<Option<Request>>>);

async fn unrouted(request: Request) -> Response {
    let mut response = StatusCode::NOT_FOUND.into_response();
    response.extensions_mut().insert(Unrouted(Arc::new(Mutex::new(Some(request)))));
    response
}

impl Place {
    pub(super) fn new(mount: Mount) -> Place {
        let router = mount.router.fallback(unrouted).layer(DefaultBodyLimit::max(mount.body_max));
        Place { prefix: mount.prefix, style: mount.style, body_max: mount.body_max, router }
    }

    /// Whether the path is at or below this mount.
    pub(super) fn holds(&self, path: &str) -> bool {
        path.strip_prefix(self.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Calls the service. A path that no route takes is tried once more with its last slash added or removed:
    /// OpenStack's servers answer both forms, and clients use both.
    pub(super) async fn call(&self, mut request: Request) -> Response {
        let whole = request.uri().clone();
        let below = whole.path().get(self.prefix.len()..).filter(|p| !p.is_empty()).unwrap_or("/").to_owned();
        request.extensions_mut().insert(OriginalUri(whole.clone()));
        request.extensions_mut().insert(BodyMax(self.body_max));
        let missed = match self.attempt(request, &whole, &below).await {
            Ok(response) => return response,
            Err(request) => request,
        };
        let retried = match missed {
            Some(request) if below != "/" => self.attempt(request, &whole, &toggle_slash(&below)).await,
            _ => Err(None),
        };
        retried.unwrap_or_else(|_| no_such_path().into_response())
    }

    async fn attempt(
        &self,
        mut request: Request,
        whole: &Uri,
        path: &str,
    ) -> Result<Response, Option<Request>> {
        *request.uri_mut() = with_path(whole, path).ok_or(None)?;
        let Ok(response) = self.router.clone().oneshot(request).await;
        match response.extensions().get::<Unrouted>() {
            None => Ok(response),
            Some(Unrouted(slot)) => Err(slot.lock().unwrap_or_else(PoisonError::into_inner).take()),
        }
    }
}

/// 404 for a path no API has.
pub(super) fn no_such_path() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "The resource could not be found.")
}

fn toggle_slash(path: &str) -> String {
    match path.strip_suffix('/') {
        Some(bare) => bare.to_owned(),
        None => format!("{path}/"),
    }
}

fn with_path(whole: &Uri, path: &str) -> Option<Uri> {
    let mut parts = whole.clone().into_parts();
    let text = match whole.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    parts.path_and_query = Some(text.parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_whole_path_elements_only() {
        let place = Place::new(Mount {
            prefix: "/image",
            style: ErrorStyle::Glance,
            router: Router::new(),
            body_max: 1,
        });
        for (path, held) in
            [("/image", true), ("/image/", true), ("/image/v2", true), ("/images", false), ("/", false)]
        {
            assert_eq!(place.holds(path), held, "{path}");
        }
    }

    #[test]
    fn the_query_survives_a_new_path() {
        let uri = "https://a.test/image/v2?x=%2F".parse().unwrap();
        assert_eq!(with_path(&uri, "/v2/").unwrap(), "https://a.test/v2/?x=%2F");
        assert_eq!((toggle_slash("/a"), toggle_slash("/a/")), ("/a/".into(), "/a".into()));
    }
}
