//! The filters of an image list, read from its query.

use std::cmp::Ordering;

use cairn_gateway::{ApiError, ApiResult, Caller, Query};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::model::{Image, Member, Visibility};

/// What an image must be to be listed.
#[derive(Debug, Default)]
pub struct Filter {
    visibility: Option<Visibility>,
    all_visibilities: bool,
    member_status: Option<String>,
    hidden: bool,
    tests: Vec<Test>,
    ids: Option<Vec<String>>,
}

#[derive(Debug)]
enum Test {
    /// The attribute's text is one of these.
    OneOf(String, Vec<String>),
    Tag(String),
    SizeMin(u64),
    SizeMax(u64),
    Created(Comparison, Timestamp),
    Updated(Comparison, Timestamp),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Comparison::Eq => order.is_eq(),
            Comparison::Neq => order.is_ne(),
            Comparison::Gt => order.is_gt(),
            Comparison::Gte => order.is_ge(),
            Comparison::Lt => order.is_lt(),
            Comparison::Lte => order.is_le(),
        }
    }
}

/// The attributes that take a list of values (`in:a,b`).
const LISTS: [&str; 5] = ["id", "name", "status", "container_format", "disk_format"];
/// The parameters that are no filters.
const NOT_FILTERS: [&str; 5] = ["limit", "marker", "sort", "sort_key", "sort_dir"];

impl Filter {
    /// Reads the filters, refusing values that make no sense with 400.
    pub fn read(query: &Query) -> ApiResult<Filter> {
        let mut filter = Filter { hidden: query.flag("os_hidden")?.unwrap_or(false), ..Filter::default() };
        for (key, value) in query.0.iter().filter(|(k, _)| !NOT_FILTERS.contains(&k.as_str())) {
            filter.add(key, value)?;
        }
        if filter.member_status.is_some() && filter.visibility.is_some_and(|v| v != Visibility::Shared) {
            return Err(bad("member_status", "it goes with the visibility 'shared' alone"));
        }
        Ok(filter)
    }

    fn add(&mut self, key: &str, value: &str) -> ApiResult<()> {
        let test = match key {
            "os_hidden" => return Ok(()),
            "visibility" if value == "all" => {
                self.all_visibilities = true;
                return Ok(());
            }
            "visibility" => {
                self.visibility =
                    Some(Visibility::parse(value).ok_or_else(|| bad(key, "there is no such visibility"))?);
                return Ok(());
            }
            "member_status" => {
                if !["pending", "accepted", "rejected", "all"].contains(&value) {
                    return Err(bad(key, "it must be pending, accepted, rejected or all"));
                }
                self.member_status = Some(value.into());
                return Ok(());
            }
            "tag" => Test::Tag(value.into()),
            "size_min" => Test::SizeMin(number(key, value)?),
            "size_max" => Test::SizeMax(number(key, value)?),
            "created_at" => comparison(key, value).map(|(c, at)| Test::Created(c, at))?,
            "updated_at" => comparison(key, value).map(|(c, at)| Test::Updated(c, at))?,
            "protected" => Test::OneOf(key.into(), vec![boolean(key, value)?.to_string()]),
            "size" | "min_ram" | "min_disk" => Test::OneOf(key.into(), vec![number(key, value)?.to_string()]),
            _ => Test::OneOf(key.into(), values(key, value)?),
        };
        if let Test::OneOf(attribute, ids) = &test
            && attribute == "id"
        {
            self.ids = Some(ids.clone());
        }
        self.tests.push(test);
        Ok(())
    }

    /// The ids asked for, if the list is one of given ids.
    pub fn ids(&self) -> Option<&[String]> {
        self.ids.as_deref()
    }

    /// Whether images of this visibility that belong to others can be in the list.
    pub fn wants(&self, visibility: Visibility) -> bool {
        match self.visibility {
            Some(wanted) => wanted == visibility,
            None => self.all_visibilities || visibility != Visibility::Community,
        }
    }

