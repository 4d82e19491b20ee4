//! SUBSCRIBE (MQTT 5 §3.8): Topic Filters with Subscription Options.
//!
//! The structure is checked at decode. Whether the text of a filter is a valid Topic Filter is not: the caller asks
//! `Subscription::parse` and answers each invalid filter with 0x8F in SUBACK. The same goes for what depends on that text,
//! such as No Local on a Shared Subscription [MQTT-3.8.3-4].

use crate::codec::properties::once;
use crate::codec::property_section::EncodedProperties;
use crate::codec::{
    DecodeError, Full, PacketIdentifier, PacketType, Property, ProtocolVersion, QoS, Reader, UserProperties, Writer,
};
use core::fmt;
use core::num::NonZeroU32;

/// Whether retained messages are sent when the subscription is made (§3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// 0: at the time of the subscribe.
    #[default]
    SendAtSubscribe,
    /// 1: only if the subscription does not yet exist.
    SendAtSubscribeIfNew,
    /// 2: not.
    DoNotSend,
}

impl RetainHandling {
    /// Its number on the wire.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::SendAtSubscribe => 0,
            Self::SendAtSubscribeIfNew => 1,
            Self::DoNotSend => 2,
        }
    }
}

/// What a subscriber asks for beside the filter (§3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// The most that messages are sent with.
    pub maximum_qos: QoS,
    /// Not the subscriber's own messages. [MQTT-3.8.3-3]
    pub no_local: bool,
    /// Messages keep the RETAIN flag they were published with.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    /// From the byte on the wire. MQTT 3.1.1 has the QoS only.
    ///
    /// # Errors
    /// Reserved bits [MQTT-3.8.3-5]; QoS 3; Retain Handling 3.
    pub fn from_bits(bits: u8, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let reserved = match version {
            ProtocolVersion::V311 => 0b1111_1100,
            ProtocolVersion::V5 => 0b1100_0000,
        };
        if bits & reserved != 0 {
            return Err(DecodeError::ReservedSubscriptionOptions);
        }
        let retain_handling = match bits >> 4 & 0b11 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendAtSubscribeIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::InvalidRetainHandling),
        };
        Ok(Self {
            maximum_qos: QoS::from_bits(bits & 0b11).ok_or(DecodeError::InvalidMaximumQoS)?,
            no_local: bits & 0b0100 != 0,
            retain_as_published: bits & 0b1000 != 0,
            retain_handling,
        })
    }

    /// The byte on the wire; what MQTT 3.1.1 has no bits for is left out there.
    #[must_use]
    pub fn bits(self, version: ProtocolVersion) -> u8 {
        let retain_handling = self.retain_handling.bits();
        match version {
            ProtocolVersion::V311 => self.maximum_qos.bits(),
            ProtocolVersion::V5 => {
                self.maximum_qos.bits()
                    | u8::from(self.no_local) << 2
                    | u8::from(self.retain_as_published) << 3
                    | retain_handling << 4
            }
        }
    }
}

/// The payload of a decoded SUBSCRIBE. Checked.
#[derive(Clone, Copy)]
pub struct EncodedSubscribeFilters<'a> {
    bytes: &'a [u8],
    version: ProtocolVersion,
}

/// The filters of a SUBSCRIBE, at least one.
#[derive(Clone, Copy)]
pub enum SubscribeFilters<'a> {
    /// Those of a decoded packet.
    Encoded(EncodedSubscribeFilters<'a>),
    /// Those of a packet that is built by hand.
    Slice(&'a [(&'a str, SubscriptionOptions)]),
}

impl<'a> SubscribeFilters<'a> {
    /// The filters in their order, with their options.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscriptionOptions)> + Clone + use<'a> {
        let (bytes, version, slice) = match *self {
            Self::Encoded(encoded) => (encoded.bytes, encoded.version, &[][..]),
            Self::Slice(slice) => (&[][..], ProtocolVersion::V5, slice),
        };
        let mut reader = Reader::new(bytes);
        // Checked at decode: the payload ends here by being empty.
        core::iter::from_fn(move || read_filter(&mut reader, version).ok()).chain(slice.iter().copied())
    }
}

fn read_filter<'a>(
    reader: &mut Reader<'a>,
    version: ProtocolVersion,
) -> Result<(&'a str, SubscriptionOptions), DecodeError> {
    Ok((reader.string()?, SubscriptionOptions::from_bits(reader.u8()?, version)?))
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The properties of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeProperties<'a> {
    /// 1 to 268 435 455; returned with each message that the subscription matches. 0 is never decoded, and is encoded
    /// as absence.
    pub subscription_identifier: Option<u32>,
    /// Whatever the client adds.
    pub user_properties: UserProperties<'a>,
}

impl<'a> SubscribeProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut p = Self::default();
        let section = EncodedProperties::decode(reader, |property| match property {
            Property::SubscriptionIdentifier(value) => once(&mut p.subscription_identifier, value.get()),
            Property::UserProperty(_) => Ok(()),
            _ => Err(DecodeError::PropertyNotAllowed),
        })?;
        p.user_properties = UserProperties::Encoded(section);
        Ok(p)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let identifier = self.subscription_identifier.and_then(NonZeroU32::new);
        writer.put_property(identifier.map(Property::SubscriptionIdentifier))?;
        self.user_properties.encode(writer)
    }
}

