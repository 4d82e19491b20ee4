//! The commands a person types.
fn main() {}
