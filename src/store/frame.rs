//! How a record lies in a segment, and how records are found again among damage.
//!
//! | bytes | field, little-endian |
//! | --- | --- |
//! | 4 | length of the body |
//! | 4 | CRC-32C of the key of the segment, the other fields and the body |
//! | 8 | sequence number, 48 bits, and index in its batch, 16 bits |
//! | … | body |
//!
//! Sequence numbers grow by one with every record of a log, so that what is missing can be counted, and what a segment held
//! in a former life is not taken for what it holds now.
//!
//! A batch is written only after the one before it is on the disk. So every record from before the last batch has been on the
//! disk, and one of them that does not read is damaged. In the last batch itself it was never finished, and nothing behind it
//! counts.

/// Bytes before the body.
pub const FRAME_BYTES: usize = 16;

const INDEX_BITS: u32 = 16;
/// Most records of one batch.
pub const INDEX_MAX: u16 = u16::MAX;

/// Where a record stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the record.
    pub sequence: u64,
    /// Number of the record in its batch, from 0.
    pub index: u16,
}

impl Place {
    /// Number of the first record of its batch.
    #[must_use]
    pub const fn batch(self) -> u64 {
        self.sequence.saturating_sub(self.index as u64)
    }
}

/// Completes the frame in `frame`, whose body has been written behind [`FRAME_BYTES`] bytes, but for the key.
pub fn seal(frame: &mut [u8], place: Place) {
    let body_bytes = u32::try_from(frame.len().saturating_sub(FRAME_BYTES)).unwrap_or(u32::MAX);
    let position = place.sequence << INDEX_BITS | u64::from(place.index);
    let Some((head, body)) = frame.split_first_chunk_mut::<FRAME_BYTES>() else { return };
    let [length, checksum, position_low, position_high] = words(head);
    *length = body_bytes.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = position.to_le_bytes();
    (*position_low, *position_high) = ([a, b, c, d], [e, f, g, h]);
    *checksum = checksum_of(0, body_bytes, position, body).to_le_bytes();
}

/// Puts the key of their segment before the checksums of the frames in `frames`, which stand one after the other.
pub fn key(mut frames: &mut [u8], key: u32) {
    let begin = crc32c::crc32c(&key.to_le_bytes());
    while let Some((head, rest)) = frames.split_first_chunk_mut::<FRAME_BYTES>() {
        let [length, checksum, ..] = words(head);
        let body_bytes = u32::from_le_bytes(*length) as usize;
        let checked_bytes = FRAME_BYTES - checksum.len() + body_bytes;
        *checksum = crc32c::crc32c_combine(begin, u32::from_le_bytes(*checksum), checked_bytes).to_le_bytes();
        frames = rest.get_mut(body_bytes..).unwrap_or_default();
    }
}

fn words(head: &mut [u8; FRAME_BYTES]) -> [&mut [u8; 4]; 4] {
    let (words, _) = head.as_chunks_mut::<4>();
    let mut words = words.iter_mut();
    // Sixteen bytes are four words.
    [(); 4].map(|()| words.next().unwrap_or_else(|| unreachable!("sixteen bytes are four words")))
}

/// The checksum of what follows `begin`.
fn checksum_of(begin: u32, body_bytes: u32, position: u64, body: &[u8]) -> u32 {
    let head = crc32c::crc32c_append(crc32c::crc32c_append(begin, &body_bytes.to_le_bytes()), &position.to_le_bytes());
    crc32c::crc32c_append(head, body)
}

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where its frame begins.
    pub offset: usize,
    /// Bytes of frame and body.
    pub bytes: usize,
    /// Where it stands in the log.
    pub place: Place,
}

/// Finds the records of a segment, from `offset` on, whose sequence numbers are above `after`. Bytes that are none are passed
/// over, and so is what looks like a record but has a higher number than the bytes that were passed over have room for.
pub struct Scan<'s> {
    segment: &'s [u8],
    /// Checksum of the key.
    begin: u32,
    offset: usize,
    after: u64,
    /// Where the record before ends.
    end: usize,
}

/// Bytes of the smallest record.
const RECORD_BYTES_MIN: u64 = FRAME_BYTES as u64 + 1;

impl<'s> Scan<'s> {
    /// Begins at `offset` of `segment`.
    #[must_use]
    pub fn new(segment: &'s [u8], key: u32, offset: usize, after: u64) -> Self {
        Self { segment, begin: crc32c::crc32c(&key.to_le_bytes()), offset, after, end: offset }
    }

