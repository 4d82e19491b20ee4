//! Bytes that nobody would send on purpose: `cargo xtask fuzz` for long, a short form with the other tests.
//!
//! Everything follows from a seed, which is printed with a failure: `PORTCULLIS_FUZZ_SEED` replays it.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used)]

mod authorization_reference;
mod codec_material;

use authorization_reference::{Rule, Subject};
use codec_material::{Material, encoded, material};
use portcullis::authorization::{Client, Policy, covers};
use portcullis::broker::{Admission, Broker, PortAdmission, Settings};
use portcullis::codec::{Packet, ProtocolVersion, decode, decode_fixed_header, topic};
use portcullis::config::blob::{ClientLimits, QueueStrategy};
use portcullis::config::{LoadOptions, load_embedded};
use portcullis::http::{BODY_BYTES_MAX, Request, RequestReader, Response};
use portcullis::identity::Identity;
use portcullis::limits::Capacities;
use portcullis::time::{Instant, Now, UnixTime};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::time::Duration;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Runs `case` with one seed after the other: so many times, or for the time that the environment gives, or with the one seed
/// that it names.
fn fuzz(cases: u64, mut case: impl FnMut(&mut Random, u64)) {
    let mut run = |seed: u64| {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&mut random, seed)));
        if let Err(panic) = outcome {
            println!("failed with PORTCULLIS_FUZZ_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    };
    if let Some(seed) = number("PORTCULLIS_FUZZ_SEED") {
        return run(seed);
    }
    let Some(seconds) = number("PORTCULLIS_FUZZ_SECONDS") else { return (1..=cases).for_each(run) };
    let begin = std::time::Instant::now();
    let mut seed = 1_u64 << 32;
    while begin.elapsed() < Duration::from_secs(seconds) {
        seed += 1;
        run(seed);
    }
    println!("{} cases", seed - (1 << 32));
}

/// A generator of material that is the same for a seed.
fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn draw(seed: u64) -> Material {
    material().new_tree(&mut runner(seed)).expect("material").current()
}

/// Changes some bytes, cuts, repeats or splices.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.below(256) as u8),
            4 => drop(bytes.remove(at)),
            _ => {
                let end = (at + random.below(8)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.extend(piece);
            }
        }
    }
}

fn decoded(bytes: &[u8], version: ProtocolVersion) -> Option<(Packet<'_>, usize)> {
    let header = decode_fixed_header(bytes).ok()??;
    let body = bytes.get(usize::from(header.header_bytes)..header.packet_bytes())?;
    Some((decode(header, body, version).ok()?, header.packet_bytes()))
}

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V5, ProtocolVersion::V311];

/// Target `frame`: any bytes are a packet, the beginning of one, or refused.
#[test]
fn frame() {
    fuzz(20_000, |random, _| {
        let bytes: Vec<u8> = (0..random.below(60)).map(|_| random.below(256) as u8).collect();
        for version in VERSIONS {
            if let Some((_, length)) = decoded(&bytes, version) {
                assert!(length <= bytes.len());
            }
        }
    });
}

/// Targets `round_trip` and `properties`: what is accepted is written as bytes that mean the same.
#[test]
fn round_trip() {
    fuzz(4_000, |random, seed| {
        let material = draw(seed);
        let material = codec_material::Parts::new(&material);
        for version in VERSIONS {
            let packet = material.packet();
            // AUTH cannot be said in 3.1.1.
            if packet.encoded_bytes(version) == 0 {
                continue;
            }
            let mut bytes = encoded(&packet, version);
            mutate(random, &mut bytes);
            let Some((packet, _)) = decoded(&bytes, version) else { continue };
            let version = codec_material::version_of(&packet, version);
            let again = encoded(&packet, version);
            let (reread, length) = decoded(&again, version).expect("what we write we read");
            assert_eq!(length, again.len());
            assert_eq!(reread, packet);
        }
    });
}

