//! What goes wrong only when two things come together.

use super::*;

fn connect_311(identifier: &str) -> Vec<u8> {
    let head = [&wire::text("MQTT")[..], &[4, 2, 0, 0]].concat();
    wire::packet(0x10, &[&head[..], &wire::text(identifier)].concat())
}
fn publish_311(topic: &str, identifier: u16, payload: &[u8]) -> Vec<u8> {
    wire::packet(0x32, &[&wire::text(topic)[..], &identifier.to_be_bytes(), payload].concat())
}
fn retain(topic: &str, id: u8, payload: &[u8]) -> Vec<u8> {
    wire::packet(0x33, &[&wire::text(topic)[..], &[0, id, 0], payload].concat())
}

#[test]
fn a_client_of_3_1_1_gets_no_acknowledgement_for_what_is_refused() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let p = kiln.bench.open();
    kiln.give(p, &connect_311("p"));
    assert_eq!(kiln.kinds(p), [0x20]);
    // not failed: merely a slow disk, one batch under way, and the other buffer full
    kiln.give(p, &publish_311("t", 1, b"first"));
    let batch = kiln.bench.broker.next_batch(kiln.bench.now.instant).unwrap();
    let mut n = 1;
    for id in 2..60_u16 {
        kiln.give(p, &publish_311("t", id, &[1; 60_000]));
        n += 1;
    }
    let outcome = kiln.log.write(&batch);
    kiln.bench.broker.written(kiln.bench.now, batch, outcome);
    kiln.commit();
    let acks = kiln.kinds(p).iter().filter(|k| **k == 0x40).count();
    let kept = kiln.bench.broker.in_use().deliveries;
    assert_eq!(acks, kept, "acknowledged vs kept of {n}");
}

#[test]
fn nor_when_the_disk_has_failed() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let p = kiln.bench.open();
    kiln.give(p, &connect_311("p"));
    assert_eq!(kiln.kinds(p), [0x20]);
    kiln.give(p, &publish_311("t", 1, b"first"));
    kiln.log.disk().fails = true;
    kiln.commit();
    kiln.log.disk().fails = false;
    kiln.give(p, &publish_311("t", 2, b"second"));
    kiln.pass(5_000);
    kiln.commit();
    let acks = kiln.kinds(p).iter().filter(|k| **k == 0x40).count();
    assert_eq!(acks, kiln.bench.broker.in_use().deliveries);
}

#[test]
fn a_second_clear_waits_for_the_first() {
    let mut kiln = Kiln::new();
    let (a, _) = kiln.client("a", &[], true);
    let (b, _) = kiln.client("b", &[], true);
    kiln.give(a, &retain("r", 1, b"x"));
    kiln.commit();
    assert_eq!(kiln.kinds(a), [0x40]);
    kiln.give(a, &retain("r", 2, b""));
    kiln.give(b, &retain("r", 2, b""));
    assert_eq!(kiln.kinds(a), [0_u8; 0]);
    let b_acked = kiln.kinds(b) == [0x40];
    let kiln = kiln.restart(0);
    let back = kiln.bench.broker.in_use().retained_messages == 1;
    assert!(!(b_acked && back), "b's clear was acknowledged and the message is back");
}

#[test]
fn what_replaces_a_kept_retained_message_without_being_kept_waits_until_that_is_gone() {
    let mut kiln = Kiln::with(Persistence {
        retain: Kept::Some { patterns: vec!["k".into()], dynamic: true },
        commit_interval_milliseconds: 0,
        ..Persistence::default()
    });
    let asks = [&[0x26][..], &wire::text("aio-persistence"), &wire::text("true")].concat();
    let (a, _) = kiln.client("a", &[], true);
    let kept = [&wire::text("r")[..], &[0, 2, asks.len() as u8], &asks, b"old"].concat();
    kiln.give(a, &wire::packet(0x33, &kept));
    kiln.commit();
    assert_eq!(kiln.kinds(a), [0x40]);
    kiln.give(a, &retain("r", 3, b"new"));
    let acked = kiln.kinds(a) == [0x40];
    kiln.give(a, &retain("r", 4, b""));
    let cleared = kiln.kinds(a) == [0x40];
    let kiln = kiln.restart(0);
    let back = kiln.bench.broker.in_use().retained_messages == 1;
    assert!(!back || !acked && !cleared, "acked {acked} cleared {cleared}, back {back}");
}

