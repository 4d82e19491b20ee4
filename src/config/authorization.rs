//! `kind: BrokerAuthorization`: rules, compiled into the flat tables of the blob.
//!
//! What could never match, or would match more than its author can have meant, is a mistake: empty principals (everybody?),
//! an empty attribute map (vacuously true), topics that no filter can be, names longer than a client can have.

use super::authentication::check_attributes_fit;
use super::blob::{
    Action, Authorization, Range, Resource, Rule, StateStoreKeyType, StateStoreMethod, StateStoreResource, Text,
};
use super::broker::SWITCH;
use super::diagnostic::{Report, quoted};
use super::source::walk::{Fields, choice, sequence, text, text_map, texts, topic_filter};
use super::source::{Node, Value};
use super::token::{check_levels, check_pieces};
use crate::limits::{CLIENT_IDENTIFIER_BYTES_MAX, USERNAME_BYTES_MAX};
use std::collections::BTreeMap;

/// Reads a `spec`.
pub fn read(name: &str, spec: &Node, report: &mut Report) -> Option<Authorization> {
    let mut fields = Fields::of(spec, "the spec of BrokerAuthorization", report)?;
    let policies = fields.required("authorizationPolicies", report);
    fields.finish(report);
    read_policies(name, policies?, report)
}

/// Reads a body that stands alone in a file: a list of rules, `authorizationPolicies`, or a whole spec.
pub fn read_bare(name: &str, body: &Node, report: &mut Report) -> Option<Authorization> {
    match &body.value {
        Value::Sequence(_) => {
            let mut tables = Tables::new(name);
            rules(body, &mut tables, report);
            Some(tables.out)
        }
        Value::Mapping(_) if body.entry("rules").is_some() || body.entry("cache").is_some() => {
            read_policies(name, body, report)
        }
        Value::Mapping(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {
            read(name, body, report)
        }
    }
}

fn read_policies(name: &str, policies: &Node, report: &mut Report) -> Option<Authorization> {
    let mut tables = Tables::new(name);
    let mut fields = Fields::of(policies, "authorizationPolicies", report)?;
    if let Some(node) = fields.optional("cache")
        && let Some(cache) = choice(node, "cache", &SWITCH, report)
    {
        tables.out.cache = cache;
    }
    match fields.optional("rules") {
        Some(node) => rules(node, &mut tables, report),
        None => report.note(&policies.place, "there are no rules: every client is denied everything"),
    }
    fields.finish(report);
    Some(tables.out)
}

fn rules(node: &Node, tables: &mut Tables, report: &mut Report) {
    let elements = sequence(node, "rules", report).unwrap_or_default();
    if elements.is_empty() {
        report.note(&node.place, "there are no rules: every client is denied everything");
    }
    for element in elements {
        rule(element, tables, report);
    }
}

/// The tables while they are filled.
struct Tables {
    out: Authorization,
    interned: BTreeMap<String, Text>,
}

/// A length or index. Files are bounded far below 4 GiB, so it always fits; [`super::verify`] would refuse it otherwise.
fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Tables {
    fn new(name: &str) -> Self {
        let out = Authorization {
            name: name.to_owned(),
            cache: true,
            text: String::new(),
            rules: Vec::new(),
            usernames: Vec::new(),
            client_identifiers: Vec::new(),
            attribute_maps: Vec::new(),
            attribute_pairs: Vec::new(),
            resources: Vec::new(),
            patterns: Vec::new(),
            state_store: Vec::new(),
        };
        Self { out, interned: BTreeMap::new() }
    }

    fn intern(&mut self, text: &str) -> Text {
        if let Some(known) = self.interned.get(text) {
            return *known;
        }
        let span = Text { start: index(self.out.text.len()), length: index(text.len()) };
        self.out.text.push_str(text);
        self.interned.insert(text.to_owned(), span);
        span
    }
}

/// The elements of `table` from `start` on.
fn range_from<T>(start: usize, table: &[T]) -> Range {
    Range { start: index(start), count: index(table.len().saturating_sub(start)) }
}

fn rule(node: &Node, tables: &mut Tables, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "rules[]", report) else { return };
    let source = tables.intern(&format!("{}:{}", node.place.file, node.place.line));
    let mut rule = Rule {
        source,
        usernames: Range::default(),
        client_identifiers: Range::default(),
        attribute_maps: Range::default(),
        resources: Range::default(),
        state_store: Range::default(),
    };
    if let Some(node) = fields.required("principals", report) {
        principals(node, &mut rule, tables, report);
    }
    let resources_node = fields.required("brokerResources", report);
    if let Some(node) = resources_node {
        let start = tables.out.resources.len();
        for element in sequence(node, "brokerResources", report).unwrap_or_default() {
            resource(element, tables, report);
        }
        rule.resources = range_from(start, &tables.out.resources);
        if node.value == Value::Sequence(Vec::new()) {
            report.note(&node.place, "brokerResources is empty: this rule grants nothing of the broker");
        }
    }
    if let Some(node) = fields.optional("stateStoreResources") {
        rule.state_store = state_store_resources(node, tables, report);
        report.note(&node.place, "stateStoreResources has no effect yet: this version has no state store");
    }
    fields.finish(report);
    tables.out.rules.push(rule);
}

