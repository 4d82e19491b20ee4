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
use core::cell::Cell;

/// Decisions that are remembered. A power of two.
const PLACES: usize = 4_096;

/// The table.
pub struct Decisions {
    places: Box<[Cell<Place>]>,
    seed: u64,
    epoch: Cell<u64>,
}

/// Where a decision stands, and what stands there.
#[derive(Clone, Copy, Default)]
pub struct Place {
    question: (u64, u64),
    allowed: bool,
}

impl Decisions {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { places: vec![Cell::default(); PLACES].into(), seed, epoch: Cell::new(1) }
    }

    /// Bytes that the table takes.
    #[must_use]
    pub const fn bytes() -> u64 {
        (PLACES * size_of::<Cell<Place>>()) as u64
    }

    /// Forgets everything, because what decisions depend on has changed for somebody.
    pub fn forget(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
    }

    /// The place of a question.
    #[must_use]
    pub fn place(&self, session: Key<Session>, action: Action, resource: &str) -> Place {
        // Whatever is not the resource is part of the key: one pass over the resource, without a copy of it.
        let about = self.epoch.get().wrapping_mul(4).wrapping_add(action as u64);
        let question = keyed_hash_of_bytes((self.seed ^ about, session.to_bits()), resource.as_bytes());
        Place { question, allowed: false }
    }

    /// What was decided; `None` if it is not remembered.
    #[must_use]
    pub fn recall(&self, place: Place) -> Option<bool> {
        let known = self.cell(place)?.get();
        (known.question == place.question).then_some(known.allowed)
    }

    /// Remembers what was decided.
    pub fn remember(&self, place: Place, allowed: bool) {
        if let Some(cell) = self.cell(place) {
            cell.set(Place { allowed, ..place });
        }
    }

    fn cell(&self, place: Place) -> Option<&Cell<Place>> {
        self.places.get(usize::try_from(place.question.0 % PLACES as u64).ok()?)
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