/// Target `topic`: the matcher against a naive one, and coverage against matching.
#[test]
fn topic_match() {
    fn naive(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.first(), topic.first()) {
            (Some(&"#"), _) | (None, None) => true,
            (Some(&"+"), Some(_)) => naive(&filter[1..], &topic[1..]),
            (Some(literal), Some(level)) => literal == level && naive(&filter[1..], &topic[1..]),
            _ => false,
        }
    }
    const LEVELS: [&str; 6] = ["a", "b", "", "$x", "+", "#"];
    fuzz(20_000, |random, _| {
        let mut levels = |kinds: usize| {
            let depth = 1 + random.below(5);
            let levels: Vec<&str> = (0..depth).map(|_| LEVELS[random.below(kinds)]).collect();
            levels.join("/")
        };
        let (name, filter, wider) = (levels(4), levels(6), levels(6));
        if name.is_empty() {
            return;
        }
        let is_filter = |text: &str| topic::TopicFilter::parse(text).is_ok();
        let expected = |filter: &str| {
            !(name.starts_with('$') && filter.starts_with(['+', '#']))
                && naive(&filter.split('/').collect::<Vec<_>>(), &name.split('/').collect::<Vec<_>>())
        };
        if is_filter(&filter) {
            assert_eq!(topic::matches(&filter, &name), expected(&filter), "{filter} {name}");
            if is_filter(&wider) && covers(&wider, &filter) && expected(&filter) {
                assert!(expected(&wider), "{wider} covers {filter}, and not {name}");
            }
        }
    });
}

/// Target `http`: how a request is cut does not matter, and what is accepted leads nowhere else.
#[test]
fn http() {
    const LINES: [&str; 14] = [
        "GET /metrics HTTP/1.1\r\n",
        "POST /api/v1/clients/a%2Fb/disconnect?x=%20+ HTTP/1.1\r\n",
        "HEAD /a/../b//%2e%2e/%00 HTTP/1.0\r\n",
        "Host: localhost\r\n",
        "Host: [::1]:9600\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Authorization: Bearer x\r\n",
        "Origin: null\r\n",
        " folded\r\n",
        "X: \u{1}\r\n",
        "\r\n",
        "abc",
    ];
    fuzz(20_000, |random, _| {
        let mut bytes = LINES[random.below(3)].as_bytes().to_vec();
        for _ in 0..random.below(8) {
            bytes.extend(LINES[random.below(LINES.len())].bytes());
        }
        bytes.extend(b"\r\n");
        mutate(random, &mut bytes);
        let mut at_once = RequestReader::default();
        let whole = at_once.push(&bytes);
        let mut reader = RequestReader::default();
        let mut outcome = Ok(None);
        let mut at = 0;
        while at < bytes.len() && matches!(outcome, Ok(None)) {
            let end = (at + 1 + random.below(20)).min(bytes.len());
            outcome = reader.push(&bytes[at..end]);
            at = end;
        }
        if let Ok(Some(request)) = &whole {
            assert!(request.body.len() <= BODY_BYTES_MAX && request.segments.len() <= 8);
            for segment in &request.segments {
                assert!(!segment.is_empty() && segment != "." && segment != ".." && !segment.contains('\0'));
            }
        }
        let shown = |outcome: Result<Option<Request>, Response>| {
            outcome.map(|request| request.map(|it| (it.segments, it.query, it.body))).map_err(|it| it.status)
        };
        // A fault may be seen later when its line comes in pieces, never another way.
        match (shown(outcome), shown(whole)) {
            (Ok(None), Err(_)) => assert!(!bytes.ends_with(b"\n"), "{bytes:?}"),
            (cut, whole) => assert_eq!(cut, whole, "{:?}", String::from_utf8_lossy(&bytes)),
        }
    });
}

fn broker(seed: u64) -> Broker {
    let capacities = Capacities {
        connections: 4,
        handshakes: 1,
        sessions: 16,
        subscriptions: 32,
        subscriptions_per_session: 16,
        filter_nodes: 64,
        filter_bytes: 4_096,
        retained_messages: 8,
        messages: 64,
        message_blocks: 256,
        deliveries: 64,
        replies: 512,
        receive_bytes: 1 << 20,
        transmit_bytes: 1 << 20,
        packet_bytes: 1 << 16,
        authorization_rules: 0,
        authorization_principals: 0,
        authorization_attributes: 0,
        authorization_patterns: 0,
        authorization_bytes: 0,
    };
    let limits = ClientLimits {
        max_session_expiry_seconds: Some(60),
        max_message_expiry_seconds: None,
        max_packet_size_bytes: 1 << 16,
        max_receive_maximum: 16,
        max_keep_alive_seconds: None,
        subscriber_queue_length: 20,
        subscriber_queue_strategy: QueueStrategy::DropOldest,
    };
    let settings = Settings {
        connect_deadline_seconds: 10,
        shares_client_identifiers: false,
        announces_expiry: false,
        validate_payload_format: true,
        sys_interval_seconds: 0,
        response_information: None,
    };
    let admission = Admission {
        ports: vec![PortAdmission::default()],
        authenticators: Vec::new(),
        policies: Vec::new(),
        insiders: Vec::new(),
    };
    Broker::new(&capacities, &limits, &settings, admission, seed)
}

