//! Subnets as the API shows them.

use std::net::IpAddr;

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::attrs::{self, Attrs};
use super::resource::{self, Ctx, Resource, View, with};
use crate::logic::{addressing, dhcp, ipam, pools, routers, subnets};
use crate::model::{AddressRange, Ipv6Mode, Network, Port, Subnet, SubnetPool};

impl Resource for Subnet {
    const NAME: &'static str = "subnet";
    const PLURAL: &'static str = "subnets";
    const PATH: &'static str = "subnets";
    const TITLE: &'static str = "Subnet";
    const MISSING: &'static str = "SubnetNotFound";
    const INDEXED: &'static [(&'static str, &'static str)] =
        &[("network_id", "network"), ("subnetpool_id", "pool")];
    const READ_ONLY: &'static [&'static str] = &[
        "network_id",
        "ip_version",
        "cidr",
        "subnetpool_id",
        "ipv6_ra_mode",
        "ipv6_address_mode",
        "prefixlen",
        "tags",
    ];

    resource::fields!(tags);

    fn visible(&self, tx: &mut Tx, caller: &Caller) -> ApiResult<bool> {
        if caller.sees(&self.project_id) {
            return Ok(true);
        }
        Ok(tx.get::<Network>(&self.network_id)?.is_some_and(|n| n.shared || caller.sees(&n.project_id)))
    }

    fn also_visible(tx: &mut Tx, _: &Caller) -> ApiResult<Vec<Subnet>> {
        let mut found = Vec::new();
        for network in tx.by_index::<Network>("shared", "yes")? {
            found.extend(tx.by_index::<Subnet>("network", &network.id)?);
        }
        Ok(found)
    }

    fn view(&self, _: &mut Tx, _: &Caller) -> ApiResult<View> {
        let base = resource::view_of(&self.id, &self.project_id, &self.description, &self.stamp);
        Ok(with(
            base,
            json!({
                "name": self.name, "network_id": self.network_id, "ip_version": self.ip_version(),
                "cidr": self.cidr, "gateway_ip": self.gateway_ip, "allocation_pools": self.allocation_pools,
                "dns_nameservers": self.dns_nameservers, "host_routes": self.host_routes,
                "enable_dhcp": self.enable_dhcp, "ipv6_ra_mode": self.ipv6_ra_mode,
                "ipv6_address_mode": self.ipv6_address_mode, "subnetpool_id": self.subnetpool_id,
                "service_types": self.service_types, "tags": self.tags,
            }),
        ))
    }

    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Subnet> {
        let common = resource::common(ctx, attrs)?;
        let network = resource::find_own::<Network>(tx, ctx.caller, &attrs.required("network_id")?)?;
        let (cidr, subnetpool_id) = take_cidr(tx, ctx, attrs, &common.project_id)?;
        subnets::check_cidr(cidr)?;
        subnets::check_overlap(tx, &network.id, cidr)?;
        let gateway_ip = match take_gateway(attrs)? {
            Some(gateway) => gateway,
            None => addressing::default_gateway(cidr),
        };
        gateway_ip.map_or(Ok(()), |g| addressing::check_gateway(cidr, g))?;
        let allocation_pools = match take_pools(attrs)? {
            Some(pools) => addressing::check_pools(cidr, gateway_ip, pools)?,
            None => addressing::default_pools(cidr, gateway_ip),
        };
        let enable_dhcp = attrs.flag("enable_dhcp")?.unwrap_or(true);
        let (ra, address) = (take_mode(attrs, "ipv6_ra_mode")?, take_mode(attrs, "ipv6_address_mode")?);
        subnets::check_modes(cidr, enable_dhcp, ra, address)?;
        let subnet = Subnet {
            id: common.id,
            project_id: common.project_id,
            network_id: network.id.clone(),
            name: common.name,
            description: common.description,
            cidr,
            gateway_ip,
            allocation_pools,
            dns_nameservers: take_dns(attrs)?.unwrap_or_default(),
            host_routes: take_routes(attrs, cidr)?.unwrap_or_default(),
            enable_dhcp,
            ipv6_ra_mode: ra,
            ipv6_address_mode: address,
            subnetpool_id,
            service_types: take_service_types(ctx, attrs)?.unwrap_or_default(),
            tags: common.tags,
            stamp: common.stamp,
        };
        subnets::insert(tx, &network, &subnet, ctx.now)?;
        Ok(subnet)
    }

    fn update(mut self, tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Subnet> {
        resource::rename(attrs, &mut self.name, &mut self.description)?;
        self.dns_nameservers = take_dns(attrs)?.unwrap_or(self.dns_nameservers);
        self.host_routes = take_routes(attrs, self.cidr)?.unwrap_or(self.host_routes);
        self.service_types = take_service_types(ctx, attrs)?.unwrap_or(self.service_types);
        let gateway = take_gateway(attrs)?;
        let pools = take_pools(attrs)?;
        if let Some(gateway) = gateway
            && gateway != self.gateway_ip
        {
            check_gateway_unused(tx, &self)?;
            gateway.map_or(Ok(()), |g| addressing::check_gateway(self.cidr, g))?;
            self.gateway_ip = gateway;
        }
        if pools.is_some() || gateway.is_some() {
            let pools = pools.unwrap_or_else(|| self.allocation_pools.clone());
            self.allocation_pools = addressing::check_pools(self.cidr, self.gateway_ip, pools)?;
            ipam::pools_changed(tx, &self)?;
        }
        let had_dhcp = self.enable_dhcp;
        self.enable_dhcp = attrs.flag("enable_dhcp")?.unwrap_or(had_dhcp);
        subnets::check_modes(self.cidr, self.enable_dhcp, self.ipv6_ra_mode, self.ipv6_address_mode)?;
        tx.put(&self)?;
        match (had_dhcp, self.enable_dhcp) {
            (false, true) => {
                let network = resource::fetch::<Network>(tx, &self.network_id)?;
                dhcp::cover(tx, &network, &self, ctx.now)?;
            }
            (true, false) => dhcp::uncover(tx, &self, ctx.now)?,
            _ => {}
        }
        Ok(self)
    }

    fn remove(self, tx: &mut Tx, ctx: Ctx<'_>) -> ApiResult<()> {
        subnets::delete(tx, &self, ctx.now)
    }
}

