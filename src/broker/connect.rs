//! CONNECT: admission, session, takeover. MQTT 5 §3.1.

use super::admission::{Asker, NotAuthorized, Ruling};
use super::authenticate::Raw;
use super::connections::{Phase, ReplyKind, TOPIC_ALIASES_MAX};
use super::durable::asks;
use super::sessions::{ClientIdentifier, NEVER_EXPIRES, Session, Will};
use super::{Broker, Connection, IN_FLIGHT_MAX};
use crate::authentication::{Answer, Evidence};
use crate::authorization::ApplicableRules;
use crate::codec::{Connect, ProtocolVersion, ReasonCode, TopicName};
use crate::collections::{Key, keyed_hash};
use crate::identity::Identity;
use crate::limits::AUTHENTICATION_METHOD_BYTES_MAX;
use crate::telemetry::{Action, Asking, Cause, Event, PROPERTY, Table, Text};
use crate::time::Now;
use core::fmt::Write as _;
use core::num::{NonZeroU16, NonZeroU32};
use rustls_pki_types::CertificateDer;

/// Budgets of the audit for clients without a session, by hash of their client identifier.
pub const CONNECT_AUDITS: usize = 256;

impl Broker {
    pub(super) fn connect(
        &mut self,
        now: Now,
        key: Key<Connection>,
        peer_chain: &[CertificateDer<'_>],
        connect: &Connect<'_>,
        raw: Raw<'_>,
        answered: Option<(u16, Answer)>,
    ) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.phase != Phase::AwaitConnect {
            // [MQTT-3.1.0-2]
            return self.violate(key, ReasonCode::ProtocolError);
        }
        if let Err((reason, detail)) = self.admit(now, key, peer_chain, connect, raw, answered) {
            self.refuse(key, reason, Text::new(connect.client_identifier), detail);
        }
    }

