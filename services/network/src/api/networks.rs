//! Networks as the API shows them.

use std::collections::BTreeSet;

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use serde_json::json;

use super::attrs::{Attrs, invalid};
use super::resource::{self, Ctx, Resource, View, with};
use crate::logic::{networks, quotas};
use crate::model::{Network, NetworkStatus, Phase, Provider, ProviderKind, Subnet, status};

/// The smallest MTU, in bytes (RFC 791).
const MTU_MIN: i64 = 68;

impl Resource for Network {
    const NAME: &'static str = "network";
    const PLURAL: &'static str = "networks";
    const PATH: &'static str = "networks";
    const TITLE: &'static str = "Network";
    const MISSING: &'static str = "NetworkNotFound";
    const PUBLIC: &'static [&'static str] = &["shared", "external"];
    const READ_ONLY: &'static [&'static str] = &[
        "status",
        "subnets",
        "provider:network_type",
        "provider:physical_network",
        "provider:segmentation_id",
        "tags",
    ];

    resource::fields!(tags, deleted);

    fn visible(&self, _: &mut Tx, caller: &Caller) -> ApiResult<bool> {
        Ok(self.shared || self.external || caller.sees(&self.project_id))
    }

    fn view(&self, tx: &mut Tx, caller: &Caller) -> ApiResult<View> {
        let mut subnets = tx.by_index::<Subnet>("network", &self.id)?;
        subnets.retain(|s| self.shared || caller.sees(&s.project_id));
        let ids: Vec<&str> = subnets.iter().map(|s| s.id.as_str()).collect();
        let base = resource::view_of(&self.id, &self.project_id, &self.description, &self.stamp);
        let view = with(
            base,
            json!({
                "name": self.name, "admin_state_up": self.admin_state_up, "status": status_of(tx, self)?,
                "subnets": ids, "shared": self.shared, "router:external": self.external,
                "port_security_enabled": self.port_security, "mtu": self.mtu, "tags": self.tags,
                "ipv4_address_scope": null, "ipv6_address_scope": null, "is_default": self.is_default,
            }),
        );
        Ok(if caller.is_admin() { with(view, provider_view(self)) } else { view })
    }

    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Network> {
        let common = resource::common(ctx, attrs)?;
        let (provider, segment) = take_provider(tx, ctx, attrs)?;
        let network = Network {
            mtu: match take_mtu(tx, attrs, provider.as_ref())? {
                Some(mtu) => mtu,
                None => networks::mtu_max(tx, provider.as_ref())?,
            },
            id: common.id,
            project_id: common.project_id,
            name: common.name,
            description: common.description,
            admin_state_up: attrs.flag("admin_state_up")?.unwrap_or(true),
            shared: resource::admin_flag(ctx, attrs, "shared")?.unwrap_or(false),
            external: resource::admin_flag(ctx, attrs, "router:external")?.unwrap_or(false),
            is_default: resource::admin_flag(ctx, attrs, "is_default")?.unwrap_or(false),
            port_security: attrs.flag("port_security_enabled")?.unwrap_or(true),
            segment,
            provider,
            dns_domain: String::new(),
            hosts: BTreeSet::new(),
            deleted: false,
            tags: common.tags,
            stamp: common.stamp,
        };
        check_default(tx, &network)?;
        quotas::take(tx, &network.project_id, "network")?;
        tx.put(&network)?;
        Ok(network)
    }

    fn update(mut self, tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Network> {
        resource::rename(attrs, &mut self.name, &mut self.description)?;
        self.admin_state_up = attrs.flag("admin_state_up")?.unwrap_or(self.admin_state_up);
        self.port_security = attrs.flag("port_security_enabled")?.unwrap_or(self.port_security);
        self.is_default = resource::admin_flag(ctx, attrs, "is_default")?.unwrap_or(self.is_default);
        self.mtu = take_mtu(tx, attrs, self.provider.as_ref())?.unwrap_or(self.mtu);
        if let Some(shared) = resource::admin_flag(ctx, attrs, "shared")? {
            check_unsharing(tx, &self, shared)?;
            self.shared = shared;
        }
        if let Some(external) = resource::admin_flag(ctx, attrs, "router:external")? {
            if self.external && !external {
                networks::check_not_used_as_external(tx, &self)?;
            }
            self.external = external;
        }
        check_default(tx, &self)?;
        tx.put(&self)?;
        Ok(self)
    }

    fn remove(self, tx: &mut Tx, ctx: Ctx<'_>) -> ApiResult<()> {
        networks::delete(tx, self, ctx.now)
    }
}

