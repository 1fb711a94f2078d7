//! Reads the body of a server's creation, by the rules of its microversion. Pure: nothing is looked up here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use cairn_gateway::{ApiError, ApiResult, Minor};
use serde_json::{Map, Value};

use super::create_disks;
use super::form::{boolean, integer, invalid, metadata, name, only, uuid};
use crate::order::{NicOrder, NicWanted, Order};

/// The longest user data, in characters of base64.
const USER_DATA_MAX: usize = 65_535;

/// A creation as ordered.
#[derive(Debug, Clone, PartialEq)]
pub struct Creation {
    /// The servers.
    pub order: Order,
    /// The password the client chose.
    pub admin_pass: Option<String>,
    /// Whether to answer with the reservation instead of the server.
    pub return_reservation_id: bool,
}

type Fields = Map<String, Value>;

/// Every key of a server, with the microversions that know it (from, to).
const KEYS: [(&str, u32, u32); 27] = [
    ("name", 1, 999),
    ("imageRef", 1, 999),
    ("flavorRef", 1, 999),
    ("adminPass", 1, 999),
    ("metadata", 1, 999),
    ("networks", 1, 999),
    ("OS-DCF:diskConfig", 1, 999),
    ("accessIPv4", 1, 999),
    ("accessIPv6", 1, 999),
    ("personality", 1, 56),
    ("config_drive", 1, 999),
    ("key_name", 1, 999),
    ("security_groups", 1, 999),
    ("availability_zone", 1, 999),
    ("block_device_mapping", 1, 999),
    ("block_device_mapping_v2", 1, 999),
    ("min_count", 1, 999),
    ("max_count", 1, 999),
    ("return_reservation_id", 1, 999),
    ("user_data", 1, 999),
    ("description", 19, 999),
    ("tags", 52, 999),
    ("trusted_image_certificates", 63, 999),
    ("host", 74, 999),
    ("hypervisor_hostname", 74, 999),
    ("hostname", 90, 999),
    // Sent by the oldest clients with the same meaning as user_data's neighbour; never with effect.
    ("OS-SCH-HNT:scheduler_hints", 1, 56),
];

/// Reads a body.
pub fn parse(body: &Value, mv: Minor) -> ApiResult<Creation> {
    let outer = body.as_object().ok_or_else(|| invalid("body", body, "is not of type 'object'"))?;
    let hints = outer.get("os:scheduler_hints").or_else(|| outer.get("OS-SCH-HNT:scheduler_hints"));
    let known = ["server", "os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"];
    only(outer.keys(), |k| known.contains(&k))?;
    let fields = outer.get("server").and_then(Value::as_object);
    let fields = fields.ok_or_else(|| ApiError::bad_request("'server' is a required property"))?;
    check_keys(fields, mv)?;
    if fields.contains_key("personality") {
        super::personality::check(&fields["personality"])?;
    }
    let (hints, group) = scheduler_hints(hints)?;
    Ok(Creation {
        admin_pass: text(fields, "adminPass")?,
        return_reservation_id: flag(fields, "return_reservation_id")?,
        order: order(fields, mv, hints, group)?,
    })
}

fn order(f: &Fields, mv: Minor, hints: BTreeMap<String, Value>, group: Option<String>) -> ApiResult<Order> {
    let image = image_ref(f)?;
    let disks = create_disks::parse(f, mv, image.as_deref())?;
    let (min_count, max_count) = counts(f)?;
    let (zone, host) = zone_and_host(f)?;
    Ok(Order {
        name: name("name", required(f, "name")?)?,
        hostname: text(f, "hostname")?.map(|h| hostname(&h, mv)).transpose()?,
        description: description(f)?,
        flavor: flavor_ref(f)?,
        image,
        disks,
        nics: networks(f, mv)?,
        groups: groups(f)?,
        key_name: text(f, "key_name")?,
        user_data: user_data(f)?,
        metadata: f.get("metadata").map(metadata).transpose()?.unwrap_or_default(),
        tags: tags(f)?,
        zone,
        host,
        config_drive: flag(f, "config_drive")?,
        disk_config: disk_config(f)?,
        access_ipv4: access::<Ipv4Addr>(f, "accessIPv4")?,
        access_ipv6: access::<Ipv6Addr>(f, "accessIPv6")?,
        min_count,
        max_count,
        group,
        hints,
    })
}

fn check_keys(f: &Fields, mv: Minor) -> ApiResult<()> {
    let known = |key: &str| KEYS.iter().any(|(k, from, to)| *k == key && (*from..=*to).contains(&mv.0));
    only(f.keys(), known)
}

