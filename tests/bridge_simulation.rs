//! The bridge between two brokers of ours, with simulated wires and time: what was acknowledged arrives, in order, and nothing
//! comes back.
//!
//! `PORTCULLIS_BRIDGE_SEED=7 cargo test --test bridge_simulation` replays one seed, `PORTCULLIS_BRIDGE_SEEDS=1000` runs as many.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod bridge_world;

use bridge_world::{Accident, Random, World, bridge, first_times, numbered, numbers};
use portcullis::bridge::State;

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

#[test]
fn whatever_happens_to_the_uplink_all_that_was_acknowledged_arrives() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let seeds = match (number("PORTCULLIS_BRIDGE_SEED"), number("PORTCULLIS_BRIDGE_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 1..count.unwrap_or(40) + 1,
    };
    for seed in seeds {
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
