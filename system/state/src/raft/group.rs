//! This replica in its group: commands through the leader, reads that see all that was acknowledged, keep-alives,
//! changes of who is in it.
//!
//! It never says that something was not done when it may have been: who asked is told that it is not known.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use openraft::async_runtime::{Select2, WatchReceiver};
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::{AsyncRuntime, Instant, Raft, RaftState, ReadPolicy, ServerState};
use rand::Rng;
use tokio::sync::{oneshot, watch};

use super::log::LogStore;
use super::machine::Machine;
use super::messages::{Change, Request, Response};
use super::network::{self, Network, Peers};
use super::serve::{Caller, Receiving};
use super::standing::Refusal;
use super::tickets::{Held, Tickets};
use super::types::{LeaderId, Member, NodeId, Runtime, Types};
use super::{Status, Timing, duties};
use crate::engine::disk::gone;
use crate::engine::{Command, Core, Reply};
use crate::kv::{LeaseId, StoreError};

/// What a store needs of its group.
#[async_trait]
pub(crate) trait Replica: Send + Sync {
    /// Has a command done, wherever the leader is; what it did is then to be seen here.
    async fn propose(self: Arc<Self>, command: Command) -> Result<Reply, StoreError>;
    /// Waits until all that was acknowledged anywhere before this call is to be seen here.
    async fn catch_up(self: Arc<Self>) -> Result<(), StoreError>;
    /// Keeps a lease alive.
    async fn keep_alive(self: Arc<Self>, lease: LeaseId) -> Result<(), StoreError>;
    /// Changes who is in the group.
    async fn change(self: Arc<Self>, change: Change) -> Result<(), StoreError>;
    /// Answers another replica.
    async fn serve(self: Arc<Self>, request: Bytes, caller: Caller) -> Bytes;
    /// How the group looks from here.
    fn status(&self) -> Status;
    /// Ends it.
    async fn stop(&self);
}

/// A replica of a group.
pub(crate) struct Group<K: Runtime> {
    pub(super) raft: Raft<Types<K>, Machine>,
    pub(super) core: Arc<Core>,
    pub(super) receiving: tokio::sync::Mutex<Receiving>,
    network: Arc<dyn Network>,
    tickets: Tickets,
    /// The term whose leases `core` has.
    lessor: Mutex<Option<LeaderId>>,
    pub(super) me: NodeId,
    pub(super) timing: Timing,
    failure: watch::Receiver<Option<StoreError>>,
    /// Where the group's own tasks run; without one, where the caller's do.
    runtime: Option<tokio::runtime::Handle>,
}

/// Why this replica did not do something.
pub(super) enum Miss {
    /// It does not lead. That one may.
    NotLeader(Option<NodeId>),
    /// It may have been done nevertheless.
    Unsure,
    Refused(StoreError),
}

impl<K: Runtime> Group<K> {
    /// Starts the replica on the current runtime.
    pub(crate) async fn start(
        core: Arc<Core>,
        me: NodeId,
        network: Arc<dyn Network>,
        timing: Timing,
        failure: watch::Receiver<Option<StoreError>>,
        runtime: Option<tokio::runtime::Handle>,
    ) -> Result<Arc<Group<K>>, StoreError> {
        let config = timing.config(core.witness).map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let peers = Peers {
            network: network.clone(),
            core: core.clone(),
            transfers: Arc::new(AtomicU64::new(0)),
            piece_patience: timing.patience,
        };
        let (log, machine) = (LogStore(core.clone()), Machine::new(core.clone()));
        let started = Raft::new(me, Arc::new(config), peers, log, machine).await;
        let raft = started.map_err(|e| StoreError::Storage(e.to_string()))?;
        let receiving = tokio::sync::Mutex::default();
        let tickets = Tickets::new(K::Async::thread_rng().next_u64());
        let lessor = Mutex::default();
        let group = Group { raft, core, receiving, network, tickets, lessor, me, timing, failure, runtime };
        let group = Arc::new(group);
        let duties = duties::run(Arc::downgrade(&group), group.raft.server_metrics());
        drop(K::Async::spawn(duties));
        group.ready().await?;
        Ok(group)
    }

