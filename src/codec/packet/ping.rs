//! PINGREQ and PINGRESP (MQTT 5 §3.12, §3.13): a fixed header and nothing else. Decoding them is one line of
//! [`super::decode`].

use crate::codec::{Full, PacketType, Writer};

/// Bytes of a PINGREQ and of a PINGRESP.
pub const PING_BYTES: usize = 2;

/// Writes a PINGREQ.
///
/// # Errors
/// [`Full`], and then nothing of it counts as written.
pub fn encode_request(writer: &mut Writer<'_>) -> Result<(), Full> {
    writer.put_packet(PacketType::PingReq, |_| Ok(()))
}

/// Writes a PINGRESP. [MQTT-3.12.4-1]
///
/// # Errors
/// [`Full`], and then nothing of it counts as written.
pub fn encode_response(writer: &mut Writer<'_>) -> Result<(), Full> {
    writer.put_packet(PacketType::PingResp, |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use crate::codec::packet::tests::{golden, packet};
    use crate::codec::{DecodeError, Packet, ProtocolVersion};

    #[test]
    fn pings_are_two_bytes() {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            assert_eq!(golden(version, &[0xC0, 0]), Packet::PingReq);
            assert_eq!(golden(version, &[0xD0, 0]), Packet::PingResp);
            assert_eq!(packet(version, &[0xC0, 1, 0]), Err(DecodeError::TrailingBytes));
        }
    }
}
