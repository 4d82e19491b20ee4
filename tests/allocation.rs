//! No message costs an allocation: a warm turn, from bytes in to bytes out, with every quality of service, to one subscriber
//! and to many, and with everything of it recorded for the disk.
//!
//! The allocator of this program counts. There is one test, because other tests would be counted with it.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use portcullis::broker::{Admission, Broker, Durability, PortAdmission, Settings};
use portcullis::config::blob::Persistence;
use portcullis::config::{DEFAULT_FILES, LoadOptions, load_embedded};
use portcullis::net::{
    Accepted, ClockTrust, Interest, Io, ListenerSettings, Network, Readiness, Transport, Turn, TurnSettings,
};
use portcullis::store::{Room, Sizes};
use portcullis::time::{Instant, Now, UnixTime};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Messages before anything is counted, and counted.
const ROUNDS: usize = 300;
/// Bytes of a socket: enough for what one turn sends.
const WIRE_BYTES: usize = 64 * 1024;

/// Both directions of one connection, in memory that does not grow.
struct Wire {
    to_broker: Vec<u8>,
    to_client: Vec<u8>,
    token: u64,
}

#[derive(Clone, Default)]
struct Wires(Rc<RefCell<(Vec<Wire>, usize)>>);

impl Network for Wires {
    type Stream = usize;

    fn accept(&mut self, _: usize) -> Accepted<usize> {
        let (wires, accepted) = &mut *self.0.borrow_mut();
        if *accepted == wires.len() {
            return Accepted::Nothing;
        }
        *accepted += 1;
        Accepted::Stream(*accepted - 1, (Ipv4Addr::LOCALHOST, 1).into())
    }

    fn read(&mut self, stream: &mut usize, into: &mut [u8]) -> Io {
        let bytes = &mut self.0.borrow_mut().0[*stream].to_broker;
        if bytes.is_empty() {
            return Io::WouldBlock;
        }
        into[..bytes.len()].copy_from_slice(bytes);
        let count = bytes.len();
        bytes.clear();
        Io::Bytes(count)
    }

    fn write(&mut self, stream: &mut usize, from: &[u8]) -> Io {
        let bytes = &mut self.0.borrow_mut().0[*stream].to_client;
        assert!(bytes.len() + from.len() <= bytes.capacity(), "the test reads in time");
        bytes.extend_from_slice(from);
        Io::Bytes(from.len())
    }

    fn watch(&mut self, stream: &usize, token: u64, _: Interest) -> bool {
        self.0.borrow_mut().0[*stream].token = token;
        true
    }

    fn change(&mut self, _: &usize, _: u64, _: Interest) {}
    fn finish(&mut self, _: &mut usize) {}
    fn close(&mut self, stream: usize) {
        panic!("connection {stream} was closed");
    }
    fn listen(&mut self, _: usize, _: bool) {}
}

struct Bench {
    wires: Wires,
    turn: Turn<Wires>,
    now: Now,
    ready: Vec<Readiness>,
    allocations: usize,
}

impl Bench {
    fn new(keeps: bool) -> Self {
        let configuration = load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration;
        let capacities = configuration.board.capacities;
        let settings = Settings {
            connect_deadline_seconds: 10,
            shares_client_identifiers: false,
            announces_expiry: false,
            validate_payload_format: false,
            sys_interval_seconds: 0,
            response_information: None,
        };
        let admission =
            Admission { ports: vec![PortAdmission::default()], authenticators: Vec::new(), policies: Vec::new() };
        let mut broker = Broker::new(&capacities, &configuration.clients, &settings, admission, 1);
        if keeps {
            let persistence = Persistence { commit_interval_milliseconds: 0, ..Persistence::default() };
            let sizes = Sizes::new(256 << 20, 4 << 20);
            let room = Room { used_bytes: 0, free_bytes: 256 << 20, ..Room::default() };
            let record_bytes = Broker::record_bytes_max(&capacities);
            broker.set_durability(Durability::new(record_bytes, persistence, 0, sizes, 0, room));
        }
        let wires = Wires::default();
        let listeners = vec![ListenerSettings { port: 0, transport: Transport::Plain, websocket: false }];
        let settings = TurnSettings { listeners, capacities, clock_trust: ClockTrust::default() };
        let now = Now { instant: Instant::ZERO, unix: UnixTime(2_000_000_000) };
        let turn = Turn::new(wires.clone(), broker, settings);
        Self { wires, turn, now, ready: Vec::with_capacity(64), allocations: 0 }
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
        }
    }

    fn connect(&mut self, identifier: &str, expiry_seconds: u8) -> usize {
        let index = {
            let (wires, _) = &mut *self.wires.0.borrow_mut();
            let wire = || Vec::with_capacity(WIRE_BYTES);
            wires.push(Wire { to_broker: wire(), to_client: wire(), token: 0 });
            wires.len() - 1
        };
        self.run();
        let properties = [0x11, 0, 0, 0, expiry_seconds];
        let body = [&text("MQTT")[..], &[5, 2, 0, 0, 5], &properties, &text(identifier)].concat();
        self.send(index, &packet(0x10, &body));
        self.run();
        assert_eq!(self.take(index, |bytes| (bytes[0], bytes[3])), (0x20, 0));
        index
    }

    fn send(&self, index: usize, bytes: &[u8]) {
        self.wires.0.borrow_mut().0[index].to_broker.extend_from_slice(bytes);
    }

    fn take<T>(&self, index: usize, look: impl FnOnce(&[u8]) -> T) -> T {
        let bytes = &mut self.wires.0.borrow_mut().0[index].to_client;
        let seen = look(bytes);
        bytes.clear();
        seen
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

#[test]
fn no_message_costs_an_allocation() {
    for (keeps, receivers, payload_bytes) in [(false, 1, 64), (false, 20, 1_500), (true, 1, 64), (true, 20, 1_500)] {
        for qos in 0..=2 {
            let mut bench = Bench::new(keeps);
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
            for _ in 0..ROUNDS {
                exchange(&mut bench, publisher, &subscribers, qos, &publish);
            }
            bench.allocations = 0;
            for _ in 0..ROUNDS {
                exchange(&mut bench, publisher, &subscribers, qos, &publish);
            }
            assert_eq!(bench.allocations, 0, "QoS {qos}, {receivers} receivers, kept: {keeps}");
        }
    }
}
