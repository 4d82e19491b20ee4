//! Chapter 3.8 to 3.11: subscribing and unsubscribing.

use super::*;

/// [MQTT-3.8.3-1] [MQTT-3.8.3-2] [MQTT-3.8.3-4] [MQTT-3.8.3-5] [MQTT-3.10.3-1] [MQTT-3.10.3-2]
#[test]
fn malformed_subscriptions_close_the_connection() {
    let broker = Broker::start("malformed-subscribe");
    for (bytes, codes) in [
        (packet(0x82, &[0, 1, 0]), &[0x81, 0x82][..]),
        (packet(0xA2, &[0, 1, 0]), &[0x81, 0x82]),
        (packet(0x82, &[0, 1, 0, 0, 1, 0xFF, 0]), &[0x81]),
        (packet(0xA2, &[0, 1, 0, 0, 1, 0xFF]), &[0x81]),
        (subscribe(1, &[], &[("a", 3)]), &[0x81, 0x82]),
        (subscribe(1, &[], &[("a", 0x40)]), &[0x81]),
        (subscribe(1, &[], &[("a", 0x80)]), &[0x81]),
        (subscribe(1, &[], &[("a", 0x30)]), &[0x81, 0x82]),
        (subscribe(1, &[0x0B, 0], &[("a", 0)]), &[0x81, 0x82]),
        (subscribe(1, &[0x0B, 1, 0x0B, 2], &[("a", 0)]), &[0x82]),
        (subscribe(1, &[], &[("$share/g/a", 4)]), &[0x82]),
    ] {
        let mut client = broker.client("malformed");
        client.send(&bytes);
        let end = client.receive().expect("a DISCONNECT");
        assert!(end.first == 0xE0 && codes.contains(&end.body[0]), "{bytes:02x?}: {end:02x?}");
        assert_eq!(client.receive(), None);
    }
}

/// [MQTT-3.8.4-1] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2] [MQTT-4.7.1-1] [MQTT-4.7.1-2]
/// [MQTT-4.7.3-1] [MQTT-4.7.3-3] [MQTT-4.8.2-1] [MQTT-4.8.2-2]
#[test]
fn every_filter_has_its_code_in_its_place() {
    let broker = Broker::start("codes");
    let mut client = broker.client("codes");
    let deep = "/".repeat(60_000);
    client.send(&subscribe(
        5,
        &[],
        &[
            ("a", 0),
            ("b", 1),
            ("c", 2),
            ("a/#/b", 2),
            ("a#", 2),
            ("a+", 2),
            ("+a/b", 2),
            ("$share/g", 2),
            ("$share//a", 2),
            ("$share/g+/a", 2),
            ("$share/g/a", 2),
            (deep.as_str(), 0),
            ("+/+/#", 1),
        ],
    ));
    let suback = client.receive().unwrap();
    let bad = 0x8F;
    assert_eq!(suback.body, [0, 5, 0, 0, 1, 2, bad, bad, bad, bad, bad, bad, bad, 2, bad, 1]);
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    let broker = Broker::start("no-local");
    let mut client = broker.client("c");
    subscribed(&mut client, &[("a", 4)]);
    client.send(&publish(0, "a", 0, &[], b"own"));
    nothing_but(&mut client, &broker, "a");
}

/// [MQTT-3.8.4-3] [MQTT-3.8.4-8] [MQTT-3.3.4-2] [MQTT-4.8.2-3]
#[test]
fn the_lesser_qos_counts_and_overlapping_filters_give_one_copy() {
    let broker = Broker::start("qos");
    let (mut subscriber, mut publisher) = (broker.client("s"), broker.client("p"));
    for granted in 0..=2 {
        subscribed(&mut subscriber, &[("q", granted)]);
        for sent in 0..=2_u8 {
            publisher.send(&publish(sent << 1, "q", u16::from(sent), &[], &[sent]));
            if sent == 2 {
                acknowledge(&mut publisher, PUBREL, 2);
            }
            let message = published(&mut subscriber);
            assert_eq!((message.flags >> 1, message.payload), (sent.min(granted), vec![sent]));
        }
    }
    let mut overlapping = broker.client("o");
    subscribed(&mut overlapping, &[("o/a", 0), ("o/+", 2), ("o/#", 1)]);
    publisher.send(&publish(4, "o/a", 100, &[], b"once"));
    assert_eq!(published(&mut overlapping).flags, 4);
    overlapping.ping();
}

