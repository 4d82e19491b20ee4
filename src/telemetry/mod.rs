//! What happened, in types: counters that only grow, and events that the shell turns into log lines.
//!
//! The core never formats a log line. It counts, and it leaves an [`Event`] in a small ring that the shell drains once a
//! turn; an event that finds the ring full is counted as lost. Text in an event was chosen by a peer and may contain
//! anything: whoever prints it escapes it.

mod audit;
mod categories;
mod denials;
mod events;
mod histogram;

pub use audit::{Action, AuditBudget, Who};
pub use categories::{Categories, Category, CategoryCounters, NAMED_MAX, PROPERTY};
pub use denials::{Asking, Denial, DenialExplanation, Denials, LINE_BYTES_MAX};
pub use events::{Cause, Event, Table, Text};
pub use histogram::{BOUNDS_MILLISECONDS, Durations, Histogram};

use std::collections::VecDeque;

/// Most events between two drains.
const EVENTS_MAX: usize = 256;

/// Counters since start. Each only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections accepted from a socket.
    pub connections_opened: u64,
    /// CONNECT packets answered with success.
    pub connects_accepted: u64,
    /// CONNECT packets answered with a failure.
    pub connects_refused: u64,
    /// MQTT packets received.
    pub packets_received: u64,
    /// MQTT packets sent.
    pub packets_sent: u64,
    /// Bytes of MQTT packets received.
    pub bytes_received: u64,
    /// Bytes of MQTT packets sent.
    pub bytes_sent: u64,
    /// Sessions whose client did not come back in time.
    pub sessions_expired: u64,
    /// PUBLISH packets received.
    pub publishes_received: u64,
    /// PUBLISH packets transmitted.
    pub publishes_sent: u64,
    /// Payload bytes received in PUBLISH packets.
    pub payload_bytes_received: u64,
    /// Payload bytes transmitted in PUBLISH packets.
    pub payload_bytes_sent: u64,
    /// Authorization decisions that allowed.
    pub authorization_allowed: u64,
    /// Authorization decisions that denied, by [`Action`].
    pub denied: [u64; Action::ALL.len()],
    /// Connections of sessions that ended, by [`Cause`].
    pub ends: [u64; Cause::ALL.len()],
    /// TLS handshakes that were finished and began a new session.
    pub handshakes_full: u64,
    /// TLS handshakes that resumed a session.
    pub handshakes_resumed: u64,
    /// TLS handshakes that ended unfinished.
    pub handshakes_failed: u64,
    /// QoS 0 messages not routed because their publisher may not publish there.
    pub qos0_denied: u64,
    /// Messages not delivered to one subscriber because its queue was full.
    pub queue_dropped: u64,
    /// Messages not delivered to one subscriber because they had expired.
    pub expired: u64,
    /// Messages not delivered to one subscriber because they exceed its Maximum Packet Size.
    pub too_large: u64,
    /// What found no room, by [`Table`].
    pub full: [u64; Table::COUNT],
    /// Credentials that were refused.
    pub authentication_refused: u64,
    /// Credentials that were renewed with AUTH.
    pub renewals: u64,
    /// Connections closed because the peer broke the protocol.
    pub protocol_violations: u64,
    /// Batches written to the disk.
    pub store_commits: u64,
    /// Bytes of these batches.
    pub store_bytes: u64,
    /// Batches that could not be written.
    pub store_failures: u64,
    /// Times that everything live was written anew.
    pub store_sweeps: u64,
    /// Milliseconds that batches took, until they were on the disk.
    pub store_milliseconds: u64,
    /// Milliseconds that the last of them took.
    pub store_milliseconds_last: u64,
    /// Milliseconds that the slowest of them took.
    pub store_milliseconds_max: u64,
    /// Batches that took longer than a second.
    pub store_slow: u64,
    /// Messages of QoS 1 and 2 whose acknowledgement waits for the disk.
    pub store_messages: u64,
    /// Bytes of the topics, properties and payloads of these messages.
    pub store_message_bytes: u64,
    /// Records that were damaged when the log was read at start.
    pub store_damaged: u64,
    /// Events that found the ring full.
    pub events_lost: u64,
}

impl Counters {
    /// Connections that a credential or a policy ended, by [`Cause::CREDENTIAL_DRIVEN`].
    #[must_use]
    pub fn credential_ends(&self) -> [u64; Cause::CREDENTIAL_DRIVEN.len()] {
        Cause::CREDENTIAL_DRIVEN.map(|cause| self.ends.get(cause as usize).copied().unwrap_or(0))
    }

    /// Authorization decisions that denied.
    #[must_use]
    pub fn authorization_denied(&self) -> u64 {
        self.denied.iter().sum()
    }
}

/// Connections that were refused, by the Reason Code of their CONNACK; 0 for those that were closed without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(heapless::Vec<(u8, u64), REFUSAL_CODES_MAX>);

/// MQTT 5 has 22 Reason Codes for CONNACK.
const REFUSAL_CODES_MAX: usize = 32;

impl Refusals {
    fn count(&mut self, reason_code: u8) {
        match self.0.iter_mut().find(|(code, _)| *code == reason_code) {
            Some((_, count)) => *count += 1,
            // There are fewer codes than rows.
            None => drop(self.0.push((reason_code, 1))),
        }
    }

    /// Codes and how often.
    pub fn iter(&self) -> impl Iterator<Item = (u8, u64)> {
        self.0.iter().copied()
    }
}

/// Counters and the ring of events.
#[derive(Default)]
pub struct Telemetry {
    /// The counters.
    pub counters: Counters,
    /// Connections that were refused.
    pub refusals: Refusals,
    /// Counters by category of the client.
    pub categories: Categories,
    /// How long things take.
    pub durations: Durations,
    /// What was denied last.
    pub denials: Denials,
    /// On the heap, and never more than was reserved: with its ring inline, each move of a broker would copy half a
    /// megabyte of stack.
    events: VecDeque<Event>,
}

impl Telemetry {
    /// Nothing counted, nothing happened.
    #[must_use]
    pub fn new() -> Self {
        Self { events: VecDeque::with_capacity(EVENTS_MAX), ..Self::default() }
    }

    /// Leaves an event for the shell.
    pub fn record(&mut self, event: Event) {
        if let Event::Refused { reason_code, .. } = &event {
            self.refusals.count(*reason_code);
        }
        if let Event::Disconnected { cause, .. } = &event
            && let Some(count) = self.counters.ends.get_mut(*cause as usize)
        {
            *count += 1;
        }
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.counters.events_lost += 1;
        }
    }

    /// A table was full. Counted each time; said at the first time, the second, the fourth, and so on, because a table that is
    /// full is full for everybody.
    pub fn full(&mut self, table: Table) {
        let Some(count) = self.counters.full.get_mut(table as usize) else { return };
        *count += 1;
        let times = *count;
        if times.is_power_of_two() {
            self.record(Event::TableFull { table, times });
        }
    }

    /// Takes the oldest event.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
