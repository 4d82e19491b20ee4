//! Authentication and rules that are replaced while clients are connected, and while their sessions wait for them.

use super::*;
use crate::authentication::{Answer, Authenticator, Proof, Refusal};
use crate::authorization::Policy;
use crate::config::{LoadOptions, load_embedded};

/// A policy in which each client identifier may connect, publish anywhere and subscribe to its filters.
pub(super) fn policy(clients: &[(&str, &[&str])]) -> Policy {
    let rule = |(client, filters): &(&str, &[&str])| {
        format!(
            "{{principals: {{clientIds: [{client}]}}, brokerResources: [{{method: Connect}}, \
             {{method: Publish, topics: ['#']}}, {{method: Subscribe, topics: {filters:?}}}]}}"
        )
    };
    let rules: Vec<String> = clients.iter().map(rule).collect();
    let rules = format!("[{}]", rules.join(",\n"));
    let files = [("any.listener.yaml", "ports: [{port: 1883}]"), ("live.authorization.yaml", &rules)];
    let loaded = load_embedded(&files, &LoadOptions::default()).unwrap();
    Policy::new(loaded.configuration.authorizations[0].clone()).unwrap()
}

pub(super) fn ruled(policy: Policy) -> Admission {
    let port = PortAdmission { authenticator: None, policy: Some(0) };
    Admission { ports: vec![port], authenticators: Vec::new(), policies: vec![policy], insiders: Vec::new() }
}

const LASTING: [u8; 5] = [0x11, 0, 0, 0x0E, 0x10];

/// A client "a" with a lasting session, which has been sent messages of these topics and has acknowledged none.
fn sent(topics: &[&str]) -> (Bench, Key<Connection>) {
    let mut bench = Bench::new(&capacities(), &limits());
    bench.broker.replace_admission(ruled(policy(&[("a", &["x/#", "y/#"])])), &[Succession::Unchanged]);
    let client = bench.client_with("a", &LASTING);
    for filter in ["x/#", "y/#"] {
        bench.give(client, &wire::subscribe(filter, 1));
    }
    for topic in topics {
        bench.give(client, &wire::publish(topic, 7, &[], b"x"));
    }
    assert_eq!(topics_of(&bench.take(client)), topics);
    (bench, client)
}

/// The client "a" comes back.
fn back(bench: &mut Bench) -> Key<Connection> {
    let key = bench.open();
    bench.give(key, &wire::connect_again("a", &LASTING));
    key
}

/// Topics, of three letters, of the PUBLISH packets among others.
fn topics_of(packets: &[(u8, Vec<u8>)]) -> Vec<String> {
    let publishes = packets.iter().filter(|(first, _)| first >> 4 == 3);
    publishes.map(|(_, body)| String::from_utf8_lossy(&body[2..5]).into_owned()).collect()
}

