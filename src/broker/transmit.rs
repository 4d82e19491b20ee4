//! What goes out: replies, then deliveries, encoded when the socket has room. MQTT 5 §3.3, §4.9.

use super::connections::{
    CODES_PER_REPLY, Connection, OWN_PROPERTY_BYTES_MAX, PUBLISH_MIDDLE_BYTES_MAX, Phase, ReplyKind, TOPIC_ALIASES_MAX,
    TopicHash, Transmitting,
};
use super::messages::{Mark, Message, MessagePool};
use super::sessions::{Delivery, Session};
use super::{Broker, GATE_MILLISECONDS, QUEUE_LOW_MARK};
use crate::codec::packet::ping;
use crate::codec::{
    Acknowledgement, AcknowledgementProperties, AcknowledgementType, Auth, AuthProperties, ConnAck, ConnAckProperties,
    Disconnect, DisconnectProperties, PacketIdentifier, Property, ProtocolVersion, QoS, ReasonCode, SubAck, UnsubAck,
    Writer, publish,
};
use crate::collections::{Full, Key};
use crate::telemetry::Cause;
use crate::time::{Instant, Now};
use core::num::{NonZeroU16, NonZeroU32};

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

/// The identifier behind the last one.
const FIRST_IDENTIFIER: PacketIdentifier = match PacketIdentifier::new(1) {
    Some(identifier) => identifier,
    None => unreachable!(),
};

/// Deliveries behind one that waits for the disk among which one of QoS 0 is looked for.
const OVERTAKEN_MAX: u32 = 1_024;

/// An outgoing PUBLISH: what it is made of.
struct Outgoing {
    message: Key<Message>,
    version: ProtocolVersion,
    head: publish::Head,
    /// Properties of this sending.
    own: heapless::Vec<u8, OWN_PROPERTY_BYTES_MAX>,
    /// Stored bytes between topic and payload that are not sent: properties, to a client of MQTT 3.1.1.
    skipped_bytes: usize,
    /// Bytes of the whole packet; `usize::MAX` when no packet can hold it.
    total: usize,
    /// Where the stored bytes begin that are sent.
    mark: Mark,
    /// The topic, where it gets a new alias by this packet.
    new_alias: Option<TopicHash>,
}

