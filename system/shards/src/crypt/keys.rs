//! Keys of volumes: made by the controller, sealed under the cloud's own, opened where a volume is served.
//!
//! The cloud's key is one record, made with the first volume that needs it, which the controller and the storage processes
//! may read. A volume's key goes with the volume's record, sealed, and ends with it; a clone has its source's.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cairn_state::{Abort, Mirror, Record, SharedStore, StoreError, Tx, record};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::xts::{Cipher, KEY_BYTES};
use crate::media;

const ONLY: &str = "this";

/// The key under which the keys of volumes are sealed. Writer: the controller, once.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct CloudKey {
    /// 32 bytes, in hex. Never shown.
    key: String,
}

impl fmt::Debug for CloudKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CloudKey")
    }
}

impl Record for CloudKey {
    const KIND: &'static str = "shards/cloud-key";

    fn id(&self) -> String {
        ONLY.into()
    }
}

/// A volume's key, of no use without the cloud's.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// What it is called, a UUID.
    pub id: String,
    /// Nonce, ciphertext and tag, in hex; bound to the id.
    sealed: String,
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKey({})", self.id)
    }
}

impl CloudKey {
    fn generate() -> Result<CloudKey, Abort> {
        Ok(CloudKey { key: hex::encode(random::<32>()?) })
    }

    fn ready(&self) -> Option<LessSafeKey> {
        let mut key = [0; 32];
        hex::decode_to_slice(&self.key, &mut key).ok()?;
        UnboundKey::new(&AES_256_GCM, &key).ok().map(LessSafeKey::new)
    }

    fn seal(&self, id: String, key: &[u8]) -> Result<SealedKey, Abort> {
        let nonce = random::<{ NONCE_LEN }>()?;
        let mut bytes = key.to_vec();
        let sealing = self.ready().and_then(|ready| {
            let nonce = Nonce::assume_unique_for_key(nonce);
            ready.seal_in_place_append_tag(nonce, Aad::from(id.as_bytes()), &mut bytes).ok()
        });
        sealing.ok_or_else(|| unusable("it is not a key"))?;
        Ok(SealedKey { id, sealed: hex::encode([&nonce[..], &bytes].concat()) })
    }

    fn open(&self, sealed: &SealedKey) -> Option<Cipher> {
        self.opened(sealed, |plain| <&[u8; KEY_BYTES]>::try_from(plain).ok().map(Cipher::new))
    }

    fn opened<T>(&self, sealed: &SealedKey, made: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let mut bytes = hex::decode(&sealed.sealed).ok()?;
        let (nonce, rest) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.ready()?.open_in_place(nonce, Aad::from(sealed.id.as_bytes()), rest).ok()?;
        let made = made(plain);
        plain.fill(0);
        made
    }
}

fn random<const N: usize>() -> Result<[u8; N], Abort> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| unusable("the kernel has no random bytes"))?;
    Ok(bytes)
}

fn unusable(why: &str) -> Abort {
    StoreError::Decode { key: record::key::<CloudKey>(ONLY), why: why.into() }.into()
}

/// A new key for a volume; the cloud's is made if there is none yet.
pub fn generate(tx: &mut Tx) -> Result<SealedKey, Abort> {
    cloud_key(tx)?.seal(uuid::Uuid::new_v4().to_string(), &random::<KEY_BYTES>()?)
}

/// Seals a secret of another system; `name` says whose it is, and goes with it.
pub fn seal_secret(tx: &mut Tx, name: &str, secret: &str) -> Result<SealedKey, Abort> {
    cloud_key(tx)?.seal(name.to_owned(), secret.as_bytes())
}

fn cloud_key(tx: &mut Tx) -> Result<CloudKey, Abort> {
    if let Some(cloud) = tx.get::<CloudKey>(ONLY)? {
        return Ok(cloud);
    }
    let cloud = CloudKey::generate()?;
    tx.put(&cloud)?;
    Ok(cloud)
}

/// The keys as a storage process has them.
#[derive(Clone)]
pub struct Keyring(Mirror<CloudKey>);

impl Keyring {
    /// Follows the store; `ledger` keeps what was seen for a start without it.
    pub async fn start(store: SharedStore, ledger: Option<&Path>) -> Keyring {
        Keyring(Mirror::start(store, ledger).await)
    }

    /// Tells that there may be one that was not there.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    /// The cipher of a volume. Held while the cloud's key is on its way here.
    pub fn open(&self, sealed: &SealedKey) -> io::Result<Arc<Cipher>> {
        let cipher = self.cloud()?.open(sealed).map(Arc::new);
        cipher.ok_or_else(|| unopened(sealed))
    }

    /// A secret of another system. Held as a cipher is.
    pub fn secret(&self, sealed: &SealedKey) -> io::Result<String> {
        let text = |plain: &[u8]| String::from_utf8(plain.to_vec()).ok();
        self.cloud()?.opened(sealed, text).ok_or_else(|| unopened(sealed))
    }

    fn cloud(&self) -> io::Result<Arc<CloudKey>> {
        self.0.get(ONLY).ok_or_else(|| media::held("the cloud's key is not known on this node yet"))
    }
}

fn unopened(sealed: &SealedKey) -> io::Error {
    let why = format!("the key {} cannot be opened with the cloud's", sealed.id);
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use cairn_state::LocalStore;

    use super::*;

    #[test]
    fn a_key_is_opened_by_the_same_cloud_and_under_its_own_name_alone() {
        let (one, other) = (CloudKey::generate().unwrap(), CloudKey::generate().unwrap());
        let sealed = one.seal("k1".into(), &[3; KEY_BYTES]).unwrap();
        let mut bytes = vec![1; 512];
        one.open(&sealed).unwrap().encrypt(0, &mut bytes);
        Cipher::new(&[3; KEY_BYTES]).decrypt(0, &mut bytes);
        assert_eq!(bytes, [1; 512]);
        assert!(other.open(&sealed).is_none());
        assert!(one.open(&SealedKey { id: "k2".into(), ..sealed.clone() }).is_none());
        assert!(one.open(&SealedKey { sealed: "00".into(), ..sealed.clone() }).is_none());
        let shown = format!("{one:?} {sealed:?}");
        assert_eq!(shown, "CloudKey SealedKey(k1)");
    }

    #[tokio::test]
    async fn all_keys_of_a_cloud_are_sealed_by_one() {
        let store = LocalStore::in_memory().unwrap();
        let first = store.transact(generate).await.unwrap();
        let second = store.transact(generate).await.unwrap();
        let cloud = store.read(|tx| tx.get::<CloudKey>(ONLY)).unwrap().unwrap();
        assert!(cloud.open(&first).is_some() && cloud.open(&second).is_some());
        assert!(first.id != second.id && first.sealed != second.sealed);
    }
}
