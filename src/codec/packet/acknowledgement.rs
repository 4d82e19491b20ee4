//! PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 5 §3.4 to §3.7), which share one shape: Packet Identifier, then a Reason Code
//! and properties that are left out when they say nothing. MQTT 3.1.1 has the Packet Identifier only.

use crate::codec::properties::once;
use crate::codec::property_section::EncodedProperties;
use crate::codec::{
    DecodeError, Full, PacketIdentifier, PacketType, Property, ProtocolVersion, Reader, ReasonCode, UserProperties,
    Writer,
};

/// Which of the four acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcknowledgementType {
    /// Answers a PUBLISH of QoS 1.
    PubAck,
    /// Answers a PUBLISH of QoS 2.
    PubRec,
    /// Answers a PUBREC.
    PubRel,
    /// Answers a PUBREL.
    PubComp,
}

impl AcknowledgementType {
    /// Its packet type.
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        match self {
            Self::PubAck => PacketType::PubAck,
            Self::PubRec => PacketType::PubRec,
            Self::PubRel => PacketType::PubRel,
            Self::PubComp => PacketType::PubComp,
        }
    }
}

/// The properties of every acknowledgement, SUBACK and UNSUBACK included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcknowledgementProperties<'a> {
    /// For people and logs; not sent when it would exceed the receiver's Maximum Packet Size. [MQTT-3.4.2-2]
    pub reason_string: Option<&'a str>,
    /// Diagnostic pairs.
    pub user_properties: UserProperties<'a>,
}

impl<'a> AcknowledgementProperties<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut properties = Self::default();
        let section = EncodedProperties::decode(reader, |property| match property {
            Property::ReasonString(text) => once(&mut properties.reason_string, text),
            Property::UserProperty(_) => Ok(()),
            _ => Err(DecodeError::PropertyNotAllowed),
        })?;
        properties.user_properties = UserProperties::Encoded(section);
        Ok(properties)
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put_property(self.reason_string.map(Property::ReasonString))?;
        self.user_properties.encode(writer)
    }

    fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}

/// A PUBACK, PUBREC, PUBREL or PUBCOMP; [`AcknowledgementType`] or the variant of `Packet` says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement<'a> {
    /// Of the PUBLISH that is acknowledged.
    pub packet_identifier: PacketIdentifier,
    /// Always [`ReasonCode::Success`] in MQTT 3.1.1.
    pub reason_code: ReasonCode,
    /// Empty in MQTT 3.1.1.
    pub properties: AcknowledgementProperties<'a>,
}

impl<'a> Acknowledgement<'a> {
    /// Without properties.
    #[must_use]
    pub const fn new(packet_identifier: PacketIdentifier, reason_code: ReasonCode) -> Self {
        let properties = AcknowledgementProperties { reason_string: None, user_properties: UserProperties::EMPTY };
        Self { packet_identifier, reason_code, properties }
    }

    pub(super) fn decode(
        reader: &mut Reader<'a>,
        kind: AcknowledgementType,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut acknowledgement = Self::new(reader.packet_identifier()?, ReasonCode::Success);
        if version == ProtocolVersion::V5 && !reader.is_empty() {
            acknowledgement.reason_code = reader.reason_code(kind.packet_type())?;
            if !reader.is_empty() {
                acknowledgement.properties = AcknowledgementProperties::decode(reader)?;
            }
        }
        Ok(acknowledgement)
    }

