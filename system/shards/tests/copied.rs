//! What is sent to make a replica like another, over a real connection and real files: blocks that differ, and no more;
//! whole regions to a node of a release that does not tell its blocks.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says where, and what it took"
)]

mod common;

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cairn_shards::format::BLOCK;
use cairn_shards::model::VolumeSpec;
use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::replication::group::{Group, Means, Rebuilt, Renewed};
use cairn_shards::replication::op::Op;
use cairn_shards::replication::regions::REGION;
use cairn_shards::replication::remote::{Everywhere, Net};
use cairn_shards::replication::replica::Replicas;
use cairn_shards::replication::service::{ReplicaService, SERVICE};
use cairn_shards::replication::set::ReplicaSet;
use cairn_shards::volume::Volume;
use cairn_state::LocalStore;
use cairn_wire::remote::{
    Call, Credentials, Endpoint, Limits, Outgoing, Peers, Refusal, Service, Services, Trust, TrustSet,
    Versions, serve,
};

const ID: &str = "v1";
/// It ends within a block.
const SIZE: u64 = 4 * REGION + 512;

/// The service of a node, which may be of an earlier release, or fail now and then.
struct Served {
    inner: ReplicaService,
    is_old: bool,
    /// The question about blocks that fails, counted from 1.
    fails_at: u64,
    asked: AtomicU64,
}

#[async_trait]
impl Service for Served {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn call(&self, call: Call) -> Result<Outgoing, Refusal> {
        if call.method == "blocks" {
            let asked = self.asked.fetch_add(1, SeqCst) + 1;
            if self.is_old {
                return Err(call.unknown_method());
            }
            if asked == self.fails_at {
                return Err(Refusal::unavailable("its disk is pulled"));
            }
        }
        self.inner.call(call).await
    }
}

/// A node with one disk.
struct Side {
    _dir: tempfile::TempDir,
    /// Open all the time: what was open before is suspect wherever it was written.
    volume: Arc<Volume>,
    replicas: Arc<Replicas>,
    endpoint: Endpoint,
}

impl Side {
    fn new(name: &str, size: u64) -> Side {
        let fixture = |what: &str| {
            let path = format!("{}/tests/fixtures/nodes/{name}.{what}.der", env!("CARGO_MANIFEST_DIR"));
            std::fs::read(path).unwrap()
        };
        let credentials =
            Credentials::new(fixture("key").try_into().unwrap(), fixture("cert").into()).unwrap();
        let endpoint =
            Endpoint { credentials, trust: Trust::new(TrustSet::default()), versions: Versions::OURS };
        let dir = tempfile::tempdir().unwrap();
        common::make_disk(dir.path(), name);
        let pool = Arc::new(Pool::new(dir.path(), None));
        pool.scan().unwrap();
        pool.create(&NewVolume { id: ID.into(), size, read_only: false, source: None }).unwrap();
        let volume = pool.open_to_fill(ID).unwrap();
        Side { _dir: dir, volume, replicas: Arc::new(Replicas::new(pool, "boot")), endpoint }
    }

    fn directory(&self) -> PathBuf {
        self.volume.dir().to_owned()
    }

    fn write(&self, block: u64, stamp: u8) {
        let len = BLOCK.min(self.volume.size() - block * BLOCK);
        self.volume.write_slice(block * BLOCK, &vec![stamp; len as usize]).unwrap();
    }

    fn block(&self, block: u64) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK as usize];
        let file = std::fs::File::open(self.directory().join("seg-00000000")).unwrap();
        file.read_exact_at(&mut bytes, block * BLOCK).unwrap();
        bytes
    }

    fn flip(&self, block: u64) {
        let path = self.directory().join("seg-00000000");
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[self.block(block)[77] ^ 1], block * BLOCK + 77).unwrap();
    }

    fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.volume.size() as usize];
        self.volume.read_slice(0, &mut bytes).unwrap();
        bytes
    }
}

/// `a`, in sync, and `b`, of which nobody knows what it lacks.
struct Pair {
    a: Side,
    b: Side,
    size: u64,
}

