//! What waits for the disk, what does not, and what is there after a restart.

mod corners;

use super::*;
use crate::config::blob::{Kept, Persistence};
use crate::store::memory::Memory;
use crate::store::{Log, Sizes, recover};
use std::io;

/// Session Expiry Interval of an hour.
const LASTING: [u8; 5] = [0x11, 0, 0, 0x0E, 0x10];
const SIZES: Sizes = Sizes { segment_bytes: 3 << 19, total_bytes: 64 << 20 };

/// A broker with a log, written when the test says so.
struct Kiln {
    bench: Bench,
    log: Log<Memory>,
    persistence: Persistence,
    /// What came with CONNACK.
    early: Vec<(u8, Vec<u8>)>,
}

impl Kiln {
    fn new() -> Self {
        Self::with(Persistence { commit_interval_milliseconds: 0, ..Persistence::default() })
    }

    fn with(persistence: Persistence) -> Self {
        Self::on(Memory::default(), persistence, Now::default(), 7)
    }

    fn on(disk: Memory, persistence: Persistence, now: Now, judges: u64) -> Self {
        let mut bench = Bench::default();
        bench.now = now;
        let mut recovered = recover(disk, SIZES).unwrap();
        assert_eq!(recovered.report.missing, 0);
        let (last, room) = (recovered.last, recovered.log.room());
        let packet_bytes = capacities().packet_bytes;
        bench.broker.set_durability(Durability::new(packet_bytes, persistence.clone(), judges, SIZES, last, room));
        bench.broker.set_clock(now, true);
        assert_eq!(bench.broker.restore(now, true, &mut recovered).unwrap().left_out, 0);
        Self { bench, log: recovered.log, persistence, early: Vec::new() }
    }

    /// The process dies, and another one begins `milliseconds` later.
    fn restart(self, milliseconds: u64) -> Self {
        self.restart_as(milliseconds, 7)
    }

    fn restart_as(mut self, milliseconds: u64, judges: u64) -> Self {
        let unix = self.bench.now.unix.plus_seconds(milliseconds / 1_000);
        let disk = core::mem::take(self.log.disk());
        Self::on(disk, self.persistence, Now { instant: Instant::ZERO, unix }, judges)
    }

    /// Writes what is recorded; whether there was something.
    fn commit(&mut self) -> bool {
        let mut any = false;
        self.bench.broker.flush();
        self.bench.broker.work(self.bench.now.instant);
        while let Some(batch) = self.bench.broker.next_batch(self.bench.now.instant) {
            let outcome = self.log.write(&batch);
            self.bench.broker.written(self.bench.now, batch, outcome);
            self.bench.broker.work(self.bench.now.instant);
            self.bench.broker.flush();
            any = true;
        }
        any
    }

    fn pass(&mut self, milliseconds: u64) {
        self.bench.now.instant = self.bench.now.instant.plus_milliseconds(milliseconds);
        self.bench.now.unix = self.bench.now.unix.plus_seconds(milliseconds / 1_000);
        self.bench.broker.set_clock(self.bench.now, true);
        self.bench.broker.expire(self.bench.now);
    }

    fn give(&mut self, key: Key<Connection>, bytes: &[u8]) {
        self.bench.give(key, bytes);
    }

    /// What leaves now: first bytes, which name the packets.
    fn kinds(&mut self, key: Key<Connection>) -> Vec<u8> {
        self.take(key).into_iter().map(|(first, _)| first).collect()
    }

    fn take(&mut self, key: Key<Connection>) -> Vec<(u8, Vec<u8>)> {
        let mut taken = core::mem::take(&mut self.early);
        taken.extend(self.bench.take(key));
        taken
    }

    /// A connected client; `clean` begins a new session.
    fn client(&mut self, identifier: &str, properties: &[u8], clean: bool) -> (Key<Connection>, bool) {
        let key = self.bench.open();
        let connect =
            if clean { wire::connect(identifier, 0, properties) } else { wire::connect_again(identifier, properties) };
        self.give(key, &connect);
        self.commit();
        let mut answer = self.bench.take(key);
        let connack = answer.remove(0);
        assert_eq!((connack.0, connack.1[1]), (0x20, 0), "{connack:?}");
        self.early = answer;
        (key, connack.1[0] == 1)
    }

