//! The bridge as a client of its own broker: MQTT 5 by our own codec over a byte stream.
//!
//! Unlike other clients it says itself when a message is acknowledged, which is what keeps a message in the broker's queue until
//! the upstream has it. Two buffers, each for one packet and a few acknowledgements; nothing waits elsewhere.
//!
//! **Invariant:** [`Local::next`] writes and reads at the same time: the broker does not read from who does not read from it.

use crate::codec::{
    Acknowledgement, Connect, ConnectProperties, DecodeError, Disconnect, DisconnectProperties, FixedHeader, Packet,
    PacketIdentifier, ProtocolVersion, Publish, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeFilters,
    SubscribeProperties, SubscriptionOptions, Unsubscribe, UnsubscribeFilters, UnsubscribeProperties, Writer, decode,
    decode_fixed_header,
};
use crate::config::blob::TopicMap;
use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use smol::future::poll_fn;
use smol::io::{AsyncRead, AsyncWrite};
use std::io;

const VERSION: ProtocolVersion = ProtocolVersion::V5;
/// Room for acknowledgements beside the largest packet: one of four bytes for each message in flight, and a DISCONNECT.
const ACKNOWLEDGEMENT_BYTES: usize = 64;
/// Filters in one SUBSCRIBE: each may be long, and all must fit into the buffer.
const SUBSCRIBE_FILTERS_MAX: usize = 1;

/// Why the broker is not to be talked to any more.
#[derive(Debug)]
pub enum LocalFault {
    /// It has closed, or could not be reached.
    Closed(io::ErrorKind),
    /// It refuses the connection, or ends it.
    Refused(ReasonCode),
    /// It says what a broker does not: a defect of ours.
    Unexpected,
}

impl fmt::Display for LocalFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(kind) => write!(f, "this broker has closed the connection: {kind}"),
            Self::Refused(reason) => write!(f, "this broker says 0x{:02X}", reason.as_u8()),
            Self::Unexpected => f.write_str("this broker says what was not to be expected"),
        }
    }
}

impl From<io::Error> for LocalFault {
    fn from(error: io::Error) -> Self {
        Self::Closed(error.kind())
    }
}

impl From<DecodeError> for LocalFault {
    fn from(_: DecodeError) -> Self {
        Self::Unexpected
    }
}

/// What the broker has sent.
pub enum LocalEvent<'a> {
    /// A message for the upstream.
    Message(Publish<'a>),
    /// It has taken a message of ours, or refuses it.
    Answered(PacketIdentifier, ReasonCode),
    /// It has answered a subscription.
    Subscribed,
    /// What needs no answer.
    Nothing,
}

/// Something does not fit into the buffer, or is no valid packet.
#[derive(Debug)]
pub struct NotSendable;

