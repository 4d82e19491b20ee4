//! Whole updates with bundles that are really signed: onto disks that lose their power after every write, and onto files.

mod files;
mod power;

use crate::bundle::{Kind, Manifest, signed_header};
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};

/// Bytes of a slot.
const SLOT_BYTES: u64 = 640 << 10;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A payload whose every piece is another.
fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 512 + index % 251 + 1) as u8).collect()
}

fn manifest(kind: Kind, version: u64, payload: &[u8]) -> Manifest {
    Manifest {
        kind,
        board: "rpi3".to_owned(),
        version,
        release: "0.2.0".to_owned(),
        bytes: payload.len() as u64,
        digest: Sha256::digest(payload).into(),
    }
}

fn bundle(manifest: &Manifest, payload: &[u8]) -> Vec<u8> {
    [signed_header(manifest, &key()).unwrap().as_bytes(), payload].concat()
}