#[test]
fn what_a_sweep_left_behind_is_written_again_for_a_delivery() {
    let mut kiln =
        Kiln::with(Persistence { retain: Kept::None, commit_interval_milliseconds: 0, ..Persistence::default() });
    let s = kiln.present("s", "r", 1);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &retain("r", 1, b"x"));
    kiln.commit();
    assert_eq!(kiln.kinds(p), [0x40]);
    assert_eq!(kiln.kinds(s), [0x32]);
    kiln.give(s, &wire::puback(1));
    kiln.commit();
    kiln.bench.broker.set_judges(8);
    kiln.bench.broker.set_judges(7);
    kiln.commit();
    let (t, _) = kiln.client("t", &LASTING, true);
    kiln.give(t, &wire::subscribe("r", 1));
    kiln.commit();
    assert_eq!(kiln.bench.broker.in_use().deliveries, 1);
    kiln.bench.hang_up(t);
    kiln.commit();
    let kiln = kiln.restart(0);
    assert_eq!(kiln.bench.broker.in_use().deliveries, 1, "the delivery is lost");
}

#[test]
fn qos_0_overtakes_many_that_wait() {
    let mut kiln = Kiln::new();
    let (s, _) = kiln.client("s", &LASTING, true);
    kiln.give(s, &wire::subscribe("t", 2));
    kiln.give(s, &wire::subscribe("zero", 0));
    kiln.commit();
    kiln.kinds(s);
    for name in ["p", "q"] {
        let (p, _) = kiln.client(name, &[], true);
        for id in 1..=40 {
            kiln.give(p, &exactly_once("t", id, false, b"x"));
        }
    }
    // client() commits, so: s has 40 with identifiers on disk; hold those too
    kiln.kinds(s);
    let (z, _) = kiln.client("z", &[], true);
    kiln.kinds(s);
    let (p, _) = kiln.client("p3", &[], true);
    kiln.kinds(s);
    for id in 1..=64 {
        kiln.give(p, &exactly_once("t", id, false, b"x"));
    }
    kiln.give(z, &exactly_once("t", 1, false, b"x"));
    kiln.give(z, &wire::publish("zero", 0, &[], b"z"));
    let got = kiln.kinds(s);
    assert!(got.contains(&0x30), "QoS 0 waits for the disk {got:?}");
}

#[test]
fn replies_of_others_that_wait_keep_no_ping_and_no_qos_0_from_being_read() {
    let mut kiln = Kiln::new();
    let (z, _) = kiln.client("z", &[], true);
    let mut others = vec![];
    for name in ["a", "b", "c", "d"] {
        others.push(kiln.client(name, &LASTING, true).0);
    }
    for o in others {
        let many: Vec<u8> = (0..100).flat_map(|_| wire::subscribe("t", 1)).collect();
        kiln.give(o, &many);
    }
    kiln.give(z, &PING);
    assert_eq!(kiln.kinds(z), [0xD0], "replies {}", kiln.bench.broker.in_use().replies);
}

#[test]
fn a_will_is_published_while_the_disk_fails() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "w", 1);
    let (r, _) = kiln.client("r", &[], true);
    kiln.give(r, &wire::subscribe("w", 1));
    kiln.kinds(r);
    let key = kiln.bench.open();
    kiln.give(key, &connect_with_will("c", &LASTING, 0));
    kiln.commit();
    assert_eq!(kiln.kinds(key), [0x20]);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &wire::publish("w", 1, &[], b"x"));
    kiln.log.disk().fails = true;
    kiln.commit();
    kiln.kinds(r);
    kiln.bench.hang_up(key);
    let seen = kiln.kinds(r);
    kiln.log.disk().fails = false;
    kiln.pass(10_000);
    kiln.commit();
    kiln.pass(10_000);
    assert_eq!((seen, kiln.bench.broker.in_use().deliveries), (vec![0x32], 4), "who is here; who is not");
}

