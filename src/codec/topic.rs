//! Topic Names, Topic Filters and Shared Subscriptions (MQTT 5 §4.7, §4.8): what is valid, and what matches.
//!
//! Names and filters are compared byte by byte; nothing is normalised [MQTT-4.7.3-4]. Depth is not bounded here: whoever
//! stores levels bounds them (`limits::TOPIC_LEVELS_MAX`). No recursion, and time in proportion to the texts.

use core::fmt;

/// Longest Topic Name or Topic Filter, in bytes. [MQTT-4.7.3-3]
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Why a text is no Topic Name or no Topic Filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// Without a character. [MQTT-4.7.3-1]
    Empty,
    /// More than [`TOPIC_BYTES_MAX`] bytes. [MQTT-4.7.3-3]
    TooLong,
    /// With U+0000. [MQTT-4.7.3-2]
    Nul,
    /// A Topic Name with `+` or `#`. [MQTT-4.7.0-1]
    WildcardInName,
    /// `#` that is not alone in the last level. [MQTT-4.7.1-1]
    MultiLevelWildcard,
    /// `+` that is not alone in its level. [MQTT-4.7.1-2]
    SingleLevelWildcard,
    /// A Shared Subscription whose ShareName is empty, has a wildcard, or is not followed by `/`. [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    ShareName,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::TooLong => "longer than 65535 bytes",
            Self::Nul => "contains U+0000",
            Self::WildcardInName => "a Topic Name contains a wildcard",
            Self::MultiLevelWildcard => "'#' is not alone in the last level",
            Self::SingleLevelWildcard => "'+' is not alone in its level",
            Self::ShareName => "the ShareName is not valid",
        })
    }
}

impl core::error::Error for TopicError {}

/// The label of an Application Message: at least one character, no wildcard, no U+0000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks the text.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        check_text(text)?;
        if text.bytes().any(|byte| matches!(byte, b'+' | b'#')) {
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(text))
    }

    /// The whole text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels between the separators: at least one, each possibly empty.
    pub fn levels(self) -> core::str::Split<'a, char> {
        self.0.split('/')
    }
}

/// A filter that Topic Names are matched against. A text that starts with `$share/` is one only in form: use
/// [`Subscription::parse`] for what a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a str);

impl<'a> TopicFilter<'a> {
    /// Checks the text.
    ///
    /// # Errors
    /// The first rule that is broken; a SUBSCRIBE answers it with 0x8F (Topic Filter invalid).
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        check_text(text)?;
        let mut levels = text.split('/');
        while let Some(level) = levels.next() {
            if level.contains('#') && (level.len() > 1 || levels.clone().next().is_some()) {
                return Err(TopicError::MultiLevelWildcard);
            }
            if level.contains('+') && level.len() > 1 {
                return Err(TopicError::SingleLevelWildcard);
            }
        }
        Ok(Self(text))
    }

    /// The whole text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels between the separators: at least one, each possibly empty.
    pub fn levels(self) -> core::str::Split<'a, char> {
        self.0.split('/')
    }

    /// Whether it has `+` or `#`.
    #[must_use]
    pub fn has_wildcard(self) -> bool {
        self.0.bytes().any(|byte| matches!(byte, b'+' | b'#'))
    }

    /// Whether the filter matches the name.
    #[must_use]
    pub fn matches(self, topic: TopicName<'_>) -> bool {
        matches(self.0, topic.0)
    }
}

/// `$share/{ShareName}/{filter}`: one message goes to one of the subscribers that give the same ShareName (§4.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SharedSubscription<'a> {
    /// The group: not empty, without `/`, `+` and `#`.
    pub share_name: &'a str,
    /// What the group subscribes to.
    pub filter: TopicFilter<'a>,
}

/// What the text in a SUBSCRIBE or UNSUBSCRIBE asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subscription<'a> {
    /// A subscription of this session alone.
    NonShared(TopicFilter<'a>),
    /// A part in a Shared Subscription.
    Shared(SharedSubscription<'a>),
}

impl<'a> Subscription<'a> {
    /// Checks the text and splits off the ShareName.
    ///
    /// # Errors
    /// The first rule that is broken; answered with 0x8F (Topic Filter invalid).
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        let filter = TopicFilter::parse(text)?;
        let Some(rest) = text.strip_prefix("$share/") else { return Ok(Self::NonShared(filter)) };
        let (share_name, filter) = rest.split_once('/').ok_or(TopicError::ShareName)?;
        if share_name.is_empty() || share_name.contains(['+', '#']) {
            return Err(TopicError::ShareName);
        }
        Ok(Self::Shared(SharedSubscription { share_name, filter: TopicFilter::parse(filter)? }))
    }

    /// What Topic Names are matched against: the text without `$share/{ShareName}/`.
    #[must_use]
    pub const fn filter(self) -> TopicFilter<'a> {
        match self {
            Self::NonShared(filter) | Self::Shared(SharedSubscription { filter, .. }) => filter,
        }
    }
}

