//! A disk in memory that remembers what it was told and in which order, and can lose power at any moment.
//!
//! In: the calls of [`Disk`], and faults that are to happen. Out: the folder as the program sees it, and *crash states*: folders
//! as they may be found after the power was gone. What was synced is there. Of what was not, each write may be there, in part
//! or not at all, each name may be the old or the new one, and a file whose length was not synced may have any.
//!
//! A sync that fails is believed by nobody: what was written before it may be there or not, and no later sync changes that.
//!
//! Nothing here knows what the files mean.

#![allow(dead_code)] // each test uses its part

use portcullis::store::Disk;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Bytes that a disk writes at once, at least.
pub const SECTOR_BYTES: usize = 512;
/// Writes up to this length are torn at every byte.
const SMALL_WRITE_BYTES: usize = 96;
/// Sets of sectors and names that are drawn for each moment.
const DRAWN_STATES: usize = 4;

/// xorshift64*: enough for a test, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// All that is drawn follows from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    /// Whether it happens this time.
    pub const fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A kind of call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create,
    Write,
    Sync,
    Rename,
    Remove,
    SyncNames,
}

/// A fault that is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What fails.
    pub call: Call,
    /// How many of these calls succeed before.
    pub after: usize,
    /// How many fail then; `usize::MAX` for all.
    pub times: usize,
    /// With what.
    pub error: io::ErrorKind,
}

/// A change that is not on the disk yet. Files are known by number, because names change.
#[derive(Clone, Debug)]
enum Operation {
    Create { name: String, file: usize },
    Write { file: usize, offset: usize, bytes: Vec<u8> },
    Sync { file: usize },
    FailedSync { file: usize },
    Rename { from: String, to: String, file: usize },
    Remove { name: String },
    SyncNames,
}

/// What a disk holds.
#[derive(Clone, Debug, Default)]
struct Contents {
    files: Vec<Vec<u8>>,
    names: BTreeMap<String, usize>,
}

impl Contents {
    fn write(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        let contents = &mut self.files[file];
        let end = offset + bytes.len();
        if contents.len() < end {
            contents.resize(end, 0);
        }
        contents[offset..end].copy_from_slice(bytes);
    }

    fn change_names(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { name, file } => {
                self.names.insert(name.clone(), *file);
            }
            Operation::Rename { from, to, file } => {
                self.names.remove(from);
                self.names.insert(to.clone(), *file);
            }
            Operation::Remove { name } => {
                self.names.remove(name);
            }
            Operation::Write { .. } | Operation::Sync { .. } | Operation::FailedSync { .. } | Operation::SyncNames => {}
        }
    }

    fn by_name(&self) -> Files {
        self.names.iter().map(|(name, file)| (name.clone(), self.files[*file].clone())).collect()
    }
}

/// The disk after some of the operations: what is safe, and what may be there.
#[derive(Clone, Debug, Default)]
struct Moment {
    safe: Contents,
    /// Writes that no sync has covered: file, offset, bytes, and whether a later sync can cover it.
    writes: Vec<(usize, usize, Vec<u8>, bool)>,
    names: Vec<Operation>,
    /// Lengths of files that were made and never synced.
    unsynced_lengths: BTreeMap<usize, usize>,
}

impl Moment {
    fn of(files: Files) -> Self {
        let mut safe = Contents::default();
        for (name, bytes) in files {
            safe.names.insert(name, safe.files.len());
            safe.files.push(bytes);
        }
        Self { safe, ..Self::default() }
    }

    fn advance(&mut self, operation: &Operation, length: usize) {
        match operation {
            Operation::Create { file, .. } => {
                self.safe.files.resize(self.safe.files.len().max(file + 1), Vec::new());
                self.safe.files[*file] = vec![0; length];
                self.unsynced_lengths.insert(*file, length);
                self.names.push(operation.clone());
            }
            Operation::Write { file, offset, bytes } => self.writes.push((*file, *offset, bytes.clone(), true)),
            Operation::Sync { file } => {
                self.unsynced_lengths.remove(file);
                let safe = &mut self.safe;
                self.writes.retain(|(written, offset, bytes, can_be_safe)| {
                    let becomes_safe = written == file && *can_be_safe;
                    if becomes_safe {
                        safe.write(*written, *offset, bytes);
                    }
                    !becomes_safe
                });
            }
            Operation::FailedSync { file } => {
                for (_, _, _, can_be_safe) in self.writes.iter_mut().filter(|(written, ..)| written == file) {
                    *can_be_safe = false;
                }
            }
            Operation::Rename { .. } | Operation::Remove { .. } => self.names.push(operation.clone()),
            Operation::SyncNames => {
                for operation in self.names.drain(..) {
                    self.safe.change_names(&operation);
                }
            }
        }
    }

