//! How connections and sessions end.

use super::connections::{Connection, Phase, ReplyKind};
use super::sessions::{NEVER_EXPIRES, Session};
use super::{Broker, GATE_MILLISECONDS, QUEUE_LOW_MARK};
use crate::codec::{Disconnect, ReasonCode};
use crate::collections::Key;
use crate::store::Urgency;
use crate::telemetry::{Action, Cause, Event, Text};
use crate::time::{Instant, Now};

impl Broker {
    /// DISCONNECT from the client. With 0x00 its Will is discarded. [MQTT-3.14.4-3]
    pub(super) fn client_disconnected(&mut self, now: Now, key: Key<Connection>, disconnect: &Disconnect<'_>) {
        let Some(connection) = self.connections.get(key) else { return };
        let reason = disconnect.reason_code;
        let expiry_seconds = disconnect.properties.session_expiry_interval;
        if expiry_seconds.is_some_and(|seconds| seconds > 0) && !connection.asked_for_expiry {
            // The interval in CONNECT was 0, which cannot be raised any more. [MQTT-3.14.2-2]
            return self.violate(key, ReasonCode::ProtocolError);
        }
        if let Some(seconds) = expiry_seconds
            && let Some(session) = connection.session.and_then(|session| self.sessions.get_mut(session))
        {
            // One that was granted 0 ends now, whatever the cap was raised to since.
            if session.expiry_seconds > 0 {
                session.expiry_seconds = self.limits.session_expiry_seconds.map_or(seconds, |cap| seconds.min(cap));
            }
        }
        if reason == ReasonCode::NORMAL_DISCONNECTION
            && let Some(session) = connection.session.and_then(|session| self.sessions.get_mut(session))
            && let Some(will) = session.will.take()
        {
            self.messages.release(will.message);
            if let Some(session) = connection_session(&self.connections, key) {
                self.keep_will_gone(session);
            }
        }
        self.detach(now, key, Cause::ClientDisconnected, Some(reason), Text::default());
        self.start_closing(key, Cause::ClientDisconnected);
    }

    /// The peer broke the protocol, or asked for what is not there. After a CONNACK it is told why. [MQTT-4.13.1-1]
    pub(super) fn violate(&mut self, key: Key<Connection>, reason: ReasonCode) {
        self.telemetry.counters.protocol_violations += 1;
        let Some(connection) = self.connections.get(key) else { return };
        match connection.phase {
            Phase::AwaitConnect | Phase::Authenticating => {
                self.refuse(key, reason, Text::default(), Text::new("the CONNECT packet cannot be accepted"));
            }
            Phase::Connected => self.condemn(key, Cause::ProtocolViolation, reason),
            Phase::Closing(_) => {}
        }
    }

    /// Sends DISCONNECT behind what is already being sent and closes. The session ends when the connection is gone.
    pub(super) fn condemn(&mut self, key: Key<Connection>, cause: Cause, reason: ReasonCode) {
        self.condemn_for(key, cause, reason, Text::of(reason));
    }

