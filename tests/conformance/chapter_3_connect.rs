//! Chapter 3.1, 3.2, 3.12, 3.14 and 3.15: connecting and disconnecting.

use super::*;

/// [MQTT-3.1.0-1] [MQTT-3.1.0-2] [MQTT-3.2.0-1] [MQTT-3.2.0-2]
#[test]
fn connect_is_the_first_packet_and_the_only_one_of_its_kind() {
    let broker = Broker::start("first");
    let mut other = broker.socket();
    other.send(&[0xC0, 0]);
    assert_eq!(other.receive(), None);
    let (mut client, _) = broker.session(&Connect::new("first"));
    client.send(&Connect::new("first").encode());
    client.is_disconnected(0x82);
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2]
#[test]
fn other_protocols_and_versions_are_refused() {
    let broker = Broker::start("protocol");
    for (name, level) in [("MQTT", 3), ("MQTT", 6), ("MQTTX", 5), ("mqtt", 5), ("", 5)] {
        let mut connect = Connect::new("protocol");
        (connect.name, connect.level) = (name, level);
        let mut client = broker.socket();
        client.send(&connect.encode());
        let answer = client.receive();
        assert!(answer.is_none_or(|connack| connack.first == 0x20 && connack.body[1] != 0), "{name} {level}");
        assert_eq!(client.receive(), None);
    }
}

/// [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.2-16] [MQTT-3.1.2-17]
/// [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-1] [MQTT-3.1.3-11] [MQTT-3.1.3-12] [MQTT-3.1.4-1] [MQTT-3.2.2-7]
#[test]
fn the_payload_of_connect_is_what_its_flags_say() {
    let broker = Broker::start("connect-flags");
    let will = [&[0][..], &text("w"), &[0, 1, b'x']].concat();
    for (flags, rest) in [
        (0x03, vec![]),
        (0x0A, vec![]),
        (0x22, vec![]),
        (0x1E, will.clone()),
        (0x06, vec![]),
        (0x06, [&[0][..], &text("a/+")].concat()),
        (0x82, vec![]),
        (0x42, vec![]),
        (0x02, text("user")),
        (0xC2, text("user")),
    ] {
        let mut connect = Connect::new("flags");
        (connect.flags, connect.rest) = (flags, rest);
        let (mut client, connack) = broker.connect(&connect);
        assert!(matches!(connack.reason, 0x81 | 0x82 | 0x90), "{flags:#x}: {connack:?}");
        assert_eq!(client.receive(), None);
    }
    let mut complete = Connect::new("flags");
    complete.flags = 0xC6;
    complete.rest = [&will[..], &text("user"), &text("password")].concat();
    broker.session(&complete);
}

/// [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.2-23] [MQTT-3.1.4-4] [MQTT-3.1.4-5] [MQTT-3.2.2-1] [MQTT-3.2.2-2]
/// [MQTT-3.2.2-3] [MQTT-3.1.3-2] [MQTT-4.1.0-1]
#[test]
fn a_session_is_resumed_unless_a_clean_start_is_asked_for() {
    let broker = Broker::start("resume");
    let lasting = Connect::lasting("s", 600);
    let (mut client, connack) = broker.session(&lasting);
    assert_eq!(connack.flags, 0);
    subscribed(&mut client, &[("a", 1)]);
    drop(client);
    assert_eq!(broker.client("p").publish("a", b"kept"), 0);
    let (mut client, connack) = broker.session(&lasting);
    assert_eq!(connack.flags, 1);
    let kept = published(&mut client);
    assert_eq!((kept.payload, kept.flags), (b"kept".to_vec(), 2));
    acknowledge(&mut client, PUBACK, kept.identifier);
    client.ping();
    drop(client);
    let mut clean = lasting.clone();
    clean.flags = CLEAN_START;
    let (mut client, connack) = broker.session(&clean);
    assert_eq!(connack.flags, 0);
    assert_eq!(broker.client("p").publish("a", b"lost"), 0);
    client.ping();
}

/// [MQTT-4.1.0-2] [MQTT-3.14.2-2]
#[test]
fn a_session_ends_with_its_expiry_interval() {
    let mut broker = Broker::start_with(
        "expiry",
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\n\
         spec: {advanced: {clients: {maxSessionExpirySeconds: 1}}}\n",
    );
    // Capped, and said so.
    let (client, connack) = broker.session(&Connect::lasting("capped", 600));
    assert_eq!(connack.property(0x11), Some([0, 0, 0, 1]));
    drop(client);
    broker.site.process.wait_for("session of client 'capped' expired");
    assert_eq!(broker.session(&Connect::lasting("capped", 600)).1.flags, 0);
    // Without an interval it ends at once.
    drop(broker.client("none"));
    assert_eq!(broker.session(&Connect::lasting("none", 1)).1.flags, 0);
}

