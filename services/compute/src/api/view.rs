//! A server as its microversion shows it. Pure: what is shown was gathered before.

use cairn_gateway::{BaseUrl, Minor};
use serde_json::{Map, Value, json};

use super::form;
use crate::model::{FlavorSnapshot, Server};
use crate::state::Shown;

/// An address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The network's name.
    pub network: String,
    /// The address.
    pub ip: std::net::IpAddr,
    /// Whether it is a floating one.
    pub floating: bool,
    /// The MAC of its port.
    pub mac: String,
}

/// A server and what else is to be known to show it.
#[derive(Debug, Clone)]
pub struct View {
    /// The server.
    pub server: Server,
    /// Its state.
    pub shown: Shown,
    /// Its addresses, in the order of its ports.
    pub addresses: Vec<Address>,
    /// The names of its ports' security groups.
    pub security_groups: Vec<String>,
    /// The zone its host is in.
    pub zone: String,
    /// `UP`, `DOWN` or `UNKNOWN`; empty without a host.
    pub host_status: &'static str,
}

/// Who looks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The microversion.
    pub mv: Minor,
    /// Whether an administrator does.
    pub admin: bool,
    /// What links begin with.
    pub base: &'a BaseUrl,
}

/// Id, name and links.
pub fn brief(server: &Server, look: Look<'_>) -> Value {
    json!({"id": server.id, "name": server.name, "links": form::links(look.base, "servers", &server.id)})
}

/// The whole server, alone or (`listed`) in a list.
pub fn full(view: &View, look: Look<'_>, listed: bool) -> Value {
    let mut out = core(view, look, true);
    let s = &view.server;
    let mut put = |k: &str, v: Value| drop(out.insert(k.to_owned(), v));
    put("OS-EXT-AZ:availability_zone", json!(view.zone));
    put("config_drive", json!(if s.config_drive { "True" } else { "" }));
    put("key_name", json!(s.key.as_ref().map(|k| &k.name)));
    put("OS-SRV-USG:launched_at", json!(s.launched_at.map(form::micros)));
    put("OS-SRV-USG:terminated_at", Value::Null);
    put("OS-EXT-STS:task_state", json!(view.shown.task_state));
    put("OS-EXT-STS:vm_state", json!(view.shown.vm_state));
    put("OS-EXT-STS:power_state", json!(view.shown.power as u8));
    put("os-extended-volumes:volumes_attached", volumes(s, look.mv));
    if !view.security_groups.is_empty() {
        let names: Vec<_> = view.security_groups.iter().map(|name| json!({"name": name})).collect();
        put("security_groups", json!(names));
    }
    if look.admin {
        for_admins(view, look.mv, &mut put);
    } else if look.mv.since(90) {
        put("OS-EXT-SRV-ATTR:hostname", json!(s.hostname));
    }
    newer(s, look.mv, listed, &mut put);
    Value::Object(out)
}

/// What an update (and a rebuild) answers: the whole server since 2.75, its core before.
pub fn updated(view: &View, look: Look<'_>) -> Value {
    if look.mv.since(75) {
        return full(view, look, false);
    }
    let mut out = core(view, look, false);
    newer(&view.server, look.mv, false, &mut |k, v| drop(out.insert(k.to_owned(), v)));
    Value::Object(out)
}

/// The addresses by network; `extended` adds kind and MAC.
pub fn addresses(addresses: &[Address], extended: bool) -> Value {
    let mut networks: Map<String, Value> = Map::new();
    for a in addresses {
        let mut entry = json!({"version": if a.ip.is_ipv4() { 4 } else { 6 }, "addr": a.ip.to_string()});
        if extended {
            entry["OS-EXT-IPS:type"] = json!(if a.floating { "floating" } else { "fixed" });
            entry["OS-EXT-IPS-MAC:mac_addr"] = json!(a.mac);
        }
        if let Value::Array(list) = networks.entry(a.network.clone()).or_insert_with(|| json!([])) {
            list.push(entry);
        }
    }
    Value::Object(networks)
}

