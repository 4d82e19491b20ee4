//! The broker without sockets: bytes in, bytes out, time as an argument.

mod inside;
mod observe;
mod replacement;
mod routes;

use super::*;
use crate::config::blob::ClientLimits;

mod credentials;
mod durability;

/// Packets as a client writes and reads them, without the codec.
mod wire {
    pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        let mut length = body.len();
        loop {
            let more = length >= 128;
            bytes.push((length % 128) as u8 | if more { 0x80 } else { 0 });
            length /= 128;
            if !more {
                break;
            }
        }
        bytes.extend_from_slice(body);
        bytes
    }

    pub fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
    }

    pub fn connect(identifier: &str, keep_alive: u16, properties: &[u8]) -> Vec<u8> {
        let head = [&text("MQTT")[..], &[5, 2], &keep_alive.to_be_bytes(), &[properties.len() as u8]].concat();
        packet(0x10, &[&head[..], properties, &text(identifier)].concat())
    }

    /// CONNECT without Clean Start.
    pub fn connect_again(identifier: &str, properties: &[u8]) -> Vec<u8> {
        let head = [&text("MQTT")[..], &[5, 0, 0, 0, properties.len() as u8]].concat();
        packet(0x10, &[&head[..], properties, &text(identifier)].concat())
    }

    pub fn publish(topic: &str, identifier: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
        let (first, id) = if identifier == 0 { (0x30, vec![]) } else { (0x32, identifier.to_be_bytes().to_vec()) };
        packet(first, &[&text(topic)[..], &id, &[properties.len() as u8], properties, payload].concat())
    }

    pub fn subscribe(filter: &str, options: u8) -> Vec<u8> {
        packet(0x82, &[&[0, 1, 0][..], &text(filter), &[options]].concat())
    }

    pub fn puback(identifier: u16) -> Vec<u8> {
        packet(0x40, &identifier.to_be_bytes())
    }

    /// Splits a stream into (first byte, body).
    pub fn packets(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut packets = Vec::new();
        while let [first, rest @ ..] = bytes {
            let (mut length, mut at, mut shift) = (0_usize, 0, 0);
            loop {
                length |= usize::from(rest[at] & 0x7F) << shift;
                shift += 7;
                at += 1;
                if rest[at - 1] & 0x80 == 0 {
                    break;
                }
            }
            packets.push((*first, rest[at..at + length].to_vec()));
            bytes = &rest[at + length..];
        }
        packets
    }
}

fn capacities() -> Capacities {
    Capacities {
        connections: 8,
        handshakes: 2,
        sessions: 8,
        subscriptions: 16,
        subscriptions_per_session: 4,
        retained_messages: 64,
        filter_nodes: 64,
        filter_bytes: 4_096,
        messages: 4_096,
        message_blocks: 4_096,
        deliveries: 4_096,
        replies: 512,
        receive_bytes: 1 << 20,
        transmit_bytes: 1 << 20,
        packet_bytes: 1 << 20,
        authorization_rules: 0,
        authorization_principals: 0,
        authorization_attributes: 0,
        authorization_patterns: 0,
        authorization_bytes: 0,
    }
}

fn limits() -> ClientLimits {
    ClientLimits {
        max_session_expiry_seconds: None,
        max_message_expiry_seconds: None,
        max_packet_size_bytes: 1 << 20,
        max_receive_maximum: 64,
        max_keep_alive_seconds: None,
        subscriber_queue_length: 1_000,
        subscriber_queue_strategy: QueueStrategy::None,
    }
}

fn settings() -> Settings {
    Settings {
        connect_deadline_seconds: 10,
        shares_client_identifiers: false,
        announces_expiry: false,
        validate_payload_format: true,
        sys_interval_seconds: 0,
        response_information: Some("answers/".to_owned()),
    }
}

/// A broker with one open port, and a clock that the test moves.
struct Bench {
    broker: Broker,
    now: Now,
}

impl Bench {
    fn new(capacities: &Capacities, limits: &ClientLimits) -> Self {
        let admission = Admission {
            ports: vec![PortAdmission::default()],
            authenticators: Vec::new(),
            policies: Vec::new(),
            insiders: Vec::new(),
        };
        Self { broker: Broker::new(capacities, limits, &settings(), admission, 42), now: Now::default() }
    }

    fn default() -> Self {
        Self::new(&capacities(), &limits())
    }

    fn open(&mut self) -> Key<Connection> {
        self.broker.open(self.now.instant, 0).unwrap()
    }

