//! The bridge between two brokers of ours, with simulated wires and time: what was acknowledged arrives, in order, and nothing
//! comes back.
//!
//! `PORTCULLIS_BRIDGE_SEED=7 cargo test --test bridge_simulation` replays one seed, `PORTCULLIS_BRIDGE_SEEDS=1000` runs as many.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod bridge_world;

use bridge_world::{Accident, MemoryDisk, Random, World, bridge, first_times, numbered, numbers, user_properties};
use portcullis::bridge::{HOP, State};
use portcullis::codec::{PublishProperties, QoS};
use portcullis::config::blob::{Bridge, QueueStrategy, TopicMap};

/// Topics of each direction.
const TOPICS: u32 = 3;

/// What was published and must have arrived.
#[derive(Default)]
struct Owed {
    out: Vec<(u32, u32)>,
    incoming: Vec<(u32, u32)>,
}

fn publish(world: &mut World, number: u32, owed: &mut Owed) {
    let topic = number % TOPICS;
    world.client_here.publish(&format!("a/{topic}"), &numbered(number));
    owed.out.push((topic, number));
    // What the upstream gets before the bridge has subscribed is none of its business.
    if world.is_subscribed(&bridge("up")) {
        world.client_there.publish(&format!("g/b/{topic}"), &numbered(number));
        owed.incoming.push((topic, number));
    }
}

fn check(world: &World, owed: &Owed, what: &str) {
    let what = &format!("{what}, {:?}", world.statuses[0].borrow());
    for topic in 0..TOPICS {
        let of_topic = |owed: &[(u32, u32)]| -> Vec<u32> {
            owed.iter().filter(|(of, _)| *of == topic).map(|(_, number)| *number).collect()
        };
        let (out, incoming) = (of_topic(&owed.out), of_topic(&owed.incoming));
        assert_eq!(first_times(&numbers(&world.client_there, &format!("g/a/{topic}"))), out, "{what}: out {topic}");
        assert_eq!(first_times(&numbers(&world.client_here, &format!("b/{topic}"))), incoming, "{what}: in {topic}");
        assert_eq!(numbers(&world.client_here, &format!("a/{topic}")), out, "{what}: came back");
        assert_eq!(
            numbers(&world.client_there, &format!("g/b/{topic}")),
            incoming,
            "{what}: came back to the upstream"
        );
    }
    let names: Vec<&str> =
        world.client_here.got.iter().chain(&world.client_there.got).map(|got| got.topic.as_str()).collect();
    let known = |name: &&str| ["a/", "b/", "g/a/", "g/b/"].iter().any(|begin| name.starts_with(begin));
    assert!(names.iter().all(known), "{what}: {names:?}");
    assert!(world.client_here.is_idle() && world.client_there.is_idle(), "{what}: not acknowledged");
    assert!(world.client_here.refused.is_empty() && world.client_there.refused.is_empty(), "{what}");
}

/// Ten messages each way, with one accident. Returns how many packets have crossed, and what it has cost in duplicates.
fn with_accident(accident: Accident) -> (u32, usize) {
    let mut world = World::new(&[bridge("up")], &[]);
    world.plan(accident);
    let mut owed = Owed::default();
    world.pass(5);
    for number in 0..10 {
        publish(&mut world, number, &mut owed);
        world.settle();
    }
    let packets = world.uplink.get().packets;
    world.pass(120);
    check(&world, &owed, &format!("{accident:?}"));
    assert_eq!(world.statuses[0].borrow().state, State::Connected, "{accident:?}");
    let arrived: usize = (0..TOPICS).map(|topic| numbers(&world.client_there, &format!("g/a/{topic}")).len()).sum();
    (packets, arrived - owed.out.len())
}

#[test]
fn the_uplink_can_be_cut_behind_any_packet_within_it_or_go_silent() {
    let (packets, duplicates) = with_accident(Accident::None);
    assert!(packets > 30, "{packets}");
    assert_eq!(duplicates, 0, "nothing is sent twice for nothing");
    let mut duplicates = 0;
    for packet in 1..=packets {
        for accident in [Accident::CutAfter(packet), Accident::CutWithin(packet), Accident::SilentAfter(packet)] {
            // What is silent is found out, and connected anew: the silence is of one connection.
            duplicates += with_accident(accident).1;
        }
    }
    assert!(duplicates > 0, "an acknowledgement that was cut off costs a repetition");
}

