//! Updates of an image, as far as the broker has to do with them: it takes a file in, and tells PID 1 that it is there.
//!
//! In: the pieces of a bundle. Out: `update/incoming` in the state folder, whole and on the disk, and a word to the service manager.
//! What is in it is judged by PID 1, which believes nothing of this.
//!
//! **Invariants:** one is received at a time; until all of it is on the disk it lies under another name, which is removed when it
//! ends early and at the next start; the disk keeps room for the broker's own log.

use super::machine::{Machine, MachineReport, UpdateReport};
use super::watch::Fingerprint;
use crate::bundle::UpdateState;
use crate::platform::ServiceManager;
use core::cell::{Cell, RefCell};
use core::fmt;
use rustix::fs::statvfs;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Longest bundle, bytes.
pub const BUNDLE_BYTES_MAX: u64 = 96 * 1024 * 1024;
/// Bytes that stay free on the disk.
const SPARE_BYTES: u64 = 16 * 1024 * 1024;
/// How long PID 1 may take to look at what it was told of. Then another bundle may take its place.
const LOOK_TIME: Duration = Duration::from_secs(60);
/// The folder, in the state folder.
const FOLDER: &str = "update";
/// A bundle that is whole.
const WHOLE: &str = "incoming";
/// One that is not.
const PARTIAL: &str = "incoming.partial";

/// Why no bundle is taken in.
#[derive(Debug)]
pub enum UpdateFault {
    /// This broker is not the service of an image.
    NotAnImage,
    /// It keeps nothing, so that there is no place for it.
    NoPlace,
    /// The machine says that its data partition does not keep what is written.
    NotKept,
    /// It is longer than [`BUNDLE_BYTES_MAX`].
    TooLarge,
    /// Another one is being received.
    Receiving,
    /// Another one is being worked on, or tried.
    UnderWay,
    /// The disk has too little room.
    NoRoom,
    /// What the file system says.
    Io(io::Error),
}

impl fmt::Display for UpdateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnImage => {
                f.write_str("updates of this kind are for the SD-card image; here use your package manager")
            }
            Self::NoPlace => f.write_str("this gateway keeps nothing, so there is no place for an update"),
            Self::NotKept => f.write_str("the card can only be read, or has no data partition"),
            Self::TooLarge => write!(f, "larger than {} MiB", BUNDLE_BYTES_MAX >> 20),
            Self::Receiving => f.write_str("another update is being received"),
            Self::UnderWay => f.write_str("another update is being worked on"),
            Self::NoRoom => write!(f, "the disk would have less than {} MiB left", SPARE_BYTES >> 20),
            Self::Io(error) => write!(f, "cannot be written: {error}"),
        }
    }
}

impl core::error::Error for UpdateFault {}

impl From<io::Error> for UpdateFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoRoom,
            _ => Self::Io(error),
        }
    }
}

/// The machine, and the way of updates to it.
pub struct Updates {
    machine: Option<Machine>,
    folder: Option<PathBuf>,
    manager: Rc<ServiceManager>,
    is_receiving: Rc<Cell<bool>>,
    /// The last bundle that PID 1 was told of, until it has looked at it.
    handed: RefCell<Option<Handed>>,
}

struct Handed {
    at: Instant,
    version: u64,
    /// What the machine said before.
    before: Fingerprint,
}

