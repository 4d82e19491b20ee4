//! From what the log told to the broker's tables, once, before the first client.
//!
//! A session that had a connection when the process ended has lost it now: its expiry and the delay of its Will begin anew.
//! Nobody has been judged by the configuration at hand: sessions come under its rules as after a change of policies, and where
//! authentication is another one, their identity counts as stale.

use super::Broker;
use super::messages::{Message, Parts};
use super::sessions::{ClientIdentifier, Delivery, NEVER_EXPIRES, Session, Will};
use super::subscriptions::{Options, Target};
use crate::codec::{PacketIdentifier, ProtocolVersion, QoS, SubscriptionOptions};
use crate::collections::{Full, Key, keyed_hash};
use crate::identity::{Attributes, AuthenticationMethod, Identity, Principal, Username};
use crate::store::image::{self, Image, Moment};
use crate::store::record::{self, RETAIN};
use crate::store::{Disk, Recovered};
use crate::time::{Instant, Now};
use std::collections::HashMap;
use std::io;

/// What was brought back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Sessions.
    pub sessions: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Messages that wait for sessions.
    pub deliveries: usize,
    /// Retained messages.
    pub retained: usize,
    /// What the tables had no room for, or what no client could have sent.
    pub left_out: u64,
}

/// Time, as the log sees it from now.
struct Times<'i> {
    image: &'i Image,
    now: Now,
    trusted: bool,
}

impl Times<'_> {
    fn instant(&self, moment: Moment) -> Instant {
        self.now.instant.plus_milliseconds(self.image.remaining(moment, self.now, self.trusted))
    }
}

impl Broker {
    /// Fills the tables, which are empty but for the broker's own messages. `trusted`: the wall clock is to be believed.
    ///
    /// # Errors
    /// What the system says when it reads messages.
    pub fn restore<D: Disk>(&mut self, now: Now, trusted: bool, recovered: &mut Recovered<D>) -> io::Result<Restored> {
        let mut restored = Restored::default();
        let mut messages = HashMap::with_capacity(recovered.image.messages.len());
        let Recovered { log, image, .. } = recovered;
        let times = Times { image, now, trusted };
        log.each_message(image, |number, message, content| {
            match self.restore_message(&times, number, message, content) {
                Ok(key) => drop(messages.insert(number, key)),
                Err(Full) => restored.left_out += 1,
            }
        })?;
        if let Some(log) = &mut self.log {
            log.last_number = image.last_number;
        }
        // Of two with one name, of which the end of the older one was damaged, the younger one counts.
        for (number, session) in image.sessions.iter().rev() {
            if self.restore_session(&times, *number, session, &messages, &mut restored).is_err() {
                restored.left_out += 1;
            }
        }
        for (topic, retained) in &image.retained {
            let qos = QoS::from_bits(retained.qos).unwrap_or_default();
            match messages.get(&retained.message) {
                Some(message)
                    if !self.messages.get(*message).is_some_and(|message| message.is_expired(now.instant)) =>
                {
                    match self.retained.set(&mut self.messages, topic, *message, qos, true) {
                        Ok(()) => restored.retained += 1,
                        Err(Full) => restored.left_out += 1,
                    }
                }
                _ => {}
            }
        }
        // The tables hold references of their own now.
        for key in messages.into_values() {
            self.messages.release(key);
        }
        self.place_insiders();
        self.enforce_from = (!self.sessions.is_empty()).then_some(0);
        self.say_full();
        Ok(restored)
    }

    fn restore_message(
        &mut self,
        times: &Times<'_>,
        number: u64,
        message: &image::Message,
        content: &[u8],
    ) -> Result<Key<Message>, Full> {
        let (topic, rest) = content.split_at_checked(usize::from(message.topic_bytes)).ok_or(Full)?;
        let (properties, payload) = rest.split_at_checked(message.property_bytes as usize).ok_or(Full)?;
        let topic = core::str::from_utf8(topic).map_err(|_| Full)?;
        if self.log.as_ref().is_some_and(|log| content.len() > log.journal.message_bytes_max()) {
            // Of a larger board: it could never be written anew.
            return Err(Full);
        }
        let expires = message.expires.map(|expires| times.instant(expires));
        let parts = Parts { topic, property_bytes: message.property_bytes, payload, expires };
        let key = self.messages.store(&parts, core::iter::once(properties))?;
        self.messages.set_kept(key, number, 0);
        Ok(key)
    }

