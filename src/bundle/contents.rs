//! What an update of a configuration brings: a blob, and folders that take the place of those beside the one in force.

use super::archive::{self, Entry, EntryKind, MAGIC};
use super::{BLOB, FOLDERS};

/// Most parts of a name: a file in a folder of a folder of a slot, and one to spare.
const PARTS_MAX: usize = 4;

/// A payload, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents<'a> {
    /// The blob.
    pub blob: &'a [u8],
    /// Folders and files, each behind the folder that it is in. All of a slot's folder is brought where any of it is.
    pub beside: Vec<Entry<'a>>,
}

impl<'a> Contents<'a> {
    /// Takes a payload apart: a blob, or an archive.
    ///
    /// # Errors
    /// Why it is none: the archive is damaged, has no blob, or has what does not belong beside one.
    pub fn read(payload: &'a [u8]) -> Result<Self, &'static str> {
        if !payload.starts_with(MAGIC) {
            return Ok(Self { blob: payload, beside: Vec::new() });
        }
        let entries = archive::read(payload).ok_or("its archive is damaged")?;
        let (mut blob, mut beside) = (None, Vec::new());
        for entry in entries {
            let parts = entry.name.split('/').count();
            let is_beside = FOLDERS.contains(&top(entry.name)) && (parts > 1 || entry.kind == EntryKind::Folder);
            if entry.name == BLOB && entry.kind == EntryKind::File {
                blob = Some(entry.contents);
            } else if is_beside && parts <= PARTS_MAX && entry.kind != EntryKind::Other {
                beside.push(entry);
            } else {
                return Err("its archive has something that belongs to no configuration");
            }
        }
        Ok(Self { blob: blob.ok_or("its archive has no blob")?, beside })
    }

    /// How many entries it brings beside the blob, and how many bytes.
    pub fn beside_size(&self) -> (u32, u64) {
        let add = |(entries, bytes), entry: &Entry<'_>| (entries + 1, bytes + entry.contents.len() as u64);
        self.beside.iter().fold((0, 0), add)
    }

    /// Names of the slot's folders that it brings.
    pub fn folders(&self) -> impl Iterator<Item = &'static str> {
        FOLDERS.into_iter().filter(|folder| self.beside.iter().any(|entry| top(entry.name) == *folder))
    }
}

/// The first part of a name.
fn top(name: &str) -> &str {
    name.split_once('/').map_or(name, |(top, _)| top)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::bundle::archive::Archive;

    fn archive(parts: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
        let mut archive = Archive::default();
        for (name, contents) in parts {
            match contents {
                Some(contents) => archive.file(name, contents),
                None => archive.folder(name),
            }
        }
        archive.finish()
    }

    #[test]
    fn a_payload_is_a_blob_or_an_archive_of_one_and_of_folders() {
        let blob = Contents::read(b"PORTBLOB...").unwrap();
        assert_eq!((blob.blob, blob.beside.len(), blob.folders().count()), (&b"PORTBLOB..."[..], 0, 0));
        let bytes = archive(&[
            ("revocation", None),
            ("revocation/deny.yaml", Some(b"[]")),
            (BLOB, Some(b"b")),
            ("issuers", None),
        ]);
        let contents = Contents::read(&bytes).unwrap();
        assert_eq!((contents.blob, contents.beside.len()), (&b"b"[..], 3));
        assert_eq!(contents.folders().collect::<Vec<_>>(), ["issuers", "revocation"]);
    }

    #[test]
    fn what_belongs_to_no_configuration_is_refused() {
        let blob = (BLOB, Some(&b"b"[..]));
        for (parts, expected) in [
            (&[("revocation", None)][..], "no blob"),
            (&[blob, ("a.version", Some(b"9"))], "belongs to no"),
            (&[blob, ("secrets", Some(b"a file"))], "belongs to no"),
            (&[blob, ("current", None)], "belongs to no"),
            (&[blob, ("secrets/a/b/c/d", Some(b""))], "belongs to no"),
            (&[(BLOB, None)], "belongs to no"),
            (&[blob, ("secrets/../current", Some(b""))], "damaged"),
        ] {
            let fault = Contents::read(&archive(parts)).unwrap_err();
            assert!(fault.contains(expected), "{parts:?}: {fault}");
        }
        let whole = archive(&[blob]);
        assert!(Contents::read(&whole[..whole.len() - 8]).is_err());
    }
}
