//! The other side of a bridge: what it needs of a client of another broker, and minimq as that client.
//!
//! minimq is small and bounded, and slow: it has eight messages in flight each way. A faster client takes its place behind
//! [`Upstream`].

use super::hops::HOP;
use crate::codec::{Publish, PublishProperties, QoS, UserProperties};
use crate::config::blob::{BridgeRemote, TopicMap};
use crate::upstream::{Gate, Heard, Link, LinkError, Stream};
use core::fmt;
use embassy_time::{Duration, with_timeout};
use minimq::{
    Buffers, ConfigBuilder, Connection, Error, Op, PeerError, Property, PubError, Publication, ReasonCode,
    ResourceError, RetainHandling, Session, SubscriptionOptions,
};
use std::rc::Rc;

/// Most messages in flight each way.
pub const IN_FLIGHT_MAX: u16 = 8;
/// Most properties of one message: each takes memory while it crosses.
const PROPERTIES_MAX: usize = 256;
/// How long an upstream may take to answer CONNECT.
const CONNECT_SECONDS: u64 = 15;
/// What minimq needs beside the largest packet, to write it and to write CONNECT, bytes.
const WORKSPACE_BYTES: usize = 1_024;

/// Why the upstream is not to be talked to any more, as the log and the status show it.
#[derive(Debug)]
pub enum UpstreamFault {
    /// It has closed the connection, or has not answered in time.
    Closed,
    /// What the network says.
    Network(LinkError),
    /// It says what MQTT does not allow, or more than was asked for.
    Protocol,
    /// It refuses.
    Refused(ReasonCode),
    /// It has ended the connection and said why.
    Ended(u8),
    /// It takes QoS 0 only, and a map promises more.
    Qos,
    /// The bridge's own settings do not fit its buffers.
    Settings,
}

impl fmt::Display for UpstreamFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the upstream has closed the connection or does not answer"),
            Self::Network(error) => error.fmt(f),
            Self::Protocol => f.write_str("the upstream says what MQTT does not allow"),
            Self::Refused(reason) => write!(f, "the upstream says 0x{:02X}", u8::from(*reason)),
            Self::Ended(reason) => write!(f, "the upstream has ended the connection: 0x{reason:02X}"),
            Self::Qos => f.write_str("the upstream takes QoS 0 only: say qos: 0 in the maps of out"),
            Self::Settings => f.write_str("maxPacketSizeBytes does not suffice for this upstream"),
        }
    }
}

impl From<Error<LinkError>> for UpstreamFault {
    fn from(error: Error<LinkError>) -> Self {
        match error {
            Error::Transport(error) => Self::Network(error),
            Error::Peer(PeerError::Rejected(reason)) => Self::Refused(reason),
            Error::Peer(_) => Self::Protocol,
            Error::Resource(_) => Self::Settings,
            // `Error` may grow: what is not known ends the connection too.
            _ => Self::Closed,
        }
    }
}

/// What has ended a connection, with the upstream's own word for it where it has said one.
fn fault(error: Error<LinkError>, heard: &Heard) -> UpstreamFault {
    heard.disconnect.get().map_or_else(|| error.into(), |reason| UpstreamFault::Ended(reason.as_u8()))
}

/// A message from the upstream.
pub struct Incoming<'a>(minimq::InboundPublish<'a>);

impl Incoming<'_> {
    /// Shows the message, without Packet Identifier, to `look`, and its user properties with `hop` behind them; `None` where its
    /// properties are none or too many.
    pub fn look<R>(&self, hop: &str, look: impl FnOnce(Option<(Publish<'_>, UserProperties<'_>)>) -> R) -> R {
        let message = &self.0;
        let mut p = PublishProperties::default();
        let mut pairs = Vec::new();
        for property in message.properties().iter() {
            match property {
                Ok(Property::PayloadFormatIndicator(utf8)) => p.payload_format_utf8 = Some(utf8 == 1),
                Ok(Property::MessageExpiryInterval(seconds)) => p.message_expiry_interval = Some(seconds),
                Ok(Property::ContentType(text)) => p.content_type = Some(text),
                Ok(Property::ResponseTopic(topic)) => p.response_topic = Some(topic),
                Ok(Property::CorrelationData(data)) => p.correlation_data = Some(data),
                Ok(Property::UserProperty(name, value)) if pairs.len() < PROPERTIES_MAX => pairs.push((name, value)),
                // Of its subscriptions, which are ours.
                Ok(Property::SubscriptionIdentifier(_)) => {}
                Ok(_) | Err(_) => return look(None),
            }
        }
        pairs.push((HOP, hop));
        let came = pairs.len() - 1;
        p.user_properties = UserProperties::Pairs(pairs.get(..came).unwrap_or_default());
        let publish = Publish {
            dup: false,
            qos: self.qos(),
            retain: message.retained(),
            topic: message.topic(),
            packet_identifier: None,
            properties: p,
            payload: message.payload(),
        };
        look(Some((publish, UserProperties::Pairs(&pairs))))
    }

    /// Its QoS.
    #[must_use]
    pub fn qos(&self) -> QoS {
        match self.0.qos() {
            minimq::QoS::AtMostOnce => QoS::AtMostOnce,
            minimq::QoS::AtLeastOnce => QoS::AtLeastOnce,
            minimq::QoS::ExactlyOnce => QoS::ExactlyOnce,
        }
    }
}

