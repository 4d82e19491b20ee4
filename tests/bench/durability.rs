//! What it costs that acknowledged messages are on the disk: throughput with QoS 1 to a subscriber that is away and to one that
//! is there, bytes that go to the disk for each byte of payload, and the time to come back with full tables. Debian's
//! mosquitto runs the same load in the same run, with its database written every second, and after each change; it
//! acknowledges before it writes, and what a kill costs it is not counted here.
//!
//! Load and brokers share one machine and one disk: ratios are worth more than figures.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

use portcullis::config::{decode, encode};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::client::publish_packet;
use support::wire::{Connect, Heard, Wire};
use support::{Folder, Process, free_ports, plain_listener, portcullis, run};

const PAYLOAD_BYTES: usize = 100;
/// Messages a second of the quiet case.
const FEW_PER_SECOND: u32 = 5;
const RETAINED: u32 = 100_000;
const SESSIONS: u32 = 1_000;
/// Messages that wait for each of the sessions.
const WAITING: u32 = 10;
/// Threads that prepare the tables.
const PREPARING: u32 = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portcullis,
    /// `autosave_interval 1`.
    Mosquitto,
    /// The same with `autosave_on_changes true`.
    MosquittoOnChanges,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Portcullis, Self::Mosquitto, Self::MosquittoOnChanges];

    const fn name(self) -> &'static str {
        match self {
            Self::Portcullis => "portcullis",
            Self::Mosquitto => "mosquitto, each second",
            Self::MosquittoOnChanges => "mosquitto, each change",
        }
    }
}

/// A broker with an empty state.
struct Broker {
    process: Process,
    port: u16,
    blob: PathBuf,
    folder: Folder,
}

impl Broker {
    fn start(kind: Kind) -> Self {
        let (folder, port) = (Folder::new("bench-durability"), free_ports(1));
        let blob = folder.join("site.blob");
        let process = match kind {
            Kind::Portcullis => {
                bake(&folder, port, &blob);
                start_on(&blob)
            }
            Kind::Mosquitto | Kind::MosquittoOnChanges => start_mosquitto(&folder, port, kind),
        };
        Self { process, port, blob, folder }
    }

    /// Bytes that went to the disk: `write_bytes` of proc(5).
    fn written(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.process.id())).expect("Linux");
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("a counter");
        line.parse().expect("a number")
    }

    /// What the broker says of its log.
    fn says(&self, name: &str) -> f64 {
        let connect = Connect { expiry: 0, clean_start: true, ..Connect::lasting("") };
        let mut wire = Wire::resume(self.port, &connect, false);
        assert_eq!(wire.subscribe(&format!("$SYS/broker/store/{name}"), 0), Some(0));
        String::from_utf8(wire.message().payload).expect("text").parse().expect("a number")
    }
}

/// A blob whose tables hold what is measured here.
fn bake(folder: &Folder, port: u16, blob: &Path) {
    folder.write("site/listener.yaml", plain_listener(port));
    let head = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\nspec:";
    let queue = "{advanced: {clients: {subscriberQueueLimit: {length: 1000000, strategy: None}}}}";
    folder.write("site/broker.yaml", format!("{head} {queue}\n"));
    let head = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:";
    folder.write("site/gateway.yaml", format!("{head} {{board: host, sysIntervalSeconds: 1}}\n"));
    let baked = run(&["bake", folder.join("site").to_str().unwrap(), "--out", blob.to_str().unwrap()]);
    assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    let mut configuration = decode(&std::fs::read(blob).unwrap()).unwrap();
    let board = &mut configuration.board;
    board.memory_budget_bytes = 1 << 30;
    board.capacities.retained_messages = 131_072;
    board.capacities.messages = 524_288;
    board.capacities.message_blocks = 524_288;
    board.capacities.deliveries = 1_048_576;
    std::fs::write(blob, encode(&configuration).unwrap()).unwrap();
}

fn start_on(blob: &Path) -> Process {
    let mut process = Process::start(&mut portcullis(&["run", "--config", blob.to_str().unwrap()]));
    process.wait_for(" ready");
    process
}

fn start_mosquitto(folder: &Folder, port: u16, kind: Kind) -> Process {
    let state = folder.join("state");
    std::fs::create_dir_all(&state).unwrap();
    let on_changes = kind == Kind::MosquittoOnChanges;
    let lines = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n\
         autosave_interval 1\nautosave_on_changes {on_changes}\nmax_queued_messages 0\nset_tcp_nodelay true\n",
        state.display()
    );
    let configuration = folder.write("mosquitto.conf", lines);
    let mut process = Process::start(Command::new("mosquitto").arg("-c").arg(configuration));
    process.wait_for("running");
    process
}

