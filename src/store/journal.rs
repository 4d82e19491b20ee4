//! The records of one batch after the other, on their way to the disk.
//!
//! One batch fills while the one before it is written and synced. A record gets its number when it is appended; who must not
//! be answered before a record is on the disk keeps that number and asks [`Journal::is_durable`].
//!
//! Appending never fails. What finds no room, or was in a batch that could not be written, is lost to the log but not to the
//! tables of the broker, which it describes: [`Journal::is_lost`] says so, nothing more becomes durable, and the broker
//! writes everything that is live anew, into another segment. That done, all is durable again.
//!
//! **Invariants:** the sequence numbers that are durable never go down; a number is durable only if every record up to it is
//! on the disk, or everything live is that they led to.

use super::frame::{self, FRAME_BYTES, INDEX_MAX, Place};
use super::record::{Clock, Receiver, Record};
use crate::time::{Instant, Now};

/// Room that records about messages, sessions and subscriptions leave to those that free something.
const RESERVE_BYTES: usize = 96 * 1024;
/// Bytes of a batch for other records than one with the largest packet.
const SMALL_BYTES: usize = 256 * 1024;
/// How long a record for which nobody waits stays in memory at most.
const LAZY_MILLISECONDS: u64 = 200;
/// Records are told the time when so much of it has passed since they were told last; those that name one are always.
const CLOCK_MILLISECONDS: u64 = 1_000;

/// Whether somebody waits for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nobody does: it goes with the next batch, or after a while.
    Lazy,
    /// Somebody does, or what it says must not be done again.
    Soon,
}

/// Records that go to the disk together.
#[derive(Debug)]
pub struct Batch {
    /// Frames, one after the other.
    pub bytes: Vec<u8>,
    /// Number of the first record.
    pub first: u64,
    /// Number of the last record.
    pub last: u64,
    /// Whether it begins a segment, because a sweep begins with it.
    pub begins_sweep: bool,
    /// Whether segments from before the sweep are not needed once it is on the disk.
    pub ends_sweep: bool,
}

/// What the log has to say about itself after a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the segments in use.
    pub used_bytes: u64,
    /// Bytes of the segments that can still be had.
    pub free_bytes: u64,
    /// Bytes of the segments that a sweep can have beyond these, and nothing else.
    pub sweep_bytes: u64,
}

/// Batches of records.
#[derive(Debug)]
pub struct Journal {
    filling: Vec<u8>,
    /// The other buffer, while it is not with the disk.
    idle: Option<Vec<u8>>,
    capacity: usize,
    record_bytes: u32,
    records: u32,
    /// Number of the record appended last.
    sequence: u64,
    /// Bytes of all records appended so far.
    appended_bytes: u64,
    durable: u64,
    /// Since when a record waits.
    since: Option<Instant>,
    urgency: Urgency,
    interval_milliseconds: u64,
    /// When the batch before was handed over.
    handed_over: Option<Instant>,
    now: Now,
    trusted: bool,
    /// When the records were told the time last.
    told: Option<Instant>,
    /// Whether this process has told it yet.
    has_booted: bool,
    lost: bool,
    /// Everything is being written anew; nothing is durable before that is done.
    rewrites: bool,
    begins_sweep: bool,
    ends_sweep: bool,
}

