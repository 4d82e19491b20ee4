//! Sessions: who a client is, what it may do, and what waits for it.

use super::connections::Connection;
use super::messages::Message;
use super::subscriptions::Subscription;
use crate::authorization::ApplicableRules;
use crate::codec::{PacketIdentifier, QoS};
use crate::collections::{Key, Linked, Queue};
use crate::identity::Identity;
use crate::limits::CLIENT_IDENTIFIER_BYTES_MAX;
use core::cell::Cell;

/// A client identifier. [MQTT-3.1.3-5]
pub type ClientIdentifier = heapless::String<CLIENT_IDENTIFIER_BYTES_MAX>;

/// One client's session.
pub struct Session {
    /// Its name. [MQTT-3.1.3-2]
    pub client_identifier: ClientIdentifier,
    /// Hash of the name, for its entry in the index.
    pub hash: u64,
    /// Index of the port it came in by, which decides about its policy.
    pub port: u16,
    /// What authentication found out.
    pub identity: Identity,
    /// The rules that apply to it; `None` where the port has no policy.
    pub rules: Option<ApplicableRules>,
    /// Its network connection.
    pub connection: Key<Connection>,
    /// First of its subscriptions.
    pub first_subscription: Option<Key<Subscription>>,
    /// Number of its subscriptions.
    pub subscriptions: u32,
    /// Deliveries that have not been sent.
    pub waiting: Queue<Delivery>,
    /// Deliveries that were sent and await PUBACK, in the order they were sent. [MQTT-4.6.0-6]
    pub in_flight: Queue<Delivery>,
    /// The packet identifier used last.
    pub last_packet_identifier: u16,
    /// What is published if the connection ends without a DISCONNECT.
    pub will: Option<Will>,
    /// Whether publishers wait for this session to catch up.
    pub behind: bool,
    /// The PUBLISH that was last matched to this session, and where in the list of matches it stands.
    pub matched: Cell<(u64, u32)>,
}

/// A Will. MQTT 5 §3.1.2.5.
pub struct Will {
    /// Topic, properties and payload; the session holds one reference.
    pub message: Key<Message>,
    /// Its QoS.
    pub qos: QoS,
    /// Its Message Expiry Interval, counted from when it is published.
    pub expiry_seconds: Option<u32>,
}

/// One message on its way to one session.
pub struct Delivery {
    /// The message; a delivery holds one reference.
    pub message: Key<Message>,
    /// Given when it is sent with QoS 1.
    pub packet_identifier: Option<PacketIdentifier>,
    /// The lower of published and granted. [MQTT-3.8.4-8]
    pub qos: QoS,
    /// The delivery behind it.
    pub next: Option<Key<Delivery>>,
}

impl Linked for Delivery {
    fn next(&mut self) -> &mut Option<Key<Self>> {
        &mut self.next
    }
}
