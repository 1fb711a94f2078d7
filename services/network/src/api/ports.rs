//! Ports as the API shows them.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::attrs::Attrs;
use super::port_attrs as take;
use super::port_view;
use super::resource::{self, Ctx, Resource, View, with};
use crate::logic::ports;
use crate::model::{Network, Port};

impl Resource for Port {
    const NAME: &'static str = "port";
    const PLURAL: &'static str = "ports";
    const PATH: &'static str = "ports";
    const TITLE: &'static str = "Port";
    const MISSING: &'static str = "PortNotFound";
    const INDEXED: &'static [(&'static str, &'static str)] = &[
        ("device_id", "device"),
        ("fixed_ips=ip_address", "ip"),
        ("fixed_ips=subnet_id", "subnet"),
        ("network_id", "network"),
        ("security_groups", "group"),
    ];
    const READ_ONLY: &'static [&'static str] =
        &["network_id", "status", "binding:vif_type", "binding:vif_details", "tags"];

    resource::fields!(tags, deleted);

    fn visible(&self, tx: &mut Tx, caller: &Caller) -> ApiResult<bool> {
        if caller.sees(&self.project_id) {
            return Ok(true);
        }
        Ok(tx.get::<Network>(&self.network_id)?.is_some_and(|n| caller.sees(&n.project_id)))
    }

    fn also_visible(tx: &mut Tx, caller: &Caller) -> ApiResult<Vec<Port>> {
        let mut found = Vec::new();
        // Only on a shared or external network can there be ports of others.
        for network in tx.by_index::<Network>("project", &caller.project_id)? {
            if network.shared || network.external {
                found.extend(tx.by_index::<Port>("network", &network.id)?);
            }
        }
        Ok(found)
    }

    fn view(&self, tx: &mut Tx, caller: &Caller) -> ApiResult<View> {
        let fixed_ips: Vec<Value> =
            self.fixed_ips.iter().map(|f| json!({"subnet_id": f.subnet_id, "ip_address": f.ip})).collect();
        let base = resource::view_of(&self.id, &self.project_id, &self.description, &self.stamp);
        let view = with(
            base,
            json!({
                "name": self.name, "network_id": self.network_id, "mac_address": self.mac,
                "admin_state_up": self.admin_state_up, "status": port_view::status(tx, self)?, "device_id": self.device_id,
                "device_owner": self.device_owner, "fixed_ips": fixed_ips, "security_groups": self.security_groups,
                "port_security_enabled": self.port_security, "allowed_address_pairs": port_view::pairs(self),
                "extra_dhcp_opts": port_view::options(self), "binding:vnic_type": "normal", "tags": self.tags,
            }),
        );
        Ok(if caller.is_admin() { with(view, port_view::binding(self)) } else { view })
    }

    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Port> {
        let common = resource::common(ctx, attrs)?;
        let network = usable_network(tx, ctx, &attrs.required("network_id")?)?;
        let mut port = ports::blank(&network, &common.project_id, "", ctx.now);
        port.id = common.id;
        port.name = common.name;
        port.description = common.description;
        port.tags = common.tags;
        port.admin_state_up = attrs.flag("admin_state_up")?.unwrap_or(true);
        port.device_id = attrs.text("device_id")?.unwrap_or_default();
        port.device_owner = take::take_owner(ctx, attrs)?.unwrap_or_default();
        if let Some(mac) = attrs.nullable("mac_address")?.flatten() {
            take::require_network_owner(ctx.caller, &network, "mac_address")?;
            port.mac = mac;
        }
        port.port_security = take_security(ctx, &network, attrs)?.unwrap_or(network.port_security);
        take::take_vnic_type(attrs)?;
        port.host = take::take_host(ctx, attrs)?.flatten();
        port.binding_profile = take::take_profile(ctx, attrs)?.unwrap_or_default();
        port.dhcp_options = take::take_dhcp_options(attrs)?.unwrap_or_default();
        let wanted = take::take_fixed_ips(ctx.caller, &network, attrs)?;
        port.security_groups = match take::take_groups(tx, ctx.caller, attrs)? {
            Some(groups) => groups,
            None => ports::default_groups(tx, &port, ctx.now)?,
        };
        let mut port = ports::insert(tx, &network, port, wanted.as_deref())?;
        if let Some(pairs) = take::take_pairs(attrs, &port.mac)? {
            port.allowed_address_pairs = pairs;
            tx.put(&port)?;
        }
        check_security(&port)?;
        Ok(port)
    }

    fn update(mut self, tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Port> {
        let network = resource::fetch::<Network>(tx, &self.network_id)?;
        resource::rename(attrs, &mut self.name, &mut self.description)?;
        self.admin_state_up = attrs.flag("admin_state_up")?.unwrap_or(self.admin_state_up);
        update_device(ctx, &mut self, attrs)?;
        if let Some(mac) = attrs.nullable("mac_address")?.flatten() {
            ctx.caller.require_admin()?;
            if !mac.eq_ignore_ascii_case(&self.mac) {
                check_unbound(&self)?;
                self.mac = ports::claim_mac(tx, &self.network_id, &mac)?;
            }
        }
        if let Some(on) = take_security(ctx, &network, attrs)? {
            self.port_security = on;
        }
        take::take_vnic_type(attrs)?;
        if let Some(host) = take::take_host(ctx, attrs)? {
            ports::bind(tx, &mut self, host.as_deref())?;
        }
        self.binding_profile = take::take_profile(ctx, attrs)?.unwrap_or(self.binding_profile);
        self.dhcp_options = take::take_dhcp_options(attrs)?.unwrap_or(self.dhcp_options);
        if let Some(groups) = take::take_groups(tx, ctx.caller, attrs)? {
            self.security_groups = groups;
        }
        if let Some(pairs) = take::take_pairs(attrs, &self.mac)? {
            self.allowed_address_pairs = pairs;
        }
        if let Some(wanted) = take::take_fixed_ips(ctx.caller, &network, attrs)? {
            ports::set_addresses(tx, &network, &mut self, &wanted)?;
        }
        check_security(&self)?;
        tx.put(&self)?;
        Ok(self)
    }

    fn remove(self, tx: &mut Tx, ctx: Ctx<'_>) -> ApiResult<()> {
        ports::check_removable(&self)?;
        ports::delete(tx, self, ctx.now)
    }
}

