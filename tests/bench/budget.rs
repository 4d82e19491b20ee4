//! What a connected client feels of full tables: its round trips on an idle broker of the smallest board and on one with every
//! table full at once, with a client that goes on asking for more and without, in one run.
//!
//! Clients are on the machine of the broker and take their share of it: the ratio is worth more than the times.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::client::{Client, publish_packet};
use support::full::Full;

/// Messages to and fro in each quality of service, so many times: the least disturbed is taken.
const ROUNDS: usize = 1_000;
const TIMES: usize = 5;
/// Between two requests that find no room.
const PAUSE: Duration = Duration::from_millis(10);

/// Times from a PUBLISH to the message itself, in order: of QoS 0, and of QoS 1 with its PUBACK.
fn measure(client: &mut Client) -> [Vec<Duration>; 2] {
    let late = |times: &Vec<Duration>| times[times.len() * 99 / 100];
    [0, 1].map(|qos| (0..TIMES).map(|_| measure_once(client, qos)).min_by_key(late).expect("several times"))
}

fn measure_once(client: &mut Client, qos: u8) -> Vec<Duration> {
    let packet = publish_packet("talk", qos, 7, &[0; 64]);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let sent = Instant::now();
        match qos {
            0 => client.send(&packet),
            _ => assert_eq!(client.publish("talk", &[0; 64]), 0),
        }
        client.message();
        times.push(sent.elapsed());
    }
    times.sort_unstable();
    times
}

fn microseconds(times: &[Duration], share: f64) -> f64 {
    let at = ((times.len() - 1) as f64 * share) as usize;
    times[at].as_secs_f64() * 1e6
}

fn print(load: &str, times: &[Vec<Duration>; 2], idle: &[Vec<Duration>; 2]) {
    for (qos, (times, idle)) in times.iter().zip(idle).enumerate() {
        let [median, late, last] = [0.5, 0.99, 1.0].map(|share| microseconds(times, share));
        let [by_median, by_late] = [0.5, 0.99].map(|share| microseconds(times, share) / microseconds(idle, share));
        println!("{load:18} {qos} {median:8.0} {late:8.0} {last:8.0}   {by_median:6.2} {by_late:6.2}");
    }
}

fn main() {
    let mut full = Full::start("bench-budget");
    let budget = full.budget_bytes();
    let mut client = full.client("talker");
    assert_eq!(client.subscribe(&["talk"]), [1]);
    measure(&mut client);
    let idle = measure(&mut client);
    let before = full.resident_bytes("VmRSS");
    full.fill();
    let quiet = measure(&mut client);
    let stop = AtomicBool::new(false);
    let pressed = thread::scope(|scope| {
        let press = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                full.press();
                thread::sleep(PAUSE);
            }
        });
        let times = measure(&mut client);
        stop.store(true, Ordering::Relaxed);
        press.join().expect("no panic");
        times
    });
    assert_eq!(full.process().count("client 'slow"), full.slow_readers(), "all slow readers are there still");
    println!("                         round trip us                slower by");
    println!("load             QoS      p50      p99      max      p50    p99");
    print("idle", &idle, &idle);
    print("full", &quiet, &idle);
    print("full, and pressed", &pressed, &idle);
    let [now, most] = ["VmRSS", "VmHWM"].map(|which| full.resident_bytes(which) / 1_024);
    println!("memory: {} KiB idle, {now} KiB full, {most} KiB at most, of {} KiB", before / 1_024, budget / 1_024);
}
