//! The card as bytes: the whole disk for the boot state, a partition for a system slot, and what is read back past the page cache.
//!
//! Everything that writes goes through [`Medium`], so that tests can take the power away after any write.

use super::boot_state::{self, Slot};
use super::mounts::text;
use rustix::fs::{Advice, OFlags, fadvise};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes of one piece that is read or written.
pub const PIECE_BYTES: usize = 128 * 1024;
/// What reading past the page cache has to be a multiple of, in memory and on the device: no device has larger blocks.
const BLOCK_BYTES: usize = 4_096;
const SYSFS: &str = "/sys/class/block";
const DEVICES: &str = "/dev";

/// Something with bytes at places. Numbers are bytes.
pub trait Medium {
    /// Its length.
    fn bytes(&self) -> u64;

    /// Reads all of `piece` from `at` on.
    ///
    /// # Errors
    /// Of the device; it is shorter.
    fn read_at(&self, piece: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes all of `piece` at `at`. It is on the device after the next [`Medium::sync`].
    ///
    /// # Errors
    /// Of the device; it is shorter.
    fn write_at(&self, piece: &[u8], at: u64) -> io::Result<()>;

    /// Returns when everything that was written is on the device.
    ///
    /// # Errors
    /// Something is not.
    fn sync(&self) -> io::Result<()>;

    /// SHA-256 of the first so many bytes, as the device has them.
    ///
    /// # Errors
    /// Of the device; it is shorter.
    fn digest(&self, bytes: u64) -> io::Result<[u8; 32]>;
}

/// A block device, or in a test a file.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Device {
    /// Opens one for reading and writing.
    ///
    /// # Errors
    /// Of the system.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::opened(path, OpenOptions::new().read(true).write(true))
    }

    /// Opens one that cannot be written.
    ///
    /// # Errors
    /// Of the system.
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        Self::opened(path, OpenOptions::new().read(true))
    }

    fn opened(path: &Path, options: &OpenOptions) -> io::Result<Self> {
        let mut file = options.open(path)?;
        let bytes = io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), file, bytes })
    }
}

impl Medium for Device {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(piece, at)
    }

    fn write_at(&self, piece: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(piece, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn digest(&self, bytes: u64) -> io::Result<[u8; 32]> {
        digest(&self.path, bytes)
    }
}

/// SHA-256 of the first so many bytes of a file or device, read from the device where that is possible (`O_DIRECT`, or else after
/// the kernel was asked to forget what it has in memory). What was written must have been synced.
///
/// # Errors
/// Of the system; it is shorter.
pub fn digest(path: &Path, bytes: u64) -> io::Result<[u8; 32]> {
    let direct = OpenOptions::new().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
    match direct.and_then(|file| digest_of(&file, bytes)) {
        // A file system that cannot do it says so when the file is opened or at the first read.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            let file = File::open(path)?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
            digest_of(&file, bytes)
        }
        outcome => outcome,
    }
}

fn digest_of(file: &File, bytes: u64) -> io::Result<[u8; 32]> {
    let mut memory = vec![0; PIECE_BYTES + BLOCK_BYTES];
    let aligned = memory.as_ptr().align_offset(BLOCK_BYTES);
    let piece = memory.get_mut(aligned..).and_then(|memory| memory.get_mut(..PIECE_BYTES));
    let piece = piece.ok_or(ErrorKind::OutOfMemory)?;
    let (mut hash, mut at) = (Sha256::new(), 0_u64);
    while at < bytes {
        let length = file.read_at(piece, at)?;
        let read = piece.get(..length).unwrap_or_default();
        let wanted = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(length);
        // What is not a multiple of a block can only be the end; going on from there is not possible.
        let is_over = length == 0 || (wanted == length && length % BLOCK_BYTES != 0 && at + length as u64 != bytes);
        if is_over {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        hash.update(read.get(..wanted).unwrap_or_default());
        at += wanted as u64;
    }
    Ok(hash.finalize().into())
}

/// The devices of a card with two system slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The whole disk.
    pub disk: PathBuf,
    /// Partition 2.
    a: PathBuf,
    /// Partition 3.
    b: PathBuf,
}

