//! Nodes find each other in network namespaces on one bridge, by link-local IPv6 alone, and reach each other there.
//! Needs root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::fs::File;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cairn_cluster::NodeKey;
use cairn_cluster::discovery::{Announcement, Discovery, Phase, Sighting};
use cairn_wire::remote::{
    Call, Connection, Endpoint, Expect, Outgoing, PORT, PeerId, Refusal, Service, Services, Trust, TrustSet,
    Versions, serve,
};
use mdns_sd::{HostnameResolutionEvent, ScopedIp, ServiceDaemon};
use nix::sched::{CloneFlags, setns};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(20);

fn ip(arguments: &str) {
    let run = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(run.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&run.stderr));
}

/// Namespaces with a link each on one bridge; nothing there has an address but link-local ones.
struct Lan {
    names: Vec<String>,
}

impl Lan {
    fn new(nodes: usize) -> Lan {
        let name = |n: usize| format!("cairn-test-{}-{n}", std::process::id());
        let lan = Lan { names: (0..=nodes).map(name).collect() };
        let switch = &lan.names[0];
        lan.names.iter().for_each(|name| ip(&format!("netns add {name}")));
        ip(&format!("-n {switch} link add br0 type bridge"));
        ip(&format!("-n {switch} link set br0 up"));
        for (n, name) in lan.names.iter().enumerate().skip(1) {
            ip(&format!("-n {name} link add lan0 type veth peer name port{n} netns {switch}"));
            ip(&format!("-n {switch} link set port{n} master br0 up"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set lan0 up"));
        }
        lan
    }

    fn unplug(&self, node: usize) {
        ip(&format!("-n {} link set port{node} down", self.names[0]));
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

enum Order {
    Announce(Announcement),
    AnswerForCloud(bool),
    Reach(PeerId),
    End,
}

/// A node in a thread of its own namespace.
struct Node {
    id: PeerId,
    orders: tokio::sync::mpsc::UnboundedSender<Order>,
    seen: tokio::sync::watch::Receiver<Arc<Vec<Sighting>>>,
    reached: mpsc::Receiver<Result<PeerId, String>>,
    thread: Option<JoinHandle<()>>,
}

struct Who;

#[async_trait::async_trait]
impl Service for Who {
    async fn call(&self, call: Call) -> Result<Outgoing, Refusal> {
        Outgoing::message(&call.peer.id)
    }
}

impl Node {
    fn start(lan: &Lan, n: usize, key: NodeKey, members: TrustSet) -> Node {
        let namespace = File::open(format!("/run/netns/{}", lan.names[n])).unwrap();
        let id = key.id();
        let (orders, receive) = tokio::sync::mpsc::unbounded_channel();
        let (started, start) = mpsc::channel();
        let (reach, reached) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let credentials = key.credentials(key.self_signed().unwrap()).unwrap();
                let endpoint = Endpoint { credentials, trust: Trust::new(members), versions: Versions::OURS };
                let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await.unwrap();
                tokio::spawn(serve(listener, endpoint.clone(), Services::new().with("who", Arc::new(Who))));
                let discovery = Discovery::start(PORT, Arc::new(|link| link == "lan0")).unwrap();
                started.send(discovery.seen()).unwrap();
                live(discovery, endpoint, receive, reach).await;
            });
        });
        Node { id, orders, seen: start.recv().unwrap(), reached, thread: Some(thread) }
    }

    fn announce(&self, phase: Phase, members: u32) {
        let announcement = Announcement {
            node: self.id,
            name: "cairn-000000".into(),
            cloud: "cloud-1".into(),
            phase,
            founded_s: 7,
            members,
            in_use: false,
            versions: Versions::OURS,
        };
        self.orders.send(Order::Announce(announcement)).unwrap();
    }

    fn sighting(&self, of: PeerId) -> Option<Sighting> {
        self.seen.borrow().iter().find(|s| s.announcement.node == of).cloned()
    }

