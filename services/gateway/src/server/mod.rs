//! The server: from an accepted connection to a service's router and back.
//!
//! [`Gateway`] builds the application (an [`axum::Router`], so that tests call it in-process): `request` takes each
//! request through its steps, `dispatch` finds the mount, `finish` makes the answer fit the API it came from,
//! `limit` says who asks too much, `currency` how old what is read may be, `pages` are the few pages of its own. [`serve`] puts it on the wire:
//! `tls` holds the certificate, `redirect` is all that plain HTTP ever answers.
//!
//! It must never read a body for itself, log a token or a query string, or let one address starve the others.

mod connection;
mod currency;
mod dispatch;
mod finish;
mod limit;
mod pages;
mod redirect;
mod request;
mod serve;
mod tls;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use cairn_state::LocalStore;

use crate::caller::Authenticate;
use crate::mount::Mount;
use currency::Currency;
use dispatch::Place;
use limit::Limiter;
pub use limit::Limits;
pub use pages::{Status, StatusPage};
pub use serve::{Listen, serve};
pub use tls::{Certificates, TlsError};

/// The application with its default limits and no status page. See [`Gateway`].
pub fn app(mounts: Vec<Mount>, auth: Arc<dyn Authenticate>) -> Router {
    Gateway::new(mounts, auth).router()
}

/// Builds the application.
pub struct Gateway {
    places: Vec<Place>,
    auth: Arc<dyn Authenticate>,
    status: Option<Arc<dyn StatusPage>>,
    store: Option<LocalStore>,
    limits: Limits,
}

/// What every request is handled with.
struct Shared {
    places: Vec<Place>,
    auth: Arc<dyn Authenticate>,
    status: Option<Arc<dyn StatusPage>>,
    currency: Option<Currency>,
    limiter: Limiter,
}

impl Gateway {
    /// A gateway to these services.
    pub fn new(mounts: Vec<Mount>, auth: Arc<dyn Authenticate>) -> Gateway {
        let mut places: Vec<Place> = mounts.into_iter().map(Place::new).collect();
        // The longest prefix first, so that `/a/b` is found before `/a`.
        places.sort_by_key(|p| std::cmp::Reverse(p.prefix.len()));
        Gateway { places, auth, status: None, store: None, limits: Limits::default() }
    }

    /// Shows this at `/`, and the cloud's CA certificate at `/ca.pem`.
    pub fn status(mut self, page: Arc<dyn StatusPage>) -> Gateway {
        self.status = Some(page);
        self
    }

    /// The replica of the store that the services read: each request waits until all that was acknowledged on any node
    /// before it came is to be seen there; if that cannot be, it is answered with what was, or refused if it would change
    /// anything.
    pub fn store(mut self, store: LocalStore) -> Gateway {
        self.store = Some(store);
        self
    }

    /// Other limits than the default.
    pub fn limits(mut self, limits: Limits) -> Gateway {
        self.limits = limits;
        self
    }

    /// The application.
    pub fn router(self) -> Router {
        let shared = Arc::new(Shared {
            places: self.places,
            auth: self.auth,
            status: self.status,
            currency: self.store.map(Currency::new),
            limiter: Limiter::new(self.limits),
        });
        Router::new().fallback(move |request: Request| {
            let shared = shared.clone();
            async move { request::handle(&shared, request).await }
        })
    }
}
