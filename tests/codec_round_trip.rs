//! Packets and bytes drawn from a seed: what is encoded decodes to the same packet, what is accepted round-trips, and
//! nothing makes the codec panic. `PROPTEST_RNG_SEED=7 cargo test --test codec_round_trip` draws from another seed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may end by a panic")]

mod codec_material;

use codec_material::{Parts, config, encoded, material, version_of};
use portcullis::codec::{FixedHeader, Packet, PacketType, ProtocolVersion, Writer, decode, decode_fixed_header};
use proptest::prelude::*;

/// Decodes a body; what is accepted must survive being encoded and decoded again. Touches all that is read lazily.
fn try_body(header: FixedHeader, body: &[u8], version: ProtocolVersion) {
    let header = FixedHeader { remaining_length: u32::try_from(body.len()).unwrap(), ..header };
    let Ok(packet) = decode(header, body, version) else { return };
    let _ = format!("{packet:?}");
    let version = version_of(&packet, version);
    let again = encoded(&packet, version);
    assert!(again.len() <= header.packet_bytes() + 3, "an encoded packet is in its shortest form");
    let header = decode_fixed_header(&again).unwrap().unwrap();
    assert_eq!(header.packet_bytes(), again.len());
    assert_eq!(decode(header, &again[usize::from(header.header_bytes)..], version), Ok(packet));
}

proptest! {
    #![proptest_config(config(1_500))]

    #[test]
    fn what_is_encoded_decodes_to_the_same_packet(material in material()) {
        let parts = Parts::new(&material);
        let packet = parts.packet();
        let bytes = encoded(&packet, material.version);
        for end in 0..bytes.len() {
            let header = decode_fixed_header(&bytes[..end]).unwrap();
            prop_assert!(header.is_none_or(|header| header.packet_bytes() > end), "a prefix is incomplete");
        }
        let header = decode_fixed_header(&bytes).unwrap().unwrap();
        prop_assert_eq!(header.packet_bytes(), bytes.len());
        prop_assert_eq!(header.packet_type, material.packet_type);
        let body = &bytes[usize::from(header.header_bytes)..];
        prop_assert_eq!(decode(header, body, material.version), Ok(packet));
    }

    #[test]
    fn properties_that_are_forwarded_verbatim_say_the_same(material in material()) {
        let mut material = material;
        material.version = ProtocolVersion::V5;
        material.packet_type = PacketType::Publish;
        let parts = Parts::new(&material);
        let packet = parts.packet();
        let Packet::Publish(built) = packet else { panic!() };
        let bytes = encoded(&packet, ProtocolVersion::V5);
        let header = decode_fixed_header(&bytes).unwrap().unwrap();
        let body = &bytes[usize::from(header.header_bytes)..];
        let Ok(Packet::Publish(publish)) = decode(header, body, ProtocolVersion::V5) else { panic!() };
        let mut buffer = vec![0; bytes.len()];
        let mut writer = Writer::new(&mut buffer);
        built.properties.encode_forwardable(&mut writer).unwrap();
        let forwardable: Vec<&[u8]> = publish.properties.forwardable().collect();
        prop_assert_eq!(forwardable.concat(), writer.written());
    }

    #[test]
    fn a_changed_or_shortened_packet_is_refused_or_round_trips(
        material in material(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
        other_version in any::<bool>(),
    ) {
        let parts = Parts::new(&material);
        let bytes = encoded(&parts.packet(), material.version);
        let header = decode_fixed_header(&bytes).unwrap().unwrap();
        let mut body = bytes[usize::from(header.header_bytes)..].to_vec();
        let version = match (other_version, material.version) {
            (true, ProtocolVersion::V5) => ProtocolVersion::V311,
            (true, ProtocolVersion::V311) => ProtocolVersion::V5,
            (false, version) => version,
        };
        if body.is_empty() {
            return Ok(());
        }
        try_body(header, &body[..end.index(body.len())], version);
        for (index, byte) in changes {
            let index = index.index(body.len());
            body[index] = byte;
            try_body(header, &body, version);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_round_trip(first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut start = vec![first];
        start.extend_from_slice(&body);
        let _ = decode_fixed_header(&start);
        for flags in [first & 0x0F, 0, 2] {
            let header = decode_fixed_header(&[(first & 0xF0) | flags, 0]);
            for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
                if let Ok(Some(header)) = header {
                    try_body(header, &body, version);
                }
            }
        }
    }
}
