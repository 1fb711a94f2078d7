//! Compares each guest of this node with its server, and sets jobs to work on the differences.
//!
//! A pass never waits for a job: libvirt may take its time over one guest, and the others must not suffer. At most
//! one job is at work on a guest, and only a few in all. What a pass sees, it reports.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cairn_network::model::tap_name;
use cairn_state::{AgentArgs, Fault, Reconciler, StoreExt};
use tokio::sync::{Semaphore, watch};

use super::console::Logs;
use super::domain_xml::{self, Disk, Guest, Nic, Platform};
use super::fence::{Guard, belongs_elsewhere};
use super::guest::{Memory, ports_of, volumes_of};
use super::libvirt::{DomainSeen, Libvirt};
use super::moving::Mover;
use super::observe::{self, DomainState};
use super::plan::{Action, Plan, Seen, plan};
use super::ready::Mirrors;
use crate::model::{Firmware, Server};

/// How many jobs may be at work at once.
const JOBS_MAX: usize = 4;
/// How long libvirt may take to list its domains before the pass is given up.
const LIST_MAX: Duration = Duration::from_secs(20);
/// In every so many passes, everything is looked at again, changed or not.
const LOOK_CLOSELY_EVERY: u64 = 15;

/// A job that ended.
struct Finish {
    server_id: String,
    action: Action,
    boot_seq: u64,
    result: Result<(), String>,
    /// Whether it was not even tried, because this node may not now.
    held_back: bool,
    last: bool,
}

/// The reconciler of guests.
pub struct Guests {
    node: String,
    run_dir: PathBuf,
    store: cairn_state::SharedStore,
    reporter: cairn_state::Reporter,
    libvirt: Arc<Libvirt>,
    logs: Logs,
    mirrors: Mirrors,
    guard: Arc<Guard>,
    mover: Mover,
    platform: watch::Receiver<Option<Platform>>,
    memory: HashMap<String, Memory>,
    jobs: Arc<Semaphore>,
    finishes: Arc<Mutex<Vec<Finish>>>,
    finished: Arc<watch::Sender<u64>>,
    passes: u64,
}

impl Guests {
    /// The reconciler; `finished` is what wakes it when a job ends.
    pub fn new(
        args: AgentArgs,
        libvirt: Arc<Libvirt>,
        logs: Logs,
        mirrors: Mirrors,
        (guard, mover): (Arc<Guard>, Mover),
        platform: watch::Receiver<Option<Platform>>,
        finished: Arc<watch::Sender<u64>>,
    ) -> Guests {
        Guests {
            node: args.node,
            run_dir: args.run_dir,
            store: args.store,
            reporter: args.reporter,
            libvirt,
            logs,
            mirrors,
            guard,
            mover,
            platform,
            memory: HashMap::new(),
            jobs: Arc::new(Semaphore::new(JOBS_MAX)),
            finishes: Arc::default(),
            finished,
            passes: 0,
        }
    }

    /// Notes how jobs ended.
    fn take_finishes(&mut self) {
        let ended = std::mem::take(&mut *self.finishes.lock().unwrap_or_else(PoisonError::into_inner));
        let now = Instant::now();
        for finish in ended {
            let Some(memory) = self.memory.get_mut(&finish.server_id) else { continue };
            match finish.result {
                Err(why) if finish.held_back => memory.held_back(why, now),
                result => memory.finished(&finish.action, finish.boot_seq, result, now),
            }
            memory.busy &= !finish.last;
        }
    }

    /// The domains of this node, by server.
    async fn domains(&self) -> Result<BTreeMap<String, DomainSeen>, Fault> {
        let libvirt = self.libvirt.clone();
        let listed =
            tokio::time::timeout(LIST_MAX, tokio::task::spawn_blocking(move || libvirt.domains())).await;
        match listed {
            Ok(Ok(Ok(seen))) => Ok(seen.into_iter().map(|d| (d.server_id.clone(), d)).collect()),
            Ok(Ok(Err(e))) => Err(Fault::new("libvirt", e)),
            Ok(Err(e)) => Err(Fault::new("libvirt", e)),
            Err(_) => Err(Fault::new("libvirt", "it does not answer")),
        }
    }

