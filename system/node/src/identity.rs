//! The node's key, and the name that follows from it. Identity is the key, never an address or a NIC.

use std::io;

use rcgen::{KeyPair, PublicKeyData};
use ring::digest;

use crate::paths::{self, Paths};

/// Who this node is.
pub struct Identity {
    /// The node's name and id, `cairn-` and six hex digits of its public key's SHA-256.
    pub name: String,
    /// The id of the cloud it belongs to.
    pub cloud: String,
    /// Its key pair (ECDSA P-256).
    pub key: KeyPair,
}

impl Identity {
    /// Reads the identity, or makes it on the first boot.
    pub fn load_or_create(paths: &Paths) -> io::Result<Identity> {
        let dir = paths.node();
        paths::make_dir(&dir, 0o700)?;
        let key_file = dir.join("node.key");
        if !key_file.exists() {
            let key = KeyPair::generate().map_err(io::Error::other)?;
            paths::write_file(&key_file, key.serialize_pem().as_bytes(), 0o600)?;
        }
        let key = KeyPair::from_pem(&std::fs::read_to_string(&key_file)?).map_err(io::Error::other)?;
        let hash = digest::digest(&digest::SHA256, key.der_bytes());
        let name = format!("cairn-{}", hex::encode(&hash.as_ref()[..3]));
        Ok(Identity { name, cloud: cloud_id(paths)?, key })
    }
}

/// The id of the cloud this machine's state belongs to, made when the state partition is.
pub fn cloud_id(paths: &Paths) -> io::Result<String> {
    let dir = paths.node();
    paths::make_dir(&dir, 0o700)?;
    let file = dir.join("cloud");
    if !file.exists() {
        paths::write_file(&file, uuid::Uuid::new_v4().to_string().as_bytes(), 0o644)?;
    }
    Ok(std::fs::read_to_string(&file)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_state_gives_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().into(), run: dir.path().join("run") };
        let first = Identity::load_or_create(&paths).unwrap();
        let second = Identity::load_or_create(&paths).unwrap();
        assert_eq!((&first.name, &first.cloud), (&second.name, &second.cloud));
        assert!(first.name.starts_with("cairn-") && first.name.len() == 12);
    }
}
