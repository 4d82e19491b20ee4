//! File systems: the kernel's own, the settings partition, the data partition.
//!
//! Partitions are known by the labels that the image gave them, never by a device's name: a card is `mmcblk0` on one board, `vda`
//! in an emulator and `sda` in a reader.

use super::machine::{Area, Machine};
use super::settings::FILE_BYTES_MAX;
use crate::bundle::archive;
use async_io::Timer;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

/// Label of the FAT partition with the settings, padded as FAT does.
const BOOT_LABEL: &[u8; 11] = b"PORTCULLIS ";
/// Label of the ext4 partition.
const DATA_LABEL: &[u8] = b"portcullis-data\0";
/// Where the data partition is.
pub const DATA: &str = "/data";
/// Where the settings partition is while it is read.
const BOOT: &str = "/boot";
/// Between two looks for a device, and how often. An SD card is there after about a second.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_MAX: u32 = 150;
/// Between two looks at whether the data partition can still be written.
const DATA_LOOK: Duration = Duration::from_secs(30);

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Mounts what the kernel itself provides. Returns what failed, for the log that is not there yet.
pub fn system() -> Vec<String> {
    let mut faults = Vec::new();
    let shared = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (kind, target, flags, data) in [
        ("proc", "/proc", SAFE, c""),
        ("sysfs", "/sys", SAFE, c""),
        ("devtmpfs", "/dev", shared, c"mode=0755"),
        ("tmpfs", "/run", SAFE, c"mode=0755,size=8m"),
    ] {
        let _ = rustix::fs::mkdir(target, Mode::from_raw_mode(0o755));
        match mount(kind, target, kind, flags, data) {
            // The kernel may have mounted it by itself.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => faults.push(format!("{target} cannot be mounted: {error}")),
        }
    }
    faults
}

/// A small text file whole, without the blanks at its end; `None` when it cannot be read.
pub fn text(path: impl AsRef<Path>) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.truncate(text.trim_end().len());
    Some(text)
}

/// The devices of our partitions.
#[derive(Debug, Default)]
pub struct Partitions {
    /// That with the settings.
    pub boot: Option<PathBuf>,
    data: Option<PathBuf>,
}

/// Waits until both are there, or for fifteen seconds.
pub fn find_partitions() -> Partitions {
    let mut found = Partitions::default();
    for _ in 0..LOOKS_MAX {
        found = look();
        if found.boot.is_some() && found.data.is_some() {
            break;
        }
        sleep(LOOK);
    }
    found
}

fn look() -> Partitions {
    let mut found = Partitions::default();
    let Ok(devices) = fs::read_dir("/sys/class/block") else { return found };
    for device in devices.flatten().filter(|device| device.path().join("partition").exists()) {
        let path = Path::new("/dev").join(device.file_name());
        if found.boot.is_none() && reads(&path, 71, BOOT_LABEL) {
            found.boot = Some(path);
        } else if found.data.is_none() && reads(&path, 1_024 + 120, DATA_LABEL) {
            found.data = Some(path);
        }
    }
    found
}

/// Whether the device has these bytes at this place.
fn reads(device: &Path, at: u64, wanted: &[u8]) -> bool {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(device)?;
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = vec![0; wanted.len()];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    read().is_ok_and(|bytes| bytes == wanted)
}

/// The text of `gateway.cfg`, and the configuration that the card brought, which is unpacked into `seed`. Their partition is
/// mounted for as long as they are read, and never writable.
pub fn read_first(partitions: &Partitions, seed: &Path) -> Option<String> {
    let Some(device) = &partitions.boot else {
        log::error!("no partition is labelled PORTCULLIS: going on without gateway.cfg");
        return None;
    };
    if let Err(error) = mount(device, BOOT, "vfat", SAFE | MountFlags::RDONLY, c"") {
        log::error!("{} cannot be mounted: {error}; going on without gateway.cfg", device.display());
        return None;
    }
    let found = text(Path::new(BOOT).join("gateway.cfg"));
    let mut archive = Vec::new();
    let read = File::open(Path::new(BOOT).join("seed.bin"))
        .and_then(|file| file.take(archive::BYTES_MAX).read_to_end(&mut archive));
    if let Err(error) = read.and_then(|_| archive::unpack(&archive, seed)) {
        log::error!("seed.bin, the configuration that the card brought, cannot be read: {error}");
    }
    if let Err(error) = unmount(BOOT, UnmountFlags::DETACH) {
        log::warn!("{BOOT} cannot be unmounted: {error}");
    }
    found
}

/// How the data partition is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It keeps what is written.
    Kept,
    /// It can be read and no more.
    ReadOnly,
    /// There is none; what stands in its place is gone with the power.
    Absent,
}

impl Data {
    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::ReadOnly => "read-only",
            Self::Absent => "absent",
        }
    }

    /// What a person must be told of it.
    pub const fn notice(self) -> Option<&'static str> {
        match self {
            Self::Kept => None,
            Self::ReadOnly => {
                Some("the data partition can only be read: nothing new survives a restart; replace the card")
            }
            Self::Absent => {
                Some("there is no data partition that can be used: nothing survives a restart; replace the card")
            }
        }
    }
}

