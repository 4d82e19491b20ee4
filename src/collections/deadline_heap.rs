//! A binary heap of deadlines, at most one for each slot of another table, that can be moved and cancelled.

use crate::time::Instant;
use core::num::NonZeroU32;

fn index(position: NonZeroU32) -> usize {
    position.get() as usize - 1
}

/// Deadlines of slots `0..capacity`, the earliest first. Equal deadlines come in no stated order.
pub struct DeadlineHeap {
    heap: Vec<(Instant, u32)>,
    /// Where each slot's deadline stands in `heap`, counted from one: memory of slots that never had one is not written.
    position: Box<[Option<NonZeroU32>]>,
}

impl DeadlineHeap {
    /// An empty heap for slots `0..capacity`.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        Self { heap: Vec::with_capacity(capacity as usize), position: vec![None; capacity as usize].into() }
    }

    /// Bytes that a heap for `capacity` slots takes.
    #[must_use]
    pub const fn bytes(capacity: u32) -> u64 {
        capacity as u64 * (size_of::<(Instant, u32)>() + size_of::<u32>()) as u64
    }

    /// Sets the deadline of `slot`, whether it had one or not.
    pub fn set(&mut self, slot: u32, at: Instant) {
        let Some(position) = self.position[slot as usize].map(index) else {
            self.heap.push((at, slot));
            let last = self.heap.len() - 1;
            self.place(last);
            self.rise(last);
            return;
        };
        let before = core::mem::replace(&mut self.heap[position].0, at);
        if at < before {
            self.rise(position);
        } else {
            self.sink(position);
        }
    }

    /// Cancels the deadline of `slot`, if it has one.
    pub fn cancel(&mut self, slot: u32) {
        let Some(position) = self.position[slot as usize].take().map(index) else { return };
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.place(position);
            self.rise(position);
            self.sink(position);
        }
    }

    /// The earliest deadline and its slot.
    #[must_use]
    pub fn earliest(&self) -> Option<(Instant, u32)> {
        self.heap.first().copied()
    }

    /// Takes the earliest deadline off if it is not later than `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let (at, slot) = self.earliest()?;
        if at > now {
            return None;
        }
        self.cancel(slot);
        Some(slot)
    }

    fn place(&mut self, at: usize) {
        let slot = self.heap[at].1;
        // The heap never holds more entries than there are slots, whose number is a `u32`.
        self.position[slot as usize] = u32::try_from(at + 1).ok().and_then(NonZeroU32::new);
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.place(a);
        self.place(b);
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent].0 <= self.heap[at].0 {
                return;
            }
            self.swap(parent, at);
            at = parent;
        }
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.heap[child].0 < self.heap[least].0 {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.swap(least, at);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_order_however_they_were_moved() {
        const SLOTS: u32 = 64;
        let mut heap = DeadlineHeap::new(SLOTS);
        let mut expected = vec![None; SLOTS as usize];
        let mut seed = 7_u64;
        for _ in 0..5_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let slot = (seed >> 33) as u32 % SLOTS;
            if seed >> 60 == 0 {
                heap.cancel(slot);
                expected[slot as usize] = None;
            } else {
                let at = Instant::from_milliseconds(seed >> 40 & 0xFFF);
                heap.set(slot, at);
                expected[slot as usize] = Some(at);
            }
            let earliest = expected.iter().flatten().min().copied();
            assert_eq!(heap.earliest().map(|(at, _)| at), earliest);
        }
        let mut last = Instant::ZERO;
        let end = Instant::from_milliseconds(u64::MAX);
        while let Some((at, _)) = heap.earliest() {
            assert!(at >= last);
            last = at;
            let slot = heap.pop_due(end).unwrap();
            assert_eq!(expected[slot as usize].take(), Some(at));
        }
        assert!(expected.iter().all(Option::is_none));
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut heap = DeadlineHeap::new(1);
        heap.set(0, Instant::from_milliseconds(10));
        assert_eq!(heap.pop_due(Instant::from_milliseconds(9)), None);
        assert_eq!(heap.pop_due(Instant::from_milliseconds(10)), Some(0));
        assert_eq!(heap.pop_due(Instant::from_milliseconds(10)), None);
    }
}
