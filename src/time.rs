//! Clock values. The rooms below `platform` never read a clock: every instant comes in as an argument.
//!
//! Two clocks, never subtracted from each other: [`Instant`] is monotonic and orders deadlines, [`UnixTime`] is the wall
//! clock and judges certificate dates. Both are read once a turn.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Milliseconds of a monotonic clock whose zero is the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The start of the process.
    pub const ZERO: Self = Self(0);

    /// An instant `milliseconds` after the start of the process.
    #[must_use]
    pub const fn from_milliseconds(milliseconds: u64) -> Self {
        Self(milliseconds)
    }

    /// Milliseconds since the start of the process.
    #[must_use]
    pub const fn as_milliseconds(self) -> u64 {
        self.0
    }

    /// The instant `milliseconds` later; saturates at the end of time.
    #[must_use]
    pub const fn plus_milliseconds(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// The instant `seconds` later; saturates at the end of time.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        self.plus_milliseconds(seconds.saturating_mul(1_000))
    }

    /// Milliseconds from `earlier` to `self`, 0 when `earlier` is later.
    #[must_use]
    pub const fn milliseconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Seconds of the wall clock since 1970-01-01T00:00:00Z. Certificate and credential dates are of this kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The time `seconds` later; saturates.
    #[must_use]
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Reads a `date-time` of RFC 3339 §5.6; `None` where it is none. Fractions are cut off, a leap second is the second
    /// after it, and everything before 1970 is 1970.
    #[must_use]
    pub fn from_rfc_3339(text: &str) -> Option<Self> {
        let (date_time, rest) = text.as_bytes().split_first_chunk::<19>()?;
        let [y1, y2, y3, y4, b'-', o1, o2, b'-', d1, d2, b'T' | b't', h1, h2, b':', m1, m2, b':', s1, s2] = *date_time
        else {
            return None;
        };
        let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[o1, o2])?, number(&[d1, d2])?);
        let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
        let rest = match rest.strip_prefix(b".") {
            None => rest,
            Some(fraction) => match fraction.iter().position(|byte| !byte.is_ascii_digit())? {
                0 => return None,
                end => fraction.get(end..)?,
            },
        };
        let offset_minutes = match *rest {
            [b'Z' | b'z'] => 0,
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let (hours, minutes) = (number(&[h1, h2])?, number(&[m1, m2])?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 60 + minutes) * if sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let leap_year = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days_of_month = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap_year => 29,
            2 => 28,
            _ => return None,
        };
        if !(1..=days_of_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        // The inverse of what Display does: years begin with March, so that the leap day is the last day of its year.
        let shifted_year = if month <= 2 { year - 1 } else { year };
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let leap_days = shifted_year.div_euclid(4) - shifted_year.div_euclid(100) + shifted_year.div_euclid(400);
        let days = shifted_year * 365 + leap_days + day_of_year - 719_468;
        let seconds = days * 86_400 + hour * 3_600 + (minute - offset_minutes) * 60 + second;
        // Leap seconds are inserted before midnight of UTC only.
        if second == 60 && seconds.rem_euclid(86_400) != 0 {
            return None;
        }
        Some(Self(u64::try_from(seconds).unwrap_or(0)))
    }
}

/// The value of a few decimal digits.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
}

/// When this release was made: 2026-11-01T00:00:00Z. A wall clock that shows less has not been set yet. Moves with each
/// release.
pub const RELEASED: UnixTime = UnixTime(1_793_491_200);

impl fmt::Display for UnixTime {
    /// RFC 3339 in UTC, without fractions: `2026-01-31T08:00:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0 / 86_400;
        let second_of_day = self.0 % 86_400;
        // Days since 0000-03-01, so that the leap day is the last day of its year.
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Both clocks, read once at the beginning of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock.
    pub unix: UnixTime,
}

/// Watches whether the wall clock goes on as the monotonic one does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steadiness {
    /// Seconds by which the wall clock is ahead of the monotonic one, and since when it has been.
    offset: Option<(u64, Instant)>,
}

impl Steadiness {
    /// By how much the wall clock may stray from the monotonic one before it counts as set, seconds.
    const STEP_SECONDS: u64 = 2;
    /// How long it must go on without being set to be believed.
    const STEADY_MILLISECONDS: u64 = 600_000;

    /// Looks at both clocks. Returns by how many seconds the wall clock was set since the look before, if it was.
    pub fn look(&mut self, now: Now) -> Option<u64> {
        let offset = now.unix.0.saturating_sub(now.instant.as_milliseconds() / 1_000);
        let (former, _) = *self.offset.get_or_insert((offset, now.instant));
        let step = former.abs_diff(offset);
        (step > Self::STEP_SECONDS).then(|| {
            self.offset = Some((offset, now.instant));
            step
        })
    }