/// The seeds of this run.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match (number("PORTCULLIS_BRIDGE_SEED"), number("PORTCULLIS_BRIDGE_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 1..count.unwrap_or(usual) + 1,
    }
}

#[test]
fn whatever_happens_to_the_uplink_all_that_was_acknowledged_arrives() {
    for seed in seeds(40) {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut world = World::new(&[bridge("up")], &[]);
        let mut owed = Owed::default();
        let mut published = 0;
        for _ in 0..12 {
            let packets = 1 + random.below(60) as u32;
            match random.below(5) {
                0 => world.plan(Accident::CutAfter(packets)),
                1 => world.plan(Accident::CutWithin(packets)),
                2 => world.plan(Accident::SilentAfter(packets)),
                3 => world.set_up(false),
                _ => world.set_up(true),
            }
            for _ in 0..random.below(30) {
                publish(&mut world, published, &mut owed);
                published += 1;
                match random.below(3) {
                    0 => world.settle(),
                    1 => world.pass(random.below(20) as u64),
                    _ => {}
                }
            }
            world.pass(random.below(200) as u64);
        }
        world.set_up(true);
        world.pass(300);
        check(&world, &owed, &format!("seed {seed}"));
    }
}

#[test]
fn what_was_acknowledged_arrives_though_the_gateway_ends_at_any_moment() {
    for seed in seeds(30) {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut world = World::with_disk(&[bridge("up")], &[], Some(MemoryDisk::default()));
        world.pass(5);
        let mut published: u32 = 0;
        for _ in 0..12 {
            match random.below(4) {
                0 => world.kill_here(),
                1 => world.set_up(false),
                2 => world.plan(Accident::CutAfter(1 + random.below(40) as u32)),
                _ => world.set_up(true),
            }
            for _ in 0..random.below(30) {
                world.client_here.publish(&format!("a/{}", published % TOPICS), &numbered(published));
                published += 1;
                if random.below(3) > 0 {
                    world.settle();
                }
            }
            if random.below(2) == 0 {
                world.pass(random.below(100) as u64);
            }
        }
        world.set_up(true);
        world.pass(300);
        for topic in 0..TOPICS {
            let of_topic = |messages: &[(String, Vec<u8>)]| -> Vec<u32> {
                let of_topic = messages.iter().filter(|(name, _)| *name == format!("a/{topic}"));
                of_topic.map(|(_, payload)| std::str::from_utf8(payload).unwrap().parse().unwrap()).collect()
            };
            let owed = of_topic(&world.client_here.acknowledged);
            let uncertain = of_topic(&world.client_here.uncertain);
            let arrived = first_times(&numbers(&world.client_there, &format!("g/a/{topic}")));
            let mut sorted = arrived.clone();
            sorted.sort_unstable();
            assert_eq!(arrived, sorted, "seed {seed}: out of order");
            for number in &owed {
                assert!(arrived.contains(number), "seed {seed}: {number} of {topic} is lost: {arrived:?}");
            }
            for number in &arrived {
                assert!(owed.contains(number) || uncertain.contains(number), "seed {seed}: {number} was never sent");
            }
        }
        assert!(world.client_here.refused.is_empty(), "seed {seed}");
    }
}

/// Counts how often each client has got the message that this one published.
fn copies(world: &World, payload: &[u8]) -> (usize, usize) {
    let count = |got: &[bridge_world::Got]| got.iter().filter(|got| got.payload == payload).count();
    (count(&world.client_here.got), count(&world.client_there.got))
}

