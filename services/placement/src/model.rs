//! The records of placement: providers with their inventories and used totals, and allocations by consumer.
//!
//! Only types and pure arithmetic. Every record here is written by the controller alone.

use std::collections::{BTreeMap, BTreeSet};

use cairn_state::{Index, Record};
use serde::{Deserialize, Serialize};

/// Amounts by resource class (`VCPU`, `MEMORY_MB`, `DISK_GB`, `CUSTOM_...`).
pub type Amounts = BTreeMap<String, u64>;

/// The class of virtual CPUs.
pub const VCPU: &str = "VCPU";
/// The class of memory, in MiB.
pub const MEMORY_MB: &str = "MEMORY_MB";
/// The class of disk space, in GiB.
pub const DISK_GB: &str = "DISK_GB";

/// How much of one resource class a provider has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InventoryRow {
    /// What there is, before reservation and overcommitment.
    pub total: u64,
    /// What the node keeps for itself.
    pub reserved: u64,
    /// How often each unit may be given away; 1.0 is no overcommitment.
    pub allocation_ratio: f64,
}

impl InventoryRow {
    /// What may be allocated in all.
    pub fn capacity(&self) -> u64 {
        let usable = self.total.saturating_sub(self.reserved);
        (usable as f64 * self.allocation_ratio.max(0.0)) as u64
    }
}

/// A resource provider: a node. Writer: controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceProvider {
    /// Its id, a UUID.
    pub uuid: String,
    /// The node's name; unique.
    pub name: String,
    /// Grows with each change of inventories, traits or used amounts.
    pub generation: u64,
    /// What it has.
    pub inventories: BTreeMap<String, InventoryRow>,
    /// The sum of all allocations on it.
    pub used: Amounts,
    /// What it is capable of.
    pub traits: BTreeSet<String>,
}

impl Record for ResourceProvider {
    const KIND: &'static str = "placement/provider";

    fn id(&self) -> String {
        self.uuid.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        vec![Index::unique("name", &self.name)]
    }
}

impl ResourceProvider {
    /// What is still free of a class; nothing of a class it does not have.
    pub fn free(&self, class: &str) -> u64 {
        let capacity = self.inventories.get(class).map_or(0, InventoryRow::capacity);
        capacity.saturating_sub(self.used.get(class).copied().unwrap_or(0))
    }

    /// The first class of `wanted` that does not fit, if any. No single unit may exceed what the node
    /// physically has, however much it is overcommitted.
    pub fn misfit<'a>(&self, wanted: &'a Amounts) -> Option<&'a str> {
        let over = |(class, amount): &(&'a String, &'a u64)| {
            let total = self.inventories.get(*class).map_or(0, |i| i.total);
            **amount > self.free(class) || **amount > total
        };
        wanted.iter().find(over).map(|(class, _)| class.as_str())
    }

    /// Counts amounts as used.
    pub fn take(&mut self, amounts: &Amounts) {
        for (class, amount) in amounts {
            *self.used.entry(class.clone()).or_default() += amount;
        }
        self.generation += 1;
    }

    /// Counts amounts as free again.
    pub fn give_back(&mut self, amounts: &Amounts) {
        for (class, amount) in amounts {
            let used = self.used.entry(class.clone()).or_default();
            *used = used.saturating_sub(*amount);
        }
        self.generation += 1;
    }
}

/// What one consumer holds, on which providers. Writer: controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// The consumer's id (a server's).
    pub consumer: String,
    /// Grows with each change.
    pub generation: u64,
    /// The project it is counted for.
    pub project_id: String,
    /// The user it is counted for.
    pub user_id: String,
    /// The amounts by provider id.
    pub amounts: BTreeMap<String, Amounts>,
}

impl Record for Allocation {
    const KIND: &'static str = "placement/allocation";

    fn id(&self) -> String {
        self.consumer.clone()
    }

    fn indexes(&self) -> Vec<Index> {
        let mut indexes = vec![Index::multi("project", &self.project_id)];
        indexes.extend(self.amounts.keys().map(|p| Index::multi("provider", p)));
        indexes
    }
}

/// The resource classes of OpenStack (os-resource-classes), which every deployment knows.
pub const STANDARD_CLASSES: [&str; 21] = [
    "VCPU",
    "MEMORY_MB",
    "DISK_GB",
    "PCI_DEVICE",
    "SRIOV_NET_VF",
    "NUMA_SOCKET",
    "NUMA_CORE",
    "NUMA_THREAD",
    "NUMA_MEMORY_MB",
    "IPV4_ADDRESS",
    "VGPU",
    "VGPU_DISPLAY_HEAD",
    "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC",
    "PCPU",
    "MEM_ENCRYPTION_CONTEXT",
    "FPGA",
    "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_what_remains_after_reservation_times_the_ratio() {
        let row = InventoryRow { total: 10, reserved: 2, allocation_ratio: 4.0 };
        assert_eq!(row.capacity(), 32);
        let all_reserved = InventoryRow { total: 2, reserved: 5, allocation_ratio: 1.0 };
        assert_eq!(all_reserved.capacity(), 0);
    }

    #[test]
    fn one_consumer_may_not_exceed_the_physical_total() {
        let row = InventoryRow { total: 2, reserved: 0, allocation_ratio: 4.0 };
        let provider = ResourceProvider {
            uuid: "p".into(),
            name: "n".into(),
            generation: 0,
            inventories: [(VCPU.to_owned(), row)].into(),
            used: Amounts::new(),
            traits: BTreeSet::new(),
        };
        assert_eq!(provider.misfit(&[(VCPU.to_owned(), 2)].into()), None);
        assert_eq!(provider.misfit(&[(VCPU.to_owned(), 3)].into()), Some(VCPU));
        assert_eq!(provider.misfit(&[(MEMORY_MB.to_owned(), 1)].into()), Some(MEMORY_MB));
    }
}
