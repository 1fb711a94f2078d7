//! What root hands to the other roles: the node's key to those that talk to other nodes, and to the controller what a
//! cloud is founded with or carried over by. Each file is readable by its role alone.
//!
//! It hands over what is on the state partition and decides nothing.

use std::fs;
use std::io;
use std::path::Path;

use crate::disks::act;
use crate::identity::Identity;
use crate::paths::{self, Paths};
use crate::{cloud, secret};

/// The user that serves the API and holds the store.
const CONTROLLER: &str = "cairn-controller";
/// The roles that talk to other nodes by themselves.
const TALKING: [&str; 3] = ["controller", "storage", "compute"];

/// Makes the controller's folder and hands over all that is not there yet. What is secret and no longer needed once a
/// cloud is entered is taken back.
pub fn hand_over(paths: &Paths, identity: &Identity) -> io::Result<()> {
    // The controller writes here what it tells; what root left in it is not its to replace.
    paths::make_dir(&paths.handover(), 0o3770)?;
    act::give_group(&paths.handover(), CONTROLLER)?;
    let key = identity.key.to_pem();
    for role in TALKING {
        let dir = paths.run.join(role);
        // On the appliance systemd-tmpfiles made it, with its owner.
        if !dir.exists() {
            paths::make_dir(&dir, 0o750)?;
        }
        paths::write_file_for(&dir.join("node.key"), key.as_bytes(), &format!("cairn-{role}"))?;
    }
    give(paths, "own-cloud", cloud::own(paths)?.as_bytes())?;
    if let Some(hash) = secret::stored_hash(paths)? {
        give(paths, "admin.phc", hash.as_bytes())?;
    }
    // A node of the first release has an authority of its own. Its clients trust it, so the cloud goes on with it.
    for name in ["ca.key", "ca.pem"] {
        let file = paths.node().join(name);
        let own = paths.handover().join(format!("own-{name}"));
        if cloud::entered(paths)?.is_some() {
            remove(&own)?;
        } else if file.exists() {
            give(paths, &format!("own-{name}"), &fs::read(&file)?)?;
        }
    }
    Ok(())
}

/// Forgets the first administrator's secret: this node's cloud has another's.
pub fn forget_secret(paths: &Paths) -> io::Result<()> {
    secret::forget(paths)?;
    remove(&paths.handover().join("admin.phc"))
}

fn give(paths: &Paths, name: &str, bytes: &[u8]) -> io::Result<()> {
    paths::write_file_for(&paths.handover().join(name), bytes, CONTROLLER)
}

pub(crate) fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_for_their_roles_and_the_old_authority_only_until_a_cloud_is_entered() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths { state: dir.path().join("state"), run: dir.path().join("run") };
        let identity = Identity::load_or_create(&paths).unwrap();
        fs::write(paths.node().join("ca.key"), "k").unwrap();
        fs::write(paths.node().join("ca.pem"), "c").unwrap();
        secret::ensure(&paths).unwrap();
        hand_over(&paths, &identity).unwrap();
        for role in TALKING {
            let file = paths.run.join(role).join("node.key");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        }
        let handed = |name: &str| paths.handover().join(name).exists();
        assert!(handed("own-ca.key") && handed("own-ca.pem") && handed("admin.phc") && handed("own-cloud"));

        cloud::enter(&paths, &cloud::own(&paths).unwrap(), None).unwrap();
        forget_secret(&paths).unwrap();
        hand_over(&paths, &identity).unwrap();
        assert!(!handed("own-ca.key") && !handed("own-ca.pem") && !handed("admin.phc"));
        assert!(paths.node().join("ca.key").exists(), "what is on the disk stays");
    }
}
