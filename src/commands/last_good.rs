//! The last configuration that was in force on this gateway: a copy of its blob in the state folder, so that a broken new one
//! never leaves the gateway without a broker.
//!
//! **Invariant:** only what a broker served with is kept. A state folder belongs to one broker.

use crate::config::envelope::write_atomically;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The copy's place in a state folder.
#[must_use]
pub fn path(state: &Path) -> PathBuf {
    state.join("last-good.blob")
}

/// Keeps `blob`, on the disk when this returns. Nothing is written where it is kept already: flash wears out.
///
/// # Errors
/// What the file system says; what was kept before is kept then.
pub fn keep(state: &Path, blob: &[u8]) -> io::Result<()> {
    let path = path(state);
    let is_kept = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == blob.len() as u64)
        && fs::read(&path).is_ok_and(|kept| kept == blob);
    if is_kept {
        return Ok(());
    }
    // For its owner only, as the blob may hold keys.
    DirBuilder::new().recursive(true).mode(0o700).create(state)?;
    write_atomically(&path, blob)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_blob_is_written_once_and_for_its_owner_only() {
        let folder = std::env::temp_dir().join(format!("portcullis-last-good-{}", std::process::id()));
        let state = folder.join("a/state");
        let inode = || fs::metadata(path(&state)).unwrap().ino();
        keep(&state, b"one").unwrap();
        let first = inode();
        keep(&state, b"one").unwrap();
        assert_eq!(inode(), first);
        keep(&state, b"two").unwrap();
        assert_eq!(fs::read(path(&state)).unwrap(), b"two");
        assert_ne!(inode(), first);
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&state), mode(&path(&state))), (0o700, 0o600));
        fs::remove_dir_all(&folder).unwrap();
    }
}
