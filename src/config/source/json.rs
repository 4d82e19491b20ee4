//! JSON (RFC 8259) into nodes.
//!
//! A reader of its own beside the YAML one, although YAML claims to contain JSON: YAML knows no surrogate pairs
//! (`"\ud83d\ude00"`), refuses some uses of tabs, and takes comments and bare words. A file may hold several values one
//! after the other.

use super::{DEPTH_MAX, Key, NODES_MAX, Node, Open, Value};
use crate::config::diagnostic::{Place, Report};
use std::sync::Arc;

/// Reads every value of `text`.
pub(super) fn parse(file: &Arc<str>, text: &str, report: &mut Report) -> Vec<Node> {
    let place = Place { file: file.clone(), line: 1, column: 1 };
    let mut reader = Reader { rest: text, place, nodes: 0 };
    let mut documents = Vec::new();
    loop {
        reader.skip_white_space();
        if reader.rest.is_empty() {
            return documents;
        }
        match reader.document(report) {
            Ok(node) => documents.push(node),
            Err(fault) => {
                report.error(&fault.place, format!("not JSON: {}", fault.message));
                return Vec::new();
            }
        }
    }
}

struct Fault {
    place: Place,
    message: &'static str,
}

struct Reader<'a> {
    rest: &'a str,
    place: Place,
    nodes: usize,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// A value.
    Value,
    /// A value, or the end of an empty list.
    FirstElement,
    /// A key, or the end of an empty object.
    FirstKey,
    /// A key.
    Key,
    /// A comma or the end of the container.
    Separator,
}

impl Reader<'_> {
    fn fault<T>(&self, message: &'static str) -> Result<T, Fault> {
        Err(Fault { place: self.place.clone(), message })
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.rest = self.rest.get(character.len_utf8()..).unwrap_or_default();
        super::advance(&mut self.place, core::iter::once(character));
        Some(character)
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.next();
        }
    }

    /// One value, without recursion: `stack` holds the containers that are open.
    fn document(&mut self, report: &mut Report) -> Result<Node, Fault> {
        let mut stack: Vec<Open> = Vec::new();
        let mut expect = Expect::Value;
        loop {
            self.skip_white_space();
            let place = self.place.clone();
            let Some(character) = self.peek() else { return self.fault("the file ends inside a value") };
            let finished = match (expect, character) {
                (Expect::FirstElement | Expect::Separator, ']') if matches!(stack.last(), Some(Open::Sequence(..))) => {
                    self.next();
                    stack.pop().map(Open::close)
                }
                (Expect::FirstKey | Expect::Separator, '}') if matches!(stack.last(), Some(Open::Mapping { .. })) => {
                    self.next();
                    stack.pop().map(Open::close)
                }
                (Expect::Separator, ',') => {
                    self.next();
                    expect = match stack.last() {
                        Some(Open::Mapping { .. }) => Expect::Key,
                        Some(Open::Sequence(..)) | None => Expect::Value,
                    };
                    continue;
                }
                (Expect::Separator, _) => return self.fault("expected a comma or the end of the list or object"),
                (Expect::Key | Expect::FirstKey, '"') => {
                    let (text, _) = self.string()?;
                    self.skip_white_space();
                    if self.peek() != Some(':') {
                        return self.fault("expected a colon after the key");
                    }
                    self.next();
                    if let Some(Open::Mapping { key, .. }) = stack.last_mut() {
                        *key = Some(Key { place, text });
                    }
                    expect = Expect::Value;
                    continue;
                }
                (Expect::Key | Expect::FirstKey, _) => return self.fault("expected a key in double quotes"),
                (Expect::Value | Expect::FirstElement, '[' | '{') => {
                    self.next();
                    if stack.len() >= DEPTH_MAX {
                        return Err(Fault { place, message: "nested too deeply" });
                    }
                    self.count()?;
                    if character == '[' {
                        stack.push(Open::Sequence(place, Vec::new()));
                        expect = Expect::FirstElement;
                    } else {
                        stack.push(Open::mapping(place));
                        expect = Expect::FirstKey;
                    }
                    continue;
                }
                (Expect::Value | Expect::FirstElement, _) => {
                    self.count()?;
                    Some(self.scalar(place, character)?)
                }
            };
            let Some(node) = finished else { return self.fault("unbalanced brackets") };
            expect = Expect::Separator;
            match stack.last_mut() {
                Some(open) => open.add(node, report),
                None => return Ok(node),
            }
        }
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > NODES_MAX { self.fault("too many values in one file") } else { Ok(()) }
    }

    fn scalar(&mut self, place: Place, first: char) -> Result<Node, Fault> {
        if first == '"' {
            let (text, verbatim) = self.string()?;
            return Ok(Node { place, text_offset: verbatim.then_some(1), value: Value::Text(text) });
        }
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'))
            .unwrap_or(self.rest.len());
        let word = self.rest.get(..end).unwrap_or_default();
        let value = match word {
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ if is_number(word) => Value::Number(word.to_owned()),
            _ => return self.fault("expected a value"),
        };
        for _ in 0..end {
            self.next();
        }
        Ok(Node { place, text_offset: None, value })
    }

    /// A string, and whether it stands in the file without escapes.
    fn string(&mut self) -> Result<(String, bool), Fault> {
        let start = self.place.clone();
        self.next();
        let mut text = String::new();
        let mut verbatim = true;
        loop {
            let here = self.place.clone();
            match self.next() {
                None => return Err(Fault { place: start, message: "the string has no end" }),
                Some('"') => return Ok((text, verbatim)),
                Some('\\') => {
                    verbatim = false;
                    text.push(self.escape(here)?);
                }
                Some(character) if character < ' ' => {
                    return Err(Fault { place: here, message: "a control character inside a string must be escaped" });
                }
                Some(character) => text.push(character),
            }
        }
    }

    fn escape(&mut self, place: Place) -> Result<char, Fault> {
        Ok(match self.next() {
            Some('"') => '"',
            Some('\\') => '\\',
            Some('/') => '/',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.unicode(place),
            Some(_) | None => return Err(Fault { place, message: "unknown escape" }),
        })
    }

    fn unicode(&mut self, place: Place) -> Result<char, Fault> {
        let lone = || Fault { place: place.clone(), message: "a lone surrogate is not a character" };
        let first = self.hexadecimal(&place)?;
        if !(0xD800..0xE000).contains(&first) {
            return char::from_u32(first).ok_or_else(lone);
        }
        if first >= 0xDC00 || self.next() != Some('\\') || self.next() != Some('u') {
            return Err(lone());
        }
        let second = self.hexadecimal(&place)?;
        if !(0xDC00..0xE000).contains(&second) {
            return Err(lone());
        }
        char::from_u32(0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)).ok_or_else(lone)
    }

    fn hexadecimal(&mut self, place: &Place) -> Result<u32, Fault> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(digit) = self.next().and_then(|character| character.to_digit(16)) else {
                return Err(Fault { place: place.clone(), message: "\\u needs four hexadecimal digits" });
            };
            value = value * 16 + digit;
        }
        Ok(value)
    }
}

