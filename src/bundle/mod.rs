//! Updates as files: what one is for, how long it is, and that its maker is the one whom a gateway trusts.
//!
//! ```text
//! portcullis-update 1
//! kind=system                 or configuration
//! board=rpi3
//! version=8                   greater than the one that it replaces
//! release=0.1.0               for people
//! bytes=19234816              of the payload
//! sha256=…                    of the payload
//! signature=…                 Ed25519 (RFC 8032) over the lines above, as hexadecimal digits
//!                             (an empty line, then the payload)
//! ```
//!
//! The payload of a system is the beginning of a boot slot. That of a configuration is a blob, or an [`archive`] of one and of folders
//! that take the place of those beside it.
//!
//! Text, so that a person can look at it with `head`, and `openssl pkeyutl -verify -rawin` can check it. Every field stands there
//! once and in this order: one manifest has one spelling.
//!
//! **Invariant:** nothing of a header is believed before its signature is verified; until then it is a stranger's text.

pub mod archive;
mod contents;
mod header;
mod state;
mod writer;

pub use contents::Contents;
pub use header::{Fault, HEADER_BYTES_MAX, Header, Kind, Manifest, RELEASE_BYTES_MAX};
pub use state::UpdateState;
pub use writer::signed_header;

/// Most bytes of a payload with a configuration. Decoded it takes many times as much of a small machine's memory.
pub const CONFIGURATION_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most bytes of a payload with a system: those of a boot slot, which stays as large as it is on cards in the field.
pub const SYSTEM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Name of the blob in an archive, and on a card.
pub const BLOB: &str = "portcullis.blob";
/// The folders beside a blob: keys and certificates that are used, those that issue others, and lists of what is revoked.
pub const FOLDERS: [&str; 3] = ["secrets", "issuers", "revocation"];

#[cfg(test)]
mod tests;
