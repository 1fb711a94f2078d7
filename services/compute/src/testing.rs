//! What the tests of this crate build upon.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::model::{
    Boot, BootKind, Firmware, FlavorSnapshot, ImageSnapshot, InstanceStatus, Power, PowerState, Server,
    ServerPort, ServerVolume, flavor_seed,
};

/// The node of the tests.
pub const NODE: &str = "cairn-000001";

/// A server on [`NODE`] with a root disk `v1` and a port `p1`, its first boot ordered.
pub fn server(id: &str) -> Server {
    let flavor: FlavorSnapshot = flavor_seed()[0].snapshot();
    Server {
        id: id.into(),
        project_id: "project".into(),
        user_id: "user".into(),
        name: id.into(),
        hostname: id.into(),
        description: None,
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH,
        launched_at: None,
        image: ImageSnapshot { id: "image".into(), ..ImageSnapshot::default() },
        flavor,
        firmware: Firmware::Bios,
        host: Some(NODE.into()),
        pinned_zone: None,
        key: None,
        user_data: None,
        metadata: BTreeMap::new(),
        tags: BTreeSet::new(),
        access_ipv4: String::new(),
        access_ipv6: String::new(),
        disk_config: "MANUAL".into(),
        config_drive: false,
        lock: None,
        reservation_id: "r-1".into(),
        launch_index: 0,
        group: None,
        hints: BTreeMap::new(),
        power: Power::Running,
        boot: Boot { seq: 1, kind: BootKind::Start },
        volumes: vec![volume("v1", "/dev/vda", true)],
        ports: vec![ServerPort {
            port_id: "p1".into(),
            network_id: "n1".into(),
            mac: "fa:16:3e:00:00:01".into(),
            mtu: 1450,
            tag: None,
            detaching: false,
        }],
        fault: None,
        error: false,
        open_action: None,
        generation: 1,
        deleted: false,
        moving: None,
        tried: BTreeSet::new(),
    }
}

/// A volume of a server.
pub fn volume(id: &str, device: &str, boot: bool) -> ServerVolume {
    ServerVolume {
        volume_id: id.into(),
        attachment_id: "a".into(),
        bdm_id: "b".into(),
        device: device.into(),
        boot,
        listed: !boot,
        delete_on_termination: boot,
        tag: None,
        attached: true,
        detaching: false,
    }
}

/// What [`NODE`] says of a server.
pub fn seen(id: &str, boots_done: u64, power_state: PowerState) -> InstanceStatus {
    InstanceStatus {
        id: id.into(),
        node: NODE.into(),
        generation: 1,
        power_state,
        boots_done,
        volumes_attached: vec!["v1".into()],
        ports_plugged: vec!["p1".into()],
        ..InstanceStatus::default()
    }
}
