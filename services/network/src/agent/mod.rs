//! The node side of the network service: makes the kernel of one node match the store.
//!
//! Rooms: [`desired`] says what should be, from the records alone; [`plan`] compares it with what is; [`act`]
//! does the difference, over [`netlink`], [`tunnel`], [`netns`], [`nft`], [`sysctl`] and [`sys`]; [`security`] and
//! [`router`] write rules as text; [`fence`] says when this node must keep out of what others may have taken over; [`servers`] keeps [`dhcp`], [`dns`], [`metadata`] and [`advertise`] answering; [`virtual_address`] has the cloud's own address on the LAN; [`status`] says what is
//! reported; [`reconcile`] is the pass that ties them together.
//!
//! The datapath is the kernel's: it goes on while this process is away, and a restarted one changes nothing that
//! is right. It may touch: bridges, taps, veths, tunnels and namespaces whose names say that they are ours, the
//! tables `cairn_guard`, `cairn_sg` and `cairn_tunnel`, and one switch of br_netfilter. It must never touch the node's own links,
//! addresses and routes (the cloud's virtual address, which it has put there itself, is not one of them), never let a guest's port up before its rules are there, and never conclude from an old
//! copy of the records that something is not wanted any more.
//!
//! It needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN (namespaces), the node's own mount namespace (so that
//! `/run/netns` outlives it), `nft`, and the kernel's br_netfilter.

pub mod act;
pub mod advertise;
pub mod announce;
pub mod desired;
pub mod dhcp;
pub mod dns;
pub mod fence;
pub mod mac;
pub mod metadata;
pub mod mirrors;
pub mod names;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod plan;
pub mod reconcile;
pub mod report;
pub mod router;
pub mod security;
pub mod servers;
pub mod status;
pub mod sys;
pub mod sysctl;
pub mod tunnel;
pub mod virtual_address;

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use cairn_state::{AgentArgs, reconcile as state_reconcile};

use self::fence::{Fence, SinceRenewal};
use self::mirrors::Mirrors;
use self::reconcile::NetworkReconciler;
use self::sys::TapOptions;
use self::virtual_address::Keeper;
use crate::model::status::HEARTBEAT_S;

/// How often a pass looks whether the node is still as it should be: with each heartbeat.
const RESYNC: Duration = Duration::from_secs(HEARTBEAT_S as u64 * 2 / 3);
/// How long the start waits for the store before it goes by the copy of the last run.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// Runs the network agent of a node, for ever.
pub async fn run(args: AgentArgs) {
    run_with(args, Options::default()).await;
}

/// How an agent works, where that is not always the same.
#[derive(Clone, Default)]
pub struct Options {
    /// How taps are made.
    pub tap: TapOptions,
    /// How long ago the node's place in the cloud was renewed. Without, the node is taken to be the only one.
    pub since_renewal: Option<SinceRenewal>,
}

/// Runs the network agent of a node, for ever, with these options.
pub async fn run_with(args: AgentArgs, options: Options) {
    if let Err(e) = private_directory(&args.state_dir) {
        tracing::error!(error = %e, directory = %args.state_dir.display(), "nothing can be kept on this node");
    }
    let mirrors = Mirrors::start(&args.store, &args.state_dir).await;
    // With the store at hand, a first pass on the last run's copy would only be undone.
    let _ = tokio::time::timeout(STORE_PATIENCE, mirrors.wait_synced()).await;
    let (mut wakes, reporter) = (mirrors.wakes(), args.reporter.clone());
    let fence = Fence::new(options.since_renewal);
    let followed = mirrors.clone();
    wakes.push(fence.changes(move || followed.synced()));
    let keeper = Keeper::new(args.node.clone(), &args.state_dir).run(args.store.clone(), fence.clone());
    let reconciler = NetworkReconciler::new(&args, mirrors, options.tap, fence);
    tokio::join!(state_reconcile::run(reconciler, wakes, RESYNC, reporter), keeper);
}

/// What guests are told about themselves is kept there too, and is for nobody else to read.
fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}
