//! image-builder
fn main() {}
