//! Which changes of the tables are recorded, record by record, and who waits for them.
//!
//! Each function is called right after the change that it records, and returns the number of the record that somebody must wait
//! for, or 0. What is not kept costs a look at one number.

use super::durable::{SESSION_BYTES, SMALL_BYTES, Unkept, about, receiver};
use super::messages::Message;
use super::sessions::{Delivery, Session};
use super::subscriptions::Subscription;
use super::{Broker, Match};
use crate::codec::{PacketIdentifier, QoS, ReasonCode};
use crate::collections::Key;
use crate::store::{Record, Urgency};
use crate::time::Instant;

impl Broker {
    // --- sessions

    /// Whether a CONNECT can be answered. `known`: its session is in the log; `lasts`: it will be.
    pub(super) fn can_keep_session(&mut self, known: bool, lasts: bool, will_bytes: usize) -> Result<(), ReasonCode> {
        let Some(log) = &self.log else { return Ok(()) };
        if !known && !lasts {
            return Ok(());
        }
        if log.retry.is_some() {
            return Err(ReasonCode::ServerUnavailable);
        }
        if known && will_bytes == 0 {
            // Whoever comes for what waits for it makes room.
            return Ok(());
        }
        self.can_keep(SESSION_BYTES + will_bytes).map_err(|unkept| match unkept {
            Unkept::Full => ReasonCode::QuotaExceeded,
            Unkept::Failed => ReasonCode::ServerUnavailable,
        })
    }

    /// A client has connected: its session is recorded if it outlives the connection, or has a Will that must not be lost.
    /// Returns what CONNACK waits for.
    pub(super) fn keep_connected(&mut self, key: Key<Session>, asks: bool) -> u64 {
        let Some(session) = self.sessions.get(key) else { return 0 };
        let lasts = session.expiry_seconds > 0;
        if session.number == 0 && !lasts {
            let has_lasting_will = session.will.as_ref().is_some_and(|will| will.qos > QoS::AtMostOnce);
            if !has_lasting_will || self.can_keep(SESSION_BYTES).is_err() {
                return 0;
            }
        }
        let Self { log: Some(log), sessions, messages, deliveries, admission, .. } = self else { return 0 };
        let Some(session) = sessions.get_mut(key) else { return 0 };
        if session.number == 0 {
            session.number = log.next_number();
        }
        let keeps_queue = admission.queue_of(session.port).is_some()
            || log.persistence.subscriber_queue.covers_client(&session.client_identifier, asks);
        if keeps_queue && !session.keeps_queue && !(session.waiting.is_empty() && session.in_flight.is_empty()) {
            // What waits for it already is not in the log. It gets its numbers in its order, and the sweep writes it.
            for queue in [&session.in_flight, &session.waiting] {
                let mut at = queue.front();
                while let Some(delivery) = at.and_then(|key| deliveries.get_mut(key)) {
                    if delivery.qos > QoS::AtMostOnce {
                        delivery.number = log.next_number();
                    }
                    at = delivery.next;
                }
            }
            log.wants_sweep = true;
        }
        session.keeps_queue = keeps_queue;
        let urgency = if lasts { Urgency::Soon } else { Urgency::Lazy };
        let needs = log.session(messages, session, urgency);
        if !lasts {
            return 0;
        }
        session.changed = needs;
        needs
    }

