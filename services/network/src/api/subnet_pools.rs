//! Subnet pools as the API shows them.

use cairn_gateway::{ApiError, ApiResult, Caller};
use cairn_state::Tx;
use ipnet::IpNet;
use serde_json::json;

use super::attrs::{self, Attrs};
use super::resource::{self, Ctx, Resource, View, with};
use crate::logic::{addressing, pools, quotas};
use crate::model::{AddressScope, Subnet, SubnetPool};

/// The most prefixes of a pool.
const PREFIXES_MAX: usize = 256;
/// The shortest prefix lengths given when a pool names none, as Neutron has them.
const MIN_V4: i64 = 8;
const MIN_V6: i64 = 64;

impl Resource for SubnetPool {
    const NAME: &'static str = "subnetpool";
    const PLURAL: &'static str = "subnetpools";
    const PATH: &'static str = "subnetpools";
    const TITLE: &'static str = "Subnet pool";
    const MISSING: &'static str = "SubnetPoolNotFound";
    const PUBLIC: &'static [&'static str] = &["shared"];
    const READ_ONLY: &'static [&'static str] = &["ip_version", "shared", "tags"];

    resource::fields!(tags);

    fn visible(&self, _: &mut Tx, caller: &Caller) -> ApiResult<bool> {
        Ok(self.shared || caller.sees(&self.project_id))
    }

    fn view(&self, _: &mut Tx, _: &Caller) -> ApiResult<View> {
        let base = resource::view_of(&self.id, &self.project_id, &self.description, &self.stamp);
        Ok(with(
            base,
            json!({
                "name": self.name, "prefixes": self.prefixes, "ip_version": self.ip_version(),
                "default_prefixlen": self.default_prefixlen, "min_prefixlen": self.min_prefixlen,
                "max_prefixlen": self.max_prefixlen, "default_quota": self.default_quota,
                "address_scope_id": self.address_scope_id, "shared": self.shared, "is_default": self.is_default,
                "tags": self.tags,
            }),
        ))
    }

    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<SubnetPool> {
        let common = resource::common(ctx, attrs)?;
        if !attrs.given("prefixes") {
            return Err(ApiError::bad_request(
                "Failed to parse request. Required attribute 'prefixes' not specified",
            ));
        }
        let prefixes = take_prefixes(attrs)?.unwrap_or_default();
        let v4 = prefixes.first().is_none_or(|p| p.addr().is_ipv4());
        let longest = if v4 { 32 } else { 128 };
        let min =
            take_length(attrs, "min_prefixlen", longest)?.unwrap_or(if v4 { MIN_V4 } else { MIN_V6 } as u8);
        let max = take_length(attrs, "max_prefixlen", longest)?.unwrap_or(longest as u8);
        let pool = SubnetPool {
            id: common.id,
            project_id: common.project_id,
            name: common.name,
            description: common.description,
            default_prefixlen: take_length(attrs, "default_prefixlen", longest)?.unwrap_or(min),
            min_prefixlen: min,
            max_prefixlen: max,
            default_quota: take_quota(attrs)?.unwrap_or(None),
            address_scope_id: take_scope(tx, ctx.caller, attrs, v4)?.unwrap_or(None),
            shared: resource::admin_flag(ctx, attrs, "shared")?.unwrap_or(false),
            is_default: resource::admin_flag(ctx, attrs, "is_default")?.unwrap_or(false),
            prefixes,
            tags: common.tags,
            stamp: common.stamp,
        };
        check(tx, &pool)?;
        quotas::take(tx, &pool.project_id, "subnetpool")?;
        tx.put(&pool)?;
        Ok(pool)
    }

    fn update(mut self, tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<SubnetPool> {
        resource::rename(attrs, &mut self.name, &mut self.description)?;
        let v4 = self.ip_version() == 4;
        if let Some(prefixes) = take_prefixes(attrs)? {
            check_grown(&self.prefixes, &prefixes)?;
            self.prefixes = prefixes;
        }
        let longest = if v4 { 32 } else { 128 };
        self.min_prefixlen = take_length(attrs, "min_prefixlen", longest)?.unwrap_or(self.min_prefixlen);
        self.max_prefixlen = take_length(attrs, "max_prefixlen", longest)?.unwrap_or(self.max_prefixlen);
        self.default_prefixlen =
            take_length(attrs, "default_prefixlen", longest)?.unwrap_or(self.default_prefixlen);
        self.default_quota = take_quota(attrs)?.unwrap_or(self.default_quota);
        self.address_scope_id = take_scope(tx, ctx.caller, attrs, v4)?.unwrap_or(self.address_scope_id);
        self.is_default = resource::admin_flag(ctx, attrs, "is_default")?.unwrap_or(self.is_default);
        check(tx, &self)?;
        tx.put(&self)?;
        Ok(self)
    }

    fn remove(self, tx: &mut Tx, _: Ctx<'_>) -> ApiResult<()> {
        if !tx.by_index::<Subnet>("pool", &self.id)?.is_empty() {
            let message = "Unable to delete subnet pool: Subnet pool has existing allocations.";
            return Err(ApiError::conflict(message).with_code("SubnetPoolDeleteError"));
        }
        quotas::give(tx, &self.project_id, "subnetpool")?;
        Ok(tx.delete::<SubnetPool>(&self.id).map(drop)?)
    }
}

