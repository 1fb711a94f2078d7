//! Floating IPs: which address of a port one leads to, and which router translates.

use std::net::IpAddr;

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use jiff::Timestamp;

use super::ports;
use crate::model::{FixedIp, FloatingIp, Port, Router, Subnet, owner};

/// Leads a floating IP to a port's address: the one that is named, or the only IPv4 one.
/// The caller puts the floating IP.
pub fn associate(tx: &mut Tx, fip: &mut FloatingIp, port: &Port, fixed: Option<IpAddr>) -> ApiResult<()> {
    let target = target(port, fixed)?;
    let router = router_for(tx, fip, port, &target)?;
    let key = format!("{} {} {}", port.id, target.ip, fip.floating_network_id);
    if tx.by_unique::<FloatingIp>("target", &key)?.is_some_and(|other| other.id != fip.id) {
        let message = format!(
            "Cannot associate floating IP {} ({}) with port {} using fixed IP {}, as that fixed IP already has a \
             floating IP on external network {}.",
            fip.floating_ip_address, fip.id, port.id, target.ip, fip.floating_network_id
        );
        return Err(ApiError::conflict(message).with_code("FloatingIPPortAlreadyAssociated"));
    }
    fip.port_id = Some(port.id.clone());
    fip.fixed_ip_address = Some(target.ip);
    fip.router_id = Some(router);
    Ok(())
}

/// Leads a floating IP nowhere. The caller puts it.
pub fn dissociate(fip: &mut FloatingIp) {
    fip.port_id = None;
    fip.fixed_ip_address = None;
    fip.router_id = None;
}

fn target(port: &Port, fixed: Option<IpAddr>) -> ApiResult<FixedIp> {
    if let Some(ip) = fixed {
        let found = port.fixed_ips.iter().find(|f| f.ip == ip && ip.is_ipv4());
        return found.cloned().ok_or_else(|| {
            ApiError::bad_request(format!("Port {} does not have fixed ip {ip}", port.id))
                .with_code("BadRequest")
        });
    }
    let mut of_v4 = port.fixed_ips.iter().filter(|f| f.ip.is_ipv4());
    match (of_v4.next(), of_v4.next()) {
        (Some(only), None) => Ok(only.clone()),
        (None, _) => Err(ApiError::bad_request(format!(
            "Cannot add floating IP to port {} that has no fixed IPv4 addresses",
            port.id
        ))),
        _ => Err(ApiError::bad_request(format!(
            "Port {} has multiple fixed IPv4 addresses.  Must provide a specific IPv4 address when assigning a \
             floating IP",
            port.id
        ))),
    }
}

/// The router that joins the address's subnet and the floating IP's network: the subnet's gateway before others.
fn router_for(tx: &mut Tx, fip: &FloatingIp, port: &Port, target: &FixedIp) -> ApiResult<String> {
    let gateway = tx.get::<Subnet>(&target.subnet_id)?.and_then(|s| s.gateway_ip);
    let mut interfaces = tx.by_index::<Port>("routed", &target.subnet_id)?;
    interfaces.sort_by_key(|p| !p.fixed_ips.iter().any(|f| Some(f.ip) == gateway));
    for interface in interfaces {
        let router = tx.get::<Router>(&interface.device_id)?.filter(|r| !r.deleted);
        let reaches = router.as_ref().and_then(|r| r.gateway.as_ref());
        if reaches.is_some_and(|g| g.network_id == fip.floating_network_id) {
            return Ok(interface.device_id);
        }
    }
    let message = format!(
        "External network {} is not reachable from subnet {}.  Therefore, cannot associate Port {} with a Floating IP.",
        fip.floating_network_id, target.subnet_id, port.id
    );
    Err(ApiError::new(http::StatusCode::NOT_FOUND, message).with_code("ExternalGatewayForFloatingIPNotFound"))
}

/// Takes away the floating IPs that lead to these addresses of a port (or to any of it), as the addresses go.
pub fn forsake(tx: &mut Tx, port_id: &str, addresses: Option<&[FixedIp]>) -> ApiResult<()> {
    if addresses.is_some_and(<[FixedIp]>::is_empty) {
        return Ok(());
    }
    for mut fip in tx.by_index::<FloatingIp>("port", port_id)? {
        let hit = addresses.is_none_or(|gone| gone.iter().any(|f| Some(f.ip) == fip.fixed_ip_address));
        if hit {
            dissociate(&mut fip);
            fip.stamp.touch(Timestamp::now());
            tx.put(&fip)?;
        }
    }
    Ok(())
}

/// Removes a floating IP and the port that holds its address.
pub fn delete(tx: &mut Tx, fip: &FloatingIp, now: Timestamp) -> ApiResult<()> {
    if let Some(port) = tx.get::<Port>(&fip.floating_port_id)? {
        debug_assert_eq!(port.device_owner, owner::FLOATING_IP);
        ports::delete(tx, port, now)?;
    }
    super::quotas::give(tx, &fip.project_id, "floatingip")?;
    Ok(tx.delete::<FloatingIp>(&fip.id).map(drop)?)
}
