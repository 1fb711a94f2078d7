//! What the storage process tells an operator: facts about disks, volumes and sockets, so that anybody can see
//! that nothing was left behind. It also removes sockets that a killed process left.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cairn_state::Reporter;
use serde_json::{Value, json};

use super::reconcile::is_socket;
use crate::blk::Export;
use crate::pool::Pool;

/// The most names that one fact lists; it says how many there are in all.
const NAMES_MAX: usize = 500;
/// Changes of a volume's allocation below this many bytes are not worth a write to the store.
const ALLOCATION_STEP: u64 = 16 << 20;

/// What to report as allocated: the old figure, until the new one differs by enough.
pub fn allocated(before: u64, now: Option<u64>) -> u64 {
    match now {
        None => 0,
        Some(now) if before == 0 || now.abs_diff(before) >= ALLOCATION_STEP => now,
        Some(_) => before,
    }
}

/// Rounds up to a number of three binary digits and zeroes, so that what shrinks steadily is told in few steps.
pub fn rounded(bytes: u64) -> u64 {
    let dropped = bytes.checked_ilog2().unwrap_or(0).saturating_sub(2);
    bytes.checked_next_multiple_of(1 << dropped).unwrap_or(u64::MAX)
}

/// Removes sockets that nobody serves, of volumes that are `ours`.
pub fn clear_sockets<'a>(dir: &Path, exports: impl Fn() -> Vec<&'a Export>, ours: impl Fn(&str) -> bool) {
    let is_ours = |path: &PathBuf| path.file_stem().and_then(|s| s.to_str()).is_some_and(&ours);
    for path in sockets(dir).into_iter().filter(is_ours) {
        if !exports().iter().any(|e| e.sockets().contains(&path.as_path())) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Sets the facts. `stored` are the volumes on the disks; `orphans` those that no spec names, unknown while the store
/// cannot be reached.
pub fn facts<'a>(
    reporter: &Reporter,
    pool: &Pool,
    sockets_dir: &Path,
    exports: &HashMap<String, Export>,
    stored: impl ExactSizeIterator<Item = &'a String>,
    orphans: Option<Vec<&String>>,
) {
    let disks = pool.disks();
    let each = |list: fn(&crate::disk::Disk) -> std::io::Result<Vec<String>>| -> Vec<String> {
        disks.iter().flat_map(|d| list(d).unwrap_or_default()).collect()
    };
    let mut served: Vec<Value> =
        exports.iter().map(|(id, e)| json!({"volume": id, "epoch": e.epoch()})).collect();
    served.sort_by_key(|v| v["volume"].as_str().map(str::to_owned));
    let open: Vec<String> = sockets(sockets_dir).iter().map(|p| p.display().to_string()).collect();
    reporter.set_fact("disks", disks.iter().map(|d| json!({"disk": d.id(), "path": d.path()})).collect());
    reporter.set_fact("disks_refused", json!(pool.refused()));
    let count = stored.len();
    let first: Vec<&String> = stored.take(NAMES_MAX).collect();
    reporter.set_fact("volumes_on_disk", json!({"count": count, "names": first}));
    reporter.set_fact("staging", names(&each(crate::disk::Disk::staged)));
    reporter.set_fact("trash", names(&each(crate::disk::Disk::trashed)));
    reporter.set_fact("sockets", names(&open));
    reporter.set_fact("volumes_waiting", names(&waiting(exports)));
    reporter.set_fact("exports", served.into_iter().take(NAMES_MAX).collect());
    reporter.set_fact("orphans", orphans.map_or(Value::Null, |o| names(&o)));
}

/// The volumes whose writes wait until there is room on their disk.
fn waiting(exports: &HashMap<String, Export>) -> Vec<String> {
    let full = exports.iter().filter(|(_, export)| export.is_full());
    let mut waiting: Vec<String> = full.map(|(id, _)| id.clone()).collect();
    waiting.sort();
    waiting
}

fn names<T: AsRef<str>>(all: &[T]) -> Value {
    let listed: Vec<&str> = all.iter().take(NAMES_MAX).map(AsRef::as_ref).collect();
    json!({"count": all.len(), "names": listed})
}

fn sockets(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| is_socket(p)).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shrinks_is_told_in_few_steps() {
        assert_eq!([0, 1, 7, 8, 9, 1000, u64::MAX].map(rounded), [0, 1, 7, 8, 10, 1024, u64::MAX]);
        let told: std::collections::BTreeSet<u64> = (0..100_000).map(rounded).collect();
        assert!(told.len() < 70, "{}", told.len());
    }
}
