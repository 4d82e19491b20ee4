//! The journal, the log and its recovery together, on a disk in memory.
#![allow(clippy::unwrap_used)]

use super::memory::Memory;
use super::record::{self, Identifiers, Receiver};
use super::*;
use crate::time::{Instant, Now, UnixTime};

const SIZES: Sizes = Sizes { segment_bytes: 1 << 20, total_bytes: 32 << 20 };

/// A log and the journal that feeds it.
struct Bench {
    log: Log<Memory>,
    journal: Journal,
}

impl Bench {
    fn open(disk: Memory) -> (Self, Image, Report) {
        let recovered = recover(disk, SIZES).unwrap();
        let journal = Journal::new(4_096, 0, recovered.last);
        (Self { log: recovered.log, journal }, recovered.image, recovered.report)
    }

    fn commit(&mut self) {
        let batch = self.journal.next_batch(Instant::from_milliseconds(u64::MAX)).unwrap();
        self.log.write(&batch).unwrap();
        self.journal.written(batch);
    }

    fn session(&mut self, id: u64) {
        let session = record::Session {
            id,
            client: "c",
            port: 0,
            judges: 0,
            stale: false,
            method: 0,
            principal: [0; 16],
            username: None,
            attributes: &[],
            keeps_queue: true,
            connected: false,
            expiry_seconds: 100,
            ends: Some(5_000),
            will: None,
            will_due: None,
        };
        self.journal.append(&Record::Session(session), Urgency::Soon);
    }

    fn publish(&mut self, id: u64, session: u64, payload: &[u8]) {
        let message = record::Message { id, topic_bytes: 1, property_bytes: 0, expires: None };
        let receiver = Receiver { session, delivery: id + 1, flags: 1, identifiers: Identifiers::default() };
        let published = Record::Published { message, retained: None, received: Some((session, 9)), receivers: 1 };
        self.journal.append_with(&published, Urgency::Soon, |body| {
            body.put_receiver(&receiver)?;
            body.put_zeros(1)?.copy_from_slice(b"t");
            body.put_zeros(payload.len())?.copy_from_slice(payload);
            Ok(())
        });
    }
}

fn reopen(bench: Bench) -> (Bench, Image, Report) {
    let Bench { mut log, .. } = bench;
    let disk = core::mem::take(log.disk());
    Bench::open(disk)
}

#[test]
fn what_was_written_is_read_again_and_the_log_goes_on() {
    let (mut bench, image, _) = Bench::open(Memory::default());
    assert!(image.sessions.is_empty());
    bench.session(1);
    bench.publish(10, 1, b"first");
    bench.commit();
    let (mut bench, image, report) = reopen(bench);
    assert_eq!((report.records, report.cut, report.missing), (3, 0, 0));
    assert_eq!(image.sessions[&1].deliveries.len(), 1);
    assert!(image.sessions[&1].received.contains_key(&9));
    bench.journal.append(&Record::Done { session: 1, delivery: 11 }, Urgency::Soon);
    bench.publish(20, 1, b"second");
    bench.commit();
    let Bench { mut log, .. } = bench;
    let mut recovered = recover(core::mem::take(log.disk()), SIZES).unwrap();
    assert_eq!(recovered.report.segments, 1, "the log goes on in the segment it was in");
    assert_eq!(recovered.image.sessions[&1].deliveries.keys().collect::<Vec<_>>(), [&21]);
    let mut contents = Vec::new();
    recovered.each_message(|id, _, bytes| contents.push((id, bytes.to_vec()))).unwrap();
    assert_eq!(contents, [(20, b"tsecond".to_vec())]);
}

