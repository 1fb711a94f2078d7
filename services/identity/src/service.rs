//! The service itself: its state, token validation for the gateway, and the housekeeping task.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cairn_gateway::{ApiError, Authenticate, Caller};
use cairn_state::LocalStore;
use http::Method;

use crate::access_rules;
use crate::clock;
use crate::crypt;
use crate::keyring::Keyring;
use crate::marks::{MarkId, Seen};
use crate::model::{Revocation, Trust};
use crate::password::Passwords;
use crate::throttle::Throttle;
use crate::validate::{self, Cache, Validated};

/// How often housekeeping runs.
const HOUSEKEEPING: Duration = Duration::from_secs(600);

/// What can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long a token is valid, in seconds.
    pub token_ttl_s: i64,
}

impl Default for Options {
    fn default() -> Options {
        Options { token_ttl_s: 3600 }
    }
}

/// Identity.
pub struct Service {
    /// The store.
    pub store: LocalStore,
    pub(crate) options: Options,
    pub(crate) keyring: Keyring,
    pub(crate) cache: Cache,
    pub(crate) passwords: Passwords,
    pub(crate) throttle: Throttle,
}

impl Service {
    /// Identity on this store, which [`crate::bootstrap`] must have prepared before the first request.
    pub fn new(store: LocalStore) -> Arc<Service> {
        Service::with_options(store, Options::default())
    }

    /// As [`Service::new`], with other options.
    pub fn with_options(store: LocalStore, options: Options) -> Arc<Service> {
        let (keyring, cache) = (Keyring::default(), Cache::default());
        let (passwords, throttle) = (Passwords::default(), Throttle::default());
        Arc::new(Service { store, options, keyring, cache, passwords, throttle })
    }

    /// What a token stands for, if it is valid now.
    pub fn validate(&self, token: &str) -> Result<Option<Arc<Validated>>, ApiError> {
        let digest = crypt::sha256(token.as_bytes());
        if let Some((validated, seen)) = self.cache.get(&digest) {
            if validated.payload.expires_s <= clock::now_s() {
                self.cache.forget(&digest);
                return Ok(None);
            }
            if seen.holds(&self.store)? {
                return Ok(Some(validated));
            }
            self.cache.forget(&digest);
        }
        let Some(payload) = self.keyring.open(&self.store, token)? else { return Ok(None) };
        let trust = match &payload.trust_id {
            Some(id) => self.store.read(|tx| Ok::<_, ApiError>(tx.get::<Trust>(id)?))?,
            None => None,
        };
        // The marks first: what changes after this is seen by the next request.
        let seen = Seen::read(&self.store, validate::marks(&payload, trust.as_ref()))?;
        let found = self.store.read(|tx| validate::inspect(tx, &payload))?.map(Arc::new);
        if let Some(validated) = &found {
            self.cache.put(digest, validated.clone(), seen);
        }
        Ok(found)
    }

    /// Ends a token before its time.
    pub(crate) async fn revoke(&self, validated: &Validated) -> Result<(), ApiError> {
        let payload = &validated.payload;
        let revocation = Revocation { audit_id: payload.audit_id(), expires_s: payload.expires_s };
        self.store
            .transact(|tx| {
                tx.put(&revocation)?;
                MarkId::user(&payload.user_id).touch(tx)
            })
            .await
    }
}

#[async_trait]
impl Authenticate for Service {
    async fn authenticate(&self, token: &str) -> Result<Option<Arc<Caller>>, ApiError> {
        Ok(self.validate(token)?.map(|v| v.caller.clone()))
    }

    async fn authenticate_for(
        &self,
        token: &str,
        method: &Method,
        path: &str,
    ) -> Result<Option<Arc<Caller>>, ApiError> {
        let Some(validated) = self.validate(token)? else { return Ok(None) };
        let allowed = access_rules::allows(&self.store, &validated, method, path)?;
        Ok(allowed.then(|| validated.caller.clone()))
    }
}

/// Housekeeping, for ever: rotates keys, and removes what has ended. Needs no input but the store.
pub async fn conductor(svc: Arc<Service>) {
    loop {
        if let Err(e) = svc.keyring.rotate(&svc.store, svc.options.token_ttl_s).await {
            tracing::warn!(error = %e, "the token key could not be rotated");
        }
        if let Err(e) = sweep(&svc.store).await {
            tracing::warn!(error = %e, "ended revocations could not be removed");
        }
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

/// Removes the revocations of tokens that have ended by themselves.
async fn sweep(store: &LocalStore) -> Result<(), ApiError> {
    let now = clock::now_s();
    let all = store.read(|tx| Ok::<_, ApiError>(tx.list_unfenced::<Revocation>()?))?;
    let ended: Vec<_> = all.into_iter().filter(|r| r.expires_s < now).map(|r| r.audit_id).collect();
    for batch in ended.chunks(500) {
        store
            .transact(|tx| {
                for id in batch {
                    tx.delete::<Revocation>(id)?;
                }
                Ok::<_, ApiError>(())
            })
            .await?;
    }
    Ok(())
}