    /// A group of one is ready once it leads and has applied its log; a larger one when the others are.
    async fn ready(&self) -> Result<(), StoreError> {
        let deadline = <K::Async as AsyncRuntime>::Instant::now() + self.timing.patience;
        let me = self.me;
        let alone =
            move |state: &RaftState<Types<K>>| state.membership_state.effective().voter_ids().eq([me]);
        if !self.raft.with_raft_state(alone).await.map_err(|e| self.fatal(e))? {
            return Ok(());
        }
        // Nobody else could be elected: no need to wait for a silence.
        self.raft.trigger().elect(false).await.map_err(|e| self.fatal(e))?;
        loop {
            match self.read_index().await {
                // What is seen from outside follows a moment later.
                Ok(_) if self.alone() => return Ok(()),
                Err(Miss::Refused(e)) => return Err(e),
                Ok(_) | Err(_) if <K::Async as AsyncRuntime>::Instant::now() > deadline => {
                    return Err(StoreError::Unavailable("a group of one did not elect itself".into()));
                }
                Ok(_) | Err(_) => K::Async::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// The term in which this replica leads.
    pub(super) fn leads(&self) -> Option<LeaderId> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        (metrics.state == ServerState::Leader).then_some(metrics.vote.leader_id)
    }

    /// The term in which this replica leads, with every lease begun anew in it: what it knew of them before is of
    /// no worth, since others may have kept them alive.
    pub(super) fn lessor(&self) -> Result<Option<LeaderId>, StoreError> {
        let mut lessor = self.lessor.lock().unwrap_or_else(PoisonError::into_inner);
        let leads = self.leads();
        if leads.is_some() && *lessor != leads {
            self.core.restart_leases()?;
            *lessor = leads;
        }
        Ok(leads)
    }

    /// Whether this replica is the only voter and leads: what is applied here is then all that there is. (Nobody
    /// could become a voter beside it without its own consent, which it would know of.)
    fn alone(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.state == ServerState::Leader && metrics.membership_config.voter_ids().eq([self.me])
    }

    fn fatal(&self, e: impl std::fmt::Display) -> StoreError {
        match &*self.failure.borrow() {
            Some(failure) => failure.clone(),
            None => StoreError::Unavailable(format!("the replica has stopped: {e}")),
        }
    }

    /// Has a command done if this replica leads.
    pub(super) async fn propose_here(&self, command: Command) -> Result<(Reply, u64), Miss> {
        match self.raft.client_write(command).await {
            Ok(done) => Ok((done.data, done.log_id.index)),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(Miss::NotLeader(to.leader_id))
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Err(Miss::Unsure),
            Err(RaftError::APIError(e)) => Err(Miss::Refused(StoreError::Unavailable(e.to_string()))),
            Err(RaftError::Fatal(e)) => Err(Miss::Refused(self.fatal(e))),
        }
    }

    /// The index that a state must have to see all that was acknowledged before this call, if this replica leads;
    /// it has it then.
    pub(super) async fn read_index(&self) -> Result<u64, Miss> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(at) => {
                self.core.wait_applied(at.index()).await;
                Ok(at.index())
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(Miss::NotLeader(to.leader_id))
            }
            Err(RaftError::APIError(_)) => Err(Miss::NotLeader(None)),
            Err(RaftError::Fatal(e)) => Err(Miss::Refused(self.fatal(e))),
        }
    }

    /// Keeps a lease alive if this replica leads. Whoever leads next gives it a full term, so it must still lead
    /// once the term is begun.
    pub(super) async fn keep_alive_here(&self, lease: LeaseId) -> Result<(), Miss> {
        if !self.alone() {
            self.read_index().await?;
        }
        self.lessor().map_err(Miss::Refused)?;
        self.core.leases.keep_alive(lease).map_err(Miss::Refused)?;
        if self.alone() {
            return Ok(());
        }
        self.read_index().await?;
        if self.core.leases.lives(lease) {
            Ok(())
        } else {
            Err(Miss::Refused(StoreError::LeaseExpired(lease)))
        }
    }

    pub(super) async fn change_here(&self, change: Change) -> Result<(), Miss> {
        let done = match change {
            Change::Admit(node, member) => self.raft.add_learner(node, member, false).await,
            Change::Voters(voters) => self.raft.change_membership(voters, true).await,
            Change::Remove(node) => {
                let gone = openraft::ChangeMembers::RemoveNodes([node].into());
                self.raft.change_membership(gone, true).await
            }
            Change::Lead(node) => {
                if self.leads().is_none() {
                    return Err(Miss::NotLeader(self.raft.server_metrics().borrow_watched().current_leader));
                }
                return self
                    .raft
                    .trigger()
                    .transfer_leader(node)
                    .await
                    .map_err(|e| Miss::Refused(self.fatal(e)));
            }
        };
        match done {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(Miss::NotLeader(to.leader_id))
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Err(Miss::Unsure),
            Err(RaftError::APIError(e)) => Err(Miss::Refused(StoreError::Unavailable(e.to_string()))),
            Err(RaftError::Fatal(e)) => Err(Miss::Refused(self.fatal(e))),
        }
    }

