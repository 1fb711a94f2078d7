//! cairn-state