    /// Everything between a decoded CONNECT and the CONNACK that accepts it, or the Reason Code that refuses it and what
    /// the log says beyond that. Where somebody must be asked first, it is done again with the answer.
    fn admit(
        &mut self,
        now: Now,
        key: Key<Connection>,
        peer_chain: &[CertificateDer<'_>],
        connect: &Connect<'_>,
        raw: Raw<'_>,
        answered: Option<(u16, Answer)>,
    ) -> Result<(), (ReasonCode, Text)> {
        let port = self.connections.get(key).map_or(u16::MAX, |connection| connection.port);
        let properties = &connect.properties;
        // It is kept, and said again in CONNACK and AUTH.
        if let Some(method) = properties.authentication_method
            && method.len() > AUTHENTICATION_METHOD_BYTES_MAX
        {
            return Err((ReasonCode::BadAuthenticationMethod, Text::new("the Authentication Method is too long")));
        }
        if let Some(method) = properties.authentication_method
            && !self.admission.authenticator(port).is_some_and(|authenticator| authenticator.takes(method))
        {
            return Err((ReasonCode::BadAuthenticationMethod, Text::new("no such method of enhanced authentication")));
        }
        let (client_identifier, assigned) = self.client_identifier(connect)?;
        if !self.admission.may_be_called(port, &client_identifier) {
            let detail = Text::new("client identifiers that begin with $inside/ are for parts of the broker");
            return Err((ReasonCode::ClientIdentifierNotValid, detail));
        }
        let evidence = Evidence {
            peer_chain,
            username: connect.username,
            password: connect.password,
            authentication_method: properties.authentication_method,
            authentication_data: properties.authentication_data,
        };
        let named = properties.user_properties.iter().find(|(name, _)| *name == PROPERTY).map(|(_, value)| value);
        let ruling = self.judge_connect(now, key, &evidence, answered).inspect_err(|_| {
            let category = self.telemetry.categories.find(named);
            self.telemetry.categories.row(category).authentication_failures += 1;
        });
        let (identity, credential_method) = match ruling? {
            Ruling::Identified(identity, method) => (identity, method),
            Ruling::Undecided(question) => {
                let parked = self.park(now, key, raw, connect.protocol_version, question);
                return parked.map_err(|refusal| (ReasonCode::ServerUnavailable, Text::of(refusal)));
            }
        };
        let rules = self.admission.authorize(port, &identity, &client_identifier).map_err(|NotAuthorized| {
            let asking = Asking { client: &client_identifier, identity: &identity, port };
            self.deny_connect(Action::Connect, &client_identifier, asking);
            let detail = Text::of(format_args!("no rule allows {} to connect", Described(&identity)));
            (ReasonCode::NotAuthorized, detail)
        })?;
        self.check_will(port, rules.as_ref(), &identity, &client_identifier, connect)?;

        // From here on the client is who it says, so that it may end its own older connection.
        let hash = keyed_hash(self.seed, client_identifier.as_str());
        let event = connected_event(&client_identifier, &identity, port);
        let expires = identity.expires;
        let (expiry_seconds, asked_for_expiry) = self.session_expiry(port, connect);
        let known = self.check_store(hash, &client_identifier, expiry_seconds, connect)?;
        let before = self.last_record();
        let resumed = self.session_to_resume(now, hash, &client_identifier, &identity, connect.clean_start)?;
        // An older session that is no more must not come back.
        let purged = if known && self.last_record() > before { self.last_record() } else { 0 };
        if resumed.is_none() && self.sessions.free() == 0 {
            self.telemetry.full(Table::Sessions);
            return Err((ReasonCode::QuotaExceeded, Text::new("the session table is full")));
        }
        let will = self.store_will(connect)?;
        let session_key = match resumed {
            Some(key) => key,
            None => {
                let session = Session::new(client_identifier, hash, port, identity.clone(), None);
                let key = self
                    .sessions
                    .insert(session)
                    .map_err(|_| (ReasonCode::QuotaExceeded, Text::new("the session table is full")))?;
                self.session_index.insert(hash, key.index());
                key
            }
        };
        let mut to_be_enforced = false;
        if let Some(session) = self.sessions.get_mut(session_key) {
            to_be_enforced = session.port != port
                || !session.is_judged_as(rules.as_ref(), &identity)
                || session.policy_epoch != self.policy_epoch
                || session.identity_is_stale
                // What had been sent when its rules changed was not taken back then, but would be sent again now.
                || session.in_flight.front().is_some();
            session.port = port;
            session.identity = identity;
            session.identity_is_stale = false;
            session.rules = rules;
            session.policy_epoch = self.policy_epoch;
        }
        // Of a session that has just begun nothing is remembered.
        if to_be_enforced && resumed.is_some() {
            self.decisions.forget();
            self.enforce_rules(session_key);
        }
        if let Some(session) = self.sessions.get_mut(session_key) {
            session.connection = Some(key);
            session.expiry_seconds = expiry_seconds;
            session.ends = None;
            session.will = will;
            session.resend = session.in_flight.front();
        }
        self.session_deadlines.cancel(session_key.index());
        self.sessions_connected += 1;
        let needs = purged.max(self.keep_connected(session_key, asks(&properties.user_properties)));

        let server_keep_alive = self.limits.keep_alive_seconds.filter(|cap| {
            // A Keep Alive of 0 switches the mechanism off, which is longer than any cap. A client of MQTT 3.1.1 cannot be
            // told of another one.
            connect.protocol_version == ProtocolVersion::V5
                && *cap != 0
                // The other end is in this process.
                && self.admission.insider(port).is_none()
                && (connect.keep_alive == 0 || connect.keep_alive > *cap)
        });
        let keep_alive = server_keep_alive.unwrap_or(connect.keep_alive);
        let category = self.telemetry.categories.admit(named);
        if self.admission.authenticator(port).is_some() {
            self.telemetry.categories.row(category).authentication_successes += 1;
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = Phase::Connected;
            connection.category = category;
            connection.connected = now.instant;
            connection.credential_method = credential_method;
            connection.enhanced = Self::enhanced(connect);
            connection.session = Some(session_key);
            connection.keep_alive_milliseconds = (keep_alive > 0).then(|| u64::from(keep_alive) * 1_500);
            connection.expires = expires;
            connection.asked_for_expiry = asked_for_expiry > 0;
            connection.packet_bytes_max = self.limits.packet_bytes;
            connection.receive_maximum_announced = self.limits.receive_maximum;
            connection.maximum_packet_bytes = properties.maximum_packet_size.map_or(u32::MAX, NonZeroU32::get);
            connection.receive_maximum =
                properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(IN_FLIGHT_MAX);
            connection.wants_reasons = properties.request_problem_information.unwrap_or(true);
            connection.aliases_out_max = properties.topic_alias_maximum.unwrap_or(0).min(TOPIC_ALIASES_MAX);
        }
        self.arm(now, key);
        self.telemetry.counters.connects_accepted += 1;
        self.telemetry.record(event);
        let reply = ReplyKind::ConnAckAccepted {
            assigned,
            session_present: resumed.is_some(),
            expiry_seconds: (expiry_seconds != asked_for_expiry).then_some(expiry_seconds),
            server_keep_alive,
            response_information: properties.request_response_information.unwrap_or(false),
        };
        // Room was checked before the packet was taken.
        if self.reply_after(key, reply, needs).is_err() {
            self.close(now, key, Cause::ConnectRefused, None);
        }
        self.resume_replays(session_key);
        Ok(())
    }

    /// Whether the session can be kept, if it must be. Returns whether there is one that is.
    fn check_store(
        &mut self,
        hash: u64,
        client_identifier: &str,
        expiry_seconds: u32,
        connect: &Connect<'_>,
    ) -> Result<bool, (ReasonCode, Text)> {
        let known = self.session_named(hash, client_identifier).and_then(|key| self.sessions.get(key));
        let known = known.is_some_and(Session::is_kept);
        let will_bytes = connect.will.as_ref().map_or(0, |will| {
            will.topic.len() + will.payload.len() + super::publish::total_bytes(will.properties.forwardable()) as usize
        });
        let can = self.can_keep_session(known, expiry_seconds > 0, will_bytes);
        can.map(|()| known).map_err(|reason| {
            let detail = match reason {
                ReasonCode::QuotaExceeded => "the log on the disk has no room for its session",
                _ => "the disk has failed, and its session could not be kept",
            };
            (reason, Text::new(detail))
        })
    }

    /// The Session Expiry Interval that is granted, and the one that was asked for. A client of MQTT 3.1.1 with Clean
    /// Session 0 asks for the longest there is.
    fn session_expiry(&self, port: u16, connect: &Connect<'_>) -> (u32, u32) {
        let asked = match connect.protocol_version {
            ProtocolVersion::V5 => connect.properties.session_expiry_interval.unwrap_or(0),
            ProtocolVersion::V311 if connect.clean_start => 0,
            ProtocolVersion::V311 => NEVER_EXPIRES,
        };
        let cap = self.limits.session_expiry_seconds.filter(|_| self.admission.queue_of(port).is_none());
        (cap.map_or(asked, |cap| asked.min(cap)), asked)
    }

    /// Ends the client's older connection, if there is one, and with Clean Start its older session. What is left is to be
    /// gone on with. [MQTT-3.1.4-3] [MQTT-3.1.2-4] [MQTT-3.1.2-5]
    fn session_to_resume(
        &mut self,
        now: Now,
        hash: u64,
        client_identifier: &str,
        identity: &Identity,
        clean_start: bool,
    ) -> Result<Option<Key<Session>>, (ReasonCode, Text)> {
        let Some(key) = self.session_named(hash, client_identifier) else { return Ok(None) };
        let Some(session) = self.sessions.get(key) else { return Ok(None) };
        // A client identifier proves nothing. Who knows that of somebody else must not end his connection.
        let same_principal = session.identity.principal == identity.principal;
        if !same_principal && !self.limits.shares_client_identifiers {
            let detail = Text::new("the client identifier belongs to a session of somebody else");
            return Err((ReasonCode::NotAuthorized, detail));
        }
        if let Some(older) = session.connection {
            self.close(now, older, Cause::TakenOver, Some(ReasonCode::SessionTakenOver));
        }
        // It may have ended with its connection.
        let Some(session) = self.sessions.get_mut(key) else { return Ok(None) };
        if clean_start || !same_principal {
            self.end_session(now, key);
            return Ok(None);
        }
        // The client is back before the delay has passed. [MQTT-3.1.3-9]
        session.will_due = None;
        if let Some(will) = session.will.take() {
            self.messages.release(will.message);
        }
        Ok(Some(key))
    }

    /// The client's own identifier, or one that nobody can guess. [MQTT-3.1.3-6]
    fn client_identifier(&mut self, connect: &Connect<'_>) -> Result<(ClientIdentifier, bool), (ReasonCode, Text)> {
        let given = connect.client_identifier;
        if given.is_empty() && connect.protocol_version == ProtocolVersion::V311 && !connect.clean_start {
            // [MQTT-3.1.3-8] of MQTT 3.1.1: nobody could come back to such a session.
            return Err((
                ReasonCode::ClientIdentifierNotValid,
                Text::new("no client identifier for a lasting session"),
            ));
        }
        if !given.is_empty() {
            return ClientIdentifier::try_from(given)
                .map(|identifier| (identifier, false))
                .map_err(|_| (ReasonCode::ClientIdentifierNotValid, Text::new("client identifier too long")));
        }
        self.identifiers_assigned += 1;
        let high = keyed_hash(self.seed, (self.identifiers_assigned, 0));
        let low = keyed_hash(self.seed, (self.identifiers_assigned, 1));
        let mut identifier = ClientIdentifier::new();
        // 5 + 32 characters fit; should they not, the identifier is shorter but no less unique.
        let _ = write!(identifier, "auto-{high:016x}{low:016x}");
        Ok((identifier, true))
    }

    /// Whether the Will is one that this broker can publish and this client may. azure-model §3.4.
    fn check_will(
        &mut self,
        port: u16,
        rules: Option<&ApplicableRules>,
        identity: &Identity,
        client_identifier: &ClientIdentifier,
        connect: &Connect<'_>,
    ) -> Result<(), (ReasonCode, Text)> {
        let Some(will) = &connect.will else { return Ok(()) };
        if self.limits.validate_payload_format
            && will.properties.payload_format_utf8 == Some(true)
            && core::str::from_utf8(will.payload).is_err()
        {
            return Err((ReasonCode::PayloadFormatInvalid, Text::new("the will's payload is not UTF-8")));
        }
        if TopicName::parse(will.topic).is_err() || !super::publish::is_routable(will.topic) {
            return Err((ReasonCode::TopicNameInvalid, Text::new("will topic")));
        }
        let asker = Asker { port, rules, identity, client_identifier, memory: None };
        if !self.admission.may_publish(&asker, will.topic) {
            self.deny_connect(Action::Will, will.topic, Asking { client: client_identifier, identity, port });
            return Err((ReasonCode::NotAuthorized, Text::new("not allowed to publish its will")));
        }
        Ok(())
    }

    /// No rule allows a CONNECT or its Will. How much is said does not begin anew with each attempt.
    fn deny_connect(&mut self, action: Action, resource: &str, asking: Asking<'_>) {
        let place = keyed_hash(self.seed, asking.client) % CONNECT_AUDITS as u64;
        let Some(budget) = usize::try_from(place).ok().and_then(|place| self.connect_audits.get_mut(place)) else {
            return self.telemetry.count_denied(action);
        };
        self.telemetry.deny(self.latest, budget, action, resource, asking);
    }

    fn store_will(&mut self, connect: &Connect<'_>) -> Result<Option<Will>, (ReasonCode, Text)> {
        let Some(will) = &connect.will else { return Ok(None) };
        let parts = super::messages::Parts {
            topic: will.topic,
            property_bytes: super::publish::total_bytes(will.properties.forwardable()),
            payload: will.payload,
            expires: None,
        };
        let stored = self.messages.store(&parts, will.properties.forwardable());
        let message = stored.map_err(|_| {
            self.telemetry.full(Table::Messages);
            (ReasonCode::QuotaExceeded, Text::new("no room for the will"))
        })?;
        Ok(Some(Will {
            message,
            qos: will.qos,
            retain: will.retain,
            delay_seconds: will.properties.will_delay_interval.unwrap_or(0),
            expiry_seconds: will.properties.message_expiry_interval,
        }))
    }

    pub(super) fn session_named(&self, hash: u64, client_identifier: &str) -> Option<Key<Session>> {
        let named = |slot: u32| {
            self.sessions
                .key_at(slot)
                .and_then(|key| self.sessions.get(key))
                .is_some_and(|session| session.client_identifier == client_identifier)
        };
        self.session_index.find(hash, named).and_then(|slot| self.sessions.key_at(slot))
    }

    /// Answers a CONNECT with a failure and closes.
    pub(super) fn refuse(&mut self, key: Key<Connection>, reason: ReasonCode, client: Text, detail: Text) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let port = connection.port;
        connection.phase = Phase::Closing(Cause::ConnectRefused);
        self.deadlines.cancel(key.index());
        self.telemetry.counters.connects_refused += 1;
        self.telemetry.refused(self.latest, &client, &detail, port);
        self.telemetry.record(Event::Refused { client, reason_code: reason.as_u8(), detail, port });
        // A refusal that finds no room goes unsaid; the close says enough.
        let _ = self.reply(key, ReplyKind::ConnAckRefused(reason));
        self.make_ready(key);
    }

