//! Which disks this machine has, and which of them may be written over: sysfs(5) and `/proc`, from a root that tests can make.
//!
//! **Invariant:** a disk is refused unless everything that speaks against it has been looked at and does not. What cannot be read
//! speaks against it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// No card is larger, and many a disk with somebody's data is.
const CARD_BYTES_MAX: u64 = 256 << 30;

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// As in `/dev/NAME`.
    pub name: String,
    /// What it calls itself.
    pub model: String,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    pub kind: Kind,
    /// Why it is not written to: what no option overrides, and what `--force` does.
    pub objections: Vec<Objection>,
}

/// What a disk is, as far as the kernel knows. A card in a reader at USB cannot be told from a stick or an external disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A card in a slot of this machine.
    SdCard,
    /// What is soldered in, which often is this machine's own disk.
    Emmc,
    /// What of an eMMC the machine may start from, or keeps keys in.
    EmmcArea,
    /// Something at USB.
    Usb,
    /// A file that is taken for a disk.
    Loop,
    /// Something else whose medium can be taken out.
    Removable,
    /// Something else.
    Fixed,
}

impl Kind {
    /// `type` is the file of the MMC bus, `SD` or `MMC`; `place` where the device is in sysfs.
    fn of(name: &str, kind: Option<&str>, place: &str, is_removable: bool) -> Self {
        if let Some(rest) = name.strip_prefix("mmcblk") {
            let is_whole = rest.bytes().all(|byte| byte.is_ascii_digit());
            return match (is_whole, kind) {
                (true, Some("SD")) => Self::SdCard,
                (true, _) => Self::Emmc,
                (false, _) => Self::EmmcArea,
            };
        }
        if name.starts_with("loop") {
            Self::Loop
        } else if place.contains("/usb") {
            Self::Usb
        } else if is_removable {
            Self::Removable
        } else {
            Self::Fixed
        }
    }

    fn is_built_in(self) -> bool {
        match self {
            Self::Emmc | Self::EmmcArea | Self::Fixed => true,
            Self::SdCard | Self::Usb | Self::Loop | Self::Removable => false,
        }
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::SdCard => "an SD card",
            Self::Emmc => "an eMMC",
            Self::EmmcArea => "an area of an eMMC",
            Self::Usb => "a USB disk, or a card in a reader",
            Self::Loop => "a file as a disk",
            Self::Removable => "a removable disk",
            Self::Fixed => "a disk",
        }
    }
}

/// What speaks against writing to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    /// It, or something on it, is in use here.
    InUse(String),
    /// It refuses writing.
    ReadOnly,
    /// It is no card: it is built in.
    BuiltIn,
    /// It is too large for a card.
    Large,
}

impl Objection {
    /// Whether somebody who knows better may say so.
    pub fn may_be_overridden(&self) -> bool {
        match self {
            Self::InUse(_) | Self::ReadOnly => false,
            Self::BuiltIn | Self::Large => true,
        }
    }

    /// The reason in words.
    pub fn text(&self) -> String {
        match self {
            Self::InUse(what) => format!("in use: {what}"),
            Self::ReadOnly => "read-only: look at the card's switch".to_owned(),
            Self::BuiltIn => "not removable".to_owned(),
            Self::Large => "larger than any card".to_owned(),
        }
    }
}

/// All disks of the machine whose `/sys` and `/proc` are below `root`, without what has no size.
pub fn all(root: &Path) -> Vec<Disk> {
    let block = root.join("sys/block");
    let Ok(entries) = fs::read_dir(&block) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().filter_map(|name| disk(root, name)).collect()
}

/// The disk of this name; `None`: there is none, it is a partition, or it is empty.
pub fn disk(root: &Path, name: &str) -> Option<Disk> {
    let folder = root.join("sys/block").join(name);
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned());
    let bytes = read("size")?.parse::<u64>().ok()?.checked_mul(512).filter(|bytes| *bytes > 0)?;
    let mut objections = Vec::new();
    if let Some(what) = in_use(root, name) {
        objections.push(Objection::InUse(what));
    }
    if read("ro").as_deref() != Some("0") {
        objections.push(Objection::ReadOnly);
    }
    let place = fs::canonicalize(&folder).unwrap_or_default();
    let kind = Kind::of(
        name,
        read("device/type").as_deref(),
        &place.to_string_lossy(),
        read("removable").as_deref() == Some("1"),
    );
    if kind.is_built_in() {
        objections.push(Objection::BuiltIn);
    }
    if bytes > CARD_BYTES_MAX {
        objections.push(Objection::Large);
    }
    let model = read("device/model").or_else(|| read("device/name")).or_else(|| read("loop/backing_file"));
    let model = model.unwrap_or_else(|| "unknown".to_owned());
    Some(Disk { name: name.to_owned(), model, bytes, kind, objections })
}

