//! What the log tells after the power was gone at any moment, writes failed, or the disk was damaged, against a plain model.
//!
//! Everything follows from one seed. Sessions, subscriptions, messages and what becomes of them are appended, batches are
//! written, everything live is swept into new segments, and calls of the disk fail. Then the power goes at each of the moments,
//! in each of the ways that the simulated disk knows. What is read then must be the model as it was after one of the records,
//! not before the last one that the journal called durable; nothing may be called damaged; and the log must go on from there.
//!
//! `PORTCULLIS_CRASH_SEED=7 cargo test --test crash` replays one seed; `cargo xtask crash` runs many.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used)]

mod simulated_disk;

use portcullis::store::record::{self, Identifiers, Receiver};
use portcullis::store::{
    Disk, Image, Journal, Log, Record, Recovered, Room, Segment, Sizes, Urgency, inspect, recover,
};
use portcullis::time::{Instant, Now, UnixTime};
use simulated_disk::{Call, Fault, Files, Random, SECTOR_BYTES, SimulatedDisk};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

const SEGMENT_BYTES: u64 = 8 * 1024;
const SIZES: Sizes = Sizes { segment_bytes: SEGMENT_BYTES, total_bytes: 24 * SEGMENT_BYTES };
/// Records of one batch, so that it fits into a segment.
const BATCH_RECORDS_MAX: usize = 12;
const PAYLOAD_BYTES_MAX: usize = 500;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    client: String,
    connected: bool,
    expiry_seconds: u32,
    will: Option<u64>,
    subscriptions: BTreeMap<u64, (Option<String>, String, u8, Option<u32>)>,
    deliveries: BTreeMap<u64, Delivery>,
    received: BTreeSet<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Delivery {
    message: Option<u64>,
    flags: u8,
    identifiers: Vec<u32>,
    packet_identifier: Option<u16>,
}

/// What must outlive the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tables {
    sessions: BTreeMap<u64, Session>,
    retained: BTreeMap<String, (u64, u8)>,
    /// Topic and payload.
    messages: BTreeMap<u64, Vec<u8>>,
}

impl Tables {
    fn drop_unreferenced(&mut self) {
        let of_sessions = self.sessions.values().flat_map(|session| {
            session.deliveries.values().filter_map(|delivery| delivery.message).chain(session.will)
        });
        let used: BTreeSet<u64> = of_sessions.chain(self.retained.values().map(|(message, _)| *message)).collect();
        self.messages.retain(|id, _| used.contains(id));
    }

    /// What was recovered, in the same form.
    fn of<D: Disk>(recovered: &mut Recovered<D>) -> Self {
        let mut messages = BTreeMap::new();
        recovered.each_message(|id, _, bytes| drop(messages.insert(id, bytes.to_vec()))).unwrap();
        let Image { sessions, retained, .. } = &recovered.image;
        let session = |session: &portcullis::store::image::Session| {
            let about = session.about.as_ref().unwrap();
            Session {
                client: about.client.clone(),
                connected: about.connected,
                expiry_seconds: about.expiry_seconds,
                will: about.will.map(|will| will.message),
                subscriptions: session
                    .subscriptions
                    .iter()
                    .map(|(id, known)| {
                        (*id, (known.group.clone(), known.filter.clone(), known.options, known.identifier))
                    })
                    .collect(),
                deliveries: session
                    .deliveries
                    .iter()
                    .map(|(id, known)| {
                        let (flags, identifiers) = (known.flags, known.identifiers.clone());
                        let (message, packet_identifier) = (known.message, known.packet_identifier);
                        (*id, Delivery { message, flags, identifiers, packet_identifier })
                    })
                    .collect(),
                received: session.received.keys().copied().collect(),
            }
        };
        Self {
            sessions: sessions.iter().map(|(id, known)| (*id, session(known))).collect(),
            retained: retained.iter().map(|(topic, known)| (topic.clone(), (known.message, known.qos))).collect(),
            messages,
        }
    }
}

/// What a sweep has still to write.
enum Item {
    Session(u64),
    Message(u64),
    Retained(String),
}

