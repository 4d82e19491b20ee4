//! The card as a whole: a master boot record, three FAT partitions, and ext4 for what is to survive.
//!
//! ```text
//!    (gap)        which slot starts: the boot state, at 1 MiB
//! 1  PORTCULLIS   firmware, U-Boot, gateway.cfg for people
//! 2  slot A       device trees, kernel, initramfs
//! 3  slot B       the same, for an update
//! 4  data         configuration, secrets, the broker's log
//! ```
//!
//! **Invariant:** this layout never changes: cards in the field keep theirs, whatever is updated.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;

use super::LABELS;
use super::fat::{self, SECTOR};
use crate::process::{self, Failure, Outcome};
use crate::workspace;

/// A partition: its number, first sector and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// First sector.
    pub start: usize,
    /// Sectors.
    pub sectors: usize,
}

const MEBIBYTE: usize = (1 << 20) / SECTOR;
/// Flash has erase blocks of this size.
const ALIGNMENT: usize = 4 * MEBIBYTE;
/// Firmware, U-Boot and settings.
pub const FIRST: Partition = Partition { start: ALIGNMENT, sectors: 36 * MEBIBYTE };
/// The two slots. Kernels grow: what is needed now is a third of it.
pub const SLOTS: [Partition; 2] = [
    Partition { start: 40 * MEBIBYTE, sectors: 64 * MEBIBYTE },
    Partition { start: 104 * MEBIBYTE, sectors: 64 * MEBIBYTE },
];
const DATA_START: usize = 168 * MEBIBYTE;
/// What FAT with 32 bits and LBA, and Linux, are called in the record.
const FAT32: u8 = 0x0C;
const LINUX: u8 = 0x83;
/// Identifier of every card, and of its data's file system: nobody tells two cards apart by it.
const DISK_IDENTIFIER: u32 = 0x504F_5254;
const DATA_IDENTIFIER: &str = "504f5254-4355-4c4c-8953-000000000001";
/// The day that files without one get, 2026-01-01.
const EPOCH: &str = "1767225600";
/// What the data partition's file system has, whatever the host's defaults are.
const EXT4: &str = "[defaults]\n\
    base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr\n\
    default_mntopts = acl,user_xattr\nblocksize = 4096\ninode_size = 256\ninode_ratio = 16384\n\
    [fs_types]\next4 = {\nfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize\n}\nsmall = {\ninode_ratio = 16384\n}\n";

/// The data partition of `mebibytes` MiB.
pub const fn data(mebibytes: usize) -> Partition {
    Partition { start: DATA_START, sectors: mebibytes * MEBIBYTE }
}

fn bytes(sectors: usize) -> u64 {
    u64::try_from(sectors * SECTOR).unwrap_or(u64::MAX)
}

/// Writes an image. It is sparse: what is empty takes no room on this disk.
///
/// The first partition has the configuration's keys: the image is its owner's only.
///
/// Both slots get the same contents: a slot that cannot be read has another one from the first day on.
pub fn write(image: &Path, first: &[u8], slot: &[u8], data_mebibytes: usize) -> Outcome {
    let fault = |error: &std::io::Error| Failure::file("write", image, error);
    let data = data(data_mebibytes);
    let partial = image.with_extension("partial");
    let mut file = workspace::private_file(&partial)?;
    file.set_len(bytes(data.start + data.sectors)).map_err(|error| fault(&error))?;
    let mut put = |at: usize, what: &[u8]| -> std::io::Result<()> {
        for (index, piece) in (0..).zip(what.chunks(4_096)) {
            if piece.iter().any(|byte| *byte != 0) {
                file.seek(SeekFrom::Start(bytes(at) + index * 4_096))?;
                file.write_all(piece)?;
            }
        }
        Ok(())
    };
    let [slot_a, slot_b] = SLOTS;
    let record = record(&[(FIRST, FAT32), (slot_a, FAT32), (slot_b, FAT32), (data, LINUX)]);
    let empty = ext4(image, data_mebibytes)?;
    put(0, &record)
        .and_then(|()| put(FIRST.start, first))
        .and_then(|()| put(slot_a.start, slot))
        .and_then(|()| put(slot_b.start, slot))
        .and_then(|()| put(data.start, &empty))
        .map_err(|error| fault(&error))?;
    file.sync_all().map_err(|error| fault(&error))?;
    std::fs::rename(&partial, image).map_err(|error| fault(&error))
}