/// §3.14.2.2.2 [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.13.2-1]
#[test]
fn disconnect_changes_the_expiry_interval_but_not_from_nothing() {
    let broker = Broker::start("change-expiry");
    let (mut client, _) = broker.session(&Connect::lasting("s", 600));
    client.send(&packet(0xE0, &[0, 5, 0x11, 0, 0, 0, 0]));
    assert_eq!(client.receive(), None);
    assert_eq!(broker.session(&Connect::lasting("s", 600)).1.flags, 0);
    let mut client = broker.client("never");
    client.send(&packet(0xE0, &[0, 5, 0x11, 0, 0, 0, 9]));
    client.is_disconnected(0x82);
}

/// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-14] [MQTT-3.14.4-3]
#[test]
fn a_will_is_published_unless_its_client_says_goodbye() {
    let broker = Broker::start("will");
    let mut watcher = broker.client("watcher");
    subscribed(&mut watcher, &[("w/#", 2 | 8)]);
    for qos in 0..=2 {
        drop(broker.session(&Connect::new("dying").will("w/lost", b"x", qos, &[])));
        let will = published(&mut watcher);
        assert_eq!((will.topic.as_str(), will.flags), ("w/lost", qos << 1));
        match qos {
            1 => acknowledge(&mut watcher, PUBACK, will.identifier),
            2 => {
                acknowledge(&mut watcher, PUBREC, will.identifier);
                expect(&mut watcher, PUBREL, will.identifier);
                acknowledge(&mut watcher, PUBCOMP, will.identifier);
            }
            _ => {}
        }
    }
    let (mut polite, _) = broker.session(&Connect::new("polite").will("w/polite", b"x", 0, &[]));
    polite.send(&[0xE0, 0]);
    assert_eq!(polite.receive(), None);
    let (mut with_will, _) = broker.session(&Connect::new("with-will").will("w/asked", b"x", 0, &[]));
    with_will.send(&packet(0xE0, &[4]));
    assert_eq!(published(&mut watcher).topic, "w/asked");
}

/// [MQTT-3.1.2-15]
#[test]
fn a_will_may_be_retained() {
    let broker = Broker::start("retained-will");
    let mut connect = Connect::new("dying").will("w", b"gone", 1, &[1, 1, 3, 0, 1, b't']);
    connect.flags |= WILL_RETAIN;
    let mut watcher = broker.client("watcher");
    subscribed(&mut watcher, &[("w", 0)]);
    drop(broker.session(&connect));
    assert_eq!(published(&mut watcher).flags, 0);
    let mut late = broker.client("late");
    subscribed(&mut late, &[("w", 0)]);
    let will = published(&mut late);
    assert_eq!((will.flags, will.payload, will.properties), (1, b"gone".to_vec(), vec![1, 1, 3, 0, 1, b't']));
}

/// [MQTT-3.1.3-9] [MQTT-3.1.2-8]
#[test]
fn a_delayed_will_waits_for_its_client_to_come_back() {
    let broker = Broker::start("delay");
    let mut watcher = broker.client("watcher");
    subscribed(&mut watcher, &[("w/#", 0)]);
    let delayed = |seconds: u8, expiry| Connect::lasting("d", expiry).will("w/d", b"x", 0, &[0x18, 0, 0, 0, seconds]);
    // Back in time: no Will.
    drop(broker.session(&delayed(60, 600)));
    drop(broker.session(&delayed(60, 600)));
    nothing_but(&mut watcher, &broker, "w/canary");
    // The delay passes.
    drop(broker.session(&delayed(1, 600)));
    assert_eq!(published(&mut watcher).topic, "w/d");
    // The session ends before the delay does.
    drop(broker.session(&delayed(60, 1)));
    assert_eq!(published(&mut watcher).topic, "w/d");
    // A clean start ends the session.
    drop(broker.session(&delayed(60, 600)));
    drop(broker.client("d"));
    assert_eq!(published(&mut watcher).topic, "w/d");
}

/// [MQTT-3.1.4-3] [MQTT-3.1.2-8]
#[test]
fn a_second_connection_takes_the_session_over() {
    let broker = Broker::start("takeover");
    let mut watcher = broker.client("watcher");
    subscribed(&mut watcher, &[("w", 0)]);
    let (mut older, _) = broker.session(&Connect::lasting("s", 600).will("w", b"taken", 0, &[]));
    let (mut newer, connack) = broker.session(&Connect::lasting("s", 600));
    assert_eq!(connack.flags, 1);
    older.is_disconnected(0x8E);
    assert_eq!(published(&mut watcher).payload, b"taken");
    newer.ping();
}

/// [MQTT-3.1.2-22] [MQTT-3.2.2-22]
#[test]
fn a_silent_client_is_disconnected_after_one_and_a_half_keep_alives() {
    let broker = Broker::start("keep-alive");
    let mut connect = Connect::new("silent");
    connect.keep_alive = 1;
    let (mut client, connack) = broker.session(&connect);
    assert_eq!(connack.property::<2>(0x13), None);
    client.is_disconnected(0x8D);
}

