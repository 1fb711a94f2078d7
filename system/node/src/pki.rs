//! The cloud's own certificate authority, and this node's server certificate, re-issued when its addresses or
//! the time call for it.
//!
//! Certificates begin long before now, so that a node whose clock is wrong still talks (design.md, joining).

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use ring::digest;

use crate::identity::Identity;
use crate::paths::{self, Paths};

/// How long a server certificate is used before a new one is made (it is valid for far longer).
const RENEW_AFTER: Duration = Duration::from_secs(30 * 86_400);

/// The cloud's authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The CA certificate, PEM.
    pub pem: String,
    /// SHA-256 of the CA certificate's DER, in hex: what a person compares.
    pub fingerprint: String,
}

impl Authority {
    /// Reads the authority, or founds it on the first boot.
    pub fn load_or_create(paths: &Paths, cloud: &str) -> io::Result<Authority> {
        let (key_file, cert_file) = (paths.node().join("ca.key"), paths.node().join("ca.pem"));
        if !cert_file.exists() {
            let key = KeyPair::generate().map_err(io::Error::other)?;
            let cert = ca_params(cloud).self_signed(&key).map_err(io::Error::other)?;
            paths::write_file(&key_file, key.serialize_pem().as_bytes(), 0o600)?;
            paths::write_file(&cert_file, cert.pem().as_bytes(), 0o644)?;
        }
        let pem = std::fs::read_to_string(&cert_file)?;
        let key = KeyPair::from_pem(&std::fs::read_to_string(&key_file)?).map_err(io::Error::other)?;
        let der = pem_body(&pem)?;
        let fingerprint = hex::encode(digest::digest(&digest::SHA256, &der));
        // The issuer's name is all that a leaf takes from the CA certificate, and it follows from the cloud's id.
        Ok(Authority { issuer: Issuer::new(ca_params(cloud), key), pem, fingerprint })
    }

    /// A certificate and a fresh key for these addresses, PEM.
    pub fn issue(&self, identity: &Identity, addresses: &[IpAddr]) -> io::Result<(String, String)> {
        let names = vec![identity.name.clone(), format!("{}.local", identity.name), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, identity.name.clone());
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2060, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        Ok((cert.pem(), key.serialize_pem()))
    }
}

fn ca_params(cloud: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Cairn");
    params.distinguished_name.push(DnType::CommonName, format!("Cairn cloud {cloud}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2074, 1, 1);
    params
}

fn pem_body(pem: &str) -> io::Result<Vec<u8>> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes())
        .map(|der| der.to_vec())
        .map_err(|e| io::Error::other(e.to_string()))
}

/// Hands the controller what it serves TLS with; makes a new certificate only when the addresses changed, the old
/// one is old, or there is none. True if it made one.
pub fn hand_over(
    paths: &Paths,
    authority: &Authority,
    id: &Identity,
    addresses: &[IpAddr],
) -> io::Result<bool> {
    let dir = paths.handover();
    let wanted = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join("\n");
    let names_file = dir.join("server.names");
    if std::fs::read_to_string(&names_file).is_ok_and(|had| had == wanted) && !is_old(&dir.join("server.pem"))
    {
        return Ok(false);
    }
    let (cert, key) = authority.issue(id, addresses)?;
    paths::write_file(&dir.join("ca.pem"), authority.pem.as_bytes(), 0o644)?;
    // One file holds both, so that no reader ever sees a key beside another's certificate.
    paths::write_file(&dir.join("server.pem"), format!("{cert}{key}").as_bytes(), 0o640)?;
    paths::write_file(&names_file, wanted.as_bytes(), 0o644)?;
    Ok(true)
}

fn is_old(file: &Path) -> bool {
    let modified = std::fs::metadata(file).and_then(|m| m.modified());
    !modified.is_ok_and(|at| SystemTime::now().duration_since(at).unwrap_or_default() < RENEW_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_per_set_of_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().join("state"), run: dir.path().join("run") };
        let id = Identity::load_or_create(&paths).unwrap();
        let ca = Authority::load_or_create(&paths, &id.cloud).unwrap();
        paths::make_dir(&paths.handover(), 0o750).unwrap();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(hand_over(&paths, &ca, &id, &[one]).unwrap());
        assert!(!hand_over(&paths, &ca, &id, &[one]).unwrap());
        assert!(hand_over(&paths, &ca, &id, &[one, "2001:db8::1".parse().unwrap()]).unwrap());
        let again = Authority::load_or_create(&paths, &id.cloud).unwrap();
        assert_eq!(ca.fingerprint, again.fingerprint);
    }
}
