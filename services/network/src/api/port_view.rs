//! The parts of a shown port that need more than its record: what its node says of it, and its binding.

use cairn_gateway::ApiResult;
use cairn_state::Tx;
use serde_json::{Value, json};

use crate::model::{DhcpOption, Network, NetworkStatus, Phase, Port, PortStatus, owner, status};

/// The address pairs; a whole address is shown without its length.
pub fn pairs(port: &Port) -> Vec<Value> {
    let text = |ip: &ipnet::IpNet| match ip.prefix_len() == ip.max_prefix_len() {
        true => ip.addr().to_string(),
        false => ip.to_string(),
    };
    port.allowed_address_pairs
        .iter()
        .map(|p| json!({"ip_address": text(&p.ip), "mac_address": p.mac}))
        .collect()
}

/// The extra DHCP options.
pub fn options(port: &Port) -> Vec<Value> {
    let view = |o: &DhcpOption| json!({"opt_name": o.name, "opt_value": o.value, "ip_version": o.ip_version});
    port.dhcp_options.iter().map(view).collect()
}

/// The attributes that only administrators see.
pub fn binding(port: &Port) -> Value {
    let (kind, details) = match &port.host {
        Some(_) if port.is_guest_port() => {
            ("bridge", json!({"port_filter": port.port_security, "connectivity": "l2"}))
        }
        Some(_) => ("other", json!({})),
        None => ("unbound", json!({})),
    };
    let mut profile = port.binding_profile.clone();
    if let Some(host) = &port.migrating_to {
        profile.insert("migrating_to".to_owned(), json!(host));
    }
    json!({
        "binding:host_id": port.host.as_deref().unwrap_or_default(), "binding:profile": profile,
        "binding:vif_type": kind, "binding:vif_details": details,
    })
}

/// What a port's node says of it; a DHCP port's status is that of its network's answering.
pub fn status(tx: &mut Tx, port: &Port) -> ApiResult<&'static str> {
    match port.device_owner.as_str() {
        owner::FLOATING_IP => return Ok("N/A"),
        owner::DHCP => return dhcp_status(tx, port),
        _ => {}
    }
    let Some(host) = &port.host else { return Ok("DOWN") };
    let seen = tx.get::<PortStatus>(&port.id)?.filter(|s| s.host == *host);
    Ok(match seen {
        None => "BUILD",
        Some(s) if s.phase == Phase::Failed => "ERROR",
        Some(s) if s.phase == Phase::Pending => "BUILD",
        // A router's port works as soon as it is there; a guest's when its guest has taken it up.
        Some(s) if s.phase == Phase::Ready && (s.up || port.is_router_port()) && port.admin_state_up => {
            "ACTIVE"
        }
        Some(_) => "DOWN",
    })
}

fn dhcp_status(tx: &mut Tx, port: &Port) -> ApiResult<&'static str> {
    let Some(network) = tx.get::<Network>(&port.network_id)? else { return Ok("DOWN") };
    for host in &network.hosts {
        let seen = tx.get::<NetworkStatus>(&status::on_host(&network.id, host))?;
        if seen.is_some_and(|s| s.phase == Phase::Ready && s.dhcp) {
            return Ok("ACTIVE");
        }
    }
    Ok("DOWN")
}
