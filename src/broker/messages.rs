//! Application messages, each stored once.
//!
//! A message is a header in a slab and a chain of fixed blocks that holds, one after the other, its topic, the properties
//! that a server forwards unchanged (in wire form) and its payload. Queues, in-flight windows and wills hold references;
//! the last one to go frees the blocks.
//!
//! **Invariant:** the blocks of all messages together and the free blocks are all blocks there are.

use crate::collections::{Full, Key, Slab, keyed_hash_of_bytes};
use crate::limits::MESSAGE_BLOCK_BYTES;
use crate::time::Instant;

const END: u32 = u32::MAX;

/// What is known of a message beside its bytes.
pub struct Message {
    references: u32,
    first_block: u32,
    /// Its number in the log; 0 while the log knows nothing of it.
    pub number: u64,
    /// The last record with its bytes.
    pub home: u64,
    /// Bytes of the topic name.
    pub topic_bytes: u16,
    /// Bytes of the forwarded properties.
    pub property_bytes: u32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// When the message must no longer be delivered, from its Message Expiry Interval.
    pub expires: Option<Instant>,
}

impl Message {
    /// Bytes of topic, properties and payload together.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        usize::from(self.topic_bytes) + self.property_bytes as usize + self.payload_bytes as usize
    }

    /// Bytes of the pool that it takes.
    #[must_use]
    pub fn held_bytes(&self) -> u32 {
        let blocks = self.total_bytes().div_ceil(MESSAGE_BLOCK_BYTES).max(1);
        u32::try_from(blocks * MESSAGE_BLOCK_BYTES).unwrap_or(u32::MAX)
    }

    /// Whether it must no longer be delivered. [MQTT-3.3.2-5]
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The parts of a message as its publisher gave them.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// Bytes that the forwarded properties take together.
    pub property_bytes: u32,
    /// The payload.
    pub payload: &'a [u8],
    /// When the message must no longer be delivered.
    pub expires: Option<Instant>,
}

impl Parts<'_> {
    /// Bytes of topic, properties and payload together.
    pub fn total_bytes(&self) -> usize {
        self.topic.len() + self.property_bytes as usize + self.payload.len()
    }
}

/// All messages of the broker.
pub struct MessagePool {
    headers: Slab<Message>,
    blocks: Box<[u8]>,
    /// The block behind each block, in its message or in the free list.
    next: Box<[u32]>,
    free_head: u32,
    /// Blocks from here on were never used, so that their memory need not exist yet.
    untouched: u32,
    free_blocks: u32,
    /// Bytes of the messages that the log knows.
    kept_bytes: u64,
}

impl MessagePool {
    /// An empty pool for `messages` messages in `blocks` blocks.
    #[must_use]
    pub fn new(messages: u32, blocks: u32) -> Self {
        Self {
            headers: Slab::new(messages),
            blocks: vec![0; blocks as usize * MESSAGE_BLOCK_BYTES].into(),
            next: vec![0; blocks as usize].into(),
            free_head: END,
            untouched: 0,
            free_blocks: blocks,
            kept_bytes: 0,
        }
    }

    /// Bytes that such a pool takes.
    #[must_use]
    pub const fn bytes(messages: u32, blocks: u32) -> u64 {
        Slab::<Message>::bytes(messages) + blocks as u64 * (MESSAGE_BLOCK_BYTES + size_of::<u32>()) as u64
    }

    /// Whether a message of these parts can be stored now.
    #[must_use]
    pub fn has_room_for(&self, parts: &Parts<'_>) -> bool {
        self.headers.free() > 0 && parts.total_bytes().div_ceil(MESSAGE_BLOCK_BYTES) <= self.free_blocks as usize
    }

    /// Stores a message with one reference, which the caller owns. `properties` gives exactly `parts.property_bytes`.
    ///
    /// # Errors
    /// [`Full`] when [`MessagePool::has_room_for`] says no; nothing changes then.
    pub fn store<'a>(
        &mut self,
        parts: &Parts<'_>,
        properties: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Key<Message>, Full> {
        if !self.has_room_for(parts) {
            return Err(Full);
        }
        let mut appender = Appender { pool: self, first: END, last: END, used: MESSAGE_BLOCK_BYTES };
        appender.append(parts.topic.as_bytes())?;
        for property in properties {
            appender.append(property)?;
        }
        appender.append(parts.payload)?;
        let first_block = appender.first;
        self.headers.insert(Message {
            references: 1,
            first_block,
            number: 0,
            home: 0,
            topic_bytes: u16::try_from(parts.topic.len()).map_err(|_| Full)?,
            property_bytes: parts.property_bytes,
            payload_bytes: u32::try_from(parts.payload.len()).map_err(|_| Full)?,
            expires: parts.expires,
        })
    }

