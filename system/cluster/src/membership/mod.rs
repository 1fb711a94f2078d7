//! Who belongs to the cloud: the records, the changes that may be made to them, and who votes.
//!
//! Every change is one transaction of the store, so it needs a quorum and nothing more: a dead node is removed
//! without being asked. A removed node's record stays for ever, since it is what keeps its key out.

pub mod change;
mod records;
pub mod service;
pub mod voters;

pub use records::{
    Belonging, Cloud, CloudState, JoinPolicy, Member, MemberState, Otherwise, Pin, Request, RequestState,
};
