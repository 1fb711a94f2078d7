//! The making of servers: one transaction from the order to the records, or nothing at all.
//!
//! A server for which there is no room is still made, in error and with nothing on any node, as Nova's users
//! know it. Anything else that is wrong refuses the whole order.

use std::collections::BTreeSet;

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_image::Image;
use cairn_placement::claims::{self, Resources};
use cairn_state::Tx;
use http::StatusCode;
use jiff::Timestamp;

use crate::actions::{self, Actor};
use crate::model::{
    Aggregate, Boot, BootKind, Fault, Firmware, Flavor, ImageSnapshot, KeySnapshot, Keypair, Power, Server,
    ServerGroup,
};
use crate::order::{DiskOrder, DiskSource, NicWanted, Order, hostname_of};
use crate::place::{self, Need};
use crate::{disks, nics, quota, zones};

/// What Nova says when no node will do.
pub const NO_HOST: &str = "No valid host was found. There are not enough hosts available.";

/// What an order stands on, looked up and checked.
struct Ground {
    flavor: Flavor,
    image: Option<Image>,
    key: Option<KeySnapshot>,
    nics: Vec<NicWanted>,
    groups: Vec<String>,
    reservation_id: String,
}

/// Makes the servers of an order.
pub fn create(tx: &mut Tx, caller: &Caller, actor: &Actor, order: &Order) -> ApiResult<Vec<Server>> {
    let project = caller.require_writer()?.to_owned();
    let ground = ground(tx, caller, &project, order)?;
    let count = quota::admit(tx, &project, &ground.flavor.snapshot(), order.min_count, order.max_count)?;
    let many = order.max_count > 1;
    (0..count).map(|index| one(tx, caller, actor, order, &ground, (index, many))).collect()
}

fn ground(tx: &mut Tx, caller: &Caller, project: &str, order: &Order) -> ApiResult<Ground> {
    if order.host.is_some() {
        caller.require_admin()?;
    }
    let flavor = flavor(tx, project, caller, &order.flavor)?;
    let image = disks::root_image(tx, caller, &order.disks)?;
    if let Some(image) = &image {
        check_fit(image, &flavor, &order.disks)?;
    }
    disks::check(tx, caller, &order.disks)?;
    check_metadata_count(tx, project, order.metadata.len())?;
    check_place(tx, order)?;
    cairn_network::servers::check_groups(tx, caller, &order.groups).map_err(nics::as_nova)?;
    let key = order.key_name.as_deref().map(|name| key(tx, caller, name)).transpose()?;
    Ok(Ground {
        key,
        nics: nics::wanted(tx, caller, &order.nics)?,
        groups: order.groups.clone(),
        reservation_id: reservation_id(),
        flavor,
        image,
    })
}

fn reservation_id() -> String {
    let id = uuid::Uuid::new_v4().simple().to_string();
    format!("r-{}", &id[..8])
}

fn flavor(tx: &mut Tx, project: &str, caller: &Caller, id: &str) -> ApiResult<Flavor> {
    let found = tx.get::<Flavor>(id)?.filter(|f| caller.is_admin() || f.open_to(project));
    let bad = || ApiError::bad_request(format!("Flavor {id} could not be found."));
    found.filter(|f| !f.disabled).ok_or_else(bad)
}

fn key(tx: &mut Tx, caller: &Caller, name: &str) -> ApiResult<KeySnapshot> {
    let found = tx.get::<Keypair>(&format!("{}/{name}", caller.user_id))?;
    let key = found.ok_or_else(|| ApiError::bad_request("Invalid key_name provided."))?;
    Ok(KeySnapshot { name: key.name, kind: key.kind, public_key: key.public_key })
}