    fn client(&mut self, identifier: &str) -> Key<Connection> {
        self.client_with(identifier, &[])
    }

    fn client_with(&mut self, identifier: &str, properties: &[u8]) -> Key<Connection> {
        let key = self.open();
        self.give(key, &wire::connect(identifier, 0, properties));
        let answer = self.take(key);
        assert_eq!((answer[0].0, answer[0].1[1]), (0x20, 0), "{answer:?}");
        key
    }

    fn give(&mut self, key: Key<Connection>, bytes: &[u8]) -> Received {
        self.broker.receive(self.now, key, &[], bytes)
    }

    /// Everything the connection has to say now, with a socket that takes `chunk` bytes at a time.
    fn take_in(&mut self, key: Key<Connection>, chunk: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        let mut buffer = vec![0; chunk];
        loop {
            let transmitted = self.broker.transmit(self.now, key, &mut buffer);
            taken.extend_from_slice(&buffer[..transmitted.bytes]);
            if !transmitted.more {
                return taken;
            }
        }
    }

    fn take(&mut self, key: Key<Connection>) -> Vec<(u8, Vec<u8>)> {
        wire::packets(&self.take_in(key, 4_096))
    }

    fn is_closing(&mut self, key: Key<Connection>) -> bool {
        self.broker.transmit(self.now, key, &mut [0; 4_096]).close.is_some()
    }

    fn hang_up(&mut self, key: Key<Connection>) {
        self.broker.closed(self.now, key, Cause::NetworkClosed, Text::default());
    }
}

#[test]
fn a_message_reaches_each_subscriber_once_with_the_highest_qos_granted() {
    let mut bench = Bench::default();
    let (subscriber, publisher) = (bench.client("s"), bench.client("p"));
    bench.give(subscriber, &wire::subscribe("a/+", 0));
    bench.give(subscriber, &wire::subscribe("a/#", 1));
    bench.take(subscriber);
    bench.give(publisher, &wire::publish("a/b", 5, &[], b"x"));
    assert_eq!(bench.take(publisher), [(0x40, vec![0, 5])]);
    assert_eq!(bench.take(subscriber), [(0x32, [&wire::text("a/b")[..], &[0, 1, 0], b"x"].concat())]);
    assert_eq!(bench.broker.in_use().deliveries, 1);
    bench.give(subscriber, &wire::puback(1));
    assert_eq!((bench.broker.in_use().deliveries, bench.broker.in_use().messages), (0, 0));
}

#[test]
fn properties_are_forwarded_as_they_came_and_the_expiry_is_decremented() {
    let mut bench = Bench::default();
    let (subscriber, publisher) = (bench.client("s"), bench.client("p"));
    bench.give(subscriber, &wire::subscribe("a", 0));
    bench.take(subscriber);
    let user = |name: &str, value: &str| [&[0x26][..], &wire::text(name), &wire::text(value)].concat();
    let kept = [&[1, 1][..], &user("k", "v"), &user("a", "b"), &user("k", "v")].concat();
    bench.give(publisher, &wire::publish("a", 0, &[&[2, 0, 0, 0, 10][..], &kept].concat(), b"x"));
    bench.now.instant = bench.now.instant.plus_milliseconds(3_000);
    let expected = [&wire::text("a")[..], &[5 + kept.len() as u8, 2, 0, 0, 0, 7], &kept, b"x"].concat();
    assert_eq!(bench.take(subscriber), [(0x30, expected)]);
    bench.give(publisher, &wire::publish("a", 0, &[2, 0, 0, 0, 1], b"late"));
    bench.now.instant = bench.now.instant.plus_milliseconds(1_000);
    assert_eq!(bench.take(subscriber), []);
    assert_eq!(bench.broker.telemetry().counters.expired, 1);
}

#[test]
fn a_large_message_goes_out_in_pieces_and_nothing_comes_between_them() {
    let mut bench = Bench::default();
    let (subscriber, publisher) = (bench.client("s"), bench.client("p"));
    bench.give(subscriber, &wire::subscribe("a", 1));
    bench.take(subscriber);
    let payload: Vec<u8> = (0..50_000_u32).map(|i| (i % 127) as u8).collect();
    bench.give(publisher, &wire::publish("a", 1, &[1, 1], &payload));
    let mut buffer = [0; 1_000];
    let first = bench.broker.transmit(bench.now, subscriber, &mut buffer);
    assert_eq!((first.bytes, first.more), (1_000, true));
    // A reply that becomes due in the middle waits for the end of the packet.
    bench.give(subscriber, &[0xC0, 0]);
    let rest = bench.take_in(subscriber, 777);
    let packets = wire::packets(&[&buffer[..], &rest].concat());
    let expected = [&wire::text("a")[..], &[0, 1, 2, 1, 1], &payload].concat();
    assert_eq!(packets, [(0x32, expected), (0xD0, vec![])]);
}

