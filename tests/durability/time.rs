//! Time over a restart: what expires does so, not before, and Wills are published once. Times are small, and only bounds
//! that hold on any machine are asserted.

use super::Gateway;
use super::support::client::{packet, publish_packet, text};
use super::support::wire::{Connect, Heard, Wire};
use std::thread;
use std::time::{Duration, Instant};

/// A PUBLISH with QoS 1, identifier 7 and a Message Expiry Interval.
fn expiring(topic: &str, seconds: u32, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    body.extend_from_slice(&[0, 7, 5, 0x02]);
    body.extend_from_slice(&seconds.to_be_bytes());
    body.extend_from_slice(payload);
    packet(0x32, &body)
}

/// P7, for sessions: one whose connection the kill has ended lives its interval from the restart on, one that was left before
/// goes on waiting.
#[test]
fn sessions_expire_over_a_restart_and_not_early() {
    let mut gateway = Gateway::start("session-expiry", "{}");
    let port = gateway.port;
    let connect = |identifier, expiry| Connect { expiry, ..Connect::lasting(identifier) };
    for (identifier, expiry) in [("short-left", 10), ("long-left", 60)] {
        drop(Wire::resume(port, &connect(identifier, expiry), false));
        gateway.process().wait_for(&format!("client '{identifier}' closed"));
    }
    let connected = [("short-connected", 10), ("long-connected", 60), ("never", u32::MAX)]
        .map(|(identifier, expiry)| Wire::resume(port, &connect(identifier, expiry), false));
    // That somebody has left is recorded without haste.
    gateway.settle();
    let killed = Instant::now();
    gateway.kill_and_run();
    drop(connected);
    drop(Wire::resume(port, &connect("never", u32::MAX), true));
    for identifier in ["short-left", "short-connected"] {
        gateway.process().wait_for(&format!("session of client '{identifier}' expired"));
    }
    assert!(killed.elapsed() > Duration::from_millis(500), "the kill has cost nobody his session");
    gateway.settle();
    gateway.kill_and_run();
    for (identifier, present) in [
        ("short-left", false),
        ("short-connected", false),
        ("long-left", true),
        ("long-connected", true),
        ("never", true),
    ] {
        drop(Wire::resume(port, &connect(identifier, 60), present));
    }
}

/// P7, for messages: the remaining interval goes on over the restart, and is told to who receives.
#[test]
fn messages_expire_over_a_restart_and_keep_their_remaining_interval() {
    let mut gateway = Gateway::start("message-expiry", "{}");
    let port = gateway.port;
    assert_eq!(Wire::resume(port, &Connect::lasting("away"), false).subscribe("m/#", 1), Some(1));
    let mut publisher = Wire::resume(port, &Connect { expiry: 0, ..Connect::lasting("publisher") }, false);
    let begin = Instant::now();
    for (topic, seconds) in [("m/short", 2), ("m/long", 100)] {
        publisher.send(&expiring(topic, seconds, b"x"));
        assert_eq!(publisher.expect().first, 0x40);
    }
    let mut retained = expiring("kept", 2, b"retained");
    retained[0] |= 1;
    publisher.send(&retained);
    assert_eq!(publisher.expect().first, 0x40);
    thread::sleep(Duration::from_millis(600));
    gateway.kill_and_run();
    // Where the wall clock is not to be believed, what has passed since the last record does not count: never early.
    thread::sleep(Duration::from_millis(2_200));
    let mut away = Wire::resume(port, &Connect::lasting("away"), true);
    let message = away.message();
    let passed = u32::try_from(begin.elapsed().as_secs()).unwrap();
    assert_eq!(message.topic, "m/long", "the other one is past its time");
    let remaining = message.expiry.expect("an interval");
    assert!((100 - passed - 1..=98).contains(&remaining), "{remaining} s remain after {passed}");
    assert_eq!(away.subscribe("kept", 1), Some(1));
    assert_eq!(away.receive(Duration::from_millis(100)), Heard::Nothing, "the retained message is past its time");
}

/// P8: a Will is owed once its connection is gone, after its delay, unless its client comes back; and it comes once.
#[test]
fn wills_with_a_delay_are_published_once_after_a_restart() {
    let mut gateway = Gateway::start("will-delay", "{}");
    let port = gateway.port;
    assert_eq!(Wire::resume(port, &Connect::lasting("watcher"), false).subscribe("will/#", 2), Some(2));
    let connect =
        |identifier, topic, delay| Connect { will: Some((topic, b"gone", 1, delay)), ..Connect::lasting(identifier) };
    let mut wills = [
        ("dies", "will/1", 1),
        ("comes-back", "will/2", 20),
        ("says-goodbye", "will/3", 0),
        ("left-before", "will/4", 3),
        ("waits", "will/5", 600),
    ]
    .map(|(identifier, topic, delay)| Some(Wire::resume(port, &connect(identifier, topic, delay), false)));
    wills[2].as_mut().unwrap().send(&[0xE0, 0]);
    drop(wills[3].take());
    gateway.process().wait_for("client 'says-goodbye' disconnected");
    gateway.process().wait_for("client 'left-before' closed");
    gateway.settle();
    gateway.kill_and_run();
    drop(Wire::resume(port, &Connect::lasting("comes-back"), true));
    let mut watcher = Wire::resume(port, &Connect::lasting("watcher"), true);
    let mut topics = [watcher.message().topic, watcher.message().topic];
    topics.sort();
    assert_eq!(watcher.subscribe("fence", 0), Some(0));
    assert_eq!(topics, ["will/1", "will/4"]);
    // Its acknowledgements have come, and are recorded without haste.
    watcher.ping();
    gateway.settle();
    for _ in 0..2 {
        gateway.kill_and_run();
        let mut watcher = Wire::resume(port, &Connect::lasting("watcher"), true);
        watcher.send(&publish_packet("fence", 0, 0, b""));
        assert_eq!(watcher.message().topic, "fence", "no Will comes again");
    }
}
