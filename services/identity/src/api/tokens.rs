//! `/auth/tokens`: making, showing and ending tokens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use cairn_gateway::{ApiError, ApiResult, BaseUrl, Body, Query};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Svc;
use super::ask::Ask;
use super::wire::Resource;
use crate::catalog;
use crate::clock;
use crate::issue;
use crate::model::Project;
use crate::service::Service;
use crate::token::{Scope, methods};
use crate::validate::Validated;

/// The header that a token is handed out in, and named in when it is asked about.
const SUBJECT: HeaderName = HeaderName::from_static("x-subject-token");

pub fn routes() -> Router<Arc<Service>> {
    Router::new().route("/auth/tokens", post(create).get(show).delete(revoke))
}

#[derive(Deserialize)]
struct Request {
    auth: issue::Auth,
}

async fn create(
    State(svc): Svc,
    base: BaseUrl,
    query: Query,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    Body(request): Body<Request>,
) -> ApiResult<Response> {
    // In-process callers have no address.
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |Extension(c)| c.0.ip());
    let (token, validated) = issue::issue(&svc, &request.auth, peer).await?;
    let body = body(&svc, &validated, &base, query.get("nocatalog").is_none())?;
    Ok((StatusCode::CREATED, [(SUBJECT, token)], Json(body)).into_response())
}

async fn show(ask: Ask, headers: HeaderMap) -> ApiResult<Response> {
    let (token, validated) = subject(&ask, &headers)?;
    let with_catalog = ask.query.get("nocatalog").is_none();
    let body = body(&ask.svc, &validated, &ask.here.base, with_catalog)?;
    Ok(([(SUBJECT, token)], Json(body)).into_response())
}

async fn revoke(ask: Ask, headers: HeaderMap) -> ApiResult<StatusCode> {
    let (_, validated) = subject(&ask, &headers)?;
    ask.svc.revoke(&validated).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The token that is asked about: one's own, or any for an admin or a service. 404 if it is not valid.
fn subject(ask: &Ask, headers: &HeaderMap) -> ApiResult<(String, Arc<Validated>)> {
    let token = headers.get(&SUBJECT).and_then(|t| t.to_str().ok());
    let token = token.ok_or_else(|| ApiError::bad_request("The header X-Subject-Token is missing."))?;
    let gone = || ApiError::new(StatusCode::NOT_FOUND, "The token is not valid.");
    let validated = ask.svc.validate(token)?.ok_or_else(gone)?;
    let caller = &ask.caller;
    let may =
        caller.is_admin() || caller.roles.contains("service") || validated.caller.user_id == caller.user_id;
    match may {
        true => Ok((token.to_owned(), validated)),
        false => Err(ApiError::forbidden("You are not authorized to see this token.")),
    }
}

/// `token` of the API.
fn body(svc: &Service, v: &Validated, base: &BaseUrl, with_catalog: bool) -> ApiResult<Value> {
    let payload = &v.payload;
    let mut token = json!({
        "methods": methods::names(payload.methods),
        "user": {
            "id": v.caller.user_id, "name": v.caller.user_name, "password_expires_at": null,
            "domain": {"id": v.user_domain.id, "name": v.user_domain.name},
        },
        "audit_ids": payload.audit_ids(),
        "issued_at": clock::show_us(payload.issued_us),
        "expires_at": clock::show_s(payload.expires_s),
    });
    if payload.scope == Scope::Unscoped {
        return Ok(json!({"token": token}));
    }
    token["roles"] = v.roles.values().map(|r| json!({"id": r.id, "name": r.name})).collect();
    place(&mut token, v);
    if let Some(trust) = &v.trust {
        token["OS-TRUST:trust"] = json!({
            "id": trust.id, "impersonation": trust.impersonation,
            "trustor_user": {"id": trust.trustor_user_id}, "trustee_user": {"id": trust.trustee_user_id},
        });
    }
    if let Some((credential, rules)) = &v.application_credential {
        token["application_credential"] =
            json!({"id": credential.id, "name": credential.name, "restricted": !credential.unrestricted});
        if !rules.is_empty() {
            token["application_credential"]["access_rules"] = rules.iter().map(Resource::view).collect();
        }
    }
    if with_catalog {
        let (project, user) = (&v.caller.project_id, &v.caller.user_id);
        token["catalog"] = svc.store.read(|tx| catalog::build(tx, base, project, user))?.into();
    }
    Ok(json!({"token": token}))
}

/// What the token is scoped to.
fn place(token: &mut Value, v: &Validated) {
    let named = |p: &Project| json!({"id": p.id, "name": p.name});
    match (&v.place, &v.place_domain) {
        (Some(project), Some(domain)) => {
            token["project"] = named(project);
            token["project"]["domain"] = named(domain);
            token["is_domain"] = false.into();
        }
        (Some(domain), None) => token["domain"] = named(domain),
        _ => token["system"] = json!({"all": true}),
    }
}
