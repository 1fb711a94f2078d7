//! Whom this node trusts: the keys of members, the keys that were removed, and the cloud's authorities.
//!
//! [`standing`] decides, from values alone. A member's key outranks every certificate and every clock; a removed
//! key is refused whatever it shows; for a key that is not known the certificate decides, and only its end is
//! compared with the clock: a clock far behind (a machine whose battery is dead) locks nobody out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage};

use super::peer::{PeerId, Standing};

/// What trust rests on. It comes from the store, and from this node's own copy before the store is there.
#[derive(Debug, Clone, Default)]
pub struct TrustSet {
    /// The keys of members, those included that are joining or leaving.
    pub members: BTreeSet<PeerId>,
    /// The keys of machines that are no nodes and only vote.
    pub witnesses: BTreeSet<PeerId>,
    /// The keys that were removed, for ever.
    pub removed: BTreeSet<PeerId>,
    /// The certificates of the cloud's authorities, DER. Several while one replaces another.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// A certificate that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate: {0}")]
pub struct Unreadable(String);

/// The public key that a certificate is of, SubjectPublicKeyInfo in DER.
pub(crate) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Unreadable> {
    let parsed = EndEntityCert::try_from(certificate).map_err(|e| Unreadable(e.to_string()))?;
    Ok(parsed.subject_public_key_info().to_vec())
}

/// The identity of the node whose certificate this is, if it can prove to hold the key.
pub fn id_of(certificate: &CertificateDer<'_>) -> Result<PeerId, Unreadable> {
    public_key(certificate).map(|key| PeerId::of_key(&key))
}

/// What the holder of this certificate's key is to the cloud.
pub fn standing(
    set: &TrustSet,
    certificate: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<Standing, Unreadable> {
    let id = id_of(certificate)?;
    Ok(if set.removed.contains(&id) {
        Standing::Removed
    } else if set.members.contains(&id) {
        Standing::Member
    } else if set.witnesses.contains(&id) {
        Standing::Witness
    } else if vouched_for(&set.authorities, certificate, now) {
        Standing::Certified
    } else {
        Standing::Stranger
    })
}

/// Whether one of these authorities has signed the certificate for a node, and it has not expired.
fn vouched_for(
    authorities: &[CertificateDer<'static>],
    certificate: &CertificateDer<'_>,
    now: UnixTime,
) -> bool {
    let Ok(leaf) = EndEntityCert::try_from(certificate) else { return false };
    let anchors: Vec<TrustAnchor<'_>> =
        authorities.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok()).collect();
    let at = |time| {
        // Certificates of nodes are for both ends of a connection; those of the API's endpoint are not.
        let usage = KeyUsage::client_auth();
        leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], time, usage, None, None).map(drop)
    };
    match at(now) {
        Ok(()) => true,
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => at(not_before).is_ok(),
        Err(_) => false,
    }
}

/// The trust of this node, as it changes. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Trust {
    set: Arc<watch::Sender<Arc<TrustSet>>>,
}

impl Trust {
    /// Trust that rests on this for now.
    pub fn new(set: TrustSet) -> Trust {
        Trust { set: Arc::new(watch::Sender::new(Arc::new(set))) }
    }

    /// What it rests on now.
    pub fn current(&self) -> Arc<TrustSet> {
        self.set.borrow().clone()
    }

    /// Rests on this from now on. Connections of peers that were removed are closed.
    pub fn replace(&self, set: TrustSet) {
        self.set.send_replace(Arc::new(set));
    }

    /// What the holder of this certificate's key is now.
    pub fn standing(&self, certificate: &CertificateDer<'_>) -> Result<Standing, Unreadable> {
        standing(&self.current(), certificate, now())
    }

    /// Hears of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<TrustSet>> {
        self.set.subscribe()
    }
}

/// The time; 1970 if the clock is before that.
fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixTime::since_unix_epoch(since)
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