    /// A client with a lasting session and a subscription, which has heard of both.
    fn present(&mut self, identifier: &str, filter: &str, qos: u8) -> Key<Connection> {
        let (key, _) = self.client(identifier, &LASTING, true);
        self.give(key, &wire::subscribe(filter, qos));
        self.commit();
        assert_eq!(self.kinds(key), [0x90]);
        key
    }

    /// The same, whose client has gone.
    fn absent(&mut self, identifier: &str, filter: &str, qos: u8) {
        let key = self.present(identifier, filter, qos);
        self.bench.hang_up(key);
        self.commit();
    }
}

fn exactly_once(topic: &str, identifier: u16, dup: bool, payload: &[u8]) -> Vec<u8> {
    let first = if dup { 0x3C } else { 0x34 };
    wire::packet(first, &[&wire::text(topic)[..], &identifier.to_be_bytes(), &[0], payload].concat())
}

const PING: [u8; 2] = [0xC0, 0];

#[test]
fn connack_waits_for_the_record_of_a_lasting_session_only() {
    let mut kiln = Kiln::new();
    let (lasting, brief) = (kiln.bench.open(), kiln.bench.open());
    kiln.give(lasting, &[wire::connect("a", 0, &LASTING), PING.to_vec()].concat());
    kiln.give(brief, &wire::connect("b", 0, &[]));
    assert_eq!(kiln.kinds(lasting), [0_u8; 0], "nothing goes before CONNACK");
    assert_eq!(kiln.kinds(brief), [0x20]);
    assert!(kiln.commit());
    assert_eq!(kiln.kinds(lasting), [0x20, 0xD0]);
}

#[test]
fn suback_and_unsuback_wait_and_pings_do_not() {
    let mut kiln = Kiln::new();
    let (lasting, _) = kiln.client("a", &LASTING, true);
    let unsubscribe = wire::packet(0xA2, &[&[0, 2, 0][..], &wire::text("t")].concat());
    for (request, answer) in [(wire::subscribe("t", 1), 0x90), (unsubscribe, 0xB0)] {
        kiln.give(lasting, &[request, PING.to_vec()].concat());
        assert_eq!(kiln.kinds(lasting), [0xD0]);
        kiln.commit();
        assert_eq!(kiln.kinds(lasting), [answer]);
    }
    let (brief, _) = kiln.client("b", &[], true);
    kiln.give(brief, &wire::subscribe("t", 1));
    assert_eq!(kiln.kinds(brief), [0x90]);
}

#[test]
fn puback_waits_where_the_message_must_be_safe() {
    let mut kiln = Kiln::new();
    let (publisher, _) = kiln.client("p", &[], true);
    kiln.give(publisher, &wire::publish("t", 1, &[], b"nobody"));
    assert_eq!(kiln.kinds(publisher), [0x40]);
    let (brief, _) = kiln.client("b", &[], true);
    kiln.give(brief, &wire::subscribe("t", 1));
    assert_eq!(kiln.kinds(brief), [0x90]);
    kiln.give(publisher, &wire::publish("t", 2, &[], b"somebody who is here"));
    assert_eq!(kiln.kinds(publisher), [0x40]);
    assert!(!kiln.commit(), "nothing of it is written");
    kiln.absent("s", "t", 1);
    kiln.give(publisher, &wire::publish("t", 3, &[], b"somebody who is not"));
    assert_eq!(kiln.kinds(publisher), [0_u8; 0]);
    assert_eq!(kiln.kinds(brief), [0x32, 0x32], "who is here does not wait");
    kiln.commit();
    assert_eq!(kiln.kinds(publisher), [0x40]);
    let retained = wire::packet(0x33, &[&wire::text("r")[..], &[0, 4, 0], b"x"].concat());
    kiln.give(publisher, &retained);
    assert_eq!(kiln.kinds(publisher), [0_u8; 0]);
    kiln.commit();
    assert_eq!(kiln.kinds(publisher), [0x40]);
}

