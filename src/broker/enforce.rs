//! What a session must give up when its rules change: a renewed credential, another port, another policy. azure-model §6
//! row 51.

use super::Broker;
use super::sessions::Session;
use crate::collections::{Key, Queue};
use crate::telemetry::{Action, Event, Text};

impl Broker {
    /// Takes from a session the subscriptions that its rules no longer allow, and of the messages that wait for it those that
    /// no rule would let it have. What has been sent already is not taken back. The work is bounded by the session's
    /// subscriptions and queue.
    pub(super) fn enforce_rules(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get(key) else { return };
        if session.rules.is_none() && !self.admission.has_policy(session.port) {
            return;
        }
        self.drop_forbidden_subscriptions(key);
        self.drop_forbidden_messages(key);
    }

    fn drop_forbidden_subscriptions(&mut self, key: Key<Session>) {
        let Self { sessions, subscriptions, admission, telemetry, filter_scratch, .. } = self;
        let Some(session) = sessions.get_mut(key) else { return };
        let mut at = session.first_subscription;
        while let Some(subscription) = at {
            at = subscriptions.after_in_session(subscription);
            subscriptions.read_filter(subscription, filter_scratch);
            let filter = core::str::from_utf8(filter_scratch).unwrap_or_default();
            if admission.may_subscribe(session.port, session.rules.as_ref(), filter) {
                continue;
            }
            telemetry.counters.authorization_denied += 1;
            telemetry.record(Event::Denied {
                client: Text::new(&session.client_identifier),
                username: session.identity.username.as_deref().map(Text::new),
                action: Action::KeepSubscription,
                resource: Text::new(filter),
            });
            subscriptions.drop_one(subscription, &mut session.first_subscription);
            session.subscriptions = session.subscriptions.saturating_sub(1);
        }
    }

    fn drop_forbidden_messages(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut waiting = core::mem::take(&mut session.waiting);
        let mut kept = Queue::default();
        let mut topic = core::mem::take(&mut self.topic_scratch);
        while let Some(delivery) = waiting.pop_front(&mut self.deliveries) {
            let message = self.deliveries.get(delivery).and_then(|delivery| delivery.message);
            let readable = message.is_some_and(|message| self.messages.read_topic(message, &mut topic));
            let allowed = self.sessions.get(key).is_some_and(|session| {
                core::str::from_utf8(&topic)
                    .is_ok_and(|topic| self.admission.may_receive(session.port, session.rules.as_ref(), topic))
            });
            if readable && allowed {
                kept.push_back(&mut self.deliveries, delivery);
            } else {
                self.telemetry.counters.authorization_denied += 1;
                self.drop_delivery(delivery);
            }
        }
        topic.clear();
        self.topic_scratch = topic;
        if let Some(session) = self.sessions.get_mut(key) {
            session.waiting = kept;
        }
    }
}
