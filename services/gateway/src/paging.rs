//! Marker paging over a list, as all of OpenStack's APIs have it: `limit`, `marker`, and a link to the next page.

use crate::error::ApiError;
use crate::input::Query;

/// The most entries one answer holds, when the client asks for more or names no limit.
pub const LIMIT_MAX: usize = 1000;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries of this page, in the list's order.
    pub items: Vec<T>,
    /// The marker that asks for the next page, if there is more.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Cuts the page that `limit` and `marker` of the query ask for out of an ordered list.
    /// `id` tells an entry's id. A marker that is not in the list is refused with 400, as a wrong limit is.
    pub fn cut(items: Vec<T>, query: &Query, id: impl Fn(&T) -> &str) -> Result<Page<T>, ApiError> {
        let limit = query.parse::<usize>("limit")?.unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
        let start = match query.get("marker").filter(|m| !m.is_empty()) {
            None => 0,
            Some(marker) => {
                let at = items.iter().position(|i| id(i) == marker);
                1 + at.ok_or_else(|| ApiError::bad_request(format!("marker [{marker}] not found")))?
            }
        };
        let more = items.len() > start + limit && limit > 0;
        let items: Vec<T> = items.into_iter().skip(start).take(limit).collect();
        let next = if more { items.last().map(|i| id(i).to_owned()) } else { None };
        Ok(Page { items, next })
    }
}
