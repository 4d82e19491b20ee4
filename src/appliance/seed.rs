//! Folders on the data partition, and the configuration that the image brought, at its first start.
//!
//! ```text
//! /data/configuration/a/     portcullis.blob, secrets/, issuers/, revocation/
//! /data/configuration/b/     the other slot, for an update
//! /data/configuration/current -> a
//! /data/state/               the broker's
//! ```
//!
//! **Invariant:** `current` appears in one step after what it names is on the disk, so that a first start that lost its power is
//! done again from the beginning.

use super::BROKER_USER;
use super::mounts::{DATA, Data};
use rustix::fs::StatVfsMountFlags;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

/// What the card brought, unpacked.
pub const SEED: &str = "/run/seed";
/// State where the card cannot have it.
const STATE_IN_MEMORY: &str = "/run/state";
/// Deepest folder of a configuration, and most files in it: somebody else made the card.
const DEPTH_MAX: u32 = 4;
const FILES_MAX: usize = 4_096;

/// Where the broker finds its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    /// The folder with `portcullis.blob`.
    pub configuration: PathBuf,
    /// The state folder.
    pub state: PathBuf,
}

/// Makes what is missing and gives it to the broker's user.
pub fn prepare(data: Data) -> Folders {
    let data_folder = Path::new(DATA);
    let current = data_folder.join("configuration/current");
    let configuration = match data {
        Data::Kept | Data::Absent => place(data_folder, &current),
        Data::ReadOnly => Ok(()),
    };
    if let Err(error) = configuration {
        log::error!("the configuration cannot be put on {DATA}: {error}");
    }
    let has_blob = current.join("portcullis.blob").exists();
    if !has_blob {
        log::error!("{} has no portcullis.blob: running on what the image brought", current.display());
    }
    let state = if data == Data::ReadOnly { PathBuf::from(STATE_IN_MEMORY) } else { data_folder.join("state") };
    if let Err(error) = fs::create_dir_all(&state).and_then(|()| own(&state, 0)) {
        log::error!("{} cannot be made: {error}", state.display());
    }
    Folders { configuration: if has_blob { current } else { PathBuf::from(SEED) }, state }
}

impl Folders {
    /// The state folder for a broker that starts now. A card that has turned read-only since would keep it from starting at all.
    pub fn writable_state(&self) -> PathBuf {
        let is_read_only =
            rustix::fs::statvfs(&self.state).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
        if !is_read_only {
            return self.state.clone();
        }
        log::error!("DEGRADED: {} can only be read: nothing new survives a restart", self.state.display());
        let state = PathBuf::from(STATE_IN_MEMORY);
        if let Err(error) = fs::create_dir_all(&state).and_then(|()| own(&state, 0)) {
            log::error!("{} cannot be made: {error}", state.display());
        }
        state
    }
}

fn place(data: &Path, current: &Path) -> io::Result<()> {
    let slot = data.join("configuration/a");
    if fs::symlink_metadata(current).is_err() {
        match fs::remove_dir_all(&slot) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        copy(Path::new(SEED), &slot, 0)?;
        rustix::fs::sync();
        symlink("a", current)?;
        File::open(data.join("configuration"))?.sync_all()?;
        log::info!("first start: the configuration of the image is on {DATA}");
    }
    own(&fs::canonicalize(current)?, 0)
}

fn copy(from: &Path, to: &Path, depth: u32) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)?.take(FILES_MAX) {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if depth < DEPTH_MAX {
                copy(&entry.path(), &target, depth + 1)?;
            }
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Gives a folder and what is in it to the broker's user, and to nobody else. Links are left alone.
fn own(path: &Path, depth: u32) -> io::Result<()> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_symlink() {
        return Ok(());
    }
    chown(path, Some(BROKER_USER), Some(BROKER_USER))?;
    if kind.is_dir() {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
        if depth <= DEPTH_MAX {
            for entry in fs::read_dir(path)?.take(FILES_MAX) {
                own(&entry?.path(), depth + 1)?;
            }
        }
    } else if kind.is_file() {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(())
}