#[test]
fn no_more_than_the_clients_receive_maximum_is_in_flight() {
    let mut bench = Bench::default();
    let subscriber = bench.client_with("s", &[0x21, 0, 2]);
    let publisher = bench.client("p");
    bench.give(subscriber, &wire::subscribe("a", 1));
    bench.take(subscriber);
    for number in 1..=20_u8 {
        bench.give(publisher, &wire::publish("a", number.into(), &[], &[number]));
        bench.take(publisher);
    }
    let mut received = Vec::new();
    loop {
        let packets = bench.take(subscriber);
        assert!(packets.len() <= 2);
        if packets.is_empty() {
            break;
        }
        for (_, body) in packets {
            received.push(*body.last().unwrap());
            bench.give(subscriber, &wire::puback(u16::from_be_bytes([body[3], body[4]])));
        }
    }
    assert_eq!(received, (1..=20).collect::<Vec<u8>>());
    assert_eq!(bench.broker.in_use().messages, 0);
}

#[test]
fn a_message_above_the_clients_maximum_packet_size_is_left_out() {
    let mut bench = Bench::default();
    let subscriber = bench.client_with("s", &[0x27, 0, 0, 0, 100]);
    let publisher = bench.client("p");
    bench.give(subscriber, &wire::subscribe("a", 1));
    bench.take(subscriber);
    bench.give(publisher, &wire::publish("a", 1, &[], &[0; 200]));
    bench.give(publisher, &wire::publish("a", 2, &[], b"small"));
    let packets = bench.take(subscriber);
    assert_eq!(packets.len(), 1);
    assert!(packets[0].1.ends_with(b"small"));
    assert_eq!(bench.broker.telemetry().counters.too_large, 1);
}

#[test]
fn publishers_wait_for_a_slow_subscriber_and_are_not_refused() {
    let mut bench = Bench::default();
    let (slow, publisher) = (bench.client("slow"), bench.client("p"));
    bench.give(slow, &wire::subscribe("a", 1));
    bench.take(slow);
    let mut acknowledged = 0;
    let mut sent = 0_u16;
    // As a client does that respects the Receive Maximum of 64.
    while sent - acknowledged < 64 {
        sent += 1;
        bench.give(publisher, &wire::publish("a", sent, &[], b"x"));
        acknowledged += bench.take(publisher).len() as u16;
        assert!(sent < 2_000, "nothing was held back");
    }
    assert_eq!(acknowledged, u16::try_from(QUEUE_HIGH_MARK).unwrap());
    // Held-back acknowledgements hold nothing else back.
    bench.give(publisher, &[0xC0, 0]);
    assert_eq!(bench.take(publisher), [(0xD0, vec![])]);
    // The subscriber catches up: everybody goes on.
    while bench.broker.next_ready().is_some() {}
    let mut received = 0;
    loop {
        let packets = bench.take(slow);
        if packets.is_empty() {
            break;
        }
        for (_, body) in &packets {
            received += 1;
            bench.give(slow, &wire::puback(u16::from_be_bytes([body[3], body[4]])));
        }
    }
    assert_eq!(received, sent);
    let ready: Vec<_> = core::iter::from_fn(|| bench.broker.next_ready()).collect();
    assert!(ready.contains(&publisher));
    assert_eq!(bench.take(publisher).len(), 64);
}

#[test]
fn the_end_of_a_slow_subscriber_frees_its_publishers() {
    let mut bench = Bench::default();
    let (slow, publisher) = (bench.client("slow"), bench.client("p"));
    bench.give(slow, &wire::subscribe("a", 1));
    for id in 1..=u16::try_from(QUEUE_HIGH_MARK).unwrap() + 10 {
        bench.give(publisher, &wire::publish("a", id, &[], b"x"));
        bench.take(publisher);
    }
    while bench.broker.next_ready().is_some() {}
    bench.hang_up(slow);
    let ready: Vec<_> = core::iter::from_fn(|| bench.broker.next_ready()).collect();
    assert_eq!(ready, [publisher]);
    assert_eq!(bench.take(publisher).len(), 10);
    assert_eq!((bench.broker.in_use().messages, bench.broker.in_use().deliveries), (0, 0));
}

