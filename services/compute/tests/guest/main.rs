//! The agent with a real libvirt and a real guest: started, paused, given a disk and relieved of it, rebooted,
//! stopped, lost and found again, destroyed.
//!
//! `cargo test -p cairn-compute --test guest -- --ignored --nocapture` runs it, as root, on a machine of its own made
//! of the image's root tree (`cargo run --release -p image-builder -- root`) and the tiny guest (`... -- guests --tiny`), or
//! the qcow2 in `CAIRN_TEST_GUEST`, which must answer its power button and say `CAIRN_TEST_PROMPT` on its serial console.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says where, and how long it took"
)]

mod machine;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_compute::model::{InstanceStatus, Power, PowerState, Server};
use cairn_network::model::{Phase as PortPhase, PortStatus, tap_name};
use cairn_shards::model::{Export, VolumeSpec};
use cairn_state::{AgentArgs, LocalStore, Reporter, SharedStore, StoreExt};
use serde_json::json;

const NODE: &str = "cairn-000001";
const SERVER: &str = "6a1c5e0e-0000-4000-8000-00000000c0de";
const IMAGE: &str = "1a000000-0000-4000-8000-000000000001";
const ROOT: &str = "2a000000-0000-4000-8000-000000000001";
const EXTRA: &str = "3a000000-0000-4000-8000-000000000001";
const PORT: &str = "70000000-0000-4000-8000-000000000001";

/// Asks for a volume, and gives it to the server.
async fn make_volume(store: &SharedStore, id: &str, source: Option<&str>) {
    let export = Export { node: NODE.into(), owner: SERVER.into(), epoch: 2 };
    let spec = VolumeSpec {
        source: source.map(str::to_owned),
        export: Some(export),
        generation: 2,
        ..VolumeSpec::new(id, NODE, 1 << 30)
    };
    store.put_record(&spec).await.unwrap();
}

/// Starts the storage role with an image of the disk to boot from.
async fn storage(args: &AgentArgs, disks: &Path) {
    let args = AgentArgs { state_dir: args.state_dir.join("storage"), ..args.clone() };
    let socket = args.run_dir.join("storage.sock");
    let store = args.store.clone();
    tokio::spawn(cairn_shards::agent::run(args, disks.to_owned()));
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let bytes = std::fs::read(machine::GUEST).unwrap();
    let client = cairn_shards::data::Client::new(socket);
    let image = client.import(IMAGE, "qcow2", 1 << 30, bytes.into()).await.unwrap();
    let spec = VolumeSpec { read_only: true, ..VolumeSpec::new(IMAGE, NODE, image.virtual_size) };
    store.put_record(&spec).await.unwrap();
}

fn volume(id: &str, device: &str, boot: bool) -> serde_json::Value {
    json!({"volume_id": id, "attachment_id": "a", "bdm_id": "b", "device": device, "boot": boot, "listed": !boot,
        "delete_on_termination": boot, "tag": null, "attached": true, "detaching": false})
}

fn server() -> Server {
    serde_json::from_value(json!({
        "id": SERVER, "project_id": "p", "user_id": "u", "name": "guest", "hostname": "guest", "description": null,
        "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z", "launched_at": null,
        "image": {"id": "", "properties": {}}, "firmware": "Bios", "host": NODE, "pinned_zone": null, "key": null,
        "flavor": {"id": "c1", "name": "c1.nano", "vcpus": 1, "ram_mb": 512, "disk_gb": 1, "ephemeral_gb": 0,
            "swap_mb": 0, "extra_specs": {}},
        "user_data": null, "metadata": {}, "tags": [], "access_ipv4": "", "access_ipv6": "", "disk_config": "MANUAL",
        "config_drive": false, "lock": null, "reservation_id": "r", "launch_index": 0, "group": null, "hints": {},
        "power": "Running", "boot": {"seq": 1, "kind": "Start"}, "volumes": [volume(ROOT, "/dev/vda", true)],
        "ports": [{"port_id": PORT, "network_id": "n", "mac": "fa:16:3e:00:00:01", "mtu": 1450, "tag": null,
            "detaching": false}],
        "fault": null, "error": false, "open_action": null, "generation": 1, "deleted": false,
    }))
    .unwrap()
}

/// The controller's side: writes the server as the service would.
async fn order(store: &LocalStore, change: impl Fn(&mut Server)) {
    store
        .transact(|tx| {
            let mut server = tx.get::<Server>(SERVER)?.unwrap_or_else(server);
            change(&mut server);
            server.generation += 1;
            tx.put(&server)
        })
        .await
        .map_err(|e: cairn_state::Abort| e)
        .unwrap();
}

