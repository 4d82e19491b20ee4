//! What the broker knows of a network connection, from accept to close.

use super::messages::{Mark, Message};
use super::sessions::{Delivery, Session};
use crate::codec::{PacketIdentifier, ReasonCode, publish};
use crate::collections::{Key, Linked, Queue};
use crate::telemetry::Cause;
use crate::time::{Instant, UnixTime};

/// Bytes at the front of an outgoing PUBLISH: type, remaining length, topic length.
pub const PUBLISH_FRONT_BYTES_MAX: usize = publish::Head::BEFORE_TOPIC_BYTES_MAX;
/// Bytes between topic and stored properties: packet identifier, property length, message expiry interval.
pub const PUBLISH_MIDDLE_BYTES_MAX: usize = publish::Head::AFTER_TOPIC_BYTES_MAX + 5;

/// A network connection.
pub struct Connection {
    /// Index of the port it came in by.
    pub port: u16,
    /// Where it stands.
    pub phase: Phase,
    /// The session, from a successful CONNECT to the end of the connection.
    pub session: Option<Key<Session>>,
    /// One and a half Keep Alive periods; `None` for no Keep Alive. [MQTT-3.1.2-22]
    pub keep_alive_milliseconds: Option<u64>,
    /// When the last complete packet came.
    pub last_packet: Instant,
    /// When the credential ends.
    pub expires: Option<UnixTime>,
    /// Whether CONNECT asked for a Session Expiry Interval above 0.
    pub asked_for_expiry: bool,
    /// The client's Maximum Packet Size.
    pub maximum_packet_bytes: u32,
    /// The client's Receive Maximum, capped.
    pub receive_maximum: u16,
    /// Acknowledgements of PUBLISH packets, in the order of the packets. [MQTT-4.6.0-2]
    pub acknowledgements: Queue<Reply>,
    /// All other replies.
    pub replies: Queue<Reply>,
    /// A PUBLISH of which a part has been given to the socket.
    pub transmitting: Option<Transmitting>,
    /// Whether it stands in the ready ring.
    pub ready: bool,
    /// Whether its first acknowledgement waits for a slow subscriber.
    pub gated: bool,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but CONNECT is accepted.
    AwaitConnect,
    /// CONNACK with success is on its way or sent.
    Connected,
    /// What is in the reply queue goes out, then the connection is closed. Nothing is read any more.
    Closing(Cause),
}

/// A reply that waits for room in the socket.
pub struct Reply {
    /// What is said.
    pub kind: ReplyKind,
    /// The reply behind it.
    pub next: Option<Key<Reply>>,
}

impl Linked for Reply {
    fn next(&mut self) -> &mut Option<Key<Self>> {
        &mut self.next
    }
}

/// Reason codes of a SUBACK or UNSUBACK that one slot of the reply table holds.
pub const CODES_PER_REPLY: usize = 8;

/// What a reply says.
#[derive(Clone, Copy, Debug)]
pub enum ReplyKind {
    /// CONNACK of a refused CONNECT.
    ConnAckRefused(ReasonCode),
    /// CONNACK of an accepted CONNECT; its properties are read from connection and session when it is sent.
    ConnAckAccepted {
        /// The server assigned the Client Identifier.
        assigned: bool,
        /// The Session Expiry Interval is not the one the client asked for.
        expiry_lowered: bool,
        /// The Keep Alive that the client must use instead of its own.
        server_keep_alive: Option<u16>,
    },
    /// PUBACK.
    PubAck {
        /// Of the PUBLISH.
        packet_identifier: PacketIdentifier,
        /// Its outcome.
        reason: ReasonCode,
        /// The slowest subscriber it went to: the reply waits until that one has caught up.
        gate: Option<Key<Session>>,
    },
    /// SUBACK or UNSUBACK; its codes are in the `Codes` replies behind it.
    SubscriptionAck {
        /// Of the SUBSCRIBE or UNSUBSCRIBE.
        packet_identifier: PacketIdentifier,
        /// Number of reason codes.
        codes: u16,
        /// UNSUBACK.
        unsubscribe: bool,
    },
    /// The next reason codes of the acknowledgement before.
    Codes([ReasonCode; CODES_PER_REPLY]),
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(ReasonCode),
}

/// A PUBLISH that did not fit into the socket as a whole.
pub struct Transmitting {
    /// The delivery, taken off the session's queue.
    pub delivery: Key<Delivery>,
    /// The message, for which the delivery holds a reference.
    pub message: Key<Message>,
    /// Fixed header and topic length.
    pub front: heapless::Vec<u8, PUBLISH_FRONT_BYTES_MAX>,
    /// Packet identifier, property length, message expiry.
    pub middle: heapless::Vec<u8, PUBLISH_MIDDLE_BYTES_MAX>,
    /// Bytes of topic.
    pub topic_bytes: usize,
    /// Bytes of the whole packet.
    pub total: usize,
    /// Bytes given to the socket.
    pub sent: usize,
    /// Where the stored bytes continue.
    pub mark: Mark,
}

impl Connection {
    /// A connection that has just been accepted.
    #[must_use]
    pub fn new(port: u16, now: Instant) -> Self {
        Self {
            port,
            phase: Phase::AwaitConnect,
            session: None,
            keep_alive_milliseconds: None,
            last_packet: now,
            expires: None,
            asked_for_expiry: false,
            maximum_packet_bytes: u32::MAX,
            receive_maximum: u16::MAX,
            acknowledgements: Queue::default(),
            replies: Queue::default(),
            transmitting: None,
            ready: false,
            gated: false,
        }
    }

    /// Replies that wait.
    #[must_use]
    pub const fn replies_waiting(&self) -> u32 {
        self.acknowledgements.len() + self.replies.len()
    }
}
