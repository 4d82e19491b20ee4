//! The process stays inside the memory that it prints at start with every table full at once, and serves who is connected.
#![cfg(target_os = "linux")]
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use support::client::{Client, publish_packet};
use support::full::Full;

/// Messages that are sent to and fro in each quality of service.
const ROUNDS: usize = 200;

/// Sends itself messages and waits for each, and for its acknowledgement.
fn talk(client: &mut Client, rounds: usize) {
    for round in 0..rounds {
        let payload = round.to_string().into_bytes();
        client.send(&publish_packet("talk", 0, 0, &payload));
        assert_eq!(client.message(), ("talk".to_owned(), payload.clone()));
        assert_eq!(client.publish("talk", &payload), 0);
        assert_eq!(client.message(), ("talk".to_owned(), payload));
    }
}

#[test]
fn with_every_table_full_the_process_stays_inside_its_budget_and_goes_on_serving() {
    // The emulator's own memory would be counted.
    if std::env::var_os("PORTCULLIS_RUNNER").is_some() {
        return;
    }
    let mut full = Full::start("budget");
    let budget = full.budget_bytes();
    let mut client = full.client("talker");
    assert_eq!(client.subscribe(&["talk"]), [1]);
    talk(&mut client, 10);
    full.fill();
    talk(&mut client, ROUNDS);
    let most = full.resident_bytes("VmHWM");
    println!("at most {} KiB of {} KiB", most / 1_024, budget / 1_024);
    assert!(most <= budget, "{most} bytes in memory, {budget} promised");
    assert_eq!(full.process().count("client 'slow"), full.slow_readers(), "all are connected, and none is closed");
    full.release();
    let mut later = full.tls_client("later");
    assert_eq!(later.subscribe(&["later"]), [1]);
    for _ in 0..20 {
        assert_eq!(client.publish("later", &[1; 64 * 1024]), 0);
        assert_eq!(later.message().1.len(), 64 * 1024);
    }
    talk(&mut client, 10);
}