fn principals(node: &Node, rule: &mut Rule, tables: &mut Tables, report: &mut Report) {
    let errors_before = report.errors();
    let Some(mut fields) = Fields::of(node, "principals", report) else { return };
    let mut written = 0;
    if let Some(node) = fields.optional("usernames") {
        let start = tables.out.usernames.len();
        for (text, node) in texts(node, "usernames", report).unwrap_or_default() {
            check_principal(text, node, "a username", USERNAME_BYTES_MAX, report);
            let text = tables.intern(text);
            tables.out.usernames.push(text);
        }
        rule.usernames = range_from(start, &tables.out.usernames);
        written += rule.usernames.count;
    }
    if let Some(node) = fields.optional("clientIds") {
        let start = tables.out.client_identifiers.len();
        for (text, node) in texts(node, "clientIds", report).unwrap_or_default() {
            check_principal(text, node, "a client identifier", CLIENT_IDENTIFIER_BYTES_MAX, report);
            let text = tables.intern(text);
            tables.out.client_identifiers.push(text);
        }
        rule.client_identifiers = range_from(start, &tables.out.client_identifiers);
        written += rule.client_identifiers.count;
    }
    if let Some(node) = fields.optional("attributes") {
        let start = tables.out.attribute_maps.len();
        for element in sequence(node, "attributes", report).unwrap_or_default() {
            attribute_map(element, tables, report);
        }
        rule.attribute_maps = range_from(start, &tables.out.attribute_maps);
        written += rule.attribute_maps.count;
    }
    fields.finish(report);
    if written == 0 && report.errors() == errors_before {
        report.error(&node.place, "principals is empty: name at least one username, client identifier or attribute");
    }
}

fn attribute_map(node: &Node, tables: &mut Tables, report: &mut Report) {
    let Some(entries) = text_map(node, "an element of attributes", report) else { return };
    if node.value == Value::Mapping(Vec::new()) {
        report.error(&node.place, "an empty element of attributes would match every client");
        return;
    }
    let start = tables.out.attribute_pairs.len();
    let mut pairs = Vec::new();
    for (key, value, value_node) in entries {
        if key.text.contains(['{', '}']) {
            let message = format!("the attribute name {} contains a brace: tokens stand for values", quoted(&key.text));
            report.error(&key.place, message);
        }
        check_braces(value, value_node, report);
        let pair = (tables.intern(&key.text), tables.intern(value));
        tables.out.attribute_pairs.push(pair);
        pairs.push((key.text.clone(), value.to_owned()));
    }
    check_attributes_fit(&pairs, &node.place, report);
    let range = range_from(start, &tables.out.attribute_pairs);
    tables.out.attribute_maps.push(range);
}

/// Checks one user name or client identifier.
fn check_principal(text: &str, node: &Node, what: &str, bytes_max: usize, report: &mut Report) {
    check_braces(text, node, report);
    if text.is_empty() {
        report.error(&node.place, format!("{what} must not be empty"));
    }
    // Texts with tokens stand for texts of other lengths.
    if text.len() > bytes_max && !text.contains('{') {
        report.error(&node.place, format!("{what} has at most {bytes_max} bytes, and this has {}", text.len()));
    }
    if text.contains('*') {
        report.note(
            &node.place,
            format!("the \"*\" in {} stands for itself: principals are compared literally", quoted(text)),
        );
    }
}

/// Refuses braces that are no tokens: read as text they would grant something else than was meant.
fn check_braces(text: &str, node: &Node, report: &mut Report) {
    if let Err(fault) = check_pieces(text) {
        report.error(&node.place_within(fault.at()), format!("{}: {fault}", quoted(text)));
    }
}

fn resource(node: &Node, tables: &mut Tables, report: &mut Report) {
    const ACTIONS: [(&str, Action); 3] =
        [("Connect", Action::Connect), ("Publish", Action::Publish), ("Subscribe", Action::Subscribe)];
    let Some(mut fields) = Fields::of(node, "brokerResources[]", report) else { return };
    let action = fields.required("method", report).and_then(|node| choice(node, "method", &ACTIONS, report));
    let client_identifiers = fields.optional("clientIds");
    let topics = fields.optional("topics");
    fields.finish(report);
    let Some(action) = action else { return };
    let start = tables.out.patterns.len();
    match action {
        Action::Connect => {
            if let Some(node) = client_identifiers {
                connect_patterns(node, tables, report);
                if node.value == Value::Sequence(Vec::new()) {
                    report.note(
                        &node.place,
                        "clientIds is empty: the rule allows to connect under any client identifier",
                    );
                }
            }
            if let Some(node) = topics
                && !texts(node, "topics", report).unwrap_or_default().is_empty()
            {
                report.note(&node.place, "topics has no effect on the method Connect");
            }
        }
        Action::Publish | Action::Subscribe => {
            let method = if action == Action::Publish { "Publish" } else { "Subscribe" };
            if let Some(node) = client_identifiers
                && !texts(node, "clientIds", report).unwrap_or_default().is_empty()
            {
                let message =
                    format!("clientIds restricts only Connect, and the method is {method}; use principals.clientIds");
                report.error(&node.place, message);
            }
            match topics {
                Some(topics) => topic_patterns(topics, method, tables, report),
                None => report.error(&node.place, format!("the method {method} needs topics")),
            }
        }
    }
    let patterns = range_from(start, &tables.out.patterns);
    tables.out.resources.push(Resource { action, patterns });
}

