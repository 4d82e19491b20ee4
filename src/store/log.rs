//! The log on the disk: batches into segments, one write and one sync for each.
//!
//! Segments are prepared ahead, so that the disk is found full while there is still room for what frees some: the segment at
//! hand and [`SPARES`] prepared ones are for deletions and for the sweep that makes room.
//!
//! **Invariant:** after a write or a sync has failed, nothing more goes into that segment. What is in it behind the last
//! sync that succeeded counts for nothing until everything live stands in later ones.

use super::disk::Disk;
use super::frame;
use super::journal::{Batch, Room};
use super::segment::{HEADER_BYTES, Header, Name, Segment};
use std::collections::VecDeque;
use std::io;

/// Files that are kept ready to become segments.
const SPARES: usize = 2;

/// Sizes of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of one segment.
    pub segment_bytes: u64,
    /// Bytes that all files of the log take at most; twice as many while a sweep makes good for others that never ended.
    pub total_bytes: u64,
}

impl Sizes {
    /// Smallest log: the segment at hand, the one before it, and spares.
    pub const SEGMENTS_MIN: u64 = 6;
    const SEGMENT_BYTES_MIN: u64 = 1024 * 1024;

    /// Sizes of a log of at most `total_bytes`, for batches of up to `batch_bytes`. A log that is too small for its batches is
    /// made larger.
    #[must_use]
    pub fn new(total_bytes: u64, batch_bytes: usize) -> Self {
        let batch = batch_bytes as u64 + HEADER_BYTES as u64;
        let segment_bytes = batch.next_multiple_of(Self::SEGMENT_BYTES_MIN);
        Self { segment_bytes, total_bytes: total_bytes.max(segment_bytes * Self::SEGMENTS_MIN) }
    }

    const fn segments_max(self) -> usize {
        (self.total_bytes / self.segment_bytes) as usize
    }

    /// Sweeps that end with their process leave what they wrote. Without more than [`Sizes::segments_max`] a few of them would
    /// leave no room for one that ends, and the log would be full for good.
    const fn segments_max_of_a_sweep(self) -> usize {
        2 * self.segments_max()
    }
}

/// The segment that is written to.
pub(super) struct Current<F> {
    pub file: F,
    /// Where the next record goes; 0 before there is a header.
    pub offset: u64,
}

/// Segments, and the one that is written to.
pub struct Log<D: Disk> {
    pub(super) disk: D,
    sizes: Sizes,
    /// The segments with records, oldest first.
    pub(super) segments: VecDeque<Segment>,
    pub(super) current: Option<Current<D::File>>,
    /// Numbers of spares.
    pub(super) spares: Vec<u64>,
    /// The number that the next spare gets.
    pub(super) next_spare: u64,
    /// The segment in which the sweep under way began.
    sweep: Option<Segment>,
    /// Whether a write has failed, and what is live does not stand in later segments yet.
    has_failed: bool,
    /// The segment in which it began to be written anew.
    rewrite: Option<Segment>,
    /// The batch that is being written, with the key of its segment.
    keyed: Vec<u8>,
}

impl<D: Disk> Log<D> {
    /// A log without segments; recovery fills them in.
    pub(super) fn new(disk: D, sizes: Sizes) -> Self {
        Self {
            disk,
            sizes,
            segments: VecDeque::new(),
            current: None,
            spares: Vec::new(),
            next_spare: 1,
            sweep: None,
            has_failed: false,
            rewrite: None,
            keyed: Vec::new(),
        }
    }

    /// Its sizes.
    #[must_use]
    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The disk.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Puts a batch on the disk; it is there when this returns.
    ///
    /// # Errors
    /// What the system says. Nothing of the batch counts then, and the next one must begin a sweep.
    pub fn write(&mut self, batch: &Batch) -> io::Result<Room> {
        if batch.bytes.is_empty() {
            return Ok(self.room());
        }
        let written = self.write_batch(batch);
        if written.is_err() {
            self.current = None;
            self.sweep = None;
            self.has_failed = true;
        }
        written?;
        if batch.ends_sweep {
            (self.has_failed, self.rewrite) = (false, None);
            self.free_old();
        }
        Ok(self.room())
    }

