//! The topic patterns of one action, sorted by their levels: which of them match a topic or cover a filter.
//!
//! Sorted, the patterns that share their first levels stand side by side, so that a row of levels is a range of the table
//! and the next level is found in it by binary search. The table is the whole structure: there are no nodes.
//!
//! **Invariant:** all patterns of a range have the same bytes before the range's offset, and a level that begins there.
//! A search does not recurse and does not allocate; its steps are bounded by the patterns whose levels all match.

use super::client::{self, Client};
use crate::config::blob::{Action, Authorization, Text};
use crate::config::token::Token;
use crate::config::verify;
use crate::limits::TOPIC_LEVELS_MAX;
use core::ops::Range;

/// What a topic pattern is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// A Topic Name: a pattern must match it.
    Topic(&'a str),
    /// A Topic Filter without its `$share` part: a pattern must match all that it can match. azure-model §3.4.
    Filter(&'a str),
}

/// One pattern and the rules that have it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    pattern: Text,
    first_rule: u32,
    rules: u32,
}

/// Topic patterns of one action of a policy.
#[derive(Debug, Default)]
pub struct Patterns {
    entries: Box<[Entry]>,
    /// Indices of rules, ascending for each entry.
    rules: Box<[u32]>,
}

/// A range of patterns that are alike before `offset`, and how far it has been searched.
#[derive(Clone, Copy, Debug)]
struct Frame {
    low: usize,
    high: usize,
    /// Where the level begins in each pattern of the range, bytes.
    offset: usize,
    /// Where the level begins in what is asked, bytes.
    at: usize,
    next: Next,
}

/// What is looked for next in a range.
#[derive(Clone, Copy, Debug)]
enum Next {
    MultiLevel,
    SingleLevel,
    Literal,
    /// Tokens, from this position on.
    Tokens(usize),
}

/// Patterns of a range that grant the level at which it stands.
enum Group {
    /// One that ends with `#`, which grants all the rest as well.
    Rest(usize),
    /// Those whose level has so many bytes; what follows it must be granted too.
    Level { low: usize, high: usize, bytes: usize },
}

/// A level of what is asked.
struct Level<'a> {
    text: &'a str,
    is_first: bool,
    is_last: bool,
    /// It is a wildcard of a filter, and no text.
    is_wildcard: bool,
}

impl<'a> Level<'a> {
    /// The level that begins at byte `at`.
    fn at(asked: Asked<'a>, at: usize) -> Self {
        let (Asked::Topic(whole) | Asked::Filter(whole)) = asked;
        let rest = whole.get(at..).unwrap_or_default();
        let text = first_level(rest);
        let is_wildcard = matches!(asked, Asked::Filter(_)) && matches!(text, "+" | "#");
        Self { text, is_first: at == 0, is_last: text.len() == rest.len(), is_wildcard }
    }

    /// Whether no wildcard of a pattern grants it. [MQTT-4.7.2-1]
    fn is_system(&self) -> bool {
        self.is_first && self.text.starts_with('$')
    }
}

impl Patterns {
    /// The patterns of `action` in `table`, which [`verify::authorization`] has found good.
    #[must_use]
    pub fn new(table: &Authorization, action: Action) -> Self {
        let mut found: Vec<(Text, u32)> = Vec::new();
        for (index, rule) in (0_u32..).zip(&table.rules) {
            for resource in verify::slice_of(&table.resources, rule.resources).unwrap_or_default() {
                if resource.action == action {
                    let patterns = verify::slice_of(&table.patterns, resource.patterns).unwrap_or_default();
                    found.extend(patterns.iter().map(|pattern| (*pattern, index)));
                }
            }
        }
        let levels = |pattern: Text| verify::text_of(table, pattern).unwrap_or_default().split('/');
        found.sort_by(|(left, rule), (right, other)| levels(*left).cmp(levels(*right)).then(rule.cmp(other)));
        let text = |pattern: Text| verify::text_of(table, pattern).unwrap_or_default();
        found.dedup_by(|(left, rule), (right, other)| rule == other && text(*left) == text(*right));
        let mut entries: Vec<Entry> = Vec::new();
        for (position, (pattern, _)) in (0_u32..).zip(&found) {
            match entries.last_mut().filter(|entry| text(entry.pattern) == text(*pattern)) {
                Some(entry) => entry.rules += 1,
                None => entries.push(Entry { pattern: *pattern, first_rule: position, rules: 1 }),
            }
        }
        Self { entries: entries.into(), rules: found.into_iter().map(|(_, rule)| rule).collect() }
    }

    /// Bytes that the structure takes for so many patterns in so many places of rules.
    #[must_use]
    pub const fn bytes(patterns: u32) -> u64 {
        patterns as u64 * (size_of::<Entry>() + size_of::<u32>()) as u64
    }

    /// The first rule, of those that apply to `client`, with a pattern that grants what is asked.
    #[must_use]
    pub fn first_rule(&self, table: &Authorization, client: &Client<'_>, asked: Asked<'_>) -> Option<u32> {
        let mut first = None;
        self.search(table, client, asked, &mut |rules| {
            if let Some(rule) = first_applicable(rules, client) {
                first = Some(first.map_or(rule, |known: u32| known.min(rule)));
            }
        });
        first
    }