#[test]
fn how_long_an_acknowledgement_took_has_the_disk_in_it() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let (publisher, _) = kiln.client("p", &[], true);
    let before = kiln.bench.broker.telemetry().durations;
    // Of those on their way together the first is followed.
    kiln.give(publisher, &[wire::publish("t", 1, &[], b"x"), wire::publish("t", 2, &[], b"x")].concat());
    kiln.pass(40);
    assert_eq!(kiln.kinds(publisher), [0_u8; 0]);
    kiln.commit();
    assert_eq!(kiln.kinds(publisher), [0x40, 0x40]);
    let mut expected = before.acknowledge;
    expected.observe(40);
    let durations = kiln.bench.broker.telemetry().durations;
    assert_eq!(durations.acknowledge, expected);
    assert!(durations.sync.count() > before.sync.count());
    assert_eq!(durations.connect.count(), 2);
    kiln.give(publisher, &wire::publish("nobody", 1, &[], b"x"));
    assert_eq!(kiln.kinds(publisher), [0x40]);
    expected.observe(0);
    assert_eq!(kiln.bench.broker.telemetry().durations.acknowledge, expected);
}

#[test]
fn messages_and_subscriptions_are_there_after_a_restart_in_their_order() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t/#", 1);
    let (publisher, _) = kiln.client("p", &[], true);
    for id in 1..=3 {
        kiln.give(publisher, &wire::publish("t/1", id, &[1, 1], &[b'0' + id as u8]));
    }
    kiln.give(publisher, &wire::publish("t/1", 0, &[], b"QoS 0"));
    kiln.commit();
    let mut kiln = kiln.restart(1_000);
    let (subscriber, present) = kiln.client("s", &LASTING, false);
    assert!(present);
    let got: Vec<(u8, u8)> = kiln.take(subscriber).iter().map(|(f, body)| (*f, *body.last().unwrap())).collect();
    assert_eq!(got, [(0x32, b'1'), (0x32, b'2'), (0x32, b'3')]);
    for id in 1..=3 {
        kiln.give(subscriber, &wire::puback(id));
    }
    kiln.commit();
    let mut kiln = kiln.restart(1_000);
    let (subscriber, _) = kiln.client("s", &LASTING, false);
    assert_eq!(kiln.kinds(subscriber), [0_u8; 0]);
    assert_eq!((kiln.bench.broker.in_use().messages, kiln.bench.broker.in_use().subscriptions), (0, 1));
}

#[test]
fn a_message_of_qos_2_is_routed_once_whenever_the_process_dies() {
    for dies_after in 0..3 {
        let mut kiln = Kiln::new();
        kiln.absent("s", "t", 2);
        let (publisher, _) = kiln.client("p", &LASTING, true);
        kiln.give(publisher, &exactly_once("t", 9, false, b"x"));
        assert_eq!(kiln.kinds(publisher), [0_u8; 0], "PUBREC waits for the message and its identifier");
        if dies_after > 0 {
            kiln.commit();
            assert_eq!(kiln.kinds(publisher), [0x50]);
        }
        if dies_after > 1 {
            kiln.give(publisher, &wire::packet(0x62, &[0, 9]));
            assert_eq!(kiln.kinds(publisher), [0_u8; 0], "PUBCOMP waits for the removal");
        }
        let mut kiln = kiln.restart(0);
        let (publisher, present) = kiln.client("p", &LASTING, false);
        assert!(present);
        if dies_after < 2 {
            kiln.give(publisher, &exactly_once("t", 9, true, b"x"));
            kiln.commit();
            assert_eq!(kiln.kinds(publisher), [0x50]);
        }
        kiln.give(publisher, &wire::packet(0x62, &[0, 9]));
        kiln.commit();
        assert_eq!(kiln.kinds(publisher), [0x70]);
        assert_eq!(kiln.bench.broker.in_use().deliveries, 1, "died after {dies_after}");
        // The identifier may be used again, and means another message.
        kiln.give(publisher, &exactly_once("t", 9, false, b"y"));
        kiln.commit();
        assert_eq!(kiln.bench.broker.in_use().deliveries, 2);
    }
}

#[test]
fn an_identifier_that_was_released_twice_is_free_only_when_that_is_safe() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 2);
    let (publisher, _) = kiln.client("p", &LASTING, true);
    kiln.give(publisher, &exactly_once("t", 9, false, b"x"));
    kiln.commit();
    assert_eq!(kiln.kinds(publisher), [0x50]);
    kiln.give(publisher, &[wire::packet(0x62, &[0, 9]), wire::packet(0x62, &[0, 9])].concat());
    assert_eq!(kiln.kinds(publisher), [0_u8; 0]);
    kiln.commit();
    assert_eq!(kiln.kinds(publisher), [0x70, 0x70]);
}

