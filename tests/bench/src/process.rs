//! What processes of either side use, as the kernel counts it.

use anyhow::{Context, Result};

/// The CPU that processes have used, in microseconds.
pub fn cpu_us(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        ticks += ticks_of(&stat).context("/proc/PID/stat is not understood")?;
    }
    // The kernel shows hundredths of a second.
    Ok(ticks as f64 * 10_000.0)
}

/// User and system time: fields 14 and 15, of which the second may contain anything but a last parenthesis.
fn ticks_of(stat: &str) -> Option<u64> {
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Memory that a process has, in MiB.
pub fn memory_mib(pid: u32) -> Result<u64> {
    mib_of(&std::fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:")
}

/// Memory of processes in MiB, what several share being counted once.
pub fn shared_memory_mib(pids: &[u32]) -> Result<u64> {
    pids.iter()
        .map(|pid| mib_of(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?, "Pss:"))
        .sum()
}

fn mib_of(text: &str, field: &str) -> Result<u64> {
    let line =
        text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
    Ok(line.split_whitespace().next().context("no number")?.parse::<u64>()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_of_a_process_is_read_whatever_its_name() {
        let stat = "12 (a ) b) S 1 1 1 0 -1 4194560 1 2 3 4 70 30 0 0 20 0";
        assert_eq!(ticks_of(stat), Some(100));
        assert_eq!(ticks_of("nothing"), None);
        let own = std::process::id();
        assert!(cpu_us(&[own]).is_ok() && memory_mib(own).is_ok() && shared_memory_mib(&[own, own]).is_ok());
    }
}
