//! Pairs of certificate and key as folders, replaced as a whole.
//!
//! **Invariant:** a reader, also after a crash, finds the old pair or the new one: a folder is written and synced beside the
//! old one and the two change places in one step. Where a file system cannot do that, the files change places one by one,
//! key first; a pair that a crash tears there does not fit together and is replaced at the next start.

use super::IssueFault;
use crate::config::is_dns_name;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// Certificate and key.
pub const NAMES: [&str; 2] = ["tls.crt", "tls.key"];
/// Longest file that is read, bytes: a chain of 16 certificates of 16 KiB.
const FILE_BYTES_MAX: u64 = 256 * 1_024;

/// A chain and a key, in PEM.
type Pair = (Vec<u8>, Zeroizing<Vec<u8>>);

/// The pair of a folder; `None` where one of its files is not there.
///
/// # Errors
/// `File`.
pub fn read_pair(folder: &Path) -> Result<Option<Pair>, IssueFault> {
    let [certificate, key] = NAMES.map(|name| read(&folder.join(name)));
    Ok(certificate?.zip(key?).map(|(certificate, key)| (certificate.to_vec(), key)))
}

/// The key of a folder; `None` where there is none that is text.
///
/// # Errors
/// `File`.
pub fn read_key(folder: &Path) -> Result<Option<Zeroizing<String>>, IssueFault> {
    let text = read(&folder.join(NAMES[1]))?;
    Ok(text.and_then(|text| core::str::from_utf8(&text).map(|text| Zeroizing::new(text.to_owned())).ok()))
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, IssueFault> {
    let read = || -> io::Result<_> {
        let mut bytes = Zeroizing::new(Vec::new());
        File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(IssueFault::File(path.to_owned(), error)),
    }
}

/// Keeps a pair, in PEM, as `<parent>/<name>/`. Only the owner can read the key; other files of the folder stay in it.
///
/// # Errors
/// `File`; what was there before is there still.
pub fn store_pair(parent: &Path, name: &str, chain: &str, key: &str) -> Result<(), IssueFault> {
    let folder = parent.join(name);
    store(parent, &folder, &parent.join(format!(".{name}.new")), chain, key)
        .map_err(|error| IssueFault::File(folder, error))
}

fn store(parent: &Path, folder: &Path, new: &Path, chain: &str, key: &str) -> io::Result<()> {
    fs::create_dir_all(parent)?;
    // Of an attempt that a crash ended; names of resources do not begin with a dot.
    remove(new)?;
    DirBuilder::new().mode(0o700).create(new)?;
    for (file, text, mode) in [(NAMES[0], chain, 0o644), (NAMES[1], key, 0o600)] {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(new.join(file))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    sync(new)?;
    match renameat_with(CWD, new, CWD, folder, RenameFlags::EXCHANGE) {
        // What is `new` now was the folder before.
        Ok(()) => take_over(new, folder)?,
        Err(Errno::NOENT) => fs::rename(new, folder)?,
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            for file in [NAMES[1], NAMES[0]] {
                fs::rename(new.join(file), folder.join(file))?;
            }
            sync(folder)?;
        }
        Err(error) => return Err(error.into()),
    }
    sync(parent)?;
    remove(new)
}

/// Moves the files that are not ours into the new folder.
fn take_over(former: &Path, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(former)? {
        let file = entry?.file_name();
        if !NAMES.iter().any(|name| file == *name) {
            fs::rename(former.join(&file), folder.join(&file))?;
        }
    }
    Ok(())
}

/// Removes a folder, or whatever is in its place.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The name of this machine, if it is one that a certificate can hold.
pub fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_ascii_lowercase()).filter(|name| is_dns_name(name))
}
