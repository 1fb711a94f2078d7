//! A router's way out: its port on an external network.

use cairn_gateway::{ApiError, ApiResult};
use cairn_state::Tx;
use jiff::Timestamp;

use super::fixed_ips::Wanted;
use super::{interfaces, ports};
use crate::model::{ExternalGateway, FloatingIp, Network, Port, Router, owner};

/// What `external_gateway_info` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedGateway {
    /// The external network.
    pub network: Network,
    /// Whether to translate; `None` leaves it as it is (at first: yes).
    pub enable_snat: Option<bool>,
    /// The outer addresses; `None` leaves them as they are (at first: one of each IP version).
    pub fixed_ips: Option<Vec<Wanted>>,
}

/// Gives a router this way out, or none. The caller puts the router.
pub fn set(
    tx: &mut Tx,
    router: &mut Router,
    wanted: Option<&WantedGateway>,
    now: Timestamp,
) -> ApiResult<()> {
    let Some(wanted) = wanted else { return clear(tx, router, now) };
    if router.gateway.as_ref().is_some_and(|g| g.network_id != wanted.network.id) {
        clear(tx, router, now)?;
    }
    match router.gateway.clone() {
        Some(gateway) => change(tx, router, gateway, wanted, now),
        None => open(tx, router, wanted, now),
    }
}

fn open(tx: &mut Tx, router: &mut Router, wanted: &WantedGateway, now: Timestamp) -> ApiResult<()> {
    let network = &wanted.network;
    if !network.external {
        let message = format!("Bad router request: Network {} is not an external network.", network.id);
        return Err(ApiError::bad_request(message).with_code("BadRequest"));
    }
    let mut port = ports::blank(network, "", owner::ROUTER_GATEWAY, now);
    port.device_id.clone_from(&router.id);
    port.host.clone_from(&router.host);
    let port = ports::insert(tx, network, port, wanted.fixed_ips.as_deref())?;
    if port.fixed_ips.is_empty() {
        let message =
            format!("Bad router request: External network {} has no subnet with a free address.", network.id);
        return Err(ApiError::bad_request(message).with_code("BadRequest"));
    }
    interfaces::check_overlap(tx, router, &port)?;
    let enable_snat = wanted.enable_snat.unwrap_or(true);
    router.gateway = Some(ExternalGateway { network_id: network.id.clone(), port_id: port.id, enable_snat });
    Ok(())
}

fn change(
    tx: &mut Tx,
    router: &mut Router,
    mut gateway: ExternalGateway,
    wanted: &WantedGateway,
    now: Timestamp,
) -> ApiResult<()> {
    gateway.enable_snat = wanted.enable_snat.unwrap_or(gateway.enable_snat);
    if let Some(fixed_ips) = &wanted.fixed_ips
        && let Some(mut port) = tx.get::<Port>(&gateway.port_id)?
    {
        ports::set_addresses(tx, &wanted.network, &mut port, fixed_ips)?;
        port.stamp.touch(now);
        tx.put(&port)?;
    }
    router.gateway = Some(gateway);
    Ok(())
}

/// Takes a router's way out, unless floating IPs need it. The caller puts the router.
pub fn clear(tx: &mut Tx, router: &mut Router, now: Timestamp) -> ApiResult<()> {
    let Some(gateway) = &router.gateway else { return Ok(()) };
    if !tx.by_index::<FloatingIp>("router", &router.id)?.is_empty() {
        let message = format!(
            "Gateway cannot be updated for router {}, since a gateway to external network {} is required by one or \
             more floating IPs.",
            router.id, gateway.network_id
        );
        return Err(ApiError::conflict(message).with_code("RouterExternalGatewayInUseByFloatingIp"));
    }
    if let Some(port) = tx.get::<Port>(&gateway.port_id)? {
        ports::delete(tx, port, now)?;
    }
    router.gateway = None;
    Ok(())
}