#[test]
fn a_publisher_that_exceeds_the_receive_maximum_is_told_so() {
    let mut bench = Bench::default();
    let publisher = bench.client("p");
    for id in 1..=65 {
        bench.give(publisher, &wire::publish("a", id, &[], b"x"));
    }
    let last = bench.take(publisher).pop().unwrap();
    assert_eq!((last.0, last.1[0]), (0xE0, 0x93));
    assert!(bench.is_closing(publisher));
}

#[test]
fn qos_0_to_a_full_queue_is_dropped_and_counted() {
    let mut bench = Bench::new(&capacities(), &ClientLimits { subscriber_queue_length: 3, ..limits() });
    let (slow, publisher) = (bench.client("slow"), bench.client("p"));
    bench.give(slow, &wire::subscribe("a", 0));
    bench.take(slow);
    for number in 0..5 {
        bench.give(publisher, &wire::publish("a", 0, &[], &[number]));
    }
    assert_eq!(bench.take(slow).len(), 3);
    assert_eq!(bench.broker.telemetry().counters.queue_dropped, 2);
    let dropped: u64 = bench.broker.telemetry().categories.rows().map(|(_, row)| row.qos0_dropped_outgoing).sum();
    assert_eq!(dropped, 2);
}

#[test]
fn drop_oldest_keeps_the_newest() {
    let limits =
        ClientLimits { subscriber_queue_length: 3, subscriber_queue_strategy: QueueStrategy::DropOldest, ..limits() };
    let mut bench = Bench::new(&capacities(), &limits);
    let (slow, publisher) = (bench.client("slow"), bench.client("p"));
    bench.give(slow, &wire::subscribe("a", 1));
    bench.take(slow);
    for number in 1..=5_u8 {
        bench.give(publisher, &wire::publish("a", number.into(), &[], &[number]));
    }
    let newest: Vec<u8> = bench.take(slow).iter().map(|(_, body)| *body.last().unwrap()).collect();
    assert_eq!(newest, [3, 4, 5]);
}

#[test]
fn a_full_message_pool_refuses_with_quota_exceeded_and_recovers() {
    let mut bench = Bench::new(&Capacities { message_blocks: 8, ..capacities() }, &limits());
    let (subscriber, publisher) = (bench.client("s"), bench.client("p"));
    bench.give(subscriber, &wire::subscribe("a", 1));
    bench.take(subscriber);
    bench.give(publisher, &wire::publish("a", 1, &[], &[7; 3_000]));
    bench.give(publisher, &wire::publish("a", 2, &[], &[7; 3_000]));
    let answers = bench.take(publisher);
    assert_eq!((answers.len(), &answers[0].1[..]), (2, &[0, 1][..]));
    assert_eq!(answers[1].1[..3], [0, 2, 0x97]);
    bench.take(subscriber);
    bench.give(subscriber, &wire::puback(1));
    bench.give(publisher, &wire::publish("a", 3, &[], &[7; 3_000]));
    assert_eq!(bench.take(publisher), [(0x40, vec![0, 3])]);
}

#[test]
fn a_subscription_beyond_the_limit_is_refused_and_one_that_exists_is_not() {
    let mut bench = Bench::default();
    let client = bench.client("c");
    for (filter, code) in [("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 0x97), ("a", 1)] {
        bench.give(client, &wire::subscribe(filter, 1));
        assert_eq!(bench.take(client), [(0x90, vec![0, 1, 0, code])], "{filter}");
    }
    bench.give(client, &wire::packet(0xA2, &[&[0, 2, 0][..], &wire::text("b"), &wire::text("zz")].concat()));
    assert_eq!(bench.take(client), [(0xB0, vec![0, 2, 0, 0, 0x11])]);
    bench.give(client, &wire::subscribe("e", 1));
    assert_eq!(bench.take(client), [(0x90, vec![0, 1, 0, 1])]);
}

#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    let mut bench = Bench::default();
    let client = bench.client("c");
    bench.give(client, &wire::subscribe("a", 1 | 4));
    bench.give(client, &wire::publish("a", 0, &[], b"x"));
    assert_eq!(bench.take(client).len(), 1, "the SUBACK only");
}

