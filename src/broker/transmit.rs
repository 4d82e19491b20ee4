//! What goes out: replies, then deliveries, encoded when the socket has room. MQTT 5 §3.3, §4.9.

use super::connections::{CODES_PER_REPLY, Connection, Phase, ReplyKind, Transmitting};
use super::messages::Message;
use super::sessions::{Delivery, Session};
use super::{Broker, QUEUE_LOW_MARK};
use crate::codec::packet::ping;
use crate::codec::{
    Acknowledgement, AcknowledgementProperties, AcknowledgementType, ConnAck, ConnAckProperties, Disconnect,
    DisconnectProperties, PacketIdentifier, Property, ProtocolVersion, QoS, ReasonCode, SubAck, UnsubAck, Writer,
    publish,
};
use crate::collections::{Full, Key};
use crate::telemetry::Cause;
use crate::time::Now;

/// What [`Broker::transmit`] put into the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmitted {
    /// Bytes to send.
    pub bytes: usize,
    /// There is more, for which the buffer had no room: call again when these are sent.
    pub more: bool,
    /// After these bytes the connection is to be closed.
    pub close: Option<Cause>,
}

/// The version that every session speaks.
const VERSION: ProtocolVersion = ProtocolVersion::V5;

/// The identifier behind the last one.
const FIRST_IDENTIFIER: PacketIdentifier = match PacketIdentifier::new(1) {
    Some(identifier) => identifier,
    None => unreachable!(),
};

/// The first reply cannot go out yet.
enum Held {
    /// The buffer has no room for it.
    NoRoom,
    /// It waits for a subscriber.
    Gated,
}

impl Broker {
    /// Encodes into `out` what the connection has to say, as much as fits. `out` must hold the largest reply: 4 KiB do.
    pub fn transmit(&mut self, now: Now, key: Key<Connection>, out: &mut [u8]) -> Transmitted {
        let mut written = 0;
        let mut more = self.continue_publish(key, out, &mut written);
        if !more {
            more = self.transmit_replies(key, out, &mut written);
        }
        if !more {
            more = self.transmit_deliveries(now, key, out, &mut written);
        }
        let close = match self.connections.get(key).map(|connection| connection.phase) {
            Some(Phase::Closing(cause)) if !more => Some(cause),
            _ => None,
        };
        Transmitted { bytes: written, more, close }
    }