/// A batch has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Journal {
    /// A journal behind the record with number `last`, for records of up to `record_bytes` bytes. Batches follow each other at
    /// `interval_milliseconds` or more.
    #[must_use]
    pub fn new(record_bytes: u32, interval_milliseconds: u16, last: u64) -> Self {
        let capacity = Self::buffer_bytes(record_bytes);
        Self {
            filling: Vec::with_capacity(capacity),
            idle: Some(Vec::with_capacity(capacity)),
            capacity,
            record_bytes,
            records: 0,
            sequence: last,
            appended_bytes: 0,
            durable: last,
            since: None,
            urgency: Urgency::Lazy,
            interval_milliseconds: u64::from(interval_milliseconds),
            handed_over: None,
            now: Now::default(),
            trusted: false,
            told: None,
            has_booted: false,
            lost: false,
            rewrites: false,
            begins_sweep: false,
            ends_sweep: false,
        }
    }

    /// Bytes of one batch at most.
    #[must_use]
    pub const fn buffer_bytes(record_bytes: u32) -> usize {
        record_bytes as usize + SMALL_BYTES
    }

    /// Bytes that a journal takes, and the log that writes its batches.
    #[must_use]
    pub const fn bytes(record_bytes: u32) -> u64 {
        3 * Self::buffer_bytes(record_bytes) as u64
    }

    /// Bytes of the largest message that has room.
    #[must_use]
    pub const fn message_bytes_max(&self) -> usize {
        self.record_bytes as usize
    }

    /// The wall clock was set: the log is told, so that nothing is counted by what it showed before.
    pub fn clock_was_set(&mut self) {
        if self.has_booted {
            self.tell_time_alone();
        }
    }

    /// The log is told the time, if it was not for so long.
    pub fn tell_time_after(&mut self, milliseconds: u64) {
        let told = self.told.unwrap_or(Instant::ZERO);
        if self.now.instant.milliseconds_since(told) >= milliseconds {
            self.tell_time_alone();
        }
    }

    fn tell_time_alone(&mut self) {
        if !self.lost {
            self.tell_time(0);
            self.since.get_or_insert(self.now.instant);
        }
    }

    /// Nothing more is to come: what waits for company goes at once.
    pub const fn flush(&mut self) {
        self.urgency = Urgency::Soon;
        self.handed_over = None;
    }

    /// What the clocks show now, and whether the wall clock is to be believed.
    pub const fn set_clock(&mut self, now: Now, trusted: bool) {
        self.now = now;
        self.trusted = trusted;
    }

    /// Whether a record of `bytes` with a message, a session or a subscription has room. Its answer holds until something else
    /// is appended.
    #[must_use]
    pub fn has_room_for(&self, bytes: usize) -> bool {
        !self.lost && self.filling.len() + bytes + 2 * FRAME_BYTES + RESERVE_BYTES <= self.capacity
    }

    /// Appends a record.
    pub fn append(&mut self, record: &Record<'_>, urgency: Urgency) -> u64 {
        self.append_with(record, urgency, |_| Ok(()))
    }

    /// Appends a record with more behind it, which `rest` adds to the body.
    pub fn append_with(
        &mut self,
        record: &Record<'_>,
        urgency: Urgency,
        rest: impl FnOnce(&mut Body<'_>) -> Result<(), NoRoom>,
    ) -> u64 {
        if !self.lost {
            // What is left of a time is counted from what the clock showed last: that is not from before it was set.
            self.tell_time(if record.has_time() { 1 } else { CLOCK_MILLISECONDS });
            if self.put(record, rest).is_err() {
                self.lose();
            }
        }
        if self.lost {
            // It has a number all the same, for those who wait for it.
            self.sequence += 1;
        }
        self.since.get_or_insert(self.now.instant);
        self.urgency = self.urgency.max(urgency);
        self.sequence
    }

    /// The log is told the time, if so much of it has passed since it was told last.
    fn tell_time(&mut self, milliseconds: u64) {
        if self.told.is_some_and(|told| self.now.instant.milliseconds_since(told) < milliseconds) {
            return;
        }
        let clock = Clock {
            instant: self.now.instant.as_milliseconds(),
            unix: self.now.unix.0,
            trusted: self.trusted,
            boot: !self.has_booted,
        };
        match self.put(&Record::Clock(clock), |_| Ok(())) {
            Ok(()) => (self.told, self.has_booted) = (Some(self.now.instant), true),
            Err(NoRoom) => self.lose(),
        }
    }

    fn put(
        &mut self,
        record: &Record<'_>,
        rest: impl FnOnce(&mut Body<'_>) -> Result<(), NoRoom>,
    ) -> Result<(), NoRoom> {
        let index = u16::try_from(self.records).ok().filter(|index| *index < INDEX_MAX).ok_or(NoRoom)?;
        let start = self.filling.len();
        let mut body = Body { bytes: &mut self.filling, capacity: self.capacity };
        let written = body.put_bytes(&[0; FRAME_BYTES]).and_then(|()| body.put(record)).and_then(|()| rest(&mut body));
        if let Err(NoRoom) = written {
            self.filling.truncate(start);
            return Err(NoRoom);
        }
        let place = Place { sequence: self.sequence + 1, index };
        frame::seal(self.filling.get_mut(start..).unwrap_or_default(), place);
        self.sequence += 1;
        self.records += 1;
        self.appended_bytes += (self.filling.len() - start) as u64;
        Ok(())
    }

    /// The log falls behind the tables: nothing that has not been handed over is worth writing.
    pub fn lose(&mut self) {
        self.filling.clear();
        self.records = 0;
        self.lost = true;
        self.rewrites = true;
        self.begins_sweep = false;
        self.ends_sweep = false;
    }

    /// Whether what is live must be written anew before anything becomes durable.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether everything live is being written anew, and nothing becomes durable before that is done.
    #[must_use]
    pub const fn rewrites(&self) -> bool {
        self.rewrites
    }

    /// Whether the batch at hand is empty enough for records of a sweep, which leave room to what happens.
    #[must_use]
    pub fn has_room_for_sweep(&self) -> bool {
        self.filling.len() < SMALL_BYTES / 4
    }

    /// Whether a sweep can begin: the batch at hand is empty.
    #[must_use]
    pub fn may_begin_sweep(&self) -> bool {
        self.filling.is_empty()
    }

    /// Begins a sweep, in a segment of its own. Returns the number of its first record: what is written behind it need not be
    /// written again.
    pub fn begin_sweep(&mut self) -> u64 {
        let given_up_after = self.rewrites.then_some(self.durable);
        self.lost = false;
        self.begins_sweep = true;
        // The segments from before will be gone, and with them what the clocks showed.
        self.told = None;
        self.append(&Record::SweepBegins { given_up_after }, Urgency::Soon)
    }

    /// Ends a sweep: everything live is in the log behind its beginning.
    pub fn end_sweep(&mut self) {
        self.append(&Record::SweepEnds, Urgency::Soon);
        self.ends_sweep = true;
    }

    /// Number of the record appended last.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.sequence
    }

    /// Bytes of all records appended so far.
    #[must_use]
    pub const fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// Whether the record with this number, and all before it, are safe.
    #[must_use]
    pub const fn is_durable(&self, sequence: u64) -> bool {
        sequence <= self.durable
    }

    /// Whether a batch is with the disk.
    #[must_use]
    pub const fn is_writing(&self) -> bool {
        self.idle.is_none()
    }

    /// When [`Journal::next_batch`] has one, if nothing else happens; `None` while it cannot.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        if self.idle.is_none() || self.records == 0 {
            return None;
        }
        let waits = match self.urgency {
            Urgency::Soon => Instant::ZERO,
            Urgency::Lazy if self.filling.len() >= SMALL_BYTES / 2 => Instant::ZERO,
            Urgency::Lazy => self.since?.plus_milliseconds(LAZY_MILLISECONDS),
        };
        let rests = self.handed_over.map(|at| at.plus_milliseconds(self.interval_milliseconds));
        Some(rests.map_or(waits, |rests| rests.max(waits)))
    }

    /// The next batch, if it is time and the one before it is on the disk.
    pub fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        if self.due()? > now {
            return None;
        }
        let bytes = core::mem::replace(&mut self.filling, self.idle.take()?);
        let first = self.sequence + 1 - u64::from(core::mem::take(&mut self.records));
        self.since = None;
        self.urgency = Urgency::Lazy;
        self.handed_over = Some(now);
        let ends_sweep = core::mem::take(&mut self.ends_sweep);
        // Here and not when it is on the disk: another sweep may have begun by then, because more was lost.
        self.rewrites &= !ends_sweep;
        let begins_sweep = core::mem::take(&mut self.begins_sweep);
        Some(Batch { bytes, first, last: self.sequence, begins_sweep, ends_sweep })
    }

    /// A batch without records: nothing is written, but the log looks again at how much room there is. `None` while a batch is
    /// with the disk.
    pub fn look(&mut self) -> Option<Batch> {
        let bytes = self.idle.take()?;
        Some(Batch { bytes, first: 0, last: self.durable, begins_sweep: false, ends_sweep: false })
    }

    /// A batch is on the disk. Returns whether more is durable than before.
    pub fn written(&mut self, mut batch: Batch) -> bool {
        batch.bytes.clear();
        self.idle = Some(batch.bytes);
        if self.rewrites {
            return false;
        }
        self.durable = batch.last;
        true
    }

    /// A batch could not be written: whatever of it is on the disk does not count.
    pub fn failed(&mut self, mut batch: Batch) {
        batch.bytes.clear();
        self.idle = Some(batch.bytes);
        self.lose();
    }
}