fn required<'a>(f: &'a Fields, key: &str) -> ApiResult<&'a str> {
    match f.get(key) {
        None => Err(ApiError::bad_request(format!("'{key}' is a required property"))),
        Some(v) => v.as_str().ok_or_else(|| invalid(key, v, "is not of type 'string'")),
    }
}

/// A text that may be left out or null.
pub(super) fn text(f: &Fields, key: &str) -> ApiResult<Option<String>> {
    match f.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s.clone())),
        Some(other) => Err(invalid(key, other, "is not of type 'string'")),
    }
}

/// A boolean that may be left out or null.
pub(super) fn flag(f: &Fields, key: &str) -> ApiResult<bool> {
    match f.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(v) => boolean(key, v),
    }
}

fn image_ref(f: &Fields) -> ApiResult<Option<String>> {
    match f.get("imageRef") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) if s.is_empty() => Ok(None),
        Some(Value::String(s)) => uuid("imageRef", last_segment(s)).map(Some),
        Some(other) => Err(invalid("imageRef", other, "is not of type 'string'")),
    }
}

fn flavor_ref(f: &Fields) -> ApiResult<String> {
    match f.get("flavorRef") {
        None => Err(ApiError::bad_request("'flavorRef' is a required property")),
        Some(Value::Number(n)) => Ok(n.to_string()),
        Some(Value::String(s)) if !s.is_empty() => Ok(last_segment(s).to_owned()),
        Some(other) => Err(invalid("flavorRef", other, "is not a flavor's id")),
    }
}

/// References may be whole URLs; the id is their end.
fn last_segment(reference: &str) -> &str {
    reference.trim_end_matches('/').rsplit('/').next().unwrap_or(reference)
}

pub(super) fn hostname(text: &str, mv: Minor) -> ApiResult<String> {
    let dots = mv.since(94);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || (dots && c == '.');
    let (min, max) = (2, if dots { 255 } else { 63 });
    let edges_ok = !text.starts_with(['-', '.']) && !text.ends_with(['-', '.']);
    if (min..=max).contains(&text.len()) && edges_ok && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(invalid("hostname", text, "is not a valid host name"))
}

fn description(f: &Fields) -> ApiResult<Option<String>> {
    let description = text(f, "description")?;
    super::servers::check_description(description.as_deref())?;
    Ok(description)
}

fn user_data(f: &Fields) -> ApiResult<Option<String>> {
    let Some(data) = text(f, "user_data")? else { return Ok(None) };
    if data.len() > USER_DATA_MAX {
        return Err(ApiError::bad_request(
            "User data too large. User data must be no larger than 65535 bytes.",
        ));
    }
    let packed: String = data.split_whitespace().collect();
    match base64::engine::general_purpose::STANDARD.decode(packed.as_bytes()) {
        Ok(_) => Ok(Some(packed)),
        Err(_) => Err(ApiError::bad_request("The user data is not valid base64.")),
    }
}

fn tags(f: &Fields) -> ApiResult<BTreeSet<String>> {
    match f.get("tags") {
        None => Ok(BTreeSet::new()),
        Some(value) => super::tags::parse_all(value),
    }
}

pub(super) fn disk_config(f: &Fields) -> ApiResult<String> {
    match text(f, "OS-DCF:diskConfig")?.as_deref() {
        None => Ok("MANUAL".into()),
        Some(v @ ("AUTO" | "MANUAL")) => Ok(v.into()),
        Some(other) => Err(invalid("OS-DCF:diskConfig", other, "is not one of ['AUTO', 'MANUAL']")),
    }
}

/// An address to be shown: in its shortest form, or empty.
pub(super) fn access<T: std::str::FromStr + ToString>(f: &Fields, key: &str) -> ApiResult<String> {
    match text(f, key)?.as_deref() {
        None | Some("") => Ok(String::new()),
        Some(ip) => match ip.parse::<T>() {
            Ok(ip) => Ok(ip.to_string()),
            Err(_) => Err(invalid(key, ip, "is not an IP address of that family")),
        },
    }
}

fn counts(f: &Fields) -> ApiResult<(u32, u32)> {
    let read = |key: &str| f.get(key).map(|v| integer(key, v, 1, 1000)).transpose();
    let min = read("min_count")?;
    let max = read("max_count")?;
    let (min, max) = (min.unwrap_or(1), max.or(min).unwrap_or(1));
    if min > max {
        return Err(ApiError::bad_request("min_count must be <= max_count"));
    }
    Ok((min as u32, max as u32))
}