    /// The folder if of each write the parts that `part` leaves, and the names that `named` lets through, are there.
    fn crash(&self, mut part: impl FnMut(usize, &mut Vec<Part>), mut named: impl FnMut(usize) -> bool) -> Files {
        let mut contents = self.safe.clone();
        let mut parts = Vec::new();
        for (index, (file, offset, bytes, _)) in self.writes.iter().enumerate() {
            parts.clear();
            part(index, &mut parts);
            for Part { begin, end } in &parts {
                let end = (*end).min(bytes.len());
                contents.write(*file, offset + begin.min(&end), &bytes[*begin.min(&end)..end]);
            }
        }
        for (_, operation) in self.names.iter().enumerate().filter(|(index, _)| named(*index)) {
            contents.change_names(operation);
        }
        contents.by_name()
    }

    /// Offsets within write `index` at which it may be torn.
    fn tears(&self, index: usize, random: &mut Random) -> Vec<usize> {
        let (_, offset, bytes, _) = &self.writes[index];
        if bytes.len() <= SMALL_WRITE_BYTES {
            return (1..bytes.len()).collect();
        }
        let first = SECTOR_BYTES - offset % SECTOR_BYTES;
        let mut tears: Vec<usize> = (first..bytes.len()).step_by(SECTOR_BYTES).collect();
        tears.extend((0..3).map(|_| 1 + random.below(bytes.len() - 1)));
        tears
    }

    /// Each write loses some of its sectors, or all, or none.
    fn draw(&self, random: &mut Random) -> Files {
        let sectors = |index: usize, parts: &mut Vec<Part>, random: &mut Random| {
            let (_, offset, bytes, _) = &self.writes[index];
            let sector = if random.chance(50) { SECTOR_BYTES } else { 8 * SECTOR_BYTES };
            let share = [0, 50, 90, 100][random.below(4)];
            let mut begin = 0;
            while begin < bytes.len() {
                let end = (begin + sector - (offset + begin) % sector).min(bytes.len());
                if random.chance(share) {
                    parts.push(Part { begin, end });
                }
                begin = end;
            }
        };
        let kept: Vec<bool> = self.names.iter().map(|_| random.chance(50)).collect();
        let mut contents = Self::of(self.crash(|index, parts| sectors(index, parts, random), |index| kept[index])).safe;
        // The length of a file that was never synced is a matter of its own.
        for (file, length) in &self.unsynced_lengths {
            let name = self.names.iter().rev().find_map(|operation| match operation {
                Operation::Create { name, file: made } | Operation::Rename { to: name, file: made, .. } => {
                    (made == file).then_some(name)
                }
                _ => None,
            });
            if let Some(file) = name.and_then(|name| contents.names.get(name)).copied() {
                let kept = [0, random.below(length + 1), *length][random.below(3)];
                contents.files[file].truncate(kept);
            }
        }
        contents.by_name()
    }

    /// Calls `visit` with the folders that may be found.
    fn each_crash(&self, random: &mut Random, visit: &mut impl FnMut(Files)) {
        const WHOLE: Part = Part { begin: 0, end: usize::MAX };
        visit(self.crash(|_, _| {}, |_| false));
        if self.writes.is_empty() && self.names.is_empty() {
            return;
        }
        visit(self.crash(|_, parts| parts.push(WHOLE), |_| true));
        for dropped in 0..self.names.len() {
            visit(self.crash(|_, parts| parts.push(WHOLE), |index| index != dropped));
            visit(self.crash(|_, parts| parts.push(WHOLE), |index| index == dropped));
        }
        for torn in 0..self.writes.len() {
            let mut others = |part: Option<Part>| {
                let one = |index: usize, parts: &mut Vec<Part>| {
                    parts.extend(if index == torn { part } else { Some(WHOLE) });
                };
                visit(self.crash(one, |_| true));
            };
            others(None);
            for tear in self.tears(torn, random) {
                others(Some(Part { begin: 0, end: tear }));
                others(Some(Part { begin: tear, end: usize::MAX }));
            }
        }
        for _ in 0..DRAWN_STATES {
            visit(self.draw(random));
        }
    }
}

/// Bytes of a write that are there.
#[derive(Clone, Copy)]
struct Part {
    begin: usize,
    end: usize,
}

#[derive(Debug)]
struct State {
    /// As the program sees it.
    seen: Contents,
    /// Before the first of the operations.
    base: Moment,
    /// With the length of what was made.
    operations: Vec<(Operation, usize)>,
    faults: Vec<Fault>,
    free_bytes: u64,
}

