//! A writer's connection to a replica, be it on a disk of this node or on another node.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::blocks::{Found, Question};
use super::op::{Failure, Op, Opened};
use super::place;
use super::replica::{Digest, Replica, Replicas};
use super::writer::Seq;
use crate::media::ColdRead;
use crate::sys::{Pieces, Sink};

/// What a replica says on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A step has ended so.
    Done(Seq, Result<(), Failure>),
    /// The connection has ended; nothing more is heard on it.
    Lost(Failure),
}

/// Takes what replicas say. It must return soon.
pub type Ear = Arc<dyn Fn(Answer) + Send + Sync>;

/// A connection to a replica. All calls may block but `close`, and are made on threads that may.
pub trait Link: Send + Sync {
    /// Sends a step; its end is told to the ear.
    fn send(&self, seq: Seq, op: Op);

    /// Reads bytes.
    fn read(&self, offset: u64, len: u64) -> Result<Bytes, Failure>;

    /// What a region holds, block by block; `None` from a release that does not tell.
    fn blocks(&self, question: &Question) -> Result<Option<Found>, Failure>;

    /// Whether it may tell blocks; once it is known not to, nobody need ask.
    fn may_tell_blocks(&self) -> bool {
        true
    }

    /// What a region holds, in one.
    fn digest(&self, region: u64) -> Result<Digest, Failure>;

    /// The blocks of a region that a crash may have left half-written, in bytes of the volume; none from a release that
    /// does not tell.
    fn torn(&self, region: u64) -> Result<Vec<Range<u64>>, Failure>;

    /// Reads what matches its sums.
    fn read_matching(&self, offset: u64, len: u64) -> Result<Bytes, Failure>;

    /// The replica, if it is of this node.
    fn local(&self) -> Option<&LocalLink> {
        None
    }

    /// Ends the connection; no answer is told any more.
    fn close(&self);
}

/// What is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where the replica is, see [`place`].
    pub place: String,
    /// The volume.
    pub volume: String,
    /// The writer's epoch.
    pub epoch: u64,
    /// The volume's size in bytes, to which the replica grows.
    pub size: u64,
}

/// Opens replicas. Calls block.
pub trait Opener: Send + Sync {
    /// Connects to a replica.
    fn open(&self, target: &Target, ear: Ear) -> Result<(Arc<dyn Link>, Opened), Failure>;
}

/// A connection to a replica of this node: steps are done where they are sent.
pub struct LocalLink {
    replica: Arc<Replica>,
    session: u64,
    ear: Ear,
}

impl LocalLink {
    /// Connects to a replica of this node.
    pub fn open(replicas: &Replicas, target: &Target, ear: Ear) -> Result<(Arc<dyn Link>, Opened), Failure> {
        let replica = replicas
            .get(&place::name(&target.volume, &target.place))
            .map_err(|e| Failure::Broken(e.to_string()))?;
        let (session, opened) = replica.begin(target.epoch, target.size)?;
        Ok((Arc::new(LocalLink { replica, session, ear }), opened))
    }

    /// Does a step.
    pub fn apply(&self, seq: Seq, op: &Op) -> Result<(), Failure> {
        self.replica.apply(self.session, seq, op)
    }

    /// Reads into pieces.
    pub fn read_into(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> Result<(), Failure> {
        self.replica.read_into(self.session, offset, len, to)
    }

    /// Reads into pieces if that waits for nothing; false says that nothing was read.
    pub fn try_read_into(&self, offset: u64, len: u64, to: &mut Pieces<'_, Sink>) -> bool {
        self.replica.try_read_into(self.session, offset, len, to)
    }

    /// Where a range lies, for who has it read; what was read counts while the session does.
    pub fn cold(&self, offset: u64, len: u64) -> Option<ColdRead> {
        let (replica, session) = (self.replica.clone(), self.session);
        let place = replica.volume().cold(offset, len)?;
        Some(ColdRead { place, current: Some(Box::new(move || replica.is_session(session))) })
    }
}

impl Link for LocalLink {
    fn send(&self, seq: Seq, op: Op) {
        (self.ear)(Answer::Done(seq, self.apply(seq, &op)));
    }

    fn read(&self, offset: u64, len: u64) -> Result<Bytes, Failure> {
        self.replica.read(self.session, offset, len)
    }

    fn blocks(&self, question: &Question) -> Result<Option<Found>, Failure> {
        self.replica.blocks(self.session, question).map(Some)
    }

    fn digest(&self, region: u64) -> Result<Digest, Failure> {
        self.replica.digest(self.session, region)
    }

    fn torn(&self, region: u64) -> Result<Vec<Range<u64>>, Failure> {
        self.replica.torn(self.session, region)
    }

    fn read_matching(&self, offset: u64, len: u64) -> Result<Bytes, Failure> {
        self.replica.read_matching(self.session, offset, len)
    }

    fn local(&self) -> Option<&LocalLink> {
        Some(self)
    }

    fn close(&self) {}
}
