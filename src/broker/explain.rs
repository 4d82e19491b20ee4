//! Why a client may or may not do something, by the policies in force: for people, never for a decision.
//!
//! In: a client, or a denial that is remembered. Out: the decision with its rule, or the rules
//! that come nearest. [`Policy`] decides and `authorization::explain` looks at its tables; what is here finds out who asks.
//!
//! **Invariant:** one question a call: the search for what is nearest goes through all rules that apply to the client.

use super::Broker;
use crate::authorization::{ApplicableRules, Client, Decision, Policy, Wish, grants_to, nearest};
use crate::codec::topic::Subscription;
use crate::config::blob;
use crate::config::diagnostic::Escaped;
use crate::identity::Identity;
use crate::telemetry::{Action, DenialExplanation, LINE_BYTES_MAX};

/// Grants that are listed.
const GRANTS_MAX: usize = 200;

/// What the rules say to a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Index of the port whose rules were asked.
    pub port: u16,
    /// Who asks.
    pub identity: Identity,
    /// Name of the policy; `None`: the port has none.
    pub policy: Option<String>,
    /// Whether it is allowed.
    pub is_allowed: bool,
    /// The rule that allows it, as it is named in the source.
    pub rule: Option<String>,
    /// Where it is denied: the rules that come nearest, and what each lacks. Escaped.
    pub nearest: Vec<(String, String)>,
    /// Where nothing was wished: what it may do, at most 200.
    pub grants: Vec<GrantView>,
}

/// Something that a rule grants to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantView {
    /// `method` of the rule.
    pub action: blob::Action,
    /// As it is written.
    pub pattern: String,
    /// With its tokens replaced, or what is wrong with them.
    pub resource: Result<String, String>,
    /// The rule.
    pub rule: String,
}

impl Broker {
    /// Whether a client may do something on the port with this index. Without a wish: connect, and all that it may do beside
    /// that.
    #[must_use]
    pub fn explain(
        &self,
        port: u16,
        identity: &Identity,
        client_identifier: &str,
        wish: Option<Wish<'_>>,
    ) -> Explanation {
        let mut explanation = Explanation {
            port,
            identity: identity.clone(),
            policy: None,
            is_allowed: !self.admission.has_policy(port),
            rule: None,
            nearest: Vec::new(),
            grants: Vec::new(),
        };
        let Some(policy) = self.admission.policy(port) else { return explanation };
        let rules = policy.applicable(identity, client_identifier);
        let client = client(&rules, identity, client_identifier);
        let asked = wish.unwrap_or(Wish::Connect);
        explanation.policy = Some(policy.name().to_owned());
        match decide(policy, &client, asked) {
            Decision::Allowed { rule } => {
                explanation.is_allowed = true;
                explanation.rule = Some(policy.rule_source(rule).to_owned());
            }
            Decision::Denied => {
                let row = |found: crate::authorization::Nearest| {
                    (policy.rule_source(found.rule).to_owned(), line(&found.missing))
                };
                explanation.nearest = nearest(policy, &client, asked).into_iter().map(row).collect();
            }
        }
        if wish.is_none() {
            let grants = grants_to(policy, &client).into_iter().take(GRANTS_MAX);
            explanation.grants = grants
                .map(|(action, pattern, resource, rule)| GrantView {
                    action,
                    pattern: pattern.to_owned(),
                    resource,
                    rule: policy.rule_source(rule).to_owned(),
                })
                .collect();
        }
        explanation
    }

    /// Finds what is missing for the newest denial that nobody has explained yet. Returns whether there was one.
    pub fn explain_denial(&mut self) -> bool {
        let Self { telemetry, admission, .. } = self;
        let Some(denial) = telemetry.denials.unexplained() else { return false };
        let explanation = match (admission.policy(denial.port), wish(denial.action, denial.resource.as_str())) {
            (None, _) => explained("the port has no rules any more: every client may do everything"),
            (Some(_), _) if denial.client.is_cut() || denial.resource.is_cut() => {
                explained("it is too long to be looked up again")
            }
            (Some(policy), wish) => {
                let identifier = denial.client.as_str();
                let rules = policy.applicable(&denial.identity, identifier);
                why(policy, &client(&rules, &denial.identity, identifier), wish)
            }
        };
        denial.explanation = Some(Box::new(explanation));
        true
    }
}

const fn client<'a>(rules: &'a ApplicableRules, identity: &'a Identity, identifier: &'a str) -> Client<'a> {
    Client { rules, identity, identifier }
}

fn decide(policy: &Policy, client: &Client<'_>, wish: Wish<'_>) -> Decision {
    match wish {
        Wish::Connect => policy.decide_connect(client),
        Wish::Publish(topic) => policy.decide_publish(client, topic),
        Wish::Subscribe(filter) => policy.decide_subscribe(client, filter),
    }
}

/// What a rule would have to grant.
fn wish(action: Action, resource: &str) -> Wish<'_> {
    match action {
        Action::Connect => Wish::Connect,
        Action::Publish | Action::Will => Wish::Publish(resource),
        Action::Subscribe | Action::KeepSubscription | Action::Receive => {
            Wish::Subscribe(Subscription::parse(resource).map_or(resource, |parsed| parsed.filter().as_str()))
        }
    }
}

fn why(policy: &Policy, client: &Client<'_>, wish: Wish<'_>) -> DenialExplanation {
    match decide(policy, client, wish) {
        Decision::Allowed { rule } => DenialExplanation {
            rule: Some(line(policy.rule_source(rule))),
            text: "the rules in force now allow it".to_owned(),
        },
        Decision::Denied => match nearest(policy, client, wish).into_iter().next() {
            Some(found) => {
                DenialExplanation { rule: Some(line(policy.rule_source(found.rule))), text: line(&found.missing) }
            }
            None => explained("no rule comes near"),
        },
    }
}

fn explained(text: &str) -> DenialExplanation {
    DenialExplanation { rule: None, text: text.to_owned() }
}

/// A text on one line, cut: explanations that are remembered have a bound, and no more memory than they need.
fn line(text: &str) -> String {
    let shown = Escaped(text).to_string();
    let end = (0..=LINE_BYTES_MAX.min(shown.len())).rev().find(|at| shown.is_char_boundary(*at)).unwrap_or(0);
    shown.get(..end).unwrap_or_default().to_owned()
}
