//! The cloud's authority over its nodes, and their certificates: short-lived, and renewed long before they end.
//!
//! The authority's key is a record of the store like any other, so that each voter can take over issuing, and the
//! loss of any node loses nothing. It is as safe as the store: on disk readable by the controller's user alone, on
//! the wire only inside TLS between members, and no role but the controller may read `cluster/`. A node that
//! is removed has seen it; so each removal puts a new authority in the old one's place (its `generation`), and nobody
//! trusts the old one any more. That costs nothing: members know each other by key, and fetch new certificates
//! at leisure.
//!
//! The certificate that browsers and clients see is another authority's (the API's), which does not change.

use std::time::Duration;

use cairn_state::Record;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::der::Der;
use crate::key::{self, KeyError, PublicKey};

/// How long a node's certificate is good for, in seconds: a week.
pub const LIFETIME_S: i64 = 7 * 86_400;
/// When certificates begin, and so the least that any clock is taken for: 2024-01-01.
const EPOCH_S: i64 = 1_704_067_200;

/// An authority. Its writer is the controller that holds the leadership.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Authority {
    /// The cloud's id.
    pub cloud: String,
    /// Counts from 1. The highest one issues, and is the only one that is trusted.
    pub generation: u32,
    /// Its certificate.
    pub certificate: Der,
    /// Its private key, PKCS #8.
    pub key: Der,
}

impl Record for Authority {
    const KIND: &'static str = "cluster/authority";

    fn id(&self) -> String {
        self.cloud.clone()
    }
}

/// A certificate of a node, with what must be known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCertificate {
    /// The certificate.
    pub der: Der,
    /// Of which authority.
    pub generation: u32,
    /// When it was issued by the issuer's clock, in seconds since 1970.
    pub issued_s: i64,
    /// When it ends, likewise.
    pub ends_s: i64,
}

impl NodeCertificate {
    /// The certificate as TLS takes it.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.der.0.clone())
    }
}

impl Authority {
    /// A new authority of a cloud, with a new key.
    pub fn create(cloud: &str, generation: u32) -> Result<Authority, KeyError> {
        let pair = KeyPair::generate().map_err(failed)?;
        let certificate = params(cloud, generation).self_signed(&pair).map_err(failed)?;
        Ok(Authority {
            cloud: cloud.to_owned(),
            generation,
            certificate: Der(certificate.der().to_vec()),
            key: Der(pair.serialize_der()),
        })
    }

    /// The one that takes this one's place.
    pub fn successor(&self) -> Result<Authority, KeyError> {
        Authority::create(&self.cloud, self.generation.saturating_add(1))
    }

    /// A certificate for the node with this public key (SubjectPublicKeyInfo in DER).
    pub fn issue(&self, public_key: &[u8], now: Timestamp) -> Result<NodeCertificate, KeyError> {
        let node = PublicKey::of(public_key)?;
        let pair = KeyPair::try_from(self.key.0.as_slice()).map_err(failed)?;
        // The issuer's name is all that a certificate takes from that of its authority, and it follows from the cloud.
        let issuer = Issuer::new(params(&self.cloud, self.generation), pair);
        let issued_s = now.as_second().max(EPOCH_S);
        let ends_s = issued_s.saturating_add(LIFETIME_S);
        let mut params = key::node_params(&key::name_of(public_key)?);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(ends_s.unsigned_abs());
        let certificate = params.signed_by(&node, &issuer).map_err(failed)?;
        let der = Der(certificate.der().to_vec());
        Ok(NodeCertificate { der, generation: self.generation, issued_s, ends_s })
    }
}

