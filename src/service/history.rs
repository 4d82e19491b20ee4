//! The last hour of a broker, in steps of ten seconds: what the lines of the status page are drawn from.
//!
//! In: counters that only grow, once a step. Out: what each grew by. **Invariant:** a ring of fixed size; an idle broker is woken
//! for it once a step.

use crate::net::Inside;
use crate::telemetry::Counters;
use crate::time::UnixTime;
use async_io::Timer;
use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

/// Seconds of a step.
pub const STEP_SECONDS: u64 = 10;
/// Steps that are kept.
pub const STEPS_MAX: usize = 360;
/// Names of the series, in the order of a sample.
pub const SERIES: [&str; 7] =
    ["publishesReceived", "publishesSent", "bytesReceived", "bytesSent", "connections", "dropped", "denied"];

/// One step of every series: what each grew by, but for the connections, which there are at its end.
type Sample = [u64; SERIES.len()];

/// Place of the connections in a sample.
const CONNECTIONS: usize = 4;

/// The last hour.
pub struct History {
    steps: VecDeque<Sample>,
    /// What the counters showed at the end of the last step.
    before: Option<Sample>,
    ends: UnixTime,
}

impl History {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { steps: VecDeque::with_capacity(STEPS_MAX), before: None, ends: UnixTime::default() }
    }

    /// Bytes that it takes.
    #[must_use]
    pub const fn bytes() -> u64 {
        (STEPS_MAX * size_of::<Sample>()) as u64
    }

    /// A step ends at `unix`. The first call begins the first step.
    pub fn step(&mut self, unix: UnixTime, counters: &Counters, connections: usize) {
        let mut shown: Sample = [
            counters.publishes_received,
            counters.publishes_sent,
            counters.bytes_received,
            counters.bytes_sent,
            0,
            counters.queue_dropped + counters.expired + counters.too_large,
            counters.authorization_denied(),
        ];
        self.ends = unix;
        if let Some(before) = self.before.replace(shown) {
            for (value, before) in shown.iter_mut().zip(before) {
                *value = value.saturating_sub(before);
            }
            shown[CONNECTIONS] = connections as u64;
            if self.steps.len() == STEPS_MAX {
                self.steps.pop_front();
            }
            self.steps.push_back(shown);
        }
    }

    /// When the last step ended.
    #[must_use]
    pub const fn ends(&self) -> UnixTime {
        self.ends
    }

    /// The values of the series with this index, oldest first.
    pub fn series(&self, index: usize) -> impl Iterator<Item = u64> {
        self.steps.iter().filter_map(move |step| step.get(index).copied())
    }

    /// Takes a sample each step, until the broker stops.
    pub async fn keep(history: Rc<RefCell<Self>>, inside: Inside) {
        loop {
            let seen = inside.ask(|turn, now| {
                let connections = turn.broker().in_use().connections;
                (now.unix, turn.broker().telemetry().counters.clone(), connections)
            });
            let Some((unix, counters, connections)) = seen.await else { return };
            history.borrow_mut().step(unix, &counters, connections);
            Timer::after(Duration::from_secs(STEP_SECONDS)).await;
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_and_each_step_says_what_it_added() {
        let mut history = History::new();
        let mut counters = Counters::default();
        for step in 0..=400_u64 {
            counters.publishes_received += step;
            counters.queue_dropped += 1;
            history.step(UnixTime(step * STEP_SECONDS), &counters, step as usize);
        }
        let received: Vec<u64> = history.series(0).collect();
        assert_eq!((received.len(), received[0], received[359]), (STEPS_MAX, 41, 400));
        assert_eq!(history.series(CONNECTIONS).last(), Some(400));
        assert!(history.series(5).all(|dropped| dropped == 1));
        assert_eq!((history.ends(), history.series(SERIES.len()).next()), (UnixTime(4_000), None));
        assert_eq!(SERIES[CONNECTIONS], "connections");
    }

    #[test]
    fn the_first_call_only_begins() {
        let mut history = History::new();
        history.step(UnixTime(1), &Counters { publishes_received: 1_000, ..Counters::default() }, 1);
        assert_eq!(history.series(0).next(), None);
    }
}
