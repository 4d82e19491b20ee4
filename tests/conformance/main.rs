//! Conformance to MQTT 5.0 (OASIS Standard, 7 March 2019) and 3.1.1, by chapter of the text, against the whole program. Each test
//! names the normative statements that it shows; `cargo xtask conformance` lists those that no test names.
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod chapter_2_format;
mod chapter_3_connect;
mod chapter_3_publish;
mod chapter_3_subscribe;
mod chapter_4_behaviour;
mod version_3_1_1;

use support::client::{Client, Packet, packet, tcp, text};
use support::{Site, free_ports, plain_listener};

/// A broker with one plain port, and whatever else its files say.
struct Broker {
    site: Site,
    port: u16,
}

impl Broker {
    fn start(name: &str) -> Self {
        Self::start_with(name, "")
    }

    /// With manifests beside the listener.
    fn start_with(name: &str, manifests: &str) -> Self {
        let port = free_ports(1);
        let files = [("listener.yaml", plain_listener(port)), ("more.yaml", manifests.to_owned())];
        let files = if manifests.is_empty() { &files[..1] } else { &files[..] };
        Self { site: Site::start(name, files), port }
    }

    /// A client with a clean start whose session ends with its connection.
    fn client(&self, identifier: &str) -> Client {
        Client::accepted(tcp(self.port), identifier)
    }

    /// A connection on which nothing has been sent.
    fn socket(&self) -> Client {
        Client::new(tcp(self.port))
    }

    /// Connects and returns the CONNACK.
    fn connect(&self, connect: &Connect) -> (Client, ConnAck) {
        let mut client = self.socket();
        client.send(&connect.encode());
        let connack = client.receive().expect("a CONNACK");
        (client, ConnAck::decode(&connack))
    }

    /// Connects, accepted.
    fn session(&self, connect: &Connect) -> (Client, ConnAck) {
        let (client, connack) = self.connect(connect);
        assert_eq!(connack.reason, 0, "{connack:?}");
        (client, connack)
    }
}

/// The parts of a CONNECT packet.
#[derive(Clone)]
struct Connect {
    name: &'static str,
    level: u8,
    flags: u8,
    keep_alive: u16,
    properties: Vec<u8>,
    identifier: String,
    /// Will properties, topic and payload, user name, password: whatever the flags announce.
    rest: Vec<u8>,
}

const CLEAN_START: u8 = 2;
const WILL: u8 = 4;
const WILL_RETAIN: u8 = 0x20;

impl Connect {
    fn new(identifier: &str) -> Self {
        Self {
            name: "MQTT",
            level: 5,
            flags: CLEAN_START,
            keep_alive: 0,
            properties: Vec::new(),
            identifier: identifier.to_owned(),
            rest: Vec::new(),
        }
    }

    /// Goes on with the session that is there, and keeps it for `seconds`.
    fn lasting(identifier: &str, seconds: u32) -> Self {
        let mut connect = Self::new(identifier).with(0x11, &seconds.to_be_bytes());
        connect.flags = 0;
        connect
    }

    fn with(mut self, property: u8, value: &[u8]) -> Self {
        self.properties.push(property);
        self.properties.extend_from_slice(value);
        self
    }

    fn will(mut self, topic: &str, payload: &[u8], qos: u8, properties: &[u8]) -> Self {
        self.flags |= WILL | qos << 3;
        if self.level == 5 {
            self.rest.push(u8::try_from(properties.len()).unwrap());
            self.rest.extend_from_slice(properties);
        }
        self.rest.extend_from_slice(&text(topic));
        self.rest.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        self.rest.extend_from_slice(payload);
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = text(self.name);
        body.extend_from_slice(&[self.level, self.flags]);
        body.extend_from_slice(&self.keep_alive.to_be_bytes());
        if self.level == 5 {
            body.push(u8::try_from(self.properties.len()).unwrap());
            body.extend_from_slice(&self.properties);
        }
        body.extend_from_slice(&text(&self.identifier));
        body.extend_from_slice(&self.rest);
        packet(0x10, &body)
    }
}

/// What a CONNACK of MQTT 5 says.
#[derive(Debug)]
struct ConnAck {
    flags: u8,
    reason: u8,
    properties: Vec<u8>,
}

impl ConnAck {
    fn decode(packet: &Packet) -> Self {
        assert_eq!(packet.first, 0x20, "{packet:?}");
        let [flags, reason, length, properties @ ..] = packet.body.as_slice() else { panic!("{packet:?}") };
        assert_eq!(usize::from(*length), properties.len());
        Self { flags: *flags, reason: *reason, properties: properties.to_vec() }
    }

