//! What of the broker outlives the process: which changes are recorded, and who waits for their records.
//!
//! The tables are the truth, and the log describes them. A change is made in the tables first and recorded then, in the same
//! call; what must not leave before its record is on the disk carries the record's number. Where the log cannot follow, it
//! loses the thread as a whole and takes it up again by writing everything that is live, see [`super::sweep`].
//!
//! | leaves only after | the record of |
//! | --- | --- |
//! | CONNACK, SUBACK, UNSUBACK of a session that outlives its connection | the session or subscription |
//! | PUBACK, PUBREC to a publisher, of a message that is retained or waits for such a session | the message, with the Packet Identifier of QoS 2 |
//! | PUBCOMP to a publisher | the removal of that identifier |
//! | PUBLISH with QoS 2 to such a session | its Packet Identifier |
//! | PUBREL to such a session | the PUBREC |
//!
//! **Invariant:** what has a number in the tables is in the log, or the log is lost and will be written anew.

use super::Broker;
use super::messages::{Message, MessagePool};
use super::sessions::{Delivery, Session};
use super::subscriptions::Subscription;
use super::sweep::Sweep;
use crate::codec::{PacketIdentifier, ProtocolVersion, QoS, ReasonCode, SubscriptionOptions, UserProperties};
use crate::collections::Key;
use crate::config::blob::Persistence;
use crate::store::record::{self, Identifiers, RETAIN, Receiver};
use crate::store::{Batch, Journal, Record, Room, Sizes, Urgency};
use crate::telemetry::{Event, Table, Text};
use crate::time::{Instant, Now};
use std::io;

/// The user property with which a client asks for what it publishes or what waits for it to be kept. azure-model §4.4.
const ASKS: &str = "aio-persistence";
/// Bytes of a session's record at most, but for its Will.
pub(super) const SESSION_BYTES: usize = 1_536;
/// Bytes of the record of a small thing at most.
pub(super) const SMALL_BYTES: usize = 64;
/// The first time between two attempts to write to a disk that has failed.
const RETRY_MILLISECONDS: u64 = 1_000;
/// The longest.
const RETRY_MILLISECONDS_MAX: u64 = 60_000;
/// How often the log is told the time where the wall clock says nothing and a session's time runs.
const TELL_TIME_MILLISECONDS: u64 = 600_000;
/// How often a full disk is looked at again while nothing is written.
const LOOK_MILLISECONDS: u64 = 5_000;
/// A disk that takes longer for one batch is slow.
const SLOW_MILLISECONDS: u64 = 1_000;

/// How the log is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreState {
    /// Nothing is kept.
    #[default]
    Off,
    /// All is well.
    Sound,
    /// What is new is refused; what frees room goes on.
    Full,
    /// Everything is being written anew, after the log had lost the thread.
    Rewriting,
    /// The disk has failed; the next attempt to write waits.
    Failed,
}

impl StoreState {
    /// The names of all states, each with whether it is this one.
    pub fn each(self) -> impl Iterator<Item = (&'static str, bool)> {
        let all = [Self::Off, Self::Sound, Self::Full, Self::Rewriting, Self::Failed];
        all.into_iter().map(move |state| (state.name(), state == self))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Sound => "sound",
            Self::Full => "full",
            Self::Rewriting => "rewriting",
            Self::Failed => "failed",
        }
    }
}

impl core::fmt::Display for StoreState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// The log, as the broker sees it.
pub struct Durability {
    pub(super) journal: Journal,
    pub(super) persistence: Persistence,
    /// Stands for the ports and the authentication of the configuration in force.
    pub(super) judges: u64,
    pub(super) last_number: u64,
    pub(super) sweep: Option<Sweep>,
    /// Whether what is live is to be written anew when that is possible.
    pub(super) wants_sweep: bool,
    /// Bytes that had been appended at the end of the sweep before; 0 if there was none.
    pub(super) swept_bytes: u64,
    /// Number of the record with which the last sweep began: bytes of messages from before may be gone.
    pub(super) swept_from: u64,
    /// Number of the last record of a retained message that was cleared.
    pub(super) cleared: u64,
    pub(super) room: Room,
    pub(super) segment_bytes: u64,
    /// When writing is tried again, after the disk has failed.
    pub(super) retry: Option<Instant>,
    /// How long the next wait is.
    retry_milliseconds: u64,
    /// Since when a batch is with the disk.
    writing_since: Option<Instant>,
    says_slow: bool,
    /// Whether it was said that the log is full, and not yet that it has room again.
    says_full: bool,
    /// Whether it was said that everything is being written anew, and not yet that it is.
    pub(super) says_rewrites: bool,
    /// When a full disk is looked at again.
    look: Option<Instant>,
}

