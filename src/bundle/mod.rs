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
//! Text, so that a person can look at it with `head`, and `openssl pkeyutl -verify -rawin` can check it. Every field stands there
//! once and in this order: one manifest has one spelling.
//!
//! **Invariant:** nothing of a header is believed before its signature is verified; until then it is a stranger's text.

mod header;
mod state;
mod writer;

pub use header::{Fault, HEADER_BYTES_MAX, Header, Kind, Manifest, RELEASE_BYTES_MAX};
pub use state::UpdateState;
pub use writer::signed_header;

#[cfg(test)]
mod tests;
