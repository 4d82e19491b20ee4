//! Parts of the broker that are clients of it: the probe of the self-check, and bridges.
//!
//! Their connections are made by the process itself and come in on ports that no listener has, from [`INSIDE_PORT_FIRST`] on,
//! one for each of them. Who is on such a port is known without credentials. Everything else is as for any client: packets,
//! tables, limits, rules.
//!
//! **Invariant:** a client identifier that begins with [`INSIDE_PREFIX`] is used by the insider of that name on its own port, and
//! by nobody else.

use super::sessions::{ClientIdentifier, Session};
use super::{Admission, Broker};
use crate::codec::ReasonCode;
use crate::collections::{Key, keyed_hash};
use crate::config::blob::QueueStrategy;
use crate::identity::{AuthenticationMethod, Identity, Principal};
use crate::telemetry::{Cause, Event, Text};

/// What client identifiers of insiders begin with.
pub const INSIDE_PREFIX: &str = "$inside/";

/// Index of the first insider's port; no configuration has so many.
const INSIDE_PORT_FIRST: u16 = 0xFF00;

/// A part of the broker that is a client of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insider {
    /// Its client identifier; begins with [`INSIDE_PREFIX`].
    pub client_identifier: ClientIdentifier,
    /// Who it is to rules.
    pub identity: Identity,
    /// Which policy it is under; `None`: it may do everything.
    pub policy: Option<u16>,
    /// Bounds of its queue; `None`: those of all clients. With bounds of its own, its session is kept as long as it asks for, and
    /// its queue is in the log, whatever is configured for clients.
    pub queue: Option<InsiderQueue>,
}

/// What may wait for an insider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsiderQueue {
    /// Messages that have not been sent to it, at least 1.
    pub length: u32,
    /// Bytes of the message pool, for these and what is in flight.
    pub bytes: u64,
    /// What becomes of more; never `None`.
    pub strategy: QueueStrategy,
    /// Largest packet that it takes, bytes: what is larger never comes into the queue.
    pub packet_bytes: u32,
}

/// What is in the queue of an insider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueView {
    /// Messages that have not been sent to it.
    pub waiting: u32,
    /// Messages that were sent and not acknowledged.
    pub in_flight: u32,
    /// Bytes of the pool that both hold.
    pub bytes: u64,
    /// Messages that were dropped since the process began, because there was no room.
    pub dropped: u64,
    /// Messages that were not queued since then, because they are larger than it takes.
    pub too_large: u64,
}

impl Insider {
    /// The insider `name`, under no policy and without attributes; `None` for a name that is too long.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let mut client_identifier = ClientIdentifier::try_from(INSIDE_PREFIX).ok()?;
        client_identifier.push_str(name).ok()?;
        let method = AuthenticationMethod::Inside;
        let principal = Principal::new(method, &client_identifier);
        Some(Self {
            client_identifier,
            identity: Identity { method, principal, ..Identity::default() },
            policy: None,
            queue: None,
        })
    }
}

impl Admission {
    /// The insider of a port, if it is one of theirs.
    pub(super) fn insider(&self, port: u16) -> Option<&Insider> {
        self.insiders.get(usize::from(port.checked_sub(INSIDE_PORT_FIRST)?))
    }

    /// The bounds of the queues of clients of a port, where they are its own.
    pub(super) fn queue_of(&self, port: u16) -> Option<InsiderQueue> {
        self.insider(port)?.queue
    }

    /// Index of the port of the insider with this client identifier.
    ///
    /// # Errors
    /// [`NoSuchInsider`]: the identifier is reserved, and no insider has it.
    fn insider_port(&self, client_identifier: &str) -> Result<Option<u16>, NoSuchInsider> {
        if !client_identifier.starts_with(INSIDE_PREFIX) {
            return Ok(None);
        }
        let named = (INSIDE_PORT_FIRST..).zip(&self.insiders);
        let found = named.into_iter().find(|(_, insider)| insider.client_identifier == client_identifier);
        found.map(|(port, _)| Some(port)).ok_or(NoSuchInsider)
    }