impl Pair {
    fn new(size: u64) -> Pair {
        Pair { a: Side::new("a", size), b: Side::new("b", size), size }
    }

    /// Both have something in each region; then these differ.
    fn filled() -> Pair {
        let pair = Pair::new(SIZE);
        for side in [&pair.a, &pair.b] {
            (0..SIZE.div_ceil(BLOCK)).step_by(3).for_each(|block| side.write(block, 1));
        }
        pair.joined()
    }

    /// `b` was like the others once.
    fn joined(self) -> Pair {
        let replica = self.b.replicas.get(ID).unwrap();
        let (session, _) = replica.begin(1, self.size).unwrap();
        replica.apply(session, 1, &Op::Settle { keep: Vec::new() }).unwrap();
        self
    }

    /// Starts the writer on `a`.
    async fn start(&self, is_old: bool, fails_at: u64) -> (Group, Arc<Served>) {
        let (a, b) = (&self.a, &self.b);
        let ids = [a.endpoint.credentials.id(), b.endpoint.credentials.id()];
        for side in [a, b] {
            side.volume.flush().unwrap();
            side.endpoint
                .trust
                .replace(TrustSet { members: ids.into_iter().collect(), ..TrustSet::default() });
        }
        let inner = ReplicaService::new(b.replicas.clone());
        let served = Arc::new(Served { inner, is_old, fails_at, asked: AtomicU64::new(0) });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peers = Peers::new(a.endpoint.clone());
        peers.set_addresses(ids[1], vec![listener.local_addr().unwrap()]);
        tokio::spawn(serve(listener, b.endpoint.clone(), Services::new().with(SERVICE, served.clone())));
        let who_is = Arc::new(move |name: &str| (name == "b").then_some(ids[1]));
        let opener = Arc::new(Everywhere::new("a", a.replicas.clone(), Some(Net { peers, who_is })));
        let store = Arc::new(LocalStore::in_memory().unwrap());
        let set = ReplicaSet::new(ID, ["a".to_owned()]).added("b");
        store.transact(|tx| tx.put(&set)).await.unwrap();
        let (renewed, pace) = (Renewed::default(), Arc::default());
        let means = Means { node: "a".into(), boot: "boot".into(), store, opener, renewed, pace };
        (Group::start(means, set, &VolumeSpec::new(ID, "a", self.size)), served)
    }

    /// Until `b` is in sync: what that took.
    async fn copied(&self, is_old: bool, fails_at: u64) -> (Rebuilt, u64) {
        let (group, served) = self.start(is_old, fails_at).await;
        until(|| group.set().is_in_sync("b") && group.rebuilt() != Rebuilt::default()).await;
        assert!(self.a.content() == self.b.content(), "they differ");
        (group.rebuilt(), served.asked.load(SeqCst))
    }
}

async fn until(f: impl Fn() -> bool) {
    within(Duration::from_secs(60), f).await;
}

