//! The one writer of a volume, as a state machine: events in, actions out. It knows no thread, no clock and no I/O;
//! whoever drives it does the actions in their order and brings back what came of them.
//!
//! A writer claims its epoch in the store, opens the replicas, makes those in sync alike where they may differ
//! (`recovery`), and then serves (`serving`). [`member`] is what it knows of a replica, `touched` where replicas may
//! differ after a crash; `absence` is how it leaves to the next writer what replicas lack that are away.
//!
//! It must never complete a request that a replica lacks which the store calls in sync, or may by now; and never take
//! for whole what it has not compared.

mod absence;
mod action;
mod loss;
pub mod member;
mod recovery;
mod repair;
mod serving;
mod touched;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

pub use self::action::{Action, CopyFailure, Phase, Reading, Swapped};
pub use self::loss::Term;

use self::loss::Loss;
use self::member::{Link, Member, Pending, Settling};
use self::touched::Touched;
use super::op::{Failure, Op, Opened};
use super::place::node_of;
use super::regions::{Marks, REGION, regions_of, units};
use super::set::ReplicaSet;

/// The number of a step that was sent to a replica.
pub type Seq = u64;
/// The number of a request.
pub type RequestId = u64;

/// How long replicas in sync are waited for before those that are not there are called out of sync.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// The same while all that are there have lost what was not flushed: another may have it, or is booting too.
pub const PATIENCE_AFTER_LOSS: Duration = Duration::from_secs(15);
/// How long a replica may take for a step, while another could do without it.
pub const SLOW: Duration = Duration::from_secs(8);
/// How long a replica that could not be connected is left alone.
const RETRY: Duration = Duration::from_secs(1);
/// The most regions that may be rebuilt between two looks at what guests do.
const CREDIT_MAX: u64 = 32;
/// How long marks stay beyond their time, so that what is written often is not marked often.
const CLEAN_EVERY: Duration = Duration::from_secs(5);

/// Why a request waits for a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// It was sent and not answered.
    Answer,
    /// The replica lacks it, and gets it with the regions it missed, or is called out of sync.
    CatchUp,
}

#[derive(Debug)]
struct Request {
    op: Op,
    waits: BTreeMap<String, Wait>,
    /// The number of the flush it is.
    flush: Option<u64>,
    full: bool,
    /// A replica cannot do it for what it holds is corrupt, and no other has it.
    corrupt: Option<String>,
}

/// A region that is being made alike; no request changes it meanwhile.
#[derive(Debug)]
struct Copying {
    from: String,
    to: String,
    session: u64,
    region: u64,
    begun: bool,
    /// The source itself gets it, from one that was not compared yet.
    lent: bool,
}

/// A change of the record that is under way.
#[derive(Debug)]
struct Swap {
    new: ReplicaSet,
    /// Set when it is to be tried again, because nobody knows what became of it.
    retry_at: Option<Duration>,
}

/// The writer of a volume.
#[derive(Debug)]
pub struct Writer {
    term: Term,
    size: u64,
    set: ReplicaSet,
    version: u64,
    phase: Phase,
    members: BTreeMap<String, Member>,
    requests: BTreeMap<RequestId, Request>,
    waiting: VecDeque<(RequestId, Op)>,
    next_seq: Seq,
    next_request: RequestId,
    swap: Option<Swap>,
    /// It has changed the record: no earlier writer can, any more.
    claimed: bool,
    copy: Option<Copying>,
    /// How many regions may be copied to replicas that nobody waits for.
    credit: u64,
    touched: Touched,
    /// Changes that some replicas have and others had no room for; they stand until they are made again.
    uneven: Vec<Range<u64>>,
    /// Regions that the source could not give, since this time: they are not copied for a while.
    unreadable: Marks,
    /// Regions that were found to be corrupt while replicas are made alike, and where.
    rotten: BTreeSet<(u64, String)>,
    unreadable_since: Duration,
    loss: Loss,
    /// Replicas in sync were asked what those lack that are away, which is done once: later this writer knows better.
    recalled: bool,
    cleaned_at: Duration,
    now: Duration,
    actions: Vec<Action>,
}