    fn restore_session(
        &mut self,
        times: &Times<'_>,
        number: u64,
        session: &image::Session,
        messages: &HashMap<u64, Key<Message>>,
        restored: &mut Restored,
    ) -> Result<(), Full> {
        let about = session.about.as_ref().ok_or(Full)?;
        let client_identifier = ClientIdentifier::try_from(about.client.as_str()).map_err(|_| Full)?;
        let hash = keyed_hash(self.seed, client_identifier.as_str());
        if self.session_named(hash, &client_identifier).is_some() {
            return Err(Full);
        }
        let identity = identity_of(about)?;
        // Insiders may stand in another order than they did.
        let port = self.port_of_insider(&client_identifier).unwrap_or(about.port);
        let mut new = Session::new(client_identifier, hash, port, identity, None);
        new.number = number;
        new.keeps_queue = about.keeps_queue;
        new.policy_epoch = self.policy_epoch.wrapping_sub(1);
        new.identity_is_stale = about.stale || self.log.as_ref().is_none_or(|log| log.judges != about.judges);
        new.expiry_seconds = about.expiry_seconds;
        let now = times.now.instant;
        new.ends = match about.ends {
            // It has lost its connection, and its time begins.
            _ if about.connected => {
                (about.expiry_seconds != NEVER_EXPIRES).then(|| now.plus_seconds(u64::from(about.expiry_seconds)))
            }
            ends => ends.map(|ends| times.instant(ends)),
        };
        if let Some(will) = &about.will
            && let Some(message) = messages.get(&will.message)
        {
            let delayed = now.plus_seconds(u64::from(will.delay_seconds));
            new.will_due = if about.connected { Some(delayed) } else { about.will_due.map(|due| times.instant(due)) };
            new.will = Some(will_of(will, *message));
        }
        if !about.keeps_queue {
            // What was in flight is not known, and its identifiers may still mean something to the client.
            new.last_packet_identifier = keyed_hash(self.seed, number) as u16;
        }
        let packet_identifiers = session.received.keys().filter_map(|identifier| PacketIdentifier::new(*identifier));
        for identifier in packet_identifiers {
            // More than any client may use are left over by damage.
            self.received += usize::from(new.received.push(identifier).is_ok());
        }
        let holds_message = new.will.as_ref().map(|will| will.message);
        let key = self.sessions.insert(new)?;
        if let Some(message) = holds_message {
            self.messages.retain(message);
        }
        self.session_index.insert(hash, key.index());
        restored.sessions += 1;
        for (number, subscription) in &session.subscriptions {
            match self.restore_subscription(key, *number, subscription) {
                Ok(()) => restored.subscriptions += 1,
                Err(Full) => restored.left_out += 1,
            }
        }
        for (number, delivery) in &session.deliveries {
            match self.restore_delivery(key, *number, delivery, messages) {
                Ok(()) => restored.deliveries += 1,
                Err(Full) => restored.left_out += 1,
            }
        }
        self.arm_session(key);
        Ok(())
    }

    fn restore_subscription(
        &mut self,
        key: Key<Session>,
        number: u64,
        subscription: &image::Subscription,
    ) -> Result<(), Full> {
        let bits = SubscriptionOptions::from_bits(subscription.options, ProtocolVersion::V5).map_err(|_| Full)?;
        let options = Options {
            maximum_qos: bits.maximum_qos,
            no_local: bits.no_local,
            retain_as_published: bits.retain_as_published,
            retain_handling: bits.retain_handling,
            identifier: subscription.identifier,
        };
        let target = Target { group: subscription.group.as_deref(), filter: &subscription.filter };
        crate::codec::TopicFilter::parse(target.filter).map_err(|_| Full)?;
        let session = self.sessions.get_mut(key).ok_or(Full)?;
        let (made, new) = self.subscriptions.set(key, &mut session.first_subscription, target, options)?;
        session.subscriptions += u32::from(new);
        self.subscriptions.set_kept(made, number, target.filter.len());
        Ok(())
    }

    /// Deliveries come in the order in which they were queued; those with a Packet Identifier were in flight.
    fn restore_delivery(
        &mut self,
        key: Key<Session>,
        number: u64,
        delivery: &image::Delivery,
        messages: &HashMap<u64, Key<Message>>,
    ) -> Result<(), Full> {
        let message = match delivery.message {
            Some(number) => Some(*messages.get(&number).ok_or(Full)?),
            None => None,
        };
        let qos = QoS::from_bits(delivery.flags & !RETAIN).filter(|qos| *qos > QoS::AtMostOnce).ok_or(Full)?;
        let packet_identifier = delivery.packet_identifier.and_then(PacketIdentifier::new);
        if message.is_none() && packet_identifier.is_none() || self.deliveries.free() == 0 {
            return Err(Full);
        }
        let identifiers = match delivery.identifiers.as_slice() {
            [] => None,
            some => Some(self.identifiers.insert(some.iter().copied().take(some.len().min(8)).collect())?),
        };
        let made = self.deliveries.insert(Delivery {
            message,
            packet_identifier,
            qos,
            retain: delivery.flags & RETAIN != 0,
            identifiers,
            session: key,
            held_bytes: 0,
            number,
            needs: 0,
            next: None,
        })?;
        if let Some(message) = message {
            self.messages.retain(message);
        }
        let session = self.sessions.get_mut(key).ok_or(Full)?;
        match packet_identifier {
            Some(identifier) => {
                session.last_packet_identifier = identifier.get();
                session.in_flight.push_back(&mut self.deliveries, made);
            }
            None => session.waiting.push_back(&mut self.deliveries, made),
        }
        self.count(key, made);
        Ok(())
    }
}

fn identity_of(about: &image::About) -> Result<Identity, Full> {
    Ok(Identity {
        method: AuthenticationMethod::from_number(about.method).ok_or(Full)?,
        principal: Principal::from_bytes(about.principal),
        username: match &about.username {
            Some(username) => Some(Username::try_from(username.as_str()).map_err(|_| Full)?),
            None => None,
        },
        attributes: Attributes::from_bytes(&about.attributes).map_err(|_| Full)?,
        // A credential ends connections, not sessions.
        expires: None,
    })
}

fn will_of(will: &record::Will, message: Key<Message>) -> Will {
    Will {
        message,
        qos: QoS::from_bits(will.qos).unwrap_or_default(),
        retain: will.retain,
        delay_seconds: will.delay_seconds,
        expiry_seconds: will.expiry_seconds,
    }
}
