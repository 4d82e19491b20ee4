//! A hash index over the slots of another table: finds a slot by what it holds, without holding it twice.

use core::hash::{Hash, Hasher};
use core::num::NonZeroU32;
use siphasher::sip128::SipHasher13;
use std::hash::DefaultHasher;

/// A slot's number plus one; none is zero, so that an index that was never used is memory that was never written.
type Link = Option<NonZeroU32>;

const fn link_to(slot: u32) -> Link {
    NonZeroU32::MIN.checked_add(slot)
}

const fn slot_of(link: NonZeroU32) -> u32 {
    link.get() - 1
}

/// Hashes `value` under a secret `seed`, so that a peer cannot choose names that fall into one bucket.
#[must_use]
pub fn keyed_hash(seed: u64, value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(seed);
    value.hash(&mut hasher);
    hasher.finish()
}

/// Two independent hashes of `bytes` under a key of which the first half is secret; together they stand for the bytes. For
/// what is asked with every message: one pass, and several times as quick as [`keyed_hash`].
#[must_use]
pub fn keyed_hash_of_bytes(key: (u64, u64), bytes: &[u8]) -> (u64, u64) {
    SipHasher13::new_with_keys(key.0, key.1).hash(bytes).as_u64()
}

/// Slot numbers below a capacity, in buckets by hash. One slot number is in the index at most once.
pub struct HashIndex {
    buckets: Box<[Link]>,
    next: Box<[Link]>,
}

impl HashIndex {
    /// An empty index for slots `0..capacity`.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        let buckets = (capacity as usize).next_power_of_two().max(1);
        Self { buckets: vec![None; buckets].into(), next: vec![None; capacity as usize].into() }
    }

    /// Bytes that an index for `capacity` slots takes.
    #[must_use]
    pub const fn bytes(capacity: u32) -> u64 {
        ((capacity as u64).next_power_of_two() + capacity as u64) * size_of::<Link>() as u64
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        let mask = self.buckets.len() as u64 - 1;
        // The mask keeps the index inside the box, whose length is a power of two.
        usize::try_from(hash & mask).unwrap_or(0)
    }

    /// Adds `slot`. The caller has checked that no equal value is there.
    #[inline]
    pub fn insert(&mut self, hash: u64, slot: u32) {
        let bucket = self.bucket(hash);
        self.next[slot as usize] = core::mem::replace(&mut self.buckets[bucket], link_to(slot));
    }

    /// The slot in the bucket of `hash` that `wanted` accepts.
    #[inline]
    pub fn find(&self, hash: u64, mut wanted: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = self.buckets[self.bucket(hash)];
        while let Some(candidate) = at.map(slot_of) {
            if wanted(candidate) {
                return Some(candidate);
            }
            at = self.next[candidate as usize];
        }
        None
    }

    /// Removes `slot`, which was added under `hash`.
    pub fn remove(&mut self, hash: u64, slot: u32) {
        let after = self.next[slot as usize].take();
        let bucket = self.bucket(hash);
        let mut at = &mut self.buckets[bucket];
        while *at != link_to(slot) {
            let Some(other) = at.map(slot_of) else { return };
            at = &mut self.next[other as usize];
        }
        *at = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_one_bucket_are_told_apart_and_removed_one_by_one() {
        let mut index = HashIndex::new(4);
        for slot in 0..4 {
            index.insert(7, slot);
        }
        for slot in [2, 0, 3, 1] {
            assert_eq!(index.find(7, |candidate| candidate == slot), Some(slot));
            index.remove(7, slot);
            assert_eq!(index.find(7, |candidate| candidate == slot), None);
        }
    }

    #[test]
    fn the_seed_changes_the_hash() {
        assert_ne!(keyed_hash(1, "a"), keyed_hash(2, "a"));
        assert_eq!(keyed_hash(1, "a"), keyed_hash(1, "a"));
    }
}
