//! Lists of volumes and snapshots: filters, order and pages, the same for both.

use cairn_gateway::paging::LIMIT_MAX;
use cairn_gateway::{ApiError, ApiResult, Query};
use cairn_state::{Record, Tx};
use jiff::Timestamp;
use serde_json::Value;

use super::context::Context;
use super::input;
use crate::ZONE;
use crate::model::{
    BY_LISTED, BY_PROJECT, Backup, Group, GroupSnapshot, LISTED, Message, Metadata, Snapshot, Transfer,
    Volume,
};

/// A value that lists are sorted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SortValue {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
    /// A time; none comes first.
    Time(Option<Timestamp>),
}

/// What can be listed.
pub trait Listed: Record {
    /// What it is called in errors.
    const TITLE: &'static str;
    /// The attributes it can be filtered by.
    const FILTERS: &'static [&'static str];
    /// The attributes it can be sorted by.
    const SORTS: &'static [&'static str];
    /// The text of one of [`Listed::FILTERS`], as a filter compares it.
    fn attribute(&self, key: &str) -> String;
    /// Its size in GiB, if it has one.
    fn size_gb(&self) -> u64 {
        0
    }
    /// When it was made and last changed.
    fn times(&self) -> (Timestamp, Option<Timestamp>);
    /// The value of one of [`Listed::SORTS`].
    fn sort_value(&self, key: &str) -> SortValue {
        match key {
            "size" => SortValue::Number(self.size_gb()),
            "created_at" => SortValue::Time(Some(self.times().0)),
            "updated_at" => SortValue::Time(self.times().1),
            text => SortValue::Text(self.attribute(text)),
        }
    }
    /// Its metadata, if it has some.
    fn metadata(&self) -> &Metadata {
        const NONE: &Metadata = &Metadata::new();
        NONE
    }
}

impl Listed for Volume {
    const TITLE: &'static str = "Volume";
    const FILTERS: &'static [&'static str] = &[
        "id",
        "name",
        "display_name",
        "description",
        "status",
        "bootable",
        "availability_zone",
        "size",
        "user_id",
        "snapshot_id",
        "source_volid",
        "image_id",
        "volume_type_id",
        "host",
        "multiattach",
        "encrypted",
        "migration_status",
        "group_id",
        "consistencygroup_id",
    ];
    const SORTS: &'static [&'static str] = &[
        "id",
        "name",
        "display_name",
        "status",
        "size",
        "bootable",
        "availability_zone",
        "host",
        "created_at",
        "updated_at",
    ];

    fn attribute(&self, key: &str) -> String {
        match key {
            "id" => self.id.clone(),
            "name" | "display_name" => self.name.clone().unwrap_or_default(),
            "description" => self.description.clone().unwrap_or_default(),
            "status" => self.status.name().into(),
            "bootable" => self.bootable.to_string(),
            "availability_zone" => ZONE.into(),
            "size" => self.size_gb.to_string(),
            "user_id" => self.user_id.clone(),
            "snapshot_id" => self.snapshot_id.clone().unwrap_or_default(),
            "source_volid" => self.source_volid.clone().unwrap_or_default(),
            "image_id" => self.image_metadata.get("image_id").cloned().unwrap_or_default(),
            "volume_type_id" => self.type_id.clone(),
            "host" => crate::elsewhere::host_of(self),
            "multiattach" => self.multiattach.to_string(),
            "encrypted" => self.key.is_some().to_string(),
            "migration_status" if self.migrated => "success".into(),
            "group_id" => self.group_id.clone().unwrap_or_default(),
            // What volumes here never have.
            _ => String::new(),
        }
    }

    fn size_gb(&self) -> u64 {
        self.size_gb
    }

    fn times(&self) -> (Timestamp, Option<Timestamp>) {
        (self.created_at, self.updated_at)
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Listed for Snapshot {
    const TITLE: &'static str = "Snapshot";
    const FILTERS: &'static [&'static str] = &[
        "id",
        "name",
        "display_name",
        "description",
        "status",
        "volume_id",
        "size",
        "volume_size",
        "user_id",
        "availability_zone",
    ];
    const SORTS: &'static [&'static str] =
        &["id", "name", "display_name", "status", "volume_id", "size", "created_at", "updated_at"];

    fn attribute(&self, key: &str) -> String {
        match key {
            "id" => self.id.clone(),
            "name" | "display_name" => self.name.clone().unwrap_or_default(),
            "description" => self.description.clone().unwrap_or_default(),
            "status" => self.status.name().into(),
            "volume_id" => self.volume_id.clone(),
            "size" | "volume_size" => self.size_gb.to_string(),
            "user_id" => self.user_id.clone(),
            _ => ZONE.into(),
        }
    }

    fn size_gb(&self) -> u64 {
        self.size_gb
    }

    fn times(&self) -> (Timestamp, Option<Timestamp>) {
        (self.created_at, self.updated_at)
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Listed for Backup {
    const TITLE: &'static str = "Backup";
    const FILTERS: &'static [&'static str] =
        &["id", "name", "display_name", "status", "volume_id", "snapshot_id", "description", "size"];
    const SORTS: &'static [&'static str] =
        &["id", "name", "display_name", "status", "volume_id", "size", "created_at", "updated_at"];

    fn attribute(&self, key: &str) -> String {
        match key {
            "id" => self.id.clone(),
            "status" => self.status.name().into(),
            "volume_id" => self.volume_id.clone(),
            "snapshot_id" => self.snapshot_id.clone().unwrap_or_default(),
            "description" => self.description.clone().unwrap_or_default(),
            "size" => self.size_gb.to_string(),
            _ => self.name.clone().unwrap_or_default(),
        }
    }

    fn size_gb(&self) -> u64 {
        self.size_gb
    }

    fn times(&self) -> (Timestamp, Option<Timestamp>) {
        (self.created_at, self.updated_at)
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Listed for Transfer {
    const TITLE: &'static str = "Transfer";
    const FILTERS: &'static [&'static str] = &["id", "name", "volume_id"];
    const SORTS: &'static [&'static str] = &["id", "name", "display_name", "volume_id", "created_at"];

    fn attribute(&self, key: &str) -> String {
        match key {
            "id" => self.id.clone(),
            "volume_id" => self.volume_id.clone(),
            _ => self.name.clone().unwrap_or_default(),
        }
    }

    fn times(&self) -> (Timestamp, Option<Timestamp>) {
        (self.created_at, None)
    }
}

