//! From the files of a log to what it told, and to a log that goes on.
//!
//! Segments are read one after the other, oldest first. A batch is applied when a later one shows that it was on the disk as a
//! whole; what is missing of such a batch, or between batches, is damage: it is reported, and the rest is applied. Of the last
//! batch, what stands behind its first missing record was never acknowledged and is cut off, and so is everything behind the
//! last record that counts, if that was given up and has not been written anew as a whole. What is cut off is overwritten or
//! removed before the log goes on, so that it cannot come back.

use super::disk::Disk;
use super::frame::{FRAME_BYTES, Found, Scan};
use super::image::{Applied, At, Image, Message};
use super::log::{Current, Log, Sizes};
use super::segment::{Beginning, HEADER_BYTES, Header, Name, Segment};
use core::fmt;
use std::io;

/// A log that was read.
pub struct Recovered<D: Disk> {
    /// The log, which goes on behind what was read.
    pub log: Log<D>,
    /// What it told.
    pub image: Image,
    /// Number of its last record.
    pub last: u64,
    /// What was wrong.
    pub report: Report,
}

/// What was found in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments.
    pub segments: usize,
    /// Records.
    pub records: u64,
    /// Bytes of the records.
    pub bytes: u64,
    /// Damaged places, oldest first; of many, the first ones.
    pub damages: Vec<Damage>,
    /// Records that are missing in all damaged places.
    pub missing: u64,
    /// Records at the end that were never finished, as far as they read, and were cut off.
    pub cut: u64,
}

/// Damaged places that a report names.
const DAMAGES_MAX: usize = 64;

/// Records that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment of the next record that reads.
    pub segment: u64,
    /// Where in the segment the damage begins.
    pub offset: usize,
    /// Number of the first record that is missing.
    pub first: u64,
    /// How many are.
    pub count: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, first, count } = self;
        write!(f, "segment {segment:016x}, offset {offset}: {count} records from number {first} on do not read")
    }
}

/// Why a log cannot be used at all.
#[derive(Debug)]
pub enum RecoveryError {
    /// The system cannot read or write it.
    Io(io::Error),
    /// It was written by a newer program.
    NewerFormat {
        /// The segment.
        segment: u64,
        /// Its format.
        format: u16,
    },
}

impl From<io::Error> for RecoveryError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NewerFormat { segment, format } => write!(
                f,
                "segment {segment:016x} is of format {format}, which this version does not know: start the version that wrote \
                 it, or one that is newer"
            ),
        }
    }
}

/// A sweep that has begun and not ended.
#[derive(Clone, Copy)]
struct Sweep {
    /// Number of its first record.
    began: u64,
    /// Records that were missing before it.
    missing: u64,
    /// Number of the last record that counts unless it ends, and the segment that says so.
    given_up: Option<(u64, Segment)>,
}

/// A segment that was read.
#[derive(Default)]
struct Page {
    /// Which; `None` before the first one.
    segment: Option<Segment>,
    bytes: Vec<u8>,
    /// Whether it has a header of its own.
    has_header: bool,
    /// Records of the batch that is not known to be whole yet.
    pending: Vec<Found>,
}

/// Reads the log on `disk`, and makes it ready to go on.
///
/// # Errors
/// [`RecoveryError`]. Damaged records are no error.
pub fn recover<D: Disk>(disk: D, sizes: Sizes) -> Result<Recovered<D>, RecoveryError> {
    let mut reading = Reading::of(disk, sizes)?;
    reading.cut_tail()?;
    Ok(reading.finish())
}

/// [`recover`], but nothing is changed on the disk.
///
/// # Errors
/// As [`recover`].
pub fn inspect<D: Disk>(disk: D, sizes: Sizes) -> Result<Recovered<D>, RecoveryError> {
    Ok(Reading::of(disk, sizes)?.finish())
}

struct Reading<D: Disk> {
    log: Log<D>,
    image: Image,
    report: Report,
    /// Number of the last record that was applied or passed over.
    last: u64,
    last_is_clock: bool,
    /// The segment with the last record.
    page: Page,
    /// Where the log goes on in it.
    end: usize,
    /// Up to where records that were cut off stand.
    cut_end: usize,
    sweep: Option<Sweep>,
    /// Number of the last record of a sweep that ended.
    swept: u64,
    /// Number of the last record that counts.
    limit: u64,
    /// The segment that says so, if there is one.
    limited_by: Option<Segment>,
}

impl<D: Disk> Reading<D> {
    fn of(disk: D, sizes: Sizes) -> Result<Self, RecoveryError> {
        let mut reading = Self::new(Self::files(disk, sizes)?);
        loop {
            reading.read_all()?;
            // Lower each time, whatever damaged records say.
            let limit = reading.counts_to().filter(|(limit, _)| *limit < reading.limit);
            let Some((limit, limited_by)) = limit else { return Ok(reading) };
            let limited_by = limited_by.or(reading.limited_by);
            reading = Self { limit, limited_by, ..Self::new(reading.log) };
        }
    }