/// Why something cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unkept {
    /// There is no room for it.
    Full,
    /// The disk has failed.
    Failed,
}

impl Durability {
    /// A log for records of up to `record_bytes` that goes on behind the record with number `last`.
    #[must_use]
    pub fn new(record_bytes: u32, persistence: Persistence, judges: u64, sizes: Sizes, last: u64, room: Room) -> Self {
        Self {
            journal: Journal::new(record_bytes, persistence.commit_interval_milliseconds, last),
            persistence,
            judges,
            last_number: 0,
            sweep: None,
            wants_sweep: false,
            swept_bytes: 0,
            swept_from: 0,
            cleared: 0,
            room,
            segment_bytes: sizes.segment_bytes,
            retry: None,
            retry_milliseconds: RETRY_MILLISECONDS,
            writing_since: None,
            says_slow: false,
            says_full: false,
            says_rewrites: false,
            look: None,
        }
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The record of a message's bytes, unless one has them that no sweep leaves behind. Returns the number of the message.
    pub(super) fn message(&mut self, pool: &mut MessagePool, key: Key<Message>) -> Option<u64> {
        let message = pool.get(key)?;
        if message.number != 0 && message.home >= self.swept_from {
            return Some(message.number);
        }
        let id = if message.number == 0 { self.next_number() } else { message.number };
        let about = about(message, id);
        let bytes = message.total_bytes();
        let mut reader = pool.reader(key)?;
        let home = self.journal.append_with(&Record::Message(about), Urgency::Lazy, |body| {
            reader.read(body.put_zeros(bytes)?);
            Ok(())
        });
        pool.set_kept(key, id, home);
        Some(id)
    }

    /// The record of a session as a whole, and of its Will's message.
    pub(super) fn session(&mut self, pool: &mut MessagePool, session: &Session, urgency: Urgency) -> u64 {
        let will = session.will.as_ref().and_then(|will| {
            Some(record::Will {
                message: self.message(pool, will.message)?,
                qos: will.qos.bits(),
                retain: will.retain,
                delay_seconds: will.delay_seconds,
                expiry_seconds: will.expiry_seconds,
            })
        });
        let record = record::Session {
            id: session.number,
            client: &session.client_identifier,
            port: session.port,
            judges: self.judges,
            stale: session.identity_is_stale,
            method: session.identity.method.number(),
            principal: session.identity.principal.to_bytes(),
            username: session.identity.username.as_deref(),
            attributes: session.identity.attributes.as_bytes(),
            keeps_queue: session.keeps_queue,
            connected: session.connection.is_some(),
            expiry_seconds: session.expiry_seconds,
            ends: session.ends.map(Instant::as_milliseconds),
            will,
            will_due: session.will_due.map(Instant::as_milliseconds),
        };
        self.journal.append(&Record::Session(record), urgency)
    }

    /// The record of a delivery as a whole, and of its message.
    pub(super) fn delivery(&mut self, pool: &mut MessagePool, session: u64, delivery: &Delivery, identifiers: &[u32]) {
        let message = delivery.message.and_then(|key| self.message(pool, key));
        let mut scratch = [0; 32];
        let receiver = receiver(session, delivery.number, delivery.qos, delivery.retain, identifiers, &mut scratch);
        let packet_identifier = delivery.packet_identifier.map(PacketIdentifier::get);
        let record = record::Delivery { receiver, message, packet_identifier };
        self.journal.append(&Record::Delivery(record), Urgency::Lazy);
    }

    /// The record of a subscription as a whole.
    pub(super) fn subscription(
        &mut self,
        session: u64,
        subscription: &Subscription,
        group: Option<&str>,
        filter: &str,
        urgency: Urgency,
    ) -> u64 {
        let options = &subscription.options;
        let bits = SubscriptionOptions {
            maximum_qos: options.maximum_qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling,
        };
        let record = record::Subscription {
            session,
            id: subscription.number,
            group,
            filter,
            options: bits.bits(ProtocolVersion::V5),
            identifier: options.identifier,
        };
        self.journal.append(&Record::Subscription(record), urgency)
    }

    /// The record of the end of a subscription.
    pub(super) fn unsubscribed(&mut self, session: u64, subscription: u64) -> u64 {
        self.journal.append(&Record::Unsubscribed { session, subscription }, Urgency::Soon)
    }

    /// Whether something new of about `bytes` bytes can be kept, beside `live_bytes` that are kept already.
    pub(super) fn can_keep(&self, bytes: usize, live_bytes: u64) -> Result<(), Unkept> {
        if self.retry.is_some() {
            return Err(Unkept::Failed);
        }
        if self.is_full(live_bytes) || !self.journal.has_room_for(bytes) { Err(Unkept::Full) } else { Ok(()) }
    }

    /// Whether what can still be had of the disk is needed to write anew what is live.
    pub(super) const fn is_full(&self, live_bytes: u64) -> bool {
        self.room.free_bytes < live_bytes + 3 * self.segment_bytes
    }

    /// Whether the batch at hand is nearly full, so that nothing should be begun that leads to more records.
    pub(super) fn is_pressed(&self) -> bool {
        !self.journal.is_lost() && !self.journal.has_room_for(0)
    }

    fn state(&self, live_bytes: u64) -> StoreState {
        if self.retry.is_some() {
            StoreState::Failed
        } else if self.journal.rewrites() {
            StoreState::Rewriting
        } else if self.is_full(live_bytes) {
            StoreState::Full
        } else {
            StoreState::Sound
        }
    }
}

pub(super) fn about(message: &Message, id: u64) -> record::Message {
    record::Message {
        id,
        topic_bytes: message.topic_bytes,
        property_bytes: message.property_bytes,
        expires: message.expires.map(Instant::as_milliseconds),
    }
}

pub(super) fn receiver<'a>(
    session: u64,
    delivery: u64,
    qos: QoS,
    retain: bool,
    identifiers: &[u32],
    scratch: &'a mut [u8],
) -> Receiver<'a> {
    let flags = qos.bits() | if retain { RETAIN } else { 0 };
    Receiver { session, delivery, flags, identifiers: Identifiers::of(identifiers, scratch) }
}

