//! Retained messages: the last one of each topic. MQTT 5 §3.3.1.3.
//!
//! **Invariant:** each entry holds one reference to its message, and no two entries have the same topic.

use super::messages::{Message, MessagePool};
use crate::codec::QoS;
use crate::collections::{Full, HashIndex, Key, Slab, keyed_hash};
use crate::time::Instant;

/// A retained message.
pub struct Retained {
    /// Topic, properties and payload.
    pub message: Key<Message>,
    /// The QoS it was published with.
    pub qos: QoS,
    /// Whether the log knows it.
    pub kept: bool,
    hash: u64,
}

/// All retained messages.
pub struct RetainedTable {
    table: Slab<Retained>,
    index: HashIndex,
    seed: u64,
    /// Bytes of the topics of those that the log knows.
    kept_topic_bytes: u64,
    /// Bytes of topics, properties and payloads.
    message_bytes: u64,
}

impl RetainedTable {
    /// A table for `capacity` topics.
    #[must_use]
    pub fn new(capacity: u32, seed: u64) -> Self {
        Self {
            table: Slab::new(capacity),
            index: HashIndex::new(capacity),
            seed,
            kept_topic_bytes: 0,
            message_bytes: 0,
        }
    }

    /// Bytes of such a table.
    #[must_use]
    pub const fn bytes(capacity: u32) -> u64 {
        Slab::<Retained>::bytes(capacity) + HashIndex::bytes(capacity)
    }

    /// Topics with a retained message.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.table.len()
    }

    /// Topics that have room.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.table.capacity()
    }

    /// Bytes of the topics of those that the log knows.
    #[must_use]
    pub const fn kept_topic_bytes(&self) -> u64 {
        self.kept_topic_bytes
    }

    /// Bytes of topics, properties and payloads of all.
    #[must_use]
    pub const fn message_bytes(&self) -> u64 {
        self.message_bytes
    }

    /// The retained message of a topic.
    #[must_use]
    pub fn find(&self, pool: &MessagePool, topic: &str) -> Option<&Retained> {
        self.key_of(pool, topic).and_then(|key| self.table.get(key))
    }

    /// Whether [`RetainedTable::set`] has room for this topic.
    #[must_use]
    pub fn has_room_for(&self, pool: &MessagePool, topic: &str) -> bool {
        self.table.free() > 0 || self.key_of(pool, topic).is_some()
    }

    /// Makes `message` the retained one of its topic and takes a reference to it. `kept`: the log knows it.
    ///
    /// # Errors
    /// [`Full`], and nothing has changed.
    pub fn set(
        &mut self,
        pool: &mut MessagePool,
        topic: &str,
        message: Key<Message>,
        qos: QoS,
        kept: bool,
    ) -> Result<(), Full> {
        if let Some(retained) = self.key_of(pool, topic).and_then(|key| self.table.get_mut(key)) {
            pool.retain(message);
            self.message_bytes += bytes_of(pool, message);
            self.message_bytes -= bytes_of(pool, retained.message);
            pool.release(core::mem::replace(&mut retained.message, message));
            let former = core::mem::replace(&mut retained.kept, kept);
            retained.qos = qos;
            self.kept_topic_bytes += u64::from(kept) * topic.len() as u64;
            self.kept_topic_bytes -= u64::from(former) * topic.len() as u64;
            return Ok(());
        }
        let hash = keyed_hash(self.seed, topic);
        let key = self.table.insert(Retained { message, qos, kept, hash })?;
        self.index.insert(hash, key.index());
        self.kept_topic_bytes += u64::from(kept) * topic.len() as u64;
        self.message_bytes += bytes_of(pool, message);
        pool.retain(message);
        Ok(())
    }

    /// Removes the retained message of a topic, if there is one. Returns whether the log knew it.
    pub fn remove(&mut self, pool: &mut MessagePool, topic: &str) -> bool {
        let Some(key) = self.key_of(pool, topic) else { return false };
        let kept = self.table.get(key).is_some_and(|retained| retained.kept);
        self.remove_key(pool, key);
        kept
    }

    /// What is in a slot.
    #[must_use]
    pub fn get_slot(&self, slot: u32) -> Option<&Retained> {
        self.table.get(self.table.key_at(slot)?)
    }

    /// Slots that may be in use: those below this number.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.table.slots()
    }

    /// The message in a slot, unless it is expired, and then it is removed.
    pub fn at_slot(&mut self, pool: &mut MessagePool, slot: u32, now: Instant) -> Option<(Key<Message>, QoS)> {
        let key = self.table.key_at(slot)?;
        let retained = self.table.get(key)?;
        let (message, qos) = (retained.message, retained.qos);
        if pool.get(message).is_some_and(|message| message.is_expired(now)) {
            self.remove_key(pool, key);
            return None;
        }
        Some((message, qos))
    }

    fn remove_key(&mut self, pool: &mut MessagePool, key: Key<Retained>) {
        if let Some(retained) = self.table.remove(key) {
            self.index.remove(retained.hash, key.index());
            let topic_bytes = pool.get(retained.message).map_or(0, |message| u64::from(message.topic_bytes));
            self.kept_topic_bytes -= u64::from(retained.kept) * topic_bytes;
            self.message_bytes -= bytes_of(pool, retained.message);
            pool.release(retained.message);
        }
    }

    fn key_of(&self, pool: &MessagePool, topic: &str) -> Option<Key<Retained>> {
        let hash = keyed_hash(self.seed, topic);
        let slot = self.index.find(hash, |slot| {
            let retained = self.table.key_at(slot).and_then(|key| self.table.get(key));
            retained.is_some_and(|retained| retained.hash == hash && pool.has_topic(retained.message, topic))
        })?;
        self.table.key_at(slot)
    }
}

