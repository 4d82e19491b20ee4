//! Publishers and subscribers that go on over every end of the broker, and their books.
//!
//! A publisher sends numbered messages to a topic of its own, and after a reconnect again, with DUP and in order, what was not
//! acknowledged. A subscriber writes down what it is given. **Invariant of the books:** what is marked as acknowledged was
//! so before; what has arrived is written down before it is acknowledged.

use super::support::PATIENCE;
use super::support::client::{Packet, publish_packet};
use super::support::wire::{Connect, Heard, Publish, Wire};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How far the run is.
#[derive(Default)]
pub struct Stage {
    /// Nothing new is published any more.
    pub closing: AtomicBool,
    /// All that was published is acknowledged.
    pub drained: AtomicBool,
    /// Somebody has failed: all stop.
    pub failed: AtomicBool,
}

impl Stage {
    pub fn is(&self, flag: &AtomicBool) -> bool {
        flag.load(Ordering::SeqCst)
    }

    pub fn failed(&self) -> bool {
        self.is(&self.failed)
    }
}

/// Tells the others when the thread that holds it panics.
pub struct Alarm<'s>(pub &'s Stage);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

/// What a publisher sends.
#[derive(Clone, Copy)]
pub struct Traffic {
    pub name: &'static str,
    pub qos: u8,
    /// Messages that may be unacknowledged.
    pub window: usize,
    /// Between two messages.
    pub pause: Duration,
    /// Bytes of most messages and, of every 16th, more.
    pub bytes: (usize, usize),
}

impl Traffic {
    pub fn topic(&self) -> String {
        format!("{}/{}", if self.bytes.0 > 4_096 { "big" } else { "t" }, self.name)
    }

    pub fn payload(&self, number: u32) -> Vec<u8> {
        let bytes = if number % 16 == 15 { self.bytes.1 } else { self.bytes.0 };
        let mut payload = number.to_be_bytes().to_vec();
        payload.extend((0..bytes).map(|at| (at as u32).wrapping_mul(number | 1).to_le_bytes()[1]));
        payload
    }
}

/// A publisher's books: the numbers of messages by what has become of them.
#[derive(Default)]
pub struct Sent {
    /// Numbers below it were sent.
    pub next: u32,
    pub acknowledged: HashSet<u32>,
    /// Answered with 0x80 or more: may arrive only if an earlier attempt was taken.
    pub refused: HashSet<u32>,
}

struct Flight {
    number: u32,
    identifier: u16,
    /// PUBREC has come.
    released: bool,
}

/// A publisher.
pub struct Publisher<'b> {
    pub traffic: Traffic,
    pub books: &'b Mutex<Sent>,
    pub stage: &'b Stage,
    pub port: u16,
    /// Whoever may be [`BEHIND_MAX`] messages behind, and no more: what waits must have room in the log.
    pub waits_for: Option<&'b Mutex<Received>>,
}

/// Messages of one publisher that a subscriber lacks.
const BEHIND_MAX: usize = 60;

