//! Structured logs: to the journal where there is one, else to standard error.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging. `CAIRN_LOG` sets the level, in the form of `tracing`'s filters (if unset, `info`, and less of the consensus engine, which tells each tick).
pub fn init() {
    let filter =
        EnvFilter::try_from_env("CAIRN_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    match tracing_journald::layer() {
        Ok(journal) => registry.with(journal).init(),
        Err(_) => {
            let plain = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
            registry.with(plain).init();
        }
    }
}