/// Mounts the data partition. **Invariant:** an ext4 that has a fault turns read-only and stays as it is; nothing is repaired or
/// made anew here, because whatever it holds is somebody's.
pub fn data(partitions: &Partitions) -> Data {
    let flags = SAFE | MountFlags::NOATIME;
    let options: &CStr = c"errors=remount-ro,commit=5";
    let Some(device) = &partitions.data else {
        log::error!("DEGRADED: no partition is labelled portcullis-data: nothing survives a restart");
        return in_memory();
    };
    let shown = device.display();
    let Err(fault) = mount(device, DATA, "ext4", flags, options) else {
        if let Some(errors) = errors(&shown.to_string()) {
            let _ = ERRORS_BEFORE.set(errors);
        }
        log::info!("{shown} on {DATA}");
        return Data::Kept;
    };
    // A journal cannot be replayed on a card that refuses writing; what it would change is left out then.
    match mount(device, DATA, "ext4", flags | MountFlags::RDONLY, c"noload") {
        Ok(()) => {
            log::error!("DEGRADED: {shown} can only be read ({fault}): nothing new survives a restart");
            Data::ReadOnly
        }
        Err(error) => {
            log::error!(
                "DEGRADED: {shown} cannot be mounted ({error}): nothing survives a restart, and what it has is left alone"
            );
            in_memory()
        }
    }
}

/// Errors that the file system on [`DATA`] had counted when it was mounted, where its kernel tells them.
static ERRORS_BEFORE: OnceLock<u64> = OnceLock::new();

/// Whether the file system on [`DATA`] can only be read, which it may have become by a fault of the card: after any error of ext4,
/// as it is mounted here. Some kernels say so in its line, and others (6.1.192 among them) count the error and say `rw` still.
pub fn is_read_only() -> bool {
    let Some(mounts) = text("/proc/mounts") else { return false };
    let Some(mounted) = Mounted::last(&mounts, DATA) else { return false };
    mounted.is_read_only || errors(mounted.device).zip(ERRORS_BEFORE.get()).is_some_and(|(now, before)| now > *before)
}

/// Errors that an ext4 file system has counted since it was made.
fn errors(device: &str) -> Option<u64> {
    text(Path::new("/sys/fs/ext4").join(Path::new(device).file_name()?).join("errors_count"))?.parse().ok()
}

/// Looks whether the data partition turns read-only, for ever or until it does.
pub async fn watch_data(data: Data, machine: &Machine) {
    if data != Data::Kept {
        return;
    }
    while !is_read_only() {
        Timer::after(DATA_LOOK).await;
    }
    log::error!("DEGRADED: {DATA} has turned read-only: nothing new survives a restart");
    machine.set_data(Data::ReadOnly);
    if let Some(notice) = Data::ReadOnly.notice() {
        machine.notice(Area::Data, notice);
    }
}

/// What the kernel says of a file system.
#[derive(Debug, PartialEq, Eq)]
struct Mounted<'a> {
    device: &'a str,
    /// It has one of the words by which ext4 says so. Newer kernels leave `rw` there after an error, and add `emergency_ro`.
    is_read_only: bool,
}

impl<'a> Mounted<'a> {
    /// The last line for the folder, which is what is seen there.
    fn last(mounts: &'a str, folder: &str) -> Option<Self> {
        mounts.lines().rev().find_map(|line| {
            let mut fields = line.split(' ');
            let (device, at, words) = (fields.next()?, fields.next()?, fields.nth(1)?);
            let is_read_only = words.split(',').any(|word| word == "ro" || word == "emergency_ro");
            (at == folder).then_some(Self { device, is_read_only })
        })
    }
}

fn in_memory() -> Data {
    if let Err(error) = mount("tmpfs", DATA, "tmpfs", SAFE, c"mode=0755,size=32m") {
        log::error!("not even memory can be mounted on {DATA}: {error}");
    }
    Data::Absent
}

/// Takes the data partition away, as clean as it can be.
pub fn release_data() {
    rustix::fs::sync();
    if unmount(DATA, UnmountFlags::empty()).is_err()
        && let Err(error) = mount_remount(DATA, MountFlags::RDONLY, c"")
    {
        log::warn!("{DATA} cannot be unmounted: {error}; its journal covers that");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_has_turned_read_only_is_known_by_its_line() {
        let line = |words: &str| format!("proc /proc proc ro 0 0\n/dev/mmcblk0p4 /data ext4 {words},noatime 0 0\n");
        for (words, is_read_only) in
            [("rw,nosuid,errors=remount-ro", false), ("ro,nosuid", true), ("rw,nosuid,emergency_ro", true)]
        {
            let expected = Mounted { device: "/dev/mmcblk0p4", is_read_only };
            assert_eq!(Mounted::last(&line(words), DATA), Some(expected));
        }
        let covered = line("ro") + "tmpfs /data tmpfs rw 0 0\n";
        let expected = Mounted { device: "tmpfs", is_read_only: false };
        assert_eq!(Mounted::last(&covered, DATA), Some(expected), "what is mounted over it counts");
        assert_eq!((Mounted::last("", DATA), Mounted::last("/data\n/data /data\n", DATA)), (None, None));
    }
}