    fn take_block(&mut self) -> Result<u32, Full> {
        let block = if self.free_head != END {
            let block = self.free_head;
            self.free_head = self.next[block as usize];
            block
        } else if (self.untouched as usize) < self.next.len() {
            let block = self.untouched;
            self.untouched += 1;
            block
        } else {
            return Err(Full);
        };
        self.next[block as usize] = END;
        self.free_blocks -= 1;
        Ok(block)
    }

    /// The header of a message.
    #[must_use]
    pub fn get(&self, key: Key<Message>) -> Option<&Message> {
        self.headers.get(key)
    }

    /// The log has the message's bytes in the record `home`, under `number`.
    pub fn set_kept(&mut self, key: Key<Message>, number: u64, home: u64) {
        if let Some(message) = self.headers.get_mut(key) {
            if message.number == 0 {
                self.kept_bytes += message.total_bytes() as u64;
            }
            (message.number, message.home) = (number, home);
        }
    }

    /// Bytes of all messages that the log knows.
    #[must_use]
    pub const fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Sets when the message must no longer be delivered.
    pub fn set_expires(&mut self, key: Key<Message>, expires: Option<Instant>) {
        if let Some(message) = self.headers.get_mut(key) {
            message.expires = expires;
        }
    }

    /// Adds a reference.
    pub fn retain(&mut self, key: Key<Message>) {
        if let Some(message) = self.headers.get_mut(key) {
            message.references += 1;
        }
    }

    /// Takes a reference away; the last one frees the message.
    pub fn release(&mut self, key: Key<Message>) {
        let Some(message) = self.headers.get_mut(key) else { return };
        assert!(message.references > 0, "a message is released at most once for each reference");
        message.references -= 1;
        if message.references > 0 {
            return;
        }
        let mut block = message.first_block;
        if message.number != 0 {
            self.kept_bytes -= message.total_bytes() as u64;
        }
        self.headers.remove(key);
        while block != END {
            let next = core::mem::replace(&mut self.next[block as usize], self.free_head);
            self.free_head = block;
            self.free_blocks += 1;
            block = next;
        }
    }

    /// A place in a message's bytes: topic, properties and payload one after the other.
    #[must_use]
    pub fn reader(&self, key: Key<Message>) -> Option<Reader<'_>> {
        let message = self.headers.get(key)?;
        Some(Reader { pool: self, block: message.first_block, offset: 0 })
    }

    /// A reader that continues at `mark`, which [`Reader::mark`] of a message still held gave.
    #[must_use]
    pub fn reader_at(&self, mark: Mark) -> Reader<'_> {
        Reader { pool: self, block: mark.block, offset: mark.offset }
    }

    /// Copies a message's topic into `topic`, whose former contents go. Whether there is such a message.
    pub fn read_topic(&self, key: Key<Message>, topic: &mut Vec<u8>) -> bool {
        let (Some(message), Some(mut reader)) = (self.headers.get(key), self.reader(key)) else { return false };
        topic.clear();
        topic.resize(usize::from(message.topic_bytes), 0);
        reader.read(topic);
        true
    }

    /// Whether a message has this topic.
    #[must_use]
    pub fn has_topic(&self, key: Key<Message>, topic: &str) -> bool {
        let (Some(message), Some(mut reader)) = (self.headers.get(key), self.reader(key)) else { return false };
        if usize::from(message.topic_bytes) != topic.len() {
            return false;
        }
        let mut piece = [0; 64];
        topic.as_bytes().chunks(piece.len()).all(|expected| {
            let read = piece.get_mut(..expected.len()).unwrap_or_default();
            reader.read(read);
            read == expected
        })
    }

    /// Two keyed hashes of a message's topic, which together stand for it. Those of topics of up to 64 bytes, which are most,
    /// are made in one pass.
    #[must_use]
    pub fn hash_topic(&self, key: Key<Message>, seed: u64) -> Option<(u64, u64)> {
        let (message, mut reader) = (self.headers.get(key)?, self.reader(key)?);
        let (mut low, mut high) = (seed, 0);
        let mut rest = usize::from(message.topic_bytes);
        let mut piece = [0; 64];
        while rest > 0 {
            let taken = rest.min(piece.len());
            let read = piece.get_mut(..taken).unwrap_or_default();
            reader.read(read);
            (low, high) = keyed_hash_of_bytes((low, high), read);
            rest -= taken;
        }
        Some((low, high))
    }

    /// Messages held.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.headers.len()
    }

    /// Messages that have room.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.headers.capacity()
    }

    /// Blocks that there are.
    #[must_use]
    pub const fn block_capacity(&self) -> usize {
        self.next.len()
    }

    /// Blocks in use.
    #[must_use]
    pub fn blocks_used(&self) -> u32 {
        u32::try_from(self.next.len()).unwrap_or(u32::MAX) - self.free_blocks
    }
}

