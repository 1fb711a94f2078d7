//! Which volumes are encrypted, and under which key: their type says whether, their source may say under which.
//!
//! The engine encrypts, always by AES-256 in XTS mode, whatever format a type names for those who would do it elsewhere. A
//! type whose cipher is another, or whose key is longer, gets no volumes.

use cairn_gateway::{ApiError, ApiResult};
use cairn_shards::crypt::keys::{self, SealedKey};
use cairn_shards::model::VolumeSpec;
use cairn_state::Tx;

use crate::create::{NewVolume, Source};
use crate::model::{Encryption, Volume, VolumeType};

/// The cipher that there is.
pub const CIPHER: &str = "aes-xts-plain64";
/// Bits of its keys.
pub const KEY_BITS: u64 = 512;

/// What of a type's encryption cannot be had.
pub fn unmet(wanted: &Encryption) -> Option<String> {
    if let Some(cipher) = wanted.cipher.as_ref().filter(|c| *c != CIPHER) {
        return Some(format!("the cipher {cipher}"));
    }
    wanted.key_size.filter(|bits| *bits > KEY_BITS).map(|bits| format!("keys of {bits} bits"))
}

/// The key of a new volume. One made of another volume, or a snapshot, is encrypted if and as that is; what else goes into an
/// encrypted one comes under a key of its own.
pub fn of_new(
    tx: &mut Tx,
    wanted: &NewVolume,
    volume_type: &VolumeType,
    source: Option<&VolumeSpec>,
) -> ApiResult<Option<SealedKey>> {
    let inherited = source.and_then(|s| s.key.clone());
    if wanted.hidden {
        return Ok(inherited);
    }
    let encrypts = volume_type.encryption.is_some();
    match (&wanted.source, inherited) {
        (_, Some(key)) if encrypts => Ok(Some(key)),
        (Source::Empty | Source::Image(_), None) if encrypts => Ok(Some(keys::generate(tx)?)),
        (_, None) if !encrypts => Ok(None),
        (source, key) => Err(mismatch(source, key.is_some(), &volume_type.name)),
    }
}

/// Refuses to put what is encrypted where it would lie in plaintext.
pub fn require_secret(tx: &mut Tx, source: &str, volume: &Volume) -> ApiResult<()> {
    if volume.key.is_some() || tx.get::<VolumeSpec>(source)?.is_none_or(|spec| spec.key.is_none()) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "Invalid volume: {source} is of an encrypted volume, and volume {} is not encrypted.",
        volume.id
    )))
}

fn mismatch(source: &Source, encrypted: bool, name: &str) -> ApiError {
    let what = match source {
        Source::Image(_) => "image",
        Source::Snapshot(_) => "snapshot",
        _ => "volume",
    };
    let (is, has) = if encrypted { ("encrypted", "no") } else { ("not encrypted", "an") };
    ApiError::bad_request(format!(
        "Invalid volume_type provided: {name} (requested type is not compatible; the source {what} is {is}, the type has \
         {has} encryption)."
    ))
}
