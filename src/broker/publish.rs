//! PUBLISH: from a publisher to the queues of those who subscribed. MQTT 5 §3.3, §4.3, §4.6.

use super::connections::{Connection, ReplyKind};
use super::durable::{Unkept, asks};
use super::filters::Levels;
use super::inside::InsiderQueue;
use super::messages::{Message, Parts};
use super::routes::{Question, Receiver};
use super::sessions::{Delivery, Identifiers, Session, Will};
use super::{Broker, GATE_MILLISECONDS, QUEUE_HIGH_MARK};
use crate::codec::publish::Head;
use crate::codec::{PacketIdentifier, ProtocolVersion, Publish, QoS, ReasonCode};
use crate::collections::{Full, Key, keyed_hash};
use crate::config::blob::QueueStrategy;
use crate::limits::TOPIC_LEVELS_MAX;
use crate::telemetry::{Action, CategoryCounters, Cause, Event, Table, Text};
use crate::time::{Instant, Now};

/// The vendor's user property that keeps messages of one value with one member of a shared subscription.
const PARTITION: &str = "$partition";

/// One session that the PUBLISH at hand goes to.
pub struct Match {
    pub(super) session: Key<Session>,
    pub(super) qos: QoS,
    retain_as_published: bool,
    pub(super) identifiers: Identifiers,
    /// The RETAIN flag of its delivery.
    pub(super) retain: bool,
    /// The number of its delivery in the log; 0 if it has none.
    pub(super) delivery: u64,
}

/// Where the bytes of a message to be routed are.
enum Source<'a, P> {
    /// In a packet.
    Packet { parts: Parts<'a>, properties: P },
    /// In the pool; the caller holds a reference.
    Stored(Key<Message>),
}

/// What is said of a message beside its bytes.
#[derive(Clone, Copy)]
struct Sending {
    /// Who published it; `None` for the broker itself.
    publisher: Option<Key<Session>>,
    qos: QoS,
    retain: bool,
    /// Hash of its `$partition`.
    partition: Option<u64>,
    /// Whether it is retained with an empty payload, which removes what is retained.
    empty: bool,
    /// The Packet Identifier of QoS 2 that its publisher has used for it.
    received: Option<u16>,
    /// Whether its publisher asks for it to be kept.
    asks: bool,
    /// Whether it is the Will of its publisher.
    is_will: bool,
    /// Whether its receivers are to be looked for.
    receivers: Receivers,
}

/// Whether those who get a message are to be looked for.
#[derive(Clone, Copy)]
enum Receivers {
    /// `Broker::matches` holds them.
    Recalled,
    /// They are, and may be remembered under this.
    Unknown(Option<Question>),
}

/// What routing did.
struct Routed {
    /// The most loaded session among the receivers whose queue is above the mark.
    slowest: Option<Key<Session>>,
    /// The record that the acknowledgement waits for.
    needs: u64,
}

/// The outcome of a PUBLISH with QoS 1 or 2.
struct Outcome {
    reason: ReasonCode,
    /// The session that the acknowledgement waits for.
    gate: Option<Key<Session>>,
    /// The record that it waits for.
    needs: u64,
}

impl From<ReasonCode> for Outcome {
    fn from(reason: ReasonCode) -> Self {
        Self { reason, gate: None, needs: 0 }
    }
}

/// Why a message cannot be routed.
#[derive(Clone, Copy)]
enum Unroutable {
    Full(Table),
    Unkept(Unkept),
}

/// Bytes that pieces take together.
pub(super) fn total_bytes<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> u32 {
    pieces.fold(0, |total, piece| total.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX)))
}

/// Whether a valid topic name is one that clients may publish to at all: not too deep, and not below `$SYS`, which the
/// server keeps for itself, nor `$share`, which no subscription could name.
pub(super) fn is_routable(topic: &str) -> bool {
    let is_below = |root: &str| topic.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let separators = topic.bytes().filter(|byte| *byte == b'/').count();
    separators < TOPIC_LEVELS_MAX && !(topic.starts_with('$') && (is_below("$SYS") || is_below("$share")))
}

impl Broker {
    pub(super) fn publish(&mut self, now: Now, key: Key<Connection>, publish: &Publish<'_>) {
        self.telemetry.counters.publishes_received += 1;
        self.telemetry.counters.payload_bytes_received += publish.payload.len() as u64;
        if let Some(connection) = self.connections.get(key) {
            let row = self.telemetry.categories.row(connection.category);
            row.publishes_received += 1;
            row.payload_bytes_received += publish.payload.len() as u64;
        }
        if publish.properties.subscription_identifiers.iter().next().is_some() {
            // [MQTT-3.3.4-6]
            return self.violate(key, ReasonCode::ProtocolError);
        }
        let mut alias_topic = core::mem::take(&mut self.alias_scratch);
        let topic = self.resolve_alias(key, publish, &mut alias_topic);
        match topic {
            Ok(topic) => self.publish_to(now, key, publish, topic),
            Err(reason) => self.violate(key, reason),
        }
        alias_topic.clear();
        self.alias_scratch = alias_topic;
    }

