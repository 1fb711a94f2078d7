//! Claims on providers, for other services to make inside their own transaction.
//!
//! Two claims that race for the last of something both read and write the provider's record, so the store
//! lets exactly one of them commit; the other runs again and sees that nothing is left.

use std::collections::{BTreeMap, BTreeSet};

use cairn_gateway::ApiError;
use cairn_state::{Abort, Tx};

use crate::model::{Allocation, Amounts, DISK_GB, InventoryRow, MEMORY_MB, ResourceProvider, VCPU};

/// What a server needs of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk space in GiB.
    pub disk_gb: u64,
}

impl Resources {
    /// The same by class; classes of which nothing is needed are left out.
    pub fn amounts(&self) -> Amounts {
        [(VCPU, self.vcpus), (MEMORY_MB, self.memory_mb), (DISK_GB, self.disk_gb)]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .map(|(class, n)| (class.to_owned(), n))
            .collect()
    }
}

/// How far each resource is overcommitted. Guests rarely use all their CPUs at once, so those are given away
/// four times; memory and disk space that is promised must be there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratios {
    /// For virtual CPUs.
    pub vcpus: f64,
    /// For memory.
    pub memory_mb: f64,
    /// For disk space.
    pub disk_gb: f64,
}

impl Default for Ratios {
    fn default() -> Ratios {
        Ratios { vcpus: 4.0, memory_mb: 1.0, disk_gb: 1.0 }
    }
}

/// What a node has, as its compute service reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct Inventory {
    /// The provider's id, a UUID, kept for the node's life.
    pub provider: String,
    /// The node's name.
    pub name: String,
    /// Physical (or hardware-threaded) CPUs.
    pub vcpus: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Disk space in GiB.
    pub disk_gb: u64,
    /// What the node keeps for itself of each.
    pub reserved: Resources,
    /// How far each is overcommitted.
    pub ratios: Ratios,
    /// What it is capable of, as `COMPUTE_NODE`.
    pub traits: BTreeSet<String>,
}

/// A provider that would fit, with what it has free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The provider's id.
    pub uuid: String,
    /// The node's name.
    pub name: String,
    /// What is free now.
    pub free: Resources,
}

/// Records what a node has. Writes nothing if that is known already, so it may be called with every report.
pub fn upsert_provider(tx: &mut Tx, inventory: &Inventory) -> Result<(), Abort> {
    let old = tx.get::<ResourceProvider>(&inventory.provider)?;
    let mut new = old.clone().unwrap_or_else(|| ResourceProvider {
        uuid: inventory.provider.clone(),
        name: inventory.name.clone(),
        generation: 0,
        inventories: BTreeMap::new(),
        used: Amounts::new(),
        traits: BTreeSet::new(),
    });
    new.name.clone_from(&inventory.name);
    new.traits.clone_from(&inventory.traits);
    for (class, row) in rows(inventory) {
        new.inventories.insert(class.to_owned(), row);
    }
    if old.as_ref() != Some(&new) {
        new.generation += 1;
        tx.put(&new)?;
    }
    Ok(())
}