/// The tables, and the log that is told of their changes.
struct Bench {
    random: Random,
    disk: SimulatedDisk,
    log: Log<SimulatedDisk>,
    journal: Journal,
    tables: Tables,
    /// The tables after each record.
    history: BTreeMap<u64, Rc<Tables>>,
    last_number: u64,
    milliseconds: u64,
    sweep: Option<Vec<Item>>,
    /// Records since the last batch.
    appended: usize,
    room: Room,
    /// Segments in use from which on everything is swept.
    sweeps_at: u64,
    /// What was durable after so many operations of the disk.
    promises: Vec<(usize, u64)>,
    failures: usize,
}

impl Bench {
    fn open(disk: SimulatedDisk, seed: u64) -> Self {
        let mut recovered = recover(disk.clone(), SIZES).unwrap();
        let tables = Tables::of(&mut recovered);
        let last_number = recovered.image.last_number;
        let journal = Journal::new(4_096, 0, recovered.last);
        let history = BTreeMap::from([(recovered.last, Rc::new(tables.clone()))]);
        let (log, last) = (recovered.log, recovered.last);
        let mut bench = Self {
            random: Random::new(seed),
            disk,
            log,
            journal,
            tables,
            history,
            last_number,
            milliseconds: 0,
            sweep: None,
            appended: 0,
            room: Room::default(),
            sweeps_at: 5,
            promises: vec![(0, last)],
            failures: 0,
        };
        bench.tick(0);
        bench
    }

    fn tick(&mut self, milliseconds: u64) {
        self.milliseconds += milliseconds;
        let now = Now { instant: Instant::from_milliseconds(self.milliseconds), unix: UnixTime(1_800_000_000) };
        self.journal.set_clock(now, true);
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1 + self.random.below(3) as u64;
        self.last_number
    }

