//! Folders of a configuration, copied and given to the broker's user.
//!
//! **Invariant:** no link is followed. What is copied may lie in a folder in which the broker's user can put links at any time, and PID 1
//! must not read through them what that user may not. A link is left out, and said.
//!
//! **Invariant:** a copy is the owner's only when it is complete: until then nobody but PID 1 reaches into it.

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, openat};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, chown, fchown};
use std::path::Path;

/// Deepest folder of a configuration, and most entries in it: somebody else made it.
const DEPTH_MAX: u32 = 4;
const ENTRIES_MAX: u32 = 4_096;

/// Copies everything in the folder `from` into a new folder `to`, but for entries of `from` itself that have these names, for this owner,
/// user and group. The new folder itself stays PID 1's, until [`give`]. What is copied is on the disk when this returns.
///
/// # Errors
/// Of the file system, an existing `to` among them; more entries than are copied. `to` may be there in part then.
pub fn copy(from: &Path, to: &Path, without: &[&str], owner: u32) -> io::Result<()> {
    let from = openat(CWD, from, FOLDER_FLAGS, Mode::empty())?;
    Copy { owner, left: ENTRIES_MAX }.folder(&from, to, without, 0)
}

/// Gives a folder that was made by PID 1 to its owner, as it is.
///
/// # Errors
/// Of the file system.
pub fn give(folder: &Path, owner: u32) -> io::Result<()> {
    chown(folder, Some(owner), Some(owner))
}

const FOLDER_FLAGS: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Whatever it is, and without waiting for the other end of a pipe.
const ENTRY_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

struct Copy {
    owner: u32,
    left: u32,
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
                    io::copy(&mut File::from(opened), &mut file)?;
                    fchown(&file, Some(self.owner), Some(self.owner))?;
                    file.sync_all()?;
                }
                _ => log::warn!("{}: too deep, or neither a file nor a folder: left out", target.display()),
            }
        }
        if depth > 0 {
            give(to, self.owner)?;
        }
        File::open(to)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::PathBuf;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn folder(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("portcullis-tree-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("from/secrets/server")).unwrap();
        Folder(folder)
    }

    fn me() -> u32 {
        rustix::process::getuid().as_raw()
    }

    #[test]
    fn folders_and_files_are_copied_for_their_owner_only() {
        let folder = folder("copy");
        let (from, to) = (folder.0.join("from"), folder.0.join("to"));
        fs::write(from.join("portcullis.blob"), "old").unwrap();
        fs::write(from.join("secrets/server/tls.key"), "key").unwrap();
        fs::write(from.join("secrets/server/portcullis.blob"), "deeper").unwrap();
        copy(&from, &to, &["portcullis.blob"], me()).unwrap();
        assert!(!to.join("portcullis.blob").exists());
        assert_eq!(fs::read_to_string(to.join("secrets/server/tls.key")).unwrap(), "key");
        assert!(to.join("secrets/server/portcullis.blob").exists());
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("secrets"), mode("secrets/server/tls.key")), (0o700, 0o600));
        assert!(copy(&from, &to, &[], me()).is_err(), "nothing that is there is written over");
    }

    #[test]
    fn links_and_pipes_lead_nowhere() {
        let folder = folder("links");
        let (from, to) = (folder.0.join("from"), folder.0.join("to"));
        fs::write(folder.0.join("outside"), "secret").unwrap();
        symlink(folder.0.join("outside"), from.join("file")).unwrap();
        symlink(&folder.0, from.join("secrets/folder")).unwrap();
        rustix::fs::mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        fs::write(from.join("plain"), "x").unwrap();
        copy(&from, &to, &[], me()).unwrap();
        let names = |path: &Path| {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&to), ["plain", "secrets"]);
        assert_eq!(names(&to.join("secrets")), ["server"]);
        symlink(&from, folder.0.join("link")).unwrap();
        assert!(copy(&folder.0.join("link"), &folder.0.join("other"), &[], me()).is_err());
    }

    #[test]
    fn more_than_a_configuration_has_is_an_error_and_not_a_part_of_it() {
        let folder = folder("many");
        for index in 0..=ENTRIES_MAX {
            File::create(folder.0.join(format!("from/secrets/{index}"))).unwrap();
        }
        let error = copy(&folder.0.join("from/secrets"), &folder.0.join("to"), &[], me()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    }
}
