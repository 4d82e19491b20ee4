//! Counters by category: the user property `metriccategory` of a client's CONNECT, as the vendor's broker tags its metrics
//! (azure-model §4.5).
//!
//! **Invariant:** there are at most [`ROWS`] rows, and only a client that was let in gets a new one: names are chosen by peers, and
//! each would be a time series for ever.

/// Name of the user property.
pub const PROPERTY: &str = "metriccategory";
/// Longest name, bytes; what is longer is cut.
pub const NAME_BYTES_MAX: usize = 64;
/// Categories that clients may name.
pub const NAMED_MAX: usize = 16;
/// Rows in all: those, clients without a category, and clients whose category found no row.
pub const ROWS: usize = NAMED_MAX + 2;

/// Who names none.
const UNCATEGORIZED: &str = "uncategorized";
/// Whose category found no row.
const OTHER: &str = "other";

/// A category, by its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Category(u8);

impl Category {
    const LAST: Self = Self(ROWS as u8 - 1);
}

/// What is counted by category.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CategoryCounters {
    /// PUBLISH packets received.
    pub publishes_received: u64,
    /// PUBLISH packets transmitted.
    pub publishes_sent: u64,
    /// Payload bytes received in PUBLISH packets.
    pub payload_bytes_received: u64,
    /// Payload bytes transmitted in PUBLISH packets.
    pub payload_bytes_sent: u64,
    /// Credentials of CONNECT that were accepted.
    pub authentication_successes: u64,
    /// Credentials of CONNECT that were refused.
    pub authentication_failures: u64,
    /// QoS 0 messages of its clients that were routed to nobody: denied, or no room.
    pub qos0_dropped_incoming: u64,
    /// QoS 0 messages that one of its clients did not get because its queue had no room.
    pub qos0_dropped_outgoing: u64,
    /// PUBLISH packets of QoS 1 and 2 that were refused because something is full.
    pub publishes_refused: u64,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Categories {
    names: heapless::Vec<heapless::String<NAME_BYTES_MAX>, NAMED_MAX>,
    rows: [CategoryCounters; ROWS],
}

impl Categories {
    /// The category of a client that was let in; a new name gets a row if there is one left.
    pub fn admit(&mut self, name: Option<&str>) -> Category {
        let found = self.find(name);
        let Some(name) = name.filter(|name| found == Category::LAST && *name != OTHER) else { return found };
        let row = u8::try_from(self.names.len() + 1).unwrap_or(Category::LAST.0);
        let kept = heapless::String::try_from(cut(name)).map(|name| self.names.push(name));
        if matches!(kept, Ok(Ok(()))) { Category(row) } else { Category::LAST }
    }

    /// The category of a client that may not be let in: one that has a row, or the last.
    #[must_use]
    pub fn find(&self, name: Option<&str>) -> Category {
        let name = name.map_or("", cut);
        if name.is_empty() || name == UNCATEGORIZED {
            return Category::default();
        }
        let place = self.names.iter().position(|known| known == name);
        place.and_then(|place| u8::try_from(place + 1).ok()).map_or(Category::LAST, Category)
    }

    /// Its counters.
    pub fn row(&mut self, category: Category) -> &mut CategoryCounters {
        &mut self.rows[usize::from(category.0).min(ROWS - 1)]
    }

    /// Its name.
    #[must_use]
    pub fn name(&self, category: Category) -> &str {
        let named = usize::from(category.0).checked_sub(1).map(|place| self.names.get(place));
        match named {
            None => UNCATEGORIZED,
            Some(name) => name.map_or(OTHER, |name| name.as_str()),
        }
    }

    /// Names and counters of all rows that are in use.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &CategoryCounters)> {
        let last = self.rows.last().filter(|row| **row != CategoryCounters::default());
        let names = core::iter::once(UNCATEGORIZED).chain(self.names.iter().map(|name| name.as_str()));
        names.zip(&self.rows).chain(last.map(|row| (OTHER, row)))
    }
}

/// As much of a name as is kept.
fn cut(name: &str) -> &str {
    let end = (0..=name.len().min(NAME_BYTES_MAX)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_categories_are_eighteen_rows() {
        let mut categories = Categories::default();
        for number in 0..100 {
            let category = categories.admit(Some(&format!("c{number}")));
            categories.row(category).publishes_received += 1;
        }
        let rows: Vec<_> = categories.rows().map(|(name, row)| (name.to_owned(), row.publishes_received)).collect();
        assert_eq!(rows.len(), ROWS);
        assert_eq!(rows.first(), Some(&("uncategorized".to_owned(), 0)));
        assert_eq!(rows.get(1), Some(&("c0".to_owned(), 1)));
        assert_eq!(rows.last(), Some(&("other".to_owned(), 84)));
    }

    #[test]
    fn a_category_keeps_its_row_and_a_stranger_gets_none() {
        let mut categories = Categories::default();
        let first = categories.admit(Some("a"));
        assert_eq!(categories.admit(Some("a")), first);
        assert_eq!(categories.name(first), "a");
        assert_eq!(categories.name(categories.find(Some("b"))), "other");
        assert_eq!(categories.rows().count(), 2, "the last row is shown once it is used");
        for name in [None, Some(""), Some("uncategorized")] {
            let category = categories.admit(name);
            assert_eq!(categories.name(category), "uncategorized");
        }
        let other = categories.admit(Some("other"));
        assert_eq!(categories.name(other), "other");
        assert_eq!(categories.rows().count(), 2);
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let mut categories = Categories::default();
        let long = "ü".repeat(40);
        let category = categories.admit(Some(&long));
        assert_eq!(categories.name(category), "ü".repeat(32));
        assert_eq!(categories.admit(Some(&long)), category);
    }
}
