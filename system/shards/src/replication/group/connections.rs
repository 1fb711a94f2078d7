//! A group's connections to replicas: opened and closed as the writer says, and heard.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Sender;

use super::{Inner, guard};
use crate::replication::link::{Answer, Ear, Link, Target};
use crate::replication::op::Failure;
use crate::replication::writer::Seq;

/// A connection to a replica.
pub(super) struct Connected {
    /// Its number, by which a late word of an earlier one is known.
    number: u64,
    link: Arc<dyn Link>,
    /// The replica was never like the others, and may have nothing.
    is_new: bool,
}

/// Who waits for the steps of a copy.
pub(super) struct Copier {
    /// The node that does them.
    pub node: String,
    /// How many are not answered yet.
    pub left: usize,
    pub tell: Sender<Result<(), Failure>>,
}

impl Inner {
    pub(super) fn link(&self, node: &str) -> Option<Arc<dyn Link>> {
        guard(&self.links).get(node).map(|connected| connected.link.clone())
    }

    /// Whether the replica was never like the others.
    pub(super) fn is_new(&self, node: &str) -> bool {
        guard(&self.links).get(node).is_some_and(|connected| connected.is_new)
    }

    pub(super) fn open(self: &Arc<Inner>, node: String) {
        let made = self.links_made.fetch_add(1, SeqCst);
        let size = guard(&self.state).writer.wanted_size();
        let target = Target { place: node.clone(), volume: self.volume.clone(), epoch: self.epoch, size };
        match self.means.opener.open(&target, self.ear(&node, made)) {
            Ok((link, opened)) => {
                tracing::debug!(volume = self.volume, node, "a replica is connected");
                let is_new = opened.kept.as_ref().is_some_and(|kept| kept.fresh);
                guard(&self.links).insert(node.clone(), Connected { number: made, link, is_new });
                self.handle(true, |writer| writer.opened(&node, opened));
            }
            Err(why) => {
                tracing::debug!(volume = self.volume, node, %why, "a replica cannot be connected");
                self.handle(true, |writer| writer.lost(&node, &why));
            }
        }
    }

    /// What hears the replica of this connection; an older one is not listened to.
    fn ear(self: &Arc<Inner>, node: &str, made: u64) -> Ear {
        let (group, node) = (Arc::downgrade(self), node.to_owned());
        Arc::new(move |answer| {
            let Some(group) = group.upgrade() else { return };
            match answer {
                Answer::Done(seq, result) => group.heard(&node, seq, result),
                Answer::Lost(why) => {
                    let current = guard(&group.links).get(&node).is_none_or(|c| c.number == made);
                    if current {
                        tracing::info!(volume = group.volume, node, %why, "a replica is lost");
                        group.close(&node);
                        group.handle(false, |writer| writer.lost(&node, &why));
                    }
                }
            }
        })
    }

    fn heard(self: &Arc<Inner>, node: &str, seq: Seq, result: Result<(), Failure>) {
        let mut copies = guard(&self.copies);
        let Some(copier) = copies.get_mut(&seq).filter(|copier| copier.node == node) else {
            drop(copies);
            return self.handle(false, |writer| writer.done(node, seq, result));
        };
        copier.left -= 1;
        // Who does not wait any more has closed the connection.
        let _ = copier.tell.send(result);
        if copier.left == 0 {
            copies.remove(&seq);
        }
    }

    pub(super) fn close(&self, node: &str) {
        if let Some(connected) = guard(&self.links).remove(node) {
            connected.link.close();
        }
        guard(&self.copies).retain(|_, copier| copier.node != node);
    }
}