/// What a publisher has to tell.
#[derive(Default)]
struct Published {
    acknowledged: u64,
    refused: u64,
    waits: Vec<Duration>,
}

/// Publishes with QoS 1 until `stop`, with `window` messages under way, and `pause` between two of them.
fn publish(port: u16, number: u32, window: usize, pause: Duration, stop: &AtomicBool) -> Published {
    let connect = Connect { expiry: 0, clean_start: true, ..Connect::lasting("") };
    let mut wire = Wire::resume(port, &connect, false);
    let (topic, payload) = (format!("bench/{number}"), [number as u8; PAYLOAD_BYTES]);
    let mut published = Published::default();
    let (mut sent, mut next) = (std::collections::VecDeque::new(), 1_u16);
    loop {
        while sent.len() < window && !stop.load(Ordering::Relaxed) {
            wire.send(&publish_packet(&topic, 1, next, &payload));
            sent.push_back(Instant::now());
            next = next.checked_add(1).unwrap_or(1);
        }
        let Some(asked) = sent.pop_front() else { return published };
        let packet = wire.expect();
        assert_eq!(packet.first, 0x40);
        published.waits.push(asked.elapsed());
        match packet.body.get(2) {
            None | Some(0) => published.acknowledged += 1,
            Some(_) => published.refused += 1,
        }
        if !pause.is_zero() {
            thread::sleep(pause);
        }
    }
}

/// One case of load.
#[derive(Clone, Copy)]
struct Case {
    publishers: u32,
    window: usize,
    online: bool,
    pause: Duration,
}

/// What it gave.
struct Figures {
    per_second: f64,
    refused: u64,
    median: f64,
    late: f64,
    commits_per_second: Option<f64>,
    disk_bytes_per_message: f64,
}

fn measure(kind: Kind, case: Case, time: Duration) -> Figures {
    let broker = Broker::start(kind);
    let port = broker.port;
    let mut subscriber = Wire::resume(port, &Connect::lasting("subscriber"), false);
    assert_eq!(subscriber.subscribe("bench/#", 1), Some(1));
    let (stop, done) = (&AtomicBool::new(false), &AtomicBool::new(false));
    let (begin, before) = (Instant::now(), broker.written());
    let all = thread::scope(|scope| {
        if case.online {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if let Heard::Packet(packet) = subscriber.receive(Duration::from_millis(50)) {
                        subscriber.acknowledge(0x40, support::wire::Publish::read(&packet).identifier);
                    }
                }
            });
        } else {
            drop(subscriber);
        }
        let publishers: Vec<_> = (0..case.publishers)
            .map(|number| scope.spawn(move || publish(port, number, case.window, case.pause, stop)))
            .collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let all: Vec<Published> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        all
    });
    let seconds = begin.elapsed().as_secs_f64();
    // Whoever writes or says something once a second has its turn.
    thread::sleep(Duration::from_millis(1_500));
    let after = broker.written();
    let acknowledged: u64 = all.iter().map(|published| published.acknowledged).sum();
    let mut waits: Vec<Duration> = all.iter().flat_map(|published| published.waits.iter().copied()).collect();
    waits.sort_unstable();
    let wait = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    Figures {
        per_second: acknowledged as f64 / seconds,
        refused: all.iter().map(|published| published.refused).sum(),
        median: wait(0.5),
        late: wait(0.99),
        commits_per_second: (kind == Kind::Portcullis).then(|| broker.says("commits") / seconds),
        disk_bytes_per_message: (after - before) as f64 / acknowledged.max(1) as f64,
    }
}

fn print(name: &str, figures: &Figures, ours: Option<&Figures>) {
    let commits = figures.commits_per_second.map_or_else(|| "-".to_owned(), |commits| format!("{commits:.0}"));
    let Figures { per_second, median, late, disk_bytes_per_message: bytes, refused, .. } = figures;
    let of_payload = bytes / PAYLOAD_BYTES as f64;
    print!("  {name:24} {per_second:9.0} {median:8.2} {late:8.2} {commits:>9} {bytes:11.0} {of_payload:10.1}");
    if *refused > 0 {
        print!("  {refused} refused");
    }
    if let Some(ours) = ours {
        print!("  portcullis: {:.2} times the rate, {:.2} times the bytes", ours.per_second / per_second, {
            ours.disk_bytes_per_message / bytes.max(1.0)
        });
    }
    println!();
}

