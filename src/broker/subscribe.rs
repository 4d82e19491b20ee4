//! SUBSCRIBE and UNSUBSCRIBE. MQTT 5 §3.8, §3.10.

use super::Broker;
use super::connections::{CODES_PER_REPLY, Connection, ReplyKind};
use super::sessions::Session;
use super::subscriptions::{Options, Target};
use crate::codec::{
    PacketIdentifier, QoS, ReasonCode, RetainHandling, Subscribe, Subscription, SubscriptionOptions, Unsubscribe,
};
use crate::collections::{Full, Key};
use crate::limits::{FILTERS_PER_PACKET_MAX, TOPIC_LEVELS_MAX};
use crate::telemetry::{Action, Table};
use crate::time::Now;

/// Collects reason codes into replies.
struct Codes {
    pending: [ReasonCode; CODES_PER_REPLY],
    used: usize,
}

impl Broker {
    pub(super) fn subscribe(&mut self, now: Now, key: Key<Connection>, subscribe: &Subscribe<'_>) {
        let Some(session) = self.connections.get(key).and_then(|connection| connection.session) else { return };
        let shares_without_itself = subscribe
            .filters
            .iter()
            .any(|(filter, options)| options.no_local && target(filter).is_some_and(|target| target.group.is_some()));
        if shares_without_itself {
            // [MQTT-3.8.3-4]
            return self.violate(key, ReasonCode::ProtocolError);
        }
        let identifier = subscribe.properties.subscription_identifier;
        let answered = self.answer_each(
            key,
            subscribe.packet_identifier,
            false,
            subscribe.filters.iter(),
            |broker, (filter, options)| broker.subscribe_one(now, session, filter, options, identifier),
        );
        if answered.is_err() {
            self.violate(key, ReasonCode::QuotaExceeded);
        }
    }

    pub(super) fn unsubscribe(&mut self, key: Key<Connection>, unsubscribe: &Unsubscribe<'_>) {
        let Some(session) = self.connections.get(key).and_then(|connection| connection.session) else { return };
        let answered =
            self.answer_each(key, unsubscribe.packet_identifier, true, unsubscribe.filters.iter(), |broker, filter| {
                broker.unsubscribe_one(session, filter)
            });
        if answered.is_err() {
            self.violate(key, ReasonCode::QuotaExceeded);
        }
    }

    /// Calls `answer` for each item, in order, and queues the acknowledgement with one code for each. [MQTT-3.8.4-6]
    fn answer_each<I: Iterator + Clone>(
        &mut self,
        key: Key<Connection>,
        packet_identifier: PacketIdentifier,
        unsubscribe: bool,
        items: I,
        mut answer: impl FnMut(&mut Self, I::Item) -> ReasonCode,
    ) -> Result<(), Full> {
        let count = items.clone().take(FILTERS_PER_PACKET_MAX + 1).count();
        if count > FILTERS_PER_PACKET_MAX {
            return Err(Full);
        }
        let codes = u16::try_from(count).map_err(|_| Full)?;
        self.reply(key, ReplyKind::SubscriptionAck { packet_identifier, codes, unsubscribe })?;
        let acknowledgement = self.connections.get(key).and_then(|connection| connection.replies.back());
        let mut collected = Codes { pending: [ReasonCode::Success; CODES_PER_REPLY], used: 0 };
        for item in items {
            let code = answer(self, item);
            if let Some(place) = collected.pending.get_mut(collected.used) {
                *place = code;
            }
            collected.used += 1;
            if collected.used == CODES_PER_REPLY {
                self.reply(key, ReplyKind::Codes(collected.pending))?;
                collected.used = 0;
            }
        }
        if collected.used > 0 {
            self.reply(key, ReplyKind::Codes(collected.pending))?;
        }
        let session = self.connections.get(key).and_then(|connection| connection.session);
        let needs = session.and_then(|key| self.sessions.get(key)).map_or(0, |session| session.changed);
        if let Some(reply) = acknowledgement.and_then(|key| self.replies.get_mut(key)) {
            reply.needs = needs;
        }
        Ok(())
    }

    fn subscribe_one(
        &mut self,
        now: Now,
        key: Key<Session>,
        filter: &str,
        options: SubscriptionOptions,
        identifier: Option<u32>,
    ) -> ReasonCode {
        let Some(target) = target(filter) else { return ReasonCode::TopicFilterInvalid };
        let Some(session) = self.sessions.get_mut(key) else { return ReasonCode::UnspecifiedError };
        if !self.admission.may_subscribe(&session.asker(key, &self.decisions), target.filter) {
            self.denied(key, Action::Subscribe, filter);
            return ReasonCode::NotAuthorized;
        }
        self.telemetry.counters.authorization_allowed += 1;
        if let Err(reason) = self.can_keep_subscription(key, filter) {
            return reason;
        }
        let Some(session) = self.sessions.get_mut(key) else { return ReasonCode::UnspecifiedError };
        let granted = Options {
            maximum_qos: options.maximum_qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling,
            identifier,
        };
        let may_add = session.subscriptions < self.limits.subscriptions_per_session;
        let set = if may_add || self.subscriptions.contains(key, target) {
            self.subscriptions.set(key, &mut session.first_subscription, target, granted)
        } else {
            Err(Full)
        };
        match set {
            Ok((subscription, new)) => {
                session.subscriptions += u32::from(new);
                self.keep_subscription(key, subscription);
                // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]; a shared subscription gets none (§4.8.2).
                let replays = match options.retain_handling {
                    RetainHandling::SendAtSubscribe => true,
                    RetainHandling::SendAtSubscribeIfNew => new,
                    RetainHandling::DoNotSend => false,
                };
                if replays && target.group.is_none() {
                    self.start_replay(now.instant, subscription, target.filter);
                }
                match options.maximum_qos {
                    QoS::AtMostOnce => ReasonCode::GRANTED_QOS_0,
                    QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
                    QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
                }
            }
            Err(Full) => {
                self.telemetry.full(Table::Subscriptions);
                ReasonCode::QuotaExceeded
            }
        }
    }

    fn unsubscribe_one(&mut self, key: Key<Session>, filter: &str) -> ReasonCode {
        let Some(target) = target(filter) else { return ReasonCode::TopicFilterInvalid };
        let Some(session) = self.sessions.get_mut(key) else { return ReasonCode::UnspecifiedError };
        match self.subscriptions.remove(key, &mut session.first_subscription, target) {
            Some(number) => {
                session.subscriptions -= 1;
                self.keep_unsubscribed(key, number);
                ReasonCode::Success
            }
            None => ReasonCode::NoSubscriptionExisted,
        }
    }
}

/// A filter as it is kept: valid, and not deeper than topics can be.
fn target(filter: &str) -> Option<Target<'_>> {
    let parsed = Subscription::parse(filter).ok()?;
    let group = match parsed {
        Subscription::Shared(shared) => Some(shared.share_name),
        Subscription::NonShared(_) => None,
    };
    let target = Target { group, filter: parsed.filter().as_str() };
    (target.filter.split('/').count() <= TOPIC_LEVELS_MAX).then_some(target)
}
