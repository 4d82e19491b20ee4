//! What the broker knows of a network connection, from accept to close.

use super::admission::Heir;
use super::authenticate::Ticket;
use super::messages::{Mark, Message};
use super::sessions::{IDENTIFIERS_PER_DELIVERY, Session};
use crate::codec::{PacketIdentifier, ProtocolVersion, ReasonCode, publish};
use crate::collections::{Key, Linked, Queue};
use crate::telemetry::{Category, Cause};
use crate::time::{Instant, UnixTime};

/// Bytes at the front of an outgoing PUBLISH: type, remaining length, topic length.
pub const PUBLISH_FRONT_BYTES_MAX: usize = publish::Head::BEFORE_TOPIC_BYTES_MAX;
/// Bytes of the properties that each sending of a message has of its own: message expiry interval, topic alias, subscription
/// identifiers.
pub const OWN_PROPERTY_BYTES_MAX: usize = 5 + 3 + IDENTIFIERS_PER_DELIVERY * 5;
/// Bytes between topic and stored properties: packet identifier, property length, properties of this sending.
pub const PUBLISH_MIDDLE_BYTES_MAX: usize = publish::Head::AFTER_TOPIC_BYTES_MAX + OWN_PROPERTY_BYTES_MAX;
/// Topic Aliases that the broker accepts from a client, and most that it uses itself.
pub const TOPIC_ALIASES_MAX: u16 = 16;
/// A topic by two keyed hashes, which stand for its text.
pub type TopicHash = (u64, u64);

/// A network connection.
pub struct Connection {
    /// Index of the port it came in by.
    pub port: u16,
    /// Where it stands.
    pub phase: Phase,
    /// What its client speaks; known from CONNECT.
    pub version: ProtocolVersion,
    /// The session, from a successful CONNECT to the end of the connection.
    pub session: Option<Key<Session>>,
    /// One and a half Keep Alive periods; `None` for no Keep Alive. [MQTT-3.1.2-22]
    pub keep_alive_milliseconds: Option<u64>,
    /// When it was accepted.
    pub opened: Instant,
    /// What the client's messages are counted under.
    pub category: Category,
    /// The PUBLISH whose acknowledgement is waited for, and since when.
    pub followed: Option<(PacketIdentifier, Instant)>,
    /// When its CONNECT was accepted.
    pub connected: Instant,
    /// When the last complete packet came.
    pub last_packet: Instant,
    /// When the credential ends.
    pub expires: Option<UnixTime>,
    /// Index of the authentication method that accepted it.
    pub credential_method: u16,
    /// What is to judge its credential, because authentication was replaced. Until it has, nothing is taken from or given
    /// to the client.
    pub heir: Option<Heir>,
    /// What AUTH packets need, where CONNECT had an Authentication Method.
    pub enhanced: Option<Box<Enhanced>>,
    /// The packet whose credential is being judged elsewhere.
    pub parked: Option<Ticket>,
    /// Whether CONNECT asked for a Session Expiry Interval above 0.
    pub asked_for_expiry: bool,
    /// Largest packet that it may send, as announced in CONNACK, bytes.
    pub packet_bytes_max: u32,
    /// The Receive Maximum that was announced to it.
    pub receive_maximum_announced: u16,
    /// The client's Maximum Packet Size.
    pub maximum_packet_bytes: u32,
    /// The client's Receive Maximum, capped.
    pub receive_maximum: u16,
    /// PUBLISH packets of QoS 1 and 2 sent on this connection whose end has not been acknowledged. [MQTT-4.9.0-1]
    pub in_flight: u16,
    /// Whether the client takes Reason Strings. [MQTT-3.1.2-29]
    pub wants_reasons: bool,
    /// PUBLISH packets of QoS 1, and of QoS 2 that were refused, whose acknowledgement has not left.
    pub unacknowledged: u32,
    /// Topics that the client has given an alias, each as a message without payload; by alias, from 1.
    pub aliases_in: [Option<Key<Message>>; TOPIC_ALIASES_MAX as usize],
    /// Topics that the broker has given an alias on this connection; by alias, from 1.
    pub aliases_out: heapless::Vec<TopicHash, { TOPIC_ALIASES_MAX as usize }>,
    /// Most aliases that the broker may use.
    pub aliases_out_max: u16,
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
    /// Whether CONNACK with success has been given to the socket. [MQTT-3.1.4-5] Nothing else may go before it.
    pub greeted: bool,
    /// Whether something that it has to say waits for the disk.
    pub held: bool,
    /// PINGRESP packets that it has to say; they wait for nothing but CONNACK.
    pub pongs: u16,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but CONNECT is accepted.
    AwaitConnect,
    /// CONNECT has come, and somebody else is asked about its credential. Nothing is read meanwhile.
    Authenticating,
    /// CONNACK with success is on its way or sent.
    Connected,
    /// What is in the reply queue goes out, then the connection is closed. Nothing is read any more.
    Closing(Cause),
}

