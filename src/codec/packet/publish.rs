//! PUBLISH (MQTT 5 §3.3): an Application Message.
//!
//! Two ways to write one: [`Publish::encode`] when all of it lies in memory, and [`Head`] when topic, properties and
//! payload are streamed out of chained blocks between the parts that `Head` writes.

use crate::codec::frame::publish_flags;
use crate::codec::properties::once;
use crate::codec::property_section::EncodedProperties;
use crate::codec::{
    DecodeError, Full, PacketIdentifier, PacketType, Property, ProtocolVersion, QoS, REMAINING_LENGTH_MAX, Reader,
    Redacted, SubscriptionIdentifiers, TopicName, UserProperties, Writer, variable_byte_integer_bytes,
};
use core::fmt;
use core::num::NonZeroU16;

/// The properties of an Application Message, and of this sending of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// The payload says to be UTF-8; whether it is, is not checked here.
    pub payload_format_utf8: Option<bool>,
    /// Seconds; a server forwards what is left of it. [MQTT-3.3.2-6]
    pub message_expiry_interval: Option<u32>,
    /// Stands for a Topic Name on this connection. Whether it is within the receiver's Topic Alias Maximum is the caller's
    /// question. [MQTT-3.3.2-9]
    pub topic_alias: Option<NonZeroU16>,
    /// A Topic Name for the response.
    pub response_topic: Option<&'a str>,
    /// Lets the requester know its response.
    pub correlation_data: Option<&'a [u8]>,
    /// Describes the payload.
    pub content_type: Option<&'a str>,
    /// Of the subscriptions that match. A client must not send any [MQTT-3.3.4-6]: the caller knows the direction.
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// Pairs of the application.
    pub user_properties: UserProperties<'a>,
}

/// An Application Message on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Might be a re-delivery; never at QoS 0. [MQTT-3.3.1-2]
    pub dup: bool,
    /// Of this sending.
    pub qos: QoS,
    /// To be retained, or sent because retained.
    pub retain: bool,
    /// A valid Topic Name; empty only with a Topic Alias.
    pub topic: &'a str,
    /// Present exactly when the QoS is 1 or 2. [MQTT-2.2.1-2]
    pub packet_identifier: Option<PacketIdentifier>,
    /// Empty in MQTT 3.1.1.
    pub properties: PublishProperties<'a>,
    /// The application's bytes.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, flags: u8, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let (dup, qos, retain) = publish_flags(flags)?;
        let topic = reader.string()?;
        let packet_identifier = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_identifier()?) };
        let properties = match version {
            ProtocolVersion::V311 => PublishProperties::default(),
            ProtocolVersion::V5 => PublishProperties::decode(reader)?,
        };
        match (topic.is_empty(), version) {
            (true, ProtocolVersion::V5) if properties.topic_alias.is_some() => {}
            (true, ProtocolVersion::V5) => return Err(DecodeError::TopicNameMissing),
            (true, ProtocolVersion::V311) => return Err(DecodeError::TopicNameInvalid),
            (false, _) => {
                TopicName::parse(topic).map_err(|_| DecodeError::TopicNameInvalid)?;
            }
        }
        Ok(Self { dup, qos, retain, topic, packet_identifier, properties, payload: reader.take_rest() })
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
    ///
    /// # Panics
    /// When the Packet Identifier is there at QoS 0 or missing above it: a defect of the caller.
    pub fn encode(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        let property_bytes = match version {
            ProtocolVersion::V311 => 0,
            ProtocolVersion::V5 => Writer::measure(|writer| self.properties.encode(writer)),
        };
        let head = Head {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic_bytes: self.topic.len(),
            packet_identifier: self.packet_identifier,
            property_bytes,
            payload_bytes: self.payload.len(),
        };
        writer.all_or_nothing(|writer| {
            head.encode_before_topic(version, writer)?;
            writer.put_slice(self.topic.as_bytes())?;
            head.encode_after_topic(version, writer)?;
            if version == ProtocolVersion::V5 {
                self.properties.encode(writer)?;
            }
            writer.put_slice(self.payload)
        })
    }
}

