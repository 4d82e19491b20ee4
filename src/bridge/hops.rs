//! Loops: messages carry the bridges that they have crossed.
//!
//! A bridge that forwards a message, out or in, adds a user property with its client identifier. What carries an identifier of
//! this gateway has been here: it is not brought in again and not sent out again. What has crossed as many bridges as `maxHops` is
//! not sent out by another one, and what has crossed one more is not brought in, which ends loops among gateways that do not know
//! of each other. No Local, on both sides, keeps the rest from coming at all.

/// The user property; one for each bridge, in the order of the way.
pub const HOP: &str = "portcullis-hop";

/// What a message's way says about forwarding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing against it.
    Open,
    /// It has been here.
    Loop,
    /// It has crossed enough bridges.
    TooLong,
}

/// Judges a message by its user properties. `own` are the client identifiers of all bridges of this gateway.
pub fn judge<'a>(properties: impl Iterator<Item = (&'a str, &'a str)>, own: &[String], hops_max: u8) -> Way {
    let mut count: usize = 0;
    for (_, bridge) in properties.filter(|(name, _)| *name == HOP) {
        count += 1;
        if own.iter().any(|own| own == bridge) {
            return Way::Loop;
        }
    }
    if count >= usize::from(hops_max) { Way::TooLong } else { Way::Open }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_been_here_goes_no_further() {
        let own = ["a".to_owned(), "b".to_owned()];
        let judge = |pairs: &[(&'static str, &'static str)], max| judge(pairs.iter().copied(), &own, max);
        assert_eq!(judge(&[], 1), Way::Open);
        assert_eq!(judge(&[("other", "a")], 1), Way::Open);
        assert_eq!(judge(&[(HOP, "c")], 1), Way::TooLong);
        assert_eq!(judge(&[(HOP, "c")], 2), Way::Open);
        assert_eq!(judge(&[(HOP, "c"), (HOP, "d"), (HOP, "e")], 9), Way::Open);
        assert_eq!(judge(&[(HOP, "c"), (HOP, "b")], 9), Way::Loop);
        assert_eq!(judge(&[(HOP, "a")], 1), Way::Loop);
    }
}