/// Target `broker`: whole sessions of mutated packets, in pieces of any size. Nothing panics, nothing is left behind, and
/// another client is served.
#[test]
fn broker_sessions() {
    let mut buffer = vec![0; 8_192];
    fuzz(3_000, |random, seed| {
        let mut broker = broker(seed);
        let mut now = Now { instant: Instant::ZERO, unix: UnixTime(2_000_000_000) };
        for round in 0..4 {
            let key = broker.open(now.instant, 0).expect("room");
            let version = [5, 4][random.below(2)];
            let mut bytes: Vec<u8> =
                vec![0x10, 0, 0, 4, b'M', b'Q', b'T', b'T', version, random.below(2) as u8 * 2, 0, 0];
            if version == 5 {
                bytes.extend([5, 0x11, 0, 0, 0, random.below(3) as u8]);
            }
            bytes.extend([0, 1, b'a' + random.below(3) as u8]);
            bytes[1] = (bytes.len() - 2) as u8;
            for number in 0..8 {
                let material = draw(seed * 100 + round * 10 + number);
                let parts = codec_material::Parts::new(&material);
                let wanted = if version == 5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
                let packet = parts.packet();
                if packet.encoded_bytes(wanted) == 0 {
                    continue;
                }
                let mut packet = encoded(&packet, wanted);
                if random.below(3) == 0 {
                    mutate(random, &mut packet);
                }
                bytes.extend(packet);
            }
            let mut waiting = Vec::new();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(1 + random.below(200)));
                rest = later;
                waiting.extend_from_slice(piece);
                let received = broker.receive(now, key, &[], &waiting);
                waiting.drain(..received.consumed);
                while let Some(ready) = broker.next_ready() {
                    while broker.transmit(now, ready, &mut buffer).more {}
                }
                broker.work(now.instant);
                now.instant = now.instant.plus_milliseconds(random.below(300) as u64);
                broker.expire(now);
            }
            broker.closed(
                now,
                key,
                portcullis::telemetry::Cause::NetworkClosed,
                portcullis::telemetry::Text::default(),
            );
        }
        now.instant = now.instant.plus_seconds(1_000);
        broker.expire(now);
        let used = broker.in_use();
        assert_eq!((used.connections, used.sessions, used.subscriptions), (0, 0, 0), "{used:?}");
        assert_eq!((used.deliveries, used.replies), (0, 0), "{used:?}");
        assert_eq!(used.messages, used.retained_messages, "{used:?}");
        let key = broker.open(now.instant, 0).expect("room");
        let connect = b"\x10\x0D\0\x04MQTT\x05\x02\0\0\0\0\0";
        assert_eq!(broker.receive(now, key, &[], connect).consumed, connect.len());
        let answer = broker.transmit(now, key, &mut buffer);
        assert_eq!((buffer[0], buffer[3], answer.close), (0x20, 0, None));
    });
}

/// Texts that clients and rules have in common, so that they meet; and those that would widen a rule if anything in a value
/// had a meaning.
const VALUES: [&str; 12] = ["a", "b", "ab", "a/b", "+", "#", "*", "$SYS", "", "{principal.username}", "a*", "\u{e9}"];
const TOKENS: [&str; 4] =
    ["{principal.username}", "{principal.clientId}", "{principal.attributes.x}", "{principal.attributes.y}"];

fn value(random: &mut Random) -> String {
    VALUES[random.below(VALUES.len())].to_owned()
}

fn subject(random: &mut Random) -> Subject {
    let attributes = ["x", "y", "z"].into_iter().filter(|_| random.below(2) == 0).collect::<Vec<_>>();
    Subject {
        username: (random.below(3) > 0).then(|| value(random)),
        identifier: value(random),
        attributes: attributes.into_iter().map(|name| (name.to_owned(), value(random))).collect(),
    }
}

/// A text for a principal: a value without braces, a token, or one beside the other.
fn principal(random: &mut Random) -> String {
    let literal = ["a", "b", "ab", "+", "*", "$SYS", "\u{e9}"][random.below(7)];
    let token = TOKENS[random.below(TOKENS.len())];
    match random.below(5) {
        0 | 1 => literal.to_owned(),
        2 => token.to_owned(),
        3 => format!("{literal}{token}"),
        _ => format!("{token}{literal}"),
    }
}

