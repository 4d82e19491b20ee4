//! Retained messages on their way to a new subscription, in bounded steps. MQTT 5 §3.8.3.1, §3.3.1.3.
//!
//! A filter without wildcard names one topic, which is looked up. One with wildcards is compared with every retained
//! topic, some hundreds a turn, and rests while its session has enough to send.

use super::messages::Message;
use super::sessions::Session;
use super::subscriptions::Subscription;
use super::{Broker, QUEUE_LOW_MARK};
use crate::codec::{QoS, topic};
use crate::collections::Key;
use crate::time::Instant;

/// Slots of the retained table that are looked at in one turn.
const SLOTS_PER_TURN: u32 = 512;

impl Broker {
    /// Begins to send the retained messages that match a subscription.
    pub(super) fn start_replay(&mut self, now: Instant, key: Key<Subscription>, filter: &str) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        // Clients expect SUBACK first, though they must take what comes before it. MQTT 5 §3.8.4
        let waits = self.sessions.get(subscription.session).is_some_and(Session::is_kept);
        if waits || filter.contains(['+', '#']) {
            // One that is under way begins anew; it stands in the queue already.
            if subscription.replay.replace(0).is_none() {
                if waits {
                    let needs = self.last_record();
                    self.replays_held.push_back((key, needs));
                } else {
                    self.replays.push_back(key);
                }
            }
            return;
        }
        self.replay_topic(now, key, filter);
    }

    /// SUBACKs that waited for the disk may go, and what is retained behind them.
    pub(super) fn release_replays(&mut self) {
        for _ in 0..self.replays_held.len() {
            let Some((key, needs)) = self.replays_held.pop_front() else { return };
            if self.is_safe(needs) {
                self.replays.push_back(key);
            } else {
                self.replays_held.push_back((key, needs));
            }
        }
    }

    /// Sends the retained message of the one topic that a subscription names.
    fn replay_topic(&mut self, now: Instant, key: Key<Subscription>, filter: &str) {
        let Some(retained) = self.retained.find(&self.messages, filter) else { return };
        let (message, qos) = (retained.message, retained.qos);
        if self.messages.get(message).is_some_and(|message| message.is_expired(now)) {
            self.retained.remove(&mut self.messages, filter);
            return;
        }
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let (session, options) = (subscription.session, subscription.options);
        self.replay_one(session, message, qos.min(options.maximum_qos), options.identifier);
    }

    fn replay_one(&mut self, session: Key<Session>, message: Key<Message>, qos: QoS, identifier: Option<u32>) {
        if let Some(delivery) = self.deliver(session, message, qos, true, identifier.as_slice()) {
            self.keep_delivery(delivery);
        }
    }

    /// Whether [`Broker::work`] has something to do.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.replays.is_empty() || self.enforce_from.is_some() || self.may_sweep()
    }

    /// One step of what is done bit by bit, turn by turn.
    pub fn work(&mut self, now: Instant) {
        self.enforce_some();
        self.sweep_some();
        let mut budget = SLOTS_PER_TURN;
        let mut filter = core::mem::take(&mut self.filter_scratch);
        let mut topic = core::mem::take(&mut self.topic_scratch);
        while budget > 0 {
            let Some(key) = self.replays.pop_front() else { break };
            budget = self.replay(now, key, budget, &mut filter, &mut topic);
        }
        filter.clear();
        topic.clear();
        self.filter_scratch = filter;
        self.topic_scratch = topic;
    }

    /// Goes on with one subscription; returns what is left of the budget.
    fn replay(
        &mut self,
        now: Instant,
        key: Key<Subscription>,
        mut budget: u32,
        filter: &mut Vec<u8>,
        topic_text: &mut Vec<u8>,
    ) -> u32 {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return budget };
        let (session_key, options) = (subscription.session, subscription.options);
        let Some(mut slot) = subscription.replay else { return budget };
        self.subscriptions.read_filter(key, filter);
        if let Ok(filter) = core::str::from_utf8(filter)
            && !filter.contains(['+', '#'])
        {
            if let Some(subscription) = self.subscriptions.get_mut(key) {
                subscription.replay = None;
            }
            self.replay_topic(now, key, filter);
            return budget.saturating_sub(1);
        }
        let end = self.retained.slots();
        while slot < end && budget > 0 {
            let Some(session) = self.sessions.get_mut(session_key) else { return budget };
            if session.connection.is_none() || session.waiting.len() > QUEUE_LOW_MARK {
                session.replay_held = true;
                if let Some(subscription) = self.subscriptions.get_mut(key) {
                    subscription.replay = Some(slot);
                }
                return budget;
            }
            budget -= 1;
            if let Some((message, qos)) = self.retained.at_slot(&mut self.messages, slot, now)
                && self.messages.read_topic(message, topic_text)
                && let (Ok(filter), Ok(text)) = (core::str::from_utf8(filter), core::str::from_utf8(topic_text))
                && topic::matches(filter, text)
            {
                self.replay_one(session_key, message, qos.min(options.maximum_qos), options.identifier);
            }
            slot += 1;
        }
        let Some(subscription) = self.subscriptions.get_mut(key) else { return budget };
        subscription.replay = (slot < end).then_some(slot);
        if slot < end {
            self.replays.push_back(key);
        }
        budget
    }
}
