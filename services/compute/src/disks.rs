//! The disks of servers: made, given and taken back through block storage, in the server's transaction.

use cairn_block::create::{NewVolume, Source};
use cairn_block::model::{Snapshot, Volume};
use cairn_block::servers::{self as block, AttachInfo};
use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_image::Image;
use cairn_state::Tx;

use crate::model::{Flavor, Server, ServerVolume};
use crate::order::{DiskOrder, DiskSource};

/// What an image brings to a server made from it.
pub fn root_image(tx: &mut Tx, caller: &Caller, disks: &[DiskOrder]) -> ApiResult<Option<Image>> {
    match disks.iter().find(|d| d.boot_index == Some(0)).map(|d| &d.source) {
        Some(DiskSource::Local { image } | DiskSource::ImageVolume { image, .. }) => {
            image_of(tx, caller, image).map(Some)
        }
        _ => Ok(None),
    }
}

fn image_of(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Image> {
    cairn_image::usable(tx, caller, id).map_err(|e| match e.status.as_u16() {
        404 => ApiError::bad_request(format!("Can not find requested image {id}.")),
        _ => e,
    })
}

/// The space in GiB that the server's own disks take on its node, beside volumes of the user's.
pub fn local_gb(disks: &[DiskOrder], flavor_disk_gb: u64, flavor_extra_gb: u64) -> u64 {
    let own = disks.iter().map(|d| match &d.source {
        DiskSource::Local { .. } => flavor_disk_gb,
        DiskSource::BlankLocal { size_gb } => *size_gb,
        _ => 0,
    });
    own.sum::<u64>() + flavor_extra_gb
}

/// Makes or reserves a disk for a server and adds it to the server.
pub fn give(
    tx: &mut Tx,
    caller: &Caller,
    server: &mut Server,
    node: &str,
    disk: &DiskOrder,
) -> ApiResult<()> {
    let device = server
        .next_device()
        .ok_or_else(|| ApiError::bad_request("The server has all the disks it can have."))?;
    let (id, listed, attachment) = match &disk.source {
        DiskSource::Local { image } => {
            let image = image_of(tx, caller, image)?;
            let size = server.flavor.disk_gb.max(image.disk_gb_min());
            (block::create_root(tx, caller, &image, size, &server.id, node)?, false, None)
        }
        DiskSource::BlankLocal { size_gb } => {
            (block::create_blank(tx, caller, *size_gb, &server.id, node)?, false, None)
        }
        other => {
            let info = volume(tx, caller, other, &server.id, node, &device)?;
            (info.volume_id, true, Some(info.attachment_id))
        }
    };
    server.volumes.push(ServerVolume {
        volume_id: id,
        attachment_id: attachment.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        bdm_id: uuid::Uuid::new_v4().to_string(),
        device,
        boot: disk.boot_index == Some(0),
        listed,
        delete_on_termination: disk.delete_on_termination || !listed,
        tag: disk.tag.clone(),
        attached: false,
        detaching: false,
    });
    Ok(())
}

fn volume(
    tx: &mut Tx,
    caller: &Caller,
    source: &DiskSource,
    server_id: &str,
    node: &str,
    device: &str,
) -> ApiResult<AttachInfo> {
    let wanted = match source {
        DiskSource::Volume { id } => {
            return block::reserve(tx, caller, id, server_id, node, Some(device));
        }
        DiskSource::ImageVolume { image, size_gb } => {
            let image = image_of(tx, caller, image)?;
            NewVolume { size_gb: Some(*size_gb), ..NewVolume::of(Source::Image(Box::new(image))) }
        }
        DiskSource::SnapshotVolume { snapshot, size_gb } => {
            let found = tx.get::<Snapshot>(snapshot)?.filter(|s| caller.sees(&s.project_id));
            let found = found.ok_or_else(|| {
                ApiError::bad_request(format!(
                    "Block Device Mapping is Invalid: failed to get snapshot {snapshot}."
                ))
            })?;
            NewVolume { size_gb: *size_gb, ..NewVolume::of(Source::Snapshot(Box::new(found))) }
        }
        DiskSource::BlankVolume { size_gb } => {
            NewVolume { size_gb: Some(*size_gb), ..NewVolume::of(Source::Empty) }
        }
        DiskSource::Local { .. } | DiskSource::BlankLocal { .. } => {
            return Err(ApiError::internal("a disk of the server's own is no volume"));
        }
    };
    block::create_attached(tx, caller, wanted, server_id, node, Some(device))
}

/// Grows a server's own root disk to what a flavor gives. It does not shrink again, not even if the server goes back
/// to its old flavor.
pub fn grow_for(tx: &mut Tx, server: &Server, flavor: &Flavor) -> ApiResult<()> {
    match server.root() {
        Some(root) if !root.listed => block::grow_root(tx, &root.volume_id, flavor.disk_gb),
        _ => Ok(()),
    }
}

/// What is wrong with the disks ordered, before any is made: 400 as Nova has it.
pub fn check(tx: &mut Tx, caller: &Caller, disks: &[DiskOrder]) -> ApiResult<()> {
    for disk in disks {
        match &disk.source {
            DiskSource::Volume { id } => {
                let volume = tx.get::<Volume>(id)?.filter(|v| !v.hidden && caller.sees(&v.project_id));
                let volume = volume.ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "Block Device Mapping is Invalid: failed to get volume {id}."
                    ))
                })?;
                if disk.boot_index == Some(0) && !volume.bootable {
                    return Err(ApiError::bad_request(format!("Block Device {id} is not bootable.")));
                }
            }
            DiskSource::Local { image } if disk.boot_index != Some(0) => {
                return Err(ApiError::bad_request(format!(
                    "Block Device Mapping is Invalid: image {image} can be the root disk alone."
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes back every disk of a server that its node has let go of; ends those that go with it.
pub fn take_back(tx: &mut Tx, server: &Server) -> Result<(), cairn_state::Abort> {
    for volume in &server.volumes {
        if volume.delete_on_termination {
            block::delete_root(tx, &volume.volume_id)?;
        } else {
            block::detached(tx, &volume.volume_id, &server.id)?;
        }
    }
    Ok(())
}
