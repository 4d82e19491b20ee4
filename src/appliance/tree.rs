//! Folders of a configuration, copied and given to the broker's user.
//!
//! **Invariant:** the folder of a slot and the blob in it are PID 1's, and the broker's group may read them. What the broker writes
//! (keys and certificates that it issues, lists of what is revoked) has folders of its own there. So a broker that somebody else
//! has taken over cannot give PID 1, or its own successor, another configuration.
//!
//! **Invariant:** no link is followed. What is copied may lie in a folder in which the broker's user can put links at any time, and
//! PID 1 must not read through them what that user may not. A link is left out, and said.
//!
//! **Invariant:** a copy is the owner's only when it is complete: until then nobody but PID 1 reaches into it.

use crate::bundle::FOLDERS;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::Path;

/// Deepest folder of a configuration, most entries in it and most bytes of all files: somebody else made it.
const DEPTH_MAX: u32 = 4;
const ENTRIES_MAX: u32 = 4_096;
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Copies everything in the folder `from` into a new folder `to`, but for entries of `from` itself that have these names, for this
/// owner, user and group. The new folder itself stays PID 1's alone, until [`lay`]. What is copied is on the disk when this
/// returns. `taken`: entries and bytes that `to` gets from elsewhere, so that it can be copied itself.
///
/// # Errors
/// Of the file system, an existing `to` among them; more entries or bytes than are copied. `to` may be there in part then.
pub fn copy(from: &Path, to: &Path, without: &[&str], owner: u32, taken: (u32, u64)) -> io::Result<()> {
    let (entries, bytes) = taken;
    let left = ENTRIES_MAX.checked_sub(entries).ok_or(io::ErrorKind::QuotaExceeded)?;
    let bytes_left = BYTES_MAX.checked_sub(bytes).ok_or(io::ErrorKind::QuotaExceeded)?;
    let from = openat(CWD, from, FOLDER_FLAGS, Mode::empty())?;
    Copy { owner, left, bytes_left }.folder(&from, to, without, 0)
}