/// A connection to the own broker.
pub struct Local<S> {
    stream: S,
    input: Vec<u8>,
    /// Where the packet that [`Self::next`] has returned begins; it is read over by the next call.
    begin: usize,
    /// Its bytes.
    current: usize,
    /// Where what was read ends.
    end: usize,
    output: Vec<u8>,
    written: usize,
    identifier: u16,
    receive_maximum: u16,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Local<S> {
    /// A connection over `stream` for packets of up to `packet_bytes`.
    #[must_use]
    pub fn new(stream: S, packet_bytes: u32) -> Self {
        let packet_bytes = usize::try_from(packet_bytes).unwrap_or(usize::MAX);
        Self {
            stream,
            input: vec![0; packet_bytes],
            begin: 0,
            current: 0,
            end: 0,
            output: Vec::with_capacity(packet_bytes.saturating_add(ACKNOWLEDGEMENT_BYTES)),
            written: 0,
            identifier: 0,
            receive_maximum: u16::MAX,
        }
    }

    /// CONNECT and its answer. Returns whether the session was there. It never ends by itself, and has `in_flight_max` messages
    /// unacknowledged at most.
    ///
    /// # Errors
    /// [`LocalFault`]
    pub async fn connect(&mut self, client_identifier: &str, in_flight_max: u16) -> Result<bool, LocalFault> {
        let properties = ConnectProperties {
            session_expiry_interval: Some(u32::MAX),
            receive_maximum: NonZeroU16::new(in_flight_max),
            maximum_packet_size: u32::try_from(self.input.len()).ok().and_then(NonZeroU32::new),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            protocol_version: VERSION,
            clean_start: false,
            keep_alive: 0,
            client_identifier,
            will: None,
            username: None,
            password: None,
            properties,
        };
        self.send(&Packet::Connect(connect)).map_err(|NotSendable| LocalFault::Unexpected)?;
        let (is_present, receive_maximum) = match self.packet().await? {
            Packet::ConnAck(answer) if answer.reason_code.is_error() => {
                return Err(LocalFault::Refused(answer.reason_code));
            }
            Packet::ConnAck(answer) => (answer.session_present, answer.properties.receive_maximum),
            _ => return Err(LocalFault::Unexpected),
        };
        self.receive_maximum = receive_maximum.map_or(u16::MAX, NonZeroU16::get);
        Ok(is_present)
    }

    /// Messages that the broker takes before it has answered them. [MQTT-3.3.4-9]
    #[must_use]
    pub fn receive_maximum(&self) -> usize {
        usize::from(self.receive_maximum)
    }

    /// Makes the subscriptions of `maps` and gives up those of `former` that are none of them. Messages that come meanwhile are
    /// not acknowledged, and come again with the next connection; those of QoS 0 would not, so that retained ones are asked for
    /// later ([`Self::ask_for_retained`]). Returns the filters that were refused.
    ///
    /// # Errors
    /// [`LocalFault`]
    pub async fn subscribe<'m>(&mut self, maps: &'m [TopicMap], former: &[String]) -> Result<Vec<&'m str>, LocalFault> {
        let mut refused = Vec::new();
        for map in maps {
            self.send_subscribe(map, RetainHandling::DoNotSend)?;
            loop {
                if let Packet::SubAck(answer) = self.packet().await? {
                    if answer.reason_codes.iter().any(ReasonCode::is_error) {
                        refused.push(map.local.as_str());
                    }
                    break;
                }
            }
        }
        for filter in former.iter().filter(|filter| maps.iter().all(|map| map.local != **filter)) {
            let filters = [filter.as_str()];
            let unsubscribe = Unsubscribe {
                packet_identifier: self.next_identifier(),
                properties: UnsubscribeProperties::default(),
                filters: UnsubscribeFilters::Slice(&filters),
            };
            self.send(&Packet::Unsubscribe(unsubscribe)).map_err(|NotSendable| LocalFault::Unexpected)?;
            while !matches!(self.packet().await?, Packet::UnsubAck(_)) {}
        }
        Ok(refused)
    }

    /// Asks for the messages that were retained before the bridge was made, which cross once. The answer comes
    /// as an event of [`Self::next`].
    ///
    /// # Errors
    /// [`LocalFault`]
    pub fn ask_for_retained(&mut self, map: &TopicMap) -> Result<(), LocalFault> {
        self.send_subscribe(map, RetainHandling::SendAtSubscribe)
    }

    fn send_subscribe(&mut self, map: &TopicMap, retain_handling: RetainHandling) -> Result<(), LocalFault> {
        let options = SubscriptionOptions {
            maximum_qos: if map.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
            no_local: true,
            retain_as_published: true,
            retain_handling,
        };
        let filters: [_; SUBSCRIBE_FILTERS_MAX] = [(map.local.as_str(), options)];
        let subscribe = Subscribe {
            packet_identifier: self.next_identifier(),
            properties: SubscribeProperties::default(),
            filters: SubscribeFilters::Slice(&filters),
        };
        self.send(&Packet::Subscribe(subscribe)).map_err(|NotSendable| LocalFault::Unexpected)
    }

    /// DISCONNECT; the session stays.
    ///
    /// # Errors
    /// [`LocalFault`]
    pub async fn disconnect(mut self) -> Result<(), LocalFault> {
        let disconnect = Disconnect { reason_code: ReasonCode::Success, properties: DisconnectProperties::default() };
        self.send(&Packet::Disconnect(disconnect)).map_err(|NotSendable| LocalFault::Unexpected)?;
        poll_fn(|context| self.poll_write(context)).await?;
        Ok(())
    }

    /// Whether everything that was to be sent has been taken: there is room for a message.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.output.is_empty()
    }

    /// Sends a message to the broker, with the next [`Self::next`]. Returns its Packet Identifier, if `qos` is not 0. To be called
    /// when [`Self::is_drained`].
    ///
    /// # Errors
    /// It does not fit, or the broker would not take it for a valid packet: what another broker says is not believed.
    pub fn publish(&mut self, mut publish: Publish<'_>) -> Result<Option<PacketIdentifier>, NotSendable> {
        publish.packet_identifier = (publish.qos != QoS::AtMostOnce).then(|| self.next_identifier());
        let begin = self.output.len();
        self.send(&Packet::Publish(publish))?;
        let bytes = self.output.get(begin..).unwrap_or_default();
        let header = decode_fixed_header(bytes).ok().flatten();
        let is_valid = header.is_some_and(|header| {
            let body = bytes.get(usize::from(header.header_bytes)..).unwrap_or_default();
            decode(header, body, VERSION).is_ok()
        });
        if !is_valid {
            self.output.truncate(begin);
            return Err(NotSendable);
        }
        Ok(publish.packet_identifier)
    }

    /// Acknowledges a message of the broker's.
    ///
    /// # Errors
    /// More than was in flight is acknowledged: a defect of ours.
    pub fn acknowledge(&mut self, identifier: PacketIdentifier) -> Result<(), LocalFault> {
        let acknowledgement = Acknowledgement::new(identifier, ReasonCode::Success);
        self.send(&Packet::PubAck(acknowledgement)).map_err(|NotSendable| LocalFault::Unexpected)
    }

    /// Waits for what the broker sends next; it is read over by the next call. Also returns, with nothing, when there is room for
    /// a message again. Can be given up and called again.
    ///
    /// # Errors
    /// [`LocalFault`]
    pub async fn next(&mut self) -> Result<LocalEvent<'_>, LocalFault> {
        if !self.is_drained() {
            self.begin += core::mem::take(&mut self.current);
            while self.whole()?.is_none() {
                poll_fn(|context| self.poll_exchange(context)).await?;
                if self.is_drained() {
                    return Ok(LocalEvent::Nothing);
                }
            }
        }
        Ok(match self.packet().await? {
            Packet::Publish(publish) => LocalEvent::Message(publish),
            Packet::PubAck(answer) => LocalEvent::Answered(answer.packet_identifier, answer.reason_code),
            Packet::SubAck(_) => LocalEvent::Subscribed,
            Packet::Disconnect(disconnect) => return Err(LocalFault::Refused(disconnect.reason_code)),
            Packet::ConnAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::PingResp
            | Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::Auth(_) => LocalEvent::Nothing,
        })
    }

    /// What [`Self::next`] has returned is returned again by the next call.
    pub fn keep(&mut self) {
        self.current = 0;
    }

    /// Writes what is to be written; without anything, waits for ever.
    ///
    /// # Errors
    /// [`LocalFault`]
    pub async fn drain(&mut self) -> Result<(), LocalFault> {
        if self.is_drained() {
            return smol::future::pending().await;
        }
        Ok(poll_fn(|context| self.poll_write(context)).await?)
    }

    fn next_identifier(&mut self) -> PacketIdentifier {
        loop {
            self.identifier = self.identifier.wrapping_add(1);
            if let Some(identifier) = PacketIdentifier::new(self.identifier) {
                return identifier;
            }
        }
    }

    fn send(&mut self, packet: &Packet<'_>) -> Result<(), NotSendable> {
        let (begin, bytes) = (self.output.len(), packet.encoded_bytes(VERSION));
        if bytes > self.output.capacity().saturating_sub(begin) {
            return Err(NotSendable);
        }
        self.output.resize(begin + bytes, 0);
        let room = self.output.get_mut(begin..).unwrap_or_default();
        packet.encode(VERSION, &mut Writer::new(room)).map_err(|_| NotSendable)
    }

    /// The next whole packet.
    async fn packet(&mut self) -> Result<Packet<'_>, LocalFault> {
        self.begin += core::mem::take(&mut self.current);
        let header = loop {
            match self.whole()? {
                Some(header) => break header,
                None => poll_fn(|context| self.poll_exchange(context)).await?,
            }
        };
        self.current = header.packet_bytes();
        let body = self.begin + usize::from(header.header_bytes)..self.begin + self.current;
        Ok(decode(header, self.input.get(body).unwrap_or_default(), VERSION)?)
    }

    /// The header of the packet that begins what was read, if all of that is there.
    fn whole(&self) -> Result<Option<FixedHeader>, LocalFault> {
        let bytes = self.input.get(self.begin..self.end).unwrap_or_default();
        let header = decode_fixed_header(bytes)?;
        if header.is_some_and(|header| header.packet_bytes() > self.input.len()) {
            return Err(LocalFault::Unexpected);
        }
        Ok(header.filter(|header| header.packet_bytes() <= bytes.len()))
    }

    /// Writes what can be written; ready when something was read, or everything written.
    fn poll_exchange(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_drained()
            && let Poll::Ready(outcome) = self.poll_write(context)
        {
            return Poll::Ready(outcome);
        }
        if self.begin > 0 {
            self.input.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        let count = ready!(Pin::new(&mut self.stream).poll_read(context, room))?;
        self.end += count;
        Poll::Ready(if count > 0 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) })
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.output.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}
