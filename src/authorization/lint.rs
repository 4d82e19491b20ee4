//! What is allowed in rules and cannot have been meant: rules that apply to nobody, patterns that add nothing.
//!
//! Notes, no mistakes: a policy may be ahead of the certificates that are to come. Only what is certain is said: where a
//! method may produce any attribute (a custom server, a cluster, a file of passwords), nothing is said of attributes.

use super::covers;
use crate::config::blob::{Action, Authorization, Configuration, Method, Range, Rule, ServiceAccountTokens, Text};
use crate::config::diagnostic::{Diagnostic, Place, Severity, quoted};
use crate::config::token::{Piece, Token, pieces};
use crate::config::verify;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most patterns of one set of principals that are compared with each other.
const COMPARED_MAX: usize = 1_000;

/// What is worth knowing about the policies of a configuration, in no particular order.
#[must_use]
pub fn lint(configuration: &Configuration) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    for (index, table) in (0_u16..).zip(&configuration.authorizations) {
        let mut policy = Linted { table, notes: &mut notes };
        policy.nobody_connects();
        policy.covered_patterns();
        policy.everybody();
        if let Some(producible) = Producible::of(configuration, index) {
            policy.unproducible(&producible);
        }
    }
    notes
}

/// What the methods of a policy's ports can say of a client.
struct Producible<'a> {
    /// Whether some method vouches for user names.
    usernames: bool,
    /// All sets of attributes that a client can have; `None` where a method may produce any.
    attributes: Option<Vec<&'a [(String, String)]>>,
}

impl<'a> Producible<'a> {
    /// `None` for a policy that no port refers to.
    fn of(configuration: &'a Configuration, policy: u16) -> Option<Self> {
        let ports = configuration.ports.iter().filter(|port| port.authorization == Some(policy));
        let methods: Vec<&Method> = ports
            .filter_map(|port| configuration.authentications.get(usize::from(port.authentication?)))
            .flat_map(|authentication| &authentication.methods)
            .collect();
        if methods.is_empty() {
            return None;
        }
        let mut found = Self { usernames: false, attributes: Some(Vec::new()) };
        for method in methods {
            found.usernames |= !matches!(method, Method::ServiceAccountToken { .. });
            let sets: Option<Vec<&[(String, String)]>> = match method {
                Method::X509 { attributes, .. } => {
                    Some(attributes.iter().map(|entry| entry.attributes.as_slice()).collect())
                }
                Method::ServiceAccountToken { .. } => match &configuration.gateway.service_account_tokens {
                    Some(ServiceAccountTokens::Offline { attributes, .. }) => {
                        Some(attributes.iter().map(|entry| entry.attributes.as_slice()).collect())
                    }
                    Some(ServiceAccountTokens::TokenReview { .. }) | None => None,
                },
                Method::Custom { .. } | Method::UsernamePassword { .. } => None,
            };
            found.attributes = match (found.attributes, sets) {
                (Some(mut known), Some(sets)) => {
                    known.extend(sets);
                    Some(known)
                }
                _ => None,
            };
        }
        Some(found)
    }

    /// Why no client has a value for this token.
    fn lack(&self, token: Token<'_>) -> Option<String> {
        match token {
            Token::Username if !self.usernames => Some("no method of its ports vouches for a user name".to_owned()),
            Token::Attribute(name) => {
                let sets = self.attributes.as_ref()?;
                let is_granted = sets.iter().any(|set| set.iter().any(|(granted, _)| granted == name));
                (!is_granted).then(|| format!("no method of its ports grants an attribute {}", quoted(name)))
            }
            Token::Username | Token::ClientIdentifier => None,
        }
    }
}

/// One policy, and where to put what is found.
struct Linted<'a> {
    table: &'a Authorization,
    notes: &'a mut Vec<Diagnostic>,
}

impl<'a> Linted<'a> {
    fn note(&mut self, rule: &Rule, message: String) {
        let source = self.text(rule.source);
        let (file, line) = source.rsplit_once(':').unwrap_or((source, "1"));
        let place = Place { file: Arc::from(file), line: line.parse().unwrap_or(1), column: 1 };
        self.notes.push(Diagnostic { severity: Severity::Note, place, message });
    }