impl Publisher<'_> {
    /// Publishes until the run closes, and all is acknowledged.
    pub fn run(&self) {
        let _alarm = Alarm(self.stage);
        let (mut flights, mut last_identifier, mut known) = (VecDeque::new(), 0_u16, false);
        let mut patience = None;
        while !self.stage.failed() && !self.is_done(&flights) {
            if self.stage.is(&self.stage.closing) {
                let end = *patience.get_or_insert_with(|| Instant::now() + PATIENCE);
                assert!(Instant::now() < end, "{}: acknowledgements are missing", self.traffic.name);
            }
            let Some(mut wire) = come_back(self.port, self.traffic.name, &mut known) else { continue };
            for flight in &flights {
                self.transmit(&mut wire, flight, true);
            }
            self.serve(&mut wire, &mut flights, &mut last_identifier);
        }
    }

    fn is_done(&self, flights: &VecDeque<Flight>) -> bool {
        self.stage.is(&self.stage.closing) && flights.is_empty()
    }

    fn serve(&self, wire: &mut Wire, flights: &mut VecDeque<Flight>, last_identifier: &mut u16) {
        let mut due = Instant::now();
        while !self.stage.failed() && !self.is_done(flights) {
            if !self.stage.is(&self.stage.closing)
                && flights.len() < self.traffic.window
                && Instant::now() >= due
                && self.waits_for.is_none_or(|received| self.lead(received) < BEHIND_MAX)
            {
                *last_identifier = last_identifier.checked_add(1).unwrap_or(1);
                let mut books = self.books.lock().unwrap();
                let flight = Flight { number: books.next, identifier: *last_identifier, released: false };
                books.next += 1;
                drop(books);
                self.transmit(wire, &flight, false);
                flights.push_back(flight);
                due = Instant::now() + self.traffic.pause;
            }
            match wire.receive(self.traffic.pause.max(Duration::from_millis(1))) {
                Heard::Packet(packet) => self.acknowledged(wire, flights, &packet),
                Heard::Nothing => {}
                Heard::Closed => return,
            }
        }
    }

    /// How many messages `received` is behind.
    fn lead(&self, received: &Mutex<Received>) -> usize {
        let sent = self.books.lock().unwrap().next as usize;
        sent.saturating_sub(received.lock().unwrap().times.len())
    }

    fn transmit(&self, wire: &mut Wire, flight: &Flight, again: bool) {
        if flight.released {
            wire.acknowledge(0x62, flight.identifier);
            return;
        }
        let payload = self.traffic.payload(flight.number);
        let mut publish = publish_packet(&self.traffic.topic(), self.traffic.qos, flight.identifier, &payload);
        publish[0] |= u8::from(again) << 3;
        wire.send(&publish);
    }

    fn acknowledged(&self, wire: &mut Wire, flights: &mut VecDeque<Flight>, packet: &Packet) {
        let name = self.traffic.name;
        let identifier = u16::from_be_bytes([packet.body[0], packet.body[1]]);
        let reason = packet.body.get(2).copied().unwrap_or(0);
        let at = flights.iter().position(|flight| flight.identifier == identifier);
        let at = at.unwrap_or_else(|| panic!("{name}: nobody asked for {packet:?}"));
        let flight = &mut flights[at];
        let mut books = self.books.lock().unwrap();
        match (packet.first, self.traffic.qos, reason) {
            (0x40, 1, 0) | (0x70, 2, _) => {
                books.acknowledged.insert(flight.number);
                flights.remove(at);
            }
            (0x50, 2, 0) => {
                // From now on it is the broker's.
                books.acknowledged.insert(flight.number);
                flight.released = true;
                wire.acknowledge(0x62, identifier);
            }
            (0x40, 1, 0x97) | (0x50, 2, 0x97) => {
                books.refused.insert(flight.number);
                flights.remove(at);
            }
            _ => panic!("{name}: {packet:?}"),
        }
    }
}

/// Connects a session that lasts, once; `None` if the broker is not there. `known`: it was accepted before, and must be there.
pub fn come_back(port: u16, identifier: &str, known: &mut bool) -> Option<Wire> {
    let Some((wire, present, reason)) = Wire::connect(port, &Connect::lasting(identifier)) else {
        std::thread::sleep(Duration::from_millis(3));
        return None;
    };
    assert_eq!(reason, 0, "{identifier}: CONNACK");
    assert!(present || !*known, "{identifier}: its session is gone");
    *known = true;
    Some(wire)
}

/// What a subscription owes, and what came of it. The members of a shared subscription have one together.
#[derive(Default)]
pub struct Received {
    /// How often each message came, by topic and number.
    pub times: BTreeMap<(String, u32), u32>,
}

/// A subscriber with a session that lasts.
pub struct Subscriber<'b> {
    pub name: &'static str,
    pub qos: u8,
    /// Before each acknowledgement.
    pub pause: Duration,
    /// Connected for this long, then away as long; `None`: always connected.
    pub comes_and_goes: Option<Duration>,
    pub traffics: &'b [(Traffic, Mutex<Sent>)],
    /// Whether others share its subscription.
    pub is_member: bool,
    /// Beginning of the topics that it gets.
    pub topics: &'static str,
    pub received: &'b Mutex<Received>,
    pub repeated: &'b AtomicUsize,
    pub stage: &'b Stage,
    pub port: u16,
}

/// What a subscriber remembers over its connections.
#[derive(Default)]
struct Memory {
    /// Identifiers of QoS 2 between PUBLISH and PUBREL.
    open: HashSet<u16>,
    /// The last number of each topic.
    last: BTreeMap<String, u32>,
    /// Everything that this session was given.
    seen: HashSet<(String, u32)>,
}

