//! Topic maps: which messages cross a bridge, and under which name.
//!
//! A map has two Topic Filters with the same wildcards in the same order. What a wildcard of one stands for takes the place of
//! that of the other: `local: sensors/+/#` and `remote: site/7/+/values/#` make `site/7/a/values/b/c` of `sensors/a/b/c`. The
//! first map whose filter matches decides.

use crate::codec::{QoS, TopicName, matches};
use crate::config::blob::TopicMap;

/// Where a message goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'m> {
    /// To the topic that was written, as this map says.
    To(&'m TopicMap),
    /// No map matches.
    None,
    /// The name that would come out is no Topic Name, or begins with `$` where the map does not say so.
    Invalid,
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From here to the upstream.
    Out,
    /// From the upstream to here.
    In,
}

impl Direction {
    /// Filter of the side that a message comes from, and of the one it goes to.
    fn sides(self, map: &TopicMap) -> (&str, &str) {
        match self {
            Self::Out => (&map.local, &map.remote),
            Self::In => (&map.remote, &map.local),
        }
    }
}

/// The QoS that a map lets pass. QoS 2 is none of a bridge's: between two sessions that end at different times nothing arrives
/// exactly once.
#[must_use]
pub fn qos(map: &TopicMap, of_message: QoS) -> QoS {
    of_message.min(if map.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce })
}

/// Finds the map for `topic` and writes the topic on the other side into `renamed`.
pub fn route<'m>(maps: &'m [TopicMap], direction: Direction, topic: &str, renamed: &mut String) -> Route<'m> {
    renamed.clear();
    if TopicName::parse(topic).is_err() {
        return Route::Invalid;
    }
    let Some(map) = maps.iter().find(|map| matches(direction.sides(map).0, topic)) else { return Route::None };
    let (from, to) = direction.sides(map);
    rename(from, to, topic, renamed);
    let begins_as_told = !renamed.starts_with('$') || to.starts_with('$');
    if begins_as_told && TopicName::parse(renamed).is_ok() { Route::To(map) } else { Route::Invalid }
}

/// Writes what `topic`, which `from` matches, is called where `to` matches it.
fn rename(from: &str, to: &str, topic: &str, renamed: &mut String) {
    let mut parts = captures(from, topic);
    for (place, level) in to.split('/').enumerate() {
        let part = match level {
            "+" => parts.next().flatten(),
            // It may stand for no level at all, and then there is no separator either.
            "#" => match parts.next().flatten() {
                Some(rest) => Some(rest),
                None => return,
            },
            literal => Some(literal),
        };
        if place > 0 {
            renamed.push('/');
        }
        renamed.push_str(part.unwrap_or_default());
    }
}

/// What the wildcards of `from` stand for in `topic`, in order.
fn captures<'a>(from: &'a str, topic: &'a str) -> impl Iterator<Item = Option<&'a str>> {
    let mut rest = Some(topic);
    from.split('/').filter_map(move |level| {
        if level == "#" {
            return Some(rest.take());
        }
        let here = rest?;
        let (first, behind) = here.split_once('/').map_or((here, None), |(first, behind)| (first, Some(behind)));
        rest = behind;
        (level == "+").then_some(Some(first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(local: &str, remote: &str) -> TopicMap {
        TopicMap { local: local.to_owned(), remote: remote.to_owned(), qos: 1, retain: true }
    }

    fn renamed(local: &str, remote: &str, direction: Direction, topic: &str) -> Option<String> {
        let maps = [map(local, remote)];
        let mut renamed = String::new();
        matches!(route(&maps, direction, topic, &mut renamed), Route::To(_)).then_some(renamed)
    }

    #[test]
    fn what_wildcards_stand_for_crosses_in_order() {
        for (local, remote, there, here) in [
            ("sensors/#", "site/7/#", "sensors/a/b", "site/7/a/b"),
            ("sensors/#", "site/7/#", "sensors", "site/7"),
            ("sensors/#", "site/7/#", "sensors/", "site/7/"),
            ("#", "site/7/#", "a/b", "site/7/a/b"),
            ("a/+/b/+", "+/x/+", "a/1/b/2", "1/x/2"),
            ("a/+/#", "b/+/c/#", "a//", "b//c/"),
            ("a/b", "c", "a/b", "c"),
            ("a/+", "$edge/+", "a/1", "$edge/1"),
        ] {
            assert_eq!(renamed(local, remote, Direction::Out, there).as_deref(), Some(here), "{local} {remote}");
            assert_eq!(renamed(local, remote, Direction::In, here).as_deref(), Some(there), "{local} {remote}");
        }
    }

    #[test]
    fn a_topic_that_would_not_be_one_does_not_cross() {
        assert_eq!(renamed("#", "x/#", Direction::In, "x"), None, "nothing would be left");
        assert_eq!(renamed("#", "x/#", Direction::In, "x/$SYS/uptime"), None, "it would be one of the broker's own");
        assert_eq!(renamed("+/a", "b/+", Direction::In, "b/$share"), None);
        assert_eq!(renamed("a/#", "b/#", Direction::In, "b/+/c"), None, "a name has no wildcards");
        assert_eq!(renamed("a/#", "b/#", Direction::In, "b/\0"), None);
        assert_eq!(renamed("#", "#", Direction::Out, "$SYS/uptime"), None, "wildcards never match it");
        let long = format!("a/{}", "x".repeat(65_533));
        assert_eq!(renamed("a/#", "longer/#", Direction::Out, &long), None);
    }

    #[test]
    fn the_first_map_that_matches_decides() {
        let maps = [map("a/b", "first"), map("a/#", "second/#")];
        let mut topic = String::new();
        assert_eq!(route(&maps, Direction::Out, "a/b", &mut topic), Route::To(&maps[0]));
        assert_eq!(route(&maps, Direction::Out, "a/c", &mut topic), Route::To(&maps[1]));
        assert_eq!(route(&maps, Direction::Out, "c", &mut topic), Route::None);
        assert_eq!(route(&maps, Direction::In, "second/#", &mut topic), Route::Invalid);
    }
}