    /// One guest: look, decide, set to work, report.
    async fn guest(&mut self, server: &Arc<Server>, state: DomainState) -> Result<(), Fault> {
        let closely = self.passes.is_multiple_of(LOOK_CLOSELY_EVERY);
        self.remember(server);
        let Some(memory) = self.memory.get(&server.id) else { return Ok(()) };
        if memory.busy {
            return Ok(());
        }
        // Without knowing what was done before, an order to boot again must not be carried out twice.
        if memory.told.is_none() && !self.mirrors.past.synced() && state.active() {
            return Ok(());
        }
        if state.active() && (closely || memory.looked_at != Some(server.generation)) {
            self.look(server).await?;
        }
        if server.sent_by(&self.node) {
            // Nothing else is done to a guest that is being sent.
            let plan = Plan { boots_done: memory_boots(&self.memory, &server.id), ..Plan::default() };
            self.tell(server, state, &plan).await?;
            return self.mover.source(server, state).await;
        }
        let decided = self.decide(server, state);
        let now = Instant::now();
        let memory = self.memory.entry(server.id.clone()).or_default();
        memory.boots_done = decided.boots_done;
        let acts = memory.may_act(server, &decided, now);
        memory.busy |= acts;
        if acts {
            let platform = self.platform.borrow().clone();
            let call = |a: &Action| (a.clone(), self.call(server, a, platform.as_ref()));
            let calls = decided.actions.iter().map(call).collect();
            self.set_to_work(Work { server: server.clone(), calls, gate: Gate::of(&decided.actions) });
        }
        self.tell(server, state, &decided).await
    }

    fn remember(&mut self, server: &Server) {
        if !self.memory.contains_key(&server.id) {
            let past = self.mirrors.past.get(&server.id).filter(|p| p.node == self.node);
            let memory = past.map(|p| Memory::from_past(&p)).unwrap_or_default();
            self.memory.insert(server.id.clone(), memory);
        }
    }

    /// A server of another node: it may be on its way here, and what else is here of it is one too many.
    async fn elsewhere(&mut self, server: &Arc<Server>, domain: Option<DomainSeen>) -> Result<(), Fault> {
        if server.comes_live_to(&self.node) {
            let lack = self.guard.lacks().or_else(|| self.mirrors.move_lacks(&self.node, server));
            self.mover.target(server, domain.as_ref(), lack).await?;
        }
        let busy = self.memory.get(&server.id).is_some_and(|m| m.busy);
        if domain.is_none()
            || busy
            || !self.mirrors.servers.synced()
            || !belongs_elsewhere(server, &self.node)
        {
            return Ok(());
        }
        self.memory.entry(server.id.clone()).or_default().busy = true;
        let calls = vec![(Action::Destroy, Call::Destroy), (Action::Undefine, Call::Undefine)];
        self.set_to_work(Work { server: server.clone(), calls, gate: Gate::Foreign });
        Ok(())
    }

    /// Looks at the devices of an active guest.
    async fn look(&mut self, server: &Server) -> Result<(), Fault> {
        let (libvirt, id) = (self.libvirt.clone(), server.id.clone());
        let xml = tokio::task::spawn_blocking(move || libvirt.xml(&id)).await;
        let subject = || format!("server {}", server.id);
        let xml = xml.map_err(|e| Fault::new(subject(), e))?.map_err(|e| Fault::new(subject(), e))?;
        if let Some(memory) = self.memory.get_mut(&server.id) {
            memory.devices = observe::devices(&xml);
            memory.looked_at = Some(server.generation);
        }
        let (logs, id) = (self.logs.clone(), server.id.clone());
        let bounded = tokio::task::spawn_blocking(move || logs.bound(&id)).await;
        if let Ok(Err(error)) = bounded {
            tracing::warn!(server = server.id, %error, "its console log could not be cut");
        }
        Ok(())
    }

    fn decide(&self, server: &Server, state: DomainState) -> Plan {
        let memory = &self.memory[&server.id];
        plan(
            server,
            &Seen {
                state,
                devices: (memory.looked_at == Some(server.generation)).then_some(&memory.devices),
                boots_done: memory.boots_done,
                asked_ago: memory.asked_ago(Instant::now()),
                node_lacks: self.guard.lacks(),
                volume_lacks: &|id| self.mirrors.volume_lacks(&self.node, server, id),
                port_lacks: &|id| self.mirrors.port_lacks(&self.node, id),
                socket_of: &|id| self.socket_of(id),
                tap_of: &tap_name,
            },
        )
    }

    /// The socket by which a guest of this node has a volume.
    fn socket_of(&self, volume_id: &str) -> String {
        let emulated = self.platform.borrow().as_ref().is_some_and(|p| !p.kvm);
        self.mirrors.socket_of(&self.run_dir, volume_id, emulated)
    }

