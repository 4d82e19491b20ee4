//! The few things that the log does with files, so that a simulated disk can take their place.

use super::segment::Name;
use rustix::fs::{FallocateFlags, FlockOperation, fallocate, fdatasync, flock, statvfs};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A folder of files.
pub trait Disk {
    /// An open file.
    type File;

    /// Names of all files.
    ///
    /// # Errors
    /// What the system says; so for all of them.
    fn list(&mut self) -> io::Result<Vec<String>>;
    /// Opens a file that is there.
    ///
    /// # Errors
    /// What the system says.
    fn open(&mut self, name: &str) -> io::Result<Self::File>;
    /// Makes a file with room for `bytes` bytes, and opens it.
    ///
    /// # Errors
    /// What the system says.
    fn create(&mut self, name: &str, bytes: u64) -> io::Result<Self::File>;
    /// The whole of a file into `into`, whose former contents go; the rest of one that is longer than `limit` is left out.
    ///
    /// # Errors
    /// What the system says.
    fn read(&mut self, file: &mut Self::File, limit: u64, into: &mut Vec<u8>) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system says. What of it was written is unknown then.
    fn write(&mut self, file: &mut Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything that was written to the file is on the disk.
    ///
    /// # Errors
    /// What the system says. What was written since the last time may be on the disk or not, whatever is done later.
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;
    /// Gives a file another name.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Returns when names made, changed and removed are on the disk.
    ///
    /// # Errors
    /// What the system says.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Bytes that new files can still have.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&mut self) -> io::Result<u64>;
    /// A number that no peer can guess. Only a disk that is part of a test may leave it as it is.
    ///
    /// # Errors
    /// The system has none.
    fn draw_key(&mut self) -> io::Result<u32> {
        Ok(0x0123_4567)
    }
}

/// A folder of the system, which nobody else uses meanwhile.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    folder: File,
    /// Whether files are opened to be read only.
    read_only: bool,
    /// Held open for its lock.
    _lock: Option<File>,
}

/// Name of the file whose lock says that somebody uses the folder.
const LOCK: &str = "lock";

impl Folder {
    /// Takes the folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when somebody else has it, or what the system says.
    pub fn take(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
                File::open(above)?.sync_all()?;
            }
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let folder = File::open(path)?;
        Ok(Self { path: path.to_owned(), folder, read_only: false, _lock: Some(lock) })
    }

    /// Takes a folder that is there, to read it only. Nothing is written, not even a lock: where there is none, no broker
    /// has used the folder.
    ///
    /// # Errors
    /// As [`Folder::take`], and [`io::ErrorKind::NotFound`].
    pub fn look(path: &Path) -> io::Result<Self> {
        let folder = File::open(path)?;
        let lock = match File::open(path.join(LOCK)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(lock) = &lock {
            flock(lock, FlockOperation::NonBlockingLockExclusive)?;
        }
        Ok(Self { path: path.to_owned(), folder, read_only: true, _lock: lock })
    }

    /// Bytes of the largest file of a log; `None` if there is no such file.
    ///
    /// # Errors
    /// What the system says.
    pub fn largest_bytes(&mut self) -> io::Result<Option<u64>> {
        let names = self.list()?.into_iter().filter(|name| Name::parse(name).is_some());
        let lengths = names.map(|name| Ok(fs::metadata(self.path.join(name))?.len()));
        Ok(lengths.collect::<io::Result<Vec<u64>>>()?.into_iter().max())
    }
}

impl Disk for Folder {
    type File = File;

    fn list(&mut self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(!self.read_only).open(self.path.join(name))
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<File> {
        // What clients have published is nobody else's business.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(self.path.join(name))?;
        let reserved = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // Some file systems cannot reserve; a file of the right length is made then.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(bytes),
            outcome => outcome.map_err(io::Error::from),
        };
        if let Err(error) = reserved.and_then(|()| file.sync_all()) {
            // Not even half of it is of use.
            let _ = fs::remove_file(self.path.join(name));
            return Err(error);
        }
        Ok(file)
    }

    fn read(&mut self, file: &mut File, limit: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let bytes = usize::try_from(file.metadata()?.len().min(limit)).map_err(|_| io::ErrorKind::FileTooLarge)?;
        into.clear();
        into.resize(bytes, 0);
        file.read_exact_at(into, 0)
    }

    fn write(&mut self, file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        Ok(fdatasync(file)?)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.folder.sync_all()
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        let status = statvfs(&self.path)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn draw_key(&mut self) -> io::Result<u32> {
        getrandom::u32().map_err(io::Error::other)
    }
}
