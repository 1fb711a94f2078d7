//! The consensus engine's own tests of a log and a state machine, on ours.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use redb::Database;
use redb::backends::InMemoryBackend;

use super::log::LogStore;
use super::machine::Machine;
use super::types::{Tokio, Types};
use super::{Birth, saved};
use crate::engine::{Core, Limits, disk};

type Config = Types<Tokio>;

struct Builder;

impl StoreBuilder<Config, LogStore, Machine> for Builder {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<Config>> {
        let db = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let saved = saved::open(&db, &Birth::Waits, None).unwrap();
        let db = Arc::new(db);
        let (writer, queue, _) = disk::writer(db.clone());
        std::thread::spawn(|| writer.run());
        let clock = Box::new(|| std::time::Duration::ZERO);
        let core = Arc::new(Core::new(db, queue, clock, &saved, Limits::default()).unwrap());
        Ok(((), LogStore(core.clone()), Machine::new(core)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_own_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
