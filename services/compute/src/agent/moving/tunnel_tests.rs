//! Streams between two nodes that trust each other, and who is kept out.

use std::collections::BTreeMap;

use cairn_state::{LocalStore, SharedStore};
use cairn_wire::remote::{Credentials, Trust, TrustSet, Versions};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::*;
use crate::model::{MigrationKind, Moving};
use crate::testing::server;

/// A directory of names.
struct Names(BTreeMap<String, PeerId>);

impl Book for Names {
    fn id_of(&self, node: &str) -> Option<PeerId> {
        self.0.get(node).copied()
    }

    fn name_of(&self, id: &PeerId) -> Option<String> {
        self.0.iter().find(|(_, i)| *i == id).map(|(name, _)| name.clone())
    }
}

struct Node {
    endpoint: Endpoint,
    id: PeerId,
}

fn credentials() -> Credentials {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().der().clone();
    Credentials::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into(), certificate).unwrap()
}

fn nodes(names: &[&str]) -> (Vec<Node>, Arc<Names>) {
    let all: Vec<_> = names.iter().map(|_| credentials()).collect();
    let set = TrustSet { members: all.iter().map(Credentials::id).collect(), ..TrustSet::default() };
    let book = names.iter().zip(&all).map(|(name, c)| ((*name).to_owned(), c.id())).collect();
    let node = |credentials: Credentials| {
        let trust = Trust::new(set.clone());
        Node { id: credentials.id(), endpoint: Endpoint { credentials, trust, versions: Versions::OURS } }
    };
    (all.into_iter().map(node).collect(), Arc::new(Names(book)))
}

/// A server on its way from `a` to `b`.
fn moving() -> Server {
    let mut s = server("s1");
    s.host = Some("a".into());
    s.moving = Some(Moving {
        number: 1,
        migration: "m1".into(),
        kind: MigrationKind::Live,
        from: "a".into(),
        to: "b".into(),
        stage: Stage::Running,
        flavor: s.flavor.clone(),
        verify: false,
        since: jiff::Timestamp::UNIX_EPOCH,
        abort: false,
        force: false,
    });
    s
}

/// Says back what it is told, in capitals, as the sockets of a guest would.
async fn shout(path: PathBuf) {
    let listener = listen(&path).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let (mut read, mut write) = stream.into_split();
            let mut bytes = vec![0; 4096];
            while let Ok(n @ 1..) = read.read(&mut bytes).await {
                write.write_all(&bytes[..n].to_ascii_uppercase()).await.unwrap();
            }
        });
    }
}

struct Scene {
    peers: Vec<Peers>,
    to: PeerId,
    folder: tempfile::TempDir,
}

/// Node `b` lets guests of `a` in; `c` is a member too.
async fn scene(server: &Server) -> Scene {
    let (nodes, book) = nodes(&["a", "b", "c"]);
    let local = LocalStore::in_memory().unwrap();
    local.transact(|tx| tx.put(server)).await.unwrap();
    let store: SharedStore = Arc::new(local);
    let servers = Mirror::start(store, None).await;
    servers.wait_synced().await;
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sockets = Sockets::new(folder.path().join("there"));
    std::fs::create_dir(sockets.directory()).unwrap();
    let libvirt = folder.path().join("libvirt-sock");
    tokio::spawn(shout(libvirt.clone()));
    tokio::spawn(shout(sockets.memory(&server.id)));
    let doorway = Doorway { node: "b".into(), servers, book, sockets, libvirt };
    let services = Services::new().with(SERVICE, Arc::new(doorway));
    tokio::spawn(serve(nodes[1].endpoint.clone(), listener, services));
    let peers = |n: &Node| {
        let peers = Peers::new(n.endpoint.clone());
        peers.set_addresses(nodes[1].id, vec![address]);
        peers
    };
    Scene { peers: nodes.iter().map(peers).collect(), to: nodes[1].id, folder }
}

impl Scene {
    /// What comes back through the tunnel of this node.
    async fn say(&self, from: usize, method: &'static str, migration: &'static str, text: &[u8]) -> Vec<u8> {
        let path = self.folder.path().join(format!("{from}.{method}.{migration}"));
        let listener = listen(&path).unwrap();
        let connection = self.peers[from].connection(self.to).await.unwrap();
        let carrier = tokio::spawn(async move { carry(listener, connection, method, "s1", migration).await });
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let mut back = vec![0; text.len()];
        // A stream that is refused is closed.
        let _ = stream.write_all(text).await;
        let heard = stream.read_exact(&mut back).await.map(|_| back).unwrap_or_default();
        carrier.abort();
        heard
    }
}

#[tokio::test]
async fn bytes_go_both_ways_to_both_sockets() {
    let scene = scene(&moving()).await;
    assert_eq!(scene.say(0, LIBVIRT, "m1", b"hello").await, b"HELLO");
    let long = vec![b'x'; 1_000_000];
    // Written and read at once: neither end holds a million bytes.
    let path = scene.folder.path().join("long");
    let listener = listen(&path).unwrap();
    let connection = scene.peers[0].connection(scene.to).await.unwrap();
    tokio::spawn(async move { carry(listener, connection, MEMORY, "s1", "m1").await });
    let (mut read, mut write) = UnixStream::connect(&path).await.unwrap().into_split();
    let writer = tokio::spawn(async move { write.write_all(&long).await.map(|()| write) });
    let mut back = vec![0; 1_000_000];
    read.read_exact(&mut back).await.unwrap();
    assert!(back.iter().all(|b| *b == b'X'));
    drop(writer.await.unwrap().unwrap());
}

#[test]
fn only_the_node_that_sends_a_guest_may_come_in_for_it() {
    let s = moving();
    assert!(comes_from(&s, Some("a"), "b", "m1"));
    assert!(!comes_from(&s, Some("c"), "b", "m1"), "another member has no business here");
    assert!(!comes_from(&s, None, "b", "m1"));
    assert!(!comes_from(&s, Some("a"), "c", "m1"));
    assert!(!comes_from(&s, Some("a"), "b", "m0"), "an earlier migration is over");
    let mut early = moving();
    early.moving.as_mut().unwrap().stage = Stage::Preparing;
    assert!(!comes_from(&early, Some("a"), "b", "m1"));
    assert!(!comes_from(&Server { deleted: true, ..moving() }, Some("a"), "b", "m1"));
}

#[tokio::test]
async fn a_stream_that_nobody_expects_gets_nothing() {
    let mut quiet = moving();
    quiet.moving.as_mut().unwrap().to = "c".into();
    let scene = scene(&quiet).await;
    assert_eq!(scene.say(2, LIBVIRT, "m1", b"hello").await, b"");
}
