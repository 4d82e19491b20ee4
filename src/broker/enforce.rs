//! What a session must give up when its rules change: a renewed credential, another port, another policy. azure-model §6
//! row 51.
//!
//! Policies are replaced between two turns. Sessions come under the new ones some at a time, but each of them before
//! anything is taken from or given to it: after the replacement nothing is decided by the old ones.
//!
//! Where authentication is replaced too, attributes may be others. Connected clients are judged again first, and until then
//! nothing is read from or written to them. Who is not there cannot be judged: its session is kept as it is, and comes under
//! the rules when its client does. What waits in it goes to nobody else.

use super::connections::{Connection, Phase};
use super::sessions::{Delivery, Session};
use super::{Admission, Broker, Heir, Succession};
use crate::authorization::ApplicableRules;
use crate::codec::ReasonCode;
use crate::collections::{Key, Queue};
use crate::telemetry::{Action, Cause, Text};

/// Sessions that are looked at in one turn because the policies were replaced.
const SESSIONS_PER_TURN: u32 = 16;

impl Broker {
    /// Puts other authenticators and policies in force. There must be as many ports as before. `successions`, by port, says
    /// what becomes of their clients; those of a port without one are disconnected. The shell then calls
    /// [`Broker::judge_again`] for every connection, and answers questions that it has not taken yet with anything: they are
    /// asked again.
    pub fn replace_admission(&mut self, admission: Admission, successions: &[Succession]) {
        assert_eq!(self.admission.ports.len(), admission.ports.len(), "ports change with a restart only");
        let successions: Vec<Option<Vec<Heir>>> = (0_u16..)
            .zip(&admission.ports)
            .map(|(port, _)| self.heirs(&admission, port, successions.get(usize::from(port))))
            .collect();
        let heirs = |port: u16| successions.get(usize::from(port)).and_then(Option::as_deref);
        self.admission = admission;
        self.decisions.forget();
        self.policy_epoch = self.policy_epoch.wrapping_add(1);
        self.judges_epoch = self.judges_epoch.wrapping_add(1);
        self.enforce_from = Some(0);
        for slot in 0..self.connections.slots() {
            if let Some(connection) = self.connections.key_at(slot).and_then(|key| self.connections.get_mut(key))
                && connection.phase == Phase::Connected
                && let Some(heirs) = heirs(connection.port)
            {
                let inherit = |method: u16| heirs.get(usize::from(method)).copied().unwrap_or(Heir::None);
                connection.heir = Some(match connection.heir {
                    None => inherit(connection.credential_method),
                    // It has not been judged since the replacement before this one.
                    Some(Heir::Method(method)) => inherit(method),
                    Some(lost) => lost,
                });
            }
        }
        for slot in 0..self.sessions.slots() {
            if let Some(session) = self.sessions.key_at(slot).and_then(|key| self.sessions.get_mut(key)) {
                session.identity_is_stale |= heirs(session.port).is_some();
            }
        }
        self.place_insiders();
    }

    /// By index of the former method, what judges the clients of a port now; `None` where they need not be judged again.
    fn heirs(&self, admission: &Admission, port: u16, succession: Option<&Succession>) -> Option<Vec<Heir>> {
        match succession {
            Some(Succession::Changed(heirs)) => Some(heirs.clone()),
            None => Some(Vec::new()),
            Some(Succession::Unchanged) => {
                let (former, next) = (self.admission.authenticator(port)?, admission.authenticator(port)?);
                let methods = u16::try_from(next.methods()).unwrap_or(u16::MAX);
                (!former.has_users_of(next)).then(|| (0..methods).map(Heir::Method).collect())
            }
        }
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
        let connection = session.connection;
        if connection.and_then(|key| self.connections.get(key)).is_some_and(Connection::awaits_judgement) {
            return;
        }
        session.policy_epoch = self.policy_epoch;
        let rules = self.admission.authorize(session.port, &session.identity, &session.client_identifier);
        let may_connect = rules.is_ok();
        // Without any rule, what is left of the session gets nothing and may do nothing.
        session.rules = rules.unwrap_or_else(|_| Some(ApplicableRules::default()));
        self.decisions.forget();
        if session.identity_is_stale && connection.is_none() {
            return;
        }
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
        let Self { sessions, subscriptions, admission, decisions, telemetry, filter_scratch, latest, log, .. } = self;
        let Some(session) = sessions.get_mut(key) else { return };
        let mut at = session.first_subscription;
        while let Some(subscription) = at {
            at = subscriptions.after_in_session(subscription);
            subscriptions.read_filter(subscription, filter_scratch);
            let filter = core::str::from_utf8(filter_scratch).unwrap_or_default();
            if admission.may_subscribe(&session.asker(key, decisions), filter) {
                continue;
            }
            let mut audit = session.audit;
            telemetry.deny(*latest, &mut audit, Action::KeepSubscription, filter, session.asking());
            session.audit = audit;
            if let Some(number) = subscriptions.get(subscription).map(|subscription| subscription.number)
                && number != 0
                && let Some(log) = log
            {
                session.changed = log.unsubscribed(session.number, number);
            }
            subscriptions.drop_one(subscription, &mut session.first_subscription);
            session.subscriptions = session.subscriptions.saturating_sub(1);
        }
    }

    fn drop_forbidden_messages(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        // What is in flight has been sent to a client that is here, up to what is to be sent again because it came back. To
        // one that is not, all of it would be.
        let is_here = session.connection.is_some();
        let (first, resend) = (session.in_flight.front(), session.resend);
        let from = if is_here { resend } else { first };
        let waiting = core::mem::take(&mut session.waiting);
        let in_flight = core::mem::take(&mut session.in_flight);
        let front = waiting.front();
        let (waiting, _) = self.without_forbidden(key, waiting, front);
        let (in_flight, resend) = self.without_forbidden(key, in_flight, from);
        if let Some(session) = self.sessions.get_mut(key) {
            session.waiting = waiting;
            session.in_flight = in_flight;
            session.resend = if is_here { resend } else { None };
        }
    }

    /// Takes out of a queue what no rule would let the session have, beginning at the delivery `from`. Returns what is left,
    /// and the first delivery of it that was looked at.
    fn without_forbidden(
        &mut self,
        key: Key<Session>,
        mut queue: Queue<Delivery>,
        from: Option<Key<Delivery>>,
    ) -> (Queue<Delivery>, Option<Key<Delivery>>) {
        let (mut kept, mut first) = (Queue::default(), None);
        let mut topic = core::mem::take(&mut self.topic_scratch);
        let mut reached = false;
        while let Some(delivery) = queue.pop_front(&mut self.deliveries) {
            reached |= Some(delivery) == from;
            if reached && !self.may_have(key, delivery, &mut topic) {
                self.telemetry.count_denied(Action::Receive);
                self.finish_delivery(delivery);
                continue;
            }
            if reached && first.is_none() {
                first = Some(delivery);
            }
            kept.push_back(&mut self.deliveries, delivery);
        }
        topic.clear();
        self.topic_scratch = topic;
        (kept, first)
    }

    fn may_have(&self, key: Key<Session>, delivery: Key<Delivery>, topic: &mut Vec<u8>) -> bool {
        // Without a message only its PUBCOMP is missing.
        let Some(message) = self.deliveries.get(delivery).and_then(|delivery| delivery.message) else { return true };
        self.messages.read_topic(message, topic)
            && self.sessions.get(key).is_some_and(|session| {
                core::str::from_utf8(topic)
                    .is_ok_and(|topic| self.admission.may_receive(&session.asker(key, &self.decisions), topic))
            })
    }
}
