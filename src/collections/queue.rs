//! A first-in, first-out list whose links live in the slab's own values: a queue costs its owner 20 bytes.

use super::slab::{Key, Slab};

/// A value that can stand in one [`Queue`] at a time.
pub trait Linked: Sized {
    /// The link to the value behind this one.
    fn next(&mut self) -> &mut Option<Key<Self>>;
}

/// Keys of a [`Slab<T>`] in order of arrival.
///
/// **Invariant:** every key in the queue names a value of the slab, and stands in no other queue.
#[derive(Debug)]
pub struct Queue<T> {
    head: Option<Key<T>>,
    tail: Option<Key<T>>,
    len: u32,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { head: None, tail: None, len: 0 }
    }
}

impl<T: Linked> Queue<T> {
    /// Puts `key` behind the others.
    #[inline]
    pub fn push_back(&mut self, slab: &mut Slab<T>, key: Key<T>) {
        if let Some(value) = slab.get_mut(key) {
            *value.next() = None;
        }
        match self.tail.and_then(|tail| slab.get_mut(tail)) {
            Some(tail) => *tail.next() = Some(key),
            None => self.head = Some(key),
        }
        self.tail = Some(key);
        self.len += 1;
    }

    /// Takes the first key off; its value stays in the slab.
    #[inline]
    pub fn pop_front(&mut self, slab: &mut Slab<T>) -> Option<Key<T>> {
        let key = self.head?;
        self.head = slab.get_mut(key).and_then(|value| value.next().take());
        if self.head.is_none() {
            self.tail = None;
        }
        self.len -= 1;
        Some(key)
    }

    /// Takes the first key that `wanted` accepts off, wherever it stands. Walks the queue.
    pub fn take_first(&mut self, slab: &mut Slab<T>, mut wanted: impl FnMut(&T) -> bool) -> Option<Key<T>> {
        let mut before = None;
        let mut at = self.head;
        while let Some(key) = at {
            let value = slab.get_mut(key)?;
            let next = *value.next();
            if wanted(value) {
                *value.next() = None;
                match before.and_then(|before| slab.get_mut(before)) {
                    Some(before) => *before.next() = next,
                    None => self.head = next,
                }
                if self.tail == Some(key) {
                    self.tail = before;
                }
                self.len -= 1;
                return Some(key);
            }
            before = at;
            at = next;
        }
        None
    }

    /// The first key.
    #[must_use]
    #[inline]
    pub const fn front(&self) -> Option<Key<T>> {
        self.head
    }

    /// The last key.
    #[must_use]
    #[inline]
    pub const fn back(&self) -> Option<Key<T>> {
        self.tail
    }

    /// Number of keys.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is no key.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item {
        value: u8,
        next: Option<Key<Self>>,
    }
    impl Linked for Item {
        fn next(&mut self) -> &mut Option<Key<Self>> {
            &mut self.next
        }
    }

    fn drain(queue: &mut Queue<Item>, slab: &mut Slab<Item>) -> Vec<u8> {
        core::iter::from_fn(|| queue.pop_front(slab).and_then(|key| slab.remove(key)).map(|item| item.value)).collect()
    }

    #[test]
    fn values_leave_in_the_order_they_came() {
        let mut slab = Slab::new(8);
        let mut queue = Queue::default();
        for value in 0..5 {
            let key = slab.insert(Item { value, next: None }).unwrap();
            queue.push_back(&mut slab, key);
        }
        assert_eq!(drain(&mut queue, &mut slab), [0, 1, 2, 3, 4]);
        assert!(queue.is_empty() && slab.is_empty());
    }

    #[test]
    fn a_value_can_be_taken_from_head_middle_and_tail() {
        for taken in 0..3 {
            let mut slab = Slab::new(8);
            let mut queue = Queue::default();
            for value in 0..3 {
                let key = slab.insert(Item { value, next: None }).unwrap();
                queue.push_back(&mut slab, key);
            }
            let key = queue.take_first(&mut slab, |item| item.value == taken).unwrap();
            assert_eq!(slab.remove(key).unwrap().value, taken);
            let key = slab.insert(Item { value: 9, next: None }).unwrap();
            queue.push_back(&mut slab, key);
            let expected: Vec<u8> = (0..3).filter(|value| *value != taken).chain([9]).collect();
            assert_eq!(drain(&mut queue, &mut slab), expected);
            assert!(queue.take_first(&mut slab, |_| true).is_none());
        }
    }
}
