//! The broker: connections, sessions, routing. A state machine without clock, entropy, sockets, files or log text.
//!
//! Bytes come in through [`Broker::receive`]; bytes go out when the shell asks for them with [`Broker::transmit`], into a
//! buffer for which it has room in a socket. Time comes in as an argument. The same seed and the same calls give the same
//! bytes.
//!
//! The shell's part: after any call, drain [`Broker::next_ready`] and transmit for each connection it names; close a
//! connection when [`Transmitted::close`] says so, and tell the broker with [`Broker::closed`], once.
//!
//! **Invariants:** all memory that grows with load is in the tables sized by [`Capacities`]; a peer's bytes lead to a
//! reply, a close, or a change in those tables, and to nothing else.

mod admission;
mod authenticate;
mod close;
mod connect;
mod connections;
mod decisions;
mod durable;
mod enforce;
mod explain;
mod filters;
mod inside;
mod keep;
mod messages;
mod observe;
mod publish;
mod replay;
mod restore;
mod retained;
mod routes;
mod sessions;
mod subscribe;
mod subscriptions;
mod sweep;
mod sys;
#[cfg(test)]
mod tests;
mod transmit;

pub use admission::{Admission, Heir, PortAdmission, Succession};
pub use authenticate::{PARKED_BYTES_MAX, QUESTIONS_MAX, Ticket};
pub use connections::Connection;
pub use durable::{Durability, StoreState};
pub use explain::{Explanation, GrantView};
pub use inside::{INSIDE_PREFIX, Insider, InsiderQueue, QueueView};
pub use observe::{ClientView, FilterView, Held, Page, RetainedView, SessionView, Shown, StoreView, TableUse};
pub use restore::Restored;
pub use transmit::Transmitted;

use crate::authentication::{Question, SignatureMemo};
use crate::authorization::Policy;
use crate::codec::decode_fixed_header;
use crate::codec::{DecodeError, FixedHeader, Packet, PacketType, ProtocolVersion, ReasonCode, decode};
use crate::collections::{DeadlineHeap, Full, HashIndex, Key, Slab};
use crate::config::blob::{ClientLimits, QueueStrategy};
use crate::limits::{AUTHENTICATION_METHOD_BYTES_MAX, Capacities};
use crate::store::Journal;
use crate::telemetry::{AuditBudget, Cause, Denials, Table, Telemetry, Text};
use crate::time::{Instant, Now};
use authenticate::{Parked, Raw};
use connections::{Phase, Reply, ReplyKind};
use decisions::Decisions;
use messages::MessagePool;
use publish::Match;
use retained::RetainedTable;
use routes::Routes;
use rustls_pki_types::CertificateDer;
use sessions::{Delivery, IDENTIFIERS_PER_DELIVERY, Identifiers, Session};
use std::collections::VecDeque;
use subscriptions::{Subscription, Subscriptions};
use sys::Sys;

/// Replies that one connection may have waiting before the broker reads no more from it.
const REPLIES_PER_CONNECTION_MAX: u32 = 160;

/// PINGRESP packets that one connection may have waiting.
const PONGS_MAX: u16 = 160;

/// Fewest replies that make sense: the answer to one packet with the most filters, and as much again.
const REPLIES_MIN: u32 = 512;

