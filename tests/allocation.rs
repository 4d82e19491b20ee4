//! No message costs an allocation: a warm turn, from bytes in to bytes out, with every quality of service, to one subscriber
//! and to many, and with everything of it recorded for the disk. With TLS a record costs one, sent or received, which is
//! given back in the same turn.
//!
//! The allocator of this program counts. There is one test, because other tests would be counted with it.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod wires;

use portcullis::broker::{Admission, Broker, Durability, PortAdmission};
use portcullis::config::blob::Persistence;
use portcullis::config::{DEFAULT_FILES, LoadOptions, load_embedded};
use portcullis::net::{ClockTrust, ListenerSettings, Readiness, Transport, Turn, TurnSettings};
use portcullis::store::{Room, Sizes};
use portcullis::time::{Instant, Now, UnixTime};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use wires::{MutualTls, Wires, settings};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Messages before anything is counted, and counted.
const ROUNDS: usize = 300;
/// The same with TLS: ciphers take their time under emulation.
const TLS_ROUNDS: usize = 50;

struct Bench {
    wires: Wires,
    turn: Turn<Wires>,
    now: Now,
    ready: Vec<Readiness>,
    tls: Option<MutualTls>,
    allocations: usize,
    /// Bytes that were taken and not given back; less than zero where it was the other way.
    retained_bytes: isize,
}

impl Bench {
    fn new(keeps: bool, over_tls: bool) -> Self {
        let now = Now { instant: Instant::ZERO, unix: UnixTime(2_000_000_000) };
        let mut configuration = load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration;
        let (tls, authenticator) = if over_tls {
            let (tls, authenticator) = MutualTls::new(&mut configuration, now.unix, 64, false);
            (Some(tls), Some(authenticator))
        } else {
            (None, None)
        };
        let capacities = configuration.board.capacities;
        let port = PortAdmission { authenticator: tls.as_ref().map(|_| 0), policy: None };
        let authenticators = authenticator.into_iter().collect();
        let admission = Admission { ports: vec![port], authenticators, policies: Vec::new(), insiders: Vec::new() };
        let mut broker = Broker::new(&capacities, &configuration.clients, &settings(), admission, 1);
        if keeps {
            let persistence = Persistence { commit_interval_milliseconds: 0, ..Persistence::default() };
            let sizes = Sizes::new(256 << 20, 4 << 20);
            let room = Room { used_bytes: 0, free_bytes: 256 << 20, ..Room::default() };
            let record_bytes = Broker::record_bytes_max(&capacities);
            broker.set_durability(Durability::new(record_bytes, persistence, 0, sizes, 0, room));
        }
        let wires = Wires::default();
        let transport = tls.as_ref().map_or(Transport::Plain, |tls| tls.transport.clone());
        let listeners = vec![ListenerSettings { port: 0, transport, websocket: false }];
        let settings = TurnSettings { listeners, capacities, clock_trust: ClockTrust::default() };
        let turn = Turn::new(wires.clone(), broker, settings);
        Self { wires, turn, now, ready: Vec::with_capacity(64), tls, allocations: 0, retained_bytes: 0 }
    }

    /// Turns until nobody has anything to say, with a disk that is always done.
    fn run(&mut self) {
        for _ in 0..4 {
            self.ready.clear();
            let state = self.wires.0.borrow();
            if state.1 < state.0.len() {
                self.ready.push(Readiness { token: 0, readable: true, writable: false, hung_up: false });
            }
            for wire in state.0.iter().filter(|wire| !wire.to_broker.is_empty() && wire.token != 0) {
                self.ready.push(Readiness { token: wire.token, readable: true, writable: false, hung_up: false });
            }
            drop(state);
            self.now.instant = self.now.instant.plus_milliseconds(1);
            let region = Region::new(ALLOCATOR);
            self.turn.run(self.now, &self.ready);
            if let Some(batch) = self.turn.broker().next_batch(self.now.instant) {
                let room = Room { used_bytes: 0, free_bytes: 256 << 20, ..Room::default() };
                self.turn.broker().written(self.now, batch, Ok(room));
            }
            let change = region.change();
            self.allocations += change.allocations + change.reallocations;
            self.retained_bytes += change.bytes_allocated as isize - change.bytes_deallocated as isize;
        }
    }

    fn connect(&mut self, identifier: &str, expiry_seconds: u8) -> usize {
        let index = self.wires.open(self.tls.as_ref().map(MutualTls::client));
        self.run();
        while !self.wires.is_established(index) {
            self.take(index, |_| ());
            self.send(index, &[]);
            self.run();
        }
        let properties = [0x11, 0, 0, 0, expiry_seconds];
        let body = [&text("MQTT")[..], &[5, 2, 0, 0, 5], &properties, &text(identifier)].concat();
        self.send(index, &packet(0x10, &body));
        self.run();
        assert_eq!(self.take(index, |bytes| (bytes[0], bytes[3])), (0x20, 0));
        index
    }

    fn send(&self, index: usize, bytes: &[u8]) {
        self.wires.send(index, bytes);
    }

    fn take<T>(&self, index: usize, look: impl FnOnce(&[u8]) -> T) -> T {
        self.wires.take(index, look)
    }