#[test]
fn retained_messages_come_although_their_session_goes_on_changing() {
    let mut kiln = Kiln::new();
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &retain("r", 1, b"x"));
    kiln.commit();
    let (s, _) = kiln.client("s", &LASTING, true);
    kiln.give(s, &wire::subscribe("r", 0));
    let mut seen = vec![];
    let mut held = None;
    for id in 1..50_u16 {
        // While a batch is with the disk, another PUBREL comes.
        kiln.give(s, &exactly_once("nobody", id, false, b"x"));
        kiln.give(s, &wire::packet(0x62, &id.to_be_bytes()));
        if let Some(batch) = held.take() {
            let outcome = kiln.log.write(&batch);
            kiln.bench.broker.written(kiln.bench.now, batch, outcome);
        }
        kiln.bench.broker.work(kiln.bench.now.instant);
        held = kiln.bench.broker.next_batch(kiln.bench.now.instant);
        seen.extend(kiln.kinds(s));
    }
    assert!(seen.contains(&0x90));
    assert!(seen.contains(&0x31), "what is retained does not come");
}

/// A disk that failed for two hours while a client waited for its acknowledgement, and works again.
fn after_a_long_failure() -> Kiln {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &wire::publish("t", 1, &[], b"held"));
    kiln.log.disk().fails = true;
    kiln.commit();
    for _ in 0..120 {
        kiln.pass(61_000);
        kiln.commit();
    }
    kiln.log.disk().fails = false;
    kiln
}

#[test]
fn a_disk_that_fails_for_long_does_not_use_up_the_log() {
    let mut kiln = after_a_long_failure();
    for _ in 0..20 {
        kiln.pass(61_000);
        kiln.commit();
    }
    let segments = kiln.log.disk().files.len();
    assert_eq!(kiln.bench.broker.store_state(), StoreState::Sound, "files {segments}");
}

#[test]
fn no_restart_gives_a_message_or_a_session_more_time_than_it_was_given() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let (publisher, _) = kiln.client("p", &[], true);
    let (brief, _) = kiln.client("brief", &[0x11, 0, 0, 0, 2], true);
    // The log was told the time a while ago, and is told it again with what is to end.
    kiln.pass(900);
    kiln.give(publisher, &wire::publish("t", 1, &[2, 0, 0, 0, 2], b"x"));
    kiln.bench.hang_up(brief);
    // It is written without haste, and no orderly end tells the time once more.
    let batch = kiln.bench.broker.next_batch(kiln.bench.now.instant.plus_seconds(1)).unwrap();
    kiln.log.write(&batch).unwrap();
    let mut kiln = kiln.restart(0);
    kiln.pass(1_999);
    assert_eq!(kiln.bench.broker.in_use().sessions, 2);
    kiln.pass(1);
    assert_eq!(kiln.bench.broker.in_use().sessions, 1);
    let (subscriber, _) = kiln.client("s", &LASTING, false);
    assert_eq!(kiln.kinds(subscriber), [0_u8; 0]);
}

#[test]
fn time_of_an_idle_process_counts() {
    let mut kiln = Kiln::new();
    kiln.bench.broker.set_clock(kiln.bench.now, false);
    kiln.absent("s", "t", 1);
    for _ in 0..5 {
        // 50 minutes of a process that is there, stopped in order, five times.
        for _ in 0..50 {
            kiln.bench.now.instant = kiln.bench.now.instant.plus_milliseconds(60_000);
            kiln.bench.broker.set_clock(kiln.bench.now, false);
            kiln.bench.broker.expire(kiln.bench.now);
            kiln.commit();
        }
        kiln.bench.broker.shut_down(kiln.bench.now);
        kiln.commit();
        kiln = kiln.restart(0);
        kiln.bench.broker.set_clock(kiln.bench.now, false);
    }
    assert_eq!(kiln.bench.broker.in_use().sessions, 0, "250 minutes of an hour have passed");
}

