//! Our codec against another one, the crate mqtt-protocol-core: both read the same packets and write the same bytes, and
//! ours accepts nothing that the other refuses. The other way round does not hold: ours is stricter, about U+0000, bytes
//! after the last field, reserved flags and wildcards in names.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may end by a panic")]

mod codec_material;

use codec_material::{Parts, config, encoded, material, version_of};
use portcullis::codec::{FixedHeader, Packet, PacketType, ProtocolVersion, ReasonCode, decode, decode_fixed_header};
use proptest::prelude::*;

/// What another implementation makes of the same body: the packet that it encodes again, or `None` when it refuses.
macro_rules! other_codec {
    ($name:ident, $version:ident $(, $auth:ident)?) => {
        fn $name(packet_type: PacketType, flags: u8, body: &[u8]) -> Option<Vec<u8>> {
            use mqtt_protocol_core::mqtt::packet::$version as other;
            let parsed = match packet_type {
                PacketType::Connect => other::Connect::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::ConnAck => other::Connack::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::Publish => {
                    other::Publish::parse(flags, body.into()).map(|(packet, _)| packet.to_continuous_buffer())
                }
                PacketType::PubAck => other::Puback::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::PubRec => other::Pubrec::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::PubRel => other::Pubrel::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::PubComp => other::Pubcomp::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::Subscribe => other::Subscribe::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::SubAck => other::Suback::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::Unsubscribe => {
                    other::Unsubscribe::parse(body).map(|(packet, _)| packet.to_continuous_buffer())
                }
                PacketType::UnsubAck => other::Unsuback::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::PingReq => other::Pingreq::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::PingResp => other::Pingresp::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                PacketType::Disconnect => other::Disconnect::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),
                $(PacketType::$auth => other::$auth::parse(body).map(|(packet, _)| packet.to_continuous_buffer()),)?
                #[allow(unreachable_patterns, reason = "AUTH is listed for MQTT 5 only")]
                PacketType::Auth => return None,
            };
            parsed.ok()
        }
    };
}

other_codec!(other_codec_v5, v5_0, Auth);
other_codec!(other_codec_v311, v3_1_1);

fn other_codec(header: FixedHeader, body: &[u8], version: ProtocolVersion) -> Option<Vec<u8>> {
    match version {
        ProtocolVersion::V311 => other_codec_v311(header.packet_type, header.flags, body),
        ProtocolVersion::V5 => other_codec_v5(header.packet_type, header.flags, body),
    }
}

/// Packets that the text allows and the other codec refuses.
fn is_known_difference(packet: &Packet<'_>) -> bool {
    match packet {
        // §3.1.2.9: a Password without a User Name is allowed in MQTT 5.
        Packet::Connect(connect) => connect.password.is_some() && connect.username.is_none(),
        // §2.4 lists DISCONNECT beside 0x8C; the table of §3.14.2.1 leaves it out.
        Packet::Disconnect(disconnect) => disconnect.reason_code == ReasonCode::BadAuthenticationMethod,
        _ => false,
    }
}

proptest! {
    #![proptest_config(config(1_500))]

    #[test]
    fn another_codec_reads_the_same_packet(material in material()) {
        let parts = Parts::new(&material);
        let packet = parts.packet();
        if is_known_difference(&packet) {
            return Ok(());
        }
        let bytes = encoded(&packet, material.version);
        let header = decode_fixed_header(&bytes).unwrap().unwrap();
        let body = &bytes[usize::from(header.header_bytes)..];
        prop_assert_eq!(other_codec(header, body, material.version), Some(bytes), "{:?}", packet);
    }

    #[test]
    fn what_is_accepted_another_codec_accepts_too(
        material in material(),
        changes in prop::collection::vec((0_usize..24, 0_u8..48), 8),
    ) {
        let parts = Parts::new(&material);
        let bytes = encoded(&parts.packet(), material.version);
        let header = decode_fixed_header(&bytes).unwrap().unwrap();
        let mut body = bytes[usize::from(header.header_bytes)..].to_vec();
        for (index, value) in changes {
            let Some(byte) = body.get_mut(index) else { continue };
            let before = std::mem::replace(byte, value);
            if let Ok(packet) = decode(header, &body, material.version)
                && !is_known_difference(&packet)
                && version_of(&packet, material.version) == material.version
            {
                prop_assert!(other_codec(header, &body, material.version).is_some(), "{:?}", packet);
            }
            body[index] = before;
        }
    }
}
