//! `/regions`.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, put};
use cairn_gateway::{ApiError, ApiResult, Body};
use cairn_state::Tx;
use serde_json::{Value, json};

use super::ask::Ask;
use super::attrs::{Attrs, NAME_MAX};
use super::resource::{self, Delete, Made, Managed, Update};
use super::wire::{Resource, candidates, over};
use crate::model::{Endpoint, Region, new_id};
use crate::service::Service;

pub fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/regions", get(resource::list::<Region>).post(create))
        .route("/regions/{id}", put(create).merge(resource::each::<Region>()))
}

impl Resource for Region {
    const ONE: &'static str = "region";
    const MANY: &'static str = "regions";

    fn path(&self) -> String {
        format!("regions/{}", self.id)
    }

    fn view(&self) -> Value {
        let (parent, about) = (&self.parent_region_id, &self.description);
        over(&self.extra, json!({"id": self.id, "parent_region_id": parent, "description": about}))
    }
}

impl Managed for Region {
    fn all(tx: &mut Tx, ask: &Ask) -> ApiResult<Vec<Region>> {
        candidates(tx, "parent", ask.query.get("parent_region_id"))
    }

    fn one(tx: &mut Tx, ask: &Ask) -> ApiResult<Region> {
        Region::find(tx, &ask.id)
    }
}

/// The id of a new region: POST may name it in the body, PUT names it in the path.
fn id_of(in_path: &str, in_body: Option<String>) -> ApiResult<String> {
    match in_body {
        Some(id) if in_path.is_empty() || id == in_path => Ok(id),
        Some(_) => Err(ApiError::bad_request("The id in the body is not the one in the path.")),
        None if in_path.is_empty() => Ok(new_id()),
        None => Ok(in_path.to_owned()),
    }
}

async fn create(ask: Ask, Body(body): Body<Value>) -> Made {
    let mut attrs = Attrs::of(body, Region::ONE)?;
    let id = id_of(&ask.id, attrs.text("id")?)?;
    ask.caller.require_admin()?;
    check_id(&id)?;
    let make = |tx: &mut Tx| match tx.get::<Region>(&id)? {
        Some(_) => Err(ApiError::conflict(format!("A region with the id {id} exists."))),
        None => Region { id: id.clone(), ..Region::default() }.update(tx, &ask, attrs.clone()),
    };
    resource::made(&ask, make).await
}

impl Update for Region {
    fn update(mut self, tx: &mut Tx, _: &Ask, mut attrs: Attrs) -> ApiResult<Region> {
        attrs.set_text("description", &mut self.description)?;
        attrs.set_optional("parent_region_id", &mut self.parent_region_id)?;
        refuse_circle(tx, &self)?;
        attrs.set_extra(&mut self.extra)?;
        tx.put(&self)?;
        Ok(self)
    }
}

impl Delete for Region {
    fn delete(self, tx: &mut Tx, _: &Ask) -> ApiResult<()> {
        if !tx.by_index::<Region>("parent", &self.id)?.is_empty() {
            return Err(ApiError::forbidden("The region has regions in it; delete them first."));
        }
        if !tx.by_index::<Endpoint>("region", &self.id)?.is_empty() {
            return Err(ApiError::conflict("The region has endpoints; delete or move them first."));
        }
        Ok(tx.delete::<Region>(&self.id).map(drop)?)
    }
}

/// The regions above must exist, and not be below.
fn refuse_circle(tx: &mut Tx, region: &Region) -> ApiResult<()> {
    let mut above = region.parent_region_id.clone();
    for _ in 0..64 {
        match above {
            None => return Ok(()),
            Some(id) if id == region.id => break,
            Some(id) => above = Region::find(tx, &id)?.parent_region_id,
        }
    }
    Err(ApiError::bad_request("The region would be part of itself."))
}

/// Makes a region that an endpoint names, if there is none of that name yet.
pub fn ensure(tx: &mut Tx, id: &str) -> ApiResult<()> {
    check_id(id)?;
    if tx.get::<Region>(id)?.is_none() {
        tx.put(&Region { id: id.to_owned(), ..Region::default() })?;
    }
    Ok(())
}

fn check_id(id: &str) -> ApiResult<()> {
    match !id.is_empty() && id.chars().count() <= NAME_MAX && !id.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(ApiError::bad_request(format!("A region's id has 1 to {NAME_MAX} characters."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_the_id_that_it_is_given() {
        let id = |in_path, in_body: Option<&str>| id_of(in_path, in_body.map(str::to_owned)).ok();
        assert_eq!(id("", Some("here")).as_deref(), Some("here"));
        assert_eq!(id("here", None).as_deref(), Some("here"));
        assert_eq!(id("here", Some("here")).as_deref(), Some("here"));
        assert_eq!(id("here", Some("there")), None);
        assert_eq!(id("", None).map(|id| id.len()), Some(32));
    }
}