    /// Runs a future where the group's tasks run, so that it goes on when the caller does not, and may sleep where
    /// the caller may not.
    async fn there<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        let task = async move { drop(done.send(future.await)) };
        match &self.runtime {
            Some(runtime) => drop(runtime.spawn(task)),
            None => drop(K::Async::spawn(task)),
        }
        result.await.map_err(|_| gone())?
    }

    /// Asks whoever leads, here or there, until somebody answers or patience ends. Says whether it may have been
    /// done before it was answered.
    async fn ask_leader(&self, request: &Request<K>) -> Result<(Response<K>, bool), StoreError> {
        self.core.standing.check()?;
        let deadline = <K::Async as AsyncRuntime>::Instant::now() + self.timing.patience;
        let mut leader = self.leader();
        let mut maybe = false;
        loop {
            let response = match leader {
                Some(other) if other != self.me => self.ask(other, request).await,
                _ => self.answer_in_time(request.clone(), self.attempt(request)).await,
            };
            match response {
                Response::Refused(e) => return Err(e),
                Response::Unsure if !request.repeatable() => return Err(unsure()),
                Response::Unsure => (maybe, leader) = (true, None),
                Response::Failed(why) if !maybe => return Err(StoreError::Unavailable(why)),
                Response::Failed(_) => return Err(unsure()),
                Response::NotLeader(told) => leader = told.filter(|told| leader != Some(*told)),
                done => return Ok((done, maybe)),
            }
            if <K::Async as AsyncRuntime>::Instant::now() > deadline {
                return Err(if maybe { unsure() } else { leaderless() });
            }
            if leader.is_none() {
                K::Async::sleep(self.timing.pause).await;
                leader = self.leader();
            }
        }
    }

    fn leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow_watched().current_leader
    }

    /// How long to wait for one answer: what may be asked for again is, while there is still patience.
    fn attempt(&self, request: &Request<K>) -> Duration {
        if request.repeatable() { self.timing.patience / 3 } else { self.timing.patience }
    }

    /// As [`Group::answer`], for so long: without a majority nothing ends by itself.
    async fn answer_in_time(&self, request: Request<K>, time: Duration) -> Response<K> {
        let late = if request.changes() { Response::Unsure } else { Response::NotLeader(None) };
        K::Async::timeout(time, self.answer(request)).await.unwrap_or(late)
    }

    /// Asks another, until it answers or is known not to lead any more: one that was lost says nothing.
    async fn ask(&self, other: NodeId, request: &Request<K>) -> Response<K> {
        let member = self.members().remove(&other).unwrap_or_default();
        let asked =
            network::ask(&self.network, &self.core.standing, other, &member, request, self.attempt(request));
        let sure = match K::Async::select2(asked, self.deposed(other)).await {
            Select2::First(Ok(response)) => return response,
            Select2::First(Err(e)) => !e.maybe_arrived,
            Select2::Second(()) => false,
        };
        if sure || !request.changes() { Response::NotLeader(None) } else { Response::Unsure }
    }

    /// Waits until another leads than this one, as far as is known here.
    async fn deposed(&self, node: NodeId) {
        let mut metrics = self.raft.server_metrics();
        while metrics.borrow_watched().current_leader.is_none_or(|leader| leader == node) {
            if metrics.changed().await.is_err() {
                // This replica is being stopped.
                return;
            }
        }
    }

    fn members(&self) -> BTreeMap<NodeId, Member> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.nodes().map(|(node, member)| (*node, member.clone())).collect()
    }

    async fn propose_anywhere(self: Arc<Self>, command: Command) -> Result<Reply, StoreError> {
        let (_held, command) = self.ticketed(command);
        let ends_lease = matches!(command, Command::Revoke(_));
        let (reply, index) = match self.ask_leader(&Request::Propose(command)).await? {
            // What asked for first has ended it.
            (Response::Done(Reply::Refused(StoreError::LeaseExpired(_)), index), true) if ends_lease => {
                (Reply::Revoked, index)
            }
            (Response::Done(reply, index), _) => (reply, index),
            _ => return Err(unsure()),
        };
        // It is done; that it cannot be seen here yet would not undo it.
        if K::Async::timeout(self.timing.patience, self.core.wait_applied(index)).await.is_err() {
            tracing::warn!(index, "this replica is far behind");
        }
        Ok(reply)
    }

    /// A command that may be asked for again, and what says that it is waited for.
    fn ticketed(&self, command: Command) -> (Option<Held<'_>>, Command) {
        match command {
            Command::Txn(txn) => {
                let held = self.tickets.take();
                let ticket = held.ticket;
                (Some(held), Command::Once(ticket, txn))
            }
            other => (None, other),
        }
    }

    async fn catch_up_anywhere(self: Arc<Self>) -> Result<(), StoreError> {
        let (Response::Index(index), _) = self.ask_leader(&Request::ReadIndex).await? else {
            return Err(unsure());
        };
        let seen = K::Async::timeout(self.timing.patience, self.core.wait_applied(index)).await;
        seen.map_err(|_| StoreError::Unavailable("this replica is far behind".into()))
    }

    /// Has the leader do what is only done or not.
    async fn order(self: Arc<Self>, request: Request<K>) -> Result<(), StoreError> {
        match self.ask_leader(&request).await? {
            (Response::Ok, _) => Ok(()),
            _ => Err(unsure()),
        }
    }
}

