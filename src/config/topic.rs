//! Topic Filters as rules use them: their validity. MQTT 5 §4.7.

pub use crate::codec::topic::TOPIC_BYTES_MAX;

use crate::limits::TOPIC_LEVELS_MAX;
use core::fmt;

/// What is wrong with a Topic Filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterFault {
    /// It has no characters. [MQTT-4.7.3-1]
    Empty,
    /// It is longer than 65,535 bytes. [MQTT-4.7.3-3]
    TooLong,
    /// It contains U+0000. [MQTT-4.7.3-2]
    Nul {
        /// Byte offset.
        at: usize,
    },
    /// `#` does not stand alone in the last level. [MQTT-4.7.1-1]
    MultiLevelWildcard {
        /// Byte offset of the level.
        at: usize,
    },
    /// `+` does not fill its level. [MQTT-4.7.1-2]
    SingleLevelWildcard {
        /// Byte offset of the level.
        at: usize,
    },
}

impl FilterFault {
    /// Byte offset of the fault.
    #[must_use]
    pub fn at(self) -> usize {
        match self {
            Self::Empty | Self::TooLong => 0,
            Self::Nul { at } | Self::MultiLevelWildcard { at } | Self::SingleLevelWildcard { at } => at,
        }
    }
}

impl fmt::Display for FilterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::TooLong => "it is longer than 65535 bytes",
            Self::Nul { .. } => "it contains U+0000",
            Self::MultiLevelWildcard { .. } => "\"#\" must stand alone in the last level",
            Self::SingleLevelWildcard { .. } => "\"+\" must fill its whole level",
        })
    }
}

/// Checks a Topic Filter. Allocates nothing; the work is one pass over the text.
///
/// # Errors
/// The first fault.
pub fn check_filter(filter: &str) -> Result<(), FilterFault> {
    if filter.is_empty() {
        return Err(FilterFault::Empty);
    }
    if filter.len() > TOPIC_BYTES_MAX {
        return Err(FilterFault::TooLong);
    }
    let mut at = 0;
    for level in filter.split('/') {
        let end = at + level.len();
        if let Some(offset) = level.bytes().position(|byte| byte == 0) {
            return Err(FilterFault::Nul { at: at + offset });
        }
        if level.contains('#') && (level != "#" || end != filter.len()) {
            return Err(FilterFault::MultiLevelWildcard { at });
        }
        if level.contains('+') && level != "+" {
            return Err(FilterFault::SingleLevelWildcard { at });
        }
        at = end + 1;
    }
    Ok(())
}

/// Whether a filter has more levels than the broker routes.
#[must_use]
pub fn is_too_deep(filter: &str) -> bool {
    filter.split('/').nth(TOPIC_LEVELS_MAX).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_fill_their_level() {
        for valid in ["#", "+", "/", "a", "a/#", "+/a/+", "/+", "a//b", "$SYS/#", "a b"] {
            assert_eq!(check_filter(valid), Ok(()), "{valid}");
        }
        assert_eq!(check_filter(""), Err(FilterFault::Empty));
        assert_eq!(check_filter("foo/#baz"), Err(FilterFault::MultiLevelWildcard { at: 4 }));
        assert_eq!(check_filter("foo/#/baz"), Err(FilterFault::MultiLevelWildcard { at: 4 }));
        assert_eq!(check_filter("sport+"), Err(FilterFault::SingleLevelWildcard { at: 0 }));
        assert_eq!(check_filter("a/b+/c"), Err(FilterFault::SingleLevelWildcard { at: 2 }));
        assert_eq!(check_filter("a/\0"), Err(FilterFault::Nul { at: 2 }));
        assert_eq!(check_filter(&"a".repeat(65_536)), Err(FilterFault::TooLong));
    }

    #[test]
    fn depth_is_counted_in_levels() {
        let levels = |count: usize| vec!["a"; count].join("/");
        assert!(!is_too_deep(&levels(TOPIC_LEVELS_MAX)));
        assert!(is_too_deep(&levels(TOPIC_LEVELS_MAX + 1)));
    }
}