    /// A protocol version that is not spoken here. Its CONNACK is in a form that older clients understand.
    /// [MQTT-3.1.2-2]
    pub(super) fn refuse_version(&mut self, key: Key<Connection>) {
        let detail = Text::new("only MQTT 5.0 and 3.1.1 are served");
        self.refuse(key, ReasonCode::UnsupportedProtocolVersion, Text::default(), detail);
    }

    /// What came is not MQTT: no answer could be understood.
    pub(super) fn refuse_silently(&mut self, key: Key<Connection>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let port = connection.port;
        connection.phase = Phase::Closing(Cause::ProtocolViolation);
        self.telemetry.counters.protocol_violations += 1;
        self.telemetry.record(Event::Refused {
            client: Text::default(),
            reason_code: ReasonCode::ProtocolError.as_u8(),
            detail: Text::new("the first packet is not a CONNECT"),
            port,
        });
        self.make_ready(key);
    }
}

fn connected_event(client_identifier: &ClientIdentifier, identity: &Identity, port: u16) -> Event {
    let mut attributes = Text::default();
    for (index, (name, value)) in identity.attributes.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let _ = write!(attributes, "{separator}{name}={value}");
    }
    Event::Connected {
        client: Text::new(client_identifier),
        username: identity.username.as_deref().map(Text::new),
        method: identity.method,
        attributes,
        port,
    }
}

/// An identity as a log line names it.
struct Described<'a>(&'a Identity);

impl core::fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.0.username {
            Some(username) => write!(f, "user {username}"),
            None => f.write_str("a client without user name"),
        }?;
        let mut separator = " with ";
        for (name, value) in self.0.attributes.iter() {
            write!(f, "{separator}{name}={value}")?;
            separator = ", ";
        }
        Ok(())
    }
}
