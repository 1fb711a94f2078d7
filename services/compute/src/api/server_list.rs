//! Lists of servers: which, in which order, and from where on.

use axum::Json;
use axum::extract::State;
use cairn_gateway::{ApiError, ApiResult, Page, Query};
use cairn_state::Tx;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ask::{Ask, Svc, shown, view};
use super::form;
use super::view;
use crate::model::Server;
use crate::nics;
use crate::state::Shown;

/// GET /servers
pub async fn brief(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let page = page(tx, &ask, &query)?;
        let shown: Vec<_> = page.items.iter().map(|s| view::brief(s, ask.look())).collect();
        Ok(Json(with_links(shown, page.next, &ask, &query, "servers")))
    })
}

/// GET /servers/detail
pub async fn detail(State(svc): Svc, ask: Ask, query: Query) -> ApiResult<Json<Value>> {
    svc.store.read(|tx| {
        let page = page(tx, &ask, &query)?;
        let mut shown = Vec::with_capacity(page.items.len());
        for server in page.items {
            shown.push(view::full(&view(tx, server)?, ask.look(), true));
        }
        Ok(Json(with_links(shown, page.next, &ask, &query, "servers/detail")))
    })
}

fn with_links(servers: Vec<Value>, next: Option<String>, ask: &Ask, query: &Query, path: &str) -> Value {
    let mut body = json!({"servers": servers});
    if let Some(marker) = next {
        body["servers_links"] = form::next_link(&ask.base, path, query, &marker);
    }
    body
}

/// The filters that every user has, and the order and page.
const KNOWN: [&str; 34] = [
    "all_tenants",
    "changes-since",
    "changes-before",
    "flavor",
    "image",
    "ip",
    "ip6",
    "limit",
    "marker",
    "name",
    "not-tags",
    "not-tags-any",
    "reservation_id",
    "sort_dir",
    "sort_key",
    "status",
    "tags",
    "tags-any",
    "uuid",
    "locked",
    "access_ip_v4",
    "access_ip_v6",
    "key_name",
    "config_drive",
    "launched_at",
    "terminated_at",
    "created_at",
    "power_state",
    "task_state",
    "vm_state",
    "progress",
    "user_id",
    "description",
    "hostname",
];
/// Those that only administrators have.
const KNOWN_TO_ADMINS: [&str; 9] = [
    "deleted",
    "soft_deleted",
    "host",
    "node",
    "tenant_id",
    "project_id",
    "availability_zone",
    "display_name",
    "launch_index",
];
/// Every status there is; a filter by another finds nothing, or is refused since 2.38.
const STATUSES: [&str; 19] = [
    "ACTIVE",
    "BUILD",
    "DELETED",
    "ERROR",
    "HARD_REBOOT",
    "MIGRATING",
    "PASSWORD",
    "PAUSED",
    "REBOOT",
    "REBUILD",
    "RESCUE",
    "RESIZE",
    "REVERT_RESIZE",
    "SHELVED",
    "SHELVED_OFFLOADED",
    "SHUTOFF",
    "SOFT_DELETED",
    "SUSPENDED",
    "VERIFY_RESIZE",
];

fn page(tx: &mut Tx, ask: &Ask, query: &Query) -> ApiResult<Page<Server>> {
    if ask.mv.since(75) {
        let known = |k: &str| KNOWN.contains(&k) || KNOWN_TO_ADMINS.contains(&k);
        form::only(query.0.iter().map(|(k, _)| k), known)?;
    }
    let filter = Filter::read(ask, query)?;
    let mut all = scope(tx, ask, query)?;
    if filter.nothing {
        all.clear();
    }
    let mut kept = Vec::with_capacity(all.len());
    for server in all {
        if filter.by_record(&server)
            && filter.by_state(shown_if(tx, &filter, &server)?)
            && filter.by_address(tx, &server)?
        {
            kept.push(server);
        }
    }
    sort(&mut kept, query)?;
    Page::cut(kept, query, |s| &s.id)
}

/// The state, if a filter asks for it.
fn shown_if(tx: &mut Tx, filter: &Filter, server: &Server) -> ApiResult<Option<Shown>> {
    match filter.needs_state() {
        true => shown(tx, server).map(Some),
        false => Ok(None),
    }
}

/// The servers that the caller asks among: the project's, or (administrators) everybody's.
fn scope(tx: &mut Tx, ask: &Ask, query: &Query) -> ApiResult<Vec<Server>> {
    let everybody = match query.get("all_tenants") {
        Some("") => true,
        _ => query.flag("all_tenants")?.unwrap_or(false),
    };
    if everybody {
        ask.admin("os_compute_api:servers:index:get_all_tenants")?;
        let project = query.get("project_id").or_else(|| query.get("tenant_id"));
        return Ok(match project {
            Some(project) => tx.by_index::<Server>("project", project)?,
            None => tx.list_unfenced::<Server>()?,
        });
    }
    Ok(tx.by_index::<Server>("project", ask.caller.require_project()?)?)
}