/// What has happened at the upstream.
pub enum UpstreamEvent<'a> {
    /// A message. One with QoS 1 is acknowledged by [`Upstream::acknowledge`], in the order in which they came.
    Message(Incoming<'a>),
    /// It has taken the message with this token.
    Taken(u16),
    /// It does not want the message with this token.
    Refused(u16, ReasonCode),
    /// A subscription was made.
    Subscribed,
    /// A subscription was refused.
    NotSubscribed(ReasonCode),
    /// Nothing that matters.
    Nothing,
}

/// What became of a message that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way, and its token comes back.
    Awaited,
    /// It was sent with QoS 0.
    Forgotten,
    /// There is no room for it now.
    NotNow,
    /// Never: the upstream does not take so large a packet, or the bridge has no room for it.
    TooLarge,
}

/// A connection to another broker.
pub(super) trait Upstream {
    /// Sends `publish` with one more hop; `token` comes back when it was taken.
    async fn publish(&mut self, publish: &Publish<'_>, hop: &str, token: u16) -> Result<Sent, UpstreamFault>;
    /// Asks for the remote side of `map`. One at a time.
    async fn subscribe(&mut self, map: &TopicMap) -> Result<(), UpstreamFault>;
    /// Gives up a filter; answered like a subscription. One at a time with those.
    async fn unsubscribe(&mut self, filter: &str) -> Result<(), UpstreamFault>;
    /// Waits for something to happen. Can be given up and called again.
    async fn next(&mut self) -> Result<UpstreamEvent<'_>, UpstreamFault>;
    /// The first message that is not acknowledged may be.
    fn acknowledge(&self);
    /// Nothing that comes from now on is acknowledged: the upstream sends it again with the next connection.
    fn withhold(&self);
    /// Messages and subscriptions that were sent and not answered yet.
    fn in_flight(&self) -> usize;
    /// The tokens of those messages, oldest first.
    fn tokens(&self) -> impl Iterator<Item = u16>;
    /// Whether it takes the RETAIN flag.
    fn retains(&self) -> bool;
}

/// A message or subscription that is on its way.
struct Pending {
    operation: Op,
    /// `None` for a subscription, or its end.
    token: Option<u16>,
    refused: Option<ReasonCode>,
}

/// Buffers for one bridge, made once.
pub struct UpstreamBuffers {
    receive: Vec<u8>,
    transmit: Vec<u8>,
}

impl UpstreamBuffers {
    /// For packets of up to `packet_bytes`, with another of them on its way.
    #[must_use]
    pub fn new(packet_bytes: u32) -> Self {
        let bytes = usize::try_from(packet_bytes).unwrap_or(usize::MAX);
        Self { receive: vec![0; bytes], transmit: vec![0; bytes.saturating_mul(2).saturating_add(WORKSPACE_BYTES)] }
    }

