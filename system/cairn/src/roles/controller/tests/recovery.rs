//! Two of three are lost: nothing can be changed until the third is told to go on alone; one that comes back later is
//! told that it was left behind, and begins anew.

use cairn_cluster::alive;

use super::super::{overview, recovery};
use super::three::three;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_majority_is_recovered_from_on_order_and_who_comes_back_begins_anew() {
    let [one, two, three] = three().await;
    one.put("test/before").await;
    let cloud = one.cluster().kept().belonging.cloud;
    let confirmed = |cloud: &str| recovery::Confirmed { cloud: cloud.into() };
    let refused = within(recovery::order(&one.cluster(), &confirmed(&cloud))).await.unwrap_err();
    assert!(refused.to_string().contains("has its majority"), "{refused:#}");
    // What it knows is not behind what was acknowledged.
    assert!(one.has("test/before").await);
    two.stop().await;
    let found = within(recovery::prospect(&one.cluster())).await.unwrap();
    assert!(found.objection.is_some(), "two of three go on by themselves: {found:?}");
    three.stop().await;

    let seen = within(overview::overview(&one.cluster())).await.unwrap();
    assert!(!seen.current && seen.outlook.contains("cairn recover") && seen.members.len() == 3, "{seen:?}");
    let lately = within(recovery::order(&one.cluster(), &confirmed(&cloud))).await.unwrap_err();
    assert!(lately.to_string().contains("in touch with the majority"), "{lately:#}");
    // As if that were long ago.
    std::fs::remove_file(one.paths.alive()).unwrap();
    let other = within(recovery::order(&one.cluster(), &confirmed("another"))).await.unwrap_err();
    assert!(other.to_string().contains("is not this cloud"), "{other:#}");
    within(recovery::order(&one.cluster(), &confirmed(&cloud))).await.unwrap();
    within(recovery::ordered(one.cluster())).await;
    one.stop().await;
    one.start().await;
    one.put("test/after").await;
    assert!(one.has("test/before").await);
    assert_eq!((one.voters(), one.store().status().unwrap().generation), (1, 2));

    two.start().await;
    within(two.store().left_behind()).await;
    recovery::put_aside(&two.paths).unwrap();
    two.stop().await;
    two.start().await;
    until("it is taken in anew", || {
        let status = one.store().status().unwrap();
        status.members.len() == 2 && status.members.contains_key(&two.store().status().unwrap().node)
    })
    .await;
    assert!(two.has("test/after").await && two.has("test/before").await);
    until("it is in touch", || alive::since_renewal(&two.paths.alive()).is_some()).await;
    assert!(!two.paths.role("controller").join("recover.json").exists());
}
