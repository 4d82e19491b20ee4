//! Text of manifests into trees of nodes that know their place.
//!
//! YAML and JSON give the same tree. What would let a small file grow or mean two things is refused here: anchors, aliases,
//! tags, merge keys, repeated keys, control characters, nesting beyond [`DEPTH_MAX`], more than [`NODES_MAX`] nodes.

pub mod files;
mod json;
pub mod walk;
mod yaml;

use super::diagnostic::{Place, Report};

/// Deepest nesting of sequences and mappings.
pub const DEPTH_MAX: usize = 64;
/// Most nodes of one file.
pub const NODES_MAX: usize = 1_000_000;
/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its first character.
    pub place: Place,
    /// For a text that stands in the file as it is: characters between [`Self::place`] and its first character.
    pub text_offset: Option<u32>,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as it was written.
    Number(String),
    /// Text.
    Text(String),
    /// `[…]` or lines with `-`.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the source; no key twice.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its first character.
    pub place: Place,
    /// The key.
    pub text: String,
}

impl Node {
    /// The entry `key` of a mapping.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Sequence(_) => None,
        }
    }

    /// The place of byte `at` of a text, as near as the source tells.
    #[must_use]
    pub fn place_within(&self, at: usize) -> Place {
        let mut place = self.place.clone();
        if let (Some(offset), Value::Text(text)) = (self.text_offset, &self.value) {
            let characters = text.get(..at).unwrap_or(text).chars().count();
            place.column = place.column.saturating_add(offset).saturating_add(u32::try_from(characters).unwrap_or(0));
        }
        place
    }

    /// What it is, for messages.
    #[must_use]
    pub fn description(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("the boolean {value}"),
            Value::Number(text) => format!("the number {}", super::diagnostic::Escaped(text)),
            Value::Text(text) => format!("the text {}", super::diagnostic::quoted(text)),
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// What the text of a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `.yaml`, `.yml`.
    Yaml,
    /// `.json`: strict JSON, several values one after the other allowed.
    Json,
}

/// Reads the documents of one file. A mistake of syntax ends the file, and is reported.
pub fn parse(file: &str, contents: &[u8], syntax: Syntax, report: &mut Report) -> Vec<Node> {
    let mut place = Place::start_of(file);
    let contents = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    let (text, broken) = match core::str::from_utf8(contents) {
        Ok(text) => (text, false),
        Err(error) => {
            let valid = contents.get(..error.valid_up_to()).unwrap_or_default();
            (core::str::from_utf8(valid).unwrap_or_default(), true)
        }
    };
    if broken {
        advance(&mut place, text.chars());
        report.error(&place, "the file is not UTF-8");
        return Vec::new();
    }
    // The YAML scanner takes a NUL for the end of its input: what follows would be dropped without a word.
    let forbidden = |c: char| (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || c == '\u{feff}';
    if let Some(at) = text.find(forbidden) {
        advance(&mut place, text.get(..at).unwrap_or_default().chars());
        let character = text.get(at..).and_then(|rest| rest.chars().next()).unwrap_or_default();
        report.error(&place, format!("control character {} in the file", character.escape_unicode()));
        return Vec::new();
    }
    match syntax {
        Syntax::Yaml => yaml::parse(&place.file, text, report),
        Syntax::Json => json::parse(&place.file, text, report),
    }
}

/// Moves `place` over `characters`.
fn advance(place: &mut Place, characters: impl Iterator<Item = char>) {
    for character in characters {
        if character == '\n' {
            place.line = place.line.saturating_add(1);
            place.column = 1;
        } else {
            place.column = place.column.saturating_add(1);
        }
    }
}

/// Reports a key that stands twice in one mapping.
fn report_repeated_key(key: &Key, first: &Place, report: &mut Report) {
    let message =
        format!("the key {} stands here twice, first in line {}", super::diagnostic::quoted(&key.text), first.line);
    report.error(&key.place, message);
}

/// One container that is being filled; shared by both parsers, which keep a stack of these instead of recursing.
#[derive(Debug)]
enum Open {
    Sequence(Place, Vec<Node>),
    Mapping {
        place: Place,
        entries: Vec<(Key, Node)>,
        seen: std::collections::BTreeMap<String, Place>,
        key: Option<Key>,
    },
}

impl Open {
    fn mapping(place: Place) -> Self {
        Self::Mapping { place, entries: Vec::new(), seen: std::collections::BTreeMap::new(), key: None }
    }

    /// Adds a finished node: an element, or the value of the pending key.
    fn add(&mut self, node: Node, report: &mut Report) {
        match self {
            Self::Sequence(_, elements) => elements.push(node),
            Self::Mapping { entries, seen, key, .. } => {
                let Some(key) = key.take() else { return };
                if let Some(first) = seen.get(&key.text) {
                    report_repeated_key(&key, first, report);
                    return;
                }
                seen.insert(key.text.clone(), key.place.clone());
                entries.push((key, node));
            }
        }
    }

    fn close(self) -> Node {
        match self {
            Self::Sequence(place, elements) => Node { place, text_offset: None, value: Value::Sequence(elements) },
            Self::Mapping { place, entries, .. } => Node { place, text_offset: None, value: Value::Mapping(entries) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(contents: &[u8], syntax: Syntax) -> String {
        let mut report = Report::new();
        parse("f", contents, syntax, &mut report);
        report.finish().to_string()
    }

    #[test]
    fn a_file_that_is_not_utf8_is_refused_where_it_stops_being() {
        assert_eq!(errors(b"a: b\nc: \xff\n", Syntax::Yaml), "f:2:4: error: the file is not UTF-8\n");
    }

    #[test]
    fn a_nul_does_not_end_the_file_silently() {
        assert_eq!(errors(b"a: b\n\0c: d", Syntax::Yaml), "f:2:1: error: control character \\u{0} in the file\n");
        assert!(errors(b"{}\0{", Syntax::Json).contains("f:1:3"));
    }

    #[test]
    fn both_syntaxes_give_the_same_tree() {
        let mut report = Report::new();
        let json = parse("f", br#"{"a": ["x", 1, true, null]}"#, Syntax::Json, &mut report);
        let yaml = parse("f", br#"{"a": ["x", 1, true, null]}"#, Syntax::Yaml, &mut report);
        assert_eq!(json, yaml);
        assert!(!report.has_errors());
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(errors(b"\xef\xbb\xbfa: b", Syntax::Yaml), "");
    }
}
