//! Whether what is on trial can serve: the broker is ready five times in a row before the time is over.
//!
//! **Invariant:** what was amiss already before the update and is no part of it (no time server, a certificate that ends soon) is
//! no reason to go back: otherwise a gateway that lacks one of these could never be updated. What an update can break always
//! counts: a configuration brings certificates, so that they must be amiss in the same words as before.

use super::super::readiness::Answer;
use super::super::supervisor::START;
use crate::bundle::Kind;
use std::time::Duration;

/// Between two questions.
pub const ROUND: Duration = Duration::from_secs(2);
/// Answers in a row that are needed.
const READY_ROUNDS: u32 = 5;
/// Checks of the broker that depend on what is around the gateway; the second one also on a configuration.
const OF_SURROUNDINGS: [&str; 2] = ["clock", CERTIFICATES];
const CERTIFICATES: &str = "certificates";
/// How long a configuration may take to be ready, from when its broker says that clients can come.
const CONFIGURATION: Duration = Duration::from_secs(120);

/// What was amiss before an update, for which it does not go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excuse {
    /// Name of the check.
    pub name: String,
    /// What it must say; `None`: it may say anything.
    pub detail: Option<String>,
}

impl Excuse {
    /// One by name, whatever the check says.
    pub fn by_name(name: impl Into<String>) -> Self {
        Self { name: name.into(), detail: None }
    }

    /// What of it is excused in an update of this kind.
    pub fn for_kind(self, kind: Kind) -> Self {
        match kind {
            Kind::System => Self::by_name(self.name),
            Kind::Configuration => self,
        }
    }
}

/// The bound that a configuration's trial has passed; how long ago its broker was ordered, and how long ago that said that it is
/// ready: before, it may be reading a long log.
pub fn overdue(since_order: Duration, since_ready: Option<Duration>) -> Option<Duration> {
    let (waited, bound) = since_ready.map_or((since_order, START), |waited| (waited, CONFIGURATION));
    (waited > bound).then_some(bound)
}

/// A trial that goes on.
#[derive(Debug)]
pub struct Trial {
    excused: Vec<Excuse>,
    rounds: u32,
    reason: String,
}

impl Trial {
    /// One in which these checks may fail as they did before.
    pub fn new(before: &[Excuse]) -> Self {
        Self { excused: before.to_vec(), rounds: 0, reason: "it was not asked yet".to_owned() }
    }

    /// Takes the answer of one round; whether it is enough.
    pub fn take(&mut self, answer: Answer) -> bool {
        let fault = match answer {
            Answer::Ready => None,
            Answer::Silent(fault) => Some(fault),
            Answer::NotReady(failed) => {
                let is_excused = |name: &str, detail: &str| {
                    let mut excuses = self.excused.iter().filter(|excuse| excuse.name == name);
                    excuses.any(|excuse| excuse.detail.as_deref().is_none_or(|before| before == detail))
                };
                let amiss = failed.into_iter().find(|(name, detail)| !is_excused(name, detail));
                amiss.map(|(name, detail)| format!("{name}: {detail}"))
            }
        };
        self.note(fault)
    }

    /// Takes a round in which something else was amiss, or nothing.
    pub fn note(&mut self, fault: Option<String>) -> bool {
        match fault {
            None => self.rounds += 1,
            Some(fault) => (self.rounds, self.reason) = (0, fault),
        }
        self.rounds >= READY_ROUNDS
    }

    /// What was amiss last.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// What is amiss now and no part of an update.
pub fn of_surroundings(answer: Answer) -> Vec<Excuse> {
    match answer {
        Answer::NotReady(failed) => {
            let found = failed.into_iter().filter(|(name, _)| OF_SURROUNDINGS.contains(&name.as_str()));
            found.map(|(name, detail)| Excuse { detail: (name == CERTIFICATES).then_some(detail), name }).collect()
        }
        Answer::Ready | Answer::Silent(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_ready(names: &[&str]) -> Answer {
        Answer::NotReady(names.iter().map(|name| ((*name).to_owned(), "so".to_owned())).collect())
    }

    #[test]
    fn five_in_a_row_are_enough_and_a_relapse_begins_anew() {
        let mut trial = Trial::new(&[]);
        for _ in 0..4 {
            assert!(!trial.take(Answer::Ready));
        }
        assert!(!trial.take(Answer::Silent("gone".to_owned())));
        assert_eq!(trial.reason(), "gone");
        for _ in 0..4 {
            assert!(!trial.take(Answer::Ready));
        }
        assert!(trial.take(Answer::Ready));
    }

    #[test]
    fn what_was_amiss_before_is_excused_if_it_is_of_the_surroundings() {
        let before = of_surroundings(not_ready(&["clock", "store", "probe", "certificates"]));
        assert_eq!(before.iter().map(|excuse| excuse.name.as_str()).collect::<Vec<_>>(), ["clock", "certificates"]);
        let mut trial = Trial::new(&before);
        for _ in 0..4 {
            assert!(!trial.take(not_ready(&["clock"])));
        }
        assert!(!trial.take(not_ready(&["clock", "store"])));
        assert_eq!(trial.reason(), "store: so");
        for _ in 0..4 {
            assert!(!trial.take(not_ready(&["certificates"])));
        }
        assert!(trial.take(Answer::Ready));
        let mut strict = Trial::new(&of_surroundings(Answer::Ready));
        assert!((0..100).all(|_| !strict.take(not_ready(&["clock"]))));
    }

    #[test]
    fn certificates_of_a_configuration_are_excused_in_the_same_words_only() {
        let other = || Answer::NotReady(vec![("certificates".to_owned(), "'other' ends now".to_owned())]);
        let before = of_surroundings(not_ready(&["certificates"]));
        let kept = |kind: Kind, answer: &dyn Fn() -> Answer| {
            let excuses: Vec<Excuse> = before.iter().cloned().map(|excuse| excuse.for_kind(kind)).collect();
            let mut trial = Trial::new(&excuses);
            (0..READY_ROUNDS).any(|_| trial.take(answer()))
        };
        assert!(kept(Kind::Configuration, &|| not_ready(&["certificates"])));
        assert!(!kept(Kind::Configuration, &other));
        assert!(kept(Kind::System, &other));
        // The clock's words have the time in them.
        let clock = of_surroundings(not_ready(&["clock"]));
        let later = || Answer::NotReady(vec![("clock".to_owned(), "not set, later".to_owned())]);
        let mut trial = Trial::new(&clock);
        assert!((0..READY_ROUNDS).any(|_| trial.take(later())));
    }

    #[test]
    fn the_time_of_a_configuration_begins_when_its_broker_is_ready() {
        let seconds = Duration::from_secs;
        assert_eq!(overdue(seconds(299), None), None);
        assert_eq!(overdue(seconds(301), None), Some(START));
        assert_eq!(overdue(seconds(400), Some(seconds(119))), None);
        assert_eq!(overdue(seconds(400), Some(seconds(121))), Some(CONFIGURATION));
    }
}