/// The image must fit the flavor.
fn check_fit(image: &Image, flavor: &Flavor, disks: &[DiskOrder]) -> ApiResult<()> {
    if flavor.ram_mb < image.min_ram {
        return Err(ApiError::bad_request("Flavor's memory is too small for requested image."));
    }
    let root = disks.iter().find(|d| d.boot_index == Some(0)).map(|d| &d.source);
    let room = match root {
        // A flavor that names no size takes the image's.
        Some(DiskSource::Local { .. }) if flavor.disk_gb > 0 => flavor.disk_gb,
        Some(DiskSource::ImageVolume { size_gb, .. }) => *size_gb,
        _ => return Ok(()),
    };
    if room < image.disk_gb_min() {
        return Err(ApiError::bad_request(format!(
            "Flavor's disk is too small for requested image. Flavor disk is {room} GiB, the image needs {} GiB.",
            image.disk_gb_min()
        )));
    }
    Ok(())
}

/// Refuses with 403 more metadata items than the project may have.
pub fn check_metadata_count(tx: &mut Tx, project: &str, count: usize) -> ApiResult<()> {
    let limit = quota::limit(tx, project, "metadata_items")?;
    if limit >= 0 && count as i64 > limit {
        return Err(ApiError::forbidden(format!("Maximum number of metadata items exceeds {limit}")));
    }
    Ok(())
}

/// The zone and the host named must be there.
fn check_place(tx: &mut Tx, order: &Order) -> ApiResult<()> {
    let hosts = zones::hosts(tx)?;
    if let Some(zone) = &order.zone
        && zone != zones::DEFAULT_ZONE
        && !tx.list_unfenced::<Aggregate>()?.iter().any(|a| a.metadata.get("availability_zone") == Some(zone))
    {
        return Err(ApiError::bad_request("The requested availability zone is not available"));
    }
    match &order.host {
        Some(host) if !hosts.iter().any(|h| &h.status.node == host) => {
            Err(ApiError::bad_request(format!("Compute host {host} could not be found.")))
        }
        _ => Ok(()),
    }
}

fn one(
    tx: &mut Tx,
    caller: &Caller,
    actor: &Actor,
    order: &Order,
    ground: &Ground,
    (index, many): (u32, bool),
) -> ApiResult<Server> {
    let mut server = blank(caller, order, ground, index, many);
    quota::count(tx, &server.project_id, &server.flavor, 1)?;
    let extra_gb = ground.flavor.ephemeral_gb + ground.flavor.swap_mb.div_ceil(1024);
    let wanted = Resources {
        vcpus: u64::from(ground.flavor.vcpus),
        memory_mb: ground.flavor.ram_mb,
        disk_gb: disks::local_gb(&order.disks, root_gb(ground), extra_gb),
    };
    let need = Need {
        resources: wanted,
        zone: order.zone.clone(),
        host: order.host.clone(),
        group: group(tx, caller, order)?,
        hints: order.hints.clone(),
        ..Need::default()
    };
    match place::choose(tx, &need)? {
        Some(host) => settle(tx, caller, order, ground, &mut server, &host, &wanted)?,
        None => fail(&mut server, NO_HOST),
    }
    actions::begin(tx, &mut server, actor, "create")?;
    if server.error {
        actions::finish(tx, &mut server, Some(NO_HOST))?;
    }
    tx.put(&server)?;
    Ok(server)
}

fn root_gb(ground: &Ground) -> u64 {
    let image = ground.image.as_ref().map_or(0, Image::disk_gb_min);
    ground.flavor.disk_gb.max(image)
}

/// Puts a server in error.
pub fn fail(server: &mut Server, message: &str) {
    server.error = true;
    server.fault = Some(fault(message));
}

/// What went wrong just now, not by the user's doing.
pub fn fault(message: &str) -> Fault {
    Fault { code: 500, created: Timestamp::now(), message: message.into() }
}