/// What is asked for, read once.
#[derive(Default)]
struct Filter {
    nothing: bool,
    statuses: Vec<String>,
    name: Option<regex_lite::Regex>,
    ip: Option<regex_lite::Regex>,
    exact: Vec<(&'static str, String)>,
    since: Option<Timestamp>,
    before: Option<Timestamp>,
    tags: [Vec<String>; 4],
    locked: Option<bool>,
    vm_state: Option<String>,
    task_state: Option<String>,
    power_state: Option<u8>,
}

/// The filters that compare with a field of the record.
const EXACT: [&str; 8] =
    ["flavor", "image", "reservation_id", "uuid", "key_name", "user_id", "host", "hostname"];

impl Filter {
    fn read(ask: &Ask, query: &Query) -> ApiResult<Filter> {
        let mut filter = Filter {
            statuses: query.all("status").map(str::to_ascii_uppercase).collect(),
            name: query.get("name").map(|p| pattern("name", p)).transpose()?,
            ip: query.get("ip").or_else(|| query.get("ip6")).map(|p| pattern("ip", p)).transpose()?,
            since: time(query, "changes-since")?,
            before: if ask.mv.since(66) { time(query, "changes-before")? } else { None },
            locked: if ask.mv.since(73) { query.flag("locked")? } else { None },
            vm_state: query.get("vm_state").map(str::to_owned),
            task_state: query.get("task_state").map(str::to_owned),
            power_state: query.parse("power_state")?,
            ..Filter::default()
        };
        let admin_only = |key: &str| key == "host" && !ask.caller.is_admin();
        for key in EXACT.into_iter().filter(|k| !admin_only(k)) {
            filter.exact.extend(query.get(key).map(|v| (key, v.to_owned())));
        }
        if ask.mv.since(26) {
            let list = |key: &str| {
                query.get(key).map(|t| t.split(',').map(str::to_owned).collect()).unwrap_or_default()
            };
            filter.tags = [list("tags"), list("tags-any"), list("not-tags"), list("not-tags-any")];
        }
        filter.read_deleted(ask, query)?;
        filter.check_statuses(ask)?;
        Ok(filter)
    }

    /// Servers that are gone are not kept, so asking for those finds nothing.
    fn read_deleted(&mut self, ask: &Ask, query: &Query) -> ApiResult<()> {
        if ask.caller.is_admin() && query.flag("deleted").unwrap_or(None) == Some(true) {
            self.nothing = true;
        }
        Ok(())
    }

    fn check_statuses(&mut self, ask: &Ask) -> ApiResult<()> {
        if self.statuses.iter().any(|s| s == "DELETED") {
            ask.admin("os_compute_api:servers:detail:get_all_tenants")?;
            self.nothing = self.statuses.len() == 1;
        }
        if self.statuses.iter().all(|s| STATUSES.contains(&s.as_str())) {
            return Ok(());
        }
        if ask.mv.since(38) {
            return Err(ApiError::bad_request("Invalid status value"));
        }
        self.nothing |= !self.statuses.iter().any(|s| STATUSES.contains(&s.as_str()));
        Ok(())
    }

    fn needs_state(&self) -> bool {
        !self.statuses.is_empty()
            || self.vm_state.is_some()
            || self.task_state.is_some()
            || self.power_state.is_some()
    }

    fn by_record(&self, s: &Server) -> bool {
        let exact = self.exact.iter().all(|(key, value)| field(s, key) == Some(value.as_str()));
        let has = |t: &String| s.tags.contains(t);
        let [all, any, not_all, not_any] = &self.tags;
        let tagged = all.iter().all(has)
            && (any.is_empty() || any.iter().any(has))
            && (not_all.is_empty() || !not_all.iter().all(has))
            && !not_any.iter().any(has);
        exact
            && tagged
            && self.name.as_ref().is_none_or(|r| r.is_match(&s.name))
            && self.since.is_none_or(|t| s.updated >= t)
            && self.before.is_none_or(|t| s.updated <= t)
            && self.locked.is_none_or(|l| s.lock.is_some() == l)
    }

    fn by_state(&self, now: Option<Shown>) -> bool {
        let Some(now) = now else { return true };
        (self.statuses.is_empty() || self.statuses.iter().any(|s| s == now.status))
            && self.vm_state.as_ref().is_none_or(|v| v == now.vm_state)
            && self.task_state.as_ref().is_none_or(|t| Some(t.as_str()) == now.task_state)
            && self.power_state.is_none_or(|p| p == now.power as u8)
    }

