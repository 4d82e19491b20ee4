//! The last denials and refused connections, for whoever asks why somebody cannot work.
//!
//! In: what [`Telemetry::deny`] says and what CONNECT was refused for. Out: rows, newest first. A denial keeps the identity that
//! was denied, so that the rule that comes nearest can be found when somebody looks, and costs nothing before.
//!
//! **Invariants:** two rings of fixed size. Refused connections have their own, so that strangers who come and go do not push out
//! what rules denied to clients. What was counted and not said for its number is not here either.

use super::{Action, Telemetry, Text};
use crate::identity::Identity;
use crate::time::Instant;
use std::collections::VecDeque;

/// Denials by rules that are remembered.
const DENIALS_MAX: usize = 48;
/// Refused connections that are remembered.
const REFUSALS_MAX: usize = 16;

/// Bytes of a text of an explanation.
pub const LINE_BYTES_MAX: usize = 512;

/// Something that was denied.
#[derive(Clone, Debug)]
pub struct Denial {
    /// Its number since start; greater is later.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// Client Identifier, as far as known.
    pub client: Text,
    /// Who it was; nobody where the credential was refused.
    pub identity: Identity,
    /// What it asked for.
    pub action: Action,
    /// Topic name, filter or client identifier.
    pub resource: Text,
    /// Index of the port.
    pub port: u16,
    /// Why a connection was refused; `None` where no rule allowed what was asked for.
    pub refusal: Option<Text>,
    /// Found when somebody looked: the rule that comes nearest, and what is missing.
    pub explanation: Option<Box<DenialExplanation>>,
}

/// Why no rule allowed it. Both texts are escaped, and have [`LINE_BYTES_MAX`] bytes at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DenialExplanation {
    /// The rule that comes nearest, as it is named in the source; `None` if none does.
    pub rule: Option<String>,
    /// One line.
    pub text: String,
}

/// Who asks for something.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Client Identifier.
    pub client: &'a str,
    /// What authentication found out.
    pub identity: &'a Identity,
    /// Index of the port.
    pub port: u16,
}

/// Both rings.
pub struct Denials {
    denied: VecDeque<Denial>,
    refused: VecDeque<Denial>,
    number: u64,
}

impl Denials {
    /// Nothing was denied yet.
    #[must_use]
    pub fn new() -> Self {
        Self { denied: VecDeque::with_capacity(DENIALS_MAX), refused: VecDeque::with_capacity(REFUSALS_MAX), number: 0 }
    }

    /// Most rows.
    pub const MAX: usize = DENIALS_MAX + REFUSALS_MAX;

    /// Bytes that they take, every one explained.
    #[must_use]
    pub const fn bytes() -> u64 {
        (Self::MAX * size_of::<Denial>() + DENIALS_MAX * (size_of::<DenialExplanation>() + 2 * LINE_BYTES_MAX)) as u64
    }

    /// All of them, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Denial> {
        let (mut denied, mut refused) = (self.denied.iter().rev().peekable(), self.refused.iter().rev().peekable());
        core::iter::from_fn(move || match (denied.peek(), refused.peek()) {
            (Some(one), Some(other)) if one.number < other.number => refused.next(),
            (None, _) => refused.next(),
            (Some(_), _) => denied.next(),
        })
    }

    /// The newest denial that was not explained yet.
    pub fn unexplained(&mut self) -> Option<&mut Denial> {
        self.denied.iter_mut().rev().find(|denial| denial.explanation.is_none())
    }

    pub(super) fn deny(&mut self, now: Instant, asking: Asking<'_>, action: Action, resource: &str) {
        let denial = Denial {
            number: self.next_number(),
            at: now,
            client: Text::new(asking.client),
            identity: asking.identity.clone(),
            action,
            resource: Text::new(resource),
            port: asking.port,
            refusal: None,
            explanation: None,
        };
        push(&mut self.denied, DENIALS_MAX, denial);
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

impl Default for Denials {
    fn default() -> Self {
        Self::new()
    }
}

fn push(ring: &mut VecDeque<Denial>, most: usize, denial: Denial) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(denial);
}

impl Telemetry {
    /// A CONNECT was refused. One that rules denied is remembered as that already.
    pub fn refused(&mut self, now: Instant, client: &Text, detail: &Text, port: u16) {
        let denials = &mut self.denials;
        let is_known = denials.denied.back().is_some_and(|denial| {
            let at_connect = matches!(denial.action, Action::Connect | Action::Will);
            at_connect && denial.at == now && denial.client == *client && denial.port == port
        });
        if is_known {
            return;
        }
        let denial = Denial {
            number: denials.next_number(),
            at: now,
            client: client.clone(),
            identity: Identity::default(),
            action: Action::Connect,
            resource: client.clone(),
            port,
            refusal: Some(detail.clone()),
            explanation: None,
        };
        push(&mut denials.refused, REFUSALS_MAX, denial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::AuditBudget;

    #[test]
    fn refused_connections_do_not_push_out_what_rules_denied() {
        let (mut telemetry, identity) = (Telemetry::new(), Identity::default());
        let asking = Asking { client: "c", identity: &identity, port: 0 };
        telemetry.deny(Instant::ZERO, &mut AuditBudget::default(), Action::Publish, "t", asking);
        for number in 0..100 {
            let now = Instant::from_milliseconds(number);
            telemetry.refused(now, &Text::of(number), &Text::new("no credential"), 0);
        }
        let rows: Vec<_> = telemetry.denials.iter().collect();
        assert_eq!((rows.len(), rows[0].client.as_str()), (REFUSALS_MAX + 1, "99"));
        assert_eq!((rows[REFUSALS_MAX].action, rows[REFUSALS_MAX].resource.as_str()), (Action::Publish, "t"));
        assert!(rows.windows(2).all(|pair| pair[0].number > pair[1].number), "newest first");
    }

    #[test]
    fn a_connect_that_rules_denied_is_there_once() {
        let (mut telemetry, identity) = (Telemetry::new(), Identity::default());
        let asking = Asking { client: "c", identity: &identity, port: 0 };
        telemetry.deny(Instant::ZERO, &mut AuditBudget::default(), Action::Connect, "c", asking);
        telemetry.refused(Instant::ZERO, &Text::new("c"), &Text::new("no rule"), 0);
        assert_eq!(telemetry.denials.iter().count(), 1);
    }
}