#[test]
fn a_sweep_frees_the_segments_before_it() {
    let (mut bench, ..) = Bench::open(Memory::default());
    bench.session(1);
    for id in 0..2_000 {
        bench.publish(100 + 2 * id, 1, &[7; 2_000]);
        bench.journal.append(&Record::Done { session: 1, delivery: 101 + 2 * id }, Urgency::Lazy);
        bench.commit();
    }
    let before = bench.log.segments.len();
    assert!(before >= 4);
    bench.journal.begin_sweep();
    bench.session(1);
    bench.journal.end_sweep();
    bench.commit();
    assert_eq!(bench.log.segments.len(), 1);
    let (bench, image, report) = reopen(bench);
    assert_eq!((report.missing, report.segments), (0, 1));
    assert_eq!(image.sessions.len(), 1);
    assert!(image.messages.is_empty() && bench.log.spares.len() >= 2);
}

#[test]
fn what_a_sweep_left_out_does_not_come_back_with_an_old_segment() {
    let (mut bench, ..) = Bench::open(Memory::default());
    bench.session(1);
    bench.session(2);
    bench.publish(10, 2, b"x");
    bench.commit();
    let old = bench.log.disk().clone();
    bench.journal.append(&Record::SessionEnded { session: 2 }, Urgency::Soon);
    bench.journal.begin_sweep();
    bench.commit();
    bench.session(1);
    bench.journal.end_sweep();
    bench.commit();
    // The first segment, as if its new name had not reached the disk.
    for (name, bytes) in old.files.into_iter().filter(|(name, _)| name.ends_with(".log")) {
        bench.log.disk().files.insert(name, bytes);
    }
    let (_, image, _) = reopen(bench);
    assert_eq!(image.sessions.keys().collect::<Vec<_>>(), [&1]);
}

#[test]
fn damage_in_the_middle_is_reported_and_the_rest_is_there() {
    let (mut bench, ..) = Bench::open(Memory::default());
    bench.session(1);
    bench.commit();
    let mut places = Vec::new();
    for id in [10, 20, 30] {
        places.push(bench.log.current.as_ref().unwrap().offset as usize);
        bench.publish(id, 1, &[id as u8; 100]);
        bench.commit();
    }
    let file = bench.log.disk().files.iter_mut().find(|(name, _)| name.ends_with(".log")).unwrap().1;
    file[places[1] + 40] ^= 1;
    let (_, image, report) = reopen(bench);
    assert_eq!((report.missing, report.cut), (1, 0));
    assert_eq!((report.damages[0].offset, report.damages[0].count), (places[1], 1));
    assert_eq!(image.sessions[&1].deliveries.keys().collect::<Vec<_>>(), [&11, &31]);
}

#[test]
fn a_torn_batch_is_cut_at_its_first_bad_record_and_stays_cut() {
    let (mut bench, ..) = Bench::open(Memory::default());
    bench.session(1);
    bench.commit();
    let place = bench.log.current.as_ref().unwrap().offset as usize;
    for id in [10, 20, 30] {
        bench.publish(id, 1, &[id as u8; 100]);
    }
    bench.commit();
    let file = bench.log.disk().files.iter_mut().find(|(name, _)| name.ends_with(".log")).unwrap().1;
    file[place + 200] ^= 1;
    let (mut bench, image, report) = reopen(bench);
    assert_eq!((report.missing, report.cut), (0, 1));
    assert_eq!(image.sessions[&1].deliveries.keys().collect::<Vec<_>>(), [&11]);
    bench.publish(40, 1, b"x");
    bench.commit();
    let (_, image, report) = reopen(bench);
    assert_eq!((report.missing, report.cut), (0, 0));
    assert_eq!(image.sessions[&1].deliveries.keys().collect::<Vec<_>>(), [&11, &41]);
}

