//! This node's own key and certificate, as TLS shows them.
//!
//! The key stays for the node's life; the certificate is replaced while connections go on, which keep the one
//! they began with. The key leaves this module in no form.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};

use super::peer::PeerId;

/// A key and certificate that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the node's key or certificate cannot be used: {0}")]
pub struct BadCredentials(String);

/// What this node proves itself by. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Credentials {
    id: PeerId,
    certified: Arc<RwLock<Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Credentials {
    /// A private key (PKCS #8, DER) and a certificate of it, by whomever it is signed.
    pub fn new(
        key: PrivateKeyDer<'static>,
        certificate: CertificateDer<'static>,
    ) -> Result<Credentials, BadCredentials> {
        let key = default_provider().key_provider.load_private_key(key).map_err(bad)?;
        let public = key.public_key().ok_or_else(|| BadCredentials("a key without a public half".into()))?;
        let id = PeerId::of_key(&public);
        let certified = CertifiedKey::new(vec![certificate], key);
        certified.keys_match().map_err(bad)?;
        Ok(Credentials { id, certified: Arc::new(RwLock::new(Arc::new(certified))) })
    }

    /// This node's identity.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Shows another certificate of the same key from now on.
    pub fn replace(&self, certificate: CertificateDer<'static>) -> Result<(), BadCredentials> {
        let next = CertifiedKey::new(vec![certificate], self.current().key.clone());
        match next.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                return Err(BadCredentials("the certificate is of another key".into()));
            }
            Err(e) => return Err(bad(e)),
        }
        *self.certified.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Ok(())
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.certified.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn bad(e: rustls::Error) -> BadCredentials {
    BadCredentials(e.to_string())
}
