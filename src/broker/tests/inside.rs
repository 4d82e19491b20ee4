//! Parts of the broker that are its clients.

use super::*;
use crate::broker::InsiderQueue;
use crate::telemetry::Event;

const LASTING: [u8; 5] = [0x11, 0, 0, 0x0E, 0x10];

fn with_insiders(names: &[&str]) -> Admission {
    let insiders = names.iter().map(|name| Insider::new(name).unwrap()).collect();
    let ports = vec![PortAdmission::default()];
    Admission { ports, authenticators: Vec::new(), policies: Vec::new(), insiders }
}

fn bench(names: &[&str]) -> Bench {
    let mut bench = Bench::default();
    bench.broker.replace_admission(with_insiders(names), &[Succession::Unchanged]);
    bench
}

/// The Reason Code of CONNACK, for a client of this identifier on this port.
fn connects(bench: &mut Bench, port: u16, identifier: &str) -> (Key<Connection>, u8) {
    let key = bench.broker.open(bench.now.instant, port).unwrap();
    bench.give(key, &wire::connect(identifier, 0, &LASTING));
    let answer = bench.take(key);
    (key, answer[0].1[1])
}

#[test]
fn an_insider_has_its_name_on_its_port_and_nobody_else_has() {
    let mut bench = bench(&["probe", "upstream"]);
    let port = |bench: &Bench, name: &str| bench.broker.port_of_insider(name);
    let (probe, upstream) = (port(&bench, "$inside/probe").unwrap(), port(&bench, "$inside/upstream").unwrap());
    assert_ne!(probe, upstream);
    assert_eq!((port(&bench, "$inside/other"), port(&bench, "probe")), (None, None));
    assert_eq!(connects(&mut bench, probe, "$inside/probe").1, 0);
    assert_eq!(connects(&mut bench, 0, "a").1, 0);
    let refused = ReasonCode::ClientIdentifierNotValid.as_u8();
    for (port, identifier) in [
        (0, "$inside/probe"),
        (0, "$inside/other"),
        (0, "$inside/"),
        (probe, "$inside/upstream"),
        (probe, "a"),
        (probe, ""),
        (upstream + 1, "$inside/upstream"),
    ] {
        let (key, reason) = connects(&mut bench, port, identifier);
        assert_eq!(reason, refused, "{identifier} on {port}");
        bench.hang_up(key);
    }
}

#[test]
fn an_insider_that_is_not_configured_any_more_goes_with_its_session() {
    let mut bench = bench(&["a", "b", "c"]);
    let port = |bench: &Bench, name: &str| bench.broker.port_of_insider(name).unwrap();
    let [a, b, c] = ["$inside/a", "$inside/b", "$inside/c"].map(|name| {
        let port = port(&bench, name);
        connects(&mut bench, port, name).0
    });
    bench.give(b, &wire::subscribe("t", 1));
    bench.take(b);
    bench.hang_up(c);
    bench.broker.replace_admission(with_insiders(&["b"]), &[Succession::Unchanged]);
    assert_eq!(bench.take(a), [(0xE0, vec![0x98])]);
    bench.broker.expire(bench.now);
    bench.hang_up(a);
    assert_eq!(bench.broker.in_use().sessions, 1);
    let publisher = bench.client("p");
    bench.give(publisher, &wire::publish("t", 7, &[], b"x"));
    assert_eq!(bench.take(b).len(), 1, "who is still configured goes on");
    bench.hang_up(b);
    let port = port(&bench, "$inside/b");
    let (_, reason) = connects(&mut bench, port, "$inside/b");
    assert_eq!(reason, 0, "its session is its own, though its port is another one");
    assert_eq!(bench.broker.in_use().sessions, 2);
}

#[test]
fn a_queue_that_goes_with_its_insider_is_said_and_counted() {
    let queue = InsiderQueue { length: 10, bytes: 65_536, strategy: QueueStrategy::DropOldest, packet_bytes: 1_024 };
    let mut admission = with_insiders(&["a"]);
    for insider in &mut admission.insiders {
        insider.queue = Some(queue);
    }
    let mut bench = bench(&[]);
    bench.broker.replace_admission(admission, &[Succession::Unchanged]);
    let port = bench.broker.port_of_insider("$inside/a").unwrap();
    let (a, _) = connects(&mut bench, port, "$inside/a");
    bench.give(a, &wire::subscribe("t", 1));
    bench.hang_up(a);
    let publisher = bench.client("p");
    for payload in [&b"1"[..], &[b'2'; 1_100], b"3"] {
        bench.give(publisher, &wire::publish("t", 7, &[], payload));
    }
    let view = bench.broker.queue_of_insider("$inside/a");
    assert_eq!((view.waiting, view.dropped, view.too_large), (2, 0, 1));
    bench.broker.replace_admission(with_insiders(&[]), &[Succession::Unchanged]);
    let events: Vec<Event> = std::iter::from_fn(|| bench.broker.telemetry().take_event()).collect();
    assert!(events.iter().any(|event| matches!(event, Event::InsiderGone { messages: 2, .. })), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, Event::TooLargeForInsider { times: 1, .. })), "{events:?}");
    assert_eq!(bench.broker.telemetry().counters.queue_dropped, 2);
}
