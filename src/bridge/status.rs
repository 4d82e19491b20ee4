//! What a bridge is doing, for those who look at it: metrics, the status page, commands.

use crate::broker::INSIDE_PREFIX;
use core::cell::RefCell;
use core::fmt;
use std::rc::Rc;

/// The bridges of a broker as they are seen from outside; goes on being true.
pub type Statuses = Rc<RefCell<Vec<Rc<RefCell<Status>>>>>;

/// Longest text of an error that is kept, bytes.
const ERROR_BYTES_MAX: usize = 160;

/// How far a bridge has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It has not begun, or its session at this broker is being made.
    #[default]
    Starting,
    /// It looks for the upstream, or waits to try again.
    Disconnected,
    /// It is connected to both.
    Connected,
}

impl State {
    /// Its name in metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Disconnected => "Disconnected",
            Self::Connected => "Connected",
        }
    }
}

/// What has become of messages since the bridge was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sent to the upstream: with QoS 1, and acknowledged by it; or with QoS 0.
    pub sent: u64,
    /// Given to this broker: with QoS 1, and acknowledged by it; or with QoS 0.
    pub received: u64,
    /// Not sent or not brought in: it has been here, or has crossed enough bridges.
    pub dropped_loop: u64,
    /// No map matches, or the name on the other side would be none.
    pub dropped_topic: u64,
    /// Larger than the other side or the bridge takes, or with more than 250 properties.
    pub dropped_size: u64,
    /// Refused by the other side for good: not authorized, or not valid.
    pub dropped_refused: u64,
    /// Connections to the upstream that were made.
    pub connects: u64,
    /// Attempts and connections that have failed.
    pub failures: u64,
}

impl Counters {
    /// All that was not forwarded, for whatever reason but the limit of the queue, which the broker counts.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped_loop + self.dropped_topic + self.dropped_size + self.dropped_refused
    }
}

/// A bridge, as it is seen from outside.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// `metadata.name`.
    pub name: String,
    /// The address that is or was tried last: `host:port`.
    pub remote: String,
    /// How far it has come.
    pub state: State,
    /// Since when, seconds of the wall clock.
    pub since_unix: u64,
    /// Messages.
    pub counters: Counters,
    /// Why it is not connected, or what was refused last; empty if nothing was.
    pub last_error: String,
}

impl Status {
    /// The client identifier of its session at this broker.
    #[must_use]
    pub fn client_identifier(&self) -> String {
        format!("{INSIDE_PREFIX}{}", super::insider_name(&self.name))
    }

    /// Notes what went wrong; what a peer chose is escaped.
    pub fn fail(&mut self, fault: impl fmt::Display) {
        let text = fault.to_string();
        let mut shown = String::new();
        for character in text.chars().flat_map(|character| {
            let is_control = character.is_control();
            let escaped = is_control.then(|| character.escape_unicode());
            escaped.into_iter().flatten().chain((!is_control).then_some(character))
        }) {
            if shown.len() + character.len_utf8() > ERROR_BYTES_MAX {
                break;
            }
            shown.push(character);
        }
        self.last_error = shown;
    }
}

/// Whether the nth of a kind is to be said in the log: the first, the second, the fourth, the eighth.
pub(super) const fn is_worth_a_line(count: u64) -> bool {
    count.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_short_and_on_one_line() {
        let mut status = Status::default();
        status.fail(format_args!("a\nb{}", "x".repeat(1_000)));
        assert!(status.last_error.starts_with("a\\u{a}bxxx") && status.last_error.len() == ERROR_BYTES_MAX);
    }
}