/// What a disk is used for: a mounted file system or swap on it, on a partition of it, or on whatever is made of these.
fn in_use(root: &Path, disk: &str) -> Option<String> {
    let block = root.join("sys/block").join(disk);
    let entries = fs::read_dir(&block).ok()?;
    let mut devices: BTreeSet<String> = BTreeSet::from([disk.to_owned()]);
    devices.extend(
        entries
            .flatten()
            .filter(|entry| entry.path().join("partition").exists())
            .filter_map(|entry| entry.file_name().into_string().ok()),
    );
    // Holders of holders: encryption on RAID on a partition. A circle ends, because a name is visited once.
    let mut open: Vec<String> = devices.iter().cloned().collect();
    while let Some(name) = open.pop() {
        for folder in [root.join("sys/class/block").join(&name), block.join(&name)] {
            for holder in fs::read_dir(folder.join("holders")).into_iter().flatten().flatten() {
                let holder = holder.file_name().to_string_lossy().into_owned();
                if devices.insert(holder.clone()) {
                    open.push(holder);
                }
            }
        }
    }
    let numbers: BTreeSet<String> = devices
        .iter()
        .filter_map(|name| {
            let folders =
                [root.join("sys/class/block").join(name), block.join(name), root.join("sys/block").join(name)];
            folders.iter().find_map(|folder| fs::read_to_string(folder.join("dev")).ok())
        })
        .map(|text| text.trim().to_owned())
        .collect();
    let Ok(mounts) = fs::read_to_string(root.join("proc/self/mountinfo")) else {
        return Some("what is mounted cannot be read".to_owned());
    };
    for line in mounts.lines() {
        let mut words = line.split(' ');
        let (number, place) = (words.nth(2).unwrap_or_default(), words.nth(1).unwrap_or_default());
        // Some file systems have a number of their own, and name their device behind the hyphen.
        let source = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(1)).unwrap_or_default();
        if numbers.contains(number) || is_one_of(source, &devices) {
            return Some(format!("mounted on {place}"));
        }
    }
    let swaps = fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
    let swap =
        swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).find(|path| is_one_of(path, &devices));
    if let Some(path) = swap {
        return Some(format!("swap on {path}"));
    }
    let own: usize = devices.iter().filter(|name| !name.starts_with(disk)).count();
    (own > 0).then(|| {
        format!(
            "part of {}",
            devices.iter().filter(|name| !name.starts_with(disk)).cloned().collect::<Vec<_>>().join(", ")
        )
    })
}

