//! What users are told of a volume when the request that asked for it is long answered.
//!
//! Messages are kept for thirty days, or until their user removes them.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::{Abort, Tx};
use jiff::{SignedDuration, Timestamp};

use crate::model::{BY_LISTED, LISTED, Message, Volume};

/// How long a message is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What happened, by the numbers that the field gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// No node could take the volume.
    NoBackend,
    /// The node that was to make it failed.
    NotMade,
}

impl Event {
    fn id(self) -> &'static str {
        match self {
            Event::NoBackend => "VOLUME_VOLUME_001_002",
            Event::NotMade => "VOLUME_VOLUME_001_001",
        }
    }
}

/// Tells the user of a volume.
pub fn tell(tx: &mut Tx, volume: &Volume, event: Event, text: &str, request_id: &str) -> Result<(), Abort> {
    let now = Timestamp::now();
    tx.put(&Message {
        id: uuid::Uuid::new_v4().to_string(),
        project_id: volume.project_id.clone(),
        resource_type: "VOLUME".into(),
        resource_id: volume.id.clone(),
        event_id: event.id().into(),
        text: text.into(),
        request_id: request_id.into(),
        created_at: now,
        kept_until: now + KEPT,
    })
}

/// The message with this id, if the caller may see it; 404 otherwise.
pub fn find(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Message> {
    let found = tx.get::<Message>(id)?.filter(|m| caller.sees(&m.project_id));
    found.ok_or_else(|| ApiError::not_found("Message", id))
}

/// Removes what has been kept for long enough.
pub fn forget_old(tx: &mut Tx, now: Timestamp) -> Result<(), Abort> {
    for message in tx.by_index::<Message>(BY_LISTED, LISTED)? {
        if message.kept_until < now {
            tx.delete::<Message>(&message.id)?;
        }
    }
    Ok(())
}