#[test]
fn what_was_queued_before_its_queue_was_kept_keeps_its_order() {
    let asks = [&[0x26][..], &wire::text("aio-persistence"), &wire::text("true")].concat();
    let mut kiln = Kiln::with(Persistence {
        subscriber_queue: Kept::Some { patterns: vec![], dynamic: true },
        commit_interval_milliseconds: 0,
        ..Persistence::default()
    });
    kiln.absent("s", "t", 1);
    let (p, _) = kiln.client("p", &[], true);
    for id in 1..=3_u16 {
        kiln.give(p, &wire::publish("t", id, &[], &[b'0' + id as u8]));
    }
    kiln.commit();
    // It comes back and asks; meanwhile another one is published.
    let s = kiln.bench.open();
    kiln.give(s, &wire::connect_again("s", &[&LASTING[..], &asks].concat()));
    kiln.give(p, &wire::publish("t", 4, &[], b"4"));
    kiln.bench.hang_up(s);
    kiln.commit();
    let mut kiln = kiln.restart(0);
    let (s, _) = kiln.client("s", &LASTING, false);
    let got: Vec<u8> = kiln.take(s).iter().map(|(_, b)| *b.last().unwrap()).collect();
    assert_eq!(got, *b"1234");
}

#[test]
fn a_torn_batch_does_not_double_a_will() {
    for keep in 0..4096 {
        let mut kiln = Kiln::new();
        kiln.absent("s", "w", 1);
        let key = kiln.bench.open();
        kiln.give(key, &connect_with_will("c", &LASTING, 0));
        kiln.commit();
        assert_eq!(kiln.kinds(key), [0x20]);
        kiln.bench.hang_up(key);
        let mut batch = kiln.bench.broker.next_batch(kiln.bench.now.instant).unwrap();
        if keep >= batch.bytes.len() {
            break;
        }
        batch.bytes[keep..].fill(0);
        let full = batch.bytes.len();
        let mut whole = batch.bytes.clone();
        whole.truncate(keep);
        batch.bytes = whole;
        // What of the batch reached the disk before the power went.
        kiln.log.write(&batch).ok();
        let mut kiln = kiln.restart(0);
        kiln.pass(1_000);
        assert!(
            kiln.bench.broker.in_use().deliveries == 1,
            "{keep} of {full}: {}",
            kiln.bench.broker.in_use().deliveries
        );
    }
}

#[test]
fn of_two_sessions_with_one_name_the_younger_one_counts() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "old", 1);
    let before: Vec<_> = kiln.log.disk().files.iter().find(|(n, _)| n.ends_with(".log")).unwrap().1.clone();
    kiln.absent("s", "new", 1);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &wire::publish("new", 1, &[], b"precious"));
    kiln.commit();
    assert_eq!(kiln.kinds(p), [0x40]);
    let file = kiln.log.disk().files.iter_mut().find(|(n, _)| n.ends_with(".log")).unwrap().1;
    let at = before.iter().rposition(|b| *b != 0).unwrap() + 1;
    // The first record behind: the end of the older session.
    file[at + 8 + 9] ^= 1;
    let disk = core::mem::take(kiln.log.disk());
    let mut recovered = recover(disk, SIZES).unwrap();
    assert_eq!(recovered.report.missing, 1, "{:?}", recovered.report);
    let mut bench = Bench::default();
    let (last, room) = (recovered.last, recovered.log.room());
    bench.broker.set_durability(Durability::new(1 << 20, Persistence::default(), 7, SIZES, last, room));
    let restored = bench.broker.restore(Now::default(), true, &mut recovered).unwrap();
    assert_eq!((restored.sessions, restored.deliveries), (1, 1), "{restored:?}");
}

