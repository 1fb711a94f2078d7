//! What compute asks of the network, in compute's own transaction: ports for a server, its addresses, its metadata.

use std::net::IpAddr;

use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use cairn_state::Tx;
use jiff::Timestamp;

use crate::api::resource::{self, Ctx};
use crate::logic::fixed_ips::Wanted;
use crate::logic::{groups, hosts, moves, ports};
use crate::model::{FloatingIp, Network, Port, SecurityGroup, ServerMetadata, Subnet, owner};

/// The availability zone that a server's ports name in their `device_owner`.
const ZONE: &str = "nova";

/// What a server wants of one of its ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortRequest {
    /// A port on this network; `None` (with no `port_id`) means the only network there is.
    pub network_id: Option<String>,
    /// This port, which the user made.
    pub port_id: Option<String>,
    /// With this address.
    pub fixed_ip: Option<IpAddr>,
}

/// A server's addresses on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkAddresses {
    /// The network.
    pub network_id: String,
    /// Its name, by which Nova lists it.
    pub label: String,
    /// The addresses, fixed ones first.
    pub addresses: Vec<Address>,
}

/// One address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub addr: IpAddr,
    /// Whether it is a floating one.
    pub floating: bool,
    /// The MAC of its port.
    pub mac: String,
    /// Its port.
    pub port_id: String,
}

impl Address {
    /// 4 or 6.
    pub fn version(&self) -> u8 {
        if self.addr.is_ipv4() { 4 } else { 6 }
    }
}

/// Gives a server a port, made or taken, bound to the server's node. Groups are named by id or name; none means the
/// project's default one. They don't concern a port that the user made.
pub fn allocate(
    tx: &mut Tx,
    caller: &Caller,
    request: PortRequest,
    server_id: &str,
    host: &str,
    security_groups: &[String],
) -> ApiResult<Port> {
    let ctx = Ctx { caller, now: Timestamp::now() };
    match &request.port_id {
        Some(id) => take_port(tx, ctx, id, server_id, host),
        None => make_port(tx, ctx, &request, server_id, host, security_groups),
    }
}

fn take_port(tx: &mut Tx, ctx: Ctx<'_>, id: &str, server_id: &str, host: &str) -> ApiResult<Port> {
    let mut port = resource::find_own::<Port>(tx, ctx.caller, id)?;
    if !port.device_id.is_empty() && port.device_id != server_id {
        return Err(ApiError::conflict(format!("Port {id} is still in use.")));
    }
    if port.is_service_port() {
        return Err(ApiError::conflict(format!("Port {id} belongs to {}.", port.device_owner)));
    }
    port.device_id = server_id.to_owned();
    port.device_owner = format!("{}{ZONE}", owner::COMPUTE);
    ports::bind(tx, &mut port, Some(host))?;
    port.stamp.touch(ctx.now);
    tx.put(&port)?;
    Ok(port)
}

fn make_port(
    tx: &mut Tx,
    ctx: Ctx<'_>,
    request: &PortRequest,
    server_id: &str,
    host: &str,
    security_groups: &[String],
) -> ApiResult<Port> {
    let project = ctx.caller.require_project()?.to_owned();
    let network = match &request.network_id {
        Some(id) => resource::find::<Network>(tx, ctx.caller, id)
            .map_err(|_| ApiError::bad_request(format!("Network {id} could not be found.")))?,
        None => only_network(tx, ctx.caller)?,
    };
    if !network.shared && !ctx.caller.sees(&network.project_id) {
        return Err(ApiError::forbidden(format!(
            "It is not allowed to create an interface on external network {}",
            network.id
        )));
    }
    if tx.by_index::<Subnet>("network", &network.id)?.is_empty() {
        return Err(ApiError::bad_request(format!(
            "Network {} requires a subnet in order to boot instances on.",
            network.id
        )));
    }
    let mut port = ports::blank(&network, &project, &format!("{}{ZONE}", owner::COMPUTE), ctx.now);
    port.device_id = server_id.to_owned();
    port.host = Some(host.to_owned());
    port.made_for_server = true;
    port.port_security = network.port_security;
    if port.port_security {
        port.security_groups = resolve_groups(tx, ctx, &project, security_groups)?;
    }
    let wanted = request.fixed_ip.map(|ip| vec![Wanted { subnet_id: None, ip: Some(ip) }]);
    ports::insert(tx, &network, port, wanted.as_deref())
}

/// The network of a server that names none: the only one that the project has, or else may use.
fn only_network(tx: &mut Tx, caller: &Caller) -> ApiResult<Network> {
    let mut networks = tx.by_index::<Network>("project", caller.require_project()?)?;
    networks.retain(|n| !n.external);
    if networks.is_empty() {
        networks = tx.by_index::<Network>("shared", "yes")?;
        networks.retain(|n| !n.external);
    }
    let mut networks = networks.into_iter();
    match (networks.next(), networks.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(ApiError::bad_request("No networks are defined for this project; name one.")),
        _ => {
            Err(ApiError::conflict("Multiple possible networks found, use a Network ID to be more specific."))
        }
    }
}