fn compare(title: &str, case: Case, time: Duration, kinds: &[Kind]) {
    println!("{title}");
    let mut ours = None;
    for kind in kinds {
        let figures = measure(*kind, case, time);
        print(kind.name(), &figures, ours.as_ref());
        if *kind == Kind::Portcullis {
            ours = Some(figures);
        }
    }
}

/// Fills the tables, kills the broker, and starts it again.
fn come_back() {
    let mut broker = Broker::start(Kind::Portcullis);
    let port = broker.port;
    thread::scope(|scope| {
        for part in 0..PREPARING {
            scope.spawn(move || {
                for number in (part..SESSIONS).step_by(PREPARING as usize) {
                    let mut wire = Wire::resume(port, &Connect::lasting(&format!("session-{number}")), false);
                    assert_eq!(wire.subscribe("all", 1), Some(1));
                }
                retain(port, part);
            });
        }
    });
    let mut publisher = Wire::resume(port, &Connect { expiry: 0, ..Connect::lasting("all") }, false);
    for _ in 0..WAITING {
        assert_eq!(publisher.publish("all", &[1; PAYLOAD_BYTES]), Some(0));
    }
    broker.process.signal("-KILL");
    broker.process.wait();
    let begin = Instant::now();
    broker.process = start_on(&broker.blob);
    let milliseconds = begin.elapsed().as_millis();
    let line = broker.process.wait_for("records,");
    println!("start after a kill: {milliseconds} ms until ready");
    let number = |behind: &str| -> f64 {
        let words: Vec<&str> = line.split(behind).next().unwrap_or_default().split([' ', '(']).collect();
        words.last().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{behind} in {line}"))
    };
    let per_second = number(" records") / number(" ms)") * 1_000.0;
    println!("{}\n{per_second:.0} records a second", line.split("state has").last().unwrap_or(&line));
    drop(broker.folder);
}

/// One part of the retained messages.
fn retain(port: u16, part: u32) {
    const WINDOW: u32 = 50;
    let mut wire = Wire::resume(port, &Connect { expiry: 0, ..Connect::lasting(&format!("part-{part}")) }, false);
    let (mut under_way, mut number) = (0, part);
    while number < RETAINED || under_way > 0 {
        if number < RETAINED && under_way < WINDOW {
            let identifier = (number / PREPARING % 60_000 + 1) as u16;
            let mut publish = publish_packet(&format!("retained/{number}"), 1, identifier, &[2; PAYLOAD_BYTES]);
            publish[0] |= 1;
            wire.send(&publish);
            (under_way, number) = (under_way + 1, number + PREPARING);
            continue;
        }
        let packet = wire.expect();
        assert!(packet.body.get(2).is_none_or(|reason| *reason < 0x80), "{packet:?}");
        under_way -= 1;
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut time = Duration::from_secs(3);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => {
                let seconds = arguments.next().and_then(|value| value.parse().ok()).expect("--seconds takes a number");
                time = Duration::from_secs(seconds);
            }
            other => panic!("unknown option {other}"),
        }
    }
    let has_mosquitto = Command::new("mosquitto").arg("-h").output().is_ok();
    let kinds = if has_mosquitto { &Kind::ALL[..] } else { &Kind::ALL[..1] };
    if !has_mosquitto {
        println!("mosquitto is not installed (Debian: apt-get install mosquitto): nothing to compare with");
    }
    println!("                             messages   wait ms   wait ms   commits  disk bytes  for a byte");
    println!("                           per second       p50       p99  a second  a message  of payload");
    for online in [false, true] {
        for publishers in [1, 10, 50] {
            for window in [1, 20] {
                let subscriber = if online { "there" } else { "away" };
                let title = format!("{publishers} publishers, window {window}, subscriber {subscriber}");
                compare(&title, Case { publishers, window, online, pause: Duration::ZERO }, time, kinds);
            }
        }
    }
    let pause = Duration::from_secs(1) / FEW_PER_SECOND;
    let case = Case { publishers: 1, window: 1, online: false, pause };
    compare(
        &format!("{FEW_PER_SECOND} messages a second, subscriber away"),
        case,
        time.max(Duration::from_secs(5)),
        kinds,
    );
    come_back();
}
