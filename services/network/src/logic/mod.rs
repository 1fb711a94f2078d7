//! What the service decides: addresses, ports, routers, groups, quotas. Pure where it can be, else on an open
//! transaction. It knows no HTTP; errors are those that the API tells.

pub mod addressing;
pub mod dhcp;
pub mod fixed_ips;
pub mod floating;
pub mod gateways;
pub mod groups;
pub mod hosts;
pub mod interfaces;
pub mod ipam;
pub mod moves;
pub mod networks;
pub mod pools;
pub mod ports;
pub mod quotas;
pub mod residence;
pub mod routers;
pub mod rules;
pub mod subnets;

/// 128 random bits.
pub fn random() -> u128 {
    // A version 4 uuid fixes six of its bits, in the middle: two of them cover each other's.
    uuid::Uuid::new_v4().as_u128() ^ uuid::Uuid::new_v4().as_u128().rotate_left(64)
}
