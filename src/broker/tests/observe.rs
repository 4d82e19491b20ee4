//! What an operator sees of a broker, compared with what its clients did.

use super::replacement::{policy, ruled};
use super::*;
use crate::authorization::Wish;
use crate::broker::observe::{ROWS_MAX, SHOWN_BYTES_MAX, SLOTS_MAX};

const LASTING: [u8; 5] = [0x11, 0, 0, 0x0E, 0x10];

fn use_of(bench: &Bench, name: &str) -> (u64, u64, u64) {
    let tables = bench.broker.table_uses();
    let table = tables.iter().find(|table| table.name == name).unwrap();
    (table.used, table.capacity, table.refused)
}

#[test]
fn tables_are_as_full_as_clients_made_them() {
    let mut bench = Bench::default();
    let subscriber = bench.client("s");
    bench.give(subscriber, &wire::subscribe("a", 1));
    for number in 1..=3 {
        bench.give(subscriber, &wire::publish("a", number, &[], &[0; 1_000]));
    }
    assert_eq!(use_of(&bench, "connections"), (1, 8, 0));
    assert_eq!(use_of(&bench, "subscriptions"), (1, 16, 0));
    assert_eq!(use_of(&bench, "messages"), (3, 4_096, 0));
    assert_eq!(use_of(&bench, "message blocks"), (6, 4_096, 0));
    assert_eq!(use_of(&bench, "deliveries"), (3, 4_096, 0));
    for number in 2..=8 {
        bench.client(&number.to_string());
    }
    assert_eq!(bench.broker.open(bench.now.instant, 0), Err(Full));
    assert_eq!(use_of(&bench, "connections"), (8, 8, 1));
}

#[test]
fn every_table_that_is_printed_is_shown_or_is_no_table_of_rows() {
    let bench = Bench::default();
    let shown: Vec<&str> = bench.broker.table_uses().iter().map(|table| table.name).collect();
    let printed = Broker::tables(&capacities());
    let not_shown: Vec<&str> = printed.iter().map(|(name, ..)| *name).filter(|name| !shown.contains(name)).collect();
    assert_eq!(
        not_shown,
        [
            "authorization patterns",
            "verified signatures",
            "denials",
            "log batches (bytes)",
            "receive buffers (bytes)",
            "transmit buffers (bytes)"
        ]
    );
}

#[test]
fn a_client_is_shown_as_it_connected() {
    let mut bench = Bench::default();
    bench.now.instant = Instant::from_milliseconds(5_000);
    let key = bench.open();
    bench.give(key, &wire::connect("c'\n", 60, &[]));
    bench.give(key, &wire::subscribe("a/+", 1));
    let group = wire::packet(0x82, &[&[0, 2, 2, 0x0B, 7][..], &wire::text("$share/g/b"), &[0b0010_0000]].concat());
    bench.give(key, &group);
    bench.take(key);
    bench.give(key, &wire::publish("a/1", 1, &[], b"x"));
    bench.give(key, &wire::publish("a/2", 2, &[], b"x"));
    bench.broker.transmit(bench.now, key, &mut [0; 16]);
    let page = bench.broker.clients_from(0, ROWS_MAX);
    let [(0, client)] = page.rows.as_slice() else { panic!("{page:?}") };
    assert_eq!((client.client_identifier.as_str(), client.connection, page.next), ("c'\n", key, None));
    assert_eq!((client.keep_alive_seconds, client.connected.as_milliseconds()), (60, 5_000));
    assert_eq!((client.queued + client.in_flight, client.subscriptions), (2, 2));
    assert_eq!(bench.broker.client_named("c'\n").as_ref(), Some(client));
    let (filters, more) = bench.broker.filters_of("c'\n");
    let texts: Vec<&str> = filters.iter().map(|filter| &*filter.filter.text).collect();
    assert_eq!((texts, more), (vec!["$share/g/b", "a/+"], 0));
    assert_eq!((filters[0].identifier, filters[0].retain_handling, filters[1].identifier), (Some(7), 2, None));
    bench.hang_up(key);
    assert_eq!((bench.broker.clients_from(0, ROWS_MAX).rows, bench.broker.client_named("c'\n")), (Vec::new(), None));
}

#[test]
fn pages_meet_every_session_once_and_look_at_so_many_slots() {
    let many = Capacities { connections: 4, sessions: 5_000, ..capacities() };
    let mut bench = Bench::new(&many, &limits());
    for number in 0..4_000 {
        let key = bench.client_with(&format!("c{number}"), &LASTING);
        bench.hang_up(key);
    }
    // Only those in the last slots stay.
    for number in 0..3_900 {
        let key = bench.client(&format!("c{number}"));
        bench.hang_up(key);
    }
    let (mut names, mut from, mut calls) = (Vec::new(), Some(0), 0);
    while let Some(slot) = from {
        let page = bench.broker.sessions_from(bench.now, slot, 1_000);
        assert!(page.rows.len() <= ROWS_MAX && page.next.is_none_or(|next| next - slot <= SLOTS_MAX));
        names.extend(page.rows.into_iter().map(|(_, session)| session.client_identifier.as_str().to_owned()));
        (from, calls) = (page.next, calls + 1);
    }
    let expected: Vec<String> = (3_900..4_000).map(|number| format!("c{number}")).collect();
    names.sort();
    assert_eq!(names, expected);
    assert!(calls >= 3, "{calls} calls for 4,000 slots");
    assert_eq!(bench.broker.sessions_from(bench.now, u32::MAX, 1), Page { rows: Vec::new(), next: None });
}

