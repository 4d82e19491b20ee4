//! Whether one Topic Filter covers another.
//!
//! A SUBSCRIBE is allowed when one allowed pattern matches every topic that the requested filter can match. To match the
//! filter as if it were a topic, as a broker before this one did, would let `a/+` grant `a/#`, and `+` grant everything.

/// Whether `allowed` matches every topic that `requested` matches. Both are valid Topic Filters, `requested` without
/// `$share/<group>/`.
///
/// Level by level: `#` covers what follows, and its parent level; `+` covers a literal or `+`, never `#`; a literal covers
/// itself. No wildcard in the first level covers a level that begins with `$` [MQTT-4.7.2-1]. The answer is on the safe
/// side: `+/#` matches what `#` matches and does not cover it.
#[must_use]
pub fn covers(allowed: &str, requested: &str) -> bool {
    if requested.starts_with('$') && allowed.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = requested.split('/');
    for pattern in allowed.split('/') {
        if pattern == "#" {
            return true;
        }
        match levels.next() {
            Some("#") => return false,
            Some("+") if pattern == "+" => {}
            Some("+") => return false,
            Some(level) if pattern == "+" || pattern == level => {}
            Some(_) | None => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::covers;
    use crate::codec::topic::matches;

    #[test]
    fn coverage_is_as_the_vectors_say() {
        for (allowed, requested, covered) in [
            ("a/b", "a/b", true),
            ("a/b", "a/+", false),
            ("a/+", "a/b", true),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("+", "#", false),
            ("+", "+/+", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "a/+", true),
            ("a/#", "a/+/c/#", true),
            ("a/#", "#", false),
            ("a/#", "+/#", false),
            ("#", "#", true),
            ("#", "+", true),
            ("#", "$SYS/#", false),
            ("+", "$SYS", false),
            ("+/b", "$SYS/b", false),
            ("$SYS/#", "$SYS/x", true),
            ("blah/blah2/#", "blah/#", false),
            ("blah/+/blah2", "blah/blah1/#", false),
            ("blah/+/blah2", "blah/+/blah1", false),
            ("blah/+", "blah/blah1/#", false),
            ("blah/blah1", "blah/blah1/+", false),
            ("blah/blah1/blah2", "blah/blah/+", false),
            ("/a", "a", false),
            ("a/", "a", false),
            ("a//b", "a/+/b", false),
            ("a/+/b", "a//b", true),
            ("a/b", "A/b", false),
        ] {
            assert_eq!(covers(allowed, requested), covered, "{allowed} covers {requested}");
        }
    }

    /// A small deterministic generator (SplitMix64).
    struct Seed(u64);

    impl Seed {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
        }

        /// A topic or filter of up to five levels over a small alphabet, so that matches are frequent.
        fn levels(&mut self, words: &[&'static str], multi: bool) -> String {
            let count = 1 + self.below(4);
            let mut levels: Vec<&str> = (0..count).map(|_| words[self.below(words.len())]).collect();
            if multi && self.below(3) == 0 {
                levels.push("#");
            }
            levels.join("/")
        }
    }

    #[test]
    fn what_is_covered_matches_no_topic_that_is_not_allowed() {
        let mut seed = Seed(20_260_701);
        let (mut covered, mut matched) = (0, 0);
        for round in 0..200_000 {
            let filters = ["a", "b", "", "$x", "+", "+"];
            let (allowed, requested) = (seed.levels(&filters, true), seed.levels(&filters, true));
            if !covers(&allowed, &requested) {
                continue;
            }
            covered += 1;
            for _ in 0..20 {
                let topic = seed.levels(&["a", "b", "", "$x"], false);
                if matches(&requested, &topic) {
                    matched += 1;
                    assert!(matches(&allowed, &topic), "round {round}: {allowed} covers {requested}, topic {topic}");
                }
            }
        }
        assert!(covered > 1_000 && matched > 1_000, "the property was exercised: {covered}, {matched}");
    }

    #[test]
    fn a_literal_filter_is_covered_exactly_when_it_is_matched() {
        let mut seed = Seed(7);
        for _ in 0..50_000 {
            let allowed = seed.levels(&["a", "b", "", "$x", "+"], true);
            let topic = seed.levels(&["a", "b", "", "$x"], false);
            assert_eq!(covers(&allowed, &topic), matches(&allowed, &topic), "{allowed} {topic}");
        }
    }

    #[test]
    fn a_filter_of_thirty_thousand_levels_is_judged_without_recursion() {
        let filter = "+/".repeat(30_000);
        assert!(covers("#", &filter));
        assert!(covers(&filter, &filter));
        assert!(!covers(&filter, &format!("{filter}#")));
    }
}
