//! PUBLISH: from a publisher to the queues of those who subscribed. MQTT 5 §3.3, §4.3, §4.6.

use super::connections::{Connection, ReplyKind};
use super::filters::Levels;
use super::messages::{Message, Parts};
use super::sessions::{Delivery, Session};
use super::{Broker, QUEUE_HIGH_MARK};
use crate::codec::{PacketIdentifier, Publish, QoS, ReasonCode};
use crate::collections::{Full, Key};
use crate::config::blob::QueueStrategy;
use crate::telemetry::{Action, Cause, Event, Text};
use crate::time::{Instant, Now};

/// One session that the PUBLISH at hand goes to.
#[derive(Clone, Copy)]
pub struct Match {
    session: Key<Session>,
    qos: QoS,
}

/// Where the bytes of a message to be routed are.
enum Source<'a, P> {
    /// In a packet.
    Packet { parts: Parts<'a>, properties: P },
    /// In the pool; the caller holds a reference.
    Stored(Key<Message>),
}

/// What routing did.
struct Routed {
    /// The most loaded session among the receivers whose queue is above the mark.
    slowest: Option<Key<Session>>,
}

/// Bytes that pieces take together.
pub(super) fn total_bytes<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> u32 {
    pieces.fold(0, |total, piece| total.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX)))
}

/// Whether a valid topic name is one that clients may publish to at all: not too deep, and not below `$SYS`, which the
/// server keeps for itself, nor `$share`, which no subscription could name.
pub(super) fn is_routable(topic: &str) -> bool {
    let first = topic.split('/').next().unwrap_or_default();
    first != "$SYS" && first != "$share" && Levels::split(topic).is_ok()
}

impl Broker {
    pub(super) fn publish(&mut self, now: Now, key: Key<Connection>, publish: &Publish<'_>) {
        self.telemetry.counters.publishes_received += 1;
        self.telemetry.counters.payload_bytes_received += publish.payload.len() as u64;
        if publish.retain {
            // [MQTT-3.2.2-14]
            return self.violate(key, ReasonCode::RetainNotSupported);
        }
        if publish.qos > QoS::AtLeastOnce {
            // [MQTT-3.2.2-11]
            return self.violate(key, ReasonCode::QoSNotSupported);
        }
        if publish.properties.topic_alias.is_some() || publish.topic.is_empty() {
            // The Topic Alias Maximum announced is 0. [MQTT-3.2.2-17]
            return self.violate(key, ReasonCode::TopicAliasInvalid);
        }
        let Some(connection) = self.connections.get(key) else { return };
        if publish.qos > QoS::AtMostOnce && connection.acknowledgements.len() >= u32::from(self.limits.receive_maximum)
        {
            // [MQTT-3.3.4-9]
            return self.violate(key, ReasonCode::ReceiveMaximumExceeded);
        }
        let Some(session_key) = connection.session else { return };
        let (reason, gate) = self.judge_and_route(now, session_key, publish);
        let Some(packet_identifier) = publish.packet_identifier else { return };
        // Room was checked before the packet was taken.
        if self.reply(key, ReplyKind::PubAck { packet_identifier, reason, gate }).is_err() {
            self.violate(key, ReasonCode::QuotaExceeded);
        }
    }

