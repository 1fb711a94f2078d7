//! TLS 1.3 between nodes: both ends show a certificate, and trust is in the key.
//!
//! The server lets in any key that was not removed: what a stranger may call is decided per service. The client
//! says beforehand whom it means ([`Expect`]) and breaks off if it meets another. Sessions are never resumed,
//! since that would pass by the check.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};

use super::credentials::Credentials;
use super::peer::{PeerId, Standing};
use super::trust::{self, Trust};

/// What both ends say they speak on top of TLS (RFC 7301); a web browser finds no common ground here.
const ALPN: &[u8] = b"cairn";

/// Whom a client means to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// This very node, and it belongs to the cloud.
    Node(PeerId),
    /// Any node of this cloud.
    Ours,
    /// This very node, whatever it is to the cloud: a node asks to join at it.
    Stranger(PeerId),
    /// Whoever answers: only for the joining handshake, which finds out by words or token.
    Anyone,
}

/// Checks the certificate of the other end.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(trust: Trust, expect: Expect) -> Arc<Verifier> {
        Arc::new(Verifier { trust, expect, algorithms: default_provider().signature_verification_algorithms })
    }

    fn check(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let id = trust::id_of(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let standing = trust::standing(&self.trust.current(), certificate, now)
            .map_err(|_| CertificateError::BadEncoding)?;
        match (self.expect, standing) {
            (_, Standing::Removed) => Err(CertificateError::Revoked.into()),
            (Expect::Node(wanted) | Expect::Stranger(wanted), _) if id != wanted => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            (Expect::Node(_) | Expect::Ours, Standing::Stranger) | (Expect::Ours, Standing::Witness) => {
                Err(CertificateError::UnknownIssuer.into())
            }
            _ => Ok(()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// How this node answers.
pub(crate) fn server(credentials: &Credentials, trust: &Trust) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Verifier::new(trust.clone(), Expect::Anyone))
        .with_cert_resolver(Arc::new(credentials.clone()));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// How this node calls.
pub(crate) fn client(
    credentials: &Credentials,
    trust: &Trust,
    expect: Expect,
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Verifier::new(trust.clone(), expect))
        .with_client_cert_resolver(Arc::new(credentials.clone()));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}
