//! The node's key, and the name that follows from it. Identity is the key, never an address or a NIC.

use std::io;

use cairn_cluster::NodeKey;

use crate::paths::{self, Paths};

/// Who this node is.
pub struct Identity {
    /// The node's name, `cairn-` and six hex digits of its public key's SHA-256.
    pub name: String,
    /// Its key pair (ECDSA P-256).
    pub key: NodeKey,
}

impl Identity {
    /// Reads the identity, or makes it on the first boot.
    pub fn load_or_create(paths: &Paths) -> io::Result<Identity> {
        let dir = paths.node();
        paths::make_dir(&dir, 0o700)?;
        let key_file = dir.join("node.key");
        if !key_file.exists() {
            let key = NodeKey::generate().map_err(io::Error::other)?;
            paths::write_file(&key_file, key.to_pem().as_bytes(), 0o600)?;
        }
        let key = NodeKey::from_pem(&std::fs::read_to_string(&key_file)?).map_err(io::Error::other)?;
        Ok(Identity { name: key.name(), key })
    }
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
        assert_eq!(first.name, second.name);
        assert!(first.name.starts_with("cairn-") && first.name.len() == 12);
    }

    #[test]
    fn a_key_of_the_first_release_goes_on_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().into(), run: dir.path().join("run") };
        // As that release made them.
        let key = rcgen::KeyPair::generate().unwrap();
        let hash = ring::digest::digest(&ring::digest::SHA256, rcgen::PublicKeyData::der_bytes(&key));
        let name: String = hash.as_ref()[..3].iter().map(|byte| format!("{byte:02x}")).collect();
        paths::make_dir(&paths.node(), 0o700).unwrap();
        paths::write_file(&paths.node().join("node.key"), key.serialize_pem().as_bytes(), 0o600).unwrap();
        assert_eq!(Identity::load_or_create(&paths).unwrap().name, format!("cairn-{name}"));
    }
}