fn params(cloud: &str, generation: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Cairn");
    params.distinguished_name.push(DnType::CommonName, format!("Nodes of cloud {cloud}, {generation}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2074, 1, 1);
    params
}

fn failed(e: rcgen::Error) -> KeyError {
    KeyError::Private(e.to_string())
}

/// What to do about a node's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing for this long.
    In(Duration),
    /// Have a new one issued.
    Now,
}

/// When a certificate is renewed: at half of its life, at once if another authority issues now, or if by this
/// clock it cannot have been issued yet (its issuer's clock was ahead, and its end means little).
pub fn renewal(certificate: &NodeCertificate, generation: u32, now: Timestamp) -> Renewal {
    let now = now.as_second().max(EPOCH_S);
    let half = certificate.issued_s.saturating_add(LIFETIME_S / 2);
    let of_the_future = certificate.issued_s > now.saturating_add(LIFETIME_S);
    if certificate.generation != generation || of_the_future || now >= half {
        return Renewal::Now;
    }
    // No longer than half a life, so that a clock that is set right later does not delay it.
    let wait = (half - now).clamp(1, LIFETIME_S / 2);
    Renewal::In(Duration::from_secs(wait.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::NodeKey;
    use cairn_wire::remote::{Standing, TrustSet, trust::standing};
    use proptest::prelude::*;
    use rustls_pki_types::UnixTime;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    const NOW_S: i64 = 1_800_000_000;

    fn trusted(authority: &Authority, certificate: &NodeCertificate, now: i64) -> Standing {
        let authorities = vec![CertificateDer::from(authority.certificate.0.clone())];
        let set = TrustSet { authorities, ..TrustSet::default() };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unsigned_abs()));
        standing(&set, &certificate.der(), now).unwrap()
    }

    #[test]
    fn an_issued_certificate_is_trusted_for_its_life_and_by_clocks_that_are_behind() {
        let authority = Authority::create("c", 1).unwrap();
        let key = NodeKey::generate().unwrap();
        let certificate = authority.issue(&key.public_key(), at(NOW_S)).unwrap();
        for (now, expected) in [
            (0, Standing::Certified),
            (NOW_S, Standing::Certified),
            (NOW_S + LIFETIME_S - 1, Standing::Certified),
            (NOW_S + LIFETIME_S + 1, Standing::Stranger),
        ] {
            assert_eq!(trusted(&authority, &certificate, now), expected, "at {now}");
        }
        assert_eq!(trusted(&authority.successor().unwrap(), &certificate, NOW_S), Standing::Stranger);
        assert!(key.credentials(certificate.der()).is_ok());
    }

    #[test]
    fn an_issuer_whose_clock_is_in_1970_still_issues() {
        let authority = Authority::create("c", 1).unwrap();
        let certificate = authority.issue(&NodeKey::generate().unwrap().public_key(), at(5)).unwrap();
        assert_eq!(trusted(&authority, &certificate, 5), Standing::Certified);
        assert!(matches!(renewal(&certificate, 1, at(5)), Renewal::In(_)));
        assert_eq!(renewal(&certificate, 1, at(NOW_S)), Renewal::Now, "once the clock is right");
    }

    #[test]
    fn the_key_is_not_in_the_debug_text() {
        let authority = Authority::create("c", 1).unwrap();
        assert!(!format!("{authority:?}").contains(&hex::encode(&authority.key.0[40..50])));
        let json = serde_json::to_value(&authority).unwrap();
        assert_eq!(serde_json::from_value::<Authority>(json).unwrap(), authority);
    }

    proptest! {
        #[test]
        fn a_certificate_is_renewed_before_it_ends_whatever_the_clock(issued in 0..4_000_000_000i64, now in 0..4_000_000_000i64) {
            let (issued_s, der) = (issued.max(EPOCH_S), Der(vec![]));
            let certificate = NodeCertificate { der, generation: 3, issued_s, ends_s: issued_s + LIFETIME_S };
            prop_assert_eq!(renewal(&certificate, 4, at(now)), Renewal::Now);
            if let Renewal::In(wait) = renewal(&certificate, 3, at(now)) {
                let then = now.max(EPOCH_S) + wait.as_secs() as i64;
                prop_assert!(then < certificate.ends_s && wait.as_secs() > 0);
                prop_assert!(wait.as_secs() as i64 <= LIFETIME_S / 2);
            }
        }
    }
}
