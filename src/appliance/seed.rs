//! Folders on the data partition, and the configuration that the image brought, at its first start.
//!
//! ```text
//! /data/configuration/a/     portcullis.blob, secrets/, issuers/, revocation/
//! /data/configuration/b/     the other slot, for an update
//! /data/configuration/a.version  what `version` beside the card's blob said, if it was there
//! /data/configuration/current -> a
//! /data/state/               the broker's
//! ```
//!
//! A slot's folder and its blob are PID 1's, which the broker's group may read; the folders in it are the broker's
//! ([`super::tree`]). What else lies in `configuration/` is of updates, and in [`super::update`].
//!
//! **Invariant:** slot A appears in one step with the whole of what the card brought, and `current` after it, so that a first start
//! that lost its power is done again from the beginning.
//!
//! **Invariant:** a slot with a blob is never deleted here. Where `current` is gone, it is made anew.

use super::boot_state::Slot;
use super::mounts::{self, DATA, Data};
use super::update::{self, BLOB, BLOB_BYTES_MAX};
use super::{BROKER_USER, tree};
use crate::config;
use crate::config::blob::Configuration;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// What the card brought, unpacked.
pub const SEED: &str = "/run/seed";
/// Where configurations are.
pub const CONFIGURATIONS: &str = "/data/configuration";
/// State where the card cannot have it.
const STATE_IN_MEMORY: &str = "/run/state";

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
        Data::Kept | Data::Absent => place(Path::new(SEED), Path::new(CONFIGURATIONS), BROKER_USER),
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
    if let Err(error) = fs::create_dir_all(&state).and_then(|()| tree::own(&state, BROKER_USER)) {
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
        if let Err(error) = fs::create_dir_all(&state).and_then(|()| tree::own(&state, BROKER_USER)) {
            log::error!("{} cannot be made: {error}", state.display());
        }
        state
    }
}

/// The link to the configuration in force.
pub fn current(configurations: &Path) -> PathBuf {
    configurations.join("current")
}

/// What the card brought, until all of it is on the disk.
const FIRST: &str = "first";
/// Bits of a mode: group and others may write.
const OTHERS_WRITE: u32 = 0o022;

/// The configuration in a folder.
///
/// # Errors
/// There is no blob, or none that this program reads. One that somebody else than PID 1 can write, or of more than
/// [`BLOB_BYTES_MAX`], is not looked at.
pub fn read_blob(folder: &Path) -> io::Result<Configuration> {
    let mut blob = Vec::new();
    // Nothing that may have been put there before the folder was PID 1's leads elsewhere, or makes PID 1 wait.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(folder.join(BLOB))?;
    let found = file.metadata()?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & OTHERS_WRITE != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others than PID 1 can write it"));
    }
    if found.len() > BLOB_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    file.take(BLOB_BYTES_MAX).read_to_end(&mut blob)?;
    config::decode(&blob).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
}

/// Puts the configuration that the card brought in its place where there is none, and makes both slots as they have to be.
fn place(seed: &Path, configurations: &Path, owner: u32) -> io::Result<()> {
    for slot in [Slot::A, Slot::B].map(|slot| configurations.join(slot.name())) {
        if fs::symlink_metadata(&slot).is_ok_and(|found| found.is_dir()) {
            tree::lay(&slot, BLOB, owner)?;
        }
    }
    let current = current(configurations);
    match fs::symlink_metadata(&current) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Of a card that fails nothing is known, and nothing is deleted.
        Err(error) => return Err(error),
    }
    let slot = match most_recent(configurations) {
        Some(slot) => {
            log::error!("nothing said which configuration is in force: it is the one in slot {slot} again");
            slot
        }
        None => {
            bring(seed, configurations, owner)?;
            log::info!("first start: the configuration of the image is in {}", configurations.display());
            Slot::A
        }
    };
    symlink(slot.name(), &current)?;
    File::open(configurations)?.sync_all()
}