#[test]
fn a_delivery_of_qos_2_waits_for_its_identifier_and_pubrel_for_pubrec() {
    let mut kiln = Kiln::new();
    let (subscriber, _) = kiln.client("s", &LASTING, true);
    kiln.give(subscriber, &[wire::subscribe("t", 2), wire::subscribe("zero", 0)].concat());
    kiln.commit();
    assert_eq!(kiln.kinds(subscriber), [0x90, 0x90]);
    let (publisher, _) = kiln.client("p", &[], true);
    kiln.give(publisher, &exactly_once("t", 1, false, b"x"));
    kiln.give(publisher, &wire::publish("zero", 0, &[], b"y"));
    assert_eq!(kiln.kinds(subscriber), [0x30], "QoS 0 overtakes what waits for the disk");
    kiln.commit();
    assert_eq!(kiln.kinds(subscriber), [0x34]);
    kiln.give(subscriber, &wire::packet(0x50, &[0, 1]));
    assert_eq!(kiln.kinds(subscriber), [0_u8; 0]);
    kiln.commit();
    assert_eq!(kiln.kinds(subscriber), [0x62]);
    // After a restart the message does not come again, but PUBREL does.
    let mut kiln = kiln.restart(0);
    let (subscriber, _) = kiln.client("s", &LASTING, false);
    assert_eq!(kiln.kinds(subscriber), [0x62]);
}

#[test]
fn what_was_in_flight_comes_again_with_its_identifier_and_dup() {
    let mut kiln = Kiln::new();
    let subscriber = kiln.present("s", "t", 2);
    let (publisher, _) = kiln.client("p", &[], true);
    for id in 1..=2 {
        kiln.give(publisher, &exactly_once("t", id, false, &[b'0' + id as u8]));
        kiln.commit();
        kiln.kinds(subscriber);
        kiln.commit();
        assert_eq!(kiln.kinds(subscriber), [0x34]);
    }
    let mut kiln = kiln.restart(0);
    let (subscriber, _) = kiln.client("s", &LASTING, false);
    let again = kiln.take(subscriber);
    assert_eq!(again.iter().map(|(first, body)| (*first, body[4])).collect::<Vec<_>>(), [(0x3C, 1), (0x3C, 2)]);
}

#[test]
fn a_retained_message_is_set_replaced_and_cleared_for_good() {
    let retain = |id: u8, payload: &[u8]| wire::packet(0x33, &[&wire::text("r")[..], &[0, id, 0], payload].concat());
    let mut kiln = Kiln::new();
    for (id, payload, left) in [(1, &b"one"[..], 1), (2, b"two", 1), (3, b"", 0)] {
        let (publisher, _) = kiln.client("p", &[], true);
        kiln.give(publisher, &retain(id, payload));
        assert_eq!(kiln.kinds(publisher), [0_u8; 0]);
        kiln.commit();
        assert_eq!(kiln.kinds(publisher), [0x40]);
        kiln = kiln.restart(0);
        assert_eq!(kiln.bench.broker.in_use().retained_messages, left);
        let (reader, _) = kiln.client("r", &[], true);
        kiln.give(reader, &wire::subscribe("r", 0));
        let got = kiln.take(reader);
        assert_eq!(got.len(), 1 + left);
        assert!(got.iter().all(|(first, body)| *first == 0x90 || body.ends_with(payload)));
    }
}

#[test]
fn a_clean_start_is_answered_when_the_older_session_cannot_come_back() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let key = kiln.bench.open();
    kiln.give(key, &wire::connect("s", 0, &[]));
    assert_eq!(kiln.kinds(key), [0_u8; 0], "although the new session ends with its connection");
    kiln.commit();
    assert_eq!(kiln.kinds(key), [0x20]);
    let kiln = kiln.restart(0);
    assert_eq!(kiln.bench.broker.in_use().sessions, 0);
}

