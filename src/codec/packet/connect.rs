//! CONNECT (MQTT 5 §3.1): the first packet of a client. It names the protocol version that the rest of the connection
//! speaks, so both versions are told apart here.

use crate::codec::properties::once;
use crate::codec::property_section::EncodedProperties;
use crate::codec::{
    DecodeError, Full, PacketType, Property, ProtocolVersion, QoS, Reader, Redacted, UserProperties, Will, Writer,
};
use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};

/// Connect Flags (§3.1.2.3); bits 3 and 4 are the Will QoS.
mod flag {
    pub const RESERVED: u8 = 0b0000_0001;
    pub const CLEAN_START: u8 = 0b0000_0010;
    pub const WILL: u8 = 0b0000_0100;
    pub const WILL_QOS_SHIFT: u8 = 3;
    pub const WILL_RETAIN: u8 = 0b0010_0000;
    pub const PASSWORD: u8 = 0b0100_0000;
    pub const USER_NAME: u8 = 0b1000_0000;
}

/// What the client asks of the connection. An absent property has the default of the text.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds that the session outlives the connection; absent: 0; 0xFFFF_FFFF: without end.
    pub session_expiry_interval: Option<u32>,
    /// PUBLISH packets of QoS 1 and 2 that the client processes at one time; absent: 65 535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Bytes of the largest packet that the client accepts; absent: no limit of its own.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Largest Topic Alias that the client accepts; absent: none.
    pub topic_alias_maximum: Option<u16>,
    /// Whether CONNACK should carry Response Information; absent: no.
    pub request_response_information: Option<bool>,
    /// Whether every packet may carry Reason String and User Properties; absent: yes.
    pub request_problem_information: Option<bool>,
    /// Asks for enhanced authentication (§4.12).
    pub authentication_method: Option<&'a str>,
    /// Of the authentication method; never without one.
    pub authentication_data: Option<&'a [u8]>,
    /// Whatever the client adds.
    pub user_properties: UserProperties<'a>,
}

/// A client's request for a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Of this connection.
    pub protocol_version: ProtocolVersion,
    /// A session that exists is discarded first. Clean Session in MQTT 3.1.1.
    pub clean_start: bool,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    /// Empty: the server assigns one. Whether it is acceptable is the caller's question.
    pub client_identifier: &'a str,
    /// What to publish when the connection ends badly.
    pub will: Option<Will<'a>>,
    /// For authentication.
    pub username: Option<&'a str>,
    /// For authentication; any bytes.
    pub password: Option<&'a [u8]>,
    /// Empty in MQTT 3.1.1.
    pub properties: ConnectProperties<'a>,
}

impl<'a> Connect<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let version = protocol_version(reader)?;
        let flags = reader.u8()?;
        let will_flags = will_flags(flags)?;
        if version == ProtocolVersion::V311 && flags & flag::PASSWORD != 0 && flags & flag::USER_NAME == 0 {
            return Err(DecodeError::PasswordWithoutUserName);
        }
        let keep_alive = reader.u16()?;
        let properties = match version {
            ProtocolVersion::V311 => ConnectProperties::default(),
            ProtocolVersion::V5 => ConnectProperties::decode(reader)?,
        };
        // The payload's order is fixed. [MQTT-3.1.3-1]
        let client_identifier = reader.string()?;
        let will = match will_flags {
            Some((qos, retain)) => Some(Will::decode(reader, qos, retain, version)?),
            None => None,
        };
        let username = if flags & flag::USER_NAME != 0 { Some(reader.string()?) } else { None };
        let password = if flags & flag::PASSWORD != 0 { Some(reader.binary()?) } else { None };
        Ok(Self {
            protocol_version: version,
            clean_start: flags & flag::CLEAN_START != 0,
            keep_alive,
            client_identifier,
            will,
            username,
            password,
            properties,
        })
    }

    /// Bytes of the whole packet. A CONNECT is of its own `protocol_version`; the argument is not used.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        Writer::measure(|writer| self.encode(version, writer))
    }

    /// Writes the whole packet. A CONNECT is of its own `protocol_version`; the argument is not used.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written.
    pub fn encode(&self, _version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        let version = self.protocol_version;
        writer.put_packet(PacketType::Connect, |writer| {
            writer.put_string("MQTT")?;
            writer.put_u8(version.level())?;
            writer.put_u8(self.flags())?;
            writer.put_u16(self.keep_alive)?;
            if version == ProtocolVersion::V5 {
                writer.put_section(|writer| self.properties.encode(writer))?;
            }
            writer.put_string(self.client_identifier)?;
            if let Some(will) = &self.will {
                will.encode(version, writer)?;
            }
            if let Some(username) = self.username {
                writer.put_string(username)?;
            }
            if let Some(password) = self.password {
                writer.put_binary(password)?;
            }
            Ok(())
        })
    }

    fn flags(&self) -> u8 {
        let set = |condition: bool, bit: u8| if condition { bit } else { 0 };
        let will = self.will.map_or(0, |will| {
            flag::WILL | will.qos.bits() << flag::WILL_QOS_SHIFT | set(will.retain, flag::WILL_RETAIN)
        });
        will | set(self.clean_start, flag::CLEAN_START)
            | set(self.username.is_some(), flag::USER_NAME)
            | set(self.password.is_some(), flag::PASSWORD)
    }
}