    /// The Reason Code of the PUBACK, and the session that it waits for.
    fn judge_and_route(
        &mut self,
        now: Now,
        publisher: Key<Session>,
        publish: &Publish<'_>,
    ) -> (ReasonCode, Option<Key<Session>>) {
        if !is_routable(publish.topic) {
            return (ReasonCode::TopicNameInvalid, None);
        }
        let Some(session) = self.sessions.get(publisher) else { return (ReasonCode::UnspecifiedError, None) };
        if !self.admission.may_publish(session.port, session.rules.as_ref(), publish.topic) {
            self.telemetry.counters.authorization_denied += 1;
            if publish.qos == QoS::AtMostOnce {
                self.telemetry.counters.qos0_denied += 1;
            }
            self.telemetry.record(Event::Denied {
                client: Text::new(&session.client_identifier),
                username: session.identity.username.as_deref().map(Text::new),
                action: Action::Publish,
                resource: Text::new(publish.topic),
            });
            return (ReasonCode::NotAuthorized, None);
        }
        self.telemetry.counters.authorization_allowed += 1;
        let parts = Parts {
            topic: publish.topic,
            property_bytes: total_bytes(publish.properties.forwardable()),
            payload: publish.payload,
            expires: self.message_expiry(now.instant, publish.properties.message_expiry_interval),
        };
        let source = Source::Packet { parts, properties: publish.properties.forwardable() };
        match self.route(Some(publisher), publish.topic, publish.qos, source) {
            // Also without a subscriber: the vendor's broker answers 0x00, not 0x10.
            Ok(routed) => (ReasonCode::Success, routed.slowest),
            Err(Full) => {
                self.telemetry.counters.quota_exceeded += 1;
                (ReasonCode::QuotaExceeded, None)
            }
        }
    }

    /// When a message with this Message Expiry Interval must no longer be delivered, with `maxMessageExpirySeconds` applied.
    pub(super) fn message_expiry(&self, now: Instant, interval_seconds: Option<u32>) -> Option<Instant> {
        let seconds = interval_seconds.into_iter().chain(self.limits.message_expiry_seconds).min()?;
        Some(now.plus_seconds(u64::from(seconds)))
    }

    /// Publishes a message that the broker holds for a client, a Will. The caller keeps its reference.
    pub(super) fn publish_stored(&mut self, publisher: Key<Session>, message: Key<Message>, qos: QoS) {
        let Some(header) = self.messages.get(message) else { return };
        let mut topic = core::mem::take(&mut self.topic_scratch);
        topic.resize(usize::from(header.topic_bytes), 0);
        if let Some(mut reader) = self.messages.reader(message) {
            reader.read(&mut topic);
        }
        if let Ok(text) = core::str::from_utf8(&topic) {
            let allowed = self
                .sessions
                .get(publisher)
                .is_some_and(|session| self.admission.may_publish(session.port, session.rules.as_ref(), text));
            if allowed {
                let source = Source::<core::iter::Empty<&[u8]>>::Stored(message);
                if self.route(None, text, qos, source).is_err() {
                    self.telemetry.counters.quota_exceeded += 1;
                }
            } else {
                self.telemetry.counters.authorization_denied += 1;
            }
        }
        topic.clear();
        self.topic_scratch = topic;
    }