    fn write_batch(&mut self, batch: &Batch) -> io::Result<()> {
        let bytes = batch.bytes.len() as u64;
        if batch.begins_sweep {
            self.give_up_rewrite()?;
        }
        let has_room =
            |current: &Current<D::File>| current.offset.max(HEADER_BYTES as u64) + bytes <= self.sizes.segment_bytes;
        // A segment without a record can take a sweep's beginning as well as a new one.
        let fits = self
            .current
            .as_ref()
            .is_some_and(|current| has_room(current) && (!batch.begins_sweep || current.offset <= HEADER_BYTES as u64));
        if !fits {
            self.begin_segment(batch.first)?;
        }
        let segment = *self.segments.back().ok_or(io::ErrorKind::NotFound)?;
        if batch.begins_sweep {
            self.sweep = Some(segment);
            self.rewrite = Some(segment).filter(|_| self.has_failed);
        }
        let current = self.current.as_mut().ok_or(io::ErrorKind::NotFound)?;
        if current.offset == 0 {
            let header = Header { number: segment.number }.encode();
            self.disk.write(&mut current.file, 0, &header)?;
            current.offset = HEADER_BYTES as u64;
        }
        self.keyed.clone_from(&batch.bytes);
        frame::key(&mut self.keyed, segment.key);
        self.disk.write(&mut current.file, current.offset, &self.keyed)?;
        self.disk.sync(&mut current.file)?;
        current.offset += bytes;
        Ok(())
    }

    /// What was written anew after a failure, and not to its end, counts for nothing: its segments go, the last one first, so
    /// that a disk that fails for long does not use up the log. They are no spares: after a restart numbers of their records are
    /// given again.
    fn give_up_rewrite(&mut self) -> io::Result<()> {
        let Some(first) = self.rewrite else { return Ok(()) };
        self.current = None;
        while let Some(segment) = self.segments.back().copied().filter(|segment| *segment >= first) {
            self.disk.remove(&segment.to_string())?;
            self.segments.pop_back();
        }
        self.disk.sync_names()?;
        self.rewrite = None;
        Ok(())
    }

    /// Makes a spare the segment that begins with the record with this number.
    fn begin_segment(&mut self, number: u64) -> io::Result<()> {
        self.current = None;
        let spare = match self.spares.last() {
            Some(spare) => *spare,
            None if self.segments.len() < self.sizes.segments_max_of_a_sweep() => {
                let spare = self.create_spare()?;
                self.spares.push(spare);
                spare
            }
            None => return Err(io::ErrorKind::StorageFull.into()),
        };
        let segment = Segment { number, key: self.disk.draw_key()? };
        let name = segment.to_string();
        self.disk.rename(&Name::Spare(spare).to_string(), &name)?;
        self.spares.pop();
        self.segments.push_back(segment);
        self.disk.sync_names()?;
        self.current = Some(Current { file: self.disk.open(&name)?, offset: 0 });
        Ok(())
    }

    fn take_spare_number(&mut self) -> u64 {
        let number = self.next_spare;
        self.next_spare += 1;
        number
    }

    fn create_spare(&mut self) -> io::Result<u64> {
        let number = self.take_spare_number();
        self.disk.create(&Name::Spare(number).to_string(), self.sizes.segment_bytes)?;
        Ok(number)
    }

    /// Segments from before the sweep become spares, oldest first: what an older record said must not come back because a
    /// later one went first. The sweep is on the disk already: what cannot be freed now is freed by the next one.
    fn free_old(&mut self) {
        let Some(first) = self.sweep.take() else { return };
        while let Some(segment) = self.segments.front().copied().filter(|segment| *segment < first) {
            let name = segment.to_string();
            if self.spares.len() < SPARES.max(self.segments.len()) {
                let spare = self.take_spare_number();
                if self.disk.rename(&name, &Name::Spare(spare).to_string()).is_err() {
                    return;
                }
                self.spares.push(spare);
            } else if self.disk.remove(&name).is_err() {
                return;
            }
            self.segments.pop_front();
        }
    }

    /// Prepares spares, if there is room for them, and says how much room there is.
    pub fn room(&mut self) -> Room {
        let mut free_bytes = self.disk.free_bytes().unwrap_or(0);
        while self.spares.len() < SPARES && self.segments.len() + self.spares.len() < self.sizes.segments_max() {
            let Ok(spare) = self.create_spare() else {
                free_bytes = 0;
                break;
            };
            self.spares.push(spare);
            free_bytes = free_bytes.saturating_sub(self.sizes.segment_bytes);
        }
        let files = self.segments.len() + self.spares.len();
        let up_to = |max: usize| (max.saturating_sub(files) as u64).min(free_bytes / self.sizes.segment_bytes);
        let more = up_to(self.sizes.segments_max());
        Room {
            used_bytes: self.segments.len() as u64 * self.sizes.segment_bytes,
            free_bytes: (more + self.spares.len() as u64) * self.sizes.segment_bytes,
            sweep_bytes: (up_to(self.sizes.segments_max_of_a_sweep()) - more) * self.sizes.segment_bytes,
        }
    }
}
