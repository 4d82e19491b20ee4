//! A payload on its way to where it is to be: in pieces, hashed as they are handed on.
//!
//! **Invariant:** what was written somewhere is what was signed only after [`Payload::finish`] has said so: whoever wrote the file that
//! is read here can change it meanwhile.

use super::refusal::Refusal;
use crate::bundle::Manifest;
use sha2::{Digest as _, Sha256};
use std::io::Read;

/// Bytes that are read at a time, where no device says otherwise.
pub const PIECE_BYTES: usize = 64 * 1024;

/// The bytes that a manifest tells of, read once.
pub struct Payload<'a> {
    source: &'a mut dyn Read,
    manifest: &'a Manifest,
    hash: Sha256,
    read: u64,
}

impl<'a> Payload<'a> {
    /// What is to be read from here on.
    pub fn new(source: &'a mut dyn Read, manifest: &'a Manifest) -> Self {
        Self { source, manifest, hash: Sha256::new(), read: 0 }
    }

    /// What it has to be.
    pub const fn manifest(&self) -> &'a Manifest {
        self.manifest
    }

    /// Bytes that were handed on so far.
    pub const fn read(&self) -> u64 {
        self.read
    }

    /// The next bytes: as many as `room` has, or as are left; none: all were handed on.
    ///
    /// # Errors
    /// [`Refusal::NoFile`].
    pub fn next<'r>(&mut self, room: &'r mut [u8]) -> Result<&'r [u8], Refusal> {
        let left = usize::try_from(self.manifest.bytes - self.read).unwrap_or(usize::MAX);
        let length = left.min(room.len());
        let piece = room.get_mut(..length).unwrap_or_default();
        self.source.read_exact(piece).map_err(Refusal::NoFile)?;
        self.hash.update(&*piece);
        self.read += length as u64;
        Ok(piece)
    }

    /// Whether all of it was handed on and is what was signed.
    ///
    /// # Errors
    /// [`Refusal::Digest`].
    pub fn finish(self) -> Result<(), Refusal> {
        let is_signed = <[u8; 32]>::from(self.hash.finalize()) == self.manifest.digest;
        if self.read == self.manifest.bytes && is_signed { Ok(()) } else { Err(Refusal::Digest) }
    }
}