    fn wait(&self, what: &str, until: impl Fn(&Node) -> bool) {
        let begun = Instant::now();
        while !until(self) {
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}; seen {:?}",
                *self.seen.borrow()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::End);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn live(
    discovery: Discovery,
    endpoint: Endpoint,
    mut orders: tokio::sync::mpsc::UnboundedReceiver<Order>,
    reach: mpsc::Sender<Result<PeerId, String>>,
) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Announce(announcement) => discovery.announce(&announcement).unwrap(),
            Order::AnswerForCloud(answer) => discovery.answer_for_cloud(answer).unwrap(),
            Order::Reach(node) => {
                let seen = discovery.seen().borrow().clone();
                let found = seen.iter().find(|s| s.announcement.node == node);
                let addresses = found.map(|s| s.addresses.clone()).unwrap_or_default();
                let answer = async {
                    let connection = Connection::open(&endpoint, &addresses, Expect::Node(node)).await?;
                    connection.call("who/am-i", &(), Duration::from_secs(5)).await
                };
                reach.send(answer.await.map_err(|e| e.to_string())).unwrap();
            }
            Order::End => return,
        }
    }
}

/// What somebody at this place of the LAN finds under the cloud's name.
fn resolved(lan: &Lan, n: usize) -> Vec<Ipv6Addr> {
    let namespace = File::open(format!("/run/netns/{}", lan.names[n])).unwrap();
    let looking = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let daemon = ServiceDaemon::new().unwrap();
        let events = daemon.resolve_hostname("cairn.local.", Some(PATIENCE.as_millis() as u64)).unwrap();
        while let Ok(event) = events.recv_timeout(PATIENCE) {
            if let HostnameResolutionEvent::AddressesFound(_, found) = event {
                let v6 = |ip: ScopedIp| match ip {
                    ScopedIp::V6(v6) => Some(*v6.addr()),
                    _ => None,
                };
                return found.into_iter().filter_map(v6).collect();
            }
        }
        Vec::new()
    });
    looking.join().unwrap()
}

#[test]
fn nodes_find_and_reach_each_other_by_link_local_addresses_alone() {
    let lan = Lan::new(3);
    let keys: Vec<_> = (0..3).map(|_| NodeKey::generate().unwrap()).collect();
    let members = TrustSet { members: keys.iter().map(NodeKey::id).collect(), ..TrustSet::default() };
    let mut nodes: Vec<_> =
        (1..).zip(keys).map(|(n, key)| Node::start(&lan, n, key, members.clone())).collect();
    let begun = Instant::now();
    nodes.iter().for_each(|node| node.announce(Phase::Founding, 1));
    let ids: Vec<_> = nodes.iter().map(|node| node.id).collect();
    for node in &nodes {
        node.wait("all see all", |node| ids.iter().all(|id| node.sighting(*id).is_some()));
    }
    let millis = begun.elapsed().as_millis();
    assert!(millis < 15_000, "{millis} ms until all had seen all");

    let seen = nodes[0].sighting(ids[1]).unwrap();
    assert!(!seen.addresses.is_empty());
    for address in &seen.addresses {
        let SocketAddr::V6(v6) = address else { panic!("{address} is not of IPv6") };
        assert!(v6.ip().is_unicast_link_local() && v6.scope_id() != 0 && v6.port() == PORT, "{address}");
    }
    nodes[0].orders.send(Order::Reach(ids[1])).unwrap();
    assert_eq!(nodes[0].reached.recv_timeout(PATIENCE).unwrap(), Ok(ids[0]));

    nodes[1].announce(Phase::Member, 3);
    nodes[0].wait("a change is seen", |node| {
        node.sighting(ids[1])
            .is_some_and(|s| s.announcement.phase == Phase::Member && s.announcement.members == 3)
    });
    ip(&format!("-n {} addr add fd00::2/64 dev lan0 nodad", lan.names[2]));
    let added: Ipv6Addr = "fd00::2".parse().unwrap();
    nodes[0].wait("a new address is seen", |node| {
        node.sighting(ids[1]).is_some_and(|s| s.addresses.iter().any(|a| a.ip() == added))
    });
    nodes[1].orders.send(Order::AnswerForCloud(true)).unwrap();
    assert!(resolved(&lan, 3).contains(&added), "a browser finds the cloud by its name");
    nodes[1].orders.send(Order::AnswerForCloud(false)).unwrap();
    drop(nodes.remove(1));
    nodes[0].wait("who says good-bye is gone", |node| node.sighting(ids[1]).is_none());
    lan.unplug(3);
    drop(nodes.remove(1));
    assert!(nodes[0].sighting(ids[2]).is_some(), "who vanishes is believed for a while");
}
