//! Chapter 4: state, quality of service, order, topics, shared subscriptions, flow control.

use super::*;

/// [MQTT-4.3.2-3] [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-4.5.0-1]
#[test]
fn at_least_once_gives_every_publish_to_everybody() {
    let broker = Broker::start("qos1");
    let (mut subscriber, mut publisher) = (broker.client("s"), broker.client("p"));
    subscribed(&mut subscriber, &[("a", 1)]);
    for dup in [0, 8] {
        publisher.send(&publish(2 | dup, "a", 5, &[], b"x"));
        expect(&mut publisher, PUBACK, 5);
        let message = published(&mut subscriber);
        acknowledge(&mut subscriber, PUBACK, message.identifier);
    }
    subscriber.ping();
}

/// [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12] [MQTT-3.5.2-1] [MQTT-3.7.2-1] [MQTT-3.6.2-1]
#[test]
fn exactly_once_in_routes_a_publish_once() {
    let broker = Broker::start("qos2-in");
    let (mut subscriber, mut publisher) = (broker.client("s"), broker.client("p"));
    subscribed(&mut subscriber, &[("a", 0)]);
    for _ in 0..3 {
        publisher.send(&publish(4, "a", 5, &[], b"once"));
        expect(&mut publisher, PUBREC, 5);
    }
    acknowledge(&mut publisher, PUBREL, 5);
    expect(&mut publisher, PUBCOMP, 5);
    assert_eq!(published(&mut subscriber).payload, b"once");
    publisher.send(&publish(4, "a", 5, &[], b"again"));
    expect(&mut publisher, PUBREC, 5);
    assert_eq!(published(&mut subscriber).payload, b"again");
    acknowledge(&mut publisher, PUBREL, 5);
    expect(&mut publisher, PUBCOMP, 5);
    acknowledge(&mut publisher, PUBREL, 9);
    assert_eq!(publisher.receive().unwrap().body, [0, 9, 0x92]);
}

/// [MQTT-4.3.3-9] and the Reason Code of a refused PUBLISH.
#[test]
fn a_refused_publish_frees_its_identifier() {
    let broker = Broker::start("qos2-refused");
    let mut publisher = broker.client("p");
    for _ in 0..300 {
        publisher.send(&publish(4, "$SYS/x", 5, &[], b""));
        let pubrec = publisher.receive().unwrap();
        assert_eq!((pubrec.first, &pubrec.body[..3]), (PUBREC, &[0, 5, 0x90][..]));
    }
    publish_exactly_once(&mut publisher, "a", 5, b"");
}

/// [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT-4.3.3-7]
#[test]
fn what_is_in_flight_is_sent_again_in_order_when_the_client_comes_back() {
    let broker = Broker::start("resend");
    let lasting = Connect::lasting("s", 600);
    let (mut client, _) = broker.session(&lasting);
    subscribed(&mut client, &[("a", 2)]);
    let mut publisher = broker.client("p");
    for number in 1..=6_u8 {
        let flags = if number % 2 == 0 { 4 } else { 2 };
        publisher.send(&publish(flags, "a", number.into(), &[], &[number]));
        publisher.receive().unwrap();
        if flags == 4 {
            acknowledge(&mut publisher, PUBREL, number.into());
            publisher.receive().unwrap();
        }
    }
    let first: Vec<Published> = (0..6).map(|_| published(&mut client)).collect();
    // 1 is acknowledged, 2 is received but not released.
    acknowledge(&mut client, PUBACK, first[0].identifier);
    acknowledge(&mut client, PUBREC, first[1].identifier);
    expect(&mut client, PUBREL, first[1].identifier);
    drop(client);
    let (mut client, connack) = broker.session(&lasting);
    assert_eq!(connack.flags, 1);
    // Replies and messages may change places, each in its own order.
    let mut releases = Vec::new();
    let mut again = Vec::new();
    while again.len() + releases.len() < 5 {
        let packet = client.receive().unwrap();
        if packet.first == PUBREL {
            releases.push(packet.body);
        } else {
            again.push(Published::decode(&packet));
        }
    }
    assert_eq!(releases, [first[1].identifier.to_be_bytes()]);
    for (before, after) in first[2..].iter().zip(&again) {
        assert_eq!((&after.payload, after.identifier), (&before.payload, before.identifier));
        assert_eq!(after.flags, before.flags | 8, "DUP");
    }
    acknowledge(&mut client, PUBCOMP, first[1].identifier);
    for message in &again {
        if message.flags & 6 == 2 {
            acknowledge(&mut client, PUBACK, message.identifier);
        } else {
            acknowledge(&mut client, PUBREC, message.identifier);
            expect(&mut client, PUBREL, message.identifier);
            acknowledge(&mut client, PUBCOMP, message.identifier);
        }
    }
    client.ping();
    drop(client);
    let (mut client, _) = broker.session(&lasting);
    client.ping();
}