fn core(view: &View, look: Look<'_>, extended: bool) -> Map<String, Value> {
    let s = &view.server;
    let mut out = Map::new();
    let mut put = |k: &str, v: Value| drop(out.insert(k.to_owned(), v));
    put("id", json!(s.id));
    put("name", json!(s.name));
    put("status", json!(view.shown.status));
    put("tenant_id", json!(s.project_id));
    put("user_id", json!(s.user_id));
    put("metadata", json!(s.metadata));
    put("hostId", json!(form::host_id(&s.project_id, s.host.as_deref())));
    put("image", image(s, look.base));
    put("flavor", flavor(&s.flavor, look));
    put("created", json!(form::seconds(s.created)));
    put("updated", json!(form::seconds(s.updated)));
    put("addresses", addresses(&view.addresses, extended));
    put("accessIPv4", json!(s.access_ipv4));
    put("accessIPv6", json!(s.access_ipv6));
    put("OS-DCF:diskConfig", json!(s.disk_config));
    put("links", form::links(look.base, "servers", &s.id));
    if ["ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "REVERT_RESIZE", "MIGRATING"]
        .contains(&view.shown.status)
    {
        put("progress", json!(0));
    }
    if let Some(fault) = s.fault.as_ref().filter(|_| view.shown.status == "ERROR") {
        put(
            "fault",
            json!({"code": fault.code, "created": form::seconds(fault.created), "message": fault.message}),
        );
    }
    out
}

fn image(s: &Server, base: &BaseUrl) -> Value {
    match s.image.id.as_str() {
        "" => json!(""),
        id => json!({"id": id, "links": [form::bookmark(base, "images", id)]}),
    }
}

fn flavor(f: &FlavorSnapshot, look: Look<'_>) -> Value {
    if !look.mv.since(47) {
        return json!({"id": f.id, "links": [form::bookmark(look.base, "flavors", &f.id)]});
    }
    json!({
        "vcpus": f.vcpus, "ram": f.ram_mb, "disk": f.disk_gb, "ephemeral": f.ephemeral_gb, "swap": f.swap_mb,
        "original_name": f.name, "extra_specs": f.extra_specs,
    })
}

/// Only the volumes that users know: a root disk made from an image is part of its server.
fn volumes(s: &Server, mv: Minor) -> Value {
    let known = s.volumes.iter().filter(|v| v.listed);
    known
        .map(|v| match mv.since(3) {
            true => json!({"id": v.volume_id, "delete_on_termination": v.delete_on_termination}),
            false => json!({"id": v.volume_id}),
        })
        .collect()
}

fn for_admins(view: &View, mv: Minor, put: &mut impl FnMut(&str, Value)) {
    let s = &view.server;
    put("OS-EXT-SRV-ATTR:host", json!(s.host));
    put("OS-EXT-SRV-ATTR:hypervisor_hostname", json!(s.host));
    put("OS-EXT-SRV-ATTR:instance_name", json!(crate::agent::domain_xml::domain_name(&s.id)));
    if mv.since(3) {
        put("OS-EXT-SRV-ATTR:reservation_id", json!(s.reservation_id));
        put("OS-EXT-SRV-ATTR:launch_index", json!(s.launch_index));
        put("OS-EXT-SRV-ATTR:hostname", json!(s.hostname));
        put("OS-EXT-SRV-ATTR:kernel_id", json!(""));
        put("OS-EXT-SRV-ATTR:ramdisk_id", json!(""));
        put("OS-EXT-SRV-ATTR:root_device_name", json!(s.root().map(|v| &v.device)));
        put("OS-EXT-SRV-ATTR:user_data", json!(s.user_data));
    }
    if mv.since(16) {
        put("host_status", json!(view.host_status));
    }
}

fn newer(s: &Server, mv: Minor, listed: bool, put: &mut impl FnMut(&str, Value)) {
    if mv.since(9) {
        put("locked", json!(s.lock.is_some()));
    }
    if mv.since(19) {
        put("description", json!(s.description));
    }
    if mv.since(26) {
        put("tags", json!(s.tags));
    }
    if mv.since(63) {
        put("trusted_image_certificates", Value::Null);
    }
    if mv.since(71) && !listed {
        put("server_groups", json!(s.group.iter().collect::<Vec<_>>()));
    }
    if mv.since(73) {
        put("locked_reason", json!(s.lock.as_ref().and_then(|l| l.reason.as_ref())));
    }
    if mv.since(96) {
        put("pinned_availability_zone", json!(s.pinned_zone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PowerState;
    use crate::state::shown;
    use crate::testing::{seen, server};
    use std::collections::BTreeSet;

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    fn view() -> View {
        let server = server("s1");
        View {
            shown: shown(&server, Some(&seen("s1", 1, PowerState::Running))),
            server,
            addresses: vec![Address {
                network: "net".into(),
                ip: "10.0.0.5".parse().unwrap(),
                floating: false,
                mac: "fa:16:3e:00:00:01".into(),
            }],
            security_groups: vec!["default".into()],
            zone: "nova".into(),
            host_status: "UP",
        }
    }

    fn look(mv: u32, admin: bool, base: &BaseUrl) -> Look<'_> {
        Look { mv: Minor(mv), admin, base }
    }

    /// Every microversion adds just its keys.
    #[test]
    fn each_microversion_has_its_keys() {
        let base = BaseUrl("https://x".into());
        let added = [
            (9, "locked"),
            (16, "host_status"),
            (19, "description"),
            (26, "tags"),
            (63, "trusted_image_certificates"),
            (71, "server_groups"),
            (73, "locked_reason"),
            (96, "pinned_availability_zone"),
        ];
        for (mv, key) in added {
            let (before, after) = (
                full(&view(), look(mv - 1, true, &base), false),
                full(&view(), look(mv, true, &base), false),
            );
            let news: Vec<_> = keys(&after).difference(&keys(&before)).cloned().collect();
            assert_eq!(news, [key], "2.{mv}");
        }
        assert!(!keys(&full(&view(), look(96, true, &base), true)).contains("server_groups"));
    }

    #[test]
    fn what_only_administrators_see() {
        let base = BaseUrl("https://x".into());
        let user = keys(&full(&view(), look(60, false, &base), false));
        assert!(!user.iter().any(|k| k.starts_with("OS-EXT-SRV-ATTR") || k == "host_status"));
        assert!(keys(&full(&view(), look(90, false, &base), false)).contains("OS-EXT-SRV-ATTR:hostname"));
    }

    #[test]
    fn an_update_answers_the_core_before_2_75_and_all_since() {
        let base = BaseUrl("https://x".into());
        let old = updated(&view(), look(1, true, &base));
        assert!(!keys(&old).contains("key_name"));
        assert_eq!(old["addresses"]["net"][0], json!({"version": 4, "addr": "10.0.0.5"}));
        assert!(keys(&updated(&view(), look(75, true, &base))).contains("key_name"));
    }

    #[test]
    fn the_flavor_is_embedded_since_2_47() {
        let base = BaseUrl("https://x".into());
        assert_eq!(full(&view(), look(46, false, &base), false)["flavor"]["id"], "1");
        let embedded = full(&view(), look(47, false, &base), false);
        assert_eq!(embedded["flavor"]["original_name"], "m1.tiny");
    }

    #[test]
    fn a_root_disk_from_an_image_is_not_listed() {
        let base = BaseUrl("https://x".into());
        let shown = full(&view(), look(3, false, &base), false);
        assert_eq!(shown["os-extended-volumes:volumes_attached"], json!([]));
    }
}