    /// The value of a property with a fixed length.
    fn property<const N: usize>(&self, wanted: u8) -> Option<[u8; N]> {
        let mut rest = self.properties.as_slice();
        while let [identifier, tail @ ..] = rest {
            let length = match identifier {
                0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
                0x21 | 0x22 | 0x13 => 2,
                0x11 | 0x27 => 4,
                0x12 | 0x1F | 0x1A | 0x1C => 2 + usize::from(u16::from_be_bytes([tail[0], tail[1]])),
                other => panic!("property {other:#x}"),
            };
            if *identifier == wanted {
                return tail[..length].try_into().ok();
            }
            rest = &tail[length..];
        }
        None
    }

    fn text(&self, wanted: u8) -> Option<String> {
        let at = self.properties.iter().position(|byte| *byte == wanted)?;
        let length = usize::from(u16::from_be_bytes([self.properties[at + 1], self.properties[at + 2]]));
        String::from_utf8(self.properties[at + 3..at + 3 + length].to_vec()).ok()
    }
}

/// What a PUBLISH says.
#[derive(Debug, PartialEq, Eq)]
struct Published {
    flags: u8,
    topic: String,
    identifier: u16,
    properties: Vec<u8>,
    payload: Vec<u8>,
}

impl Published {
    fn decode(packet: &Packet) -> Self {
        assert_eq!(packet.first >> 4, 3, "{packet:?}");
        let body = &packet.body;
        let mut at = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..at].to_vec()).unwrap();
        let mut identifier = 0;
        if packet.first & 6 != 0 {
            identifier = u16::from_be_bytes([body[at], body[at + 1]]);
            at += 2;
        }
        assert!(body[at] < 128, "short properties only");
        let end = at + 1 + usize::from(body[at]);
        Self {
            flags: packet.first & 15,
            topic,
            identifier,
            properties: body[at + 1..end].to_vec(),
            payload: body[end..].to_vec(),
        }
    }
}

/// The next packet, which must be a PUBLISH. It is not acknowledged.
fn published(client: &mut Client) -> Published {
    Published::decode(&client.receive().expect("a PUBLISH"))
}

fn acknowledge(client: &mut Client, first: u8, identifier: u16) {
    let [high, low] = identifier.to_be_bytes();
    client.send(&[first, 2, high, low]);
}

const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;

/// A PUBLISH with any flags and properties; the identifier is left out where it is 0.
fn publish(flags: u8, topic: &str, identifier: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if identifier != 0 {
        body.extend_from_slice(&identifier.to_be_bytes());
    }
    body.push(u8::try_from(properties.len()).unwrap());
    body.extend_from_slice(properties);
    body.extend_from_slice(payload);
    packet(0x30 | flags, &body)
}

/// A SUBSCRIBE with filters and their options.
fn subscribe(identifier: u16, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = identifier.to_be_bytes().to_vec();
    body.push(u8::try_from(properties.len()).unwrap());
    body.extend_from_slice(properties);
    for (filter, options) in filters {
        body.extend_from_slice(&text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// Subscribes with options and asserts that all are granted.
fn subscribed(client: &mut Client, filters: &[(&str, u8)]) {
    client.send(&subscribe(9, &[], filters));
    let suback = client.receive().expect("a SUBACK");
    assert_eq!((suback.first, &suback.body[..3]), (0x90, &[0, 9, 0][..]));
    assert!(suback.body[3..].iter().all(|code| *code < 3), "{suback:?}");
}

/// Publishes with QoS 2 to the end of the exchange.
fn publish_exactly_once(client: &mut Client, topic: &str, identifier: u16, payload: &[u8]) {
    client.send(&publish(4, topic, identifier, &[], payload));
    expect(client, PUBREC, identifier);
    acknowledge(client, PUBREL, identifier);
    expect(client, PUBCOMP, identifier);
}

/// The next packet is this acknowledgement, with success.
fn expect(client: &mut Client, first: u8, identifier: u16) {
    let answer = client.receive().expect("an acknowledgement");
    assert_eq!((answer.first, answer.body), (first, identifier.to_be_bytes().to_vec()));
}

/// Asserts that a message published now to `canary` is the next thing that the client gets: nothing came before.
fn nothing_but(client: &mut Client, broker: &Broker, topic: &str) {
    let mut other = broker.client("canary");
    other.send(&publish(0, topic, 0, &[], b"canary"));
    assert_eq!(published(client).payload, b"canary");
}
