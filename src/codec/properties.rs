//! The properties of MQTT 5 §2.2.2.2: identifier, data type and value of one property, both ways.
//!
//! Values that the text forbids in every packet (a Receive Maximum of 0, a boolean of 2) are refused here, so that a
//! [`Property`] cannot hold them. Which packet may carry which property, and how often, is decided by the packet's own
//! file, in the one `match` that assigns its properties.

use super::{DecodeError, Full, QoS, Reader, TopicName, Writer};
use core::num::{NonZeroU16, NonZeroU32};

macro_rules! properties {
    ($($identifier:literal $name:ident($type:ty): $read:expr, $write:expr;)*) => {
        /// One property, by its name in the text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Property<'a> {
            $(#[doc = concat!("Identifier ", stringify!($identifier), ".")] $name($type),)*
        }

        impl<'a> Property<'a> {
            /// Reads the identifier and the value.
            ///
            /// # Errors
            /// [`DecodeError::UnknownProperty`], or what is wrong with the value.
            pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                match reader.variable_byte_integer()? {
                    $($identifier => $read(reader).map(Self::$name),)*
                    _ => Err(DecodeError::UnknownProperty),
                }
            }

            /// Writes the identifier and the value.
            ///
            /// # Errors
            /// [`Full`].
            pub fn encode(self, writer: &mut Writer<'_>) -> Result<(), Full> {
                match self {
                    $(Self::$name(value) => {
                        writer.put_u8($identifier)?;
                        $write(writer, value)
                    })*
                }
            }
        }
    };
}

