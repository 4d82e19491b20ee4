//! UNSUBSCRIBE (MQTT 5 §3.10): Topic Filters, compared byte by byte with those of the subscriptions. [MQTT-3.10.4-1]
//!
//! As in SUBSCRIBE, whether a text is a valid Topic Filter is left to the caller, who answers each with a Reason Code.

use crate::codec::property_section::EncodedProperties;
use crate::codec::{
    DecodeError, Full, PacketIdentifier, PacketType, Property, ProtocolVersion, Reader, UserProperties, Writer,
};
use core::fmt;

/// The payload of a decoded UNSUBSCRIBE. Checked.
#[derive(Clone, Copy)]
pub struct EncodedUnsubscribeFilters<'a>(&'a [u8]);

/// The filters of an UNSUBSCRIBE, at least one.
#[derive(Clone, Copy)]
pub enum UnsubscribeFilters<'a> {
    /// Those of a decoded packet.
    Encoded(EncodedUnsubscribeFilters<'a>),
    /// Those of a packet that is built by hand.
    Slice(&'a [&'a str]),
}

impl<'a> UnsubscribeFilters<'a> {
    /// The filters in their order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + Clone + use<'a> {
        let (bytes, slice) = match *self {
            Self::Encoded(EncodedUnsubscribeFilters(bytes)) => (bytes, &[][..]),
            Self::Slice(slice) => (&[][..], slice),
        };
        let mut reader = Reader::new(bytes);
        // Checked at decode: the payload ends here by being empty.
        core::iter::from_fn(move || reader.string().ok()).chain(slice.iter().copied())
    }
}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UnsubscribeFilters<'_> {}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The properties of an UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnsubscribeProperties<'a> {
    /// Whatever the client adds.
    pub user_properties: UserProperties<'a>,
}

impl<'a> UnsubscribeProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let section = EncodedProperties::decode(reader, |property| match property {
            Property::UserProperty(_) => Ok(()),
            _ => Err(DecodeError::PropertyNotAllowed),
        })?;
        Ok(Self { user_properties: UserProperties::Encoded(section) })
    }
}

/// A client's request to end subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Of this request.
    pub packet_identifier: PacketIdentifier,
    /// Empty in MQTT 3.1.1.
    pub properties: UnsubscribeProperties<'a>,
    /// At least one.
    pub filters: UnsubscribeFilters<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_identifier = reader.packet_identifier()?;
        let properties = match version {
            ProtocolVersion::V311 => UnsubscribeProperties::default(),
            ProtocolVersion::V5 => UnsubscribeProperties::decode(reader)?,
        };
        let bytes = reader.rest();
        if bytes.is_empty() {
            return Err(DecodeError::NoTopicFilter);
        }
        while !reader.is_empty() {
            reader.string()?;
        }
        let filters = UnsubscribeFilters::Encoded(EncodedUnsubscribeFilters(bytes));
        Ok(Self { packet_identifier, properties, filters })
    }

    /// Bytes of the whole packet; `usize::MAX` when no packet can hold it.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        Writer::measure(|writer| self.encode(version, writer))
    }

    /// Writes the whole packet.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written.
    pub fn encode(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put_packet(PacketType::Unsubscribe, |writer| {
            writer.put_u16(self.packet_identifier.get())?;
            if version == ProtocolVersion::V5 {
                writer.put_section(|writer| self.properties.user_properties.encode(writer))?;
            }
            self.filters.iter().try_for_each(|filter| writer.put_string(filter))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Packet;
    use crate::codec::packet::tests::{golden, packet};

    const V5: ProtocolVersion = ProtocolVersion::V5;

    #[test]
    fn unsubscribe_carries_filters() {
        let bytes = [0xA2, 18, 0, 10, 7, 0x26, 0, 1, b'k', 0, 1, b'v', 0, 3, b'a', b'/', b'b', 0, 1, b'#'];
        let Packet::Unsubscribe(unsubscribe) = golden(V5, &bytes) else { panic!() };
        assert_eq!(unsubscribe.filters, UnsubscribeFilters::Slice(&["a/b", "#"]));
        assert!(unsubscribe.properties.user_properties.iter().eq([("k", "v")]));
    }

    #[test]
    fn unsubscribe_without_a_topic_filter_is_a_protocol_error() {
        // [MQTT-3.10.3-2]
        assert_eq!(packet(V5, &[0xA2, 3, 0, 1, 0]), Err(DecodeError::NoTopicFilter));
    }

    #[test]
    fn unsubscribe_has_user_properties_only() {
        let identifier = [0xA2, 8, 0, 1, 2, 0x0B, 1, 0, 1, b'a'];
        assert_eq!(packet(V5, &identifier), Err(DecodeError::PropertyNotAllowed));
        // [MQTT-3.10.3-1]
        assert_eq!(packet(V5, &[0xA2, 6, 0, 1, 0, 0, 1, 0xC3]), Err(DecodeError::InvalidUtf8));
    }

    #[test]
    fn unsubscribe_of_3_1_1_has_no_properties() {
        assert!(matches!(golden(ProtocolVersion::V311, &[0xA2, 5, 0, 1, 0, 1, b'a']), Packet::Unsubscribe(_)));
    }
}