/// Enhanced authentication of one connection. MQTT 5 §4.12.
pub struct Enhanced {
    /// The Authentication Method of CONNECT, which every AUTH must have as well. [MQTT-4.12.0-5]
    pub method: Box<str>,
    /// Renewals that failed for now since the last one that did not.
    pub failures: u8,
    /// When the client is told to go on trying.
    pub reply_due: Option<Instant>,
}

/// A reply that waits for room in the socket.
pub struct Reply {
    /// What is said.
    pub kind: ReplyKind,
    /// The record that must be on the disk before.
    pub needs: u64,
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
        /// The client's session was there. [MQTT-3.2.2-2]
        session_present: bool,
        /// The Session Expiry Interval where it is not the one the client asked for.
        expiry_seconds: Option<u32>,
        /// The client asked for Response Information.
        response_information: bool,
        /// The Keep Alive that the client must use instead of its own.
        server_keep_alive: Option<u16>,
    },
    /// PUBACK, or for QoS 2 PUBREC.
    PublishAck {
        /// PUBREC.
        exactly_once: bool,
        /// Of the PUBLISH.
        packet_identifier: PacketIdentifier,
        /// Its outcome.
        reason: ReasonCode,
        /// The slowest subscriber it went to: the reply waits until that one has caught up.
        gate: Option<Key<Session>>,
    },
    /// PUBREL.
    PubRel(PacketIdentifier, ReasonCode),
    /// PUBCOMP.
    PubComp(PacketIdentifier, ReasonCode),
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
    /// AUTH, with the Authentication Method of the connection.
    Auth(ReasonCode),
    /// DISCONNECT.
    Disconnect(ReasonCode),
}

impl ReplyKind {
    /// Whether with this reply a PUBLISH no longer counts against the Receive Maximum: PUBACK, or a PUBREC that refuses.
    #[must_use]
    pub fn ends_a_publish(&self) -> bool {
        matches!(self, Self::PublishAck { exactly_once, reason, .. } if !exactly_once || reason.is_error())
    }
}

/// A PUBLISH that did not fit into the socket as a whole.
pub struct Transmitting {
    /// The message, of which this holds a reference.
    pub message: Key<Message>,
    /// Fixed header and topic length.
    pub front: heapless::Vec<u8, PUBLISH_FRONT_BYTES_MAX>,
    /// Packet identifier, property length, properties of this sending.
    pub middle: heapless::Vec<u8, PUBLISH_MIDDLE_BYTES_MAX>,
    /// Bytes of topic; 0 where an alias stands for it.
    pub topic_bytes: usize,
    /// Stored bytes between topic and payload that are not sent: properties, to a client of MQTT 3.1.1.
    pub skipped_bytes: usize,
    /// Bytes of the whole packet.
    pub total: usize,
    /// Bytes given to the socket.
    pub sent: usize,
    /// Where the stored bytes continue.
    pub mark: Mark,
}

impl Connection {
    /// A connection that has just been accepted, whose CONNECT may have `packet_bytes_max` bytes.
    #[must_use]
    pub fn new(port: u16, packet_bytes_max: u32, now: Instant) -> Self {
        Self {
            port,
            phase: Phase::AwaitConnect,
            version: ProtocolVersion::V5,
            session: None,
            keep_alive_milliseconds: None,
            opened: now,
            category: Category::default(),
            followed: None,
            connected: now,
            last_packet: now,
            expires: None,
            credential_method: 0,
            heir: None,
            enhanced: None,
            parked: None,
            asked_for_expiry: false,
            packet_bytes_max,
            receive_maximum_announced: 0,
            maximum_packet_bytes: u32::MAX,
            receive_maximum: u16::MAX,
            in_flight: 0,
            wants_reasons: true,
            unacknowledged: 0,
            aliases_in: [None; TOPIC_ALIASES_MAX as usize],
            aliases_out: heapless::Vec::new(),
            aliases_out_max: 0,
            acknowledgements: Queue::default(),
            replies: Queue::default(),
            transmitting: None,
            ready: false,
            gated: false,
            greeted: false,
            held: false,
            pongs: 0,
        }
    }

    /// Whether its client understands Reason Codes beyond CONNACK and SUBACK, which MQTT 3.1.1 has not.
    #[must_use]
    pub fn can_be_told(&self) -> bool {
        self.version == ProtocolVersion::V5
    }

    /// Whether it must be judged again before anything is taken from or given to its client.
    #[must_use]
    pub fn awaits_judgement(&self) -> bool {
        self.heir.is_some() && self.phase == Phase::Connected
    }

    /// Replies that wait.
    #[must_use]
    pub const fn replies_waiting(&self) -> u32 {
        self.acknowledgements.len() + self.replies.len() + self.pongs as u32
    }
}