    /// Whether it has not been set for long enough to be believed.
    #[must_use]
    pub fn is_steady(&self, now: Instant) -> bool {
        self.offset.is_some_and(|(_, since)| now.milliseconds_since(since) >= Self::STEADY_MILLISECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_must_be_steady_anew() {
        let at = |seconds: u64, unix: u64| Now {
            instant: Instant::from_milliseconds(seconds * 1_000),
            unix: UnixTime(unix),
        };
        let mut steadiness = Steadiness::default();
        assert!(!steadiness.is_steady(Instant::from_milliseconds(u64::MAX)), "nobody has looked yet");
        assert_eq!(steadiness.look(at(0, 1_000)), None);
        assert_eq!(steadiness.look(at(599, 1_601)), None, "two seconds are no step");
        assert!(!steadiness.is_steady(at(599, 0).instant) && steadiness.is_steady(at(600, 0).instant));
        assert_eq!(steadiness.look(at(700, 5_000)), Some(3_300));
        assert!(!steadiness.is_steady(at(1_299, 0).instant) && steadiness.is_steady(at(1_300, 0).instant));
    }

    #[test]
    fn unix_time_prints_as_rfc_3339() {
        assert_eq!(UnixTime(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(UnixTime(951_782_400).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(UnixTime(4_102_444_799).to_string(), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn rfc_3339_is_read_with_offsets_fractions_and_leap_seconds() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2099-12-31T23:59:59z", 4_102_444_799),
            ("2030-05-08t20:04:16+00:00", 1_904_501_056),
            ("2030-05-08T20:04:16-00:00", 1_904_501_056),
            ("2030-05-08T22:34:16+02:30", 1_904_501_056),
            ("2030-05-08T12:04:16-08:00", 1_904_501_056),
            ("2030-05-09T20:03:16+23:59", 1_904_501_056),
            ("2030-05-08T20:04:16.999999999999999999999Z", 1_904_501_056),
            ("2030-05-08T22:04:16.5+02:00", 1_904_501_056),
            ("2016-12-31T23:59:60Z", 1_483_228_800),
            ("2016-12-31T15:59:60.25-08:00", 1_483_228_800),
            ("9999-12-31T23:59:59Z", 253_402_300_799),
            ("1969-12-31T23:59:59Z", 0),
            ("0001-01-01T00:00:00Z", 0),
            ("0000-01-01T00:00:00+23:59", 0),
        ] {
            assert_eq!(UnixTime::from_rfc_3339(text), Some(UnixTime(seconds)), "{text}");
        }
        for day in 0..60_000 {
            let time = UnixTime(day * 86_400 + 12_345);
            assert_eq!(UnixTime::from_rfc_3339(&time.to_string()), Some(time));
        }
    }

    #[test]
    fn what_is_no_rfc_3339_is_no_time() {
        for text in [
            "",
            "2030",
            "2030-05-08",
            "2030-05-08T20:04:16",
            "2030-05-08 20:04:16Z",
            "2030-05-08T20:04Z",
            "2030-05-08T20:04:16.Z",
            "2030-05-08T20:04:16.5",
            "2030-05-08T20:04:16+0000",
            "2030-05-08T20:04:16+24:00",
            "2030-05-08T20:04:16+00:60",
            "2030-05-08T20:04:16ZZ",
            "2030-13-08T20:04:16Z",
            "2030-00-08T20:04:16Z",
            "2030-02-29T20:04:16Z",
            "2100-02-29T20:04:16Z",
            "2030-04-31T20:04:16Z",
            "2030-05-00T20:04:16Z",
            "2030-05-08T24:00:00Z",
            "2030-05-08T20:60:16Z",
            "2030-05-08T20:04:61Z",
            "2030-05-08T20:04:60Z",
            "2016-12-31T23:59:60+01:00",
            "12030-05-08T20:04:16Z",
            "+203-05-08T20:04:16Z",
            "2030-05-08T-1:04:16Z",
            "2030-05-08T20:04:16\u{ff3a}",
            "\u{ff12}030-05-08T20:04:16Z",
        ] {
            assert_eq!(UnixTime::from_rfc_3339(text), None, "{text}");
        }
    }

    #[test]
    fn an_instant_saturates_at_both_ends() {
        assert_eq!(Instant::from_milliseconds(u64::MAX).plus_seconds(1), Instant::from_milliseconds(u64::MAX));
        assert_eq!(Instant::ZERO.milliseconds_since(Instant::from_milliseconds(5)), 0);
    }
}