    /// Bytes of the buffers for packets of `packet_bytes`.
    #[must_use]
    pub const fn bytes(packet_bytes: u32) -> u64 {
        packet_bytes as u64 * 3 + WORKSPACE_BYTES as u64
    }
}

/// A session of minimq for one connection. Another one is made for the next: what it would send again, and acknowledge for a
/// connection that is no more, the broker's own queue knows better.
///
/// # Errors
/// The client identifier or the user name does not fit.
pub fn session<'b>(
    remote: &'b BridgeRemote,
    password: Option<&'b [u8]>,
    buffers: &'b mut UpstreamBuffers,
) -> Result<Session<'b>, UpstreamFault> {
    let mut settings = ConfigBuilder::new(Buffers::new(&mut buffers.receive, &mut buffers.transmit))
        .client_id(&remote.client_identifier)
        .map_err(|_| UpstreamFault::Settings)?
        .keepalive_interval(remote.keep_alive_seconds)
        .session_expiry_interval(remote.session_expiry_seconds);
    if let Some((username, _)) = &remote.login {
        settings = settings.auth(username, password.unwrap_or_default()).map_err(|_| UpstreamFault::Settings)?;
    }
    Ok(Session::new(settings))
}

/// minimq over a stream.
pub struct Minimq<'a, 'b, 's> {
    connection: Connection<'a, 'b, Link<'s>>,
    gate: Rc<Gate>,
    heard: Rc<Heard>,
    pending: heapless::Deque<Pending, { IN_FLIGHT_MAX as usize + 1 }>,
    /// What minimq has said last, and to whom it belongs is not known yet.
    refusal: Option<ReasonCode>,
}

impl<'a, 'b, 's> Minimq<'a, 'b, 's> {
    /// CONNECT and its answer, over a stream that is there. With `needs_qos1`, an upstream that takes QoS 0 only is not one to use:
    /// what it cannot acknowledge would be lost without anybody noticing.
    ///
    /// # Errors
    /// [`UpstreamFault`]
    pub async fn connect(
        session: &'a mut Session<'b>,
        stream: impl Stream + 's,
        remote: &BridgeRemote,
        needs_qos1: bool,
    ) -> Result<Self, UpstreamFault> {
        let (gate, heard) = (Rc::new(Gate::default()), Rc::new(Heard::default()));
        let mut link = Link::new(stream).holding(Rc::clone(&gate)).hearing(Rc::clone(&heard));
        if !remote.clean_start {
            link = link.resuming();
        }
        let connection = with_timeout(Duration::from_secs(CONNECT_SECONDS), session.connect(link)).await;
        let connection = connection.map_err(|_| UpstreamFault::Closed)?.map_err(|error| fault(error, &heard))?;
        if needs_qos1 && heard.has_no_qos1.get() {
            return Err(UpstreamFault::Qos);
        }
        Ok(Self { connection, gate, heard, pending: heapless::Deque::new(), refusal: None })
    }

    /// The first operation that is over, if one is.
    fn over(&mut self) -> Option<UpstreamEvent<'static>> {
        if let Some(reason) = self.refusal.take() {
            self.refused(reason);
        }
        let place = self.pending.iter().position(|pending| !self.connection.is_pending(&pending.operation))?;
        // It has no removal from its middle: they are few, and nearly always the first is over.
        let mut found = None;
        for at in 0..self.pending.len() {
            let Some(pending) = self.pending.pop_front() else { break };
            if at == place {
                found = Some(pending);
            } else {
                // There is room: it has just been taken out.
                let _ = self.pending.push_back(pending);
            }
        }
        let found = found?;
        Some(match (found.token, found.refused) {
            (Some(token), None) => UpstreamEvent::Taken(token),
            (Some(token), Some(reason)) => UpstreamEvent::Refused(token, reason),
            (None, None) => UpstreamEvent::Subscribed,
            (None, Some(reason)) => UpstreamEvent::NotSubscribed(reason),
        })
    }

    /// Notes to whom a refusal belongs. minimq does not say; answers come in the order of their requests [MQTT-4.6.0-2], and it
    /// stops at the one that refuses, so that it is the last that is over.
    fn refused(&mut self, reason: ReasonCode) {
        let Self { connection, pending, .. } = self;
        let over = pending.iter_mut().filter(|pending| !connection.is_pending(&pending.operation)).last();
        if let Some(over) = over {
            over.refused = Some(reason);
        }
    }
}

