//! Giving a volume to another project: its owner offers it and gets a key, whoever has the key takes it.
//!
//! Functions of an open transaction. The key is never stored, only what proves that somebody has it. A volume is in
//! one offer at most, and is of no use to anybody until that is taken or taken back.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::{Abort, Tx};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::model::{BY_VOLUME, Snapshot, Status, Transfer, Volume};
use crate::quota::{self, Delta};
use crate::servers::visible;
use crate::types;

/// What is offered.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The volume.
    pub volume_id: String,
    /// A name for the offer.
    pub name: Option<String>,
    /// Whether the volume's snapshots stay behind.
    pub no_snapshots: bool,
    /// Whether an encrypted volume may be offered, which older clients do not know of.
    pub encrypted: bool,
}

/// Offers a volume: `available` becomes `awaiting-transfer`. Gives the key, which nobody can find out later.
pub fn offer(tx: &mut Tx, caller: &Caller, offer: Offer) -> ApiResult<(Transfer, String)> {
    let mut volume = visible(tx, caller, &offer.volume_id)?;
    caller.require_writer()?;
    if volume.status != Status::Available || !volume.made {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} status must be available, but current status is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    if volume.key.is_some() && !offer.encrypted {
        return Err(ApiError::bad_request(
            "Invalid volume: transferring encrypted volumes is supported from microversion 3.70 on.",
        ));
    }
    if let Some(group) = &volume.group_id {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} is in group {group}.",
            volume.id
        )));
    }
    if !offer.no_snapshots {
        require_idle_snapshots(tx, &volume.id)?;
    }
    let id = uuid::Uuid::new_v4().to_string();
    let key = uuid::Uuid::new_v4().simple().to_string();
    let transfer = Transfer {
        proof: proof(&id, &key),
        id,
        volume_id: volume.id.clone(),
        project_id: volume.project_id.clone(),
        name: offer.name,
        no_snapshots: offer.no_snapshots,
        created_at: Timestamp::now(),
    };
    volume.become_status(Status::AwaitingTransfer);
    tx.put(&volume)?;
    tx.put(&transfer)?;
    Ok((transfer, key))
}

fn require_idle_snapshots(tx: &mut Tx, volume_id: &str) -> ApiResult<()> {
    let busy = tx.by_index::<Snapshot>(BY_VOLUME, volume_id)?.into_iter();
    match busy.into_iter().find(|s| s.status != Status::Available) {
        Some(snapshot) => Err(ApiError::bad_request(format!(
            "Invalid snapshot: Snapshot {} status must be available, but current status is: {}.",
            snapshot.id,
            snapshot.status.name()
        ))),
        None => Ok(()),
    }
}

fn proof(id: &str, key: &str) -> String {
    hex::encode(Sha256::new().chain_update(id).chain_update([0]).chain_update(key).finalize())
}

/// The offer with this id, if it is of a project that the caller sees; 404 otherwise.
pub fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Transfer> {
    let found = tx.get::<Transfer>(id)?.filter(|t| caller.sees(&t.project_id));
    found.ok_or_else(|| ApiError::not_found("Transfer", id))
}

/// Takes an offer back.
pub fn withdraw(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<()> {
    let transfer = find(tx, caller, id)?;
    caller.require_writer()?;
    if let Some(mut volume) = tx.get::<Volume>(&transfer.volume_id)?
        && volume.status == Status::AwaitingTransfer
    {
        volume.become_status(Status::Available);
        tx.put(&volume)?;
    }
    tx.delete::<Transfer>(id)?;
    Ok(())
}

/// Takes what is offered, with its snapshots unless they stay, into the caller's project, as far as that may have them.
pub fn accept(tx: &mut Tx, caller: &Caller, id: &str, key: &str) -> ApiResult<Transfer> {
    let project = caller.require_writer()?.to_owned();
    let transfer = tx.get::<Transfer>(id)?.ok_or_else(|| ApiError::not_found("Transfer", id))?;
    if proof(id, key) != transfer.proof {
        return Err(ApiError::bad_request(format!("Attempt to transfer {id} with invalid auth key.")));
    }
    let volume = tx.get::<Volume>(&transfer.volume_id)?;
    let mut volume = volume.ok_or_else(|| ApiError::not_found("Volume", &transfer.volume_id))?;
    if volume.status != Status::AwaitingTransfer {
        return Err(ApiError::bad_request(format!(
            "Invalid volume: Volume {} status must be awaiting-transfer, but current status is: {}.",
            volume.id,
            volume.status.name()
        )));
    }
    types::by_id(tx, caller, &volume.type_id)?;
    quota::check_size(tx, &project, volume.size_gb)?;
    move_to(tx, &project, &volume.project_id, Delta::volume(volume.size_gb, &volume.type_id))?;
    let snapshots = match transfer.no_snapshots {
        true => Vec::new(),
        false => tx.by_index::<Snapshot>(BY_VOLUME, &volume.id)?,
    };
    for mut snapshot in snapshots {
        move_to(tx, &project, &snapshot.project_id, Delta::snapshot(snapshot.size_gb, &snapshot.type_id))?;
        snapshot.project_id.clone_from(&project);
        snapshot.user_id.clone_from(&caller.user_id);
        tx.put(&snapshot)?;
    }
    volume.project_id = project;
    volume.user_id.clone_from(&caller.user_id);
    volume.become_status(Status::Available);
    tx.put(&volume)?;
    tx.delete::<Transfer>(id)?;
    Ok(transfer)
}

fn move_to(tx: &mut Tx, project: &str, from: &str, what: Delta) -> ApiResult<()> {
    quota::refund(tx, from, what)?;
    quota::charge(tx, project, what)
}

/// Forgets the offer of a volume that ends.
pub fn forget(tx: &mut Tx, volume_id: &str) -> Result<(), Abort> {
    for transfer in tx.by_index::<Transfer>(BY_VOLUME, volume_id)? {
        tx.delete::<Transfer>(&transfer.id)?;
    }
    Ok(())
}