fn rows(i: &Inventory) -> [(&'static str, InventoryRow); 3] {
    let row = |total, reserved, allocation_ratio| InventoryRow { total, reserved, allocation_ratio };
    [
        (VCPU, row(i.vcpus, i.reserved.vcpus, i.ratios.vcpus)),
        (MEMORY_MB, row(i.memory_mb, i.reserved.memory_mb, i.ratios.memory_mb)),
        (DISK_GB, row(i.disk_gb, i.reserved.disk_gb, i.ratios.disk_gb)),
    ]
}

/// The nodes on which this would fit now, by name. A claim must still follow: what is free may be gone by then.
pub fn candidates(tx: &mut Tx, wanted: &Resources) -> Result<Vec<Provider>, Abort> {
    let amounts = wanted.amounts();
    let all = tx.list_unfenced::<ResourceProvider>()?;
    let mut fit: Vec<_> = all.iter().filter(|p| p.misfit(&amounts).is_none()).map(provider_of).collect();
    fit.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(fit)
}

fn provider_of(p: &ResourceProvider) -> Provider {
    let free = Resources { vcpus: p.free(VCPU), memory_mb: p.free(MEMORY_MB), disk_gb: p.free(DISK_GB) };
    Provider { uuid: p.uuid.clone(), name: p.name.clone(), free }
}

/// Claims resources of one provider (its id or its node's name) for a consumer, in place of what the consumer
/// may have held. Fails with 409 and changes nothing when they do not fit.
pub fn claim(
    tx: &mut Tx,
    consumer: &str,
    provider: &str,
    wanted: &Resources,
    project_id: &str,
    user_id: &str,
) -> Result<(), ApiError> {
    let found = find(tx, provider)?;
    let amounts = [(found.uuid, wanted.amounts())].into();
    let generation = tx.get::<Allocation>(consumer)?.map_or(0, |a| a.generation);
    allocate(
        tx,
        Allocation {
            consumer: consumer.into(),
            generation,
            project_id: project_id.into(),
            user_id: user_id.into(),
            amounts,
        },
    )
}

/// Gives back all that a consumer holds. Nothing held is no error: releasing may be repeated.
pub fn release(tx: &mut Tx, consumer: &str) -> Result<(), Abort> {
    let Some(held) = tx.get::<Allocation>(consumer)? else { return Ok(()) };
    for (uuid, amounts) in &held.amounts {
        if let Some(mut provider) = tx.get::<ResourceProvider>(uuid)? {
            provider.give_back(amounts);
            tx.put(&provider)?;
        }
    }
    tx.delete::<Allocation>(consumer)?;
    Ok(())
}

/// Gives what one consumer holds to another, in place of what that one held: nothing is free in between, so it cannot
/// fail for lack of room. A consumer that holds nothing gives nothing.
pub fn hand_over(tx: &mut Tx, from: &str, to: &str) -> Result<(), Abort> {
    let Some(held) = tx.get::<Allocation>(from)? else { return Ok(()) };
    release(tx, to)?;
    tx.delete::<Allocation>(from)?;
    tx.put(&Allocation { consumer: to.into(), generation: held.generation + 1, ..held })
}

/// What a consumer holds, of all providers together.
pub fn held(tx: &mut Tx, consumer: &str) -> Result<Resources, Abort> {
    let Some(held) = tx.get::<Allocation>(consumer)? else { return Ok(Resources::default()) };
    let sum = |class: &str| held.amounts.values().filter_map(|a| a.get(class)).sum();
    Ok(Resources { vcpus: sum(VCPU), memory_mb: sum(MEMORY_MB), disk_gb: sum(DISK_GB) })
}

/// Who holds anything of a provider, by consumer.
pub fn holders(tx: &mut Tx, provider: &str) -> Result<Vec<String>, Abort> {
    let held = tx.by_index::<Allocation>("provider", provider)?;
    Ok(held.into_iter().map(|a| a.consumer).collect())
}

/// Whether a provider of this id is in the book.
pub fn has_provider(tx: &mut Tx, provider: &str) -> Result<bool, Abort> {
    Ok(tx.get::<ResourceProvider>(provider)?.is_some())
}

/// Strikes a provider that nobody holds anything of ([`holders`]) from the book. One that is not there is no error.
pub fn remove_provider(tx: &mut Tx, provider: &str) -> Result<(), Abort> {
    tx.delete::<ResourceProvider>(provider).map(drop)
}

/// Makes this all that its consumer holds. On failure the caller must abandon the transaction.
pub(crate) fn allocate(tx: &mut Tx, mut wanted: Allocation) -> Result<(), ApiError> {
    release(tx, &wanted.consumer)?;
    for (uuid, amounts) in &wanted.amounts {
        let mut provider = find(tx, uuid)?;
        if let Some(class) = provider.misfit(amounts) {
            let free = provider.free(class);
            return Err(ApiError::conflict(format!(
                "No valid host was found: {} has {free} {class} left, {} are asked for.",
                provider.name, amounts[class]
            )));
        }
        provider.take(amounts);
        tx.put(&provider)?;
    }
    wanted.generation += 1;
    Ok(tx.put(&wanted)?)
}

/// A provider by its id or its node's name.
pub(crate) fn find(tx: &mut Tx, provider: &str) -> Result<ResourceProvider, ApiError> {
    if let Some(found) = tx.get::<ResourceProvider>(provider)? {
        return Ok(found);
    }
    tx.by_unique::<ResourceProvider>("name", provider)?
        .ok_or_else(|| ApiError::not_found("Resource provider", provider))
}
