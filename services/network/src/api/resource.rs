//! What a Neutron resource is: its names, who sees it, how it is shown, made, changed and removed.
//!
//! The generic handlers of [`super::crud`] do the rest, so that every resource behaves alike.

use std::collections::BTreeSet;

use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use cairn_state::{Record, Tx};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::attrs::Attrs;
use crate::model::Stamp;

/// The most tags on a resource.
pub const TAGS_MAX: usize = 50;

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Ctx<'a> {
    /// The caller.
    pub caller: &'a Caller,
    /// The time that records get.
    pub now: Timestamp,
}

/// A resource as the API shows it.
pub type View = Map<String, Value>;

/// A record that the API shows.
pub trait Resource: Record {
    /// Its name in bodies: `network`.
    const NAME: &'static str;
    /// Its collection: `networks`. In paths, `_` is written `-` where Neutron does.
    const PLURAL: &'static str;
    /// Its collection in paths: `security-groups`.
    const PATH: &'static str;
    /// Its name to a person: `Network`.
    const TITLE: &'static str;
    /// The error's name when it is not there: `NetworkNotFound`.
    const MISSING: &'static str;
    /// The attributes that it shows, and that no update (or no request at all) may set, beside those that every
    /// resource shows.
    const READ_ONLY: &'static [&'static str];
    /// Attributes that can be filtered through an index: (attribute, index). `list=field` is a list's field.
    const INDEXED: &'static [(&'static str, &'static str)] = &[];
    /// Indexes whose `yes` records everybody sees.
    const PUBLIC: &'static [&'static str] = &[];

    /// The project it belongs to.
    fn project(&self) -> &str;

    /// Whether it is there for the API, and not a tombstone.
    fn live(&self) -> bool {
        true
    }

    /// When, and how often changed.
    fn stamp(&mut self) -> &mut Stamp;

    /// The user's words on it, if it can have any.
    fn tags(&mut self) -> Option<&mut BTreeSet<String>> {
        None
    }

    /// Whether this caller sees it.
    fn visible(&self, _tx: &mut Tx, caller: &Caller) -> ApiResult<bool> {
        Ok(caller.sees(self.project()))
    }

    /// What a caller who isn't admin may see beside its own project's and the public ones.
    fn also_visible(_tx: &mut Tx, _caller: &Caller) -> ApiResult<Vec<Self>> {
        Ok(Vec::new())
    }

    /// Whether something must be made before this caller's list is read.
    fn unprepared(_tx: &mut Tx, _caller: &Caller, _query: &Query) -> ApiResult<bool> {
        Ok(false)
    }

    /// Makes it.
    fn prepare(_tx: &mut Tx, _ctx: Ctx<'_>) -> ApiResult<()> {
        Ok(())
    }

    /// How this caller sees it.
    fn view(&self, tx: &mut Tx, caller: &Caller) -> ApiResult<View>;

    /// Makes one from a request, takes the attributes it knows, and puts it.
    fn create(tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Self>;

    /// Changes it by a request, takes the attributes it knows, and puts it. The stamp is already touched.
    fn update(self, tx: &mut Tx, ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Self>;

    /// Removes it.
    fn remove(self, tx: &mut Tx, ctx: Ctx<'_>) -> ApiResult<()>;
}

/// The functions of a [`Resource`] whose project and stamp, and tags and tombstone if named, are fields of these names.
macro_rules! fields {
    () => {
        fn project(&self) -> &str {
            &self.project_id
        }

        fn stamp(&mut self) -> &mut $crate::model::Stamp {
            &mut self.stamp
        }
    };
    (tags) => {
        $crate::api::resource::fields!();

        fn tags(&mut self) -> Option<&mut std::collections::BTreeSet<String>> {
            Some(&mut self.tags)
        }
    };
    (tags, deleted) => {
        $crate::api::resource::fields!(tags);

        fn live(&self) -> bool {
            !self.deleted
        }
    };
}
pub(crate) use fields;

/// 404 for a resource that isn't there, or not for this caller.
pub fn missing<R: Resource>(id: &str) -> ApiError {
    ApiError::not_found(R::TITLE, id).with_code(R::MISSING)
}

/// The live record with this id, whoever asks.
pub fn fetch<R: Resource>(tx: &mut Tx, id: &str) -> ApiResult<R> {
    // No id of ours is longer, and a longer one need not reach the store.
    if id.len() > 64 {
        return Err(missing::<R>(id));
    }
    tx.get::<R>(id)?.filter(R::live).ok_or_else(|| missing::<R>(id))
}

/// The live record with this id, if this caller sees it.
pub fn find<R: Resource>(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<R> {
    let record = fetch::<R>(tx, id)?;
    if record.visible(tx, caller)? { Ok(record) } else { Err(missing::<R>(id)) }
}

/// The live record with this id, if this caller may change it: 404 if it isn't seen, 403 if only seen.
pub fn find_own<R: Resource>(tx: &mut Tx, caller: &Caller, id: &str) -> ApiResult<R> {
    let record = find::<R>(tx, caller, id)?;
    caller.require_writer()?;
    if caller.is_admin() || record.project() == caller.project_id {
        return Ok(record);
    }
    Err(ApiError::forbidden(format!("{} {id} belongs to another project.", R::TITLE)))
}

/// The records that this caller's query may be about: by the best index there is. Not yet filtered.
pub fn candidates<R: Resource>(tx: &mut Tx, caller: &Caller, query: &Query) -> ApiResult<Vec<R>> {
    let mut found = indexed::<R>(tx, query)?;
    if found.is_none() {
        found = Some(if caller.is_admin() {
            tx.list_unfenced::<R>()?
        } else {
            let mut own = tx.by_index::<R>("project", &caller.project_id)?;
            for public in R::PUBLIC {
                own.extend(tx.by_index::<R>(public, "yes")?);
            }
            own.extend(R::also_visible(tx, caller)?);
            own
        });
    }
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for record in found.unwrap_or_default() {
        if record.live() && seen.insert(record.id()) && record.visible(tx, caller)? {
            kept.push(record);
        }
    }
    kept.sort_by_key(R::id);
    Ok(kept)
}

fn indexed<R: Resource>(tx: &mut Tx, query: &Query) -> ApiResult<Option<Vec<R>>> {
    if query.get("id").is_some() {
        let mut found = Vec::new();
        for id in query.all("id").filter(|id| id.len() <= 64) {
            found.extend(tx.get::<R>(id)?);
        }
        return Ok(Some(found));
    }
    let known = [("project_id", "project"), ("tenant_id", "project")];
    for (attribute, index) in R::INDEXED.iter().chain(&known) {
        // `fixed_ips=ip_address` stands for the values of `fixed_ips` that begin with `ip_address=`.
        let values: Vec<&str> = match attribute.split_once('=') {
            None => query.all(attribute).collect(),
            Some((list, field)) => {
                query.all(list).filter_map(|v| v.strip_prefix(field)?.strip_prefix('=')).collect()
            }
        };
        if values.is_empty() || values.iter().any(|v| v.is_empty()) {
            continue;
        }
        let mut found = Vec::new();
        for value in values {
            found.extend(tx.by_index::<R>(index, value)?);
        }
        return Ok(Some(found));
    }
    Ok(None)
}

/// What nearly every resource begins with.
#[derive(Debug, Clone)]
pub struct Common {
    /// A new uuid.
    pub id: String,
    /// The project it will belong to.
    pub project_id: String,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Its stamp.
    pub stamp: Stamp,
}

/// Takes the common attributes of a new resource. Only an administrator may name another project.
pub fn common(ctx: Ctx<'_>, attrs: &mut Attrs) -> ApiResult<Common> {
    let own = ctx.caller.require_writer()?.to_owned();
    let (project, tenant) = (attrs.text("project_id")?, attrs.text("tenant_id")?);
    if let (Some(project), Some(tenant)) = (&project, &tenant)
        && project != tenant
    {
        return Err(ApiError::bad_request("'project_id' and 'tenant_id' do not match"));
    }
    let project_id = project.or(tenant).unwrap_or_else(|| own.clone());
    if project_id != own {
        ctx.caller.require_admin()?;
    }
    Ok(Common {
        id: uuid::Uuid::new_v4().to_string(),
        project_id,
        name: attrs.text("name")?.unwrap_or_default(),
        description: attrs.text("description")?.unwrap_or_default(),
        tags: take_tags(attrs)?.unwrap_or_default(),
        stamp: Stamp::new(ctx.now),
    })
}

/// Takes a flag that only an administrator may set; false, which is the default, anybody may give.
pub fn admin_flag(ctx: Ctx<'_>, attrs: &mut Attrs, key: &str) -> ApiResult<Option<bool>> {
    let flag = attrs.flag(key)?;
    if flag == Some(true) {
        ctx.caller.require_admin()?;
    }
    Ok(flag)
}

/// Takes `tags`, checked.
pub fn take_tags(attrs: &mut Attrs) -> ApiResult<Option<BTreeSet<String>>> {
    let Some(tags) = attrs.texts("tags")? else { return Ok(None) };
    if tags.len() > TAGS_MAX {
        return Err(ApiError::bad_request(format!("A resource has at most {TAGS_MAX} tags.")));
    }
    tags.into_iter().map(check_tag).collect::<ApiResult<_>>().map(Some)
}

/// Refuses a tag that Neutron wouldn't take.
pub fn check_tag(tag: String) -> ApiResult<String> {
    if (1..=255).contains(&tag.chars().count()) && !tag.contains([',', '/']) {
        return Ok(tag);
    }
    Err(ApiError::bad_request("A tag has 1 to 255 characters, and no comma or slash."))
}

/// Takes `name` and `description` of an update.
pub fn rename(attrs: &mut Attrs, name: &mut String, description: &mut String) -> ApiResult<()> {
    if let Some(given) = attrs.text("name")? {
        *name = given;
    }
    if let Some(given) = attrs.text("description")? {
        *description = given;
    }
    Ok(())
}

/// The common part of a view.
pub fn view_of(id: &str, project: &str, description: &str, stamp: &Stamp) -> View {
    let mut view = View::new();
    view.insert("id".into(), json!(id));
    view.insert("project_id".into(), json!(project));
    view.insert("tenant_id".into(), json!(project));
    view.insert("description".into(), json!(description));
    view.insert("created_at".into(), json!(time_text(stamp.created_at)));
    view.insert("updated_at".into(), json!(time_text(stamp.updated_at)));
    view.insert("revision_number".into(), json!(stamp.revision));
    view
}

/// Adds fields to a view.
pub fn with(mut view: View, more: Value) -> View {
    if let Value::Object(more) = more {
        view.extend(more);
    }
    view
}

/// A time as Neutron shows it, in whole seconds.
pub fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
