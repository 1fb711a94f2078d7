//! Volumes whose content another system keeps: a Ceph cluster's images. To all but this module they are volumes like any
//! other: the same records, the same sockets, the same epochs.
//!
//! The seam is the volume's record. [`crate::model::VolumeSpec::backend`] names who has the content; what names nobody, the
//! engine of this crate has, and its reconciler looks after. All others are looked after by [`agent`], which decides as
//! [`plan`] says and acts through a [`driver::Driver`]. [`rbd`] is the one there is. [`model`] has the records of backends,
//! [`orders`] is what the controller does with them, [`check`] what it asks before one is stored.
//!
//! What it may touch: images of a cluster's pool whose names begin as [`rbd`] says, files under the run directory, its
//! sockets, and the records of which it is the writer. What it must never do: show a cluster's key to anybody but the
//! cluster, on a command line or in a log; make an image anew that once had data; let two write an image.

pub mod agent;
pub mod check;
pub mod driver;
pub(crate) mod family;
pub mod model;
pub mod orders;
mod plan;
pub mod rbd;
mod server;
mod serving;
mod told;
