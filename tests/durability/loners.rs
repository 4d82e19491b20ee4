//! Clients with one subject each, which go on over every end of the broker as those of [`super::load`] do: retained messages,
//! subscriptions that change in sessions that end, and a Will.

use super::load::{Alarm, Sent, Stage, Traffic, come_back};
use super::support::PATIENCE;
use super::support::client::{Packet, packet, publish_packet, subscribe_packet, text};
use super::support::wire::{Connect, Heard, Publish, Wire};
use std::sync::Mutex;
use std::time::Duration;

/// xorshift64*: enough for a test, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// What one topic's retained message was set to, in order; `true`: it was cleared.
#[derive(Default)]
pub struct Retained {
    sent: Vec<bool>,
    /// Number of the last change that was acknowledged.
    acknowledged: Option<usize>,
}

/// Sets, replaces and clears the retained message of `r/<name>`, one change at a time.
pub fn retain(name: &str, qos: u8, books: &Mutex<Retained>, stage: &Stage, port: u16) {
    let _alarm = Alarm(stage);
    let (mut known, mut released) = (false, false);
    let mut under_way: Option<usize> = None;
    while !(stage.failed() || stage.is(&stage.closing) && under_way.is_none()) {
        let Some(mut wire) = come_back(port, name, &mut known) else { continue };
        loop {
            let again = under_way.is_some();
            if stage.failed() || !again && stage.is(&stage.closing) {
                break;
            }
            let change = *under_way.get_or_insert_with(|| {
                let sent = &mut books.lock().unwrap().sent;
                sent.push(sent.len() % 5 == 4);
                sent.len() - 1
            });
            if released {
                wire.acknowledge(0x62, 3);
            } else {
                let payload = if change % 5 == 4 { String::new() } else { change.to_string() };
                let mut publish = publish_packet(&format!("r/{name}"), qos, 3, payload.as_bytes());
                publish[0] |= 1 | u8::from(again) << 3;
                wire.send(&publish);
            }
            let Heard::Packet(Packet { first, body }) = wire.receive(PATIENCE) else { break };
            let reason = body.get(2).copied().unwrap_or(0);
            if first != 0x70 && reason < 0x80 {
                books.lock().unwrap().acknowledged = Some(change);
            }
            released = first == 0x50 && reason < 0x80;
            if !released {
                under_way = None;
                std::thread::sleep(Duration::from_millis(4));
                continue;
            }
            wire.acknowledge(0x62, 3);
            let Heard::Packet(Packet { first: 0x70, .. }) = wire.receive(PATIENCE) else { break };
            (released, under_way) = (false, None);
        }
    }
}

/// Compares the retained message of `r/<name>` with the books: the last change that was acknowledged, or a later one.
pub fn check_retained(name: &str, books: &Mutex<Retained>, port: u16) {
    let Some(oldest) = books.lock().unwrap().acknowledged else { return };
    let connect = Connect { identifier: "", clean_start: true, expiry: 0, will: None };
    let mut wire = Wire::resume(port, &connect, false);
    assert_eq!(wire.subscribe("fence", 0), Some(0));
    wire.send(&subscribe_packet(9, &[&format!("r/{name}")], 1));
    let mut found = None;
    loop {
        let packet = wire.expect();
        if packet.first == 0x90 {
            wire.send(&publish_packet("fence", 0, 0, b""));
            continue;
        }
        let publish = Publish::read(&packet);
        if publish.topic == "fence" {
            break;
        }
        if publish.retain {
            found = Some(String::from_utf8(publish.payload).unwrap().parse::<usize>().unwrap());
        }
        if publish.qos == 1 {
            wire.acknowledge(0x40, publish.identifier);
        }
    }
    let books = books.lock().unwrap();
    let is_right = match found {
        Some(change) => (oldest..books.sent.len()).contains(&change),
        None => books.sent[oldest..].contains(&true),
    };
    assert!(is_right, "r/{name} has {found:?}, not one of {oldest}..{}", books.sent.len());
}

/// Holds a session with a Will without delay: whenever the broker ends while it is connected, the Will is owed.
pub fn be_willing(traffic: &Traffic, books: &Mutex<Sent>, stage: &Stage, port: u16) {
    let _alarm = Alarm(stage);
    let (topic, mut known) = (traffic.topic(), false);
    while !stage.failed() && !stage.is(&stage.closing) {
        let number = books.lock().unwrap().next;
        let payload = traffic.payload(number);
        books.lock().unwrap().next += 1;
        let connect = Connect { will: Some((&topic, &payload, traffic.qos, 0)), ..Connect::lasting(traffic.name) };
        let Some((mut wire, present, reason)) = Wire::connect(port, &connect) else {
            std::thread::sleep(Duration::from_millis(3));
            continue;
        };
        if reason == 0x97 {
            // A Will must have room.
            std::thread::sleep(Duration::from_millis(3));
            continue;
        }
        assert!(reason == 0 && (present || !known), "{}: {reason:#04x}, {present}", traffic.name);
        known = true;
        while wire.receive(Duration::from_millis(20)) == Heard::Nothing {
            if stage.failed() || stage.is(&stage.closing) {
                // Normal disconnection: the Will is gone.
                wire.send(&[0xE0, 0]);
                assert_eq!(wire.receive(PATIENCE), Heard::Closed);
                return;
            }
        }
        books.lock().unwrap().acknowledged.insert(number);
    }
}