impl Listed for Group {
    const TITLE: &'static str = "Group";
    const FILTERS: &'static [&'static str] = &["id", "name", "group_type"];
    const SORTS: &'static [&'static str] = &["id", "name", "group_type", "created_at"];

    fn attribute(&self, key: &str) -> String {
        match key {
            "id" => self.id.clone(),
            "group_type" => self.group_type.clone(),
            _ => self.name.clone(),
        }
    }

    fn times(&self) -> (Timestamp, Option<Timestamp>) {
        (self.created_at, None)
    }
}

impl Listed for Message {
    const TITLE: &'static str = "Message";
    const FILTERS: &'static [&'static str] =
        &["id", "event_id", "resource_uuid", "resource_type", "request_id", "message_level"];
    const SORTS: &'static [&'static str] =
        &["id", "event_id", "resource_uuid", "resource_type", "request_id", "created_at"];

    fn attribute(&self, key: &str) -> String {
        match key {
            "id" => self.id.clone(),
            "event_id" => self.event_id.clone(),
            "resource_uuid" => self.resource_id.clone(),
            "resource_type" => self.resource_type.clone(),
            "request_id" => self.request_id.clone(),
            _ => "ERROR".into(),
        }
    }

    fn times(&self) -> (Timestamp, Option<Timestamp>) {
        (self.created_at, None)
    }
}

impl Listed for GroupSnapshot {
    const TITLE: &'static str = "Group snapshot";
    const FILTERS: &'static [&'static str] = &["id", "name", "group_id"];
    const SORTS: &'static [&'static str] = &["id", "name", "group_id", "created_at"];

    fn attribute(&self, key: &str) -> String {
        match key {
            "id" => self.id.clone(),
            "group_id" => self.group_id.clone(),
            _ => self.name.clone(),
        }
    }

    fn times(&self) -> (Timestamp, Option<Timestamp>) {
        (self.created_at, None)
    }
}

/// The parameters that are no filters on attributes.
const NOT_FILTERS: [&str; 12] = [
    "limit",
    "marker",
    "offset",
    "sort",
    "sort_key",
    "sort_dir",
    "all_tenants",
    "with_count",
    "metadata",
    "project_id",
    "tenant_id",
    "deleted",
];

/// What of a list is wanted.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Every project's, rather than the caller's own.
    all_projects: bool,
    /// This project's.
    pub project: Option<String>,
    count: bool,
    filters: Vec<(String, String)>,
    metadata: Metadata,
    sort: Vec<(String, bool)>,
    limit: usize,
    offset: usize,
    marker: Option<String>,
}

/// A page of a list.
pub struct Cut<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The marker of the page behind it, if there may be one.
    pub next: Option<String>,
    /// How many match in all, if that was asked for.
    pub total: Option<usize>,
}