fn is_one_of(path: &str, devices: &BTreeSet<String>) -> bool {
    PathBuf::from(path).strip_prefix("/dev").is_ok_and(|name| name.to_str().is_some_and(|name| devices.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("portcullis-flash-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            let root = Self(root);
            root.put("proc/self/mountinfo", "21 1 254:1 / / rw - ext4 /dev/vda1 rw\n");
            root.put("proc/swaps", "Filename Type Size\n");
            root
        }

        fn put(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        /// A disk with one partition.
        fn disk(&self, name: &str, partition: &str, number: &str, removable: &str, bytes: u64) {
            let folder = format!("sys/block/{name}");
            self.put(&format!("{folder}/size"), &(bytes / 512).to_string());
            self.put(&format!("{folder}/ro"), "0\n");
            self.put(&format!("{folder}/removable"), removable);
            self.put(&format!("{folder}/dev"), &format!("{number}:0\n"));
            self.put(&format!("{folder}/device/model"), "Flash Disk \n");
            self.put(&format!("{folder}/{partition}/partition"), "1");
            self.put(&format!("{folder}/{partition}/dev"), &format!("{number}:1\n"));
            fs::create_dir_all(self.0.join(format!("{folder}/{partition}/holders"))).unwrap();
        }

        fn objections(&self, name: &str) -> Vec<Objection> {
            disk(&self.0, name).unwrap().objections
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_card_in_a_reader_may_be_written() {
        let root = Root::new("card");
        root.disk("sda", "sda1", "8", "1", 8 << 30);
        assert_eq!(
            all(&root.0),
            [Disk {
                name: "sda".to_owned(),
                model: "Flash Disk".to_owned(),
                bytes: 8 << 30,
                kind: Kind::Removable,
                objections: Vec::new()
            }]
        );
        assert_eq!(disk(&root.0, "sda1"), None, "a partition is no disk");
        assert_eq!(disk(&root.0, "../sda"), None);
    }

    #[test]
    fn an_emmc_and_its_areas_are_no_cards_and_a_disk_at_usb_is_called_so() {
        let root = Root::new("emmc");
        for (name, kind) in [("mmcblk0", Some("SD")), ("mmcblk1", Some("MMC")), ("mmcblk2", None)] {
            root.disk(name, &format!("{name}p1"), "179", "0", 8 << 30);
            if let Some(kind) = kind {
                root.put(&format!("sys/block/{name}/device/type"), &format!("{kind}\n"));
            }
        }
        for name in ["mmcblk1boot0", "mmcblk1rpmb"] {
            root.disk(name, &format!("{name}p1"), "180", "0", 4 << 20);
            root.put(&format!("sys/block/{name}/device/type"), "SD\n");
        }
        let found = |name: &str| disk(&root.0, name).map(|disk| (disk.kind, disk.objections)).unwrap();
        assert_eq!(found("mmcblk0"), (Kind::SdCard, Vec::new()));
        assert_eq!(found("mmcblk1"), (Kind::Emmc, vec![Objection::BuiltIn]));
        assert_eq!(found("mmcblk2"), (Kind::Emmc, vec![Objection::BuiltIn]), "what does not say what it is");
        for name in ["mmcblk1boot0", "mmcblk1rpmb"] {
            assert_eq!(found(name), (Kind::EmmcArea, vec![Objection::BuiltIn]), "{name}");
        }
        // In sysfs, a disk is a link to where it is plugged in.
        let place = "sys/devices/pci/usb1/1-1/host/block/sdd";
        root.disk("plugged", "sdd1", "11", "0", 8 << 30);
        fs::create_dir_all(root.0.join(place).parent().unwrap()).unwrap();
        fs::rename(root.0.join("sys/block/plugged"), root.0.join(place)).unwrap();
        std::os::unix::fs::symlink(root.0.join(place), root.0.join("sys/block/sdd")).unwrap();
        assert_eq!(found("sdd"), (Kind::Usb, Vec::new()));
    }

    #[test]
    fn the_system_s_disk_is_refused_whatever_is_between() {
        let root = Root::new("system");
        root.disk("vda", "vda1", "254", "0", 8 << 30);
        assert_eq!(root.objections("vda"), [Objection::InUse("mounted on /".to_owned()), Objection::BuiltIn]);
        root.disk("sdb", "sdb1", "8", "1", 8 << 30);
        assert_eq!(root.objections("sdb"), []);
        root.put("sys/block/sdb/sdb1/holders/dm-0/x", "");
        root.put("sys/block/dm-0/dev", "253:0");
        assert_eq!(root.objections("sdb"), [Objection::InUse("part of dm-0".to_owned())]);
        root.put("proc/self/mountinfo", "30 1 253:0 / /secret rw - ext4 /dev/mapper/secret rw\n");
        assert_eq!(root.objections("sdb"), [Objection::InUse("mounted on /secret".to_owned())]);
    }

    #[test]
    fn swap_a_switch_a_size_and_a_missing_list_speak_against_a_disk() {
        let root = Root::new("others");
        root.disk("sdc", "sdc1", "9", "1", 300 << 30);
        root.put("proc/swaps", "Filename Type\n/dev/sdc1 partition\n");
        root.put("sys/block/sdc/ro", "1");
        let found = root.objections("sdc");
        assert_eq!(found, [Objection::InUse("swap on /dev/sdc1".to_owned()), Objection::ReadOnly, Objection::Large]);
        assert!(!found.iter().all(Objection::may_be_overridden));
        fs::remove_file(root.0.join("proc/self/mountinfo")).unwrap();
        assert!(matches!(root.objections("sdc").as_slice(), [Objection::InUse(_), ..]));
    }
}
