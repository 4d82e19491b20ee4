//! Typed reading of nodes: every mistake goes into the report, and reading goes on.
//!
//! A function that returns `None` has reported why.

use super::{Key, Node, Value};
use crate::config::diagnostic::{Place, Report, quoted, suggestion};
use crate::config::topic::{check_filter, is_too_deep};
use crate::distinguished_name::{DistinguishedName, SyntaxError};
use crate::limits::TOPIC_LEVELS_MAX;
use core::ops::RangeInclusive;

/// The fields of one mapping. Every field that is asked for is a valid one; [`Self::finish`] reports the others.
#[derive(Debug)]
#[must_use]
pub struct Fields<'a> {
    what: &'static str,
    place: &'a Place,
    entries: &'a [(Key, Node)],
    valid: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of `node`, which messages call `what`.
    pub fn of(node: &'a Node, what: &'static str, report: &mut Report) -> Option<Self> {
        let entries = mapping(node, what, report)?;
        Some(Self { what, place: &node.place, entries, valid: Vec::new() })
    }

    /// Where the mapping begins.
    #[must_use]
    pub fn place(&self) -> &'a Place {
        self.place
    }

    /// The field `name`, if it is there and not null.
    pub fn optional(&mut self, name: &'static str) -> Option<&'a Node> {
        self.valid.push(name);
        let node = self.entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)?;
        (node.value != Value::Null).then_some(node)
    }

    /// The field `name`, which must be there.
    pub fn required(&mut self, name: &'static str, report: &mut Report) -> Option<&'a Node> {
        let node = self.optional(name);
        if node.is_none() {
            report.error(self.place, format!("the field \"{name}\" of {} is missing", self.what));
        }
        node
    }

    /// Accepts fields that mean nothing here.
    pub fn ignore(&mut self, names: &[&'static str]) {
        self.valid.extend_from_slice(names);
    }

    /// Reports every field that was not asked for.
    pub fn finish(self, report: &mut Report) {
        for (key, _) in self.entries {
            if !self.valid.contains(&key.text.as_str()) {
                let end = suggestion(&key.text, &self.valid);
                report.error(&key.place, format!("unknown field {} of {}{end}", quoted(&key.text), self.what));
            }
        }
    }
}

fn wrong_type(node: &Node, what: &str, expected: &str, report: &mut Report) {
    let hint = match (&node.value, expected) {
        (Value::Bool(_) | Value::Number(_), "text") => "; write it in quotes",
        _ => "",
    };
    report.error(&node.place, format!("{what} must be {expected}, and this is {}{hint}", node.description()));
}

/// A mapping's entries.
pub fn mapping<'a>(node: &'a Node, what: &str, report: &mut Report) -> Option<&'a [(Key, Node)]> {
    if let Value::Mapping(entries) = &node.value {
        return Some(entries);
    }
    wrong_type(node, what, "a mapping", report);
    None
}

/// A list's elements.
pub fn sequence<'a>(node: &'a Node, what: &str, report: &mut Report) -> Option<&'a [Node]> {
    if let Value::Sequence(elements) = &node.value {
        return Some(elements);
    }
    wrong_type(node, what, "a list", report);
    None
}

/// A text.
pub fn text<'a>(node: &'a Node, what: &str, report: &mut Report) -> Option<&'a str> {
    if let Value::Text(text) = &node.value {
        return Some(text);
    }
    wrong_type(node, what, "text", report);
    None
}

/// A text that is not empty.
pub fn full_text<'a>(node: &'a Node, what: &str, report: &mut Report) -> Option<&'a str> {
    let text = text(node, what, report)?;
    if text.is_empty() {
        report.error(&node.place, format!("{what} must not be empty"));
        return None;
    }
    Some(text)
}

