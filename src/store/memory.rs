//! A disk in memory, for tests of the rooms above.
#![allow(clippy::unwrap_used)]

use super::Disk;
use std::collections::BTreeMap;
use std::io;

/// A disk in memory that keeps everything.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// By name.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Whether writes fail.
    pub fails: bool,
    /// Bytes that new files can have; `None`: enough.
    pub free: Option<u64>,
}

impl Disk for Memory {
    type File = String;

    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn open(&mut self, name: &str) -> io::Result<String> {
        self.files.contains_key(name).then(|| name.to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<String> {
        if self.free.is_some_and(|free| free < bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.free = self.free.map(|free| free - bytes);
        self.files.insert(name.to_owned(), vec![0; bytes as usize]);
        Ok(name.to_owned())
    }

    fn read(&mut self, file: &mut String, _: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clone_from(&self.files[file]);
        Ok(())
    }

    fn write(&mut self, file: &mut String, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.fails {
            return Err(io::ErrorKind::Other.into());
        }
        let offset = offset as usize;
        self.files.get_mut(file).unwrap()[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, _: &mut String) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let bytes = self.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        Ok(self.free.unwrap_or(1 << 40))
    }
}