/// What goes out next beside deliveries.
enum NextReply {
    /// PINGRESP.
    Pong,
    /// The first of a queue of replies.
    Queued {
        /// Of the queue of acknowledgements.
        acknowledgement: bool,
        /// What it says.
        kind: ReplyKind,
    },
}

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
        if let Some(session) = self.connections.get(key).and_then(|connection| connection.session) {
            self.refresh(session);
        }
        let mut more = self.continue_publish(key, out, &mut written);
        if self.connections.get(key).is_some_and(Connection::awaits_judgement) {
            self.telemetry.counters.bytes_sent += written as u64;
            return Transmitted { bytes: written, more, close: None };
        }
        if !more {
            more = self.transmit_replies(now.instant, key, out, &mut written);
        }
        if !more {
            more = self.transmit_deliveries(now, key, out, &mut written);
        }
        let close = match self.connections.get(key).map(|connection| connection.phase) {
            Some(Phase::Closing(cause)) if !more => Some(cause),
            _ => None,
        };
        self.telemetry.counters.bytes_sent += written as u64;
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
        let message = transmitting.message;
        connection.transmitting = None;
        self.messages.release(message);
        false
    }

    /// Returns whether a reply is left for which the buffer has no room.
    fn transmit_replies(&mut self, now: Instant, key: Key<Connection>, out: &mut [u8], written: &mut usize) -> bool {
        loop {
            let Some(next) = self.next_reply(key) else { return false };
            let rest = out.get_mut(*written..).unwrap_or_default();
            let encoded = match next {
                NextReply::Pong => {
                    let mut writer = Writer::new(rest);
                    ping::encode_response(&mut writer).map(|()| writer.len()).map_err(|_| Held::NoRoom)
                }
                NextReply::Queued { kind, .. } => self.encode_reply(now, key, kind, rest),
            };
            match encoded {
                Ok(bytes) => {
                    *written += bytes;
                    self.telemetry.counters.packets_sent += 1;
                    match next {
                        NextReply::Queued { acknowledgement, kind } => {
                            self.pop_reply(key, acknowledgement);
                            self.observe_reply(now, key, kind);
                        }
                        NextReply::Pong => {
                            if let Some(connection) = self.connections.get_mut(key) {
                                connection.pongs = connection.pongs.saturating_sub(1);
                            }
                        }
                    }
                }
                Err(Held::NoRoom) => return true,
                Err(Held::Gated) => self.gate(now, key),
            }
        }
    }

    /// A reply has been given to the socket: how long it took, and for CONNACK, that others may follow.
    fn observe_reply(&mut self, now: Instant, key: Key<Connection>, kind: ReplyKind) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match kind {
            ReplyKind::ConnAckAccepted { .. } => {
                connection.greeted = true;
                self.telemetry.durations.connect.observe(now.milliseconds_since(connection.opened));
            }
            ReplyKind::PublishAck { packet_identifier, .. } => {
                if let Some((_, since)) = connection.followed.take_if(|(followed, _)| *followed == packet_identifier) {
                    self.telemetry.durations.acknowledge.observe(now.milliseconds_since(since));
                }
            }
            ReplyKind::ConnAckRefused(_)
            | ReplyKind::PubRel(..)
            | ReplyKind::PubComp(..)
            | ReplyKind::SubscriptionAck { .. }
            | ReplyKind::Codes(_)
            | ReplyKind::Auth(_)
            | ReplyKind::Disconnect(_) => {}
        }
    }

    /// The reply that goes next. CONNACK goes first. [MQTT-3.2.0-1] Of the others, acknowledgements of PUBLISH packets keep
    /// their order, and so do the rest; PINGRESP waits for none of them.
    fn next_reply(&mut self, key: Key<Connection>) -> Option<NextReply> {
        let connection = self.connections.get(key)?;
        let (greeted, closing) = (connection.greeted, matches!(connection.phase, Phase::Closing(_)));
        if greeted && connection.pongs > 0 && !closing {
            return Some(NextReply::Pong);
        }
        let mut held = false;
        for acknowledgement in [true, false] {
            loop {
                let connection = self.connections.get(key)?;
                let front = match acknowledgement {
                    true if connection.gated || !greeted => None,
                    true => connection.acknowledgements.front(),
                    false => connection.replies.front(),
                };
                let Some((kind, needs)) = front.and_then(|front| self.replies.get(front)).map(|r| (r.kind, r.needs))
                else {
                    break;
                };
                if self.is_safe(needs) {
                    return Some(NextReply::Queued { acknowledgement, kind });
                }
                if !closing {
                    held = true;
                    break;
                }
                // The connection ends before it is safe to say so: it is not said.
                self.pop_reply(key, acknowledgement);
                if matches!(kind, ReplyKind::ConnAckAccepted { .. }) {
                    // Nor is anything else, to a client that has had no CONNACK.
                    self.drop_replies(key);
                    return None;
                }
            }
        }
        if held {
            self.hold(key);
        }
        None
    }

    fn drop_replies(&mut self, key: Key<Connection>) {
        while self.connections.get(key).is_some_and(|connection| connection.replies.front().is_some()) {
            self.pop_reply(key, false);
        }
    }

    fn pop_reply(&mut self, key: Key<Connection>, acknowledgement: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let queue = if acknowledgement { &mut connection.acknowledgements } else { &mut connection.replies };
        let codes = match queue.pop_front(&mut self.replies).and_then(|reply| self.replies.remove(reply)) {
            Some(reply) => {
                connection.unacknowledged -= u32::from(reply.kind.ends_a_publish());
                match reply.kind {
                    ReplyKind::SubscriptionAck { codes, .. } => usize::from(codes).div_ceil(CODES_PER_REPLY),
                    _ => 0,
                }
            }
            None => 0,
        };
        for _ in 0..codes {
            if let Some(reply) = queue.pop_front(&mut self.replies) {
                self.replies.remove(reply);
            }
        }
        self.feed_starved();
    }

    fn gate(&mut self, now: Instant, key: Key<Connection>) {
        self.gate_ends.get_or_insert(now.plus_milliseconds(GATE_MILLISECONDS));
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.gated
        {
            connection.gated = true;
            self.gated.push(key);
        }
    }

    fn encode_reply(&self, now: Instant, key: Key<Connection>, kind: ReplyKind, out: &mut [u8]) -> Result<usize, Held> {
        let Some(connection) = self.connections.get(key) else { return Ok(0) };
        let version = connection.version;
        let mut writer = Writer::new(out);
        let encoded = match kind {
            ReplyKind::ConnAckRefused(reason_code) => {
                let properties =
                    ConnAckProperties { reason_string: reason_string(connection, reason_code), ..Default::default() };
                ConnAck { session_present: false, reason_code, properties }.encode(version, &mut writer)
            }
            ReplyKind::ConnAckAccepted {
                assigned,
                session_present,
                expiry_seconds,
                server_keep_alive,
                response_information,
            } => {
                let identifier =
                    connection.session.and_then(|key| self.sessions.get(key)).map(|s| s.client_identifier.as_str());
                let properties = ConnAckProperties {
                    session_expiry_interval: expiry_seconds,
                    receive_maximum: NonZeroU16::new(connection.receive_maximum_announced),
                    maximum_packet_size: NonZeroU32::new(connection.packet_bytes_max),
                    topic_alias_maximum: Some(TOPIC_ALIASES_MAX),
                    assigned_client_identifier: identifier.filter(|_| assigned),
                    response_information: self.limits.response_information.as_deref().filter(|_| response_information),
                    server_keep_alive,
                    authentication_method: authentication_method(connection),
                    ..ConnAckProperties::default()
                };
                ConnAck { session_present, reason_code: ReasonCode::Success, properties }.encode(version, &mut writer)
            }
            ReplyKind::PublishAck { exactly_once, packet_identifier, reason, gate } => {
                if gate.is_some_and(|session| self.is_behind(session, now)) {
                    return Err(Held::Gated);
                }
                let kind = if exactly_once { AcknowledgementType::PubRec } else { AcknowledgementType::PubAck };
                acknowledgement(connection, packet_identifier, reason).encode(kind, version, &mut writer)
            }
            ReplyKind::PubRel(packet_identifier, reason) => acknowledgement(connection, packet_identifier, reason)
                .encode(AcknowledgementType::PubRel, version, &mut writer),
            ReplyKind::PubComp(packet_identifier, reason) => acknowledgement(connection, packet_identifier, reason)
                .encode(AcknowledgementType::PubComp, version, &mut writer),
            ReplyKind::SubscriptionAck { packet_identifier, codes, unsubscribe } => {
                let codes = self.codes_behind(key, codes);
                let properties = AcknowledgementProperties::default();
                if unsubscribe {
                    UnsubAck::encode_parts(packet_identifier, &properties, codes, version, &mut writer)
                } else {
                    SubAck::encode_parts(packet_identifier, &properties, codes, version, &mut writer)
                }
            }
            // Taken together with the acknowledgement before it.
            ReplyKind::Codes(_) => Ok(()),
            ReplyKind::Auth(reason_code) => {
                let properties = AuthProperties {
                    authentication_method: authentication_method(connection),
                    ..AuthProperties::default()
                };
                Auth { reason_code, properties }.encode(version, &mut writer)
            }
            ReplyKind::Disconnect(reason_code) => {
                let properties = DisconnectProperties {
                    reason_string: reason_string(connection, reason_code),
                    ..DisconnectProperties::default()
                };
                Disconnect { reason_code, properties }.encode(version, &mut writer)
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
            if connection.phase != Phase::Connected || !connection.greeted {
                return false;
            }
            let Some(session) = self.sessions.get(session_key) else { return false };
            // What was in flight when the client went comes first, in the order of the first time. [MQTT-4.6.0-1]
            let (front, again) = match (session.resend, session.waiting.front()) {
                (Some(front), _) => (front, true),
                (None, Some(front)) => (front, false),
                (None, None) => break self.caught_up(session_key),
            };
            // What was sent before was on the disk then.
            let front = if again { Some(front) } else { self.unless_held(key, session_key, front) };
            let Some(front) = front else { break self.caught_up(session_key) };
            let Some(connection) = self.connections.get(key) else { return false };
            let Some(session) = self.sessions.get(session_key) else { return false };
            let Some(delivery) = self.deliveries.get(front) else { return false };
            let counts = delivery.qos > QoS::AtMostOnce && delivery.message.is_some();
            let full = connection.in_flight >= connection.receive_maximum
                || !again && delivery.packet_identifier.is_none() && !session.has_free_identifier(&self.deliveries);
            if counts && full {
                // [MQTT-4.9.0-2]; its acknowledgement makes the connection ready again.
                break self.caught_up(session_key);
            }
            if out.len().saturating_sub(*written) < super::connections::PUBLISH_FRONT_BYTES_MAX {
                return true;
            }
            let Some(message_key) = delivery.message else {
                // The receiver has the message already: what is missing is its PUBCOMP. [MQTT-4.4.0-1]
                self.release_again(key, session_key, front);
                match self.transmit_replies(now.instant, key, out, written) {
                    true => return true,
                    false => continue,
                }
            };
            let Some(message) = self.messages.get(message_key) else { return false };
            // A message that was sent once is owed, however old it is. [MQTT-3.3.2-5]
            let expired = !again && message.is_expired(now.instant);
            let outgoing = self.outgoing(now, connection, session, delivery, (message_key, message), again);
            let outgoing = outgoing.ok().filter(|it| !expired && it.total <= connection.maximum_packet_bytes as usize);
            let Some(outgoing) = outgoing else {
                // [MQTT-3.3.2-5], [MQTT-3.1.2-25]: such a message is treated as if it had been delivered.
                let counter =
                    if expired { &mut self.telemetry.counters.expired } else { &mut self.telemetry.counters.too_large };
                *counter += 1;
                self.give_up(session_key, front, again);
                continue;
            };
            let payload_bytes = message.payload_bytes;
            let rest = out.get_mut(*written..).unwrap_or_default();
            let put = match rest.get_mut(..outgoing.total) {
                Some(whole) => outgoing.write(&self.messages, whole).map(|()| (outgoing.total, None)),
                None => outgoing
                    .begin()
                    .map(|mut transmitting| (transmitting.fill(&self.messages, rest), Some(transmitting))),
            };
            let Ok((put, unfinished)) = put else {
                // Its size was found out from the same parts, so that they fit.
                self.telemetry.counters.too_large += 1;
                self.give_up(session_key, front, again);
                continue;
            };
            *written += put;
            self.telemetry.counters.publishes_sent += 1;
            self.telemetry.counters.packets_sent += 1;
            self.telemetry.counters.payload_bytes_sent += u64::from(payload_bytes);
            let row = self.telemetry.categories.row(connection.category);
            row.publishes_sent += 1;
            row.payload_bytes_sent += u64::from(payload_bytes);
            let is_unfinished = unfinished.is_some();
            if let Some(connection) = self.connections.get_mut(key) {
                connection.in_flight += u16::from(counts);
                if let Some(hash) = outgoing.new_alias {
                    // Room was checked when the alias was chosen.
                    let _ = connection.aliases_out.push(hash);
                }
                if is_unfinished {
                    self.messages.retain(message_key);
                    connection.transmitting = unfinished;
                }
            }
            self.has_been_sent(session_key, front, again);
            if is_unfinished {
                return true;
            }
        }
    }

    /// A delivery has been given to the connection: with QoS 0 it is done, else it awaits its acknowledgement.
    fn has_been_sent(&mut self, session_key: Key<Session>, key: Key<Delivery>, again: bool) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if again {
            session.resend = self.deliveries.get(key).and_then(|delivery| delivery.next);
            return;
        }
        let Some(delivery) = self.deliveries.get_mut(key) else { return };
        if delivery.qos == QoS::AtMostOnce {
            // It may have overtaken others that wait for the disk.
            session.waiting.take_first(&mut self.deliveries, |delivery| delivery.qos == QoS::AtMostOnce);
            return self.drop_delivery(key);
        }
        session.waiting.pop_front(&mut self.deliveries);
        let is_new = match self.deliveries.get_mut(key) {
            Some(delivery) if delivery.packet_identifier.is_none() => {
                let identifier = session.next_packet_identifier();
                delivery.packet_identifier = Some(identifier);
                session.last_packet_identifier = identifier.get();
                true
            }
            _ => false,
        };
        session.in_flight.push_back(&mut self.deliveries, key);
        if is_new {
            self.keep_sent(key);
        }
    }

    /// The delivery that may go: this one, the first, or one of QoS 0 behind it if it waits for the disk. `None`: the
    /// connection is named again when the disk has it.
    fn unless_held(
        &mut self,
        key: Key<Connection>,
        session_key: Key<Session>,
        front: Key<Delivery>,
    ) -> Option<Key<Delivery>> {
        let delivery = self.deliveries.get(front)?;
        let (qos, needs, number) = (delivery.qos, delivery.needs, delivery.number);
        if number == 0 || qos == QoS::AtMostOnce || delivery.message.is_none() {
            return Some(front);
        }
        if qos == QoS::ExactlyOnce && delivery.packet_identifier.is_none() {
            self.assign_identifiers(key, session_key);
        }
        let needs = self.deliveries.get(front).map_or(needs, |delivery| delivery.needs);
        let is_pressed = self.log.as_ref().is_some_and(|log| log.is_pressed());
        if !is_pressed && (qos != QoS::ExactlyOnce || self.is_safe(needs)) {
            return Some(front);
        }
        self.hold(key);
        let session = self.sessions.get(session_key)?;
        let mut at = session.waiting.front();
        for _ in 0..OVERTAKEN_MAX {
            let delivery = self.deliveries.get(at?)?;
            if delivery.qos == QoS::AtMostOnce {
                return at;
            }
            at = delivery.next;
        }
        None
    }

    /// Gives Packet Identifiers to the deliveries that the client's window has room for, so that their records go to the disk
    /// together.
    fn assign_identifiers(&mut self, key: Key<Connection>, session_key: Key<Session>) {
        let Some(connection) = self.connections.get(key) else { return };
        let mut room = connection.receive_maximum.saturating_sub(connection.in_flight);
        let mut at = self.sessions.get(session_key).and_then(|session| session.waiting.front());
        while let Some((key, delivery)) = at.and_then(|key| Some((key, self.deliveries.get(key)?))) {
            at = delivery.next;
            if delivery.qos == QoS::AtMostOnce {
                continue;
            }
            if room == 0 {
                return;
            }
            room -= 1;
            if delivery.packet_identifier.is_some() {
                continue;
            }
            let Some(session) = self.sessions.get_mut(session_key) else { return };
            if !session.has_free_identifier(&self.deliveries) {
                return;
            }
            let identifier = session.next_packet_identifier();
            session.last_packet_identifier = identifier.get();
            if let Some(delivery) = self.deliveries.get_mut(key) {
                delivery.packet_identifier = Some(identifier);
            }
            self.keep_sent(key);
        }
    }

    /// A delivery that cannot be sent leaves its queue.
    fn give_up(&mut self, session_key: Key<Session>, key: Key<Delivery>, again: bool) {
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if again {
            session.resend = self.deliveries.get(key).and_then(|delivery| delivery.next);
            let identifier = self.deliveries.get(key).and_then(|delivery| delivery.packet_identifier);
            session.in_flight.take_first(&mut self.deliveries, |delivery| delivery.packet_identifier == identifier);
        } else if self.deliveries.get(key).is_some_and(|delivery| delivery.qos == QoS::AtMostOnce) {
            session.waiting.take_first(&mut self.deliveries, |delivery| delivery.qos == QoS::AtMostOnce);
        } else {
            session.waiting.pop_front(&mut self.deliveries);
        }
        self.finish_delivery(key);
    }

    /// Queues PUBREL for a delivery whose PUBREC came before the client went.
    fn release_again(&mut self, key: Key<Connection>, session_key: Key<Session>, delivery_key: Key<Delivery>) {
        let Some(delivery) = self.deliveries.get(delivery_key) else { return };
        let (identifier, next, needs) = (delivery.packet_identifier, delivery.next, delivery.needs);
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.resend = next;
        }
        if let Some(identifier) = identifier
            && self.reply_after(key, ReplyKind::PubRel(identifier, ReasonCode::Success), needs).is_err()
        {
            self.condemn(key, Cause::QueueFull, ReasonCode::QuotaExceeded);
        }
    }

    /// Lets the publishers go on that waited for this session, when little is left in its queue. Always `false`.
    fn caught_up(&mut self, key: Key<Session>) -> bool {
        if let Some(session) = self.sessions.get_mut(key)
            && session.behind_since.is_some()
            && session.waiting.len() <= QUEUE_LOW_MARK
        {
            session.behind_since = None;
            self.release_gated();
        }
        self.resume_replays(key);
        false
    }

    /// An outgoing PUBLISH before anything of it is written.
    fn outgoing(
        &self,
        now: Now,
        connection: &Connection,
        session: &Session,
        delivery: &Delivery,
        (message_key, message): (Key<Message>, &Message),
        again: bool,
    ) -> Result<Outgoing, Full> {
        let version = connection.version;
        let identifier = delivery.packet_identifier.or_else(|| Some(session.next_packet_identifier()));
        let v5 = version == ProtocolVersion::V5;
        // The interval received minus the time it waited here. [MQTT-3.3.2-6]
        let expiry = message.expires.filter(|_| v5).map(|at| at.milliseconds_since(now.instant).div_ceil(1_000));
        let (alias, new_alias) = self.choose_alias(connection, message_key, message);
        let known_alias = alias.is_some() && new_alias.is_none();
        let identifiers = delivery.identifiers.filter(|_| v5).and_then(|key| self.identifiers.get(key));
        let mut own = heapless::Vec::new();
        if expiry.is_some() || alias.is_some() || identifiers.is_some() {
            let mut scratch = [0; OWN_PROPERTY_BYTES_MAX];
            let mut properties = Writer::new(&mut scratch);
            if let Some(seconds) = expiry {
                let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
                Property::MessageExpiryInterval(seconds).encode(&mut properties).map_err(|_| Full)?;
            }
            if let Some(alias) = alias {
                Property::TopicAlias(alias).encode(&mut properties).map_err(|_| Full)?;
            }
            for identifier in identifiers.into_iter().flatten().filter_map(|identifier| NonZeroU32::new(*identifier)) {
                Property::SubscriptionIdentifier(identifier).encode(&mut properties).map_err(|_| Full)?;
            }
            own.extend_from_slice(properties.written()).map_err(|_| Full)?;
        }
        let stored_properties = if v5 { message.property_bytes as usize } else { 0 };
        let topic_bytes = if known_alias { 0 } else { usize::from(message.topic_bytes) };
        let head = publish::Head {
            dup: again,
            qos: delivery.qos,
            retain: delivery.retain,
            topic_bytes,
            packet_identifier: identifier.filter(|_| delivery.qos > QoS::AtMostOnce),
            property_bytes: stored_properties + own.len(),
            payload_bytes: message.payload_bytes as usize,
        };
        let mut reader = self.messages.reader(message_key).ok_or(Full)?;
        if known_alias {
            reader.skip(usize::from(message.topic_bytes));
        }
        let skipped_bytes = if v5 { 0 } else { message.property_bytes as usize };
        let (total, mark) = (head.encoded_bytes(version), reader.mark());
        Ok(Outgoing { message: message_key, version, head, own, skipped_bytes, total, mark, new_alias })
    }

    /// The alias of a message's topic on a connection, and the topic where it is a new one. The first topics get one;
    /// aliases are never taken back.
    fn choose_alias(
        &self,
        connection: &Connection,
        key: Key<Message>,
        message: &Message,
    ) -> (Option<NonZeroU16>, Option<TopicHash>) {
        // Below this an alias would save nothing.
        if connection.aliases_out_max == 0 || message.topic_bytes <= 3 {
            return (None, None);
        }
        let Some(hash) = self.messages.hash_topic(key, self.seed) else { return (None, None) };
        let numbered = |index: usize| u16::try_from(index + 1).ok().and_then(NonZeroU16::new);
        match connection.aliases_out.iter().position(|known| *known == hash) {
            Some(index) => (numbered(index), None),
            None if connection.aliases_out.len() < usize::from(connection.aliases_out_max) => {
                (numbered(connection.aliases_out.len()), Some(hash))
            }
            None => (None, None),
        }
    }
}