/// A distinguished name, with a mistake reported at its place inside the text.
pub fn distinguished_name(node: &Node, what: &str, report: &mut Report) -> Option<DistinguishedName> {
    let given = full_text(node, what, report)?;
    match DistinguishedName::parse(given) {
        Ok(name) => Some(name),
        Err(SyntaxError { offset, reason }) => {
            let character = given.get(..offset).unwrap_or(given).chars().count() + 1;
            let message = format!("{} is no distinguished name: {reason}, at character {character}", quoted(given));
            report.error(&node.place_within(offset), message);
            None
        }
    }
}

/// Whether `topic`, the text of `node`, is a Topic Filter. A mistake is reported at its place inside the text, and a `*` that
/// was perhaps meant as a wildcard is noted.
pub fn topic_filter(topic: &str, node: &Node, report: &mut Report) -> bool {
    if let Err(fault) = check_filter(topic) {
        report.error(&node.place_within(fault.at()), format!("{} is no topic filter: {fault}", quoted(topic)));
        return false;
    }
    if is_too_deep(topic) {
        let message = format!("the topic has more than {TOPIC_LEVELS_MAX} levels, the most this broker routes");
        report.error(&node.place, message);
        return false;
    }
    if topic.contains('*') {
        let message = format!("the \"*\" in {} stands for itself: wildcards of topics are + and #", quoted(topic));
        report.note(&node.place, message);
    }
    true
}

/// A list of texts, each with its node. Elements that are not text are reported and left out.
pub fn texts<'a>(node: &'a Node, what: &str, report: &mut Report) -> Option<Vec<(&'a str, &'a Node)>> {
    let elements = sequence(node, what, report)?;
    let element_of = format!("an element of {what}");
    Some(elements.iter().filter_map(|element| Some((text(element, &element_of, report)?, element))).collect())
}

/// A mapping from text to text.
pub fn text_map<'a>(node: &'a Node, what: &str, report: &mut Report) -> Option<Vec<(&'a Key, &'a str, &'a Node)>> {
    let entries = mapping(node, what, report)?;
    let value_of = format!("a value of {what}");
    Some(entries.iter().filter_map(|(key, value)| Some((key, text(value, &value_of, report)?, value))).collect())
}

/// A whole number within `range`.
pub fn integer(node: &Node, what: &str, range: RangeInclusive<u64>, report: &mut Report) -> Option<u64> {
    let Value::Number(spelling) = &node.value else {
        wrong_type(node, what, "a whole number", report);
        return None;
    };
    let (low, high) = (range.start(), range.end());
    let plain = spelling.strip_prefix('+').unwrap_or(spelling);
    let digits = plain.strip_prefix('-').unwrap_or(plain);
    // 0777 is 511 to some YAML readers and 777 to others.
    if digits.is_empty()
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
        || (digits.len() > 1 && digits.starts_with('0'))
    {
        report.error(
            &node.place,
            format!("{what} must be a whole number in decimal digits, and this is {}", quoted(spelling)),
        );
        return None;
    }
    match plain.parse::<u64>() {
        Ok(value) if range.contains(&value) => Some(value),
        Ok(_) | Err(_) => {
            report.error(&node.place, format!("{what} is {spelling}, outside {low} to {high}"));
            None
        }
    }
}

/// A boolean.
pub fn boolean(node: &Node, what: &str, report: &mut Report) -> Option<bool> {
    if let Value::Bool(value) = node.value {
        return Some(value);
    }
    wrong_type(node, what, "true or false", report);
    None
}