/// Whether a client asks for something to be kept.
pub(super) fn asks(properties: &UserProperties<'_>) -> bool {
    properties.iter().any(|(name, value)| name == ASKS && value == "true")
}

impl Broker {
    /// Where things are kept from now on.
    pub fn set_durability(&mut self, durability: Durability) {
        self.log = Some(Box::new(durability));
    }

    /// What the clocks show, and whether the wall clock is to be believed: for the log.
    pub fn set_clock(&mut self, now: Now, trusted: bool) {
        let is_waited_for = self.session_deadlines.earliest().is_some();
        if let Some(log) = &mut self.log {
            log.journal.set_clock(now, trusted);
            if !trusted && is_waited_for {
                // With a wall clock, time that passes without a record is known from that.
                log.journal.tell_time_after(TELL_TIME_MILLISECONDS);
            }
        }
    }

    /// The wall clock was set.
    pub fn clock_was_set(&mut self) {
        if let Some(log) = &mut self.log {
            log.journal.clock_was_set();
        }
    }

    /// Nothing more is to come: what is recorded is to be written at once. [`Broker::next_batch`] gives it.
    pub fn flush(&mut self) {
        let is_waited_for = self.session_deadlines.earliest().is_some();
        if let Some(log) = &mut self.log {
            if is_waited_for {
                log.journal.tell_time_after(1);
            }
            log.journal.flush();
        }
    }

