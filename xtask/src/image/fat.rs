//! A FAT32 file system that is written once: a root folder with files, each in one piece. And reading it back, as boot code does.
//!
//! By ourselves, because boot code wants exact short names, and because times and serial numbers must be the same each time.
//! Source: Microsoft's FAT specification of 2000, as `fsck.fat` reads it.

use crate::process::{Failure, Outcome};

/// Bytes of a sector, which is a cluster too: even a small partition has enough of them to count as FAT32.
pub const SECTOR: usize = 512;
const RESERVED_SECTORS: usize = 32;
const FATS: usize = 2;
const ROOT_CLUSTER: usize = 2;
/// Fewer clusters mean FAT16 to whoever reads it.
const CLUSTERS_MIN: usize = 65_525;
const END: u32 = 0x0FFF_FFFF;
const ENTRY: usize = 32;
/// 2026-01-01: a date that every reader takes for one.
const DATE: u16 = (46 << 9) | (1 << 5) | 1;

/// A file of the root folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// A name in lower case of at most eight characters, a dot and three.
    pub name: String,
    /// What is in it.
    pub contents: Vec<u8>,
}

/// The bytes of a partition of `sectors` sectors with these files, without the empty ones at its end.
pub fn write(label: &[u8; 11], serial: u32, start_sector: u32, sectors: usize, files: &[File]) -> Outcome<Vec<u8>> {
    let too_small = || Failure::new(format!("a boot partition of {sectors} sectors has no room for its files"));
    let fat_sectors = fat_sectors(sectors).ok_or_else(too_small)?;
    let first_data = RESERVED_SECTORS + FATS * fat_sectors;
    let clusters = sectors - first_data;
    let entries = files.len() + 1;
    let mut chains: Vec<usize> = vec![(entries * ENTRY).div_ceil(SECTOR)];
    chains.extend(files.iter().map(|file| file.contents.len().div_ceil(SECTOR)));
    let used: usize = chains.iter().sum();
    if used > clusters {
        return Err(too_small());
    }
    let mut fat: Vec<u32> = vec![0x0FFF_FFF8, END];
    let mut starts = Vec::new();
    for length in chains {
        starts.push(if length == 0 { 0 } else { fat.len() });
        for at in 0..length {
            let next = u32::try_from(fat.len() + 1).unwrap_or(END);
            fat.push(if at + 1 == length { END } else { next });
        }
    }
    let mut bytes = vec![0; (first_data + used) * SECTOR];
    let mut put = |at: usize, what: &[u8]| {
        if let Some(place) = bytes.get_mut(at..at + what.len()) {
            place.copy_from_slice(what);
        }
    };
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    for copy in [0, 6] {
        put(copy * SECTOR, &boot_sector(label, serial, start_sector, number(sectors), number(fat_sectors)));
        put((copy + 1) * SECTOR, &information(number(clusters - used), number(fat.len())));
    }
    let table: Vec<u8> = fat.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    for copy in 0..FATS {
        put((RESERVED_SECTORS + copy * fat_sectors) * SECTOR, &table);
    }
    let mut folder = entry(label, 0x08, 0, 0, 0).to_vec();
    for (file, start) in files.iter().zip(starts.iter().skip(1)) {
        let short = short_name(&file.name)
            .ok_or_else(|| Failure::new(format!("{} is no name that boot code reads", file.name)))?;
        // Both bits of "lower case": name and extension.
        folder.extend(entry(&short, 0x20, 0x18, number(*start), number(file.contents.len())));
        put((first_data + start.saturating_sub(ROOT_CLUSTER)) * SECTOR, &file.contents);
    }
    put(first_data * SECTOR, &folder);
    Ok(bytes)
}

/// Sectors of one table, for a partition of so many; `None`: it is too small for FAT32.
fn fat_sectors(sectors: usize) -> Option<usize> {
    let data = sectors.checked_sub(RESERVED_SECTORS)?;
    // One table sector is for 128 clusters; two entries stand before the first.
    let each = (data + 2 * 128).div_ceil(128 + FATS);
    let clusters = data.checked_sub(FATS * each)?;
    (clusters >= CLUSTERS_MIN).then_some(each)
}

fn boot_sector(label: &[u8; 11], serial: u32, start: u32, sectors: u32, fat_sectors: u32) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let mut put = |at: usize, what: &[u8]| {
        if let Some(place) = sector.get_mut(at..at + what.len()) {
            place.copy_from_slice(what);
        }
    };
    put(0, &[0xEB, 0x58, 0x90]);
    put(3, b"MSWIN4.1");
    put(11, &512_u16.to_le_bytes());
    put(13, &[1]);
    put(14, &32_u16.to_le_bytes());
    put(16, &[2]);
    put(21, &[0xF8]);
    put(24, &63_u16.to_le_bytes());
    put(26, &255_u16.to_le_bytes());
    put(28, &start.to_le_bytes());
    put(32, &sectors.to_le_bytes());
    put(36, &fat_sectors.to_le_bytes());
    put(44, &2_u32.to_le_bytes());
    put(48, &1_u16.to_le_bytes());
    put(50, &6_u16.to_le_bytes());
    put(64, &[0x80, 0, 0x29]);
    put(67, &serial.to_le_bytes());
    put(71, label);
    put(82, b"FAT32   ");
    put(510, &[0x55, 0xAA]);
    sector
}