impl Session {
    /// Whether the identifier that comes next is free. Identifiers are given in turn, so that only the oldest in flight
    /// can be in the way.
    fn has_free_identifier(&self, deliveries: &crate::collections::Slab<Delivery>) -> bool {
        let oldest = self.in_flight.front().and_then(|key| deliveries.get(key));
        oldest.is_none_or(|oldest| oldest.packet_identifier != Some(self.next_packet_identifier()))
    }

    /// The identifier behind the one used last. [MQTT-2.2.1-3]
    fn next_packet_identifier(&self) -> PacketIdentifier {
        PacketIdentifier::new(self.last_packet_identifier.wrapping_add(1)).unwrap_or(FIRST_IDENTIFIER)
    }
}

impl Outgoing {
    /// Writes the whole packet into `out`, which has its size.
    fn write(&self, messages: &MessagePool, out: &mut [u8]) -> Result<(), Full> {
        let mut reader = messages.reader_at(self.mark);
        let mut writer = Writer::new(out);
        self.head.encode_before_topic(self.version, &mut writer).map_err(|_| Full)?;
        let at = writer.len();
        let (topic, rest) =
            out.get_mut(at..).and_then(|rest| rest.split_at_mut_checked(self.head.topic_bytes)).ok_or(Full)?;
        reader.read(topic);
        let mut writer = Writer::new(rest);
        self.head.encode_after_topic(self.version, &mut writer).map_err(|_| Full)?;
        writer.put_slice(&self.own).map_err(|_| Full)?;
        let at = writer.len();
        reader.skip(self.skipped_bytes);
        reader.read(rest.get_mut(at..).unwrap_or_default());
        Ok(())
    }