#[test]
fn scenario_51_a_new_policy_takes_only_what_it_forbids() {
    let before = policy(&[("a", &["a/#"]), ("b", &["b/#"]), ("stored", &["x/#", "y/#"])]);
    let mut bench = Bench::new(&capacities(), &limits());
    bench.broker.replace_admission(ruled(before), &[Succession::Unchanged]);
    let (a, b) = (bench.client("a"), bench.client_with("b", &LASTING));
    let stored = bench.client_with("stored", &LASTING);
    for (key, filters) in [(a, vec!["a/#"]), (b, vec!["b/#"]), (stored, vec!["x/#", "y/#"])] {
        for filter in filters {
            bench.give(key, &wire::subscribe(filter, 1));
            assert_eq!(bench.take(key)[0].1[3], 1, "{filter}");
        }
    }
    bench.hang_up(stored);
    for topic in ["x/1", "y/1", "a/1", "b/1"] {
        bench.give(a, &wire::publish(topic, 7, &[], b"before"));
        bench.give(a, &wire::puback(1));
    }
    bench.take(a);

    let after = policy(&[("a", &["a/#"]), ("stored", &["x/1", "x/+"])]);
    bench.broker.replace_admission(ruled(after), &[Succession::Unchanged]);
    // b has a message waiting, which it may not have any more: the first thing that happens is that it is told to go.
    let said = bench.take(b);
    assert_eq!(said.iter().map(|(first, body)| (*first, body[0])).collect::<Vec<_>>(), [(0xE0, 0x87)]);
    assert!(bench.is_closing(b));
    bench.hang_up(b);
    bench.give(a, &wire::publish("a/2", 8, &[], b"after"));
    assert_eq!(bench.take(a).iter().filter(|(first, _)| first >> 4 == 3).count(), 1, "a goes on");
    // The stored session keeps the filter that is covered still, and no message of the other one.
    let back = bench.open();
    bench.give(back, &wire::connect_again("stored", &LASTING));
    assert_eq!(topics_of(&bench.take(back)), ["x/1"], "what was queued");
    bench.give(a, &wire::publish("y/2", 9, &[], b"after"));
    bench.give(a, &wire::publish("x/2", 10, &[], b"after"));
    let messages = bench.take(back);
    assert!(messages.is_empty(), "neither x/# nor y/# is covered any more: {messages:?}");
}

#[test]
fn a_session_is_taken_over_from_a_connection_that_has_not_sent_its_last_words() {
    let mut bench = Bench::new(&capacities(), &limits());
    bench.broker.replace_admission(ruled(policy(&[("a", &["a/#"])])), &[Succession::Unchanged]);
    let condemned = bench.client_with("a", &LASTING);
    bench.broker.replace_admission(ruled(policy(&[("b", &["b/#"])])), &[Succession::Unchanged]);
    bench.broker.work(bench.now.instant);
    bench.broker.replace_admission(ruled(policy(&[("a", &["a/#"])])), &[Succession::Unchanged]);
    let back = back(&mut bench);
    assert_eq!(bench.take(back)[0].1[..2], [1, 0], "the session is there");
    bench.hang_up(condemned);
    bench.give(back, &wire::subscribe("a/#", 1));
    bench.give(back, &wire::publish("a/1", 7, &[], b"x"));
    let kinds: Vec<u8> = bench.take(back).iter().map(|(first, _)| first >> 4).collect();
    assert_eq!(kinds, [4, 9, 3], "the session is still its own");
}

#[test]
fn what_was_sent_and_is_forbidden_now_is_not_sent_again() {
    let (mut bench, client) = sent(&["x/1", "y/1"]);
    // It is here: what was sent is not taken back. Then it goes and comes back under the same rules.
    bench.broker.replace_admission(ruled(policy(&[("a", &["x/#"])])), &[Succession::Unchanged]);
    assert!(topics_of(&bench.take(client)).is_empty());
    bench.hang_up(client);
    let client = back(&mut bench);
    assert_eq!(topics_of(&bench.take(client)), ["x/1"]);
    assert_eq!(bench.broker.in_use().deliveries, 1);
}

#[test]
fn what_is_to_be_sent_again_is_asked_of_new_rules() {
    let (mut bench, client) = sent(&["x/1", "y/1", "x/2"]);
    bench.hang_up(client);
    let client = back(&mut bench);
    bench.broker.replace_admission(ruled(policy(&[("a", &["x/#"])])), &[Succession::Unchanged]);
    assert_eq!(topics_of(&bench.take(client)), ["x/1", "x/2"]);
}