    /// Appends a record, of which the tables know already.
    fn append(&mut self, record: &Record<'_>, receivers: &[Receiver<'_>], content: &[u8]) {
        let before = Rc::clone(self.history.last_key_value().unwrap().1);
        let last = *self.history.last_key_value().unwrap().0;
        let number = self.journal.append_with(record, Urgency::Soon, |body| {
            receivers.iter().try_for_each(|receiver| body.put_receiver(receiver))?;
            body.put_zeros(content.len())?.copy_from_slice(content);
            Ok(())
        });
        // What the clocks show stands before it.
        for between in last + 1..number {
            self.history.insert(between, Rc::clone(&before));
        }
        self.tables.drop_unreferenced();
        self.history.insert(number, Rc::new(self.tables.clone()));
        self.appended += 1;
    }

    fn append_session(&mut self, id: u64) {
        let session = self.tables.sessions[&id].clone();
        let will = session.will.map(|message| record::Will {
            message,
            qos: 1,
            retain: false,
            delay_seconds: 5,
            expiry_seconds: None,
        });
        let record = record::Session {
            id,
            client: &session.client,
            port: 1,
            judges: 2,
            stale: false,
            method: 3,
            principal: [4; 16],
            username: Some("somebody"),
            attributes: &[5; 9],
            keeps_queue: true,
            connected: session.connected,
            expiry_seconds: session.expiry_seconds,
            ends: (!session.connected).then_some(self.milliseconds + 1_000),
            will,
            will_due: None,
        };
        self.append(&Record::Session(record), &[], &[]);
    }

    fn append_subscription(&mut self, session: u64, id: u64) {
        let (group, filter, options, identifier) = self.tables.sessions[&session].subscriptions[&id].clone();
        let record =
            record::Subscription { session, id, group: group.as_deref(), filter: &filter, options, identifier };
        self.append(&Record::Subscription(record), &[], &[]);
    }

    fn message_of(&self, id: u64, content: &[u8]) -> record::Message {
        let property_bytes = (content.len() as u32 - 4).min(3);
        record::Message { id, topic_bytes: 4, property_bytes, expires: Some(self.milliseconds + 60_000) }
    }

    fn append_message(&mut self, id: u64) {
        let content = self.tables.messages[&id].clone();
        self.append(&Record::Message(self.message_of(id, &content)), &[], &content);
    }

    fn new_message(&mut self) -> (u64, Vec<u8>, String) {
        let id = self.number();
        let topic = format!("t/{:02}", self.random.below(6));
        let mut content = topic.clone().into_bytes();
        let length = self.random.below(PAYLOAD_BYTES_MAX);
        content.extend((0..length).map(|at| (at as u64 * 31 + id) as u8));
        (id, content, topic)
    }

    fn some_session(&mut self) -> Option<u64> {
        let ids: Vec<u64> = self.tables.sessions.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[self.random.below(ids.len())])
    }

    fn some_delivery(&mut self) -> Option<(u64, u64)> {
        let ids: Vec<(u64, u64)> = self
            .tables
            .sessions
            .iter()
            .flat_map(|(id, session)| session.deliveries.keys().map(|delivery| (*id, *delivery)))
            .collect();
        (!ids.is_empty()).then(|| ids[self.random.below(ids.len())])
    }

    fn connect(&mut self) {
        let id = self.number();
        let client = format!("client {}", self.random.below(1_000));
        let mut session = Session { client, connected: true, expiry_seconds: 300, ..Session::default() };
        if self.random.chance(30) {
            let (message, content, _) = self.new_message();
            // Not referred to before its session is there: the tables that a torn batch leaves have none of it.
            self.append(&Record::Message(self.message_of(message, &content)), &[], &content);
            self.tables.messages.insert(message, content);
            session.will = Some(message);
        }
        self.tables.sessions.insert(id, session);
        self.append_session(id);
    }

    fn publish(&mut self) {
        let (id, content, topic) = self.new_message();
        let mut scratch = [0; 8];
        let identifiers = Identifiers::of(&[7, 200_000_000], &mut scratch);
        let mut receivers = Vec::new();
        for _ in 0..self.random.below(3) {
            let Some(session) = self.some_session() else { break };
            let flags = 1 + self.random.below(2) as u8;
            let delivery = self.number();
            receivers.push(Receiver { session, delivery, flags, identifiers });
            let entry =
                Delivery { message: Some(id), flags, identifiers: vec![7, 200_000_000], packet_identifier: None };
            self.tables.sessions.get_mut(&session).unwrap().deliveries.insert(delivery, entry);
        }
        let retained = self.random.chance(30).then_some(1);
        if retained.is_some() {
            self.tables.retained.insert(topic, (id, 1));
        }
        let received = self.random.chance(40).then(|| self.some_session()).flatten();
        let received = received.map(|session| (session, 1 + self.random.below(20) as u16));
        if let Some((session, packet_identifier)) = received {
            self.tables.sessions.get_mut(&session).unwrap().received.insert(packet_identifier);
        }
        let message = self.message_of(id, &content);
        self.tables.messages.insert(id, content.clone());
        let record = Record::Published { message, retained, received, receivers: receivers.len() as u32 };
        self.append(&record, &receivers, &content);
    }

    /// One change of the tables.
    fn change(&mut self) {
        match self.random.below(100) {
            0..8 => self.connect(),
            8..45 => self.publish(),
            45..65 => self.change_delivery(),
            65..70 => {
                let Some(topic) = self.tables.retained.keys().next_back().cloned() else { return };
                self.tables.retained.remove(&topic);
                self.append(&Record::Cleared { topic: &topic }, &[], &[]);
            }
            70..75 => {
                let Some(topic) = self.tables.retained.keys().next().cloned() else { return };
                let (message, _) = self.tables.retained[&topic];
                self.tables.retained.insert(topic.clone(), (message, 2));
                self.append(&Record::Retained { message, qos: 2, topic: &topic }, &[], &[]);
            }
            _ => self.change_session(),
        }
    }

    fn change_delivery(&mut self) {
        let Some((session, delivery)) = self.some_delivery() else { return };
        let entry = self.tables.sessions.get_mut(&session).unwrap();
        match self.random.below(4) {
            0 => {
                let packet_identifier = delivery as u16;
                entry.deliveries.get_mut(&delivery).unwrap().packet_identifier = Some(packet_identifier);
                self.append(&Record::Sent { session, delivery, packet_identifier }, &[], &[]);
            }
            1 => {
                entry.deliveries.get_mut(&delivery).unwrap().message = None;
                self.append(&Record::Recorded { session, delivery }, &[], &[]);
            }
            _ => {
                entry.deliveries.remove(&delivery);
                self.append(&Record::Done { session, delivery }, &[], &[]);
            }
        }
    }

    fn change_session(&mut self) {
        let Some(session) = self.some_session() else { return };
        let packet_identifier = 1 + self.random.below(20) as u16;
        let chosen = self.random.below(12);
        let id = self.number();
        let entry = self.tables.sessions.get_mut(&session).unwrap();
        match chosen {
            0..4 => {
                let group = (chosen == 0).then(|| "group".to_owned());
                let filter = format!("t/{chosen}/#");
                entry.subscriptions.insert(id, (group, filter, chosen as u8, Some(chosen as u32)));
                self.append_subscription(session, id);
            }
            4 => {
                let Some((subscription, _)) = entry.subscriptions.pop_first() else { return };
                self.append(&Record::Unsubscribed { session, subscription }, &[], &[]);
            }
            5 => {
                entry.received.insert(packet_identifier);
                self.append(&Record::Received { session, packet_identifier }, &[], &[]);
            }
            6 | 7 => {
                let Some(packet_identifier) = entry.received.pop_first() else { return };
                self.append(&Record::Released { session, packet_identifier }, &[], &[]);
            }
            8 => {
                (entry.connected, entry.expiry_seconds) = (false, 77);
                let has_will = entry.will.is_some();
                let (ends, will_due) = (Some(self.milliseconds + 77_000), Some(self.milliseconds + 5_000));
                let record = Record::Detached { session, expiry_seconds: 77, ends, has_will, will_due };
                self.append(&record, &[], &[]);
            }
            9 => {
                entry.will = None;
                self.append(&Record::WillGone { session }, &[], &[]);
            }
            10 => {
                entry.connected = !entry.connected;
                self.append_session(session);
            }
            _ => {
                self.tables.sessions.remove(&session);
                self.append(&Record::SessionEnded { session }, &[], &[]);
            }
        }
    }

    fn begin_sweep(&mut self) {
        let begin = *self.history.last_key_value().unwrap().0;
        let number = self.journal.begin_sweep();
        let state = Rc::new(self.tables.clone());
        self.history.extend((begin + 1..=number).map(|number| (number, Rc::clone(&state))));
        let mut items: Vec<Item> = self.tables.sessions.keys().map(|id| Item::Session(*id)).collect();
        items.extend(self.tables.messages.keys().map(|id| Item::Message(*id)));
        items.extend(self.tables.retained.keys().map(|topic| Item::Retained(topic.clone())));
        // In any order: what is referred to may come later.
        for at in (1..items.len()).rev() {
            items.swap(at, self.random.below(at + 1));
        }
        self.sweep = Some(items);
    }

    fn sweep_some(&mut self, most: usize) {
        for _ in 0..most {
            let Some(item) = self.sweep.as_mut().and_then(Vec::pop) else { break };
            match item {
                Item::Session(id) => self.sweep_session(id),
                Item::Message(id) if self.tables.messages.contains_key(&id) => self.append_message(id),
                Item::Message(_) => {}
                Item::Retained(topic) => {
                    if let Some((message, qos)) = self.tables.retained.get(&topic).copied() {
                        self.append(&Record::Retained { message, qos, topic: &topic }, &[], &[]);
                    }
                }
            }
            self.commit_when_full();
        }
        if self.sweep.as_ref().is_some_and(Vec::is_empty) {
            self.sweep = None;
            let before = *self.history.last_key_value().unwrap().0;
            self.journal.end_sweep();
            let state = Rc::new(self.tables.clone());
            self.history.extend((before + 1..before + 3).map(|number| (number, Rc::clone(&state))));
        }
    }

    fn sweep_session(&mut self, id: u64) {
        let Some(session) = self.tables.sessions.get(&id).cloned() else { return };
        self.append_session(id);
        for subscription in session.subscriptions.keys() {
            self.append_subscription(id, *subscription);
        }
        for (delivery, entry) in session.deliveries {
            let mut scratch = [0; 8];
            let identifiers = Identifiers::of(&entry.identifiers, &mut scratch);
            let receiver = Receiver { session: id, delivery, flags: entry.flags, identifiers };
            let (message, packet_identifier) = (entry.message, entry.packet_identifier);
            self.append(&Record::Delivery(record::Delivery { receiver, message, packet_identifier }), &[], &[]);
        }
        for packet_identifier in session.received {
            self.append(&Record::Received { session: id, packet_identifier }, &[], &[]);
        }
    }

    fn commit_when_full(&mut self) {
        if self.appended >= BATCH_RECORDS_MAX {
            self.commit();
        }
    }

    fn commit(&mut self) {
        self.appended = 0;
        let Some(batch) = self.journal.next_batch(Instant::from_milliseconds(u64::MAX)) else { return };
        match self.log.write(&batch) {
            Ok(room) => {
                self.room = room;
                let last = batch.last;
                if self.journal.written(batch) {
                    self.promises.push((self.disk.operations(), last));
                }
            }
            Err(_) => {
                self.failures += 1;
                self.journal.failed(batch);
                self.sweep = None;
            }
        }
    }

    /// A turn: some changes, perhaps part of a sweep, a batch.
    fn turn(&mut self) {
        let passed = self.random.below(400) as u64;
        self.tick(passed);
        for _ in 0..1 + self.random.below(5) {
            self.change();
        }
        if self.journal.is_lost() {
            if self.random.chance(50) {
                self.begin_sweep();
            }
        } else if self.sweep.is_some() {
            let most = 1 + self.random.below(6);
            self.sweep_some(most);
        } else if self.room.used_bytes >= self.sweeps_at * SEGMENT_BYTES && self.journal.may_begin_sweep() {
            self.begin_sweep();
        }
        if self.random.chance(80) {
            self.commit();
        }
        self.commit_when_full();
    }

    /// Faults are over: everything that is owed becomes durable.
    fn settle(&mut self) {
        self.disk.fail(&[]);
        if self.journal.is_lost() {
            self.begin_sweep();
        }
        while self.sweep.is_some() {
            self.sweep_some(4);
        }
        self.commit();
    }

    fn draw_faults(&mut self) {
        let calls = [Call::Create, Call::Write, Call::Sync, Call::Rename, Call::Remove, Call::SyncNames];
        let errors = [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::Other];
        let fault = Fault {
            call: calls[self.random.below(calls.len())],
            after: self.random.below(4),
            times: [1, 1, 2, usize::MAX][self.random.below(4)],
            error: errors[self.random.below(errors.len())],
        };
        self.disk.fail(&[fault]);
    }
}

