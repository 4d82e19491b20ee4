//! Whether what is on trial can serve: the broker is ready five times in a row before the time is over.
//!
//! **Invariant:** what was amiss already before the update and is no part of it (no time server, a certificate that ends soon) is no
//! reason to go back: otherwise a gateway that lacks one of these could never be updated. What an update can break always counts.

use super::super::readiness::Answer;
use std::time::Duration;

/// Between two questions.
pub const ROUND: Duration = Duration::from_secs(2);
/// Answers in a row that are needed.
const READY_ROUNDS: u32 = 5;
/// Checks of the broker that depend on what is around the gateway.
const OF_SURROUNDINGS: [&str; 2] = ["clock", "certificates"];

/// A trial that goes on.
#[derive(Debug)]
pub struct Trial {
    excused: Vec<String>,
    rounds: u32,
    reason: String,
}

impl Trial {
    /// One in which these checks, by name, may fail as they did before.
    pub fn new(before: &[String]) -> Self {
        Self { excused: before.to_vec(), rounds: 0, reason: "it was not asked yet".to_owned() }
    }

    /// Takes the answer of one round; whether it is enough.
    pub fn take(&mut self, answer: Answer) -> bool {
        let fault = match answer {
            Answer::Ready => None,
            Answer::Silent(fault) => Some(fault),
            Answer::NotReady(failed) => {
                let amiss = failed.into_iter().find(|(name, _)| !self.excused.contains(name));
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

/// Names of what is amiss now and no part of an update.
pub fn of_surroundings(answer: Answer) -> Vec<String> {
    match answer {
        Answer::NotReady(failed) => {
            failed.into_iter().map(|(name, _)| name).filter(|name| OF_SURROUNDINGS.contains(&name.as_str())).collect()
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
        assert_eq!(before, ["clock", "certificates"]);
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
}