/// [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5]
#[test]
fn all_matching_subscription_identifiers_are_sent() {
    let broker = Broker::start("identifiers");
    let mut client = broker.client("s");
    let filters = ["i/a", "i/+", "i/#", "+/a", "#", "+/+", "+/#"];
    for (index, filter) in (1..).zip(filters) {
        client.send(&subscribe(index, &[0x0B, index as u8], &[(filter, 0)]));
        client.receive().unwrap();
    }
    client.send(&subscribe(99, &[0x0B, 0xFF, 0xFF, 0xFF, 0x7F], &[("largest", 0)]));
    client.receive().unwrap();
    let mut publisher = broker.client("p");
    publisher.send(&publish(0, "i/a", 0, &[], b""));
    let message = published(&mut client);
    let mut identifiers: Vec<u8> = message.properties.chunks(2).map(|pair| pair[1]).collect();
    identifiers.sort_unstable();
    assert_eq!(identifiers, [1, 2, 3, 4, 5, 6, 7]);
    publisher.send(&publish(0, "largest", 0, &[], b""));
    // `#` matches too.
    let message = published(&mut client);
    assert!(message.properties.windows(5).any(|window| window == [0x0B, 0xFF, 0xFF, 0xFF, 0x7F]), "{message:?}");
    // More than one packet holds: another copy has the rest.
    for index in 0..12_u8 {
        let filter = format!(
            "many/{}",
            [
                "a/b/c/d", "+/b/c/d", "a/+/c/d", "a/b/+/d", "a/b/c/+", "+/+/c/d", "+/b/+/d", "+/b/c/+", "a/+/+/d",
                "a/+/c/+", "a/b/+/+", "#"
            ][usize::from(index)]
        );
        client.send(&subscribe(1, &[0x0B, 100 + index], &[(filter.as_str(), 0)]));
        client.receive().unwrap();
    }
    publisher.send(&publish(0, "many/a/b/c/d", 0, &[], b""));
    let mut identifiers = Vec::new();
    while identifiers.iter().filter(|identifier| **identifier >= 100).count() < 12 {
        identifiers.extend(published(&mut client).properties.chunks(2).map(|pair| pair[1]));
    }
    identifiers.sort_unstable();
    identifiers.dedup();
    assert_eq!(identifiers.iter().filter(|identifier| **identifier >= 100).count(), 12);
    client.ping();
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]
/// [MQTT-3.11.3-2]
#[test]
fn unsubscribing_stops_new_messages_and_finishes_old_ones() {
    let broker = Broker::start("unsubscribe");
    let (mut client, mut publisher) = (broker.client("s"), broker.client("p"));
    subscribed(&mut client, &[("a", 2), ("b", 0), ("a/+", 0)]);
    publisher.send(&publish(4, "a", 1, &[], b"begun"));
    let begun = published(&mut client);
    let filters = [text("a"), text("A"), text("a/#"), text("b")].concat();
    client.send(&packet(0xA2, &[&[0, 7, 0][..], &filters].concat()));
    let unsuback = client.receive().unwrap();
    assert_eq!((unsuback.first, unsuback.body), (0xB0, vec![0, 7, 0, 0, 0x11, 0x11, 0]));
    acknowledge(&mut client, PUBREC, begun.identifier);
    expect(&mut client, PUBREL, begun.identifier);
    acknowledge(&mut client, PUBCOMP, begun.identifier);
    publisher.send(&publish(0, "a", 0, &[], b"late"));
    nothing_but(&mut client, &broker, "a/x");
}
