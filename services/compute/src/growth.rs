//! Notes in the logs of servers that a volume of theirs has grown (`extend_volume`). The guest itself is told by the
//! storage agent that serves it.

use std::sync::Arc;

use cairn_block::servers as block;
use cairn_state::{Abort, Tx, conduct};

use crate::Service;
use crate::actions::{self, Actor};
use crate::model::Server;

/// Follows the volumes that servers have; never returns.
pub async fn follow(svc: Arc<Service>) {
    conduct(&svc.store, "grown volumes", &[block::grown_prefix()], || pass(&svc)).await;
}

async fn pass(svc: &Service) -> Result<(), Abort> {
    for volume in svc.store.read(block::grown)? {
        svc.store.transact(|tx| note(tx, &volume.id)).await?;
    }
    Ok(())
}

fn note(tx: &mut Tx, volume_id: &str) -> Result<(), Abort> {
    for id in block::take_grown(tx, volume_id)? {
        if let Some(server) = tx.get::<Server>(&id)? {
            actions::done(tx, &server, &Actor::cloud(), "extend_volume")?;
        }
    }
    Ok(())
}
