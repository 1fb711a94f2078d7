//! The authority behind the certificate that clients and browsers see: one for the cloud, for good, so that who has
//! trusted it once trusts every node of the cloud.
//!
//! It is a record of the store, so each controller issues its own certificate. As with the nodes' authority
//! ([`crate::certificates`]), only controllers may read `cluster/`. Certificates begin long before now, so that a
//! node whose clock is wrong still talks.

use std::net::IpAddr;

use cairn_state::Record;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use ring::digest;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use cairn_wire::remote::{PeerId, trust};

use crate::der::Der;
use crate::key::KeyError;

/// The API's authority. Its writer is the controller, once: when the cloud is founded or carried over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApiAuthority {
    /// The cloud's id, from which its subject follows.
    pub cloud: String,
    /// Its certificate, in PEM.
    pub certificate: String,
    /// Its private key, PKCS #8.
    pub key: Der,
}

impl ApiAuthority {
    /// The id of the record.
    pub const ID: &'static str = "this";

    /// A new authority of a cloud.
    pub fn create(cloud: &str) -> Result<ApiAuthority, KeyError> {
        let pair = KeyPair::generate().map_err(failed)?;
        let certificate = params(cloud).self_signed(&pair).map_err(failed)?.pem();
        Ok(ApiAuthority { cloud: cloud.to_owned(), certificate, key: Der(pair.serialize_der()) })
    }

    /// The authority that a cloud of this id has had in files.
    pub fn adopt(cloud: &str, certificate: &str, key: &str) -> Result<ApiAuthority, KeyError> {
        let pair = KeyPair::from_pem(key).map_err(failed)?;
        let authority = ApiAuthority {
            cloud: cloud.to_owned(),
            certificate: certificate.to_owned(),
            key: Der(pair.serialize_der()),
        };
        let id = trust::id_of(&authority.der()?).map_err(|e| KeyError::Private(e.to_string()))?;
        if id != PeerId::of_key(&rcgen::PublicKeyData::subject_public_key_info(&pair)) {
            return Err(KeyError::Private("the key is not that of the certificate".into()));
        }
        Ok(authority)
    }

    /// SHA-256 of its certificate, in hex: what a person compares.
    pub fn fingerprint(&self) -> Result<String, KeyError> {
        Ok(hex::encode(digest::digest(&digest::SHA256, &self.der()?)))
    }

    /// A certificate for these names and addresses, and a fresh key, in one text of PEM.
    pub fn issue(&self, names: &[String], addresses: &[IpAddr]) -> Result<String, KeyError> {
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("cairn", String::as_str));
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2060, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let pair = KeyPair::try_from(self.key.0.as_slice()).map_err(failed)?;
        // The issuer's name is all that a certificate takes from that of its authority, and it follows from the cloud.
        let issuer = Issuer::new(self::params(&self.cloud), pair);
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        Ok(certificate.pem() + &key.serialize_pem())
    }

    fn der(&self) -> Result<CertificateDer<'static>, KeyError> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|e| KeyError::Private(format!("not a certificate in PEM: {e}")))
    }
}

impl Record for ApiAuthority {
    const KIND: &'static str = "cluster/api-authority";

    fn id(&self) -> String {
        ApiAuthority::ID.into()
    }
}

fn failed(e: rcgen::Error) -> KeyError {
    KeyError::Private(e.to_string())
}

fn params(cloud: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Cairn");
    params.distinguished_name.push(DnType::CommonName, format!("Cairn cloud {cloud}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2074, 1, 1);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_wire::remote::{Standing, TrustSet};
    use rustls_pki_types::UnixTime;

    #[test]
    fn what_it_issues_is_for_the_endpoint_and_for_no_node() {
        let authority = ApiAuthority::create("c").unwrap();
        let issued = authority.issue(&["n1".into(), "localhost".into()], &["192.0.2.1".parse().unwrap()]);
        let issued = CertificateDer::from_pem_slice(issued.unwrap().as_bytes()).unwrap();
        let set = TrustSet { authorities: vec![authority.der().unwrap()], ..TrustSet::default() };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        assert_eq!(trust::standing(&set, &issued, now), Ok(Standing::Stranger));
    }

    #[test]
    fn an_authority_in_files_goes_on_and_a_wrong_key_is_told() {
        let key = KeyPair::generate().unwrap();
        let pem = params("c").self_signed(&key).unwrap().pem();
        let adopted = ApiAuthority::adopt("c", &pem, &key.serialize_pem()).unwrap();
        assert_eq!(adopted.certificate, pem);
        assert_eq!(adopted.fingerprint().unwrap().len(), 64);
        assert!(adopted.issue(&["n1".into()], &[]).unwrap().contains("PRIVATE KEY"));
        let other = KeyPair::generate().unwrap().serialize_pem();
        assert!(ApiAuthority::adopt("c", &pem, &other).is_err());
        assert!(ApiAuthority::adopt("c", "", &key.serialize_pem()).is_err());
        assert!(!format!("{adopted:?}").contains("PRIVATE"));
    }
}