#[test]
fn an_empty_client_identifier_is_replaced_by_one_that_is_announced() {
    let mut bench = Bench::default();
    let mut assigned = Vec::new();
    for _ in 0..2 {
        let key = bench.open();
        bench.give(key, &wire::connect("", 0, &[]));
        let (_, body) = bench.take(key).remove(0);
        let at = body.windows(3).position(|window| window == [0x12, 0, 37]).expect("Assigned Client Identifier");
        assigned.push(body[at + 3..at + 40].to_vec());
    }
    assert_ne!(assigned[0], assigned[1]);
}

#[test]
fn everything_a_client_had_goes_with_its_connection() {
    let mut bench = Bench::default();
    let idle = bench.broker.in_use();
    for round in 0..20 {
        let keys: Vec<_> = (0..4).map(|index| bench.client(&format!("c{index}"))).collect();
        for key in &keys {
            bench.give(*key, &wire::subscribe("a/#", 1));
            bench.give(*key, &wire::subscribe("$share/g/a/+", 1));
        }
        for (id, key) in (1..).zip(&keys) {
            bench.give(*key, &wire::publish("a/b", id, &[], &[round; 2_000]));
        }
        // Some have read nothing, some a part, some all.
        bench.broker.transmit(bench.now, keys[1], &mut [0; 1_000]);
        bench.take(keys[2]);
        for key in keys {
            bench.hang_up(key);
        }
        assert_eq!(bench.broker.in_use(), idle);
    }
}

#[test]
fn full_connection_and_session_tables_refuse_and_recover() {
    let mut bench = Bench::new(&Capacities { sessions: 2, connections: 4, ..capacities() }, &limits());
    let (first, _second) = (bench.client("1"), bench.client("2"));
    let third = bench.open();
    bench.give(third, &wire::connect("3", 0, &[]));
    assert_eq!(bench.take(third)[0].1[1], 0x97);
    assert!(bench.is_closing(third));
    let _fourth = bench.open();
    assert_eq!(bench.broker.open(bench.now.instant, 0), Err(Full));
    bench.hang_up(first);
    bench.hang_up(third);
    bench.client("3");
}

#[test]
fn a_will_waits_for_its_publishers_end_and_obeys_takeover() {
    let mut bench = Bench::default();
    let watcher = bench.client("w");
    bench.give(watcher, &wire::subscribe("will", 1));
    bench.take(watcher);
    let flags_and_will =
        [&wire::text("MQTT")[..], &[5, 0x0E, 0, 0, 0], &wire::text("c"), &[0], &wire::text("will"), &wire::text("x")];
    let connect = wire::packet(0x10, &flags_and_will.concat());
    let older = bench.open();
    bench.give(older, &connect);
    let newer = bench.open();
    bench.give(newer, &connect);
    assert_eq!(bench.take(older).pop().map(|(first, body)| (first, body[0])), Some((0xE0, 0x8E)));
    assert_eq!(bench.take(watcher).len(), 1);
    bench.give(newer, &wire::packet(0xE0, &[]));
    assert!(bench.is_closing(newer));
    bench.hang_up(newer);
    assert_eq!(bench.take(watcher), []);
}

#[test]
fn deadlines_are_those_of_connect_and_keep_alive() {
    let mut bench = Bench::default();
    let silent = bench.open();
    assert_eq!(bench.broker.next_deadline(), Some(Instant::from_milliseconds(10_000)));
    bench.now.instant = Instant::from_milliseconds(9_999);
    bench.give(silent, &[0x10]);
    bench.broker.expire(bench.now);
    assert!(!bench.is_closing(silent), "bytes neither shorten nor extend it");
    bench.now.instant = Instant::from_milliseconds(10_000);
    bench.broker.expire(bench.now);
    assert!(bench.is_closing(silent));
    let client = bench.open();
    bench.give(client, &wire::connect("k", 2, &[]));
    bench.take(client);
    bench.now.instant = Instant::from_milliseconds(12_900);
    bench.give(client, &[0xC0, 0]);
    bench.take(client);
    bench.now.instant = Instant::from_milliseconds(15_800);
    bench.broker.expire(bench.now);
    assert!(!bench.is_closing(client));
    bench.now.instant = Instant::from_milliseconds(15_900);
    bench.broker.expire(bench.now);
    assert_eq!(bench.take(client), [(0xE0, vec![0x8D])]);
}

