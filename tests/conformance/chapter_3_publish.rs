//! Chapter 3.3 to 3.7: publishing, its acknowledgements, retained messages, topic aliases.

use super::*;

/// [MQTT-3.3.1-3] [MQTT-4.3.1-1] [MQTT-3.3.2-3] [MQTT-3.3.4-1] [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.3-1]
/// [MQTT-4.3.3-2]
#[test]
fn dup_of_the_publisher_is_not_passed_on() {
    let broker = Broker::start("dup");
    let (mut subscriber, mut publisher) = (broker.client("s"), broker.client("p"));
    subscribed(&mut subscriber, &[("a", 2)]);
    for (flags, identifier) in [(0, 0), (2 | 8, 7), (4 | 8, 8)] {
        publisher.send(&publish(flags, "a", identifier, &[], b"x"));
        let received = published(&mut subscriber);
        assert_eq!((received.topic.as_str(), received.flags), ("a", flags & 6));
        assert_eq!(received.identifier != 0, identifier != 0);
    }
}

/// [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-3.3.2-13] [MQTT-3.3.2-14] [MQTT-3.3.2-19]
/// [MQTT-3.3.4-6] [MQTT-3.3.2-8]
#[test]
fn what_no_client_may_publish_is_refused() {
    let broker = Broker::start("forbidden-publish");
    let bad_response = [&[8][..], &text("a/+")].concat();
    for (bytes, codes) in [
        (publish(8, "a", 0, &[], b""), &[0x81][..]),
        (publish(6, "a", 1, &[], b""), &[0x81]),
        (publish(0, "a/+", 0, &[], b""), &[0x81, 0x82, 0x90]),
        (publish(0, "#", 0, &[], b""), &[0x81, 0x82, 0x90]),
        (publish(0, "", 0, &[], b""), &[0x82]),
        (publish(0, "a", 0, &bad_response, b""), &[0x81, 0x82]),
        (publish(0, "a", 0, &[8, 0, 1, 0xFF], b""), &[0x81]),
        (publish(0, "a", 0, &[3, 0, 1, 0xFF], b""), &[0x81]),
        (publish(0, "a", 0, &[0x0B, 5], b""), &[0x82]),
        (publish(0, "a", 0, &[0x23, 0, 0], b""), &[0x81, 0x82, 0x94]),
        (publish(0, "a", 0, &[0x23, 0xFF, 0xFF], b""), &[0x94]),
        (publish(0, "", 0, &[0x23, 0, 1], b""), &[0x82]),
        (publish(0, "a", 0, &[1, 2], b""), &[0x81, 0x82]),
    ] {
        let mut client = broker.client("forbidden");
        client.send(&bytes);
        let end = client.receive().expect("a DISCONNECT");
        assert!(end.first == 0xE0 && codes.contains(&end.body[0]), "{bytes:02x?}: {end:02x?}");
        assert_eq!(client.receive(), None);
    }
}

/// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8]
#[test]
fn the_last_retained_message_of_a_topic_is_kept_until_an_empty_one() {
    let broker = Broker::start("retained");
    let mut publisher = broker.client("p");
    let kept = |filter: &str| {
        let mut client = broker.client("reader");
        subscribed(&mut client, &[(filter, 1)]);
        client.send(&[0xC0, 0]);
        let mut found = Vec::new();
        loop {
            let packet = client.receive().unwrap();
            if packet.first == 0xD0 {
                break found;
            }
            let message = Published::decode(&packet);
            assert_eq!(message.flags & 1, 1);
            found.push((message.topic, message.payload));
        }
    };
    for payload in [&b"one"[..], b"two"] {
        publisher.send(&publish(1, "r/a", 0, &[], payload));
    }
    publisher.send(&publish(0, "r/a", 0, &[], b"passing"));
    publisher.send(&publish(2 | 1, "r/b", 1, &[], b"b"));
    expect(&mut publisher, PUBACK, 1);
    assert_eq!(kept("r/a"), [("r/a".to_owned(), b"two".to_vec())]);
    assert_eq!(kept("r/b").len(), 1);
    publisher.send(&publish(1, "r/a", 0, &[], b""));
    publisher.send(&publish(2, "r/b", 2, &[], b""));
    expect(&mut publisher, PUBACK, 2);
    assert_eq!(kept("r/a"), []);
    assert_eq!(kept("r/b").len(), 1);
    let mut watcher = broker.client("w");
    subscribed(&mut watcher, &[("r/b", 0)]);
    assert_eq!(published(&mut watcher).payload, b"b");
    publisher.send(&publish(1, "r/b", 0, &[], b""));
    let removal = published(&mut watcher);
    assert_eq!((removal.flags, removal.payload), (0, vec![]));
}