/// Protocol Name and Protocol Version (§3.1.2.1, §3.1.2.2).
fn protocol_version(reader: &mut Reader<'_>) -> Result<ProtocolVersion, DecodeError> {
    match reader.string()? {
        "MQTT" => match reader.u8()? {
            4 => Ok(ProtocolVersion::V311),
            5 => Ok(ProtocolVersion::V5),
            _ => Err(DecodeError::UnsupportedProtocolVersion),
        },
        // MQTT 3.1.
        "MQIsdp" => Err(DecodeError::UnsupportedProtocolVersion),
        _ => Err(DecodeError::UnknownProtocolName),
    }
}

/// QoS and Retain of the will, when there is one.
fn will_flags(flags: u8) -> Result<Option<(QoS, bool)>, DecodeError> {
    if flags & flag::RESERVED != 0 {
        return Err(DecodeError::ReservedConnectFlag);
    }
    let qos = QoS::from_bits((flags >> flag::WILL_QOS_SHIFT) & 0b11).ok_or(DecodeError::InvalidQoS)?;
    let retain = flags & flag::WILL_RETAIN != 0;
    if flags & flag::WILL != 0 {
        return Ok(Some((qos, retain)));
    }
    if retain || qos != QoS::AtMostOnce { Err(DecodeError::WillFlagsWithoutWill) } else { Ok(None) }
}

impl<'a> ConnectProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut p = Self::default();
        let section = EncodedProperties::decode(reader, |property| match property {
            Property::SessionExpiryInterval(value) => once(&mut p.session_expiry_interval, value),
            Property::ReceiveMaximum(value) => once(&mut p.receive_maximum, value),
            Property::MaximumPacketSize(value) => once(&mut p.maximum_packet_size, value),
            Property::TopicAliasMaximum(value) => once(&mut p.topic_alias_maximum, value),
            Property::RequestResponseInformation(value) => once(&mut p.request_response_information, value),
            Property::RequestProblemInformation(value) => once(&mut p.request_problem_information, value),
            Property::UserProperty(_) => Ok(()),
            Property::AuthenticationMethod(value) => once(&mut p.authentication_method, value),
            Property::AuthenticationData(value) => once(&mut p.authentication_data, value),
            _ => Err(DecodeError::PropertyNotAllowed),
        })?;
        if p.authentication_data.is_some() && p.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataWithoutMethod);
        }
        p.user_properties = UserProperties::Encoded(section);
        Ok(p)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put_property(self.session_expiry_interval.map(Property::SessionExpiryInterval))?;
        writer.put_property(self.receive_maximum.map(Property::ReceiveMaximum))?;
        writer.put_property(self.maximum_packet_size.map(Property::MaximumPacketSize))?;
        writer.put_property(self.topic_alias_maximum.map(Property::TopicAliasMaximum))?;
        writer.put_property(self.request_response_information.map(Property::RequestResponseInformation))?;
        writer.put_property(self.request_problem_information.map(Property::RequestProblemInformation))?;
        self.user_properties.encode(writer)?;
        writer.put_property(self.authentication_method.map(Property::AuthenticationMethod))?;
        writer.put_property(self.authentication_data.map(Property::AuthenticationData))
    }
}