    /// Whether a client may have this identifier on this port: insiders have theirs, and all others any other.
    pub(super) fn may_be_called(&self, port: u16, client_identifier: &str) -> bool {
        let own = self.insider(port).map(|_| port);
        self.insider_port(client_identifier).is_ok_and(|named| named == own)
    }
}

/// No insider has this name.
struct NoSuchInsider;

impl Broker {
    /// Index of the port of the insider with this client identifier; `None` if there is none.
    #[must_use]
    pub fn port_of_insider(&self, client_identifier: &str) -> Option<u16> {
        self.admission.insider_port(client_identifier).ok().flatten()
    }

    /// Whether there is this insider, with this identity, policy and queue.
    #[must_use]
    pub fn has_insider(&self, insider: &Insider) -> bool {
        self.admission.insiders.contains(insider)
    }

    /// The filters that an insider is subscribed to; none where it has no session.
    #[must_use]
    pub fn filters_of_insider(&self, client_identifier: &str) -> Vec<String> {
        let (mut filters, mut bytes) = (Vec::new(), Vec::new());
        if let Some(session) = self.insider_session(client_identifier) {
            self.subscriptions.each_of(session.first_subscription, |key, _| {
                bytes.clear();
                self.subscriptions.read_filter(key, &mut bytes);
                filters.extend(core::str::from_utf8(&bytes).map(str::to_owned));
            });
        }
        filters
    }

    /// The queue of an insider; empty where it has no session.
    #[must_use]
    pub fn queue_of_insider(&self, client_identifier: &str) -> QueueView {
        let session = self.insider_session(client_identifier);
        session.map_or_else(QueueView::default, |session| QueueView {
            waiting: session.waiting.len(),
            in_flight: session.in_flight.len(),
            bytes: session.held_bytes,
            dropped: session.dropped,
            too_large: session.too_large,
        })
    }

    fn insider_session(&self, client_identifier: &str) -> Option<&Session> {
        let key = self.session_named(keyed_hash(self.seed, client_identifier), client_identifier)?;
        self.sessions.get(key)
    }

    /// Puts sessions of insiders under the insiders that there are now, and ends those of others: who has made them is not in
    /// the configuration any more.
    pub(super) fn place_insiders(&mut self) {
        for slot in 0..self.sessions.slots() {
            let Some(key) = self.sessions.key_at(slot) else { continue };
            let Some(session) = self.sessions.get_mut(key) else { continue };
            if session.identity.method != AuthenticationMethod::Inside {
                continue;
            }
            let Ok(Some(port)) = self.admission.insider_port(&session.client_identifier) else {
                self.dismiss(key);
                continue;
            };
            if let Some(insider) = self.admission.insider(port) {
                session.identity = insider.identity.clone();
                session.identity_is_stale = false;
            }
            session.port = port;
            if let Some(connection) = session.connection.and_then(|key| self.connections.get_mut(key)) {
                connection.port = port;
            }
        }
    }

    /// Ends a session, with its connection if it has one. Its queue goes with it, which is said: it was acknowledged.
    fn dismiss(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.expiry_seconds = 0;
        let messages = session.waiting.len() + session.in_flight.len();
        if messages > 0 {
            let client = Text::new(&session.client_identifier);
            self.telemetry.counters.queue_dropped += u64::from(messages);
            self.telemetry.record(Event::InsiderGone { client, messages });
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        match session.connection {
            Some(connection) => {
                let detail = Text::new("it is not in the configuration any more");
                self.condemn_for(connection, Cause::PolicyChanged, ReasonCode::AdministrativeAction, detail);
            }
            None => {
                session.ends = Some(self.latest);
                self.session_deadlines.set(key.index(), self.latest);
            }
        }
    }
}