impl Subscriber<'_> {
    /// Takes what comes until all that is owed is there and nothing more comes.
    pub fn run(&self) {
        let _alarm = Alarm(self.stage);
        let mut memory = Memory::default();
        let mut known = true;
        let mut patience = None;
        while !self.stage.failed() {
            let is_drained = self.stage.is(&self.stage.drained);
            if is_drained {
                let end = *patience.get_or_insert_with(|| Instant::now() + PATIENCE);
                assert!(Instant::now() < end, "{}: never given: {:?}", self.name, self.missing());
            }
            let Some(mut wire) = come_back(self.port, self.name, &mut known) else { continue };
            let until = self.comes_and_goes.map(|time| Instant::now() + time);
            if self.serve(&mut wire, &mut memory, until) {
                return;
            }
            drop(wire);
            if let Some(away) = self.comes_and_goes {
                std::thread::sleep(away);
            }
        }
    }

    /// Returns whether the run is over.
    fn serve(&self, wire: &mut Wire, memory: &mut Memory, until: Option<Instant>) -> bool {
        let mut asked = false;
        loop {
            let is_drained = self.stage.is(&self.stage.drained);
            if self.stage.failed() || !is_drained && until.is_some_and(|until| Instant::now() >= until) {
                return false;
            }
            match wire.receive(Duration::from_millis(if is_drained { 500 } else { 20 })) {
                // Answered behind all that was acknowledged here.
                Heard::Packet(Packet { first: 0xD0, .. }) if asked => return true,
                Heard::Packet(packet) => {
                    self.take(wire, memory, &packet);
                    asked = false;
                }
                Heard::Nothing if is_drained && !asked && memory.open.is_empty() && self.missing().is_empty() => {
                    wire.send(&[0xC0, 0]);
                    asked = true;
                }
                Heard::Nothing => {}
                Heard::Closed => return false,
            }
        }
    }

    fn take(&self, wire: &mut Wire, memory: &mut Memory, packet: &Packet) {
        if packet.first == 0xD0 {
            return;
        }
        if packet.first == 0x62 {
            let identifier = u16::from_be_bytes([packet.body[0], packet.body[1]]);
            memory.open.remove(&identifier);
            wire.acknowledge(0x70, identifier);
            return;
        }
        let publish = Publish::read(packet);
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        let (acknowledgement, identifier) = (if publish.qos == 2 { 0x50 } else { 0x40 }, publish.identifier);
        if publish.qos == 2 && memory.open.contains(&identifier) {
            assert!(publish.dup, "{}: sent again without DUP: {} {identifier}", self.name, publish.topic);
        } else {
            self.note(memory, publish);
            if acknowledgement == 0x50 {
                memory.open.insert(identifier);
            }
        }
        wire.acknowledge(acknowledgement, identifier);
    }

    fn note(&self, memory: &mut Memory, publish: Publish) {
        let name = self.name;
        let number = u32::from_be_bytes(*publish.payload.first_chunk().expect("a number"));
        let sent = self.traffics.iter().find(|(traffic, _)| traffic.topic() == publish.topic);
        let (traffic, books) = sent.unwrap_or_else(|| panic!("{name}: topic {}", publish.topic));
        assert!(number < books.lock().unwrap().next, "{name}: {} {number} was never sent", publish.topic);
        assert!(traffic.payload(number) == publish.payload, "{name}: {} {number} has another payload", publish.topic);
        assert_eq!(publish.qos, traffic.qos.min(self.qos), "{name}: QoS of {}", publish.topic);
        if memory.seen.insert((publish.topic.clone(), number)) {
            let last = memory.last.insert(publish.topic.clone(), number);
            // Sent again by its publisher, a message of QoS 1 may go to another member of the group than it did before.
            let is_ordered = !self.is_member || publish.qos == 2;
            assert!(
                !is_ordered || last.is_none_or(|last| last < number),
                "{name}: {} {number} came behind {last:?}",
                publish.topic
            );
        } else {
            assert!(publish.qos == 1, "{name}: {} {number} came twice with QoS 2", publish.topic);
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
        *self.received.lock().unwrap().times.entry((publish.topic, number)).or_default() += 1;
    }

    /// What was acknowledged to its publisher and has not come yet.
    fn missing(&self) -> Vec<(String, u32)> {
        let received = self.received.lock().unwrap();
        let mut missing = Vec::new();
        for (traffic, books) in self.traffics {
            let topic = traffic.topic();
            if !topic.starts_with(self.topics) {
                continue;
            }
            for number in &books.lock().unwrap().acknowledged {
                if !received.times.contains_key(&(topic.clone(), *number)) {
                    missing.push((topic.clone(), *number));
                }
            }
        }
        missing
    }
}
