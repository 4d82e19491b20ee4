//! What a bridge has to know of its own past, and no broker tells it: a few filters, kept beside the log.
//!
//! In and out: records that end with U+0000, which no filter has; the first byte says what the filter is.
//!
//! **Invariant:** bounded by [`BYTES_MAX`]; what is not known costs a subscription that stays, or retained messages that come
//! again, and nothing else.

use crate::config::blob::TopicMap;

/// Longest text of what is noted, bytes.
pub const BYTES_MAX: usize = 65_536;

/// A filter that the upstream has for us.
const INCOMING: u8 = b'i';
/// A filter of this broker's whose retained messages have not crossed.
const UNSENT: u8 = b'r';

/// What is noted of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Filters that were asked for at the upstream and not given up.
    pub incoming: Vec<String>,
    /// New filters of this broker's whose retained messages are yet to be asked for.
    pub unsent: Vec<String>,
}

impl Noted {
    /// Reads what [`Self::encode`] has written; what is not understood is not known.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        let mut noted = Self::default();
        let text = bytes.get(..bytes.len().min(BYTES_MAX)).and_then(|bytes| core::str::from_utf8(bytes).ok());
        for record in text.unwrap_or_default().split_terminator('\0') {
            let Some((kind, filter)) = record.split_at_checked(1) else { continue };
            match kind.as_bytes() {
                [INCOMING] => noted.incoming.push(filter.to_owned()),
                [UNSENT] => noted.unsent.push(filter.to_owned()),
                _ => {}
            }
        }
        noted
    }

    /// Bytes for a file; what is beyond [`BYTES_MAX`] is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let incoming = self.incoming.iter().map(|filter| (INCOMING, filter));
        for (kind, filter) in incoming.chain(self.unsent.iter().map(|filter| (UNSENT, filter))) {
            if bytes.len() + filter.len() + 2 > BYTES_MAX {
                break;
            }
            bytes.push(kind);
            bytes.extend_from_slice(filter.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    /// The session of this broker's has the filters `former`, and is about to have those of `maps`.
    pub fn prepare(&mut self, maps: &[TopicMap], former: &[String]) {
        self.unsent.retain(|filter| maps.iter().any(|map| map.retain && map.local == *filter));
        for map in maps.iter().filter(|map| map.retain) {
            if !former.contains(&map.local) && !self.unsent.contains(&map.local) {
                self.unsent.push(map.local.clone());
            }
        }
    }

    /// The upstream is about to be asked for `maps`. Returns the filters that it has and that are none of them.
    #[must_use]
    pub fn ask(&mut self, maps: &[TopicMap]) -> Vec<String> {
        let is_asked = |filter: &String| maps.iter().any(|map| map.remote == *filter);
        let former: Vec<String> = self.incoming.iter().filter(|filter| !is_asked(filter)).cloned().collect();
        for map in maps {
            if !self.incoming.contains(&map.remote) {
                // In front: what there is no room for is the oldest.
                self.incoming.insert(0, map.remote.clone());
            }
        }
        former
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(filter: &str, retain: bool) -> TopicMap {
        TopicMap { local: filter.to_owned(), remote: filter.to_owned(), qos: 1, retain }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_understood_is_not() {
        let noted = Noted { incoming: vec!["a/#".to_owned(), "\n".to_owned()], unsent: vec!["b".to_owned()] };
        assert_eq!(Noted::decode(&noted.encode()), noted);
        assert_eq!(Noted::decode(b"xa\0\0ia\0"), Noted { incoming: vec!["a".to_owned()], unsent: Vec::new() });
        assert_eq!(Noted::decode(&[0xFF; 9]), Noted::default());
        let long = Noted { incoming: vec!["a".repeat(60_000); 3], unsent: Vec::new() };
        assert_eq!(Noted::decode(&long.encode()).incoming.len(), 1);
    }

    #[test]
    fn former_filters_are_given_up_and_new_ones_sent_once() {
        let mut noted = Noted::default();
        assert!(noted.ask(&[map("a", true), map("b", true)]).is_empty());
        assert_eq!(noted.ask(&[map("b", true), map("c", true)]), ["a"]);
        noted.prepare(&[map("x", true), map("y", false), map("z", true)], &["z".to_owned()]);
        assert_eq!(noted.unsent, ["x"]);
        noted.prepare(&[map("z", true)], &[]);
        assert_eq!(noted.unsent, ["z"]);
    }
}