impl<'a> PublishProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut p = Self::default();
        let section = EncodedProperties::decode(reader, |property| match property {
            Property::PayloadFormatIndicator(value) => once(&mut p.payload_format_utf8, value),
            Property::MessageExpiryInterval(value) => once(&mut p.message_expiry_interval, value),
            Property::TopicAlias(value) => once(&mut p.topic_alias, value),
            Property::ResponseTopic(value) => once(&mut p.response_topic, value),
            Property::CorrelationData(value) => once(&mut p.correlation_data, value),
            Property::ContentType(value) => once(&mut p.content_type, value),
            Property::SubscriptionIdentifier(_) | Property::UserProperty(_) => Ok(()),
            _ => Err(DecodeError::PropertyNotAllowed),
        })?;
        p.subscription_identifiers = SubscriptionIdentifiers::Encoded(section);
        p.user_properties = UserProperties::Encoded(section);
        Ok(p)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put_property(self.message_expiry_interval.map(Property::MessageExpiryInterval))?;
        writer.put_property(self.topic_alias.map(Property::TopicAlias))?;
        self.subscription_identifiers.encode(writer)?;
        self.encode_forwardable(writer)
    }

    /// Writes what a server forwards unchanged, without a length before it, from the fields: for properties that were
    /// built by hand. What was received is forwarded byte by byte, by [`Self::forwardable`].
    ///
    /// # Errors
    /// [`Full`].
    pub fn encode_forwardable(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put_property(self.payload_format_utf8.map(Property::PayloadFormatIndicator))?;
        writer.put_property(self.response_topic.map(Property::ResponseTopic))?;
        writer.put_property(self.correlation_data.map(Property::CorrelationData))?;
        writer.put_property(self.content_type.map(Property::ContentType))?;
        self.user_properties.encode(writer)
    }

    /// The encoded bytes (identifier and value) of each property that a server forwards unchanged, in the order received:
    /// all but Topic Alias, Message Expiry Interval and Subscription Identifier. [MQTT-3.3.2-4] [MQTT-3.3.2-15]
    /// [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-20] Only a decoded PUBLISH has such bytes; properties built by hand
    /// yield none.
    pub fn forwardable(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.user_properties.section().iter().filter_map(|(bytes, property)| match property {
            Property::TopicAlias(_) | Property::MessageExpiryInterval(_) | Property::SubscriptionIdentifier(_) => None,
            _ => Some(bytes),
        })
    }
}

impl fmt::Debug for Publish<'_> {
    /// Without the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("dup", &self.dup)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("packet_identifier", &self.packet_identifier)
            .field("properties", &self.properties)
            .field("payload", &Redacted(self.payload))
            .finish()
    }
}

/// Everything of a PUBLISH but its topic, properties and payload, of which it knows the sizes only. On the wire stand, in
/// this order: [`Self::encode_before_topic`], the topic's bytes, [`Self::encode_after_topic`], the properties' bytes, the
/// payload's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Set at re-delivery. [MQTT-3.3.1-1]
    pub dup: bool,
    /// Of this sending.
    pub qos: QoS,
    /// To be retained, or sent because retained.
    pub retain: bool,
    /// Bytes of the Topic Name; 0 only with a Topic Alias among the properties.
    pub topic_bytes: usize,
    /// Present exactly when the QoS is 1 or 2. [MQTT-2.2.1-2]
    pub packet_identifier: Option<PacketIdentifier>,
    /// Bytes of all properties together, without the Property Length. Not used in MQTT 3.1.1, which has none.
    pub property_bytes: usize,
    /// Bytes of the payload.
    pub payload_bytes: usize,
}

impl Head {
    /// Most bytes that [`Self::encode_before_topic`] writes.
    pub const BEFORE_TOPIC_BYTES_MAX: usize = 7;
    /// Most bytes that [`Self::encode_after_topic`] writes.
    pub const AFTER_TOPIC_BYTES_MAX: usize = 6;

    /// The Remaining Length; `None` when no packet can hold so much.
    #[must_use]
    pub fn remaining_length(&self, version: ProtocolVersion) -> Option<u32> {
        let topic_bytes = u16::try_from(self.topic_bytes).ok()?;
        let property_bytes = match version {
            ProtocolVersion::V311 => 0,
            ProtocolVersion::V5 => {
                let bytes = u32::try_from(self.property_bytes).ok()?;
                bytes.checked_add(u32::try_from(variable_byte_integer_bytes(bytes)).ok()?)?
            }
        };
        let identifier_bytes = if self.packet_identifier.is_some() { 2 } else { 0 };
        let length = u32::try_from(self.payload_bytes)
            .ok()?
            .checked_add(property_bytes)?
            .checked_add(2 + u32::from(topic_bytes) + identifier_bytes)?;
        (length <= REMAINING_LENGTH_MAX).then_some(length)
    }

