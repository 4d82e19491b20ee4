//! Sessions: who a client is, what it may do, and what waits for it. They outlive connections. MQTT 5 §4.1.

use super::RECEIVE_MAXIMUM_MAX;
use super::admission::Asker;
use super::connections::Connection;
use super::decisions::Decisions;
use super::messages::Message;
use super::subscriptions::Subscription;
use crate::authorization::ApplicableRules;
use crate::codec::{PacketIdentifier, QoS};
use crate::collections::{Key, Linked, Queue};
use crate::identity::Identity;
use crate::limits::CLIENT_IDENTIFIER_BYTES_MAX;
use crate::telemetry::{Asking, AuditBudget, Who};
use crate::time::Instant;
use core::cell::Cell;

/// A client identifier. [MQTT-3.1.3-5]
pub type ClientIdentifier = heapless::String<CLIENT_IDENTIFIER_BYTES_MAX>;

/// A Session Expiry Interval that never ends. MQTT 5 §3.1.2.11.2.
pub const NEVER_EXPIRES: u32 = u32::MAX;

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
    /// Whether authentication was replaced since: what the identity is worth is known when its client comes back.
    pub identity_is_stale: bool,
    /// The rules that apply to it; `None` where the port has no policy.
    pub rules: Option<ApplicableRules>,
    /// Which policies the rules are of.
    pub policy_epoch: u32,
    /// Its network connection, while there is one.
    pub connection: Option<Key<Connection>>,
    /// Session Expiry Interval, seconds: 0 ends it with its connection.
    pub expiry_seconds: u32,
    /// When it ends, while it has no connection.
    pub ends: Option<Instant>,
    /// First of its subscriptions.
    pub first_subscription: Option<Key<Subscription>>,
    /// Number of its subscriptions.
    pub subscriptions: u32,
    /// Bytes of the pool that its deliveries hold, where they are counted: for an insider whose queue is limited by them.
    pub held_bytes: u64,
    /// What was dropped because its queue, with bounds of its own, was full.
    pub dropped: u64,
    /// What was not queued because it is larger than an insider takes.
    pub too_large: u64,
    /// Deliveries that have not been sent.
    pub waiting: Queue<Delivery>,
    /// Deliveries that were sent and await PUBACK, PUBREC or PUBCOMP, in the order they were sent. [MQTT-4.6.0-6]
    pub in_flight: Queue<Delivery>,
    /// The delivery in flight that is to be sent again next, after the client has come back. [MQTT-4.4.0-1]
    pub resend: Option<Key<Delivery>>,
    /// The packet identifier used last.
    pub last_packet_identifier: u16,
    /// Packet Identifiers of QoS 2 PUBLISH packets that await PUBREL. [MQTT-4.3.3-10]
    pub received: heapless::Vec<PacketIdentifier, { RECEIVE_MAXIMUM_MAX as usize }>,
    /// What is published if the connection ends without a DISCONNECT.
    pub will: Option<Will>,
    /// When the Will is published, after the connection has ended. [MQTT-3.1.3-9]
    pub will_due: Option<Instant>,
    /// Since when more waits for it than publishers should add to.
    pub behind_since: Option<Instant>,
    /// How much of its denials is said.
    pub audit: AuditBudget,
    /// Whether retained messages wait until less is in its queue.
    pub replay_held: bool,
    /// The PUBLISH that was last matched to this session, and where in the list of matches it stands.
    pub matched: Cell<(u64, u32)>,
    /// Its number in the log; 0 while the log knows nothing of it.
    pub number: u64,
    /// Whether its queue is in the log too.
    pub keeps_queue: bool,
    /// The last record about it that somebody waits for.
    pub changed: u64,
}

impl Session {
    /// The session as it asks for decisions; `key` is its own.
    #[must_use]
    pub fn asker<'a>(&'a self, key: Key<Self>, decisions: &'a Decisions) -> Asker<'a> {
        Asker {
            port: self.port,
            rules: self.rules.as_ref(),
            identity: &self.identity,
            client_identifier: &self.client_identifier,
            memory: Some((decisions, key)),
        }
    }

