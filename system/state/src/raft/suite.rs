//! The consensus engine's own tests of a log and a state machine, on ours.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::log::LogStore;
use super::machine::Machine;
use super::types::{Tokio, Types};
use crate::Media;
use crate::store::{Options, Parts};

type Config = Types<Tokio>;

struct Builder;

impl StoreBuilder<Config, LogStore, Machine> for Builder {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<Config>> {
        let clock = Box::new(|| std::time::Duration::ZERO);
        let Parts { core, state, log, .. } =
            Parts::open(Media::in_memory(), &Options::join(), clock).unwrap();
        std::thread::spawn(|| state.run());
        std::thread::spawn(|| log.run());
        Ok(((), LogStore(core.clone()), Machine::new(core)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_own_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