fn bytes_of(pool: &MessagePool, message: Key<Message>) -> u64 {
    pool.get(message).map_or(0, |message| message.total_bytes() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::messages::Parts;

    fn message(pool: &mut MessagePool, topic: &str, payload: &[u8], expires: Option<Instant>) -> Key<Message> {
        pool.store(&Parts { topic, property_bytes: 0, payload, expires }, core::iter::empty()).unwrap()
    }

    #[test]
    fn a_topic_has_one_message_and_the_references_are_balanced() {
        let mut pool = MessagePool::new(8, 8);
        let mut table = RetainedTable::new(2, 1);
        for topic in ["a", "b", "a"] {
            let message = message(&mut pool, topic, b"x", None);
            table.set(&mut pool, topic, message, QoS::AtMostOnce, false).unwrap();
            pool.release(message);
        }
        assert_eq!((table.count(), pool.count(), table.message_bytes()), (2, 2, 4));
        assert!(table.has_room_for(&pool, "a") && !table.has_room_for(&pool, "c"));
        let other = message(&mut pool, "c", b"x", None);
        assert_eq!(table.set(&mut pool, "c", other, QoS::AtMostOnce, false), Err(Full));
        pool.release(other);
        table.remove(&mut pool, "a");
        table.remove(&mut pool, "a");
        table.remove(&mut pool, "b");
        assert_eq!((table.count(), pool.count(), table.message_bytes()), (0, 0, 0));
    }

    #[test]
    fn an_expired_message_goes_when_it_is_met() {
        let mut pool = MessagePool::new(8, 8);
        let mut table = RetainedTable::new(2, 1);
        let message = message(&mut pool, "a", b"x", Some(Instant::from_milliseconds(10)));
        table.set(&mut pool, "a", message, QoS::AtMostOnce, false).unwrap();
        pool.release(message);
        assert!(table.at_slot(&mut pool, 0, Instant::from_milliseconds(9)).is_some());
        assert!(table.at_slot(&mut pool, 0, Instant::from_milliseconds(10)).is_none());
        assert_eq!((table.count(), pool.count()), (0, 0));
    }
}
