//! Whether a Topic Filter matches a Topic Name. MQTT 5 §4.7.

/// Whether `filter` matches `topic`. Both are valid; the work is one pass over the shorter of the two.
///
/// A wildcard in the first level never matches a topic that begins with `$` [MQTT-4.7.2-1]; `a/#` matches `a` too.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for pattern in filter.split('/') {
        if pattern == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if pattern == "+" || pattern == level => {}
            Some(_) | None => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn filters_match_as_the_specification_says() {
        for (filter, topic) in [
            ("+", "sport"),
            ("#", "sport/tennis/player1"),
            ("#", "/"),
            ("sport/tennis/+", "sport/tennis/"),
            ("sport/+/+", "sport//player1"),
            ("+/+", "/sport"),
            ("+/+", "sport/"),
            ("+/#", "//"),
            ("$SYS/#", "$SYS/broker/log"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("$SYS//Clients", "$SYS//Clients"),
            ("/finance", "/finance"),
            ("sport/#", "sport"),
            ("sport/tennis/#", "sport/tennis"),
            ("sport/+/#", "sport/tennis"),
            ("+/#", "sport"),
        ] {
            assert!(matches(filter, topic), "{filter} matches {topic}");
        }
    }

    #[test]
    fn filters_match_nothing_else() {
        for (filter, topic) in [
            ("sport", "sport/tennis"),
            ("+", "/sport"),
            ("+", "sport/"),
            ("+", "$SYS"),
            ("#", "$SYS"),
            ("#", "$SYS/monitor/Clients"),
            ("+/tennis/player1", "$SYS/tennis/player1"),
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/tennis/+", "sport/tennis"),
            ("sport/+/#", "finance/banking/banker1"),
            ("+/+", "//"),
            ("+/#", "$SYS/monitor"),
            ("Sport", "sport"),
        ] {
            assert!(!matches(filter, topic), "{filter} does not match {topic}");
        }
    }

    #[test]
    fn a_topic_of_thirty_thousand_levels_is_judged_without_recursion() {
        let topic = "a/".repeat(30_000);
        assert!(matches("#", &topic));
        assert!(matches(&topic, &topic));
        assert!(!matches(&format!("{topic}b"), &topic));
    }
}