    /// The topic of a PUBLISH: its own, which gets the alias it may give, or the one that its alias stands for. MQTT 5
    /// §3.3.2.3.4.
    fn resolve_alias<'t>(
        &mut self,
        key: Key<Connection>,
        publish: &Publish<'t>,
        scratch: &'t mut Vec<u8>,
    ) -> Result<&'t str, ReasonCode> {
        let Some(alias) = publish.properties.topic_alias else {
            // [MQTT-4.7.3-1]
            return if publish.topic.is_empty() { Err(ReasonCode::ProtocolError) } else { Ok(publish.topic) };
        };
        let connection = self.connections.get_mut(key).ok_or(ReasonCode::UnspecifiedError)?;
        // [MQTT-3.3.2-9]
        let place = connection.aliases_in.get_mut(usize::from(alias.get()) - 1).ok_or(ReasonCode::TopicAliasInvalid)?;
        if publish.topic.is_empty() {
            let named = place.ok_or(ReasonCode::ProtocolError)?;
            self.messages.read_topic(named, scratch);
            return core::str::from_utf8(scratch).map_err(|_| ReasonCode::UnspecifiedError);
        }
        if place.is_none_or(|named| !self.messages.has_topic(named, publish.topic)) {
            let parts = Parts { topic: publish.topic, property_bytes: 0, payload: &[], expires: None };
            let stored = self.messages.store(&parts, core::iter::empty()).map_err(|_| ReasonCode::QuotaExceeded)?;
            if let Some(former) = place.replace(stored) {
                self.messages.release(former);
            }
        }
        Ok(publish.topic)
    }

    fn publish_to(&mut self, now: Now, key: Key<Connection>, publish: &Publish<'_>, topic: &str) {
        let Some(connection) = self.connections.get(key) else { return };
        let Some(session_key) = connection.session else { return };
        let Some(session) = self.sessions.get(session_key) else { return };
        let Some(packet_identifier) = publish.packet_identifier else {
            self.judge_and_route(now, session_key, publish, topic);
            return;
        };
        let exactly_once = publish.qos == QoS::ExactlyOnce;
        if exactly_once && session.received.contains(&packet_identifier) {
            // Sent again: it has been routed, and must not be again. [MQTT-4.3.3-10]
            let outcome = Outcome { needs: session.changed, ..ReasonCode::Success.into() };
            return self.acknowledge(key, exactly_once, packet_identifier, outcome);
        }
        let unacknowledged = connection.unacknowledged as usize + session.received.len();
        if unacknowledged >= usize::from(connection.receive_maximum_announced) {
            // [MQTT-3.3.4-9]
            return self.violate(key, ReasonCode::ReceiveMaximumExceeded);
        }
        let outcome = self.judge_and_route(now, session_key, publish, topic);
        // A client of MQTT 3.1.1 cannot be told of a failure and goes on with PUBREL.
        let told = self.connections.get(key).is_some_and(Connection::can_be_told);
        if !told && matches!(outcome.reason, ReasonCode::QuotaExceeded | ReasonCode::ImplementationSpecificError) {
            // What is acknowledged is delivered. Of what cannot be, only the end of the connection tells it, and it will send
            // it again. MQTT 3.1.1 [MQTT-3.3.5-2]
            return self.condemn(key, Cause::NoRoom, outcome.reason);
        }
        if exactly_once
            && (!outcome.reason.is_error() || !told)
            && let Some(session) = self.sessions.get_mut(session_key)
        {
            // Bounded by the Receive Maximum, which was checked.
            self.received += usize::from(session.received.push(packet_identifier).is_ok());
            if outcome.needs > 0 {
                session.changed = outcome.needs;
            }
            if outcome.reason.is_error() {
                self.keep_received(session_key, packet_identifier.get());
            }
        }
        self.acknowledge(key, exactly_once, packet_identifier, outcome);
    }

    /// Queues PUBACK or PUBREC.
    fn acknowledge(
        &mut self,
        key: Key<Connection>,
        exactly_once: bool,
        packet_identifier: PacketIdentifier,
        Outcome { reason, gate, needs }: Outcome,
    ) {
        let reply = ReplyKind::PublishAck { exactly_once, packet_identifier, reason, gate };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.followed.get_or_insert((packet_identifier, self.latest));
        }
        // Room was checked before the packet was taken.
        if self.reply_after(key, reply, needs).is_err() {
            self.violate(key, ReasonCode::QuotaExceeded);
        }
    }

    /// PUBREL from a publisher: the Packet Identifier is free again. [MQTT-4.3.3-11]
    pub(super) fn released(&mut self, key: Key<Connection>, packet_identifier: PacketIdentifier) {
        let Some(session_key) = self.connections.get(key).and_then(|connection| connection.session) else { return };
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        let place = session.received.iter().position(|received| *received == packet_identifier);
        let (reason, needs) = match place {
            Some(place) => {
                session.received.remove(place);
                self.received -= 1;
                (ReasonCode::Success, self.keep_released(session_key, packet_identifier.get()))
            }
            // It may have been released by a PUBREL whose record is on its way.
            None => (ReasonCode::PacketIdentifierNotFound, session.changed),
        };
        if self.reply_after(key, ReplyKind::PubComp(packet_identifier, reason), needs).is_err() {
            self.violate(key, ReasonCode::QuotaExceeded);
        }
    }

    /// What PUBACK or PUBREC says, and what it waits for.
    fn judge_and_route(&mut self, now: Now, publisher: Key<Session>, publish: &Publish<'_>, topic: &str) -> Outcome {
        let question = self.routes.question(publisher, topic);
        let is_known = self.recall_route(question);
        if !is_known {
            if !is_routable(topic) {
                return ReasonCode::TopicNameInvalid.into();
            }
            let Some(session) = self.sessions.get(publisher) else { return ReasonCode::UnspecifiedError.into() };
            if !self.admission.may_publish(&session.asker(publisher, &self.decisions), topic) {
                if publish.qos == QoS::AtMostOnce {
                    self.telemetry.counters.qos0_denied += 1;
                    self.category_of(publisher).qos0_dropped_incoming += 1;
                }
                self.denied(publisher, Action::Publish, topic);
                return ReasonCode::NotAuthorized.into();
            }
        }
        self.telemetry.counters.authorization_allowed += 1;
        let properties = &publish.properties;
        if self.limits.validate_payload_format
            && properties.payload_format_utf8 == Some(true)
            && core::str::from_utf8(publish.payload).is_err()
        {
            return ReasonCode::PayloadFormatInvalid.into();
        }
        let parts = Parts {
            topic,
            property_bytes: total_bytes(properties.forwardable()),
            payload: publish.payload,
            expires: self.message_expiry(now.instant, properties.message_expiry_interval),
        };
        let partition = properties.user_properties.iter().find(|(name, _)| *name == PARTITION);
        let sending = Sending {
            publisher: Some(publisher),
            qos: publish.qos,
            retain: publish.retain,
            partition: partition.map(|(_, value)| keyed_hash(self.seed, value)),
            empty: publish.payload.is_empty(),
            received: publish.packet_identifier.filter(|_| publish.qos == QoS::ExactlyOnce).map(PacketIdentifier::get),
            asks: asks(&properties.user_properties),
            is_will: false,
            receivers: if is_known { Receivers::Recalled } else { Receivers::Unknown(Some(question)) },
        };
        let source = Source::Packet { parts, properties: properties.forwardable() };
        match self.route(now.instant, topic, sending, source) {
            // Also without a subscriber: the vendor's broker answers 0x00, not 0x10.
            Ok(routed) => Outcome { reason: ReasonCode::Success, gate: routed.slowest, needs: routed.needs },
            Err(Unroutable::Full(table)) => {
                self.telemetry.full(table);
                self.category_of(publisher).publishes_refused += 1;
                ReasonCode::QuotaExceeded.into()
            }
            Err(Unroutable::Unkept(unkept)) => {
                self.category_of(publisher).publishes_refused += 1;
                unkept.reason().into()
            }
        }
    }

    /// When a message with this Message Expiry Interval must no longer be delivered, with `maxMessageExpirySeconds` applied.
    pub(super) fn message_expiry(&self, now: Instant, interval_seconds: Option<u32>) -> Option<Instant> {
        let seconds = interval_seconds.into_iter().chain(self.limits.message_expiry_seconds).min()?;
        Some(now.plus_seconds(u64::from(seconds)))
    }

    /// Publishes a Will, if its client may, and gives up its reference. [MQTT-3.1.2-8]
    pub(super) fn publish_will(&mut self, now: Instant, owner: Key<Session>, will: &Will) {
        self.refresh(owner);
        self.messages.set_expires(will.message, self.message_expiry(now, will.expiry_seconds));
        let mut topic = core::mem::take(&mut self.topic_scratch);
        if self.messages.read_topic(will.message, &mut topic)
            && let Ok(text) = core::str::from_utf8(&topic)
        {
            let session = self.sessions.get(owner);
            // What a client was before authentication was replaced says nothing of what it may do now.
            let allowed = session.is_some_and(|session| {
                !session.identity_is_stale && self.admission.may_publish(&session.asker(owner, &self.decisions), text)
            });
            if allowed {
                let sending = Sending {
                    publisher: Some(owner),
                    qos: will.qos,
                    retain: will.retain,
                    partition: None,
                    empty: self.messages.get(will.message).is_some_and(|message| message.payload_bytes == 0),
                    received: None,
                    asks: false,
                    is_will: true,
                    receivers: Receivers::Unknown(None),
                };
                let source = Source::<core::iter::Empty<&[u8]>>::Stored(will.message);
                if let Err(Unroutable::Full(table)) = self.route(now, text, sending, source) {
                    self.telemetry.full(table);
                }
            } else {
                self.denied(owner, Action::Will, text);
            }
        }
        topic.clear();
        self.topic_scratch = topic;
        self.messages.release(will.message);
    }

    /// Publishes a retained message of the broker's own, with QoS 0.
    pub(super) fn publish_own(&mut self, now: Instant, topic: &str, payload: &[u8]) {
        let parts = Parts { topic, property_bytes: 0, payload, expires: None };
        let sending = Sending {
            publisher: None,
            qos: QoS::AtMostOnce,
            retain: true,
            partition: None,
            empty: false,
            received: None,
            asks: false,
            is_will: false,
            receivers: Receivers::Unknown(None),
        };
        let source = Source::Packet { parts, properties: core::iter::empty() };
        if let Err(Unroutable::Full(table)) = self.route(now, topic, sending, source) {
            self.telemetry.full(table);
        }
    }

    /// Gives a message to every session with a matching subscription: once, with the highest QoS granted, however many of
    /// its subscriptions match. [MQTT-3.3.4-2] Retains it if it says so. [MQTT-3.3.1-5]
    ///
    /// # Errors
    /// The table that is full, when a message with QoS 1 or 2 cannot be given to all of them, or not be retained; nothing is
    /// done then.
    fn route<'a>(
        &mut self,
        now: Instant,
        topic: &str,
        sending: Sending,
        source: Source<'a, impl Iterator<Item = &'a [u8]>>,
    ) -> Result<Routed, Unroutable> {
        let mut routed = Routed { slowest: None, needs: 0 };
        if let Receivers::Unknown(question) = sending.receivers {
            // Topics with too many levels were refused before.
            let Ok(levels) = Levels::split(topic) else { return Ok(routed) };
            self.find_matches(sending, &levels, question);
        }
        let retains = sending.retain && !sending.empty;
        let clears = sending.retain && sending.empty;
        let received = sending.received.and_then(|identifier| Some((sending.publisher?, identifier)));
        if self.matches.is_empty() && !retains {
            if clears {
                routed.needs = self.clear_retained(topic);
            }
            if let Some((publisher, identifier)) = received {
                self.keep_received(publisher, identifier);
            }
            return Ok(routed);
        }
        let may_retain = !retains || self.room_to_retain(now, topic);
        let room = self.room_to_deliver(sending.qos).and_then(|()| match &source {
            Source::Packet { parts, .. } if !self.messages.has_room_for(parts) => Err(Table::Messages),
            _ => Ok(()),
        });
        // The broker's own messages are made anew by each process.
        let keeps_retained = retains && sending.publisher.is_some() && self.is_retained_kept(topic, sending.asks);
        // A Will has no other chance: where it finds no room, everything live is written anew, and it with it.
        let kept = if sending.is_will { Ok(()) } else { self.room_to_keep(sending.qos, keeps_retained, &source) };
        if sending.qos == QoS::AtMostOnce {
            if let Err(table) = room {
                self.telemetry.full(table);
                self.telemetry.counters.queue_dropped += self.matches.len() as u64;
                if let Some(publisher) = sending.publisher {
                    self.category_of(publisher).qos0_dropped_incoming += 1;
                }
                return Ok(routed);
            }
        } else {
            room.map_err(Unroutable::Full)?;
            kept.map_err(Unroutable::Unkept)?;
            if !may_retain {
                return Err(Unroutable::Full(Table::RetainedMessages));
            }
        }
        // With QoS 0 nobody was promised anything: it is retained as long as the process lives, and not another one after that.
        let keeps_retained = keeps_retained && kept.is_ok();
        if clears {
            // [MQTT-3.3.1-6]
            routed.needs = self.clear_retained(topic);
        }
        let message = match source {
            Source::Packet { parts, properties } => {
                self.messages.store(&parts, properties).map_err(|_| Unroutable::Full(Table::Messages))?
            }
            Source::Stored(message) => {
                self.messages.retain(message);
                message
            }
        };
        let mut retained = false;
        if retains && may_retain {
            match self.retain(topic, message, sending.qos, keeps_retained) {
                Ok(needs) => (retained, routed.needs) = (true, routed.needs.max(needs)),
                Err(Full) => self.telemetry.full(Table::RetainedMessages),
            }
        } else if retains {
            self.telemetry.full(Table::RetainedMessages);
        }
        let mut matches = core::mem::take(&mut self.matches);
        for matched in &mut matches {
            matched.retain = sending.retain && matched.retain_as_published;
            let qos = matched.qos.min(sending.qos);
            let delivery = self.deliver(matched.session, message, qos, matched.retain, &matched.identifiers);
            matched.delivery = delivery.and_then(|key| self.deliveries.get(key)).map_or(0, |delivery| delivery.number);
            if let Some(session) = self.sessions.get_mut(matched.session)
                && session.waiting.len() > QUEUE_HIGH_MARK
                && session.connection.is_some()
            {
                let since = *session.behind_since.get_or_insert(now);
                if now.milliseconds_since(since) < GATE_MILLISECONDS {
                    routed.slowest = Some(matched.session);
                }
            }
        }
        self.matches = matches;
        let retained = (retained && keeps_retained).then_some(sending.qos);
        let will_of = sending.publisher.filter(|_| sending.is_will);
        routed.needs = routed.needs.max(self.keep_published(message, retained, received, sending.qos, will_of));
        self.messages.release(message);
        Ok(routed)
    }

    /// Makes a message the retained one of its topic. Returns what the acknowledgement waits for beside its own record.
    fn retain(&mut self, topic: &str, message: Key<Message>, qos: QoS, keeps: bool) -> Result<u64, Full> {
        let replaces_kept = !keeps && self.retained.find(&self.messages, topic).is_some_and(|former| former.kept);
        self.retained.set(&mut self.messages, topic, message, qos, keeps)?;
        // Else the former one would come back.
        Ok(if replaces_kept { self.keep_cleared(topic) } else { 0 })
    }

    /// Removes the retained message of a topic. Returns what the acknowledgement waits for.
    fn clear_retained(&mut self, topic: &str) -> u64 {
        if self.retained.remove(&mut self.messages, topic) {
            return self.keep_cleared(topic);
        }
        // Somebody else may have cleared it just now, and have no answer yet either.
        self.log.as_ref().map_or(0, |log| log.cleared)
    }

    /// Whether the message at hand can be kept, if it has to be.
    fn room_to_keep<'a>(
        &mut self,
        qos: QoS,
        keeps_retained: bool,
        source: &Source<'a, impl Iterator<Item = &'a [u8]>>,
    ) -> Result<(), Unkept> {
        let is_kept = |matched: &Match| {
            qos.min(matched.qos) > QoS::AtMostOnce
                && self.sessions.get(matched.session).is_some_and(Session::is_queue_kept)
        };
        if self.log.is_none() || !keeps_retained && !self.matches.iter().any(is_kept) {
            return Ok(());
        }
        let bytes = match source {
            Source::Packet { parts, .. } => parts.total_bytes(),
            Source::Stored(key) => self.messages.get(*key).map_or(0, Message::total_bytes),
        };
        self.can_keep(self.published_bytes(bytes))
    }

    /// Whether the retained table has room for a topic; makes some by removing what is expired.
    fn room_to_retain(&mut self, now: Instant, topic: &str) -> bool {
        if self.retained.has_room_for(&self.messages, topic) {
            return true;
        }
        if now.milliseconds_since(self.retained_swept) < 1_000 {
            return false;
        }
        self.retained_swept = now;
        for slot in 0..self.retained.slots() {
            self.retained.at_slot(&mut self.messages, slot, now);
        }
        self.retained.has_room_for(&self.messages, topic)
    }

    /// Whether everybody who is to get the message at hand can. Who is connected and does not keep up is closed when it
    /// comes to that; a session that outlives its connection must not lose what was acknowledged.
    fn room_to_deliver(&self, qos: QoS) -> Result<(), Table> {
        let identifiers = self.matches.iter().filter(|matched| !matched.identifiers.is_empty()).count();
        if self.matches.len() > self.deliveries.free() || identifiers > self.identifiers.free() {
            return Err(Table::Deliveries);
        }
        let fits = |matched: &Match| {
            qos.min(matched.qos) == QoS::AtMostOnce
                || self.sessions.get(matched.session).is_none_or(|session| {
                    session.expiry_seconds == 0
                        || session.waiting.len() < self.limits.deliveries_per_session
                        || session.waiting.len() >= self.limits.queue_length
                            && self.limits.queue_strategy == QueueStrategy::DropOldest
                        || self.admission.queue_of(session.port).is_some()
                })
        };
        if self.matches.iter().all(fits) { Ok(()) } else { Err(Table::SessionQueue) }
    }

    /// Makes room in the queue of an insider with bounds of its own. Returns whether there is room.
    fn make_room(&mut self, key: Key<Session>, message: Key<Message>, qos: QoS, queue: InsiderQueue) -> bool {
        let Some(message) = self.messages.get(message) else { return false };
        let (bytes, packet_bytes) = (u64::from(message.held_bytes()), packet_bytes(message, qos));
        if packet_bytes > queue.packet_bytes as usize {
            return self.leave_out(key, packet_bytes);
        }
        let length = queue.length.min(self.limits.deliveries_per_session);
        // One that never fits makes no room for itself.
        let never_fits = bytes > queue.bytes;
        loop {
            let Some(session) = self.sessions.get_mut(key) else { return false };
            if session.waiting.len() < length && session.held_bytes.saturating_add(bytes) <= queue.bytes {
                return true;
            }
            let oldest = match queue.strategy {
                QueueStrategy::DropOldest if qos > QoS::AtMostOnce && !never_fits => {
                    session.waiting.pop_front(&mut self.deliveries)
                }
                QueueStrategy::DropOldest | QueueStrategy::DropNewest | QueueStrategy::None => None,
            };
            session.dropped += 1;
            self.telemetry.counters.queue_dropped += 1;
            match oldest {
                Some(oldest) => self.finish_delivery(oldest),
                None => return false,
            }
        }
    }

    /// Counts a message that an insider does not take, and says so now and then. Always `false`.
    fn leave_out(&mut self, key: Key<Session>, packet_bytes: usize) -> bool {
        self.telemetry.counters.too_large += 1;
        if let Some(session) = self.sessions.get_mut(key) {
            session.too_large += 1;
            let times = session.too_large;
            if times.is_power_of_two() {
                let client = Text::new(&session.client_identifier);
                self.telemetry.record(Event::TooLargeForInsider { client, packet_bytes, times });
            }
        }
        false
    }

    /// Counts what a delivery holds in its session, where that is bounded.
    pub(super) fn count(&mut self, key: Key<Session>, delivery: Key<Delivery>) {
        let Self { sessions, deliveries, messages, admission, .. } = self;
        let (Some(session), Some(delivery)) = (sessions.get_mut(key), deliveries.get_mut(delivery)) else { return };
        let message = delivery.message.and_then(|message| messages.get(message));
        if let Some(message) = message.filter(|_| admission.queue_of(session.port).is_some()) {
            delivery.held_bytes = message.held_bytes();
            session.held_bytes += u64::from(delivery.held_bytes);
        }
    }

    /// A delivery does not hold its message any more.
    fn uncount(&mut self, key: Key<Session>, held_bytes: u32) {
        if held_bytes > 0
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.held_bytes = session.held_bytes.saturating_sub(u64::from(held_bytes));
        }
    }

    /// Fills `self.matches` with those who got the last message of this publisher on this topic, if they are known and would be
    /// found again. That it may publish there goes with it.
    fn recall_route(&mut self, question: Question) -> bool {
        let Self { routes, matches, decisions, subscriptions, enforce_from, .. } = self;
        let Some(receivers) = routes.recall(question, (decisions.epoch(), subscriptions.epoch())) else { return false };
        if enforce_from.is_some() {
            // Sessions come under other policies: who is found comes under them first.
            return false;
        }
        matches.clear();
        matches.extend(receivers.iter().map(|receiver| Match {
            session: receiver.session,
            qos: receiver.qos,
            retain_as_published: receiver.retain_as_published,
            identifiers: Identifiers::new(),
            retain: false,
            delivery: 0,
        }));
        true
    }

    /// Remembers who was found, where it is the same for every message: nobody of a shared subscription, whose turn it is this
    /// time, and nobody with identifiers, which are rare.
    fn remember_route(&mut self, question: Question, publisher: Key<Session>) {
        let port = self.sessions.get(publisher).map(|session| session.port);
        if port.is_none_or(|port| !self.admission.may_remember(port)) || self.enforce_from.is_some() {
            return;
        }
        let Self { routes, matches, decisions, subscriptions, .. } = self;
        if matches.iter().all(|matched| matched.identifiers.is_empty()) {
            let receivers = matches.iter().map(|matched| Receiver {
                session: matched.session,
                qos: matched.qos,
                retain_as_published: matched.retain_as_published,
            });
            routes.remember(question, (decisions.epoch(), subscriptions.epoch()), receivers);
        }
    }

    /// Fills `self.matches` with the sessions that get a message for `levels`. While sessions come under new policies, those
    /// that are found do so first: a shared subscription must not give its message to a member that has lost the right.
    fn find_matches(&mut self, sending: Sending, levels: &Levels<'_>, question: Option<Question>) {
        loop {
            let has_groups = self.find_matches_once(sending, levels);
            // Otherwise all are, but for those that await their judgement.
            if self.enforce_from.is_none() {
                if let (Some(question), Some(publisher), false) = (question, sending.publisher, has_groups) {
                    self.remember_route(question, publisher);
                }
                return;
            }
            let mut refreshed = false;
            for at in 0..self.matches.len() {
                let Some(key) = self.matches.get(at).map(|matched| matched.session) else { break };
                if !self.is_current(key) {
                    self.refresh(key);
                    // One that awaits its judgement is not brought under them before.
                    refreshed |= self.is_current(key);
                }
            }
            // Each is brought under them once, so that this ends.
            if !refreshed {
                return;
            }
        }
    }

    /// Whether a session is under the policies that are in force; one that is gone is.
    fn is_current(&self, key: Key<Session>) -> bool {
        self.sessions.get(key).is_none_or(|session| session.policy_epoch == self.policy_epoch)
    }

    /// Returns whether a shared subscription is among those that match.
    fn find_matches_once(&mut self, sending: Sending, levels: &Levels<'_>) -> bool {
        let mut has_groups = false;
        let Self { subscriptions, sessions, matches, publish_number, .. } = self;
        matches.clear();
        *publish_number += 1;
        let number = *publish_number;
        let can_take = |key| {
            sessions.get(key).is_some_and(|session: &Session| {
                session.connection.is_some() && !session.identity_is_stale && session.waiting.len() <= QUEUE_HIGH_MARK
            })
        };
        subscriptions.matching(levels, sending.partition, can_take, |subscription, shared| {
            has_groups |= shared;
            let Some(session) = sessions.get(subscription.session) else { return };
            let options = &subscription.options;
            if options.no_local && sending.publisher == Some(subscription.session) {
                // [MQTT-3.8.3-3]
                return;
            }
            let (matched, at) = session.matched.get();
            if !shared
                && matched == number
                && let Some(earlier) = matches.get_mut(at as usize)
            {
                let fits = options.identifier.is_none_or(|identifier| earlier.identifiers.push(identifier).is_ok());
                if fits {
                    earlier.qos = earlier.qos.max(options.maximum_qos);
                    earlier.retain_as_published |= options.retain_as_published;
                    return;
                }
            }
            // Reserved for every session, every shared group and every copy for more identifiers, so that it cannot be
            // full; the check keeps the vector from growing all the same.
            if matches.len() < matches.capacity() {
                if !shared {
                    session.matched.set((number, u32::try_from(matches.len()).unwrap_or(u32::MAX)));
                }
                matches.push(Match {
                    session: subscription.session,
                    qos: options.maximum_qos,
                    retain_as_published: options.retain_as_published,
                    identifiers: options.identifier.into_iter().collect(),
                    retain: false,
                    delivery: 0,
                });
            }
        });
        has_groups
    }

    /// The counters of a session's client; those of clients without a category where it has no connection.
    fn category_of(&mut self, session: Key<Session>) -> &mut CategoryCounters {
        let connection = self.sessions.get(session).and_then(|session| session.connection);
        let category = connection.and_then(|key| self.connections.get(key)).map(|connection| connection.category);
        self.telemetry.categories.row(category.unwrap_or_default())
    }

    /// Puts one message into one session's queue, by the queue's rules. Returns its delivery, if there is one.
    pub(super) fn deliver(
        &mut self,
        key: Key<Session>,
        message: Key<Message>,
        qos: QoS,
        retain: bool,
        identifiers: &[u32],
    ) -> Option<Key<Delivery>> {
        let session = self.sessions.get_mut(key)?;
        let connection = session.connection;
        if connection.is_none() && qos == QoS::AtMostOnce {
            // Nobody waits for it. §4.4 keeps QoS 1 and 2 only.
            return None;
        }
        if let Some(queue) = self.admission.queue_of(session.port) {
            // Nobody waits for it, and it may not take what all need: what it has no room for is dropped, whatever its QoS.
            if !self.make_room(key, message, qos, queue) {
                return None;
            }
            let delivery = self.push_delivery(key, message, qos, retain, identifiers).ok()?;
            self.count(key, delivery);
            return Some(delivery);
        }
        let waiting = session.waiting.len();
        if waiting >= self.limits.queue_length {
            match self.limits.queue_strategy {
                QueueStrategy::DropOldest => {
                    if let Some(oldest) = session.waiting.pop_front(&mut self.deliveries) {
                        let is_qos0 = self.deliveries.get(oldest).is_some_and(|it| it.qos == QoS::AtMostOnce);
                        self.category_of(key).qos0_dropped_outgoing += u64::from(is_qos0);
                        self.finish_delivery(oldest);
                        self.telemetry.counters.queue_dropped += 1;
                    }
                }
                QueueStrategy::None if qos == QoS::AtMostOnce => {
                    self.telemetry.counters.queue_dropped += 1;
                    self.category_of(key).qos0_dropped_outgoing += 1;
                    return None;
                }
                // The second is for insiders only.
                QueueStrategy::None | QueueStrategy::DropNewest => {}
            }
        }
        if waiting < self.limits.deliveries_per_session
            && let Ok(delivery) = self.push_delivery(key, message, qos, retain, identifiers)
        {
            return Some(delivery);
        }
        self.telemetry.counters.queue_dropped += 1;
        self.category_of(key).qos0_dropped_outgoing += u64::from(qos == QoS::AtMostOnce);
        // One subscriber may not take what all need: it is told to go, and its queue goes with it.
        if let Some(connection) = connection {
            self.condemn(connection, Cause::QueueFull, ReasonCode::QuotaExceeded);
        }
        None
    }

    fn push_delivery(
        &mut self,
        key: Key<Session>,
        message: Key<Message>,
        qos: QoS,
        retain: bool,
        identifiers: &[u32],
    ) -> Result<Key<Delivery>, Full> {
        if self.deliveries.free() == 0 {
            return Err(Full);
        }
        let identifiers = match identifiers {
            [] => None,
            some => Some(self.identifiers.insert(some.iter().copied().collect())?),
        };
        let delivery = self.deliveries.insert(Delivery {
            message: Some(message),
            packet_identifier: None,
            qos,
            retain,
            identifiers,
            session: key,
            held_bytes: 0,
            number: 0,
            needs: 0,
            next: None,
        })?;
        let number = self.delivery_number(key, qos);
        if let Some(delivery) = self.deliveries.get_mut(delivery) {
            delivery.number = number;
        }
        self.messages.retain(message);
        if let Some(session) = self.sessions.get_mut(key) {
            session.waiting.push_back(&mut self.deliveries, delivery);
            if let Some(connection) = session.connection {
                self.queued_since_sent = self.queued_since_sent.saturating_add(1);
                self.make_ready(connection);
            }
        }
        Ok(delivery)
    }

    /// Frees a delivery that stands in no queue any more.
    pub(super) fn drop_delivery(&mut self, key: Key<Delivery>) {
        let Some(delivery) = self.deliveries.remove(key) else { return };
        self.uncount(delivery.session, delivery.held_bytes);
        if let Some(message) = delivery.message {
            self.messages.release(message);
        }
        if let Some(identifiers) = delivery.identifiers {
            self.identifiers.remove(identifiers);
        }
    }

    /// PUBACK from a receiver. An identifier that is not in use is ignored: it may belong to a message that was dropped
    /// meanwhile.
    pub(super) fn acknowledged(&mut self, key: Key<Connection>, packet_identifier: PacketIdentifier) {
        match self.in_flight(key, packet_identifier).map(|(_, qos, _)| qos) {
            None => {}
            Some(QoS::AtLeastOnce) => self.complete(key, packet_identifier),
            // The answer to QoS 2 is PUBREC.
            Some(_) => self.violate(key, ReasonCode::ProtocolError),
        }
    }

    /// PUBREC from a receiver: it has the message, or refuses it. [MQTT-4.3.3-3] [MQTT-4.3.3-4]
    pub(super) fn received(&mut self, key: Key<Connection>, packet_identifier: PacketIdentifier, reason: ReasonCode) {
        let (answer, needs) = match self.in_flight(key, packet_identifier) {
            Some((_, QoS::AtLeastOnce, _)) => return self.violate(key, ReasonCode::ProtocolError),
            Some(_) if reason.is_error() => return self.complete(key, packet_identifier),
            Some((delivery, _, message)) => {
                if let Some(delivery) = self.deliveries.get_mut(delivery) {
                    delivery.message = None;
                    let (session, held_bytes) = (delivery.session, core::mem::take(&mut delivery.held_bytes));
                    self.uncount(session, held_bytes);
                }
                if let Some(message) = message {
                    self.messages.release(message);
                }
                (ReasonCode::Success, self.keep_recorded(delivery))
            }
            None if reason.is_error() => return,
            None => (ReasonCode::PacketIdentifierNotFound, 0),
        };
        if self.reply_after(key, ReplyKind::PubRel(packet_identifier, answer), needs).is_err() {
            self.violate(key, ReasonCode::QuotaExceeded);
        }
    }

    /// PUBCOMP from a receiver. [MQTT-4.3.3-5]
    pub(super) fn completed(&mut self, key: Key<Connection>, packet_identifier: PacketIdentifier) {
        match self.in_flight(key, packet_identifier) {
            Some((_, QoS::ExactlyOnce, None)) => self.complete(key, packet_identifier),
            // Before its PUBREC.
            Some(_) => self.violate(key, ReasonCode::ProtocolError),
            None => {}
        }
    }

    /// The delivery in flight with this identifier: its key, QoS and message.
    fn in_flight(
        &self,
        key: Key<Connection>,
        packet_identifier: PacketIdentifier,
    ) -> Option<(Key<Delivery>, QoS, Option<Key<Message>>)> {
        let session = self.sessions.get(self.connections.get(key)?.session?)?;
        let mut at = session.in_flight.front();
        while let Some((key, delivery)) = at.and_then(|key| Some((key, self.deliveries.get(key)?))) {
            if delivery.packet_identifier == Some(packet_identifier) {
                return Some((key, delivery.qos, delivery.message));
            }
            at = delivery.next;
        }
        None
    }

    /// Takes a delivery out of the window.
    fn complete(&mut self, key: Key<Connection>, packet_identifier: PacketIdentifier) {
        let Some(session) = self.connections.get(key).and_then(|connection| connection.session) else { return };
        let Some(session) = self.sessions.get_mut(session) else { return };
        let next = session.resend.and_then(|key| self.deliveries.get(key)).and_then(|delivery| delivery.next);
        let done = session
            .in_flight
            .take_first(&mut self.deliveries, |delivery| delivery.packet_identifier == Some(packet_identifier));
        if done.is_some() && session.resend == done {
            session.resend = next;
        }
        if let Some(done) = done {
            self.finish_delivery(done);
            if let Some(connection) = self.connections.get_mut(key) {
                connection.in_flight = connection.in_flight.saturating_sub(1);
            }
            self.make_ready(key);
        }
    }
}

/// Bytes of the PUBLISH packet by which an insider, who uses neither aliases nor Subscription Identifiers, gets a message.
fn packet_bytes(message: &Message, qos: QoS) -> usize {
    /// Message Expiry Interval and its identifier, §3.3.2.3.3.
    const EXPIRY_BYTES: usize = 5;
    let head = Head {
        dup: false,
        qos,
        retain: false,
        topic_bytes: usize::from(message.topic_bytes),
        packet_identifier: PacketIdentifier::new(1).filter(|_| qos > QoS::AtMostOnce),
        property_bytes: message.property_bytes as usize + if message.expires.is_some() { EXPIRY_BYTES } else { 0 },
        payload_bytes: message.payload_bytes as usize,
    };
    head.encoded_bytes(ProtocolVersion::V5)
}