impl Wanted {
    /// Reads a query.
    pub fn read(ctx: &Context, query: &Query) -> ApiResult<Wanted> {
        let admin = ctx.caller.is_admin();
        let limit = query.parse::<usize>("limit")?.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
        let project = query.get("project_id").or(query.get("tenant_id")).filter(|_| admin);
        let filters =
            query.0.iter().filter(|(k, v)| !NOT_FILTERS.contains(&k.as_str()) && v != "None").cloned();
        Ok(Wanted {
            all_projects: admin && query.flag("all_tenants")?.unwrap_or(false),
            project: project.map(str::to_owned),
            count: ctx.minor >= 45 && query.flag("with_count")?.unwrap_or(false),
            filters: filters.collect(),
            metadata: query.get("metadata").map(read_metadata).transpose()?.unwrap_or_default(),
            sort: read_sort(query)?,
            limit,
            offset: query.parse("offset")?.unwrap_or(0),
            marker: query.get("marker").filter(|m| !m.is_empty()).map(str::to_owned),
        })
    }

    /// Everything that the caller may list and asked for, before the filters.
    pub fn gather<T: Listed>(&self, tx: &mut Tx, ctx: &Context) -> ApiResult<Vec<T>> {
        Ok(match &self.project {
            Some(project) => tx.by_index(BY_PROJECT, project)?,
            None if self.all_projects => tx.by_index(BY_LISTED, LISTED)?,
            None => tx.by_index(BY_PROJECT, ctx.caller.require_project()?)?,
        })
    }

    /// Filters, sorts and cuts.
    pub fn cut<T: Listed>(&self, mut items: Vec<T>) -> ApiResult<Cut<T>> {
        for (key, value) in &self.filters {
            retain(&mut items, key, value)?;
        }
        items.retain(|i| self.metadata.iter().all(|(k, v)| i.metadata().get(k) == Some(v)));
        sort(&mut items, &self.sort)?;
        let total = self.count.then_some(items.len());
        let start = match &self.marker {
            None => self.offset,
            Some(marker) => {
                let at = items.iter().position(|i| i.id() == *marker);
                at.ok_or_else(|| ApiError::not_found(T::TITLE, marker))? + 1 + self.offset
            }
        };
        let items: Vec<T> = items.into_iter().skip(start).take(self.limit).collect();
        // A full page gets a link even if nothing is behind it: that is what Cinder's clients expect.
        let full = self.limit > 0 && items.len() == self.limit;
        let next = items.last().filter(|_| full).map(T::id);
        Ok(Cut { items, next, total })
    }
}

fn retain<T: Listed>(items: &mut Vec<T>, key: &str, value: &str) -> ApiResult<()> {
    let (name, like) = match key.strip_suffix('~') {
        Some(name) => (name, true),
        None => (key, false),
    };
    if !T::FILTERS.contains(&name) {
        return Err(ApiError::bad_request(format!("Invalid filter: there is no attribute '{key}'.")));
    }
    let wanted = if matches!(name, "bootable" | "multiattach" | "encrypted") {
        value.to_ascii_lowercase()
    } else {
        value.to_owned()
    };
    items.retain(|i| {
        let attribute = i.attribute(name);
        if like { attribute.contains(&wanted) } else { attribute == wanted }
    });
    Ok(())
}

fn read_sort(query: &Query) -> ApiResult<Vec<(String, bool)>> {
    let ascends = |direction: &str| match direction {
        "asc" => Ok(true),
        "desc" => Ok(false),
        other => Err(ApiError::bad_request(format!("Invalid sort direction: {other}."))),
    };
    let mut keys = Vec::new();
    if let Some(text) = query.get("sort") {
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (key, direction) = part.split_once(':').unwrap_or((part, "desc"));
            keys.push((key.to_owned(), ascends(direction)?));
        }
    } else {
        let direction = ascends(query.get("sort_dir").unwrap_or("desc"))?;
        keys.push((query.get("sort_key").unwrap_or("created_at").to_owned(), direction));
    }
    let last = keys.last().is_some_and(|(_, up)| *up);
    keys.push(("id".into(), last));
    Ok(keys)
}

fn sort<T: Listed>(items: &mut [T], keys: &[(String, bool)]) -> ApiResult<()> {
    for (key, _) in keys {
        if !T::SORTS.contains(&key.as_str()) {
            return Err(ApiError::bad_request(format!("Invalid sort key: {key}.")));
        }
    }
    items.sort_by(|a, b| {
        let orders = keys.iter().map(|(key, up)| {
            let order = a.sort_value(key).cmp(&b.sort_value(key));
            if *up { order } else { order.reverse() }
        });
        orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
    Ok(())
}

/// `{"Type": "work"}`, or the same as Python prints it, which is what its clients send.
fn read_metadata(text: &str) -> ApiResult<Metadata> {
    let parsed = serde_json::from_str::<Value>(text)
        .or_else(|_| serde_json::from_str(&text.replace('\'', "\"")))
        .map_err(|_| input::invalid("metadata", "it must be an object of texts"))?;
    match parsed {
        Value::Object(map) => input::read_metadata(&map),
        _ => Err(input::invalid("metadata", "it must be an object of texts")),
    }
}
