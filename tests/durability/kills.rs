//! The broker is killed under load, at any moment: while it serves, while it writes everything live anew, while it starts.

use super::Gateway;
use super::load::{Publisher, Received, Sent, Stage, Subscriber, Traffic};
use super::loners::{self, Random, Retained};
use super::support::client::publish_packet;
use super::support::wire::{Connect, Heard, Wire};
use super::support::{PATIENCE, Process};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// How often the gate kills.
const KILLS: u64 = 20;

const TRAFFICS: [Traffic; 6] = [
    Traffic { name: "one", qos: 1, window: 20, pause: Duration::from_millis(8), bytes: (100, 2_000) },
    Traffic { name: "two", qos: 2, window: 20, pause: Duration::from_millis(8), bytes: (100, 2_000) },
    Traffic { name: "one-by-one", qos: 1, window: 1, pause: Duration::from_millis(5), bytes: (10, 10) },
    Traffic { name: "two-by-two", qos: 2, window: 2, pause: Duration::from_millis(5), bytes: (10, 10) },
    // Fills the log again and again.
    Traffic { name: "large", qos: 1, window: 4, pause: Duration::from_millis(4), bytes: (60_000, 200_000) },
    Traffic { name: "willing", qos: 2, window: 1, pause: Duration::ZERO, bytes: (10, 10) },
];

/// Name, QoS, pause, presence, filter, beginning of its topics.
type Receiver = (&'static str, u8, u64, Option<u64>, &'static str, &'static str);

const RECEIVERS: [Receiver; 7] = [
    ("s-fast", 1, 0, None, "t/#", "t/"),
    ("s-slow", 2, 1, None, "t/#", "t/"),
    ("s-away-1", 1, 0, Some(400), "t/#", "t/"),
    ("s-away-2", 2, 0, Some(700), "t/#", "t/"),
    ("s-large", 1, 0, None, "big/#", "big/"),
    ("s-shared-1", 2, 0, None, "$share/group/t/#", "t/"),
    ("s-shared-2", 2, 0, Some(300), "$share/group/t/#", "t/"),
];

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Promises P1 to P6, P8 and P9 of the durable log, as clients see them.
#[test]
fn what_was_acknowledged_outlives_every_kill() {
    let kills = number_of("PORTCULLIS_KILLS").unwrap_or(KILLS);
    let seed = number_of("PORTCULLIS_KILL_SEED")
        .unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into());
    println!("{kills} kills; again with PORTCULLIS_KILL_SEED={seed}");
    let mut random = Random((seed ^ 0x5DEE_CE66).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    // Large enough for sweeps that are killed, and small enough for many of them.
    let persistence = "{persistence: {maxSize: 32Mi, encryption: {mode: Disabled}, retain: {mode: All}, subscriberQueue: {mode: All}}}";
    let mut gateway = Gateway::start("kills", persistence);
    // Later, when there may be no room for new sessions, its own is one of those that are there.
    gateway.settle();
    let port = gateway.port;
    for (name, qos, _, _, filter, _) in RECEIVERS {
        assert_eq!(Wire::resume(port, &Connect::lasting(name), false).subscribe(filter, qos), Some(qos));
    }
    let traffics = TRAFFICS.map(|traffic| (traffic, Mutex::new(Sent::default())));
    let (all, group): (Vec<_>, _) = (RECEIVERS.map(|_| Mutex::default()).into(), Mutex::<Received>::default());
    let (stage, repeated, changes) = (Stage::default(), AtomicUsize::new(0), AtomicUsize::new(0));
    let retained: [_; 2] = [("r-one", 1), ("r-two", 2)].map(|(name, qos)| (name, qos, Mutex::new(Retained::default())));
    thread::scope(|scope| {
        let (stage, traffics, changes) = (&stage, &traffics, &changes);
        let large = &all[RECEIVERS.iter().position(|(name, ..)| *name == "s-large").expect("it is one of them")];
        let mut sources = Vec::new();
        for (traffic, books) in traffics {
            sources.push(scope.spawn(move || match traffic.name {
                "willing" => loners::be_willing(traffic, books, stage, port),
                _ => {
                    let waits_for = (traffic.name == "large").then_some(large);
                    Publisher { traffic: *traffic, books, stage, port, waits_for }.run();
                }
            }));
        }
        for (name, qos, books) in &retained {
            sources.push(scope.spawn(move || loners::retain(name, *qos, books, stage, port)));
        }
        let changing = Random(random.below(u64::MAX >> 34) | 1);
        sources.push(scope.spawn(move || {
            let checks = loners::change_subscriptions(changing, stage, port);
            changes.store(checks as usize, Ordering::Relaxed);
        }));
        for ((name, qos, pause, away, filter, topics), own) in RECEIVERS.into_iter().zip(&all) {
            let is_member = filter.starts_with("$share");
            let subscriber = Subscriber {
                name,
                qos,
                pause: Duration::from_millis(pause),
                comes_and_goes: away.map(Duration::from_millis),
                traffics,
                topics,
                is_member,
                received: if is_member { &group } else { own },
                repeated: &repeated,
                stage,
                port,
            };
            scope.spawn(move || subscriber.run());
        }
        let _alarm = super::load::Alarm(stage);
        let mut slowest = Duration::ZERO;
        for _ in 0..kills {
            wait_for_a_moment(&mut random, &gateway.state);
            gateway.kill();
            while random.below(4) == 0 {
                gateway.launch();
                thread::sleep(Duration::from_millis(random.below(60)));
                gateway.kill();
            }
            let begin = Instant::now();
            gateway.run();
            slowest = slowest.max(begin.elapsed());
            for (name, _, books) in &retained {
                loners::check_retained(name, books, port);
            }
            if stage.failed() {
                return;
            }
        }
        stage.closing.store(true, Ordering::SeqCst);
        for source in sources {
            source.join().expect("no panic");
        }
        stage.drained.store(true, Ordering::SeqCst);
        println!("slowest start {} ms", slowest.as_millis());
    });
    for (name, _, books) in &retained {
        loners::check_retained(name, books, port);
    }
    for ((topic, number), times) in &group.lock().unwrap().times {
        let is_once = traffics.iter().any(|(traffic, _)| traffic.topic() == *topic && traffic.qos == 2);
        assert!(!is_once || *times == 1, "{topic} {number} came {times} times to the group");
    }
    for (traffic, books) in &traffics {
        let books = books.lock().unwrap();
        let (acknowledged, refused) = (books.acknowledged.len(), books.refused.len());
        println!("{}: {acknowledged} of {} acknowledged, {refused} refused", traffic.topic(), books.next);
        assert!(acknowledged > 0, "no load");
        assert!(refused == 0, "there was room");
    }
    let (repeated, changes) = (repeated.into_inner(), changes.into_inner());
    println!("{repeated} messages of QoS 1 came again, {changes} checks of subscriptions");
    // What was acknowledged to the broker, and is written, does not come again.
    gateway.settle();
    gateway.kill_and_run();
    for (name, ..) in RECEIVERS {
        let mut wire = Wire::resume(port, &Connect::lasting(name), true);
        assert_eq!(wire.receive(Duration::from_millis(100)), Heard::Nothing, "{name}");
    }
}

/// Some time of serving, or the moment at which a new segment is begun: often that of a sweep.
fn wait_for_a_moment(random: &mut Random, state: &Path) {
    if random.below(2) == 0 {
        thread::sleep(Duration::from_millis(random.below(500)));
        return;
    }
    let last = || std::fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name()).max();
    let (before, end) = (last(), Instant::now() + Duration::from_secs(1));
    while last() == before && Instant::now() < end {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(random.below(12)));
}