impl Writer {
    /// The writer of a volume of `size` bytes; `set` is the record as it was just read.
    pub fn new(term: Term, size: u64, set: ReplicaSet) -> Writer {
        let loss = Loss::new(term.is_continued(&set));
        let mut writer = Writer {
            term,
            size,
            set: ReplicaSet { replicas: Vec::new(), ..set.clone() },
            version: 0,
            phase: Phase::Claiming,
            members: BTreeMap::new(),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            next_seq: 1,
            next_request: 1,
            swap: None,
            claimed: false,
            copy: None,
            credit: 0,
            touched: Touched::default(),
            uneven: Vec::new(),
            unreadable: Marks::default(),
            rotten: BTreeSet::new(),
            unreadable_since: Duration::ZERO,
            loss,
            recalled: false,
            cleaned_at: Duration::ZERO,
            now: Duration::ZERO,
            actions: Vec::new(),
        };
        writer.adopt(set);
        writer
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The epoch it writes under.
    pub fn epoch(&self) -> u64 {
        self.term.epoch
    }

    /// The record as it is known to be.
    pub fn set(&self) -> &ReplicaSet {
        &self.set
    }

    /// The volume's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A number that changes with each change of the record by this writer, see [`Writer::seen`].
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Regions that replicas lack, summed over all of them.
    pub fn behind(&self) -> u64 {
        self.members.values().map(|m| m.missed.len()).sum()
    }

    /// Whether all replicas are whole and nothing is under way.
    pub fn is_settled(&self) -> bool {
        let whole = self.members.values().all(|m| m.is_full() && m.settling == Settling::Done);
        self.phase == Phase::Serving && whole && self.requests.is_empty() && self.swap.is_none()
    }

    /// How many more regions it could be allowed to rebuild, see [`Writer::allow`].
    pub fn wants(&self) -> u64 {
        let behind = |m: &Member| !m.in_sync && m.is_up() && !m.missed.is_empty();
        match self.phase == Phase::Serving && self.members.values().any(behind) {
            true => CREDIT_MAX.saturating_sub(self.credit),
            false => 0,
        }
    }

    /// So many more regions may be copied to replicas out of sync; those in sync are made whole without leave.
    pub fn allow(&mut self, regions: u64) -> Vec<Action> {
        self.credit += regions;
        self.advance()
    }

    /// Where a range is read now.
    pub fn read_from(&self, range: &Range<u64>) -> Reading<'_> {
        if self.phase != Phase::Serving {
            return Reading::Nowhere;
        }
        match self.source(|_| true) {
            Some(_) if self.loss.touches(range) => Reading::Lost,
            source => source.map_or(Reading::Nowhere, Reading::From),
        }
    }

    /// Takes a request on; it ends with [`Action::Complete`].
    pub fn request(&mut self, op: Op) -> (RequestId, Vec<Action>) {
        let id = self.next_request;
        self.next_request += 1;
        self.waiting.push_back((id, op));
        (id, self.advance())
    }

    /// Like [`Writer::request`] for a flush that no user hears of: a loss stays to be told.
    pub fn flush_unheard(&mut self) -> (RequestId, Vec<Action>) {
        self.loss.ignore(self.next_request);
        self.request(Op::Flush)
    }