/// Writes one message's bytes into blocks.
struct Appender<'p> {
    pool: &'p mut MessagePool,
    first: u32,
    last: u32,
    /// Bytes used of the last block.
    used: usize,
}

impl Appender<'_> {
    fn append(&mut self, mut bytes: &[u8]) -> Result<(), Full> {
        while !bytes.is_empty() {
            if self.used == MESSAGE_BLOCK_BYTES {
                let block = self.pool.take_block()?;
                if self.last == END {
                    self.first = block;
                } else {
                    self.pool.next[self.last as usize] = block;
                }
                self.last = block;
                self.used = 0;
            }
            let taken = bytes.len().min(MESSAGE_BLOCK_BYTES - self.used);
            let (now, later) = bytes.split_at(taken);
            let start = self.last as usize * MESSAGE_BLOCK_BYTES + self.used;
            self.pool.blocks[start..start + taken].copy_from_slice(now);
            self.used += taken;
            bytes = later;
        }
        Ok(())
    }
}

/// Reads a message's bytes in order.
#[derive(Clone, Copy)]
pub struct Reader<'p> {
    pool: &'p MessagePool,
    block: u32,
    offset: u16,
}

/// Where a [`Reader`] stands, without the borrow.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    block: u32,
    offset: u16,
}

impl Reader<'_> {
    /// Copies the next bytes into the whole of `out`. Bytes behind the message's end are not to be asked for.
    pub fn read(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() && self.block != END {
            let offset = usize::from(self.offset);
            let taken = out.len().min(MESSAGE_BLOCK_BYTES - offset);
            let start = self.block as usize * MESSAGE_BLOCK_BYTES + offset;
            let (now, later) = out.split_at_mut(taken);
            now.copy_from_slice(&self.pool.blocks[start..start + taken]);
            out = later;
            self.advance(taken);
        }
    }

    /// Passes over `count` bytes.
    pub fn skip(&mut self, mut count: usize) {
        while count > 0 && self.block != END {
            let taken = count.min(MESSAGE_BLOCK_BYTES - usize::from(self.offset));
            self.advance(taken);
            count -= taken;
        }
    }

    fn advance(&mut self, taken: usize) {
        let offset = usize::from(self.offset) + taken;
        if offset == MESSAGE_BLOCK_BYTES {
            self.block = self.pool.next[self.block as usize];
            self.offset = 0;
        } else {
            self.offset = u16::try_from(offset).unwrap_or(0);
        }
    }

    /// The place reached.
    #[must_use]
    pub const fn mark(&self) -> Mark {
        Mark { block: self.block, offset: self.offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(topic: &'a str, payload: &'a [u8], property_bytes: u32) -> Parts<'a> {
        Parts { topic, property_bytes, payload, expires: None }
    }

    #[test]
    fn a_message_reads_back_as_topic_properties_payload() {
        let mut pool = MessagePool::new(2, 8);
        let payload: Vec<u8> = (0..1_500_u32).map(|i| i as u8).collect();
        let properties: [&[u8]; 2] = [b"\x01\x01", b"\x03\x00\x01x"];
        let key = pool.store(&parts("a/b", &payload, 6), properties.into_iter()).unwrap();
        let mut bytes = vec![0; 3 + 6 + 1_500];
        let mut reader = pool.reader(key).unwrap();
        // In uneven pieces, so that block boundaries fall inside and between them.
        let (head, tail) = bytes.split_at_mut(511);
        reader.read(head);
        let mark = reader.mark();
        pool.reader_at(mark).read(tail);
        assert_eq!(&bytes[..9], b"a/b\x01\x01\x03\x00\x01x");
        assert_eq!(&bytes[9..], payload);
    }

    #[test]
    fn the_last_reference_frees_the_blocks_and_a_full_pool_says_so() {
        let mut pool = MessagePool::new(2, 4);
        let payload = vec![7; 3 * MESSAGE_BLOCK_BYTES];
        let key = pool.store(&parts("t", &payload, 0), core::iter::empty()).unwrap();
        assert_eq!(pool.blocks_used(), 4);
        assert_eq!(pool.store(&parts("t", b"", 0), core::iter::empty()), Err(Full));
        pool.retain(key);
        pool.release(key);
        assert_eq!(pool.count(), 1);
        pool.release(key);
        assert_eq!((pool.count(), pool.blocks_used()), (0, 0));
        for _ in 0..3 {
            let key = pool.store(&parts("t", &payload, 0), core::iter::empty()).unwrap();
            pool.release(key);
        }
        assert_eq!(pool.blocks_used(), 0);
    }
}
