//! Who may come in and what they may do: authentication and authorization, by port.

use crate::authentication::{Authenticator, Evidence, Refusal, Verdict};
use crate::authorization::{ApplicableRules, Decision, Policy};
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
}

/// Why a client may not come in.
pub enum Rejection {
    /// Authentication refused it.
    NotAuthenticated(Refusal),
    /// No rule allows it to connect.
    NotAuthorized(Identity),
    /// The port is not configured. Cannot happen with a configuration that was checked.
    UnknownPort,
}

impl Admission {
    /// Judges a CONNECT: who is it, and may it connect under this client identifier?
    pub fn admit(
        &self,
        port: u16,
        evidence: &Evidence<'_>,
        client_identifier: &str,
        now: UnixTime,
    ) -> Result<(Identity, Option<ApplicableRules>), Rejection> {
        let admission = self.ports.get(usize::from(port)).ok_or(Rejection::UnknownPort)?;
        let identity = match admission.authenticator {
            None => Identity::default(),
            Some(index) => {
                let authenticator = self.authenticators.get(usize::from(index)).ok_or(Rejection::UnknownPort)?;
                match authenticator.authenticate(evidence, now) {
                    Verdict::Accepted(identity) => identity,
                    Verdict::Refused(refusal) => return Err(Rejection::NotAuthenticated(refusal)),
                }
            }
        };
        let Some(index) = admission.policy else { return Ok((identity, None)) };
        let policy = self.policies.get(usize::from(index)).ok_or(Rejection::UnknownPort)?;
        let rules = policy.applicable(&identity, client_identifier);
        match policy.decide_connect(&rules, client_identifier) {
            Decision::Allowed { .. } => Ok((identity, Some(rules))),
            Decision::Denied => Err(Rejection::NotAuthorized(identity)),
        }
    }

    /// Whether a client of `port` to which `rules` apply may publish to `topic`.
    #[must_use]
    pub fn may_publish(&self, port: u16, rules: Option<&ApplicableRules>, topic: &str) -> bool {
        self.may(port, rules, |policy, rules| policy.decide_publish(rules, topic))
    }

    /// Whether a client of `port` to which `rules` apply may subscribe to `filter`, given without its `$share` part.
    #[must_use]
    pub fn may_subscribe(&self, port: u16, rules: Option<&ApplicableRules>, filter: &str) -> bool {
        self.may(port, rules, |policy, rules| policy.decide_subscribe(rules, filter))
    }

    /// A port without policy allows; a port with one needs the rules that were found at CONNECT. Anything else is denied.
    fn may(
        &self,
        port: u16,
        rules: Option<&ApplicableRules>,
        decide: impl FnOnce(&Policy, &ApplicableRules) -> Decision,
    ) -> bool {
        let Some(admission) = self.ports.get(usize::from(port)) else { return false };
        let Some(index) = admission.policy else { return true };
        let (Some(policy), Some(rules)) = (self.policies.get(usize::from(index)), rules) else { return false };
        matches!(decide(policy, rules), Decision::Allowed { .. })
    }
}