#[test]
fn whatever_bridges_there_are_between_two_gateways_nothing_goes_round() {
    let with = |name: &str, ways: (bool, bool), hops_max: u8| {
        let mut bridge = bridge(name);
        let maps = vec![TopicMap { local: "#".to_owned(), remote: "#".to_owned(), qos: 1, retain: true }];
        bridge.outgoing = if ways.0 { maps.clone() } else { Vec::new() };
        bridge.incoming = if ways.1 { maps } else { Vec::new() };
        bridge.hops_max = hops_max;
        bridge
    };
    // What each side's bridges carry, and how many copies of a message there are at most: here, where it is published, and there.
    for (of_here, of_there, most) in [
        (vec![(true, true)], vec![], (1, 1)),
        (vec![(true, false)], vec![(true, false)], (1, 1)),
        (vec![(false, true)], vec![(false, true)], (2, 1)),
        (vec![(true, true)], vec![(true, true)], (2, 2)),
        (vec![(true, true), (true, true)], vec![], (1, 2)),
        (vec![(true, true), (true, true)], vec![(true, true), (true, true)], (8, 8)),
    ] {
        for hops_max in [1, 4] {
            let named = |side: &str, ways: &[(bool, bool)]| -> Vec<_> {
                (0..).zip(ways).map(|(number, ways)| with(&format!("{side}{number}"), *ways, hops_max)).collect()
            };
            let mut world = World::new(&named("here", &of_here), &named("there", &of_there));
            world.pass(10);
            world.client_here.publish("x", b"first");
            world.pass(3_600);
            let (here, there) = copies(&world, b"first");
            let case = format!("{of_here:?} {of_there:?} {hops_max}: {here} {there}");
            assert!(here >= 1 && there >= 1, "{case}");
            if hops_max == 1 {
                assert!(here <= most.0 && there <= most.1, "{case}");
            }
            world.pass(3_600);
            assert_eq!(copies(&world, b"first"), (here, there), "{case}: it still goes round");
        }
    }
}

/// A bridge whose queue has this bound.
fn with_queue(length: u32, strategy: QueueStrategy) -> Bridge {
    Bridge { queue_length: length, queue_strategy: strategy, ..bridge("up") }
}

#[test]
fn a_queue_that_is_full_drops_by_its_strategy_and_publishers_are_not_refused() {
    for (strategy, arrives) in [(QueueStrategy::DropOldest, 40..60), (QueueStrategy::DropNewest, 0..20)] {
        let mut world = World::new(&[with_queue(20, strategy)], &[]);
        world.pass(5);
        world.set_up(false);
        world.pass(1);
        for number in 0..60 {
            world.client_here.publish("a/0", &numbered(number));
            world.settle();
        }
        assert!(world.client_here.is_idle() && world.client_here.refused.is_empty());
        let queue = world.here.borrow().broker.queue_of_insider(&world.statuses[0].borrow().client_identifier());
        assert_eq!((queue.waiting, queue.dropped), (20, 40), "{strategy:?}");
        world.set_up(true);
        world.pass(120);
        let arrived = numbers(&world.client_there, "g/a/0");
        assert_eq!(arrived, arrives.collect::<Vec<_>>(), "{strategy:?}");
        let queue = world.here.borrow().broker.queue_of_insider(&world.statuses[0].borrow().client_identifier());
        assert_eq!((queue.waiting, queue.in_flight, queue.bytes), (0, 0, 0));
    }
}

#[test]
fn a_queue_is_bounded_by_the_bytes_that_its_messages_hold() {
    let mut world = World::new(&[with_queue(1_000, QueueStrategy::DropOldest)], &[]);
    world.pass(5);
    world.set_up(false);
    world.pass(1);
    for _ in 0..600 {
        world.client_here.publish("a/0", &[b'1'; 3_000]);
        world.settle();
    }
    let queue = world.here.borrow().broker.queue_of_insider(&world.statuses[0].borrow().client_identifier());
    assert!(queue.bytes <= 512 * 1_500 && queue.bytes > 512 * 1_450, "{queue:?}");
    assert_eq!(u64::from(queue.waiting) + queue.dropped, 600);
    // A QoS 0 message of a bridge that is away is nobody's, and makes no room for itself.
    world.client_here.publish_with("a/0", b"0", QoS::AtMostOnce, false, PublishProperties::default());
    world.settle();
    assert_eq!(world.here.borrow().broker.queue_of_insider(&world.statuses[0].borrow().client_identifier()), queue);
}

