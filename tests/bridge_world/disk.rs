//! A disk in memory that keeps what it is told, and counts it. What a power cut leaves of a disk is the subject of other tests.

use portcullis::store::Disk;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

type File = Rc<RefCell<Vec<u8>>>;

#[derive(Clone, Default)]
pub struct MemoryDisk {
    files: Rc<RefCell<BTreeMap<String, File>>>,
    /// Bytes that were written since it was made.
    pub written: Rc<Cell<u64>>,
}

impl MemoryDisk {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.borrow().values().map(|file| file.borrow().len() as u64).sum()
    }

    fn find(&self, name: &str) -> io::Result<File> {
        self.files.borrow().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for MemoryDisk {
    type File = File;

    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.files.borrow().keys().cloned().collect())
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        self.find(name)
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<File> {
        let file = Rc::new(RefCell::new(vec![0; usize::try_from(bytes).unwrap()]));
        self.files.borrow_mut().insert(name.to_owned(), Rc::clone(&file));
        Ok(file)
    }

    fn read(&mut self, file: &mut File, limit: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let file = file.borrow();
        into.clear();
        into.extend(&file[..file.len().min(usize::try_from(limit).unwrap())]);
        Ok(())
    }

    fn write(&mut self, file: &mut File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = file.borrow_mut();
        let offset = usize::try_from(offset).unwrap();
        let end = offset + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset..end].copy_from_slice(bytes);
        self.written.set(self.written.get() + bytes.len() as u64);
        Ok(())
    }

    fn sync(&mut self, _: &mut File) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = self.find(from)?;
        let mut files = self.files.borrow_mut();
        files.remove(from);
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.find(name)?;
        self.files.borrow_mut().remove(name);
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        Ok(1 << 40)
    }
}
