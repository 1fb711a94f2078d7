//! What every handler wants to know of a request, and how it reads and changes the store.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use cairn_gateway::{ApiError, ApiResult, BaseUrl, Caller, Minor, RequestId};
use cairn_state::Tx;
use http::StatusCode;
use http::request::Parts;

use super::view::{Look, View};
use crate::actions::{self, Actor};
use crate::model::{InstanceStatus, Server};
use crate::{Service, nics, state, zones};

/// A request: who asks, in which microversion, by which name and number.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Who.
    pub caller: Caller,
    /// The microversion.
    pub mv: Minor,
    /// What links begin with.
    pub base: BaseUrl,
    /// The request's id.
    pub request: RequestId,
}

impl<S: Send + Sync> FromRequestParts<S> for Ask {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Ask {
            caller: Caller::from_request_parts(parts, state).await?,
            mv: Minor::from_request_parts(parts, state).await?,
            base: BaseUrl::from_request_parts(parts, state).await?,
            request: RequestId::from_request_parts(parts, state).await?,
        })
    }
}

impl Ask {
    /// How servers are to be shown.
    pub fn look(&self) -> Look<'_> {
        Look { mv: self.mv, admin: self.caller.is_admin(), base: &self.base }
    }

    /// Who is to be noted as the one who did it.
    pub fn actor(&self) -> Actor {
        Actor::new(&self.caller, &self.request)
    }

    /// Refuses who isn't admin, in Nova's words.
    pub fn admin(&self, rule: &str) -> ApiResult<()> {
        match self.caller.is_admin() {
            true => Ok(()),
            false => Err(ApiError::forbidden(format!("Policy doesn't allow {rule} to be performed."))),
        }
    }
}

/// The service, as handlers get it.
pub type Svc = axum::extract::State<Arc<Service>>;

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response {
    status.into_response()
}

/// The server with this id, if the caller may see it; 404 otherwise.
pub fn server(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Server> {
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("Instance {id} could not be found."));
    tx.get::<Server>(id)?.filter(|s| caller.sees(&s.project_id)).ok_or_else(missing)
}

/// The server, if the caller may change it.
pub fn own_server(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Server> {
    let found = server(tx, caller, id)?;
    caller.require_writer()?;
    Ok(found)
}

/// Changes a server that the caller may change and that is not locked, and notes that the action has begun.
pub async fn change<T>(
    svc: &Service,
    ask: &Ask,
    id: &str,
    action: &str,
    mut how: impl FnMut(&mut Tx, &mut Server) -> ApiResult<T>,
) -> ApiResult<T> {
    let actor = ask.actor();
    svc.store
        .transact(|tx| {
            let mut found = own_server(tx, &ask.caller, id)?;
            state::require_unlocked(&found, ask.caller.is_admin())?;
            let result = how(tx, &mut found)?;
            actions::begin(tx, &mut found, &actor, action)?;
            tx.put(&found)?;
            Ok(result)
        })
        .await
}

/// The node that has the server; 409 if none has.
pub fn host(server: &Server) -> ApiResult<String> {
    let nowhere = || ApiError::conflict(format!("Instance {} is on no host.", server.id));
    server.host.clone().ok_or_else(nowhere)
}

/// The server's state.
pub fn shown(tx: &mut Tx, server: &Server) -> ApiResult<state::Shown> {
    let seen = tx.get::<InstanceStatus>(&server.id)?;
    Ok(state::shown(server, seen.as_ref()))
}

/// A server, with all that is needed to show it.
pub fn view(tx: &mut Tx, server: Server) -> ApiResult<View> {
    let host = match &server.host {
        Some(node) => zones::host(tx, node)?,
        None => None,
    };
    Ok(View {
        shown: shown(tx, &server)?,
        addresses: nics::addresses(tx, &server)?,
        security_groups: nics::group_names(tx, &server)?,
        zone: zones::shown_zone(tx, &server)?,
        host_status: match (&server.host, host) {
            (None, _) => "",
            (Some(_), Some(h)) if h.up => "UP",
            (Some(_), Some(_)) => "DOWN",
            (Some(_), None) => "UNKNOWN",
        },
        server,
    })
}
