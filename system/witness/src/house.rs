//! The witness's folder: `key.pem`, which is its identity, `secret`, which lets clouds in, and `clouds/`, one folder
//! for each.
//!
//! All of it readable by its owner alone. Files are written beside and renamed, so a crash leaves the old or the new.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cairn_cluster::NodeKey;
use cairn_cluster::witness::{Code, Secret};
use cairn_wire::remote::{Endpoint, Trust, TrustSet, Versions};

/// The folder.
pub struct House {
    folder: PathBuf,
    key: NodeKey,
}

impl House {
    /// Opens it, or makes one with a new key.
    pub fn open(folder: &Path) -> Result<House> {
        let made = || -> Result<House> {
            make_folder(&folder.join("clouds"))?;
            let _alone = alone(folder)?;
            let file = folder.join("key.pem");
            let key = match read(&file)? {
                Some(pem) => NodeKey::from_pem(&pem)?,
                None => {
                    let key = NodeKey::generate()?;
                    write(&file, key.to_pem().as_bytes())?;
                    key
                }
            };
            Ok(House { folder: folder.to_owned(), key })
        };
        made().with_context(|| format!("the witness's folder {}", folder.display()))
    }

    /// Its end of connections. It trusts nobody yet.
    pub fn endpoint(&self) -> Result<Endpoint> {
        let credentials = self.key.credentials(self.key.self_signed()?)?;
        Ok(Endpoint { credentials, trust: Trust::new(TrustSet::default()), versions: Versions::OURS })
    }

    /// What lets clouds in; read anew each time, since another process may have renewed it.
    pub fn secret(&self) -> Result<Secret> {
        let _alone = alone(&self.folder)?;
        let file = self.folder.join("secret");
        match read(&file)? {
            Some(text) => Ok(text.parse().context("its secret is damaged: renew it")?),
            None => self.new_secret(),
        }
    }

    fn renew(&self) -> Result<Secret> {
        let _alone = alone(&self.folder)?;
        self.new_secret()
    }

    fn new_secret(&self) -> Result<Secret> {
        let secret = Secret::generate()?;
        write(&self.folder.join("secret"), secret.reveal().as_bytes())?;
        Ok(secret)
    }

    /// The code to hand to a cloud, with a new secret if that is wanted.
    pub fn code(&self, renew: bool) -> Result<Code> {
        let secret = if renew { self.renew()? } else { self.secret()? };
        Ok(Code::of(self.key.id(), secret))
    }

    /// The folders of the clouds that it serves.
    pub fn clouds(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.folder.join("clouds"))?;
        Ok(entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?)
    }

    /// The folder of one cloud.
    pub fn cloud(&self, id: &str) -> PathBuf {
        self.folder.join("clouds").join(id)
    }
}

/// Keeps other processes from making what this one makes, as long as it is held.
fn alone(folder: &Path) -> io::Result<fs::File> {
    let lock = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Makes a folder that only its owner sees into.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The text of a file, if it is there.
pub fn read(file: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Writes a file as a whole, for its owner alone, onto stable media.
pub fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut new = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    new.write_all(content)?;
    new.sync_all()?;
    fs::rename(&beside, file)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_the_same_machine_and_its_secret_is_renewed_on_demand() {
        let folder = tempfile::tempdir().unwrap();
        let first = House::open(folder.path()).unwrap().code(false).unwrap();
        let again = House::open(folder.path()).unwrap();
        assert_eq!(again.code(false).unwrap(), first);
        let renewed = again.code(true).unwrap();
        assert_eq!(again.code(false).unwrap(), renewed);
        assert!(renewed != first && renewed.is_of(again.key.id()) && first.is_of(again.key.id()));
        assert!(again.secret().unwrap().is(renewed.secret.reveal()));
    }
}