#[test]
fn nothing_is_taken_from_or_given_to_a_client_before_it_is_judged_again() {
    let mut bench = Bench::new(&capacities(), &limits());
    let (stays, goes, other) = (bench.client("stays"), bench.client("goes"), bench.client("other"));
    for key in [stays, goes] {
        bench.give(key, &wire::subscribe("a", 1));
        bench.take(key);
    }
    let open = || Admission {
        ports: vec![PortAdmission::default()],
        authenticators: Vec::new(),
        policies: Vec::new(),
        insiders: Vec::new(),
    };
    bench.broker.replace_admission(open(), &[Succession::Changed(vec![Heir::Method(0)])]);
    bench.broker.judge_again(bench.now, other, &[]);
    bench.give(other, &wire::publish("a", 7, &[], b"x"));
    assert_eq!(bench.take(other).len(), 1, "who has been judged goes on");
    let paused = Received { consumed: 0, then: Then::Paused };
    assert_eq!(bench.give(stays, &[0xC0, 0]), paused);
    assert_eq!((bench.take(stays).len(), bench.take(goes).len()), (0, 0));
    bench.broker.judge_again(bench.now, stays, &[]);
    assert!(core::iter::from_fn(|| bench.broker.next_ready()).any(|key| key == stays), "it is asked for again");
    bench.give(stays, &[0xC0, 0]);
    assert_eq!(bench.take(stays).iter().map(|(first, _)| first >> 4).collect::<Vec<_>>(), [13, 3]);
    // Its method goes with the next replacement, before anybody has judged it.
    bench.broker.replace_admission(open(), &[Succession::Changed(Vec::new())]);
    bench.broker.judge_again(bench.now, goes, &[]);
    assert_eq!(bench.take(goes).iter().map(|(first, body)| (*first, body[0])).collect::<Vec<_>>(), [(0xE0, 0x87)]);
    let late = bench.client("late");
    bench.broker.replace_admission(open(), &[Succession::Changed(vec![Heir::MustBeShownAgain])]);
    bench.broker.judge_again(bench.now, late, &[]);
    assert_eq!(bench.take(late).iter().map(|(first, body)| (*first, body[0])).collect::<Vec<_>>(), [(0xE0, 0x98)]);
}

