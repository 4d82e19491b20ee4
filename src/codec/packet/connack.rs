//! CONNACK (MQTT 5 §3.2): the server's answer to CONNECT. MQTT 3.1.1 has the flags and a return code only.

use crate::codec::properties::once;
use crate::codec::property_section::EncodedProperties;
use crate::codec::{
    DecodeError, Full, PacketType, Property, ProtocolVersion, QoS, Reader, ReasonCode, Redacted, UserProperties, Writer,
};
use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};

/// What the server says of itself and of this connection. An absent property has the default of the text.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnAckProperties<'a> {
    /// Seconds; the server uses another value than the client asked for.
    pub session_expiry_interval: Option<u32>,
    /// PUBLISH packets of QoS 1 and 2 that the server processes at one time; absent: 65 535.
    pub receive_maximum: Option<NonZeroU16>,
    /// QoS 0 or 1; absent: QoS 2. `ExactlyOnce` is written as absence.
    pub maximum_qos: Option<QoS>,
    /// Absent: available.
    pub retain_available: Option<bool>,
    /// Bytes of the largest packet that the server accepts; absent: no limit of its own.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Given when the client sent an empty one. [MQTT-3.2.2-16]
    pub assigned_client_identifier: Option<&'a str>,
    /// Largest Topic Alias that the server accepts; absent: none.
    pub topic_alias_maximum: Option<u16>,
    /// For people and logs. [MQTT-3.2.2-19]
    pub reason_string: Option<&'a str>,
    /// Whatever the server adds. [MQTT-3.2.2-20]
    pub user_properties: UserProperties<'a>,
    /// Absent: available.
    pub wildcard_subscription_available: Option<bool>,
    /// Absent: available.
    pub subscription_identifiers_available: Option<bool>,
    /// Absent: available.
    pub shared_subscription_available: Option<bool>,
    /// Seconds; the client uses it instead of its own Keep Alive. [MQTT-3.2.2-21]
    pub server_keep_alive: Option<u16>,
    /// Basis for a Response Topic, when the client asked for it.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// As in CONNECT. [MQTT-4.12.0-5]
    pub authentication_method: Option<&'a str>,
    /// Of the authentication method.
    pub authentication_data: Option<&'a [u8]>,
}

/// The acknowledgement of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The server has a session of the client; said with success only. [MQTT-3.2.2-6]
    pub session_present: bool,
    /// Success, or why the connection will be closed.
    pub reason_code: ReasonCode,
    /// Empty in MQTT 3.1.1.
    pub properties: ConnAckProperties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let session_present = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::ReservedConnectAcknowledgeFlags),
        };
        let reason_code = match version {
            ProtocolVersion::V311 => {
                ReasonCode::from_v311_connect_return_code(reader.u8()?).ok_or(DecodeError::InvalidReasonCode)?
            }
            ProtocolVersion::V5 => reader.reason_code(PacketType::ConnAck)?,
        };
        if session_present && reason_code.is_error() {
            return Err(DecodeError::SessionPresentWithError);
        }
        let properties = match version {
            ProtocolVersion::V311 => ConnAckProperties::default(),
            ProtocolVersion::V5 => ConnAckProperties::decode(reader)?,
        };
        Ok(Self { session_present, reason_code, properties })
    }

    /// Bytes of the whole packet.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        Writer::measure(|writer| self.encode(version, writer))
    }

    /// Writes the whole packet. With an error Session Present is written as 0 [MQTT-3.2.2-6]; in MQTT 3.1.1 the nearest
    /// return code stands for the Reason Code.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written.
    pub fn encode(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put_packet(PacketType::ConnAck, |writer| {
            writer.put_u8(u8::from(self.session_present && !self.reason_code.is_error()))?;
            match version {
                ProtocolVersion::V311 => writer.put_u8(self.reason_code.to_v311_connect_return_code()),
                ProtocolVersion::V5 => {
                    writer.put_u8(self.reason_code.as_u8())?;
                    writer.put_section(|writer| self.properties.encode(writer))
                }
            }
        })
    }
}