/// A folder is read, and must hold what `history` says; then the log goes on in it, and nothing that was cut off comes back.
fn check(files: &Files, history: &BTreeMap<u64, Rc<Tables>>, durable: u64, seed: u64) {
    let disk = SimulatedDisk::new(files.clone());
    let mut recovered = recover(disk.clone(), SIZES).unwrap();
    let tables = Tables::of(&mut recovered);
    let last = recovered.last;
    assert!(last >= durable, "{durable} was durable, and {last} is there");
    assert_eq!((recovered.report.missing, &recovered.report.damages), (0, &Vec::new()));
    // Numbers of records that were lost count too, so that it need not be what the last number stands for.
    let is_told = history.range(durable..=last).rev().any(|(_, expected)| **expected == tables);
    assert!(is_told, "after {last}, {durable} durable: {tables:#?}");
    drop(recovered);
    let mut random = Random::new(seed);
    if random.chance(12) {
        // The power goes while it is being read.
        let mut again = recover(SimulatedDisk::new(disk.crash(&mut random)), SIZES).unwrap();
        assert_eq!((again.last, Tables::of(&mut again), again.report.missing), (last, tables.clone(), 0));
    }
    if random.chance(12) {
        let unchanged = SimulatedDisk::new(files.clone());
        let mut looked_at = inspect(unchanged.clone(), SIZES).unwrap();
        assert_eq!((looked_at.last, Tables::of(&mut looked_at)), (last, tables.clone()));
        assert_eq!(&unchanged.files(), files);
    }
    if random.chance(25) {
        goes_on(disk.files(), (last, &tables), &mut random);
    }
}

