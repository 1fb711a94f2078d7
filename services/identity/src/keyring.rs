//! The keys in use: read from the store, kept ready, rotated.
//!
//! The last key seals, all open. A key stays until no token it sealed can be valid any more.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cairn_gateway::ApiError;
use cairn_state::{LocalStore, Tx};

use crate::clock;
use crate::crypt::{self, Sealer};
use crate::model::{KeySecret, Keys};
use crate::token::{self, Payload};

/// How long a key seals before the next one does.
const ROTATE_AFTER_S: i64 = 24 * 3600;

/// How long keys are sealed with before they are read again. Another controller may have rotated: a key outlives the
/// one after it by a token's life and five minutes, so this must be well below those.
const FRESH: Duration = Duration::from_secs(60);

/// Keys ready for use.
struct Ring {
    read: Instant,
    tokens: Vec<(u8, Sealer)>,
    credentials: Sealer,
}

/// The keys of this process.
#[derive(Default)]
pub struct Keyring(RwLock<Option<Arc<Ring>>>);

impl Keyring {
    /// Seals a token with the newest key.
    pub fn seal(&self, store: &LocalStore, payload: &Payload) -> Result<String, ApiError> {
        let mut ring = self.ring(store)?;
        if ring.read.elapsed() > FRESH {
            ring = self.reload(store)?;
        }
        let (id, sealer) = ring.tokens.last().ok_or_else(no_keys)?;
        token::encode(payload, *id, sealer)
    }

    /// What a token says, if one of our keys sealed it.
    pub fn open(&self, store: &LocalStore, token: &str) -> Result<Option<Payload>, ApiError> {
        let Some(sealed) = token::decode(token) else { return Ok(None) };
        let find = |ring: &Ring| ring.tokens.iter().position(|(id, _)| *id == sealed.key_id);
        let mut ring = self.ring(store)?;
        if find(&ring).is_none() {
            // Perhaps another controller has rotated.
            ring = self.reload(store)?;
        }
        Ok(find(&ring).and_then(|at| sealed.open(&ring.tokens[at].1)))
    }

    /// Seals a blob to be stored; `context` binds it to its record.
    pub fn seal_blob(&self, store: &LocalStore, context: &str, blob: &str) -> Result<String, ApiError> {
        Ok(hex::encode(self.ring(store)?.credentials.seal(context.as_bytes(), blob.as_bytes())?))
    }

    /// Opens a stored blob.
    pub fn open_blob(&self, store: &LocalStore, context: &str, sealed: &str) -> Result<String, ApiError> {
        let bad = || ApiError::internal("a stored credential is damaged");
        let bytes = hex::decode(sealed).map_err(|_| bad())?;
        let plain = self.ring(store)?.credentials.open(context.as_bytes(), &bytes).ok_or_else(bad)?;
        String::from_utf8(plain).map_err(|_| bad())
    }

    /// Adds a key if the newest is a day old, and drops those whose tokens have all ended.
    pub async fn rotate(&self, store: &LocalStore, token_ttl_s: i64) -> Result<(), ApiError> {
        let now = clock::now_s();
        let secret = hex::encode(crypt::random::<32>()?);
        let rotated = store
            .transact(|tx| {
                let Some(mut keys) = tx.get::<Keys>(Keys::ID)? else { return Ok(false) };
                let rotated = advance(&mut keys.tokens, now, token_ttl_s, &secret);
                if rotated {
                    tx.put(&keys)?;
                }
                Ok::<_, ApiError>(rotated)
            })
            .await?;
        if rotated {
            self.reload(store)?;
            tracing::info!("the key that seals tokens was rotated");
        }
        Ok(())
    }

    fn ring(&self, store: &LocalStore) -> Result<Arc<Ring>, ApiError> {
        let ready = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        ready.map_or_else(|| self.reload(store), Ok)
    }

    fn reload(&self, store: &LocalStore) -> Result<Arc<Ring>, ApiError> {
        let keys = store.read(|tx| Ok::<_, ApiError>(tx.get::<Keys>(Keys::ID)?))?.ok_or_else(no_keys)?;
        let tokens = keys.tokens.iter().map(|k| Ok((k.id, Sealer::from_hex(&k.secret)?)));
        let ring = Arc::new(Ring {
            read: Instant::now(),
            tokens: tokens.collect::<Result<_, ApiError>>()?,
            credentials: Sealer::from_hex(&keys.credentials.secret)?,
        });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(ring.clone());
        Ok(ring)
    }
}

fn no_keys() -> ApiError {
    ApiError::internal("identity has no keys: it was not bootstrapped")
}

/// Makes the first keys, if there are none.
pub fn ensure(tx: &mut Tx) -> Result<(), ApiError> {
    if tx.get::<Keys>(Keys::ID)?.is_none() {
        let new = |id| {
            let secret = hex::encode(crypt::random::<32>()?);
            Ok::<_, ApiError>(KeySecret { id, secret, created_s: clock::now_s() })
        };
        tx.put(&Keys { tokens: vec![new(1)?], credentials: new(0)? })?;
    }
    Ok(())
}

/// Whether the keys changed: a new one was due, or an old one could go.
fn advance(keys: &mut Vec<KeySecret>, now_s: i64, token_ttl_s: i64, secret: &str) -> bool {
    let newest = keys.last().map_or((0, 0), |k| (k.id, k.created_s));
    if now_s - newest.1 < ROTATE_AFTER_S {
        return false;
    }
    keys.push(KeySecret { id: newest.0.wrapping_add(1), secret: secret.to_owned(), created_s: now_s });
    // A key seals until the next one is made; what it sealed last ends one lifetime later.
    let replaced: Vec<i64> = keys.iter().skip(1).map(|k| k.created_s).collect();
    let mut at = 0;
    keys.retain(|_| {
        at += 1;
        replaced.get(at - 1).is_none_or(|r| now_s - r <= token_ttl_s + 300)
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_kept_as_long_as_its_tokens() {
        let mut keys = vec![KeySecret { id: 255, secret: "a".into(), created_s: 0 }];
        assert!(!advance(&mut keys, ROTATE_AFTER_S - 1, 3600, "b"));
        assert!(advance(&mut keys, ROTATE_AFTER_S, 3600, "b"));
        assert_eq!(keys.iter().map(|k| k.id).collect::<Vec<_>>(), [255, 0]);
        assert!(advance(&mut keys, 2 * ROTATE_AFTER_S, 3600, "c"));
        assert_eq!(
            keys.iter().map(|k| k.id).collect::<Vec<_>>(),
            [0, 1],
            "the first one's tokens have ended"
        );
    }
}