/// RFC 8259 §6.
fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::super::{Syntax, parse};
    use super::*;

    fn read(text: &str) -> (Vec<Node>, String) {
        let mut report = Report::new();
        let documents = parse("f", text.as_bytes(), Syntax::Json, &mut report);
        (documents, report.finish().to_string())
    }

    fn text_of(node: &Node) -> &str {
        match &node.value {
            Value::Text(text) => text,
            _ => panic!("not text"),
        }
    }

    #[test]
    fn surrogate_pairs_are_one_character_and_lone_ones_are_refused() {
        let (documents, errors) = read("[\"\\ud83d\\ude00\", \"\\u00e9\\/\"]");
        assert_eq!(errors, "");
        let Value::Sequence(elements) = &documents[0].value else { panic!() };
        assert_eq!((text_of(&elements[0]), text_of(&elements[1])), ("\u{1f600}", "\u{e9}/"));
        for lone in ["\"\\ud83d\"", "\"\\ude00\"", "\"\\ud83dx\"", "\"\\ud83d\\u0041\""] {
            assert!(read(lone).1.contains("lone surrogate"), "{lone}");
        }
    }

    #[test]
    fn values_may_follow_each_other() {
        assert_eq!(read("{}\n[]\n\"x\"").0.len(), 3);
    }

    #[test]
    fn mistakes_have_their_place() {
        for (text, expected) in [
            ("{\"a\": 1,}", "f:1:9: error: not JSON: expected a key in double quotes\n"),
            ("{\"a\" 1}", "f:1:6: error: not JSON: expected a colon after the key\n"),
            ("[1 2]", "f:1:4: error: not JSON: expected a comma or the end of the list or object\n"),
            ("[1,\n  01]", "f:2:3: error: not JSON: expected a value\n"),
            ("[", "f:1:2: error: not JSON: the file ends inside a value\n"),
            ("[}", "f:1:2: error: not JSON: expected a value\n"),
            ("{]", "f:1:2: error: not JSON: expected a key in double quotes\n"),
            ("[1}", "f:1:3: error: not JSON: expected a comma or the end of the list or object\n"),
            ("\"\\x\"", "f:1:2: error: not JSON: unknown escape\n"),
            ("[,]", "f:1:2: error: not JSON: expected a value\n"),
            ("[1,]", "f:1:4: error: not JSON: expected a value\n"),
            ("// x", "f:1:1: error: not JSON: expected a value\n"),
        ] {
            assert_eq!(read(text).1, expected, "{text}");
        }
    }

    #[test]
    fn a_repeated_key_is_refused() {
        assert!(read("{\"a\": 1, \"b\": 2, \"a\": 3}").1.contains("f:1:18: error: the key \"a\" stands here twice"));
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(read(&"[".repeat(100_000)).1.contains("nested too deeply"));
    }
}
