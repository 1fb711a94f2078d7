//! Typed, versioned records on top of the key-value model, and their keys.
//!
//! A record of kind `compute/server` with id `7` lives at `compute/server/7`; its index entries live at
//! `compute/server.by-NAME/VALUE/7` (or, unique, at `compute/server.uq-NAME/VALUE`, holding the id).
//! The stored form is a JSON object behind a two-byte little-endian record version: every released version
//! of a record stays readable through [`Record::migrate`].

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::kv::{Entry, Op, Range, Store, StoreError, Txn, TxnOutcome};

/// An index entry of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Index {
    /// The index's name.
    pub name: &'static str,
    /// The value it is found by. Any text: it is escaped in the key.
    pub value: String,
    /// Whether two records may not share the value.
    pub unique: bool,
}

impl Index {
    /// An index entry that many records may share.
    pub fn multi(name: &'static str, value: impl Into<String>) -> Index {
        Index { name, value: value.into(), unique: false }
    }

    /// An index entry that only one record may have; a second is refused with [`crate::Abort::Taken`].
    pub fn unique(name: &'static str, value: impl Into<String>) -> Index {
        Index { name, value: value.into(), unique: true }
    }
}

/// A typed record of the store. Its docs name its one writer.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The key prefix, `service/kind`, with no slash at the end.
    const KIND: &'static str;
    /// The version this release writes. Bump it when old bytes would no longer deserialize.
    const VERSION: u16 = 1;

    /// The id within the kind. It must hold no control characters; slashes are allowed (`parent/child`).
    fn id(&self) -> String;

    /// The index entries of this record as it stands.
    fn indexes(&self) -> Vec<Index> {
        Vec::new()
    }

    /// Reads the JSON of an older version. The default refuses: override it with the first bump.
    fn migrate(version: u16, _json: serde_json::Value) -> Result<Self, String> {
        Err(format!("version {version} is not known to this release, which writes {}", Self::VERSION))
    }
}

/// The key of a record of kind `R`.
pub fn key<R: Record>(id: &str) -> String {
    format!("{}/{}", R::KIND, id)
}

/// The prefix of all records of kind `R`.
pub fn prefix<R: Record>() -> String {
    format!("{}/", R::KIND)
}

/// The key of an index entry of the record with this id.
pub fn index_key<R: Record>(index: &Index, id: &str) -> String {
    if index.unique {
        format!("{}.uq-{}/{}", R::KIND, index.name, escape(&index.value))
    } else {
        format!("{}{}", index_prefix::<R>(index.name, &index.value), id)
    }
}

/// The prefix of the entries of a shared index for one value.
pub fn index_prefix<R: Record>(name: &str, value: &str) -> String {
    format!("{}.by-{}/{}/", R::KIND, name, escape(value))
}

/// Makes any text fit one path element: `/`, `%` and control characters are percent-encoded.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '/' | '%' => out.push_str(&format!("%{:02X}", c as u32)),
            c if c.is_control() => out.push_str(&format!("%{:02X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

/// The stored form of a record.
pub fn encode<R: Record>(record: &R) -> Result<Bytes, StoreError> {
    let mut bytes = R::VERSION.to_le_bytes().to_vec();
    serde_json::to_writer(&mut bytes, record)
        .map_err(|e| StoreError::Decode { key: key::<R>(&record.id()), why: e.to_string() })?;
    Ok(bytes.into())
}

/// Reads the stored form, migrating an older version.
pub fn decode<R: Record>(entry: &Entry) -> Result<R, StoreError> {
    let bad = |why: String| StoreError::Decode { key: entry.key.clone(), why };
    let (head, json) = entry.value.split_at_checked(2).ok_or_else(|| bad("too short".into()))?;
    let version = u16::from_le_bytes([head[0], head[1]]);
    if version == R::VERSION {
        return serde_json::from_slice(json).map_err(|e| bad(e.to_string()));
    }
    let value = serde_json::from_slice(json).map_err(|e| bad(e.to_string()))?;
    R::migrate(version, value).map_err(bad)
}

/// Typed access to any [`Store`], for agents (the controller's handlers use [`crate::Tx`]).
#[async_trait]
pub trait StoreExt {
    /// The record with this id.
    async fn get_record<R: Record>(&self, id: &str) -> Result<Option<R>, StoreError>;
    /// Every record of the kind, in id order.
    async fn list_records<R: Record>(&self) -> Result<Vec<R>, StoreError>;
    /// Puts a record that has no indexes (as an agent's observations have none).
    async fn put_record<R: Record>(&self, record: &R) -> Result<(), StoreError>;
    /// Removes a record that has no indexes.
    async fn delete_record<R: Record>(&self, id: &str) -> Result<(), StoreError>;
}

#[async_trait]
impl<S: Store + ?Sized> StoreExt for S {
    async fn get_record<R: Record>(&self, id: &str) -> Result<Option<R>, StoreError> {
        self.get(&key::<R>(id)).await?.as_ref().map(decode).transpose()
    }

    async fn list_records<R: Record>(&self) -> Result<Vec<R>, StoreError> {
        let Range { entries, .. } = self.range(&prefix::<R>(), None, usize::MAX).await?;
        entries.iter().map(decode).collect()
    }

    async fn put_record<R: Record>(&self, record: &R) -> Result<(), StoreError> {
        debug_assert!(record.indexes().is_empty(), "an indexed record is written through Tx");
        let op = Op::Put { key: key::<R>(&record.id()), value: encode(record)?, lease: None };
        self.txn(Txn { compares: vec![], ops: vec![op] }).await.map(drop)
    }

    async fn delete_record<R: Record>(&self, id: &str) -> Result<(), StoreError> {
        let op = Op::Delete { key: key::<R>(id) };
        match self.txn(Txn { compares: vec![], ops: vec![op] }).await? {
            TxnOutcome::Committed(_) | TxnOutcome::Conflict => Ok(()),
        }
    }
}