#[test]
fn a_delivery_made_during_a_sweep_has_its_message() {
    let mut kiln = Kiln::new();
    let (p, _) = kiln.client("p", &[], true);
    for n in 1..=8 {
        kiln.give(p, &retain(&format!("big/{n}"), n, &[n; 70_000]));
        kiln.commit();
    }
    kiln.give(p, &retain("m", 9, b"precious"));
    kiln.commit();
    kiln.kinds(p);
    let (t, _) = kiln.client("t", &LASTING, true);
    kiln.commit();
    kiln.bench.broker.set_judges(8);
    kiln.bench.broker.set_judges(7);
    let mut step = 0;
    let mut got = vec![];
    loop {
        if step == 1 {
            kiln.give(t, &wire::subscribe("m", 1));
        }
        if step == 4 {
            kiln.give(p, &retain("m", 10, b""));
        }
        kiln.bench.broker.flush();
        let Some(batch) = kiln.bench.broker.next_batch(kiln.bench.now.instant) else { break };
        let outcome = kiln.log.write(&batch);
        kiln.bench.broker.written(kiln.bench.now, batch, outcome);
        kiln.bench.broker.work(kiln.bench.now.instant);
        step += 1;
    }
    got.extend(kiln.kinds(t));
    assert_eq!(kiln.bench.broker.telemetry().counters.store_sweeps, 1);
    assert_eq!(kiln.bench.broker.in_use().deliveries, 2, "steps {step} {got:?}");
    kiln.commit();
    let kiln = kiln.restart(0);
    assert_eq!(kiln.bench.broker.in_use().deliveries, 2, "in flight, and lost; steps {step}");
}

#[test]
fn a_damaged_session_is_counted_with_what_it_had() {
    let mut kiln = Kiln::new();
    kiln.absent("other", "x", 1);
    let (p, _) = kiln.client("p", &[], true);
    let before: Vec<_> = kiln.log.disk().files.iter().find(|(n, _)| n.ends_with(".log")).unwrap().1.clone();
    kiln.absent("s", "t", 1);
    kiln.give(p, &wire::publish("t", 1, &[], b"x"));
    kiln.commit();
    let file = kiln.log.disk().files.iter_mut().find(|(n, _)| n.ends_with(".log")).unwrap().1;
    let at = before.iter().rposition(|b| *b != 0).unwrap() + 1;
    file[at + 8 + 9] ^= 1;
    let disk = core::mem::take(kiln.log.disk());
    let recovered = recover(disk, SIZES).unwrap();
    assert_eq!(recovered.report.missing, 1);
    let sessions = recovered.image.sessions.len();
    assert_eq!((sessions, recovered.image.orphans), (1, 1), "its delivery is gone and not counted");
}

#[test]
fn a_brief_session_with_a_will_waits_for_nothing() {
    let mut kiln = Kiln::new();
    let key = kiln.bench.open();
    kiln.give(key, &connect_with_will("c", &[], 0));
    assert_eq!(kiln.kinds(key), [0x20]);
    kiln.give(key, &exactly_once("nobody", 1, false, b"x"));
    assert_eq!(kiln.kinds(key), [0x50]);
    kiln.give(key, &wire::packet(0x62, &[0, 1]));
    assert_eq!(kiln.kinds(key), [0x70]);
}

#[test]
fn a_brief_client_with_a_will_comes_back_while_the_disk_fails() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let key = kiln.bench.open();
    kiln.give(key, &connect_with_will("c", &[], 0));
    assert_eq!(kiln.kinds(key), [0x20]);
    kiln.commit();
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &wire::publish("t", 1, &[], b"x"));
    kiln.log.disk().fails = true;
    kiln.commit();
    let again = kiln.bench.open();
    kiln.give(again, &connect_with_will("c", &[], 0));
    let got = kiln.take(again);
    assert!(got.first().is_some_and(|(_, b)| b[1] == 0), "{got:?}");
}

#[test]
fn a_restart_after_a_long_failure() {
    let kiln = after_a_long_failure();
    let mut kiln = kiln.restart(0);
    kiln.client("s", &LASTING, false);
    assert_eq!(kiln.bench.broker.store_state(), StoreState::Sound);
}

#[test]
fn identifiers_after_a_restart_without_a_kept_queue() {
    let mut kiln = Kiln::with(Persistence {
        subscriber_queue: Kept::None,
        commit_interval_milliseconds: 0,
        ..Persistence::default()
    });
    let s = kiln.present("s", "t", 2);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &exactly_once("t", 1, false, b"one"));
    kiln.commit();
    let first = kiln.take(s);
    kiln.give(s, &wire::packet(0x50, &[0, 1]));
    let mut kiln = kiln.restart(0);
    let (s, present) = kiln.client("s", &LASTING, false);
    assert!(present);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &exactly_once("t", 1, false, b"two"));
    kiln.commit();
    let second = kiln.take(s);
    assert_ne!(first[0].1[3..5], second[0].1[3..5], "the client takes it for the first, which it has");
}