/// [MQTT-3.2.2-21] by announcement.
#[test]
fn a_keep_alive_above_the_cap_is_replaced_by_the_servers() {
    let broker = Broker::start_with(
        "server-keep-alive",
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\n\
         spec: {advanced: {clients: {maxKeepAliveSeconds: 30}}}\n",
    );
    for (asked, told) in [(0, Some([0, 30])), (31, Some([0, 30])), (30, None), (5, None)] {
        let mut connect = Connect::new("k");
        connect.keep_alive = asked;
        assert_eq!(broker.session(&connect).1.property(0x13), told, "{asked}");
    }
}

/// [MQTT-3.1.3-3] [MQTT-3.1.3-5] [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.1.3-8] [MQTT-3.2.2-16]
#[test]
fn client_identifiers_are_taken_as_they_are_or_assigned() {
    let broker = Broker::start("client-identifiers");
    for identifier in ["a", "0123456789abcdefghijklm", "ABCDEFGHIJKLMNOPQRSTUVW", "with blanks / and ü", "$SYS"] {
        assert_eq!(broker.session(&Connect::new(identifier)).1.text(0x12), None, "{identifier}");
    }
    let (_first, one) = broker.session(&Connect::new(""));
    let (_second, two) = broker.session(&Connect::new(""));
    let (one, two) = (one.text(0x12).unwrap(), two.text(0x12).unwrap());
    assert!(one != two && !one.is_empty());
    let (mut refused, connack) = broker.connect(&Connect::new(&"x".repeat(300)));
    assert_eq!((connack.reason, connack.flags), (0x85, 0));
    assert_eq!(refused.receive(), None);
}

/// [MQTT-3.2.2-6] [MQTT-3.2.2-8] [MQTT-3.1.4-6] [MQTT-4.12.0-1] [MQTT-4.12.0-4] [MQTT-3.1.4-2]
#[test]
fn a_refused_connect_says_why_and_nothing_behind_it_is_read() {
    let broker = Broker::start("refused");
    let mut watcher = broker.client("watcher");
    subscribed(&mut watcher, &[("#", 0)]);
    let method = Connect::new("m").with(0x15, &text("SCRAM"));
    let mut client = broker.socket();
    client.send(&[method.encode(), publish(0, "smuggled", 0, &[], b"x")].concat());
    let connack = ConnAck::decode(&client.receive().unwrap());
    assert_eq!((connack.flags, connack.reason), (0, 0x8C));
    assert_eq!(client.receive(), None);
    nothing_but(&mut watcher, &broker, "canary");
}

/// [MQTT-3.1.2-28] §3.2.2.3.15
#[test]
fn response_information_is_given_to_who_asks() {
    let broker = Broker::start_with(
        "response",
        "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec: {responseInformation: answers/}\n",
    );
    assert_eq!(broker.session(&Connect::new("a").with(0x19, &[1])).1.text(0x1A).as_deref(), Some("answers/"));
    assert_eq!(broker.session(&Connect::new("a").with(0x19, &[0])).1.text(0x1A), None);
    assert_eq!(broker.session(&Connect::new("a")).1.text(0x1A), None);
}

/// [MQTT-3.1.2-29] [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.6.2-2] [MQTT-3.7.2-2] [MQTT-3.2.2-19] [MQTT-3.14.2-3]
#[test]
fn reason_strings_are_left_out_where_they_are_not_wanted() {
    let broker = Broker::start("reasons");
    let answers = |connect: &Connect| {
        let (mut client, _) = broker.session(connect);
        let unknown = [&[PUBREL, 2, 0, 9][..], &[PUBREC, 2, 0, 9]].concat();
        client.send(&[publish(2, "$SYS/x", 1, &[], b""), publish(4, "$SYS/x", 2, &[], b""), unknown].concat());
        let mut answers: Vec<Packet> = (0..4).map(|_| client.receive().unwrap()).collect();
        answers.sort_by_key(|answer| answer.first);
        answers.into_iter().map(|answer| answer.body).collect::<Vec<_>>()
    };
    assert!(answers(&Connect::new("wants"))[..2].iter().all(|body| body.len() > 4));
    let bare = [[0, 1, 0x90], [0, 2, 0x90], [0, 9, 0x92], [0, 9, 0x92]];
    assert_eq!(answers(&Connect::new("without").with(0x17, &[0])), bare);
    assert_eq!(answers(&Connect::new("small").with(0x27, &[0, 0, 0, 100])), bare);
}

/// [MQTT-3.12.4-1]
#[test]
fn a_ping_is_answered() {
    let broker = Broker::start("ping");
    let mut client = broker.client("ping");
    for _ in 0..100 {
        client.send(&[0xC0, 0]);
    }
    for _ in 0..100 {
        assert_eq!(client.receive().unwrap().first, 0xD0);
    }
}

/// [MQTT-4.12.0-6] [MQTT-4.12.0-7] [MQTT-4.13.1-1] [MQTT-3.14.0-1] [MQTT-3.14.2-1]
#[test]
fn auth_without_a_method_is_a_protocol_error() {
    let broker = Broker::start("auth");
    let mut client = broker.client("auth");
    client.send(&packet(0xF0, &[0x19, 0]));
    client.is_disconnected(0x82);
}
