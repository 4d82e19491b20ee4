//! YAML into nodes, from the parser's events.
//!
//! Plain scalars follow the core schema of YAML 1.2: `yes` and `on` are text. A number keeps its spelling; whether it is
//! wanted, and in which range, is for the reader of the field.

use super::{DEPTH_MAX, Key, NODES_MAX, Node, Open, Value};
use crate::config::diagnostic::{Place, Report, quoted};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};
use std::sync::Arc;

/// Reads every document of `text`; empty ones are left out.
pub(super) fn parse(file: &Arc<str>, text: &str, report: &mut Report) -> Vec<Node> {
    let mut reader = Reader { file: file.clone(), stack: Vec::new(), documents: Vec::new(), nodes: 0 };
    let mut parser = Parser::<StrInput<'_>>::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let proceed = match event {
            Ok((event, span)) => reader.take(event, span, report),
            Err(error) => {
                report.error(&reader.place(error.marker()), format!("not YAML: {}", error.info()));
                false
            }
        };
        if !proceed {
            return Vec::new();
        }
    }
    reader.documents
}

struct Reader {
    file: Arc<str>,
    stack: Vec<Open>,
    documents: Vec<Node>,
    nodes: usize,
}

impl Reader {
    fn place(&self, marker: &Marker) -> Place {
        Place {
            file: self.file.clone(),
            line: u32::try_from(marker.line()).unwrap_or(u32::MAX),
            column: u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1),
        }
    }

    /// Handles one event; `false` when the file cannot be read on.
    fn take(&mut self, event: Event<'_>, span: Span, report: &mut Report) -> bool {
        let place = self.place(&span.start);
        let (anchor, tag) = match &event {
            Event::Alias(_) => {
                report.error(&place, "aliases (*name) are refused: write the value out");
                return false;
            }
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                (*anchor, tag.is_some())
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => (0, false),
        };
        if anchor != 0 || tag {
            let what = if tag { "tags (!name)" } else { "anchors (&name)" };
            report.error(&place, format!("{what} are refused: write the value out"));
            return false;
        }
        match event {
            Event::Scalar(text, style, ..) => self.scalar(&text, style, span, place, report),
            Event::SequenceStart(..) => self.open(Open::Sequence(place.clone(), Vec::new()), &place, report),
            Event::MappingStart(..) => self.open(Open::mapping(place.clone()), &place, report),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.stack.pop() {
                    self.add(open.close(), report);
                }
                true
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::Alias(_) => true,
        }
    }

    fn open(&mut self, open: Open, place: &Place, report: &mut Report) -> bool {
        if self.awaits_key() {
            report.error(place, "a key must be text");
            return false;
        }
        if self.stack.len() >= DEPTH_MAX {
            report.error(place, format!("nested deeper than {DEPTH_MAX} levels"));
            return false;
        }
        self.stack.push(open);
        self.count(place, report)
    }

    fn count(&mut self, place: &Place, report: &mut Report) -> bool {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            report.error(place, format!("more than {NODES_MAX} values in one file"));
            return false;
        }
        true
    }

    fn awaits_key(&self) -> bool {
        matches!(self.stack.last(), Some(Open::Mapping { key: None, .. }))
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Span, place: Place, report: &mut Report) -> bool {
        let value = match style {
            ScalarStyle::Plain => plain(text),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted | ScalarStyle::Literal | ScalarStyle::Folded => {
                Value::Text(text.to_owned())
            }
        };
        if let Some(Open::Mapping { key: key @ None, .. }) = self.stack.last_mut() {
            if style == ScalarStyle::Plain && text == "<<" {
                report.error(&place, "merge keys (<<) are refused: write the values out");
                return false;
            }
            if !matches!(value, Value::Text(_)) {
                report.error(&place, format!("the key {} must be text: write it in quotes", quoted(text)));
            }
            *key = Some(Key { place, text: text.to_owned() });
            return true;
        }
        let quotes = match style {
            ScalarStyle::Plain => 0,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => 1,
            ScalarStyle::Literal | ScalarStyle::Folded => usize::MAX,
        };
        // Without escapes and line breaks, the text takes as many characters in the file as it has.
        let length = span.end.index().saturating_sub(span.start.index());
        let verbatim = quotes != usize::MAX && length == text.chars().count() + 2 * quotes;
        let text_offset = verbatim.then_some(u32::try_from(quotes).unwrap_or(0));
        let text_offset = if matches!(value, Value::Text(_)) { text_offset } else { None };
        if !self.count(&place, report) {
            return false;
        }
        self.add(Node { place, text_offset, value }, report);
        true
    }

    fn add(&mut self, node: Node, report: &mut Report) {
        match self.stack.last_mut() {
            Some(open) => open.add(node, report),
            None if node.value == Value::Null => {}
            None => self.documents.push(node),
        }
    }
}