    /// Who its client is, for the audit.
    #[must_use]
    pub fn who(&self) -> Who {
        Who::new(&self.client_identifier, &self.identity)
    }

    /// Who asks, for what is said of a denial.
    #[must_use]
    pub fn asking(&self) -> Asking<'_> {
        Asking { client: &self.client_identifier, identity: &self.identity, port: self.port }
    }

    /// Whether decisions about it are the same with these rules and this identity.
    #[must_use]
    pub fn is_judged_as(&self, rules: Option<&ApplicableRules>, identity: &Identity) -> bool {
        self.rules.as_ref() == rules
            && self.identity.username == identity.username
            && self.identity.attributes == identity.attributes
    }

    /// A session that has just begun, without a connection.
    #[must_use]
    pub fn new(
        client_identifier: ClientIdentifier,
        hash: u64,
        port: u16,
        identity: Identity,
        rules: Option<ApplicableRules>,
    ) -> Self {
        Self {
            client_identifier,
            hash,
            port,
            identity,
            identity_is_stale: false,
            rules,
            policy_epoch: 0,
            connection: None,
            expiry_seconds: 0,
            ends: None,
            first_subscription: None,
            subscriptions: 0,
            held_bytes: 0,
            dropped: 0,
            too_large: 0,
            waiting: Queue::default(),
            in_flight: Queue::default(),
            resend: None,
            last_packet_identifier: 0,
            received: heapless::Vec::new(),
            will: None,
            will_due: None,
            behind_since: None,
            audit: AuditBudget::default(),
            replay_held: false,
            matched: Cell::new((0, 0)),
            number: 0,
            keeps_queue: false,
            changed: 0,
        }
    }

    /// Whether it outlives its connection, and the process.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.number != 0 && self.expiry_seconds > 0
    }

    /// Whether messages of QoS 1 and 2 that wait for it outlive the process.
    #[must_use]
    pub const fn is_queue_kept(&self) -> bool {
        self.is_kept() && self.keeps_queue
    }
}

/// A Will. MQTT 5 §3.1.2.5.
pub struct Will {
    /// Topic, properties and payload; the session holds one reference.
    pub message: Key<Message>,
    /// Its QoS.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Seconds between the end of the connection and its publication.
    pub delay_seconds: u32,
    /// Its Message Expiry Interval, counted from when it is published.
    pub expiry_seconds: Option<u32>,
}

/// Most Subscription Identifiers in one outgoing PUBLISH. Where more subscriptions match, the client gets another copy
/// with the rest, which §3.3.4 allows.
pub const IDENTIFIERS_PER_DELIVERY: usize = 8;

/// The Subscription Identifiers of one delivery. [MQTT-3.3.4-4]
pub type Identifiers = heapless::Vec<u32, IDENTIFIERS_PER_DELIVERY>;

/// One message on its way to one session.
pub struct Delivery {
    /// The message, of which a delivery holds one reference; `None` once the receiver has it and only PUBCOMP is awaited.
    pub message: Option<Key<Message>>,
    /// Given when it is sent with QoS 1 or 2.
    pub packet_identifier: Option<PacketIdentifier>,
    /// The lower of published and granted. [MQTT-3.8.4-8]
    pub qos: QoS,
    /// The RETAIN flag it is sent with.
    pub retain: bool,
    /// Its Subscription Identifiers.
    pub identifiers: Option<Key<Identifiers>>,
    /// Whose it is.
    pub session: Key<Session>,
    /// What of the pool is counted for it in its session, bytes.
    pub held_bytes: u32,
    /// Its number in the log; 0 while the log knows nothing of it.
    pub number: u64,
    /// The record that must be on the disk before it is sent with QoS 2, or released.
    pub needs: u64,
    /// The delivery behind it.
    pub next: Option<Key<Delivery>>,
}

impl Linked for Delivery {
    fn next(&mut self) -> &mut Option<Key<Self>> {
        &mut self.next
    }
}
