//! `cargo xtask bench decisions`: what an authorization decision costs, with 10 to 10,000 rules.
//!
//! Each shape is a policy that grows in another way. Time is the process's own, the best of some rounds; the last column
//! compares with the same shape of ten rules in the same run.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used)]

use portcullis::authorization::{ApplicableRules, Client, Policy};
use portcullis::config::{LoadOptions, load_embedded};
use portcullis::identity::Identity;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
const ROUNDS: usize = 7;

/// A way to grow: its name, rule `index` of `count`, and the topics that the client publishes to: one that is allowed, one that
/// is not.
type Shape = (&'static str, fn(usize) -> String, fn(usize) -> [String; 2]);

const SHAPES: [Shape; 3] = [
    (
        "a rule for each device, of which one applies",
        |index| rule(&format!("{{usernames: [device{index}]}}"), &format!("'site/device{index}/telemetry/#'")),
        |_| ["site/device7/telemetry/temperature".to_owned(), "site/device8/telemetry/temperature".to_owned()],
    ),
    (
        "all rules apply, each with its own topics",
        |index| {
            rule(
                "{attributes: [{role: gateway}]}",
                &format!("'line{}/cell{index}/+', 'line{}/cell{index}/state/#'", index % 10, index % 10),
            )
        },
        |count| {
            [
                format!("line{}/cell{}/state/a/b", (count - 1) % 10, count - 1),
                format!("line{}/cell{}/a/b", (count - 1) % 10, count - 1),
            ]
        },
    ),
    (
        "one pattern with a token in every rule",
        |index| rule(&format!("{{attributes: [{{group: g{index}}}]}}"), "'clients/{principal.clientId}/#'"),
        |_| ["clients/device7/a/b/c".to_owned(), "clients/device8/a/b/c".to_owned()],
    ),
];

fn rule(principals: &str, topics: &str) -> String {
    format!(
        "- {{principals: {principals}, brokerResources: [{{method: Connect}}, {{method: Publish, topics: [{topics}]}}]}}\n"
    )
}

fn main() {
    let mut identity = Identity { username: Some("device7".try_into().unwrap()), ..Identity::default() };
    identity.attributes.insert("role", "gateway").unwrap();
    identity.attributes.insert("group", "g7").unwrap();
    for (name, rule, topics) in SHAPES {
        println!(
            "{name}\n{:>8} {:>14} {:>12} {:>12} {:>8}",
            "rules", "at CONNECT ns", "allowed ns", "denied ns", "ratio"
        );
        let mut smallest = None;
        for count in SIZES {
            let mut text = String::new();
            (0..count).for_each(|index| text.write_str(&rule(index)).unwrap());
            let files = [("any.listener.yaml", "ports: [{port: 1883}]"), ("bench.authorization.yaml", text.as_str())];
            let loaded = load_embedded(&files, &LoadOptions::default()).unwrap_or_else(|errors| panic!("{errors}"));
            let policy = Policy::new(loaded.configuration.authorizations[0].clone()).unwrap();
            let rules: ApplicableRules = policy.applicable(&identity, "device7");
            let client = Client { rules: &rules, identity: &identity, identifier: "device7" };
            let [allowed, denied] = topics(count);
            assert!(policy.decide_publish(&client, &allowed).is_allowed(), "{allowed}");
            assert!(!policy.decide_publish(&client, &denied).is_allowed(), "{denied}");
            let at_connect = nanoseconds(20, || drop(black_box(policy.applicable(black_box(&identity), "device7"))));
            let [allowed, denied] = [allowed, denied].map(|topic| {
                nanoseconds(2_000, || {
                    black_box(policy.decide_publish(black_box(&client), black_box(&topic)));
                })
            });
            let slowest = allowed.max(denied);
            let ratio = slowest / *smallest.get_or_insert(slowest);
            println!("{count:>8} {at_connect:>14.0} {allowed:>12.0} {denied:>12.0} {ratio:>8.1}");
        }
    }
}

/// Nanoseconds of one call, the best of some rounds.
fn nanoseconds(calls: u32, mut call: impl FnMut()) -> f64 {
    let round = |_| {
        let begin = Instant::now();
        (0..calls).for_each(|_| call());
        begin.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}