    /// Number of the last record that counts, if others have been applied, and the segment that says so, if there is one.
    fn counts_to(&self) -> Option<(u64, Option<Segment>)> {
        // If records behind its beginning are missing, its end may be one of them.
        let is_whole = |began| self.report.damages.iter().all(|damage| damage.first <= began);
        if let Some(Sweep { began, given_up: Some((last, segment)), .. }) = self.sweep
            && is_whole(began)
        {
            return Some((last.max(self.swept), Some(segment)));
        }
        // Of a segment that was just begun nothing reads that says why it was: perhaps because what stands before was given up.
        let segment = self.page.segment?;
        let is_empty = self.last < segment.number || (self.last == segment.number && self.last_is_clock);
        (is_empty && self.log.segments.front() < Some(&segment)).then(|| (segment.number.saturating_sub(1), None))
    }

    fn new(log: Log<D>) -> Self {
        Self {
            log,
            image: Image::default(),
            report: Report::default(),
            last: 0,
            last_is_clock: false,
            page: Page::default(),
            end: 0,
            cut_end: 0,
            sweep: None,
            swept: 0,
            limit: u64::MAX,
            limited_by: None,
        }
    }

    fn files(disk: D, sizes: Sizes) -> Result<Log<D>, RecoveryError> {
        let mut log = Log::new(disk, sizes);
        let mut names: Vec<Name> = log.disk.list()?.iter().filter_map(|name| Name::parse(name)).collect();
        names.sort_unstable();
        for name in names {
            match name {
                Name::Segment(segment) => log.segments.push_back(segment),
                Name::Spare(number) => {
                    log.spares.push(number);
                    log.next_spare = log.next_spare.max(number.saturating_add(1));
                }
            }
        }
        Ok(log)
    }

    fn read_all(&mut self) -> Result<(), RecoveryError> {
        let mut next = Vec::new();
        // What is missing before the first record that reads is missed too.
        let before_all = self.log.segments.front().map_or(0, |first| first.number.saturating_sub(1));
        self.last = before_all.min(self.limit);
        for segment in self.log.segments.clone() {
            let Segment { number, key } = segment;
            let mut file = self.log.disk.open(&segment.to_string())?;
            self.log.disk.read(&mut file, u64::from(u32::MAX), &mut next)?;
            let has_header = match Header::decode(&next) {
                Beginning::Newer { format } => return Err(RecoveryError::NewerFormat { segment: number, format }),
                Beginning::Header(header) => header.number == number,
                // Nothing was written to it, or its beginning is lost.
                Beginning::Blank | Beginning::Damaged => false,
            };
            let before = number.saturating_sub(1);
            let offset = if has_header { HEADER_BYTES } else { 0 };
            let mut found: Vec<Found> = Scan::new(&next, key, offset, self.newest().max(before)).collect();
            let counting = found.partition_point(|found| found.place.sequence <= self.limit);
            let cut = found.split_off(counting);
            self.report.cut += cut.len() as u64;
            // Only the first one can be empty and still be gone on with.
            let is_first = self.report.segments == 0 && before == self.last;
            if found.is_empty() && !(has_header && is_first && before <= self.limit) {
                continue;
            }
            // There is a later record, so that everything before was on the disk.
            self.apply_pending();
            self.report.segments += 1;
            core::mem::swap(&mut self.page.bytes, &mut next);
            (self.page.segment, self.page.has_header) = (Some(segment), has_header);
            self.end = offset;
            self.cut_end = cut.last().map_or(0, |cut| cut.offset + cut.bytes);
            self.take(found);
        }
        self.settle_tail();
        if self.page.segment.is_none() {
            // No segment stays, and with the next one numbers begin again.
            self.last = 0;
        }
        Ok(())
    }

    /// Number of the last record that was seen.
    fn newest(&self) -> u64 {
        self.page.pending.last().map_or(self.last, |found| found.place.sequence)
    }

    fn take(&mut self, found: Vec<Found>) {
        for found in found {
            if self.page.pending.last().is_some_and(|last| last.place.batch() != found.place.batch()) {
                self.apply_pending();
            }
            self.page.pending.push(found);
        }
    }

    /// Applies a batch that was on the disk as a whole.
    fn apply_pending(&mut self) {
        let pending = core::mem::take(&mut self.page.pending);
        for found in &pending {
            self.apply(*found);
        }
        self.page.pending = pending;
        self.page.pending.clear();
    }

    fn apply(&mut self, found: Found) {
        let Some(segment) = self.page.segment else { return };
        let sequence = found.place.sequence;
        let missing = sequence.saturating_sub(self.last + 1);
        if missing > 0 {
            self.damaged(self.end, self.last + 1, missing);
        }
        self.last = sequence;
        self.end = found.offset + found.bytes;
        let offset = found.offset + FRAME_BYTES;
        let body = self.page.bytes.get(offset..self.end).unwrap_or_default();
        self.report.records += 1;
        self.report.bytes += found.bytes as u64;
        let applied = self.image.apply(body, segment, offset, sequence);
        self.last_is_clock = matches!(applied, Ok(Applied::Clock));
        match applied {
            Ok(Applied::Yes | Applied::Clock) => {}
            Ok(Applied::SweepBegins { given_up_after }) => {
                let given_up = given_up_after.map(|last| (last, segment));
                self.sweep = Some(Sweep { began: sequence, missing: self.report.missing, given_up });
            }
            Ok(Applied::SweepEnds) => self.sweep_ends(sequence),
            Err(_) => self.damaged(found.offset, sequence, 1),
        }
    }

