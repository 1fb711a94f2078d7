//! Two nodes' compute agents in one process, each with a libvirt of its own and a key by which the other knows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn_compute::agent::{Book, Options, Transport, run_with};
use cairn_state::{AgentArgs, Reporter, SharedStore};
use cairn_wire::remote::{Credentials, Endpoint, PeerId, Peers, Trust, TrustSet, Versions};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;

/// The first node.
pub const A: &str = "cairn-00000a";
/// The second.
pub const B: &str = "cairn-00000b";

/// Whether the second node's lease is old.
pub static CUT_OFF: AtomicBool = AtomicBool::new(false);

/// How long ago a node renewed its lease.
fn renewal(node: &str) -> Option<Duration> {
    let old = node == B && CUT_OFF.load(Ordering::Relaxed);
    Some(if old { Duration::from_secs(20) } else { Duration::ZERO })
}

/// Where a node's agent keeps what is its own.
pub fn state(node: &str) -> PathBuf {
    Path::new("/run/cairn").join(node)
}

struct Names(BTreeMap<String, PeerId>);

impl Book for Names {
    fn id_of(&self, node: &str) -> Option<PeerId> {
        self.0.get(node).copied()
    }

    fn name_of(&self, id: &PeerId) -> Option<String> {
        self.0.iter().find(|(_, i)| *i == id).map(|(name, _)| name.clone())
    }
}

fn credentials() -> Credentials {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap().der().clone();
    Credentials::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into(), certificate).unwrap()
}

/// Starts both agents; each is given the socket of its libvirt.
pub async fn start(store: &SharedStore, first: &str, second: &str) {
    let mut nodes = Vec::new();
    for (name, libvirt) in [(A, first), (B, second)] {
        nodes.push((name, libvirt, credentials(), TcpListener::bind("127.0.0.1:0").await.unwrap()));
    }
    let members = nodes.iter().map(|(_, _, c, _)| c.id()).collect();
    let trust = Trust::new(TrustSet { members, ..TrustSet::default() });
    let names = nodes.iter().map(|(name, _, c, _)| ((*name).to_owned(), c.id())).collect();
    let book: Arc<dyn Book> = Arc::new(Names(names));
    let places: Vec<_> = nodes.iter().map(|(_, _, c, l)| (c.id(), l.local_addr().unwrap())).collect();
    for (name, libvirt, credentials, listener) in nodes {
        let endpoint = Endpoint { credentials, trust: trust.clone(), versions: Versions::OURS };
        let peers = Peers::new(endpoint.clone());
        for (id, address) in &places {
            peers.set_addresses(*id, vec![*address]);
        }
        let run_dir = state(name);
        std::fs::create_dir_all(&run_dir).unwrap();
        let args = AgentArgs {
            node: name.into(),
            store: store.clone(),
            reporter: Reporter::new(store.clone(), name, "compute"),
            state_dir: run_dir.clone(),
            run_dir,
        };
        let options = Options {
            renewal: Arc::new(move || renewal(name)),
            transport: Some(Transport { endpoint, peers, listener, book: book.clone() }),
            libvirt_uri: format!("qemu+unix:///system?socket={libvirt}"),
            libvirt_socket: libvirt.into(),
        };
        tokio::spawn(run_with(args, options));
    }
}
