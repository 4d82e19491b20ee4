//! The resource schema, validation and the blob.

pub mod blob;
