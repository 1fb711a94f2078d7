//! The processes, as the test has them: started, killed, stopped, asked.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::node::{DIRECTORY, PLACE};
use crate::wires::{Answer, Ask, Relay, receive, send, socket};

/// How many there are.
pub const NODES: usize = 3;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// All of them. They end with it.
pub struct House {
    directory: PathBuf,
    pub wires: Arc<Relay>,
    processes: Mutex<[Option<Child>; NODES]>,
}

impl House {
    /// Starts them, and makes them one group.
    pub async fn found(directory: &Path) -> House {
        let wires = Relay::start(directory);
        let house = House { directory: directory.to_owned(), wires, processes: Mutex::default() };
        let mut nodes = Vec::new();
        for place in 0..NODES {
            house.start(place).await;
            let Answer::Node(node) = house.insist(place, Ask::Node).await else { panic!("not its number") };
            nodes.push(node);
            if place > 0 {
                house.insist(0, Ask::Admit(node, place.to_string())).await;
            }
        }
        house.insist(0, Ask::Voters(nodes)).await;
        house
    }

    /// Starts one that is not running.
    pub async fn start(&self, place: usize) {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_node", "--nocapture"])
            .env(PLACE, place.to_string())
            .env(DIRECTORY, &self.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        self.processes.lock().await[place] = Some(process.unwrap());
    }

    /// As `kill -9` does.
    pub async fn kill(&self, place: usize) {
        if let Some(mut process) = self.processes.lock().await[place].take() {
            process.kill().await.unwrap();
        }
    }

    /// It stands still for so long.
    pub async fn stop_for(self: &Arc<House>, place: usize, time: Duration) {
        self.signal(place, "-STOP").await;
        let house = self.clone();
        tokio::spawn(async move {
            sleep(time).await;
            house.signal(place, "-CONT").await;
        });
    }

    async fn signal(&self, place: usize, signal: &str) {
        let pid = self.processes.lock().await[place].as_ref().and_then(Child::id);
        if let Some(pid) = pid {
            // It may have ended just now.
            drop(Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status().await);
        }
    }

    /// Kills all of them, and starts them anew.
    pub async fn restart_all(&self) {
        for place in 0..NODES {
            self.kill(place).await;
        }
        for place in 0..NODES {
            self.start(place).await;
        }
    }

    /// Ends all faults.
    pub async fn heal(&self) {
        self.wires.clear();
        self.restart_all().await;
    }

    /// Asks one; `None` if it is not known what became of it.
    pub async fn ask(&self, place: usize, ask: &Ask) -> Option<Answer> {
        let answered = async {
            let mut stream = UnixStream::connect(socket(&self.directory, place)).await?;
            send(&mut stream, ask).await?;
            receive(&mut stream).await
        };
        match timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) if !matches!(answer, Answer::Failed(_)) => Some(answer),
            _ => None,
        }
    }

    /// Asks until it is answered.
    async fn insist(&self, place: usize, ask: Ask) -> Answer {
        for _ in 0..600 {
            if let Some(answer) = self.ask(place, &ask).await {
                return answer;
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("{place} does not answer {ask:?}");
    }
}
