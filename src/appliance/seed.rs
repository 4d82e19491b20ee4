//! Folders on the data partition, and the configuration that the image brought, at its first start.
//!
//! ```text
//! /data/configuration/a/     portcullis.blob, secrets/, issuers/, revocation/
//! /data/configuration/b/     the other slot, for an update
//! /data/configuration/current -> a
//! /data/state/               the broker's
//! ```
//!
//! What else lies in `configuration/` is of updates, and in [`super::update`].
//!
//! **Invariant:** `current` appears in one step after what it names is on the disk, so that a first start that lost its power is
//! done again from the beginning.

use super::mounts::{self, DATA, Data};
use super::update::BLOB;
use super::{BROKER_USER, tree};
use crate::config;
use crate::config::blob::Configuration;
use crate::config::envelope::BLOB_BYTES_MAX;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

/// What the card brought, unpacked.
pub const SEED: &str = "/run/seed";
/// Where configurations are.
pub const CONFIGURATIONS: &str = "/data/configuration";
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
    let current = current(Path::new(CONFIGURATIONS));
    let configuration = match data {
        Data::Kept | Data::Absent => place(data_folder, &current),
        Data::ReadOnly => Ok(()),
    };
    if let Err(error) = configuration {
        log::error!("the configuration cannot be put on {DATA}: {error}");
    }
    let has_blob = current.join(BLOB).exists();
    if !has_blob {
        log::error!("{} has no {BLOB}: running on what the image brought", current.display());
    }
    let state = if data == Data::ReadOnly { PathBuf::from(STATE_IN_MEMORY) } else { data_folder.join("state") };
    if let Err(error) = fs::create_dir_all(&state).and_then(|()| own(&state, 0)) {
        log::error!("{} cannot be made: {error}", state.display());
    }
    Folders { configuration: if has_blob { current } else { PathBuf::from(SEED) }, state }
}

impl Folders {
    /// Whether the broker runs on what the image brought.
    pub fn is_of_image(&self) -> bool {
        self.configuration == Path::new(SEED)
    }

    /// The state folder for a broker that starts now. A card that has turned read-only since would keep it from starting at all.
    pub fn writable_state(&self) -> PathBuf {
        if !self.state.starts_with(DATA) || !mounts::is_read_only() {
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

/// The link to the configuration in force.
pub fn current(configurations: &Path) -> PathBuf {
    configurations.join("current")
}

/// The configuration in a folder.
///
/// # Errors
/// There is no blob, or none that this program reads.
pub fn read_blob(folder: &Path) -> io::Result<Configuration> {
    let mut blob = Vec::new();
    // The folder is the broker's: nothing that it may have put there leads elsewhere, or makes PID 1 wait.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(folder.join(BLOB))?;
    file.take(BLOB_BYTES_MAX as u64 + 1).read_to_end(&mut blob)?;
    config::decode(&blob).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
}

fn place(data: &Path, current: &Path) -> io::Result<()> {
    let slot = data.join("configuration/a");
    if fs::symlink_metadata(current).is_err() {
        match fs::remove_dir_all(&slot) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(data.join("configuration"))?;
        tree::copy(Path::new(SEED), &slot, &[], BROKER_USER)?;
        rustix::fs::sync();
        symlink("a", current)?;
        File::open(data.join("configuration"))?.sync_all()?;
        log::info!("first start: the configuration of the image is on {DATA}");
    }
    own(&fs::canonicalize(current)?, 0)
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