/// The prefix that a new subnet asks for, and the pool it was taken from.
fn take_cidr(
    tx: &mut Tx,
    ctx: Ctx<'_>,
    attrs: &mut Attrs,
    project: &str,
) -> ApiResult<(IpNet, Option<String>)> {
    let cidr = match attrs.nullable("cidr")?.flatten() {
        Some(text) if !text.contains('/') => {
            return Err(attrs::invalid("cidr", &format!("'{text}' isn't a recognized IP subnet cidr")));
        }
        Some(text) => Some(attrs::parse_prefix("cidr", &text)?),
        None => None,
    };
    let version = attrs.number("ip_version", 4, 6)?.flatten();
    if let Some(version) = version {
        let fits = cidr.is_none_or(|c| (version == 4) == c.addr().is_ipv4());
        if version == 5 || !fits {
            return Err(ApiError::bad_request(format!(
                "Invalid input for operation: ip_version {version} does not fit the cidr."
            )));
        }
    }
    let length = attrs.number("prefixlen", 0, 128)?.flatten().map(|n| n as u8);
    let use_default = attrs.flag("use_default_subnetpool")?.unwrap_or(false);
    let named = attrs.nullable("subnetpool_id")?.flatten();
    if cidr.is_some() && length.is_some() {
        return Err(ApiError::bad_request(
            "Bad subnets request: cidr and prefixlen must not be supplied together.",
        ));
    }
    let pool = match (named, cidr) {
        (Some(id), _) => Some(resource::find::<SubnetPool>(tx, ctx.caller, &id)?),
        (None, Some(_)) if !use_default => None,
        (None, cidr) => {
            let v4 = cidr.map_or(version != Some(6), |c| c.addr().is_ipv4());
            let default = tx.by_unique::<SubnetPool>("default", if v4 { "4" } else { "6" })?;
            Some(default.ok_or_else(|| {
                ApiError::bad_request(
                    "Bad subnets request: a subnetpool must be specified in the absence of a cidr.",
                )
            })?)
        }
    };
    match (pool, cidr) {
        (Some(pool), cidr) => {
            if version.is_some_and(|v| v != i64::from(pool.ip_version())) {
                return Err(ApiError::bad_request(
                    "Bad subnets request: ip_version does not fit the subnetpool.",
                ));
            }
            Ok((pools::allocate(tx, &pool, project, cidr, length)?, Some(pool.id)))
        }
        (None, Some(cidr)) => Ok((cidr, None)),
        (None, None) => Err(attrs::invalid("cidr", "it is missing")),
    }
}