    /// Stands for the ports and the authentication of the configuration that was put in force: who was judged by others is
    /// judged anew when it comes back.
    pub fn set_judges(&mut self, judges: u64) {
        if let Some(log) = &mut self.log
            && log.judges != judges
        {
            log.judges = judges;
            log.wants_sweep = true;
        }
    }

    /// How the log is.
    #[must_use]
    pub fn store_state(&self) -> StoreState {
        self.log.as_ref().map_or(StoreState::Off, |log| log.state(self.live_bytes()))
    }

    /// About how many bytes it takes to write everything that is live.
    pub(super) fn live_bytes(&self) -> u64 {
        const SESSION: u64 = 1_024;
        const DELIVERY: u64 = 64;
        const RETAINED: u64 = 48;
        const MESSAGE: u64 = 48;
        const RECEIVED: u64 = 32;
        // Sessions and subscriptions are written twice.
        2 * (self.sessions.len() as u64 * SESSION + self.subscriptions.kept_bytes())
            + self.messages.kept_bytes()
            + self.messages.count() as u64 * MESSAGE
            + self.deliveries.len() as u64 * DELIVERY
            + self.retained.kept_topic_bytes()
            + self.retained.count() as u64 * RETAINED
            + self.received as u64 * RECEIVED
    }

    /// Number of the last record; 0 where nothing is kept.
    pub(super) fn last_record(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.journal.last())
    }

    /// Whether what waits for a record may go.
    pub(super) fn is_safe(&self, needs: u64) -> bool {
        needs == 0 || self.log.as_ref().is_none_or(|log| log.journal.is_durable(needs))
    }

    /// Whether something new of about `bytes` bytes can be kept.
    pub(super) fn can_keep(&mut self, bytes: usize) -> Result<(), Unkept> {
        let live_bytes = self.live_bytes();
        let Some(log) = &mut self.log else { return Ok(()) };
        let can = log.can_keep(bytes, live_bytes);
        if can == Err(Unkept::Full) {
            log.look.get_or_insert(self.latest.plus_milliseconds(LOOK_MILLISECONDS));
            self.telemetry.full(Table::Log);
        }
        can
    }

    /// Appends a record that is small or frees something.
    pub(super) fn note(&mut self, record: &Record<'_>, urgency: Urgency) -> u64 {
        self.log.as_mut().map_or(0, |log| log.journal.append(record, urgency))
    }

    /// The number of a session that outlives its connection; 0 for others.
    pub(super) fn kept_number_of(&self, session: Key<Session>) -> u64 {
        self.sessions.get(session).filter(|session| session.is_kept()).map_or(0, |session| session.number)
    }

    pub(super) fn number_of(&self, session: Key<Session>) -> u64 {
        self.sessions.get(session).map_or(0, |session| session.number)
    }

    /// The next batch for the disk, if it is time and the one before has come back by [`Broker::written`].
    pub fn next_batch(&mut self, now: Instant) -> Option<Batch> {
        self.steer_sweep(now);
        let log = self.log.as_mut()?;
        if log.retry.is_some() {
            return None;
        }
        if log.look.is_some_and(|look| look <= now) && !log.journal.is_writing() {
            // An empty batch: nothing is written, and the room is looked at again.
            log.look = None;
            log.writing_since = Some(now);
            return log.journal.look();
        }
        let batch = log.journal.next_batch(now)?;
        log.writing_since = Some(now);
        // The batch that begins to fill may be one that begins a sweep.
        self.steer_sweep(now);
        Some(batch)
    }

    /// Whether a batch is with the disk.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.writing_since.is_some())
    }

    /// Whether everything that is recorded is on the disk.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.retry.is_none() && log.journal.is_durable(log.journal.last()))
    }

    /// A batch has come back from the disk: with the room that is left, or with what went wrong.
    pub fn written(&mut self, now: Now, batch: Batch, outcome: io::Result<Room>) {
        let Some(log) = &mut self.log else { return };
        let took = log.writing_since.take().map_or(0, |since| now.instant.milliseconds_since(since));
        log.says_slow = false;
        let counters = &mut self.telemetry.counters;
        counters.store_commits += u64::from(!batch.bytes.is_empty());
        counters.store_bytes += batch.bytes.len() as u64;
        counters.store_milliseconds += took;
        if !batch.bytes.is_empty() {
            self.telemetry.durations.sync.observe(took);
        }
        counters.store_milliseconds_last = took;
        counters.store_milliseconds_max = counters.store_milliseconds_max.max(took);
        match outcome {
            Ok(room) => {
                let ends_rewrite = batch.ends_sweep && log.says_rewrites;
                log.room = room;
                log.journal.written(batch);
                if ends_rewrite && !log.journal.rewrites() {
                    log.says_rewrites = false;
                    log.retry_milliseconds = RETRY_MILLISECONDS;
                    self.telemetry.record(Event::StoreRewritten);
                }
                self.release_held();
                self.release_replays();
            }
            Err(error) => {
                counters.store_failures += 1;
                let wait = log.retry_milliseconds;
                log.retry = Some(now.instant.plus_milliseconds(wait));
                log.retry_milliseconds = (wait * 2).min(RETRY_MILLISECONDS_MAX);
                log.sweep = None;
                log.journal.failed(batch);
                let detail = Text::of(&error);
                self.telemetry.record(Event::StoreFailed { detail, retry_seconds: wait / 1_000 });
            }
        }
        self.say_full();
    }

    /// Says that the log is full, or has room again. What makes room may have been no batch, but a message that was given up.
    pub(super) fn say_full(&mut self) {
        let state = self.store_state();
        let Some(log) = &mut self.log else { return };
        match (log.says_full, state) {
            (false, StoreState::Full) => {
                self.telemetry.record(Event::StoreFull { used_bytes: log.room.used_bytes });
                log.says_full = true;
            }
            (true, StoreState::Sound) => {
                self.telemetry.record(Event::StoreHasRoom);
                log.says_full = false;
            }
            _ => {}
        }
    }

    /// When [`Broker::next_batch`] is to be asked.
    pub(super) fn store_deadline(&self) -> Option<Instant> {
        let log = self.log.as_ref()?;
        if log.retry.is_some() {
            return log.retry;
        }
        if let Some(since) = log.writing_since {
            return (!log.says_slow).then(|| since.plus_milliseconds(SLOW_MILLISECONDS));
        }
        log.journal.due().into_iter().chain(log.look).min()
    }

    /// Says so when the disk takes long.
    pub(super) fn watch_store(&mut self, now: Instant) {
        let Some(log) = &mut self.log else { return };
        if let Some(since) = log.writing_since
            && !log.says_slow
            && now.milliseconds_since(since) >= SLOW_MILLISECONDS
        {
            log.says_slow = true;
            self.telemetry.counters.store_slow += 1;
            if self.telemetry.counters.store_slow.is_power_of_two() {
                self.telemetry.record(Event::StoreSlow { times: self.telemetry.counters.store_slow });
            }
        }
    }

    /// Names connections again whose replies waited for the disk.
    fn release_held(&mut self) {
        while let Some(key) = self.held.pop() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.held = false;
                self.make_ready(key);
            }
        }
    }

    /// Something that a connection has to say waits for the disk.
    pub(super) fn hold(&mut self, key: Key<super::Connection>) {
        if self.held.len() == self.held.capacity() {
            let Self { held, connections, .. } = self;
            held.retain(|key| connections.get(*key).is_some_and(|connection| connection.held));
        }
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.held
        {
            connection.held = true;
            self.held.push(key);
        }
    }
}

impl Unkept {
    /// What a client is told in PUBACK, PUBREC or SUBACK.
    pub(super) const fn reason(self) -> ReasonCode {
        match self {
            Self::Full => ReasonCode::QuotaExceeded,
            Self::Failed => ReasonCode::ImplementationSpecificError,
        }
    }
}