/// Of the slots with a blob, the one that can be read, then the one with the higher version, then slot A; `None`: neither has one.
fn most_recent(configurations: &Path) -> Option<Slot> {
    let folder = |slot: Slot| configurations.join(slot.name());
    // Of equals the last is taken.
    let slots = [Slot::B, Slot::A].into_iter().filter(|slot| folder(*slot).join(BLOB).exists());
    slots.max_by_key(|slot| (read_blob(&folder(*slot)).is_ok(), update::version(configurations, *slot)))
}

/// Puts what the card brought into slot A, which has no blob. All of it is on the disk when this returns.
fn bring(seed: &Path, configurations: &Path, owner: u32) -> io::Result<()> {
    let (slot, first) = (configurations.join(Slot::A.name()), configurations.join(FIRST));
    for left in [&slot, &first] {
        match fs::remove_dir_all(left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::create_dir_all(configurations)?;
    tree::copy(seed, &first, &[update::VERSION], owner, (0, 0))?;
    tree::lay(&first, BLOB, owner)?;
    update::note_version(configurations, Slot::A, seed)?;
    rustix::fs::sync();
    fs::rename(&first, &slot)?;
    File::open(configurations)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    fn folder(name: &str) -> Scratch {
        let folder = Scratch::new(&format!("seed-{name}"));
        fs::create_dir_all(folder.join("seed/secrets/server")).unwrap();
        folder
    }

    fn me() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn blob() -> Vec<u8> {
        let options = config::LoadOptions::default();
        config::encode(&config::load_embedded(config::DEFAULT_FILES, &options).unwrap().configuration).unwrap()
    }

    #[test]
    fn the_card_s_configuration_is_put_in_its_place_once_and_mended_at_each_start() {
        let folder = folder("place");
        let (seed, configurations) = (folder.join("seed"), folder.join("configuration"));
        let owner = if me() == 0 { 1_000 } else { me() };
        fs::write(seed.join(BLOB), blob()).unwrap();
        fs::write(seed.join("secrets/server/tls.key"), "key").unwrap();
        place(&seed, &configurations, owner).unwrap();
        let current = current(&configurations);
        assert!(read_blob(&current).is_ok());
        assert_eq!(fs::metadata(current.join("secrets/server/tls.key")).unwrap().uid(), owner);
        assert_eq!(fs::metadata(current.join("issuers")).unwrap().uid(), owner);
        // As earlier images have left it.
        chown(current.join(BLOB), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(current.join(BLOB), Permissions::from_mode(0o666)).unwrap();
        fs::create_dir(configurations.join("b")).unwrap();
        fs::write(seed.join(BLOB), "another").unwrap();
        assert!(read_blob(&current).is_err());
        place(&seed, &configurations, owner).unwrap();
        assert!(read_blob(&current).is_ok());
        assert!(configurations.join("b/secrets").is_dir());
    }

    /// A folder of configurations whose slots have these blobs and versions, and nothing that says which is in force.
    fn without_current(folder: &Path, slots: &[(Slot, &[u8], &str)]) -> PathBuf {
        let configurations = folder.join("configuration");
        fs::write(folder.join("seed").join(BLOB), blob()).unwrap();
        for (slot, blob, version) in slots {
            let slot = configurations.join(slot.name());
            fs::create_dir_all(slot.join("secrets")).unwrap();
            fs::write(slot.join(BLOB), blob).unwrap();
            fs::write(slot.join("secrets/key"), "theirs").unwrap();
            fs::write(slot.with_extension("version"), version).unwrap();
        }
        configurations
    }

    #[test]
    fn where_nothing_says_what_is_in_force_a_slot_with_a_blob_is_and_nothing_is_deleted() {
        let (good, bad) = (blob(), b"half".to_vec());
        for (index, (slots, expected)) in [
            (vec![(Slot::A, &good[..], "3")], "a"),
            (vec![(Slot::B, &good[..], "3")], "b"),
            (vec![(Slot::A, &good[..], "3"), (Slot::B, &good[..], "4")], "b"),
            (vec![(Slot::A, &good[..], "10"), (Slot::B, &good[..], "9")], "a"),
            (vec![(Slot::A, &good[..], "3"), (Slot::B, &good[..], "3")], "a"),
            (vec![(Slot::A, &good[..], "3"), (Slot::B, &bad[..], "4")], "a"),
            (vec![(Slot::A, &bad[..], "0")], "a"),
        ]
        .into_iter()
        .enumerate()
        {
            let folder = folder(&format!("lost-{index}"));
            let configurations = without_current(&folder, &slots);
            place(&folder.join("seed"), &configurations, me()).unwrap();
            assert_eq!(fs::read_link(current(&configurations)).unwrap(), Path::new(expected), "{index}");
            for (slot, blob, version) in slots {
                let slot = configurations.join(slot.name());
                assert_eq!(fs::read(slot.join(BLOB)).unwrap(), blob);
                assert_eq!(fs::read_to_string(slot.join("secrets/key")).unwrap(), "theirs");
                assert_eq!(fs::read_to_string(slot.with_extension("version")).unwrap(), version);
            }
        }
    }

    #[test]
    fn a_first_start_that_lost_its_power_is_done_again() {
        let folder = folder("again");
        let configurations = without_current(&folder, &[]);
        // Half of it, and what of a slot may be there without a blob.
        for left in ["first/secrets", "a/secrets"] {
            fs::create_dir_all(configurations.join(left)).unwrap();
            fs::write(configurations.join(left).join("half"), "half").unwrap();
        }
        fs::write(configurations.join("first").join(BLOB), "half").unwrap();
        place(&folder.join("seed"), &configurations, me()).unwrap();
        assert!(read_blob(&current(&configurations)).is_ok());
        assert!(!configurations.join("a/secrets/half").exists() && !configurations.join("first").exists());
    }

    #[test]
    fn only_a_link_that_is_not_there_makes_a_first_start() {
        let folder = folder("longest");
        fs::write(folder.join("seed").join(BLOB), blob()).unwrap();
        // So deep that the name of slot A is short enough for the system, and `current` is not.
        const PATH_BYTES_MAX: usize = 4_095;
        let mut configurations = folder.to_path_buf();
        loop {
            let left = PATH_BYTES_MAX - "/a".len() - configurations.as_os_str().len();
            if left < 2 {
                break;
            }
            configurations.push("x".repeat((left - 1).min(if left > 300 { 200 } else { 100 })));
        }
        fs::create_dir_all(configurations.join("a")).unwrap();
        let error = place(&folder.join("seed"), &configurations, me()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidFilename);
        assert!(configurations.join("a").is_dir());
    }

    #[test]
    fn a_new_card_says_which_version_its_configuration_has() {
        for (text, expected) in [(Some("12\n"), Some("12")), (Some("-1"), None), (Some("twelve"), None), (None, None)] {
            let folder = folder("version");
            let (seed, configurations) = (folder.join("seed"), folder.join("configuration"));
            fs::write(seed.join(BLOB), blob()).unwrap();
            if let Some(text) = text {
                fs::write(seed.join("version"), text).unwrap();
            }
            fs::create_dir(&configurations).unwrap();
            fs::write(configurations.join("a.version"), "99").unwrap();
            place(&seed, &configurations, me()).unwrap();
            let found = || fs::read_to_string(configurations.join("a.version")).ok();
            assert_eq!(found().as_deref(), expected, "{text:?}");
            assert!(!configurations.join("a/version").exists());
            fs::write(seed.join("version"), "1").unwrap();
            place(&seed, &configurations, me()).unwrap();
            assert_eq!(found().as_deref(), expected, "only at the first start");
        }
    }

    #[test]
    fn a_blob_that_others_can_write_or_that_is_too_large_is_not_read() {
        let folder = folder("refused");
        let path = folder.join(BLOB);
        let kind = || read_blob(&folder).map_err(|error| error.kind()).err();
        fs::write(&path, blob()).unwrap();
        for (mode, expected) in [(0o640, None), (0o660, Some(io::ErrorKind::PermissionDenied))] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(kind(), expected, "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        if me() == 0 {
            chown(&path, Some(1_000), None).unwrap();
            assert_eq!(kind(), Some(io::ErrorKind::PermissionDenied));
            chown(&path, Some(0), None).unwrap();
        }
        File::options().write(true).open(&path).unwrap().set_len(BLOB_BYTES_MAX + 1).unwrap();
        assert_eq!(kind(), Some(io::ErrorKind::FileTooLarge));
    }
}