/// A client's request for subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Of this request.
    pub packet_identifier: PacketIdentifier,
    /// Empty in MQTT 3.1.1.
    pub properties: SubscribeProperties<'a>,
    /// At least one.
    pub filters: SubscribeFilters<'a>,
}

impl<'a> Subscribe<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let packet_identifier = reader.packet_identifier()?;
        let properties = match version {
            ProtocolVersion::V311 => SubscribeProperties::default(),
            ProtocolVersion::V5 => SubscribeProperties::decode(reader)?,
        };
        let bytes = reader.rest();
        if bytes.is_empty() {
            return Err(DecodeError::NoTopicFilter);
        }
        while !reader.is_empty() {
            read_filter(reader, version)?;
        }
        let filters = SubscribeFilters::Encoded(EncodedSubscribeFilters { bytes, version });
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
        writer.put_packet(PacketType::Subscribe, |writer| {
            writer.put_u16(self.packet_identifier.get())?;
            if version == ProtocolVersion::V5 {
                writer.put_section(|writer| self.properties.encode(writer))?;
            }
            self.filters.iter().try_for_each(|(filter, options)| {
                writer.put_string(filter)?;
                writer.put_u8(options.bits(version))
            })
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
    fn subscribe_carries_filters_with_options() {
        #[rustfmt::skip]
        let bytes = [
            0x82, 22, 0, 10, 9, 0x0B, 5, 0x26, 0, 1, b'k', 0, 1, b'v',
            0, 3, b'a', b'/', b'#', 0b0010_1101, 0, 1, b'b', 0b0001_0010,
        ];
        let Packet::Subscribe(subscribe) = golden(V5, &bytes) else { panic!() };
        assert_eq!(subscribe.packet_identifier.get(), 10);
        assert_eq!(subscribe.properties.subscription_identifier, Some(5));
        let first = SubscriptionOptions {
            maximum_qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
        };
        let second = SubscriptionOptions {
            maximum_qos: QoS::ExactlyOnce,
            retain_handling: RetainHandling::SendAtSubscribeIfNew,
            ..SubscriptionOptions::default()
        };
        assert_eq!(subscribe.filters, SubscribeFilters::Slice(&[("a/#", first), ("b", second)]));
    }

    #[test]
    fn subscribe_without_a_topic_filter_is_a_protocol_error() {
        // [MQTT-3.8.3-2]
        assert_eq!(packet(V5, &[0x82, 3, 0, 1, 0]), Err(DecodeError::NoTopicFilter));
        assert_eq!(DecodeError::NoTopicFilter.reason_code().as_u8(), 0x82);
    }

    #[test]
    fn subscription_options_that_the_text_forbids_are_refused() {
        let with = |options| packet(V5, &[0x82, 7, 0, 1, 0, 0, 1, b'a', options]).map(|_| ());
        assert_eq!(with(0b0100_0000), Err(DecodeError::ReservedSubscriptionOptions)); // [MQTT-3.8.3-5]
        assert_eq!(with(0b1000_0000), Err(DecodeError::ReservedSubscriptionOptions));
        assert_eq!(with(0b0011_0000), Err(DecodeError::InvalidRetainHandling));
        assert_eq!(with(0b0000_0011), Err(DecodeError::InvalidMaximumQoS));
        assert_eq!(with(0b0010_1110), Ok(()));
    }

    #[test]
    fn an_invalid_filter_is_left_to_the_caller_but_its_text_is_utf_8() {
        assert!(packet(V5, &[0x82, 8, 0, 1, 0, 0, 2, b'a', b'#', 0]).is_ok());
        assert!(packet(V5, &[0x82, 6, 0, 1, 0, 0, 0, 0]).is_ok());
        // [MQTT-3.8.3-1]
        assert_eq!(packet(V5, &[0x82, 7, 0, 1, 0, 0, 1, 0xFF, 0]), Err(DecodeError::InvalidUtf8));
        assert_eq!(packet(V5, &[0x82, 7, 0, 1, 0, 0, 1, 0, 0]), Err(DecodeError::NulInString));
    }

    #[test]
    fn subscribe_has_one_subscription_identifier() {
        // §3.8.2.1.2
        let twice = [0x82, 11, 0, 1, 4, 0x0B, 1, 0x0B, 2, 0, 1, b'a', 0];
        assert_eq!(packet(V5, &twice), Err(DecodeError::DuplicateProperty));
        let zero = [0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0];
        assert_eq!(packet(V5, &zero), Err(DecodeError::InvalidSubscriptionIdentifier));
    }

    #[test]
    fn subscribe_of_3_1_1_has_the_qos_only() {
        let v311 = ProtocolVersion::V311;
        let Packet::Subscribe(subscribe) = golden(v311, &[0x82, 6, 0, 1, 0, 1, b'a', 2]) else { panic!() };
        assert_eq!(subscribe.filters.iter().next().unwrap().1.maximum_qos, QoS::ExactlyOnce);
        let no_local = [0x82, 6, 0, 1, 0, 1, b'a', 4];
        assert_eq!(packet(v311, &no_local), Err(DecodeError::ReservedSubscriptionOptions));
    }
}