impl Updates {
    /// For a broker with this state folder, if it has one. What an upload of before left half-done is removed.
    #[must_use]
    pub fn new(machine: Option<Machine>, state: Option<&Path>, manager: Rc<ServiceManager>) -> Self {
        let folder = state.map(|state| state.join(FOLDER));
        if let Some(partial) = folder.as_ref().map(|folder| folder.join(PARTIAL)) {
            match fs::remove_file(&partial) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    log::warn!("cannot remove {}: {error}", partial.display());
                }
                Ok(()) | Err(_) => {}
            }
        }
        Self { machine, folder, manager, is_receiving: Rc::default(), handed: RefCell::new(None) }
    }

    /// What the machine says now; `None` for a broker that is no service of an image. An update that PID 1 was told of counts as
    /// worked on before it has said so.
    #[must_use]
    pub fn machine(&self) -> Option<MachineReport> {
        let machine = self.machine.as_ref()?;
        let mut report = machine.read();
        let mut handed = self.handed.borrow_mut();
        let waits = |handed: &Handed| {
            let is_there = self.folder.as_ref().is_some_and(|folder| folder.join(WHOLE).exists());
            let has_spoken = machine.fingerprint() != handed.before;
            handed.at.elapsed() < LOOK_TIME && (!has_spoken || (is_there && !report.update.state.is_under_way()))
        };
        if handed.as_ref().is_some_and(|handed| !waits(handed)) {
            *handed = None;
        }
        if let Some(handed) = &*handed {
            let text = "received, and not looked at yet".to_owned();
            report.update = UpdateReport { state: UpdateState::Working, text, version: Some(handed.version) };
        }
        Some(report)
    }

    /// A place for a bundle of so many bytes. Nothing is written yet.
    ///
    /// # Errors
    /// Why there is none.
    pub fn reserve(&self, bytes: u64) -> Result<Place, UpdateFault> {
        let report = self.machine().ok_or(UpdateFault::NotAnImage)?;
        let folder = self.folder.clone().ok_or(UpdateFault::NoPlace)?;
        // Its state folder is in memory then: what little room that has would be given as the reason. Who says nothing is believed.
        if !matches!(report.data.as_str(), "" | "kept") {
            return Err(UpdateFault::NotKept);
        }
        if bytes > BUNDLE_BYTES_MAX {
            return Err(UpdateFault::TooLarge);
        }
        if report.update.state.is_under_way() {
            return Err(UpdateFault::UnderWay);
        }
        if self.is_receiving.replace(true) {
            return Err(UpdateFault::Receiving);
        }
        Ok(Place { folder, bytes, board: report.board, is_receiving: Rc::clone(&self.is_receiving) })
    }

    /// PID 1 is told of a bundle of this version, which lies there whole.
    pub fn hand_over(&self, version: u64) {
        if let Some(machine) = &self.machine {
            *self.handed.borrow_mut() = Some(Handed { at: Instant::now(), version, before: machine.fingerprint() });
        }
        self.manager.update();
    }
}

/// A place for one bundle, while which no other has one.
pub struct Place {
    folder: PathBuf,
    bytes: u64,
    /// The board of the machine; empty where it does not say.
    pub board: String,
    is_receiving: Rc<Cell<bool>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_receiving.set(false);
    }
}

impl Place {
    /// Makes the file, for the eyes of this user.
    ///
    /// # Errors
    /// `NoRoom`, `Io`.
    pub async fn open(&self) -> Result<File, UpdateFault> {
        let (folder, bytes) = (self.folder.clone(), self.bytes);
        smol::unblock(move || open(&folder, bytes)).await
    }

    /// Puts the whole bundle onto the disk, and in its place.
    ///
    /// # Errors
    /// `NoRoom`, `Io`.
    pub async fn finish(&self, file: File) -> Result<(), UpdateFault> {
        let folder = self.folder.clone();
        smol::unblock(move || {
            file.sync_all()?;
            fs::rename(folder.join(PARTIAL), folder.join(WHOLE))?;
            Ok(File::open(&folder)?.sync_all()?)
        })
        .await
    }

    /// Removes what there is of it.
    pub async fn give_up(&self) {
        let partial = self.folder.join(PARTIAL);
        // What stays is removed at the next start, or by the next bundle.
        let _ = smol::unblock(move || fs::remove_file(partial)).await;
    }
}

/// Writes a piece, and gives its buffer back.
///
/// # Errors
/// `NoRoom`, `Io`.
pub async fn write(mut file: File, piece: Vec<u8>) -> Result<(File, Vec<u8>), UpdateFault> {
    smol::unblock(move || {
        file.write_all(&piece)?;
        Ok((file, piece))
    })
    .await
}

fn open(folder: &Path, bytes: u64) -> Result<File, UpdateFault> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let partial = folder.join(PARTIAL);
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let disk = statvfs(folder).map_err(io::Error::from)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < bytes.saturating_add(SPARE_BYTES) {
        return Err(UpdateFault::NoRoom);
    }
    Ok(OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_no_disk_has_room_for_is_refused_before_a_file_is_made() {
        let folder = std::env::temp_dir().join(format!("portcullis-updates-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        assert!(matches!(open(&folder, u64::MAX), Err(UpdateFault::NoRoom)));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        drop(open(&folder, 1).unwrap());
        // What another attempt left is no hindrance.
        drop(open(&folder, 1).unwrap());
        // A link that leads elsewhere is removed, not followed.
        let elsewhere = folder.join("elsewhere");
        fs::remove_file(folder.join(PARTIAL)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder.join(PARTIAL)).unwrap();
        drop(open(&folder, 1).unwrap());
        assert!(!elsewhere.exists());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_disk_that_is_full_is_told_from_one_that_fails() {
        assert!(matches!(UpdateFault::from(io::Error::from(ErrorKind::StorageFull)), UpdateFault::NoRoom));
        assert!(matches!(UpdateFault::from(io::Error::from(ErrorKind::ReadOnlyFilesystem)), UpdateFault::Io(_)));
    }
}
