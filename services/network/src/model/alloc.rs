//! Which addresses of a subnet are free, so that one is found without scanning its ports.
//!
//! Only for subnets small enough ([`TRACKED_MAX`]); in larger ones a random address is nearly always free.
//! That no address is used twice is not up to these records but to the unique index `address` of
//! [`super::Port`]. Written by the controller alone.

use cairn_state::Record;
use serde::{Deserialize, Serialize};

/// How many addresses one [`AddressBlock`] tells about.
pub const BLOCK_SIZE: u32 = 256;

/// The most addresses that a subnet with tracked addresses has.
pub const TRACKED_MAX: u128 = 1 << 16;

/// A set of numbers below 256.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits256([u64; 4]);

impl Bits256 {
    /// Whether `n` is in the set.
    pub fn has(&self, n: u8) -> bool {
        self.0[usize::from(n / 64)] & (1 << (n % 64)) != 0
    }

    /// Adds `n`, or takes it out.
    pub fn set(&mut self, n: u8, on: bool) {
        let bit = 1 << (n % 64);
        if on {
            self.0[usize::from(n / 64)] |= bit;
        } else {
            self.0[usize::from(n / 64)] &= !bit;
        }
    }

    /// The lowest number of `from..=to` that is not in the set.
    pub fn first_free(&self, from: u8, to: u8) -> Option<u8> {
        (from..=to).find(|n| !self.has(*n))
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }
}

/// Where to look for a free address. Key `network/address-search/SUBNET`. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressSearch {
    /// The subnet.
    pub subnet_id: String,
    /// The offset in the subnet after the address given last: freed addresses rest until the pool wrapped.
    pub next: u32,
    /// The blocks that were found to have no free address in the pools. Cleared when one is freed or the pools
    /// change.
    pub full: Bits256,
}

impl Record for AddressSearch {
    const KIND: &'static str = "network/address-search";

    fn id(&self) -> String {
        self.subnet_id.clone()
    }
}

/// The used addresses among [`BLOCK_SIZE`] of a subnet. Absent when none is used.
/// Key `network/address-block/SUBNET/NUMBER`. Writer: controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressBlock {
    /// The subnet.
    pub subnet_id: String,
    /// Counted from the subnet's first address.
    pub number: u8,
    /// The used offsets within the block.
    pub used: Bits256,
}

impl AddressBlock {
    /// The id of a block.
    pub fn id_of(subnet_id: &str, number: u8) -> String {
        format!("{subnet_id}/{number}")
    }
}

impl Record for AddressBlock {
    const KIND: &'static str = "network/address-block";

    fn id(&self) -> String {
        AddressBlock::id_of(&self.subnet_id, self.number)
    }
}
