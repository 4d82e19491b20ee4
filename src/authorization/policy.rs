//! One BrokerAuthorization at work.
//!
//! Principals are compared once, at CONNECT: the result is a set of rules. Every later decision looks only at those.

use super::client::{self, Client};
use super::patterns::{Asked, Patterns};
use crate::codec::topic::TopicName;
use crate::config::blob::{Action, Authorization, Range, Resource, Rule, StateStoreResource, Text};
use crate::config::topic::check_filter;
use crate::config::verify::{self, Defect};
use crate::identity::Identity;
use crate::limits::Capacities;

/// Bits of one word of [`ApplicableRules`].
const WORD_BITS: usize = u32::BITS as usize;

/// A compiled policy. Shared by all clients of the ports that refer to it.
#[derive(Debug)]
pub struct Policy {
    table: Authorization,
    publish: Patterns,
    subscribe: Patterns,
}

/// The rules of one policy that apply to one client: one bit a rule, allocated once at CONNECT.
///
/// Belongs to the policy it was computed by; against another policy it is meaningless, and after a reload it must be
/// computed anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplicableRules {
    words: Box<[u32]>,
    count: usize,
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

impl From<Option<u32>> for Decision {
    fn from(rule: Option<u32>) -> Self {
        rule.map_or(Self::Denied, |rule| Self::Allowed { rule })
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

    /// Whether rule `rule` is one of them.
    #[must_use]
    pub fn contains(&self, rule: u32) -> bool {
        let word = usize::try_from(rule / u32::BITS).ok().and_then(|word| self.words.get(word));
        word.is_some_and(|word| word & (1 << (rule % u32::BITS)) != 0)
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether no rule applies: such a client may not even connect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Policy {
    /// Takes the tables of a policy, and sorts its topic patterns.
    ///
    /// # Errors
    /// What is wrong with them: an index or a text out of bounds, an empty principal, an invalid pattern.
    pub fn new(table: Authorization) -> Result<Self, Defect> {
        verify::authorization(&table)?;
        let publish = Patterns::new(&table, Action::Publish);
        let subscribe = Patterns::new(&table, Action::Subscribe);
        Ok(Self { table, publish, subscribe })
    }

    /// Bytes that all policies of these capacities take besides the blob's tables.
    #[must_use]
    pub const fn bytes(capacities: &Capacities) -> u64 {
        Patterns::bytes(capacities.authorization_patterns)
    }

    /// Bytes of the blob's tables of all policies of these capacities: of those in force and of those that replace them, in each
    /// case the blob, what is decoded from it, and the copy that decides.
    #[must_use]
    pub const fn tables_bytes(capacities: &Capacities) -> u64 {
        const COPIES: u64 = 6;
        let pattern = size_of::<Text>() + size_of::<Resource>() + size_of::<StateStoreResource>();
        COPIES
            * (capacities.authorization_bytes as u64
                + capacities.authorization_rules as u64 * size_of::<Rule>() as u64
                + capacities.authorization_principals as u64 * (size_of::<Text>() + size_of::<Range>()) as u64
                + capacities.authorization_attributes as u64 * size_of::<(Text, Text)>() as u64
                + capacities.authorization_patterns as u64 * pattern as u64)
            + Self::bytes(capacities)
    }

    /// Bytes that [`ApplicableRules`] of all policies of these capacities take for one client at most.
    #[must_use]
    pub const fn applicable_bytes_max(capacities: &Capacities) -> u64 {
        capacities.authorization_rules.div_ceil(u32::BITS) as u64 * size_of::<u32>() as u64
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

    /// Whether decisions may be remembered: `cache`.
    #[must_use]
    pub const fn caches(&self) -> bool {
        self.table.cache
    }

    /// Finds the rules that apply to a client: its user name or client identifier is listed, or all pairs of one attribute
    /// map are among its attributes. All comparisons are case-sensitive. Allocates the result; the work is one pass over all
    /// principals.
    #[must_use]
    pub fn applicable(&self, identity: &Identity, client_identifier: &str) -> ApplicableRules {
        let mut words = vec![0_u32; self.rules().div_ceil(WORD_BITS)].into_boxed_slice();
        let mut count = 0;
        for (index, rule) in self.table.rules.iter().enumerate() {
            if self.applies(rule, identity, client_identifier)
                && let Some(word) = words.get_mut(index / WORD_BITS)
            {
                *word |= 1 << (index % WORD_BITS);
                count += 1;
            }
        }
        ApplicableRules { words, count }
    }

    fn applies(&self, rule: &Rule, identity: &Identity, client_identifier: &str) -> bool {
        let listed = |table: &[Text], range: Range, wanted: &str| {
            let is_meant = |pattern: &str| client::is_spelled(pattern, wanted, identity, client_identifier);
            self.any(self.rows(table, range), is_meant)
        };
        let table = &self.table;
        identity.username.as_deref().is_some_and(|username| listed(&table.usernames, rule.usernames, username))
            || listed(&table.client_identifiers, rule.client_identifiers, client_identifier)
            || self.rows(&table.attribute_maps, rule.attribute_maps).iter().any(|map| {
                // An empty map, which no valid table has, is had by nobody.
                let pairs = self.rows(&table.attribute_pairs, *map);
                !pairs.is_empty() && pairs.iter().all(|pair| self.has(identity, client_identifier, *pair))
            })
    }

    /// Whether a client may connect under its client identifier.
    #[must_use]
    pub fn decide_connect(&self, client: &Client<'_>) -> Decision {
        let rule = client.rules.iter().find(|index| {
            self.rule(*index).is_some_and(|rule| {
                self.rows(&self.table.resources, rule.resources).iter().any(|resource| {
                    let patterns = self.rows(&self.table.patterns, resource.patterns);
                    let granted = |pattern: &str| is_granted_identifier(pattern, client.identity, client.identifier);
                    resource.action == Action::Connect && (patterns.is_empty() || self.any(patterns, granted))
                })
            })
        });
        Decision::from(rule)
    }

    /// Whether a client may publish to `topic`. What is no Topic Name is denied.
    #[must_use]
    pub fn decide_publish(&self, client: &Client<'_>, topic: &str) -> Decision {
        if TopicName::parse(topic).is_err() {
            return Decision::Denied;
        }
        self.publish.first_rule(&self.table, client, Asked::Topic(topic)).into()
    }

    /// Whether a client may subscribe to `filter`, given without `$share/<group>/`: one pattern must cover it. What is no
    /// Topic Filter is denied.
    #[must_use]
    pub fn decide_subscribe(&self, client: &Client<'_>, filter: &str) -> Decision {
        if check_filter(filter).is_err() {
            return Decision::Denied;
        }
        self.subscribe.first_rule(&self.table, client, Asked::Filter(filter)).into()
    }

    /// Whether a message of `topic` may be sent to a client: some filter that it may subscribe to matches.
    #[must_use]
    pub fn decide_receive(&self, client: &Client<'_>, topic: &str) -> Decision {
        self.subscribe.first_rule(&self.table, client, Asked::Topic(topic)).into()
    }

    /// Where a rule stands in the configuration: `file:line`. Empty for a rule that does not exist.
    #[must_use]
    pub fn rule_source(&self, rule: u32) -> &str {
        self.rule(rule).and_then(|rule| self.text(rule.source)).unwrap_or_default()
    }

    /// The tables, for explanations.
    pub(super) const fn table(&self) -> &Authorization {
        &self.table
    }

    /// The topic patterns of an action; `None` for Connect, which has no topics.
    pub(super) const fn patterns(&self, action: Action) -> Option<&Patterns> {
        match action {
            Action::Connect => None,
            Action::Publish => Some(&self.publish),
            Action::Subscribe => Some(&self.subscribe),
        }
    }

    fn rule(&self, index: u32) -> Option<&Rule> {
        self.table.rules.get(usize::try_from(index).ok()?)
    }

    fn any(&self, patterns: &[Text], test: impl Fn(&str) -> bool) -> bool {
        patterns.iter().any(|pattern| self.text(*pattern).is_some_and(&test))
    }

    /// Whether a client has this attribute with this value.
    fn has(&self, identity: &Identity, client_identifier: &str, (name, value): (Text, Text)) -> bool {
        match (self.text(name).and_then(|name| identity.attributes.value_of(name)), self.text(value)) {
            (Some(own), Some(wanted)) => client::is_spelled(wanted, own, identity, client_identifier),
            (_, None) | (None, _) => false,
        }
    }

    /// The rows of a range; none when it is out of bounds, which [`Self::new`] has excluded.
    fn rows<'a, T>(&self, table: &'a [T], range: Range) -> &'a [T] {
        verify::slice_of(table, range).unwrap_or_default()
    }

    fn text(&self, span: Text) -> Option<&str> {
        verify::text_of(&self.table, span).ok()
    }
}

/// Whether a pattern of Connect's `clientIds` means this client identifier: as it is spelled, or by its beginning where it
/// ends with `*`.
pub(super) fn is_granted_identifier(pattern: &str, identity: &Identity, client_identifier: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => client::begins_with(beginning, client_identifier, identity, client_identifier),
        None => client::is_spelled(pattern, client_identifier, identity, client_identifier),
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

    /// A client with the rules that apply to it.
    struct Someone {
        identity: Identity,
        identifier: String,
        rules: ApplicableRules,
    }

    impl Someone {
        fn of(policy: &Policy, identity: Identity, identifier: &str) -> Self {
            let rules = policy.applicable(&identity, identifier);
            Self { identity, identifier: identifier.to_owned(), rules }
        }

        fn client(&self) -> Client<'_> {
            Client { rules: &self.rules, identity: &self.identity, identifier: &self.identifier }
        }
    }

    fn tutorial() -> Policy {
        policy(include_str!("../../config/tutorial/abac-authz.authorization.json"))
    }

    #[test]
    fn the_tutorial_decides_as_the_tutorial_says() {
        let policy = tutorial();
        let thermostat =
            Someone::of(&policy, identity(Some("thermostat"), &[("group", "thermostat_group")]), "thermostat");
        let heater = Someone::of(&policy, identity(Some("heater"), &[("manufacturer", "fabrikam")]), "heater");
        let lightbulb = Someone::of(&policy, identity(Some("lightbulb"), &[("manufacturer", "fabrikam")]), "lightbulb");
        for rules in [&thermostat, &heater, &lightbulb] {
            assert!(policy.decide_connect(&rules.client()).is_allowed());
        }
        assert_eq!(policy.decide_publish(&thermostat.client(), "telemetry/temperature"), Decision::Allowed { rule: 0 });
        assert_eq!(policy.decide_publish(&thermostat.client(), "telemetry/humidity"), Decision::Denied);
        assert_eq!(policy.decide_publish(&thermostat.client(), "health/heartbeat"), Decision::Denied);
        assert_eq!(policy.decide_publish(&lightbulb.client(), "health/heartbeat"), Decision::Allowed { rule: 2 });
        assert_eq!(policy.decide_publish(&heater.client(), "health/heartbeat"), Decision::Allowed { rule: 2 });
        assert_eq!(policy.decide_subscribe(&heater.client(), "telemetry/temperature"), Decision::Allowed { rule: 3 });
        assert_eq!(policy.decide_subscribe(&heater.client(), "health/heartbeat"), Decision::Denied);
        for wide in ["telemetry/+", "telemetry/#", "#", "+/temperature"] {
            assert_eq!(policy.decide_subscribe(&heater.client(), wide), Decision::Denied, "{wide}");
        }
        assert_eq!(policy.decide_subscribe(&lightbulb.client(), "telemetry/temperature"), Decision::Denied);
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
            policy.decide_connect(&Someone::of(&policy, identity(None, attributes), client).client()).is_allowed()
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
        let rules = Someone::of(&empty, identity(Some("x"), &[]), "x");
        assert_eq!(empty.decide_connect(&rules.client()), Decision::Denied);
        assert_eq!(empty.decide_publish(&rules.client(), "x"), Decision::Denied);
        assert_eq!(empty.decide_subscribe(&rules.client(), "x"), Decision::Denied);
        let policy = policy("[{principals: {usernames: [u]}, brokerResources: [{method: Publish, topics: [a]}]}]");
        let rules = Someone::of(&policy, identity(Some("u"), &[]), "x");
        assert_eq!(policy.decide_connect(&rules.client()), Decision::Denied, "Publish does not imply Connect");
        assert_eq!(policy.decide_subscribe(&rules.client(), "a"), Decision::Denied, "Publish does not imply Subscribe");
    }

    #[test]
    fn connect_may_be_restricted_to_client_identifiers() {
        let policy = policy(
            "[{principals: {usernames: [u]}, brokerResources: [{method: Connect, clientIds: [exact, pre-*], topics: []}]}]",
        );
        for (client, allowed) in
            [("exact", true), ("exact1", false), ("pre-", true), ("pre-7", true), ("pre", false), ("", false)]
        {
            assert_eq!(
                policy.decide_connect(&Someone::of(&policy, identity(Some("u"), &[]), client).client()).is_allowed(),
                allowed,
                "{client}"
            );
        }
    }

    #[test]
    fn what_is_no_topic_or_filter_is_denied() {
        let policy = policy(
            "[{principals: {usernames: [u]}, brokerResources: [{method: Publish, topics: ['#']}, {method: Subscribe, topics: ['#']}]}]",
        );
        let rules = Someone::of(&policy, identity(Some("u"), &[]), "x");
        for topic in ["", "a/+", "#", "a\0"] {
            assert_eq!(policy.decide_publish(&rules.client(), topic), Decision::Denied, "{topic:?}");
        }
        for filter in ["", "a/#/b", "a+", "a\0"] {
            assert_eq!(policy.decide_subscribe(&rules.client(), filter), Decision::Denied, "{filter:?}");
        }
        assert!(policy.decide_publish(&rules.client(), &"a/".repeat(30_000)).is_allowed());
        assert!(policy.decide_subscribe(&rules.client(), &"+/".repeat(30_000)).is_allowed());
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
        let someone = Someone::of(&policy, identity(Some("u"), &[]), "x");
        assert_eq!((someone.rules.iter().count(), someone.rules.count()), (100, 100));
        assert_eq!(policy.applicable_bytes(), 16);
        for rule in [0, 31, 32, 63, 64, 99] {
            assert_eq!(policy.decide_publish(&someone.client(), &format!("t{rule}")), Decision::Allowed { rule });
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
