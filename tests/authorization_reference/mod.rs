//! Rules, read plainly: what the product compiles, done again with strings, recursion and no thought for speed. Shares no
//! code with it.

use std::collections::BTreeMap;

/// A client.
#[derive(Clone, Debug)]
pub struct Subject {
    pub username: Option<String>,
    pub identifier: String,
    pub attributes: BTreeMap<String, String>,
}

/// A rule as it is written.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub usernames: Vec<String>,
    pub identifiers: Vec<String>,
    pub attributes: Vec<BTreeMap<String, String>>,
    /// Of each Connect: `clientIds`.
    pub connects: Vec<Vec<String>>,
    pub publishes: Vec<String>,
    pub subscribes: Vec<String>,
}

impl Rule {
    /// The rule as JSON.
    pub fn json(&self) -> String {
        let mut resources: Vec<String> =
            self.connects.iter().map(|list| format!("{{\"method\":\"Connect\",\"clientIds\":{list:?}}}")).collect();
        for (method, topics) in [("Publish", &self.publishes), ("Subscribe", &self.subscribes)] {
            if !topics.is_empty() {
                resources.push(format!("{{\"method\":\"{method}\",\"topics\":{topics:?}}}"));
            }
        }
        format!(
            "{{\"principals\":{{\"usernames\":{:?},\"clientIds\":{:?},\"attributes\":[{}]}},\"brokerResources\":[{}]}}",
            self.usernames,
            self.identifiers,
            self.attributes.iter().map(|map| format!("{map:?}")).collect::<Vec<_>>().join(","),
            resources.join(",")
        )
    }

    pub fn applies(&self, subject: &Subject) -> bool {
        let is = |pattern: &String, value: &str| replaced(pattern, subject).as_deref() == Some(value);
        self.usernames.iter().any(|pattern| subject.username.as_deref().is_some_and(|name| is(pattern, name)))
            || self.identifiers.iter().any(|pattern| is(pattern, &subject.identifier))
            || self.attributes.iter().any(|map| {
                map.iter().all(|(name, value)| subject.attributes.get(name).is_some_and(|own| is(value, own)))
            })
    }

    pub fn connects(&self, subject: &Subject) -> bool {
        self.connects.iter().any(|list| {
            list.is_empty()
                || list.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(start) => replaced(start, subject).is_some_and(|start| subject.identifier.starts_with(&start)),
                    None => replaced(pattern, subject).is_some_and(|text| text == subject.identifier),
                })
        })
    }

    pub fn publishes(&self, subject: &Subject, topic: &str) -> bool {
        self.publishes
            .iter()
            .any(|pattern| levels(pattern, subject).is_some_and(|levels| grants(&levels, topic, false)))
    }

    pub fn subscribes(&self, subject: &Subject, filter: &str) -> bool {
        self.subscribes
            .iter()
            .any(|pattern| levels(pattern, subject).is_some_and(|levels| grants(&levels, filter, true)))
    }
}

/// The value of a token, which is never empty.
fn value(name: &str, subject: &Subject) -> Option<String> {
    let value = match name {
        "username" => subject.username.clone()?,
        "clientId" => subject.identifier.clone(),
        _ => subject.attributes.get(name.strip_prefix("attributes.")?)?.clone(),
    };
    Some(value).filter(|value| !value.is_empty())
}

/// A text with its tokens replaced.
fn replaced(pattern: &str, subject: &Subject) -> Option<String> {
    let Some((before, rest)) = pattern.split_once("{principal.") else { return Some(pattern.to_owned()) };
    let (name, after) = rest.split_once('}').expect("a valid token");
    Some(format!("{before}{}{}", value(name, subject)?, replaced(after, subject)?))
}

/// A level of a pattern.
enum Level {
    Rest,
    Any,
    Text(String),
}

/// The levels of a topic pattern; `None` where a token has no value that is one level.
fn levels(pattern: &str, subject: &Subject) -> Option<Vec<Level>> {
    let level = |(index, text): (usize, &str)| match text {
        "#" => Some(Level::Rest),
        "+" => Some(Level::Any),
        _ => match text.strip_prefix("{principal.") {
            None => Some(Level::Text(text.to_owned())),
            Some(name) => {
                let value = value(name.strip_suffix('}')?, subject)?;
                let one = !value.contains(|c| "+#/\0".contains(c)) && (index > 0 || !value.starts_with('$'));
                one.then_some(Level::Text(value))
            }
        },
    };
    pattern.split('/').enumerate().map(level).collect()
}

/// Whether a pattern matches a topic, or for a filter everything that the filter matches.
fn grants(pattern: &[Level], asked: &str, filter: bool) -> bool {
    let asked: Vec<&str> = asked.split('/').collect();
    if asked[0].starts_with('$') && !matches!(pattern[0], Level::Text(_)) {
        return false;
    }
    below(pattern, &asked, filter)
}

fn below(pattern: &[Level], asked: &[&str], filter: bool) -> bool {
    match (pattern.first(), asked.first()) {
        (Some(Level::Rest), _) | (None, None) => true,
        (None, Some(_)) | (Some(_), None) => false,
        (Some(_), Some(&"#")) if filter => false,
        (Some(Level::Any), Some(_)) => below(&pattern[1..], &asked[1..], filter),
        (Some(Level::Text(_)), Some(&"+")) if filter => false,
        (Some(Level::Text(text)), Some(level)) => text == level && below(&pattern[1..], &asked[1..], filter),
    }
}
