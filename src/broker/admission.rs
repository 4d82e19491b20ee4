//! Who may come in and what they may do: authentication and authorization, by port.

use super::decisions::Decisions;
use super::inside::Insider;
use super::sessions::Session;
use crate::authentication::{Answer, Authenticator, Evidence, Question, Refusal, Verdict};
use crate::authorization::{ApplicableRules, Client, Decision, Policy};
use crate::collections::Key;
use crate::config::blob::Action;
use crate::identity::Identity;
use crate::time::UnixTime;

/// What one port asks of its clients: indices into the tables of [`Admission`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortAdmission {
    /// Which authenticator; `None`: clients are not authenticated.
    pub authenticator: Option<u16>,
    /// Which policy; `None`: authenticated clients may do everything.
    pub policy: Option<u16>,
}

/// Authenticators and policies of a configuration, and which ports use them.
pub struct Admission {
    /// By index of the port.
    pub ports: Vec<PortAdmission>,
    /// BrokerAuthentication resources.
    pub authenticators: Vec<Authenticator>,
    /// BrokerAuthorization resources.
    pub policies: Vec<Policy>,
    /// Parts of the broker that are its clients.
    pub insiders: Vec<Insider>,
}

/// What becomes of the clients of one port when authentication is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Succession {
    /// The same methods decide by the same facts: who a client is does not change.
    Unchanged,
    /// Clients are judged again before anything else. By index of the former method: what judges those that it accepted.
    /// Those of a method without entry are disconnected.
    Changed(Vec<Heir>),
}

/// What judges the clients that a method accepted which is no more, or no longer in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heir {
    /// The method with this index.
    Method(u16),
    /// There is a method of the kind, but what the client showed is not known any more: it must come and show it again.
    MustBeShownAgain,
    /// Nothing: the port no longer has such a method.
    None,
}

/// What is known of a client after a step of its authentication.
pub enum Ruling {
    /// Who it is, and the method that decided.
    Identified(Identity, u16),
    /// Somebody must be asked first.
    Undecided(Question),
}

/// No rule allows a client to connect.
#[derive(Debug)]
pub struct NotAuthorized;

impl Admission {
    /// What a port asks of its clients; `None` for one that is not there.
    fn port(&self, port: u16) -> Option<PortAdmission> {
        match self.insider(port) {
            Some(insider) => Some(PortAdmission { authenticator: None, policy: insider.policy }),
            None => self.ports.get(usize::from(port)).copied(),
        }
    }

    /// The policy of a port, if it has one.
    pub(super) fn policy(&self, port: u16) -> Option<&Policy> {
        self.policies.get(usize::from(self.port(port)?.policy?))
    }

    /// The authenticator of a port, if it has one.
    #[must_use]
    pub fn authenticator(&self, port: u16) -> Option<&Authenticator> {
        self.authenticators.get(usize::from(self.port(port)?.authenticator?))
    }

    /// Who is it? `answered` is the answer to what the method with that index asked when it saw the same evidence.
    ///
    /// # Errors
    /// Why it may not come in.
    pub fn identify(
        &self,
        port: u16,
        evidence: &Evidence<'_>,
        answered: Option<(u16, Answer)>,
        now: UnixTime,
    ) -> Result<Ruling, Refusal> {
        // A port that is not configured cannot be: it is refused like one that knows nobody.
        let admission = self.port(port).ok_or(Refusal::NoCredentials)?;
        if let Some(insider) = self.insider(port) {
            return Ok(Ruling::Identified(insider.identity.clone(), 0));
        }
        if admission.authenticator.is_none() {
            return Ok(Ruling::Identified(Identity::default(), 0));
        }
        let authenticator = self.authenticator(port).ok_or(Refusal::NoCredentials)?;
        let verdict = match answered {
            None => authenticator.authenticate(evidence, now),
            Some((method, answer)) => authenticator.conclude(method, answer, evidence, now),
        };
        match verdict {
            Verdict::Accepted { identity, method } => Ok(Ruling::Identified(identity, method)),
            Verdict::Undecided(question) => Ok(Ruling::Undecided(question)),
            Verdict::Refused(refusal) => Err(refusal),
        }
    }