    /// The packet as it is written piece by piece, because it does not fit as a whole.
    fn begin(&self) -> Result<Transmitting, Full> {
        let mut scratch = [0; PUBLISH_MIDDLE_BYTES_MAX];
        let mut writer = Writer::new(&mut scratch);
        self.head.encode_before_topic(self.version, &mut writer).map_err(|_| Full)?;
        let front = heapless::Vec::from_slice(writer.written()).map_err(|_| Full)?;
        let mut writer = Writer::new(&mut scratch);
        self.head.encode_after_topic(self.version, &mut writer).map_err(|_| Full)?;
        writer.put_slice(&self.own).map_err(|_| Full)?;
        let middle = heapless::Vec::from_slice(writer.written()).map_err(|_| Full)?;
        let Self { message, skipped_bytes, total, mark, .. } = *self;
        Ok(Transmitting {
            message,
            front,
            middle,
            topic_bytes: self.head.topic_bytes,
            skipped_bytes,
            total,
            sent: 0,
            mark,
        })
    }
}

impl Transmitting {
    /// Copies the next bytes of the packet into `out`; returns how many.
    fn fill(&mut self, messages: &MessagePool, out: &mut [u8]) -> usize {
        let mut filled = 0;
        let topic_end = self.front.len() + self.topic_bytes;
        let middle_end = topic_end + self.middle.len();
        while filled < out.len() && self.sent < self.total {
            let rest = out.get_mut(filled..).unwrap_or_default();
            if self.sent == middle_end && self.skipped_bytes > 0 {
                let mut reader = messages.reader_at(self.mark);
                reader.skip(core::mem::take(&mut self.skipped_bytes));
                self.mark = reader.mark();
            }
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

    fn read(&mut self, messages: &MessagePool, out: &mut [u8], end: usize) -> usize {
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

fn acknowledgement(
    connection: &Connection,
    packet_identifier: PacketIdentifier,
    reason: ReasonCode,
) -> Acknowledgement<'static> {
    let mut acknowledgement = Acknowledgement::new(packet_identifier, reason);
    acknowledgement.properties.reason_string = reason_string(connection, reason);
    acknowledgement
}

/// The Authentication Method of CONNECT, which CONNACK and AUTH repeat. [MQTT-4.12.0-5]
fn authentication_method(connection: &Connection) -> Option<&str> {
    connection.enhanced.as_ref().map(|enhanced| &*enhanced.method)
}

/// Words for a Reason Code, where they say more than its name, for a client that takes them and whose Maximum Packet Size
/// leaves room. [MQTT-3.1.2-29] [MQTT-3.4.2-2] They never say which rule or which certificate decided: that is for the log.
fn reason_string(connection: &Connection, reason: ReasonCode) -> Option<&'static str> {
    const ROOM_BYTES: u32 = 256;
    if !connection.wants_reasons || connection.maximum_packet_bytes < ROOM_BYTES {
        return None;
    }
    match reason {
        ReasonCode::NotAuthorized => Some("no rule of this broker allows it"),
        ReasonCode::QuotaExceeded => Some("a table of this broker is full"),
        ReasonCode::TopicNameInvalid => Some("the topic is reserved or has too many levels"),
        ReasonCode::TopicAliasInvalid => Some("the alias is above the announced Topic Alias Maximum"),
        ReasonCode::PacketTooLarge => Some("the packet is above the announced Maximum Packet Size"),
        ReasonCode::ReceiveMaximumExceeded => {
            Some("more unacknowledged PUBLISH packets than the announced Receive Maximum")
        }
        ReasonCode::BadAuthenticationMethod => Some("enhanced authentication is not available on this port"),
        ReasonCode::PayloadFormatInvalid => Some("the payload is not UTF-8, as its format indicator says"),
        _ => None,
    }
}