#[test]
fn a_failed_disk_acknowledges_nothing_and_all_of_it_when_it_works_again() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let (publisher, _) = kiln.client("p", &[], true);
    let (reader, _) = kiln.client("r", &[], true);
    kiln.give(reader, &wire::subscribe("zero", 0));
    kiln.kinds(reader);
    kiln.give(publisher, &wire::publish("t", 1, &[], b"held"));
    kiln.log.disk().fails = true;
    kiln.commit();
    assert_eq!(kiln.bench.broker.store_state(), StoreState::Failed);
    assert_eq!(kiln.kinds(publisher), [0_u8; 0]);
    kiln.give(publisher, &wire::publish("t", 2, &[], b"refused"));
    kiln.give(publisher, &wire::publish("zero", 0, &[], b"flows"));
    kiln.give(publisher, &PING);
    assert_eq!(kiln.kinds(reader), [0x30]);
    let refused = kiln.bench.open();
    kiln.give(refused, &wire::connect_again("s", &LASTING));
    assert_eq!(kiln.take(refused)[0].1[1], 0x88);
    assert_eq!(kiln.kinds(publisher), [0xD0], "acknowledgements keep their order");
    // It fails once more, and then it works.
    kiln.pass(1_100);
    kiln.commit();
    assert_eq!(kiln.bench.broker.store_state(), StoreState::Failed);
    kiln.log.disk().fails = false;
    kiln.pass(1_000);
    kiln.commit();
    assert_eq!(kiln.bench.broker.store_state(), StoreState::Failed, "each wait is longer");
    kiln.pass(1_000);
    kiln.commit();
    assert_eq!(kiln.bench.broker.store_state(), StoreState::Sound);
    let answers = kiln.take(publisher);
    assert_eq!(answers.iter().map(|(_, body)| body.get(2).copied()).collect::<Vec<_>>(), [None, Some(0x83)]);
    let mut kiln = kiln.restart(0);
    let (subscriber, present) = kiln.client("s", &LASTING, false);
    assert!(present);
    assert!(kiln.take(subscriber)[0].1.ends_with(b"held"));
}

#[test]
fn a_full_log_refuses_what_is_new_and_takes_what_frees_room() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let (publisher, _) = kiln.client("p", &[], true);
    kiln.log.disk().free = Some(1 << 20);
    let mut accepted = 0;
    for id in 1.. {
        kiln.give(publisher, &wire::publish("t", id, &[], &[7; 60_000]));
        kiln.commit();
        let answer = kiln.take(publisher);
        if let Some(code) = answer[0].1.get(2) {
            assert_eq!(*code, 0x97);
            break;
        }
        accepted += 1;
        assert!(id < 1_000);
    }
    assert_eq!(kiln.bench.broker.store_state(), StoreState::Full);
    let new = kiln.bench.open();
    kiln.give(new, &wire::connect("new", 0, &LASTING));
    assert_eq!(kiln.take(new)[0].1[1], 0x97);
    let (subscriber, present) = kiln.client("s", &LASTING, false);
    assert!(present, "who takes away is let in");
    for id in 1..=accepted {
        kiln.kinds(subscriber);
        kiln.give(subscriber, &wire::puback(id));
        kiln.commit();
    }
    kiln.log.disk().free = None;
    kiln.pass(10_000);
    kiln.commit();
    assert_eq!(kiln.bench.broker.store_state(), StoreState::Sound);
    kiln.give(publisher, &wire::publish("t", 1_000, &[], b"again"));
    kiln.commit();
    assert_eq!(kiln.take(publisher)[0].1.len(), 2);
}

#[test]
fn nothing_is_recorded_where_nothing_lasting_changes() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let (publisher, _) = kiln.client("p", &[], true);
    let (subscriber, _) = kiln.client("s", &LASTING, false);
    kiln.commit();
    for _ in 0..3 {
        kiln.give(publisher, &PING);
        kiln.give(publisher, &wire::publish("t", 0, &[], b"QoS 0"));
        kiln.give(publisher, &wire::publish("elsewhere", 7, &[], b"QoS 1"));
        assert_eq!(kiln.kinds(publisher), [0xD0, 0x40]);
        assert_eq!(kiln.kinds(subscriber), [0x30]);
        kiln.pass(60_000);
    }
    assert!(!kiln.commit());
}