fn leaderless() -> StoreError {
    StoreError::Unavailable("the group has no leader; nothing was done".into())
}

fn unsure() -> StoreError {
    StoreError::Unavailable("the leader was lost meanwhile; it may or may not have been done".into())
}

#[async_trait]
impl<K: Runtime> Replica for Group<K> {
    async fn propose(self: Arc<Self>, command: Command) -> Result<Reply, StoreError> {
        if self.alone() {
            match self.propose_here(command.clone()).await {
                Ok((reply, _)) => return Ok(reply),
                Err(Miss::Refused(e)) => return Err(e),
                Err(Miss::Unsure) => return Err(unsure()),
                Err(Miss::NotLeader(_)) => {}
            }
        }
        let group = self.clone();
        self.there(group.propose_anywhere(command)).await
    }

    async fn catch_up(self: Arc<Self>) -> Result<(), StoreError> {
        if self.alone() {
            return Ok(());
        }
        let group = self.clone();
        self.there(group.catch_up_anywhere()).await
    }

    async fn keep_alive(self: Arc<Self>, lease: LeaseId) -> Result<(), StoreError> {
        if self.alone() {
            self.lessor()?;
            return self.core.leases.keep_alive(lease);
        }
        let group = self.clone();
        self.there(group.order(Request::KeepAlive(lease))).await
    }

    async fn change(self: Arc<Self>, change: Change) -> Result<(), StoreError> {
        let group = self.clone();
        self.there(group.order(Request::Change(change))).await
    }

    async fn serve(self: Arc<Self>, request: Bytes, caller: Caller) -> Bytes {
        let response = match Request::<K>::decode(&request) {
            Ok((_, request)) if !caller.may_ask(&request) => {
                Response::Failed("a witness may not ask for this".into())
            }
            Ok((head, request)) => match self.core.standing.admit(self.me, head) {
                Ok(()) => self.answer_in_time(request, self.timing.patience).await,
                Err(Refusal::LeftBehind(generation)) => Response::LeftBehind(generation),
                Err(Refusal::Misdirected(why)) => Response::Failed(why.into()),
            },
            Err(e) => Response::Failed(e.to_string()),
        };
        response.encode().unwrap_or_default()
    }

    fn status(&self) -> Status {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        Status {
            node: self.me,
            leader: metrics.current_leader,
            term: metrics.vote.leader_id.term,
            voters: metrics.membership_config.voter_ids().collect(),
            members: metrics
                .membership_config
                .nodes()
                .map(|(node, member)| (*node, member.clone()))
                .collect(),
            applied: self.core.applied().log_id.map_or(0, |at| at.index),
            last: self.core.tail().last.map_or(0, |at| at.index),
            generation: self.core.standing.generation(),
        }
    }

    async fn stop(&self) {
        // It ends either way.
        drop(self.raft.shutdown().await);
    }
}