const FILTERS: usize = 6;

/// What a subscription must be: there, not there, or either because a change was not acknowledged.
type Known = Option<bool>;

/// Subscribes, unsubscribes and ends its session, and finds out each time which subscriptions there are.
pub fn change_subscriptions(mut random: Random, stage: &Stage, port: u16) -> u32 {
    let _alarm = Alarm(stage);
    let mut filters: [Known; FILTERS] = [Some(false); FILTERS];
    let mut session: Known = Some(false);
    let mut checks = 0;
    while !stage.failed() && !stage.is(&stage.closing) {
        let clean_start = random.below(4) == 0;
        let before = (session, filters);
        if clean_start {
            filters = filters.map(|filter| filter.filter(|there| !there));
        }
        session = session.filter(|there| *there && !clean_start);
        let connect = Connect { clean_start, ..Connect::lasting("changing") };
        let Some((mut wire, present, reason)) = Wire::connect(port, &connect) else {
            // CONNECT may have been taken all the same.
            std::thread::sleep(Duration::from_millis(3));
            continue;
        };
        assert_eq!(reason, 0, "changing: CONNACK");
        match before.0 {
            _ if clean_start => assert!(!present),
            Some(there) => assert_eq!(present, there, "changing: Session Present"),
            None => {}
        }
        session = Some(true);
        if !present {
            // Whatever a session of before had must be gone.
            filters = [Some(false); FILTERS];
        }
        while !stage.failed() && change_some(&mut wire, &mut random, &mut filters) {
            if !check(&mut wire, &mut random, &mut filters) {
                break;
            }
            checks += 1;
            if random.below(4) == 0 {
                // DISCONNECT with an expiry of 0: the session ends, which nobody acknowledges.
                (session, filters) = (None, filters.map(|filter| filter.filter(|there| !there)));
                wire.send(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
                while next(&mut wire).is_some() {}
                break;
            }
            if random.below(4) == 0 || stage.is(&stage.closing) {
                break;
            }
        }
    }
    checks
}

/// Returns whether the broker is still there.
fn change_some(wire: &mut Wire, random: &mut Random, filters: &mut [Known; FILTERS]) -> bool {
    for _ in 0..=random.below(4) {
        let at = random.below(FILTERS as u64) as usize;
        let subscribes = random.below(2) == 0;
        filters[at] = filters[at].filter(|there| *there == subscribes);
        if !change(wire, &format!("c/{at}"), subscribes) {
            return false;
        }
        filters[at] = Some(subscribes);
    }
    true
}

/// Subscribes or unsubscribes; returns whether that was acknowledged. Messages of before may come in between.
fn change(wire: &mut Wire, filter: &str, subscribes: bool) -> bool {
    if subscribes {
        wire.send(&subscribe_packet(9, &[filter], 1));
    } else {
        let mut body = vec![0, 9, 0];
        body.extend_from_slice(&text(filter));
        wire.send(&packet(0xA2, &body));
    }
    while let Some(packet) = next(wire) {
        if matches!(packet.first, 0x90 | 0xB0) {
            assert!(packet.body[3] < 0x80, "{packet:?}");
            return true;
        }
    }
    false
}

/// The next packet; messages are acknowledged.
fn next(wire: &mut Wire) -> Option<Packet> {
    match wire.receive(PATIENCE) {
        Heard::Packet(packet) => {
            if packet.first & 0xF0 == 0x30 {
                wire.acknowledge(0x40, Publish::read(&packet).identifier);
            }
            Some(packet)
        }
        Heard::Nothing => panic!("the broker says nothing"),
        Heard::Closed => None,
    }
}

/// Publishes to all topics, and sees which come. Returns whether the broker is still there.
fn check(wire: &mut Wire, random: &mut Random, filters: &mut [Known; FILTERS]) -> bool {
    let nonce = random.below(1 << 30).to_string();
    if !change(wire, "c/fence", true) {
        return false;
    }
    for at in 0..FILTERS {
        wire.send(&publish_packet(&format!("c/{at}"), 1, at as u16 + 1, nonce.as_bytes()));
    }
    wire.send(&publish_packet("c/fence", 1, 100, nonce.as_bytes()));
    let mut found = [false; FILTERS];
    loop {
        let Some(packet) = next(wire) else { return false };
        if packet.first & 0xF0 != 0x30 {
            assert!(packet.body.get(2).is_none_or(|reason| *reason < 0x80), "{packet:?}");
            continue;
        }
        let publish = Publish::read(&packet);
        if publish.payload != nonce.as_bytes() {
            continue;
        }
        let Ok(at) = publish.topic[2..].parse::<usize>() else { break };
        found[at] = true;
    }
    for (at, (known, found)) in filters.iter_mut().zip(found).enumerate() {
        assert!(known.is_none_or(|there| there == found), "c/{at}: {known:?} was acknowledged, and it is {found}");
        *known = Some(found);
    }
    true
}
