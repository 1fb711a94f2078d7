//! What tests of joining have in common: a node before it is of a cloud.

use cairn_cluster::NodeKey;
use cairn_wire::remote::{Endpoint, Trust, TrustSet, Versions};

/// A node that is of no cloud yet.
pub struct Node {
    /// Its key.
    pub key: NodeKey,
    /// Where it speaks from, trusting nobody.
    pub endpoint: Endpoint,
}

impl Node {
    /// A node with a key of its own.
    pub fn new() -> Node {
        let key = NodeKey::generate().unwrap();
        let credentials = key.credentials(key.self_signed().unwrap()).unwrap();
        let trust = Trust::new(TrustSet::default());
        Node { key, endpoint: Endpoint { credentials, trust, versions: Versions::OURS } }
    }
}