fn goes_on(files: Files, (last, tables): (u64, &Tables), random: &mut Random) {
    let disk = SimulatedDisk::new(files);
    let mut bench = Bench::open(disk, random.below(1 << 30) as u64);
    assert_eq!((bench.promises[0].1, &bench.tables), (last, tables), "read twice");
    for _ in 0..random.below(4) {
        bench.turn();
    }
    if random.chance(50) && bench.sweep.is_none() {
        bench.commit();
        bench.begin_sweep();
    }
    bench.settle();
    let mut again = recover(SimulatedDisk::new(bench.disk.files()), SIZES).unwrap();
    assert_eq!((again.report.missing, again.report.cut), (0, 0));
    assert_eq!(Tables::of(&mut again), bench.tables);
    assert!(bench.journal.is_durable(again.last));
}

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// Runs a workload from one seed, and looks at one of twenty of its crash states. Returns how many there were, and how many batches failed.
fn run(seed: u64) -> (usize, usize) {
    SEED.set(seed);
    let mut states = 0;
    let mut random = Random::new(seed ^ 0x5EED);
    // What a former process left, perhaps in the middle of something.
    let mut files = Files::new();
    for _ in 0..random.below(2) {
        let mut bench = Bench::open(SimulatedDisk::new(files), random.below(1 << 30) as u64);
        (0..30).for_each(|_| bench.turn());
        files = bench.disk.crash(&mut random);
    }
    let mut bench = Bench::open(SimulatedDisk::new(files), seed);
    let has_faults = seed.is_multiple_of(2);
    for _ in 0..24 {
        match random.below(10) {
            0..2 if has_faults => bench.draw_faults(),
            2..5 => bench.disk.fail(&[]),
            _ => {}
        }
        bench.turn();
    }
    bench.settle();
    assert!(bench.journal.is_durable(bench.promises.last().unwrap().1) && !bench.journal.rewrites());
    let Bench { disk, history, promises, failures, .. } = &bench;
    let mut sample = Random::new(random.below(1 << 30) as u64);
    disk.each_crash(&mut random, |operations, files| {
        let durable = promises.iter().rev().find(|(at, _)| *at <= operations).map_or(0, |(_, last)| *last);
        if sample.chance(95) {
            return;
        }
        states += 1;
        check(&files, history, durable, seed.wrapping_mul(1_000_003).wrapping_add(states as u64));
    });
    (states, *failures)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct SaysSeed;

impl Drop for SaysSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with PORTCULLIS_CRASH_SEED={}", SEED.get());
        }
    }
}

