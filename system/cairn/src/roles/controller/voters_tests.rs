//! What a leader does, case by case.

use super::*;
use cairn_cluster::Der;
use cairn_cluster::membership::MemberState;

const UP: Health = Health::Up { caught_up: true };

fn id(n: u8) -> PeerId {
    PeerId::new([n; 32])
}

fn member(n: u8, voter: bool) -> Member {
    Member {
        id: id(n),
        name: format!("n{n}"),
        public_key: Der(vec![]),
        addresses: vec![],
        state: MemberState::Member,
        voter,
        replica: Some(u64::from(n)),
        joined: jiff::Timestamp::UNIX_EPOCH,
    }
}

fn group(node: u64, members: &[u64], voters: &[u64]) -> Status {
    let members = members.iter().map(|n| (*n, cairn_state::Member::default())).collect();
    let voters = voters.iter().copied().collect();
    Status {
        node,
        leader: Some(node),
        term: 1,
        voters,
        members,
        applied: 10_000,
        last: 10_000,
        generation: 1,
    }
}

fn up(nodes: &[u8]) -> BTreeMap<PeerId, Health> {
    nodes.iter().map(|n| (id(*n), UP)).collect()
}

fn plan(status: &Status, members: &[Member], health: &BTreeMap<PeerId, Health>) -> Vec<Step> {
    super::plan(status, &seats(members, None), health)
}

#[test]
fn a_witness_votes_beside_two_nodes_and_never_leads() {
    let number = 0xf009;
    let mut witness = Witness {
        id: id(9),
        addresses: vec![],
        voter: false,
        replica: Some(number),
        since: jiff::Timestamp::UNIX_EPOCH,
    };
    let members = [member(1, true), member(2, false)];
    let health = up(&[1, 2, 9]);
    let steps = super::plan(&group(1, &[1, 2], &[1]), &seats(&members, Some(&witness)), &health);
    let named = cairn_state::Member { name: "witness".into(), addresses: vec![] };
    assert_eq!(steps, [Step::Admit(number, named), Step::Record([id(1), id(2), id(9)].into())]);
    witness.voter = true;
    let mut members = [member(1, true), member(2, true)];
    let steps = super::plan(&group(1, &[1, 2, number], &[1]), &seats(&members, Some(&witness)), &health);
    assert_eq!(steps, [Step::Voters([1, 2, number].into())]);
    // The leader leaves: the other node leads, whatever number the witness has.
    members[0].state = MemberState::Leaving;
    let now = group(1, &[1, 2, number], &[1, 2, number]);
    let steps = super::plan(&now, &seats(&members, Some(&witness)), &health);
    assert!(steps.contains(&Step::HandOver(2)), "{steps:?}");
}

#[test]
fn a_cloud_of_one_and_one_of_three_are_left_alone() {
    assert_eq!(plan(&group(1, &[1], &[1]), &[member(1, true)], &up(&[1])), []);
    let three = [member(1, true), member(2, true), member(3, true)];
    assert_eq!(plan(&group(1, &[1, 2, 3], &[1, 2, 3]), &three, &up(&[1, 2, 3])), []);
}

#[test]
fn members_are_taken_in_first_and_vote_when_they_have_caught_up() {
    let members = [member(1, true), member(2, false), member(3, false)];
    let mut health = up(&[1, 2]);
    health.insert(id(3), Health::Up { caught_up: false });
    let named = |n: &str| cairn_state::Member { name: n.into(), addresses: vec![] };
    let steps = plan(&group(1, &[1], &[1]), &members, &health);
    assert_eq!(steps, [Step::Admit(2, named("n2")), Step::Admit(3, named("n3"))]);
    let steps = plan(&group(1, &[1, 2, 3], &[1]), &members, &up(&[1, 2, 3]));
    let all = BTreeSet::from([id(1), id(2), id(3)]);
    assert_eq!(steps, [Step::Record(all), Step::Voters([1, 2, 3].into())]);
    // Cut short between the two.
    let members = [member(1, true), member(2, true), member(3, true)];
    assert_eq!(
        plan(&group(1, &[1, 2, 3], &[1]), &members, &up(&[1, 2, 3])),
        [Step::Voters([1, 2, 3].into())]
    );
}

