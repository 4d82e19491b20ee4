//! The Will Message of a CONNECT (MQTT 5 §3.1.2.5 to §3.1.2.7, §3.1.3.2 to §3.1.3.4).

use crate::codec::properties::once;
use crate::codec::property_section::EncodedProperties;
use crate::codec::{
    DecodeError, Full, Property, ProtocolVersion, QoS, Reader, Redacted, TopicName, UserProperties, Writer,
};
use core::fmt;

/// The properties of the Will Message, and of its sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WillProperties<'a> {
    /// Seconds between the end of the connection and the publication; absent: 0.
    pub will_delay_interval: Option<u32>,
    /// The payload says to be UTF-8.
    pub payload_format_utf8: Option<bool>,
    /// Seconds from publication.
    pub message_expiry_interval: Option<u32>,
    /// Describes the payload.
    pub content_type: Option<&'a str>,
    /// A Topic Name for the response.
    pub response_topic: Option<&'a str>,
    /// Lets the requester know its response.
    pub correlation_data: Option<&'a [u8]>,
    /// Pairs of the application.
    pub user_properties: UserProperties<'a>,
}

/// What the server publishes for the client when the connection ends without a DISCONNECT.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Of the publication.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// A valid Topic Name.
    pub topic: &'a str,
    /// The application's bytes.
    pub payload: &'a [u8],
    /// Empty in MQTT 3.1.1.
    pub properties: WillProperties<'a>,
}

impl<'a> Will<'a> {
    /// The part of a CONNECT's payload that belongs to the will.
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        qos: QoS,
        retain: bool,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let properties = match version {
            ProtocolVersion::V311 => WillProperties::default(),
            ProtocolVersion::V5 => WillProperties::decode(reader)?,
        };
        let topic = reader.string()?;
        TopicName::parse(topic).map_err(|_| DecodeError::TopicNameInvalid)?;
        Ok(Self { qos, retain, topic, payload: reader.binary()?, properties })
    }

    pub(super) fn encode(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        if version == ProtocolVersion::V5 {
            writer.put_section(|writer| self.properties.encode(writer))?;
        }
        writer.put_string(self.topic)?;
        writer.put_binary(self.payload)
    }
}

impl<'a> WillProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut p = Self::default();
        let section = EncodedProperties::decode(reader, |property| match property {
            Property::WillDelayInterval(value) => once(&mut p.will_delay_interval, value),
            Property::PayloadFormatIndicator(value) => once(&mut p.payload_format_utf8, value),
            Property::MessageExpiryInterval(value) => once(&mut p.message_expiry_interval, value),
            Property::ContentType(value) => once(&mut p.content_type, value),
            Property::ResponseTopic(value) => once(&mut p.response_topic, value),
            Property::CorrelationData(value) => once(&mut p.correlation_data, value),
            Property::UserProperty(_) => Ok(()),
            _ => Err(DecodeError::PropertyNotAllowed),
        })?;
        p.user_properties = UserProperties::Encoded(section);
        Ok(p)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put_property(self.will_delay_interval.map(Property::WillDelayInterval))?;
        writer.put_property(self.message_expiry_interval.map(Property::MessageExpiryInterval))?;
        writer.put_property(self.payload_format_utf8.map(Property::PayloadFormatIndicator))?;
        writer.put_property(self.content_type.map(Property::ContentType))?;
        writer.put_property(self.response_topic.map(Property::ResponseTopic))?;
        writer.put_property(self.correlation_data.map(Property::CorrelationData))?;
        self.user_properties.encode(writer)
    }

    /// The encoded bytes (identifier and value) of each property that becomes a property of the published message as it
    /// is, in the order received: all but Will Delay Interval and Message Expiry Interval. Only a decoded CONNECT has such
    /// bytes; properties built by hand yield none.
    pub fn forwardable(&self) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        self.user_properties.section().iter().filter_map(|(bytes, property)| match property {
            Property::WillDelayInterval(_) | Property::MessageExpiryInterval(_) => None,
            _ => Some(bytes),
        })
    }
}

impl fmt::Debug for Will<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("payload", &Redacted(self.payload))
            .field("properties", &self.properties)
            .finish()
    }
}
