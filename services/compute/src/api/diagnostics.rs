//! The diagnostics of a server, as its microversion shows them. Pure.

use cairn_gateway::Minor;
use serde_json::{Value, json};

use crate::agent::Diagnostics;
use crate::model::{PowerState, Server};
use crate::state::Shown;

/// The body: in a form common to all hypervisors since 2.48, in libvirt's words before.
pub fn body(server: &Server, now: Shown, load: &Diagnostics, mv: Minor) -> Value {
    if !mv.since(48) {
        return json!({"cpu0_time": load.cpu_time_ns, "memory": load.memory_kib});
    }
    let cpus: Vec<_> = (0..server.flavor.vcpus)
        // Only the sum over all CPUs is measured; it is shown when there is just one.
        .map(|id| {
            let time = (server.flavor.vcpus == 1).then_some(load.cpu_time_ns);
            json!({"id": id, "time": time, "utilisation": null})
        })
        .collect();
    let nic = |mac: &str| {
        json!({
            "mac_address": mac, "rx_octets": null, "rx_errors": null, "rx_drop": null, "rx_packets": null,
            "rx_rate": null, "tx_octets": null, "tx_errors": null, "tx_drop": null, "tx_packets": null,
            "tx_rate": null,
        })
    };
    let disk = json!({
        "read_bytes": null, "read_requests": null, "write_bytes": null, "write_requests": null, "errors_count": null,
    });
    json!({
        "state": if now.power == PowerState::Paused { "paused" } else { "running" },
        "driver": "libvirt", "hypervisor": "qemu", "hypervisor_os": "linux", "uptime": null,
        "config_drive": server.config_drive,
        "num_cpus": server.flavor.vcpus, "num_nics": server.ports.len(), "num_disks": server.volumes.len(),
        "memory_details": {"maximum": load.memory_kib / 1024, "used": load.memory_kib / 1024},
        "cpu_details": cpus,
        "nic_details": server.ports.iter().map(|p| nic(&p.mac)).collect::<Vec<_>>(),
        "disk_details": vec![disk; server.volumes.len()],
    })
}
