//! The interfaces of servers: ports taken, plugged and given back through the network service, in the server's
//! transaction, and what guests are told about them.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_network::model::{Network, Port, SecurityGroup, ServerMetadata, Subnet};
use cairn_network::servers::{self as network, PortRequest};
use cairn_state::{Abort, Tx};
use http::StatusCode;
use serde_json::json;

use crate::api::view::Address;
use crate::metadata::{self, Place};
use crate::model::{Server, ServerPort};
use crate::order::{NicOrder, NicWanted};

/// The interfaces an order comes down to.
pub fn wanted(tx: &mut Tx, caller: &Caller, order: &NicOrder) -> ApiResult<Vec<NicWanted>> {
    match order {
        NicOrder::None => Ok(Vec::new()),
        NicOrder::List(list) => Ok(list.clone()),
        NicOrder::Auto => {
            let mut usable = networks_of(tx, caller)?;
            if usable.len() > 1 {
                return Err(ApiError::conflict(
                    "Multiple possible networks found, use a Network ID to be more specific.",
                ));
            }
            Ok(usable
                .pop()
                .map(|n| NicWanted { network: Some(n.id), ..NicWanted::default() })
                .into_iter()
                .collect())
        }
    }
}

/// The networks of a project, and those shared with everybody.
pub fn networks_of(tx: &mut Tx, caller: &Caller) -> Result<Vec<Network>, Abort> {
    let mut all = tx.by_index::<Network>("project", &caller.project_id)?;
    for shared in tx.by_index::<Network>("shared", "yes")? {
        if all.iter().all(|n| n.id != shared.id) {
            all.push(shared);
        }
    }
    all.retain(|n| !n.deleted && !n.external);
    Ok(all)
}

/// Takes a port for a server and adds it to the server.
pub fn plug(
    tx: &mut Tx,
    caller: &Caller,
    server: &mut Server,
    host: &str,
    wanted: &NicWanted,
    groups: &[String],
) -> ApiResult<Port> {
    let request = PortRequest {
        network_id: wanted.network.clone(),
        port_id: wanted.port.clone(),
        fixed_ip: wanted.fixed_ip,
    };
    let port = network::allocate(tx, caller, request, &server.id, host, groups).map_err(as_nova)?;
    let mtu = tx.get::<Network>(&port.network_id)?.map_or(1450, |n| n.mtu);
    server.ports.push(ServerPort {
        port_id: port.id.clone(),
        network_id: port.network_id.clone(),
        mac: port.mac.clone(),
        mtu,
        tag: wanted.tag.clone(),
        detaching: false,
    });
    Ok(port)
}

/// The network service's refusals, as Nova tells them.
pub fn as_nova(e: ApiError) -> ApiError {
    match (e.status, e.code) {
        (_, "OverQuota") => ApiError::forbidden("Maximum number of ports exceeded"),
        (_, "IpAddressAlreadyAllocated" | "InvalidIpForNetwork" | "InvalidIpForSubnet") => {
            ApiError::bad_request(e.message)
        }
        (StatusCode::NOT_FOUND, _) => ApiError::bad_request(e.message),
        (status, _) => ApiError::new(status, e.message),
    }
}

/// The ports of a server as the network service has them, in the server's order.
pub fn ports(tx: &mut Tx, server: &Server) -> Result<Vec<Port>, Abort> {
    let mut found = Vec::new();
    for port in &server.ports {
        found.extend(tx.get::<Port>(&port.port_id)?.filter(|p| !p.deleted && p.device_id == server.id));
    }
    Ok(found)
}

/// The addresses of a server, floating ones after the fixed one they lead to.
pub fn addresses(tx: &mut Tx, server: &Server) -> ApiResult<Vec<Address>> {
    let ports = ports(tx, server)?;
    let networks = network::addresses(tx, &ports)?;
    let flat = networks.into_iter().flat_map(|n| {
        let label = n.label;
        n.addresses.into_iter().map(move |a| Address {
            network: label.clone(),
            ip: a.addr,
            floating: a.floating,
            mac: a.mac,
        })
    });
    Ok(flat.collect())
}

/// The names of the security groups of a server's ports, each once.
pub fn group_names(tx: &mut Tx, server: &Server) -> Result<Vec<String>, Abort> {
    let mut names = Vec::new();
    for port in ports(tx, server)? {
        for id in &port.security_groups {
            let name = tx.get::<SecurityGroup>(id)?.map_or_else(|| id.clone(), |g| g.name);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// Tells the node what to answer when the guest asks about itself.
pub fn publish(tx: &mut Tx, server: &Server, zone: &str) -> ApiResult<()> {
    let mut places = Vec::new();
    for port in ports(tx, server)? {
        let Some(net) = tx.get::<Network>(&port.network_id)? else { continue };
        let mut subnets = Vec::new();
        for fixed in &port.fixed_ips {
            subnets.extend(tx.get::<Subnet>(&fixed.subnet_id)?);
        }
        places.push(Place { port, network: net, subnets });
    }
    let told = ServerMetadata {
        server_id: server.id.clone(),
        project_id: server.project_id.clone(),
        ports: server.ports.iter().map(|p| p.port_id.clone()).collect(),
        meta_data: metadata::meta_data(server, zone),
        network_data: metadata::network_data(&places, &server.ports),
        vendor_data: json!({}),
        user_data: server.user_data.clone(),
        instance_type: server.flavor.name.clone(),
        image_id: Some(server.image.id.clone()).filter(|id| !id.is_empty()),
    };
    network::publish_metadata(tx, &told)
}

/// Gives back every port of a server.
pub fn release(tx: &mut Tx, server: &Server) -> ApiResult<()> {
    network::retract_metadata(tx, &server.id)?;
    network::release(tx, &server.id)
}

/// Gives back one port of a server.
pub fn release_one(tx: &mut Tx, server: &Server, port_id: &str) -> ApiResult<()> {
    network::release_port(tx, &server.id, port_id)
}