/// [MQTT-4.4.0-2] [MQTT-4.8.2-6]
#[test]
fn what_a_receiver_refuses_is_done_with() {
    let broker = Broker::start("refused-by-receiver");
    let lasting = Connect::lasting("s", 600);
    let (mut client, _) = broker.session(&lasting);
    subscribed(&mut client, &[("$share/g/a", 2)]);
    let mut publisher = broker.client("p");
    assert_eq!(publisher.publish("a", b"1"), 0);
    publish_exactly_once(&mut publisher, "a", 9, b"2");
    let (one, two) = (published(&mut client), published(&mut client));
    client.send(&packet(PUBACK, &[&one.identifier.to_be_bytes()[..], &[0x80]].concat()));
    client.send(&packet(PUBREC, &[&two.identifier.to_be_bytes()[..], &[0x80]].concat()));
    client.ping();
    drop(client);
    let (mut client, _) = broker.session(&lasting);
    client.ping();
}

/// [MQTT-4.4.0-1]: no timer sends again.
#[test]
fn nothing_is_sent_again_while_the_connection_lasts() {
    let broker = Broker::start("no-resend");
    let (mut client, mut publisher) = (broker.client("s"), broker.client("p"));
    subscribed(&mut client, &[("a", 1)]);
    assert_eq!(publisher.publish("a", b"x"), 0);
    published(&mut client);
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    client.ping();
}

/// PUBACK for QoS 2 and the like: §4.3.
#[test]
fn the_wrong_acknowledgement_is_a_protocol_error() {
    let broker = Broker::start("wrong-ack");
    let mut publisher = broker.client("p");
    for (qos, answer) in [(1, PUBREC), (2, PUBACK), (1, PUBCOMP), (2, PUBCOMP)] {
        let mut client = broker.client("s");
        subscribed(&mut client, &[("a", 2)]);
        publisher.send(&publish(qos << 1, "a", 1, &[], b""));
        publisher.receive().unwrap();
        acknowledge(&mut publisher, PUBREL, 1);
        publisher.receive().unwrap();
        let message = published(&mut client);
        acknowledge(&mut client, answer, message.identifier);
        client.is_disconnected(0x82);
    }
    // What is not in flight is no error.
    let mut client = broker.client("s");
    acknowledge(&mut client, PUBACK, 77);
    acknowledge(&mut client, PUBCOMP, 77);
    client.ping();
    acknowledge(&mut client, PUBREC, 77);
    assert_eq!(client.receive().unwrap().body, [0, 77, 0x92]);
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4] [MQTT-4.6.0-5] [MQTT-4.6.0-6]
#[test]
fn order_is_kept_for_a_publisher_a_topic_and_a_qos() {
    let broker = Broker::start("order");
    let (mut client, mut publisher) = (broker.client("s"), broker.client("p"));
    subscribed(&mut client, &[("o/#", 2)]);
    for number in 0..60_u16 {
        let qos = u8::try_from(number % 3).unwrap();
        let identifier = if qos == 0 { 0 } else { number + 1 };
        publisher.send(&publish(qos << 1, &format!("o/{}", number % 2), identifier, &[], &number.to_be_bytes())[..]);
    }
    let mut last = std::collections::BTreeMap::new();
    let mut received = 0;
    let mut owed = Vec::new();
    while received < 60 {
        let packet = client.receive().unwrap();
        if packet.first == PUBREL {
            // [MQTT-4.6.0-4]: in the order of our PUBRECs.
            assert_eq!(packet.body, u16::to_be_bytes(owed.remove(0)));
            client.send(&[&[PUBCOMP, 2][..], &packet.body].concat());
            continue;
        }
        let message = Published::decode(&packet);
        received += 1;
        let number = u16::from_be_bytes(message.payload[..].try_into().unwrap());
        let previous = last.insert((message.topic, message.flags), number);
        assert!(previous.is_none_or(|previous| previous < number));
        match message.flags >> 1 {
            1 => acknowledge(&mut client, PUBACK, message.identifier),
            2 => {
                acknowledge(&mut client, PUBREC, message.identifier);
                owed.push(message.identifier);
            }
            _ => {}
        }
    }
    let (mut acks, mut recs) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let answer = publisher.receive().unwrap();
        let identifier = u16::from_be_bytes(answer.body[..2].try_into().unwrap());
        if answer.first == PUBACK { acks.push(identifier) } else { recs.push(identifier) }
    }
    assert!(acks.is_sorted() && recs.is_sorted());
}