#[test]
fn after_any_crash_the_log_tells_what_was_durable_and_nothing_half() {
    let _says_seed = SaysSeed;
    if let Some(seed) = number("PORTCULLIS_CRASH_SEED") {
        run(seed);
        return;
    }
    let wanted = number("PORTCULLIS_CRASH_STATES").unwrap_or(2_500) as usize;
    let (mut states, mut failures, mut seeds) = (0, 0, 0);
    while states < wanted {
        seeds += 1;
        let (visited, failed) = run(seeds);
        (states, failures) = (states + visited, failures + failed);
    }
    println!("{states} crash states of {seeds} workloads, in which {failures} batches failed");
    assert!(failures > 0);
}

/// A record as it lies in a segment.
#[derive(Clone, Copy, Debug)]
struct Lies {
    segment: Segment,
    /// Of its frame.
    offset: usize,
    end: usize,
    sequence: u64,
    batch: u64,
}

const FRAME_BYTES: usize = 16;
const HEADER_BYTES: usize = 64;

/// Where all records lie, the oldest first, as the format says.
fn records(files: &Files) -> Vec<Lies> {
    let mut found: Vec<Lies> = Vec::new();
    for (name, bytes) in files {
        let Some(segment) = segment_of(name) else { continue };
        let mut offset = HEADER_BYTES;
        while let Some((head, _)) = bytes.get(offset..).and_then(|rest| rest.split_first_chunk::<FRAME_BYTES>()) {
            let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
            let position = u64::from_le_bytes(head[8..].try_into().unwrap());
            let (sequence, index) = (position >> 16, position & 0xFFFF);
            if length == 0 || index > sequence || found.last().is_some_and(|before| sequence != before.sequence + 1) {
                break;
            }
            let end = offset + FRAME_BYTES + length;
            found.push(Lies { segment, offset, end, sequence, batch: sequence - index });
            offset = end;
        }
    }
    found
}

