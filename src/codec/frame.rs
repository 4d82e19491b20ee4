//! The fixed header (MQTT 5 §2.1): what cuts a byte stream into packets.
//!
//! In: the first bytes of a packet, as many as have come. Out: its type, flags and length, or that more bytes are needed,
//! or that no bytes to come could make it valid. Whether a packet is too large is the caller's question: it knows the
//! length as soon as this header does.

use super::reader::split_variable_byte_integer;
use super::{DecodeError, QoS};

/// Largest Remaining Length: four bytes of seven bits (§1.5.5).
pub const REMAINING_LENGTH_MAX: u32 = 268_435_455;

/// The MQTT Control Packets (§2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Connection request.
    Connect = 1,
    /// Connect acknowledgment.
    ConnAck,
    /// Publish message.
    Publish,
    /// Publish acknowledgment (QoS 1).
    PubAck,
    /// Publish received (QoS 2 delivery part 1).
    PubRec,
    /// Publish release (QoS 2 delivery part 2).
    PubRel,
    /// Publish complete (QoS 2 delivery part 3).
    PubComp,
    /// Subscribe request.
    Subscribe,
    /// Subscribe acknowledgment.
    SubAck,
    /// Unsubscribe request.
    Unsubscribe,
    /// Unsubscribe acknowledgment.
    UnsubAck,
    /// PING request.
    PingReq,
    /// PING response.
    PingResp,
    /// Disconnect notification.
    Disconnect,
    /// Authentication exchange; MQTT 5 only.
    Auth,
}

impl PacketType {
    /// `None` for 0, which is reserved, and above 15.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The number on the wire, in the upper four bits of the first byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// The flags that §2.1.3 prescribes; for PUBLISH, whose flags say something, those of a plain QoS 0 message.
    pub(super) const fn reserved_flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            Self::Connect
            | Self::ConnAck
            | Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubComp
            | Self::SubAck
            | Self::UnsubAck
            | Self::PingReq
            | Self::PingResp
            | Self::Disconnect
            | Self::Auth => 0,
        }
    }
}

/// The fixed header of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    /// Upper four bits of the first byte.
    pub packet_type: PacketType,
    /// Lower four bits of the first byte.
    pub flags: u8,
    /// Bytes after this header, at most [`REMAINING_LENGTH_MAX`].
    pub remaining_length: u32,
    /// Bytes of this header: 2 to 5.
    pub header_bytes: u8,
}

impl FixedHeader {
    /// Bytes of the whole packet, as Maximum Packet Size counts them (§3.1.2.11.4).
    #[must_use]
    pub const fn packet_bytes(self) -> usize {
        // Both are far below usize::MAX on every target with 32-bit addresses.
        self.remaining_length as usize + self.header_bytes as usize
    }
}

/// Reads the fixed header at the start of `bytes`; `None` when more bytes are needed.
///
/// # Errors
/// The first byte alone refuses a reserved packet type, wrong reserved flags [MQTT-2.1.3-1], QoS 3 [MQTT-3.3.1-4] and DUP
/// at QoS 0 [MQTT-3.3.1-2]. A Remaining Length that goes on after four bytes, or uses more bytes than it needs
/// [MQTT-1.5.5-1], is refused as soon as that is seen.
pub fn decode_fixed_header(bytes: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
    let packet_type = PacketType::from_bits(first >> 4).ok_or(DecodeError::ReservedPacketType)?;
    let flags = first & 0x0F;
    if packet_type == PacketType::Publish {
        publish_flags(flags)?;
    } else if flags != packet_type.reserved_flags() {
        return Err(DecodeError::ReservedFlags);
    }
    let length = split_variable_byte_integer(rest).map_err(|_| DecodeError::MalformedRemainingLength)?;
    Ok(length.map(|(remaining_length, length_bytes)| FixedHeader {
        packet_type,
        flags,
        remaining_length,
        header_bytes: 1 + length_bytes,
    }))
}

/// The flags of a PUBLISH (§3.3.1): DUP, QoS and RETAIN.
pub(super) fn publish_flags(flags: u8) -> Result<(bool, QoS, bool), DecodeError> {
    let dup = flags & 0b1000 != 0;
    let qos = QoS::from_bits((flags >> 1) & 0b11).ok_or(DecodeError::InvalidQoS)?;
    if dup && qos == QoS::AtMostOnce {
        return Err(DecodeError::DupWithoutQoS);
    }
    Ok((dup, qos, flags & 1 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(bytes: &[u8]) -> Result<Option<FixedHeader>, DecodeError> {
        decode_fixed_header(bytes)
    }

    #[test]
    fn a_fixed_header_waits_for_the_end_of_its_length() {
        assert_eq!(header(&[]), Ok(None));
        assert_eq!(header(&[0x30]), Ok(None));
        assert_eq!(header(&[0x30, 0xFF, 0xFF, 0xFF]), Ok(None));
        let complete = header(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]).unwrap().unwrap();
        assert_eq!(complete.remaining_length, REMAINING_LENGTH_MAX);
        assert_eq!(complete.packet_bytes(), 268_435_460);
    }

    #[test]
    fn remaining_lengths_of_table_2_4_are_read() {
        for (bytes, length) in [
            (&[0xC0, 0x00][..], 0),
            (&[0xC0, 0x7F], 127),
            (&[0xC0, 0x80, 0x01], 128),
            (&[0xC0, 0xFF, 0x7F], 16_383),
            (&[0xC0, 0x80, 0x80, 0x01], 16_384),
            (&[0xC0, 0xFF, 0xFF, 0x7F], 2_097_151),
            (&[0xC0, 0x80, 0x80, 0x80, 0x01], 2_097_152),
        ] {
            let header = header(bytes).unwrap().unwrap();
            assert_eq!((header.remaining_length, usize::from(header.header_bytes)), (length, bytes.len()));
        }
    }

    #[test]
    fn the_fourth_length_byte_ends_the_remaining_length() {
        assert_eq!(header(&[0x30, 0x80, 0x80, 0x80, 0x80]), Err(DecodeError::MalformedRemainingLength));
        assert_eq!(header(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]), Err(DecodeError::MalformedRemainingLength));
    }

    #[test]
    fn a_remaining_length_uses_no_more_bytes_than_it_needs() {
        // [MQTT-1.5.5-1]
        assert_eq!(header(&[0xC0, 0x80, 0x00]), Err(DecodeError::MalformedRemainingLength));
        assert_eq!(header(&[0xC0, 0xFF, 0x80, 0x00]), Err(DecodeError::MalformedRemainingLength));
    }

    #[test]
    fn the_first_byte_alone_refuses_reserved_types_and_flags() {
        // [MQTT-2.1.3-1]
        for first in 0..=u8::MAX {
            let allowed = match first >> 4 {
                0 => false,
                3 => !matches!(first & 0x0F, 0b0110 | 0b0111 | 0b1110 | 0b1111 | 0b1000 | 0b1001),
                6 | 8 | 10 => first & 0x0F == 2,
                _ => first & 0x0F == 0,
            };
            assert_eq!(header(&[first]).is_ok(), allowed, "{first:#04x}");
        }
        assert_eq!(header(&[0x00]), Err(DecodeError::ReservedPacketType));
        assert_eq!(header(&[0x80]), Err(DecodeError::ReservedFlags));
        assert_eq!(header(&[0x36]), Err(DecodeError::InvalidQoS));
        assert_eq!(header(&[0x38]), Err(DecodeError::DupWithoutQoS));
    }
}