/// [MQTT-4.7.2-1] [MQTT-4.7.3-4] [MQTT-4.7.1-1] [MQTT-4.7.1-2]
#[test]
fn topics_match_character_by_character_and_dollar_topics_no_leading_wildcard() {
    let broker = Broker::start("topics");
    let mut publisher = broker.client("p");
    for (filter, matching, other) in [
        ("sport/#", "sport", "sports"),
        ("+/+", "/finance", "finance"),
        ("/+", "/finance", "a/finance"),
        ("a//b", "a//b", "a/b"),
        ("Accounts", "Accounts", "ACCOUNTS"),
        ("\u{e9}", "\u{e9}", "e\u{301}"),
        ("#", "x", "$private"),
        ("+/b", "a/b", "$a/b"),
        ("$a/+", "$a/b", "a/b"),
    ] {
        let mut client = broker.client("matcher");
        subscribed(&mut client, &[(filter, 0)]);
        publisher.send(&publish(0, other, 0, &[], b"other"));
        publisher.send(&publish(0, matching, 0, &[], b"this"));
        assert_eq!(published(&mut client).payload, b"this", "{filter}");
    }
}

/// §4.8.2 [MQTT-4.8.2-4] [MQTT-4.8.2-5]
#[test]
fn one_member_of_a_share_gets_each_message() {
    let broker = Broker::start("share");
    let mut members: Vec<Client> = (0..3).map(|number| broker.client(&format!("m{number}"))).collect();
    for member in &mut members {
        subscribed(member, &[("$share/g/a", 1)]);
    }
    let mut alone = broker.client("alone");
    subscribed(&mut alone, &[("$share/other/a", 1)]);
    let mut publisher = broker.client("p");
    for number in 0..30 {
        assert_eq!(publisher.publish("a", &[number]), 0);
    }
    let mut all = Vec::new();
    for member in &mut members {
        // Ping behind the messages: its answer comes behind them too.
        member.send(&[0xC0, 0]);
        let mut own = 0;
        loop {
            let packet = member.receive().unwrap();
            if packet.first == 0xD0 {
                break;
            }
            let message = Published::decode(&packet);
            acknowledge(member, PUBACK, message.identifier);
            all.push(message.payload[0]);
            own += 1;
        }
        assert!(own > 0, "balanced");
    }
    all.sort_unstable();
    assert_eq!(all, (0..30).collect::<Vec<u8>>());
    for number in 0..30 {
        assert_eq!(published(&mut alone).payload, [number]);
    }
}

/// The vendor's `$partition`: one value, one member.
#[test]
fn messages_of_one_partition_go_to_one_member() {
    let broker = Broker::start("partition");
    let mut members: Vec<Client> = (0..3).map(|number| broker.client(&format!("m{number}"))).collect();
    for member in &mut members {
        subscribed(member, &[("$share/g/a", 0)]);
    }
    let mut publisher = broker.client("p");
    for number in 0..60 {
        let property = [&[0x26][..], &text("$partition"), &text(&format!("machine-{}", number % 6))].concat();
        publisher.send(&publish(0, "a", 0, &property, &[number % 6]));
    }
    publisher.ping();
    let mut owners = std::collections::BTreeMap::new();
    for (index, member) in members.iter_mut().enumerate() {
        member.send(&[0xC0, 0]);
        loop {
            let packet = member.receive().unwrap();
            if packet.first == 0xD0 {
                break;
            }
            let partition = Published::decode(&packet).payload[0];
            assert_eq!(*owners.entry(partition).or_insert(index), index, "partition {partition}");
        }
    }
    assert_eq!(owners.len(), 6);
}

/// §4.9 and fairness: a publisher at full speed does not keep another client's ping from its answer.
#[test]
fn a_flood_does_not_starve_a_ping() {
    let broker = Broker::start("flood");
    let mut sink = broker.client("sink");
    subscribed(&mut sink, &[("flood", 0)]);
    let port = broker.port;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let flood = std::thread::spawn(move || {
        let mut client = Client::accepted(tcp(port), "flood");
        let burst = publish(0, "flood", 0, &[], &[0; 200]).repeat(100);
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            client.send(&burst);
        }
    });
    let mut bystander = broker.client("bystander");
    for _ in 0..50 {
        bystander.ping();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    // The sink never read; whatever became of it, the broker serves on.
    drop(sink);
    flood.join().unwrap();
    bystander.ping();
}

/// `$SYS/broker/`, the subset that dashboards read.
#[test]
fn the_broker_tells_of_itself_below_sys() {
    let broker = Broker::start("sys");
    let mut client = broker.client("dashboard");
    subscribed(&mut client, &[("$SYS/broker/clients/connected", 0), ("$SYS/broker/uptime", 0)]);
    let (one, two) = (published(&mut client), published(&mut client));
    assert!([&one, &two].iter().all(|message| message.flags == 1), "{one:?} {two:?}");
    let silent = Broker::start_with(
        "no-sys",
        "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec: {sysIntervalSeconds: 0}\n",
    );
    let mut client = silent.client("dashboard");
    subscribed(&mut client, &[("$SYS/#", 0)]);
    client.ping();
}
