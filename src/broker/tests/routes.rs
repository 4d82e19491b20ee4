//! What is remembered of a route ends with whatever it depends on.

use super::*;
use crate::authorization::Policy;
use crate::config::{LoadOptions, load_embedded};

fn unsubscribe(filter: &str) -> Vec<u8> {
    wire::packet(0xA2, &[&[0, 1, 0][..], &wire::text(filter)].concat())
}

/// How many PUBLISH packets each receiver gets of one message to `x/a`, published three times: found, and
/// recalled twice.
fn published(bench: &mut Bench, publisher: Key<Connection>, receivers: &[Key<Connection>]) -> Vec<usize> {
    let mut taken = Vec::new();
    for round in 0..3 {
        bench.give(publisher, &wire::publish("x/a", 0, &[], b"x"));
        let now: Vec<usize> = receivers
            .iter()
            .map(|receiver| {
                let packets = bench.take(*receiver);
                packets.iter().filter(|(first, _)| first >> 4 == 3).count()
            })
            .collect();
        assert!(round == 0 || now == taken, "{now:?} instead of {taken:?}");
        taken = now;
    }
    taken
}

#[test]
fn a_route_ends_with_a_subscription_that_comes_goes_or_changes() {
    let mut bench = Bench::default();
    let [a, b, c] = ["a", "b", "c"].map(|name| bench.client_with(name, &[]));
    assert_eq!(published(&mut bench, a, &[a, b, c]), [0, 0, 0]);
    bench.give(b, &wire::subscribe("x/+", 0));
    assert_eq!(published(&mut bench, a, &[a, b, c]), [0, 1, 0]);
    bench.give(c, &wire::subscribe("#", 0));
    assert_eq!(published(&mut bench, a, &[a, b, c]), [0, 1, 1]);
    // Other publishers are other routes: who does not want its own gets those of others.
    bench.give(a, &wire::subscribe("x/a", 0x04));
    assert_eq!(published(&mut bench, a, &[a, b, c]), [0, 1, 1]);
    assert_eq!(published(&mut bench, b, &[a, b, c]), [1, 1, 1]);
    bench.give(a, &wire::subscribe("x/a", 0));
    assert_eq!(published(&mut bench, a, &[a, b, c]), [1, 1, 1]);
    bench.give(c, &unsubscribe("#"));
    assert_eq!(published(&mut bench, a, &[a, b, c]), [1, 1, 0]);
    // A session that ends takes its subscriptions along.
    bench.give(b, &wire::packet(0xE0, &[]));
    bench.hang_up(b);
    assert_eq!(published(&mut bench, a, &[a, c]), [1, 0]);
}

#[test]
fn members_of_a_shared_subscription_take_turns_on_a_route_too() {
    let mut bench = Bench::default();
    let [a, b, c] = ["a", "b", "c"].map(|name| bench.client_with(name, &[]));
    for member in [b, c] {
        bench.give(member, &wire::subscribe("$share/all/x/+", 0));
    }
    let mut counts = [0, 0];
    for _ in 0..4 {
        bench.give(a, &wire::publish("x/a", 0, &[], b"x"));
        for (count, member) in counts.iter_mut().zip([b, c]) {
            *count += bench.take(member).iter().filter(|(first, _)| *first == 0x30).count();
        }
    }
    assert_eq!(counts, [2, 2]);
}

/// A policy in which everybody may connect and subscribe, and "a" may publish below `topic`.
fn ruled(topic: &str, cache: &str) -> Admission {
    let rules = format!(
        "authorizationPolicies: {{cache: {cache}, rules: [{{principals: {{clientIds: [a, b]}}, brokerResources: \
         [{{method: Connect}}, {{method: Publish, topics: ['{topic}/#']}}, {{method: Subscribe, topics: ['#']}}]}}]}}"
    );
    let files = [("any.listener.yaml", "ports: [{port: 1883}]"), ("live.authorization.yaml", &*rules)];
    let loaded = load_embedded(&files, &LoadOptions::default()).unwrap();
    let policy = Policy::new(loaded.configuration.authorizations[0].clone()).unwrap();
    let port = PortAdmission { authenticator: None, policy: Some(0) };
    Admission { ports: vec![port], authenticators: Vec::new(), policies: vec![policy], insiders: Vec::new() }
}

#[test]
fn a_route_ends_with_the_right_to_publish_there() {
    for cache in ["Enabled", "Disabled"] {
        let mut bench = Bench::default();
        bench.broker.replace_admission(ruled("x", cache), &[Succession::Unchanged]);
        let [a, b] = ["a", "b"].map(|name| bench.client_with(name, &[]));
        bench.give(b, &wire::subscribe("#", 0));
        assert_eq!(published(&mut bench, a, &[b]), [1]);
        bench.broker.replace_admission(ruled("y", cache), &[Succession::Unchanged]);
        assert_eq!(published(&mut bench, a, &[b]), [0]);
        bench.broker.replace_admission(ruled("x", cache), &[Succession::Unchanged]);
        assert_eq!(published(&mut bench, a, &[b]), [1]);
    }
}
