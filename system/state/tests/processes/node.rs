//! One of the processes: a store on a file of its own, served on a socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cairn_state::{LocalStore, Member, Options, Revision, Store, StoreError, Timing};
use tokio::net::{UnixListener, UnixStream};

use crate::history::{ask, told};
use crate::wires::{Answer, Ask, Wires, receive, send, socket};

/// Which place this process has.
pub const PLACE: &str = "CAIRN_PROCESSES_PLACE";
/// Where all have their files.
pub const DIRECTORY: &str = "CAIRN_PROCESSES_DIRECTORY";

/// Short times, but not so short that a busy machine changes leaders all the time.
fn timing() -> Timing {
    Timing {
        heartbeat: Duration::from_millis(100),
        election: Duration::from_millis(700),
        pause: Duration::from_millis(20),
        patience: Duration::from_secs(3),
        log_entries: 50,
    }
}

pub fn member(place: usize) -> Member {
    Member { name: place.to_string(), addresses: vec![] }
}

/// Serves until this process is killed, or its parent is gone.
pub fn run(place: usize) {
    std::thread::spawn(|| {
        let ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(i32::from(ended.is_err()));
    });
    let directory = PathBuf::from(std::env::var(DIRECTORY).unwrap());
    let wires = Wires { directory: directory.clone(), me: place, idle: Default::default() };
    let options = if place == 0 { Options::found(member(0)) } else { Options::join() };
    let options = options.network(Arc::new(wires)).timing(timing());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = LocalStore::open_with(&directory.join(format!("{place}.redb")), options).unwrap();
        // What is left of a life before.
        let path = socket(&directory, place);
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(path).unwrap();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    tokio::spawn(serve(store.clone(), accepted.unwrap().0));
                }
                failure = store.failed() => panic!("{failure}"),
            }
        }
    });
}

async fn serve(store: LocalStore, mut stream: UnixStream) {
    while let Ok(asked) = receive(&mut stream).await {
        let answer = match answer(&store, asked).await {
            Ok(answer) => answer,
            Err(e) => Answer::Failed(e.to_string()),
        };
        if send(&mut stream, &answer).await.is_err() {
            return;
        }
    }
}

async fn answer(store: &LocalStore, asked: Ask) -> Result<Answer, StoreError> {
    Ok(match asked {
        Ask::Replica(request) => {
            let answer = store.endpoint().serve(request.into()).await;
            Answer::Replica(answer.map(Vec::from).unwrap_or_default())
        }
        Ask::Do(op) => Answer::Did(ask(store, &op).await?),
        Ask::Events => {
            store.catch_up().await?;
            let watch = store.watch("", Revision(0)).await?;
            // All of it is there already.
            told(watch, Duration::from_millis(500)).await.map_or_else(Answer::Failed, Answer::Events)
        }
        Ask::Node => Answer::Node(store.status()?.node),
        Ask::Admit(node, name) => {
            store.admit(node, Member { name, addresses: vec![] }).await?;
            Answer::Done
        }
        Ask::Voters(voters) => {
            store.set_voters(voters).await?;
            Answer::Done
        }
    })
}