/// Whether the valid Topic Filter `filter` matches the valid Topic Name `topic`. A name that begins with `$` is never
/// matched by a leading wildcard [MQTT-4.7.2-1]; `#` matches the parent level too (§4.7.1.2). What it says about texts
/// that are not valid means nothing.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for level in filter.split('/') {
        match (level, topic_levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(topic_level)) if level == topic_level => {}
            (_, Some(_) | None) => return false,
        }
    }
    topic_levels.next().is_none()
}

/// What holds for names and filters alike (§4.7.3).
fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if text.as_bytes().contains(&0) {
        return Err(TopicError::Nul);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MATCH: &[(&str, &str)] = &[
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
        // `#` includes the parent level (§4.7.1.2).
        ("sport/#", "sport"),
        ("sport/tennis/#", "sport/tennis"),
        ("sport/+/#", "sport/tennis"),
        ("+/#", "sport"),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
    ];

    const NO_MATCH: &[(&str, &str)] = &[
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
        ("sport/+", "sport"),
        ("ACCOUNTS", "Accounts"),
    ];

    const INVALID: &[&str] = &[
        "",
        "foo/#baz",
        "foo/baz#",
        "foo/#/baz",
        "sport+",
        "$share/mygroup",
        "$share//mytopic",
        "$share/mygroup/",
        "$share/mygroup+/x",
        "$share/#/x",
        "$share/+/x",
        "$share/g/a#",
        "##",
        "++",
        "a\0b",
    ];

    #[test]
    fn filters_match_as_the_vectors_say() {
        for (filter, topic) in MATCH {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in NO_MATCH {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn invalid_filters_are_refused() {
        // [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        for text in INVALID {
            assert!(Subscription::parse(text).is_err(), "{text:?}");
        }
        for (filter, _) in MATCH.iter().chain(NO_MATCH) {
            assert!(TopicFilter::parse(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn a_shared_subscription_starts_with_share_and_a_slash() {
        let Ok(Subscription::Shared(shared)) = Subscription::parse("$share/group1/mytopic/#") else { panic!() };
        assert_eq!((shared.share_name, shared.filter.as_str()), ("group1", "mytopic/#"));
        let Ok(Subscription::Shared(shared)) = Subscription::parse("$share/g//") else { panic!() };
        assert_eq!(shared.filter.as_str(), "/");
        for text in ["$sharetest/group1/mytopic", "$test/group1/mytopic", "share/group1/mytopic", "$share"] {
            assert!(matches!(Subscription::parse(text), Ok(Subscription::NonShared(_))), "{text}");
        }
    }

    #[test]
    fn a_topic_name_has_no_wildcard_and_at_least_one_character() {
        // [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2]
        assert_eq!(TopicName::parse("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::parse("a#"), Err(TopicError::WildcardInName));
        assert_eq!(TopicName::parse(""), Err(TopicError::Empty));
        assert_eq!(TopicName::parse("a\0"), Err(TopicError::Nul));
        assert!(TopicName::parse("/").is_ok_and(|name| name.levels().eq(["", ""])));
        assert!(TopicName::parse("Accounts payable").is_ok());
    }

    #[test]
    fn a_topic_ends_at_65535_bytes() {
        // [MQTT-4.7.3-3]
        let long = "x".repeat(65_536);
        assert_eq!(TopicName::parse(&long), Err(TopicError::TooLong));
        assert_eq!(TopicFilter::parse(&long), Err(TopicError::TooLong));
        assert!(TopicFilter::parse(&long[1..]).is_ok());
    }

    /// §4.7 said naively: by recursion over the levels.
    fn matches_levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => matches_levels(filter, topic),
            ([first, filter @ ..], [level, topic @ ..]) => first == level && matches_levels(filter, topic),
            _ => false,
        }
    }

    /// Every text of up to four levels from a small alphabet.
    fn texts(alphabet: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = alphabet.iter().map(|level| (*level).to_owned()).collect();
        let mut longest = all.clone();
        for _ in 0..3 {
            longest =
                longest.iter().flat_map(|text| alphabet.iter().map(move |level| format!("{text}/{level}"))).collect();
            all.extend_from_slice(&longest);
        }
        all
    }

    #[test]
    fn matching_agrees_with_a_naive_matcher_on_all_short_texts() {
        let topics: Vec<String> = texts(&["", "a", "$b"]);
        for filter in texts(&["", "a", "$b", "+", "#"]) {
            let Ok(parsed) = TopicFilter::parse(&filter) else { continue };
            let filter_levels: Vec<&str> = parsed.levels().collect();
            for topic in topics.iter().filter(|topic| !topic.is_empty()) {
                let name = TopicName::parse(topic).unwrap();
                let hidden = topic.starts_with('$') && matches!(filter_levels[0], "+" | "#");
                let topic_levels: Vec<&str> = name.levels().collect();
                let expected = !hidden && matches_levels(&filter_levels, &topic_levels);
                assert_eq!(parsed.matches(name), expected, "{filter} {topic}");
            }
        }
    }
}