fn blank(caller: &Caller, order: &Order, ground: &Ground, index: u32, many: bool) -> Server {
    let id = uuid::Uuid::new_v4().to_string();
    let name = if many { format!("{}-{}", order.name, index + 1) } else { order.name.clone() };
    let numbered = |h: &String| if many { format!("{h}-{}", index + 1) } else { h.clone() };
    let now = Timestamp::now();
    Server {
        hostname: order.hostname.as_ref().map(numbered).unwrap_or_else(|| hostname_of(&name, &id)),
        id,
        project_id: caller.project_id.clone(),
        user_id: caller.user_id.clone(),
        description: order.description.clone(),
        created: now,
        updated: now,
        launched_at: None,
        image: image_snapshot(order, ground),
        flavor: ground.flavor.snapshot(),
        firmware: firmware(ground.image.as_ref()),
        host: None,
        pinned_zone: order.zone.clone(),
        key: ground.key.clone(),
        user_data: order.user_data.clone(),
        metadata: order.metadata.clone(),
        tags: order.tags.clone(),
        access_ipv4: order.access_ipv4.clone(),
        access_ipv6: order.access_ipv6.clone(),
        disk_config: order.disk_config.clone(),
        config_drive: order.config_drive,
        lock: None,
        reservation_id: ground.reservation_id.clone(),
        launch_index: index,
        group: order.group.clone(),
        hints: order.hints.clone(),
        power: Power::Running,
        boot: Boot { seq: 1, kind: BootKind::Start },
        volumes: Vec::new(),
        ports: Vec::new(),
        fault: None,
        error: false,
        open_action: None,
        generation: 1,
        deleted: false,
        moving: None,
        tried: BTreeSet::new(),
        name,
    }
}

/// A server whose root disk is a volume shows no image.
fn image_snapshot(order: &Order, ground: &Ground) -> ImageSnapshot {
    let local = matches!(order.disks.first().map(|d| &d.source), Some(DiskSource::Local { .. }));
    match &ground.image {
        Some(image) => ImageSnapshot {
            id: if local { image.id.clone() } else { String::new() },
            properties: image.properties.clone(),
        },
        None => ImageSnapshot::default(),
    }
}

fn firmware(image: Option<&Image>) -> Firmware {
    match image.and_then(|i| i.properties.get("hw_firmware_type")).map(String::as_str) {
        Some("uefi") => Firmware::Uefi,
        _ => Firmware::Bios,
    }
}

/// Gives the server its place on a host: its claim, ports and disks, and what its guest is told.
fn settle(
    tx: &mut Tx,
    caller: &Caller,
    order: &Order,
    ground: &Ground,
    server: &mut Server,
    host: &str,
    wanted: &Resources,
) -> ApiResult<()> {
    claims::claim(tx, &server.id, host, wanted, &server.project_id, &server.user_id)?;
    server.host = Some(host.to_owned());
    let zone = zones::shown_zone(tx, server)?;
    for nic in &ground.nics {
        nics::plug(tx, caller, server, host, nic, &ground.groups)?;
    }
    for disk in &order.disks {
        disks::give(tx, caller, server, host, disk).map_err(no_room)?;
    }
    for size_gb in
        [ground.flavor.ephemeral_gb, ground.flavor.swap_mb.div_ceil(1024)].into_iter().filter(|s| *s > 0)
    {
        let blank = DiskOrder {
            source: DiskSource::BlankLocal { size_gb },
            boot_index: None,
            delete_on_termination: true,
            tag: None,
        };
        disks::give(tx, caller, server, host, &blank).map_err(no_room)?;
    }
    nics::publish(tx, server, &zone)
}

/// Block storage's refusals, as Nova tells them when a server is made.
fn no_room(e: ApiError) -> ApiError {
    match e.status {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::forbidden(e.message),
        StatusCode::NOT_FOUND => ApiError::bad_request(e.message),
        _ => e,
    }
}

/// The group of an order, if there is room for one more.
fn group(tx: &mut Tx, caller: &Caller, order: &Order) -> ApiResult<Option<ServerGroup>> {
    let Some(id) = &order.group else { return Ok(None) };
    let group = tx.get::<ServerGroup>(id)?.filter(|g| caller.sees(&g.project_id));
    let group =
        group.ok_or_else(|| ApiError::bad_request(format!("Instance group {id} could not be found.")))?;
    let members = place::members(tx, id, None)?;
    quota::admit_one(tx, &group.project_id, "server_group_members", members.len())?;
    Ok(Some(group))
}