#[test]
fn qos_0_is_retained_in_memory_while_the_disk_fails() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &retain("r", 1, b"old"));
    kiln.commit();
    kiln.give(p, &wire::publish("t", 2, &[], b"x"));
    kiln.log.disk().fails = true;
    kiln.commit();
    kiln.give(p, &wire::packet(0x31, &[&wire::text("r")[..], &[0], b"new"].concat()));
    let (r, _) = kiln.client("r", &[], true);
    kiln.give(r, &wire::subscribe("r", 0));
    let got = kiln.take(r);
    assert!(got.last().unwrap().1.ends_with(b"new"), "{got:?}");
}

#[test]
fn shutdown_waits_for_a_failed_disk_no_longer_than_it_says() {
    // pressed, then failed: who was held goes on with QoS 1
    let mut kiln = Kiln::new();
    let s = kiln.present("s", "t", 1);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &wire::publish("t", 1, &[], b"x"));
    let batch = kiln.bench.broker.next_batch(kiln.bench.now.instant).unwrap();
    for id in 2..20_u16 {
        kiln.give(p, &wire::publish("t", id, &[], &[1; 100_000]));
    }
    let mut early = kiln.kinds(s).len();
    let _ = &batch;
    kiln.bench.broker.written(kiln.bench.now, batch, Err(io::ErrorKind::Other.into()));
    early += kiln.bench.broker.next_ready().map_or(0, |_| 1000);
    assert!(early > 1000, "{early}");
}

#[test]
fn identifiers_after_a_sweep_numbered_them_by_slot() {
    let asks = [&[0x26][..], &wire::text("aio-persistence"), &wire::text("true")].concat();
    let mut kiln = Kiln::with(Persistence {
        subscriber_queue: Kept::Some { patterns: vec![], dynamic: true },
        commit_interval_milliseconds: 0,
        ..Persistence::default()
    });
    let s = kiln.present("s", "t", 2);
    let (p, _) = kiln.client("p", &LASTING, true);
    // Three in flight, the first two done, so that their slots come back in another order.
    for id in 1..=3_u16 {
        kiln.give(p, &exactly_once("t", id, false, &[b'0' + id as u8]));
    }
    assert_eq!(kiln.kinds(s), [0x34; 3]);
    for id in 1..=2_u8 {
        kiln.give(s, &wire::packet(0x50, &[0, id]));
        kiln.give(s, &wire::packet(0x70, &[0, id]));
    }
    for id in 4..=5_u16 {
        kiln.give(p, &exactly_once("t", id, false, &[b'0' + id as u8]));
    }
    kiln.kinds(s);
    kiln.bench.hang_up(s);
    kiln.commit();
    let (s, _) = kiln.client("s", &[&LASTING[..], &asks].concat(), false);
    let before: Vec<_> = kiln.take(s).iter().map(|(f, b)| (*f, b[4], *b.last().unwrap())).collect();
    kiln.commit();
    let mut kiln = kiln.restart(0);
    let (s, _) = kiln.client("s", &[&LASTING[..], &asks].concat(), false);
    let after: Vec<_> = kiln.take(s).iter().map(|(f, b)| (*f, b[4], *b.last().unwrap())).collect();
    let (p, _) = kiln.client("p2", &[], true);
    kiln.give(p, &exactly_once("t", 9, false, b"n"));
    kiln.commit();
    kiln.kinds(s);
    kiln.commit();
    let new: Vec<_> = kiln.take(s).iter().map(|(f, b)| (*f, b[4], *b.last().unwrap())).collect();
    if false {
        assert_eq!(before, after, "new {new:?}");
    }
    assert!(new.iter().all(|n| after.iter().all(|a| a.1 != n.1)), "{after:?} {new:?}");
}

