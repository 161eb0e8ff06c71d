//! Placeholder until the first listener lands.
fn main() {}
