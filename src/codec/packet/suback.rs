//! SUBACK (MQTT 5 §3.9): one Reason Code for each Topic Filter of the SUBSCRIBE, in its order. [MQTT-3.8.4-6]

use super::AcknowledgementProperties;
use crate::codec::{DecodeError, Full, PacketIdentifier, PacketType, ProtocolVersion, Reader, ReasonCode, Writer};
use core::fmt;

/// Bytes of a decoded SUBACK or UNSUBACK of which each is a known Reason Code. Checked.
#[derive(Clone, Copy)]
pub struct EncodedReasonCodes<'a>(&'a [u8]);

/// The Reason Codes of a SUBACK or UNSUBACK.
#[derive(Clone, Copy)]
pub enum ReasonCodes<'a> {
    /// Those of a decoded packet.
    Encoded(EncodedReasonCodes<'a>),
    /// Those of a packet that is built by hand.
    Slice(&'a [ReasonCode]),
}

impl<'a> ReasonCodes<'a> {
    /// Reads the rest of a packet; only codes for which `is_allowed` holds, and at least one.
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        is_allowed: impl Fn(ReasonCode) -> bool,
    ) -> Result<Self, DecodeError> {
        let bytes = reader.take_rest();
        if bytes.is_empty() {
            return Err(DecodeError::NoReasonCode);
        }
        if !bytes.iter().all(|byte| ReasonCode::from_u8(*byte).is_some_and(&is_allowed)) {
            return Err(DecodeError::InvalidReasonCode);
        }
        Ok(Self::Encoded(EncodedReasonCodes(bytes)))
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Encoded(EncodedReasonCodes(bytes)) => bytes.len(),
            Self::Slice(codes) => codes.len(),
        }
    }

    /// Whether there is none: an UNSUBACK of MQTT 3.1.1.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The code of the filter with this index.
    #[must_use]
    pub fn nth(&self, index: usize) -> Option<ReasonCode> {
        match self {
            Self::Encoded(EncodedReasonCodes(bytes)) => bytes.get(index).and_then(|byte| ReasonCode::from_u8(*byte)),
            Self::Slice(codes) => codes.get(index).copied(),
        }
    }

    /// The codes in the order of the filters.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = ReasonCode> + Clone + use<'a> {
        let codes = *self;
        // Every index is in range and every byte is a code, so the default is never used.
        (0..codes.len()).map(move |index| codes.nth(index).unwrap_or(ReasonCode::UnspecifiedError))
    }
}

impl PartialEq for ReasonCodes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ReasonCodes<'_> {}

impl fmt::Debug for ReasonCodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The answer to a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE. [MQTT-3.8.4-2]
    pub packet_identifier: PacketIdentifier,
    /// Empty in MQTT 3.1.1.
    pub properties: AcknowledgementProperties<'a>,
    /// The granted QoS or the failure of each filter.
    pub reason_codes: ReasonCodes<'a>,
}

impl<'a> SubAck<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_identifier = reader.packet_identifier()?;
        let (properties, reason_codes) = match version {
            ProtocolVersion::V311 => {
                let known = |code: ReasonCode| code.as_u8() <= 2 || code == ReasonCode::UnspecifiedError;
                (AcknowledgementProperties::default(), ReasonCodes::decode(reader, known)?)
            }
            ProtocolVersion::V5 => {
                let properties = AcknowledgementProperties::decode(reader)?;
                (properties, ReasonCodes::decode(reader, |code| code.is_allowed_in(PacketType::SubAck))?)
            }
        };
        Ok(Self { packet_identifier, properties, reason_codes })
    }

    /// Bytes of the whole packet.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        Self::parts_bytes(&self.properties, self.reason_codes.len(), version)
    }

    /// Writes the whole packet. In MQTT 3.1.1 every failure is 0x80.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written.
    pub fn encode(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        Self::encode_parts(self.packet_identifier, &self.properties, self.reason_codes.iter(), version, writer)
    }

    /// Bytes of the SUBACK that [`Self::encode_parts`] writes for this many codes.
    #[must_use]
    pub fn parts_bytes(properties: &AcknowledgementProperties<'_>, codes: usize, version: ProtocolVersion) -> usize {
        Writer::packet_bytes(body_bytes(properties, codes, version))
    }

    /// Writes a SUBACK whose codes come from an iterator, which is used once.
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
        let codes = reason_codes.map(|code| match version {
            ProtocolVersion::V311 => code.to_v311_subscribe_return_code(),
            ProtocolVersion::V5 => code.as_u8(),
        });
        put_list(PacketType::SubAck, packet_identifier, properties, codes, version, writer)
    }
}

