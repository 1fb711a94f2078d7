//! A typed, always fresh copy of one kind of record, followed by a watch: what an agent reconciles against.

use crate::record::Record;

/// A copy in memory of every record of kind `R`, kept fresh by a watch. Cheap to clone.
#[derive(Clone)]
pub struct Mirror<R: Record> {
    _p: std::marker::PhantomData<R>,
}
