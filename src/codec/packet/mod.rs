//! The MQTT Control Packets: one file each. [`decode`] turns the body of a packet into a [`Packet`] that borrows from it.

pub mod acknowledgement;
pub mod auth;
pub mod connack;
pub mod connect;
pub mod disconnect;
pub mod ping;
pub mod publish;
pub mod suback;
pub mod subscribe;
pub mod unsuback;
pub mod unsubscribe;
pub mod will;

pub use acknowledgement::{Acknowledgement, AcknowledgementProperties, AcknowledgementType};
pub use auth::{Auth, AuthProperties};
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties};
pub use disconnect::{Disconnect, DisconnectProperties};
pub use publish::{Publish, PublishProperties};
pub use suback::{ReasonCodes, SubAck};
pub use subscribe::{RetainHandling, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions};
pub use unsuback::UnsubAck;
pub use unsubscribe::{Unsubscribe, UnsubscribeFilters, UnsubscribeProperties};
pub use will::{Will, WillProperties};

use super::{DecodeError, FixedHeader, Full, PacketType, ProtocolVersion, Reader, Writer};

/// One MQTT Control Packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// §3.1.
    Connect(Connect<'a>),
    /// §3.2.
    ConnAck(ConnAck<'a>),
    /// §3.3.
    Publish(Publish<'a>),
    /// §3.4.
    PubAck(Acknowledgement<'a>),
    /// §3.5.
    PubRec(Acknowledgement<'a>),
    /// §3.6.
    PubRel(Acknowledgement<'a>),
    /// §3.7.
    PubComp(Acknowledgement<'a>),
    /// §3.8.
    Subscribe(Subscribe<'a>),
    /// §3.9.
    SubAck(SubAck<'a>),
    /// §3.10.
    Unsubscribe(Unsubscribe<'a>),
    /// §3.11.
    UnsubAck(UnsubAck<'a>),
    /// §3.12.
    PingReq,
    /// §3.13.
    PingResp,
    /// §3.14.
    Disconnect(Disconnect<'a>),
    /// §3.15.
    Auth(Auth<'a>),
}

/// Decodes the packet that `header` announces. `body` is exactly its `remaining_length` bytes, and all of them must be
/// used. `version` is what the connection's CONNECT said; a CONNECT says it itself.
///
/// # Errors
/// The first fault found; [`DecodeError::reason_code`] says how to answer it.
pub fn decode<'a>(header: FixedHeader, body: &'a [u8], version: ProtocolVersion) -> Result<Packet<'a>, DecodeError> {
    debug_assert_eq!(usize::try_from(header.remaining_length), Ok(body.len()), "the caller cuts the body");
    let mut reader = Reader::new(body);
    let acknowledgement = |reader: &mut Reader<'a>, kind| Acknowledgement::decode(reader, kind, version);
    let packet = match header.packet_type {
        PacketType::Connect => Packet::Connect(Connect::decode(&mut reader)?),
        PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(&mut reader, version)?),
        PacketType::Publish => Packet::Publish(Publish::decode(&mut reader, header.flags, version)?),
        PacketType::PubAck => Packet::PubAck(acknowledgement(&mut reader, AcknowledgementType::PubAck)?),
        PacketType::PubRec => Packet::PubRec(acknowledgement(&mut reader, AcknowledgementType::PubRec)?),
        PacketType::PubRel => Packet::PubRel(acknowledgement(&mut reader, AcknowledgementType::PubRel)?),
        PacketType::PubComp => Packet::PubComp(acknowledgement(&mut reader, AcknowledgementType::PubComp)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(&mut reader, version)?),
        PacketType::SubAck => Packet::SubAck(SubAck::decode(&mut reader, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(&mut reader, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::decode(&mut reader, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(&mut reader, version)?),
        PacketType::Auth => Packet::Auth(Auth::decode(&mut reader, version)?),
    };
    if reader.is_empty() { Ok(packet) } else { Err(DecodeError::TrailingBytes) }
}

impl Packet<'_> {
    /// Which packet it is.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Bytes of the whole packet; `usize::MAX` when no packet can hold it.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        Writer::measure(|writer| self.encode(version, writer))
    }

    /// Writes the whole packet.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written.
    pub fn encode(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        match self {
            Self::Connect(connect) => connect.encode(version, writer),
            Self::ConnAck(connack) => connack.encode(version, writer),
            Self::Publish(publish) => publish.encode(version, writer),
            Self::PubAck(puback) => puback.encode(AcknowledgementType::PubAck, version, writer),
            Self::PubRec(pubrec) => pubrec.encode(AcknowledgementType::PubRec, version, writer),
            Self::PubRel(pubrel) => pubrel.encode(AcknowledgementType::PubRel, version, writer),
            Self::PubComp(pubcomp) => pubcomp.encode(AcknowledgementType::PubComp, version, writer),
            Self::Subscribe(subscribe) => subscribe.encode(version, writer),
            Self::SubAck(suback) => suback.encode(version, writer),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, writer),
            Self::UnsubAck(unsuback) => unsuback.encode(version, writer),
            Self::PingReq => ping::encode_request(writer),
            Self::PingResp => ping::encode_response(writer),
            Self::Disconnect(disconnect) => disconnect.encode(version, writer),
            Self::Auth(auth) => auth.encode(version, writer),
        }
    }
}

/// What the unit tests of all packets do with bytes.
#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::codec::decode_fixed_header;

    /// Decodes one whole packet.
    pub(in crate::codec) fn packet(version: ProtocolVersion, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
        let header = decode_fixed_header(bytes)?.ok_or(DecodeError::Truncated)?;
        assert_eq!(header.packet_bytes(), bytes.len(), "the test's Remaining Length is wrong");
        decode(header, &bytes[usize::from(header.header_bytes)..], version)
    }

    /// Encodes and checks that the announced size is the size.
    pub(in crate::codec) fn encoded(version: ProtocolVersion, packet: &Packet<'_>) -> Vec<u8> {
        let mut buffer = vec![0; packet.encoded_bytes(version)];
        let mut writer = Writer::new(&mut buffer);
        packet.encode(version, &mut writer).unwrap();
        assert_eq!(writer.remaining(), 0);
        buffer
    }

    /// Decodes golden bytes, encodes them back, and tries every shorter body.
    pub(in crate::codec) fn golden(version: ProtocolVersion, bytes: &[u8]) -> Packet<'_> {
        let decoded = packet(version, bytes).unwrap();
        assert_eq!(encoded(version, &decoded), bytes);
        for length in 0..bytes.len() {
            let prefix = &bytes[..length];
            assert!(decode_fixed_header(prefix).unwrap().is_none_or(|header| header.packet_bytes() > length));
        }
        shorter_bodies(version, bytes);
        decoded
    }

    /// A packet that ends early, and says so in its Remaining Length, is refused or is a shorter packet of the same kind.
    fn shorter_bodies(version: ProtocolVersion, bytes: &[u8]) {
        let header = decode_fixed_header(bytes).unwrap().unwrap();
        let body = &bytes[usize::from(header.header_bytes)..];
        for length in 0..body.len() {
            let header = FixedHeader { remaining_length: u32::try_from(length).unwrap(), ..header };
            if let Ok(shorter) = decode(header, &body[..length], version) {
                let again = encoded(version, &shorter);
                assert_eq!(packet(version, &again), Ok(shorter));
            }
        }
    }

    #[test]
    fn auth_is_a_reserved_packet_type_in_3_1_1() {
        assert_eq!(packet(ProtocolVersion::V311, &[0xF0, 0]), Err(DecodeError::ReservedPacketType));
    }

    #[test]
    fn a_packet_that_does_not_fit_leaves_nothing_behind() {
        let disconnect = Packet::Disconnect(Disconnect {
            reason_code: crate::codec::ReasonCode::QuotaExceeded,
            properties: DisconnectProperties { reason_string: Some("slow down"), ..DisconnectProperties::default() },
        });
        let bytes = disconnect.encoded_bytes(ProtocolVersion::V5);
        for room in 0..bytes {
            let mut buffer = vec![0; room];
            let mut writer = Writer::new(&mut buffer);
            assert_eq!(disconnect.encode(ProtocolVersion::V5, &mut writer), Err(Full));
            assert!(writer.is_empty());
        }
    }
}