/// §3.3.1.3: very many retained messages reach a new wildcard subscription, each once.
#[test]
fn very_many_retained_messages_reach_a_new_subscription() {
    const COUNT: usize = 3_000;
    let broker = Broker::start("many-retained");
    let mut publisher = broker.client("p");
    for number in 0..COUNT {
        publisher.send(&publish(1, &format!("many/{}/{number}", number % 7), 0, &[], &number.to_be_bytes()));
    }
    publisher.ping();
    let mut subscriber = broker.client("s");
    subscriber.send(&subscribe(1, &[], &[("many/#", 1)]));
    let mut bystander = broker.client("b");
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < COUNT {
        let packet = subscriber.receive().unwrap();
        if packet.first == 0x90 {
            continue;
        }
        let message = Published::decode(&packet);
        assert_eq!(message.flags & 1, 1);
        assert!(seen.insert(message.payload), "twice: {}", message.topic);
    }
    bystander.ping();
    subscriber.ping();
}

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT-3.8.4-4] [MQTT-3.8.4-3]
#[test]
fn retain_handling_and_retain_as_published_in_every_combination() {
    let broker = Broker::start("retain-options");
    let mut publisher = broker.client("p");
    publisher.send(&publish(1, "r", 0, &[], b"kept"));
    publisher.ping();
    for as_published in [0, 8] {
        for (handling, first, again) in [(0x00, true, true), (0x10, true, false), (0x20, false, false)] {
            let mut client = broker.client("options");
            for expected in [first, again] {
                subscribed(&mut client, &[("r", as_published | handling)]);
                if expected {
                    let message = published(&mut client);
                    assert_eq!(
                        (message.flags, message.payload),
                        (1, b"kept".to_vec()),
                        "{as_published:x} {handling:x}"
                    );
                }
                client.ping();
            }
            publisher.send(&publish(1, "r", 0, &[], b"kept"));
            assert_eq!(published(&mut client).flags, as_published >> 3, "{as_published:x}");
            publisher.send(&publish(0, "r", 0, &[], b"live"));
            assert_eq!(published(&mut client).flags, 0);
        }
    }
    // A shared subscription gets no retained messages (§4.8.2).
    let mut shared = broker.client("shared");
    subscribed(&mut shared, &[("$share/g/r", 0)]);
    shared.ping();
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.1.3-10]
#[test]
fn properties_of_a_message_pass_unaltered_and_in_order() {
    let broker = Broker::start("forwarded");
    let (mut subscriber, mut publisher) = (broker.client("s"), broker.client("p"));
    subscribed(&mut subscriber, &[("a", 0)]);
    let user = |name: &str, value: &str| [&[0x26][..], &text(name), &text(value)].concat();
    let properties = [
        &user("z", "1")[..],
        &[1, 1],
        &[3, 0, 1, b't'],
        &user("a", "2"),
        &[&[8][..], &text("answer")].concat(),
        &[9, 0, 2, 0xFF, 0],
        &user("z", "1"),
    ]
    .concat();
    publisher.send(&publish(0, "a", 0, &properties, b"x"));
    assert_eq!(published(&mut subscriber).properties, properties);
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6] [MQTT-4.3.3-13]
#[test]
fn a_message_expires_while_it_waits() {
    let broker = Broker::start("message-expiry");
    let lasting = Connect::lasting("s", 600);
    let (mut client, _) = broker.session(&lasting);
    subscribed(&mut client, &[("a", 1)]);
    drop(client);
    let mut publisher = broker.client("p");
    for (identifier, seconds) in [(1, 1), (2, 100)] {
        publisher.send(&publish(2, "a", identifier, &[2, 0, 0, 0, seconds], &[seconds]));
        expect(&mut publisher, PUBACK, identifier);
    }
    publisher.send(&publish(4, "a", 3, &[2, 0, 0, 0, 1], b""));
    expect(&mut publisher, PUBREC, 3);
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    acknowledge(&mut publisher, PUBREL, 3);
    expect(&mut publisher, PUBCOMP, 3);
    let (mut client, _) = broker.session(&lasting);
    let message = published(&mut client);
    assert_eq!(message.payload, [100]);
    let [2, 0, 0, 0, left] = message.properties[..] else { panic!("{message:?}") };
    assert!((1..100).contains(&left), "{left}");
}

