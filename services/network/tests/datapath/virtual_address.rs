//! The cloud's own address: on the node that holds it, and on no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_network::model::VirtualAddress;
use cairn_state::StoreExt;

use super::node::{Node, eventually, on_a_node, run, sh, text};
use super::support::NODE;

const ADDRESS: &str = "192.0.2.10";

fn is_here() -> bool {
    text(&run("ip -o addr show dev lan0")).contains(&format!("{ADDRESS}/32"))
}

fn held_by(node: &Node, holder: &str) {
    let record = VirtualAddress { address: Some(ADDRESS.parse().unwrap()), holder: Some(holder.to_owned()) };
    node.runtime.block_on(node.store.put_record(&record)).unwrap();
}

#[test]
fn the_clouds_address_is_on_its_holder_while_that_is_in_touch_and_on_no_other() {
    on_a_node(|node| {
        sh(
            "ip link add lan0 type bridge; ip link add wire type veth peer name other; ip link set wire master lan0",
        );
        sh(
            "ip link set lan0 up; ip link set wire up; ip link set other up; ip addr add 192.0.2.1/24 dev lan0",
        );
        let renewed = Arc::new(AtomicU64::new(0));
        node.renewed = Some(renewed.clone());
        held_by(node, NODE);
        node.start_agent();
        eventually("it is there", is_here);
        held_by(node, "another");
        eventually("it has left", || !is_here());

        held_by(node, NODE);
        eventually("it is there again", is_here);
        renewed.store(60, Ordering::SeqCst);
        eventually("a node out of touch drops it by itself", || !is_here());
        renewed.store(0, Ordering::SeqCst);
        eventually("it comes back", is_here);

        // A restarted agent knows what it has put there.
        node.stop_agent();
        held_by(node, "another");
        node.start_agent();
        eventually("it has left", || !is_here());
        assert!(text(&run("ip -o addr show dev lan0")).contains("192.0.2.1/24"), "the node's own stays");
    });
}
