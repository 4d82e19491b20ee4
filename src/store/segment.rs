//! Segments: files of one size, in which records stand one behind the other.
//!
//! | bytes | field of the header, little-endian |
//! | --- | --- |
//! | 8 | magic, `PORTLOG\0` |
//! | 2 | format |
//! | 6 | 0 |
//! | 8 | number of the segment |
//! | 4 | CRC-32C of all of the above |
//! | 36 | 0 |
//!
//! A segment's name has its number, which is that of its first record, and its key, with which the checksums of its records
//! begin. So it still reads when its header is lost, and what looks like a record, in the payload of a damaged one or of one
//! from a former life, is none: who sent it knew no key. The name also tells what cannot be of this segment by number.
//!
//! One that is not needed any more becomes a spare, and a new segment with a later name again: its blocks have been written
//! before, so that nothing but data changes when it is written anew.

use core::fmt;

/// How every segment begins.
pub const MAGIC: &[u8; 8] = b"PORTLOG\0";
/// The format of the records behind a header.
pub const FORMAT: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of the header that its checksum is of.
const CHECKED_BYTES: usize = 24;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Number of the segment: that of its first record.
    pub number: u64,
}

/// What the beginning of a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A header of the format that this program writes.
    Header(Header),
    /// A header of a format that this program does not know.
    Newer {
        /// The format.
        format: u16,
    },
    /// Nothing was ever written there.
    Blank,
    /// No header.
    Damaged,
}

impl Header {
    /// The bytes of the header.
    #[must_use]
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let checked = [MAGIC.as_slice(), &FORMAT.to_le_bytes(), &[0; 6], &self.number.to_le_bytes()].concat();
        let all = [checked.as_slice(), &crc32c::crc32c(&checked).to_le_bytes()].concat();
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = from;
        }
        bytes
    }

    /// Reads the beginning of a segment.
    #[must_use]
    pub fn decode(segment: &[u8]) -> Beginning {
        let Some(header) = segment.first_chunk::<HEADER_BYTES>() else { return Beginning::Damaged };
        if header.iter().all(|byte| *byte == 0) {
            return Beginning::Blank;
        }
        let (checked, rest) = header.split_at(CHECKED_BYTES);
        let number = |at: usize| {
            let bytes = checked.get(at..).and_then(|bytes| bytes.first_chunk::<8>());
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let checksum = rest.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
        if !checked.starts_with(MAGIC) || checksum != Some(crc32c::crc32c(checked)) {
            return Beginning::Damaged;
        }
        match (number(8) & u64::from(u16::MAX)) as u16 {
            FORMAT => Beginning::Header(Self { number: number(16) }),
            format => Beginning::Newer { format },
        }
    }
}

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Its number: that of its first record.
    pub number: u64,
    /// What the checksums of its records begin with.
    pub key: u32,
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Name::Segment(*self).fmt(f)
    }
}

/// The name of a file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// A segment.
    Segment(Segment),
    /// A file that waits to become a segment.
    Spare(u64),
}

impl Name {
    /// Reads a name; `None` for files that are not of the log.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (digits, kind) = name.split_once('.')?;
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let parsed = match kind {
            "log" => {
                let (digits, key) = digits.split_once('-')?;
                Self::Segment(Segment { number: number(digits)?, key: u32::try_from(number(key)?).ok()? })
            }
            "spare" => Self::Spare(number(digits)?),
            _ => return None,
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(Segment { number, key }) => write!(f, "{number:016x}-{key:08x}.log"),
            Self::Spare(number) => write!(f, "{number:016x}.spare"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_any_damage_is_seen() {
        let header = Header { number: 1 << 40 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Beginning::Header(header));
        for bit in 0..(CHECKED_BYTES + 4) * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged), Beginning::Damaged, "bit {bit}");
        }
        assert_eq!(Header::decode(&[0; HEADER_BYTES]), Beginning::Blank);
        assert_eq!(Header::decode(b"short"), Beginning::Damaged);
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = Header { number: 7 }.encode();
        bytes[8] = 9;
        let checksum = crc32c::crc32c(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..CHECKED_BYTES + 4].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Beginning::Newer { format: 9 });
    }

    #[test]
    fn names_sort_by_number_and_others_are_none() {
        let segment = Segment { number: 0x1f, key: 0xabc };
        assert_eq!(segment.to_string(), "000000000000001f-00000abc.log");
        assert_eq!(Name::parse(&segment.to_string()), Some(Name::Segment(segment)));
        for other in [
            "1f.log",
            "lock",
            "000000000000001f.log",
            "000000000000001F-00000abc.log",
            "000000000000001f-00000abc.tmp",
            "last-good.blob",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
