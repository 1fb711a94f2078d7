//! Nodes that did not see each other when they were switched on, and do later.

use cairn_node::told;

use super::super::giving_way;
use super::*;

/// From now on `to` sees who is on `from`.
fn joined(from: &Wire, to: &Wire) {
    let others = from.seen.borrow().clone();
    to.seen.send_modify(|seen| *seen = Arc::new(seen.iter().chain(others.iter()).cloned().collect()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_younger_of_two_clouds_without_users_things_gives_way() {
    let (one, other) = (Wire::new(), Wire::new());
    let (older, younger) = (one.node(31), other.node(32));
    older.start().await;
    younger.start().await;
    let (first, second) = (older.cloud.clone(), younger.cloud.clone());
    let announced =
        || one.seen.borrow().iter().any(|s| s.announcement.cloud == first && s.announcement.members == 1);
    until("the older is announced", announced).await;
    joined(&one, &other);
    assert_eq!(within(giving_way::given_up(younger.cluster())).await, first);
    younger.stop().await;
    younger.start().await;
    let kept = younger.cluster().kept();
    assert_eq!((kept.belonging.cloud, kept.founded), (first, false));
    assert_eq!(told::gave_up(&younger.paths), Some(second));
    older.put("test/x").await;
    until("it has the state of the older", || younger.store().status().unwrap().members.len() == 2).await;
    assert!(younger.has("test/x").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_in_use_stays() {
    let (one, other) = (Wire::new(), Wire::new());
    let (older, younger) = (one.node(33), other.node(34));
    older.start().await;
    younger.start().await;
    younger.put("compute/server/1").await;
    until("it says so", || other.seen.borrow().iter().any(|s| s.announcement.in_use)).await;
    joined(&one, &other);
    let cluster = younger.cluster();
    assert_eq!(within(giving_way::look(&cluster)).await.unwrap(), None);
    assert!(!giving_way::is_given_up(&cluster.store).unwrap());
}