/// `zone`, or (for administrators, which is checked later) `zone:host` and the two keys of their own.
fn zone_and_host(f: &Fields) -> ApiResult<(Option<String>, Option<String>)> {
    let named = text(f, "host")?.or(text(f, "hypervisor_hostname")?);
    let Some(zone) = text(f, "availability_zone")? else { return Ok((None, named)) };
    if zone.is_empty() || zone.len() > 255 {
        return Err(invalid("availability_zone", zone, "is not a zone's name"));
    }
    let mut parts = zone.splitn(3, ':').map(|p| Some(p.to_owned()).filter(|p| !p.is_empty()));
    let (zone, host, node) = (parts.next().flatten(), parts.next().flatten(), parts.next().flatten());
    Ok((zone, named.or(host).or(node)))
}

fn groups(f: &Fields) -> ApiResult<Vec<String>> {
    let Some(value) = f.get("security_groups").filter(|v| !v.is_null()) else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(|| invalid("security_groups", value, "is not of type 'array'"))?;
    let mut names = Vec::new();
    for entry in list {
        let name = entry.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| invalid("security_groups", entry, "has no 'name'"))?;
        if !names.contains(&name.to_owned()) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn networks(f: &Fields, mv: Minor) -> ApiResult<NicOrder> {
    match f.get("networks") {
        None | Some(Value::Null) if mv.since(37) => {
            Err(ApiError::bad_request("'networks' is a required property"))
        }
        None | Some(Value::Null) => Ok(NicOrder::Auto),
        Some(Value::String(s)) if mv.since(37) && s == "auto" => Ok(NicOrder::Auto),
        Some(Value::String(s)) if mv.since(37) && s == "none" => Ok(NicOrder::None),
        Some(Value::Array(list)) if list.is_empty() => Ok(NicOrder::Auto),
        Some(Value::Array(list)) => {
            list.iter().map(|n| nic(n, mv)).collect::<ApiResult<_>>().map(NicOrder::List)
        }
        Some(other) => Err(invalid("networks", other, "is not of a valid type")),
    }
}

fn nic(value: &Value, mv: Minor) -> ApiResult<NicWanted> {
    let f = value.as_object().ok_or_else(|| invalid("networks", value, "is not of type 'object'"))?;
    let tags = (32..=36).contains(&mv.0) || mv.since(42);
    let known = |k: &str| ["uuid", "port", "fixed_ip"].contains(&k) || (tags && k == "tag");
    only(f.keys(), known)?;
    let id = |key: &str| text(f, key)?.map(|v| uuid(key, &v)).transpose();
    let fixed_ip = text(f, "fixed_ip")?;
    let parsed = fixed_ip
        .as_deref()
        .map(|ip| ip.parse::<IpAddr>().map_err(|_| invalid("fixed_ip", ip, "is not an IP address")));
    let nic = NicWanted {
        network: id("uuid")?,
        port: id("port")?,
        fixed_ip: parsed.transpose()?,
        tag: text(f, "tag")?,
    };
    if nic.network.is_none() && nic.port.is_none() {
        return Err(ApiError::bad_request(
            "Bad networks format: network uuid is not in proper format (None)",
        ));
    }
    if nic.port.is_some() && nic.fixed_ip.is_some() {
        return Err(ApiError::bad_request(
            "Specified Fixed IP cannot be used with port: a port has its own addresses.",
        ));
    }
    Ok(nic)
}

/// The hints, and the group among them.
fn scheduler_hints(value: Option<&Value>) -> ApiResult<(BTreeMap<String, Value>, Option<String>)> {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok((BTreeMap::new(), None)) };
    let map =
        value.as_object().ok_or_else(|| invalid("os:scheduler_hints", value, "is not of type 'object'"))?;
    let group = text(map, "group")?.map(|g| uuid("group", &g)).transpose()?;
    for key in ["same_host", "different_host"] {
        for id in map.get(key).map(hint_ids).unwrap_or_default() {
            uuid(key, &id)?;
        }
    }
    Ok((map.iter().map(|(k, v)| (k.clone(), v.clone())).collect(), group))
}

/// The servers a hint names: one, or a list.
pub(crate) fn hint_ids(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().map(|v| v.as_str().unwrap_or_default().to_owned()).collect(),
        other => vec![other.as_str().unwrap_or_default().to_owned()],
    }
}

#[cfg(test)]
#[path = "create_body_tests.rs"]
mod tests;
