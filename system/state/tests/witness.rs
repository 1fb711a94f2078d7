//! Two replicas and a witness: each single loss is survived, what the witness alone has kept is not lost, and it can
//! read nothing of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use cairn_state::Store;
use common::cluster::Cluster;
use common::{put, within_20s};

const WITNESS: usize = 2;

/// Two replicas and a witness, all voters; the first leads.
async fn two_and_a_witness() -> Cluster {
    let mut cluster = Cluster::of(1).await;
    cluster.add().await;
    assert_eq!(cluster.add_witness().await, WITNESS);
    let all = (0..3).map(|place| cluster.node(place));
    within_20s(cluster.store(0).set_voters(all)).await.unwrap();
    assert!(cairn_state::is_witness(cluster.node(WITNESS)));
    cluster
}

async fn value(cluster: &Cluster, place: usize, key: &str) -> Option<String> {
    loop {
        // Until there is a leader again it may be refused.
        if let Ok(entry) = within_20s(cluster.store(place).get(key)).await {
            return entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_single_loss_is_survived() {
    let mut cluster = two_and_a_witness().await;
    within_20s(cluster.store(0).commit(put("k/0", "all"))).await.unwrap();
    for lost in [0, 1, WITNESS, 0] {
        cluster.stop(lost);
        let other = (0..2).find(|place| *place != lost).unwrap();
        cluster.retry(other, put(&format!("k/without-{lost}"), "x")).await;
        cluster.start(lost).await;
        // The next loss comes when this one is made good.
        for place in 0..2 {
            assert_eq!(value(&cluster, place, &format!("k/without-{lost}")).await.as_deref(), Some("x"));
        }
        within_20s(caught_up(&cluster)).await;
    }
}

/// Waits until the witness has all of the log.
async fn caught_up(cluster: &Cluster) {
    let last = |place: usize| cluster.store(place).status().unwrap().last;
    while last(WITNESS) < last(0).max(last(1)) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_lost_leader_and_the_witness_had_is_there_again() {
    let mut cluster = two_and_a_witness().await;
    within_20s(cluster.led_by(0)).await;
    cluster.cut_off(1);
    for n in 0..5 {
        within_20s(cluster.store(0).commit(put(&format!("k/{n}"), "kept"))).await.unwrap();
    }
    cluster.stop(0);
    cluster.heal(1);
    for n in 0..5 {
        assert_eq!(value(&cluster, 1, &format!("k/{n}")).await.as_deref(), Some("kept"));
    }
    cluster.retry(1, put("k/after", "x")).await;
    assert_eq!(
        cluster.store(1).status().unwrap().leader,
        Some(cluster.node(1)),
        "the witness leads no longer"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_can_read_nothing_and_needs_no_state_to_go_on() {
    let mut cluster = two_and_a_witness().await;
    let secret = "a secret that stays with the members";
    within_20s(cluster.store(0).commit(put("k/secret-name", secret))).await.unwrap();
    within_20s(caught_up(&cluster)).await;
    cluster.stop(WITNESS);
    // More than the log keeps: what it missed comes as where the log stands.
    for n in 0..60 {
        within_20s(cluster.store(0).commit(put(&format!("k/{n}"), secret))).await.unwrap();
    }
    cluster.start(WITNESS).await;
    within_20s(caught_up(&cluster)).await;
    cluster.stop(0);
    cluster.retry(1, put("k/after", secret)).await;
    let kept = cluster.content(WITNESS);
    let has = |text: &str| kept.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!has(secret) && !has("secret-name") && !has("k/after"), "it kept something readable");
    let member = cluster.content(1);
    assert!(member.windows(secret.len()).any(|window| window == secret.as_bytes()), "the test looks well");
}