/// Remaining Length of a SUBACK or UNSUBACK with this many codes.
pub(super) fn body_bytes(properties: &AcknowledgementProperties<'_>, codes: usize, version: ProtocolVersion) -> usize {
    Writer::measure(|writer| {
        writer.put_u16(0)?;
        put_properties(properties, version, writer)
    })
    .saturating_add(codes)
}

fn put_properties(
    properties: &AcknowledgementProperties<'_>,
    version: ProtocolVersion,
    writer: &mut Writer<'_>,
) -> Result<(), Full> {
    match version {
        ProtocolVersion::V311 => Ok(()),
        ProtocolVersion::V5 => writer.put_section(|writer| properties.encode(writer)),
    }
}

/// Writes a SUBACK or UNSUBACK, which share one shape.
pub(super) fn put_list(
    packet_type: PacketType,
    packet_identifier: PacketIdentifier,
    properties: &AcknowledgementProperties<'_>,
    codes: impl ExactSizeIterator<Item = u8>,
    version: ProtocolVersion,
    writer: &mut Writer<'_>,
) -> Result<(), Full> {
    let remaining_length = body_bytes(properties, codes.len(), version);
    writer.all_or_nothing(|writer| {
        writer.put_fixed_header(packet_type, packet_type.reserved_flags(), remaining_length)?;
        let end = writer.len().checked_add(remaining_length).ok_or(Full)?;
        writer.put_u16(packet_identifier.get())?;
        put_properties(properties, version, writer)?;
        for code in codes {
            writer.put_u8(code)?;
        }
        assert_eq!(writer.len(), end, "the iterator yields as many codes as it says");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::packet::tests::{encoded, golden, packet};
    use crate::codec::{Packet, UserProperties};

    const V5: ProtocolVersion = ProtocolVersion::V5;

    #[test]
    fn suback_answers_each_filter_in_order() {
        // [MQTT-3.8.4-6]
        let Packet::SubAck(suback) = golden(V5, &[0x90, 7, 0, 10, 0, 0, 1, 2, 0x8F]) else { panic!() };
        let codes = [
            ReasonCode::GRANTED_QOS_0,
            ReasonCode::GrantedQoS1,
            ReasonCode::GrantedQoS2,
            ReasonCode::TopicFilterInvalid,
        ];
        assert_eq!(suback.reason_codes, ReasonCodes::Slice(&codes));
        assert_eq!(suback.packet_identifier.get(), 10);
    }

    #[test]
    fn suback_is_written_from_an_iterator() {
        let properties = AcknowledgementProperties { reason_string: Some("x"), user_properties: UserProperties::EMPTY };
        let identifier = PacketIdentifier::new(10).unwrap();
        let codes = [ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized];
        let mut buffer = [0; 16];
        let mut writer = Writer::new(&mut buffer);
        SubAck::encode_parts(identifier, &properties, codes.into_iter(), V5, &mut writer).unwrap();
        assert_eq!(writer.written(), [0x90, 9, 0, 10, 4, 0x1F, 0, 1, b'x', 1, 0x87]);
        assert_eq!(SubAck::parts_bytes(&properties, 2, V5), writer.len());
        let suback = SubAck { packet_identifier: identifier, properties, reason_codes: ReasonCodes::Slice(&codes) };
        assert_eq!(encoded(V5, &Packet::SubAck(suback)), writer.written());
    }

    #[test]
    fn suback_uses_its_own_reason_codes() {
        // [MQTT-3.9.3-2]
        assert_eq!(packet(V5, &[0x90, 4, 0, 1, 0, 0x11]), Err(DecodeError::InvalidReasonCode));
        assert_eq!(packet(V5, &[0x90, 3, 0, 1, 0]), Err(DecodeError::NoReasonCode));
    }

    #[test]
    fn suback_of_3_1_1_knows_one_failure() {
        let v311 = ProtocolVersion::V311;
        assert!(matches!(golden(v311, &[0x90, 6, 0, 1, 0, 1, 2, 0x80]), Packet::SubAck(_)));
        assert_eq!(packet(v311, &[0x90, 3, 0, 1, 0x87]), Err(DecodeError::InvalidReasonCode));
        let suback = SubAck {
            packet_identifier: PacketIdentifier::new(1).unwrap(),
            properties: AcknowledgementProperties { reason_string: Some("x"), ..AcknowledgementProperties::default() },
            reason_codes: ReasonCodes::Slice(&[ReasonCode::NotAuthorized]),
        };
        assert_eq!(encoded(v311, &Packet::SubAck(suback)), [0x90, 3, 0, 1, 0x80]);
    }
}
