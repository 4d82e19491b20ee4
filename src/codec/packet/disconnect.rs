//! DISCONNECT (MQTT 5 §3.14): the last packet of a connection, from either side. In MQTT 3.1.1 only the client sends it,
//! and it says nothing.

use crate::codec::properties::once;
use crate::codec::property_section::EncodedProperties;
use crate::codec::{
    DecodeError, Full, PacketType, Property, ProtocolVersion, Reader, ReasonCode, UserProperties, Writer,
};

/// The properties of a DISCONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DisconnectProperties<'a> {
    /// Seconds; replaces that of CONNECT. Never from a server [MQTT-3.14.2-2]: the caller knows the direction.
    pub session_expiry_interval: Option<u32>,
    /// For people and logs; not sent when it would exceed the receiver's Maximum Packet Size. [MQTT-3.14.2-3]
    pub reason_string: Option<&'a str>,
    /// Diagnostic pairs.
    pub user_properties: UserProperties<'a>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
}

/// The notice that the connection will be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why. [`ReasonCode::NORMAL_DISCONNECTION`] in MQTT 3.1.1.
    pub reason_code: ReasonCode,
    /// Empty in MQTT 3.1.1.
    pub properties: DisconnectProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Without properties.
    #[must_use]
    pub const fn new(reason_code: ReasonCode) -> Self {
        let properties = DisconnectProperties {
            session_expiry_interval: None,
            reason_string: None,
            user_properties: UserProperties::EMPTY,
            server_reference: None,
        };
        Self { reason_code, properties }
    }

    pub(super) fn decode(reader: &mut Reader<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(ReasonCode::NORMAL_DISCONNECTION);
        if version == ProtocolVersion::V5 && !reader.is_empty() {
            disconnect.reason_code = reader.reason_code(PacketType::Disconnect)?;
            if !reader.is_empty() {
                disconnect.properties = DisconnectProperties::decode(reader)?;
            }
        }
        Ok(disconnect)
    }

    /// Bytes of the whole packet.
    #[must_use]
    pub fn encoded_bytes(&self, version: ProtocolVersion) -> usize {
        Writer::measure(|writer| self.encode(version, writer))
    }

    /// Writes the whole packet in its shortest form. In MQTT 3.1.1 that is two bytes, whatever the Reason Code: a server
    /// must not send it there.
    ///
    /// # Errors
    /// [`Full`], and then nothing of it counts as written.
    pub fn encode(&self, version: ProtocolVersion, writer: &mut Writer<'_>) -> Result<(), Full> {
        let no_properties = self.properties == DisconnectProperties::default();
        writer.put_packet(PacketType::Disconnect, |writer| {
            let says_nothing = no_properties && self.reason_code == ReasonCode::NORMAL_DISCONNECTION;
            if version == ProtocolVersion::V311 || says_nothing {
                return Ok(());
            }
            writer.put_u8(self.reason_code.as_u8())?;
            if no_properties {
                return Ok(());
            }
            writer.put_section(|writer| self.properties.encode(writer))
        })
    }
}

impl<'a> DisconnectProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut p = Self::default();
        let section = EncodedProperties::decode(reader, |property| match property {
            Property::SessionExpiryInterval(value) => once(&mut p.session_expiry_interval, value),
            Property::ReasonString(value) => once(&mut p.reason_string, value),
            Property::UserProperty(_) => Ok(()),
            Property::ServerReference(value) => once(&mut p.server_reference, value),
            _ => Err(DecodeError::PropertyNotAllowed),
        })?;
        p.user_properties = UserProperties::Encoded(section);
        Ok(p)
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), Full> {
        writer.put_property(self.session_expiry_interval.map(Property::SessionExpiryInterval))?;
        writer.put_property(self.reason_string.map(Property::ReasonString))?;
        self.user_properties.encode(writer)?;
        writer.put_property(self.server_reference.map(Property::ServerReference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Packet;
    use crate::codec::packet::tests::{golden, packet};

    const V5: ProtocolVersion = ProtocolVersion::V5;

    #[test]
    fn disconnect_of_no_bytes_means_normal_disconnection() {
        // §3.14.2.1
        let normal = Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION));
        assert_eq!(golden(V5, &[0xE0, 0]), normal);
        assert_eq!(golden(ProtocolVersion::V311, &[0xE0, 0]), normal);
        assert_eq!(packet(V5, &[0xE0, 1, 0]), Ok(normal));
        assert_eq!(packet(V5, &[0xE0, 2, 0, 0]), Ok(normal));
        assert_eq!(packet(ProtocolVersion::V311, &[0xE0, 1, 0]), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn disconnect_of_one_byte_has_no_properties() {
        // §3.14.2.2.1
        let expected = Packet::Disconnect(Disconnect::new(ReasonCode::DisconnectWithWillMessage));
        assert_eq!(golden(V5, &[0xE0, 1, 4]), expected);
    }

    #[test]
    fn disconnect_carries_every_property() {
        #[rustfmt::skip]
        let bytes = [
            0xE0, 23, 0x9D, 21,
            0x11, 0, 0, 0, 9, 0x1F, 0, 1, b'x', 0x26, 0, 1, b'k', 0, 1, b'v', 0x1C, 0, 2, b'h', b'1',
        ];
        let Packet::Disconnect(disconnect) = golden(V5, &bytes) else { panic!() };
        let properties = DisconnectProperties {
            session_expiry_interval: Some(9),
            reason_string: Some("x"),
            user_properties: UserProperties::Pairs(&[("k", "v")]),
            server_reference: Some("h1"),
        };
        assert_eq!(disconnect, Disconnect { reason_code: ReasonCode::ServerMoved, properties });
    }

    #[test]
    fn disconnect_uses_its_own_reason_codes() {
        // [MQTT-3.14.2-1]
        assert_eq!(packet(V5, &[0xE0, 1, 0x86]), Err(DecodeError::InvalidReasonCode));
    }
}