    /// Goes on with a PUBLISH that was begun. Returns whether it is still not complete.
    fn continue_publish(&mut self, key: Key<Connection>, out: &mut [u8], written: &mut usize) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let Some(transmitting) = connection.transmitting.as_mut() else { return false };
        let rest = out.get_mut(*written..).unwrap_or_default();
        *written += transmitting.fill(&self.messages, rest);
        if transmitting.sent < transmitting.total {
            return true;
        }
        let (delivery, session) = (transmitting.delivery, connection.session);
        connection.transmitting = None;
        self.sent(session, delivery);
        false
    }

    /// A delivery has left: with QoS 0 it is done, with QoS 1 it awaits PUBACK.
    fn sent(&mut self, session: Option<Key<Session>>, key: Key<Delivery>) {
        self.telemetry.counters.publishes_sent += 1;
        let Some(delivery) = self.deliveries.get(key) else { return };
        if let Some(message) = self.messages.get(delivery.message) {
            self.telemetry.counters.payload_bytes_sent += u64::from(message.payload_bytes);
        }
        let session = session.and_then(|session| self.sessions.get_mut(session));
        match session {
            Some(session) if delivery.qos > QoS::AtMostOnce => session.in_flight.push_back(&mut self.deliveries, key),
            _ => self.drop_delivery(key),
        }
    }

    fn drop_delivery(&mut self, key: Key<Delivery>) {
        if let Some(delivery) = self.deliveries.remove(key) {
            self.messages.release(delivery.message);
        }
    }

    /// Returns whether a reply is left for which the buffer has no room.
    fn transmit_replies(&mut self, key: Key<Connection>, out: &mut [u8], written: &mut usize) -> bool {
        loop {
            let Some(connection) = self.connections.get(key) else { return false };
            let (front, acknowledgement) = match connection.acknowledgements.front() {
                Some(front) if !connection.gated => (front, true),
                _ => match connection.replies.front() {
                    Some(front) => (front, false),
                    None => return false,
                },
            };
            let Some(kind) = self.replies.get(front).map(|reply| reply.kind) else { return false };
            let rest = out.get_mut(*written..).unwrap_or_default();
            match self.encode_reply(key, kind, rest) {
                Ok(bytes) => {
                    *written += bytes;
                    self.pop_reply(key, acknowledgement);
                }
                Err(Held::NoRoom) => return true,
                Err(Held::Gated) => self.gate(key),
            }
        }
    }

    fn pop_reply(&mut self, key: Key<Connection>, acknowledgement: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let queue = if acknowledgement { &mut connection.acknowledgements } else { &mut connection.replies };
        let codes = match queue.pop_front(&mut self.replies).and_then(|reply| self.replies.remove(reply)) {
            Some(reply) => match reply.kind {
                ReplyKind::SubscriptionAck { codes, .. } => usize::from(codes).div_ceil(CODES_PER_REPLY),
                _ => 0,
            },
            None => 0,
        };
        for _ in 0..codes {
            if let Some(reply) = queue.pop_front(&mut self.replies) {
                self.replies.remove(reply);
            }
        }
        self.feed_starved();
    }

    fn gate(&mut self, key: Key<Connection>) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.gated
        {
            connection.gated = true;
            self.gated.push(key);
        }
    }

    fn encode_reply(&self, key: Key<Connection>, kind: ReplyKind, out: &mut [u8]) -> Result<usize, Held> {
        let mut writer = Writer::new(out);
        let encoded = match kind {
            ReplyKind::ConnAckRefused(ReasonCode::UnsupportedProtocolVersion) => {
                // For clients of MQTT 3.1.1, whose return code 1 says the same; MQTT 5 clients do not get here.
                refusal(ReasonCode::UnsupportedProtocolVersion).encode(ProtocolVersion::V311, &mut writer)
            }
            ReplyKind::ConnAckRefused(reason) => refusal(reason).encode(VERSION, &mut writer),
            ReplyKind::ConnAckAccepted { assigned, expiry_lowered, server_keep_alive } => {
                let session = self.connections.get(key).and_then(|connection| connection.session);
                let identifier = session.and_then(|key| self.sessions.get(key)).map(|s| s.client_identifier.as_str());
                let properties = ConnAckProperties {
                    session_expiry_interval: expiry_lowered.then_some(0),
                    receive_maximum: core::num::NonZeroU16::new(self.limits.receive_maximum),
                    maximum_qos: Some(QoS::AtLeastOnce),
                    retain_available: Some(false),
                    maximum_packet_size: core::num::NonZeroU32::new(self.limits.packet_bytes),
                    assigned_client_identifier: identifier.filter(|_| assigned),
                    subscription_identifiers_available: Some(false),
                    server_keep_alive,
                    ..ConnAckProperties::default()
                };
                ConnAck { session_present: false, reason_code: ReasonCode::Success, properties }
                    .encode(VERSION, &mut writer)
            }
            ReplyKind::PubAck { packet_identifier, reason, gate } => {
                if gate.is_some_and(|session| self.is_behind(session)) {
                    return Err(Held::Gated);
                }
                Acknowledgement::new(packet_identifier, reason).encode(
                    AcknowledgementType::PubAck,
                    VERSION,
                    &mut writer,
                )
            }
            ReplyKind::SubscriptionAck { packet_identifier, codes, unsubscribe } => {
                let codes = self.codes_behind(key, codes);
                let properties = AcknowledgementProperties::default();
                if unsubscribe {
                    UnsubAck::encode_parts(packet_identifier, &properties, codes, VERSION, &mut writer)
                } else {
                    SubAck::encode_parts(packet_identifier, &properties, codes, VERSION, &mut writer)
                }
            }
            // Taken together with the acknowledgement before it.
            ReplyKind::Codes(_) => Ok(()),
            ReplyKind::PingResp => ping::encode_response(&mut writer),
            ReplyKind::Disconnect(reason_code) => {
                Disconnect { reason_code, properties: DisconnectProperties::default() }.encode(VERSION, &mut writer)
            }
        };
        match encoded {
            Ok(()) => Ok(writer.len()),
            Err(_) => Err(Held::NoRoom),
        }
    }

    /// The `count` reason codes in the replies behind the first one of the connection's queue.
    fn codes_behind(&self, key: Key<Connection>, count: u16) -> impl ExactSizeIterator<Item = ReasonCode> + '_ {
        let first = self.connections.get(key).and_then(|connection| connection.replies.front());
        let mut at = first.and_then(|key| self.replies.get(key)).and_then(|reply| reply.next);
        (0..usize::from(count)).map(move |index| {
            let place = index % CODES_PER_REPLY;
            let Some(reply) = at.and_then(|key| self.replies.get(key)) else {
                return ReasonCode::UnspecifiedError;
            };
            if place == CODES_PER_REPLY - 1 {
                at = reply.next;
            }
            match reply.kind {
                ReplyKind::Codes(codes) => codes.get(place).copied(),
                _ => None,
            }
            .unwrap_or(ReasonCode::UnspecifiedError)
        })
    }

    /// Returns whether a delivery is left for which the buffer has no room.
    fn transmit_deliveries(&mut self, now: Now, key: Key<Connection>, out: &mut [u8], written: &mut usize) -> bool {
        loop {
            let Some(connection) = self.connections.get(key) else { return false };
            let Some(session_key) = connection.session else { return false };
            if connection.phase != Phase::Connected {
                return false;
            }
            let Some(session) = self.sessions.get(session_key) else { return false };
            let Some(front) = session.waiting.front() else { break self.caught_up(session_key) };
            let Some(delivery) = self.deliveries.get(front) else { return false };
            let acknowledged = delivery.qos > QoS::AtMostOnce;
            if acknowledged && !session.may_send(connection.receive_maximum, &self.deliveries) {
                // [MQTT-4.9.0-2]; its PUBACK makes the connection ready again.
                break self.caught_up(session_key);
            }
            if out.len().saturating_sub(*written) < super::connections::PUBLISH_FRONT_BYTES_MAX {
                return true;
            }
            let Some(message) = self.messages.get(delivery.message) else { return false };
            let expired = message.expires.is_some_and(|expires| expires <= now.instant);
            let (transmitting, total) = match self.begin_publish(now, front, delivery, message, session) {
                Ok(begun) if !expired && begun.total <= connection.maximum_packet_bytes as usize => {
                    let total = begun.total;
                    (Some(begun), total)
                }
                _ => (None, 0),
            };
            let Some(mut transmitting) = transmitting else {
                // [MQTT-3.3.2-5], [MQTT-3.1.2-25]: such a message is treated as if it had been delivered.
                let counter =
                    if expired { &mut self.telemetry.counters.expired } else { &mut self.telemetry.counters.too_large };
                *counter += 1;
                self.take_waiting(session_key);
                self.drop_delivery(front);
                continue;
            };
            self.take_waiting(session_key);
            if acknowledged {
                self.give_identifier(session_key, front);
            }
            let rest = out.get_mut(*written..).unwrap_or_default();
            *written += transmitting.fill(&self.messages, rest);
            if transmitting.sent == total {
                self.sent(Some(session_key), front);
            } else {
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.transmitting = Some(transmitting);
                }
                return true;
            }
        }
    }

    fn take_waiting(&mut self, key: Key<Session>) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.waiting.pop_front(&mut self.deliveries);
        }
    }

    fn give_identifier(&mut self, session: Key<Session>, delivery: Key<Delivery>) {
        if let Some(session) = self.sessions.get_mut(session) {
            let identifier = session.next_packet_identifier();
            session.last_packet_identifier = identifier.get();
            if let Some(delivery) = self.deliveries.get_mut(delivery) {
                delivery.packet_identifier = Some(identifier);
            }
        }
    }

    /// Lets the publishers go on that waited for this session, when little is left in its queue. Always `false`.
    fn caught_up(&mut self, key: Key<Session>) -> bool {
        if let Some(session) = self.sessions.get_mut(key)
            && session.behind
            && session.waiting.len() <= QUEUE_LOW_MARK
        {
            session.behind = false;
            self.release_gated();
        }
        false
    }

    fn begin_publish(
        &self,
        now: Now,
        key: Key<Delivery>,
        delivery: &Delivery,
        message: &Message,
        session: &Session,
    ) -> Result<Transmitting, Full> {
        let packet_identifier = (delivery.qos > QoS::AtMostOnce).then(|| session.next_packet_identifier());
        // The interval received minus the time it waited here. [MQTT-3.3.2-6]
        let expiry = message.expires.map(|expires| expires.milliseconds_since(now.instant).div_ceil(1_000));
        let expiry_bytes = if expiry.is_some() { 5 } else { 0 };
        let head = publish::Head {
            dup: false,
            qos: delivery.qos,
            retain: false,
            topic_bytes: usize::from(message.topic_bytes),
            packet_identifier,
            property_bytes: message.property_bytes as usize + expiry_bytes,
            payload_bytes: message.payload_bytes as usize,
        };
        let mut front = [0; super::connections::PUBLISH_FRONT_BYTES_MAX];
        let mut writer = Writer::new(&mut front);
        head.encode_before_topic(VERSION, &mut writer).map_err(|_| Full)?;
        let front = heapless::Vec::from_slice(writer.written()).map_err(|_| Full)?;
        let mut middle = [0; super::connections::PUBLISH_MIDDLE_BYTES_MAX];
        let mut writer = Writer::new(&mut middle);
        head.encode_after_topic(VERSION, &mut writer).map_err(|_| Full)?;
        if let Some(seconds) = expiry {
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            Property::MessageExpiryInterval(seconds).encode(&mut writer).map_err(|_| Full)?;
        }
        let middle = heapless::Vec::from_slice(writer.written()).map_err(|_| Full)?;
        let mark = self.messages.reader(delivery.message).ok_or(Full)?.mark();
        let topic_bytes = usize::from(message.topic_bytes);
        let stored = topic_bytes + message.property_bytes as usize + message.payload_bytes as usize;
        let total = front.len() + middle.len() + stored;
        Ok(Transmitting { delivery: key, message: delivery.message, front, middle, topic_bytes, total, sent: 0, mark })
    }
}