async fn within(most: Duration, f: impl Fn() -> bool) {
    let until = Instant::now() + most;
    while !f() {
        assert!(Instant::now() < until, "not within {most:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Differences of each kind; answers the bytes that `b` lacks.
fn make_differ(pair: &Pair) -> u64 {
    let Pair { a, b, .. } = pair;
    // One block, neighbours, one that `b` never had, and the volume's last sector.
    [5, 100, 101, 102].iter().for_each(|block| b.write(*block, 2));
    [100, 101, 102, 400].iter().for_each(|block| a.write(*block, 3));
    a.write(5, 9);
    a.write(SIZE / BLOCK, 4);
    // What `a` has not: a block, and a region.
    b.write(301, 2);
    a.volume.discard(2 * REGION, REGION).unwrap();
    // What `b` holds otherwise than it was written.
    b.volume.flush().unwrap();
    b.flip(768);
    6 * BLOCK + 512
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_that_differ_are_sent_and_no_more() {
    let pair = Pair::filled();
    let differ = make_differ(&pair);
    let (rebuilt, asked) = pair.copied(false, 0).await;
    assert_eq!((rebuilt.moved, rebuilt.compared), (differ, 5 * REGION));
    assert_eq!(asked, 5, "once for each region");
    let sparse = |side: &Side| side.volume.is_hole(2 * REGION, REGION).unwrap();
    assert!(sparse(&pair.a) && sparse(&pair.b), "what is not there takes no room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_an_earlier_release_gets_whole_regions() {
    let pair = Pair::filled();
    make_differ(&pair);
    let (rebuilt, asked) = pair.copied(true, 0).await;
    assert_eq!((rebuilt.moved, rebuilt.compared), (3 * REGION + 512, 5 * REGION));
    assert_eq!(asked, 1, "it is asked once and no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_is_not_compared_and_gets_what_is_there() {
    let pair = Pair::new(SIZE);
    [0, 1, 700].iter().for_each(|block| pair.a.write(*block, 1));
    let (rebuilt, asked) = pair.copied(false, 0).await;
    assert_eq!((rebuilt.moved, asked), (3 * BLOCK, 5));
    assert!(pair.b.volume.is_hole(REGION, REGION).unwrap(), "it takes no more room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_cut_off_sends_nothing_twice() {
    let pair = Pair::filled();
    let differ = make_differ(&pair);
    let (rebuilt, asked) = pair.copied(false, 4).await;
    assert_eq!(rebuilt.moved, differ);
    assert_eq!(asked, 4 + 5, "all is compared again: what was not flushed may be lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_source_holds_wrongly_is_never_sent() {
    let pair = Pair::filled();
    [3, 6, 303].iter().for_each(|block| pair.a.write(*block, 5));
    pair.a.volume.flush().unwrap();
    pair.a.flip(3);
    let (group, _served) = pair.start(false, 0).await;
    until(|| group.behind() == 1).await;
    assert!(!group.set().is_in_sync("b"));
    // Nothing of that region is, and all of the others.
    assert_eq!((pair.b.block(3), pair.b.block(6)), (vec![1; 4096], vec![1; 4096]));
    assert_eq!(pair.b.block(303), vec![5; 4096]);
}

/// Seconds that the processors have worked for this process.
fn worked() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    ticks as f64 / 100.0
}

/// Figures for people: all of a volume to a new replica, and to one that lacks a block of each 16 MiB, by blocks and by
/// regions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes gigabytes; run by `cargo test --release -p cairn-shards --test copied figures -- --ignored --nocapture`"]
async fn figures_of_copies() {
    let mib = std::env::var("MIB").ok().and_then(|n| n.parse().ok()).unwrap_or(1024);
    for (what, is_new) in [("a new replica", true), ("one that lacks little", false)] {
        for (how, is_old) in [("blocks", false), ("regions", true)] {
            let pair = Pair::new(mib * REGION);
            for region in 0..mib {
                let bytes: Vec<u8> = (0..REGION).map(|at| (at * 7 + at / BLOCK + region) as u8 | 1).collect();
                pair.a.volume.write_slice(region * REGION, &bytes).unwrap();
                if !is_new {
                    pair.b.volume.write_slice(region * REGION, &bytes).unwrap();
                }
            }
            if !is_new {
                (0..mib).step_by(16).for_each(|region| pair.b.write(region * REGION / BLOCK + 9, 2));
            }
            pair.a.volume.flush().unwrap();
            let pair = if is_new { pair } else { pair.joined() };
            let (begun, before) = (Instant::now(), worked());
            let (group, _served) = pair.start(is_old, 0).await;
            let whole = || group.set().is_in_sync("b") && group.rebuilt() != Rebuilt::default();
            within(Duration::from_secs(600), whole).await;
            let (took, worked) = (begun.elapsed().as_secs_f64(), worked() - before);
            let Rebuilt { compared, moved } = group.rebuilt();
            println!(
                "{mib} MiB to {what}, by {how}: {took:.1} s, {worked:.1} s of processors, compared {} MiB, sent {} KiB",
                compared / REGION,
                moved / 1024
            );
        }
    }
}