#[test]
fn the_same_seed_and_events_give_the_same_bytes() {
    let run = || {
        let mut bench = Bench::default();
        let mut said = Vec::new();
        for identifier in ["", "x", ""] {
            let key = bench.open();
            bench.give(key, &wire::connect(identifier, 0, &[]));
            bench.give(key, &wire::subscribe("$share/g/a", 1));
            bench.give(key, &wire::publish("a", 1, &[], b"m"));
            said.push(bench.take_in(key, 64));
        }
        said
    };
    assert_eq!(run(), run());
}

/// Session Expiry Interval that never ends, as a property of CONNECT.
const LASTING: [u8; 5] = [0x11, 0xFF, 0xFF, 0xFF, 0xFF];

#[test]
fn a_lasting_session_that_can_take_no_more_refuses_its_publishers() {
    let mut bench = Bench::new(&Capacities { deliveries: 20, ..capacities() }, &limits());
    let subscriber = bench.client_with("s", &LASTING);
    bench.give(subscriber, &wire::subscribe("a", 1));
    bench.take(subscriber);
    bench.broker.closed(bench.now, subscriber, Cause::NetworkClosed, Text::default());
    let publisher = bench.client("p");
    let mut outcomes = Vec::new();
    for number in 1..=12_u16 {
        bench.give(publisher, &wire::publish("a", number, &[], b"x"));
        outcomes.extend(bench.take(publisher).iter().map(|(_, body)| body.get(2).copied().unwrap_or(0)));
    }
    // Half of all deliveries may be one session's.
    assert_eq!(outcomes, [[0; 10].as_slice(), &[0x97; 2]].concat());
    // QoS 0 is nothing that an absent client waits for.
    bench.give(publisher, &wire::publish("a", 0, &[], b"x"));
    assert_eq!(bench.broker.in_use().deliveries, 10);
    assert_eq!(bench.broker.telemetry().counters.full[Table::SessionQueue as usize], 2);
}

#[test]
fn a_full_retained_table_refuses_new_topics_and_keeps_the_old_ones() {
    let mut bench = Bench::new(&Capacities { retained_messages: 2, ..capacities() }, &limits());
    let publisher = bench.client("p");
    let watcher = bench.client("w");
    bench.give(watcher, &wire::subscribe("#", 0));
    bench.take(watcher);
    let retained = |topic: &str, identifier: u16, payload: &[u8]| {
        let mut packet = wire::publish(topic, identifier, &[], payload);
        packet[0] |= 1;
        packet
    };
    for (topic, expected) in [("a", 0), ("b", 0), ("c", 0x97), ("a", 0)] {
        bench.give(publisher, &retained(topic, 1, b"x"));
        assert_eq!(bench.take(publisher)[0].1.get(2).copied().unwrap_or(0), expected, "{topic}");
    }
    bench.take(watcher);
    // QoS 0 is delivered all the same, and not retained.
    bench.give(publisher, &retained("d", 0, b"live"));
    assert_eq!(bench.take(watcher).len(), 1);
    // Removing is always possible, and makes room.
    bench.give(publisher, &retained("a", 1, b""));
    bench.give(publisher, &retained("c", 2, b"x"));
    assert!(bench.take(publisher).iter().all(|(_, body)| body.len() == 2));
    assert_eq!(bench.broker.in_use().retained_messages, 2);
}

#[test]
fn a_subscriber_that_stays_behind_slows_its_publishers_for_a_moment_only() {
    let mut bench = Bench::new(&capacities(), &ClientLimits { max_receive_maximum: 100, ..limits() });
    let (subscriber, publisher) = (bench.client_with("s", &[0x21, 0, 1]), bench.client("p"));
    bench.give(subscriber, &wire::subscribe("a", 1));
    bench.take(subscriber);
    // One message is in flight and is never acknowledged.
    let mut acknowledged = 0;
    for number in 1..=600_u16 {
        bench.give(publisher, &wire::publish("a", number, &[], b"x"));
        acknowledged += bench.take(publisher).len();
        bench.take(subscriber);
    }
    assert!((512..520).contains(&acknowledged), "{acknowledged}");
    assert!(bench.broker.next_deadline().is_some());
    bench.now.instant = bench.now.instant.plus_milliseconds(GATE_MILLISECONDS);
    bench.broker.expire(bench.now);
    acknowledged += bench.take(publisher).len();
    assert_eq!(acknowledged, 600);
    // It has had its moment.
    bench.give(publisher, &wire::publish("a", 601, &[], b"x"));
    assert_eq!(bench.take(publisher).len(), 1);
}
