//! The records of migrations: made, carried on, and removed some days after their end.

use cairn_state::{Abort, Tx};
use jiff::Timestamp;

use crate::model::{
    Counter, INDEX_ENDED, Migration, MigrationKind, MigrationStatus, MoveStatus, Moving, Server,
    move_status_id,
};

/// For how many days a migration is kept.
const KEPT_DAYS: i64 = 30;
/// What counts migrations.
const COUNTER: &str = "migration";

/// Makes the record of a move that begins.
pub fn open(
    tx: &mut Tx,
    server: &Server,
    user_id: &str,
    kind: MigrationKind,
    to: &str,
    new_flavor: &str,
) -> Result<Migration, Abort> {
    let last = tx.get::<Counter>(COUNTER)?.map_or(0, |c| c.last);
    tx.put(&Counter { what: COUNTER.into(), last: last + 1 })?;
    let migration = Migration {
        number: last + 1,
        uuid: uuid::Uuid::new_v4().to_string(),
        server_id: server.id.clone(),
        project_id: server.project_id.clone(),
        user_id: user_id.to_owned(),
        kind,
        source: server.host.clone().unwrap_or_default(),
        dest: to.to_owned(),
        status: match kind {
            MigrationKind::Live => MigrationStatus::Preparing,
            MigrationKind::Evacuation => MigrationStatus::Accepted,
            _ => MigrationStatus::Migrating,
        },
        old_flavor: server.flavor.id.clone(),
        new_flavor: new_flavor.to_owned(),
        created: Timestamp::now(),
        updated: None,
        message: None,
    };
    tx.put(&migration)?;
    Ok(migration)
}

/// Notes how far a move is; with its end, what its nodes said of it is removed.
pub fn mark(
    tx: &mut Tx,
    server_id: &str,
    moving: &Moving,
    status: MigrationStatus,
    message: Option<&str>,
) -> Result<(), Abort> {
    if let Some(mut migration) = find(tx, moving.number)? {
        migration.status = status;
        migration.updated = Some(Timestamp::now());
        migration.message = message.map(str::to_owned);
        tx.put(&migration)?;
    }
    if status.ended() {
        for node in [&moving.from, &moving.to] {
            tx.delete::<MoveStatus>(&move_status_id(server_id, node))?;
        }
    }
    Ok(())
}

/// Removes what a node said of a migration that its server is not making (any more).
pub fn forget(tx: &mut Tx, id: &str) -> Result<(), Abort> {
    let Some(said) = tx.get::<MoveStatus>(id)? else { return Ok(()) };
    let server = tx.get::<Server>(&said.server_id)?;
    let making = server.and_then(|s| s.moving).is_some_and(|m| m.migration == said.migration);
    match making {
        true => Ok(()),
        false => tx.delete::<MoveStatus>(id).map(drop),
    }
}

/// The migration with this number.
pub fn find(tx: &mut Tx, number: u64) -> Result<Option<Migration>, Abort> {
    tx.get::<Migration>(&format!("{number:012}"))
}

/// Removes the records of migrations that ended too long ago.
pub fn purge(tx: &mut Tx, now: Timestamp) -> Result<(), Abort> {
    for age in KEPT_DAYS + 1..KEPT_DAYS + 8 {
        let day = Timestamp::from_second(now.as_second() - age * 86_400).unwrap_or(now);
        let day = day.strftime("%Y-%m-%d").to_string();
        for migration in tx.by_index::<Migration>(INDEX_ENDED, &day)? {
            tx.delete::<Migration>(&format!("{:012}", migration.number))?;
        }
    }
    Ok(())
}