async fn until(
    store: &SharedStore,
    what: &str,
    seconds: u64,
    fits: impl Fn(&InstanceStatus) -> bool,
) -> InstanceStatus {
    let began = Instant::now();
    loop {
        let seen = store.get_record::<InstanceStatus>(SERVER).await.unwrap();
        if let Some(seen) = seen.clone().filter(&fits) {
            println!("{what}: after {:.1} s", began.elapsed().as_secs_f64());
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(seconds), "not {what}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_written(log: &Path, text: &str, seconds: u64) {
    let began = Instant::now();
    while !std::fs::read(log).is_ok_and(|b| String::from_utf8_lossy(&b).contains(text)) {
        assert!(began.elapsed() < Duration::from_secs(seconds), "the console never said {text:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("the console says {text:?}: after {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
#[ignore = "run as root by `cargo test -p cairn-compute --test guest -- --ignored --nocapture`"]
fn the_life_of_a_guest() {
    machine::on_a_machine("the_life_of_a_guest", || {
        tokio::runtime::Runtime::new().unwrap().block_on(live(Path::new(machine::RUN)));
    });
}

async fn live(folder: &Path) {
    let prompt = std::env::var("CAIRN_TEST_PROMPT").unwrap_or_else(|_| "TINY-SSH".into());
    let tap = tap_name(PORT);
    machine::run("ip", &["tuntap", "add", &tap, "mode", "tap", "vnet_hdr"]);
    let logs = folder.join("console");

    let local = LocalStore::in_memory().unwrap();
    let store: SharedStore = Arc::new(local.clone());
    let args = AgentArgs {
        node: NODE.into(),
        store: store.clone(),
        reporter: Reporter::new(store.clone(), NODE, "compute"),
        state_dir: folder.into(),
        run_dir: folder.into(),
    };
    storage(&args, Path::new(machine::DISKS)).await;
    let agent = tokio::spawn(cairn_compute::agent::run(args.clone()));

    order(&local, |_| {}).await;
    until(&store, "waiting for its disk", 20, |s| s.error.is_some() && s.boots_done == 0).await;
    make_volume(&store, ROOT, Some(IMAGE)).await;
    let port = PortStatus {
        id: PORT.into(),
        host: NODE.into(),
        generation: 1,
        phase: PortPhase::Ready,
        up: false,
        tap: Some(tap.clone()),
        error: None,
    };
    store.put_record(&port).await.unwrap();
    let running = |s: &InstanceStatus| s.power_state == PowerState::Running;
    until(&store, "running", 60, |s| running(s) && s.boots_done == 1).await;
    let log = logs.join(format!("{SERVER}.log"));
    until_written(&log, &prompt, 300).await;

    order(&local, |s| s.power = Power::Paused).await;
    until(&store, "paused", 20, |s| s.power_state == PowerState::Paused).await;
    order(&local, |s| s.power = Power::Running).await;
    until(&store, "running again", 20, running).await;

    // A disk that nobody serves is waited for, and does not halt the guest.
    order(&local, |s| s.volumes.push(serde_json::from_value(volume(EXTRA, "/dev/vdb", false)).unwrap()))
        .await;
    until(&store, "waiting for the second disk", 10, |s| s.error.is_some() && running(s)).await;
    make_volume(&store, EXTRA, None).await;
    until(&store, "given the second disk", 20, |s| s.volumes_attached.contains(&EXTRA.to_owned())).await;
    order(&local, |s| s.volumes[1].detaching = true).await;
    until(&store, "relieved of it", 60, |s| !s.volumes_attached.contains(&EXTRA.to_owned())).await;
    order(&local, |s| drop(s.volumes.pop())).await;

    // The agent dies; the guest does not care, and the next agent finds it.
    agent.abort();
    let _ = agent.await;
    let agent = tokio::spawn(cairn_compute::agent::run(args));
    order(&local, |s| s.boot = serde_json::from_value(json!({"seq": 2, "kind": "Soft"})).unwrap()).await;
    until(&store, "rebooted softly", 90, |s| running(s) && s.boots_done == 2).await;
    order(&local, |s| s.boot = serde_json::from_value(json!({"seq": 3, "kind": "Hard"})).unwrap()).await;
    until(&store, "rebooted by force", 30, |s| running(s) && s.boots_done == 3).await;
    order(&local, |s| s.power = Power::Stopped).await;
    until(&store, "stopped", 90, |s| s.power_state == PowerState::Shutdown).await;
    order(&local, |s| s.deleted = true).await;
    until(&store, "gone", 20, |s| s.gone).await;
    assert!(!log.exists(), "its console log goes with it");
    agent.abort();
}
