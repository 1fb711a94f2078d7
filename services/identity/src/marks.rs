//! What makes cached tokens be looked at again: marks touched in the transaction that changes their subject.
//!
//! Whoever changes a record that [`crate::validate`] reads must touch the mark it is found by, here and nowhere
//! else.

use cairn_gateway::ApiError;
use cairn_state::{LocalStore, Revision, Tx, record};

use crate::model::Mark;

/// Names one mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkId(String);

impl MarkId {
    /// Everything that concerns many: roles, implications, domains, inherited assignments.
    pub fn all() -> MarkId {
        MarkId("all".into())
    }

    /// A user: the record, direct assignments, memberships, trusts, application credentials, revoked tokens.
    pub fn user(id: &str) -> MarkId {
        MarkId(format!("user/{id}"))
    }

    /// A project or domain: the record, and the assignments of groups on it.
    pub fn scope(id: &str) -> MarkId {
        MarkId(format!("scope/{id}"))
    }

    /// Changes the mark's revision.
    pub fn touch(self, tx: &mut Tx) -> Result<(), ApiError> {
        Ok(tx.put(&Mark { id: self.0 })?)
    }

    /// Removes the mark with its subject.
    pub fn remove(self, tx: &mut Tx) -> Result<(), ApiError> {
        Ok(tx.delete::<Mark>(&self.0).map(drop)?)
    }
}

/// The marks a token rests on, and how they stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen(Vec<(String, Option<Revision>)>);

impl Seen {
    /// How these marks stand now: a point read each.
    pub fn read(store: &LocalStore, marks: Vec<MarkId>) -> Result<Seen, ApiError> {
        let snapshot = store.snapshot()?;
        let mut seen = Vec::with_capacity(marks.len());
        for MarkId(id) in marks {
            let key = record::key::<Mark>(&id);
            let at = snapshot.get(&key)?.map(|e| e.modified);
            seen.push((key, at));
        }
        Ok(Seen(seen))
    }

    /// Whether they all still stand so.
    pub fn holds(&self, store: &LocalStore) -> Result<bool, ApiError> {
        let snapshot = store.snapshot()?;
        for (key, at) in &self.0 {
            if snapshot.get(key)?.map(|e| e.modified) != *at {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