#[test]
fn a_founder_whose_replica_is_not_written_down_yet_changes_nothing() {
    let founder = Member { replica: None, ..member(1, true) };
    assert_eq!(plan(&group(1, &[1], &[1]), &[founder], &up(&[1])), []);
}

#[test]
fn a_removed_node_votes_no_more_and_is_then_let_go() {
    let gone = Member { state: MemberState::Removed, ..member(3, false) };
    let members = [member(1, true), member(2, true), gone, member(4, false)];
    let steps = plan(&group(1, &[1, 2, 3, 4], &[1, 2, 3]), &members, &up(&[1, 2, 4]));
    let next = BTreeSet::from([id(1), id(2), id(4)]);
    assert_eq!(steps, [Step::Record(next), Step::Voters([1, 2, 4].into())]);
    let members = [members[0].clone(), members[1].clone(), members[2].clone(), member(4, true)];
    let steps = plan(&group(1, &[1, 2, 3, 4], &[1, 2, 4]), &members, &up(&[1, 2, 4]));
    assert_eq!(steps, [Step::Dismiss(3)]);
}

#[test]
fn a_leader_that_shall_not_vote_hands_over_first() {
    let gone = Member { state: MemberState::Removed, ..member(1, false) };
    let members = [gone, member(2, true), member(3, true), member(4, true)];
    let steps = plan(&group(1, &[1, 2, 3, 4], &[1, 2, 3]), &members, &up(&[2, 3, 4]));
    assert_eq!(steps, [Step::HandOver(2)]);
}

#[test]
fn an_only_voter_that_shall_not_vote_has_another_vote_beside_it_first() {
    let leaving = Member { state: MemberState::Leaving, ..member(1, true) };
    let members = [leaving, member(2, false)];
    let steps = plan(&group(1, &[1, 2], &[1]), &members, &up(&[1, 2]));
    assert_eq!(steps, [Step::Record([id(2)].into()), Step::Voters([1, 2].into())]);
    let members = [Member { voter: false, ..members[0].clone() }, member(2, true)];
    assert_eq!(plan(&group(1, &[1, 2], &[1, 2]), &members, &up(&[1, 2])), [Step::HandOver(2)]);
    assert_eq!(plan(&group(2, &[1, 2], &[1, 2]), &members, &up(&[1, 2])), [Step::Voters([2].into())]);
}

#[test]
fn a_node_that_lost_its_disk_comes_back_with_another_replica() {
    let back = Member { replica: Some(33), ..member(3, true) };
    let members = [member(1, true), member(2, true), back];
    let named = cairn_state::Member { name: "n3".into(), addresses: vec![] };
    let health = up(&[1, 2, 3]);
    assert_eq!(plan(&group(1, &[1, 2, 3], &[1, 2, 3]), &members, &health), [Step::Admit(33, named)]);
    let steps = plan(&group(1, &[1, 2, 3, 33], &[1, 2, 3]), &members, &health);
    assert_eq!(steps, [Step::Voters([1, 2, 33].into())]);
    assert_eq!(plan(&group(1, &[1, 2, 3, 33], &[1, 2, 33]), &members, &health), [Step::Dismiss(3)]);
}

#[test]
fn who_answers_for_another_replica_or_is_far_behind_has_not_caught_up() {
    let heard = |replica, applied| Some(Heard { replica, applied, last: applied, generation: 1 });
    let (m, second) = (member(1, false), Duration::from_secs(1));
    assert_eq!(judge(m.replica, heard(1, 9_500), 10_000, second), UP);
    assert_eq!(judge(m.replica, heard(1, 8_000), 10_000, second), Health::Up { caught_up: false });
    assert_eq!(judge(m.replica, heard(2, 10_000), 10_000, second), Health::Up { caught_up: false });
    assert_eq!(judge(m.replica, None, 10_000, second), Health::Silent(second));
}
