//! `cargo xtask bench handshakes`: what it costs the broker that a client with a certificate connects, is accepted and leaves.
//!
//! The broker's turn runs over connections in memory: what is printed is its own processor time, without the system's share
//! of sockets. Clients work between the turns, and are not counted.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../wires/mod.rs"]
mod wires;

use portcullis::broker::{Admission, Broker, PortAdmission};
use portcullis::config::{DEFAULT_FILES, LoadOptions, load_embedded};
use portcullis::net::{ClockTrust, ListenerSettings, Readiness, Turn, TurnSettings};
use portcullis::time::{Instant, Now, UnixTime};
use rustix::time::{ClockId, clock_gettime};
use wires::{MutualTls, Wires, settings};

/// Connections of one batch; the best batch counts.
const CONNECTIONS: u64 = 100;
const BATCHES: usize = 7;
/// CONNECT without a client identifier, and DISCONNECT.
const CONNECT: &[u8] = b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00";
const DISCONNECT: &[u8] = b"\xE0\x00";

/// What is measured: whether the broker remembers good signatures, and whether clients resume sessions.
const CASES: [(&str, u32, bool); 3] = [
    ("first sight: three signatures verified, one made", 0, false),
    ("known certificates: one verified, one made", 1_024, false),
    ("resumed with a ticket", 1_024, true),
];

struct Bench {
    wires: Wires,
    turn: Turn<Wires>,
    tls: MutualTls,
    now: Now,
    turns: u64,
    nanoseconds: u64,
}

/// Processor time of this thread so far, nanoseconds.
fn processor_nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Bench {
    fn new(remembered: u32, resumes: bool) -> Self {
        let now = Now { instant: Instant::ZERO, unix: UnixTime(2_000_000_000) };
        let mut configuration = load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration;
        let (tls, authenticator) = MutualTls::new(&mut configuration, now.unix, remembered, resumes);
        let capacities = configuration.board.capacities;
        let ports = vec![PortAdmission { authenticator: Some(0), policy: None }];
        let admission =
            Admission { ports, authenticators: vec![authenticator], policies: Vec::new(), insiders: Vec::new() };
        let broker = Broker::new(&capacities, &configuration.clients, &settings(), admission, 1);
        let wires = Wires::default();
        let listeners = vec![ListenerSettings { port: 0, transport: tls.transport.clone(), websocket: false }];
        let settings = TurnSettings { listeners, capacities, clock_trust: ClockTrust::default() };
        let turn = Turn::new(wires.clone(), broker, settings);
        Self { wires, turn, tls, now, turns: 0, nanoseconds: 0 }
    }

    /// One turn in which `readiness` is ready.
    fn run(&mut self, token: u64) {
        let ready = [Readiness { token, readable: true, writable: false, hung_up: false }];
        self.now.instant = self.now.instant.plus_milliseconds(1);
        let before = processor_nanoseconds();
        self.turn.run(self.now, &ready);
        while self.turn.has_work() {
            self.turn.run(self.now, &[]);
            self.turns += 1;
        }
        self.nanoseconds += processor_nanoseconds() - before;
        self.turns += 1;
    }

    fn connect(&mut self) {
        let index = self.wires.open(Some(self.tls.client()));
        self.run(0);
        let token = self.wires.0.borrow().0[index].token;
        self.run(token);
        while !self.wires.is_established(index) {
            self.wires.take(index, |_| ());
            // A client says its CONNECT with the end of its handshake.
            self.wires.send(index, if self.wires.is_established(index) { CONNECT } else { &[] });
            self.run(token);
        }
        assert_eq!(self.wires.take(index, |bytes| (bytes[0], bytes[3])), (0x20, 0), "CONNACK");
        self.wires.send(index, DISCONNECT);
        self.run(token);
        self.wires.end(index);
        self.run(token);
        assert!(self.wires.0.borrow().0[index].is_closed);
        self.wires.forget(index);
    }
}

fn main() {
    println!("                                                    µs of the best batch   turns");
    for (name, remembered, resumes) in CASES {
        let mut bench = Bench::new(remembered, resumes);
        bench.connect();
        let mut best = u64::MAX;
        for _ in 0..BATCHES {
            (bench.turns, bench.nanoseconds) = (0, 0);
            (0..CONNECTIONS).for_each(|_| bench.connect());
            best = best.min(bench.nanoseconds);
        }
        let (microseconds, turns) = (best as f64 / 1_000.0 / CONNECTIONS as f64, bench.turns / CONNECTIONS);
        println!("{name:52} {microseconds:19.0} {turns:7}");
    }
}