/// The sector that tells how much is free, and where to look for it.
fn information(free: u32, next: u32) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    for (at, value) in [(0, 0x4161_5252), (484, 0x6141_7272), (488, free), (492, next), (508, 0xAA55_0000_u32)] {
        if let Some(place) = sector.get_mut(at..at + 4) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
    sector
}

fn entry(short: &[u8; 11], attributes: u8, case: u8, cluster: u32, bytes: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    let [low_0, low_1, high_0, high_1] = cluster.to_le_bytes();
    let [date_0, date_1] = DATE.to_le_bytes();
    let mut put = |at: usize, what: &[u8]| {
        if let Some(place) = entry.get_mut(at..at + what.len()) {
            place.copy_from_slice(what);
        }
    };
    put(0, short);
    put(11, &[attributes, case]);
    for at in [16, 18, 24] {
        put(at, &[date_0, date_1]);
    }
    put(20, &[high_0, high_1]);
    put(26, &[low_0, low_1]);
    put(28, &bytes.to_le_bytes());
    entry
}

fn short_name(name: &str) -> Option<[u8; 11]> {
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    let is_plain = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
    };
    if stem.is_empty() || stem.len() > 8 || extension.len() > 3 || !is_plain(stem) || !is_plain(extension) {
        return None;
    }
    format!("{:8}{:3}", stem.to_ascii_uppercase(), extension.to_ascii_uppercase()).into_bytes().try_into().ok()
}

/// The label of the FAT32 file system whose first sector this is; `None`: it is none.
pub fn label(sector: &[u8; SECTOR]) -> Option<&[u8; 11]> {
    let is_fat = sector.get(82..90) == Some(b"FAT32   ") && sector.ends_with(&[0x55, 0xAA]);
    sector.get(71..82).filter(|_| is_fat)?.try_into().ok()
}

/// Reads a file of the root folder out of a partition, following its chain as boot code does; `None`: it is not there, or the file
/// system cannot be read.
pub fn read(partition: &[u8], name: &str) -> Option<Vec<u8>> {
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(partition.get(at..at + 2)?.try_into().ok()?)));
    let word = |at: usize| usize::try_from(u32::from_le_bytes(partition.get(at..at + 4)?.try_into().ok()?)).ok();
    let reserved = half(14)?;
    let first_data = reserved + usize::from(*partition.get(16)?) * word(36)?;
    let cluster_bytes = usize::from(*partition.get(13)?) * SECTOR;
    let chain = |start: usize| {
        let mut bytes = Vec::new();
        let mut cluster = start;
        while (ROOT_CLUSTER..0x0FFF_FFF8).contains(&cluster) && bytes.len() <= partition.len() {
            let at = first_data * SECTOR + (cluster - ROOT_CLUSTER) * cluster_bytes;
            bytes.extend_from_slice(partition.get(at..at + cluster_bytes)?);
            cluster = word(reserved * SECTOR + cluster * 4)? & 0x0FFF_FFFF;
        }
        Some(bytes)
    };
    let short = short_name(name)?;
    let folder = chain(word(44)?)?;
    let found = folder.chunks_exact(ENTRY).find(|entry| entry.starts_with(&short))?;
    let at = |at: usize, length: usize| {
        found
            .get(at..at + length)?
            .iter()
            .rev()
            .try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))
    };
    let mut contents = chain(at(20, 2)? << 16 | at(26, 2)?)?;
    contents.truncate(at(28, 4)?);
    Some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: usize = 36 * 2_048;

    fn files() -> Vec<File> {
        let file = |name: &str, bytes: usize| File { name: name.to_owned(), contents: vec![7; bytes] };
        vec![file("config.txt", 10), file("kernel8.img", 5_000), file("empty", 0), file("exact.bin", 1_024)]
    }

    #[test]
    fn what_was_written_is_read() {
        let written = write(b"PORTCULLIS ", 1, 8_192, SECTORS, &files()).unwrap();
        for File { name, contents } in files() {
            assert_eq!(read(&written, &name), Some(contents), "{name}");
        }
        assert_eq!(read(&written, "absent.txt"), None);
        assert_eq!(read(&written[..700], "config.txt"), None);
        assert_eq!(written, write(b"PORTCULLIS ", 1, 8_192, SECTORS, &files()).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let big = File { name: "big".to_owned(), contents: vec![1; SECTORS * SECTOR] };
        assert!(write(b"PORTCULLIS ", 1, 0, SECTORS, &[big]).is_err());
        assert!(write(b"PORTCULLIS ", 1, 0, 60_000, &files()).is_err(), "too small for FAT32");
        let named = |name: &str| File { name: name.to_owned(), contents: Vec::new() };
        for name in ["bcm2837-rpi-3-b.dtb", "Config.txt", "", ".txt", "a.text"] {
            assert!(write(b"PORTCULLIS ", 1, 0, SECTORS, &[named(name)]).is_err(), "{name}");
        }
    }
}