impl State {
    fn fails(&mut self, call: Call) -> io::Result<()> {
        let mut failed = None;
        for fault in self.faults.iter_mut().filter(|fault| fault.call == call) {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times = if fault.times == usize::MAX { usize::MAX } else { fault.times - 1 };
                failed = Some(fault.error);
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    fn note(&mut self, operation: Operation, length: usize) {
        self.seen.change_names(&operation);
        self.operations.push((operation, length));
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.seen.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimulatedDisk(Rc<RefCell<State>>);

impl SimulatedDisk {
    /// A disk with these files, all of them safe.
    pub fn new(files: Files) -> Self {
        let base = Moment::of(files);
        let (seen, free_bytes) = (base.safe.clone(), 1 << 40);
        let state = State { seen, base, operations: Vec::new(), faults: Vec::new(), free_bytes };
        Self(Rc::new(RefCell::new(state)))
    }

    /// The folder as the program sees it.
    pub fn files(&self) -> Files {
        self.0.borrow().seen.by_name()
    }

    /// Changes so far.
    pub fn operations(&self) -> usize {
        self.0.borrow().operations.len()
    }

    /// What is to fail from now on, instead of what was to fail before.
    pub fn fail(&self, faults: &[Fault]) {
        self.0.borrow_mut().faults = faults.to_vec();
    }

    /// Bytes that new files can have.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.0.borrow_mut().free_bytes = bytes;
    }

    /// Calls `visit` with the number of operations and a folder that may be found after them: for every number of them, the
    /// few states in which one thing is missing or torn, and some that are drawn.
    pub fn each_crash(&self, random: &mut Random, mut visit: impl FnMut(usize, Files)) {
        let state = self.0.borrow();
        let mut moment = state.base.clone();
        for (count, (operation, length)) in (1..).zip(&state.operations) {
            moment.advance(operation, *length);
            moment.each_crash(random, &mut |files| visit(count, files));
        }
    }

    /// A folder that may be found if the power goes now.
    pub fn crash(&self, random: &mut Random) -> Files {
        self.crash_after(self.operations(), random)
    }

    /// A folder that may be found if the power went after so many changes.
    pub fn crash_after(&self, operations: usize, random: &mut Random) -> Files {
        let state = self.0.borrow();
        let mut moment = state.base.clone();
        for (operation, length) in state.operations.iter().take(operations) {
            moment.advance(operation, *length);
        }
        moment.draw(random)
    }
}

impl Disk for SimulatedDisk {
    type File = usize;

    fn list(&mut self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().seen.names.keys().cloned().collect())
    }

    fn open(&mut self, name: &str) -> io::Result<usize> {
        self.0.borrow().file(name)
    }

    fn create(&mut self, name: &str, bytes: u64) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        state.fails(Call::Create)?;
        let (file, length) = (state.seen.files.len(), bytes as usize);
        state.seen.files.push(vec![0; length]);
        state.free_bytes = state.free_bytes.saturating_sub(bytes);
        state.note(Operation::Create { name: name.to_owned(), file }, length);
        Ok(file)
    }

    fn read(&mut self, file: &mut usize, limit: u64, into: &mut Vec<u8>) -> io::Result<()> {
        let state = self.0.borrow();
        let bytes = &state.seen.files[*file];
        into.clear();
        into.extend(bytes.iter().take(limit as usize));
        Ok(())
    }

    fn write(&mut self, file: &mut usize, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let failed = state.fails(Call::Write);
        // What fails has got somewhere.
        let bytes = if failed.is_err() { &bytes[..bytes.len() / 2] } else { bytes };
        state.seen.write(*file, offset as usize, bytes);
        state.note(Operation::Write { file: *file, offset: offset as usize, bytes: bytes.to_vec() }, 0);
        failed
    }

    fn sync(&mut self, file: &mut usize) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let failed = state.fails(Call::Sync);
        let file = *file;
        state.note(if failed.is_err() { Operation::FailedSync { file } } else { Operation::Sync { file } }, 0);
        failed
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.fails(Call::Rename)?;
        let file = state.file(from)?;
        state.note(Operation::Rename { from: from.to_owned(), to: to.to_owned(), file }, 0);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.fails(Call::Remove)?;
        state.file(name)?;
        state.note(Operation::Remove { name: name.to_owned() }, 0);
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        state.fails(Call::SyncNames)?;
        state.note(Operation::SyncNames, 0);
        Ok(())
    }

    fn free_bytes(&mut self) -> io::Result<u64> {
        Ok(self.0.borrow().free_bytes)
    }
}
