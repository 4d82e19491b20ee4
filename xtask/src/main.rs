//! The only build entry.
fn main() {}