fn take_prefixes(attrs: &mut Attrs) -> ApiResult<Option<Vec<IpNet>>> {
    let Some(texts) = attrs.texts("prefixes")? else { return Ok(None) };
    if texts.len() > PREFIXES_MAX {
        return Err(attrs::invalid("prefixes", &format!("a pool has at most {PREFIXES_MAX}")));
    }
    let prefixes = texts.iter().map(|t| attrs::parse_prefix("prefixes", t)).collect::<ApiResult<Vec<_>>>()?;
    pools::normalize(prefixes).map(Some)
}

fn take_length(attrs: &mut Attrs, key: &str, longest: i64) -> ApiResult<Option<u8>> {
    Ok(attrs.number(key, 0, longest)?.flatten().map(|n| n as u8))
}

fn take_quota(attrs: &mut Attrs) -> ApiResult<Option<Option<u64>>> {
    Ok(attrs.number("default_quota", 0, i64::MAX)?.map(|n| n.map(|n| n as u64)))
}

fn take_scope(
    tx: &mut Tx,
    caller: &Caller,
    attrs: &mut Attrs,
    v4: bool,
) -> ApiResult<Option<Option<String>>> {
    let Some(id) = attrs.nullable("address_scope_id")? else { return Ok(None) };
    let Some(id) = id else { return Ok(Some(None)) };
    let scope = resource::find::<AddressScope>(tx, caller, &id)?;
    if (scope.ip_version == 4) != v4 {
        return Err(ApiError::bad_request(
            "Illegal subnetpool association: the address scope has another IP version.",
        )
        .with_code("IllegalSubnetPoolIpVersionAssociationToAddressScope"));
    }
    Ok(Some(Some(scope.id)))
}

/// What subnets may have been cut from must stay.
fn check_grown(old: &[IpNet], new: &[IpNet]) -> ApiResult<()> {
    match old.iter().find(|o| !new.iter().any(|n| n.contains(*o))) {
        None => Ok(()),
        Some(lost) => Err(ApiError::bad_request(format!(
            "Illegal subnetpool prefixes: existing prefix {lost} must be in the new ones."
        ))
        .with_code("IllegalSubnetPoolPrefixUpdate")),
    }
}

/// Lengths in order, one default per version, no overlap within an address scope.
fn check(tx: &mut Tx, pool: &SubnetPool) -> ApiResult<()> {
    pools::check_lengths(pool)?;
    if pool.is_default {
        let version = pool.ip_version().to_string();
        let other = tx.by_unique::<SubnetPool>("default", &version)?.filter(|p| p.id != pool.id);
        if other.is_some() {
            return Err(ApiError::bad_request(format!(
                "A default subnetpool for IPv{version} already exists."
            ))
            .with_code("InvalidInput"));
        }
    }
    let Some(scope) = &pool.address_scope_id else { return Ok(()) };
    for other in tx.by_index::<SubnetPool>("scope", scope)?.iter().filter(|p| p.id != pool.id) {
        let clash = pool.prefixes.iter().any(|a| other.prefixes.iter().any(|b| addressing::overlap(*a, *b)));
        if clash {
            let message = format!(
                "Impossible to associate subnet pool: it overlaps with pool {} of the address scope.",
                other.id
            );
            return Err(ApiError::conflict(message).with_code("AddressScopePrefixConflict"));
        }
    }
    Ok(())
}