/// The groups that a server names.
fn resolve_groups(tx: &mut Tx, ctx: Ctx<'_>, project: &str, names: &[String]) -> ApiResult<Vec<String>> {
    let default = groups::default_of(tx, project, ctx.now)?;
    if names.is_empty() {
        return Ok(vec![default.id]);
    }
    let own = tx.by_index::<SecurityGroup>("project", project)?;
    let mut ids: Vec<String> = Vec::new();
    for name in names {
        let mut found = own.iter().filter(|g| g.id == *name || g.name == *name);
        let id = match (found.next(), found.next()) {
            (Some(only), None) => only.id.clone(),
            (None, _) => {
                let message = format!("Unable to find security_group with name or id '{name}'");
                return Err(ApiError::bad_request(message));
            }
            _ => {
                let message = format!(
                    "Multiple security_group matches found for name '{name}', use an ID to be more specific."
                );
                return Err(ApiError::conflict(message));
            }
        };
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Whether the groups that a server names are there, before anything is made for it.
pub fn check_groups(tx: &mut Tx, caller: &Caller, names: &[String]) -> ApiResult<()> {
    let ctx = Ctx { caller, now: Timestamp::now() };
    let project = caller.require_project()?.to_owned();
    resolve_groups(tx, ctx, &project, names).map(drop)
}

/// A server's ports, the first made first.
pub fn ports_of(tx: &mut Tx, server_id: &str) -> ApiResult<Vec<Port>> {
    let mut found = tx.by_index::<Port>("device", server_id)?;
    found.retain(|p| p.is_guest_port() && !p.deleted);
    found.sort_by(|a, b| (a.stamp.created_at, &a.id).cmp(&(b.stamp.created_at, &b.id)));
    Ok(found)
}

/// Takes all ports from a server: removes those made for it, unbinds the user's.
pub fn release(tx: &mut Tx, server_id: &str) -> ApiResult<()> {
    for port in ports_of(tx, server_id)? {
        release_one(tx, port)?;
    }
    Ok(())
}

/// Takes one port from a server. 404 if the server doesn't have it.
pub fn release_port(tx: &mut Tx, server_id: &str, port_id: &str) -> ApiResult<()> {
    match tx.get::<Port>(port_id)?.filter(|p| p.device_id == server_id && !p.deleted) {
        Some(port) => release_one(tx, port),
        None => Err(ApiError::not_found("Port", port_id)),
    }
}

fn release_one(tx: &mut Tx, mut port: Port) -> ApiResult<()> {
    let now = Timestamp::now();
    if port.made_for_server {
        return ports::delete(tx, port, now);
    }
    port.device_id.clear();
    port.device_owner.clear();
    ports::bind(tx, &mut port, None)?;
    port.stamp.touch(now);
    Ok(tx.put(&port)?)
}

/// Asks a node to make a port ready that its guest is about to take along: its tap, in its bridge, with its rules.
/// [`crate::model::PortPrepared`] says when it is. 409 if the port is plugged nowhere, there already, or on its way to
/// another node.
pub fn prepare_move(tx: &mut Tx, port_id: &str, host: &str) -> ApiResult<Port> {
    moves::prepare(tx, port_id, host, Timestamp::now())
}

/// Moves a port to a node, prepared or not (as when its node has fallen): all traffic goes there from now on.
pub fn finish_move(tx: &mut Tx, port_id: &str, host: &str) -> ApiResult<Port> {
    moves::finish(tx, port_id, host, Timestamp::now())
}

/// Calls a prepared move to a node off; the port stays where it is.
pub fn abort_move(tx: &mut Tx, port_id: &str, host: &str) -> ApiResult<Port> {
    moves::abort(tx, port_id, host, Timestamp::now())
}

/// Forgets a node that was removed from the cloud: nobody waits any more for it to let go of anything.
pub fn forget_host(tx: &mut Tx, host: &str) -> ApiResult<()> {
    hosts::forget(tx, host)
}

/// Whether a network agent has ever reported from this node.
pub fn knows_host(tx: &mut Tx, host: &str) -> ApiResult<bool> {
    hosts::is_known(tx, host)
}

/// The addresses of some ports, by network in the ports' order, floating ones behind the fixed ones they lead to.
pub fn addresses(tx: &mut Tx, ports: &[Port]) -> ApiResult<Vec<NetworkAddresses>> {
    let mut networks: Vec<NetworkAddresses> = Vec::new();
    for port in ports {
        let floating = tx.by_index::<FloatingIp>("port", &port.id)?;
        let mut own = Vec::new();
        for fixed in &port.fixed_ips {
            let mut push = |addr, floating| {
                own.push(Address { addr, floating, mac: port.mac.clone(), port_id: port.id.clone() });
            };
            push(fixed.ip, false);
            for fip in floating.iter().filter(|f| f.fixed_ip_address == Some(fixed.ip)) {
                push(fip.floating_ip_address, true);
            }
        }
        match networks.iter_mut().find(|n| n.network_id == port.network_id) {
            Some(network) => network.addresses.extend(own),
            None => {
                let network = tx.get::<Network>(&port.network_id)?;
                let label = network.map(|n| n.name).unwrap_or_default();
                networks.push(NetworkAddresses {
                    network_id: port.network_id.clone(),
                    label,
                    addresses: own,
                });
            }
        }
    }
    Ok(networks)
}

/// The networks that a caller sees, for Nova's own listing of them.
pub fn networks(tx: &mut Tx, caller: &Caller) -> ApiResult<Vec<Network>> {
    resource::candidates::<Network>(tx, caller, &Query::default())
}

/// Puts what a server is told about itself.
pub fn publish_metadata(tx: &mut Tx, metadata: &ServerMetadata) -> ApiResult<()> {
    Ok(tx.put(metadata)?)
}

/// Removes what a server was told.
pub fn retract_metadata(tx: &mut Tx, server_id: &str) -> ApiResult<()> {
    Ok(tx.delete::<ServerMetadata>(server_id).map(drop)?)
}