/// Makes the folder of a slot as it has to be: itself and its blob, a file of this name, PID 1's and for the owner's group to read;
/// its folders the owner's, those that are missing among them. A link or a second name of some file is left as it is.
///
/// # Errors
/// Of the file system.
pub fn lay(slot: &Path, blob: &str, owner: u32) -> io::Result<()> {
    // Nobody else reaches into it until the last step, so that nothing in it is exchanged meanwhile.
    keep(slot, 0o700, None)?;
    for name in FOLDERS {
        match DirBuilder::new().mode(0o700).create(slot.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    for entry in fs::read_dir(slot)?.take(ENTRIES_MAX as usize) {
        let entry = entry?;
        if entry.file_name() != blob {
            own(&entry.path(), owner)?;
        } else if is_single_file(&fs::symlink_metadata(entry.path())?) {
            keep(&entry.path(), 0o640, Some(owner))?;
        }
    }
    keep(slot, 0o750, Some(owner))
}

/// Makes it PID 1's, with this mode and of this group.
fn keep(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    chown(path, Some(rustix::process::geteuid().as_raw()), group)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Whether it is a file without a second name: that could be one of PID 1's own.
fn is_single_file(found: &fs::Metadata) -> bool {
    found.is_file() && found.nlink() == 1
}

/// Gives a folder and what is in it to its owner, user and group, and to nobody else. Links, and files that have a second name, are
/// left alone. To be called where the owner has no process, or does not reach.
///
/// # Errors
/// Of the file system.
pub fn own(path: &Path, owner: u32) -> io::Result<()> {
    own_below(path, owner, 0)
}

fn own_below(path: &Path, owner: u32, depth: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() && !is_single_file(&found) {
        return Ok(());
    }
    chown(path, Some(owner), Some(owner))?;
    fs::set_permissions(path, Permissions::from_mode(if found.is_dir() { 0o700 } else { 0o600 }))?;
    if found.is_dir() && depth <= DEPTH_MAX {
        for entry in fs::read_dir(path)?.take(ENTRIES_MAX as usize) {
            own_below(&entry?.path(), owner, depth + 1)?;
        }
    }
    Ok(())
}

const FOLDER_FLAGS: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Whatever it is, and without waiting for the other end of a pipe.
const ENTRY_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

struct Copy {
    owner: u32,
    left: u32,
    bytes_left: u64,
}

impl Copy {
    fn folder(&mut self, from: &OwnedFd, to: &Path, without: &[&str], depth: u32) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(to)?;
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || without.iter().any(|left_out| name == *left_out) {
                continue;
            }
            self.left = self.left.checked_sub(1).ok_or(io::ErrorKind::QuotaExceeded)?;
            let target = to.join(name);
            let opened = match openat(from, entry.file_name(), ENTRY_FLAGS, Mode::empty()) {
                Ok(opened) => opened,
                Err(rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
                    log::warn!("{}: neither a file nor a folder, left out", target.display());
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) {
                FileType::Directory if depth < DEPTH_MAX => self.folder(&opened, &target, &[], depth + 1)?,
                FileType::RegularFile => {
                    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
                    // Not what its length says: it may grow meanwhile.
                    let mut contents = File::from(opened).take(self.bytes_left + 1);
                    let copied = io::copy(&mut contents, &mut file)?;
                    self.bytes_left = self.bytes_left.checked_sub(copied).ok_or(io::ErrorKind::QuotaExceeded)?;
                    fchown(&file, Some(self.owner), Some(self.owner))?;
                    file.sync_all()?;
                }
                _ => log::warn!("{}: too deep, or neither a file nor a folder: left out", target.display()),
            }
        }
        if depth > 0 {
            chown(to, Some(self.owner), Some(self.owner))?;
        }
        File::open(to)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder(name: &str) -> Scratch {
        let folder = Scratch::new(&format!("tree-{name}"));
        fs::create_dir_all(folder.join("from/secrets/server")).unwrap();
        folder
    }

    fn me() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn folders_and_files_are_copied_for_their_owner_only() {
        let folder = folder("copy");
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::write(from.join("portcullis.blob"), "old").unwrap();
        fs::write(from.join("secrets/server/tls.key"), "key").unwrap();
        fs::write(from.join("secrets/server/portcullis.blob"), "deeper").unwrap();
        copy(&from, &to, &["portcullis.blob"], me(), (0, 0)).unwrap();
        assert!(!to.join("portcullis.blob").exists());
        assert_eq!(fs::read_to_string(to.join("secrets/server/tls.key")).unwrap(), "key");
        assert!(to.join("secrets/server/portcullis.blob").exists());
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("secrets"), mode("secrets/server/tls.key")), (0o700, 0o600));
        assert!(copy(&from, &to, &[], me(), (0, 0)).is_err(), "nothing that is there is written over");
    }

    #[test]
    fn a_slot_and_its_blob_stay_pid_1_s_and_its_folders_are_the_broker_s() {
        let folder = folder("lay");
        let slot = folder.join("from");
        // Somebody else's, where the test may make it so.
        let owner = if me() == 0 { 1_000 } else { me() };
        for (file, text) in [("portcullis.blob", "b"), ("secrets/server/tls.key", "key"), ("beside", "x")] {
            fs::write(slot.join(file), text).unwrap();
            chown(slot.join(file), Some(owner), None).unwrap();
        }
        chown(&slot, Some(owner), None).unwrap();
        // Names that the broker may have given to what is PID 1's.
        let outside = folder.join("version");
        fs::write(&outside, "1").unwrap();
        fs::set_permissions(&outside, Permissions::from_mode(0o644)).unwrap();
        fs::hard_link(&outside, slot.join("secrets/link")).unwrap();
        symlink(&outside, slot.join("secrets/symlink")).unwrap();
        for _ in 0..2 {
            lay(&slot, "portcullis.blob", owner).unwrap();
            let found = |path: &str| {
                let found = fs::symlink_metadata(slot.join(path)).unwrap();
                (found.uid(), found.mode() & 0o777)
            };
            assert_eq!((found("."), found("portcullis.blob")), ((me(), 0o750), (me(), 0o640)));
            for path in ["secrets", "issuers", "revocation", "secrets/server"] {
                assert_eq!(found(path), (owner, 0o700), "{path}");
            }
            for path in ["secrets/server/tls.key", "beside"] {
                assert_eq!(found(path), (owner, 0o600), "{path}");
            }
            assert_eq!(found("../version"), (me(), 0o644));
        }
        fs::remove_file(slot.join("portcullis.blob")).unwrap();
        fs::hard_link(&outside, slot.join("portcullis.blob")).unwrap();
        lay(&slot, "portcullis.blob", owner).unwrap();
        assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o777, 0o644);
    }

    #[test]
    fn links_and_pipes_lead_nowhere() {
        let folder = folder("links");
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::write(folder.join("outside"), "secret").unwrap();
        symlink(folder.join("outside"), from.join("file")).unwrap();
        symlink(&*folder, from.join("secrets/folder")).unwrap();
        rustix::fs::mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        fs::write(from.join("plain"), "x").unwrap();
        copy(&from, &to, &[], me(), (0, 0)).unwrap();
        let names = |path: &Path| {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&to), ["plain", "secrets"]);
        assert_eq!(names(&to.join("secrets")), ["server"]);
        symlink(&from, folder.join("link")).unwrap();
        assert!(copy(&folder.join("link"), &folder.join("other"), &[], me(), (0, 0)).is_err());
    }

    #[test]
    fn more_than_a_configuration_has_is_an_error_and_not_a_part_of_it() {
        let folder = folder("many");
        for index in 0..=ENTRIES_MAX {
            File::create(folder.join(format!("from/secrets/{index}"))).unwrap();
        }
        let error = copy(&folder.join("from/secrets"), &folder.join("to"), &[], me(), (0, 0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    }

    #[test]
    fn more_bytes_than_a_configuration_has_are_an_error_and_not_a_part_of_it() {
        let folder = folder("large");
        let from = folder.join("from");
        let file = |name: &str, bytes: u64| File::create(from.join(name)).unwrap().set_len(bytes).unwrap();
        file("first", BYTES_MAX / 2);
        file("secrets/second", BYTES_MAX / 2);
        copy(&from, &folder.join("whole"), &[], me(), (0, 0)).unwrap();
        file("third", 1);
        let error = copy(&from, &folder.join("to"), &[], me(), (0, 0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    }
}
