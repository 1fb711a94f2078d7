//! cairn-image
