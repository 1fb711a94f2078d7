//! How a move begins: by a request of a user or an administrator, or by the cloud itself. All in the caller's
//! transaction: what is refused has changed nothing.

use cairn_gateway::{ApiError, ApiResult};
use cairn_placement::claims::{self, Resources};
use cairn_state::Tx;
use jiff::Timestamp;

use super::log;
use crate::create::NO_HOST;
use crate::model::{FlavorSnapshot, HostStatus, Migration, MigrationKind, Moving, Server, Stage};
use crate::place::{self, Need};
use crate::{quota, reach};

/// What a move is to be.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The node it must go to.
    pub host: Option<String>,
    /// The flavor it is to have.
    pub flavor: Option<FlavorSnapshot>,
    /// Who asks; empty for the cloud itself.
    pub user_id: String,
    /// Whether the user confirms it in the end.
    pub verify: bool,
}

/// Moves a server whose guest is turned off for it, to another node or flavor or both.
pub fn cold(tx: &mut Tx, server: &mut Server, plan: &Plan) -> ApiResult<Migration> {
    let flavor = plan.flavor.clone().unwrap_or_else(|| server.flavor.clone());
    let kind = if plan.flavor.is_some() { MigrationKind::Resize } else { MigrationKind::Cold };
    let resources = resources(tx, server, &flavor)?;
    let mut need = Need { host: plan.host.clone(), ..Need::of(tx, server, resources)? };
    if kind == MigrationKind::Resize {
        // Its own node may do as well.
        need.none_of.clear();
        quota::admit_exchange(tx, &server.project_id, &server.flavor, &flavor)?;
    }
    let to = place::choose(tx, &need)?.ok_or_else(|| ApiError::bad_request(NO_HOST))?;
    quota::exchange(tx, &server.project_id, &server.flavor, &flavor)?;
    begin(tx, server, plan, kind, (&to, resources), flavor)
}

/// Moves a server whose guest runs on meanwhile.
pub fn live(tx: &mut Tx, server: &mut Server, plan: &Plan) -> ApiResult<Migration> {
    let (flavor, held) = (server.flavor.clone(), claims::held(tx, &server.id)?);
    let host = server.host.clone().unwrap_or_default();
    let here = tx.get::<HostStatus>(&host)?;
    let need = Need {
        host: plan.host.clone(),
        platform: here.as_ref().map(place::platform),
        ..Need::of(tx, server, held)?
    };
    let to = place::choose(tx, &need)?.ok_or_else(|| ApiError::bad_request(NO_HOST))?;
    let migration = begin(tx, server, plan, MigrationKind::Live, (&to, held), flavor)?;
    reach::prepare(tx, server, &to)?;
    Ok(migration)
}

/// Moves a server from a node that is dead, or was said to be. None if no node has room.
pub fn evacuate(tx: &mut Tx, server: &mut Server, plan: &Plan) -> ApiResult<Option<Migration>> {
    let (flavor, held) = (server.flavor.clone(), claims::held(tx, &server.id)?);
    let need = Need { host: plan.host.clone(), ..Need::of(tx, server, held)? };
    let Some(to) = place::choose(tx, &need)? else { return Ok(None) };
    server.error = false;
    begin(tx, server, plan, MigrationKind::Evacuation, (&to, held), flavor).map(Some)
}

/// Claims the other side and notes the move.
fn begin(
    tx: &mut Tx,
    server: &mut Server,
    plan: &Plan,
    kind: MigrationKind,
    (to, resources): (&str, Resources),
    flavor: FlavorSnapshot,
) -> ApiResult<Migration> {
    let migration = log::open(tx, server, &plan.user_id, kind, to, &flavor.id)?;
    claims::hand_over(tx, &server.id, &migration.uuid)?;
    claims::claim(tx, &server.id, to, &resources, &server.project_id, &server.user_id)?;
    let live = kind == MigrationKind::Live;
    server.moving = Some(Moving {
        number: migration.number,
        migration: migration.uuid.clone(),
        kind,
        from: migration.source.clone(),
        to: to.to_owned(),
        stage: if live { Stage::Preparing } else { Stage::Leaving },
        flavor,
        verify: plan.verify,
        since: Timestamp::now(),
        abort: false,
        force: false,
    });
    server.touch();
    Ok(migration)
}

/// What a server needs with this flavor. Its disks' share follows from what it has and how the flavors differ.
fn resources(tx: &mut Tx, server: &Server, flavor: &FlavorSnapshot) -> ApiResult<Resources> {
    let held = claims::held(tx, &server.id)?;
    let own_root = server.root().is_some_and(|v| !v.listed);
    let grown = if own_root { flavor.disk_gb.saturating_sub(server.flavor.disk_gb) } else { 0 };
    Ok(Resources { vcpus: u64::from(flavor.vcpus), memory_mb: flavor.ram_mb, disk_gb: held.disk_gb + grown })
}