    /// Time has passed. To be called a few times a second.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        self.now = self.now.max(now);
        self.drop_slow();
        if let Some(swap) = &mut self.swap
            && swap.retry_at.is_some_and(|at| at <= self.now)
        {
            swap.retry_at = None;
            let new = swap.new.clone();
            self.actions.push(Action::Swap { expect: self.set.clone(), new });
        }
        self.clean();
        self.hope();
        self.advance()
    }

    /// A replica is connected.
    pub fn opened(&mut self, node: &str, opened: Opened) -> Vec<Action> {
        let regions = regions_of(self.size);
        let gathering = matches!(self.phase, Phase::Opening(_));
        if let Some(member) = self.members.get_mut(node).filter(|m| m.link == Link::Opening) {
            member.link = Link::Up;
            member.session += 1;
            member.intact = opened.intact;
            // While replicas are gathered it is not known yet which of them is the source.
            if !(gathering && member.in_sync) {
                opened.areas.iter().for_each(|area| member.missed.insert_area(*area, regions));
            }
            if !member.in_sync && opened.kept.as_ref().is_some_and(|kept| kept.fresh) {
                // It was lost and made anew: what it had before it was away is not there.
                (member.missed, member.unknown) = (Marks::all(regions), false);
            }
            (member.marked, member.kept) = (opened.areas, opened.kept);
            // The volume may have grown while it was being connected.
            let (asked, wanted) = (member.size, self.wanted_size());
            if asked < wanted {
                self.send(node, Op::Grow(wanted), None, 0..0);
            }
        }
        self.advance()
    }

    /// A replica could not be connected, or the connection ended.
    pub fn lost(&mut self, node: &str, why: &Failure) -> Vec<Action> {
        if *why == Failure::Fenced {
            return self.fence();
        }
        self.disconnect(node);
        self.advance()
    }

    /// A step was answered.
    pub fn done(&mut self, node: &str, seq: Seq, result: Result<(), Failure>) -> Vec<Action> {
        let Some(member) = self.members.get_mut(node) else { return Vec::new() };
        let Some(pending) = member.pending.remove(&seq) else { return Vec::new() };
        match result {
            Ok(()) if member.settling == Settling::Asked(seq) => {
                member.settling = Settling::Done;
                member.intact = true;
                member.copied = Marks::default();
            }
            Err(Failure::Fenced) => return self.fence(),
            Err(Failure::Corrupt(why)) if !pending.range.is_empty() => {
                self.refused_as_corrupt(node, &pending, why);
            }
            Err(Failure::Broken(_) | Failure::Corrupt(_)) => {
                self.actions.push(Action::Close(node.into()));
                // It was answered, and is as good as not: the request waits for another answer.
                self.await_catch_up(node, pending.request);
                self.disconnect(node);
            }
            Ok(()) | Err(Failure::Full) => self.answered(node, pending.request, result.is_err()),
        }
        self.advance()
    }

    /// A copy has ended.
    pub fn copied(&mut self, result: Result<(), CopyFailure>) -> Vec<Action> {
        let Some(copy) = self.copy.take() else { return Vec::new() };
        match result {
            Ok(()) => {
                let member =
                    self.members.get_mut(&copy.to).filter(|m| m.session == copy.session && m.is_up());
                if let Some(member) = member {
                    member.missed.remove(copy.region);
                    member.copied.insert(copy.region);
                }
            }
            Err(CopyFailure::Corrupt) => self.not_copied(&copy),
            Err(failed) => {
                let node = if failed == CopyFailure::Source { copy.from } else { copy.to };
                self.actions.push(Action::Close(node.clone()));
                self.disconnect(&node);
            }
        }
        self.advance()
    }

    /// A change of the record has ended.
    pub fn swapped(&mut self, result: Swapped) -> Vec<Action> {
        let Some(swap) = self.swap.take() else { return Vec::new() };
        match result {
            Swapped::Done => {
                self.claimed = true;
                self.version += 1;
                self.adopt(swap.new);
            }
            Swapped::Found(Some(found)) => {
                self.version += 1;
                if found.epoch > self.term.epoch || self.knows_by_another_name(&found) {
                    return self.fence();
                }
                self.distrust(&found);
                self.adopt(found);
            }
            Swapped::Found(None) => return self.fence(),
            Swapped::Unknown => {
                self.swap = Some(Swap { retry_at: Some(self.now + RETRY), ..swap });
            }
        }
        self.advance()
    }

    /// The record was read, after [`Writer::version`] was `version`.
    pub fn seen(&mut self, set: ReplicaSet, version: u64) -> Vec<Action> {
        if set.epoch > self.term.epoch {
            return self.fence();
        }
        if version == self.version && self.swap.is_none() && set != self.set {
            if self.knows_by_another_name(&set) {
                return self.fence();
            }
            self.distrust(&set);
            self.adopt(set);
        }
        self.advance()
    }

    /// Another has the volume, or will have.
    pub fn fence(&mut self) -> Vec<Action> {
        if self.phase != Phase::Fenced {
            self.phase = Phase::Fenced;
            self.copy = None;
            self.actions.extend(self.members.keys().cloned().map(Action::Close));
        }
        let ended = self.requests.keys().copied().chain(self.waiting.iter().map(|(id, _)| *id));
        let ended = ended.map(|request| Action::Complete { request, result: Err(Failure::Fenced) });
        self.actions.extend(ended);
        self.requests.clear();
        self.waiting.clear();
        std::mem::take(&mut self.actions)
    }

    /// Whether a replica that has something is where none was: its disk was moved. What it lacks, this writer knows of
    /// another place, and may have on its way there. One that begins anew asks the replicas.
    fn knows_by_another_name(&self, found: &ReplicaSet) -> bool {
        let unknown = |place: &str| !self.members.contains_key(place);
        found.replicas.iter().any(|r| (r.in_sync || r.round > 0) && unknown(&r.place))
    }

    /// Who was called out of sync by somebody else lacks nobody knows what.
    fn distrust(&mut self, found: &ReplicaSet) {
        let all = Marks::all(regions_of(self.size));
        for (node, member) in self.members.iter_mut().filter(|(_, m)| m.in_sync) {
            if !found.is_in_sync(node) {
                member.missed = all.clone();
                member.settling = Settling::Unasked;
            }
        }
    }

    fn adopt(&mut self, set: ReplicaSet) {
        let regions = regions_of(self.size);
        for replica in set.replicas.iter().filter(|r| !r.leaving) {
            let missed = || if replica.in_sync { Marks::default() } else { Marks::all(regions) };
            let member = self.members.entry(replica.place.clone());
            member.or_insert_with(|| Member::new(replica.in_sync, missed())).in_sync = replica.in_sync;
        }
        let gone: Vec<String> =
            self.members.keys().filter(|n| set.on(n).is_none_or(|r| r.leaving)).cloned().collect();
        for node in gone {
            self.members.remove(&node);
            self.actions.push(Action::Close(node));
        }
        let before = self.set.absence();
        self.set = set;
        self.heed_absence(before);
    }

    /// A connection has ended: what was under way on it may be done or not, and what was not flushed may be lost.
    fn disconnect(&mut self, node: &str) {
        let regions = regions_of(self.size);
        let retry_at = self.now + RETRY;
        let Some(member) = self.members.get_mut(node) else { return };
        member.link = Link::Down { retry_at };
        let copied = std::mem::take(&mut member.copied);
        member.missed.extend(copied.iter());
        self.touched.areas().for_each(|area| member.missed.insert_area(area, regions));
        (member.settling, member.intact) = (Settling::Unasked, false);
        let pending = std::mem::take(&mut member.pending);
        for step in pending.into_values() {
            self.await_catch_up(node, step.request);
        }
    }

    fn await_catch_up(&mut self, node: &str, request: Option<RequestId>) {
        if let Some(request) = request.and_then(|id| self.requests.get_mut(&id)) {
            request.waits.insert(node.into(), Wait::CatchUp);
        }
    }

    fn answered(&mut self, node: &str, request: Option<RequestId>, full: bool) {
        if let Some(request) = request.and_then(|id| self.requests.get_mut(&id)) {
            request.waits.remove(node);
            request.full |= full;
        }
    }

    fn send(&mut self, node: &str, op: Op, request: Option<RequestId>, range: Range<u64>) -> Seq {
        let seq = self.next_seq;
        self.next_seq += 1;
        if let Some(member) = self.members.get_mut(node) {
            member.pending.insert(seq, Pending { request, range, sent_at: self.now });
        }
        self.actions.push(Action::Send { node: node.into(), seq, op });
        seq
    }

    fn propose(&mut self, new: ReplicaSet) {
        self.actions.push(Action::Swap { expect: self.set.clone(), new: new.clone() });
        self.swap = Some(Swap { new, retry_at: None });
    }

    /// Whether the store calls it in sync, or may by now.
    fn is_needed(&self, node: &str) -> bool {
        self.set.is_in_sync(node) || self.swap.as_ref().is_some_and(|s| s.new.is_in_sync(node))
    }

    /// A replica that lacks nothing, this node's own if it may be.
    fn source(&self, may: impl Fn(&str) -> bool) -> Option<&str> {
        let full = self.members.iter().filter(|(node, m)| m.is_full() && may(node));
        full.max_by_key(|(node, _)| node_of(node) == self.term.node).map(|(node, _)| node.as_str())
    }

    fn bytes_of(region: u64) -> Range<u64> {
        region * REGION..(region + 1) * REGION
    }

    fn is_locked(&self, range: &Range<u64>) -> bool {
        self.copy.as_ref().is_some_and(|c| units(range, REGION).contains(&c.region))
    }
}