/// The broker.
pub struct Broker {
    limits: Limits,
    admission: Admission,
    decisions: Decisions,
    routes: Routes,
    connections: Slab<Connection>,
    /// How many of them each configured port has, by its index.
    port_connections: Vec<u32>,
    sessions: Slab<Session>,
    session_index: HashIndex,
    messages: MessagePool,
    deliveries: Slab<Delivery>,
    replies: Slab<Reply>,
    /// Subscription Identifiers of deliveries that have some.
    identifiers: Slab<Identifiers>,
    subscriptions: Subscriptions,
    retained: RetainedTable,
    /// When the retained table was last searched for expired messages because it was full.
    retained_swept: Instant,
    /// Subscriptions to which retained messages are on their way.
    replays: VecDeque<Key<Subscription>>,
    /// Those whose SUBACK waits for the disk.
    replays_held: VecDeque<(Key<Subscription>, u64)>,
    /// By index of the connection.
    deadlines: DeadlineHeap,
    /// By index of the session, for those without connection.
    session_deadlines: DeadlineHeap,
    sessions_connected: usize,
    /// Packet Identifiers of QoS 2 that publishers use, of all sessions together.
    received: usize,
    /// Connections that have something to say.
    ready: VecDeque<Key<Connection>>,
    /// Deliveries to connected clients that were queued since the shell last began to send.
    queued_since_sent: u32,
    /// Connections whose acknowledgements wait for a slow subscriber.
    gated: Vec<Key<Connection>>,
    /// When those that wait are asked again, whether the subscriber has caught up or not.
    gate_ends: Option<Instant>,
    /// Connections of whom something waits for the disk.
    held: Vec<Key<Connection>>,
    /// What outlives the process; `None`: nothing does.
    log: Option<Box<Durability>>,
    /// Connections that are not read because the reply table is full.
    starved: Vec<Key<Connection>>,
    /// The sessions that the PUBLISH at hand goes to.
    matches: Vec<Match>,
    /// Number of the PUBLISH at hand.
    publish_number: u64,
    /// The topic of a stored message while it is routed.
    topic_scratch: Vec<u8>,
    /// The topic that an alias stands for.
    alias_scratch: Vec<u8>,
    /// The filter that retained messages are compared with.
    filter_scratch: Vec<u8>,
    /// Which policies are in force; sessions with another number come under them before anything else.
    policy_epoch: u32,
    /// Which methods and users judge credentials; questions of others are asked again.
    judges_epoch: u32,
    /// The slot of the next session that is to come under new policies.
    enforce_from: Option<u32>,
    /// Packets whose credential is being judged elsewhere.
    parked: Slab<Parked>,
    parked_bytes: usize,
    /// Questions that the shell has not taken yet.
    questions: VecDeque<(Ticket, Question)>,
    /// How much is said of clients that are denied at CONNECT.
    connect_audits: Box<[AuditBudget; connect::CONNECT_AUDITS]>,
    /// The time of the last call that had one.
    latest: Instant,
    sys: Sys,
    telemetry: Telemetry,
    seed: u64,
    identifiers_assigned: u64,
}

/// The bounds that the broker announces and enforces.
#[derive(Clone, Debug)]
struct Limits {
    packet_bytes: u32,
    receive_maximum: u16,
    keep_alive_seconds: Option<u16>,
    message_expiry_seconds: Option<u32>,
    session_expiry_seconds: Option<u32>,
    shares_client_identifiers: bool,
    announces_expiry: bool,
    connect_deadline_seconds: u16,
    validate_payload_format: bool,
    response_information: Option<String>,
    subscriptions_per_session: u32,
    queue_length: u32,
    queue_strategy: QueueStrategy,
    /// Deliveries that one session may hold before it is closed for not keeping up.
    deliveries_per_session: u32,
}

/// What the gateway's own configuration says of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From accept to CONNECT, seconds.
    pub connect_deadline_seconds: u16,
    /// Whether a client may take over the client identifier of another principal, whose session ends then.
    pub shares_client_identifiers: bool,
    /// Whether a client is told when its credential has expired, with 0xA0; the vendor's broker says nothing.
    pub announces_expiry: bool,
    /// Whether a payload that is marked as UTF-8 must be UTF-8. MQTT 5 §3.3.2.3.2.
    pub validate_payload_format: bool,
    /// How often `$SYS/broker/` is published, seconds; 0 for never.
    pub sys_interval_seconds: u16,
    /// What clients that ask for Response Information are told. MQTT 5 §3.2.2.3.15.
    pub response_information: Option<String>,
}