    /// Begins to count.
    fn count(&mut self) {
        (self.allocations, self.retained_bytes) = (0, 0);
        self.wires.0.borrow_mut().0.iter_mut().for_each(|wire| wire.records = 0);
    }

    /// TLS records since then.
    fn records(&self) -> usize {
        self.wires.0.borrow().0.iter().map(|wire| wire.records).sum()
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128 * 128);
    let length = if body.len() < 128 {
        vec![body.len() as u8]
    } else {
        vec![(body.len() % 128) as u8 | 0x80, (body.len() / 128) as u8]
    };
    [&[first][..], &length, body].concat()
}

/// One message from a publisher to all subscribers and every acknowledgement of it.
fn exchange(bench: &mut Bench, publisher: usize, subscribers: &[usize], qos: u8, publish: &[u8]) {
    bench.send(publisher, publish);
    bench.run();
    for subscriber in subscribers {
        let identifier = bench.take(*subscriber, |bytes| {
            assert_eq!(bytes[0] & 0xF6, 0x30 | qos << 1, "the message, and nothing else");
            let topic_at = if bytes[1] & 0x80 == 0 { 2 } else { 3 };
            let topic_bytes = usize::from(u16::from_be_bytes([bytes[topic_at], bytes[topic_at + 1]]));
            let at = topic_at + 2 + topic_bytes;
            [bytes[at], bytes[at + 1]]
        });
        match qos {
            1 => bench.send(*subscriber, &[0x40, 2, identifier[0], identifier[1]]),
            2 => bench.send(*subscriber, &[0x50, 2, identifier[0], identifier[1]]),
            _ => {}
        }
    }
    bench.run();
    if qos == 2 {
        for subscriber in subscribers {
            let identifier = bench.take(*subscriber, |bytes| {
                assert_eq!(bytes[0], 0x62);
                [bytes[2], bytes[3]]
            });
            bench.send(*subscriber, &[0x70, 2, identifier[0], identifier[1]]);
        }
        assert_eq!(bench.take(publisher, |bytes| bytes[0]), 0x50);
        bench.send(publisher, &[0x62, 2, 0, 9]);
        bench.run();
        assert_eq!(bench.take(publisher, |bytes| bytes[0]), 0x70);
    } else if qos == 1 {
        assert_eq!(bench.take(publisher, |bytes| bytes[0]), 0x40);
    }
}

/// Clients that publish and subscribe, until nothing is new any more; then counts one round after the other.
fn warm_rounds(keeps: bool, over_tls: bool, rounds: usize, qos: u8, receivers: usize, payload_bytes: usize) -> Bench {
    let mut bench = Bench::new(keeps, over_tls);
    let lasting = if keeps { 100 } else { 0 };
    let publisher = bench.connect("publisher", lasting);
    let subscribers: Vec<usize> =
        (0..receivers).map(|number| bench.connect(&format!("subscriber {number}"), lasting)).collect();
    for subscriber in &subscribers {
        let body = [&[0, 1, 0][..], &text("machines/+/speed"), &[qos]].concat();
        bench.send(*subscriber, &packet(0x82, &body));
    }
    bench.run();
    assert!(bench.allocations > 0, "connections do, so that counting works");
    for subscriber in &subscribers {
        assert_eq!(bench.take(*subscriber, |bytes| bytes[0]), 0x90);
    }
    let identifier: &[u8] = if qos > 0 { &[0, 9] } else { &[] };
    let body = [&text("machines/7/speed")[..], identifier, &[0], &vec![7; payload_bytes]].concat();
    let publish = packet(0x30 | qos << 1, &body);
    for _ in 0..rounds {
        exchange(&mut bench, publisher, &subscribers, qos, &publish);
    }
    bench.count();
    for _ in 0..rounds {
        exchange(&mut bench, publisher, &subscribers, qos, &publish);
    }
    bench
}

#[test]
fn no_message_costs_an_allocation_and_a_tls_record_one() {
    for qos in 0..=2 {
        for (keeps, receivers, payload_bytes) in [(false, 1, 64), (false, 20, 1_500), (true, 1, 64), (true, 20, 1_500)]
        {
            let bench = warm_rounds(keeps, false, ROUNDS, qos, receivers, payload_bytes);
            assert_eq!(bench.allocations, 0, "QoS {qos}, {receivers} receivers, kept: {keeps}");
        }
        for (receivers, payload_bytes) in [(1, 64), (2, 1_500)] {
            let bench = warm_rounds(false, true, TLS_ROUNDS, qos, receivers, payload_bytes);
            let what = format!("QoS {qos}, {receivers} receivers of {payload_bytes} bytes");
            let records = bench.records();
            // A packet in one direction is a record: nothing is split, and what is said together goes together.
            let packets = TLS_ROUNDS * (1 + receivers) * [1, 2, 4][usize::from(qos)];
            assert_eq!(records, packets, "{what}");
            assert!(bench.allocations <= records, "{what}: {} for {records} records", bench.allocations);
            assert_eq!(bench.retained_bytes, 0, "{what}");
        }
    }
}