    fn text(&self, text: Text) -> &'a str {
        verify::text_of(self.table, text).unwrap_or_default()
    }

    fn texts(&self, table: &'a [Text], range: Range) -> Vec<&'a str> {
        verify::slice_of(table, range).unwrap_or_default().iter().map(|text| self.text(*text)).collect()
    }

    /// The pairs of each attribute map of a rule.
    fn maps(&self, rule: &Rule) -> Vec<Vec<(&'a str, &'a str)>> {
        let maps = verify::slice_of(&self.table.attribute_maps, rule.attribute_maps).unwrap_or_default();
        maps.iter()
            .map(|map| {
                let pairs = verify::slice_of(&self.table.attribute_pairs, *map).unwrap_or_default();
                pairs.iter().map(|(name, value)| (self.text(*name), self.text(*value))).collect()
            })
            .collect()
    }

    /// The patterns of a rule by action.
    fn patterns(&self, rule: &Rule) -> Vec<(Action, &'a str)> {
        let resources = verify::slice_of(&self.table.resources, rule.resources).unwrap_or_default();
        resources
            .iter()
            .flat_map(|resource| {
                let patterns = self.texts(&self.table.patterns, resource.patterns);
                patterns.into_iter().map(|pattern| (resource.action, pattern))
            })
            .collect()
    }

    fn nobody_connects(&mut self) {
        let connects = self.table.resources.iter().any(|resource| resource.action == Action::Connect);
        if let Some(first) = self.table.rules.first()
            && !connects
        {
            self.note(first, "no rule of this policy grants Connect: nobody can connect".to_owned());
        }
    }

    /// Tokens that compare a value with itself.
    fn everybody(&mut self) {
        for rule in &self.table.rules {
            if self.texts(&self.table.client_identifiers, rule.client_identifiers).contains(&"{principal.clientId}") {
                let message =
                    "clientIds: \"{principal.clientId}\" is every client's own: the rule applies to everybody";
                self.note(rule, message.to_owned());
            }
            if self.texts(&self.table.usernames, rule.usernames).contains(&"{principal.username}") {
                let message =
                    "usernames: \"{principal.username}\" is every client's own: the rule applies to all that have one";
                self.note(rule, message.to_owned());
            }
        }
    }

    /// Patterns that another one for the same principals makes superfluous.
    fn covered_patterns(&mut self) {
        type Principals<'a> = (BTreeSet<&'a str>, BTreeSet<&'a str>, BTreeSet<Vec<(&'a str, &'a str)>>);
        let mut groups: BTreeMap<Principals<'a>, Vec<(usize, Action, &'a str)>> = BTreeMap::new();
        for (index, rule) in self.table.rules.iter().enumerate() {
            let principals = (
                self.texts(&self.table.usernames, rule.usernames).into_iter().collect(),
                self.texts(&self.table.client_identifiers, rule.client_identifiers).into_iter().collect(),
                self.maps(rule).into_iter().collect(),
            );
            let patterns = self.patterns(rule).into_iter().filter(|(action, _)| *action != Action::Connect);
            groups.entry(principals).or_default().extend(patterns.map(|(action, pattern)| (index, action, pattern)));
        }
        for group in groups.into_values().filter(|group| group.len() <= COMPARED_MAX) {
            for (position, (index, action, pattern)) in group.iter().enumerate() {
                let wider = group.iter().enumerate().find(|(other, (_, other_action, wider))| {
                    // Of two that are alike, the later one is superfluous.
                    *other != position
                        && action == other_action
                        && covers(wider, pattern)
                        && (wider != pattern || *other < position)
                });
                if let Some((_, (other, _, wider))) = wider
                    && let (Some(rule), Some(other)) = (self.table.rules.get(*index), self.table.rules.get(*other))
                {
                    let action = match action {
                        Action::Connect => "Connect",
                        Action::Publish => "Publish",
                        Action::Subscribe => "Subscribe",
                    };
                    let source = self.text(other.source);
                    self.note(
                        rule,
                        format!("{action} {} is covered by {} of {source}", quoted(pattern), quoted(wider)),
                    );
                }
            }
        }
    }

    /// Principals and tokens that no method of the policy's ports can produce.
    fn unproducible(&mut self, producible: &Producible<'_>) {
        for rule in &self.table.rules {
            let mut possible = rule.client_identifiers.count > 0;
            if rule.usernames.count > 0 {
                possible |= producible.usernames;
                if !producible.usernames {
                    let message = "usernames match nobody: no method of its ports vouches for a user name".to_owned();
                    self.note(rule, message);
                }
            }
            for map in self.maps(rule) {
                match impossible(&map, producible) {
                    Some(why) => self.note(rule, format!("attributes {} match nobody: {why}", shown(&map))),
                    None => possible = true,
                }
            }
            if !possible {
                self.note(rule, "this rule can never apply".to_owned());
            }
            let mut texts: BTreeSet<&str> = self.patterns(rule).into_iter().map(|(_, pattern)| pattern).collect();
            texts.extend(self.texts(&self.table.usernames, rule.usernames));
            texts.extend(self.texts(&self.table.client_identifiers, rule.client_identifiers));
            for text in texts {
                let lack = pieces_of(text).find_map(|token| producible.lack(token));
                if let Some(why) = lack {
                    self.note(rule, format!("{} never matches: {why}", quoted(text)));
                }
            }
        }
    }
}

/// The tokens of a principal or pattern.
fn pieces_of(text: &str) -> impl Iterator<Item = Token<'_>> {
    pieces(text).filter_map(|piece| match piece {
        Piece::Token(token) => Some(token),
        Piece::Literal(_) => None,
    })
}