    /// Gives a message to every session with a matching subscription: once, with the highest QoS granted, however many of
    /// its subscriptions match. [MQTT-3.3.4-2]
    ///
    /// # Errors
    /// [`Full`] when a message with QoS 1 cannot be given to all of them; it is given to none then.
    fn route<'a>(
        &mut self,
        publisher: Option<Key<Session>>,
        topic: &str,
        qos: QoS,
        source: Source<'a, impl Iterator<Item = &'a [u8]>>,
    ) -> Result<Routed, Full> {
        let mut routed = Routed { slowest: None };
        let levels = Levels::split(topic)?;
        self.find_matches(publisher, &levels);
        if self.matches.is_empty() {
            return Ok(routed);
        }
        let room = self.matches.len() <= self.deliveries.free()
            && match &source {
                Source::Packet { parts, .. } => self.messages.has_room_for(parts),
                Source::Stored(_) => true,
            };
        if !room {
            if qos == QoS::AtMostOnce {
                self.telemetry.counters.queue_dropped += self.matches.len() as u64;
                return Ok(routed);
            }
            return Err(Full);
        }
        let message = match source {
            Source::Packet { parts, properties } => self.messages.store(&parts, properties)?,
            Source::Stored(message) => {
                self.messages.retain(message);
                message
            }
        };
        for index in 0..self.matches.len() {
            let Some(Match { session, qos: granted }) = self.matches.get(index).copied() else { break };
            self.deliver(session, message, granted.min(qos));
            if let Some(session_state) = self.sessions.get_mut(session)
                && session_state.waiting.len() > QUEUE_HIGH_MARK
            {
                session_state.behind = true;
                routed.slowest = Some(session);
            }
        }
        self.messages.release(message);
        Ok(routed)
    }

    /// Fills `self.matches` with the sessions that get a message for `levels`.
    fn find_matches(&mut self, publisher: Option<Key<Session>>, levels: &Levels<'_>) {
        let Self { subscriptions, sessions, matches, publish_number, .. } = self;
        matches.clear();
        *publish_number += 1;
        let number = *publish_number;
        let can_take =
            |key| sessions.get(key).is_some_and(|session: &Session| session.waiting.len() <= QUEUE_HIGH_MARK);
        subscriptions.matching(levels, can_take, |subscription, shared| {
            let Some(session) = sessions.get(subscription.session) else { return };
            if subscription.options.no_local && publisher == Some(subscription.session) {
                // [MQTT-3.8.3-3]
                return;
            }
            let granted = subscription.options.maximum_qos;
            let (matched, at) = session.matched.get();
            if !shared && matched == number {
                if let Some(earlier) = matches.get_mut(at as usize) {
                    earlier.qos = earlier.qos.max(granted);
                }
                return;
            }
            // Reserved for every session and every shared group, so that it cannot be full; the check keeps the vector
            // from growing all the same.
            if matches.len() < matches.capacity() {
                if !shared {
                    session.matched.set((number, u32::try_from(matches.len()).unwrap_or(u32::MAX)));
                }
                matches.push(Match { session: subscription.session, qos: granted });
            }
        });
    }

    /// Puts one message into one session's queue, by the queue's rules.
    fn deliver(&mut self, key: Key<Session>, message: Key<Message>, qos: QoS) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let waiting = session.waiting.len();
        if waiting >= self.limits.queue_length {
            match self.limits.queue_strategy {
                QueueStrategy::DropOldest => {
                    if let Some(oldest) = session.waiting.pop_front(&mut self.deliveries)
                        && let Some(delivery) = self.deliveries.remove(oldest)
                    {
                        self.messages.release(delivery.message);
                        self.telemetry.counters.queue_dropped += 1;
                    }
                }
                QueueStrategy::None if qos == QoS::AtMostOnce => {
                    self.telemetry.counters.queue_dropped += 1;
                    return;
                }
                QueueStrategy::None => {}
            }
        }
        let connection = session.connection;
        let overflow = waiting >= self.limits.deliveries_per_session;
        let delivery = Delivery { message, packet_identifier: None, qos, next: None };
        match self.deliveries.insert(delivery) {
            Ok(delivery) if !overflow => {
                self.messages.retain(message);
                session.waiting.push_back(&mut self.deliveries, delivery);
                self.make_ready(connection);
            }
            inserted => {
                if let Ok(delivery) = inserted {
                    self.deliveries.remove(delivery);
                }
                // One subscriber may not take what all need: it is told to go, and its queue goes with it.
                self.telemetry.counters.queue_dropped += 1;
                self.condemn(connection, Cause::QueueFull, ReasonCode::QuotaExceeded);
            }
        }
    }

    /// PUBACK. An identifier that is not in use is ignored: it may belong to a message that expired meanwhile.
    pub(super) fn acknowledged(&mut self, key: Key<Connection>, packet_identifier: PacketIdentifier) {
        let Some(session) = self.connections.get(key).and_then(|connection| connection.session) else { return };
        let Some(session) = self.sessions.get_mut(session) else { return };
        let acknowledged = session
            .in_flight
            .take_first(&mut self.deliveries, |delivery| delivery.packet_identifier == Some(packet_identifier));
        if let Some(delivery) = acknowledged.and_then(|key| self.deliveries.remove(key)) {
            self.messages.release(delivery.message);
            self.make_ready(key);
        }
    }
}
