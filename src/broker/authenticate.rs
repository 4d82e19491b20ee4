//! Authentication that takes more than one step: questions that others answer, renewal with AUTH, judging again. MQTT 5
//! §4.12, azure-model §2.1 and §2.6.
//!
//! A CONNECT or AUTH that waits for an answer is kept as it came, and read again when the answer is there: what it says is
//! then judged by the same code as if nobody had been asked.
//!
//! Authentication may be replaced meanwhile: a packet that waits for an answer is then judged from the start by the new one,
//! and a connection by what the new one has in place of its method, before anything else happens to it.
//!
//! **Invariant:** a connection has at most one question outstanding, and a question whose connection is gone has no effect.

use super::admission::{Heir, Ruling};
use super::connections::{Enhanced, Phase, ReplyKind};
use super::{Broker, Connection};
use crate::authentication::{Answer, Authenticator, Evidence, Passwords, Question, Refusal, Verdict};
use crate::codec::{Auth, Connect, FixedHeader, Packet, PacketType, ProtocolVersion, ReasonCode, decode};
use crate::collections::Key;
use crate::identity::Identity;
use crate::telemetry::{Cause, Text};
use crate::time::{Instant, Now};
use core::sync::atomic::{AtomicBool, Ordering};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// Questions outstanding at one time, of all connections. azure-model §8.
pub const QUESTIONS_MAX: u32 = 32;
/// Bytes of packets that wait for an answer, of all connections.
pub const PARKED_BYTES_MAX: u32 = 1024 * 1024;
/// How long a CONNECT may wait for its answer; longer than any question takes by itself.
const ANSWER_SECONDS: u64 = 60;
/// The first pause before a client whose renewal failed for now may try again. azure-model §8.
const RETRY_MILLISECONDS: u64 = 1_000;
/// The longest of these pauses, each of which is twice the one before.
const RETRY_MILLISECONDS_MAX: u64 = 30_000;

/// A packet whose credential is being judged elsewhere.
pub struct Parked {
    connection: Key<Connection>,
    header: FixedHeader,
    body: Vec<u8>,
    version: ProtocolVersion,
    /// The method that asked.
    method: u16,
    /// When it asked.
    since: Instant,
    /// Which methods and users were in force when it asked.
    judges_epoch: u32,
    /// Whether the shell has taken the question. It is answered then, whether its connection is still there or not.
    is_asked: bool,
    /// Tells who answers that nobody waits any more.
    abandoned: Arc<AtomicBool>,
}

impl Drop for Parked {
    /// It holds a credential.
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.body);
    }
}

/// Names a question until it is answered.
pub type Ticket = Key<Parked>;

/// A packet as it came, for when it must wait.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a> {
    pub header: FixedHeader,
    pub body: &'a [u8],
}

impl Broker {
    /// The next question for the world outside, and the ticket to give with its answer.
    pub fn next_question(&mut self) -> Option<(Ticket, Question)> {
        while let Some((ticket, question)) = self.questions.pop_front() {
            if let Some(parked) = self.parked.get_mut(ticket) {
                parked.is_asked = true;
                return Some((ticket, question));
            }
        }
        None
    }

    /// The connection that waits for the answer to a question; `None` once it is gone.
    #[must_use]
    pub fn asker(&self, ticket: Ticket) -> Option<Key<Connection>> {
        self.parked.get(ticket).map(|parked| parked.connection)
    }

