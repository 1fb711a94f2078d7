//! Whether a cluster can be used, asked by the storage process before a backend is made known: it alone has the programs.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::driver::Driver;
use super::orders::NewBackend;
use super::rbd::{self, Rbd};

/// How long a cluster gets to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// Bytes that volumes may take in all.
    pub size: u64,
    /// Bytes that they may still take.
    pub free: u64,
}

/// Files that go with this.
struct Files<'a>(&'a Path);

impl Drop for Files<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

/// Asks a cluster for its room, and makes an image there and removes it.
pub async fn check(sockets: &Path, new: &NewBackend) -> io::Result<Found> {
    if let Some(objection) = new.objection(&[]) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, objection));
    }
    let home = rbd::home(sockets, &format!(".check-{}", uuid::Uuid::new_v4()));
    let _files = Files(&home);
    let driver = Rbd::new(&home, &new.access, &new.secret)?;
    let asked = async {
        let room = driver.room().await?;
        driver.try_out().await?;
        Ok(Found { size: room.size, free: room.free })
    };
    match timeout(PATIENCE, asked).await {
        Ok(found) => found,
        Err(_) => {
            let why = format!("its monitors do not answer within {} s", PATIENCE.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        }
    }
}
