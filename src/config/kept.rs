//! What a [`Persistence`] keeps: which topics, whose queues, and what its lists must be.
//!
//! **Invariant:** a comparison takes time in proportion to the two texts, whatever stands in the pattern, and allocates
//! nothing. Whether something *can* be kept (a Session Expiry Interval, room on the disk) is not decided here.

use super::blob::{Kept, Persistence};
use super::topic::{check_filter, is_too_deep};
use crate::codec::topic;
use crate::limits::CLIENT_IDENTIFIER_BYTES_MAX;
use core::ops::RangeInclusive;

/// Bytes that the log may take. The vendor's broker needs more than 100 MB; a gateway has less to keep.
pub const SIZE_BYTES: RangeInclusive<u64> = 16 * 1024 * 1024..=1 << 40;
/// Milliseconds between two writes to the disk. 1,000 at most: acknowledgements wait for the write.
pub const COMMIT_INTERVAL_MILLISECONDS: RangeInclusive<u16> = 0..=1_000;
/// Most patterns of one list.
pub const PATTERNS_MAX: usize = 64;
/// Bytes that the patterns of one list may take together.
pub const PATTERN_BYTES_MAX: usize = 16 * 1024;

impl Default for Persistence {
    /// Everything is kept: nothing that was acknowledged is lost unless somebody has said so.
    fn default() -> Self {
        Self {
            size_bytes: 256 * 1024 * 1024,
            retain: Kept::All,
            subscriber_queue: Kept::All,
            commit_interval_milliseconds: 5,
        }
    }
}

impl Persistence {
    /// Whether nothing is kept at all, whatever clients ask for.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.retain == Kept::None && self.subscriber_queue == Kept::None
    }

    /// Whether it is within all bounds and has no pattern that could not have been written in a resource.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        SIZE_BYTES.contains(&self.size_bytes)
            && COMMIT_INTERVAL_MILLISECONDS.contains(&self.commit_interval_milliseconds)
            && self.retain.has_only(|pattern| {
                check_filter(pattern).is_ok() && !is_too_deep(pattern) && !pattern.starts_with("$share/")
            })
            && self.subscriber_queue.has_only(is_client_identifier_pattern)
    }
}

impl Kept {
    /// Whether a retained message of the valid Topic Name `topic` is kept. `asks`: its PUBLISH has the user property
    /// `aio-persistence: true`. `All` means all, `$` topics included; a filter with a leading wildcard means none of those
    /// [MQTT-4.7.2-1].
    #[must_use]
    pub fn covers_topic(&self, topic: &str, asks: bool) -> bool {
        self.covers(asks, |pattern| topic::matches(pattern, topic))
    }

    /// Whether the queue of a client is kept. `asks`: its CONNECT has the user property `aio-persistence: true`.
    #[must_use]
    pub fn covers_client(&self, client_identifier: &str, asks: bool) -> bool {
        self.covers(asks, |pattern| matches_glob(pattern, client_identifier))
    }

    fn covers(&self, asks: bool, matches: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some { patterns, dynamic } => (*dynamic && asks) || patterns.iter().any(|pattern| matches(pattern)),
        }
    }

    /// Whether it covers something, its list is within bounds, and each pattern is valid.
    fn has_only(&self, is_valid: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::None | Self::All => true,
            Self::Some { patterns, dynamic } => {
                (*dynamic || !patterns.is_empty())
                    && patterns.len() <= PATTERNS_MAX
                    && patterns.iter().map(String::len).sum::<usize>() <= PATTERN_BYTES_MAX
                    && patterns.iter().all(|pattern| is_valid(pattern))
            }
        }
    }
}

/// Whether a client identifier could match: not empty, without U+0000, and not longer than one without its `*`.
pub(super) fn is_client_identifier_pattern(pattern: &str) -> bool {
    let literal = pattern.bytes().filter(|byte| *byte != b'*').count();
    !pattern.is_empty() && !pattern.contains('\0') && literal <= CLIENT_IDENTIFIER_BYTES_MAX
}