/// The bytes of an empty ext4 file system, the same each time.
fn ext4(image: &Path, mebibytes: usize) -> Outcome<Vec<u8>> {
    let scratch = image.with_extension("ext4");
    let configuration = image.with_extension("mke2fs");
    workspace::write(&configuration, EXT4)?;
    let file = File::create(&scratch).map_err(|error| Failure::file("write", &scratch, &error))?;
    let length = u64::try_from(mebibytes << 20).unwrap_or(u64::MAX);
    file.set_len(length).map_err(|error| Failure::file("write", &scratch, &error))?;
    let program = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|path| Path::new(path).is_file());
    let mut command = Command::new(program.unwrap_or("mke2fs"));
    command.env("MKE2FS_CONFIG", &configuration).env("E2FSPROGS_FAKE_TIME", EPOCH).env("SOURCE_DATE_EPOCH", EPOCH);
    command.args(["-q", "-F", "-t", "ext4", "-L", "portcullis-data", "-U", DATA_IDENTIFIER, "-m", "1"]);
    command.arg("-E").arg(format!("hash_seed={DATA_IDENTIFIER},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"));
    process::run(command.arg(&scratch))?;
    let contents = std::fs::read(&scratch).map_err(|error| Failure::file("read", &scratch, &error))?;
    for path in [&scratch, &configuration] {
        std::fs::remove_file(path).map_err(|error| Failure::file("remove", path, &error))?;
    }
    Ok(contents)
}

fn record(partitions: &[(Partition, u8); 4]) -> [u8; SECTOR] {
    let mut record = [0; SECTOR];
    let mut put = |at: usize, what: &[u8]| {
        if let Some(place) = record.get_mut(at..at + what.len()) {
            place.copy_from_slice(what);
        }
    };
    put(440, &DISK_IDENTIFIER.to_le_bytes());
    for (index, (partition, kind)) in partitions.iter().enumerate() {
        let at = 446 + 16 * index;
        // Cylinders, heads and sectors have not been believed for thirty years: "see the other numbers".
        put(at, &[0, 0xFE, 0xFF, 0xFF, *kind, 0xFE, 0xFF, 0xFF]);
        put(at + 8, &u32::try_from(partition.start).unwrap_or(u32::MAX).to_le_bytes());
        put(at + 12, &u32::try_from(partition.sectors).unwrap_or(u32::MAX).to_le_bytes());
    }
    put(510, &[0x55, 0xAA]);
    record
}

/// The partitions of a master boot record; `None`: it is none.
fn table(record: &[u8; SECTOR]) -> Option<[Partition; 4]> {
    let word = |at: usize| {
        let word = record.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)?;
        usize::try_from(word).ok()
    };
    let partition = |index: usize| {
        let at = 446 + 16 * index;
        Some(Partition { start: word(at + 8)?, sectors: word(at + 12)? })
    };
    if !record.ends_with(&[0x55, 0xAA]) {
        return None;
    }
    Some([partition(0)?, partition(1)?, partition(2)?, partition(3)?])
}

/// The partition with this number, from 1 on, as an image's own record has it, read whole.
pub fn read(image: &Path, number: usize) -> Outcome<Vec<u8>> {
    let fault = |error: &std::io::Error| Failure::file("read", image, error);
    let mut file = File::open(image).map_err(|error| fault(&error))?;
    let mut record = [0; SECTOR];
    file.read_exact(&mut record).map_err(|error| fault(&error))?;
    let none = || Failure::new(format!("{} has no partition {number}", image.display()));
    let partitions = table(&record).ok_or_else(none)?;
    let Partition { start, sectors } =
        *number.checked_sub(1).and_then(|index| partitions.get(index)).ok_or_else(none)?;
    if sectors == 0 || sectors > 1 << 22 {
        return Err(none());
    }
    file.seek(SeekFrom::Start(bytes(start))).map_err(|error| fault(&error))?;
    let mut contents = Vec::new();
    file.take(bytes(sectors)).read_to_end(&mut contents).map_err(|error| fault(&error))?;
    Ok(contents)
}