    /// An answer has come. `peer_chain` is that of [`Broker::asker`].
    pub fn answer(&mut self, now: Now, ticket: Ticket, peer_chain: &[CertificateDer<'_>], answer: Answer) {
        let Some(parked) = self.take_parked(ticket) else { return };
        let key = parked.connection;
        self.telemetry.durations.question.observe(now.instant.milliseconds_since(parked.since));
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.parked = None;
        if connection.phase == Phase::Authenticating {
            connection.phase = Phase::AwaitConnect;
        }
        // It was decoded once, before it was parked.
        let Ok(packet) = decode(parked.header, &parked.body, parked.version) else { return };
        let raw = Raw { header: parked.header, body: &parked.body };
        if parked.judges_epoch != self.judges_epoch {
            return self.start_again(now, key, peer_chain, &packet, raw);
        }
        match packet {
            Packet::Connect(connect) => {
                self.connect(now, key, peer_chain, &connect, raw, Some((parked.method, answer)));
            }
            Packet::Auth(auth) => {
                let evidence = evidence_of_auth(&auth);
                let verdict = self.authenticator_of(key, |authenticator, known| {
                    authenticator.conclude_renewal(parked.method, answer, &evidence, known)
                });
                self.settle_renewal(now, key, verdict, raw);
            }
            _ => {}
        }
    }

    /// Judges a packet anew whose question was asked by methods, or about users, that are no longer in force: what was answered
    /// is forgotten, since the method with that index may be another one.
    fn start_again(
        &mut self,
        now: Now,
        key: Key<Connection>,
        peer_chain: &[CertificateDer<'_>],
        packet: &Packet<'_>,
        raw: Raw<'_>,
    ) {
        match packet {
            Packet::Connect(connect) => self.connect(now, key, peer_chain, connect, raw, None),
            Packet::Auth(auth) => {
                self.judge_again(now, key, peer_chain);
                if self.connections.get(key).is_some_and(|connection| connection.phase == Phase::Connected) {
                    self.renew(now, key, auth, raw);
                }
            }
            _ => {}
        }
    }

    /// Keeps a packet until its question is answered.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when too many wait already.
    pub(super) fn park(
        &mut self,
        now: Now,
        key: Key<Connection>,
        raw: Raw<'_>,
        version: ProtocolVersion,
        question: Question,
    ) -> Result<(), Refusal> {
        let busy = || Refusal::Unavailable("too many logins wait for an answer".to_owned());
        if self.parked_bytes + raw.body.len() > PARKED_BYTES_MAX as usize {
            return Err(busy());
        }
        let parked = Parked {
            connection: key,
            header: raw.header,
            body: raw.body.to_vec(),
            version,
            method: question.method,
            since: now.instant,
            judges_epoch: self.judges_epoch,
            is_asked: false,
            abandoned: Arc::clone(&question.abandoned),
        };
        let ticket = self.parked.insert(parked).map_err(|_| busy())?;
        self.parked_bytes += raw.body.len();
        if self.questions.len() == self.questions.capacity() {
            let parked = &self.parked;
            self.questions.retain(|(ticket, _)| parked.get(*ticket).is_some());
        }
        self.questions.push_back((ticket, question));
        if let Some(connection) = self.connections.get_mut(key) {
            connection.parked = Some(ticket);
            if connection.phase == Phase::AwaitConnect {
                connection.phase = Phase::Authenticating;
                self.deadlines.set(key.index(), now.instant.plus_seconds(ANSWER_SECONDS));
            }
        }
        Ok(())
    }

    /// The connection of a question is gone. One that has been taken keeps its place until it is answered: clients that hang
    /// up must not make room for more work than is bounded.
    pub(super) fn abandon_question(&mut self, ticket: Ticket) {
        match self.parked.get_mut(ticket) {
            Some(parked) if parked.is_asked => {
                self.parked_bytes -= parked.body.len();
                zeroize::Zeroize::zeroize(&mut parked.body);
                parked.abandoned.store(true, Ordering::Relaxed);
            }
            _ => drop(self.take_parked(ticket)),
        }
    }

    /// Takes what waited for an answer.
    fn take_parked(&mut self, ticket: Ticket) -> Option<Parked> {
        let parked = self.parked.remove(ticket)?;
        self.parked_bytes -= parked.body.len();
        Some(parked)
    }

    /// AUTH from a client that is connected: it renews its credential. MQTT 5 §4.12.1, azure-model §2.6.
    pub(super) fn auth(&mut self, now: Now, key: Key<Connection>, auth: &Auth<'_>, raw: Raw<'_>) {
        let Some(connection) = self.connections.get(key) else { return };
        // No Authentication Method was accepted in CONNECT, or it was another one. [MQTT-4.12.0-7] [MQTT-4.12.1-1]
        let Some(enhanced) = connection.enhanced.as_ref() else { return self.violate(key, ReasonCode::ProtocolError) };
        let fits = auth.properties.authentication_method == Some(&*enhanced.method)
            && match auth.reason_code {
                ReasonCode::ReAuthenticate => true,
                // The vendor's client answers our 0x18 so.
                ReasonCode::ContinueAuthentication => enhanced.failures > 0,
                _ => false,
            }
            && connection.parked.is_none()
            && enhanced.reply_due.is_none();
        if !fits {
            return self.violate(key, ReasonCode::ProtocolError);
        }
        self.renew(now, key, auth, raw);
    }

    fn renew(&mut self, now: Now, key: Key<Connection>, auth: &Auth<'_>, raw: Raw<'_>) {
        let Some(connection) = self.connections.get(key) else { return };
        let method = connection.credential_method;
        let evidence = evidence_of_auth(auth);
        let verdict = self.authenticator_of(key, |authenticator, _| authenticator.renew(method, &evidence, now.unix));
        self.settle_renewal(now, key, verdict, raw);
    }

    /// Asks the authenticator of a connection's port, and shows it who the client is so far.
    fn authenticator_of(
        &self,
        key: Key<Connection>,
        judge: impl FnOnce(&Authenticator, &Identity) -> Verdict,
    ) -> Verdict {
        let asked = self.connections.get(key).and_then(|connection| {
            let session = self.sessions.get(connection.session?)?;
            Some(judge(self.admission.authenticator(connection.port)?, &session.identity))
        });
        asked.unwrap_or(Verdict::Refused(Refusal::CannotRenew))
    }

    fn settle_renewal(&mut self, now: Now, key: Key<Connection>, verdict: Verdict, raw: Raw<'_>) {
        let refusal = match verdict {
            Verdict::Accepted { identity, .. } => match self.adopt(now, key, identity) {
                Ok(()) => {
                    self.telemetry.counters.renewals += 1;
                    self.answer_auth(key, ReasonCode::Success);
                    return;
                }
                Err(refusal) => refusal,
            },
            Verdict::Refused(refusal) => refusal,
            Verdict::Undecided(question) => match self.park(now, key, raw, ProtocolVersion::V5, question) {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
        };
        if !refusal.is_temporary() {
            let reason = match refusal {
                Refusal::CannotRenew => ReasonCode::ProtocolError,
                _ => ReasonCode::NotAuthorized,
            };
            return self.condemn_for(key, Cause::CredentialRefused, reason, Text::of(refusal));
        }
        // The old credential holds until it ends. The answer waits, because clients answer it at once.
        if let Some(enhanced) = self.connections.get_mut(key).and_then(|connection| connection.enhanced.as_mut()) {
            let pause = RETRY_MILLISECONDS << enhanced.failures.min(5);
            enhanced.failures = enhanced.failures.saturating_add(1);
            enhanced.reply_due = Some(now.instant.plus_milliseconds(pause.min(RETRY_MILLISECONDS_MAX)));
        }
        self.arm(now, key);
    }

    /// Gives a live session the identity of a new or newly judged credential: its attributes, its rules, its end.
    fn adopt(&mut self, now: Now, key: Key<Connection>, identity: Identity) -> Result<(), Refusal> {
        let gone = || Refusal::Unavailable("the connection is gone".to_owned());
        let connection = self.connections.get_mut(key).ok_or_else(gone)?;
        let session = connection.session.and_then(|key| self.sessions.get_mut(key)).ok_or_else(gone)?;
        if session.identity.principal != identity.principal {
            return Err(Refusal::OtherPrincipal);
        }
        let rules = self
            .admission
            .authorize(connection.port, &identity, &session.client_identifier)
            .map_err(|_| Refusal::NotAuthorized)?;
        connection.expires = identity.expires;
        let changed = !session.is_judged_as(rules.as_ref(), &identity);
        session.identity = identity;
        let changed = changed || session.policy_epoch != self.policy_epoch || session.identity_is_stale;
        session.identity_is_stale = false;
        session.policy_epoch = self.policy_epoch;
        session.rules = rules;
        if changed && let Some(session) = connection.session {
            self.decisions.forget();
            self.enforce_rules(session);
        }
        self.arm(now, key);
        Ok(())
    }

    fn answer_auth(&mut self, key: Key<Connection>, reason: ReasonCode) {
        if let Some(enhanced) = self.connections.get_mut(key).and_then(|connection| connection.enhanced.as_mut()) {
            enhanced.reply_due = None;
            if reason == ReasonCode::Success {
                enhanced.failures = 0;
            }
        }
        if self.reply(key, ReplyKind::Auth(reason)).is_err() {
            self.violate(key, ReasonCode::QuotaExceeded);
        }
    }

    /// Says what a renewal that failed for now has been waiting to hear, if it is time.
    pub(super) fn answer_late_auth(&mut self, now: Now, key: Key<Connection>) {
        let enhanced = self.connections.get(key).and_then(|connection| connection.enhanced.as_ref());
        if enhanced.and_then(|enhanced| enhanced.reply_due).is_some_and(|due| due <= now.instant) {
            self.answer_auth(key, ReasonCode::ContinueAuthentication);
        }
    }

    /// Gives a method UsernamePassword other users.
    pub fn set_passwords(&mut self, authentication: u16, method: u16, users: Passwords) {
        if let Some(authenticator) = self.admission.authenticators.get_mut(usize::from(authentication)) {
            authenticator.set_passwords(method, users);
        }
        // What was asked about a user of before is asked again.
        self.judges_epoch = self.judges_epoch.wrapping_add(1);
    }

    /// Judges the credential of a live connection again: trust, revocation, the clock or authentication as a whole have
    /// changed. `peer_chain` is what the client presented in its handshake.
    pub fn judge_again(&mut self, now: Now, key: Key<Connection>, peer_chain: &[CertificateDer<'_>]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase != Phase::Connected {
            return;
        }
        let replaced = connection.heir.is_some();
        match connection.heir.take() {
            None => {}
            Some(Heir::Method(method)) => connection.credential_method = method,
            Some(Heir::MustBeShownAgain) => {
                return self.close(now, key, Cause::AuthenticationChanged, Some(ReasonCode::AdministrativeAction));
            }
            Some(Heir::None) => return self.expel(now, key, &Refusal::NoCredentials),
        }
        match self.judge_live(now, key, peer_chain) {
            None => {}
            // What it was before does not count under another authentication, and what it is now cannot be told yet.
            Some(refusal) if replaced && refusal.is_temporary() => {
                return self.close(now, key, Cause::AuthenticationChanged, Some(ReasonCode::AdministrativeAction));
            }
            Some(refusal) if refusal.is_temporary() => self.arm(now, key),
            Some(refusal) => return self.expel(now, key, &refusal),
        }
        if replaced && let Some(session) = self.connections.get(key).and_then(|connection| connection.session) {
            if let Some(session) = self.sessions.get_mut(session) {
                session.identity_is_stale = false;
            }
            self.refresh(session);
            // It has been kept from reading and writing.
            self.make_ready(key);
        }
    }

    /// Why a live client must go, if it must; a temporary refusal is for the caller to weigh.
    fn judge_live(&mut self, now: Now, key: Key<Connection>, peer_chain: &[CertificateDer<'_>]) -> Option<Refusal> {
        let connection = self.connections.get(key)?;
        let authenticator = self.admission.authenticator(connection.port)?;
        let session = self.sessions.get(connection.session?)?;
        match authenticator.judge_again(connection.credential_method, &session.identity, peer_chain, now.unix) {
            Some(Ok(identity)) => return self.adopt(now, key, identity).err(),
            Some(Err(refusal)) => return Some(refusal),
            // Nothing but its end to look at, which the clock may have moved.
            None => self.arm(now, key),
        }
        None
    }

    fn expel(&mut self, now: Now, key: Key<Connection>, refusal: &Refusal) {
        self.condemn_for(key, Cause::CredentialRefused, ReasonCode::NotAuthorized, Text::of(refusal));
        self.finish(now, key);
    }

    /// Judges CONNECT's credentials, or goes on with the answer to what was asked.
    pub(super) fn judge_connect(
        &mut self,
        now: Now,
        key: Key<Connection>,
        evidence: &Evidence<'_>,
        answered: Option<(u16, Answer)>,
    ) -> Result<Ruling, (ReasonCode, Text)> {
        let port = self.connections.get(key).map_or(u16::MAX, |connection| connection.port);
        let ruling = self.admission.identify(port, evidence, answered, now.unix);
        ruling.map_err(|refusal| {
            self.telemetry.counters.authentication_refused += 1;
            (reason_code(&refusal), Text::of(refusal))
        })
    }

    /// What is remembered of the Authentication Method of an accepted CONNECT.
    pub(super) fn enhanced(connect: &Connect<'_>) -> Option<Box<Enhanced>> {
        let method = connect.properties.authentication_method?;
        Some(Box::new(Enhanced { method: method.into(), failures: 0, reply_due: None }))
    }
}

fn evidence_of_auth<'a>(auth: &Auth<'a>) -> Evidence<'a> {
    Evidence {
        authentication_method: auth.properties.authentication_method,
        authentication_data: auth.properties.authentication_data,
        ..Evidence::default()
    }
}

/// The Reason Code of a CONNACK. Clients of the vendor's kit take 0x86 and 0x87 for final and try again after 0x88.
fn reason_code(refusal: &Refusal) -> ReasonCode {
    match refusal {
        refusal if refusal.is_temporary() => ReasonCode::ServerUnavailable,
        Refusal::Password => ReasonCode::BadUserNameOrPassword,
        Refusal::Custom { reason, .. } => ReasonCode::from_u8(*reason)
            .filter(|code| code.is_error() && code.is_allowed_in(PacketType::ConnAck))
            .unwrap_or(ReasonCode::NotAuthorized),
        _ => ReasonCode::NotAuthorized,
    }
}
