//! What a guest is told about itself at 169.254.169.254. Written by the controller, in compute's transaction.

use cairn_state::Record;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A server's metadata. It is found by the network a request comes from and the fixed address it comes with:
/// that names a port, and the port's `device_id` the server. It may hold secrets of the user's: never log it.
/// Key `network/metadata/SERVER`. Writer: controller.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMetadata {
    /// The server.
    pub server_id: String,
    /// The project it belongs to.
    pub project_id: String,
    /// Its ports, the first one first.
    pub ports: Vec<String>,
    /// `meta_data.json` as OpenStack has it (`uuid`, `name`, `hostname`, `public_keys`, `meta`, ...).
    pub meta_data: Value,
    /// `network_data.json`.
    pub network_data: Value,
    /// `vendor_data.json`.
    pub vendor_data: Value,
    /// The user's own data, in base64.
    pub user_data: Option<String>,
    /// The flavor's name: `instance-type` in the EC2 form.
    pub instance_type: String,
    /// The image's id: `ami-id` in the EC2 form.
    pub image_id: Option<String>,
}

impl std::fmt::Debug for ServerMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerMetadata").field("server_id", &self.server_id).finish_non_exhaustive()
    }
}

impl Record for ServerMetadata {
    const KIND: &'static str = "network/metadata";

    fn id(&self) -> String {
        self.server_id.clone()
    }
}
