//! Builds the Cairn image and everything around it: the userland tree, the guests, the ISO, and the
//! emulated machine and network that the ISO is tried in.
//!
//! It writes under `target/` of the workspace and nowhere else, except for the host packages that
//! [`host`] installs and the network namespace that [`lan`] makes and removes. It must never depend on
//! a crate that needs a library of the host, as it is the program that installs those libraries.

pub mod apt;
pub mod boot_check;
pub mod chroot;
pub mod cloud;
pub mod emulated_cloud;
pub mod emulated_node;
pub mod exec;
pub mod foreign;
pub mod guests;
pub mod host;
pub mod hybrid;
pub mod initrd;
pub mod interrupt;
pub mod iso;
pub mod lan;
pub mod mkosi;
pub mod paths;
pub mod process;
pub mod qmp;
pub mod root_tree;
pub mod stage;
pub mod up;
pub mod vm;

pub use paths::Paths;
pub use stage::Stages;
