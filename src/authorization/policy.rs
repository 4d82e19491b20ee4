//! One BrokerAuthorization at work.
//!
//! Principals are compared once, at CONNECT: the result is a set of rules. Every later decision looks only at those.

use super::covers;
use crate::codec::topic::matches;
use crate::config::blob::{Action, Authorization, Range, Text};
use crate::config::topic::{TOPIC_BYTES_MAX, check_filter};
use crate::config::verify::{self, Defect};
use crate::identity::Identity;

/// Bits of one word of [`ApplicableRules`].
const WORD_BITS: usize = u32::BITS as usize;

/// A compiled policy. Shared by all clients of the ports that refer to it.
#[derive(Debug)]
pub struct Policy {
    table: Authorization,
}

/// The rules of one policy that apply to one client: one bit a rule, allocated once at CONNECT.
///
/// Belongs to the policy it was computed by; against another policy it is meaningless, and after a reload it must be
/// computed anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicableRules {
    words: Box<[u32]>,
}

/// What a policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allowed {
        /// The first rule that allows it, from 0.
        rule: u32,
    },
    /// No rule allows it.
    Denied,
}

impl Decision {
    /// Whether it is allowed.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

impl ApplicableRules {
    /// The rules, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(&self.words).flat_map(|(word, bits)| {
            let first = word.saturating_mul(u32::BITS);
            let mut rest = *bits;
            core::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < u32::BITS).then(|| first.saturating_add(bit))
            })
        })
    }

    /// Whether no rule applies: such a client may not even connect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }
}

impl Policy {
    /// Takes the tables of a policy.
    ///
    /// # Errors
    /// What is wrong with them: an index or a text out of bounds, an empty principal, an invalid pattern.
    pub fn new(table: Authorization) -> Result<Self, Defect> {
        verify::authorization(&table)?;
        Ok(Self { table })
    }