impl Session {
    /// Whether one more delivery may be in flight: the client's Receive Maximum allows it, and the identifier that comes
    /// next is free. Identifiers are given in turn, so that only the oldest in flight can be in the way.
    fn may_send(&self, receive_maximum: u16, deliveries: &crate::collections::Slab<Delivery>) -> bool {
        let oldest = self.in_flight.front().and_then(|key| deliveries.get(key));
        self.in_flight.len() < u32::from(receive_maximum)
            && oldest.is_none_or(|oldest| oldest.packet_identifier != Some(self.next_packet_identifier()))
    }

    /// The identifier behind the one used last. [MQTT-2.2.1-3]
    fn next_packet_identifier(&self) -> PacketIdentifier {
        PacketIdentifier::new(self.last_packet_identifier.wrapping_add(1)).unwrap_or(FIRST_IDENTIFIER)
    }
}

impl Transmitting {
    /// Copies the next bytes of the packet into `out`; returns how many.
    fn fill(&mut self, messages: &super::messages::MessagePool, out: &mut [u8]) -> usize {
        let mut filled = 0;
        let topic_end = self.front.len() + self.topic_bytes;
        let middle_end = topic_end + self.middle.len();
        while filled < out.len() && self.sent < self.total {
            let rest = out.get_mut(filled..).unwrap_or_default();
            let taken = if self.sent < self.front.len() {
                copy(self.front.get(self.sent..).unwrap_or_default(), rest)
            } else if self.sent < topic_end {
                self.read(messages, rest, topic_end)
            } else if self.sent < middle_end {
                copy(self.middle.get(self.sent - topic_end..).unwrap_or_default(), rest)
            } else {
                self.read(messages, rest, self.total)
            };
            if taken == 0 {
                break;
            }
            self.sent += taken;
            filled += taken;
        }
        filled
    }

    fn read(&mut self, messages: &super::messages::MessagePool, out: &mut [u8], end: usize) -> usize {
        let taken = out.len().min(end - self.sent);
        let mut reader = messages.reader_at(self.mark);
        reader.read(out.get_mut(..taken).unwrap_or_default());
        self.mark = reader.mark();
        taken
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let taken = from.len().min(to.len());
    for (to, from) in to.iter_mut().zip(from).take(taken) {
        *to = *from;
    }
    taken
}

fn refusal(reason_code: ReasonCode) -> ConnAck<'static> {
    ConnAck { session_present: false, reason_code, properties: ConnAckProperties::default() }
}
