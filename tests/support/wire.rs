//! An MQTT 5 client whose connection may break at any byte: nothing here panics because the broker is gone. What it sends and
//! receives are packets as bytes; what they mean is for the test to know.

use super::client::{Packet, packet, text};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A Will: topic, payload, QoS, delay in seconds.
pub type Will<'a> = (&'a str, &'a [u8], u8, u32);

/// A CONNECT of version 5.
#[derive(Clone, Copy)]
pub struct Connect<'a> {
    pub identifier: &'a str,
    pub clean_start: bool,
    /// Session Expiry Interval, seconds.
    pub expiry: u32,
    pub will: Option<Will<'a>>,
}

impl<'a> Connect<'a> {
    /// A session that outlives its connection by an hour, and goes on where it was.
    pub fn lasting(identifier: &'a str) -> Self {
        Self { identifier, clean_start: false, expiry: 3_600, will: None }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut body = text("MQTT");
        let will = self.will.map_or(0, |(_, _, qos, _)| 0x04 | qos << 3);
        body.extend_from_slice(&[5, will | u8::from(self.clean_start) << 1, 0, 0, 5, 0x11]);
        body.extend_from_slice(&self.expiry.to_be_bytes());
        body.extend_from_slice(&text(self.identifier));
        if let Some((topic, payload, _, delay)) = self.will {
            body.extend_from_slice(&[5, 0x18]);
            body.extend_from_slice(&delay.to_be_bytes());
            body.extend_from_slice(&text(topic));
            body.extend_from_slice(&u16::try_from(payload.len()).expect("a short payload").to_be_bytes());
            body.extend_from_slice(payload);
        }
        packet(0x10, &body)
    }
}

/// What came of waiting for a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Packet(Packet),
    Nothing,
    Closed,
}

/// A PUBLISH as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// Packet Identifier; 0 with QoS 0.
    pub identifier: u16,
    /// Message Expiry Interval, seconds.
    pub expiry: Option<u32>,
    pub payload: Vec<u8>,
}

/// A connection, and what of the next packet has come.
pub struct Wire {
    stream: TcpStream,
    bytes: Vec<u8>,
    alive: bool,
}

impl Wire {
    /// Connects and waits for CONNACK: Session Present and Reason Code with it. `None` when the broker is not there or goes.
    pub fn connect(port: u16, connect: &Connect<'_>) -> Option<(Self, bool, u8)> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_write_timeout(Some(super::PATIENCE)).ok()?;
        let mut wire = Self { stream, bytes: Vec::new(), alive: true };
        wire.send(&connect.encode());
        match wire.receive(super::PATIENCE) {
            Heard::Packet(Packet { first: 0x20, body }) => Some((wire, body[0] == 1, body[1])),
            Heard::Packet(other) => panic!("a CONNACK was due: {other:?}"),
            Heard::Nothing => panic!("the broker does not answer CONNECT"),
            Heard::Closed => None,
        }
    }

    /// As [`Wire::connect`], to a broker that is there and accepts; asserts what Session Present says.
    pub fn resume(port: u16, connect: &Connect<'_>, present: bool) -> Self {
        let (wire, was_present, reason) = Self::connect(port, connect).expect("the broker is there");
        assert_eq!((reason, was_present), (0, present), "{}: Reason Code and Session Present", connect.identifier);
        wire
    }

    /// Sends, if the broker is still there.
    pub fn send(&mut self, bytes: &[u8]) {
        self.alive &= self.stream.write_all(bytes).is_ok();
    }

    /// The next packet, waited for so long.
    pub fn receive(&mut self, patience: Duration) -> Heard {
        let end = Instant::now() + patience;
        loop {
            if let Some(packet) = self.take() {
                return Heard::Packet(packet);
            }
            if !self.alive {
                return Heard::Closed;
            }
            let rest = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(rest)).expect("a timeout");
            let mut buffer = [0; 16_384];
            match self.stream.read(&mut buffer) {
                Ok(0) => self.alive = false,
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Heard::Nothing;
                }
                Err(_) => self.alive = false,
            }
        }
    }

    /// The next packet, which must come.
    pub fn expect(&mut self) -> Packet {
        match self.receive(super::PATIENCE) {
            Heard::Packet(packet) => packet,
            other => panic!("a packet was due: {other:?}"),
        }
    }

    fn take(&mut self) -> Option<Packet> {
        let (mut length, mut at) = (0, 1);
        loop {
            let byte = *self.bytes.get(at)?;
            length |= usize::from(byte & 0x7F) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if self.bytes.len() < at + length {
            return None;
        }
        let packet = Packet { first: self.bytes[0], body: self.bytes[at..at + length].to_vec() };
        self.bytes.drain(..at + length);
        Some(packet)
    }

    /// Subscribes to one filter; the Reason Code, or `None` when the broker is gone. Takes no other packet meanwhile.
    pub fn subscribe(&mut self, filter: &str, options: u8) -> Option<u8> {
        self.send(&super::client::subscribe_packet(9, &[filter], options));
        self.acknowledgement(0x90, 9)
    }

    /// Publishes with QoS 1 and waits for the Reason Code of PUBACK; as [`Wire::subscribe`].
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> Option<u8> {
        self.send(&super::client::publish_packet(topic, 1, 7, payload));
        self.acknowledgement(0x40, 7)
    }

    fn acknowledgement(&mut self, first: u8, identifier: u16) -> Option<u8> {
        match self.receive(super::PATIENCE) {
            Heard::Packet(packet) => {
                assert_eq!((packet.first, &packet.body[..2]), (first, &identifier.to_be_bytes()[..]), "{packet:?}");
                let at = if first == 0x40 { 2 } else { 3 };
                Some(packet.body.get(at).copied().unwrap_or(0))
            }
            Heard::Nothing => panic!("the broker says nothing"),
            Heard::Closed => None,
        }
    }

    /// The next message, which must come; acknowledged if it has QoS 1.
    pub fn message(&mut self) -> Publish {
        let publish = Publish::read(&self.expect());
        if publish.qos == 1 {
            self.acknowledge(0x40, publish.identifier);
        }
        publish
    }

    /// Sends PUBACK, PUBREC, PUBREL or PUBCOMP.
    pub fn acknowledge(&mut self, first: u8, identifier: u16) {
        let [high, low] = identifier.to_be_bytes();
        self.send(&[first, 2, high, low]);
    }

    /// Asserts that a PINGREQ is answered, and that nothing came before the answer.
    pub fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.expect(), Packet { first: 0xD0, body: Vec::new() });
    }
}

impl Publish {
    /// Reads a PUBLISH; the properties that the tests do not use may not be there.
    pub fn read(packet: &Packet) -> Self {
        let Packet { first, body } = packet;
        assert_eq!(first & 0xF0, 0x30, "a PUBLISH was due: {packet:?}");
        let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        let mut at = 2 + usize::from(number(0));
        let topic = String::from_utf8(body[2..at].to_vec()).expect("UTF-8");
        let (qos, mut identifier) = (first >> 1 & 3, 0);
        if qos > 0 {
            identifier = number(at);
            at += 2;
        }
        let properties = usize::from(body[at]);
        let expiry = match &body[at + 1..at + 1 + properties] {
            [] => None,
            [0x02, expiry @ ..] => Some(u32::from_be_bytes(expiry.try_into().expect("one property"))),
            other => panic!("properties that nobody asked for: {other:02x?}"),
        };
        let payload = body[at + 1 + properties..].to_vec();
        Self { topic, qos, dup: first & 8 != 0, retain: first & 1 != 0, identifier, expiry, payload }
    }
}
