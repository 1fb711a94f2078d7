//! The two sides agree when nobody interferes; who interferes is seen.

use proptest::prelude::*;

use super::*;

fn id(byte: u8) -> PeerId {
    PeerId::new([byte; 32])
}

fn scene() -> Scene {
    Scene { version: 1, applicant: id(1), acceptor: id(2), application: [3; 32], offer: [4; 32] }
}

/// A word list of two: the same scheme with 4 bits, few enough to be tried out.
fn short(agreement: &Agreement) -> u8 {
    hash("short", &[&agreement.transcript])[0] & 0x0f
}

#[test]
fn a_proof_is_of_one_token_one_side_and_one_handshake() {
    let agreement = Agreement::of_applicant(&scene(), &[5; 32], &[6; 32]);
    let proof = agreement.proof(&[7; 32], Side::Applicant);
    assert!(agreement.proves(&[7; 32], Side::Applicant, &proof));
    assert!(!agreement.proves(&[8; 32], Side::Applicant, &proof), "another token");
    assert!(!agreement.proves(&[7; 32], Side::Acceptor, &proof), "sent back as one's own");
    let passed_on = Scene { acceptor: id(9), ..scene() };
    let other = Agreement::of_applicant(&passed_on, &[5; 32], &[6; 32]);
    assert!(!other.proves(&[7; 32], Side::Applicant, &proof), "passed on to another node");
}

/// Somebody in the middle is the acceptor to the applicant, and an applicant to the acceptor. It may use all it has
/// seen so far, and it tries hard: at each moment it searches for the value that makes both sides' words alike.
/// Bound by the commitment it does no better than chance; without it, it always succeeds.
#[test]
fn who_is_in_the_middle_cannot_search_for_words() {
    let runs = 600u64;
    let hits = |committed: bool| (0..runs).filter(|run| attack(*run, committed)).count() as u64;
    let (held, free) = (hits(true), hits(false));
    // One in 16 by chance; four standard deviations are about 24.
    assert!(held < runs / 16 + 24, "{held} of {runs} with a commitment");
    assert!(free > runs * 9 / 10, "{free} of {runs} without: the attacker of this test is too weak");
}

/// One attack; true if both sides see the same (shortened) words.
fn attack(run: u64, committed: bool) -> bool {
    let value = |what: &str, n: u64| hash(what, &[&run.to_le_bytes(), &n.to_le_bytes()]);
    let (applicant, acceptor, middle) = (id(1), id(2), id(66));
    let near = Scene { acceptor: middle, applicant, ..scene() };
    let far = Scene { applicant: middle, acceptor, ..scene() };
    let (nonce, answer) = (value("applicant", 0), value("acceptor", 0));
    // The applicant's commitment is here, its nonce is not. Towards the acceptor one's own nonce is committed to.
    let mut own_nonce = value("middle nonce", 0);
    // The acceptor answers. What it will see is known by now; what the applicant will see is not, so that any
    // answer to it is as good as any other.
    let own_answer = value("middle answer", 0);
    // The applicant reveals.
    let seen_near = short(&Agreement::of_applicant(&near, &nonce, &own_answer));
    if !committed {
        // Were nothing committed to, the nonce could be chosen now.
        let fits =
            |n: &u64| short(&Agreement::of_applicant(&far, &value("middle nonce", *n), &answer)) == seen_near;
        own_nonce = value("middle nonce", (0..200).find(fits).unwrap_or(0));
    }
    let bound_to = commitment(&own_nonce, &middle, &far.application);
    let seen_far = Agreement::of_acceptor(&far, &bound_to, &answer, &own_nonce);
    short(&seen_far.unwrap()) == seen_near
}

#[test]
fn a_nonce_chosen_late_is_tampering() {
    let committed = commitment(&[5; 32], &id(1), &[3; 32]);
    let late = Agreement::of_acceptor(&scene(), &committed, &[6; 32], &[9; 32]);
    assert_eq!(late, Err(Tampered));
    let for_another = Scene { applicant: id(9), ..scene() };
    assert_eq!(Agreement::of_acceptor(&for_another, &committed, &[6; 32], &[5; 32]), Err(Tampered));
}

proptest! {
    #[test]
    fn both_sides_see_the_same_words_and_nothing_else_gives_them(
        nonce: [u8; 32], answer: [u8; 32], at in 0..7usize, bit in 0..8u32,
    ) {
        let scene = scene();
        let ours = Agreement::of_applicant(&scene, &nonce, &answer);
        let committed = commitment(&nonce, &scene.applicant, &scene.application);
        let theirs = Agreement::of_acceptor(&scene, &committed, &answer, &nonce);
        prop_assert_eq!(theirs, Ok(ours.clone()));
        // Any part of it changed gives other words.
        let (mut changed, mut nonce, mut answer) = (scene, nonce, answer);
        match at {
            0 => changed.version ^= 1 << bit,
            1 => changed.applicant = PeerId::new([1 << bit; 32]),
            2 => changed.acceptor = PeerId::new([!(1 << bit); 32]),
            3 => changed.application[0] ^= 1 << bit,
            4 => changed.offer[31] ^= 1 << bit,
            5 => nonce[7] ^= 1 << bit,
            _ => answer[9] ^= 1 << bit,
        }
        prop_assume!(changed != self::scene() || at > 4);
        prop_assert_ne!(Agreement::of_applicant(&changed, &nonce, &answer).words(), ours.words());
    }
}
