//! A table of slots with generations: keys stay valid until their value is removed, and never name a later value.

use core::fmt;
use core::marker::PhantomData;
use core::num::NonZeroU32;

/// A table has no free slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Names one value of a [`Slab<T>`].
pub struct Key<T> {
    index: u32,
    generation: NonZeroU32,
    marker: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The slot's position, below the capacity of the slab. Another value may have the same index later.
    #[must_use]
    #[inline]
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Both halves in one number, for a poller's user data.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation.get()) << 32 | u64::from(self.index)
    }

    /// The key that [`Key::to_bits`] gave; `None` for a number that is no key.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
        let generation = NonZeroU32::new(u32::from_be_bytes([a, b, c, d]))?;
        Some(Self { index: u32::from_be_bytes([e, f, g, h]), generation, marker: PhantomData })
    }
}

// Written by hand, because a derive would ask the same of `T`.
impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Key<T> {}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index, self.generation)
    }
}

struct Slot<T> {
    generation: NonZeroU32,
    state: State<T>,
}

enum State<T> {
    Vacant { next: Option<u32> },
    Occupied(T),
}

/// Values of one kind, at most `capacity` of them.
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Option<u32>,
    occupied: usize,
}

impl<T> Slab<T> {
    /// An empty table of `capacity` slots.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { slots: Vec::with_capacity(capacity as usize), free: None, occupied: 0 }
    }

    /// Bytes that `capacity` slots take.
    #[must_use]
    pub const fn bytes(capacity: u32) -> u64 {
        capacity as u64 * size_of::<Slot<T>>() as u64
    }

    /// Puts `value` into a free slot.
    ///
    /// # Errors
    /// [`Full`] when there is none; `value` is dropped then.
    #[inline]
    pub fn insert(&mut self, value: T) -> Result<Key<T>, Full> {
        let index = match self.free {
            Some(index) => index,
            None if self.slots.len() < self.slots.capacity() => {
                let index = u32::try_from(self.slots.len()).map_err(|_| Full)?;
                self.slots.push(Slot { generation: NonZeroU32::MIN, state: State::Vacant { next: None } });
                index
            }
            None => return Err(Full),
        };
        let slot = self.slots.get_mut(index as usize).ok_or(Full)?;
        if let State::Vacant { next } = slot.state {
            self.free = next;
        }
        slot.state = State::Occupied(value);
        self.occupied += 1;
        Ok(Key { index, generation: slot.generation, marker: PhantomData })
    }

    /// The value of `key`, unless it has been removed.
    #[must_use]
    #[inline]
    pub fn get(&self, key: Key<T>) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot { generation, state: State::Occupied(value) }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The value of `key`, unless it has been removed.
    #[inline]
    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot { generation, state: State::Occupied(value) }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Removes the value of `key`. The key, and every copy of it, names nothing from then on.
    #[inline]
    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.generation == key.generation)?;
        let State::Occupied(_) = slot.state else { return None };
        let State::Occupied(value) = core::mem::replace(&mut slot.state, State::Vacant { next: self.free }) else {
            return None;
        };
        // After four thousand million values a generation comes round again; skipping zero keeps `Option<Key>` small.
        slot.generation = slot.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.free = Some(key.index);
        self.occupied -= 1;
        Some(value)
    }

    /// The key of the value in slot `index`, if there is one.
    #[must_use]
    #[inline]
    pub fn key_at(&self, index: u32) -> Option<Key<T>> {
        match self.slots.get(index as usize) {
            Some(Slot { generation, state: State::Occupied(_) }) => {
                Some(Key { index, generation: *generation, marker: PhantomData })
            }
            _ => None,
        }
    }

    /// Slots used so far: indices of all keys are below it.
    #[must_use]
    pub fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Number of values.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.occupied
    }

    /// Whether there is no value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// Free slots left.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.slots.capacity() - self.occupied
    }

    /// Slots in all.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.slots.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_never_names_the_next_value() {
        let mut slab = Slab::new(1);
        let first = slab.insert('a').unwrap();
        assert_eq!(slab.insert('b'), Err(Full));
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b').unwrap();
        assert_eq!(first.index(), second.index());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(Key::from_bits(second.to_bits()), Some(second));
    }

    #[test]
    fn every_slot_can_be_used_again() {
        let mut slab = Slab::new(3);
        for round in 0..5 {
            let keys: Vec<_> = (0..3).map(|i| slab.insert(round * 10 + i).unwrap()).collect();
            assert_eq!((slab.len(), slab.free()), (3, 0));
            for key in keys {
                assert!(slab.remove(key).is_some());
            }
            assert!(slab.is_empty());
        }
    }
}