    /// Carries calls out on a thread of its own, if they may be made at all.
    fn set_to_work(&self, work: Work) {
        let (libvirt, logs, jobs) = (self.libvirt.clone(), self.logs.clone(), self.jobs.clone());
        let (finishes, finished) = (self.finishes.clone(), self.finished.clone());
        let guard = self.guard.clone();
        tokio::spawn(async move {
            let permit = jobs.acquire_owned().await;
            let Work { server, calls, gate } = work;
            let (id, boot_seq) = (server.id.clone(), server.boot.seq);
            let ended = match gate.admits(&guard, &server).await {
                Err(why) => vec![Finish::held_back(id, boot_seq, why)],
                Ok(()) => {
                    let subject = id.clone();
                    let work =
                        tokio::task::spawn_blocking(move || carry_out(&libvirt, &logs, &id, boot_seq, calls));
                    work.await.unwrap_or_else(|panic| vec![broken(subject, boot_seq, &panic)])
                }
            };
            finishes.lock().unwrap_or_else(PoisonError::into_inner).extend(ended);
            drop(permit);
            finished.send_modify(|n| *n += 1);
        });
    }

    /// What an action says to libvirt.
    fn call(&self, server: &Server, action: &Action, platform: Option<&Platform>) -> Call {
        match action {
            Action::Start => match platform {
                Some(platform) => Call::Start(domain_xml::domain(&self.guest_of(server), platform)),
                None => Call::Not("the hypervisor is not known yet"),
            },
            Action::AskShutdown => Call::AskShutdown,
            Action::Destroy => Call::Destroy,
            Action::Undefine => Call::Undefine,
            Action::Pause => Call::Pause,
            Action::Resume => Call::Resume,
            Action::Attach(id) => {
                self.disk_of(server, id).map_or(GONE, |d| Call::Attach(domain_xml::disk(&d)))
            }
            Action::Detach(id) => {
                self.disk_of(server, id).map_or(GONE, |d| Call::Detach(domain_xml::disk(&d)))
            }
            Action::Plug(id) => nic_of(server, id).map_or(GONE, |n| Call::Attach(domain_xml::nic(&n))),
            Action::Unplug(id) => nic_of(server, id).map_or(GONE, |n| Call::Detach(domain_xml::nic(&n))),
        }
    }

    fn disk_of(&self, server: &Server, volume_id: &str) -> Option<Disk> {
        let volume = server.volume(volume_id)?;
        Some(Disk {
            socket: self.socket_of(volume_id),
            device: volume.device.trim_start_matches("/dev/").to_owned(),
            boot: volume.boot,
            size: self.mirrors.specs.get(volume_id).map_or(0, |spec| spec.size),
        })
    }

    fn guest_of(&self, server: &Server) -> Guest {
        let volumes = server.volumes.iter().filter(|v| !v.detaching);
        let ports = server.ports.iter().filter(|p| !p.detaching);
        Guest {
            id: server.id.clone(),
            vcpus: server.flavor.vcpus,
            memory_mb: server.flavor.ram_mb,
            uefi: server.firmware == Firmware::Uefi,
            disks: volumes.filter_map(|v| self.disk_of(server, &v.volume_id)).collect(),
            nics: ports.filter_map(|p| nic_of(server, &p.port_id)).collect(),
            console_log: self.logs.path(&server.id).to_string_lossy().into_owned(),
        }
    }

    /// Writes what there is to say of a guest, if it is news.
    async fn tell(&mut self, server: &Server, state: DomainState, decided: &Plan) -> Result<(), Fault> {
        let memory = &self.memory[&server.id];
        let mut status = memory.status(&self.node, server, state, decided);
        let devices = state.active().then_some(&memory.devices);
        status.volumes_attached = volumes_of(server, devices, &|id| self.socket_of(id));
        status.ports_plugged = ports_of(server, devices, &tap_name);
        // What another node said last may stand in the place of what this one said before.
        let overwritten = self.mirrors.past.get(&server.id).is_some_and(|p| p.node != self.node);
        if memory.told.as_ref() == Some(&status) && !overwritten {
            return Ok(());
        }
        let written = self.store.put_record(&status).await;
        written.map_err(|e| Fault::new(format!("server {}", server.id), e))?;
        if let Some(memory) = self.memory.get_mut(&server.id) {
            memory.told = Some(status);
        }
        Ok(())
    }
}