#[test]
fn sessions_end_when_their_time_is_over_wherever_it_passed() {
    // Half an hour before the restart, and some of it while there was no process.
    for (off_seconds, runs_seconds, present) in
        [(0, 1_700, true), (0, 1_900, false), (900, 800, true), (900, 1_000, false)]
    {
        let mut kiln = Kiln::new();
        kiln.pass(10_000_000);
        kiln.absent("s", "t", 1);
        kiln.pass(1_800_000);
        let (_other, _) = kiln.client("other", &LASTING, true);
        let mut kiln = kiln.restart(off_seconds * 1_000);
        kiln.pass(runs_seconds * 1_000);
        let (_, was_there) = kiln.client("s", &LASTING, false);
        assert_eq!(was_there, present, "{off_seconds} {runs_seconds}");
    }
}

#[test]
fn a_session_that_was_connected_has_its_whole_time_after_a_restart() {
    let mut kiln = Kiln::new();
    kiln.client("s", &LASTING, true);
    kiln.pass(3_000_000);
    let mut kiln = kiln.restart(0);
    kiln.pass(3_500_000);
    assert!(kiln.client("s", &LASTING, false).1);
}

/// CONNECT with a Will of QoS 1 on topic "w", with its delay in seconds.
fn connect_with_will(identifier: &str, properties: &[u8], delay: u8) -> Vec<u8> {
    let head = [&wire::text("MQTT")[..], &[5, 0b0000_1110, 0, 0, properties.len() as u8]].concat();
    let will = [&[5, 0x18, 0, 0, 0, delay][..], &wire::text("w"), &wire::text("gone")].concat();
    wire::packet(0x10, &[&head[..], properties, &wire::text(identifier), &will].concat())
}

#[test]
fn a_will_is_published_once_and_after_its_delay_by_whatever_process() {
    for (properties, delay, waits) in [(&LASTING[..], 0, 0), (&LASTING[..], 60, 60), (&[][..], 60, 0)] {
        let mut kiln = Kiln::new();
        kiln.absent("s", "w", 1);
        let key = kiln.bench.open();
        kiln.give(key, &connect_with_will("c", properties, delay));
        kiln.commit();
        assert_eq!(kiln.kinds(key), [0x20]);
        let mut kiln = kiln.restart(0);
        kiln.pass(0);
        if waits > 0 {
            assert_eq!(kiln.bench.broker.in_use().deliveries, 0);
            kiln.pass(waits * 1_000 - 500);
            assert_eq!(kiln.bench.broker.in_use().deliveries, 0);
            kiln.pass(1_000);
        }
        assert_eq!(kiln.bench.broker.in_use().deliveries, 1, "{delay}");
        kiln.commit();
        let mut kiln = kiln.restart(0);
        kiln.pass(3_000);
        assert_eq!(kiln.bench.broker.in_use().deliveries, 1, "not again");
    }
}

#[test]
fn a_will_that_was_discarded_does_not_come_back() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "w", 1);
    let key = kiln.bench.open();
    kiln.give(key, &connect_with_will("c", &LASTING, 0));
    kiln.commit();
    kiln.kinds(key);
    kiln.give(key, &[0xE0, 0]);
    kiln.bench.hang_up(key);
    kiln.commit();
    let mut kiln = kiln.restart(0);
    kiln.pass(1_000);
    assert_eq!(kiln.bench.broker.in_use().deliveries, 0);
}

#[test]
fn only_what_is_chosen_is_kept() {
    let some = |pattern: &str, dynamic| Kept::Some { patterns: vec![pattern.to_owned()], dynamic };
    let asks = [&[0x26][..], &wire::text("aio-persistence"), &wire::text("true")].concat();
    for (retain, queue, retained, queued) in [
        (Kept::All, Kept::None, vec!["kept", "other", "asked"], vec![]),
        (Kept::None, Kept::All, vec![], vec!["kept", "other", "asked"]),
        (some("kept/#", false), some("kept*", false), vec!["kept"], vec!["kept"]),
        (some("kept/#", true), some("kept*", true), vec!["kept", "asked"], vec!["kept", "asked"]),
    ] {
        let mut kiln = Kiln::with(Persistence {
            retain,
            subscriber_queue: queue,
            commit_interval_milliseconds: 0,
            ..Persistence::default()
        });
        let (publisher, _) = kiln.client("p", &[], true);
        for name in ["kept", "other", "asked"] {
            let property = if name == "asked" { asks.as_slice() } else { &[] };
            let (key, _) = kiln.client(name, &[&LASTING[..], property].concat(), true);
            kiln.give(key, &wire::subscribe(&format!("{name}/q"), 1));
            kiln.commit();
            kiln.bench.hang_up(key);
            kiln.give(publisher, &wire::publish(&format!("{name}/q"), 1, &[], b"queued"));
            let retain =
                [&wire::text(&format!("{name}/r"))[..], &[0, 2, property.len() as u8], property, b"x"].concat();
            kiln.give(publisher, &wire::packet(0x33, &retain));
            kiln.commit();
            assert_eq!(kiln.kinds(publisher), [0x40, 0x40]);
        }
        let mut kiln = kiln.restart(0);
        for name in ["kept", "other", "asked"] {
            let (key, present) = kiln.client(name, &LASTING, false);
            assert!(present, "sessions are always kept");
            assert_eq!(kiln.kinds(key).len(), usize::from(queued.contains(&name)), "queue of {name}");
            let (reader, _) = kiln.client("reader", &[], true);
            kiln.give(reader, &wire::subscribe(&format!("{name}/r"), 0));
            assert_eq!(kiln.kinds(reader).len(), 1 + usize::from(retained.contains(&name)), "retained {name}");
        }
    }
}

