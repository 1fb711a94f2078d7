//! Roles of several nodes know each other by what the controllers leave in files, and follow it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cairn_cluster::handover::{self, Neighbours};
use cairn_cluster::membership::Pin;
use cairn_cluster::{Authority, Belonging, NodeKey};
use cairn_wire::remote::{self, Call, Error, Outgoing, Refusal, Service, Services};
use jiff::Timestamp;
use tokio::net::TcpListener;

struct Echo;

#[async_trait::async_trait]
impl Service for Echo {
    async fn call(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        Outgoing::message(&call.message::<u32>().await?)
    }
}

struct Node {
    key: NodeKey,
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Node {
        let (key, dir) = (NodeKey::generate().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("node.key"), key.to_pem()).unwrap();
        Node { key, dir }
    }

    fn trust(&self) -> std::path::PathBuf {
        self.dir.path().join("trust.json")
    }

    /// What its controller does.
    fn told(&self, authority: &Authority, members: &[(&Node, SocketAddr)], removed: &[&Node]) {
        let pin =
            |(n, a): &(&Node, SocketAddr)| Pin { id: n.key.id(), name: n.key.name(), addresses: vec![*a] };
        let belonging = Belonging {
            cloud: authority.cloud.clone(),
            certificate: authority.issue(&self.key.public_key(), Timestamp::now()).unwrap(),
            authority: authority.certificate.clone(),
            members: members.iter().map(pin).collect(),
            removed: removed.iter().map(|n| n.key.id()).collect(),
            witness: None,
        };
        let beside = self.dir.path().join("trust.new");
        std::fs::write(&beside, serde_json::to_vec(&belonging).unwrap()).unwrap();
        std::fs::rename(beside, self.trust()).unwrap();
    }

    fn open(&self, port: u16) -> Neighbours {
        handover::open(self.dir.path(), &self.trust(), port).unwrap()
    }
}

async fn asks(neighbours: &Neighbours, name: &str) -> Result<u32, Error> {
    let id = neighbours.id_of(name).ok_or(Error::Removed)?;
    neighbours.peers.call(id, "echo/x", &7u32, Duration::from_secs(5)).await
}

#[tokio::test]
async fn roles_reach_each_other_by_name_and_a_removed_node_is_cut_off() {
    let (a, b) = (Node::new(), Node::new());
    assert!(handover::open(a.dir.path(), Path::new("/nowhere"), 1).is_err());
    let authority = Authority::create("c", 1).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // The port in the file is the controllers'; a role's own is another.
    let port = listener.local_addr().unwrap().port();
    let members: [(&Node, SocketAddr); 2] =
        [(&a, "127.0.0.1:1".parse().unwrap()), (&b, "127.0.0.1:1".parse().unwrap())];
    a.told(&authority, &members, &[]);
    b.told(&authority, &members, &[]);
    let (on_a, on_b) = (a.open(port), b.open(port));
    let services = Services::new().with("echo", Arc::new(Echo));
    tokio::spawn(remote::serve(listener, on_a.endpoint.clone(), services));
    assert_eq!(asks(&on_b, &a.key.name()).await.unwrap(), 7);

    tokio::spawn(on_a.clone().follow());
    let mut changes = on_a.members();
    changes.mark_unchanged();
    // A file that is not whole changes nothing.
    std::fs::write(a.trust(), "{").unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    a.told(&authority.successor().unwrap(), &members[..1], &[&b]);
    tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
    let cut_off = async { while asks(&on_b, &a.key.name()).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), cut_off).await.unwrap();
    assert_eq!(on_a.id_of(&b.key.name()), None);
}
