//! Who votes: the shapes that people build, and what must hold in all.

use proptest::prelude::*;

use super::*;

const UP: Health = Health::Up { caught_up: true };
const BEHIND: Health = Health::Up { caught_up: false };
const BRIEF: Health = Health::Silent(Duration::from_secs(5));
const DEAD: Health = Health::Silent(DEAD_AFTER);

fn node(n: u8, voter: bool, health: Health) -> Candidate {
    Candidate { id: PeerId::new([n; 32]), voter, eligible: true, leader: false, health, witness: false }
}

/// The numbers of those who shall vote.
fn chosen(members: &[Candidate]) -> Vec<u8> {
    voters(members).iter().map(|id| id.as_bytes()[0]).collect()
}

/// Voters, then learners, by health.
fn cloud(voters: &[Health], learners: &[Health]) -> Vec<Candidate> {
    let all = voters.iter().map(|h| (true, *h)).chain(learners.iter().map(|h| (false, *h)));
    (1..).zip(all).map(|(n, (voter, health))| node(n, voter, health)).collect()
}

#[test]
fn a_growing_cloud_gets_one_three_and_five_voters() {
    assert_eq!(chosen(&cloud(&[UP], &[])), [1]);
    assert_eq!(chosen(&cloud(&[UP], &[UP])), [1], "a second voter could only take the quorum away");
    assert_eq!(chosen(&cloud(&[UP], &[UP, BEHIND])), [1], "not before it has caught up");
    assert_eq!(chosen(&cloud(&[UP], &[UP, UP])), [1, 2, 3]);
    assert_eq!(chosen(&cloud(&[UP; 3], &[UP])), [1, 2, 3]);
    assert_eq!(chosen(&cloud(&[UP; 3], &[UP; 4])), [1, 2, 3, 4, 5]);
}

#[test]
fn a_witness_makes_three_of_two_and_gives_way_to_a_node() {
    let with_witness = |voters: &[Health], learners: &[Health], votes| {
        let mut members = cloud(voters, learners);
        members.push(Candidate { witness: true, ..node(9, votes, UP) });
        members
    };
    assert_eq!(chosen(&with_witness(&[UP], &[], false)), [1], "one node and a witness are two");
    assert_eq!(chosen(&with_witness(&[UP], &[UP], false)), [1, 2, 9]);
    assert_eq!(chosen(&with_witness(&[UP, UP], &[], true)), [1, 2, 9]);
    assert_eq!(chosen(&with_witness(&[UP, UP], &[UP], true)), [1, 2, 3]);
    assert_eq!(chosen(&with_witness(&[UP, UP, DEAD], &[], false)), [1, 2, 9], "it stands in for a dead one");
    assert_eq!(chosen(&with_witness(&[UP, DEAD], &[], true)), [1, 2, 9], "nobody to take its place");
}

#[test]
fn a_dead_voter_is_replaced_and_a_brief_silence_is_not_death() {
    assert_eq!(chosen(&cloud(&[UP, DEAD, UP], &[UP])), [1, 3, 4]);
    assert_eq!(chosen(&cloud(&[UP, BRIEF, UP], &[UP])), [1, 2, 3]);
    assert_eq!(chosen(&cloud(&[UP, DEAD, UP], &[])), [1, 2, 3], "nobody to take its place: it may come back");
    assert_eq!(chosen(&cloud(&[UP, UP, UP, DEAD, DEAD], &[])), [1, 2, 3], "three bear one more failure");
    assert_eq!(chosen(&cloud(&[UP, UP, UP, UP, DEAD], &[])), [1, 2, 3, 4, 5]);
}

#[test]
fn without_a_quorum_nothing_changes() {
    assert_eq!(chosen(&cloud(&[UP, DEAD, DEAD], &[UP, UP])), [1, 2, 3]);
    assert_eq!(chosen(&cloud(&[DEAD], &[UP, UP])), [1]);
}

#[test]
fn who_leaves_votes_no_more_and_the_leader_stays() {
    let mut members = cloud(&[UP, UP, UP], &[UP]);
    members[0].eligible = false;
    assert_eq!(chosen(&members), [2, 3, 4]);
    members.truncate(3);
    members[2].leader = true;
    assert_eq!(chosen(&members), [3], "of two that are left the leader votes");
}

fn health() -> impl Strategy<Value = Health> {
    prop_oneof![3 => Just(UP), 1 => Just(BEHIND), 1 => Just(BRIEF), 2 => Just(DEAD)]
}

fn members() -> impl Strategy<Value = Vec<Candidate>> {
    let member = (prop::bool::weighted(0.5), health(), prop::bool::weighted(0.9));
    prop::collection::vec(member, 1..9).prop_map(|all| {
        let mut members: Vec<_> = (1..)
            .zip(all)
            .map(|(n, (voter, health, eligible))| Candidate { eligible, ..node(n, voter, health) })
            .collect();
        members[0].voter = true;
        members
    })
}

/// How many of these voters can fail before there is no quorum; `None` if there is none as it is.
fn bears_now(members: &[Candidate], voters: &BTreeSet<PeerId>) -> Option<usize> {
    let alive = members.iter().filter(|m| voters.contains(&m.id) && m.is_good()).count();
    alive.checked_sub(voters.len() / 2 + 1)
}

proptest! {
    #[test]
    fn what_must_hold_of_any_choice(members in members(), order in any::<u64>()) {
        let current: BTreeSet<_> = members.iter().filter(|m| m.voter).map(|m| m.id).collect();
        let next = voters(&members);
        let answering = members.iter().filter(|m| m.voter && m.answers()).count();
        prop_assert!(!next.is_empty());
        if answering <= current.len() / 2 {
            prop_assert_eq!(&next, &current);
            return Ok(());
        }
        if next != current {
            prop_assert!(next.len() <= VOTERS_MAX && next.len() % 2 == 1);
            let is = |id: &PeerId| members.iter().find(|m| m.id == *id).unwrap();
            prop_assert!(next.iter().all(|id| is(id).eligible));
            prop_assert!(next.difference(&current).all(|id| is(id).health == UP), "only who has all the log");
            prop_assert!(bears_now(&members, &next).is_some(), "the next voters have a quorum");
        }
        // No other odd choice among those who may vote bears more.
        let good = members.iter().filter(|m| m.eligible && m.is_good()).count();
        let best = [1, 3, 5].into_iter().filter_map(|size| bears(good, size)).max();
        if members.iter().any(|m| m.eligible && m.is_good()) {
            prop_assert!(bears_now(&members, &next) >= best);
        }
        // It settles at once, and does not hang on the order.
        let mut after = members.clone();
        after.iter_mut().for_each(|m| m.voter = next.contains(&m.id));
        if after.iter().filter(|m| m.voter && m.answers()).count() > next.len() / 2 {
            prop_assert_eq!(voters(&after), next.clone());
        }
        let mut turned = members.clone();
        turned.rotate_left((order % members.len() as u64) as usize);
        prop_assert_eq!(voters(&turned), next);
    }
}
