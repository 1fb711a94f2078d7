//! The way in: takes the project's id out of the path, where there is one, before the routes see it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use cairn_gateway::{ApiError, Caller};
use http::Uri;
use tower::ServiceExt;

/// The routes of the resources.
#[derive(Clone)]
pub struct Inner(pub Router);

/// The first elements of the resources' paths, which no project's id can be.
const RESOURCES: [&str; 14] = [
    "volumes",
    "snapshots",
    "types",
    "attachments",
    "limits",
    "extensions",
    "capabilities",
    "scheduler-stats",
    "os-quota-sets",
    "os-quota-class-sets",
    "os-availability-zone",
    "os-services",
    "os-hosts",
    "backups",
];

/// Hands what is below `/v3` to the resources' routes.
pub async fn enter(State(Inner(routes)): State<Inner>, mut request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let (project, rest) = split(&path);
    let caller = request.extensions().get::<Arc<Caller>>();
    if let (Some(project), Some(caller)) = (project, caller)
        && project != caller.project_id
    {
        return ApiError::bad_request("Malformed request url: its project is not the token's.")
            .into_response();
    }
    let text = match request.uri().query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    match text.parse::<Uri>() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return ApiError::bad_request("Malformed request url.").into_response(),
    }
    let Ok(response) = routes.oneshot(request).await;
    response
}

/// The project's id, if the path begins with one, and the resource's path.
fn split(path: &str) -> (Option<&str>, &str) {
    let bare = path.strip_prefix('/').unwrap_or(path);
    let (first, rest) = match bare.find('/') {
        Some(at) => (&bare[..at], &bare[at..]),
        None => (bare, "/"),
    };
    let is_project = first.len() >= 32 && first.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if RESOURCES.contains(&first) || !is_project { (None, path) } else { (Some(first), rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_taken_out_of_the_path() {
        let project = "0123456789abcdef0123456789abcdef";
        assert_eq!(split("/volumes/detail"), (None, "/volumes/detail"));
        assert_eq!(split("/volumes"), (None, "/volumes"));
        assert_eq!(split(&format!("/{project}/volumes/")), (Some(project), "/volumes/"));
        assert_eq!(split(&format!("/{project}")), (Some(project), "/"));
        assert_eq!(split("/nonsense"), (None, "/nonsense"));
    }
}
