//! The archive of the image's configuration, `seed.bin` on the first partition: cpio in its `newc` form (kernel:
//! `Documentation/driver-api/early-userspace/buffer-format.rst`), as the kernel's own initramfs is.
//!
//! It comes from a partition that anybody with the card in hand can write: names lead nowhere but below the folder that it is
//! unpacked into, and everything is bounded.

use std::fs;
use std::io;
use std::path::{Component, Path};

/// Most bytes of an archive.
pub const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most entries.
const ENTRIES_MAX: usize = 4_096;
const MAGIC: &[u8] = b"070701";
const HEADER_BYTES: usize = 110;
const END: &str = "TRAILER!!!";
const KIND: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// One entry.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    name: &'a str,
    mode: u32,
    contents: &'a [u8],
}

/// Unpacks files and folders; anything else that an archive can hold is left out.
///
/// # Errors
/// Of the file system, and [`io::ErrorKind::InvalidData`] where it is no archive or has a name that leads elsewhere.
pub fn unpack(archive: &[u8], folder: &Path) -> io::Result<()> {
    let entries = read(archive).ok_or(io::ErrorKind::InvalidData)?;
    fs::create_dir_all(folder)?;
    for Entry { name, mode, contents } in entries {
        let path = folder.join(name);
        match mode & KIND {
            FOLDER => fs::create_dir_all(path)?,
            FILE => fs::write(path, contents)?,
            _ => {}
        }
    }
    Ok(())
}

/// All entries; `None` where it is no archive, or not a harmless one.
fn read(mut archive: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    loop {
        let header = archive.get(..HEADER_BYTES)?;
        let field = |index: usize| -> Option<u32> {
            let digits = header.get(6 + 8 * index..14 + 8 * index)?;
            u32::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
        };
        let (length, name_length) = (usize::try_from(field(6)?).ok()?, usize::try_from(field(11)?).ok()?);
        if !header.starts_with(MAGIC) || entries.len() == ENTRIES_MAX {
            return None;
        }
        let name_end = HEADER_BYTES.checked_add(name_length)?;
        let name = archive.get(HEADER_BYTES..name_end)?.strip_suffix(b"\0")?;
        let name = core::str::from_utf8(name).ok()?;
        if name == END {
            return Some(entries);
        }
        let begin = name_end.checked_next_multiple_of(4)?;
        let end = begin.checked_add(length)?;
        let is_below = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        let contents = archive.get(begin..end).filter(|_| is_below && !name.is_empty())?;
        entries.push(Entry { name, mode: field(1)?, contents });
        archive = archive.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, mode: u32, contents: &[u8]) -> Vec<u8> {
        let length = |bytes: usize| u32::try_from(bytes).unwrap();
        let words = [1, mode, 0, 0, 1, 0, length(contents.len()), 0, 0, 0, 0, length(name.len() + 1), 0];
        let words = words.map(|word| format!("{word:08x}"));
        let mut bytes = format!("070701{}{name}\0", words.concat()).into_bytes();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(contents);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn made(parts: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let entries = parts.iter().map(|(name, mode, contents)| entry(name, *mode, contents));
        [entries.collect::<Vec<_>>().concat(), entry(END, 0, b"")].concat()
    }

    #[test]
    fn files_come_out_with_their_names() {
        let bytes = made(&[("secrets", FOLDER, b""), ("secrets/key", FILE, b"abc"), ("portcullis.blob", FILE, b"")]);
        let entries = read(&bytes).unwrap();
        let names: Vec<&str> = entries.iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["secrets", "secrets/key", "portcullis.blob"]);
        assert_eq!(entries[1].contents, b"abc");
    }

    #[test]
    fn a_name_that_leads_elsewhere_makes_it_none() {
        for name in ["../x", "/etc/passwd", "a/../b", "", ".", "a/../../b"] {
            assert_eq!(read(&made(&[(name, FILE, b"x")])), None, "{name}");
        }
    }

    #[test]
    fn an_archive_cut_or_damaged_anywhere_never_panics() {
        let whole = made(&[("secrets", FOLDER, b""), ("secrets/key", FILE, b"abc")]);
        for length in 0..whole.len() - 8 {
            assert_eq!(read(&whole[..length]), None, "{length}");
        }
        for at in 0..whole.len() {
            for value in [0, b'0', b'f', b'/', 255] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = read(&damaged);
            }
        }
    }
}