fn segment_of(name: &str) -> Option<Segment> {
    let (number, key) = name.strip_suffix(".log")?.split_once('-')?;
    Some(Segment { number: u64::from_str_radix(number, 16).ok()?, key: u32::from_str_radix(key, 16).ok()? })
}

/// What the records that `counts` lets through tell, without what finds them.
fn told(files: &Files, lying: &[Lies], counts: impl Fn(&Lies) -> bool) -> Image {
    let mut image = Image::default();
    for lies in lying.iter().filter(|lies| counts(lies)) {
        let body = &files[&lies.segment.to_string()][lies.offset + FRAME_BYTES..lies.end];
        image.apply(body, lies.segment, lies.offset + FRAME_BYTES, lies.sequence).unwrap();
    }
    image.finish();
    image
}

fn shown(image: &Image) -> String {
    let Image { sessions, retained, orphans, .. } = image;
    format!("{sessions:#?} {retained:#?} {:#?} {orphans}", image.messages_in_order())
}

/// A log of some segments, in which nothing was swept, and a last batch that is no subject of damage.
fn long_log(seed: u64) -> Files {
    let mut bench = Bench::open(SimulatedDisk::new(Files::new()), seed);
    bench.sweeps_at = 1_000;
    while bench.room.used_bytes < 5 * SEGMENT_BYTES {
        bench.turn();
    }
    bench.commit();
    bench.append(&Record::Cleared { topic: "t/none" }, &[], &[]);
    bench.commit();
    bench.disk.files()
}

/// Damages the bytes of a segment from `begin` to `end`, and compares what is read with what all other records tell.
fn check_damage(
    files: &Files,
    lying: &[Lies],
    segment: Segment,
    (begin, end): (usize, usize),
    damage: impl Fn(&mut [u8]),
) {
    let hit = |lies: &Lies| lies.segment == segment && lies.offset < end && lies.end > begin;
    let mut damaged = files.clone();
    let bytes = damaged.get_mut(&segment.to_string()).unwrap();
    let end = end.min(bytes.len());
    damage(&mut bytes[begin..end]);
    let recovered = recover(SimulatedDisk::new(damaged), SIZES).unwrap();
    let missing: BTreeSet<u64> = lying.iter().filter(|lies| hit(lies)).map(|lies| lies.sequence).collect();
    let reported = recovered.report.damages.iter().flat_map(|damage| damage.first..damage.first + damage.count);
    assert_eq!((reported.collect(), recovered.report.missing), (missing.clone(), missing.len() as u64));
    assert_eq!((recovered.report.cut, recovered.last), (0, lying.last().unwrap().sequence));
    assert_eq!(shown(&recovered.image), shown(&told(files, lying, |lies| !hit(lies))));
}

#[test]
fn of_damaged_records_exactly_those_are_missing_and_reported() {
    for seed in 1..=3 {
        let files = long_log(seed);
        let lying = records(&files);
        let mut random = Random::new(seed);
        let last = lying.last().unwrap().batch;
        for lies in lying.iter().filter(|lies| lies.batch < last && lies.sequence % 3 == seed % 3) {
            let at = lies.offset + random.below(lies.end - lies.offset);
            let bit = random.below(8);
            check_damage(&files, &lying, lies.segment, (at, at + 1), |bytes| bytes[0] ^= 1 << bit);
        }
    }
}