/// Why no client has all pairs of a map.
fn impossible(map: &[(&str, &str)], producible: &Producible<'_>) -> Option<String> {
    let sets = producible.attributes.as_ref()?;
    let has = |set: &[(String, String)], (name, value): (&str, &str)| {
        set.iter().any(|(granted, other)| granted == name && (other == value || value.contains('{')))
    };
    if sets.iter().any(|set| map.iter().all(|pair| has(set, *pair))) {
        return None;
    }
    let granted = || sets.iter().flat_map(|set| set.iter());
    for (name, value) in map {
        let nearest = |candidates: BTreeSet<&str>, wanted: &str| {
            let nearest = candidates.into_iter().min_by_key(|candidate| strsim::damerau_levenshtein(candidate, wanted));
            nearest.map_or_else(String::new, |candidate| format!("; the nearest is {}", quoted(candidate)))
        };
        if !granted().any(|(other, _)| other == name) {
            let end = nearest(granted().map(|(name, _)| name.as_str()).collect(), name);
            return Some(format!("no attribute {} is granted{end}", quoted(name)));
        }
        if !sets.iter().any(|set| has(set, (name, value))) {
            let values = granted().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect();
            return Some(format!("{} is never {}{}", quoted(name), quoted(value), nearest(values, value)));
        }
    }
    Some("no entry grants all of them together".to_owned())
}

fn shown(map: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = map.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, load_embedded};

    const ISSUERS: &str = "kind: Gateway\napiVersion: portcullis.edge/v1\nmetadata: {name: default}\nspec:\n  serviceAccountTokens:\n    \
        issuers: [{issuer: 'https://i', keysConfigMap: keys}]\n    attributes: {iot/a: {group: sensors, floor: one}, iot/b: {group: pumps}}\n";
    const KEYS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "use": "sig", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    const BY_TOKEN: &str =
        "authenticationMethods: [{method: ServiceAccountToken, serviceAccountTokenSettings: {audiences: [a]}}]";
    const LISTENER: &str = "ports: [{port: 1883, authenticationRef: by-token, authorizationRef: rules}]";

    /// What is said of rules on a port whose clients have tokens of two known accounts.
    fn said(rules: &str) -> Vec<String> {
        let files = [
            ("any.listener.yaml", LISTENER),
            ("gateway.yaml", ISSUERS),
            ("keys/keys/all.json", KEYS),
            ("by-token.authentication.yaml", BY_TOKEN),
            ("rules.authorization.yaml", rules),
        ];
        let loaded = load_embedded(&files, &LoadOptions::default()).unwrap_or_else(|errors| panic!("{errors}"));
        lint(&loaded.configuration).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn only(rules: &str, expected: &[&str]) {
        let said = said(rules);
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for part in expected {
            assert!(said.iter().any(|line| line.contains(part)), "expected {part}\n{said:#?}");
        }
    }

    #[test]
    fn good_rules_are_silent() {
        only(
            "- principals: {attributes: [{group: sensors, floor: one}, {group: pumps}]}\n  brokerResources:\n  - method: Connect\n  \
             - {method: Publish, topics: ['a/{principal.clientId}/b', 'a/+', '{principal.attributes.floor}/x']}\n",
            &[],
        );
    }

    #[test]
    fn principals_that_no_method_produces_are_named() {
        only(
            "- principals: {usernames: [u], attributes: [{group: sensor}, {flor: one}, {group: pumps, floor: one}]}\n  \
             brokerResources: [{method: Connect}]\n",
            &[
                "rules.authorization.yaml:1:1: note: usernames match nobody: no method of its ports vouches",
                "attributes {group=sensor} match nobody: \"group\" is never \"sensor\"; the nearest is \"sensors\"",
                "no attribute \"flor\" is granted; the nearest is \"floor\"",
                "no entry grants all of them together",
                "this rule can never apply",
            ],
        );
    }

    #[test]
    fn tokens_without_a_value_and_rules_for_everybody_are_named() {
        only(
            "- principals: {clientIds: ['{principal.clientId}']}\n  brokerResources: [{method: Connect, clientIds: \
             ['{principal.username}*']}, {method: Publish, topics: ['x/{principal.attributes.line}/#']}]\n",
            &[
                "\"{principal.clientId}\" is every client's own",
                "\"{principal.username}*\" never matches: no method of its ports vouches for a user name",
                "\"x/{principal.attributes.line}/#\" never matches: no method of its ports grants an attribute \"line\"",
            ],
        );
    }

    #[test]
    fn covered_patterns_are_named_with_what_covers_them() {
        only(
            "- principals: {clientIds: [a]}\n  brokerResources: [{method: Connect}, {method: Publish, topics: ['a/#', 'a/b', b]}]\n\
             - principals: {clientIds: [a]}\n  brokerResources: [{method: Publish, topics: [b]}, {method: Subscribe, topics: ['a/b']}]\n\
             - principals: {clientIds: [b]}\n  brokerResources: [{method: Publish, topics: [b]}]\n",
            &[
                "rules.authorization.yaml:1:1: note: Publish \"a/b\" is covered by \"a/#\" of rules.authorization.yaml:1",
                "rules.authorization.yaml:3:1: note: Publish \"b\" is covered by \"b\" of rules.authorization.yaml:1",
            ],
        );
    }

    #[test]
    fn a_policy_without_connect_lets_nobody_in() {
        only(
            "- principals: {clientIds: [a]}\n  brokerResources: [{method: Publish, topics: [a]}]\n",
            &["no rule of this policy grants Connect"],
        );
    }
}
