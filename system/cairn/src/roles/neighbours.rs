//! How the agents of a role reach those of other nodes, and how long ago this node was in touch with its cloud.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cairn_cluster::alive::since_renewal;
use cairn_cluster::handover::{self, Neighbours};
use cairn_compute::agent::Book;
use cairn_node::Paths;
use cairn_wire::remote::PeerId;

/// The port that compute agents listen on for each other.
pub const COMPUTE_PORT: u16 = 4602;
/// How long a renewal's age is taken to have only grown: many ask for it often.
const AGE_KEPT: Duration = Duration::from_millis(200);

/// Who is who among the members.
pub struct Names(pub Neighbours);

impl Book for Names {
    fn id_of(&self, node: &str) -> Option<PeerId> {
        self.0.id_of(node)
    }

    fn name_of(&self, id: &PeerId) -> Option<String> {
        self.0.members().borrow().iter().find(|pin| pin.id == *id).map(|pin| pin.name.clone())
    }
}

/// The other nodes' agents on this port, kept up to date from now on; by the key in this role's folder.
pub async fn neighbours(paths: &Paths, role: &str, port: u16) -> Neighbours {
    let neighbours = handover::wait(&paths.run.join(role), &paths.trust(), port).await;
    tokio::spawn(neighbours.clone().follow());
    neighbours
}

/// Where other nodes reach a role of this one.
pub fn listen(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// How long ago this node's lease was renewed.
pub type Renewal = Arc<dyn Fn() -> Option<Duration> + Send + Sync>;

/// Says how long ago this node's lease was renewed; `None` if it never was since power-on.
pub fn renewal(paths: &Paths) -> Renewal {
    let file = paths.alive();
    let kept: Mutex<Option<(Instant, Option<Duration>)>> = Mutex::default();
    Arc::new(move || {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, age)) = kept.filter(|(at, _)| at.elapsed() < AGE_KEPT) {
            return age.map(|age| age + at.elapsed());
        }
        let age = since_renewal(&file);
        *kept = Some((Instant::now(), age));
        age
    })
}
