//! The network service as its clients see it: requests through the gateway, on a store in memory, with the nodes'
//! reports played by the tests.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod conductor;
mod floating;
mod lists;
mod networks;
mod nodes;
mod ports;
mod routers;
mod security;
mod servers;
mod subnets;
mod support;