impl<'a> ConnAckProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut p = Self::default();
        let section = EncodedProperties::decode(reader, |property| match property {
            Property::SessionExpiryInterval(value) => once(&mut p.session_expiry_interval, value),
            Property::ReceiveMaximum(value) => once(&mut p.receive_maximum, value),
            Property::MaximumQoS(value) => once(&mut p.maximum_qos, value),
            Property::RetainAvailable(value) => once(&mut p.retain_available, value),
            Property::MaximumPacketSize(value) => once(&mut p.maximum_packet_size, value),
            Property::AssignedClientIdentifier(value) => once(&mut p.assigned_client_identifier, value),
            Property::TopicAliasMaximum(value) => once(&mut p.topic_alias_maximum, value),
            Property::ReasonString(value) => once(&mut p.reason_string, value),
            Property::UserProperty(_) => Ok(()),
            Property::WildcardSubscriptionAvailable(value) => once(&mut p.wildcard_subscription_available, value),
            Property::SubscriptionIdentifiersAvailable(value) => once(&mut p.subscription_identifiers_available, value),
            Property::SharedSubscriptionAvailable(value) => once(&mut p.shared_subscription_available, value),
            Property::ServerKeepAlive(value) => once(&mut p.server_keep_alive, value),
            Property::ResponseInformation(value) => once(&mut p.response_information, value),
            Property::ServerReference(value) => once(&mut p.server_reference, value),
            Property::AuthenticationMethod(value) => once(&mut p.authentication_method, value),
            Property::AuthenticationData(value) => once(&mut p.authentication_data, value),
            _ => Err(DecodeError::PropertyNotAllowed),
        })?;
        p.user_properties = UserProperties::Encoded(section);
        Ok(p)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        let maximum_qos = self.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce);
        writer.put_property(self.session_expiry_interval.map(Property::SessionExpiryInterval))?;
        writer.put_property(self.receive_maximum.map(Property::ReceiveMaximum))?;
        writer.put_property(maximum_qos.map(Property::MaximumQoS))?;
        writer.put_property(self.retain_available.map(Property::RetainAvailable))?;
        writer.put_property(self.maximum_packet_size.map(Property::MaximumPacketSize))?;
        writer.put_property(self.assigned_client_identifier.map(Property::AssignedClientIdentifier))?;
        writer.put_property(self.topic_alias_maximum.map(Property::TopicAliasMaximum))?;
        writer.put_property(self.reason_string.map(Property::ReasonString))?;
        self.user_properties.encode(writer)?;
        writer.put_property(self.wildcard_subscription_available.map(Property::WildcardSubscriptionAvailable))?;
        writer.put_property(self.subscription_identifiers_available.map(Property::SubscriptionIdentifiersAvailable))?;
        writer.put_property(self.shared_subscription_available.map(Property::SharedSubscriptionAvailable))?;
        writer.put_property(self.server_keep_alive.map(Property::ServerKeepAlive))?;
        writer.put_property(self.response_information.map(Property::ResponseInformation))?;
        writer.put_property(self.server_reference.map(Property::ServerReference))?;
        writer.put_property(self.authentication_method.map(Property::AuthenticationMethod))?;
        writer.put_property(self.authentication_data.map(Property::AuthenticationData))
    }
}

