//! The endpoint's certificate, replaceable while it serves, and the TLS configuration around it.
//!
//! Private keys stay in memory here and are never logged.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The PEM text holds no certificate, or not what it says.
    #[error("the certificate or key is not valid PEM: {0}")]
    Pem(String),
    /// The key is unusable or is not that of the certificate.
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The certificate that the endpoint shows. [`Certificates::reload`] changes it for the handshakes to come.
pub struct Certificates {
    current: RwLock<Arc<CertifiedKey>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

impl Certificates {
    /// Takes a chain (leaf first) and its private key, both in PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Arc<Certificates>, TlsError> {
        Ok(Arc::new(Certificates { current: RwLock::new(parse(chain, key)?) }))
    }

    /// Shows another certificate from now on. Nothing changes if it is not valid.
    pub fn reload(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let new = parse(chain, key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1, no client certificates.
    pub(super) fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = ring::Ticketer::new()?;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn parse(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, TlsError> {
    let pem = |e: rustls_pki_types::pem::Error| TlsError::Pem(e.to_string());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(pem)?;
    if chain.is_empty() {
        return Err(TlsError::Pem("there is no certificate".into()));
    }
    // This also checks that the key belongs to the certificate.
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider())?))
}
