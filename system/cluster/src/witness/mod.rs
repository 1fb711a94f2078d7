//! A witness: a machine that is no node and votes on the store's log, so that a cloud of two nodes bears the loss of
//! either. What the cloud remembers of it ([`records`]), what it is told ([`messages`]), and the code by which a person
//! has a cloud and a witness know each other ([`code`]).
//!
//! It is somebody's third machine, not the cloud's own: it is trusted to vote and to keep what is sealed, and must
//! never be given anything that can be read. One that lies can hold a cloud up, no more. It may serve many clouds:
//! which one a call is of, the caller's key says.

mod code;
mod messages;
mod records;

pub use code::{Code, NotACode, Secret};
pub use messages::{Begin, Known, SERVICE, Told};
pub use records::{SealKey, Witness};
