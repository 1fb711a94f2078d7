//! Nodes alone: one whose store is of a release that knew of no others, and starts that were cut short.

use cairn_cluster::membership::{Cloud, JoinPolicy, change};
use cairn_cluster::{ApiAuthority, Token};

use super::super::kept;
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_nodes_store_is_carried_over_with_its_authority_and_stays_closed() {
    let mut node = Wire::new().node(21);
    let (key, old) = old_authority();
    node.authority = Some((old.clone(), key));
    let store = LocalStore::open(&node.paths.store()).unwrap();
    let op = Op::Put { key: "compute/server/1".into(), value: "v".into(), lease: None };
    store.txn(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    drop(store);

    node.start().await;
    assert!(node.has("compute/server/1").await);
    let (cloud, api, policy) = node
        .store()
        .read(|tx| {
            let (cloud, api) = (tx.get::<Cloud>(Cloud::ID)?, tx.get::<ApiAuthority>(ApiAuthority::ID)?);
            Ok::<_, change::Error>((cloud.unwrap(), api.unwrap(), tx.get::<JoinPolicy>(JoinPolicy::ID)?))
        })
        .unwrap();
    assert_eq!((&cloud.id, api.certificate), (&node.cloud, old));
    assert_eq!(policy.unwrap().open_until, None, "a cloud that was there is not opened to strangers");
    until("its replica is written down", || {
        let known = node.store().read(|tx| tx.list_unfenced::<cairn_cluster::membership::Member>());
        known.unwrap()[0].replica == Some(node.store().status().unwrap().node)
    })
    .await;

    // Cut short before anything was kept: found again from the store.
    node.stop().await;
    std::fs::remove_file(node.paths.role("controller").join("belonging.json")).unwrap();
    node.start().await;
    assert!(node.cluster().kept().founded);
    node.stop().await;
    node.start().await;
    assert_eq!(kept::load(&node.paths).unwrap().unwrap().belonging.cloud, node.cloud);

    // A lone store that is lost is not replaced by an empty one.
    node.stop().await;
    std::fs::remove_file(node.paths.store()).unwrap();
    let lost = Cluster::enter(node.surroundings(), node.given()).await.err().unwrap();
    assert!(lost.to_string().contains("restore the file"), "{lost:#}");
    assert!(!node.paths.store().exists());
}

/// As the first release made it: key and certificate, PEM.
fn old_authority() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    (key.serialize_pem(), certificate.pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_cloud_lets_nobody_in_even_while_joining_is_open() {
    let wire = Wire::new();
    let (first, second) = (wire.node(22), wire.node(23));
    first.start().await;
    let given = Given { token: Some(Token::generate().unwrap()), ..second.given() };
    let entering = tokio::spawn(Cluster::enter(second.surroundings(), given));
    let told = || cairn_node::told::joining(&second.paths).unwrap_or_default().state;
    until("it is told why", || told().contains("the token is not one of this cloud")).await;
    assert!(!second.paths.store().exists());
    entering.abort();
}