/// The body of a record that is being appended.
pub struct Body<'j> {
    bytes: &'j mut Vec<u8>,
    capacity: usize,
}

impl Body<'_> {
    /// Adds a receiver.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn put_receiver(&mut self, receiver: &Receiver<'_>) -> Result<(), NoRoom> {
        self.put(receiver)
    }

    /// Adds `count` bytes, to be written to the slice that is returned.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn put_zeros(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        let start = self.bytes.len();
        if count > self.capacity.saturating_sub(start) {
            return Err(NoRoom);
        }
        self.bytes.resize(start + count, 0);
        self.bytes.get_mut(start..).ok_or(NoRoom)
    }

    fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.put_zeros(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn put(&mut self, value: &impl serde::Serialize) -> Result<(), NoRoom> {
        postcard::serialize_with_flavor(value, Appending(self)).map_err(|_| NoRoom)
    }
}

/// Lets postcard write to the end of a buffer that must not grow.
struct Appending<'b, 'j>(&'b mut Body<'j>);

impl postcard::ser_flavors::Flavor for Appending<'_, '_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.put_bytes(bytes).map_err(|NoRoom| postcard::Error::SerializeBufferFull)
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: Record<'static> = Record::Done { session: 1, delivery: 2 };

    fn at(milliseconds: u64) -> Instant {
        Instant::from_milliseconds(milliseconds)
    }

    #[test]
    fn one_batch_fills_while_the_other_is_written() {
        let mut journal = Journal::new(1_024, 5, 10);
        let first = journal.append(&DONE, Urgency::Soon);
        assert_eq!(first, 12, "behind what the clocks show");
        let batch = journal.next_batch(at(0)).unwrap();
        assert_eq!((batch.first, batch.last), (11, 12));
        let second = journal.append(&DONE, Urgency::Soon);
        assert!(journal.next_batch(at(100)).is_none() && journal.due().is_none());
        assert!(journal.written(batch));
        assert!(journal.is_durable(first) && !journal.is_durable(second));
        assert!(journal.next_batch(at(4)).is_none(), "not before the interval has passed");
        assert_eq!(journal.next_batch(at(5)).unwrap().last, second);
    }

    #[test]
    fn a_record_for_which_nobody_waits_waits_for_company() {
        let mut journal = Journal::new(1_024, 5, 0);
        journal.append(&DONE, Urgency::Lazy);
        assert!(journal.next_batch(at(LAZY_MILLISECONDS - 1)).is_none());
        assert_eq!(journal.due(), Some(at(LAZY_MILLISECONDS)));
        journal.append(&DONE, Urgency::Soon);
        assert!(journal.next_batch(at(1)).is_some());
        assert!(journal.due().is_none());
    }

    #[test]
    fn what_finds_no_room_makes_everything_to_be_written_anew() {
        let mut journal = Journal::new(0, 0, 0);
        while journal.has_room_for(100) {
            journal.append_with(&DONE, Urgency::Lazy, |body| body.put_zeros(90).map(|_| ()));
        }
        let mut last = 0;
        while !journal.is_lost() {
            last = journal.append(&DONE, Urgency::Lazy);
        }
        assert!(journal.next_batch(at(1_000)).is_none() && !journal.has_room_for(0));
        let begin = journal.begin_sweep();
        assert!(begin > last);
        let batch = journal.next_batch(at(1_000)).unwrap();
        assert!(batch.begins_sweep && !journal.written(batch) && !journal.is_durable(last));
        journal.end_sweep();
        let batch = journal.next_batch(at(1_000)).unwrap();
        assert!(batch.ends_sweep && journal.written(batch));
        assert!(journal.is_durable(last));
    }

    #[test]
    fn a_sweep_that_another_loss_overtakes_makes_nothing_durable() {
        let mut journal = Journal::new(0, 0, 0);
        journal.lose();
        journal.begin_sweep();
        journal.end_sweep();
        let ending = journal.next_batch(at(0)).unwrap();
        let lost = journal.append_with(&DONE, Urgency::Soon, |_| Err(NoRoom));
        journal.begin_sweep();
        assert!(!journal.written(ending), "it does not hold what was lost since");
        let batch = journal.next_batch(at(0)).unwrap();
        assert!(!journal.written(batch) && !journal.is_durable(lost));
        journal.end_sweep();
        let batch = journal.next_batch(at(0)).unwrap();
        assert!(journal.written(batch) && journal.is_durable(lost));
    }

    #[test]
    fn a_failed_batch_is_never_durable_by_a_later_one() {
        let mut journal = Journal::new(0, 0, 0);
        let number = journal.append(&DONE, Urgency::Soon);
        let batch = journal.next_batch(at(0)).unwrap();
        let other = journal.append(&DONE, Urgency::Soon);
        journal.failed(batch);
        assert!(journal.next_batch(at(0)).is_none());
        assert!(!journal.is_durable(number) && !journal.is_durable(other));
    }
}