impl Limits {
    fn new(capacities: &Capacities, limits: &ClientLimits, settings: &Settings) -> Self {
        Self {
            packet_bytes: limits.max_packet_size_bytes.min(capacities.packet_bytes),
            receive_maximum: limits.max_receive_maximum.clamp(1, RECEIVE_MAXIMUM_MAX),
            keep_alive_seconds: limits.max_keep_alive_seconds,
            message_expiry_seconds: limits.max_message_expiry_seconds,
            session_expiry_seconds: limits.max_session_expiry_seconds,
            shares_client_identifiers: settings.shares_client_identifiers,
            announces_expiry: settings.announces_expiry,
            connect_deadline_seconds: settings.connect_deadline_seconds,
            validate_payload_format: settings.validate_payload_format,
            response_information: settings.response_information.clone(),
            subscriptions_per_session: capacities.subscriptions_per_session,
            queue_length: u32::try_from(limits.subscriber_queue_length).unwrap_or(u32::MAX),
            queue_strategy: limits.subscriber_queue_strategy,
            deliveries_per_session: capacities.deliveries.div_ceil(2),
        }
    }
}

/// Deliveries waiting for one session above which publishers wait for it.
const QUEUE_HIGH_MARK: u32 = 512;
/// Deliveries waiting for one session below which publishers no longer wait for it.
const QUEUE_LOW_MARK: u32 = 64;
/// How long a subscriber that is behind may slow its publishers down.
const GATE_MILLISECONDS: u64 = 2_000;
/// Largest Receive Maximum that the broker announces; the reply queue of a connection must hold as many.
const RECEIVE_MAXIMUM_MAX: u16 = 128;
/// Most QoS 1 deliveries in flight to one client, whatever its Receive Maximum.
const IN_FLIGHT_MAX: u16 = 1_024;

/// What became of the bytes given to [`Broker::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes taken; the rest is to be given again, with more behind it.
    pub consumed: usize,
    /// What the broker waits for before it takes more.
    pub then: Then,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// More bytes: the packet that begins the rest has this size, as far as known.
    NeedBytes(u32),
    /// Room for replies: call again after [`Broker::transmit`] has taken some.
    Paused,
    /// Nothing: the connection is closing, no more is read.
    Closing,
    /// Nothing: so much has been queued that it is to be sent first, while the processor has it at hand. Call again with the
    /// rest, whether anything was sent or not.
    SendFirst,
}

/// After so many deliveries, of a message to a receiver, they are sent before more are made: their memory, and that of their
/// messages, then serves the next ones out of the processor's cache.
const DELIVERIES_BEFORE_SENDING: u32 = 2_048;
/// So many of them for each connection that is written to: a system call costs more than what a message in the cache saves.
const DELIVERIES_PER_WRITE: usize = 64;

impl Broker {
    /// A broker with its tables allocated and empty. `seed` keys hash tables and assigned client identifiers; it comes
    /// from the operating system's entropy, or from a test.
    #[must_use]
    pub fn new(
        capacities: &Capacities,
        limits: &ClientLimits,
        settings: &Settings,
        admission: Admission,
        seed: u64,
    ) -> Self {
        let reserved = |count: u32| count as usize;
        Self {
            limits: Limits::new(capacities, limits, settings),
            port_connections: vec![0; admission.ports.len()],
            admission,
            decisions: Decisions::new(seed),
            routes: Routes::new(seed),
            connections: Slab::new(capacities.connections),
            sessions: Slab::new(capacities.sessions),
            session_index: HashIndex::new(capacities.sessions),
            messages: MessagePool::new(capacities.messages, capacities.message_blocks),
            deliveries: Slab::new(capacities.deliveries),
            replies: Slab::new(capacities.replies.max(REPLIES_MIN)),
            subscriptions: Subscriptions::new(
                capacities.subscriptions,
                capacities.filter_nodes,
                capacities.filter_bytes,
                seed,
            ),
            identifiers: Slab::new(Self::identifier_lists(capacities)),
            retained: RetainedTable::new(capacities.retained_messages, seed),
            retained_swept: Instant::ZERO,
            replays: VecDeque::with_capacity(reserved(capacities.subscriptions)),
            replays_held: VecDeque::with_capacity(reserved(capacities.subscriptions)),
            deadlines: DeadlineHeap::new(capacities.connections),
            session_deadlines: DeadlineHeap::new(capacities.sessions),
            sessions_connected: 0,
            received: 0,
            ready: VecDeque::with_capacity(reserved(capacities.connections)),
            queued_since_sent: 0,
            gated: Vec::with_capacity(reserved(capacities.connections)),
            gate_ends: None,
            held: Vec::with_capacity(reserved(capacities.connections)),
            log: None,
            starved: Vec::with_capacity(reserved(capacities.connections)),
            matches: Vec::with_capacity(reserved(Self::matches_max(capacities))),
            publish_number: 0,
            topic_scratch: Vec::with_capacity(usize::from(u16::MAX)),
            alias_scratch: Vec::new(),
            filter_scratch: Vec::new(),
            policy_epoch: 0,
            judges_epoch: 0,
            enforce_from: None,
            parked: Slab::new(QUESTIONS_MAX),
            parked_bytes: 0,
            questions: VecDeque::with_capacity(reserved(QUESTIONS_MAX)),
            connect_audits: Box::new([AuditBudget::default(); connect::CONNECT_AUDITS]),
            latest: Instant::ZERO,
            sys: Sys::new(settings.sys_interval_seconds),
            telemetry: Telemetry::new(),
            seed,
            identifiers_assigned: 0,
        }
    }

