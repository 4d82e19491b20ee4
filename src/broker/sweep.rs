//! The sweep: writes everything that is live anew, some of it with every batch, so that the segments from before can go.
//!
//! It walks the tables slot by slot. What changes behind it is recorded by whoever changes it; what changes before it is
//! written as it is then. So at its end everything live stands in the log behind its beginning, whatever happened meanwhile,
//! and the log takes no more room than what is live, twice, and what happened during the sweep.
//!
//! It is also how the log finds back after it has lost the thread: a failed disk, or more to say than there was room for.

use super::Broker;
use super::durable::Durability;
use crate::store::{Record, Urgency};
use crate::telemetry::Event;
use crate::time::Instant;

/// Segments that the log may have before a sweep is worth it, whatever is live.
const SEGMENTS_MIN: u64 = 4;
/// Slots that are looked at in one turn.
const SLOTS_PER_TURN: u32 = 1_024;

/// A sweep under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    table: Table,
    slot: u32,
    /// Bytes appended before it began.
    bytes_before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Sessions,
    Subscriptions,
    Deliveries,
    Retained,
    /// Once more, where the first copies stand in another segment: a card that loses a whole block loses messages, but not
    /// who they are for.
    SessionsAgain,
    SubscriptionsAgain,
}

impl Broker {
    /// Begins a sweep when it is worth it, or needed.
    pub(super) fn steer_sweep(&mut self, now: Instant) {
        let live_bytes = self.live_bytes();
        let Some(log) = &mut self.log else { return };
        if log.retry.is_some_and(|retry| retry > now) || log.sweep.is_some() && !log.journal.is_lost() {
            return;
        }
        log.retry = None;
        let needed = log.journal.is_lost() || log.wants_sweep || log.is_sweep_worth(live_bytes);
        if !needed || !log.journal.may_begin_sweep() {
            return;
        }
        log.wants_sweep = false;
        let bytes_before = log.journal.appended_bytes();
        log.swept_from = log.journal.begin_sweep();
        log.sweep = Some(Sweep { table: Table::Sessions, slot: 0, bytes_before });
        self.telemetry.counters.store_sweeps += 1;
        if log.journal.rewrites() {
            log.says_rewrites = true;
            self.telemetry.record(Event::StoreRewrites);
        }
    }

    /// Whether [`Broker::sweep_some`] has something to do.
    pub(super) fn may_sweep(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.sweep.is_some() && log.has_room_for_sweep())
    }

    /// Goes on with the sweep, as far as the batch at hand has room.
    pub(super) fn sweep_some(&mut self) {
        let Some(mut sweep) = self.log.as_ref().and_then(|log| log.sweep) else { return };
        for _ in 0..SLOTS_PER_TURN {
            if !self.may_sweep() {
                break;
            }
            if sweep.slot < self.slots_of(sweep.table) {
                self.sweep_slot(sweep);
                sweep.slot += 1;
                continue;
            }
            sweep.slot = 0;
            sweep.table = match sweep.table {
                Table::Sessions => Table::Subscriptions,
                Table::Subscriptions => Table::Deliveries,
                Table::Deliveries => Table::Retained,
                Table::Retained if self.spans_segments(sweep) => Table::SessionsAgain,
                Table::SessionsAgain => Table::SubscriptionsAgain,
                Table::Retained | Table::SubscriptionsAgain => {
                    if let Some(log) = &mut self.log {
                        log.journal.end_sweep();
                        log.swept_bytes = log.journal.appended_bytes();
                        log.sweep = None;
                    }
                    return;
                }
            };
        }
        if let Some(log) = &mut self.log
            && log.sweep.is_some()
        {
            log.sweep = Some(sweep);
        }
    }

    fn slots_of(&self, table: Table) -> u32 {
        match table {
            Table::Sessions | Table::SessionsAgain => self.sessions.slots(),
            Table::Subscriptions | Table::SubscriptionsAgain => self.subscriptions.slots(),
            Table::Deliveries => self.deliveries.slots(),
            Table::Retained => self.retained.slots(),
        }
    }

    fn spans_segments(&self, sweep: Sweep) -> bool {
        self.log.as_ref().is_some_and(|log| log.journal.appended_bytes() - sweep.bytes_before > log.segment_bytes)
    }

    fn sweep_slot(&mut self, Sweep { table, slot, .. }: Sweep) {
        match table {
            Table::Sessions | Table::SessionsAgain => self.sweep_session(slot),
            Table::Subscriptions | Table::SubscriptionsAgain => self.sweep_subscription(slot),
            Table::Deliveries => self.sweep_delivery(slot),
            Table::Retained => self.sweep_retained(slot),
        }
    }

    fn sweep_session(&mut self, slot: u32) {
        let Self { log: Some(log), sessions, messages, .. } = self else { return };
        let Some(session) = sessions.key_at(slot).and_then(|key| sessions.get(key)) else { return };
        if session.number == 0 {
            return;
        }
        log.session(messages, session, Urgency::Soon);
        for packet_identifier in &session.received {
            let received = Record::Received { session: session.number, packet_identifier: packet_identifier.get() };
            log.journal.append(&received, Urgency::Soon);
        }
    }

    fn sweep_subscription(&mut self, slot: u32) {
        let Some(key) = self.subscriptions.key_at(slot) else { return };
        if let Some(subscription) = self.subscriptions.get(key) {
            self.keep_subscription(subscription.session, key);
        }
    }

    fn sweep_delivery(&mut self, slot: u32) {
        if let Some(key) = self.deliveries.key_at(slot) {
            self.keep_delivery(key);
        }
    }

    fn sweep_retained(&mut self, slot: u32) {
        let mut topic = core::mem::take(&mut self.topic_scratch);
        if let Some(retained) = self.retained.get_slot(slot).filter(|retained| retained.kept)
            && self.messages.read_topic(retained.message, &mut topic)
            && let Ok(topic) = core::str::from_utf8(&topic)
            && let Some(log) = &mut self.log
            && let Some(message) = log.message(&mut self.messages, retained.message)
        {
            let record = Record::Retained { message, qos: retained.qos.bits(), topic };
            log.journal.append(&record, Urgency::Soon);
        }
        topic.clear();
        self.topic_scratch = topic;
    }
}

impl Durability {
    fn has_room_for_sweep(&self) -> bool {
        !self.journal.is_lost() && self.journal.has_room_for_sweep()
    }

    /// Whether so much of the log is not live any more that it pays to write what is anew.
    fn is_sweep_worth(&self, live_bytes: u64) -> bool {
        let (used, free, segment) = (self.room.used_bytes, self.room.free_bytes, self.segment_bytes);
        let much = used > (SEGMENTS_MIN * segment).max(2 * live_bytes + 2 * segment);
        let is_tight = free < live_bytes + 5 * segment && used > live_bytes + 2 * segment;
        // Where nothing has changed, another sweep would free nothing.
        let has_changed = self.journal.appended_bytes() - self.swept_bytes >= segment || self.swept_bytes == 0;
        // A sweep that runs out of room would end nowhere.
        (much || is_tight) && has_changed && free + self.room.sweep_bytes >= live_bytes + segment
    }
}
