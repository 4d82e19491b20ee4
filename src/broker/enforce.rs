//! What a session must give up when its rules change: a renewed credential, another port, another policy. azure-model §6
//! row 51.
//!
//! Policies are replaced between two turns. Sessions come under the new ones some at a time, but each of them before
//! anything is taken from or given to it: after the replacement nothing is decided by the old ones.

use super::sessions::{Delivery, Session};
use super::{Admission, Broker};
use crate::authorization::ApplicableRules;
use crate::codec::ReasonCode;
use crate::collections::{Key, Queue};
use crate::telemetry::{Action, Cause, Event, Text};

/// Sessions that are looked at in one turn because the policies were replaced.
const SESSIONS_PER_TURN: u32 = 16;

impl Broker {
    /// Puts other authenticators and policies in force. The ports must be the same.
    pub fn replace_admission(&mut self, admission: Admission) {
        assert_eq!(self.admission.ports.len(), admission.ports.len(), "ports change with a restart only");
        self.admission = admission;
        self.decisions.forget();
        self.policy_epoch = self.policy_epoch.wrapping_add(1);
        self.enforce_from = Some(0);
    }

    /// Brings some more sessions under the policies that are in force.
    pub(super) fn enforce_some(&mut self) {
        let Some(first) = self.enforce_from else { return };
        let end = first.saturating_add(SESSIONS_PER_TURN).min(self.sessions.slots());
        for slot in first..end {
            if let Some(key) = self.sessions.key_at(slot) {
                self.refresh(key);
            }
        }
        self.enforce_from = (end < self.sessions.slots()).then_some(end);
    }

    /// Brings a session under the policies that are in force, if it is not.
    pub(super) fn refresh(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.policy_epoch == self.policy_epoch {
            return;
        }
        session.policy_epoch = self.policy_epoch;
        let rules = self.admission.authorize(session.port, &session.identity, &session.client_identifier);
        let may_connect = rules.is_ok();
        // Without any rule, what is left of the session gets nothing and may do nothing.
        session.rules = rules.unwrap_or_else(|_| Some(ApplicableRules::default()));
        self.decisions.forget();
        let connection = session.connection;
        if !may_connect && let Some(connection) = connection {
            let detail = Text::new("no rule allows it to be connected any more");
            self.condemn_for(connection, Cause::PolicyChanged, ReasonCode::NotAuthorized, detail);
        }
        self.enforce_rules(key);
    }

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
        let Self { sessions, subscriptions, admission, decisions, telemetry, filter_scratch, .. } = self;
        let Some(session) = sessions.get_mut(key) else { return };
        let mut at = session.first_subscription;
        while let Some(subscription) = at {
            at = subscriptions.after_in_session(subscription);
            subscriptions.read_filter(subscription, filter_scratch);
            let filter = core::str::from_utf8(filter_scratch).unwrap_or_default();
            if admission.may_subscribe(&session.asker(key, decisions), filter) {
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
        let waiting = core::mem::take(&mut session.waiting);
        // What is in flight would be sent again when the client comes back; to one that is here it has been sent.
        let absent = session.connection.is_none();
        let in_flight = if absent { core::mem::take(&mut session.in_flight) } else { Queue::default() };
        let waiting = self.without_forbidden(key, waiting);
        let in_flight = self.without_forbidden(key, in_flight);
        if let Some(session) = self.sessions.get_mut(key) {
            session.waiting = waiting;
            if absent {
                session.in_flight = in_flight;
            }
        }
    }

    fn without_forbidden(&mut self, key: Key<Session>, mut queue: Queue<Delivery>) -> Queue<Delivery> {
        let mut kept = Queue::default();
        let mut topic = core::mem::take(&mut self.topic_scratch);
        while let Some(delivery) = queue.pop_front(&mut self.deliveries) {
            let allowed = match self.deliveries.get(delivery).and_then(|delivery| delivery.message) {
                // Only its PUBCOMP is missing.
                None => true,
                Some(message) => {
                    self.messages.read_topic(message, &mut topic)
                        && self.sessions.get(key).is_some_and(|session| {
                            core::str::from_utf8(&topic).is_ok_and(|topic| {
                                self.admission.may_receive(&session.asker(key, &self.decisions), topic)
                            })
                        })
                }
            };
            if allowed {
                kept.push_back(&mut self.deliveries, delivery);
            } else {
                self.telemetry.counters.authorization_denied += 1;
                self.drop_delivery(delivery);
            }
        }
        topic.clear();
        self.topic_scratch = topic;
        kept
    }
}
