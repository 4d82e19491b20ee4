//! The commands a person types. Each takes its parsed options and the two streams it writes to.

pub mod bake;
pub mod check;
mod error;
pub mod inspect;

pub use error::CommandError;