    /// A session's connection has ended.
    pub(super) fn keep_detached(&mut self, key: Key<Session>, urgency: Urgency) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.number == 0 {
            return;
        }
        let record = Record::Detached {
            session: session.number,
            expiry_seconds: session.expiry_seconds,
            ends: session.ends.map(Instant::as_milliseconds),
            has_will: session.will.is_some(),
            will_due: session.will_due.map(Instant::as_milliseconds),
        };
        self.note(&record, urgency);
    }

    /// A session's Will was published or discarded: neither may happen again.
    pub(super) fn keep_will_gone(&mut self, key: Key<Session>) {
        let session = self.number_of(key);
        if session != 0 {
            self.note(&Record::WillGone { session }, Urgency::Soon);
        }
    }

    /// A session has ended.
    pub(super) fn keep_session_ended(&mut self, session: u64) {
        if session != 0 {
            self.note(&Record::SessionEnded { session }, Urgency::Soon);
        }
    }

    // --- subscriptions

    /// Whether a session's subscription can be kept, if it has to be.
    pub(super) fn can_keep_subscription(&mut self, key: Key<Session>, filter: &str) -> Result<(), ReasonCode> {
        if !self.sessions.get(key).is_some_and(Session::is_kept) {
            return Ok(());
        }
        self.can_keep(filter.len() + 2 * SMALL_BYTES).map_err(Unkept::reason)
    }

    /// A subscription was made or changed.
    pub(super) fn keep_subscription(&mut self, key: Key<Session>, subscription: Key<Subscription>) {
        let Self { log: Some(log), sessions, subscriptions, filter_scratch, .. } = self else { return };
        let Some(session) = sessions.get_mut(key).filter(|session| session.is_kept()) else { return };
        subscriptions.read_filter(subscription, filter_scratch);
        let Ok(filter) = core::str::from_utf8(filter_scratch) else { return };
        if subscriptions.get(subscription).is_some_and(|subscription| subscription.number == 0) {
            subscriptions.set_kept(subscription, log.next_number(), filter.len());
        }
        if let Some(subscription) = subscriptions.get(subscription) {
            let group = subscriptions.group_name(subscription);
            session.changed = log.subscription(session.number, subscription, group, filter, Urgency::Soon);
        }
    }

    /// A subscription has ended.
    pub(super) fn keep_unsubscribed(&mut self, key: Key<Session>, subscription: u64) {
        let session = self.number_of(key);
        if subscription == 0 || session == 0 {
            return;
        }
        let Some(log) = &mut self.log else { return };
        let needs = log.unsubscribed(session, subscription);
        if let Some(session) = self.sessions.get_mut(key) {
            session.changed = needs;
        }
    }

    // --- messages

    /// The message at hand was given to `self.matches`, and may be retained from now on. Returns what its acknowledgement
    /// waits for.
    pub(super) fn keep_published(
        &mut self,
        key: Key<Message>,
        retained: Option<QoS>,
        received: Option<(Key<Session>, u16)>,
        qos: QoS,
        will_of: Option<Key<Session>>,
    ) -> u64 {
        let received =
            received.map(|(key, identifier)| (self.kept_number_of(key), identifier)).filter(|(number, _)| *number != 0);
        let will_of = will_of.map(|key| self.number_of(key)).filter(|number| *number != 0);
        let Self { log: Some(log), sessions, messages, matches, telemetry, .. } = self else { return 0 };
        let receivers = matches.iter().filter(|matched| matched.delivery != 0).count();
        if receivers == 0 && retained.is_none() {
            if let Some((session, packet_identifier)) = received {
                log.journal.append(&Record::Received { session, packet_identifier }, Urgency::Lazy);
            }
            return 0;
        }
        let Some(message) = messages.get(key) else { return 0 };
        let id = if message.number == 0 { log.next_number() } else { message.number };
        let (about, retained) = (about(message, id), retained.map(QoS::bits));
        let receivers = u32::try_from(receivers).unwrap_or(u32::MAX);
        let published = match will_of {
            Some(session) => Record::PublishedWill { session, message: about, retained, receivers },
            None => Record::Published { message: about, retained, received, receivers },
        };
        let bytes = message.total_bytes();
        let Some(mut reader) = messages.reader(key) else { return 0 };
        // Nobody waits for what was published with QoS 0.
        let urgency = if qos > QoS::AtMostOnce { Urgency::Soon } else { Urgency::Lazy };
        let needs = log.journal.append_with(&published, urgency, |body| {
            for matched in matches.iter().filter(|matched| matched.delivery != 0) {
                let session = sessions.get(matched.session).map_or(0, |session| session.number);
                let mut scratch = [0; 32];
                let Match { delivery, qos: granted, retain, identifiers, .. } = matched;
                let receiver = receiver(session, *delivery, qos.min(*granted), *retain, identifiers, &mut scratch);
                body.put_receiver(&receiver)?;
            }
            reader.read(body.put_zeros(bytes)?);
            Ok(())
        });
        messages.set_kept(key, id, needs);
        if qos > QoS::AtMostOnce {
            telemetry.counters.store_messages += 1;
            telemetry.counters.store_message_bytes += bytes as u64;
        }
        needs
    }

    /// Bytes of the record of a message that goes to `self.matches`, about.
    pub(super) fn published_bytes(&self, message_bytes: usize) -> usize {
        let each = |matched: &Match| 24 + 4 * matched.identifiers.len();
        message_bytes + 2 * SMALL_BYTES + self.matches.iter().map(each).sum::<usize>()
    }

    /// Whether a retained message of this topic is kept. `asks`: its publisher asks for it.
    pub(super) fn is_retained_kept(&self, topic: &str, asks: bool) -> bool {
        self.log.as_ref().is_some_and(|log| log.persistence.retain.covers_topic(topic, asks))
    }

    /// A topic has no retained message in the log any more. Returns what the acknowledgement waits for.
    pub(super) fn keep_cleared(&mut self, topic: &str) -> u64 {
        let needs = self.note(&Record::Cleared { topic }, Urgency::Soon);
        if let Some(log) = &mut self.log {
            log.cleared = needs;
        }
        needs
    }

    /// A PUBLISH with QoS 2 came whose message went nowhere.
    pub(super) fn keep_received(&mut self, key: Key<Session>, packet_identifier: u16) {
        let session = self.kept_number_of(key);
        if session != 0 {
            self.note(&Record::Received { session, packet_identifier }, Urgency::Lazy);
        }
    }

    /// PUBREL has come. Returns what PUBCOMP waits for.
    pub(super) fn keep_released(&mut self, key: Key<Session>, packet_identifier: u16) -> u64 {
        let session = self.kept_number_of(key);
        if session == 0 {
            return 0;
        }
        let needs = self.note(&Record::Released { session, packet_identifier }, Urgency::Soon);
        if let Some(session) = self.sessions.get_mut(key) {
            session.changed = needs;
        }
        needs
    }

    // --- deliveries

    /// The number of a new delivery, if it is one that is kept.
    pub(super) fn delivery_number(&mut self, key: Key<Session>, qos: QoS) -> u64 {
        let is_kept = qos > QoS::AtMostOnce && self.sessions.get(key).is_some_and(Session::is_queue_kept);
        match &mut self.log {
            Some(log) if is_kept => log.next_number(),
            _ => 0,
        }
    }

    /// A delivery was queued that no [`Record::Published`] tells of, or is written anew.
    pub(super) fn keep_delivery(&mut self, key: Key<Delivery>) {
        let Self { log: Some(log), sessions, messages, deliveries, identifiers, .. } = self else { return };
        let Some(delivery) = deliveries.get(key).filter(|delivery| delivery.number != 0) else { return };
        let Some(session) = sessions.get(delivery.session).filter(|session| session.is_kept()) else { return };
        let identifiers = delivery.identifiers.and_then(|key| identifiers.get(key));
        log.delivery(messages, session.number, delivery, identifiers.map_or(&[], |list| list.as_slice()));
    }

    /// A delivery has its Packet Identifier. Returns what QoS 2 waits for.
    pub(super) fn keep_sent(&mut self, key: Key<Delivery>) -> u64 {
        let Self { log: Some(log), sessions, deliveries, .. } = self else { return 0 };
        let Some(delivery) = deliveries.get_mut(key).filter(|delivery| delivery.number != 0) else { return 0 };
        let Some(session) = sessions.get(delivery.session) else { return 0 };
        let urgency = if delivery.qos == QoS::ExactlyOnce { Urgency::Soon } else { Urgency::Lazy };
        let sent = Record::Sent {
            session: session.number,
            delivery: delivery.number,
            packet_identifier: delivery.packet_identifier.map_or(0, PacketIdentifier::get),
        };
        delivery.needs = log.journal.append(&sent, urgency);
        delivery.needs
    }

    /// PUBREC has come. Returns what PUBREL waits for.
    pub(super) fn keep_recorded(&mut self, key: Key<Delivery>) -> u64 {
        let Self { log: Some(log), sessions, deliveries, .. } = self else { return 0 };
        let Some(delivery) = deliveries.get_mut(key).filter(|delivery| delivery.number != 0) else { return 0 };
        let Some(session) = sessions.get(delivery.session) else { return 0 };
        let recorded = Record::Recorded { session: session.number, delivery: delivery.number };
        delivery.needs = log.journal.append(&recorded, Urgency::Soon);
        delivery.needs
    }

    /// A delivery is done or was given up: frees it, after it was taken from its queue.
    pub(super) fn finish_delivery(&mut self, key: Key<Delivery>) {
        if let Some(delivery) = self.deliveries.get(key)
            && delivery.number != 0
        {
            let done = Record::Done { session: self.number_of(delivery.session), delivery: delivery.number };
            self.note(&done, Urgency::Lazy);
        }
        self.drop_delivery(key);
    }
}