#[test]
fn of_lost_blocks_exactly_their_records_are_missing_also_with_the_header() {
    for seed in 1..=3 {
        let files = long_log(seed);
        let lying = records(&files);
        let mut random = Random::new(seed);
        let mut segments: Vec<Segment> = lying.iter().map(|lies| lies.segment).collect();
        segments.dedup();
        segments.pop();
        for segment in segments {
            for block in [SECTOR_BYTES, 4_096, 65_536] {
                for begin in (0..SEGMENT_BYTES as usize).step_by(block) {
                    check_damage(&files, &lying, segment, (begin, begin + block), |bytes| bytes.fill(0));
                    let seed = random.below(1 << 30) as u64;
                    check_damage(&files, &lying, segment, (begin, begin + block), |bytes| {
                        let mut random = Random::new(seed);
                        bytes.fill_with(|| random.below(256) as u8);
                    });
                }
            }
        }
    }
}

/// Completes the checksum of the record that begins at `offset`, if its length is one.
fn seal(bytes: &mut [u8], offset: usize, key: u32) {
    let Some(rest) = bytes.get_mut(offset..) else { return };
    let Some((head, body)) = rest.split_first_chunk_mut::<FRAME_BYTES>() else { return };
    let length = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
    let Some(body) = body.get(..length) else { return };
    let parts = [&key.to_le_bytes(), &head[..4], &head[8..], body];
    let checksum = parts.into_iter().fold(0, crc32c::crc32c_append);
    head[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Files that no broker wrote: noise, copies with bytes changed and lengths made huge, some with checksums that are right.
fn garbage(good: &Files, random: &mut Random) -> Files {
    let mut files = good.clone();
    for (name, bytes) in &mut files {
        let segment = segment_of(name).unwrap_or(Segment { number: 0, key: 0 });
        let places: Vec<usize> =
            records(good).iter().filter(|lies| lies.segment == segment).map(|lies| lies.offset).collect();
        for _ in 0..random.below(12) {
            let at = match places.len() {
                0 => random.below(bytes.len()),
                count => places[random.below(count)],
            };
            match random.below(4) {
                // Numbers of a frame.
                0 => {
                    bytes[at.min(SEGMENT_BYTES as usize - FRAME_BYTES) + random.below(FRAME_BYTES)] =
                        [0, 1, 0x7F, 0xFF][random.below(4)]
                }
                // A body, often one that counts as whole.
                1 | 2 => {
                    for _ in 0..1 + random.below(4) {
                        let end = bytes.len();
                        bytes[(at + FRAME_BYTES + random.below(12)).min(end - 1)] = [0xFF, 0x80, 0][random.below(3)];
                    }
                }
                _ => bytes[at] = random.below(256) as u8,
            }
            if random.chance(80) {
                seal(bytes, at, segment.key);
            }
        }
        match random.below(8) {
            0 => bytes.truncate(random.below(bytes.len() + 1)),
            1 => bytes.fill_with(|| random.below(256) as u8),
            2 => bytes.clear(),
            _ => {}
        }
    }
    if random.chance(30) {
        let bytes = files.values().next().cloned().unwrap_or_default();
        let name = ["0000000000000000-00000000.log", "fffffffffffffffe-00000000.log", "7fffffffffffffff.spare", "lock"]
            [random.below(4)];
        files.insert(name.to_owned(), bytes);
    }
    files
}

#[test]
fn whatever_the_files_hold_they_are_read_without_a_panic_and_the_log_goes_on() {
    let cases = number("PORTCULLIS_CRASH_STATES").unwrap_or(2_500) / 5;
    let good: Vec<Files> = (1..=3).map(long_log).collect();
    for seed in number("PORTCULLIS_CRASH_SEED").map_or(1..=cases, |seed| seed..=seed) {
        let mut random = Random::new(seed);
        let files = garbage(&good[random.below(good.len())], &mut random);
        let disk = SimulatedDisk::new(files);
        let mut recovered = recover(disk.clone(), SIZES).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let _ = Tables::of(&mut recovered);
        let last = recovered.last;
        let mut journal = Journal::new(4_096, 0, last);
        journal.append(&Record::Cleared { topic: "none" }, Urgency::Soon);
        let batch = journal.next_batch(Instant::ZERO).unwrap();
        recovered.log.write(&batch).unwrap();
        assert!(journal.written(batch));
        let again = recover(SimulatedDisk::new(disk.files()), SIZES).unwrap();
        assert!(again.last >= last + 2, "seed {seed}: {} after {last}", again.last);
    }
}