    /// `metadata.name` of the BrokerAuthorization.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.table.name
    }

    /// Number of rules.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.table.rules.len()
    }

    /// Bytes that [`ApplicableRules`] of this policy take for each client.
    #[must_use]
    pub fn applicable_bytes(&self) -> usize {
        self.rules().div_ceil(WORD_BITS) * size_of::<u32>()
    }

    /// Finds the rules that apply to a client: its user name or client identifier is listed, or all pairs of one attribute
    /// map are among its attributes. All comparisons are case-sensitive. Allocates the result; the work is one pass over all
    /// principals.
    #[must_use]
    pub fn applicable(&self, identity: &Identity, client_identifier: &str) -> ApplicableRules {
        let mut words = vec![0_u32; self.rules().div_ceil(WORD_BITS)].into_boxed_slice();
        for (index, rule) in self.table.rules.iter().enumerate() {
            let username = identity.username.as_deref();
            let applies = username
                .is_some_and(|username| self.is_listed(&self.table.usernames, rule.usernames, username))
                || self.is_listed(&self.table.client_identifiers, rule.client_identifiers, client_identifier)
                || self
                    .rows(&self.table.attribute_maps, rule.attribute_maps)
                    .iter()
                    .any(|map| self.has_all(identity, *map));
            if applies && let Some(word) = words.get_mut(index / WORD_BITS) {
                *word |= 1 << (index % WORD_BITS);
            }
        }
        ApplicableRules { words }
    }

    /// Whether a client may connect under `client_identifier`.
    #[must_use]
    pub fn decide_connect(&self, rules: &ApplicableRules, client_identifier: &str) -> Decision {
        self.decide(rules, Action::Connect, |patterns| {
            patterns.is_empty()
                || patterns.iter().any(|pattern| match self.text(*pattern) {
                    Some(pattern) => is_client_identifier_of(pattern, client_identifier),
                    None => false,
                })
        })
    }

    /// Whether a client may publish to `topic`. What is no Topic Name is denied.
    #[must_use]
    pub fn decide_publish(&self, rules: &ApplicableRules, topic: &str) -> Decision {
        if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || topic.contains(['+', '#', '\0']) {
            return Decision::Denied;
        }
        self.decide(rules, Action::Publish, |patterns| self.any(patterns, |pattern| matches(pattern, topic)))
    }

    /// Whether a client may subscribe to `filter`, given without `$share/<group>/`: one pattern must cover it. What is no
    /// Topic Filter is denied.
    #[must_use]
    pub fn decide_subscribe(&self, rules: &ApplicableRules, filter: &str) -> Decision {
        if check_filter(filter).is_err() {
            return Decision::Denied;
        }
        self.decide(rules, Action::Subscribe, |patterns| self.any(patterns, |pattern| covers(pattern, filter)))
    }

    /// Whether a message of `topic` may be sent to a client: some filter that it may subscribe to matches.
    #[must_use]
    pub fn decide_receive(&self, rules: &ApplicableRules, topic: &str) -> Decision {
        self.decide(rules, Action::Subscribe, |patterns| self.any(patterns, |pattern| matches(pattern, topic)))
    }

    /// Where a rule stands in the configuration: `file:line`. Empty for a rule that does not exist.
    #[must_use]
    pub fn rule_source(&self, rule: u32) -> &str {
        let rule = usize::try_from(rule).ok().and_then(|rule| self.table.rules.get(rule));
        rule.and_then(|rule| self.text(rule.source)).unwrap_or_default()
    }

    /// The first applicable rule with a resource for `action` whose patterns satisfy `grants`.
    fn decide(&self, rules: &ApplicableRules, action: Action, grants: impl Fn(&[Text]) -> bool) -> Decision {
        for index in rules.iter() {
            let Some(rule) = usize::try_from(index).ok().and_then(|index| self.table.rules.get(index)) else {
                continue;
            };
            let mut resources = self.rows(&self.table.resources, rule.resources).iter();
            let granted = resources.any(|resource| {
                resource.action == action && grants(self.rows(&self.table.patterns, resource.patterns))
            });
            if granted {
                return Decision::Allowed { rule: index };
            }
        }
        Decision::Denied
    }

    fn any(&self, patterns: &[Text], test: impl Fn(&str) -> bool) -> bool {
        patterns.iter().any(|pattern| self.text(*pattern).is_some_and(&test))
    }

    fn is_listed(&self, table: &[Text], range: Range, wanted: &str) -> bool {
        self.rows(table, range).iter().any(|text| self.text(*text) == Some(wanted))
    }

    /// Whether a client has every pair of an attribute map. An empty map, which no valid table has, is had by nobody.
    fn has_all(&self, identity: &Identity, map: Range) -> bool {
        let pairs = self.rows(&self.table.attribute_pairs, map);
        !pairs.is_empty()
            && pairs.iter().all(|(name, value)| match (self.text(*name), self.text(*value)) {
                (Some(name), Some(value)) => identity.attributes.value_of(name) == Some(value),
                (_, None) | (None, _) => false,
            })
    }

    /// The rows of a range; none when it is out of bounds, which [`Self::new`] has excluded.
    fn rows<'a, T>(&self, table: &'a [T], range: Range) -> &'a [T] {
        verify::slice_of(table, range).unwrap_or_default()
    }

    fn text(&self, span: Text) -> Option<&str> {
        verify::text_of(&self.table, span).ok()
    }
}

