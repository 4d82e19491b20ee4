//! AUTH (MQTT 5 §3.15): one step of an enhanced authentication. MQTT 3.1.1 has no such packet.

use crate::codec::properties::once;
use crate::codec::property_section::EncodedProperties;
use crate::codec::{
    DecodeError, Full, PacketType, Property, ProtocolVersion, Reader, ReasonCode, Redacted, UserProperties, Writer,
};
use core::fmt;

/// The properties of an AUTH.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct AuthProperties<'a> {
    /// As in CONNECT [MQTT-4.12.0-5]. Absent only when the whole packet is the fixed header.
    pub authentication_method: Option<&'a str>,
    /// Of the authentication method.
    pub authentication_data: Option<&'a [u8]>,
    /// For people and logs. [MQTT-3.15.2-2]
    pub reason_string: Option<&'a str>,
    /// Diagnostic pairs.
    pub user_properties: UserProperties<'a>,
}

/// One step of an enhanced authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason_code: ReasonCode,
    /// What the step says.
    pub properties: AuthProperties<'a>,
}

impl<'a> Auth<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        if version == ProtocolVersion::V311 {
            return Err(DecodeError::ReservedPacketType);
        }
        if reader.is_empty() {
            return Ok(Self { reason_code: ReasonCode::Success, properties: AuthProperties::default() });
        }
        let reason_code = reader.reason_code(PacketType::Auth)?;
        let properties = AuthProperties::decode(reader)?;
        if properties.authentication_method.is_none() {
            return Err(DecodeError::MissingAuthenticationMethod);
        }
        Ok(Self { reason_code, properties })
    }

    /// Bytes of the whole packet; 0 in MQTT 3.1.1.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        Writer::measure(|writer| self.encode(version, writer))
    }

    /// Writes the whole packet in its shortest form. MQTT 3.1.1 has no AUTH: nothing is written.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written.
    pub fn encode(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        if version == ProtocolVersion::V311 {
            return Ok(());
        }
        let says_nothing = self.reason_code == ReasonCode::Success && self.properties == AuthProperties::default();
        writer.put_packet(PacketType::Auth, |writer| {
            if says_nothing {
                return Ok(());
            }
            writer.put_u8(self.reason_code.as_u8())?;
            writer.put_section(|writer| self.properties.encode(writer))
        })
    }
}

impl<'a> AuthProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut p = Self::default();
        let section = EncodedProperties::decode(reader, |property| match property {
            Property::AuthenticationMethod(value) => once(&mut p.authentication_method, value),
            Property::AuthenticationData(value) => once(&mut p.authentication_data, value),
            Property::ReasonString(value) => once(&mut p.reason_string, value),
            Property::UserProperty(_) => Ok(()),
            _ => Err(DecodeError::PropertyNotAllowed),
        })?;
        p.user_properties = UserProperties::Encoded(section);
        Ok(p)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put_property(self.authentication_method.map(Property::AuthenticationMethod))?;
        writer.put_property(self.authentication_data.map(Property::AuthenticationData))?;
        writer.put_property(self.reason_string.map(Property::ReasonString))?;
        self.user_properties.encode(writer)
    }
}

impl fmt::Debug for AuthProperties<'_> {
    /// Without the authentication data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthProperties")
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &self.authentication_data.map(Redacted))
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Packet;
    use crate::codec::packet::tests::{golden, packet};

    const V5: ProtocolVersion = ProtocolVersion::V5;

    #[test]
    fn auth_carries_every_property() {
        #[rustfmt::skip]
        let bytes = [
            0xF0, 26, 0x18, 24,
            0x15, 0, 5, b'K', b'8', b'S', b'-', b'S', 0x16, 0, 2, 0, 0xFF, 0x1F, 0, 1, b'x',
            0x26, 0, 1, b'k', 0, 1, b'v',
        ];
        let Packet::Auth(auth) = golden(V5, &bytes) else { panic!() };
        let properties = AuthProperties {
            authentication_method: Some("K8S-S"),
            authentication_data: Some(&[0, 0xFF]),
            reason_string: Some("x"),
            user_properties: UserProperties::Pairs(&[("k", "v")]),
        };
        assert_eq!(auth, Auth { reason_code: ReasonCode::ContinueAuthentication, properties });
        assert!(!format!("{auth:?}").contains("255"));
    }

    #[test]
    fn auth_of_no_bytes_means_success() {
        // §3.15.2.1
        let Packet::Auth(auth) = golden(V5, &[0xF0, 0]) else { panic!() };
        assert_eq!(auth.reason_code, ReasonCode::Success);
    }

    #[test]
    fn auth_without_a_method_is_a_protocol_error() {
        // §3.15.2.2.2
        assert_eq!(packet(V5, &[0xF0, 2, 0x18, 0]), Err(DecodeError::MissingAuthenticationMethod));
        assert_eq!(packet(V5, &[0xF0, 1, 0x18]), Err(DecodeError::Truncated));
        // [MQTT-3.15.2-1]
        assert_eq!(packet(V5, &[0xF0, 2, 0x87, 0]), Err(DecodeError::InvalidReasonCode));
    }

    #[test]
    fn auth_does_not_exist_in_3_1_1() {
        let auth = Auth { reason_code: ReasonCode::Success, properties: AuthProperties::default() };
        assert_eq!(auth.encoded_bytes(ProtocolVersion::V311), 0);
    }
}