    /// Puts other limits in force, for the same capacities. What was announced to clients that are connected holds for them.
    pub fn set_limits(&mut self, now: Instant, capacities: &Capacities, limits: &ClientLimits, settings: &Settings) {
        self.limits = Limits::new(capacities, limits, settings);
        self.sys.set_interval(now, settings.sys_interval_seconds);
    }

    /// Most sessions that one message goes to: every session, every shared group, and a copy for every eight Subscription
    /// Identifiers.
    const fn matches_max(capacities: &Capacities) -> u32 {
        capacities
            .sessions
            .saturating_add(capacities.subscriptions.div_ceil(4))
            .saturating_add(capacities.subscriptions.div_ceil(IDENTIFIERS_PER_DELIVERY as u32))
    }

    /// Deliveries with Subscription Identifiers at one time.
    const fn identifier_lists(capacities: &Capacities) -> u32 {
        capacities.deliveries.div_ceil(4)
    }

    /// Bytes of the largest record of the log: the largest message, to every session.
    #[must_use]
    pub const fn record_bytes_max(capacities: &Capacities) -> u32 {
        const RECEIVER_BYTES: u32 = 32;
        capacities.packet_bytes.saturating_add(capacities.sessions.saturating_mul(RECEIVER_BYTES))
    }

    /// Every table that a broker of these capacities and its authentication allocate: its name, how many it
    /// holds, and its bytes.
    #[must_use]
    pub fn tables(capacities: &Capacities) -> [(&'static str, u32, u64); 15] {
        let each = |count: u32, bytes: usize| u64::from(count) * bytes as u64;
        [
            (
                "connections",
                capacities.connections,
                Slab::<Connection>::bytes(capacities.connections)
                    + DeadlineHeap::bytes(capacities.connections)
                    + each(capacities.connections, 4 * size_of::<Key<Connection>>())
                    + each(
                        capacities.connections,
                        size_of::<connections::Enhanced>() + AUTHENTICATION_METHOD_BYTES_MAX,
                    ),
            ),
            (
                "sessions",
                capacities.sessions,
                Slab::<Session>::bytes(capacities.sessions)
                    + HashIndex::bytes(capacities.sessions)
                    + DeadlineHeap::bytes(capacities.sessions)
                    + u64::from(capacities.sessions) * Policy::applicable_bytes_max(capacities)
                    + each(Self::matches_max(capacities), size_of::<Match>()),
            ),
            (
                "subscriptions",
                capacities.subscriptions,
                Subscriptions::bytes(capacities.subscriptions, capacities.filter_nodes, capacities.filter_bytes)
                    + each(capacities.subscriptions, 3 * size_of::<Key<Subscription>>()),
            ),
            ("retained messages", capacities.retained_messages, RetainedTable::bytes(capacities.retained_messages)),
            ("messages", capacities.messages, MessagePool::bytes(capacities.messages, 0)),
            ("message blocks", capacities.message_blocks, MessagePool::bytes(0, capacities.message_blocks)),
            ("deliveries", capacities.deliveries, Slab::<Delivery>::bytes(capacities.deliveries)),
            (
                "subscription identifiers",
                Self::identifier_lists(capacities),
                Slab::<Identifiers>::bytes(Self::identifier_lists(capacities)),
            ),
            ("replies", capacities.replies, Slab::<Reply>::bytes(capacities.replies.max(REPLIES_MIN))),
            (
                "authorization patterns",
                capacities.authorization_patterns,
                Decisions::bytes() + Routes::bytes() + Policy::bytes(capacities),
            ),
            ("verified signatures", capacities.sessions, SignatureMemo::bytes(capacities.sessions)),
            ("denials", Denials::MAX as u32, Denials::bytes()),
            (
                "log batches (bytes)",
                u32::try_from(Journal::bytes(Self::record_bytes_max(capacities))).unwrap_or(u32::MAX),
                Journal::bytes(Self::record_bytes_max(capacities)),
            ),
            ("receive buffers (bytes)", capacities.receive_bytes, u64::from(capacities.receive_bytes)),
            ("transmit buffers (bytes)", capacities.transmit_bytes, u64::from(capacities.transmit_bytes)),
        ]
    }

    /// A network connection was accepted on the port with index `port`.
    ///
    /// # Errors
    /// [`Full`] when the connection table is: the shell closes the socket.
    pub fn open(&mut self, now: Instant, port: u16) -> Result<Key<Connection>, Full> {
        let key = self.connections.insert(Connection::new(port, self.limits.packet_bytes, now)).inspect_err(|_| {
            self.telemetry.full(Table::Connections);
        })?;
        self.telemetry.counters.connections_opened += 1;
        if let Some(count) = self.port_connections.get_mut(usize::from(port)) {
            *count += 1;
        }
        self.deadlines.set(key.index(), now.plus_seconds(u64::from(self.limits.connect_deadline_seconds)));
        Ok(key)
    }

    /// Bytes have come. `bytes` begins at a packet's first byte; `peer_chain` is what the client presented in a TLS
    /// handshake that was completed, leaf first, empty if nothing.
    pub fn receive(
        &mut self,
        now: Now,
        key: Key<Connection>,
        peer_chain: &[CertificateDer<'_>],
        bytes: &[u8],
    ) -> Received {
        self.latest = now.instant;
        let mut consumed = 0;
        loop {
            let then = |then| Received { consumed, then };
            if consumed > 0 && self.wants_to_send() {
                return then(Then::SendFirst);
            }
            let Some(connection) = self.connections.get(key) else { return then(Then::Closing) };
            match connection.phase {
                Phase::Closing(_) => return then(Then::Closing),
                Phase::Authenticating => return then(Then::Paused),
                Phase::Connected if connection.awaits_judgement() => return then(Then::Paused),
                Phase::AwaitConnect | Phase::Connected => {}
            }
            let version = connection.version;
            let awaits_connect = connection.phase == Phase::AwaitConnect;
            let packet_bytes_max = connection.packet_bytes_max as usize;
            let rest = bytes.get(consumed..).unwrap_or_default();
            let header = match decode_fixed_header(rest) {
                Ok(Some(header)) => header,
                Ok(None) => {
                    // Nothing but a CONNECT may begin a connection, which its first byte tells. [MQTT-3.1.0-1]
                    if awaits_connect && rest.first().is_some_and(|byte| *byte != 0x10) {
                        self.refuse_silently(key);
                        return then(Then::Closing);
                    }
                    return then(Then::NeedBytes(0));
                }
                Err(_) if awaits_connect => {
                    self.refuse_silently(key);
                    return then(Then::Closing);
                }
                Err(error) => {
                    self.violate(key, error.reason_code());
                    return then(Then::Closing);
                }
            };
            if awaits_connect && header.packet_type != PacketType::Connect {
                self.refuse_silently(key);
                return then(Then::Closing);
            }
            let packet_bytes = header.packet_bytes();
            if packet_bytes > packet_bytes_max {
                self.violate(key, ReasonCode::PacketTooLarge);
                return then(Then::Closing);
            }
            let Some(packet) = rest.get(..packet_bytes) else {
                return then(Then::NeedBytes(u32::try_from(packet_bytes).unwrap_or(u32::MAX)));
            };
            if !self.has_room_for_replies(key, &header) {
                return then(Then::Paused);
            }
            consumed += packet_bytes;
            self.telemetry.counters.packets_received += 1;
            self.telemetry.counters.bytes_received += packet_bytes as u64;
            let body = packet.get(usize::from(header.header_bytes)..).unwrap_or_default();
            self.handle(now, key, peer_chain, header, body, version);
        }
    }

    fn handle(
        &mut self,
        now: Now,
        key: Key<Connection>,
        peer_chain: &[CertificateDer<'_>],
        header: FixedHeader,
        body: &[u8],
        version: ProtocolVersion,
    ) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.last_packet = now.instant;
            if let Some(session) = connection.session {
                self.refresh(session);
            }
        }
        if self.is_closing(key) {
            return;
        }
        let version = if header.packet_type == PacketType::Connect {
            // Told before the rest is judged, because the answer to what is wrong depends on it.
            let told = version_in_connect(body).unwrap_or(version);
            if let Some(connection) = self.connections.get_mut(key)
                && connection.phase == Phase::AwaitConnect
            {
                connection.version = told;
            }
            told
        } else {
            version
        };
        let packet = match decode(header, body, version) {
            Ok(packet) => packet,
            Err(DecodeError::UnsupportedProtocolVersion) => return self.refuse_version(key),
            Err(error) => return self.violate(key, error.reason_code()),
        };
        match packet {
            Packet::Connect(connect) => {
                self.connect(now, key, peer_chain, &connect, Raw { header, body }, None);
            }
            Packet::Publish(publish) => self.publish(now, key, &publish),
            Packet::PubAck(acknowledgement) => self.acknowledged(key, acknowledgement.packet_identifier),
            Packet::PubRec(acknowledgement) => {
                self.received(key, acknowledgement.packet_identifier, acknowledgement.reason_code);
            }
            Packet::PubRel(acknowledgement) => self.released(key, acknowledgement.packet_identifier),
            Packet::PubComp(acknowledgement) => self.completed(key, acknowledgement.packet_identifier),
            Packet::Subscribe(subscribe) => self.subscribe(now, key, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(key, &unsubscribe),
            Packet::PingReq => {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.pongs = connection.pongs.saturating_add(1);
                    self.make_ready(key);
                }
            }
            Packet::Disconnect(disconnect) => self.client_disconnected(now, key, &disconnect),
            Packet::Auth(auth) => self.auth(now, key, &auth, Raw { header, body }),
            // Only a server sends these.
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                self.violate(key, ReasonCode::ProtocolError);
            }
        }
    }