#[test]
fn a_failed_write_is_followed_by_a_segment_that_has_everything() {
    let (mut bench, ..) = Bench::open(Memory::default());
    bench.session(1);
    bench.commit();
    bench.publish(10, 1, b"lost");
    let batch = bench.journal.next_batch(Instant::from_milliseconds(u64::MAX)).unwrap();
    bench.log.disk().fails = true;
    assert!(bench.log.write(&batch).is_err());
    bench.journal.failed(batch);
    assert!(bench.journal.is_lost());
    bench.log.disk().fails = false;
    bench.journal.begin_sweep();
    bench.session(1);
    bench.publish(10, 1, b"again");
    bench.commit();
    let mut half = bench.log.disk().clone();
    half.fails = false;
    let (_, image, report) = Bench::open(half);
    assert_eq!((report.missing, image.sessions.len()), (0, 1), "what was given up is not reported as damage");
    bench.journal.end_sweep();
    bench.commit();
    let (_, image, report) = reopen(bench);
    assert_eq!((report.missing, report.segments), (0, 1));
    assert_eq!(image.sessions[&1].deliveries.len(), 1);
}

#[test]
fn time_that_passed_counts_as_far_as_it_is_known() {
    let tell = |journal: &mut Journal, milliseconds: u64, unix: u64, trusted: bool| {
        journal.set_clock(Now { instant: Instant::from_milliseconds(milliseconds), unix: UnixTime(unix) }, trusted);
    };
    for (trusted_then, trusted_now, unix_now, remaining) in [
        (true, true, 1_003, 2_000),
        (true, true, 900, 4_000),
        (false, true, 1_003, 4_000),
        (true, false, 1_003, 4_000),
        (true, true, 9_999, 0),
    ] {
        let (mut bench, ..) = Bench::open(Memory::default());
        // The session ends at 5,000; the clock is seen last at 1,000.
        tell(&mut bench.journal, 1_000, 1_001, trusted_then);
        bench.session(1);
        bench.commit();
        let (_, image, _) = reopen(bench);
        let ends = image.sessions[&1].about.as_ref().unwrap().ends.unwrap();
        let now = Now { instant: Instant::ZERO, unix: UnixTime(unix_now) };
        assert_eq!(image.remaining(ends, now, trusted_now), remaining, "{trusted_then} {trusted_now} {unix_now}");
    }
}

#[test]
fn a_full_disk_keeps_segments_for_deletions() {
    let sizes = Sizes { segment_bytes: 1 << 20, total_bytes: 6 << 20 };
    let mut recovered = recover(Memory::default(), sizes).unwrap();
    let mut journal = Journal::new(600_000, 0, 0);
    let mut room = recovered.log.room();
    assert_eq!(room.free_bytes, 6 << 20);
    while room.free_bytes > 0 {
        journal.append_with(&Record::SweepEnds, Urgency::Soon, |body| body.put_zeros(600_000).map(drop));
        let batch = journal.next_batch(Instant::ZERO).unwrap();
        room = recovered.log.write(&batch).unwrap();
        journal.written(batch);
    }
    assert_eq!(room.used_bytes, 6 << 20);
    assert!(recovered.log.disk().files.len() <= 6);
}

#[test]
fn a_sweep_has_room_although_others_that_never_ended_took_what_there_was() {
    let sizes = Sizes { segment_bytes: 1 << 20, total_bytes: 6 << 20 };
    let mut recovered = recover(Memory::default(), sizes).unwrap();
    let mut journal = Journal::new(600_000, 0, 0);
    let mut room = Room::default();
    for _ in 0..9 {
        journal.begin_sweep();
        let batch = journal.next_batch(Instant::ZERO).unwrap();
        room = recovered.log.write(&batch).unwrap();
        journal.written(batch);
        // The process ends here, and the next one reads what there is.
        recovered = recover(recovered.log.disk().clone(), sizes).unwrap();
        journal = Journal::new(600_000, 0, recovered.last);
    }
    assert_eq!((room.free_bytes, room.sweep_bytes), (0, 3 << 20));
    journal.begin_sweep();
    journal.end_sweep();
    let room = recovered.log.write(&journal.next_batch(Instant::ZERO).unwrap()).unwrap();
    assert_eq!((room.used_bytes, room.free_bytes), (1 << 20, 5 << 20));
}
