//! What an operator sees of a running broker: how full its tables are, its clients, sessions and retained messages, its log.
//!
//! In: `&self`, a place to go on from. Out: copies, so that whoever asked holds nothing of the broker. Text that a peer chose is
//! copied as it came; whoever writes it escapes it.
//!
//! **Invariants:** nothing is changed but by [`Broker::disconnect_client`]; a call gives at most [`ROWS_MAX`] rows and looks at no
//! more than [`SLOTS_MAX`] slots, so that between two turns it takes no longer than a turn. Who pages meets everything that is
//! there all the time, once; what comes or goes meanwhile is met or not.

use super::connections::Phase;
use super::durable::StoreState;
use super::sessions::{ClientIdentifier, NEVER_EXPIRES, Session};
use super::{Broker, Connection};
use crate::codec::{ProtocolVersion, QoS, ReasonCode};
use crate::collections::{Key, keyed_hash};
use crate::identity::Identity;
use crate::telemetry::{Cause, Table};
use crate::time::{Instant, Now, UnixTime};

/// Rows of one page.
pub const ROWS_MAX: usize = 50;
/// Slots that are looked at for one page.
pub const SLOTS_MAX: u32 = 2_000;
/// Bytes of a topic or filter that are shown.
pub const SHOWN_BYTES_MAX: usize = 1_024;
/// Filters of one client that are shown.
pub const FILTERS_MAX: usize = 200;

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableUse {
    /// What is in it.
    pub name: &'static str,
    /// How many.
    pub used: u64,
    /// How many have room.
    pub capacity: u64,
    /// How often something found none, since start.
    pub refused: u64,
}

/// Some rows, and the slot from which to go on; `None` when these were the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// At most 50, each with its slot: who has no use for one goes on from there.
    pub rows: Vec<(u32, T)>,
    /// Where the next page begins.
    pub next: Option<u32>,
}

/// A connected client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientView {
    /// Its connection, by which the shell knows its address.
    pub connection: Key<Connection>,
    /// Its name.
    pub client_identifier: ClientIdentifier,
    /// What authentication found out.
    pub identity: Identity,
    /// Index of the port it came in by.
    pub port: u16,
    /// What it speaks.
    pub version: ProtocolVersion,
    /// The Keep Alive in force, seconds; 0 for none.
    pub keep_alive_seconds: u64,
    /// When its CONNECT was accepted.
    pub connected: Instant,
    /// When its credential ends.
    pub expires: Option<UnixTime>,
    /// Messages that wait for it.
    pub queued: u32,
    /// Messages that it has not acknowledged.
    pub in_flight: u32,
    /// Its subscriptions.
    pub subscriptions: u32,
    /// What it is counted under.
    pub category: Box<str>,
}

/// A subscription of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterView {
    /// The filter as it was subscribed to, with `$share/<group>/`.
    pub filter: Shown,
    /// The QoS granted.
    pub qos: QoS,
    /// The client's own messages are not sent back to it.
    pub no_local: bool,
    /// The RETAIN flag is forwarded as published.
    pub retain_as_published: bool,
    /// 0 to 2. MQTT 5 §3.8.3.1.
    pub retain_handling: u8,
    /// Its Subscription Identifier.
    pub identifier: Option<u32>,
}

/// A session, with or without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its name.
    pub client_identifier: ClientIdentifier,
    /// Whether its client is there.
    pub connected: bool,
    /// Seconds until it ends, counted from the end of the connection where there is one; `None` for never.
    pub expires_in_seconds: Option<u64>,
    /// Messages that wait for it.
    pub queued: u32,
    /// Messages that were sent and not acknowledged.
    pub in_flight: u32,
    /// Its subscriptions.
    pub subscriptions: u32,
    /// User name of the principal that it belongs to, where rules see one.
    pub owner: Option<Box<str>>,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedView {
    /// Its topic.
    pub topic: Shown,
    /// The QoS it was published with.
    pub qos: QoS,
    /// Bytes of its payload.
    pub payload_bytes: u32,
    /// Seconds until it expires; `None` for never.
    pub expires_in_seconds: Option<u64>,
}

/// A topic or filter, or its first 1,024 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What is shown.
    pub text: Box<str>,
    /// Whether there is more.
    pub cut: bool,
}

/// What is held for clients, of all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of topics, properties and payloads of retained messages.
    pub retained_bytes: u64,
    /// Sessions that outlive the process.
    pub kept_sessions: u64,
    /// Subscriptions of these.
    pub kept_subscriptions: u64,
    /// Wills.
    pub wills: u64,
    /// Bytes of their topics, properties and payloads.
    pub will_bytes: u64,
}