    /// Bytes of the whole packet, which is the same for all four types.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        Writer::measure(|writer| self.encode(AcknowledgementType::PubAck, version, writer))
    }

    /// Writes the whole packet in its shortest form. MQTT 3.1.1 has no room for the Reason Code: an error becomes a plain
    /// acknowledgement.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written.
    pub fn encode(
        &self,
        kind: AcknowledgementType,
        version: ProtocolVersion,
        writer: &mut Writer<'_>,
    ) -> Result<(), Full> {
        writer.put_packet(kind.packet_type(), |writer| {
            writer.put_u16(self.packet_identifier.get())?;
            let no_properties = self.properties.is_empty();
            if version == ProtocolVersion::V311 || (no_properties && self.reason_code == ReasonCode::Success) {
                return Ok(());
            }
            writer.put_u8(self.reason_code.as_u8())?;
            if no_properties {
                return Ok(());
            }
            writer.put_section(|writer| self.properties.encode(writer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Packet;
    use crate::codec::packet::tests::{golden, packet};

    const V5: ProtocolVersion = ProtocolVersion::V5;

    fn plain(reason_code: ReasonCode) -> Acknowledgement<'static> {
        Acknowledgement::new(PacketIdentifier::new(0x1234).unwrap(), reason_code)
    }

    #[test]
    fn puback_of_two_bytes_means_success() {
        // §3.4.2.1
        assert_eq!(golden(V5, &[0x40, 2, 0x12, 0x34]), Packet::PubAck(plain(ReasonCode::Success)));
    }

    #[test]
    fn an_acknowledgement_of_three_bytes_has_no_properties() {
        // §3.4.2.2.1
        assert_eq!(golden(V5, &[0x40, 3, 0x12, 0x34, 0x10]), Packet::PubAck(plain(ReasonCode::NoMatchingSubscribers)));
        assert_eq!(golden(V5, &[0x50, 3, 0x12, 0x34, 0x97]), Packet::PubRec(plain(ReasonCode::QuotaExceeded)));
        assert_eq!(
            golden(V5, &[0x62, 3, 0x12, 0x34, 0x92]),
            Packet::PubRel(plain(ReasonCode::PacketIdentifierNotFound))
        );
        assert_eq!(
            golden(V5, &[0x70, 3, 0x12, 0x34, 0x92]),
            Packet::PubComp(plain(ReasonCode::PacketIdentifierNotFound))
        );
    }

    #[test]
    fn an_acknowledgement_carries_a_reason_string_and_user_properties() {
        let bytes = [0x40, 16, 0, 1, 0x87, 12, 0x1F, 0, 2, b'n', b'o', 0x26, 0, 1, b'k', 0, 1, b'v'];
        let Packet::PubAck(puback) = golden(V5, &bytes) else { panic!() };
        assert_eq!(puback.properties.reason_string, Some("no"));
        assert!(puback.properties.user_properties.iter().eq([("k", "v")]));
    }

    #[test]
    fn success_without_properties_may_be_spelled_out() {
        assert_eq!(packet(V5, &[0x40, 3, 0x12, 0x34, 0]), Ok(Packet::PubAck(plain(ReasonCode::Success))));
        assert_eq!(packet(V5, &[0x40, 4, 0x12, 0x34, 0, 0]), Ok(Packet::PubAck(plain(ReasonCode::Success))));
    }

    #[test]
    fn an_acknowledgement_uses_its_own_reason_codes() {
        // [MQTT-3.4.2-1] [MQTT-3.6.2-1]
        assert_eq!(packet(V5, &[0x40, 3, 0, 1, 0x92]), Err(DecodeError::InvalidReasonCode));
        assert_eq!(packet(V5, &[0x62, 3, 0, 1, 0x10]), Err(DecodeError::InvalidReasonCode));
        assert_eq!(packet(V5, &[0x40, 3, 0, 1, 0x7F]), Err(DecodeError::InvalidReasonCode));
    }

    #[test]
    fn an_acknowledgement_has_no_other_properties() {
        // §2.2.2.2
        assert_eq!(packet(V5, &[0x40, 9, 0, 1, 0, 5, 0x02, 0, 0, 0, 1]), Err(DecodeError::PropertyNotAllowed));
        let twice = [0x40, 12, 0, 1, 0, 8, 0x1F, 0, 1, b'a', 0x1F, 0, 1, b'b'];
        assert_eq!(packet(V5, &twice), Err(DecodeError::DuplicateProperty));
    }

    #[test]
    fn an_acknowledgement_names_a_packet_identifier() {
        assert_eq!(packet(V5, &[0x40, 2, 0, 0]), Err(DecodeError::ZeroPacketIdentifier));
        assert_eq!(packet(V5, &[0x40, 1, 0]), Err(DecodeError::Truncated));
    }

    #[test]
    fn acknowledgements_of_3_1_1_are_two_bytes() {
        assert_eq!(golden(ProtocolVersion::V311, &[0x62, 2, 0x12, 0x34]), Packet::PubRel(plain(ReasonCode::Success)));
        assert_eq!(packet(ProtocolVersion::V311, &[0x40, 3, 0, 1, 0]), Err(DecodeError::TrailingBytes));
        assert_eq!(plain(ReasonCode::NotAuthorized).encoded_bytes(ProtocolVersion::V311), 4);
    }
}
