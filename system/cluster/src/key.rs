//! The node's key, and what follows from it: the identity that other nodes know it by, and the name people read.
//!
//! Keys are ECDSA on P-256 and nothing else. No I/O: whoever keeps the key on disk is the node's bring-up.

use cairn_wire::remote::{BadCredentials, Credentials, PeerId};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use ring::digest;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// What precedes the point in the SubjectPublicKeyInfo of a P-256 key (RFC 5480).
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// An uncompressed point: its mark and two coordinates.
const POINT_BYTES: usize = 65;

/// A key that cannot be made, read or used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no private key that is understood.
    #[error("not a node's private key: {0}")]
    Private(String),
    /// The public key is not one of P-256.
    #[error("a node's key is on P-256, this one is not")]
    Public,
}

/// A node's key pair.
pub struct NodeKey {
    pair: KeyPair,
}

impl NodeKey {
    /// A new key.
    pub fn generate() -> Result<NodeKey, KeyError> {
        KeyPair::generate().map(|pair| NodeKey { pair }).map_err(private)
    }

    /// The key that [`NodeKey::to_pem`] wrote.
    pub fn from_pem(pem: &str) -> Result<NodeKey, KeyError> {
        let key = NodeKey { pair: KeyPair::from_pem(pem).map_err(private)? };
        PublicKey::of(&key.public_key()).map(|_| key)
    }

    /// The private key, PKCS #8 in PEM. To be kept where only the node's own roles can read it.
    pub fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// The public key, SubjectPublicKeyInfo in DER.
    pub fn public_key(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// What other nodes know it by.
    pub fn id(&self) -> PeerId {
        PeerId::of_key(&self.public_key())
    }

    /// What people know it by.
    pub fn name(&self) -> String {
        name_of_point(self.pair.der_bytes())
    }

    /// A certificate by nobody but itself, for before it has joined, and for when it has lost its own.
    pub fn self_signed(&self) -> Result<CertificateDer<'static>, KeyError> {
        let mut params = node_params(&self.name());
        params.not_after = date_time_ymd(2074, 1, 1);
        params.self_signed(&self.pair).map(|certificate| certificate.der().clone()).map_err(private)
    }

    /// What it proves itself by to other nodes, with this certificate.
    pub fn credentials(&self, certificate: CertificateDer<'static>) -> Result<Credentials, BadCredentials> {
        Credentials::new(PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into(), certificate)
    }
}

fn private(e: rcgen::Error) -> KeyError {
    KeyError::Private(e.to_string())
}

/// The name of the node with this public key (SubjectPublicKeyInfo in DER).
pub fn name_of(public_key: &[u8]) -> Result<String, KeyError> {
    PublicKey::of(public_key).map(|key| name_of_point(&key.point))
}

/// `cairn-` and six hex digits of the SHA-256 of the public key's point.
fn name_of_point(point: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, point);
    format!("cairn-{}", hex::encode(hash.as_ref().get(..3).unwrap_or_default()))
}

/// What all certificates of nodes have in common. They begin long ago, so that a clock that is behind does not
/// matter; their end is the caller's to set.
pub(crate) fn node_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Cairn");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2024, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

/// Another node's public key, to be certified.
pub(crate) struct PublicKey {
    point: Vec<u8>,
}

impl PublicKey {
    pub(crate) fn of(spki: &[u8]) -> Result<PublicKey, KeyError> {
        match spki.split_first_chunk() {
            Some((&SPKI_HEAD, point)) if point.len() == POINT_BYTES => {
                Ok(PublicKey { point: point.to_vec() })
            }
            _ => Err(KeyError::Public),
        }
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_node_after_it_was_kept() {
        let key = NodeKey::generate().unwrap();
        let again = NodeKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!((key.id(), key.name()), (again.id(), again.name()));
        assert_eq!(name_of(&key.public_key()).unwrap(), key.name());
        assert!(key.name().starts_with("cairn-") && key.name().len() == 12);
        let credentials = key.credentials(key.self_signed().unwrap()).unwrap();
        assert_eq!(credentials.id(), key.id());
        assert!(key.credentials(NodeKey::generate().unwrap().self_signed().unwrap()).is_err());
    }

    #[test]
    fn only_keys_of_p256_name_a_node() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(name_of(&other.subject_public_key_info()).is_err());
        assert!(name_of(&[]).is_err() && NodeKey::from_pem(&other.serialize_pem()).is_err());
    }
}
