//! A disk that loses its power after so many operations, and blocks for good.

use super::*;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

const SECTOR_BYTES: usize = 512;
/// Of a sector that was being written: less than any text that begins there.
const TORN_BYTES: usize = 8;
type Sectors = BTreeMap<u64, [u8; SECTOR_BYTES]>;

/// A disk of zeros.
#[derive(Clone, Debug)]
pub struct Disk {
    bytes: u64,
    /// What a reader gets.
    seen: RefCell<Sectors>,
    /// What power cannot take away.
    kept: RefCell<Sectors>,
    /// Numbers of blocks of [`BLOCK_BYTES`] that cannot be read.
    lost: RefCell<BTreeSet<u64>>,
    /// What was written since, in order.
    unsynced: RefCell<Vec<(u64, [u8; SECTOR_BYTES])>>,
    operations: Cell<u32>,
    /// Operations until the power goes; `None`: it has.
    left: Cell<Option<u32>>,
}

impl Disk {
    /// One of so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self {
            bytes,
            seen: RefCell::default(),
            kept: RefCell::default(),
            lost: RefCell::default(),
            unsynced: RefCell::default(),
            operations: Cell::new(0),
            left: Cell::new(Some(u32::MAX)),
        }
    }

    /// Writes and syncs so far.
    pub fn operations(&self) -> u32 {
        self.operations.get()
    }

    /// Only so many further operations are done; in the next one the power goes.
    pub fn lose_power_after(&self, operations: u32) {
        self.left.set(Some(operations));
    }

    /// The power comes back. Of what was not synced nothing is there, or every other sector and a little of the last one.
    pub fn restart(&mut self, is_torn: bool) {
        let unsynced = self.unsynced.take();
        let last = unsynced.len().saturating_sub(1);
        let mut kept = self.kept.borrow().clone();
        if is_torn {
            for (index, (place, sector)) in unsynced.into_iter().enumerate() {
                let into = kept.entry(place).or_insert([0; SECTOR_BYTES]);
                if index == last {
                    into[..TORN_BYTES].copy_from_slice(&sector[..TORN_BYTES]);
                } else if index % 2 == 0 {
                    *into = sector;
                }
            }
        }
        self.restart_with(kept);
    }

    /// The power comes back. Of what was not synced a little of the first sector is there.
    pub fn restart_begun(&mut self) {
        let mut kept = self.kept.borrow().clone();
        if let Some((place, sector)) = self.unsynced.take().first() {
            let into = kept.entry(*place).or_insert([0; SECTOR_BYTES]);
            into[..TORN_BYTES].copy_from_slice(&sector[..TORN_BYTES]);
        }
        self.restart_with(kept);
    }

    fn restart_with(&mut self, kept: Sectors) {
        self.kept = RefCell::new(kept.clone());
        self.seen = RefCell::new(kept);
        self.left.set(Some(u32::MAX));
    }

    /// From now on the block at this place cannot be read, until it is written whole. To write a part of it, it is read first.
    pub fn lose_block(&self, at: u64) {
        self.lost.borrow_mut().insert(at / BLOCK_BYTES as u64);
    }

    /// Whether these bytes touch a block that cannot be read.
    fn is_lost(&self, bytes: usize, at: u64) -> bool {
        let block = BLOCK_BYTES as u64;
        self.lost.borrow().range(at / block..(at + bytes as u64).div_ceil(block)).next().is_some()
    }

    /// Whether the power is there for the whole of one more operation.
    ///
    /// # Errors
    /// It had gone before.
    fn operate(&self) -> io::Result<bool> {
        let left = self.left.get().ok_or(ErrorKind::BrokenPipe)?;
        self.operations.set(self.operations.get() + 1);
        self.left.set(left.checked_sub(1));
        Ok(left > 0)
    }
}

/// A partition of one.
#[derive(Debug)]
pub struct Part<'a> {
    /// The disk.
    pub disk: &'a Disk,
    /// Where it begins, bytes.
    pub begin: u64,
    /// Its length.
    pub bytes: u64,
}

impl Medium for Part<'_> {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        assert!(at + piece.len() as u64 <= self.bytes);
        self.disk.read_at(piece, self.begin + at)
    }

    fn write_at(&self, piece: &[u8], at: u64) -> io::Result<()> {
        assert!(at + piece.len() as u64 <= self.bytes);
        self.disk.write_at(piece, self.begin + at)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn digest(&self, bytes: u64) -> io::Result<[u8; 32]> {
        let mut whole = vec![0; usize::try_from(bytes).unwrap()];
        self.read_at(&mut whole, 0)?;
        Ok(Sha256::digest(&whole).into())
    }
}

impl Medium for Disk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, piece: &mut [u8], at: u64) -> io::Result<()> {
        assert!(at.is_multiple_of(512) && at + piece.len() as u64 <= self.bytes);
        self.left.get().ok_or(ErrorKind::BrokenPipe)?;
        if self.is_lost(piece.len(), at) {
            return Err(rustix::io::Errno::IO.into());
        }
        let seen = self.seen.borrow();
        for (index, part) in piece.chunks_mut(SECTOR_BYTES).enumerate() {
            match seen.get(&(at / 512 + index as u64)) {
                Some(sector) => part.copy_from_slice(&sector[..part.len()]),
                None => part.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, piece: &[u8], at: u64) -> io::Result<()> {
        assert!(at.is_multiple_of(512) && at + piece.len() as u64 <= self.bytes);
        let block = BLOCK_BYTES as u64;
        let end = at + piece.len() as u64;
        self.lost.borrow_mut().retain(|lost| lost * block < at || (lost + 1) * block > end);
        if self.is_lost(piece.len(), at) {
            return Err(rustix::io::Errno::IO.into());
        }
        let has_power = self.operate()?;
        for (index, part) in piece.chunks(SECTOR_BYTES).enumerate() {
            let place = at / 512 + index as u64;
            let mut sector = self.seen.borrow().get(&place).copied().unwrap_or([0; SECTOR_BYTES]);
            sector[..part.len()].copy_from_slice(part);
            self.seen.borrow_mut().insert(place, sector);
            self.unsynced.borrow_mut().push((place, sector));
        }
        if has_power { Ok(()) } else { Err(ErrorKind::BrokenPipe.into()) }
    }

    fn sync(&self) -> io::Result<()> {
        if !self.operate()? {
            return Err(ErrorKind::BrokenPipe.into());
        }
        self.unsynced.borrow_mut().clear();
        self.kept.replace(self.seen.borrow().clone());
        Ok(())
    }

    fn digest(&self, bytes: u64) -> io::Result<[u8; 32]> {
        let mut whole = vec![0; usize::try_from(bytes).unwrap()];
        self.read_at(&mut whole, 0)?;
        Ok(Sha256::digest(&whole).into())
    }
}
