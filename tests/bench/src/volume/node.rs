//! One of Cairn's storage processes, as far as one volume goes: a disk, the volume or a replica of it, and its export.
//! With replicas in other processes it has mutual TLS to them, and the record that says which are in sync is in a store
//! of the writer's own.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cairn_shards::blk::{Export, ServeOptions};
use cairn_shards::format::MARKER;
use cairn_shards::media::{Media, Switch};
use cairn_shards::model::VolumeSpec;
use cairn_shards::pool::{NewVolume, Pool};
use cairn_shards::replication::group::{Group, Means, Renewed};
use cairn_shards::replication::remote::{Everywhere, Net};
use cairn_shards::replication::replica::{Replicas, boot_id};
use cairn_shards::replication::service::{ReplicaService, SERVICE};
use cairn_shards::replication::set::ReplicaSet;
use cairn_shards::replication::writer::Phase;
use cairn_state::LocalStore;
use cairn_wire::remote::{Credentials, Endpoint, PeerId, Peers, Services, Trust, TrustSet, Versions, serve};
use clap::Args;
use image_builder::stage::say;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;

/// The volume's id.
const ID: &str = "bench";
/// How long all replicas may take to be in sync, and an export to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of `bench volume`; started by it.
#[derive(Args)]
pub struct NodeOptions {
    /// Where its files are
    directory: PathBuf,
    /// Bytes of the volume
    size: u64,
    /// Which of several nodes with a replica each it is; the first writes
    #[arg(long)]
    place: Option<usize>,
}

/// Serves until its standard input ends. Says where, once it does.
pub fn run(options: &NodeOptions) -> Result<()> {
    let disks = options.directory.join("disks");
    mark(&disks.join("disk"), "disk")?;
    let pool = Arc::new(Pool::new(&disks, None));
    pool.scan()?;
    ensure!(pool.disks().len() == 1, "the disk is not taken: {:?}", pool.refused());
    if pool.find(ID).is_none() {
        pool.create(&NewVolume { id: ID.into(), size: options.size, read_only: false, source: None })?;
    }
    match options.place {
        None => export(&options.directory, pool.open(ID)?),
        Some(place) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let _inside = runtime.enter();
            let member = runtime.block_on(join(&pool))?;
            match place {
                0 => export(&options.directory, runtime.block_on(write(&pool, member, options.size))?),
                _ => {
                    say("ready");
                    until_told()
                }
            }
        }
    }
}

/// Makes a directory a data disk, if it is none.
pub fn mark(disk: &Path, id: &str) -> Result<()> {
    std::fs::create_dir_all(disk)?;
    let marker = format!(r#"{{"format":1,"disk":"{id}","cloud":"bench"}}"#);
    match std::fs::File::create_new(disk.join(MARKER)) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made?.write_all(marker.as_bytes()).context("cannot mark a disk"),
    }
}

/// Until whoever started this ends it.
fn until_told() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn export(directory: &Path, media: Arc<dyn Media>) -> Result<()> {
    let serve = ServeOptions { dir: directory.join("run"), gid: None };
    serve.prepare()?;
    let mut export = Export::start(ID, 1, Arc::new(Switch::new(media)), &serve)?;
    say(&export.socket().display().to_string());
    until_told()?;
    ensure!(export.stop(PATIENCE), "the export does not end");
    Ok(())
}

/// A node among the others.
struct Member {
    replicas: Arc<Replicas>,
    net: Net,
    names: Vec<String>,
}

/// Tells of itself, is told of the others (`key address` of each, in order), and serves its replica to them.
async fn join(pool: &Arc<Pool>) -> Result<Member> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::default().self_signed(&key)?.der().clone();
    let credentials = Credentials::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into(), certificate)?;
    let endpoint = Endpoint { credentials, trust: Trust::new(TrustSet::default()), versions: Versions::OURS };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&format!("{} {}", endpoint.credentials.id(), listener.local_addr()?));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let words: Vec<_> = line.split_whitespace().collect();
    let (peers, mut ids) = (Peers::new(endpoint.clone()), Vec::<PeerId>::new());
    for pair in words.chunks_exact(2) {
        let id = pair[0].parse()?;
        peers.set_addresses(id, vec![pair[1].parse()?]);
        ids.push(id);
    }
    endpoint.trust.replace(TrustSet { members: ids.iter().copied().collect(), ..TrustSet::default() });
    let names = (0..ids.len()).map(|place| place.to_string()).collect();
    let who_is = move |name: &str| ids.get(name.parse::<usize>().ok()?).copied();
    let replicas = Arc::new(Replicas::new(pool.clone(), boot_id()));
    let services = Services::new().with(SERVICE, Arc::new(ReplicaService::new(replicas.clone())));
    tokio::spawn(serve(listener, endpoint, services));
    Ok(Member { replicas, net: Net { peers, who_is: Arc::new(who_is) }, names })
}

/// The volume's writer, once all replicas are in sync.
async fn write(pool: &Pool, member: Member, size: u64) -> Result<Arc<dyn Media>> {
    let node = "0".to_owned();
    let store = Arc::new(LocalStore::in_memory()?);
    let set = ReplicaSet::new(ID, member.names.clone());
    store.transact(|tx| tx.put(&set)).await?;
    let opener = Arc::new(Everywhere::new(&node, member.replicas, Some(member.net)));
    let spec = VolumeSpec::new(ID, &node, size);
    ensure!(pool.find(ID).is_some(), "no volume");
    let (boot, renewed, pace) = (boot_id(), Renewed::default(), Arc::default());
    let group = Group::start(Means { node, boot, store, opener, renewed, pace }, set, &spec);
    let deadline = Instant::now() + PATIENCE;
    while group.phase() != Phase::Serving || group.set().in_sync().count() < member.names.len() {
        ensure!(Instant::now() < deadline, "the replicas are not in sync: {:?}", group.set());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Arc::new(group))
}