/// One of the values of an enumeration, in the spelling given or with a small first letter: `ReadWrite` or `readWrite`.
pub fn choice<T: Copy>(node: &Node, what: &str, values: &[(&'static str, T)], report: &mut Report) -> Option<T> {
    let given = text(node, what, report)?;
    let found = values.iter().find(|(name, _)| *name == given || is_small_spelling(name, given));
    if found.is_none() {
        report_choice(node, what, given, values.iter().map(|(name, _)| *name), report);
    }
    found.map(|(_, value)| *value)
}

/// One of the values of an enumeration in exactly the spelling given.
pub fn exact_choice(node: &Node, what: &str, values: &[&'static str], report: &mut Report) -> Option<&'static str> {
    let given = text(node, what, report)?;
    let found = values.iter().copied().find(|name| *name == given);
    if found.is_none() {
        report_choice(node, what, given, values.iter().copied(), report);
    }
    found
}

fn report_choice<'a>(node: &Node, what: &str, given: &str, values: impl Iterator<Item = &'a str>, report: &mut Report) {
    let names: Vec<&str> = values.collect();
    let nearest = crate::config::diagnostic::nearest(given, names.iter().copied());
    let end = nearest.map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"));
    report
        .error(&node.place, format!("{what} must be one of {}, and this is {}{end}", names.join(", "), quoted(given)));
}

fn is_small_spelling(name: &str, given: &str) -> bool {
    let mut expected = name.chars();
    let mut actual = given.chars();
    match (expected.next(), actual.next()) {
        (Some(first), Some(small)) => first.to_ascii_lowercase() == small && expected.as_str() == actual.as_str(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Syntax, parse};
    use super::*;

    fn with<T>(text: &str, read: impl FnOnce(&Node, &mut Report) -> T) -> (T, String) {
        let mut report = Report::new();
        let documents = parse("f", text.as_bytes(), Syntax::Yaml, &mut report);
        let value = read(&documents[0], &mut report);
        (value, report.finish().to_string())
    }

    #[test]
    fn a_misspelt_field_names_the_nearest_valid_one() {
        let (_, errors) = with("{method: x, topcs: [], zebra: 1}", |node, report| {
            let mut fields = Fields::of(node, "brokerResources[]", report).unwrap();
            fields.optional("method");
            fields.optional("topics");
            fields.finish(report);
        });
        assert!(
            errors.contains("f:1:13: error: unknown field \"topcs\" of brokerResources[]; did you mean \"topics\"?")
        );
        assert!(errors.contains("unknown field \"zebra\" of brokerResources[]; valid are method, topics"));
    }

    #[test]
    fn a_missing_field_is_reported_and_null_counts_as_missing() {
        let (_, errors) = with("{a: null}", |node, report| {
            let mut fields = Fields::of(node, "it", report).unwrap();
            assert!(fields.required("a", report).is_none());
            fields.finish(report);
        });
        assert_eq!(errors, "f:1:1: error: the field \"a\" of it is missing\n");
    }

    #[test]
    fn both_spellings_of_an_enumeration_are_valid_and_no_third() {
        let values = [("ReadWrite", 1), ("Read", 2)];
        for (text, expected) in
            [("ReadWrite", Some(1)), ("readWrite", Some(1)), ("read", Some(2)), ("readwrite", None), ("READ", None)]
        {
            let (value, errors) = with(text, |node, report| choice(node, "method", &values, report));
            assert_eq!(value, expected, "{text}");
            assert_eq!(errors.is_empty(), expected.is_some());
        }
        let (_, errors) = with("readwrite", |node, report| choice(node, "method", &values, report));
        assert_eq!(
            errors,
            "f:1:1: error: method must be one of ReadWrite, Read, and this is \"readwrite\"; did you mean \"ReadWrite\"?\n"
        );
    }

    #[test]
    fn a_number_keeps_its_range_and_its_form() {
        for (text, expected) in [("1", Some(1)), ("65535", Some(65_535)), ("0", None), ("65536", None), ("-1", None)] {
            assert_eq!(with(text, |node, report| integer(node, "port", 1..=65_535, report)).0, expected, "{text}");
        }
        for text in ["010", "0x10", "1.0", "1e3", "\"1\"", "99999999999999999999999999"] {
            assert_eq!(with(text, |node, report| integer(node, "port", 1..=65_535, report)).0, None, "{text}");
        }
    }

    #[test]
    fn a_number_where_text_is_wanted_is_refused_with_advice() {
        let (_, errors) = with("17", |node, report| text(node, "a value", report).map(str::to_owned));
        assert_eq!(errors, "f:1:1: error: a value must be text, and this is the number 17; write it in quotes\n");
    }
}
