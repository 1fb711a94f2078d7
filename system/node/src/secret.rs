//! The first administrator's secret: made on the first boot, shown on the machine's own screen, kept as a hash.
//!
//! The plain text lives only in `/run` (memory) until the machine is next switched off.

use std::io;

use argon2::password_hash::PasswordHasher;
use ring::rand::{SecureRandom, SystemRandom};

use crate::paths::{self, Paths};
use crate::{cloud, handover};

/// Letters and digits that cannot be taken for one another on a screen.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789z";
/// 20 characters of 5 bits: 100 bits.
const LENGTH: usize = 20;

/// Makes the secret if this node has none yet and is of no cloud; gives the plain text if it was made since power-on.
pub fn ensure(paths: &Paths) -> io::Result<Option<String>> {
    let hash_file = paths.node().join("admin.phc");
    let shown_file = paths.run.join("node/admin.secret");
    if !hash_file.exists() && cloud::entered(paths)?.is_none() {
        let secret = generate()?;
        paths::make_dir(&paths.run.join("node"), 0o700)?;
        paths::write_file(&shown_file, secret.as_bytes(), 0o600)?;
        paths::write_file(&hash_file, hash(&secret)?.as_bytes(), 0o600)?;
    }
    match std::fs::read_to_string(&shown_file) {
        Ok(secret) => Ok(Some(secret)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The hash (an argon2id PHC string) that the controller seeds the administrator with, if this node has one.
pub fn stored_hash(paths: &Paths) -> io::Result<Option<String>> {
    match std::fs::read_to_string(paths.node().join("admin.phc")) {
        Ok(hash) => Ok(Some(hash)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Forgets the secret and its hash.
pub fn forget(paths: &Paths) -> io::Result<()> {
    handover::remove(&paths.run.join("node/admin.secret"))?;
    handover::remove(&paths.node().join("admin.phc"))
}

fn generate() -> io::Result<String> {
    let mut bytes = [0u8; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    let chars: Vec<u8> = bytes.iter().map(|b| ALPHABET[(b & 31) as usize]).collect();
    Ok(chars.chunks(5).map(|c| String::from_utf8_lossy(c).into_owned()).collect::<Vec<_>>().join("-"))
}

fn hash(secret: &str) -> io::Result<String> {
    let hash = argon2::Argon2::default().hash_password(secret.as_bytes());
    hash.map(|h| h.to_string()).map_err(|e| io::Error::other(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_kept_as_a_hash_only() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().join("state"), run: dir.path().join("run") };
        paths::make_dir(&paths.node(), 0o700).unwrap();
        let secret = ensure(&paths).unwrap().unwrap();
        assert_eq!(ensure(&paths).unwrap().as_deref(), Some(secret.as_str()));
        let hash = stored_hash(&paths).unwrap().unwrap();
        assert!(hash.starts_with("$argon2id$") && !hash.contains(&secret));
        std::fs::remove_dir_all(&paths.run).unwrap();
        assert_eq!(ensure(&paths).unwrap(), None, "after a reboot it cannot be shown again");
        cloud::enter(&paths, &cloud::own(&paths).unwrap(), None).unwrap();
        forget(&paths).unwrap();
        assert_eq!(ensure(&paths).unwrap(), None, "a node that was let in by others makes none");
        assert_eq!(stored_hash(&paths).unwrap(), None);
    }
}