#[async_trait]
impl Reconciler for Guests {
    fn name(&self) -> &'static str {
        "guests"
    }

    async fn pass(&mut self) -> Vec<Fault> {
        self.take_finishes();
        self.passes += 1;
        let mirrored = self.mirrors.servers.clone();
        let moves = |id: &str, migration: &str| {
            mirrored.get(id).and_then(|s| s.moving.as_ref().map(|m| m.migration == migration)) == Some(true)
        };
        self.mover.begin_pass(moves);
        let mut domains = match self.domains().await {
            Ok(domains) => domains,
            Err(fault) => return vec![fault],
        };
        let mut guests: Vec<&String> = domains.keys().collect();
        guests.sort();
        self.reporter.set_fact("guests", serde_json::json!(guests));
        let servers = self.mirrors.servers.all();
        let ours: Vec<_> = servers.iter().filter(|s| s.host.as_deref() == Some(&self.node)).collect();
        self.memory.retain(|id, m| m.busy || ours.iter().any(|s| &s.id == id));
        let mut faults = Vec::new();
        for server in ours {
            let state = domains.remove(&server.id).map_or(DomainState::Absent, |d| d.state);
            faults.extend(self.guest(server, state).await.err());
        }
        let node = self.node.clone();
        for server in servers.iter().filter(|s| s.host.as_ref() != Some(&node)) {
            faults.extend(self.elsewhere(server, domains.remove(&server.id)).await.err());
        }
        // Never destroyed, since a store that lost its records must not cost anybody a guest; only shown.
        let orphans: Vec<_> = domains.into_keys().collect();
        self.reporter.set_fact("orphan_guests", serde_json::json!(orphans));
        faults
    }
}

fn nic_of(server: &Server, port_id: &str) -> Option<Nic> {
    let port = server.ports.iter().find(|p| p.port_id == port_id)?;
    Some(Nic { tap: tap_name(port_id), mac: port.mac.clone(), mtu: port.mtu })
}

/// A call to libvirt, ready to be made.
enum Call {
    Start(String),
    AskShutdown,
    Destroy,
    Undefine,
    Pause,
    Resume,
    Attach(String),
    Detach(String),
    Not(&'static str),
}

const GONE: Call = Call::Not("it is no longer the server's");

/// Calls to make for one server.
struct Work {
    server: Arc<Server>,
    calls: Vec<(Action, Call)>,
    gate: Gate,
}

/// What is to be made sure of before calls are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    /// Nothing.
    Open,
    /// That the guest may run on this node.
    Run,
    /// That it is another node's.
    Foreign,
}

impl Gate {
    fn of(actions: &[Action]) -> Gate {
        match actions.iter().any(|a| matches!(a, Action::Start | Action::Resume)) {
            true => Gate::Run,
            false => Gate::Open,
        }
    }

    async fn admits(self, guard: &Guard, server: &Server) -> Result<(), String> {
        match self {
            Gate::Open => Ok(()),
            Gate::Run => guard.admit(server).await,
            Gate::Foreign => guard.foreign(&server.id).await,
        }
    }
}

impl Finish {
    fn held_back(server_id: String, boot_seq: u64, why: String) -> Finish {
        let (action, result) = (Action::Start, Err(why));
        Finish { server_id, action, boot_seq, result, held_back: true, last: true }
    }
}

fn memory_boots(memory: &HashMap<String, Memory>, id: &str) -> u64 {
    memory.get(id).map_or(0, |m| m.boots_done)
}

/// The end of a job that panicked.
fn broken(server_id: String, boot_seq: u64, panic: &tokio::task::JoinError) -> Finish {
    let result = Err(format!("the job panicked: {panic}"));
    Finish { server_id, action: Action::Start, boot_seq, result, held_back: false, last: true }
}

/// Makes the calls in order, up to the first that fails.
fn carry_out(
    libvirt: &Libvirt,
    logs: &Logs,
    id: &str,
    boot_seq: u64,
    calls: Vec<(Action, Call)>,
) -> Vec<Finish> {
    let mut ended = Vec::new();
    for (action, call) in calls {
        tracing::info!(server = id, ?action, "acting on a guest");
        let result = make(libvirt, logs, id, call);
        let failed = result.is_err();
        let server_id = id.to_owned();
        ended.push(Finish { server_id, action, boot_seq, result, held_back: false, last: false });
        if failed {
            break;
        }
    }
    if let Some(last) = ended.last_mut() {
        last.last = true;
    }
    ended
}

fn make(libvirt: &Libvirt, logs: &Logs, id: &str, call: Call) -> Result<(), String> {
    let made = match call {
        Call::Start(xml) => {
            logs.prepare(id).map_err(|e| format!("its console log could not be made: {e}"))?;
            libvirt.start(&xml)
        }
        Call::AskShutdown => libvirt.ask_shutdown(id),
        Call::Destroy => libvirt.destroy(id),
        Call::Undefine => {
            libvirt.undefine(id).map_err(|e| e.to_string())?;
            return logs.remove(id).map_err(|e| format!("its console log could not be removed: {e}"));
        }
        Call::Pause => libvirt.pause(id),
        Call::Resume => libvirt.resume(id),
        Call::Attach(xml) => libvirt.attach(id, &xml),
        Call::Detach(xml) => libvirt.detach(id, &xml),
        Call::Not(why) => return Err(why.into()),
    };
    made.map_err(|e| e.to_string())
}
