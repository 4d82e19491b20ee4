//! Writes the data types of MQTT 5 §1.5 into a buffer of the caller's.
//!
//! The sizes that a packet announces before its contents are found by writing the contents to a writer without a buffer,
//! which only counts: one description gives both the length and the bytes, so they cannot differ.

use super::{PacketType, REMAINING_LENGTH_MAX};
use core::fmt;

/// No room: the buffer is too short, or a length does not fit the field that announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room for the packet")
    }
}

impl core::error::Error for Full {}

/// Bytes that `value` takes as a Variable Byte Integer: 1 to 4 (5 for what no such integer can hold).
#[must_use]
pub const fn variable_byte_integer_bytes(value: u32) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        2_097_152..=REMAINING_LENGTH_MAX => 4,
        _ => 5,
    }
}

/// Fills a buffer from its start.
#[derive(Debug)]
pub struct Writer<'a> {
    /// `None` counts only.
    buffer: Option<&'a mut [u8]>,
    length: usize,
}

impl<'a> Writer<'a> {
    /// Writes to `buffer` from its first byte.
    #[must_use]
    #[inline]
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer: Some(buffer), length: 0 }
    }

    /// Bytes that `write` writes; `usize::MAX`, which fits nowhere, when it cannot be written at all.
    pub(super) fn measure(write: impl Fn(&mut Writer<'_>) -> Result<(), Full>) -> usize {
        let mut counter = Writer { buffer: None, length: 0 };
        match write(&mut counter) {
            Ok(()) => counter.length,
            Err(Full) => usize::MAX,
        }
    }

    /// Bytes of a packet with this Remaining Length; `usize::MAX` when there is no such packet.
    pub(super) fn packet_bytes(remaining_length: usize) -> usize {
        Self::measure(|writer| writer.put_fixed_header(PacketType::Connect, 0, remaining_length))
            .saturating_add(remaining_length)
    }

    /// The bytes written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        self.buffer.as_deref().and_then(|buffer| buffer.get(..self.length)).unwrap_or_default()
    }

    /// How many bytes are written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many bytes there is room for.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.buffer.as_ref().map_or(usize::MAX, |buffer| buffer.len()).saturating_sub(self.length)
    }

    /// The bytes as they are.
    ///
    /// # Errors
    /// [`Full`], and then nothing is written.
    #[inline]
    pub fn put_slice(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.length.checked_add(bytes.len()).ok_or(Full)?;
        if let Some(buffer) = &mut self.buffer {
            buffer.get_mut(self.length..end).ok_or(Full)?.copy_from_slice(bytes);
        }
        self.length = end;
        Ok(())
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Full`].
    #[inline]
    pub fn put_u8(&mut self, value: u8) -> Result<(), Full> {
        self.put_slice(&[value])
    }

    /// Two Byte Integer (§1.5.2).
    ///
    /// # Errors
    /// [`Full`].
    #[inline]
    pub fn put_u16(&mut self, value: u16) -> Result<(), Full> {
        self.put_slice(&value.to_be_bytes())
    }

    /// Four Byte Integer (§1.5.3).
    ///
    /// # Errors
    /// [`Full`].
    #[inline]
    pub fn put_u32(&mut self, value: u32) -> Result<(), Full> {
        self.put_slice(&value.to_be_bytes())
    }

    /// Variable Byte Integer (§1.5.5), in as few bytes as it needs. [MQTT-1.5.5-1]
    ///
    /// # Errors
    /// [`Full`], also for a value above 268 435 455.
    pub fn put_variable_byte_integer(&mut self, value: u32) -> Result<(), Full> {
        if value > REMAINING_LENGTH_MAX {
            return Err(Full);
        }
        let mut rest = value;
        loop {
            let [low, ..] = (rest & 0x7F).to_le_bytes();
            rest >>= 7;
            if rest == 0 {
                return self.put_u8(low);
            }
            self.put_u8(low | 0x80)?;
        }
    }

    /// Binary Data (§1.5.6).
    ///
    /// # Errors
    /// [`Full`], also for more than 65 535 bytes.
    pub fn put_binary(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.put_u16(u16::try_from(bytes.len()).map_err(|_| Full)?)?;
        self.put_slice(bytes)
    }

    /// UTF-8 Encoded String (§1.5.4). That it holds no U+0000 is the caller's to know.
    ///
    /// # Errors
    /// [`Full`], also for more than 65 535 bytes.
    pub fn put_string(&mut self, text: &str) -> Result<(), Full> {
        self.put_binary(text.as_bytes())
    }

    /// UTF-8 String Pair (§1.5.7).
    ///
    /// # Errors
    /// [`Full`].
    pub fn put_string_pair(&mut self, pair: (&str, &str)) -> Result<(), Full> {
        self.put_string(pair.0)?;
        self.put_string(pair.1)
    }

    /// What `write` writes, after its length as a Variable Byte Integer: the form of a property section (§2.2.2).
    pub(super) fn put_section(&mut self, write: impl Fn(&mut Writer<'_>) -> Result<(), Full>) -> Result<(), Full> {
        self.put_variable_byte_integer(u32::try_from(Self::measure(&write)).map_err(|_| Full)?)?;
        write(self)
    }

    /// A fixed header with the flags that the packet type prescribes, or those of a PUBLISH.
    pub(super) fn put_fixed_header(
        &mut self,
        packet_type: PacketType,
        flags: u8,
        remaining_length: usize,
    ) -> Result<(), Full> {
        let remaining_length = u32::try_from(remaining_length).map_err(|_| Full)?;
        self.put_u8(packet_type.bits() << 4 | flags)?;
        self.put_variable_byte_integer(remaining_length)
    }

    /// A whole packet of which `body` writes what follows the fixed header.
    pub(super) fn put_packet(
        &mut self,
        packet_type: PacketType,
        body: impl Fn(&mut Writer<'_>) -> Result<(), Full>,
    ) -> Result<(), Full> {
        let remaining_length = Self::measure(&body);
        self.all_or_nothing(|writer| {
            writer.put_fixed_header(packet_type, packet_type.reserved_flags(), remaining_length)?;
            body(writer)
        })
    }

    /// **Invariant:** when `write` fails, nothing of what it wrote counts as written.
    pub(super) fn all_or_nothing(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Full>) -> Result<(), Full> {
        let start = self.length;
        let result = write(self);
        if result.is_err() {
            self.length = start;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Reader;

    #[test]
    fn a_variable_byte_integer_takes_as_few_bytes_as_it_needs() {
        // [MQTT-1.5.5-1], the limits of table 1-1.
        for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455] {
            let mut buffer = [0; 8];
            let mut writer = Writer::new(&mut buffer);
            writer.put_variable_byte_integer(value).unwrap();
            assert_eq!(writer.len(), variable_byte_integer_bytes(value));
            assert_eq!(Reader::new(writer.written()).variable_byte_integer(), Ok(value));
        }
        assert_eq!(Writer::new(&mut [0; 8]).put_variable_byte_integer(268_435_456), Err(Full));
    }

    #[test]
    fn a_full_writer_keeps_what_it_had() {
        let mut buffer = [0; 3];
        let mut writer = Writer::new(&mut buffer);
        writer.put_u16(0x0102).unwrap();
        assert_eq!(writer.remaining(), 1);
        assert_eq!(writer.put_u16(0x0304), Err(Full));
        assert_eq!(writer.put_u32(5), Err(Full));
        assert_eq!(writer.written(), [1, 2]);
        assert_eq!(writer.all_or_nothing(|writer| writer.put_u8(9).and(writer.put_u8(9))), Err(Full));
        assert_eq!(writer.written(), [1, 2]);
    }

    #[test]
    fn binary_data_ends_at_65535_bytes() {
        let long = [b'x'; 65_536];
        assert_eq!(Writer::measure(|writer| writer.put_binary(&long[1..])), 65_537);
        assert_eq!(Writer::measure(|writer| writer.put_binary(&long)), usize::MAX);
        let mut buffer = [0; 65_540];
        assert_eq!(Writer::new(&mut buffer).put_binary(&long), Err(Full));
    }
}