#[test]
fn who_was_judged_by_another_configuration_gives_up_its_will() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "w", 1);
    let key = kiln.bench.open();
    kiln.give(key, &connect_with_will("c", &LASTING, 0));
    kiln.commit();
    kiln.kinds(key);
    let mut kiln = kiln.restart_as(0, 8);
    kiln.pass(1_000);
    assert_eq!(kiln.bench.broker.in_use().deliveries, 0);
    assert!(kiln.client("c", &LASTING, false).1, "its session waits for it");
}

#[test]
fn a_sweep_leaves_everything_as_it_was() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t/#", 2);
    let (publisher, _) = kiln.client("p", &LASTING, true);
    for id in 1..=40_u16 {
        kiln.give(publisher, &exactly_once("t/x", id, false, &[id as u8; 3_000]));
        let retained = [&wire::text(&format!("t/r{id}"))[..], &[0], &[id as u8; 100]].concat();
        kiln.give(publisher, &wire::packet(0x31, &retained));
        kiln.commit();
        kiln.kinds(publisher);
        if id % 2 == 0 {
            kiln.give(publisher, &wire::packet(0x62, &id.to_be_bytes()));
        }
    }
    kiln.commit();
    let before = kiln.bench.broker.in_use();
    kiln.bench.broker.set_judges(8);
    kiln.bench.broker.set_judges(7);
    kiln.commit();
    assert_eq!(kiln.bench.broker.telemetry().counters.store_sweeps, 1);
    let segments = kiln.log.disk().files.keys().filter(|name| name.ends_with(".log")).count();
    assert_eq!(segments, 1, "those from before are gone");
    let mut kiln = kiln.restart(0);
    let after = kiln.bench.broker.in_use();
    assert_eq!(
        (before.sessions, before.subscriptions, before.deliveries, before.messages, before.retained_messages),
        (after.sessions, after.subscriptions, after.deliveries, after.messages, after.retained_messages)
    );
    let (publisher, _) = kiln.client("p", &LASTING, false);
    kiln.give(publisher, &exactly_once("t/x", 1, true, b"again"));
    kiln.commit();
    assert_eq!(kiln.bench.broker.in_use().deliveries, before.deliveries, "identifier 1 is still in use");
}

#[test]
fn a_lost_block_loses_messages_but_neither_sessions_nor_subscriptions() {
    let mut kiln = Kiln::new();
    for name in ["a", "b", "c"] {
        kiln.absent(name, "t", 1);
    }
    let (publisher, _) = kiln.client("p", &[], true);
    for id in 1..=33 {
        kiln.give(publisher, &wire::publish("t", id, &[], &[id as u8; 60_000]));
        kiln.commit();
        kiln.kinds(publisher);
    }
    kiln.bench.broker.set_judges(8);
    kiln.bench.broker.set_judges(7);
    kiln.commit();
    let first = kiln.log.disk().files.iter_mut().find(|(name, _)| name.ends_with(".log")).unwrap().1;
    first[..256 << 10].fill(0xFF);
    let disk = core::mem::take(kiln.log.disk());
    let recovered = recover(disk, SIZES).unwrap();
    assert!(recovered.report.missing > 0);
    let sessions: Vec<_> = recovered.image.sessions.values().collect();
    assert_eq!(sessions.len(), 3);
    assert!(sessions.iter().all(|session| session.subscriptions.len() == 1 && session.deliveries.len() > 20));
}

