//! A router's interfaces: its ports on the networks it joins.

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use jiff::Timestamp;

use super::fixed_ips::Wanted;
use super::{addressing, ports};
use crate::model::{FloatingIp, Network, Port, Router, Subnet, owner};

/// The router's ports: its interfaces, and its gateway.
pub fn ports_of(tx: &mut Tx, router_id: &str) -> ApiResult<Vec<Port>> {
    let found = tx.by_index::<Port>("device", router_id)?;
    Ok(found.into_iter().filter(Port::is_router_port).collect())
}

/// The router's interfaces.
pub fn of(tx: &mut Tx, router_id: &str) -> ApiResult<Vec<Port>> {
    let mut ports = ports_of(tx, router_id)?;
    ports.retain(|p| p.device_owner == owner::ROUTER_INTERFACE);
    Ok(ports)
}

fn bad(message: String) -> ApiError {
    ApiError::bad_request(format!("Bad router request: {message}")).with_code("BadRequest")
}

/// The subnets that a port has addresses in.
fn subnets(tx: &mut Tx, port: &Port) -> ApiResult<Vec<Subnet>> {
    let mut found: Vec<Subnet> = Vec::new();
    for fixed in &port.fixed_ips {
        if !found.iter().any(|s| s.id == fixed.subnet_id) {
            found.extend(tx.get::<Subnet>(&fixed.subnet_id)?);
        }
    }
    Ok(found)
}

/// Refuses a port whose subnets are, or share addresses with, those of the router's other ports.
pub fn check_overlap(tx: &mut Tx, router: &Router, port: &Port) -> ApiResult<()> {
    let new = subnets(tx, port)?;
    for other in ports_of(tx, &router.id)?.into_iter().filter(|p| p.id != port.id) {
        for theirs in subnets(tx, &other)? {
            if let Some(same) = new.iter().find(|s| s.id == theirs.id) {
                return Err(bad(format!("Router already has a port on subnet {}.", same.id)));
            }
            if let Some(ours) = new.iter().find(|s| addressing::overlap(s.cidr, theirs.cidr)) {
                return Err(bad(format!(
                    "Cidr {} of subnet {} overlaps with cidr {} of subnet {}.",
                    ours.cidr, ours.id, theirs.cidr, theirs.id
                )));
            }
        }
    }
    Ok(())
}

/// Joins a router to a subnet, at the subnet's gateway address.
pub fn add_subnet(tx: &mut Tx, router: &Router, subnet: &Subnet, now: Timestamp) -> ApiResult<Port> {
    let gateway =
        subnet.gateway_ip.ok_or_else(|| bad("Subnet for router interface must have a gateway IP.".into()))?;
    for mine in of(tx, &router.id)? {
        if mine.fixed_ips.iter().any(|f| f.subnet_id == subnet.id) {
            return Err(bad(format!("Router already has a port on subnet {}.", subnet.id)));
        }
    }
    let network = tx
        .get::<Network>(&subnet.network_id)?
        .filter(|n| !n.deleted)
        .ok_or_else(|| ApiError::not_found("Network", &subnet.network_id).with_code("NetworkNotFound"))?;
    let mut port = ports::blank(&network, &router.project_id, owner::ROUTER_INTERFACE, now);
    port.device_id.clone_from(&router.id);
    port.host.clone_from(&router.host);
    let wanted = Wanted { subnet_id: Some(subnet.id.clone()), ip: Some(gateway) };
    let port = ports::insert(tx, &network, port, Some(&[wanted]))?;
    check_overlap(tx, router, &port)?;
    Ok(port)
}

/// Makes a port that a user made the router's.
pub fn add_port(tx: &mut Tx, router: &Router, mut port: Port, now: Timestamp) -> ApiResult<Port> {
    if !port.device_id.is_empty() {
        let message = format!(
            "Unable to complete operation on port {} for network {}. Port already has an attached device {}.",
            port.id, port.network_id, port.device_id
        );
        return Err(ApiError::conflict(message).with_code("PortInUse"));
    }
    if port.fixed_ips.is_empty() {
        return Err(bad("Router port must have at least one fixed IP.".into()));
    }
    if port.fixed_ips.iter().filter(|f| f.ip.is_ipv4()).count() > 1 {
        return Err(bad("Cannot have multiple IPv4 subnets on router port.".into()));
    }
    check_overlap(tx, router, &port)?;
    port.device_id.clone_from(&router.id);
    port.device_owner = owner::ROUTER_INTERFACE.to_owned();
    // A router forwards what is not its own: filters of a guest's port would stop it.
    port.security_groups.clear();
    port.allowed_address_pairs.clear();
    port.port_security = false;
    ports::bind(tx, &mut port, router.host.as_deref())?;
    port.stamp.touch(now);
    tx.put(&port)?;
    Ok(port)
}

/// Removes an interface, unless floating IPs or routes need it.
pub fn remove(tx: &mut Tx, router: &Router, port: Port, now: Timestamp) -> ApiResult<()> {
    for subnet in subnets(tx, &port)? {
        let conflict = |why: &str, code| {
            let message = format!(
                "Router interface for subnet {} on router {} cannot be deleted, as it is required by one or more {why}.",
                subnet.id, router.id
            );
            Err(ApiError::conflict(message).with_code(code))
        };
        let floating = tx.by_index::<FloatingIp>("router", &router.id)?;
        if floating.iter().any(|f| f.fixed_ip_address.is_some_and(|ip| subnet.cidr.contains(&ip))) {
            return conflict("floating IPs", "RouterInterfaceInUseByFloatingIP");
        }
        if router.routes.iter().any(|r| subnet.cidr.contains(&r.nexthop)) {
            return conflict("routes", "RouterInterfaceInUseByRoute");
        }
    }
    ports::delete(tx, port, now)
}
