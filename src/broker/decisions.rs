//! Decisions that were made already: `cache` of a BrokerAuthorization. azure-model §3.5.
//!
//! A table of fixed size in which every question has one place; a newer one takes it. A question is known by a keyed hash
//! of 128 bits of session, action and resource, which stands for their texts.
//!
//! **Invariant:** what is recalled is what would be decided: whatever decisions depend on (policies, identities, rules)
//! changes only together with [`Decisions::forget`], and a session's key is never given to another session.

use super::sessions::Session;
use crate::collections::{Key, keyed_hash_of_bytes};
use crate::config::blob::Action;
use core::cell::{Cell, RefCell};

/// Decisions that are remembered. A power of two.
const PLACES: usize = 4_096;

/// The table.
pub struct Decisions {
    /// What stands in each place. Nothing is all zeros, so that places that were never used are memory that was never written.
    places: RefCell<Box<[Known]>>,
    seed: u64,
    epoch: Cell<u64>,
}

/// A question and what was decided.
type Known = (u64, u64, bool);

/// Where a decision stands, and the question.
#[derive(Clone, Copy)]
pub struct Place(u64, u64);

impl Decisions {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { places: RefCell::new(vec![(0, 0, false); PLACES].into()), seed, epoch: Cell::new(1) }
    }

    /// Bytes that the table takes.
    #[must_use]
    pub const fn bytes() -> u64 {
        (PLACES * size_of::<Known>()) as u64
    }

    /// Forgets everything, because what decisions depend on has changed for somebody.
    pub fn forget(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
    }

    /// Grows whenever what decisions depend on has changed.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// The place of a question.
    #[must_use]
    pub fn place(&self, session: Key<Session>, action: Action, resource: &str) -> Place {
        // Whatever is not the resource is part of the key: one pass over the resource, without a copy of it.
        let about = self.epoch.get().wrapping_mul(4).wrapping_add(action as u64);
        let (low, high) = keyed_hash_of_bytes((self.seed ^ about, session.to_bits()), resource.as_bytes());
        Place(low, high)
    }

    /// What was decided; `None` if it is not remembered.
    #[must_use]
    pub fn recall(&self, place: Place) -> Option<bool> {
        let (first, second, allowed) = *self.places.borrow().get(place.index())?;
        ((first, second) == (place.0, place.1)).then_some(allowed)
    }

    /// Remembers what was decided.
    pub fn remember(&self, place: Place, allowed: bool) {
        if let Some(known) = self.places.borrow_mut().get_mut(place.index()) {
            *known = (place.0, place.1, allowed);
        }
    }
}

impl Place {
    fn index(self) -> usize {
        // Below `PLACES`.
        usize::try_from(self.0 % PLACES as u64).unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_recalled_for_its_own_question_until_everything_is_forgotten() {
        let decisions = Decisions::new(7);
        let (one, other) = (Key::from_bits(1 << 32).unwrap(), Key::from_bits(2 << 32).unwrap());
        decisions.remember(decisions.place(one, Action::Publish, "a"), true);
        decisions.remember(decisions.place(one, Action::Publish, "b"), false);
        let recall = |session, action, resource| decisions.recall(decisions.place(session, action, resource));
        assert_eq!(recall(one, Action::Publish, "a"), Some(true));
        assert_eq!(recall(one, Action::Publish, "b"), Some(false));
        assert_eq!(recall(one, Action::Subscribe, "a"), None);
        assert_eq!(recall(other, Action::Publish, "a"), None);
        decisions.forget();
        assert_eq!(recall(one, Action::Publish, "a"), None);
    }
}
