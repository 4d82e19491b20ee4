//! Reads the data types of MQTT 5 §1.5 from the bytes of one packet.
//!
//! **Invariant:** a read either takes the whole field or fails; nothing is read past the end, nothing is copied.

use super::{DecodeError, PacketIdentifier, PacketType, ReasonCode};

/// A cursor over bytes that a peer sent.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not yet read.
    #[must_use]
    #[inline]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all bytes are read.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `bytes` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] when there are fewer.
    #[inline]
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// All that is left.
    #[inline]
    pub fn take_rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte (§1.5.1).
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.take_array().map(u8::from_be_bytes)
    }

    /// Two Byte Integer (§1.5.2).
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take_array().map(u16::from_be_bytes)
    }

    /// Four Byte Integer (§1.5.3).
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take_array().map(u32::from_be_bytes)
    }

    /// Variable Byte Integer (§1.5.5): at most 268 435 455.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; [`DecodeError::MalformedVariableByteInteger`] for a fifth byte or a needless one.
    pub fn variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        let (value, bytes) = split_variable_byte_integer(self.rest)?.ok_or(DecodeError::Truncated)?;
        self.take(usize::from(bytes))?;
        Ok(value)
    }

    /// Binary Data (§1.5.6): at most 65 535 bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// UTF-8 Encoded String (§1.5.4): at most 65 535 bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; ill-formed UTF-8, surrogates included [MQTT-1.5.4-1]; U+0000 [MQTT-1.5.4-2]. The other
    /// code points of §1.5.4 that a sender should avoid are accepted.
    pub fn string(&mut self) -> Result<&'a str, DecodeError> {
        let text = core::str::from_utf8(self.binary()?).map_err(|_| DecodeError::InvalidUtf8)?;
        if text.as_bytes().contains(&0) { Err(DecodeError::NulInString) } else { Ok(text) }
    }

    /// UTF-8 String Pair (§1.5.7).
    ///
    /// # Errors
    /// Those of [`Self::string`]. [MQTT-1.5.7-1]
    pub fn string_pair(&mut self) -> Result<(&'a str, &'a str), DecodeError> {
        Ok((self.string()?, self.string()?))
    }

    /// Packet Identifier (§2.2.1).
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; [`DecodeError::ZeroPacketIdentifier`].
    pub fn packet_identifier(&mut self) -> Result<PacketIdentifier, DecodeError> {
        PacketIdentifier::new(self.u16()?).ok_or(DecodeError::ZeroPacketIdentifier)
    }

    /// A Reason Code that `packet_type` may carry (§2.4).
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; [`DecodeError::InvalidReasonCode`].
    pub fn reason_code(&mut self, packet_type: PacketType) -> Result<ReasonCode, DecodeError> {
        let reason_code = ReasonCode::from_u8(self.u8()?).filter(|code| code.is_allowed_in(packet_type));
        reason_code.ok_or(DecodeError::InvalidReasonCode)
    }
}

/// The Variable Byte Integer at the start of `bytes` and the bytes it takes; `None` when it goes on after `bytes`.
pub(super) fn split_variable_byte_integer(bytes: &[u8]) -> Result<Option<(u32, u8)>, DecodeError> {
    let mut value = 0;
    for (index, byte) in (0_u8..4).zip(bytes) {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let needless = *byte == 0 && index > 0;
            return if needless {
                Err(DecodeError::MalformedVariableByteInteger)
            } else {
                Ok(Some((value, index + 1)))
            };
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(DecodeError::MalformedVariableByteInteger) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_big_endian() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.u8(), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_variable_byte_integer_has_at_most_four_bytes() {
        for (bytes, result) in [
            (&[0x00][..], Ok(0)),
            (&[0xC1, 0x02], Ok(321)),
            (&[0xFF, 0xFF, 0xFF, 0x7F], Ok(268_435_455)),
            (&[0x80], Err(DecodeError::Truncated)),
            (&[0x80, 0x00], Err(DecodeError::MalformedVariableByteInteger)),
            (&[0x80, 0x80, 0x80, 0x80, 0x01], Err(DecodeError::MalformedVariableByteInteger)),
        ] {
            assert_eq!(Reader::new(bytes).variable_byte_integer(), result, "{bytes:x?}");
        }
    }

    #[test]
    fn a_string_is_well_formed_utf_8_without_nul() {
        // The example of §1.5.4: "A" and U+2A6D4.
        assert_eq!(Reader::new(&[0, 5, 0x41, 0xF0, 0xAA, 0x9B, 0x94]).string(), Ok("A𪛔"));
        assert_eq!(Reader::new(&[0, 0]).string(), Ok(""));
        // [MQTT-1.5.4-1]: a surrogate, an overlong form.
        assert_eq!(Reader::new(&[0, 3, 0xED, 0xA0, 0x80]).string(), Err(DecodeError::InvalidUtf8));
        assert_eq!(Reader::new(&[0, 2, 0xC0, 0x80]).string(), Err(DecodeError::InvalidUtf8));
        // [MQTT-1.5.4-2]
        assert_eq!(Reader::new(&[0, 3, 0x61, 0x00, 0x62]).string(), Err(DecodeError::NulInString));
        // [MQTT-1.5.4-3]: a byte order mark is kept.
        assert_eq!(Reader::new(&[0, 3, 0xEF, 0xBB, 0xBF]).string(), Ok("\u{feff}"));
        assert_eq!(Reader::new(&[0, 2, 0x61]).string(), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_packet_identifier_of_zero_is_refused() {
        assert_eq!(Reader::new(&[0, 0]).packet_identifier(), Err(DecodeError::ZeroPacketIdentifier));
    }
}