#[test]
fn a_message_that_never_fits_does_not_empty_the_queue() {
    let mut small = with_queue(1_000, QueueStrategy::DropOldest);
    small.queue_bytes = 5_000;
    let mut world = World::new(&[small], &[]);
    world.pass(5);
    world.set_up(false);
    world.pass(1);
    world.client_here.publish("a/0", b"1");
    world.client_here.publish("a/0", &[b'2'; 6_000]);
    world.client_here.publish("a/0", b"3");
    world.settle();
    let queue = world.here.borrow().broker.queue_of_insider(&world.statuses[0].borrow().client_identifier());
    assert_eq!((queue.waiting, queue.dropped), (2, 1));
    world.set_up(true);
    world.pass(120);
    assert_eq!(numbers(&world.client_there, "g/a/0"), [1, 3]);
}

#[test]
fn what_was_retained_before_the_bridge_crosses_once_whatever_its_qos() {
    let here = bridge("up");
    let mut world = World::new(std::slice::from_ref(&here), &[]);
    world.set_up(false);
    world.replace_here(&[Bridge { outgoing: Vec::new(), ..here.clone() }]);
    world.pass(5);
    for (topic, qos) in [("a/0", QoS::AtMostOnce), ("a/1", QoS::AtLeastOnce)] {
        world.client_here.publish_with(topic, b"7", qos, true, PublishProperties::default());
        world.settle();
    }
    // Its session is made while there is no upstream.
    world.replace_here(std::slice::from_ref(&here));
    world.pass(5);
    world.set_up(true);
    world.pass(120);
    world.set_up(false);
    world.replace_here(&[here]);
    world.set_up(true);
    world.pass(120);
    for topic in ["g/a/0", "g/a/1"] {
        let status = world.statuses[0].borrow().clone();
        let filters = world.here.borrow().broker.filters_of_insider(&status.client_identifier());
        assert_eq!(numbers(&world.client_there, topic), [7], "{topic}: {status:?}, {filters:?}");
        assert!(world.client_there.got.iter().any(|got| got.topic == topic && got.retain));
    }
}

#[test]
fn a_map_that_is_taken_away_does_not_stay_subscribed_at_the_upstream() {
    let map =
        |name: &str| TopicMap { local: format!("b/{name}/#"), remote: format!("g/b/{name}/#"), qos: 1, retain: true };
    let with = |names: &[&str]| Bridge { incoming: names.iter().map(|name| map(name)).collect(), ..bridge("up") };
    let mut world = World::new(&[with(&["x", "y"])], &[]);
    world.pass(10);
    let filters = |world: &World| world.there.borrow().broker.filters_of_insider("gateway-up");
    assert_eq!(filters(&world).len(), 2);
    // It learns of it when the upstream is there again.
    world.set_up(false);
    world.replace_here(&[with(&["y", "z"])]);
    world.pass(10);
    world.replace_here(&[with(&["z"])]);
    world.set_up(true);
    world.pass(120);
    assert_eq!(filters(&world), ["g/b/z/#"]);
}

#[test]
fn properties_retain_and_the_topic_of_the_answer_cross() {
    let mut world = World::new(&[bridge("up")], &[]);
    world.pass(5);
    let pairs = [("k", "1"), ("k", "2")];
    let properties = PublishProperties {
        response_topic: Some("b/answers"),
        content_type: Some("text/plain"),
        ..user_properties(&pairs)
    };
    world.client_here.publish_with("a/x", b"question", QoS::AtLeastOnce, true, properties);
    world.pass(5);
    let got = world.client_there.got.iter().find(|got| got.topic == "g/a/x").unwrap();
    let user: Vec<(&str, &str)> = got.user.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(user, [("k", "1"), ("k", "2"), (HOP, "gateway-up")]);
    assert_eq!((got.retain, got.qos, got.response.as_deref()), (true, QoS::AtLeastOnce, Some("g/b/answers")));
    world.client_there.publish("g/b/answers", b"answer");
    world.pass(5);
    assert!(world.client_here.got.iter().any(|got| got.topic == "b/answers" && got.payload == b"answer"));
}