fn topic_patterns(node: &Node, method: &str, tables: &mut Tables, report: &mut Report) {
    let Some(topics) = texts(node, "topics", report) else { return };
    if node.value == Value::Sequence(Vec::new()) {
        report.error(&node.place, format!("topics is empty: the method {method} needs at least one"));
    }
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for (topic, node) in topics {
        if let Some(line) = seen.insert(topic, node.place.line) {
            report.error(&node.place, format!("the topic {} stands here twice, first in line {line}", quoted(topic)));
            continue;
        }
        if let Err(fault) = check_levels(topic) {
            report.error(&node.place_within(fault.at()), format!("{}: {fault}", quoted(topic)));
        } else if topic_filter(topic, node, report) && topic.starts_with("$share/") {
            let message = format!(
                "{}: rules judge the filter of a shared subscription without $share/<group>/; leave that out",
                quoted(topic)
            );
            report.error(&node.place, message);
        }
        let pattern = tables.intern(topic);
        tables.out.patterns.push(pattern);
    }
}

/// `clientIds` of Connect: exact, or a prefix with `*` at its end; tokens may stand in both.
fn connect_patterns(node: &Node, tables: &mut Tables, report: &mut Report) {
    for (pattern, node) in texts(node, "clientIds", report).unwrap_or_default() {
        check_braces(pattern, node, report);
        let prefix = pattern.strip_suffix('*').unwrap_or(pattern);
        if pattern.is_empty() {
            report.error(&node.place, "a client identifier must not be empty");
        } else if prefix.contains('*') {
            let message =
                format!("\"*\" is understood only at the end of a client identifier, and this is {}", quoted(pattern));
            report.error(&node.place, message);
        } else if prefix.len() > CLIENT_IDENTIFIER_BYTES_MAX && !prefix.contains('{') {
            report.error(
                &node.place,
                format!(
                    "a client identifier has at most {CLIENT_IDENTIFIER_BYTES_MAX} bytes, and this has {}",
                    prefix.len()
                ),
            );
        }
        let pattern = tables.intern(pattern);
        tables.out.patterns.push(pattern);
    }
}

/// `stateStoreResources`: checked and kept, and of no effect yet.
fn state_store_resources(node: &Node, tables: &mut Tables, report: &mut Report) -> Range {
    use StateStoreKeyType::{Binary, Pattern, String};
    const METHODS: [(&str, StateStoreMethod); 3] = [
        ("Read", StateStoreMethod::Read),
        ("Write", StateStoreMethod::Write),
        ("ReadWrite", StateStoreMethod::ReadWrite),
    ];
    const KEY_TYPES: [(&str, StateStoreKeyType); 3] = [("Pattern", Pattern), ("String", String), ("Binary", Binary)];
    let start = tables.out.state_store.len();
    for element in sequence(node, "stateStoreResources", report).unwrap_or_default() {
        let Some(mut fields) = Fields::of(element, "stateStoreResources[]", report) else { continue };
        let method = fields.required("method", report).and_then(|node| choice(node, "method", &METHODS, report));
        let key_type = fields.required("keyType", report).and_then(|node| choice(node, "keyType", &KEY_TYPES, report));
        let first_key = tables.out.patterns.len();
        if let Some(node) = fields.required("keys", report) {
            for key in sequence(node, "keys", report).unwrap_or_default() {
                let Some(given) = text(key, "a key", report) else { continue };
                match key_type {
                    Some(Pattern) => check_braces(given, key, report),
                    Some(Binary) if super::secret::decode_base64(given).is_none() => {
                        let message = format!("a key of type Binary must be base64, and this is {}", quoted(given));
                        report.error(&key.place, message);
                    }
                    Some(String | Binary) | None => {}
                }
                let key = tables.intern(given);
                tables.out.patterns.push(key);
            }
        }
        fields.finish(report);
        let keys = range_from(first_key, &tables.out.patterns);
        if let (Some(method), Some(key_type)) = (method, key_type) {
            tables.out.state_store.push(StateStoreResource { method, key_type, keys });
        }
    }
    range_from(start, &tables.out.state_store)
}
