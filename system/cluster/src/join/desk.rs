//! The handshakes that are under way at the node that is asked: few, short, and at a bounded pace.
//!
//! Pure: time is given, in milliseconds of any clock that does not go back.

use std::collections::HashMap;

use cairn_wire::remote::PeerId;

use super::messages::Begin;
use crate::handshake::{Agreement, Bytes32, Scene, Tampered, hash};

/// How many handshakes are under way at a time.
const UNDER_WAY_MAX: usize = 64;
/// How long one may take, in milliseconds.
const LASTS_MS: u64 = 30_000;
/// How many may begin at once, and how long until one more may, in milliseconds.
const BURST: u64 = 20;
const PACE_MS: u64 = 1_000;
/// How soon one node may begin again, in milliseconds.
const AGAIN_MS: u64 = 1_000;

/// Why a handshake does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Too many, or too often.
    #[error("too many nodes ask to join at this moment: try again in a few seconds")]
    Busy,
    /// None was begun, or it took too long.
    #[error("there is no handshake under way: begin again")]
    NotBegun,
    /// The nonce is not what was committed to.
    #[error(transparent)]
    Tampered(#[from] Tampered),
}

struct UnderWay {
    begun_ms: u64,
    scene: Scene,
    begin: Begin,
    nonce: Bytes32,
}

/// The handshakes under way.
#[derive(Default)]
pub struct Desk {
    under_way: HashMap<PeerId, UnderWay>,
    /// When the bucket of beginnings would be empty, were none taken out.
    spent_until_ms: u64,
}

/// Who meets whom, and how.
#[derive(Debug, Clone, Copy)]
pub struct Meeting {
    /// The version they speak.
    pub version: u16,
    /// The node that asks.
    pub applicant: PeerId,
    /// This one.
    pub acceptor: PeerId,
}

impl Desk {
    /// A handshake begins; it will be answered with this encoded offer and nonce. One of the same node that was
    /// under way is over.
    pub fn begin(
        &mut self,
        now_ms: u64,
        meeting: Meeting,
        begin: Begin,
        offer: &[u8],
        nonce: Bytes32,
    ) -> Result<(), Halt> {
        self.under_way.retain(|_, handshake| now_ms < handshake.begun_ms + LASTS_MS);
        let again = self.under_way.get(&meeting.applicant);
        let hasty = again.is_some_and(|last| now_ms < last.begun_ms + AGAIN_MS);
        let spent_until = self.spent_until_ms.max(now_ms) + PACE_MS;
        let full = again.is_none() && self.under_way.len() >= UNDER_WAY_MAX;
        if hasty || full || spent_until > now_ms + BURST * PACE_MS {
            return Err(Halt::Busy);
        }
        self.spent_until_ms = spent_until;
        let scene = Scene {
            version: meeting.version,
            applicant: meeting.applicant,
            acceptor: meeting.acceptor,
            application: application_hash(&begin.application),
            offer: offer_hash(offer),
        };
        self.under_way.insert(meeting.applicant, UnderWay { begun_ms: now_ms, scene, begin, nonce });
        Ok(())
    }

    /// A handshake ends: what both sides agree on, and the encoded application. It cannot be tried again.
    pub fn reveal(
        &mut self,
        now_ms: u64,
        applicant: PeerId,
        nonce: &Bytes32,
    ) -> Result<(Agreement, Vec<u8>), Halt> {
        let handshake = self.under_way.remove(&applicant).ok_or(Halt::NotBegun)?;
        if now_ms >= handshake.begun_ms + LASTS_MS {
            return Err(Halt::NotBegun);
        }
        let UnderWay { scene, begin, nonce: own, .. } = handshake;
        let agreement = Agreement::of_acceptor(&scene, &begin.commitment, &own, nonce)?;
        Ok((agreement, begin.application))
    }
}

/// What an encoded application is in a handshake.
pub(crate) fn application_hash(application: &[u8]) -> Bytes32 {
    hash("cairn join: application", &[application])
}

/// What an encoded offer is in a handshake.
pub(crate) fn offer_hash(offer: &[u8]) -> Bytes32 {
    hash("cairn join: offer", &[offer])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::commitment;

    fn meeting(n: u16) -> Meeting {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_le_bytes());
        Meeting { version: 1, applicant: PeerId::new(id), acceptor: PeerId::new([255; 32]) }
    }

    fn begin(meeting: Meeting) -> Begin {
        let application = b"me".to_vec();
        let commitment = commitment(&[7; 32], &meeting.applicant, &application_hash(&application));
        Begin { application, commitment }
    }

    fn begins(desk: &mut Desk, now_ms: u64, n: u16) -> bool {
        desk.begin(now_ms, meeting(n), begin(meeting(n)), b"offer", [9; 32]).is_ok()
    }

    #[test]
    fn a_handshake_ends_once_and_only_as_it_was_committed_to() {
        let mut desk = Desk::default();
        assert!(begins(&mut desk, 0, 1));
        let (agreement, application) = desk.reveal(10, meeting(1).applicant, &[7; 32]).unwrap();
        assert_eq!(application, b"me");
        assert_eq!(desk.reveal(10, meeting(1).applicant, &[7; 32]), Err(Halt::NotBegun));
        assert!(begins(&mut desk, 2_000, 1));
        let tampered = desk.reveal(2_010, meeting(1).applicant, &[8; 32]);
        assert_eq!(tampered, Err(Halt::Tampered(Tampered)));
        assert!(begins(&mut desk, 4_000, 1));
        assert_eq!(desk.reveal(4_010, meeting(1).applicant, &[7; 32]).unwrap().0, agreement);
        assert!(begins(&mut desk, 6_000, 1));
        assert_eq!(desk.reveal(6_000 + LASTS_MS, meeting(1).applicant, &[7; 32]), Err(Halt::NotBegun));
    }

    #[test]
    fn the_pace_and_the_number_are_bounded() {
        let mut desk = Desk::default();
        let first = (0..100).filter(|n| begins(&mut desk, 0, *n)).count() as u64;
        assert_eq!(first, BURST);
        assert!(!begins(&mut desk, 500, 200) && begins(&mut desk, PACE_MS, 200));
        assert!(!begins(&mut desk, PACE_MS + 10, 200), "the same node at once");
        for now in 2..2000 {
            begins(&mut desk, now * PACE_MS / 4, now as u16);
            assert!(desk.under_way.len() <= UNDER_WAY_MAX);
        }
        assert!(begins(&mut desk, 10_000_000, 1), "and afterwards there is room again");
    }
}
