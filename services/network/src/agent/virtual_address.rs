//! The cloud's virtual address on this node's LAN: there while the record names this node as its holder and the node is
//! in touch with its cloud, and announced when it comes; else not.
//!
//! It touches only the address that it has put there itself, and writes that down before it does. An address that the
//! node has anyway is left alone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_state::{Mirror, SharedStore};
use ipnet::IpNet;

use super::fence::Fence;
use super::netlink::{Link, Netlink};
use super::{announce, netns, sys};
use crate::model::{LAN_BRIDGE, VirtualAddress};

/// How often it looks whether all is still so.
const LOOK: Duration = Duration::from_secs(2);
/// How long after it came the address is announced again: the first time, a switch may not have been forwarding yet.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// What holds the address on a node.
pub struct Keeper {
    node: String,
    ledger: PathBuf,
}

impl Keeper {
    /// For this node; what it has put on the LAN is kept in `dir`.
    pub fn new(node: String, dir: &Path) -> Keeper {
        Keeper { node, ledger: dir.join("virtual-address") }
    }

    /// Keeps it as the record says, for ever.
    pub async fn run(self, store: SharedStore, fence: Fence) {
        let mirror: Mirror<VirtualAddress> = Mirror::start(store, self.ledger.parent()).await;
        let (seen, standing) = (mirror.clone(), fence.clone());
        let (mut changes, mut fenced) = (mirror.changes(), fence.changes(move || seen.synced()));
        loop {
            let record = mirror.get(VirtualAddress::ID).unwrap_or_default();
            let want = record.on(&self.node).filter(|_| !standing.is_down(mirror.synced()));
            if let Err(error) = self.ensure(want).await {
                tracing::warn!(%error, address = ?want, "the cloud's address on this node is not as it should be");
            }
            tokio::select! {
                _ = changes.changed() => {}
                Ok(()) = fenced.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn ensure(&self, want: Option<IpAddr>) -> io::Result<()> {
        let had = self.had()?;
        if want.is_none() && had.is_none() {
            return Ok(());
        }
        let kernel = Netlink::open(None).await?;
        let lan = kernel.link(LAN_BRIDGE).await.map_err(io::Error::other)?;
        let lan = lan.ok_or_else(|| io::Error::other("this node has no lan0"))?;
        let all = kernel.addresses().await.map_err(io::Error::other)?;
        let here: BTreeSet<IpNet> =
            all.into_iter().filter(|(index, _)| *index == lan.index).map(|(_, net)| net).collect();
        if let Some(old) = had.filter(|old| want != Some(*old)) {
            if here.contains(&IpNet::from(old)) {
                kernel.delete_address(lan.index, old.into()).await.map_err(io::Error::other)?;
                tracing::info!(address = %old, "the cloud's address has left this node");
            }
            fs::remove_file(&self.ledger)?;
        }
        match want.filter(|new| !here.iter().any(|net| net.addr() == *new)) {
            Some(new) => self.take(&kernel, &lan, new).await,
            None => Ok(()),
        }
    }

    async fn take(&self, kernel: &Netlink, lan: &Link, address: IpAddr) -> io::Result<()> {
        fs::write(&self.ledger, address.to_string())?;
        kernel.add_address(lan.index, address.into()).await.map_err(io::Error::other)?;
        tracing::info!(%address, "the cloud's address has come to this node");
        let (index, frames) = (lan.index, announce::frames(lan.mac, address));
        let again = frames.clone();
        tokio::spawn(async move {
            for pause in AGAIN_AFTER {
                tokio::time::sleep(pause).await;
                let frames = again.clone();
                // Gone already, with nothing to say any more.
                drop(netns::within(None, move || sys::send_frames(index, &frames)).await);
            }
        });
        netns::within(None, move || sys::send_frames(index, &frames)).await
    }

    /// What it has put on the LAN.
    fn had(&self) -> io::Result<Option<IpAddr>> {
        match fs::read_to_string(&self.ledger) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}