/// Whether a pattern of `clientIds` means this client identifier: literally, or by its beginning where it ends with `*`.
fn is_client_identifier_of(pattern: &str, client_identifier: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => client_identifier.starts_with(prefix),
        None => client_identifier == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_embedded};
    use crate::identity::{AuthenticationMethod, Username};

    /// The policy of a list of rules in YAML or JSON.
    fn policy(rules: &str) -> Policy {
        let files = [("any.listener.yaml", "ports: [{port: 1883}]"), ("test.authorization.yaml", rules)];
        let loaded = load_embedded(&files, &LoadOptions::default()).unwrap_or_else(|errors| panic!("{errors}"));
        Policy::new(loaded.configuration.authorizations[0].clone()).unwrap()
    }

    fn identity(username: Option<&str>, attributes: &[(&str, &str)]) -> Identity {
        let mut identity = Identity { method: AuthenticationMethod::X509, ..Identity::default() };
        identity.username = username.map(|name| Username::try_from(name).unwrap());
        for (name, value) in attributes {
            identity.attributes.insert(name, value).unwrap();
        }
        identity
    }

    fn tutorial() -> Policy {
        policy(include_str!("../../config/tutorial/abac-authz.authorization.json"))
    }

    #[test]
    fn the_tutorial_decides_as_the_tutorial_says() {
        let policy = tutorial();
        let thermostat =
            policy.applicable(&identity(Some("thermostat"), &[("group", "thermostat_group")]), "thermostat");
        let heater = policy.applicable(&identity(Some("heater"), &[("manufacturer", "fabrikam")]), "heater");
        let lightbulb = policy.applicable(&identity(Some("lightbulb"), &[("manufacturer", "fabrikam")]), "lightbulb");
        for rules in [&thermostat, &heater, &lightbulb] {
            assert!(policy.decide_connect(rules, "x").is_allowed());
        }
        assert_eq!(policy.decide_publish(&thermostat, "telemetry/temperature"), Decision::Allowed { rule: 0 });
        assert_eq!(policy.decide_publish(&thermostat, "telemetry/humidity"), Decision::Denied);
        assert_eq!(policy.decide_publish(&thermostat, "health/heartbeat"), Decision::Denied);
        assert_eq!(policy.decide_publish(&lightbulb, "health/heartbeat"), Decision::Allowed { rule: 2 });
        assert_eq!(policy.decide_publish(&heater, "health/heartbeat"), Decision::Allowed { rule: 2 });
        assert_eq!(policy.decide_subscribe(&heater, "telemetry/temperature"), Decision::Allowed { rule: 3 });
        assert_eq!(policy.decide_subscribe(&heater, "health/heartbeat"), Decision::Denied);
        for wide in ["telemetry/+", "telemetry/#", "#", "+/temperature"] {
            assert_eq!(policy.decide_subscribe(&heater, wide), Decision::Denied, "{wide}");
        }
        assert_eq!(policy.decide_subscribe(&lightbulb, "telemetry/temperature"), Decision::Denied);
        assert!(policy.rule_source(3).starts_with("test.authorization.yaml:"));
        assert_eq!(policy.rule_source(4), "");
    }

    #[test]
    fn one_attribute_map_is_a_conjunction_and_the_lists_are_alternatives() {
        let policy = policy(
            "[{principals: {clientIds: [probe], attributes: [{city: seattle, organization: contoso}, {role: admin}]},
               brokerResources: [{method: Connect}]}]",
        );
        let connects = |attributes: &[(&str, &str)], client: &str| {
            policy.decide_connect(&policy.applicable(&identity(None, attributes), client), client).is_allowed()
        };
        assert!(!connects(&[("city", "seattle")], "x"));
        assert!(!connects(&[("city", "seattle"), ("organization", "Contoso")], "x"));
        assert!(connects(&[("city", "seattle"), ("organization", "contoso"), ("more", "1")], "x"));
        assert!(connects(&[("role", "admin")], "x"));
        assert!(connects(&[], "probe"));
        assert!(!connects(&[], "Probe"));
    }

    #[test]
    fn a_client_without_username_matches_no_username() {
        let policy = policy("[{principals: {usernames: [heater]}, brokerResources: [{method: Connect}]}]");
        assert!(policy.applicable(&identity(None, &[]), "heater").is_empty());
        assert!(!policy.applicable(&identity(Some("heater"), &[]), "x").is_empty());
        assert!(policy.applicable(&identity(Some("Heater"), &[]), "x").is_empty());
    }

    #[test]
    fn what_no_rule_allows_is_denied() {
        let empty = policy("[]");
        let rules = empty.applicable(&identity(Some("x"), &[]), "x");
        assert_eq!(empty.decide_connect(&rules, "x"), Decision::Denied);
        assert_eq!(empty.decide_publish(&rules, "x"), Decision::Denied);
        assert_eq!(empty.decide_subscribe(&rules, "x"), Decision::Denied);
        let policy = policy("[{principals: {usernames: [u]}, brokerResources: [{method: Publish, topics: [a]}]}]");
        let rules = policy.applicable(&identity(Some("u"), &[]), "x");
        assert_eq!(policy.decide_connect(&rules, "x"), Decision::Denied, "Publish does not imply Connect");
        assert_eq!(policy.decide_subscribe(&rules, "a"), Decision::Denied, "Publish does not imply Subscribe");
    }

    #[test]
    fn connect_may_be_restricted_to_client_identifiers() {
        let policy = policy(
            "[{principals: {usernames: [u]}, brokerResources: [{method: Connect, clientIds: [exact, pre-*], topics: []}]}]",
        );
        let rules = policy.applicable(&identity(Some("u"), &[]), "");
        for (client, allowed) in
            [("exact", true), ("exact1", false), ("pre-", true), ("pre-7", true), ("pre", false), ("", false)]
        {
            assert_eq!(policy.decide_connect(&rules, client).is_allowed(), allowed, "{client}");
        }
    }

    #[test]
    fn what_is_no_topic_or_filter_is_denied() {
        let policy = policy(
            "[{principals: {usernames: [u]}, brokerResources: [{method: Publish, topics: ['#']}, {method: Subscribe, topics: ['#']}]}]",
        );
        let rules = policy.applicable(&identity(Some("u"), &[]), "x");
        for topic in ["", "a/+", "#", "a\0"] {
            assert_eq!(policy.decide_publish(&rules, topic), Decision::Denied, "{topic:?}");
        }
        for filter in ["", "a/#/b", "a+", "a\0"] {
            assert_eq!(policy.decide_subscribe(&rules, filter), Decision::Denied, "{filter:?}");
        }
        assert!(policy.decide_publish(&rules, &"a/".repeat(30_000)).is_allowed());
        assert!(policy.decide_subscribe(&rules, &"+/".repeat(30_000)).is_allowed());
    }

    #[test]
    fn the_deciding_rule_is_found_beyond_the_first_word() {
        use core::fmt::Write;
        let mut rules = String::new();
        for index in 0..100 {
            writeln!(
                rules,
                "- {{principals: {{usernames: [u]}}, brokerResources: [{{method: Publish, topics: [t{index}]}}]}}"
            )
            .unwrap();
        }
        let policy = policy(&rules);
        let applicable = policy.applicable(&identity(Some("u"), &[]), "x");
        assert_eq!(applicable.iter().count(), 100);
        assert_eq!(policy.applicable_bytes(), 16);
        for rule in [0, 31, 32, 63, 64, 99] {
            assert_eq!(policy.decide_publish(&applicable, &format!("t{rule}")), Decision::Allowed { rule });
        }
    }

    #[test]
    fn a_table_that_does_not_fit_together_is_refused() {
        let good = tutorial().table;
        let mut bad = good.clone();
        bad.rules[0].resources.count = 1_000;
        assert_eq!(Policy::new(bad).err(), Some(Defect::AuthorizationRange));
        let mut bad = good.clone();
        bad.usernames[0].start = u32::MAX;
        assert_eq!(Policy::new(bad).err(), Some(Defect::AuthorizationText));
        let mut bad = good;
        bad.attribute_maps[0].count = 0;
        assert_eq!(Policy::new(bad).err(), Some(Defect::EmptyPrincipal));
    }
}