/// The network, if the caller may have ports on it: its own, or a shared one. An external one that isn't shared is
/// for routers, but for administrators.
fn usable_network(tx: &mut Tx, ctx: Ctx<'_>, id: &str) -> ApiResult<Network> {
    let network = resource::find::<Network>(tx, ctx.caller, id)?;
    if network.shared || ctx.caller.sees(&network.project_id) {
        return Ok(network);
    }
    Err(ApiError::forbidden(format!(
        "Tenant {} not allowed to create port on this network",
        ctx.caller.project_id
    )))
}

fn take_security(ctx: Ctx<'_>, network: &Network, attrs: &mut Attrs) -> ApiResult<Option<bool>> {
    let on = attrs.flag("port_security_enabled")?;
    if on.is_some_and(|on| on != network.port_security) {
        take::require_network_owner(ctx.caller, network, "port_security_enabled")?;
    }
    Ok(on)
}

/// A port whose traffic nobody watches can't have rules for it.
fn check_security(port: &Port) -> ApiResult<()> {
    let filtered =
        port.port_security || !port.security_groups.is_empty() || !port.allowed_address_pairs.is_empty();
    if port.is_service_port() && filtered {
        return Err(ApiError::bad_request(format!(
            "Port {} is {} and has no filters.",
            port.id, port.device_owner
        )));
    }
    if port.port_security {
        return Ok(());
    }
    if !port.security_groups.is_empty() {
        return Err(ApiError::conflict(
            "Port has security group associated. Cannot disable port security or ip \
                                       address until security group is removed.",
        )
        .with_code("PortSecurityPortHasSecurityGroup"));
    }
    if !port.allowed_address_pairs.is_empty() {
        return Err(ApiError::conflict(
            "Port Security must be enabled in order to have allowed address pairs on a port.",
        )
        .with_code("AddressPairAndPortSecurityRequired"));
    }
    Ok(())
}

fn update_device(ctx: Ctx<'_>, port: &mut Port, attrs: &mut Attrs) -> ApiResult<()> {
    let device_id = attrs.text("device_id")?;
    let device_owner = take::take_owner(ctx, attrs)?;
    let changes = device_id.as_ref().is_some_and(|d| *d != port.device_id)
        || device_owner.as_ref().is_some_and(|o| *o != port.device_owner);
    if changes && port.is_service_port() {
        return Err(ApiError::conflict(format!(
            "Unable to complete operation on port {}. It belongs to {} {}.",
            port.id, port.device_owner, port.device_id
        ))
        .with_code("PortInUse"));
    }
    port.device_id = device_id.unwrap_or_else(|| port.device_id.clone());
    port.device_owner = device_owner.unwrap_or_else(|| port.device_owner.clone());
    Ok(())
}

/// The MAC of a plugged guest can't change under it.
fn check_unbound(port: &Port) -> ApiResult<()> {
    if port.host.is_none() {
        return Ok(());
    }
    Err(ApiError::conflict(format!("Port {} is bound; its MAC cannot be changed.", port.id))
        .with_code("PortBound"))
}
