//! Who is trusted: every combination of key, certificate and clock that matters.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

use super::*;

const DAY_S: u64 = 86_400;
/// 2030-01-01, when the certificates here expire.
const EXPIRY_S: u64 = 1_893_456_000;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a cloud");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    // Long expired itself, as in a cloud that was off for years.
    params.not_after = date_time_ymd(2025, 1, 1);
    let der = params.self_signed(&key).unwrap().der().clone();
    Authority { issuer: Issuer::new(params, key), der }
}

fn params(usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "a node");
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params.extended_key_usages = vec![usage];
    params
}

fn issued(authority: &Authority, key: &KeyPair) -> CertificateDer<'static> {
    let params = params(ExtendedKeyUsagePurpose::ClientAuth);
    params.signed_by(key, &authority.issuer).unwrap().der().clone()
}

fn id(certificate: &CertificateDer<'_>) -> PeerId {
    PeerId::of_key(&public_key(certificate).unwrap())
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn trusts(authority: &Authority) -> TrustSet {
    TrustSet { authorities: vec![authority.der.clone()], ..TrustSet::default() }
}

#[test]
fn a_certificate_of_the_cloud_counts_until_it_expires() {
    let cloud = authority();
    let certificate = issued(&cloud, &KeyPair::generate().unwrap());
    let set = trusts(&cloud);
    assert_eq!(standing(&set, &certificate, at(EXPIRY_S - DAY_S)), Ok(Standing::Certified));
    assert_eq!(standing(&set, &certificate, at(EXPIRY_S + DAY_S)), Ok(Standing::Stranger));
    assert_eq!(standing(&set, &certificate, at(0)), Ok(Standing::Certified), "a clock that begins in 1970");
}

#[test]
fn another_clouds_certificate_is_a_strangers() {
    let certificate = issued(&authority(), &KeyPair::generate().unwrap());
    assert_eq!(standing(&trusts(&authority()), &certificate, at(EXPIRY_S - DAY_S)), Ok(Standing::Stranger));
}

#[test]
fn the_certificate_of_the_apis_endpoint_makes_no_node() {
    let cloud = authority();
    let key = KeyPair::generate().unwrap();
    let params = params(ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = params.signed_by(&key, &cloud.issuer).unwrap().der().clone();
    assert_eq!(standing(&trusts(&cloud), &certificate, at(EXPIRY_S - DAY_S)), Ok(Standing::Stranger));
}

#[test]
fn a_members_key_outranks_certificate_and_clock() {
    let key = KeyPair::generate().unwrap();
    let own = params(ExtendedKeyUsagePurpose::ClientAuth).self_signed(&key).unwrap().der().clone();
    let set = TrustSet { members: [id(&own)].into(), ..trusts(&authority()) };
    for time in [0, EXPIRY_S - DAY_S, EXPIRY_S + DAY_S, u64::from(u32::MAX) * 2] {
        assert_eq!(standing(&set, &own, at(time)), Ok(Standing::Member));
        assert_eq!(standing(&set, &issued(&authority(), &key), at(time)), Ok(Standing::Member));
    }
}

#[test]
fn a_removed_key_is_refused_with_a_valid_certificate_and_even_if_it_is_still_listed() {
    let cloud = authority();
    let certificate = issued(&cloud, &KeyPair::generate().unwrap());
    let mut set = TrustSet { removed: [id(&certificate)].into(), ..trusts(&cloud) };
    assert_eq!(standing(&set, &certificate, at(EXPIRY_S - DAY_S)), Ok(Standing::Removed));
    set.members.insert(id(&certificate));
    assert_eq!(standing(&set, &certificate, at(EXPIRY_S - DAY_S)), Ok(Standing::Removed));
}

#[test]
fn what_is_no_certificate_is_an_error_and_no_panic() {
    for junk in [&b""[..], b"\x30", b"\x30\x82\xff\xff", &[0; 64]] {
        assert!(standing(&TrustSet::default(), &CertificateDer::from(junk), at(0)).is_err());
    }
}