/// `Some(None)` is a null: no gateway.
fn take_gateway(attrs: &mut Attrs) -> ApiResult<Option<Option<IpAddr>>> {
    attrs.parsed::<IpAddr>("gateway_ip", "IP address")
}

fn take_pools(attrs: &mut Attrs) -> ApiResult<Option<Vec<AddressRange>>> {
    let key = "allocation_pools";
    let Some(items) = attrs.list(key)? else { return Ok(None) };
    if items.len() > subnets::POOLS_MAX {
        return Err(attrs::invalid(key, &format!("a subnet has at most {} pools", subnets::POOLS_MAX)));
    }
    let range = |item: &Value| {
        let object = attrs::object(item, key, &["start", "end"])?;
        let start = attrs::address_in(object, "start", key)?;
        Ok(AddressRange { start, end: attrs::address_in(object, "end", key)? })
    };
    items.iter().map(range).collect::<ApiResult<_>>().map(Some)
}

fn take_dns(attrs: &mut Attrs) -> ApiResult<Option<Vec<IpAddr>>> {
    let key = "dns_nameservers";
    let Some(texts) = attrs.texts(key)? else { return Ok(None) };
    if texts.len() > subnets::DNS_MAX {
        return Err(ApiError::bad_request(format!(
            "Unable to complete operation: the number of DNS nameservers exceeds the limit {}.",
            subnets::DNS_MAX
        ))
        .with_code("DNSNameServersExhausted"));
    }
    let mut servers = Vec::new();
    for text in texts {
        let server: IpAddr = attrs::parse(key, &text, "IP address")?;
        if servers.contains(&server) {
            return Err(attrs::invalid(key, &format!("Duplicate nameserver '{server}'")));
        }
        servers.push(server);
    }
    Ok(Some(servers))
}

fn take_routes(attrs: &mut Attrs, cidr: IpNet) -> ApiResult<Option<Vec<crate::model::Route>>> {
    let Some(items) = attrs.list("host_routes")? else { return Ok(None) };
    let routes = routers::parse_routes("host_routes", &items, subnets::ROUTES_MAX)?;
    if routes.iter().any(|r| r.nexthop.is_ipv4() != cidr.addr().is_ipv4()) {
        return Err(attrs::invalid("host_routes", "a route is of another IP version than the subnet"));
    }
    Ok(Some(routes))
}

fn take_mode(attrs: &mut Attrs, key: &str) -> ApiResult<Option<Ipv6Mode>> {
    let Some(text) = attrs.nullable(key)?.flatten() else { return Ok(None) };
    serde_json::from_value(Value::String(text.clone())).map(Some).map_err(|_| {
        attrs::invalid(key, &format!("'{text}' is not in ['dhcpv6-stateful', 'dhcpv6-stateless', 'slaac']"))
    })
}

fn take_service_types(ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Option<Vec<String>>> {
    let types = attrs.texts("service_types")?;
    if types.as_ref().is_some_and(|t| !t.is_empty()) {
        ctx.caller.require_admin()?;
    }
    Ok(types)
}

/// The gateway's address can't change while a router has it.
fn check_gateway_unused(tx: &mut Tx, subnet: &Subnet) -> ApiResult<()> {
    let Some(gateway) = subnet.gateway_ip else { return Ok(()) };
    let holder: Option<Port> = ipam::holder(tx, &subnet.id, gateway)?;
    match holder.filter(Port::is_router_port) {
        None => Ok(()),
        Some(port) => Err(ApiError::conflict(format!(
            "Current gateway ip {gateway} already in use by port {}. Unable to update.",
            port.id
        ))
        .with_code("GatewayIpInUse")),
    }
}