    /// [`Broker::condemn`], with more to say in the log.
    pub(super) fn condemn_for(&mut self, key: Key<Connection>, cause: Cause, reason: ReasonCode, detail: Text) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.phase != Phase::Connected {
            return;
        }
        if connection.can_be_told() {
            // A DISCONNECT that finds no room goes unsaid; the close says enough.
            let _ = self.reply(key, ReplyKind::Disconnect(reason));
        }
        if let Some(session) = connection_session(&self.connections, key).and_then(|key| self.sessions.get(key)) {
            let who = session.who();
            self.telemetry.record(Event::Disconnected { who, cause, reason_code: Some(reason.as_u8()), detail });
        }
        self.start_closing(key, cause);
    }

    /// Ends session and connection from this side: with a DISCONNECT if there is a reason to give, else without a word.
    pub(super) fn close(&mut self, now: Now, key: Key<Connection>, cause: Cause, reason: Option<ReasonCode>) {
        let Some(connection) = self.connections.get(key) else { return };
        match (connection.phase, reason) {
            (Phase::Connected, Some(reason)) => {
                self.condemn(key, cause, reason);
                self.detach(now, key, cause, None, Text::default());
            }
            (Phase::Connected, None) => self.abandon(now, key, cause, Text::default()),
            (Phase::AwaitConnect | Phase::Authenticating, _) => {
                self.telemetry.record(Event::Refused {
                    client: Text::default(),
                    reason_code: 0,
                    detail: Text::of(cause),
                    port: connection.port,
                });
                self.start_closing(key, cause);
            }
            // Its last words have not been taken yet, but whoever comes for its session need not wait for that.
            (Phase::Closing(cause), _) => self.detach(now, key, cause, None, Text::default()),
        }
    }

    /// The network connection is gone, or the shell gave it up. Everything that belonged to it goes.
    pub fn closed(&mut self, now: Now, key: Key<Connection>, cause: Cause, detail: Text) {
        self.detach(now, key, cause, None, detail);
        self.deadlines.cancel(key.index());
        let Some(mut connection) = self.connections.remove(key) else { return };
        if let Some(count) = self.port_connections.get_mut(usize::from(connection.port)) {
            *count -= 1;
        }
        if let Some(transmitting) = connection.transmitting.take() {
            self.messages.release(transmitting.message);
        }
        for alias in connection.aliases_in.into_iter().flatten() {
            self.messages.release(alias);
        }
        for queue in [&mut connection.acknowledgements, &mut connection.replies] {
            while let Some(reply) = queue.pop_front(&mut self.replies) {
                self.replies.remove(reply);
            }
        }
        if let Some(ticket) = connection.parked {
            self.abandon_question(ticket);
        }
        self.feed_starved();
        if connection.gated {
            self.gated.retain(|gated| *gated != key);
        }
    }

    /// The shell gives the connection up, but may have something to send before it closes the socket.
    pub fn abandon(&mut self, now: Now, key: Key<Connection>, cause: Cause, detail: Text) {
        self.detach(now, key, cause, None, detail);
        self.start_closing(key, cause);
    }

    /// The last bytes of a closing connection are on their way: its session ends now, not when the peer has hung up.
    pub fn finish(&mut self, now: Now, key: Key<Connection>) {
        self.detach(now, key, Cause::ClientDisconnected, None, Text::default());
    }

    /// The broker stops: every client is told. [MQTT-4.13.1-1]
    pub fn shut_down(&mut self, now: Now) {
        for slot in 0..self.connections.slots() {
            if let Some(key) = self.connections.key_at(slot) {
                self.close(now, key, Cause::ShuttingDown, Some(ReasonCode::ServerShuttingDown));
            }
        }
    }

    fn start_closing(&mut self, key: Key<Connection>, cause: Cause) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = Phase::Closing(cause);
            self.deadlines.cancel(key.index());
            self.make_ready(key);
        }
    }

    /// Takes the session from its connection. It ends, or waits for its client to come back; its Will is published, or will
    /// be when its delay has passed, unless it was discarded. [MQTT-3.1.2-8] [MQTT-3.1.2-23]
    fn detach(&mut self, now: Now, key: Key<Connection>, cause: Cause, reason: Option<ReasonCode>, detail: Text) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let said = matches!(connection.phase, Phase::Closing(_));
        let Some(session_key) = connection.session.take() else { return };
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if !said {
            let (who, reason_code) = (session.who(), reason.map(ReasonCode::as_u8));
            self.telemetry.record(Event::Disconnected { who, cause, reason_code, detail });
        }
        let count = session.audit.settle();
        if count > 0 {
            self.telemetry.record(Event::DeniedUnsaid { who: session.who(), count });
        }
        session.connection = None;
        self.sessions_connected -= 1;
        if session.behind_since.take().is_some() {
            self.release_gated();
        }
        let Some(session) = self.sessions.get_mut(session_key) else { return };
        if session.expiry_seconds == 0 {
            return self.end_session(now, session_key);
        }
        let expiry_seconds = session.expiry_seconds;
        session.ends = (expiry_seconds != NEVER_EXPIRES).then(|| now.instant.plus_seconds(u64::from(expiry_seconds)));
        let mut urgency = Urgency::Lazy;
        match session.will.as_ref().map(|will| will.delay_seconds) {
            Some(0) => {
                if let Some(will) = session.will.take() {
                    self.publish_will(now.instant, session_key, &will);
                    urgency = Urgency::Soon;
                }
            }
            // [MQTT-3.1.3-9]: whichever comes first, the delay or the end of the session.
            Some(delay) => session.will_due = Some(now.instant.plus_seconds(u64::from(delay))),
            None => {}
        }
        self.keep_detached(session_key, urgency);
        self.arm_session(session_key);
    }

    /// No rule allows a session what it asked for.
    pub(super) fn denied(&mut self, key: Key<Session>, action: Action, resource: &str) {
        let Some(session) = self.sessions.get_mut(key) else { return self.telemetry.count_denied(action) };
        let mut budget = session.audit;
        self.telemetry.deny(self.latest, &mut budget, action, resource, session.asking());
        session.audit = budget;
    }

    /// Ends a session that has no connection: its Will is published, and everything it holds is freed.
    pub(super) fn end_session(&mut self, now: Now, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        self.subscriptions.remove_all(&mut session.first_subscription);
        if let Some(will) = session.will.take() {
            self.publish_will(now.instant, key, &will);
        }
        self.session_deadlines.cancel(key.index());
        let Some(mut session) = self.sessions.remove(key) else { return };
        self.keep_session_ended(session.number);
        self.received -= session.received.len();
        self.session_index.remove(session.hash, key.index());
        for queue in [&mut session.waiting, &mut session.in_flight] {
            while let Some(delivery) = queue.pop_front(&mut self.deliveries) {
                self.drop_delivery(delivery);
            }
        }
    }

    /// Publishes what is due of a session without connection, and ends it when it is time.
    pub(super) fn expire_session(&mut self, now: Now, key: Key<Session>) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        if due(session.ends) {
            self.telemetry.counters.sessions_expired += 1;
            self.telemetry.record(Event::SessionExpired { client: Text::new(&session.client_identifier) });
            return self.end_session(now, key);
        }
        if due(session.will_due) {
            session.will_due = None;
            if let Some(will) = session.will.take() {
                self.publish_will(now.instant, key, &will);
                self.keep_will_gone(key);
            }
        }
        self.arm_session(key);
    }

    pub(super) fn arm_session(&mut self, key: Key<Session>) {
        let Some(session) = self.sessions.get(key) else { return };
        match session.ends.into_iter().chain(session.will_due).min() {
            Some(at) => self.session_deadlines.set(key.index(), at),
            None => self.session_deadlines.cancel(key.index()),
        }
    }

    /// A session has caught up or is gone: the publishers that waited for it are asked to transmit again.
    pub(super) fn release_gated(&mut self) {
        while let Some(key) = self.gated.pop() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.gated = false;
                self.make_ready(key);
            }
        }
    }

    /// Whether acknowledgements for what went to `session` are still held back. It cannot hold them for long: a subscriber
    /// that stays behind hurts itself only.
    pub(super) fn is_behind(&self, session: Key<Session>, now: Instant) -> bool {
        self.sessions.get(session).is_some_and(|session| {
            session.behind_since.is_some_and(|since| now.milliseconds_since(since) < GATE_MILLISECONDS)
                && session.waiting.len() > QUEUE_LOW_MARK
        })
    }
}

fn connection_session(
    connections: &crate::collections::Slab<Connection>,
    key: Key<Connection>,
) -> Option<Key<Session>> {
    connections.get(key).and_then(|connection| connection.session)
}