    fn damaged(&mut self, offset: usize, first: u64, count: u64) {
        self.report.missing += count;
        if self.report.damages.len() < DAMAGES_MAX {
            let segment = self.page.segment.map_or(0, |segment| segment.number);
            self.report.damages.push(Damage { segment, offset, first, count });
        }
    }

    /// Everything live was written behind the beginning of the sweep: what is missing before it is missed no more.
    fn sweep_ends(&mut self, sequence: u64) {
        self.swept = sequence;
        if let Some(Sweep { began, missing, .. }) = self.sweep.take() {
            self.report.damages.retain(|damage| damage.first >= began);
            self.report.missing -= missing;
        }
    }

    /// The last batch counts up to its first missing record.
    fn settle_tail(&mut self) {
        let pending = core::mem::take(&mut self.page.pending);
        let begin = pending.first().map_or(0, |found| found.place.batch());
        let whole = pending.iter().zip(begin..).take_while(|(found, expected)| found.place.sequence == *expected);
        let whole = whole.count();
        for found in pending.iter().take(whole) {
            self.apply(*found);
        }
        self.report.cut += (pending.len() - whole) as u64;
        let cut_end = pending.get(whole..).and_then(<[Found]>::last).map_or(0, |found| found.offset + found.bytes);
        self.cut_end = self.cut_end.max(cut_end);
    }

    /// Overwrites what was cut off, and opens the last segment to go on there.
    fn cut_tail(&mut self) -> Result<(), RecoveryError> {
        let page = self.page.segment;
        // Segments behind it have no record that counts. The one that says so stays until all others are gone: if they are
        // found again, so is it.
        let last_to_go = self.limited_by;
        let behind =
            self.log.segments.iter().copied().filter(|behind| Some(*behind) > page && Some(*behind) != last_to_go);
        for behind in behind.rev().collect::<Vec<Segment>>() {
            self.remove(behind)?;
        }
        if let Some(segment) = page {
            let mut file = self.log.disk.open(&segment.to_string())?;
            if self.cut_end > self.end {
                let zeros = vec![0; self.cut_end - self.end];
                self.log.disk.write(&mut file, self.end as u64, &zeros)?;
                self.log.disk.sync(&mut file)?;
            }
            let goes_on = self.page.has_header && self.page.bytes.len() as u64 == self.log.sizes().segment_bytes;
            self.log.current = goes_on.then_some(Current { file, offset: self.end as u64 });
            if !goes_on && segment.number > self.last {
                // The next segment gets its number.
                self.remove(segment)?;
            }
        }
        match self.limited_by {
            Some(segment) if Some(segment) > page => self.remove(segment),
            _ => Ok(()),
        }
    }

    /// Removes a segment. It is not made a spare: it may hold records with the numbers that are given next.
    fn remove(&mut self, segment: Segment) -> Result<(), RecoveryError> {
        self.log.disk.remove(&segment.to_string())?;
        self.log.disk.sync_names()?;
        self.log.segments.retain(|other| *other != segment);
        Ok(())
    }

    fn finish(mut self) -> Recovered<D> {
        self.image.finish();
        Recovered { log: self.log, image: self.image, last: self.last, report: self.report }
    }
}

impl<D: Disk> Recovered<D> {
    /// Calls `each` with every message and its bytes, segment by segment.
    ///
    /// # Errors
    /// What the system says.
    pub fn each_message(&mut self, each: impl FnMut(u64, &Message, &[u8])) -> io::Result<()> {
        self.log.each_message(&self.image, each)
    }
}

impl<D: Disk> Log<D> {
    /// Calls `each` with every message of `image`, which this log told, and its bytes, segment by segment.
    ///
    /// # Errors
    /// What the system says.
    pub fn each_message(&mut self, image: &Image, mut each: impl FnMut(u64, &Message, &[u8])) -> io::Result<()> {
        let mut contents = Contents::default();
        for (id, message) in image.messages_in_order() {
            each(id, &message, contents.of(&mut self.disk, message.at)?);
        }
        Ok(())
    }
}

/// Reads the bytes of messages, cheaply if one segment is asked for after the other.
#[derive(Default)]
pub(super) struct Contents {
    loaded: Option<Segment>,
    segment: Vec<u8>,
}

impl Contents {
    /// The bytes that stand there.
    pub(super) fn of(&mut self, disk: &mut impl Disk, at: At) -> io::Result<&[u8]> {
        if self.loaded != Some(at.segment) {
            let mut file = disk.open(&at.segment.to_string())?;
            disk.read(&mut file, u64::from(u32::MAX), &mut self.segment)?;
            self.loaded = Some(at.segment);
        }
        self.segment.get(at.offset..at.offset + at.bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