    /// Bytes of the whole packet, topic, properties and payload included; `usize::MAX` when no packet can hold so much.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        let remaining_length = self.remaining_length(version).and_then(|length| usize::try_from(length).ok());
        remaining_length.map_or(usize::MAX, Writer::packet_bytes)
    }

    /// Writes the fixed header and the length of the topic.
    ///
    /// # Errors
    /// [`Full`], also when no packet can hold so much. Part of it may have been written.
    ///
    /// # Panics
    /// When the Packet Identifier is there at QoS 0 or missing above it: a defect of the caller.
    pub fn encode_before_topic(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        assert_eq!(self.qos == QoS::AtMostOnce, self.packet_identifier.is_none(), "[MQTT-2.2.1-2]");
        let dup = self.dup && self.qos != QoS::AtMostOnce;
        let flags = u8::from(dup) << 3 | self.qos.bits() << 1 | u8::from(self.retain);
        let remaining_length = self.remaining_length(version).ok_or(Full)?;
        writer.put_fixed_header(PacketType::Publish, flags, usize::try_from(remaining_length).map_err(|_| Full)?)?;
        writer.put_u16(u16::try_from(self.topic_bytes).map_err(|_| Full)?)
    }

    /// Writes the Packet Identifier, if there is one, and the Property Length, if the version has one.
    ///
    /// # Errors
    /// [`Full`]. Part of it may have been written.
    pub fn encode_after_topic(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        if let Some(identifier) = self.packet_identifier {
            writer.put_u16(identifier.get())?;
        }
        match version {
            ProtocolVersion::V311 => Ok(()),
            ProtocolVersion::V5 => {
                writer.put_variable_byte_integer(u32::try_from(self.property_bytes).map_err(|_| Full)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Packet;
    use crate::codec::packet::tests::{encoded, golden, packet};
    use core::num::NonZeroU32;

    const V5: ProtocolVersion = ProtocolVersion::V5;

    fn publish(bytes: &[u8]) -> Publish<'_> {
        match golden(V5, bytes) {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn publish_at_qos_0_has_no_packet_identifier() {
        // [MQTT-2.2.1-2]
        let publish = publish(&[0x31, 8, 0, 3, b'a', b'/', b'b', 0, b'h', b'i']);
        assert_eq!((publish.topic, publish.payload, publish.retain), ("a/b", &b"hi"[..], true));
        assert_eq!((publish.packet_identifier, publish.qos), (None, QoS::AtMostOnce));
    }

    #[test]
    fn publish_carries_every_property() {
        #[rustfmt::skip]
        let bytes = [
            0x3C, 43, 0, 1, b't', 0, 10, 34,
            0x02, 0, 0, 0, 30, 0x23, 0, 2, 0x0B, 7, 0x0B, 0x80, 0x01, 0x01, 1,
            0x08, 0, 1, b'r', 0x09, 0, 1, 9, 0x03, 0, 1, b'c', 0x26, 0, 1, b'k', 0, 1, b'v',
            b'h', b'i', b'!',
        ];
        let publish = publish(&bytes);
        let identifiers = [NonZeroU32::new(7).unwrap(), NonZeroU32::new(128).unwrap()];
        let expected = PublishProperties {
            payload_format_utf8: Some(true),
            message_expiry_interval: Some(30),
            topic_alias: NonZeroU16::new(2),
            response_topic: Some("r"),
            correlation_data: Some(&[9]),
            content_type: Some("c"),
            subscription_identifiers: SubscriptionIdentifiers::Slice(&identifiers),
            user_properties: UserProperties::Pairs(&[("k", "v")]),
        };
        assert_eq!(publish.properties, expected);
        assert_eq!((publish.dup, publish.qos, publish.payload), (true, QoS::ExactlyOnce, &b"hi!"[..]));
        assert_eq!(publish.packet_identifier.map(PacketIdentifier::get), Some(10));
    }

    #[test]
    fn a_server_forwards_the_other_properties_unchanged_and_in_order() {
        // [MQTT-3.3.2-17] [MQTT-3.3.2-18]
        #[rustfmt::skip]
        let bytes = [
            0x30, 34, 0, 1, b't', 30,
            0x26, 0, 1, b'b', 0, 0, 0x02, 0, 0, 0, 1, 0x26, 0, 1, b'a', 0, 0, 0x23, 0, 1, 0x01, 0, 0x0B, 1,
            0x26, 0, 1, b'b', 0, 0,
        ];
        let Ok(Packet::Publish(publish)) = packet(V5, &bytes) else { panic!() };
        let forwardable: Vec<&[u8]> = publish.properties.forwardable().collect();
        assert_eq!(
            forwardable,
            [&[0x26, 0, 1, b'b', 0, 0][..], &[0x26, 0, 1, b'a', 0, 0], &[1, 0], &[0x26, 0, 1, b'b', 0, 0]]
        );
        let mut buffer = [0; 64];
        let mut writer = Writer::new(&mut buffer);
        publish.properties.encode_forwardable(&mut writer).unwrap();
        assert_eq!(writer.len(), forwardable.concat().len());
    }

    #[test]
    fn an_empty_topic_needs_a_topic_alias() {
        // §3.3.2.1
        assert_eq!(packet(V5, &[0x30, 3, 0, 0, 0]), Err(DecodeError::TopicNameMissing));
        assert_eq!(publish(&[0x30, 6, 0, 0, 3, 0x23, 0, 1]).topic, "");
        assert_eq!(packet(ProtocolVersion::V311, &[0x30, 2, 0, 0]), Err(DecodeError::TopicNameInvalid));
    }

    #[test]
    fn a_topic_name_has_no_wildcard() {
        // [MQTT-3.3.2-2]
        assert_eq!(packet(V5, &[0x30, 4, 0, 1, b'#', 0]), Err(DecodeError::TopicNameInvalid));
        assert_eq!(packet(V5, &[0x30, 4, 0, 1, b'+', 0]), Err(DecodeError::TopicNameInvalid));
        assert_eq!(packet(V5, &[0x30, 4, 0, 1, 0, 0]), Err(DecodeError::NulInString));
    }

    #[test]
    fn publish_properties_that_contradict_the_text_are_refused() {
        let with = |properties: &[u8]| {
            let mut bytes = vec![0x30, u8::try_from(4 + properties.len()).unwrap(), 0, 1, b't'];
            bytes.push(u8::try_from(properties.len()).unwrap());
            bytes.extend_from_slice(properties);
            packet(V5, &bytes).unwrap_err()
        };
        assert_eq!(with(&[0x23, 0, 0]), DecodeError::ZeroTopicAlias); // [MQTT-3.3.2-8]
        assert_eq!(with(&[0x0B, 0]), DecodeError::InvalidSubscriptionIdentifier);
        assert_eq!(with(&[0x08, 0, 1, b'+']), DecodeError::ResponseTopicInvalid); // [MQTT-3.3.2-14]
        assert_eq!(with(&[0x01, 1, 0x01, 1]), DecodeError::DuplicateProperty);
        assert_eq!(with(&[0x11, 0, 0, 0, 1]), DecodeError::PropertyNotAllowed);
    }

    #[test]
    fn publish_of_3_1_1_has_no_properties() {
        let Packet::Publish(publish) = golden(ProtocolVersion::V311, &[0x32, 6, 0, 1, b't', 0, 1, b'x']) else {
            panic!()
        };
        assert_eq!((publish.qos, publish.payload), (QoS::AtLeastOnce, &b"x"[..]));
    }

    #[test]
    fn the_parts_around_topic_properties_and_payload_make_the_same_packet() {
        let properties = [0x26, 0, 1, b'k', 0, 1, b'v'];
        let publish = Publish {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "a/b",
            packet_identifier: PacketIdentifier::new(5),
            properties: PublishProperties {
                user_properties: UserProperties::Pairs(&[("k", "v")]),
                ..PublishProperties::default()
            },
            payload: b"payload",
        };
        let head = Head {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic_bytes: 3,
            packet_identifier: PacketIdentifier::new(5),
            property_bytes: properties.len(),
            payload_bytes: 7,
        };
        for version in [V5, ProtocolVersion::V311] {
            let mut buffer = [0; 64];
            let mut writer = Writer::new(&mut buffer);
            head.encode_before_topic(version, &mut writer).unwrap();
            writer.put_slice(b"a/b").unwrap();
            head.encode_after_topic(version, &mut writer).unwrap();
            if version == V5 {
                writer.put_slice(&properties).unwrap();
            }
            writer.put_slice(b"payload").unwrap();
            assert_eq!(writer.written(), encoded(version, &Packet::Publish(publish)));
            assert_eq!(writer.len(), head.encoded_bytes(version));
        }
    }

    #[test]
    fn a_publish_ends_at_the_largest_remaining_length() {
        let head = |payload_bytes| Head {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic_bytes: 1,
            packet_identifier: None,
            property_bytes: 0,
            payload_bytes,
        };
        assert_eq!(head(268_435_451).encoded_bytes(V5), 268_435_460);
        assert_eq!(head(268_435_452).remaining_length(V5), None);
        assert_eq!(head(268_435_452).encoded_bytes(V5), usize::MAX);
        assert_eq!(head(usize::MAX).encode_before_topic(V5, &mut Writer::new(&mut [0; 8])), Err(Full));
    }
}
