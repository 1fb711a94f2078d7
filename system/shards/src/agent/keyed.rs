//! What the reconciler does differently with volumes that have a key: nothing of them is served, or filled, but through
//! their cipher.

use std::io;
use std::sync::Arc;

use super::reconcile::Volumes;
use crate::crypt::layer::Encrypted;
use crate::crypt::recode::Recode;
use crate::media::{self, Media};
use crate::model::VolumeSpec;

impl Volumes {
    /// What may be served of a volume: its plaintext, whatever is beneath.
    pub(super) fn guarded(&self, spec: &VolumeSpec, media: Arc<dyn Media>) -> io::Result<Arc<dyn Media>> {
        Ok(match &spec.key {
            Some(key) => Arc::new(Encrypted::new(media, self.keys.open(key)?)),
            None => media,
        })
    }

    /// How a new volume's content comes under its key, if its source is not under the same.
    pub(super) fn recode(&self, spec: &VolumeSpec) -> io::Result<Option<Recode>> {
        let Some(recoded) = &spec.recoded else { return Ok(None) };
        let open = |key: &Option<_>| key.as_ref().map(|key| self.keys.open(key)).transpose();
        Ok(Some(Recode { from: open(&recoded.from)?, to: open(&spec.key)? }))
    }

    /// What was looked for; `None` while the cloud's key is on its way here, which is no failure.
    pub(super) fn known<T>(&self, found: io::Result<T>) -> io::Result<Option<T>> {
        match found {
            Err(e) if media::wait_of(&e).is_some() => Ok(None),
            found => found.map(Some),
        }
    }
}
