//! The attributes of ports that need more than a conversion: address pairs, groups, binding, and who may give which.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use serde_json::{Map, Value};

use super::attrs::{self, Attrs};
use super::resource::{self, Ctx};
use crate::logic::addressing;
use crate::logic::fixed_ips::{self, Wanted};
use crate::model::dhcp::ExtraOption;
use crate::model::{AddressPair, DhcpOption, Network, SecurityGroup};

/// The most address pairs of a port.
const PAIRS_MAX: usize = 10;
/// The most security groups of a port.
const GROUPS_MAX: usize = 50;
/// The largest binding profile, in bytes of JSON.
const PROFILE_MAX: usize = 4095;
/// The most DHCP options of a port.
const OPTIONS_MAX: usize = 50;

/// Refuses who isn't admin and doesn't own the network: on a shared one, guests don't choose what others see.
pub fn require_network_owner(caller: &Caller, network: &Network, key: &str) -> ApiResult<()> {
    if caller.sees(&network.project_id) {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("{key} can be given only by the owner of network {}.", network.id)))
}

/// Takes `fixed_ips`.
pub fn take_fixed_ips(
    caller: &Caller,
    network: &Network,
    attrs: &mut Attrs,
) -> ApiResult<Option<Vec<Wanted>>> {
    let Some(items) = attrs.list("fixed_ips")? else { return Ok(None) };
    let wanted = fixed_ips::parse(&items)?;
    if wanted.iter().any(|w| w.ip.is_some()) && !network.shared {
        require_network_owner(caller, network, "fixed_ips:ip_address")?;
    }
    Ok(Some(wanted))
}

/// Takes `allowed_address_pairs`; a pair that names no MAC has the port's.
pub fn take_pairs(attrs: &mut Attrs, own_mac: &str) -> ApiResult<Option<Vec<AddressPair>>> {
    let key = "allowed_address_pairs";
    let Some(items) = attrs.list(key)? else { return Ok(None) };
    if items.len() > PAIRS_MAX {
        return Err(ApiError::bad_request(format!(
            "Exceeded maximum number of allowed address pairs for a port: {PAIRS_MAX}."
        ))
        .with_code("AddressPairExhausted"));
    }
    let mut pairs = Vec::new();
    for item in &items {
        let object = attrs::object(item, key, &["ip_address", "mac_address", "active"])?;
        let ip = attrs::prefix_in(object, "ip_address", key)?;
        let mac = match object.get("mac_address").filter(|m| !m.is_null()) {
            None => own_mac.to_owned(),
            Some(given) => {
                let bytes = given.as_str().and_then(addressing::mac_bytes);
                let bytes = bytes
                    .ok_or_else(|| attrs::invalid(key, &format!("{given} is not a valid MAC address")))?;
                addressing::mac_text(bytes)
            }
        };
        let pair = AddressPair { ip, mac };
        if pairs.contains(&pair) {
            return Err(ApiError::bad_request("Request contains duplicate address pair.")
                .with_code("DuplicateAddressPairInRequest"));
        }
        pairs.push(pair);
    }
    Ok(Some(pairs))
}

/// Takes `security_groups`: ids of groups that the caller sees.
pub fn take_groups(tx: &mut Tx, caller: &Caller, attrs: &mut Attrs) -> ApiResult<Option<Vec<String>>> {
    let Some(ids) = attrs.texts("security_groups")? else { return Ok(None) };
    if ids.len() > GROUPS_MAX {
        return Err(ApiError::bad_request(format!("A port has at most {GROUPS_MAX} security groups.")));
    }
    let mut groups: Vec<String> = Vec::new();
    for id in ids {
        let group = resource::find::<SecurityGroup>(tx, caller, &id)?;
        if !groups.contains(&group.id) {
            groups.push(group.id);
        }
    }
    Ok(Some(groups))
}

/// Takes `extra_dhcp_opts`: options of DHCP for IPv4. One with the value null is left out.
pub fn take_dhcp_options(attrs: &mut Attrs) -> ApiResult<Option<Vec<DhcpOption>>> {
    let key = "extra_dhcp_opts";
    let Some(items) = attrs.list(key)? else { return Ok(None) };
    if items.len() > OPTIONS_MAX {
        return Err(ApiError::bad_request(format!("A port has at most {OPTIONS_MAX} extra DHCP options.")));
    }
    let mut options: Vec<DhcpOption> = Vec::new();
    for item in &items {
        options.extend(dhcp_option(key, item)?);
    }
    Ok(Some(options))
}

fn dhcp_option(key: &str, item: &Value) -> ApiResult<Option<DhcpOption>> {
    let object = attrs::object(item, key, &["opt_name", "opt_value", "ip_version"])?;
    let name = object.get("opt_name").and_then(Value::as_str).unwrap_or_default();
    if ExtraOption::find(name).is_none() {
        return Err(attrs::invalid(key, &format!("'{name}' is not a DHCP option that is served")));
    }
    match object.get("ip_version").filter(|v| !v.is_null()).map(attrs::as_number) {
        None | Some(Some(4)) => {}
        Some(_) => {
            return Err(attrs::invalid(
                key,
                "extra options are served by DHCP for IPv4 (ip_version 4) alone",
            ));
        }
    }
    match object.get("opt_value") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(value)) if value.len() <= 255 => {
            Ok(Some(DhcpOption { name: name.to_owned(), value: value.clone(), ip_version: 4 }))
        }
        Some(other) => Err(attrs::invalid(key, &format!("'{other}' is not a valid string"))),
    }
}

/// Takes `binding:host_id`; `Some(None)` unbinds. Only an administrator may.
pub fn take_host(ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Option<Option<String>>> {
    let Some(host) = attrs.nullable("binding:host_id")? else { return Ok(None) };
    ctx.caller.require_admin()?;
    Ok(Some(host.filter(|h| !h.is_empty())))
}

/// Takes `binding:profile`. Only an administrator may.
pub fn take_profile(ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Option<Map<String, Value>>> {
    let profile = match attrs.take("binding:profile") {
        None => return Ok(None),
        Some(Value::Null) => Map::new(),
        Some(Value::Object(profile)) if Value::Object(profile.clone()).to_string().len() <= PROFILE_MAX => {
            profile
        }
        Some(Value::Object(_)) => {
            return Err(attrs::invalid("binding:profile", &format!("it exceeds {PROFILE_MAX} characters")));
        }
        Some(other) => {
            return Err(attrs::invalid("binding:profile", &format!("'{other}' is not a dictionary")));
        }
    };
    ctx.caller.require_admin()?;
    Ok(Some(profile))
}

/// Takes `binding:vnic_type`: only ordinary ports are there.
pub fn take_vnic_type(attrs: &mut Attrs) -> ApiResult<()> {
    match attrs.text("binding:vnic_type")?.as_deref() {
        None | Some("normal") => Ok(()),
        Some(other) => Err(attrs::invalid("binding:vnic_type", &format!("'{other}' is not in ['normal']"))),
    }
}

/// Takes `device_owner`: the cloud's own kinds are not a user's to give.
pub fn take_owner(ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Option<String>> {
    let owner = attrs.text("device_owner")?;
    if owner.as_ref().is_some_and(|o| o.starts_with("network:")) {
        ctx.caller.require_admin()?;
        return Err(ApiError::bad_request(
            "A device_owner that begins with network: is given by the cloud itself.",
        ));
    }
    Ok(owner)
}