    fn frame_at(&self, offset: usize) -> Option<Found> {
        let rest = self.segment.get(offset..)?;
        let (head, rest) = rest.split_first_chunk::<FRAME_BYTES>()?;
        let [l0, l1, l2, l3, c0, c1, c2, c3, position @ ..] = *head;
        let position = u64::from_le_bytes(position);
        let place = Place { sequence: position >> INDEX_BITS, index: (position & u64::from(INDEX_MAX)) as u16 };
        let missing = place.sequence.checked_sub(self.after)?.checked_sub(1)?;
        if missing > (offset - self.end) as u64 / RECORD_BYTES_MIN || u64::from(place.index) >= place.sequence {
            return None;
        }
        let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]);
        let body = rest.get(..body_bytes as usize)?;
        let found = Found { offset, bytes: FRAME_BYTES + body.len(), place };
        (checksum_of(self.begin, body_bytes, position, body) == u32::from_le_bytes([c0, c1, c2, c3])).then_some(found)
    }
}

impl Iterator for Scan<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            // Most of what is passed over was never written. The length in front of a record is not 0, so that one of its
            // first four bytes is not.
            let rest = self.segment.get(self.offset..)?;
            self.offset += rest.iter().position(|byte| *byte != 0)?.saturating_sub(3);
            if self.offset + FRAME_BYTES > self.segment.len() {
                return None;
            }
            if let Some(found) = self.frame_at(self.offset) {
                self.offset += found.bytes;
                self.end = self.offset;
                self.after = found.place.sequence;
                return Some(found);
            }
            self.offset += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u32 = 0x0123_4567;

    fn frame(body: &[u8], sequence: u64, index: u16) -> Vec<u8> {
        let mut frame = vec![0; FRAME_BYTES];
        frame.extend_from_slice(body);
        seal(&mut frame, Place { sequence, index });
        key(&mut frame, KEY);
        frame
    }

    fn numbers(segment: &[u8], after: u64) -> Vec<u64> {
        Scan::new(segment, KEY, 0, after).map(|found| found.place.sequence).collect()
    }

    #[test]
    fn records_are_found_one_after_the_other() {
        let segment = [frame(b"one", 1, 0), frame(b"2", 2, 1), frame(&[7; 300], 3, 0), vec![0; 64]].concat();
        let found: Vec<Found> = Scan::new(&segment, KEY, 0, 0).collect();
        assert_eq!(found.iter().map(|found| found.bytes).collect::<Vec<_>>(), [19, 17, 316]);
        assert_eq!(found.iter().map(|found| found.place.batch()).collect::<Vec<_>>(), [1, 1, 3]);
    }

    #[test]
    fn every_changed_bit_loses_its_record_and_no_other() {
        let segment = [frame(b"one", 1, 0), frame(b"two", 2, 1), frame(b"three", 3, 2)].concat();
        for bit in 19 * 8..38 * 8 {
            let mut damaged = segment.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(numbers(&damaged, 0), [1, 3], "bit {bit}");
        }
    }

    #[test]
    fn what_a_former_life_left_is_not_found() {
        let segment = [frame(b"new", 100, 0), frame(b"old", 40, 0), frame(b"older", 41, 1)].concat();
        assert_eq!(numbers(&segment, 99), [100]);
        assert_eq!(numbers(&segment[19..], 100), [0_u64; 0]);
    }

    #[test]
    fn what_a_peer_made_up_is_no_record_when_the_one_around_it_is_damaged() {
        for other in [0, 1, !KEY] {
            let mut forged = vec![0; FRAME_BYTES];
            forged.extend_from_slice(b"forged");
            seal(&mut forged, Place { sequence: 11, index: 0 });
            key(&mut forged, other);
            let mut around = frame(&forged, 11, 0);
            around[5] ^= 1;
            let segment = [frame(b"before", 10, 0), around, frame(b"behind", 12, 0)].concat();
            assert_eq!(numbers(&segment, 9), [10, 12]);
        }
    }

    #[test]
    fn many_frames_get_their_key_at_once() {
        let bodies = [[7; 300].as_slice(), b"2", b"three"];
        let mut together: Vec<u8> = Vec::new();
        for (body, sequence) in bodies.into_iter().zip(1..) {
            let start = together.len();
            together.extend_from_slice(&[0; FRAME_BYTES]);
            together.extend_from_slice(body);
            seal(&mut together[start..], Place { sequence, index: 0 });
        }
        key(&mut together, KEY);
        assert_eq!(numbers(&together, 0), [1, 2, 3]);
        assert!(Scan::new(&together, KEY + 1, 0, 0).next().is_none());
    }

    #[test]
    fn a_length_beyond_the_segment_is_no_record() {
        let mut segment = frame(b"one", 1, 0);
        segment[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(numbers(&segment, 0), [0_u64; 0]);
    }
}
