//! What the node's memory is used for: the proportional set size of every process, and the kernel's slab. Only reads.

use std::fs;

use serde::Serialize;

/// Memory in use, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The proportional set sizes of all processes but guests.
    pub processes: u64,
    /// Of those, Cairn's own.
    pub cairn: u64,
    /// The guests' emulators.
    pub guests: u64,
    /// The kernel's slab caches.
    pub slab: u64,
    /// All that the machine has.
    pub total: u64,
}

/// Adds it all up. Reads `/proc` of every process, so it is not to be called often; needs CAP_SYS_PTRACE.
pub fn measure() -> Memory {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| meminfo.lines().find_map(|l| kib(l, name)).unwrap_or(0);
    let mut memory = Memory { slab: field("Slab:"), total: field("MemTotal:"), ..Memory::default() };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        // Processes come and go while we look; kernel threads have no memory of their own.
        let Ok(rollup) = fs::read_to_string(entry.path().join("smaps_rollup")) else { continue };
        let pss = rollup.lines().find_map(|l| kib(l, "Pss:")).unwrap_or(0);
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        match name.trim() {
            name if name.starts_with("qemu-system") => memory.guests += pss,
            "cairn" => {
                memory.processes += pss;
                memory.cairn += pss;
            }
            _ => memory.processes += pss,
        }
    }
    memory
}

fn kib(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_counted() {
        let memory = measure();
        assert!(memory.processes > 1000 && memory.total > memory.processes);
        assert_eq!(kib("Pss:                1234 kB", "Pss:"), Some(1234));
        assert_eq!(kib("Pss_Dirty:          1234 kB", "Pss:"), None);
    }
}
