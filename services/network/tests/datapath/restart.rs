//! What a restart, damage from outside and an absent store do: nothing.

use std::time::Duration;

use cairn_network::model::*;

use crate::node::{self, Node, eventually, on_a_node, run, sh, text};
use crate::support::{self, Cloud};
use crate::{allow, background_pings, left, lost};

#[test]
fn a_restart_changes_nothing_and_damage_heals() {
    on_a_node(|node| {
        let mut cloud = Cloud::default();
        let (net, subnet) = cloud.network("10.0.0.0/24", None);
        let open = cloud.group(&[&allow("icmp", None)]);
        let a = cloud.guest(&net, &subnet, "10.0.0.10", "a", &[&open]);
        let b = cloud.guest(&net, &subnet, "10.0.0.11", "b", &[&open]);
        node.start_agent();
        node.settle(&cloud);
        let (ga, gb) = (node.guest(&cloud, &a), node.guest(&cloud, &b));
        ga.dhcp();
        gb.dhcp();
        let snapshot = || {
            text(&run(
                "ip -o link | sed \"s/ qlen.*//\"; nft -a list ruleset | grep -v counter; ls -i /run/netns",
            ))
        };
        let before = snapshot();

        let pings = background_pings(&ga, "10.0.0.11", 60);
        for _ in 0..3 {
            node.stop_agent();
            node.start_agent();
            std::thread::sleep(Duration::from_millis(600));
        }
        assert_eq!(lost(pings), 0, "no packet is lost");
        assert_eq!(snapshot(), before, "nothing was touched");
        // The servers are the agent's own and must be back.
        ga.dhcp();
        ga.sh("curl -s -m 3 http://169.254.169.254/openstack");

        damage(node, &cloud, &ga, &a);
        orphans(node);
        away(node, &ga);
    });
}

fn damage(node: &Node, cloud: &Cloud, guest: &node::Guest, port: &str) {
    let rules = text(&run("nft -s list ruleset"));
    sh("nft flush ruleset");
    sh(&format!("ip link set {} nomaster", tap_name(port)));
    let space = netns_name(&cloud.networks[0].id);
    sh(&format!("ip netns exec {space} ip addr flush dev lo; ip netns del {space}"));
    // Any change wakes the agent; without one it looks by itself every ten seconds.
    let mut woken = cloud.clone();
    woken.networks[0].stamp.revision += 1;
    node.put(&woken);
    eventually("rules, bridge and namespace are back", || {
        text(&run("nft -s list ruleset")) == rules && guest.pings("10.0.0.11") && guest.pings("10.0.0.2")
    });
    guest.dhcp();
    node.put(cloud);
}

fn orphans(node: &Node) {
    let id = "deadbeef-0000-4000-8000-000000000000";
    sh(&format!("ip link add {} type bridge; ip tuntap add {} mode tap", bridge_name(id), tap_name(id)));
    sh(&format!("ip netns add {}; ip link add keepme type bridge; ip netns add other", router_netns(id)));
    node.runtime.block_on(async {
        // Somebody else's record wakes nobody; a security group's does.
        let group = SecurityGroup {
            id: "g".into(),
            project_id: "p".into(),
            name: String::new(),
            description: String::new(),
            is_default: false,
            tags: Default::default(),
            stamp: support::stamp(),
        };
        node.store.transact(|tx| tx.put(&group)).await.map_err(|e: cairn_state::Abort| e).unwrap();
    });
    eventually("orphans are gone", || !left().contains("deadbeef"));
    let all = text(&run("ip -o link; ls /run/netns"));
    assert!(all.contains("keepme") && all.contains("other"), "what is not ours stays: {all}");
}

/// Without the store the agent starts by what it kept, and takes nothing away.
fn away(node: &mut Node, guest: &node::Guest) {
    std::thread::sleep(Duration::from_millis(700));
    node.stop_agent();
    node.start_agent_on(std::sync::Arc::new(Unreachable));
    eventually("metadata is answered from what was kept", || {
        guest
            .run("curl -s -m 1 http://169.254.169.254/openstack/latest/meta_data.json | grep server-a")
            .status
            .success()
    });
    assert!(guest.pings("10.0.0.11"));
}

/// A store that is away.
struct Unreachable;

#[async_trait::async_trait]
impl cairn_state::Store for Unreachable {
    async fn get(&self, _: &str) -> Result<Option<cairn_state::Entry>, cairn_state::StoreError> {
        Err(gone())
    }
    async fn range(
        &self,
        _: &str,
        _: Option<&str>,
        _: usize,
    ) -> Result<cairn_state::Range, cairn_state::StoreError> {
        Err(gone())
    }
    async fn txn(&self, _: cairn_state::Txn) -> Result<cairn_state::TxnOutcome, cairn_state::StoreError> {
        Err(gone())
    }
    async fn watch(
        &self,
        _: &str,
        _: cairn_state::Revision,
    ) -> Result<cairn_state::WatchStream, cairn_state::StoreError> {
        Err(gone())
    }
    async fn lease_grant(&self, _: u64) -> Result<cairn_state::LeaseId, cairn_state::StoreError> {
        Err(gone())
    }
    async fn lease_keep_alive(&self, _: cairn_state::LeaseId) -> Result<(), cairn_state::StoreError> {
        Err(gone())
    }
    async fn lease_revoke(&self, _: cairn_state::LeaseId) -> Result<(), cairn_state::StoreError> {
        Err(gone())
    }
}

fn gone() -> cairn_state::StoreError {
    cairn_state::StoreError::Unavailable("away".into())
}