#[test]
fn an_expiry_that_was_granted_as_0_cannot_be_raised_at_disconnect() {
    let mut kiln = Kiln::new();
    let mut capped = limits();
    capped.max_session_expiry_seconds = Some(0);
    kiln.bench.broker.set_limits(kiln.bench.now.instant, &capacities(), &capped, &settings());
    let (s, _) = kiln.client("s", &LASTING, true);
    kiln.bench.broker.set_limits(kiln.bench.now.instant, &capacities(), &limits(), &settings());
    kiln.give(s, &wire::subscribe("t", 1));
    kiln.give(s, &wire::packet(0xE0, &[0, 5, 0x11, 0, 0, 0x0E, 0x10]));
    kiln.bench.hang_up(s);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &wire::publish("t", 1, &[], b"x"));
    kiln.commit();
    assert_eq!(kiln.kinds(p), [0x40]);
    let sessions = kiln.bench.broker.in_use().sessions;
    let kiln = kiln.restart(0);
    assert_eq!((sessions, kiln.bench.broker.in_use().sessions), (1, 0), "only the publisher's was left");
}

#[test]
fn in_flight_at_a_restart_with_a_smaller_window() {
    let mut kiln = Kiln::new();
    let s = kiln.present("s", "t", 2);
    let (p, _) = kiln.client("p", &[], true);
    for id in 1..=20_u16 {
        kiln.give(p, &exactly_once("t", id, false, &[id as u8]));
    }
    kiln.commit();
    kiln.kinds(s);
    kiln.commit();
    kiln.kinds(s);
    let mut kiln = kiln.restart(0);
    let (s, _) = kiln.client("s", &[&LASTING[..], &[0x21, 0, 2]].concat(), false);
    let mut got = vec![];
    for _ in 0..60 {
        let taken = kiln.take(s);
        let mut publishes = 0;
        for (first, body) in taken {
            if first & 0xF0 == 0x30 {
                publishes += 1;
                got.push(*body.last().unwrap());
                kiln.give(s, &wire::packet(0x50, &body[3..5]));
            } else if first == 0x62 {
                kiln.give(s, &wire::packet(0x70, &body[..2]));
            }
        }
        assert!(publishes <= 2);
        kiln.commit();
    }
    assert_eq!(got, (1..=20).collect::<Vec<u8>>());
}

#[test]
fn an_identifier_released_while_rewriting() {
    // A PUBREL whose record is lost with the batch: PUBCOMP waits until everything is written anew.
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 2);
    let (p, _) = kiln.client("p", &LASTING, true);
    kiln.give(p, &exactly_once("t", 9, false, b"x"));
    kiln.commit();
    kiln.kinds(p);
    kiln.log.disk().fails = true;
    kiln.give(p, &wire::packet(0x62, &[0, 9]));
    kiln.commit();
    assert_eq!(kiln.kinds(p), [0_u8; 0]);
    kiln.bench.hang_up(p);
    kiln.log.disk().fails = false;
    kiln.pass(3_000);
    kiln.commit();
    let mut kiln = kiln.restart(0);
    let (p, _) = kiln.client("p", &LASTING, false);
    kiln.give(p, &exactly_once("t", 9, false, b"y"));
    kiln.commit();
    assert_eq!(kiln.kinds(p), [0x50]);
    assert_eq!(kiln.bench.broker.in_use().deliveries, 2);
}

#[test]
fn a_takeover_with_everything_in_flight() {
    let mut kiln = Kiln::new();
    let s = kiln.present("s", "t", 2);
    let (p, _) = kiln.client("p", &[], true);
    for id in 1..=5_u16 {
        kiln.give(p, &exactly_once("t", id, false, &[id as u8]));
    }
    // Identifiers are assigned, nothing sent; another connection takes the session over.
    kiln.kinds(s);
    let s2 = kiln.bench.open();
    kiln.give(s2, &wire::connect_again("s", &LASTING));
    assert_eq!(kiln.kinds(s2), [0_u8; 0]);
    kiln.commit();
    let got: Vec<_> = kiln.take(s2).into_iter().filter(|(f, _)| f & 0xF0 == 0x30).map(|(f, b)| (f, b[4])).collect();
    assert_eq!(got, [(0x34, 1), (0x34, 2), (0x34, 3), (0x34, 4), (0x34, 5)]);
}

