//! The drivers of the backends that are known, by name: made when a backend comes or changes, dropped when it goes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::Driver;
use super::model::{Backend, Secret};
use super::rbd::{self, Rbd};
use crate::crypt::keys::Keyring;
use crate::media;

/// Drivers by name, each with what it was made for.
type Drivers = HashMap<String, (Arc<Backend>, Arc<dyn Driver>)>;

/// The drivers of a node.
pub struct Family {
    /// The directory of the storage process's sockets.
    sockets: PathBuf,
    drivers: Mutex<Drivers>,
}

impl Family {
    /// None yet.
    pub fn new(sockets: PathBuf) -> Family {
        Family { sockets, drivers: Mutex::default() }
    }

    /// The driver of this backend, if that is known here.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Driver>> {
        self.drivers().get(name).map(|(_, driver)| driver.clone())
    }

    /// All of them.
    pub fn all(&self) -> Vec<(String, Arc<dyn Driver>)> {
        self.drivers().iter().map(|(name, (_, driver))| (name.clone(), driver.clone())).collect()
    }

    /// Has those that are wanted, and no others. Answers what stands in the way, by backend.
    pub fn follow(&self, wanted: &[Arc<Backend>], keys: &Keyring) -> Vec<(String, io::Error)> {
        let mut drivers = self.drivers();
        drivers.retain(|name, _| {
            let stays = wanted.iter().any(|b| b.name == *name);
            if !stays {
                let _ = fs::remove_dir_all(rbd::home(&self.sockets, name));
            }
            stays
        });
        let mut faults = Vec::new();
        for backend in wanted {
            if drivers.get(&backend.name).is_some_and(|(had, _)| had == backend) {
                continue;
            }
            match self.make(backend, keys) {
                Ok(driver) => drop(drivers.insert(backend.name.clone(), (backend.clone(), driver))),
                // The key is on its way here, which is no fault.
                Err(e) if media::wait_of(&e).is_some() => {}
                Err(e) => faults.push((backend.name.clone(), e)),
            }
        }
        faults
    }

    fn make(&self, backend: &Backend, keys: &Keyring) -> io::Result<Arc<dyn Driver>> {
        let secret = Secret(keys.secret(&backend.key)?);
        Ok(Arc::new(Rbd::new(&rbd::home(&self.sockets, &backend.name), &backend.access, &secret)?))
    }

    // What it guards is whole after a panic.
    fn drivers(&self) -> MutexGuard<'_, Drivers> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
