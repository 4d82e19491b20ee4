//! The properties of one packet as a whole (MQTT 5 §2.2.2): the length, then properties in any order.
//!
//! A decoded packet keeps the section's bytes beside the fields parsed from it. Properties that may be repeated are not
//! copied anywhere: [`UserProperties`] and [`SubscriptionIdentifiers`] walk those bytes again. Packets that are built by
//! hand give slices instead.
//!
//! **Invariant:** [`EncodedProperties`] is made by the decoder only, so every byte of it has been checked.

use super::{DecodeError, Full, Property, Reader, Writer};
use core::fmt;
use core::num::NonZeroU32;

/// A property section as it was received, without its length. Checked; empty by default.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodedProperties<'a>(&'a [u8]);

impl<'a> EncodedProperties<'a> {
    /// Reads a section and shows each of its properties to `accept`, in the order received.
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        mut accept: impl FnMut(Property<'a>) -> Result<(), DecodeError>,
    ) -> Result<Self, DecodeError> {
        let length = reader.variable_byte_integer()?;
        let bytes = reader.take(usize::try_from(length).map_err(|_| DecodeError::Truncated)?)?;
        let mut section = Reader::new(bytes);
        while !section.is_empty() {
            accept(Property::decode(&mut section)?)?;
        }
        Ok(Self(bytes))
    }

    /// The section's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Each property with the bytes it came in (identifier and value), in the order received.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Property<'a>)> + Clone + use<'a> {
        let mut reader = Reader::new(self.0);
        core::iter::from_fn(move || {
            let before = reader.rest();
            if before.is_empty() {
                // Most messages have none.
                return None;
            }
            // Checked at decode; a section ends here by being empty.
            let property = Property::decode(&mut reader).ok()?;
            let bytes = before.get(..before.len().saturating_sub(reader.rest().len()))?;
            Some((bytes, property))
        })
    }
}

impl fmt::Debug for EncodedProperties<'_> {
    /// The length only: properties may carry credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// The User Properties of a packet: name-value pairs that keep their order and may repeat. [MQTT-3.3.2-18]
#[derive(Clone, Copy)]
pub enum UserProperties<'a> {
    /// Those of a decoded packet: its whole property section.
    Encoded(EncodedProperties<'a>),
    /// Those of a packet that is built by hand.
    Pairs(&'a [(&'a str, &'a str)]),
}

impl<'a> UserProperties<'a> {
    /// None.
    pub const EMPTY: Self = Self::Pairs(&[]);

    /// The pairs in their order. Takes time in proportion to the whole property section.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        let (section, pairs) = match *self {
            Self::Encoded(section) => (section, &[][..]),
            Self::Pairs(pairs) => (EncodedProperties::default(), pairs),
        };
        let encoded = section.iter().filter_map(|(_, property)| match property {
            Property::UserProperty(pair) => Some(pair),
            _ => None,
        });
        encoded.chain(pairs.iter().copied())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The section they were received in; empty for properties built by hand.
    pub(super) fn section(&self) -> EncodedProperties<'a> {
        match *self {
            Self::Encoded(section) => section,
            Self::Pairs(_) => EncodedProperties::default(),
        }
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        self.iter().try_for_each(|pair| Property::UserProperty(pair).encode(writer))
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl PartialEq for UserProperties<'_> {
    /// The same pairs in the same order, whatever else the packets say.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The Subscription Identifiers of a PUBLISH: one for each matching subscription that has one (§3.3.2.3.8).
#[derive(Clone, Copy)]
pub enum SubscriptionIdentifiers<'a> {
    /// Those of a decoded PUBLISH: its whole property section.
    Encoded(EncodedProperties<'a>),
    /// Those of a PUBLISH that is built by hand: none above 268 435 455.
    Slice(&'a [NonZeroU32]),
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// None.
    pub const EMPTY: Self = Self::Slice(&[]);

    /// The identifiers in their order. Takes time in proportion to the whole property section.
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU32> + Clone + use<'a> {
        let (section, slice) = match *self {
            Self::Encoded(section) => (section, &[][..]),
            Self::Slice(slice) => (EncodedProperties::default(), slice),
        };
        let encoded = section.iter().filter_map(|(_, property)| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier),
            _ => None,
        });
        encoded.chain(slice.iter().copied())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(super) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        self.iter().try_for_each(|identifier| Property::SubscriptionIdentifier(identifier).encode(writer))
    }
}

impl Default for SubscriptionIdentifiers<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl PartialEq for SubscriptionIdentifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIdentifiers<'_> {}

impl fmt::Debug for SubscriptionIdentifiers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &[u8] = &[18, 0x26, 0, 1, b'b', 0, 0, 0x0B, 5, 0x26, 0, 1, b'a', 0, 1, b'1', 0x0B, 0x80, 0x01, 0xEE];

    fn section(bytes: &[u8]) -> Result<EncodedProperties<'_>, DecodeError> {
        EncodedProperties::decode(&mut Reader::new(bytes), |_| Ok(()))
    }

    #[test]
    fn repeated_properties_keep_their_order() {
        let section = section(SECTION).unwrap();
        assert!(UserProperties::Encoded(section).iter().eq([("b", ""), ("a", "1")]));
        assert!(SubscriptionIdentifiers::Encoded(section).iter().map(NonZeroU32::get).eq([5, 128]));
        assert_eq!(UserProperties::Encoded(section), UserProperties::Pairs(&[("b", ""), ("a", "1")]));
        assert_ne!(UserProperties::Encoded(section), UserProperties::Pairs(&[("a", "1"), ("b", "")]));
    }

    #[test]
    fn the_bytes_of_all_properties_are_the_section() {
        let section = section(SECTION).unwrap();
        let bytes: Vec<u8> = section.iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        assert_eq!(bytes, section.as_bytes());
        assert_eq!(bytes, SECTION[1..19]);
    }

    #[test]
    fn a_property_ends_with_its_section() {
        assert_eq!(section(&[2, 0x11, 0, 0, 0, 1]), Err(DecodeError::Truncated));
        assert_eq!(section(&[5, 0x11, 0, 0]), Err(DecodeError::Truncated));
        assert_eq!(section(&[]), Err(DecodeError::Truncated));
        assert_eq!(section(&[0]), Ok(EncodedProperties::default()));
    }
}