impl fmt::Debug for Connect<'_> {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("protocol_version", &self.protocol_version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("client_identifier", &self.client_identifier)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &self.password.map(Redacted))
            .field("properties", &self.properties)
            .finish()
    }
}

impl fmt::Debug for ConnectProperties<'_> {
    /// Without the authentication data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectProperties")
            .field("session_expiry_interval", &self.session_expiry_interval)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("request_response_information", &self.request_response_information)
            .field("request_problem_information", &self.request_problem_information)
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &self.authentication_data.map(Redacted))
            .field("user_properties", &self.user_properties)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::packet::tests::{golden, packet};
    use crate::codec::{Packet, WillProperties};

    const V5: ProtocolVersion = ProtocolVersion::V5;

    /// A CONNECT of MQTT 5 with these flags and whatever follows Keep Alive.
    fn with(flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes =
            vec![0x10, u8::try_from(10 + rest.len()).unwrap(), 0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 60];
        bytes.extend_from_slice(rest);
        bytes
    }

    fn refused(bytes: &[u8]) -> DecodeError {
        packet(V5, bytes).unwrap_err()
    }

    #[test]
    fn connect_with_an_empty_client_identifier() {
        let bytes = with(0x02, &[0, 0, 0]);
        let expected = Connect {
            protocol_version: V5,
            clean_start: true,
            keep_alive: 60,
            client_identifier: "",
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        assert_eq!(golden(V5, &bytes), Packet::Connect(expected));
    }

    #[test]
    fn connect_carries_will_credentials_and_every_property() {
        #[rustfmt::skip]
        let bytes = with(0b1111_0110, &[
            35,
            0x11, 0xFF, 0xFF, 0xFF, 0xFF, 0x21, 0, 20, 0x27, 0, 0, 4, 0, 0x22, 0, 3, 0x19, 1, 0x17, 0,
            0x26, 0, 1, b'k', 0, 1, b'v', 0x15, 0, 1, b'M', 0x16, 0, 1, 0xD7,
            0, 1, b'c',
            33,
            0x18, 0, 0, 0, 5, 0x02, 0, 0, 0, 9, 0x01, 1, 0x03, 0, 1, b't', 0x08, 0, 1, b'r', 0x09, 0, 1, 7,
            0x26, 0, 1, b'a', 0, 3, b'b', b'c', b'd',
            0, 1, b'w', 0, 2, 0xCA, 0xFE,
            0, 1, b'u', 0, 2, b'p', b'w',
        ]);
        let Packet::Connect(connect) = golden(V5, &bytes) else { panic!() };
        assert_eq!((connect.client_identifier, connect.username), ("c", Some("u")));
        assert_eq!(connect.password, Some(&b"pw"[..]));
        let expected = ConnectProperties {
            session_expiry_interval: Some(u32::MAX),
            receive_maximum: NonZeroU16::new(20),
            maximum_packet_size: NonZeroU32::new(1_024),
            topic_alias_maximum: Some(3),
            request_response_information: Some(true),
            request_problem_information: Some(false),
            authentication_method: Some("M"),
            authentication_data: Some(&[0xD7]),
            user_properties: UserProperties::Pairs(&[("k", "v")]),
        };
        assert_eq!(connect.properties, expected);
        let will = connect.will.unwrap();
        assert_eq!((will.qos, will.retain, will.topic), (QoS::ExactlyOnce, true, "w"));
        assert_eq!(will.payload, [0xCA, 0xFE]);
        let expected = WillProperties {
            will_delay_interval: Some(5),
            payload_format_utf8: Some(true),
            message_expiry_interval: Some(9),
            content_type: Some("t"),
            response_topic: Some("r"),
            correlation_data: Some(&[7]),
            user_properties: UserProperties::Pairs(&[("a", "bcd")]),
        };
        assert_eq!(will.properties, expected);
        let forwardable: Vec<&[u8]> = will.properties.forwardable().collect();
        assert_eq!(forwardable.concat(), bytes[62..85]);
        assert_eq!(forwardable.len(), 5);
    }

    #[test]
    fn credentials_and_payloads_are_not_shown_by_debug() {
        let bytes = with(0xC2, &[0, 0, 0, 0, 1, b'u', 0, 6, b's', b'e', b'c', b'r', b'e', b't']);
        let shown = format!("{:?}", packet(V5, &bytes).unwrap());
        assert!(shown.contains("<6 bytes>") && !shown.contains("115"), "{shown}");
    }

    #[test]
    fn other_protocols_and_versions_are_told_apart() {
        // [MQTT-3.1.2-1] [MQTT-3.1.2-2]
        let v31 = [0x10, 15, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 60, 0, 1, b'c'];
        assert_eq!(refused(&v31), DecodeError::UnsupportedProtocolVersion);
        for level in [0, 3, 6, 0x84] {
            let bytes = [0x10, 7, 0, 4, b'M', b'Q', b'T', b'T', level];
            assert_eq!(packet(V5, &bytes), Err(DecodeError::UnsupportedProtocolVersion));
        }
        assert_eq!(refused(&[0x10, 7, 0, 4, b'm', b'q', b't', b't', 5]), DecodeError::UnknownProtocolName);
        assert_eq!(DecodeError::UnsupportedProtocolVersion.reason_code().as_u8(), 0x84);
    }

    #[test]
    fn reserved_and_contradicting_flags_are_refused() {
        assert_eq!(refused(&with(0x01, &[0, 0, 0])), DecodeError::ReservedConnectFlag); // [MQTT-3.1.2-3]
        assert_eq!(refused(&with(0x08, &[0, 0, 0])), DecodeError::WillFlagsWithoutWill); // [MQTT-3.1.2-11]
        assert_eq!(refused(&with(0x20, &[0, 0, 0])), DecodeError::WillFlagsWithoutWill); // [MQTT-3.1.2-13]
        assert_eq!(refused(&with(0x1C, &[0, 0, 0])), DecodeError::InvalidQoS); // [MQTT-3.1.2-12]
    }

    #[test]
    fn the_payload_is_what_the_flags_announce() {
        // [MQTT-3.1.2-16] to [MQTT-3.1.2-19]
        assert_eq!(refused(&with(0x80, &[0, 0, 0])), DecodeError::Truncated);
        assert_eq!(refused(&with(0x40, &[0, 0, 0])), DecodeError::Truncated);
        assert_eq!(refused(&with(0x02, &[0, 0, 0, 0, 1, b'u'])), DecodeError::TrailingBytes);
    }

    #[test]
    fn a_password_needs_a_user_name_in_3_1_1_only() {
        assert!(packet(V5, &with(0x40, &[0, 0, 0, 0, 1, b'p'])).is_ok());
        let v311 = [0x10, 15, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x42, 0, 60, 0, 0, 0, 1, b'p'];
        assert_eq!(refused(&v311), DecodeError::PasswordWithoutUserName);
    }

    #[test]
    fn connect_properties_that_contradict_the_text_are_refused() {
        assert_eq!(refused(&with(2, &[3, 0x16, 0, 0, 0, 0])), DecodeError::AuthenticationDataWithoutMethod);
        assert_eq!(refused(&with(2, &[4, 0x17, 1, 0x17, 1, 0, 0])), DecodeError::DuplicateProperty);
        assert_eq!(refused(&with(2, &[3, 0x23, 0, 1, 0, 0])), DecodeError::PropertyNotAllowed);
        assert_eq!(refused(&with(2, &[3, 0x21, 0, 0, 0, 0])), DecodeError::ZeroReceiveMaximum);
    }

    #[test]
    fn a_will_topic_is_a_topic_name() {
        let will = |topic: u8| with(0x06, &[0, 0, 0, 0, 0, 1, topic, 0, 0]);
        assert_eq!(refused(&will(b'#')), DecodeError::TopicNameInvalid);
        assert!(packet(V5, &will(b'w')).is_ok());
    }

    #[test]
    fn connect_of_3_1_1_has_no_properties() {
        #[rustfmt::skip]
        let bytes = [
            0x10, 27, 0, 4, b'M', b'Q', b'T', b'T', 4, 0b1110_1110, 0, 10,
            0, 1, b'c', 0, 1, b'w', 0, 2, b'b', b'y', 0, 1, b'u', 0, 2, b'p', b'w',
        ];
        let Packet::Connect(connect) = golden(V5, &bytes) else { panic!() };
        assert_eq!(connect.protocol_version, ProtocolVersion::V311);
        assert_eq!(connect.will.map(|will| (will.qos, will.payload)), Some((QoS::AtLeastOnce, &b"by"[..])));
    }
}
