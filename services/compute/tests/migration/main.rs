//! A running guest goes from one real libvirt to another, through the tunnel between two nodes' agents and driven by the
//! real conductor: over Unix sockets alone, paused until the server is the other node's.
//!
//! `cargo test -p cairn-compute --test migration -- --ignored --nocapture` runs it, as root, on a machine of its own made
//! of the image's root tree (`cargo run --release -p image-builder -- root`, and `-- guests --tiny`). Two libvirtds run
//! there, the second with folders of its own in the places of the first one's. The guest has no disk: its firmware runs.
//! In the end its node is cut off, and stops it by itself.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says where, and how long it took"
)]

#[path = "../guest/machine.rs"]
#[allow(dead_code, reason = "the other test's machine has more to it")]
mod machine;
mod nodes;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cairn_compute::model::{HostStatus, InstanceStatus, PowerState, Server};
use cairn_state::{LocalStore, SharedStore, StoreExt};
use serde_json::json;

const SERVER: &str = "6a1c5e0e-0000-4000-8000-00000000c0de";
const MIGRATION: &str = "6a1c5e0e-0000-4000-8000-0000000000aa";
/// The second libvirtd's folders, each to stand in the place of the first one's.
const SECOND: &str = "/run/second";

fn flavor() -> serde_json::Value {
    json!({"id": "c1", "name": "c1.nano", "vcpus": 1, "ram_mb": 128, "disk_gb": 0, "ephemeral_gb": 0, "swap_mb": 0,
        "extra_specs": {}})
}

fn server() -> Server {
    serde_json::from_value(json!({
        "id": SERVER, "project_id": "p", "user_id": "u", "name": "guest", "hostname": "guest", "description": null,
        "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z", "launched_at": null,
        "image": {"id": "", "properties": {}}, "firmware": "Bios", "host": nodes::A, "pinned_zone": null, "key": null,
        "flavor": flavor(), "user_data": null, "metadata": {}, "tags": [], "access_ipv4": "", "access_ipv6": "",
        "disk_config": "MANUAL", "config_drive": false, "lock": null, "reservation_id": "r", "launch_index": 0,
        "group": null, "hints": {}, "power": "Running", "boot": {"seq": 1, "kind": "Hard"}, "volumes": [],
        "ports": [], "fault": null, "error": false, "open_action": null, "generation": 1, "deleted": false,
    }))
    .unwrap()
}

fn moving() -> serde_json::Value {
    json!({"number": 1, "migration": MIGRATION, "kind": "Live", "from": nodes::A, "to": nodes::B,
        "stage": "Preparing", "flavor": flavor(), "verify": false, "since": jiff::Timestamp::now()})
}

/// Starts the second libvirtd, in folders of its own and with a name and an identity of its own: else it would take the
/// first one for itself.
fn second_libvirtd() {
    let script = format!(
        "set -e; mkdir -p {SECOND}/run {SECOND}/lib {SECOND}/cache {SECOND}/log
         cp -a /etc/libvirt {SECOND}/etc
         echo 'host_uuid = \"00000000-0000-4000-8000-0000000000b2\"' >> {SECOND}/etc/libvirtd.conf
         mkdir -p /var/lib/libvirt /var/cache/libvirt /var/log/libvirt {a} {b}
         mount --bind {SECOND}/run /run/libvirt; mount --bind {SECOND}/lib /var/lib/libvirt
         mount --bind {SECOND}/cache /var/cache/libvirt; mount --bind {SECOND}/log /var/log/libvirt
         mount --bind {SECOND}/etc /etc/libvirt; mount --bind {b} {a}
         echo second > /proc/sys/kernel/hostname; exec libvirtd --pid-file {SECOND}/pid",
        a = nodes::state(nodes::A).display(),
        b = nodes::state(nodes::B).display(),
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--uts", "--propagation", "private", "sh", "-c", &script]);
    #[expect(clippy::zombie_processes, reason = "it ends with its namespaces")]
    let mut child = unshare.spawn().unwrap();
    let began = Instant::now();
    while !Path::new(SECOND).join("run/libvirt-sock").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "the second libvirtd ended at once");
        assert!(began.elapsed() < Duration::from_secs(60), "the second libvirtd does not listen");
        std::thread::sleep(Duration::from_millis(100));
    }
}

async fn until<T>(what: &str, seconds: u64, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            println!("{what}: after {:.2} s", began.elapsed().as_secs_f64());
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(seconds), "not {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes the server as the service would.
async fn change(store: &LocalStore, how: impl Fn(&mut Server)) {
    let written = store.transact(|tx| {
        let mut known = tx.get::<Server>(SERVER)?.unwrap_or_else(server);
        how(&mut known);
        known.generation += 1;
        tx.put(&known)
    });
    written.await.map_err(|e: cairn_state::Abort| e).unwrap();
}

/// The guests that a libvirt has running.
fn guests(socket: &str) -> String {
    let uri = format!("qemu+unix:///system?socket={socket}");
    let listed = Command::new("virsh").args(["-c", &uri, "list", "--all", "--name"]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).trim().to_owned()
}

#[test]
#[ignore = "run as root by `cargo test -p cairn-compute --test migration -- --ignored --nocapture`"]
fn a_guest_goes_to_another_libvirt_and_runs_on() {
    machine::on_a_machine("a_guest_goes_to_another_libvirt_and_runs_on", || {
        second_libvirtd();
        tokio::runtime::Runtime::new().unwrap().block_on(go());
    });
}

async fn go() {
    let local = LocalStore::in_memory().unwrap();
    let store: SharedStore = Arc::new(local.clone());
    let second = format!("{SECOND}/run/libvirt-sock");
    nodes::start(&store, "/run/libvirt/libvirt-sock", &second).await;
    let service = cairn_compute::Service::new(local.clone(), "/run/nobody.sock");
    tokio::spawn(cairn_compute::conductor(service));
    until("both hosts known", 120, async || {
        (store.list_records::<HostStatus>().await.unwrap().len() == 2).then_some(())
    })
    .await;
    change(&local, |_| {}).await;
    let runs_on = async |node: &str| {
        let seen = store.get_record::<InstanceStatus>(SERVER).await.unwrap()?;
        (seen.node == node && seen.power_state == PowerState::Running).then_some(seen)
    };
    until("running on the first", 120, async || runs_on(nodes::A).await).await;
    change(&local, |s| s.moving = Some(serde_json::from_value(moving()).unwrap())).await;
    until("the server is the second's", 120, async || {
        let server = store.get_record::<Server>(SERVER).await.unwrap()?;
        assert!(server.fault.is_none(), "{:?}", server.fault);
        (server.host.as_deref() == Some(nodes::B) && server.moving.is_none()).then_some(())
    })
    .await;
    let seen = until("running on the second", 60, async || runs_on(nodes::B).await).await;
    assert!(seen.started_at.is_none(), "it was not started anew");
    assert_eq!(guests("/run/libvirt/libvirt-sock"), "");
    assert_eq!(guests(&second), format!("instance-{SERVER}"));
    // Nobody tells the node anything: it knows by the age of its lease that others may start its guest.
    nodes::CUT_OFF.store(true, Ordering::Relaxed);
    let off = async || {
        let seen = store.get_record::<InstanceStatus>(SERVER).await.unwrap()?;
        let held = seen.error.is_some_and(|e| e.contains("not in touch"));
        (seen.power_state == PowerState::Shutdown && held).then_some(())
    };
    until("stopped by a node that is cut off", 60, off).await;
    nodes::CUT_OFF.store(false, Ordering::Relaxed);
    until("started again, since it is still its own", 60, async || runs_on(nodes::B).await).await;
}