/// A plain scalar by the core schema.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// Whether the core schema reads `text` as a number.
fn is_number(text: &str) -> bool {
    if let Some(digits) = text.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_is_fine = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    digits(whole) && digits(fraction) && whole.len() + fraction.len() > 0 && exponent_is_fine
}

#[cfg(test)]
mod tests {
    use super::super::{Syntax, parse};
    use super::*;

    fn read(text: &str) -> (Vec<Node>, String) {
        let mut report = Report::new();
        let documents = parse("f", text.as_bytes(), Syntax::Yaml, &mut report);
        (documents, report.finish().to_string())
    }

    #[test]
    fn documents_are_read_one_by_one_and_empty_ones_are_left_out() {
        let (documents, errors) = read("---\na: 1\n---\n---\nb: 2\n...\n");
        assert_eq!((documents.len(), errors.as_str()), (2, ""));
        let place = &documents[1].entry("b").unwrap().place;
        assert_eq!((place.line, place.column), (5, 4));
    }

    #[test]
    fn a_repeated_key_is_refused_with_both_lines() {
        let (_, errors) = read("a: 1\nb: 2\na: 3\n");
        assert_eq!(errors, "f:3:1: error: the key \"a\" stands here twice, first in line 1\n");
    }

    #[test]
    fn anchors_aliases_tags_and_merge_keys_are_refused() {
        assert!(read("a: &x 1\n").1.starts_with("f:1:4: error: anchors"), "{}", read("a: &x 1\n").1);
        assert!(read("a: !!str 1\n").1.contains("tags"), "{}", read("a: !!str 1\n").1);
        assert!(read("<<: {a: 1}\n").1.contains("merge keys"));
        assert!(read("a: *x\n").1.contains("error"));
    }

    #[test]
    fn nesting_is_bounded() {
        let (documents, errors) = read(&"[".repeat(100_000));
        assert!(documents.is_empty());
        assert!(errors.contains("nested deeper") || errors.contains("not YAML"), "{errors}");
        let (_, errors) = read(&format!("{}{}", "[".repeat(65), "]".repeat(65)));
        assert!(errors.contains("nested deeper"), "{errors}");
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for number in
            ["1", "-1", "+1", "007", "0x1F", "0o17", "1.5", ".5", "5.", "1e3", "1.5E-3", ".inf", "-.INF", ".nan"]
        {
            assert!(is_number(number), "{number}");
        }
        for text in ["yes", "on", "1.2.3", "e3", ".", "-", "0x", "1e", "12:30", "1_000", "a1"] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn a_syntax_error_has_its_place() {
        let (documents, errors) = read("a: [1, 2\nb: }\n");
        assert!(documents.is_empty());
        assert!(errors.starts_with("f:2:"), "{errors}");
    }

    #[test]
    fn the_place_within_a_text_counts_quotes() {
        for (text, column) in [("a: CN = x", 9), ("a: 'CN = x'", 10), ("a: \"CN = x\"", 10), ("a: \"\\x43N = x\"", 4)] {
            let (documents, _) = read(text);
            assert_eq!(documents[0].entry("a").unwrap().place_within(5).column, column, "{text}");
        }
    }

    #[test]
    fn a_mapping_as_key_is_refused() {
        assert!(read("? {a: 1}\n: 2\n").1.contains("a key must be text"));
        assert!(read("17: x\n").1.contains("must be text: write it in quotes"));
    }
}
