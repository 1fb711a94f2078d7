//! The EC2 form: a tree of small texts. Pure.

use std::net::IpAddr;

use serde_json::Value;

use super::answer::user_data;
use super::{Found, Tenant};
use crate::model::ServerMetadata;

/// The versions. All are answered alike.
pub(super) const VERSIONS: [&str; 10] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "latest",
];

pub(super) fn find(rest: &[&str], data: &ServerMetadata, tenant: &Tenant, from: IpAddr) -> Option<Found> {
    match rest {
        [] => {
            let user = data.user_data.as_ref().map(|_| "user-data");
            Found::list(std::iter::once("meta-data/").chain(user))
        }
        ["user-data"] => user_data(data),
        ["meta-data", rest @ ..] => meta_data(rest, data, tenant, from),
        _ => None,
    }
}

fn meta_data(rest: &[&str], data: &ServerMetadata, tenant: &Tenant, from: IpAddr) -> Option<Found> {
    match rest {
        [] => {
            let directories = ["block-device-mapping/", "placement/"];
            let keys = (!keys(data).is_empty()).then_some("public-keys/");
            let leaves: Vec<_> = leaves(data, tenant, from).into_iter().map(|(name, _)| name).collect();
            let mut names: Vec<_> = leaves.into_iter().chain(directories).chain(keys).collect();
            names.sort_unstable();
            Found::list(names)
        }
        ["placement"] => Found::list(["availability-zone"]),
        ["placement", "availability-zone"] => Found::text(text(data, "availability_zone")?),
        ["block-device-mapping"] => Found::list(["ami", "root"]),
        ["block-device-mapping", "ami"] => Found::text("vda"),
        ["block-device-mapping", "root"] => Found::text("/dev/vda"),
        ["public-keys"] => {
            let keys = keys(data);
            let list = keys.iter().enumerate().map(|(at, (name, _))| format!("{at}={name}"));
            if keys.is_empty() { None } else { Found::list(list) }
        }
        ["public-keys", at] => key(data, at).and(Found::text("openssh-key")),
        ["public-keys", at, "openssh-key"] => Found::text(key(data, at)?),
        [name] => {
            leaves(data, tenant, from).into_iter().find(|(n, _)| n == name).and_then(|(_, v)| Found::text(v))
        }
        _ => None,
    }
}

fn leaves(data: &ServerMetadata, tenant: &Tenant, from: IpAddr) -> Vec<(&'static str, String)> {
    let hostname = text(data, "hostname").unwrap_or_default().to_owned();
    let mut leaves = vec![
        (
            "ami-launch-index",
            data.meta_data.get("launch_index").and_then(Value::as_u64).unwrap_or(0).to_string(),
        ),
        ("hostname", hostname.clone()),
        ("instance-action", "none".to_owned()),
        ("instance-id", data.server_id.clone()),
        ("instance-type", data.instance_type.clone()),
        ("local-hostname", hostname.clone()),
        ("public-hostname", hostname),
        ("public-ipv4", tenant.public.map(|ip| ip.to_string()).unwrap_or_default()),
        ("reservation-id", data.server_id.clone()),
    ];
    if from.is_ipv4() {
        leaves.push(("local-ipv4", from.to_string()));
    }
    leaves.extend(data.image_id.clone().map(|image| ("ami-id", image)));
    leaves
}

fn text<'a>(data: &'a ServerMetadata, name: &str) -> Option<&'a str> {
    data.meta_data.get(name).and_then(Value::as_str)
}

fn keys(data: &ServerMetadata) -> Vec<(&str, &str)> {
    let keys = data.meta_data.get("public_keys").and_then(Value::as_object);
    let keys = keys.into_iter().flatten();
    keys.filter_map(|(name, key)| Some((name.as_str(), key.as_str()?))).collect()
}

fn key<'a>(data: &'a ServerMetadata, at: &str) -> Option<&'a str> {
    keys(data).get(at.parse::<usize>().ok()?).map(|(_, key)| *key)
}
