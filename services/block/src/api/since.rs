//! Resources that came with a microversion: older clients do not know them.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use cairn_gateway::{ApiError, ApiResult};

use super::context::Context;

/// These routes, for clients of this minor version and later.
pub fn since<S: Clone + Send + Sync + 'static>(minor: u32, routes: Router<S>) -> Router<S> {
    let admit = move |ctx: Context, request: Request, next: Next| async move {
        pass(minor, &ctx, request, next).await
    };
    routes.route_layer(from_fn(admit))
}

async fn pass(minor: u32, ctx: &Context, request: Request, next: Next) -> ApiResult<Response> {
    if ctx.minor < minor {
        return Err(ApiError::not_found("Resource", request.uri().path()));
    }
    Ok(next.run(request).await)
}