    /// May it connect under this client identifier? The rules that apply to it; `None` where the port has no policy.
    ///
    /// # Errors
    /// No rule allows it to connect.
    pub fn authorize(
        &self,
        port: u16,
        identity: &Identity,
        client_identifier: &str,
    ) -> Result<Option<ApplicableRules>, NotAuthorized> {
        let admission = self.port(port).ok_or(NotAuthorized)?;
        let Some(index) = admission.policy else { return Ok(None) };
        let policy = self.policies.get(usize::from(index)).ok_or(NotAuthorized)?;
        let rules = policy.applicable(identity, client_identifier);
        let client = Client { rules: &rules, identity, identifier: client_identifier };
        if policy.decide_connect(&client).is_allowed() { Ok(Some(rules)) } else { Err(NotAuthorized) }
    }

    /// Whether `asker` may publish to `topic`.
    #[must_use]
    pub fn may_publish(&self, asker: &Asker<'_>, topic: &str) -> bool {
        self.may(asker, Some((Action::Publish, topic)), |policy, client| policy.decide_publish(client, topic))
    }

    /// Whether `asker` may subscribe to `filter`, given without its `$share` part.
    #[must_use]
    pub fn may_subscribe(&self, asker: &Asker<'_>, filter: &str) -> bool {
        self.may(asker, Some((Action::Subscribe, filter)), |policy, client| policy.decide_subscribe(client, filter))
    }

    /// Whether `asker` may be sent a message of `topic`: a filter that it may subscribe to matches.
    #[must_use]
    pub fn may_receive(&self, asker: &Asker<'_>, topic: &str) -> bool {
        self.may(asker, None, |policy, client| policy.decide_receive(client, topic))
    }

    /// Whether rules decide about the clients of a port.
    #[must_use]
    pub fn has_policy(&self, port: u16) -> bool {
        self.port(port).is_none_or(|admission| admission.policy.is_some())
    }

    /// Whether decisions about the clients of a port may be remembered: `cache` of its BrokerAuthorization.
    #[must_use]
    pub fn may_remember(&self, port: u16) -> bool {
        self.port(port).is_some_and(|admission| {
            admission
                .policy
                .is_none_or(|index| self.policies.get(usize::from(index)).is_some_and(|policy| policy.caches()))
        })
    }

    /// A port without policy allows; a port with one needs the rules that were found at CONNECT. Anything else is denied.
    fn may(
        &self,
        asker: &Asker<'_>,
        question: Option<(Action, &str)>,
        decide: impl FnOnce(&Policy, &Client<'_>) -> Decision,
    ) -> bool {
        let Some(admission) = self.port(asker.port) else { return false };
        let Some(index) = admission.policy else { return true };
        let Some(policy) = self.policies.get(usize::from(index)) else { return false };
        let Some(rules) = asker.rules else { return false };
        let client = Client { rules, identity: asker.identity, identifier: asker.client_identifier };
        let remembered = match (asker.memory, question) {
            (Some((decisions, session)), Some((action, resource))) if policy.caches() => {
                Some((decisions, decisions.place(session, action, resource)))
            }
            _ => None,
        };
        if let Some((decisions, place)) = &remembered
            && let Some(allowed) = decisions.recall(*place)
        {
            return allowed;
        }
        let allowed = decide(policy, &client).is_allowed();
        if let Some((decisions, place)) = remembered {
            decisions.remember(place, allowed);
        }
        allowed
    }
}

/// Who asks for a decision.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// Index of the port.
    pub port: u16,
    /// The rules that apply, found at CONNECT; `None` where the port has no policy.
    pub rules: Option<&'a ApplicableRules>,
    /// What authentication found out.
    pub identity: &'a Identity,
    /// The client identifier.
    pub client_identifier: &'a str,
    /// Decisions that were made already, and the session that asks.
    pub memory: Option<(&'a Decisions, Key<Session>)>,
}
