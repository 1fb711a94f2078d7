//! Who may read and write what in the store: each agent writes its own observations and nothing of another's, and no
//! agent reads identity's secrets, nor anything of `cluster/`, where the authorities' keys are.

use std::sync::Arc;

use cairn_state::record::prefix;
use cairn_wire::store_server::{Policy, Role};
use nix::unistd::{Uid, User};

/// The policy for the peers of this node's store socket: they are known by the user they run as.
pub fn policy(node: &str) -> Policy {
    let node = node.to_owned();
    Arc::new(move |peer| {
        let user = User::from_uid(Uid::from_raw(peer.uid)).ok().flatten()?;
        role(&user.name, &node)
    })
}

fn role(user: &str, node: &str) -> Option<Role> {
    let mut may_swap = Vec::new();
    let (name, may_read, mut may_write) = match user {
        "root" => ("node", &["node/"][..], vec![]),
        "cairn-compute" => (
            "compute",
            &["node/", "compute/", "network/port", "shards/volume"][..],
            vec![
                prefix::<cairn_compute::model::InstanceStatus>(),
                prefix::<cairn_compute::model::HostStatus>(),
                prefix::<cairn_compute::model::MoveStatus>(),
            ],
        ),
        "cairn-network" => (
            "network",
            &["node/", "network/"][..],
            vec![
                prefix::<cairn_network::model::PortStatus>(),
                prefix::<cairn_network::model::PortPrepared>(),
                prefix::<cairn_network::model::RouterStatus>(),
                prefix::<cairn_network::model::NetworkStatus>(),
                prefix::<cairn_network::model::HostStatus>(),
            ],
        ),
        "cairn-storage" => {
            // Which replicas are in sync: under the epoch of the volume's writer, and the controller changes it too.
            may_swap.push(prefix::<cairn_shards::replication::set::ReplicaSet>());
            (
                "storage",
                &["node/", "shards/"][..],
                vec![
                    prefix::<cairn_shards::model::VolumeStatus>(),
                    prefix::<cairn_shards::model::DiskStatus>(),
                    prefix::<cairn_shards::model::ReplicaStatus>(),
                    prefix::<cairn_shards::model::Prepared>(),
                    prefix::<cairn_shards::external::model::BackendStatus>(),
                    prefix::<cairn_shards::backup::BackupStatus>(),
                    prefix::<cairn_shards::backup::RestoreStatus>(),
                ],
            )
        }
        _ => return None,
    };
    may_write.push(format!("node/status/{node}/{name}"));
    let may_read = may_read.iter().map(|p| (*p).to_owned()).collect();
    Some(Role { name: name.into(), may_write, may_swap, may_read })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_writes_its_own_observations_and_nothing_else() {
        let network = role("cairn-network", "n1").unwrap();
        assert!(network.may_write("network/port-status/x"));
        assert!(network.may_write("node/status/n1/network"));
        assert!(!network.may_write("network/port/x"));
        assert!(!network.may_write("node/status/n1/compute"));
        assert!(!network.may_read("identity/keys/") && !network.may_read(""));
        assert!(!role("root", "n1").unwrap().may_write("identity/user/x"));
        assert_eq!(role("nobody", "n1"), None);
        let keys = prefix::<cairn_shards::crypt::keys::CloudKey>();
        assert!(!role("cairn-compute", "n1").unwrap().may_read(&keys) && !network.may_read(&keys));
        let storage = role("cairn-storage", "n1").unwrap();
        assert!(!storage.may_write("shards/replicas/v") && !storage.may_write("shards/volume/v"));
        assert_eq!(storage.may_swap, ["shards/replicas/"]);
        for agent in ["root", "cairn-compute", "cairn-network", "cairn-storage"] {
            let role = role(agent, "n1").unwrap();
            // The authorities' keys are among what is there.
            assert!(!role.may_read("cluster/") && !role.may_read("cluster/member/x"), "{agent}");
            assert!(!role.may_write("cluster/alive/n1"), "{agent}");
        }
    }
}