/// A port whose clients go to custom servers, asked in this order, or are let in by none of them.
fn asking(servers: &[&str]) -> Admission {
    let method =
        |server: &&str| format!(r#"{{"method": "Custom", "customSettings": {{"endpoint": "https://{server}"}}}}"#);
    let methods: Vec<String> = servers.iter().map(method).collect();
    let methods = format!(r#"{{"authenticationMethods": [{}]}}"#, methods.join(", "));
    let listener = "ports: [{port: 1883, authenticationRef: live}]";
    let files = [("any.listener.yaml", listener), ("live.authentication.json", &methods)];
    let loaded = load_embedded(&files, &LoadOptions::default()).unwrap();
    let algorithms = crate::crypto::provider().signature_verification_algorithms.all;
    let authenticator = Authenticator::new(&loaded.configuration, 0, algorithms, crate::time::RELEASED).unwrap();
    let port = PortAdmission { authenticator: Some(0), policy: None };
    Admission { ports: vec![port], authenticators: vec![authenticator], policies: Vec::new(), insiders: Vec::new() }
}

fn method_asked(bench: &mut Bench) -> (Ticket, u16) {
    let (ticket, question) = bench.broker.next_question().unwrap();
    (ticket, question.method)
}

#[test]
fn a_login_whose_question_was_asked_by_former_methods_is_judged_from_the_start() {
    let mut bench = Bench::new(&capacities(), &limits());
    bench.broker.replace_admission(asking(&["a", "b"]), &[Succession::Changed(Vec::new())]);
    let key = bench.open();
    bench.give(key, &wire::connect("c", 0, &[]));
    let (ticket, method) = method_asked(&mut bench);
    assert_eq!(method, 0);
    // What was the second method is the first one now. Its answer would be taken for one of the other.
    bench.broker.replace_admission(asking(&["b"]), &[Succession::Changed(vec![Heir::None, Heir::Method(0)])]);
    bench.broker.answer(bench.now, ticket, &[], Answer::Proven(Proof::default()));
    assert!(bench.take(key).is_empty(), "a server that is asked no more does not let anybody in");
    let (ticket, method) = method_asked(&mut bench);
    assert_eq!(method, 0);
    bench.broker.answer(bench.now, ticket, &[], Answer::Proven(Proof::default()));
    assert_eq!(bench.take(key)[0].1[1], 0);
    assert!(bench.broker.next_question().is_none());
}

#[test]
fn a_renewal_whose_question_was_asked_by_former_methods_is_asked_of_the_heir() {
    let mut bench = Bench::new(&capacities(), &limits());
    bench.broker.replace_admission(asking(&["a"]), &[Succession::Changed(Vec::new())]);
    let (renewed, lost) = (bench.open(), bench.open());
    let method = [&[0x15][..], &wire::text("M")].concat();
    let auth = wire::packet(0xF0, &[&[0x19, method.len() as u8][..], &method].concat());
    let mut tickets = Vec::new();
    for (key, name) in [(renewed, "renewed"), (lost, "lost")] {
        bench.give(key, &wire::connect(name, 0, &method));
        let (ticket, _) = method_asked(&mut bench);
        bench.broker.answer(bench.now, ticket, &[], Answer::Proven(Proof::default()));
        assert_eq!(bench.take(key)[0].1[1], 0);
        bench.give(key, &auth);
        tickets.push(method_asked(&mut bench).0);
    }
    bench.broker.replace_admission(asking(&["b", "a"]), &[Succession::Changed(vec![Heir::Method(1)])]);
    bench.broker.answer(bench.now, tickets[0], &[], Answer::Refused(Refusal::Password));
    assert!(bench.take(renewed).is_empty());
    let (ticket, method) = method_asked(&mut bench);
    assert_eq!(method, 1);
    bench.broker.answer(bench.now, ticket, &[], Answer::Proven(Proof::default()));
    assert_eq!(bench.take(renewed).iter().map(|(first, _)| *first).collect::<Vec<_>>(), [0xF0]);
    // The other one's server is gone before its answer comes.
    bench.broker.replace_admission(asking(&["b"]), &[Succession::Changed(vec![Heir::None, Heir::None])]);
    bench.broker.answer(bench.now, tickets[1], &[], Answer::Proven(Proof::default()));
    assert_eq!(bench.take(lost).iter().map(|(first, body)| (*first, body[0])).collect::<Vec<_>>(), [(0xE0, 0x87)]);
    assert!(bench.broker.next_question().is_none());
}

#[test]
fn a_question_keeps_its_place_until_it_is_answered_though_its_client_has_hung_up() {
    let mut bench = Bench::new(&Capacities { connections: 64, sessions: 64, ..capacities() }, &limits());
    bench.broker.replace_admission(asking(&["a"]), &[Succession::Changed(Vec::new())]);
    let asks = |bench: &mut Bench, take: bool| {
        let key = bench.open();
        bench.give(key, &wire::connect("c", 0, &[]));
        let ticket = take.then(|| bench.broker.next_question().map(|(ticket, question)| (ticket, question.abandoned)));
        let answered = bench.take(key);
        bench.hang_up(key);
        (ticket.flatten(), answered)
    };
    // A question that nobody has taken goes with its client.
    (0..2 * QUESTIONS_MAX).for_each(|_| assert!(asks(&mut bench, false).1.is_empty()));
    let taken: Vec<_> = (0..QUESTIONS_MAX).map(|_| asks(&mut bench, true).0.unwrap()).collect();
    assert!(taken.iter().all(|(_, abandoned)| abandoned.load(core::sync::atomic::Ordering::Relaxed)));
    let (ticket, answered) = asks(&mut bench, true);
    assert!(ticket.is_none() && answered[0].1[1] == 0x88, "{answered:?}");
    bench.broker.answer(bench.now, taken[0].0, &[], Answer::Proven(Proof::default()));
    assert!(asks(&mut bench, true).0.is_some(), "there is a place again");
}