    /// The next connection that has something to say. It is named again only when it has something new.
    pub fn next_ready(&mut self) -> Option<Key<Connection>> {
        while let Some(key) = self.ready.pop_front() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.ready = false;
                return Some(key);
            }
        }
        None
    }

    /// What is queued is sent now. Returns how many connections have something to say.
    pub fn begin_sending(&mut self) -> usize {
        self.queued_since_sent = 0;
        self.ready.len()
    }

    /// Whether what is queued is to be sent before more is.
    fn wants_to_send(&self) -> bool {
        self.queued_since_sent >= DELIVERIES_BEFORE_SENDING
            && self.queued_since_sent as usize >= self.ready.len().saturating_mul(DELIVERIES_PER_WRITE)
    }

    /// Names the connection in [`Broker::next_ready`] again: the shell stopped before it had sent everything.
    pub fn make_ready(&mut self, key: Key<Connection>) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.ready
        {
            connection.ready = true;
            // Room is reserved for every connection; keys of closed ones are skipped, and could stand here beside the
            // new key of their slot only until the next drain.
            self.ready.push_back(key);
        }
    }

    /// When [`Broker::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let heaps = [&self.deadlines, &self.session_deadlines];
        let earliest = heaps.into_iter().filter_map(|heap| heap.earliest().map(|(at, _)| at));
        earliest.chain(self.sys.due()).chain(self.gate_ends).chain(self.store_deadline()).min()
    }

    /// Ends what is due: connections without CONNECT, without life, with an expired credential; sessions whose client did
    /// not come back. Publishes Wills and `$SYS` topics whose time has come.
    pub fn expire(&mut self, now: Now) {
        self.latest = now.instant;
        self.watch_store(now.instant);
        self.publish_sys(now);
        if self.gate_ends.is_some_and(|ends| ends <= now.instant) {
            self.gate_ends = None;
            self.release_gated();
        }
        while let Some(slot) = self.session_deadlines.pop_due(now.instant) {
            if let Some(key) = self.sessions.key_at(slot) {
                self.expire_session(now, key);
            }
        }
        while let Some(slot) = self.deadlines.pop_due(now.instant) {
            let Some(key) = self.connections.key_at(slot) else { continue };
            let Some(connection) = self.connections.get(key) else { continue };
            match connection.phase {
                Phase::AwaitConnect => self.close(now, key, Cause::ConnectDeadline, None),
                Phase::Authenticating => {
                    self.refuse(key, ReasonCode::ServerUnavailable, Text::default(), Text::new("no verdict in time"));
                }
                Phase::Closing(_) => {}
                Phase::Connected => {
                    if connection.expires.is_some_and(|expires| expires <= now.unix) {
                        let reason = self.limits.announces_expiry.then_some(ReasonCode::MaximumConnectTime);
                        self.close(now, key, Cause::CredentialExpired, reason);
                    } else if connection.is_silent(now.instant) {
                        self.close(now, key, Cause::KeepAliveTimeout, Some(ReasonCode::KeepAliveTimeout));
                    } else {
                        self.answer_late_auth(now, key);
                        self.arm(now, key);
                    }
                }
            }
        }
    }

    /// Sets the connection's deadline to the earliest of its keep-alive, its credential's end and an AUTH that waits.
    fn arm(&mut self, now: Now, key: Key<Connection>) {
        let Some(connection) = self.connections.get(key) else { return };
        let silence = connection.keep_alive_milliseconds.map(|period| connection.last_packet.plus_milliseconds(period));
        let expiry = connection.expires.map(|expires| now.instant.plus_seconds(expires.0.saturating_sub(now.unix.0)));
        let auth = connection.enhanced.as_ref().and_then(|enhanced| enhanced.reply_due);
        match silence.into_iter().chain(expiry).chain(auth).min() {
            Some(at) => self.deadlines.set(key.index(), at),
            None => self.deadlines.cancel(key.index()),
        }
    }

    /// Whether the answer to a packet has room. If it is the table that is full, the connection is named in
    /// [`Broker::next_ready`] when others have freed some; if it is full of its own replies, it will be when they leave.
    fn has_room_for_replies(&mut self, key: Key<Connection>, header: &FixedHeader) -> bool {
        let waiting = self.connections.get(key).map_or(0, Connection::replies_waiting);
        // The most that one packet is answered with: a header and the codes of every filter, which take 3 bytes at least.
        let needed = match header.packet_type {
            PacketType::Subscribe | PacketType::Unsubscribe => {
                let filters = (header.remaining_length as usize / 3).min(crate::limits::FILTERS_PER_PACKET_MAX);
                filters.div_ceil(connections::CODES_PER_REPLY) + 1
            }
            // Nothing is queued for these, so that they never wait for replies that wait for the disk.
            PacketType::PubAck | PacketType::PubComp | PacketType::Disconnect => return true,
            // A PINGRESP waits for its client only: one that takes none is not read.
            PacketType::PingReq => return self.connections.get(key).is_none_or(|asker| asker.pongs < PONGS_MAX),
            PacketType::Publish if header.flags & 0b0110 == 0 => return true,
            _ => 1,
        };
        // Who has no reply waiting gets one: those who take none do not hold up the others.
        let reserved = if waiting > 0 { (self.connections.capacity()).min(self.replies.capacity() / 4) } else { 0 };
        if self.replies.free() < needed + reserved {
            self.telemetry.full(Table::Replies);
            if self.starved.len() < self.starved.capacity() && !self.starved.contains(&key) {
                self.starved.push(key);
            }
            return false;
        }
        waiting < REPLIES_PER_CONNECTION_MAX
    }

    fn feed_starved(&mut self) {
        while let Some(key) = self.starved.pop() {
            self.make_ready(key);
        }
    }

    fn reply(&mut self, key: Key<Connection>, kind: ReplyKind) -> Result<(), Full> {
        self.reply_after(key, kind, 0)
    }

    /// Queues a reply that leaves only when the record with number `needs` is on the disk; 0 for none.
    fn reply_after(&mut self, key: Key<Connection>, kind: ReplyKind, needs: u64) -> Result<(), Full> {
        let Some(connection) = self.connections.get_mut(key) else { return Ok(()) };
        let reply = self.replies.insert(Reply { kind, needs, next: None })?;
        connection.unacknowledged += u32::from(kind.ends_a_publish());
        let queue = match kind {
            ReplyKind::PublishAck { .. } => &mut connection.acknowledgements,
            _ => &mut connection.replies,
        };
        queue.push_back(&mut self.replies, reply);
        self.make_ready(key);
        Ok(())
    }

    /// Goes on with retained messages that waited for a session to have less in its queue, or to come back.
    fn resume_replays(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !session.replay_held || session.waiting.len() > QUEUE_LOW_MARK {
            return;
        }
        session.replay_held = false;
        let replays = &mut self.replays;
        self.subscriptions.each_of(session.first_subscription, |key, subscription| {
            if subscription.replay.is_some() && replays.len() < replays.capacity() && !replays.contains(&key) {
                replays.push_back(key);
            }
        });
    }

    /// The connection in slot `index` of the table.
    #[must_use]
    pub fn connection_at(&self, index: u32) -> Option<Key<Connection>> {
        self.connections.key_at(index)
    }

    /// Counters, and the events to log.
    pub fn telemetry(&mut self) -> &mut Telemetry {
        &mut self.telemetry
    }

    /// Name of the session of a connection, for the shell's log lines.
    #[must_use]
    pub fn client_of(&self, key: Key<Connection>) -> Option<&str> {
        let session = self.connections.get(key)?.session?;
        Some(&self.sessions.get(session)?.client_identifier)
    }

    /// Connections that have not sent their CONNECT yet are the first to go when the table is full.
    #[must_use]
    pub fn awaits_connect(&self, key: Key<Connection>) -> bool {
        self.connections.get(key).is_some_and(|connection| connection.phase == Phase::AwaitConnect)
    }

    /// Whether the broker has nothing more to do with a connection than to send its last words.
    #[must_use]
    pub fn is_closing(&self, key: Key<Connection>) -> bool {
        self.connections.get(key).is_some_and(|connection| matches!(connection.phase, Phase::Closing(_)))
    }

    /// What is in use: connections, sessions, subscriptions, messages, message blocks, deliveries, replies.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        InUse {
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            subscriptions: self.subscriptions.count(),
            retained_messages: self.retained.count(),
            messages: self.messages.count(),
            message_blocks: self.messages.blocks_used() as usize,
            deliveries: self.deliveries.len(),
            replies: self.replies.len(),
        }
    }
}

/// How full the tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Network connections.
    pub connections: usize,
    /// Sessions.
    pub sessions: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Topics with a retained message.
    pub retained_messages: usize,
    /// Messages.
    pub messages: usize,
    /// Blocks of the message pool.
    pub message_blocks: usize,
    /// Deliveries.
    pub deliveries: usize,
    /// Replies.
    pub replies: usize,
}

/// The version that a CONNECT says, by its protocol name and level alone.
fn version_in_connect(body: &[u8]) -> Option<ProtocolVersion> {
    match body {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Some(ProtocolVersion::V311),
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Some(ProtocolVersion::V5),
        // Older names: their clients understand the CONNACK of MQTT 3.1.1. [MQTT-3.1.2-2]
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', ..] => Some(ProtocolVersion::V311),
        _ => None,
    }
}

impl Connection {
    fn is_silent(&self, now: Instant) -> bool {
        self.keep_alive_milliseconds.is_some_and(|period| now.milliseconds_since(self.last_packet) >= period)
    }
}