fn topic_of(random: &mut Random, levels: &[&str], wildcards: bool) -> String {
    let mut topic: Vec<&str> = (0..=random.below(4)).map(|_| levels[random.below(levels.len())]).collect();
    if wildcards && random.below(3) == 0 {
        topic.push("#");
    }
    let topic = topic.join("/");
    if topic.is_empty() { "a".to_owned() } else { topic }
}

fn rule(random: &mut Random) -> Rule {
    const LEVELS: [&str; 11] = [
        "a",
        "b",
        "ab",
        "",
        "+",
        "$SYS",
        "\u{e9}",
        "{principal.username}",
        "{principal.clientId}",
        "{principal.attributes.x}",
        "{principal.attributes.y}",
    ];
    let mut rule = Rule::default();
    while rule.usernames.is_empty() && rule.identifiers.is_empty() && rule.attributes.is_empty() {
        rule.usernames = (0..random.below(3)).map(|_| principal(random)).collect();
        rule.identifiers = (0..random.below(3)).map(|_| principal(random)).collect();
        let names = ["x", "y", "z"];
        rule.attributes = (0..random.below(2))
            .map(|_| (0..=random.below(2)).map(|_| (names[random.below(3)].to_owned(), principal(random))).collect())
            .collect();
    }
    let identifier = |random: &mut Random| {
        let text = principal(random).replace('*', "a");
        if random.below(2) == 0 { format!("{text}*") } else { text }
    };
    rule.connects = (0..random.below(2)).map(|_| (0..random.below(3)).map(|_| identifier(random)).collect()).collect();
    let mut topics = || {
        let mut topics: Vec<String> = (0..random.below(4)).map(|_| topic_of(random, &LEVELS, true)).collect();
        topics.sort();
        topics.dedup();
        topics
    };
    (rule.publishes, rule.subscribes) = (topics(), topics());
    rule
}

/// The compiled policy decides as the plain reading of its rules does, and names the first rule that allows.
#[test]
fn authorization() {
    let mut decisions = 0_u64;
    fuzz(150, |random, _| {
        let rules: Vec<Rule> = (0..=random.below(12)).map(|_| rule(random)).collect();
        let text = format!("[{}]", rules.iter().map(Rule::json).collect::<Vec<_>>().join(","));
        let files = [("any.listener.yaml", "ports: [{port: 1883}]"), ("test.authorization.json", text.as_str())];
        let loaded = load_embedded(&files, &LoadOptions::default()).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let policy = Policy::new(loaded.configuration.authorizations[0].clone()).unwrap();
        for _ in 0..24 {
            let subject = subject(random);
            let username = subject.username.as_deref().map(|name| name.try_into().unwrap());
            let mut identity = Identity { username, ..Identity::default() };
            subject.attributes.iter().for_each(|(name, value)| identity.attributes.insert(name, value).unwrap());
            let applicable = policy.applicable(&identity, &subject.identifier);
            let client = Client { rules: &applicable, identity: &identity, identifier: &subject.identifier };
            let first = |grants: &dyn Fn(&Rule) -> bool| {
                (0_u32..).zip(&rules).find(|(_, rule)| rule.applies(&subject) && grants(rule)).map(|(index, _)| index)
            };
            let context = || format!("{subject:?}\n{text}");
            assert_eq!(policy.decide_connect(&client), first(&|rule| rule.connects(&subject)).into(), "{}", context());
            for _ in 0..16 {
                let topic =
                    topic_of(random, &["a", "b", "ab", "", "$SYS", "*", "\u{e9}", "{principal.username}"], false);
                let expected = first(&|rule| rule.publishes(&subject, &topic)).into();
                assert_eq!(policy.decide_publish(&client, &topic), expected, "publish {topic}\n{}", context());
                let filter = topic_of(random, &["a", "b", "ab", "", "$SYS", "*", "\u{e9}", "+"], true);
                let expected = first(&|rule| rule.subscribes(&subject, &filter)).into();
                assert_eq!(policy.decide_subscribe(&client, &filter), expected, "subscribe {filter}\n{}", context());
                decisions += 2;
            }
            decisions += 1;
        }
    });
    println!("{decisions} decisions");
}