/// [MQTT-3.3.2-7] [MQTT-3.3.2-9] [MQTT-3.3.2-12] [MQTT-3.2.2-17]
#[test]
fn a_topic_alias_stands_for_a_topic_on_its_connection() {
    let broker = Broker::start("alias-in");
    let mut subscriber = broker.client("s");
    subscribed(&mut subscriber, &[("#", 0)]);
    let (mut client, connack) = broker.session(&Connect::new("p"));
    let most = u16::from_be_bytes(connack.property(0x22).unwrap());
    assert!(most > 0);
    let alias = |number: u16| [&[0x23][..], &number.to_be_bytes()].concat();
    for number in 1..=most {
        client.send(&publish(0, &format!("topic/{number}"), 0, &alias(number), b""));
    }
    client.send(&publish(0, "renamed", 0, &alias(1), b""));
    for number in 1..=most {
        client.send(&publish(0, "", 0, &alias(number), b"by alias"));
    }
    for _ in 0..=most {
        published(&mut subscriber);
    }
    for number in 1..=most {
        let expected = if number == 1 { "renamed".to_owned() } else { format!("topic/{number}") };
        assert_eq!(published(&mut subscriber).topic, expected);
    }
    let mut other = broker.client("other");
    other.send(&publish(0, "", 0, &alias(1), b""));
    other.is_disconnected(0x82);
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11]
#[test]
fn the_broker_uses_as_many_aliases_as_the_client_allows() {
    let broker = Broker::start("alias-out");
    let (mut subscriber, _) = broker.session(&Connect::new("s").with(0x22, &[0, 2]));
    let mut without = broker.client("without");
    subscribed(&mut subscriber, &[("long/#", 0)]);
    subscribed(&mut without, &[("long/#", 0)]);
    let mut publisher = broker.client("p");
    let mut names = std::collections::BTreeMap::new();
    for round in 0..3 {
        for number in 0..4 {
            let topic = format!("long/topic/{number}");
            publisher.send(&publish(0, &topic, 0, &[], b"x"));
            assert_eq!(published(&mut without).topic, topic);
            let message = published(&mut subscriber);
            match message.properties[..] {
                [] => assert_eq!(message.topic, topic),
                [0x23, 0, alias @ 1..=2] if message.topic.is_empty() => {
                    assert!(round > 0);
                    assert_eq!(names.get(&alias), Some(&topic));
                }
                [0x23, 0, alias @ 1..=2] => {
                    assert_eq!(message.topic, topic);
                    names.insert(alias, topic);
                }
                _ => panic!("{message:?}"),
            }
        }
    }
    assert_eq!(names.len(), 2);
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25] [MQTT-3.2.2-15]
#[test]
fn packets_are_no_larger_than_either_side_allows() {
    let broker = Broker::start("sizes");
    let (mut small, connack) = broker.session(&Connect::new("small").with(0x27, &[0, 0, 0, 40]));
    let most = u32::from_be_bytes(connack.property(0x27).unwrap()) as usize;
    subscribed(&mut small, &[("a", 1)]);
    let mut publisher = broker.client("p");
    assert_eq!(publisher.publish("a", &[0; 40]), 0);
    assert_eq!(publisher.publish("a", b"fits"), 0);
    assert_eq!(published(&mut small).payload, b"fits");
    // Fixed header, topic length, topic, property length.
    let overhead = 1 + 3 + 2 + 1 + 1;
    let mut large = broker.client("large");
    subscribed(&mut large, &[("b", 0)]);
    publisher.send(&publish(0, "b", 0, &[], &vec![7; most - overhead]));
    assert_eq!(published(&mut large).payload.len(), most - overhead);
    publisher.send(&publish(0, "b", 0, &[], &vec![7; most - overhead + 1]));
    publisher.is_disconnected(0x95);
}

/// [MQTT-3.3.2-4] where the gateway is told to look: §3.3.2.3.2.
#[test]
fn a_payload_marked_as_text_is_checked_where_it_is_configured() {
    let gateway = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec: {validatePayloadFormat: true}\n";
    for (manifest, expected) in [(gateway, 0x99), ("", 0)] {
        let broker = Broker::start_with("payload-format", manifest);
        let mut client = broker.client("p");
        client.send(&publish(2, "a", 1, &[1, 1], b"\xFF"));
        assert_eq!(client.receive().unwrap().body.get(2).copied().unwrap_or(0), expected);
        client.send(&publish(2, "a", 2, &[1, 1], "ü".as_bytes()));
        expect(&mut client, PUBACK, 2);
    }
}

/// [MQTT-3.3.4-9] [MQTT-3.3.4-7] [MQTT-4.9.0-1] [MQTT-4.9.0-2]
#[test]
fn receive_maximum_binds_both_sides() {
    let broker = Broker::start("receive-maximum");
    let (mut client, connack) = broker.session(&Connect::new("s").with(0x21, &[0, 2]));
    let ours = u16::from_be_bytes(connack.property(0x21).unwrap());
    subscribed(&mut client, &[("a", 2)]);
    let mut publisher = broker.client("p");
    for number in 0..20 {
        assert_eq!(publisher.publish("a", &[number]), 0);
    }
    let mut open = std::collections::VecDeque::new();
    for number in 0..20 {
        let message = published(&mut client);
        assert_eq!(message.payload, [number]);
        open.push_back(message.identifier);
        if open.len() == 2 {
            // No third one until one of them is acknowledged; other packets pass. [MQTT-3.3.4-10] [MQTT-4.9.0-3]
            client.ping();
            acknowledge(&mut client, PUBACK, open.pop_front().unwrap());
        }
    }
    let mut greedy = broker.client("greedy");
    for identifier in 1..=ours {
        greedy.send(&publish(4, "q", identifier, &[], b""));
    }
    for identifier in 1..=ours {
        expect(&mut greedy, PUBREC, identifier);
    }
    // What is known already does not count again.
    greedy.send(&publish(4 | 8, "q", 1, &[], b""));
    expect(&mut greedy, PUBREC, 1);
    greedy.send(&publish(2, "q", ours + 1, &[], b""));
    greedy.is_disconnected(0x93);
}
