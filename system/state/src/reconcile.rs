//! The loop every agent runs: wait until something it follows has changed (or time passes), make the machine
//! match the store, report what it saw, and try again with backoff after a failure.
