//! Three stores on three nodes are one, over the real transport.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cairn_state::{LocalStore, Member, Op, Options, Store, Txn};
use cairn_wire::remote::{
    PeerId, Peers, REPLICAS, ReplicaNetwork, ReplicaService, Services, TrustSet, Versions, serve,
};
use tokio::net::TcpListener;

use crate::support::Node;

/// Which node has which name: what the members' records say in a cloud.
type Names = Arc<Mutex<HashMap<String, PeerId>>>;

struct House {
    name: String,
    store: LocalStore,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

async fn house(name: &str, node: &Node, names: &Names, options: impl FnOnce(Member) -> Options) -> House {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    names.lock().unwrap().insert(name.into(), node.id());
    let (known, dir) = (names.clone(), tempfile::tempdir().unwrap());
    let who_is = Arc::new(move |_, member: &Member| known.lock().unwrap().get(&member.name).copied());
    let network = ReplicaNetwork::new(Peers::new(node.endpoint.clone()), who_is);
    let member = Member { name: name.into(), addresses: vec![address.to_string()] };
    let options = options(member).network(Arc::new(network));
    let store = LocalStore::open_with(&dir.path().join("store.redb"), options).unwrap();
    let services = Services::new().with(REPLICAS, Arc::new(ReplicaService::new(store.endpoint())));
    tokio::spawn(serve(listener, node.endpoint.clone(), services));
    House { name: name.into(), store, address, _dir: dir }
}

fn put(key: &str) -> Txn {
    Txn { compares: vec![], ops: vec![Op::Put { key: key.into(), value: "v".into(), lease: None }] }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_hold_one_store_and_any_of_them_takes_a_write() {
    let (nodes, names): ([Node; 3], Names) =
        ([Node::alone(), Node::alone(), Node::alone()], Names::default());
    let members = nodes.iter().map(Node::id).collect();
    let set = TrustSet { members, ..TrustSet::default() };
    nodes.iter().for_each(|node| node.endpoint.trust.replace(set.clone()));
    assert_eq!(nodes[0].endpoint.versions, Versions::OURS);

    let first = house("n0", &nodes[0], &names, Options::found).await;
    first.store.txn(put("test/before")).await.unwrap();
    let mut all = vec![first];
    for (n, node) in nodes.iter().enumerate().skip(1) {
        let next = house(&format!("n{n}"), node, &names, |_| Options::join()).await;
        let member = Member { name: next.name.clone(), addresses: vec![next.address.to_string()] };
        let id = next.store.status().unwrap().node;
        all[0].store.admit(id, member).await.unwrap();
        all.push(next);
    }
    let ids: Vec<_> = all.iter().map(|house| house.store.status().unwrap().node).collect();
    all[0].store.set_voters(ids).await.unwrap();
    for (n, house) in all.iter().enumerate() {
        house.store.txn(put(&format!("test/{n}"))).await.unwrap();
    }
    for house in &all {
        assert_eq!(house.store.range("test/", None, 10).await.unwrap().entries.len(), 4);
    }

    // One is gone; the two that are left go on.
    drop(all.remove(0));
    let begun = Instant::now();
    while all[0].store.txn(put("test/after")).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no leader was found");
    }
    assert!(all[1].store.get("test/after").await.unwrap().is_some());
}