    fn by_address(&self, tx: &mut Tx, s: &Server) -> ApiResult<bool> {
        match &self.ip {
            None => Ok(true),
            Some(pattern) => Ok(nics::addresses(tx, s)?.iter().any(|a| pattern.is_match(&a.ip.to_string()))),
        }
    }
}

fn field<'a>(s: &'a Server, key: &str) -> Option<&'a str> {
    match key {
        "flavor" => Some(&s.flavor.id),
        "image" => Some(&s.image.id),
        "reservation_id" => Some(&s.reservation_id),
        "uuid" => Some(&s.id),
        "key_name" => s.key.as_ref().map(|k| k.name.as_str()),
        "user_id" => Some(&s.user_id),
        "host" => s.host.as_deref(),
        "hostname" => Some(&s.hostname),
        _ => None,
    }
}

/// A pattern as users write it. Its cost is linear in what it is matched with, and its size is bounded.
fn pattern(key: &str, text: &str) -> ApiResult<regex_lite::Regex> {
    let build = regex_lite::RegexBuilder::new(text).size_limit(1 << 16).build();
    build.map_err(|_| {
        ApiError::bad_request(format!("Invalid value for the query parameter {key}: not a pattern."))
    })
}

fn time(query: &Query, key: &str) -> ApiResult<Option<Timestamp>> {
    match query.get(key) {
        None => Ok(None),
        Some(text) => match form::parse_time(text) {
            Some(t) => Ok(Some(t)),
            None => Err(form::invalid(key, text, "is not a 'date-time'")),
        },
    }
}

fn sort(servers: &mut [Server], query: &Query) -> ApiResult<()> {
    let keys: Vec<_> = query.all("sort_key").collect();
    let mut dirs = query.all("sort_dir");
    let mut wanted = Vec::new();
    for key in keys {
        let descending = match dirs.next() {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(other) => return Err(ApiError::bad_request(format!("Invalid input for sort_dir: {other}"))),
        };
        sort_value(None, key)?;
        wanted.push((key, descending));
    }
    if wanted.is_empty() {
        wanted = vec![("created_at", true)];
    }
    servers.sort_by(|a, b| {
        let mut order = std::cmp::Ordering::Equal;
        for (key, descending) in &wanted {
            let (a, b) =
                (sort_value(Some(a), key).unwrap_or_default(), sort_value(Some(b), key).unwrap_or_default());
            order = order.then(if *descending { b.cmp(&a) } else { a.cmp(&b) });
        }
        order.then_with(|| a.id.cmp(&b.id))
    });
    Ok(())
}

/// The text a server is ordered by; 400 for a key there is no order by.
fn sort_value(s: Option<&Server>, key: &str) -> ApiResult<String> {
    let of = |f: fn(&Server) -> String| Ok(s.map(f).unwrap_or_default());
    match key {
        "created_at" => of(|s| s.created.to_string()),
        "updated_at" => of(|s| s.updated.to_string()),
        "launched_at" => of(|s| s.launched_at.map(|t| t.to_string()).unwrap_or_default()),
        "display_name" => of(|s| s.name.clone()),
        "uuid" | "root_device_name" | "terminated_at" | "vm_state" | "task_state" | "power_state"
        | "progress" | "ramdisk_id" | "kernel_id" | "locked_by" => of(|s| s.id.clone()),
        "host" | "node" => of(|s| s.host.clone().unwrap_or_default()),
        "image_ref" => of(|s| s.image.id.clone()),
        "instance_type_id" => of(|s| s.flavor.id.clone()),
        "key_name" => of(|s| s.key.as_ref().map(|k| k.name.clone()).unwrap_or_default()),
        "project_id" => of(|s| s.project_id.clone()),
        "user_id" => of(|s| s.user_id.clone()),
        "hostname" => of(|s| s.hostname.clone()),
        "display_description" => of(|s| s.description.clone().unwrap_or_default()),
        "auto_disk_config" => of(|s| s.disk_config.clone()),
        "config_drive" => of(|s| s.config_drive.to_string()),
        "launch_index" => of(|s| format!("{:06}", s.launch_index)),
        "availability_zone" => of(|s| s.pinned_zone.clone().unwrap_or_default()),
        "access_ip_v4" => of(|s| s.access_ipv4.clone()),
        "access_ip_v6" => of(|s| s.access_ipv6.clone()),
        other => Err(ApiError::bad_request(format!("Invalid input for field/attribute sort_key: {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_bounded() {
        assert!(pattern("name", "^web-[0-9]+$").unwrap().is_match("web-12"));
        assert_eq!(pattern("name", "(").unwrap_err().status.as_u16(), 400);
        assert_eq!(pattern("name", "((a{100}){100}){100}").unwrap_err().status.as_u16(), 400);
    }

    #[test]
    fn only_known_orders_are_had() {
        assert!(sort_value(None, "display_name").is_ok());
        assert!(sort_value(None, "secrets").is_err());
    }
}
