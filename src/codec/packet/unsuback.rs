//! UNSUBACK (MQTT 5 §3.11): one Reason Code for each Topic Filter of the UNSUBSCRIBE, in its order. MQTT 3.1.1 has the
//! Packet Identifier only.

use super::suback::{body_bytes, put_list};
use super::{AcknowledgementProperties, ReasonCodes};
use crate::codec::{DecodeError, Full, PacketIdentifier, PacketType, ProtocolVersion, Reader, ReasonCode, Writer};

/// The answer to an UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE. [MQTT-3.10.4-4]
    pub packet_identifier: PacketIdentifier,
    /// Empty in MQTT 3.1.1.
    pub properties: AcknowledgementProperties<'a>,
    /// The outcome for each filter; empty in MQTT 3.1.1.
    pub reason_codes: ReasonCodes<'a>,
}

impl<'a> UnsubAck<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_identifier = reader.packet_identifier()?;
        let (properties, reason_codes) = match version {
            ProtocolVersion::V311 => (AcknowledgementProperties::default(), ReasonCodes::Slice(&[])),
            ProtocolVersion::V5 => {
                let properties = AcknowledgementProperties::decode(reader)?;
                (properties, ReasonCodes::decode(reader, |code| code.is_allowed_in(PacketType::UnsubAck))?)
            }
        };
        Ok(Self { packet_identifier, properties, reason_codes })
    }

    /// Bytes of the whole packet.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        Self::parts_bytes(&self.properties, self.reason_codes.len(), version)
    }

    /// Writes the whole packet. MQTT 3.1.1 has no room for Reason Codes.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written.
    pub fn encode(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        Self::encode_parts(self.packet_identifier, &self.properties, self.reason_codes.iter(), version, writer)
    }

    /// Bytes of the UNSUBACK that [`Self::encode_parts`] writes for this many codes.
    #[must_use]
    pub fn parts_bytes(properties: &AcknowledgementProperties<'_>, codes: usize, version: ProtocolVersion) -> usize {
        let codes = match version {
            ProtocolVersion::V311 => 0,
            ProtocolVersion::V5 => codes,
        };
        Writer::packet_bytes(body_bytes(properties, codes, version))
    }

    /// Writes an UNSUBACK whose codes come from an iterator, which is used once; in MQTT 3.1.1 not at all.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written; the iterator may have been used.
    ///
    /// # Panics
    /// When the iterator yields fewer codes than it said: a defect of the caller.
    pub fn encode_parts(
        packet_identifier: PacketIdentifier,
        properties: &AcknowledgementProperties<'_>,
        reason_codes: impl ExactSizeIterator<Item = ReasonCode>,
        version: ProtocolVersion,
        writer: &mut Writer<'_>,
    ) -> Result<(), Full> {
        let codes = match version {
            ProtocolVersion::V311 => 0,
            ProtocolVersion::V5 => reason_codes.len(),
        };
        let codes = reason_codes.map(ReasonCode::as_u8).take(codes);
        put_list(PacketType::UnsubAck, packet_identifier, properties, codes, version, writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Packet;
    use crate::codec::packet::tests::{encoded, golden, packet};

    const V5: ProtocolVersion = ProtocolVersion::V5;

    #[test]
    fn unsuback_answers_each_filter_in_order() {
        // [MQTT-3.11.3-1]
        let Packet::UnsubAck(unsuback) = golden(V5, &[0xB0, 5, 0, 10, 0, 0, 0x11]) else { panic!() };
        let codes = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
        assert_eq!(unsuback.reason_codes, ReasonCodes::Slice(&codes));
    }

    #[test]
    fn unsuback_uses_its_own_reason_codes() {
        // [MQTT-3.11.3-2]
        assert_eq!(packet(V5, &[0xB0, 4, 0, 1, 0, 1]), Err(DecodeError::InvalidReasonCode));
        assert_eq!(packet(V5, &[0xB0, 3, 0, 1, 0]), Err(DecodeError::NoReasonCode));
    }

    #[test]
    fn unsuback_of_3_1_1_has_no_reason_codes() {
        let v311 = ProtocolVersion::V311;
        assert!(matches!(golden(v311, &[0xB0, 2, 0, 10]), Packet::UnsubAck(_)));
        let unsuback = UnsubAck {
            packet_identifier: PacketIdentifier::new(10).unwrap(),
            properties: AcknowledgementProperties::default(),
            reason_codes: ReasonCodes::Slice(&[ReasonCode::Success]),
        };
        assert_eq!(encoded(v311, &Packet::UnsubAck(unsuback)), [0xB0, 2, 0, 10]);
        assert_eq!(unsuback.encoded_bytes(v311), 4);
    }
}