/// The log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreView {
    /// How it is.
    pub state: StoreState,
    /// Bytes of the segments in use.
    pub used_bytes: u64,
    /// Bytes that it may take.
    pub max_bytes: u64,
    /// Number of the last record.
    pub position: u64,
}

impl Shown {
    fn new(bytes: &[u8]) -> Self {
        let cut = bytes.len() > SHOWN_BYTES_MAX;
        let kept = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
        // Topics and filters are UTF-8; only the cut can fall into a character.
        let text = kept.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        Self { text: text.into(), cut }
    }
}

impl Broker {
    /// What is held for clients. Looks at every session.
    #[must_use]
    pub fn held(&self) -> Held {
        let mut held = Held { retained_bytes: self.retained.message_bytes(), ..Held::default() };
        let sessions = (0..self.sessions.slots()).filter_map(|slot| self.sessions.get(self.sessions.key_at(slot)?));
        for session in sessions {
            if session.is_kept() {
                held.kept_sessions += 1;
                held.kept_subscriptions += u64::from(session.subscriptions);
            }
            if let Some(message) = session.will.as_ref().and_then(|will| self.messages.get(will.message)) {
                held.wills += 1;
                held.will_bytes += message.total_bytes() as u64;
            }
        }
        held
    }

    /// How full the tables are, in the order of [`Broker::tables`].
    #[must_use]
    pub fn table_uses(&self) -> [TableUse; 9] {
        let full = |table: Table| self.telemetry.counters.full.get(table as usize).copied().unwrap_or(0);
        let row = |name, used: usize, capacity: usize, refused| TableUse {
            name,
            used: used as u64,
            capacity: capacity as u64,
            refused,
        };
        let (messages, blocks) = (self.messages.count(), self.messages.blocks_used() as usize);
        let (connections, sessions, retained) = (&self.connections, &self.sessions, &self.retained);
        [
            row("connections", connections.len(), connections.capacity(), full(Table::Connections)),
            row("sessions", sessions.len(), sessions.capacity(), full(Table::Sessions)),
            row("subscriptions", self.subscriptions.count(), self.subscriptions.capacity(), full(Table::Subscriptions)),
            row("retained messages", retained.count(), retained.capacity(), full(Table::RetainedMessages)),
            // One counter stands for both: a message needs a row and blocks.
            row("messages", messages, self.messages.capacity(), full(Table::Messages)),
            row("message blocks", blocks, self.messages.block_capacity(), full(Table::Messages)),
            row("deliveries", self.deliveries.len(), self.deliveries.capacity(), full(Table::Deliveries)),
            row("subscription identifiers", self.identifiers.len(), self.identifiers.capacity(), 0),
            row("replies", self.replies.len(), self.replies.capacity(), full(Table::Replies)),
        ]
    }

    /// Network connections of a configured port; 0 for any other.
    #[must_use]
    pub fn connections_of(&self, port: u16) -> u32 {
        self.port_connections.get(usize::from(port)).copied().unwrap_or(0)
    }

    /// Sessions whose client is connected.
    #[must_use]
    pub const fn sessions_connected(&self) -> u64 {
        self.sessions_connected as u64
    }

    /// Connected clients, from slot `from` of the connections.
    #[must_use]
    pub fn clients_from(&self, from: u32, rows_max: usize) -> Page<ClientView> {
        page(from, self.connections.slots(), rows_max, |slot| self.client_view(self.connections.key_at(slot)?))
    }

    /// Sessions, from slot `from` of their table.
    #[must_use]
    pub fn sessions_from(&self, now: Now, from: u32, rows_max: usize) -> Page<SessionView> {
        page(from, self.sessions.slots(), rows_max, |slot| {
            let session = self.sessions.get(self.sessions.key_at(slot)?)?;
            let expires_in_seconds = match (session.ends, session.expiry_seconds) {
                (Some(ends), _) => Some(ends.milliseconds_since(now.instant).div_ceil(1_000)),
                (None, NEVER_EXPIRES) => None,
                (None, seconds) => Some(u64::from(seconds)),
            };
            Some(SessionView {
                client_identifier: session.client_identifier.clone(),
                connected: session.connection.is_some(),
                expires_in_seconds,
                queued: session.waiting.len(),
                in_flight: session.in_flight.len(),
                subscriptions: session.subscriptions,
                owner: session.identity.username.as_deref().map(Into::into),
            })
        })
    }