/// Makes sure that a file is the image of a card, and all of it: the partitions of [`write()`], the first one with its label, and as many
/// bytes as they say. A boot slot ends its first sector with the same mark as a card does, and so does a copy that broke off.
pub fn recognise(image: &Path) -> Outcome {
    let fault = |error: &std::io::Error| Failure::file("read", image, error);
    let mut file = File::open(image).map_err(|error| fault(&error))?;
    let length = file.metadata().map_err(|error| fault(&error))?.len();
    let mut sector_at = |start: usize| -> Option<[u8; SECTOR]> {
        let mut sector = [0; SECTOR];
        file.seek(SeekFrom::Start(bytes(start))).and_then(|_| file.read_exact(&mut sector)).ok()?;
        Some(sector)
    };
    let no_image = || Failure::new(format!("{} is no image of a card", image.display()));
    let record = sector_at(0).ok_or_else(no_image)?;
    let [_, slot_label] = LABELS;
    if fat::label(&record) == Some(slot_label) {
        let card = image.with_extension("img");
        return Err(Failure::new(format!(
            "{} is a boot slot and no image of a card; that would be {}",
            image.display(),
            card.display()
        )));
    }
    let [slot_a, slot_b] = SLOTS;
    let last = match table(&record) {
        Some([first, a, b, last]) if (first, a, b, last.start) == (FIRST, slot_a, slot_b, DATA_START) => last,
        Some(_) | None => return Err(no_image()),
    };
    let whole = bytes(last.start + last.sectors);
    if length < whole {
        return Err(Failure::new(format!("{} is cut off: {length} of {whole} bytes", image.display())));
    }
    let first = sector_at(FIRST.start).ok_or_else(no_image)?;
    let [first_label, _] = LABELS;
    if fat::label(&first) == Some(first_label) { Ok(()) } else { Err(no_image()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_each_other_on_erase_blocks() {
        let [a, b] = SLOTS;
        let all = [FIRST, a, b, data(64)];
        for pair in all.windows(2) {
            assert!(pair[0].start + pair[0].sectors <= pair[1].start);
        }
        assert!(all.iter().all(|partition| partition.start % ALIGNMENT == 0));
        let record = record(&[(FIRST, FAT32), (a, FAT32), (b, FAT32), (data(64), LINUX)]);
        assert_eq!(record[446 + 4], FAT32);
        assert_eq!(record[446 + 8..446 + 12], 8_192_u32.to_le_bytes());
        assert_eq!(record[510..], [0x55, 0xAA]);
    }

    #[test]
    fn a_card_is_recognised_and_a_slot_a_piece_and_another_s_card_are_not() {
        let folder = std::env::temp_dir().join(format!("portcullis-recognise-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let image = folder.join("gateway.img");
        let [a, b] = SLOTS;
        let first = fat::write(LABELS[0], 1, 8_192, FIRST.sectors, &[]).unwrap();
        let slot = fat::write(LABELS[1], 2, 0, a.sectors, &[]).unwrap();
        let card = |partitions: [(Partition, u8); 4], first: &[u8], length: u64| {
            let mut file = File::create(&image).unwrap();
            file.write_all(&record(&partitions)).unwrap();
            file.seek(SeekFrom::Start(bytes(FIRST.start))).unwrap();
            file.write_all(first).unwrap();
            file.set_len(length).unwrap();
            recognise(&image).map_err(|failure| failure.to_string())
        };
        let ours = [(FIRST, FAT32), (a, FAT32), (b, FAT32), (data(64), LINUX)];
        let whole = bytes(DATA_START + data(64).sectors);
        assert_eq!(card(ours, &first, whole), Ok(()));
        assert_eq!(card(ours, &first, whole.next_power_of_two()), Ok(()), "the copy of an emulator");
        let cut = card(ours, &first, whole - 1).unwrap_err();
        assert!(cut.contains(&format!("cut off: {} of {whole} bytes", whole - 1)), "{cut}");
        assert!(card(ours, &first, 700).unwrap_err().contains("cut off: 700 of"));
        assert!(card(ours, &slot, whole).unwrap_err().contains("no image"), "another label");
        let another = [(FIRST, FAT32), (a, FAT32), (b, FAT32), (Partition { start: 8, sectors: 8 }, LINUX)];
        assert!(card(another, &first, whole).unwrap_err().contains("no image"), "somebody else's card");
        let path = folder.join("gateway.slot");
        std::fs::write(&path, &slot).unwrap();
        let refused = recognise(&path).unwrap_err().to_string();
        assert!(refused.contains("boot slot") && refused.contains("gateway.img"), "{refused}");
        std::fs::write(&path, "not an image").unwrap();
        assert!(recognise(&path).unwrap_err().to_string().contains("no image"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
