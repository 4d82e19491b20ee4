//! MQTT 3.1.1 (OASIS Standard, 29 October 2014): what differs from 5.0.

use super::*;

fn connect(identifier: &str, clean: bool) -> Connect {
    let mut connect = Connect::new(identifier);
    connect.level = 4;
    connect.flags = if clean { CLEAN_START } else { 0 };
    connect
}

/// Connects and returns the two bytes of the CONNACK.
fn open(broker: &Broker, connect: &Connect) -> (Client, Vec<u8>) {
    let mut client = broker.socket();
    client.send(&connect.encode());
    let connack = client.receive().expect("a CONNACK");
    assert_eq!((connack.first, connack.body.len()), (0x20, 2), "{connack:?}");
    (client, connack.body)
}

fn client(broker: &Broker, identifier: &str) -> Client {
    let (client, connack) = open(broker, &connect(identifier, true));
    assert_eq!(connack, [0, 0]);
    client
}

fn subscribe(client: &mut Client, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = vec![0, 3];
    for (filter, qos) in filters {
        body.extend_from_slice(&text(filter));
        body.push(*qos);
    }
    client.send(&packet(0x82, &body));
    let suback = client.receive().expect("a SUBACK");
    assert_eq!((suback.first, &suback.body[..2]), (0x90, &[0, 3][..]));
    suback.body[2..].to_vec()
}

fn publish(flags: u8, topic: &str, identifier: u16, payload: &[u8]) -> Vec<u8> {
    let identifier = if identifier == 0 { Vec::new() } else { identifier.to_be_bytes().to_vec() };
    packet(0x30 | flags, &[&text(topic)[..], &identifier, payload].concat())
}

#[test]
fn return_codes_are_those_of_the_older_text() {
    let broker = Broker::start("v3-return-codes");
    let (mut refused, connack) = open(&broker, &connect("", false));
    assert_eq!(connack, [0, 2]);
    assert_eq!(refused.receive(), None);
    let (_client, connack) = open(&broker, &connect("", true));
    assert_eq!(connack, [0, 0]);
    let mut old = connect("old", true);
    (old.name, old.level) = ("MQIsdp", 3);
    let (mut refused, connack) = open(&broker, &old);
    assert_eq!(connack, [0, 1]);
    assert_eq!(refused.receive(), None);
}

#[test]
fn all_qualities_of_service_work_in_both_directions() {
    let broker = Broker::start("v3-qos");
    let (mut subscriber, mut publisher) = (client(&broker, "s"), client(&broker, "p"));
    assert_eq!(subscribe(&mut subscriber, &[("a", 2), ("a/#/b", 0)]), [2, 0x80]);
    for qos in 0..=2_u8 {
        publisher.send(&publish(qos << 1, "a", u16::from(qos), &[qos]));
        let message = subscriber.receive().unwrap();
        assert_eq!(message.first, 0x30 | qos << 1);
        assert_eq!(message.body.last(), Some(&qos));
        let identifier = u16::from_be_bytes([message.body[3], *message.body.get(4).unwrap_or(&0)]);
        match qos {
            1 => {
                expect(&mut publisher, PUBACK, 1);
                acknowledge(&mut subscriber, PUBACK, identifier);
            }
            2 => {
                expect(&mut publisher, PUBREC, 2);
                acknowledge(&mut publisher, PUBREL, 2);
                expect(&mut publisher, PUBCOMP, 2);
                acknowledge(&mut subscriber, PUBREC, identifier);
                expect(&mut subscriber, PUBREL, identifier);
                acknowledge(&mut subscriber, PUBCOMP, identifier);
            }
            _ => {}
        }
    }
    subscriber.ping();
}

#[test]
fn a_session_without_clean_session_waits_for_its_client() {
    let broker = Broker::start("v3-session");
    let (mut sleeper, connack) = open(&broker, &connect("s", false));
    assert_eq!(connack, [0, 0]);
    assert_eq!(subscribe(&mut sleeper, &[("a", 1)]), [1]);
    sleeper.send(&[0xE0, 0]);
    assert_eq!(sleeper.receive(), None);
    let mut publisher = client(&broker, "p");
    publisher.send(&publish(2, "a", 1, b"kept"));
    expect(&mut publisher, PUBACK, 1);
    let (mut sleeper, connack) = open(&broker, &connect("s", false));
    assert_eq!(connack, [1, 0]);
    assert!(sleeper.receive().unwrap().body.ends_with(b"kept"));
    // A client of 5.0 may go on with it.
    drop(sleeper);
    assert_eq!(broker.session(&Connect::lasting("s", 60)).1.flags, 1);
    let (_clean, connack) = open(&broker, &connect("s", true));
    assert_eq!(connack, [0, 0]);
}

#[test]
fn properties_stay_with_clients_that_know_them() {
    let broker = Broker::start("v3-mixed");
    let (mut old, mut new) = (client(&broker, "old"), broker.client("new"));
    assert_eq!(subscribe(&mut old, &[("a", 1)]), [1]);
    subscribed(&mut new, &[("a", 1)]);
    let mut publisher = broker.client("p");
    publisher.send(&super::publish(0, "a", 0, &[1, 1, 2, 0, 0, 0, 9, 3, 0, 1, b't'], b"payload"));
    assert_eq!(old.receive().unwrap().body, [&text("a")[..], b"payload"].concat());
    assert_eq!(published(&mut new).payload, b"payload");
    let mut old_publisher = client(&broker, "old-publisher");
    old_publisher.send(&publish(0, "a", 0, b"back"));
    assert!(published(&mut new).properties.is_empty());
}

#[test]
fn wills_and_retained_messages_work() {
    let broker = Broker::start("v3-will");
    let mut watcher = client(&broker, "w");
    assert_eq!(subscribe(&mut watcher, &[("will", 0)]), [0]);
    let mut dying = connect("dying", true).will("will", b"gone", 0, &[]);
    dying.flags |= WILL_RETAIN;
    drop(open(&broker, &dying));
    assert_eq!(watcher.receive().unwrap().first, 0x30);
    let mut late = client(&broker, "late");
    assert_eq!(subscribe(&mut late, &[("will", 0)]), [0]);
    let will = late.receive().unwrap();
    assert_eq!((will.first, will.body), (0x31, [&text("will")[..], b"gone"].concat()));
}

/// A violation closes without a DISCONNECT, which the older text does not have from a server.
#[test]
fn a_violation_closes_without_a_word() {
    let broker = Broker::start("v3-violation");
    for bytes in [vec![0x36, 0], packet(0x82, &[0, 0]), connect("again", true).encode(), packet(0xF0, &[])] {
        let mut client = client(&broker, "violator");
        client.send(&bytes);
        assert_eq!(client.receive(), None, "{bytes:02x?}");
    }
    let mut older = client(&broker, "same");
    let _newer = client(&broker, "same");
    assert_eq!(older.receive(), None);
}

/// What may not be published is acknowledged all the same, because a client of the older text would send it for ever; QoS 2
/// goes on to its end.
#[test]
fn a_denied_publish_is_acknowledged_and_goes_nowhere() {
    let broker = Broker::start("v3-denied");
    let mut client = client(&broker, "c");
    client.send(&publish(2, "$SYS/x", 1, b""));
    expect(&mut client, PUBACK, 1);
    client.send(&publish(4, "$SYS/x", 2, b""));
    expect(&mut client, PUBREC, 2);
    acknowledge(&mut client, PUBREL, 2);
    expect(&mut client, PUBCOMP, 2);
    client.ping();
}
