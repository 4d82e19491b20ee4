//! Where a publisher's messages on a topic went the last time: whether it may publish there, and who is to get them.
//!
//! A table of fixed size in which every question has one place; a newer one takes it. A question is known by a keyed hash of 128
//! bits of publisher and topic, which stands for their texts. It saves the walk through the tree and the rules for who publishes
//! to the same topics again and again, as sensors do.
//!
//! **Invariant:** what is recalled is what would be found. Whatever it depends on changes only together with one of two epochs:
//! that of decisions (policies, identities, rules) and that of subscriptions; a session's key is never given to another session.

use super::sessions::Session;
use crate::codec::QoS;
use crate::collections::{Key, keyed_hash_of_bytes};

/// Routes that are remembered. A power of two.
const PLACES: usize = 1_024;
/// Most receivers of a route that is remembered. With more of them, finding them is not what a message costs.
pub const RECEIVERS_MAX: usize = 4;

/// One who gets the messages of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its session.
    pub session: Key<Session>,
    /// The highest QoS that its subscriptions grant.
    pub qos: QoS,
    /// Whether the RETAIN flag is kept for it.
    pub retain_as_published: bool,
}

/// What a route depends on: the epochs of decisions and of subscriptions.
pub type Epochs = (u64, u64);

struct Route {
    question: (u64, u64),
    epochs: Epochs,
    receivers: heapless::Vec<Receiver, RECEIVERS_MAX>,
}

/// The table.
pub struct Routes {
    places: Box<[Option<Route>]>,
    seed: u64,
}

/// Stands for a publisher and a topic.
#[derive(Clone, Copy)]
pub struct Question((u64, u64));

impl Routes {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { places: core::iter::repeat_with(|| None).take(PLACES).collect(), seed }
    }

    /// Bytes that the table takes.
    #[must_use]
    pub const fn bytes() -> u64 {
        (PLACES * size_of::<Option<Route>>()) as u64
    }

    /// What stands for a publisher and a topic.
    #[must_use]
    pub fn question(&self, publisher: Key<Session>, topic: &str) -> Question {
        // The other tables use the seed as it is.
        Question(keyed_hash_of_bytes((!self.seed, publisher.to_bits()), topic.as_bytes()))
    }

    /// Who gets what is published; `None` if it is not remembered, or was under other epochs.
    #[must_use]
    pub fn recall(&self, Question(question): Question, epochs: Epochs) -> Option<&[Receiver]> {
        let route = self.places.get(place(question))?.as_ref()?;
        (route.question == question && route.epochs == epochs).then_some(&*route.receivers)
    }

    /// Remembers who gets what is published, unless they are too many.
    pub fn remember(
        &mut self,
        Question(question): Question,
        epochs: Epochs,
        receivers: impl ExactSizeIterator<Item = Receiver>,
    ) {
        if receivers.len() <= RECEIVERS_MAX
            && let Some(place) = self.places.get_mut(place(question))
        {
            *place = Some(Route { question, epochs, receivers: receivers.collect() });
        }
    }
}

fn place(question: (u64, u64)) -> usize {
    usize::try_from(question.0 % PLACES as u64).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_recalled_for_its_own_publisher_and_topic_under_its_own_epochs() {
        let mut routes = Routes::new(7);
        let (one, other) = (Key::from_bits(1 << 32).unwrap(), Key::from_bits(2 << 32).unwrap());
        let receiver = Receiver { session: other, qos: QoS::AtLeastOnce, retain_as_published: false };
        let asked = routes.question(one, "a");
        routes.remember(asked, (1, 1), [receiver].into_iter());
        let recall = |publisher, topic, epochs| routes.recall(routes.question(publisher, topic), epochs);
        assert_eq!(recall(one, "a", (1, 1)), Some(&[receiver][..]));
        assert_eq!(recall(one, "a", (2, 1)), None);
        assert_eq!(recall(one, "a", (1, 2)), None);
        assert_eq!(recall(one, "b", (1, 1)), None);
        assert_eq!(recall(other, "a", (1, 1)), None);
    }

    #[test]
    fn a_route_with_too_many_receivers_is_not_remembered_and_leaves_the_other_one() {
        let mut routes = Routes::new(7);
        let one = Key::from_bits(1 << 32).unwrap();
        let receiver = Receiver { session: one, qos: QoS::AtMostOnce, retain_as_published: false };
        let asked = routes.question(one, "a");
        routes.remember(asked, (1, 1), [receiver; RECEIVERS_MAX].into_iter());
        routes.remember(asked, (1, 2), [receiver; RECEIVERS_MAX + 1].into_iter());
        assert_eq!(routes.recall(asked, (1, 2)), None);
        assert_eq!(routes.recall(asked, (1, 1)).map(<[_]>::len), Some(RECEIVERS_MAX));
    }
}