impl Card {
    /// The card that the partition with the settings is on, by what the kernel says of it; `None`: it has no two slots, or a
    /// partition where the boot state should be.
    pub fn of(boot: &Path) -> Option<Self> {
        Self::find(Path::new(SYSFS), boot)
    }

    fn find(sysfs: &Path, boot: &Path) -> Option<Self> {
        let disk = fs::canonicalize(sysfs.join(boot.file_name()?)).ok()?.parent()?.to_owned();
        let number = |path: &Path, name: &str| text(path.join(name))?.parse::<u64>().ok();
        let (mut a, mut b) = (None, None);
        for entry in fs::read_dir(&disk).ok()?.flatten() {
            let path = entry.path();
            let Some(partition) = number(&path, "partition") else { continue };
            // In sectors of 512 bytes, whatever the disk has.
            if number(&path, "start")?.checked_mul(512)? < boot_state::END {
                return None;
            }
            let device = Path::new(DEVICES).join(entry.file_name());
            if partition == u64::from(Slot::A.partition()) {
                a = Some(device);
            } else if partition == u64::from(Slot::B.partition()) {
                b = Some(device);
            }
        }
        Some(Self { disk: Path::new(DEVICES).join(disk.file_name()?), a: a?, b: b? })
    }

    /// Three files that stand for one.
    #[cfg(test)]
    pub fn of_files(disk: PathBuf, a: PathBuf, b: PathBuf) -> Self {
        Self { disk, a, b }
    }

    /// The partition of a system slot.
    pub fn slot(&self, slot: Slot) -> &Path {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }
}

#[cfg(test)]
pub mod simulated;

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("portcullis-disk-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_is_read_back_is_what_was_written_whatever_its_length() {
        let folder = folder("digest");
        let path = folder.join("device");
        let contents: Vec<u8> = (0..3 * PIECE_BYTES + 777).map(|index| (index % 251) as u8).collect();
        fs::write(&path, &contents).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        for bytes in [0, 1, 511, 4_096, PIECE_BYTES, PIECE_BYTES + 1, contents.len()] {
            let expected: [u8; 32] = Sha256::digest(&contents[..bytes]).into();
            assert_eq!(digest(&path, bytes as u64).unwrap(), expected, "{bytes}");
        }
        let error = digest(&path, contents.len() as u64 + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        fs::remove_dir_all(&folder).unwrap();
    }

    /// As sysfs has a disk: partitions are folders in that of their disk, and links to them stand in one place.
    fn sysfs(folder: &Path, starts: &[(u32, u64)]) {
        let disk = folder.join("devices/mmcblk0");
        for (number, start) in starts {
            let partition = disk.join(format!("mmcblk0p{number}"));
            fs::create_dir_all(&partition).unwrap();
            fs::write(partition.join("partition"), format!("{number}\n")).unwrap();
            fs::write(partition.join("start"), format!("{start}\n")).unwrap();
            std::os::unix::fs::symlink(&partition, folder.join(format!("mmcblk0p{number}"))).unwrap();
        }
        fs::create_dir_all(disk.join("queue")).unwrap();
    }

    #[test]
    fn a_card_is_found_by_one_of_its_partitions() {
        let boot = Path::new("/dev/mmcblk0p1");
        let folder = folder("card");
        assert_eq!(Card::find(&folder, boot), None);
        let whole = folder.join("whole");
        sysfs(&whole, &[(1, 4_096), (2, 36_864), (3, 200_000), (4, 400_000)]);
        let card = Card::find(&whole, boot).unwrap();
        assert_eq!(card.disk, Path::new("/dev/mmcblk0"));
        assert_eq!(card.slot(Slot::A), Path::new("/dev/mmcblk0p2"));
        assert_eq!(card.slot(Slot::B), Path::new("/dev/mmcblk0p3"));
        let one = folder.join("one");
        sysfs(&one, &[(1, 4_096), (2, 36_864)]);
        assert_eq!(Card::find(&one, boot), None, "one slot is none");
        let old = folder.join("old");
        sysfs(&old, &[(1, 2_048), (2, 36_864), (3, 200_000)]);
        assert_eq!(Card::find(&old, boot), None, "a partition where the boot state would be");
        fs::remove_dir_all(&folder).unwrap();
    }
}
