//! Servers. OpenStack's Compute API (Nova v2.1) at `/compute`.

pub mod agent;
pub mod model;
mod quota;
mod scheduler;
mod state;
#[cfg(test)]
mod testing;
mod version;
