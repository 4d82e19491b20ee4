//! Chapters 1 and 2: how packets are built.

use super::*;

/// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.1.3-4] [MQTT-3.3.2-1] [MQTT-4.7.3-2]
#[test]
fn strings_are_utf8_without_null() {
    let broker = Broker::start("utf8");
    for topic in [&b"a\xFF"[..], b"a\0b", b"\xED\xA0\x80", b"\xC0\x80"] {
        let mut client = broker.client("strings");
        let body = [&(topic.len() as u16).to_be_bytes()[..], topic, &[0]].concat();
        client.send(&packet(0x30, &body));
        client.is_disconnected(0x81);
    }
}

/// [MQTT-1.5.4-3]
#[test]
fn a_byte_order_mark_is_kept() {
    let broker = Broker::start("bom");
    let mut client = broker.client("bom");
    subscribed(&mut client, &[("\u{FEFF}a", 0)]);
    client.send(&publish(0, "a", 0, &[], b"without"));
    client.send(&publish(0, "\u{FEFF}a", 0, &[], b"with"));
    assert_eq!(published(&mut client).topic, "\u{FEFF}a");
}

/// [MQTT-1.5.5-1]
#[test]
fn a_variable_byte_integer_takes_the_fewest_bytes() {
    let broker = Broker::start("minimal");
    for bytes in [&[0xC0, 0x80, 0x00][..], &[0xC0, 0xFF, 0xFF, 0xFF, 0xFF]] {
        let mut client = broker.client("minimal");
        client.send(bytes);
        client.is_disconnected(0x81);
    }
}

/// [MQTT-2.1.3-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.6.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
#[test]
fn reserved_flags_are_malformed() {
    let broker = Broker::start("flags");
    for (first, body) in [
        (0x80, &[0, 1, 0, 0, 1, b'a', 0][..]),
        (0x83, &[0, 1, 0, 0, 1, b'a', 0]),
        (0xA0, &[0, 1, 0, 0, 1, b'a']),
        (0x60, &[0, 1]),
        (0x41, &[0, 1]),
        (0x52, &[0, 1]),
        (0x71, &[0, 1]),
        (0xC1, &[]),
        (0xE1, &[]),
        (0xF1, &[]),
        (0x00, &[]),
    ] {
        let mut client = broker.client("flags");
        client.send(&packet(first, body));
        client.is_disconnected(0x81);
    }
}

/// [MQTT-2.2.1-2] [MQTT-2.2.1-3] [MQTT-3.3.1-4] [MQTT-3.3.1-2]
#[test]
fn packet_identifiers_are_there_when_they_must_be() {
    let broker = Broker::start("identifiers");
    for bytes in [
        packet(0x32, &[0, 1, b'a', 0, 0, 0]),
        packet(0x34, &[0, 1, b'a', 0, 0, 0]),
        packet(0x36, &[0, 1, b'a', 0, 1, 0]),
        packet(0x38, &[0, 1, b'a', 0]),
        packet(0x82, &[0, 0, 0, 0, 1, b'a', 0]),
        packet(0xA2, &[0, 0, 0, 0, 1, b'a']),
    ] {
        let mut client = broker.client("identifiers");
        client.send(&bytes);
        let end = client.receive().expect("a DISCONNECT");
        assert!(matches!(end.body.first(), Some(0x81 | 0x82)), "{bytes:02x?}: {end:?}");
    }
}

/// [MQTT-2.2.1-5] [MQTT-2.2.1-6] [MQTT-3.4.2-1] [MQTT-3.8.4-2] [MQTT-3.10.4-5]
#[test]
fn acknowledgements_carry_the_identifier_of_what_they_acknowledge() {
    let broker = Broker::start("echo");
    let mut client = broker.client("echo");
    for identifier in [1, 300, 65_535] {
        client.send(&publish(2, "a", identifier, &[], b""));
        expect(&mut client, PUBACK, identifier);
        publish_exactly_once(&mut client, "a", identifier, b"");
        client.send(&subscribe(identifier, &[], &[("b", 0)]));
        assert_eq!(client.receive().unwrap().body[..2], identifier.to_be_bytes());
        client.send(&packet(0xA2, &[&identifier.to_be_bytes()[..], &[0, 0, 1, b'b']].concat()));
        let unsuback = client.receive().unwrap();
        assert_eq!((unsuback.first, &unsuback.body[..2]), (0xB0, &identifier.to_be_bytes()[..]));
    }
}

/// [MQTT-2.2.2-1] [MQTT-3.1.4-1]
#[test]
fn property_sections_are_complete_and_known() {
    let broker = Broker::start("properties");
    for properties in [
        &[0x99, 0][..],
        &[0x21, 0, 0],
        &[0x27, 0, 0, 0, 0],
        &[0x17, 2],
        &[0x19, 2],
        &[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1],
        &[0x02, 0, 0, 0, 1],
        &[0x16, 0, 0],
    ] {
        let mut connect = Connect::new("properties");
        connect.properties = properties.to_vec();
        let (_, connack) = broker.connect(&connect);
        assert!(matches!(connack.reason, 0x81 | 0x82), "{properties:02x?}: {connack:?}");
    }
    let mut client = broker.socket();
    client.send(&packet(0x10, &[&text("MQTT")[..], &[5, 2, 0, 0, 50], &text("short")].concat()));
    assert!(matches!(client.receive().unwrap().body[1], 0x81 | 0x82));
}