#[test]
fn retained_qos0_kept_flow_when_pressed_is_the_old_one() {
    // Merely a slow disk with a full buffer: QoS 0 retained is silently not retained.
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let (p, _) = kiln.client("p", &[], true);
    kiln.give(p, &retain("r", 1, b"old"));
    kiln.commit();
    kiln.kinds(p);
    kiln.give(p, &wire::publish("t", 1, &[], b"x"));
    let batch = kiln.bench.broker.next_batch(kiln.bench.now.instant).unwrap();
    for id in 2..30_u16 {
        kiln.give(p, &wire::publish("t", id, &[], &[1; 60_000]));
    }
    kiln.give(p, &wire::packet(0x31, &[&wire::text("r")[..], &[0], b"new"].concat()));
    let outcome = kiln.log.write(&batch);
    kiln.bench.broker.written(kiln.bench.now, batch, outcome);
    kiln.commit();
    let (r, _) = kiln.client("r", &[], true);
    kiln.give(r, &wire::subscribe("r", 0));
    let got = kiln.take(r);
    assert!(got.last().unwrap().1.ends_with(b"new"), "{got:?}");
}

fn big_kiln() -> Kiln {
    let sizes = Capacities {
        filter_bytes: 8 << 20,
        filter_nodes: 1_024,
        subscriptions: 256,
        subscriptions_per_session: 256,
        ..capacities()
    };
    let mut bench = Bench::new(&sizes, &limits());
    let mut recovered = recover(Memory::default(), SIZES).unwrap();
    let persistence = Persistence { commit_interval_milliseconds: 0, ..Persistence::default() };
    let (last, room) = (recovered.last, recovered.log.room());
    bench.broker.set_durability(Durability::new(sizes.packet_bytes, persistence.clone(), 7, SIZES, last, room));
    bench.broker.set_clock(bench.now, true);
    bench.broker.restore(bench.now, true, &mut recovered).unwrap();
    Kiln { bench, log: recovered.log, persistence, early: Vec::new() }
}

#[test]
fn long_filters_lead_to_no_endless_sweeps() {
    let mut kiln = big_kiln();
    let (s, _) = kiln.client("s", &LASTING, true);
    let step = |kiln: &mut Kiln, most: u32| {
        let mut n = 0;
        for _ in 0..most {
            kiln.bench.broker.flush();
            kiln.bench.broker.work(kiln.bench.now.instant);
            let Some(batch) = kiln.bench.broker.next_batch(kiln.bench.now.instant) else { break };
            let outcome = kiln.log.write(&batch);
            kiln.bench.broker.written(kiln.bench.now, batch, outcome);
            n += 1;
        }
        n
    };
    for n in 0..130 {
        kiln.give(s, &wire::subscribe(&format!("{n}{}", "x".repeat(60_000)), 1));
        step(&mut kiln, 3);
        kiln.kinds(s);
    }
    assert_eq!(kiln.bench.broker.in_use().subscriptions, 130);
    step(&mut kiln, 2_000);
    let before = kiln.bench.broker.telemetry().counters.store_bytes;
    let sweeps = kiln.bench.broker.telemetry().counters.store_sweeps;
    let batches = step(&mut kiln, 2_000);
    let wrote = kiln.bench.broker.telemetry().counters.store_bytes - before;
    let sweeps = kiln.bench.broker.telemetry().counters.store_sweeps - sweeps;
    assert_eq!((batches, wrote, sweeps), (0, 0, 0), "idle");
}

#[test]
fn a_client_that_takes_no_answer_to_its_pings_is_not_read_and_goes_on_when_it_does() {
    let mut kiln = Kiln::new();
    let (key, _) = kiln.client("a", &[], true);
    let flood = PING.repeat(1_000);
    let received = kiln.bench.give(key, &flood);
    assert_eq!((received.consumed, received.then), (2 * usize::from(PONGS_MAX), Then::Paused));
    let mut answered = 0;
    let mut rest = &flood[received.consumed..];
    loop {
        answered += kiln.kinds(key).len();
        if rest.is_empty() {
            break;
        }
        rest = &rest[kiln.bench.give(key, rest).consumed..];
    }
    assert_eq!(answered, 1_000);
}