    /// Retained messages that have not expired, from slot `from` of their table.
    #[must_use]
    pub fn retained_from(&self, now: Now, from: u32, rows_max: usize) -> Page<RetainedView> {
        let mut topic = Vec::new();
        page(from, self.retained.slots(), rows_max, |slot| {
            let retained = self.retained.get_slot(slot)?;
            let message = self.messages.get(retained.message).filter(|message| !message.is_expired(now.instant))?;
            if !self.messages.read_topic(retained.message, &mut topic) {
                return None;
            }
            let left = |expires: Instant| expires.milliseconds_since(now.instant).div_ceil(1_000);
            Some(RetainedView {
                topic: Shown::new(&topic),
                qos: retained.qos,
                payload_bytes: message.payload_bytes,
                expires_in_seconds: message.expires.map(left),
            })
        })
    }

    /// A connected client by its name.
    #[must_use]
    pub fn client_named(&self, client_identifier: &str) -> Option<ClientView> {
        self.client_view(self.sessions.get(self.session_of(client_identifier)?)?.connection?)
    }

    /// The first 200 subscriptions of a session, the newest first, and how many more there are.
    #[must_use]
    pub fn filters_of(&self, client_identifier: &str) -> (Vec<FilterView>, u32) {
        let mut found = Vec::new();
        let Some(session) = self.session_of(client_identifier).and_then(|key| self.sessions.get(key)) else {
            return (found, 0);
        };
        let (mut at, mut filter) = (session.first_subscription, Vec::new());
        while let Some((key, subscription)) = at.and_then(|key| Some((key, self.subscriptions.get(key)?))) {
            if found.len() == FILTERS_MAX {
                break;
            }
            self.subscriptions.read_filter(key, &mut filter);
            if let Some(group) = self.subscriptions.group_name(subscription) {
                filter.splice(..0, [b"$share/", group.as_bytes(), b"/"].concat());
            }
            let options = &subscription.options;
            found.push(FilterView {
                filter: Shown::new(&filter),
                qos: options.maximum_qos,
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                retain_handling: options.retain_handling.bits(),
                identifier: options.identifier,
            });
            at = self.subscriptions.after_in_session(key);
        }
        let shown = u32::try_from(found.len()).unwrap_or(u32::MAX);
        (found, session.subscriptions.saturating_sub(shown))
    }

    /// The log; `None` where nothing is kept.
    #[must_use]
    pub fn store_view(&self) -> Option<StoreView> {
        let log = self.log.as_ref()?;
        Some(StoreView {
            state: self.store_state(),
            used_bytes: log.room.used_bytes,
            max_bytes: log.persistence.size_bytes,
            position: log.journal.last(),
        })
    }

    /// The operator ends the connection of a client: it is told with 0x98, and its Will is published, because only its own
    /// DISCONNECT would have discarded that. [MQTT-3.14.4-3] Returns whether there was such a client.
    pub fn disconnect_client(&mut self, now: Now, client_identifier: &str) -> bool {
        let session = self.session_of(client_identifier).and_then(|key| self.sessions.get(key));
        let Some(connection) = session.and_then(|session| session.connection) else { return false };
        self.close(now, connection, Cause::AdministrativeAction, Some(ReasonCode::AdministrativeAction));
        true
    }

    /// The session with this name.
    pub(super) fn session_of(&self, client_identifier: &str) -> Option<Key<Session>> {
        self.session_named(keyed_hash(self.seed, client_identifier), client_identifier)
    }

    fn client_view(&self, key: Key<Connection>) -> Option<ClientView> {
        let connection = self.connections.get(key).filter(|connection| connection.phase == Phase::Connected)?;
        let session = self.sessions.get(connection.session?)?;
        Some(ClientView {
            connection: key,
            client_identifier: session.client_identifier.clone(),
            identity: session.identity.clone(),
            port: connection.port,
            version: connection.version,
            keep_alive_seconds: connection.keep_alive_milliseconds.map_or(0, |period| period / 1_500),
            connected: connection.connected,
            expires: connection.expires,
            queued: session.waiting.len(),
            in_flight: session.in_flight.len(),
            subscriptions: session.subscriptions,
            category: self.telemetry.categories.name(connection.category).into(),
        })
    }
}

/// The rows of the slots from `from` on, as far as the bounds of one call go.
fn page<T>(from: u32, slots: u32, rows_max: usize, mut row: impl FnMut(u32) -> Option<T>) -> Page<T> {
    let rows_max = rows_max.min(ROWS_MAX);
    let (mut rows, end) = (Vec::new(), slots.min(from.saturating_add(SLOTS_MAX)));
    let mut slot = from;
    while slot < end && rows.len() < rows_max {
        rows.extend(row(slot).map(|row| (slot, row)));
        slot += 1;
    }
    Page { rows, next: (slot < slots).then_some(slot) }
}
