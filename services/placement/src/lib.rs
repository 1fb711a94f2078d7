//! cairn-placement
