//! Nodes to test with: keys, trust in each other, and a service that answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_wire::remote::{
    Call, Credentials, Endpoint, Outgoing, PeerId, Refusal, Service, Services, Trust, TrustSet, Versions,
    serve,
};
use futures_util::stream;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const WITHIN: Duration = Duration::from_secs(10);

/// A node with a key of its own and a certificate signed by nobody else.
pub struct Node {
    pub endpoint: Endpoint,
}

/// A node that serves.
pub struct Served {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Node {
    pub fn alone() -> Node {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap().der().clone();
        let der = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let credentials = Credentials::new(der, certificate).unwrap();
        let trust = Trust::new(TrustSet::default());
        Node { endpoint: Endpoint { credentials, trust, versions: Versions::OURS } }
    }

    /// Two members of one cloud.
    pub fn pair() -> (Node, Node) {
        let (a, b) = (Node::alone(), Node::alone());
        for node in [&a, &b] {
            node.endpoint.trust.replace(TrustSet { members: [a.id(), b.id()].into(), ..TrustSet::default() });
        }
        (a, b)
    }

    pub fn id(&self) -> PeerId {
        self.endpoint.credentials.id()
    }

    pub fn remove(&self, other: PeerId) {
        let mut set = (*self.endpoint.trust.current()).clone();
        set.members.remove(&other);
        set.removed.insert(other);
        self.endpoint.trust.replace(set);
    }

    /// Serves until the test ends.
    pub async fn serve(&self, services: Services) -> SocketAddr {
        self.start(services).await.address
    }

    pub async fn start(&self, services: Services) -> Served {
        self.start_at("127.0.0.1:0".parse().unwrap(), services).await
    }

    pub async fn start_at(&self, address: SocketAddr, services: Services) -> Served {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = self.endpoint.clone();
        let task = tokio::spawn(async move { serve(listener, endpoint, services).await.unwrap() });
        Served { address, task }
    }
}

impl Served {
    /// Stops serving and closes every connection.
    pub async fn stop(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// How many connections are open to it, as the kernel counts.
    pub fn connections(&self) -> usize {
        let port = format!(":{:04X}", self.address.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let open = |line: &&str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.get(1).is_some_and(|local| local.ends_with(&port)) && fields.get(3) == Some(&"01")
        };
        table.lines().filter(open).count()
    }
}

/// Answers with what it is sent, and a few things more.
#[derive(Default)]
pub struct Echo {
    flooded: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl Service for Echo {
    async fn call(&self, mut call: Call) -> Result<Outgoing, Refusal> {
        match call.method.as_str() {
            "echo" => Outgoing::message(&call.message::<u32>().await?),
            "text" => Outgoing::message(&call.message::<String>().await?),
            "who" => {
                let who = format!("{} {:?}", call.peer.id, call.peer.standing);
                Outgoing::message(&(who, call.version()))
            }
            "sum" => Ok(sums(call)),
            "flood" => Ok(self.flood()),
            "flooded" => Outgoing::message(&self.flooded.load(Ordering::Relaxed)),
            "fail" => Ok(Outgoing::stream(stream::iter([Ok(1u32), Err(Refusal::unavailable("no more"))]))),
            "hang" => std::future::pending().await,
            _ => Err(call.unknown_method()),
        }
    }
}

/// The running sum of the numbers that come.
fn sums(call: Call) -> Outgoing {
    Outgoing::stream(stream::unfold((call, 0u64), |(mut call, sum)| async move {
        match call.next::<u64>().await {
            Ok(Some(number)) => Some((Ok(sum + number), (call, sum + number))),
            Ok(None) => None,
            Err(refusal) => Some((Err(refusal), (call, sum))),
        }
    }))
}

impl Echo {
    /// Blocks of 64 KiB, as many as are taken.
    fn flood(&self) -> Outgoing {
        let flooded = self.flooded.clone();
        let block = bytes::Bytes::from(vec![0u8; 64 << 10]);
        Outgoing::stream(stream::repeat_with(move || {
            flooded.fetch_add(1, Ordering::Relaxed);
            Ok(block.clone())
        }))
    }
}
