//! The one address at which the whole cloud answers, on whichever node.

use std::net::IpAddr;

use cairn_state::Record;
use serde::{Deserialize, Serialize};

/// The cloud's own address on the LAN, if it was given one. Key `network/virtual-address/this`. Writer: the controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualAddress {
    /// The address; none if nobody gave the cloud one.
    pub address: Option<IpAddr>,
    /// The node that has it now: it puts the address on its LAN, all others take it from theirs.
    pub holder: Option<String>,
}

impl VirtualAddress {
    /// The id of the record.
    pub const ID: &'static str = "this";

    /// The address, if this node is to have it.
    pub fn on(&self, node: &str) -> Option<IpAddr> {
        self.address.filter(|_| self.holder.as_deref() == Some(node))
    }
}

impl Record for VirtualAddress {
    const KIND: &'static str = "network/virtual-address";

    fn id(&self) -> String {
        VirtualAddress::ID.into()
    }
}