#[test]
fn what_is_too_large_for_the_bridge_does_not_hold_up_what_follows() {
    let mut world = World::new(&[bridge("up")], &[]);
    world.pass(5);
    world.client_here.publish("a/0", &[b'1'; 9_000]);
    world.client_here.publish("a/0", b"2");
    world.client_there.publish("g/b/0", &[b'1'; 9_000]);
    world.client_there.publish("g/b/0", b"2");
    world.pass(120);
    assert_eq!(numbers(&world.client_there, "g/a/0"), [2]);
    let queue = world.here.borrow().broker.queue_of_insider(&world.statuses[0].borrow().client_identifier());
    assert_eq!((queue.too_large, queue.dropped), (1, 0), "it is counted as the bridge's");
    // The brokers do not send what a client has said that it does not take.
    let of_topic = |got: &&bridge_world::Got| got.topic == "b/0";
    assert_eq!(world.client_here.got.iter().filter(of_topic).count(), 1);
}

#[test]
fn a_message_that_this_broker_cannot_take_now_stays_with_the_upstream_and_the_other_way_is_open() {
    let mut world = World::new(&[bridge("up")], &[]);
    world.pass(5);
    let retain = |client: &mut bridge_world::Client, topic: &str, payload: &[u8]| {
        client.publish_with(topic, payload, QoS::AtLeastOnce, true, PublishProperties::default());
    };
    // The table of retained messages is full, so that what is to be retained is refused with 0x97.
    for number in 0..128 {
        retain(&mut world.client_here, &format!("x/{number}"), b"full");
        world.settle();
    }
    for number in 0..20 {
        retain(&mut world.client_there, "g/b/0", &numbered(number));
    }
    for number in 0..60 {
        world.client_here.publish("a/0", &numbered(number));
        world.pass(2);
        assert_eq!(numbers(&world.client_there, "g/a/0").last(), Some(&number), "the other way is open");
    }
    assert_eq!(numbers(&world.client_here, "b/0"), Vec::<u32>::new());
    let status = world.statuses[0].borrow().clone();
    assert!((3..12).contains(&status.counters.connects), "{status:?}");
    assert_eq!(status.counters.dropped(), 0, "{status:?}");
    retain(&mut world.client_here, "x/7", b"");
    world.pass(120);
    assert_eq!(first_times(&numbers(&world.client_here, "b/0")), (0..20).collect::<Vec<_>>());
    assert_eq!(world.statuses[0].borrow().state, State::Connected);
}

#[test]
fn large_messages_both_ways_at_once_do_not_jam_the_bridge() {
    for bytes in [1_000, 3_000, 7_500] {
        let mut world = World::new(&[bridge("up")], &[]);
        world.pass(5);
        world.set_up(false);
        let payload = |number: u32| [numbered(number), vec![b'.'; bytes]].concat();
        for number in 0..40 {
            world.client_here.publish("a/0", &payload(number));
            world.client_there.publish("g/b/0", &payload(number));
            world.settle();
        }
        world.set_up(true);
        world.pass(240);
        let arrived = |client: &bridge_world::Client, topic: &str| {
            let of_topic = client.got.iter().filter(|got| got.topic == topic);
            first_times(&of_topic.map(|got| number_of(&got.payload)).collect::<Vec<_>>())
        };
        let all: Vec<u32> = (0..40).collect();
        assert_eq!(world.statuses[0].borrow().counters.failures, 1, "no connection but the first has ended");
        assert_eq!(arrived(&world.client_there, "g/a/0"), all, "{bytes}: {:?}", world.statuses[0].borrow());
        assert_eq!(arrived(&world.client_here, "b/0"), all, "{bytes}: {:?}", world.statuses[0].borrow());
    }
}

fn number_of(payload: &[u8]) -> u32 {
    let digits = payload.split(|byte| *byte == b'.').next().unwrap();
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}
