//! The archive of a configuration and of what lies beside it: cpio in its `newc` form (kernel:
//! `Documentation/driver-api/early-userspace/buffer-format.rst`), as the kernel's own initramfs is. `seed.bin` on the first partition
//! of a card is one, and the payload of an update may be one.
//!
//! The first comes from a partition that anybody with the card in hand can write: names lead nowhere but below the folder that it is
//! unpacked into, and everything is bounded.

use std::fs;
use std::io;
use std::path::{Component, Path};

/// Most bytes of an archive.
pub const BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Most entries.
const ENTRIES_MAX: usize = 4_096;
/// What each begins with.
pub const MAGIC: &[u8] = b"070701";
const HEADER_BYTES: usize = 110;
const END: &str = "TRAILER!!!";
const KIND: u32 = 0o170_000;
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path: parts with `/` between them, which lead down only.
    pub name: &'a str,
    /// What it is.
    pub kind: EntryKind,
    /// Of a file.
    pub contents: &'a [u8],
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// Something else that an archive can hold.
    Other,
}

impl EntryKind {
    const fn of(mode: u32) -> Self {
        match mode & KIND {
            FOLDER => Self::Folder,
            FILE => Self::File,
            _ => Self::Other,
        }
    }
}

/// An archive that is being made. Who reads it wants a folder before what is in it.
#[derive(Debug, Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER | 0o700, b"");
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, contents: &[u8]) {
        self.entry(name, FILE | 0o600, contents);
    }

    /// Bytes so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.0.len() as u64
    }

    /// Ends it.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, b"");
        self.0
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        // Nobody takes an archive of more than `BYTES_MAX`.
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.0.extend_from_slice(MAGIC);
        for word in [0, mode, 0, 0, 1, 0, length(contents.len()), 0, 0, 0, 0, length(name.len() + 1), 0] {
            self.0.extend_from_slice(format!("{word:08x}").as_bytes());
        }
        for part in [&[name.as_bytes(), b"\0"].concat(), contents] {
            self.0.extend_from_slice(part);
            self.0.resize(self.0.len().next_multiple_of(4), 0);
        }
    }
}

/// Unpacks files and folders; anything else that an archive can hold is left out.
///
/// # Errors
/// Of the file system, and [`io::ErrorKind::InvalidData`] where it is no archive or has a name that leads elsewhere.
pub fn unpack(archive: &[u8], folder: &Path) -> io::Result<()> {
    let entries = read(archive).ok_or(io::ErrorKind::InvalidData)?;
    fs::create_dir_all(folder)?;
    for Entry { name, kind, contents } in entries {
        let path = folder.join(name);
        match kind {
            EntryKind::Folder => fs::create_dir_all(path)?,
            EntryKind::File => fs::write(path, contents)?,
            EntryKind::Other => {}
        }
    }
    Ok(())
}

/// All entries; `None` where it is no archive, or not a harmless one.
#[must_use]
pub fn read(mut archive: &[u8]) -> Option<Vec<Entry<'_>>> {
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
        entries.push(Entry { name, kind: EntryKind::of(field(1)?), contents });
        archive = archive.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(parts: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let mut archive = Archive::default();
        parts.iter().for_each(|(name, mode, contents)| archive.entry(name, *mode, contents));
        archive.finish()
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
