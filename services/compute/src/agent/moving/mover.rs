//! Acts on live migrations: keeps the sends of this node going, and tells the store how far each is.
//!
//! What it says of a migration it says before it acts on it, so that an agent that is restarted knows what was begun.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::{Arc, Mutex, PoisonError};

use cairn_state::{Fault, Mirror, SharedStore, StoreExt};
use cairn_wire::remote::{Connection, Peers};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::decide::{self, Source, Task};
use super::tunnel::{self, Book, Sockets};
use crate::agent::console::Logs;
use crate::agent::libvirt::{DomainSeen, Libvirt};
use crate::agent::observe::DomainState;
use crate::model::{MovePhase, MoveStatus, Moving, Progress, Server, move_status_id};

/// Who may use the directory of sockets: this process, and the emulators' group.
const SOCKETS_MODE: u32 = 0o2770;

/// The way to other nodes.
#[derive(Clone)]
pub struct Way {
    /// The other nodes' compute agents.
    pub peers: Peers,
    /// Who is who.
    pub book: Arc<dyn Book>,
}

/// A send that goes on, or has ended.
struct Sending {
    migration: String,
    outcome: Arc<Mutex<Option<Result<(), String>>>>,
    /// The tunnel of its memory: without it, libvirt gives up and the guest goes on here.
    memory: Arc<Mutex<Option<AbortHandle>>>,
    forced: bool,
}

/// The mover of this node.
pub struct Mover {
    node: String,
    store: SharedStore,
    libvirt: Arc<Libvirt>,
    logs: Logs,
    sockets: Sockets,
    way: Option<Way>,
    said: Mirror<MoveStatus>,
    told: HashMap<String, MoveStatus>,
    sending: HashMap<String, Sending>,
    /// How the sends had ended when this pass began.
    ended: HashMap<String, Task>,
    finished: Arc<watch::Sender<u64>>,
}

/// What a mover is made of.
pub struct Parts {
    /// This node.
    pub node: String,
    /// The store.
    pub store: SharedStore,
    /// The node's libvirt.
    pub libvirt: Arc<Libvirt>,
    /// The console logs.
    pub logs: Logs,
    /// Where sockets are.
    pub sockets: Sockets,
    /// The way to other nodes; none if there is none yet.
    pub way: Option<Way>,
    /// What both nodes have said.
    pub said: Mirror<MoveStatus>,
    /// What wakes the pass when a send ends.
    pub finished: Arc<watch::Sender<u64>>,
}

impl Mover {
    /// A mover that has begun nothing.
    pub fn new(parts: Parts) -> Mover {
        let Parts { node, store, libvirt, logs, sockets, way, said, finished } = parts;
        let (told, sending, ended) = (HashMap::new(), HashMap::new(), HashMap::new());
        Mover { node, store, libvirt, logs, sockets, way, said, told, sending, ended, finished }
    }

    /// Begins a pass: notes which sends have ended, before guests are looked at. Forgets those of servers that move no
    /// more.
    pub fn begin_pass(&mut self, moves: impl Fn(&str, &str) -> bool) {
        self.told.retain(|id, s| moves(id, &s.migration));
        self.sending.retain(|id, s| moves(id, &s.migration));
        let outcome = |s: &Sending| s.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let task = |s: &Sending| outcome(s).map_or(Task::Running, Task::Ended);
        self.ended = self.sending.iter().map(|(id, s)| (id.clone(), task(s))).collect();
    }

    /// What this node last said of a migration, in this life or an earlier one.
    fn told(&self, server: &Server, moving: &Moving) -> Option<MoveStatus> {
        let known = self.told.get(&server.id).cloned();
        let past = || self.said.get(&move_status_id(&server.id, &self.node)).map(|s| (*s).clone());
        known.or_else(past).filter(|s| s.migration == moving.migration)
    }

    /// The source's part of one migration.
    pub async fn source(&mut self, server: &Arc<Server>, state: DomainState) -> Result<(), Fault> {
        let Some(moving) = server.moving.as_ref() else { return Ok(()) };
        let told = self.told(server, moving);
        if told.is_none() && !self.said.synced() {
            return Ok(());
        }
        let task = self.ended.get(&server.id).cloned().unwrap_or(Task::None);
        match decide::source(told.map(|s| s.phase), &task, state, moving.abort) {
            Source::Look => {}
            Source::Begin => {
                self.tell(server, moving, MovePhase::Sending, None).await?;
                self.begin(server, moving);
            }
            Source::Say(phase, error) => {
                if phase == MovePhase::Sending {
                    self.hurry(server, moving);
                }
                self.tell(server, moving, phase, error).await?;
            }
        }
        Ok(())
    }

    /// The target's part of one migration.
    pub async fn target(
        &mut self,
        server: &Server,
        domain: Option<&DomainSeen>,
        lack: Option<String>,
    ) -> Result<(), Fault> {
        let Some(moving) = server.moving.as_ref() else { return Ok(()) };
        let subject = || format!("server {}", server.id);
        let ready = self.sockets_there().and_then(|()| self.logs.prepare(&server.id));
        ready.map_err(|e| Fault::new(subject(), e))?;
        let source = self.said.get(&move_status_id(&server.id, &moving.from));
        let sent = source.is_some_and(|s| s.migration == moving.migration && s.phase == MovePhase::Sent);
        let (state, whole) = domain.map_or((DomainState::Absent, false), |d| (d.state, d.whole));
        let (phase, error) = decide::target(server.deleted, state, whole, sent, lack);
        self.tell(server, moving, phase, error).await
    }