    /// Whether the caller gets to list this image, given its membership in it: lists show what is one's own,
    /// what was accepted, and what is public, unless they are asked for more.
    pub fn visibility_takes(&self, image: &Image, caller: &Caller, member: Option<&Member>) -> bool {
        if self.visibility.is_some_and(|v| v != image.visibility) {
            return false;
        }
        if caller.sees(&image.owner) {
            return true;
        }
        match image.visibility {
            Visibility::Public | Visibility::Community => self.wants(image.visibility),
            Visibility::Private => false,
            Visibility::Shared => member.is_some_and(|m| {
                let wanted = self.member_status.as_deref().unwrap_or("accepted");
                wanted == "all" || wanted == m.status
            }),
        }
    }

    /// Whether the image's attributes pass.
    pub fn takes(&self, image: &Image) -> bool {
        image.os_hidden == self.hidden && self.tests.iter().all(|t| t.holds(image))
    }
}

impl Test {
    fn holds(&self, image: &Image) -> bool {
        match self {
            Test::OneOf(key, values) => attribute(image, key).is_some_and(|a| values.contains(&a)),
            Test::Tag(tag) => image.tags.contains(tag),
            Test::SizeMin(least) => image.size.is_some_and(|s| s >= *least),
            Test::SizeMax(most) => image.size.is_some_and(|s| s <= *most),
            Test::Created(c, at) => c.holds(seconds(image.created_at).cmp(&seconds(*at))),
            Test::Updated(c, at) => c.holds(seconds(image.updated_at).cmp(&seconds(*at))),
        }
    }
}

/// Times are shown, and so compared, in whole seconds.
fn seconds(at: Timestamp) -> i64 {
    at.as_second()
}

/// The text of an attribute or custom property, as it is compared with a query's.
fn attribute(i: &Image, key: &str) -> Option<String> {
    match key {
        "id" => Some(i.id.clone()),
        "name" => i.name.clone(),
        "status" => Some(i.status.name().into()),
        "owner" => Some(i.owner.clone()),
        "disk_format" => i.disk_format.clone(),
        "container_format" => i.container_format.clone(),
        "size" => i.size.map(|s| s.to_string()),
        "checksum" => i.checksum.clone(),
        "os_hash_value" => i.os_hash_value.clone(),
        "os_hash_algo" => i.os_hash_value.as_ref().map(|_| "sha512".into()),
        "min_disk" => Some(i.min_disk.to_string()),
        "min_ram" => Some(i.min_ram.to_string()),
        "protected" => Some(i.protected.to_string()),
        property => i.properties.get(property).cloned(),
    }
}

fn bad(key: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid value for the filter {key}: {why}."))
}

fn number(key: &str, value: &str) -> ApiResult<u64> {
    value.parse().map_err(|_| bad(key, "it must be a number that is not negative"))
}

fn boolean(key: &str, value: &str) -> ApiResult<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(bad(key, "it must be true or false")),
    }
}

/// `in:a,"b,c"`, or one plain value.
fn values(key: &str, value: &str) -> ApiResult<Vec<String>> {
    let Some(list) = value.strip_prefix("in:").filter(|_| LISTS.contains(&key)) else {
        return Ok(vec![value.into()]);
    };
    let (mut values, mut current, mut quoted) = (Vec::new(), String::new(), false);
    for c in list.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => values.push(std::mem::take(&mut current)),
            c => current.push(c),
        }
    }
    if quoted {
        return Err(bad(key, "a quotation mark is missing"));
    }
    values.push(current);
    Ok(values)
}

/// `gte:2025-01-01T00:00:00Z`; without an operator, equality.
fn comparison(key: &str, value: &str) -> ApiResult<(Comparison, Timestamp)> {
    let (operator, time) = match value.split_once(':') {
        Some((op, rest)) if op.chars().all(|c| c.is_ascii_alphabetic()) => (op, rest),
        _ => ("eq", value),
    };
    let operator = match operator {
        "eq" => Comparison::Eq,
        "neq" => Comparison::Neq,
        "gt" => Comparison::Gt,
        "gte" => Comparison::Gte,
        "lt" => Comparison::Lt,
        "lte" => Comparison::Lte,
        _ => return Err(bad(key, "the operator must be one of eq, neq, gt, gte, lt, lte")),
    };
    let at = time.parse::<Timestamp>().ok().or_else(|| {
        // A time without a zone is UTC.
        time.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp())
    });
    at.map(|at| (operator, at)).ok_or_else(|| bad(key, "it must be a time in ISO 8601"))
}