properties! {
    0x01 PayloadFormatIndicator(bool): boolean, put_boolean;
    0x02 MessageExpiryInterval(u32): Reader::u32, Writer::put_u32;
    0x03 ContentType(&'a str): Reader::string, Writer::put_string;
    0x08 ResponseTopic(&'a str): response_topic, Writer::put_string;
    0x09 CorrelationData(&'a [u8]): Reader::binary, Writer::put_binary;
    0x0B SubscriptionIdentifier(NonZeroU32): subscription_identifier, put_subscription_identifier;
    0x11 SessionExpiryInterval(u32): Reader::u32, Writer::put_u32;
    0x12 AssignedClientIdentifier(&'a str): Reader::string, Writer::put_string;
    0x13 ServerKeepAlive(u16): Reader::u16, Writer::put_u16;
    0x15 AuthenticationMethod(&'a str): Reader::string, Writer::put_string;
    0x16 AuthenticationData(&'a [u8]): Reader::binary, Writer::put_binary;
    0x17 RequestProblemInformation(bool): boolean, put_boolean;
    0x18 WillDelayInterval(u32): Reader::u32, Writer::put_u32;
    0x19 RequestResponseInformation(bool): boolean, put_boolean;
    0x1A ResponseInformation(&'a str): Reader::string, Writer::put_string;
    0x1C ServerReference(&'a str): Reader::string, Writer::put_string;
    0x1F ReasonString(&'a str): Reader::string, Writer::put_string;
    0x21 ReceiveMaximum(NonZeroU16): receive_maximum, put_non_zero_u16;
    0x22 TopicAliasMaximum(u16): Reader::u16, Writer::put_u16;
    0x23 TopicAlias(NonZeroU16): topic_alias, put_non_zero_u16;
    0x24 MaximumQoS(QoS): maximum_qos, put_qos;
    0x25 RetainAvailable(bool): boolean, put_boolean;
    0x26 UserProperty((&'a str, &'a str)): Reader::string_pair, Writer::put_string_pair;
    0x27 MaximumPacketSize(NonZeroU32): maximum_packet_size, put_non_zero_u32;
    0x28 WildcardSubscriptionAvailable(bool): boolean, put_boolean;
    0x29 SubscriptionIdentifiersAvailable(bool): boolean, put_boolean;
    0x2A SharedSubscriptionAvailable(bool): boolean, put_boolean;
}

impl<'a> Writer<'a> {
    /// The property, when there is one.
    pub(super) fn put_property(&mut self, property: Option<Property<'_>>) -> Result<(), Full> {
        property.map_or(Ok(()), |property| property.encode(self))
    }
}

/// Keeps a property that may occur once.
pub(super) fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), DecodeError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DecodeError::DuplicateProperty),
    }
}

fn boolean(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::InvalidBoolean),
    }
}

/// A Topic Name: not empty, without wildcards. [MQTT-3.3.2-14]
fn response_topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let text = reader.string()?;
    TopicName::parse(text).map(|_| text).map_err(|_| DecodeError::ResponseTopicInvalid)
}

fn subscription_identifier(reader: &mut Reader<'_>) -> Result<NonZeroU32, DecodeError> {
    NonZeroU32::new(reader.variable_byte_integer()?).ok_or(DecodeError::InvalidSubscriptionIdentifier)
}

fn receive_maximum(reader: &mut Reader<'_>) -> Result<NonZeroU16, DecodeError> {
    NonZeroU16::new(reader.u16()?).ok_or(DecodeError::ZeroReceiveMaximum)
}

fn topic_alias(reader: &mut Reader<'_>) -> Result<NonZeroU16, DecodeError> {
    NonZeroU16::new(reader.u16()?).ok_or(DecodeError::ZeroTopicAlias)
}

fn maximum_packet_size(reader: &mut Reader<'_>) -> Result<NonZeroU32, DecodeError> {
    NonZeroU32::new(reader.u32()?).ok_or(DecodeError::ZeroMaximumPacketSize)
}

/// 0 or 1; QoS 2 is said by the absence of the property (§3.2.2.3.4).
fn maximum_qos(reader: &mut Reader<'_>) -> Result<QoS, DecodeError> {
    QoS::from_bits(reader.u8()?).filter(|qos| *qos != QoS::ExactlyOnce).ok_or(DecodeError::InvalidMaximumQoS)
}

fn put_boolean(writer: &mut Writer<'_>, value: bool) -> Result<(), Full> {
    writer.put_u8(u8::from(value))
}

fn put_subscription_identifier(writer: &mut Writer<'_>, value: NonZeroU32) -> Result<(), Full> {
    writer.put_variable_byte_integer(value.get())
}

fn put_non_zero_u16(writer: &mut Writer<'_>, value: NonZeroU16) -> Result<(), Full> {
    writer.put_u16(value.get())
}

fn put_non_zero_u32(writer: &mut Writer<'_>, value: NonZeroU32) -> Result<(), Full> {
    writer.put_u32(value.get())
}

fn put_qos(writer: &mut Writer<'_>, value: QoS) -> Result<(), Full> {
    writer.put_u8(value.bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Property<'_>, DecodeError> {
        Property::decode(&mut Reader::new(bytes))
    }

    #[test]
    fn there_are_27_properties() {
        let known = (0..=0x7F_u8).filter(|identifier| decode(&[*identifier]) != Err(DecodeError::UnknownProperty));
        assert_eq!(known.count(), 27);
    }

    #[test]
    fn a_property_is_written_as_it_was_read() {
        for bytes in [
            &[0x01, 0x01][..],
            &[0x02, 0, 0, 0, 10],
            &[0x03, 0, 1, b'c'],
            &[0x08, 0, 3, b'a', b'/', b'b'],
            &[0x09, 0, 2, 0x00, 0xFF],
            &[0x0B, 0x80, 0x01],
            &[0x13, 0, 60],
            &[0x21, 0, 1],
            &[0x23, 0xFF, 0xFF],
            &[0x24, 1],
            &[0x26, 0, 1, b'k', 0, 1, b'v'],
            &[0x27, 0, 0, 1, 0],
        ] {
            let mut buffer = [0; 16];
            let mut writer = Writer::new(&mut buffer);
            decode(bytes).unwrap().encode(&mut writer).unwrap();
            assert_eq!(writer.written(), bytes);
        }
    }

    #[test]
    fn values_that_the_text_forbids_are_refused() {
        for (bytes, error) in [
            (&[0x01, 2][..], DecodeError::InvalidBoolean),
            (&[0x17, 2], DecodeError::InvalidBoolean),
            (&[0x08, 0, 1, b'#'], DecodeError::ResponseTopicInvalid),
            (&[0x08, 0, 0], DecodeError::ResponseTopicInvalid),
            (&[0x0B, 0], DecodeError::InvalidSubscriptionIdentifier),
            (&[0x21, 0, 0], DecodeError::ZeroReceiveMaximum),
            (&[0x23, 0, 0], DecodeError::ZeroTopicAlias),
            (&[0x24, 2], DecodeError::InvalidMaximumQoS),
            (&[0x27, 0, 0, 0, 0], DecodeError::ZeroMaximumPacketSize),
            (&[0x26, 0, 1, b'k', 0, 1, 0], DecodeError::NulInString),
            (&[0x81, 0x00], DecodeError::MalformedVariableByteInteger),
            (&[0x81, 0x01], DecodeError::UnknownProperty),
        ] {
            assert_eq!(decode(bytes), Err(error), "{bytes:x?}");
        }
    }

    #[test]
    fn the_reason_code_of_a_forbidden_value_is_the_one_of_the_text() {
        assert_eq!(DecodeError::ZeroTopicAlias.reason_code().as_u8(), 0x94);
        assert_eq!(DecodeError::DuplicateProperty.reason_code().as_u8(), 0x82);
        assert_eq!(DecodeError::PropertyNotAllowed.reason_code().as_u8(), 0x81);
        assert_eq!(DecodeError::UnknownProperty.reason_code().as_u8(), 0x81);
    }
}
