//! cairn-compute