impl fmt::Debug for ConnAckProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnAckProperties")
            .field("session_expiry_interval", &self.session_expiry_interval)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_qos", &self.maximum_qos)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("assigned_client_identifier", &self.assigned_client_identifier)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("reason_string", &self.reason_string)
            .field("server_keep_alive", &self.server_keep_alive)
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &self.authentication_data.map(Redacted))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Packet;
    use crate::codec::packet::tests::{encoded, golden, packet};

    const V5: ProtocolVersion = ProtocolVersion::V5;

    fn connack(session_present: bool, reason_code: ReasonCode) -> Packet<'static> {
        Packet::ConnAck(ConnAck { session_present, reason_code, properties: ConnAckProperties::default() })
    }

    #[test]
    fn connack_without_properties_has_a_property_length_of_zero() {
        // [MQTT-2.2.2-1]
        assert_eq!(golden(V5, &[0x20, 3, 0, 0, 0]), connack(false, ReasonCode::Success));
        assert_eq!(golden(V5, &[0x20, 3, 1, 0, 0]), connack(true, ReasonCode::Success));
        assert_eq!(golden(V5, &[0x20, 3, 0, 0x87, 0]), connack(false, ReasonCode::NotAuthorized));
        assert_eq!(packet(V5, &[0x20, 2, 0, 0]), Err(DecodeError::Truncated));
    }

    #[test]
    fn connack_carries_every_property_of_the_server() {
        #[rustfmt::skip]
        let bytes = [
            0x20, 76, 0, 0, 73,
            0x11, 0, 0, 0, 60,
            0x21, 0, 10,
            0x24, 1,
            0x25, 1,
            0x27, 0, 1, 0, 0,
            0x12, 0, 2, b'i', b'd',
            0x22, 0, 8,
            0x1F, 0, 2, b'o', b'k',
            0x26, 0, 1, b'k', 0, 1, b'v',
            0x28, 1,
            0x29, 0,
            0x2A, 1,
            0x13, 0, 30,
            0x1A, 0, 4, b'r', b'/', b'i', b'd',
            0x1C, 0, 4, b'h', b':', b'8', b'8',
            0x15, 0, 5, b'K', b'8', b'S', b'-', b'X',
            0x16, 0, 2, 0xDE, 0xAD,
        ];
        let Packet::ConnAck(connack) = golden(V5, &bytes) else { panic!() };
        let expected = ConnAckProperties {
            session_expiry_interval: Some(60),
            receive_maximum: NonZeroU16::new(10),
            maximum_qos: Some(QoS::AtLeastOnce),
            retain_available: Some(true),
            maximum_packet_size: NonZeroU32::new(65_536),
            assigned_client_identifier: Some("id"),
            topic_alias_maximum: Some(8),
            reason_string: Some("ok"),
            user_properties: UserProperties::Pairs(&[("k", "v")]),
            wildcard_subscription_available: Some(true),
            subscription_identifiers_available: Some(false),
            shared_subscription_available: Some(true),
            server_keep_alive: Some(30),
            response_information: Some("r/id"),
            server_reference: Some("h:88"),
            authentication_method: Some("K8S-X"),
            authentication_data: Some(&[0xDE, 0xAD]),
        };
        assert_eq!(connack.properties, expected);
        assert!(!format!("{connack:?}").contains("222"), "authentication data is not shown");
    }

    #[test]
    fn session_present_goes_with_success_only() {
        // [MQTT-3.2.2-6]
        assert_eq!(packet(V5, &[0x20, 3, 1, 0x87, 0]), Err(DecodeError::SessionPresentWithError));
        assert_eq!(encoded(V5, &connack(true, ReasonCode::ServerBusy)), [0x20, 3, 0, 0x89, 0]);
    }

    #[test]
    fn reserved_connect_acknowledge_flags_are_refused() {
        // §3.2.2.1
        assert_eq!(packet(V5, &[0x20, 3, 2, 0, 0]), Err(DecodeError::ReservedConnectAcknowledgeFlags));
    }

    #[test]
    fn quality_of_service_2_is_said_by_absence() {
        // §3.2.2.3.4
        let properties = ConnAckProperties { maximum_qos: Some(QoS::ExactlyOnce), ..ConnAckProperties::default() };
        let connack = ConnAck { session_present: false, reason_code: ReasonCode::Success, properties };
        assert_eq!(encoded(V5, &Packet::ConnAck(connack)), [0x20, 3, 0, 0, 0]);
        assert_eq!(packet(V5, &[0x20, 5, 0, 0, 2, 0x24, 2]), Err(DecodeError::InvalidMaximumQoS));
    }

    #[test]
    fn connack_of_3_1_1_has_a_return_code() {
        let v311 = ProtocolVersion::V311;
        assert_eq!(golden(v311, &[0x20, 2, 1, 0]), connack(true, ReasonCode::Success));
        assert_eq!(golden(v311, &[0x20, 2, 0, 5]), connack(false, ReasonCode::NotAuthorized));
        assert_eq!(packet(v311, &[0x20, 2, 0, 6]), Err(DecodeError::InvalidReasonCode));
        assert_eq!(encoded(v311, &connack(false, ReasonCode::ServerBusy)), [0x20, 2, 0, 3]);
    }
}