    /// Calls `found` with the rules of every pattern that grants what is asked, whether they apply to the client or not.
    pub fn search(&self, table: &Authorization, client: &Client<'_>, asked: Asked<'_>, found: &mut dyn FnMut(&[u32])) {
        // One range for every level of the deepest pattern. The pushes cannot fail: no valid pattern is deeper.
        let mut stack = heapless::Vec::<Frame, TOPIC_LEVELS_MAX>::new();
        let whole = Frame { low: 0, high: self.entries.len(), offset: 0, at: 0, next: Next::MultiLevel };
        let _ = stack.push(whole);
        while let Some(frame) = stack.last_mut() {
            let level = Level::at(asked, frame.at);
            match self.next_group(table, client, frame, &level) {
                None => {
                    stack.pop();
                }
                Some(Group::Rest(position)) => self.grant(position, found),
                Some(Group::Level { mut low, high, bytes }) => {
                    let end = frame.offset + bytes;
                    let at = frame.at + level.text.len() + 1;
                    // The pattern that ends here is the first of its group.
                    if self.entries.get(low).is_some_and(|entry| entry.pattern.length as usize == end) {
                        if level.is_last {
                            self.grant(low, found);
                        }
                        low += 1;
                    }
                    if !level.is_last && low < high {
                        let _ = stack.push(Frame { low, high, offset: end + 1, at, next: Next::MultiLevel });
                    } else if let Some((parent, _)) = self.group(table, low..high, end + 1, "#") {
                        // `a/#` matches `a` as well. §4.7.1.2
                        self.grant(parent, found);
                    }
                }
            }
        }
    }

    fn grant(&self, position: usize, found: &mut dyn FnMut(&[u32])) {
        let Some(entry) = self.entries.get(position) else { return };
        let start = entry.first_rule as usize;
        found(self.rules.get(start..start + entry.rules as usize).unwrap_or_default());
    }

    /// The next patterns of a range that grant `level`.
    fn next_group(
        &self,
        table: &Authorization,
        client: &Client<'_>,
        frame: &mut Frame,
        level: &Level<'_>,
    ) -> Option<Group> {
        let range = frame.low..frame.high;
        loop {
            match frame.next {
                Next::MultiLevel => {
                    frame.next = Next::SingleLevel;
                    if !level.is_system()
                        && let Some((position, _)) = self.group(table, range.clone(), frame.offset, "#")
                    {
                        return Some(Group::Rest(position));
                    }
                }
                Next::SingleLevel => {
                    // Only `#` covers `#`.
                    if level.is_wildcard && level.text == "#" {
                        return None;
                    }
                    frame.next = Next::Literal;
                    if !level.is_system()
                        && let Some((low, high)) = self.group(table, range.clone(), frame.offset, "+")
                    {
                        return Some(Group::Level { low, high, bytes: 1 });
                    }
                }
                Next::Literal => {
                    if level.is_wildcard {
                        return None;
                    }
                    frame.next = Next::Tokens(self.lower_bound(table, range.clone(), frame.offset, "{"));
                    // What a client calls like a token is none.
                    if !level.text.starts_with('{')
                        && let Some((low, high)) = self.group(table, range.clone(), frame.offset, level.text)
                    {
                        return Some(Group::Level { low, high, bytes: level.text.len() });
                    }
                }
                Next::Tokens(from) => {
                    let name = self
                        .entries
                        .get(from..frame.high)?
                        .first()
                        .map(|entry| level_in(table, entry, frame.offset))?;
                    let token = Token::parse(name)?;
                    let (low, high) = self.group(table, from..frame.high, frame.offset, name)?;
                    frame.next = Next::Tokens(high);
                    if client::level(token, level.is_first, client.identity, client.identifier) == Some(level.text) {
                        return Some(Group::Level { low, high, bytes: name.len() });
                    }
                }
            }
        }
    }

    /// The patterns of a range whose level at `offset` is `level`, if there are any.
    fn group(&self, table: &Authorization, range: Range<usize>, offset: usize, level: &str) -> Option<(usize, usize)> {
        let low = self.lower_bound(table, range.clone(), offset, level);
        let rest = self.entries.get(low..range.end).unwrap_or_default();
        let count = rest.partition_point(|entry| level_in(table, entry, offset) <= level);
        (count > 0).then_some((low, low + count))
    }

    /// Where the patterns of a range begin whose level at `offset` is not before `level`.
    fn lower_bound(&self, table: &Authorization, range: Range<usize>, offset: usize, level: &str) -> usize {
        let start = range.start;
        let entries = self.entries.get(range).unwrap_or_default();
        start + entries.partition_point(|entry| level_in(table, entry, offset) < level)
    }
}

/// The level of a pattern that begins at byte `offset` of it.
fn level_in<'a>(table: &'a Authorization, entry: &Entry, offset: usize) -> &'a str {
    let pattern = verify::text_of(table, entry.pattern).unwrap_or_default();
    first_level(pattern.get(offset..).unwrap_or_default())
}

fn first_level(text: &str) -> &str {
    text.split_once('/').map_or(text, |(level, _)| level)
}

/// The first of these rules, which are in order, that applies to the client.
fn first_applicable(rules: &[u32], client: &Client<'_>) -> Option<u32> {
    // Whichever is shorter is gone through: the rules of a pattern, or the rules of a client.
    if rules.len() / 16 <= client.rules.count() {
        return rules.iter().copied().find(|rule| client.rules.contains(*rule));
    }
    client.rules.iter().find(|rule| rules.binary_search(rule).is_ok())
}