#[test]
fn a_session_without_a_client_says_when_it_ends() {
    let mut bench = Bench::default();
    let (lasting, _fleeting) = (bench.client_with("l", &LASTING), bench.client("f"));
    bench.hang_up(lasting);
    bench.now.instant = bench.now.instant.plus_seconds(600);
    let rows = bench.broker.sessions_from(bench.now, 0, ROWS_MAX).rows;
    let seen: Vec<_> =
        rows.iter().map(|(_, row)| (row.client_identifier.as_str(), row.connected, row.expires_in_seconds)).collect();
    assert_eq!(seen, [("l", false, Some(3_000)), ("f", true, Some(0))]);
}

#[test]
fn a_retained_message_is_shown_with_its_topic_cut_at_a_character() {
    let mut bench = Bench::default();
    let client = bench.client("p");
    let long = "ü".repeat(30_000);
    for (topic, properties) in [("short", &[2, 0, 0, 0, 9][..]), (&long, &[])] {
        let mut publish = wire::publish(topic, 0, properties, b"abc");
        publish[0] |= 1;
        bench.give(client, &publish);
    }
    bench.now.instant = bench.now.instant.plus_seconds(4);
    let page = bench.broker.retained_from(bench.now, 0, ROWS_MAX);
    let rows: Vec<_> = page.rows.into_iter().map(|(_, row)| row).collect();
    assert_eq!((&*rows[0].topic.text, rows[0].payload_bytes, rows[0].expires_in_seconds), ("short", 3, Some(5)));
    assert_eq!((&*rows[1].topic.text, rows[1].topic.cut), (&*"ü".repeat(SHOWN_BYTES_MAX / 2), true));
    bench.now.instant = bench.now.instant.plus_seconds(5);
    assert_eq!(bench.broker.retained_from(bench.now, 0, ROWS_MAX).rows.len(), 1, "what has expired is not shown");
}

#[test]
fn a_client_that_the_operator_disconnects_is_told_and_its_will_is_published() {
    let mut bench = Bench::default();
    let watcher = bench.client("w");
    bench.give(watcher, &wire::subscribe("gone", 0));
    bench.take(watcher);
    let key = bench.open();
    let head = [&wire::text("MQTT")[..], &[5, 0b0000_0110, 0, 0, 0]].concat();
    let will = [&[0][..], &wire::text("gone"), &wire::text("x")].concat();
    bench.give(key, &wire::packet(0x10, &[&head[..], &wire::text("c"), &will].concat()));
    bench.take(key);
    assert!(!bench.broker.disconnect_client(bench.now, "nobody"));
    assert!(bench.broker.disconnect_client(bench.now, "c"));
    assert_eq!(bench.take(key), [(0xE0, vec![0x98])]);
    assert!(bench.is_closing(key));
    assert_eq!(bench.take(watcher).len(), 1, "the will");
    assert!(!bench.broker.disconnect_client(bench.now, "c"), "it is gone");
}

#[test]
fn a_denial_is_explained_by_the_rule_that_comes_nearest() {
    let mut bench = Bench::new(&capacities(), &limits());
    let rules = policy(&[("a", &["x/#"]), ("b", &["y/#"])]);
    bench.broker.replace_admission(ruled(rules), &[Succession::Unchanged]);
    let client = bench.client("a");
    bench.give(client, &wire::subscribe("y/1", 1));
    let stranger = bench.open();
    bench.give(stranger, &wire::connect("c", 0, &[]));
    assert!(bench.broker.explain_denial() && bench.broker.explain_denial() && !bench.broker.explain_denial());
    let denials: Vec<_> = bench.broker.telemetry().denials.iter().cloned().collect();
    let seen: Vec<_> = denials.iter().map(|one| (one.client.as_str(), one.action, one.resource.as_str())).collect();
    assert_eq!(
        seen,
        [("c", crate::telemetry::Action::Connect, "c"), ("a", crate::telemetry::Action::Subscribe, "y/1")]
    );
    let why = denials[1].explanation.as_ref().unwrap();
    assert!(why.rule.is_some() && why.text.contains("client id"), "{why:?}");

    let known = bench.broker.client_named("a").unwrap();
    let ask = |wish| bench.broker.explain(known.port, &known.identity, "a", wish);
    let publish = ask(Some(Wish::Publish("z")));
    assert!(publish.is_allowed && publish.rule.is_some());
    let subscribe = ask(Some(Wish::Subscribe("y/1")));
    assert!(!subscribe.is_allowed && !subscribe.nearest.is_empty());
    assert_eq!(ask(None).grants.len(), 3);
}