/// What brokers that keep sessions in memory fail: 500 acknowledged messages for a client that is away, and then the end.
#[test]
fn five_hundred_acknowledged_messages_are_there_after_a_kill() {
    let mut gateway = Gateway::start("five-hundred", "{}");
    let port = gateway.port.to_string();
    let client = |program: &str, arguments: &[&str]| {
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-V", "mqttv5", "-p", &port, "-q", "1", "-t", "orders"]).args(arguments);
        command
    };
    let session = ["-c", "-i", "ledger", "-x", "3600"];
    let mut subscribe = client("mosquitto_sub", &session);
    assert!(subscribe.arg("-E").status().expect("mosquitto_sub runs").success());
    let lines: String = (0..500).map(|number| format!("order {number}\n")).collect();
    let file = gateway.folder.write("orders", &lines);
    let mut publish = client("mosquitto_pub", &["-l", "-d"]);
    publish.stdin(Stdio::from(std::fs::File::open(file).unwrap()));
    let mut publish = Process::start(&mut publish);
    publish.wait_for_another("received PUBACK", 499);
    gateway.kill_and_run();
    let mut subscribe = client("mosquitto_sub", &session);
    let mut subscribe = Process::start(subscribe.args(["-C", "500", "-W", &PATIENCE.as_secs().to_string()]));
    assert!(subscribe.wait().success());
    assert_eq!(subscribe.output().join("\n") + "\n", lines);
}

/// A sweep that a kill ends takes a segment, and the next one begins with another. However many do, the log finds room again.
#[test]
fn sweeps_that_were_killed_do_not_use_up_the_log() {
    let persistence = "{persistence: {maxSize: 16Mi, encryption: {mode: Disabled}, subscriberQueue: {mode: All}, retain: {mode: All}}}";
    let mut gateway = Gateway::start("crash-loop", persistence);
    let port = gateway.port;
    let mut publisher = Wire::resume(port, &Connect::lasting("publisher"), false);
    // Live is what each topic was set to last: next to nothing, and then a fifth of the log.
    for (topics, messages) in [(4, 250), (60, 120)] {
        for number in 0..messages {
            let mut publish = publish_packet(&format!("live/{}", number % topics), 1, 1, &[number as u8; 50_000]);
            publish[0] |= 1;
            publisher.send(&publish);
            let puback = publisher.expect();
            assert!(topics > 4 || puback.body == [0, 1], "little is live, and message {number} is refused: {puback:?}");
        }
    }
    for _ in 0..8 {
        gateway.kill_and_run();
    }
    let end = Instant::now() + PATIENCE / 4;
    let mut publisher = Wire::resume(port, &Connect { expiry: 0, ..Connect::lasting("after") }, false);
    let mut publish = publish_packet("live/0", 1, 1, b"after");
    publish[0] |= 1;
    loop {
        publisher.send(&publish);
        let puback = publisher.expect();
        if puback.body == [0, 1] {
            break;
        }
        assert!(Instant::now() < end, "{puback:?}\n{}", gateway.process().output().join("\n"));
        thread::sleep(Duration::from_millis(20));
    }
}
