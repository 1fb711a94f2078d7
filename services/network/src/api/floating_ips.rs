//! Floating IPs as the API shows them. They have no name: clients would take one for the address.

use std::net::IpAddr;

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use serde_json::json;

use super::attrs::{self, Attrs};
use super::resource::{self, Ctx, Resource, View, with};
use super::routers;
use crate::logic::fixed_ips::{self, Wanted};
use crate::logic::{addressing, floating, ports, quotas};
use crate::model::{FloatingIp, Network, Port, Router, Subnet, owner};

impl Resource for FloatingIp {
    const NAME: &'static str = "floatingip";
    const PLURAL: &'static str = "floatingips";
    const PATH: &'static str = "floatingips";
    const TITLE: &'static str = "Floating IP";
    const MISSING: &'static str = "FloatingIPNotFound";
    const INDEXED: &'static [(&'static str, &'static str)] =
        &[("port_id", "port"), ("router_id", "router"), ("floating_network_id", "network")];
    const READ_ONLY: &'static [&'static str] =
        &["status", "router_id", "floating_network_id", "floating_ip_address", "tags", "port_details"];

    resource::fields!(tags);

    fn view(&self, tx: &mut Tx, _: &Caller) -> ApiResult<View> {
        let base = resource::view_of(&self.id, &self.project_id, &self.description, &self.stamp);
        Ok(with(
            base,
            json!({
                "floating_network_id": self.floating_network_id, "floating_ip_address": self.floating_ip_address,
                "fixed_ip_address": self.fixed_ip_address, "port_id": self.port_id, "router_id": self.router_id,
                "status": status_of(tx, self)?, "tags": self.tags,
            }),
        ))
    }

    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<FloatingIp> {
        let own_id = resource::common(ctx, attrs)?;
        let network = external_network(tx, ctx.caller, &attrs.required("floating_network_id")?)?;
        let wanted = take_address(tx, ctx, &network, attrs)?;
        let mut port = ports::blank(&network, "", owner::FLOATING_IP, ctx.now);
        port.device_id.clone_from(&own_id.id);
        let port = ports::insert(tx, &network, port, Some(&[wanted]))?;
        let Some(address) = port.fixed_ips.first() else { return Err(fixed_ips::exhausted(&network)) };
        let mut fip = FloatingIp {
            id: own_id.id,
            project_id: own_id.project_id,
            description: own_id.description,
            floating_network_id: network.id.clone(),
            floating_ip_address: address.ip,
            floating_port_id: port.id.clone(),
            port_id: None,
            fixed_ip_address: None,
            router_id: None,
            tags: own_id.tags,
            stamp: own_id.stamp,
        };
        quotas::take(tx, &fip.project_id, "floatingip")?;
        take_target(tx, ctx, &mut fip, attrs)?;
        tx.put(&fip)?;
        Ok(fip)
    }

    fn update(mut self, tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<FloatingIp> {
        if let Some(description) = attrs.text("description")? {
            self.description = description;
        }
        take_target(tx, ctx, &mut self, attrs)?;
        tx.put(&self)?;
        Ok(self)
    }

    fn remove(self, tx: &mut Tx, ctx: Ctx<'_>) -> ApiResult<()> {
        floating::delete(tx, &self, ctx.now)
    }
}

fn external_network(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<Network> {
    let network = resource::find::<Network>(tx, caller, id)?;
    if network.external {
        return Ok(network);
    }
    Err(ApiError::bad_request(format!(
        "Bad floatingip request: Network {id} is not a valid external network."
    ))
    .with_code("BadRequest"))
}

/// The outer address that is asked for: a certain one (administrators only), or any of a subnet.
fn take_address(tx: &mut Tx, ctx: Ctx<'_>, network: &Network, attrs: &mut Attrs) -> ApiResult<Wanted> {
    let ip = attrs.parsed::<IpAddr>("floating_ip_address", "IP address")?.flatten();
    if ip.is_some() {
        ctx.caller.require_admin()?;
    }
    let named = attrs.nullable("subnet_id")?.flatten();
    let mut subnets = tx.by_index::<Subnet>("network", &network.id)?;
    subnets.retain(|s| {
        s.ip_version() == 4
            && named.as_ref().is_none_or(|id| *id == s.id)
            && ip.is_none_or(|ip| addressing::is_host(s.cidr, ip))
            && (s.service_types.is_empty()
                || s.service_types.iter().any(|t| owner::FLOATING_IP.starts_with(t.as_str())))
    });
    subnets.sort_by_key(|s| (s.stamp.created_at, s.id.clone()));
    if subnets.is_empty() {
        let network = &network.id;
        return Err(ApiError::bad_request(format!(
            "Bad floatingip request: Network {network} does not contain any IPv4 subnet for this request."
        ))
        .with_code("BadRequest"));
    }
    // The first subnet with a free address; the last one answers for all when none has.
    let with_room = |tx: &mut Tx, s: &Subnet| ApiResult::Ok(!crate::logic::ipam::is_full(tx, s)?);
    for subnet in &subnets {
        if ip.is_some() || with_room(tx, subnet)? {
            return Ok(Wanted { subnet_id: Some(subnet.id.clone()), ip });
        }
    }
    Err(fixed_ips::exhausted(network))
}

/// Takes `port_id` and `fixed_ip_address`: where it leads to. A null port leads it nowhere.
fn take_target(tx: &mut Tx, ctx: Ctx<'_>, fip: &mut FloatingIp, attrs: &mut Attrs) -> ApiResult<()> {
    let fixed = attrs.parsed::<IpAddr>("fixed_ip_address", "IP address")?;
    let port = attrs.nullable("port_id")?;
    let port_id = match (port, fixed) {
        (None, None) => return Ok(()),
        (Some(Some(id)), _) if !id.is_empty() => id,
        (None, Some(Some(_))) => fip.port_id.clone().ok_or_else(|| {
            attrs::invalid("fixed_ip_address", "fixed_ip_address cannot be specified without a port_id")
        })?,
        (Some(_), Some(Some(_))) => {
            return Err(attrs::invalid(
                "fixed_ip_address",
                "fixed_ip_address cannot be specified without a port_id",
            ));
        }
        _ => {
            floating::dissociate(fip);
            return Ok(());
        }
    };
    let port = resource::find::<Port>(tx, ctx.caller, &port_id)?;
    if port.is_service_port() {
        return Err(ApiError::bad_request(format!(
            "Bad floatingip request: port {port_id} is {}.",
            port.device_owner
        )));
    }
    if port.project_id != fip.project_id && !ctx.caller.is_admin() {
        return Err(ApiError::bad_request(format!(
            "Port {port_id} belongs to another project than the floating IP."
        )));
    }
    floating::associate(tx, fip, &port, fixed.flatten())
}

/// Whether it works: its router does.
fn status_of(tx: &mut Tx, fip: &FloatingIp) -> ApiResult<&'static str> {
    let Some(router) = &fip.router_id else { return Ok("DOWN") };
    let Some(router) = tx.get::<Router>(router)? else { return Ok("DOWN") };
    Ok(match routers::status_of(tx, &router)? {
        "ACTIVE" => "ACTIVE",
        "ERROR" => "ERROR",
        _ => "DOWN",
    })
}
