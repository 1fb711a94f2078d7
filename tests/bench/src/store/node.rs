//! One of Cairn's nodes, as far as the store goes: a replica on a file, mutual TLS to the others, and the load, made in
//! the process that holds the store, as the APIs do. It is told what to do by lines on its standard input.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cairn_state::{LocalStore, Member, Op, Options, Revision, Store, Txn};
use cairn_wire::remote::{
    Credentials, Endpoint, PeerId, Peers, REPLICAS, ReplicaNetwork, ReplicaService, Services, Trust,
    TrustSet, Versions, serve,
};
use clap::Args;
use futures_util::StreamExt;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::load::{KEYS, VALUE_BYTES, load};

/// A node of `bench store`; started by it.
#[derive(Args)]
pub struct NodeOptions {
    /// Where its file is
    directory: PathBuf,
    /// Which node it is; the first founds
    place: usize,
}

/// Runs until its standard input ends.
pub fn run(options: &NodeOptions) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(node(options))
}

/// What who started this says, line by line.
type Lines = mpsc::Receiver<String>;

fn heard() -> Lines {
    let (sender, lines) = mpsc::channel(1);
    // It ends with the input or the process.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Says a line to who started this.
fn tell(line: impl Display) {
    image_builder::stage::say(&line.to_string());
}

async fn node(options: &NodeOptions) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::default().self_signed(&key)?.der().clone();
    let credentials = Credentials::new(PrivatePkcs8KeyDer::from(key.serialize_der()).into(), certificate)?;
    let trust = Trust::new(TrustSet::default());
    let endpoint = Endpoint { credentials, trust, versions: Versions::OURS };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    tell(format!("{} {}", endpoint.credentials.id(), listener.local_addr()?));
    let mut lines = heard();
    let store = open(options, &endpoint, &lines.recv().await.context("nobody told of the others")?)?;
    let services = Services::new().with(REPLICAS, Arc::new(ReplicaService::new(store.endpoint())));
    let served = tokio::spawn(serve(listener, endpoint, services));
    tell(store.status()?.node);
    obey(&store, &mut lines).await?;
    served.abort();
    Ok(())
}

/// Opens the store of a group whose nodes are given as `id address` each.
fn open(options: &NodeOptions, endpoint: &Endpoint, others: &str) -> Result<LocalStore> {
    let words: Vec<_> = others.split_whitespace().collect();
    let mut ids: HashMap<String, PeerId> = HashMap::new();
    for (place, pair) in words.chunks_exact(2).enumerate() {
        ids.insert(place.to_string(), pair[0].parse()?);
    }
    endpoint.trust.replace(TrustSet { members: ids.values().copied().collect(), ..TrustSet::default() });
    let who_is = Arc::new(move |_, member: &Member| ids.get(&member.name).copied());
    let network = ReplicaNetwork::new(Peers::new(endpoint.clone()), who_is);
    let founder = Member { name: "0".into(), addresses: vec![words[1].to_owned()] };
    let chosen = if options.place == 0 { Options::found(founder) } else { Options::join() };
    Ok(LocalStore::open_with(&options.directory.join("store.redb"), chosen.network(Arc::new(network)))?)
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    words: &[&str],
    at: usize,
) -> Result<T> {
    Ok(words.get(at).context("a word is missing")?.parse()?)
}

async fn obey(store: &LocalStore, lines: &mut Lines) -> Result<()> {
    while let Some(line) = lines.recv().await {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.first().copied().unwrap_or_default() {
            "admit" => {
                let address: SocketAddr = number(&words, 3)?;
                let member = Member { name: words[2].to_owned(), addresses: vec![address.to_string()] };
                store.admit(number(&words, 1)?, member).await?;
                tell("ok");
            }
            "voters" => {
                let voters: Vec<u64> = words[1..].iter().map(|w| w.parse()).collect::<Result<_, _>>()?;
                store.set_voters(voters).await?;
                tell("ok");
            }
            "leads" => tell(store.status()?.leader == Some(store.status()?.node)),
            "write" => tell(load(number(&words, 1)?, number(&words, 2)?, |n| write(store, n)).await?),
            "read" => tell(load(number(&words, 1)?, number(&words, 2)?, |n| read(store, n)).await?),
            "recover" => tell(recover(store).await),
            "watch" => tell(watch(store, number(&words, 1)?, number(&words, 2)?).await?),
            "fill" => tell(fill(store, number(&words, 1)?).await?),
            "range" => tell(range(store, number(&words, 1)?).await?),
            other => bail!("what is {other}?"),
        }
    }
    Ok(())
}

fn put(key: String) -> Txn {
    Txn { compares: vec![], ops: vec![Op::Put { key, value: vec![7; VALUE_BYTES].into(), lease: None }] }
}

async fn write(store: &LocalStore, n: u64) -> Result<()> {
    store.commit(put(format!("bench/{:06}", n % KEYS))).await?;
    Ok(())
}

async fn read(store: &LocalStore, n: u64) -> Result<()> {
    store.get(&format!("bench/{:06}", n % KEYS)).await?;
    Ok(())
}

/// Milliseconds until a write is committed, of one that is asked for now.
async fn recover(store: &LocalStore) -> u128 {
    let begun = Instant::now();
    while write(store, 0).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed().as_millis()
}

/// Events a second over all watchers, while one writer writes as often as said.
async fn watch(store: &LocalStore, watchers: usize, writes: u64) -> Result<u64> {
    let at = store.snapshot()?.revision();
    let mut tasks = Vec::new();
    for _ in 0..watchers {
        let mut events = store.watch("bench/", Revision(at.0)).await?;
        tasks.push(tokio::spawn(async move {
            for _ in 0..writes {
                events.next().await.context("the watch ended")??;
            }
            anyhow::Ok(())
        }));
    }
    let begun = Instant::now();
    for n in 0..writes {
        write(store, n).await?;
    }
    for task in tasks {
        task.await??;
    }
    Ok((watchers as f64 * writes as f64 / begun.elapsed().as_secs_f64()) as u64)
}

/// Puts so many records, a hundred in a transaction; says how many seconds it took.
async fn fill(store: &LocalStore, records: u64) -> Result<u64> {
    let begun = Instant::now();
    for first in (0..records).step_by(100) {
        let ops = (first..records.min(first + 100)).flat_map(|n| put(format!("many/{n:08}")).ops);
        store.commit(Txn { compares: vec![], ops: ops.collect() }).await?;
    }
    Ok(begun.elapsed().as_secs())
}

/// Microseconds for a range of a hundred records from the middle of so many, and for a put among them.
async fn range(store: &LocalStore, records: u64) -> Result<String> {
    let place = |n: u64| format!("many/{:08}", records / 4 + n * records / 200);
    let begun = Instant::now();
    for n in 0..100 {
        store.range("many/", Some(&place(n)), 100).await?;
    }
    let (ranged, begun) = (begun.elapsed() / 100, Instant::now());
    for n in 0..100 {
        store.commit(put(place(n))).await?;
    }
    Ok(format!("{} {}", ranged.as_micros(), (begun.elapsed() / 100).as_micros()))
}