#[test]
fn a_slow_disk_is_said_to_be_and_harms_nobody_who_need_not_wait() {
    let mut kiln = Kiln::new();
    kiln.absent("s", "t", 1);
    let (publisher, _) = kiln.client("p", &[], true);
    kiln.give(publisher, &wire::publish("t", 1, &[], b"x"));
    let batch = kiln.bench.broker.next_batch(kiln.bench.now.instant).unwrap();
    for _ in 0..5 {
        kiln.pass(1_000);
        kiln.give(publisher, &PING);
        assert_eq!(kiln.kinds(publisher), [0xD0]);
    }
    assert_eq!(kiln.bench.broker.telemetry().counters.store_slow, 1);
    let outcome: io::Result<_> = kiln.log.write(&batch);
    kiln.bench.broker.written(kiln.bench.now, batch, outcome);
    assert_eq!(kiln.kinds(publisher), [0x40]);
}

#[test]
fn what_is_live_is_never_estimated_below_what_it_takes_to_write_it() {
    let mut kiln = Kiln::new();
    let long = "l".repeat(3_000);
    for client in 0..4 {
        let (key, _) = kiln.client(&format!("{client}{}", "c".repeat(100)), &LASTING, true);
        for filter in 0..4 {
            kiln.give(key, &wire::subscribe(&format!("{long}/{filter}"), 2));
        }
        kiln.commit();
        kiln.kinds(key);
        kiln.bench.hang_up(key);
    }
    let (publisher, _) = kiln.client("p", &LASTING, true);
    for id in 1..=30_u16 {
        let retain = [&wire::text(&format!("{long}/{}", id % 4))[..], &id.to_be_bytes(), &[0], b"x"].concat();
        kiln.give(publisher, &wire::packet(0x35, &retain));
        kiln.commit();
        kiln.kinds(publisher);
    }
    let estimated = kiln.bench.broker.live_bytes();
    let before = kiln.bench.broker.telemetry().counters.store_bytes;
    kiln.bench.broker.set_judges(8);
    kiln.commit();
    let written = kiln.bench.broker.telemetry().counters.store_bytes - before;
    assert!(written > 60_000 && written <= estimated, "{written} {estimated}");
    // And what goes is not counted any more.
    for client in 0..4 {
        kiln.client(&format!("{client}{}", "c".repeat(100)), &[], true);
    }
    kiln.client("p", &[], true);
    assert!(kiln.bench.broker.live_bytes() < estimated / 3);
    assert_eq!(kiln.bench.broker.received, 0);
}

#[test]
fn without_a_wall_clock_time_is_recorded_now_and_then_while_a_session_waits() {
    let mut kiln = Kiln::new();
    let pass = |kiln: &mut Kiln, milliseconds| {
        kiln.bench.now.instant = kiln.bench.now.instant.plus_milliseconds(milliseconds);
        kiln.bench.broker.set_clock(kiln.bench.now, false);
        let batch = kiln.bench.broker.next_batch(kiln.bench.now.instant);
        // Nobody waits for it, so that it goes a moment later.
        let later = kiln.bench.now.instant.plus_milliseconds(1_000);
        let Some(batch) = batch.or_else(|| kiln.bench.broker.next_batch(later)) else { return false };
        let outcome = kiln.log.write(&batch);
        kiln.bench.broker.written(kiln.bench.now, batch, outcome);
        true
    };
    assert!(!pass(&mut kiln, 10_000_000), "nobody waits");
    kiln.absent("s", "t", 1);
    assert!(!pass(&mut kiln, 500_000));
    assert!(pass(&mut kiln, 200_000));
    for _ in 0..4 {
        pass(&mut kiln, 600_000);
    }
    // 3,100 of 3,600 seconds have passed, and nothing else was recorded.
    let mut kiln = kiln.restart(0);
    kiln.pass(490_000);
    assert!(kiln.client("s", &LASTING, false).1);
    kiln.bench.hang_up(kiln.bench.broker.connection_at(0).unwrap());
    let mut kiln = kiln.restart(0);
    kiln.pass(3_590_000);
    assert!(kiln.client("s", &LASTING, false).1, "it has its whole time again");
}