    async fn tell(
        &mut self,
        server: &Server,
        moving: &Moving,
        phase: MovePhase,
        error: Option<String>,
    ) -> Result<(), Fault> {
        let progress = match phase {
            MovePhase::Sending => self.progress(&server.id).await,
            _ => self.told.get(&server.id).map_or(Progress::default(), |s| s.progress),
        };
        let status = MoveStatus {
            server_id: server.id.clone(),
            node: self.node.clone(),
            migration: moving.migration.clone(),
            phase,
            error,
            progress,
        };
        if self.told(server, moving).as_ref() == Some(&status) {
            return Ok(());
        }
        let written = self.store.put_record(&status).await;
        written.map_err(|e| Fault::new(format!("server {}", server.id), e))?;
        self.told.insert(server.id.clone(), status);
        Ok(())
    }

    async fn progress(&self, server_id: &str) -> Progress {
        let (libvirt, id) = (self.libvirt.clone(), server_id.to_owned());
        let asked = tokio::task::spawn_blocking(move || libvirt.progress(&id)).await;
        asked.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Makes the directory of sockets, with its parent's group, which the emulators belong to.
    fn sockets_there(&self) -> io::Result<()> {
        let directory = self.sockets.directory();
        if directory.exists() {
            return Ok(());
        }
        std::fs::create_dir_all(directory)?;
        if let Some(parent) = directory.parent() {
            chown(directory, None, Some(std::fs::metadata(parent)?.gid()))?;
        }
        std::fs::set_permissions(directory, Permissions::from_mode(SOCKETS_MODE))
    }

    /// Ends a send that is to be aborted, or halts the guest so that it ends soon.
    fn hurry(&mut self, server: &Server, moving: &Moving) {
        let Some(sending) = self.sending.get_mut(&server.id) else { return };
        if moving.abort
            && let Some(memory) = sending.memory.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            tracing::info!(server = server.id, "aborting a migration");
            memory.abort();
        }
        if moving.force && !sending.forced {
            sending.forced = true;
            let (libvirt, id) = (self.libvirt.clone(), server.id.clone());
            tokio::task::spawn_blocking(move || {
                if let Err(error) = libvirt.pause(&id) {
                    tracing::warn!(server = id, %error, "a guest could not be halted for its migration");
                }
            });
        }
    }

    fn begin(&mut self, server: &Arc<Server>, moving: &Moving) {
        tracing::info!(server = server.id, to = moving.to, "sending a guest");
        let sending = Sending {
            migration: moving.migration.clone(),
            outcome: Arc::default(),
            memory: Arc::default(),
            forced: false,
        };
        let job = Job {
            libvirt: self.libvirt.clone(),
            sockets: self.sockets.clone(),
            way: self.way.clone(),
            server_id: server.id.clone(),
            to: moving.to.clone(),
            migration: moving.migration.clone(),
            memory: sending.memory.clone(),
        };
        let there = self.sockets_there().map_err(|e| e.to_string());
        let (outcome, finished) = (sending.outcome.clone(), self.finished.clone());
        tokio::spawn(async move {
            let result = match there {
                Ok(()) => job.run().await,
                Err(e) => Err(e),
            };
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            finished.send_modify(|n| *n += 1);
        });
        self.sending.insert(server.id.clone(), sending);
    }
}

/// One send.
struct Job {
    libvirt: Arc<Libvirt>,
    sockets: Sockets,
    way: Option<Way>,
    server_id: String,
    to: String,
    migration: String,
    memory: Arc<Mutex<Option<AbortHandle>>>,
}

impl Job {
    async fn run(self) -> Result<(), String> {
        let way = self.way.as_ref().ok_or("this node has no way to others")?;
        let id = way.book.id_of(&self.to).ok_or_else(|| format!("{} is not known here", self.to))?;
        let to = way.peers.connection(id).await.map_err(|e| e.to_string())?;
        let (libvirt, memory) = (self.sockets.libvirt(&self.server_id), self.sockets.memory(&self.server_id));
        let commands = self.carry(&libvirt, &to, tunnel::LIBVIRT)?;
        let pages = self.carry(&memory, &to, tunnel::MEMORY)?;
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(pages.0.clone());
        let (driver, server_id) = (self.libvirt.clone(), self.server_id.clone());
        let (there, through) = (
            format!("qemu+unix:///system?socket={}", libvirt.display()),
            format!("unix://{}", memory.display()),
        );
        let sent = tokio::task::spawn_blocking(move || driver.migrate(&server_id, &there, &through)).await;
        drop((commands, pages));
        for path in [libvirt, memory] {
            let _ = std::fs::remove_file(path);
        }
        match sent {
            Ok(result) => result.map_err(|e| e.to_string()),
            Err(panic) => Err(format!("the send panicked: {panic}")),
        }
    }

    fn carry(
        &self,
        path: &std::path::Path,
        to: &Connection,
        method: &'static str,
    ) -> Result<Carrier, String> {
        let listener = tunnel::listen(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let (to, id, migration) = (to.clone(), self.server_id.clone(), self.migration.clone());
        let task = tokio::spawn(async move { tunnel::carry(listener, to, method, &id, &migration).await });
        Ok(Carrier(task.abort_handle()))
    }
}

/// A tunnel that ends when this is dropped.
struct Carrier(AbortHandle);

impl Drop for Carrier {
    fn drop(&mut self) {
        self.0.abort();
    }
}