impl Upstream for Minimq<'_, '_, '_> {
    async fn publish(&mut self, publish: &Publish<'_>, hop: &str, token: u16) -> Result<Sent, UpstreamFault> {
        let p = &publish.properties;
        let named = [
            p.payload_format_utf8.map(|utf8| Property::PayloadFormatIndicator(u8::from(utf8))),
            p.message_expiry_interval.map(Property::MessageExpiryInterval),
            p.content_type.map(Property::ContentType),
            p.response_topic.map(Property::ResponseTopic),
            p.correlation_data.map(Property::CorrelationData),
        ];
        let pairs = p.user_properties.iter().chain([(HOP, hop)]);
        let pairs = pairs.map(|(name, value)| Property::UserProperty(name, value));
        let mut properties: Vec<Property<'_>> = Vec::new();
        for property in named.into_iter().flatten().chain(pairs) {
            if properties.len() == PROPERTIES_MAX {
                return Ok(Sent::TooLarge);
            }
            properties.push(property);
        }
        if publish.qos != QoS::AtMostOnce && self.pending.len() >= usize::from(IN_FLIGHT_MAX) {
            return Ok(Sent::NotNow);
        }
        let qos = if publish.qos == QoS::AtMostOnce { minimq::QoS::AtMostOnce } else { minimq::QoS::AtLeastOnce };
        let mut publication = Publication::bytes(publish.topic, publish.payload).qos(qos).properties(&properties);
        if publish.retain {
            publication = publication.retain();
        }
        match self.connection.publish(publication).await {
            Ok(Some(operation)) => {
                let pending = Pending { operation, token: Some(token), refused: None };
                self.pending.push_back(pending).map_err(|_| UpstreamFault::Settings)?;
                Ok(Sent::Awaited)
            }
            Ok(None) if qos == minimq::QoS::AtMostOnce => Ok(Sent::Forgotten),
            // It is not to be acknowledged.
            Ok(None) => Err(UpstreamFault::Qos),
            Err(PubError::Session(Error::NotReady | Error::Resource(ResourceError::InflightExhausted))) => {
                Ok(Sent::NotNow)
            }
            Err(PubError::Session(Error::Resource(ResourceError::PacketTooLarge))) => Ok(Sent::TooLarge),
            // The payload, or what stands before it, has no room beside what is on its way.
            Err(PubError::Payload(()) | PubError::Session(Error::Resource(ResourceError::BufferTooSmall))) => {
                let is_alone = self.connection.session().is_publish_quiescent();
                Ok(if is_alone { Sent::TooLarge } else { Sent::NotNow })
            }
            Err(PubError::Session(error)) => Err(fault(error, &self.heard)),
        }
    }

    async fn subscribe(&mut self, map: &TopicMap) -> Result<(), UpstreamFault> {
        let qos = if map.qos == 0 { minimq::QoS::AtMostOnce } else { minimq::QoS::AtLeastOnce };
        let handling = if map.retain { RetainHandling::IfSubscriptionDoesNotExist } else { RetainHandling::Never };
        let options = SubscriptionOptions::default()
            .maximum_qos(qos)
            .ignore_local_messages()
            .retain_as_published()
            .retain_behavior(handling);
        let filter = minimq::TopicFilter::new(&map.remote).options(options);
        let operation = self.connection.subscribe(&[filter], &[]).await.map_err(|error| fault(error, &self.heard))?;
        let pending = Pending { operation, token: None, refused: None };
        self.pending.push_back(pending).map_err(|_| UpstreamFault::Settings)
    }

    async fn unsubscribe(&mut self, filter: &str) -> Result<(), UpstreamFault> {
        let operation = self.connection.unsubscribe(&[filter], &[]).await;
        let operation = operation.map_err(|error| fault(error, &self.heard))?;
        let pending = Pending { operation, token: None, refused: None };
        self.pending.push_back(pending).map_err(|_| UpstreamFault::Settings)
    }

    async fn next(&mut self) -> Result<UpstreamEvent<'_>, UpstreamFault> {
        if let Some(event) = self.over() {
            return Ok(event);
        }
        let Self { connection, refusal, heard, .. } = self;
        match connection.poll().await {
            Ok(Some(message)) => Ok(UpstreamEvent::Message(Incoming(message))),
            Ok(None) => Ok(UpstreamEvent::Nothing),
            Err(Error::Peer(PeerError::Rejected(reason))) => {
                *refusal = Some(reason);
                Ok(UpstreamEvent::Nothing)
            }
            Err(error) => Err(fault(error, heard)),
        }
    }

    fn acknowledge(&self) {
        self.gate.let_one_go();
    }

    fn withhold(&self) {
        self.gate.shut();
    }

    fn in_flight(&self) -> usize {
        self.pending.len()
    }

    fn tokens(&self) -> impl Iterator<Item = u16> {
        self.pending.iter().filter_map(|pending| pending.token)
    }

    fn retains(&self) -> bool {
        !self.heard.has_no_retain.get()
    }
}