fn take_mtu(tx: &mut Tx, attrs: &mut Attrs, provider: Option<&Provider>) -> ApiResult<Option<u32>> {
    let max = i64::from(networks::mtu_max(tx, provider)?);
    match attrs.number("mtu", 0, max)? {
        // 0 asks for the largest, as Neutron has it.
        Some(Some(0)) => Ok(Some(max as u32)),
        Some(Some(mtu)) if mtu >= MTU_MIN => Ok(Some(mtu as u32)),
        Some(Some(mtu)) => Err(invalid("mtu", &format!("'{mtu}' is below {MTU_MIN}"))),
        _ => Ok(None),
    }
}

/// Takes the provider attributes: the place on the LAN, or the overlay's number.
fn take_provider(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<(Option<Provider>, u32)> {
    let kind = attrs.nullable("provider:network_type")?.flatten();
    let physical = attrs.nullable("provider:physical_network")?.flatten();
    let number = attrs.number("provider:segmentation_id", 1, i64::from(networks::SEGMENT_MAX))?.flatten();
    if kind.is_some() || physical.is_some() || number.is_some() {
        ctx.caller.require_admin()?;
    }
    let kind = match kind.as_deref() {
        None | Some("vxlan") if physical.is_some() => {
            return Err(ApiError::bad_request(
                "Invalid input for operation: a physical_network needs the network_type \
                                              flat or vlan.",
            ));
        }
        None | Some("vxlan") => {
            let segment = match number {
                Some(number) => networks::claim_segment(tx, number as u32)?,
                None => networks::free_segment(tx)?,
            };
            return Ok((None, segment));
        }
        Some("flat") => ProviderKind::Flat,
        Some("vlan") => ProviderKind::Vlan,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "Invalid input for operation: network_type '{other}' is not one of flat, vlan, vxlan."
            )));
        }
    };
    let vlan = match number {
        Some(n @ 1..=4094) => Some(n as u16),
        Some(n) => {
            return Err(ApiError::bad_request(format!(
                "Invalid input for operation: segmentation_id out of range (1 through 4094): {n}."
            )));
        }
        None => None,
    };
    Ok((Some(networks::claim_provider(tx, kind, physical, vlan)?), 0))
}

fn provider_view(network: &Network) -> serde_json::Value {
    let (kind, physical, number) = match &network.provider {
        None => ("vxlan", None, Some(network.segment)),
        Some(p) => {
            let kind = if p.kind == ProviderKind::Flat { "flat" } else { "vlan" };
            (kind, Some(p.physical_network.as_str()), p.vlan.map(u32::from))
        }
    };
    json!({
        "provider:network_type": kind, "provider:physical_network": physical, "provider:segmentation_id": number,
    })
}

/// One external network at most is the default.
fn check_default(tx: &mut Tx, network: &Network) -> ApiResult<()> {
    if !network.is_default {
        return Ok(());
    }
    if !network.external {
        return Err(ApiError::bad_request("Only an external network can be the default external network."));
    }
    let others = tx.by_index::<Network>("external", "yes")?;
    match others.iter().find(|n| n.is_default && n.id != network.id) {
        None => Ok(()),
        Some(other) => {
            Err(ApiError::conflict(format!("A default external network already exists: {}.", other.id))
                .with_code("DefaultExternalNetworkExists"))
        }
    }
}

/// A network can't be taken back from projects that have ports on it.
fn check_unsharing(tx: &mut Tx, network: &Network, shared: bool) -> ApiResult<()> {
    if !network.shared || shared {
        return Ok(());
    }
    let ports = tx.by_index::<crate::model::Port>("network", &network.id)?;
    if ports.iter().any(|p| !p.project_id.is_empty() && p.project_id != network.project_id) {
        let message = format!(
            "Unable to reconfigure sharing settings for network {}. Multiple tenants are using it.",
            network.id
        );
        return Err(ApiError::conflict(message).with_code("InvalidSharedSetting"));
    }
    Ok(())
}

fn status_of(tx: &mut Tx, network: &Network) -> ApiResult<&'static str> {
    if !network.admin_state_up {
        return Ok("DOWN");
    }
    for host in &network.hosts {
        let seen = tx.get::<NetworkStatus>(&status::on_host(&network.id, host))?;
        if seen.is_some_and(|s| s.phase == Phase::Failed) {
            return Ok("ERROR");
        }
    }
    Ok("ACTIVE")
}