/// Whether `pattern`, in which each `*` stands for any number of characters, matches all of `text`.
///
/// The pieces between two `*` are looked for from left to right and each is taken where it is found first: a later place
/// would leave less for those that follow. So nothing is ever tried twice.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(last) = pieces.next_back() else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    pieces.all(|piece| match rest.split_once(piece) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(patterns: &[&str], dynamic: bool) -> Kept {
        Kept::Some { patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(), dynamic }
    }

    #[test]
    fn a_star_stands_for_any_number_of_characters() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a", "", false),
            ("*", "", true),
            ("*", "anything/at all", true),
            ("**", "a", true),
            ("a*", "a", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("ab*ba", "aba", false),
            ("ab*ba", "abba", true),
            ("*b*", "abc", true),
            ("*b*b*", "abc", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*ab*b", "aab", false),
            ("*ab*b", "abab", true),
            ("gerät-*", "gerät-7", true),
            ("?+#", "?+#", true),
            ("?", "a", false),
        ] {
            assert_eq!(matches_glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// Tries every split, which the matcher must never need to.
    fn matches_naively(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|skipped| matches_naively(rest, &text[skipped..])),
            [byte, rest @ ..] => text.first() == Some(byte) && matches_naively(rest, &text[1..]),
        }
    }

    fn texts_of(alphabet: &str, length_max: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut begin = 0;
        for _ in 0..length_max {
            let end = all.len();
            for index in begin..end {
                let longer: Vec<String> = alphabet.chars().map(|letter| format!("{}{letter}", all[index])).collect();
                all.extend(longer);
            }
            begin = end;
        }
        all
    }

    #[test]
    fn the_glob_agrees_with_a_naive_one_on_all_short_texts() {
        let texts = texts_of("ab", 5);
        for pattern in texts_of("ab*", 5) {
            for text in &texts {
                let expected = matches_naively(pattern.as_bytes(), text.as_bytes());
                assert_eq!(matches_glob(&pattern, text), expected, "{pattern} {text}");
            }
        }
    }

    #[test]
    fn many_stars_cost_no_more_than_few() {
        // 2^40 ways to split for whoever tries them all: this returns at once or never.
        let text = "a".repeat(CLIENT_IDENTIFIER_BYTES_MAX);
        assert!(!matches_glob(&format!("{}b", "a*".repeat(40)), &text));
        assert!(!matches_glob(&format!("{}b*", "*a".repeat(40)), &text));
        assert!(matches_glob(&"*a".repeat(CLIENT_IDENTIFIER_BYTES_MAX), &text));
        assert!(!matches_glob(&"*a".repeat(CLIENT_IDENTIFIER_BYTES_MAX + 1), &text));
    }

    #[test]
    fn a_leading_wildcard_keeps_no_dollar_topic() {
        let kept = some(&["#", "+/a", "$own/#"], false);
        assert!(kept.covers_topic("a/b", false) && kept.covers_topic("$own/b", false));
        assert!(!kept.covers_topic("$SYS/broker", false) && !some(&["+/a"], false).covers_topic("$x/a", false));
        assert!(!some(&["a/+"], false).covers_topic("a/b/c", false));
        assert!(some(&["a/#"], false).covers_topic("a", false));
    }

    #[test]
    fn who_asks_is_heard_only_where_it_is_dynamic() {
        let (named, dynamic) = (some(&["a*"], false), some(&["a*"], true));
        assert!(named.covers_client("ab", false) && named.covers_client("ab", true));
        assert!(!named.covers_client("b", true));
        assert!(dynamic.covers_client("b", true) && !dynamic.covers_client("b", false));
        assert!(!Kept::None.covers_client("a", true) && !Kept::None.covers_topic("a", true));
        assert!(Kept::All.covers_client("a", false) && Kept::All.covers_topic("$a", false));
    }

    #[test]
    fn it_is_off_only_if_nothing_can_ever_be_kept() {
        let of = |retain: &Kept, subscriber_queue: &Kept| {
            let (retain, subscriber_queue) = (retain.clone(), subscriber_queue.clone());
            Persistence { retain, subscriber_queue, ..Persistence::default() }.is_off()
        };
        assert!(of(&Kept::None, &Kept::None));
        assert!(!of(&Kept::None, &Kept::All) && !of(&some(&[], true), &Kept::None));
        assert!(!Persistence::default().is_off());
    }

    #[test]
    fn lists_keep_their_bounds() {
        let retain = |retain: Kept| Persistence { retain, ..Persistence::default() }.is_valid();
        let queues = |subscriber_queue: Kept| Persistence { subscriber_queue, ..Persistence::default() }.is_valid();
        assert!(Persistence::default().is_valid());
        assert!(retain(some(&["a"; PATTERNS_MAX], false)) && !retain(some(&["a"; PATTERNS_MAX + 1], false)));
        assert!(retain(some(&[], true)) && !retain(some(&[], false)));
        for filter in
            ["", "a#", "$share/g/a", "a\0", &"/".repeat(PATTERN_BYTES_MAX), &"a".repeat(PATTERN_BYTES_MAX + 1)]
        {
            assert!(!retain(some(&[filter], true)), "{filter:.20}");
        }
        let longest = "a".repeat(CLIENT_IDENTIFIER_BYTES_MAX);
        assert!(queues(some(&["*", &format!("*{longest}*")], false)));
        for pattern in ["", "a\0", &format!("{longest}a")] {
            assert!(!queues(some(&[pattern], false)), "{pattern:.20}");
        }
    }
}
