//! Which document a path is, of a server's metadata. Pure.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Tenant, ec2};
use crate::model::ServerMetadata;

/// The versions of OpenStack's form. They differ in what may be left out, and nothing is.
const OPENSTACK: [&str; 12] = [
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "2024-04-01",
    "2025-04-04",
    "latest",
];

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its media type.
    pub kind: &'static str,
    /// Its bytes.
    pub body: Vec<u8>,
}

impl Found {
    pub(super) fn text(body: impl Into<String>) -> Option<Found> {
        Some(Found { kind: "text/plain; charset=utf-8", body: body.into().into_bytes() })
    }

    pub(super) fn list<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Option<Found> {
        let items: Vec<_> = items.into_iter().map(|i| i.as_ref().to_owned()).collect();
        Found::text(items.join("\n"))
    }

    fn json(value: &serde_json::Value) -> Option<Found> {
        Some(Found { kind: "application/json", body: value.to_string().into_bytes() })
    }
}

/// The document at `path` for the server that asks from `from`; `None` for "not found".
pub fn find(path: &str, data: &ServerMetadata, tenant: &Tenant, from: IpAddr) -> Option<Found> {
    let parts: Vec<_> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        [] => Found::list(ec2::VERSIONS),
        ["openstack"] => Found::list(OPENSTACK),
        ["openstack", version, rest @ ..] if OPENSTACK.contains(version) => openstack(rest, data),
        [version, rest @ ..] if ec2::VERSIONS.contains(version) => ec2::find(rest, data, tenant, from),
        _ => None,
    }
}

fn openstack(rest: &[&str], data: &ServerMetadata) -> Option<Found> {
    match rest {
        [] => {
            let user = data.user_data.as_ref().map(|_| "user_data");
            Found::list(["meta_data.json", "network_data.json", "vendor_data.json"].into_iter().chain(user))
        }
        ["meta_data.json"] => Found::json(&data.meta_data),
        ["network_data.json"] => Found::json(&data.network_data),
        ["vendor_data.json"] => Found::json(&data.vendor_data),
        ["user_data"] => user_data(data),
        _ => None,
    }
}

/// The user's own bytes.
pub(super) fn user_data(data: &ServerMetadata) -> Option<Found> {
    let body = STANDARD.decode(data.user_data.as_ref()?).ok()?;
    Some(Found { kind: "application/octet-stream", body })
}
