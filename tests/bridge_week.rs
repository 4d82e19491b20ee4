//! A week without the upstream: what a bridge costs in memory and on the disk does not grow, and the newest messages arrive.
//!
//! `PORTCULLIS_BRIDGE_WEEK=tests/bridge_world/results cargo test --test bridge_week` writes figures and chart there. Time is
//! simulated; memory is the heap of the whole process, the counting disk left out.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod bridge_world;

use bridge_world::{MemoryDisk, SIZES, World, bridge, first_times, numbered, numbers};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::fmt::Write as _;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Seconds between two messages.
const INTERVAL_SECONDS: u64 = 20;
const DAY_SECONDS: u64 = 86_400;

/// What was seen at one moment.
struct Sample {
    hours: f64,
    heap_bytes: u64,
    queue_bytes: u64,
    queued: u32,
    dropped: u64,
    disk_bytes: u64,
    disk_written: u64,
}

fn sample(world: &World, disk: &MemoryDisk) -> Sample {
    let stats = ALLOCATOR.stats();
    let live = stats.bytes_allocated as i64 - stats.bytes_deallocated as i64;
    let queue = world.here.borrow().broker.queue_of_insider(&world.statuses[0].borrow().client_identifier());
    Sample {
        hours: world.clock.now_microseconds() as f64 / 3.6e9,
        heap_bytes: u64::try_from(live).unwrap().saturating_sub(disk.bytes()),
        queue_bytes: queue.bytes,
        queued: queue.waiting + queue.in_flight,
        dropped: queue.dropped,
        disk_bytes: disk.bytes(),
        disk_written: disk.written.get(),
    }
}

#[test]
fn a_week_without_the_upstream_costs_bounded_memory_and_disk() {
    let disk = MemoryDisk::default();
    let mut world = World::with_disk(&[bridge("up")], &[], Some(disk.clone()));
    world.pass(10);
    world.set_up(false);
    world.pass(10);
    let mut samples = Vec::new();
    let mut number = 0;
    for _ in 0..7 * DAY_SECONDS / INTERVAL_SECONDS {
        world.client_here.publish("a/0", &numbered(number));
        number += 1;
        world.pass(INTERVAL_SECONDS);
        world.client_here.got.clear();
        world.client_here.acknowledged.clear();
        if number % 90 == 0 {
            samples.push(sample(&world, &disk));
        }
    }
    assert!(world.client_here.refused.is_empty() && world.client_here.is_idle(), "no publisher was refused");
    let last = samples.last().unwrap();
    assert_eq!((last.queued, last.dropped), (1_000, u64::from(number) - 1_000));
    // After the first day nothing is new.
    let after = |day: f64| samples.iter().filter(move |sample| sample.hours >= day * 24.0);
    let first_day = samples.iter().filter(|sample| sample.hours < 24.0).map(|sample| sample.heap_bytes).max().unwrap();
    let rest = after(1.0).map(|sample| sample.heap_bytes).max().unwrap();
    assert!(rest <= first_day + 64 * 1_024, "{rest} bytes of heap, and {first_day} on the first day");
    assert!(samples.iter().all(|sample| sample.disk_bytes <= SIZES.total_bytes));
    world.set_up(true);
    world.pass(300);
    let arrived = first_times(&numbers(&world.client_there, "g/a/0"));
    assert_eq!(arrived, (number - 1_000..number).collect::<Vec<_>>());
    if let Ok(folder) = std::env::var("PORTCULLIS_BRIDGE_WEEK") {
        write(Path::new(&folder), &samples);
    }
}

fn write(folder: &Path, samples: &[Sample]) {
    std::fs::create_dir_all(folder).unwrap();
    let mut figures = String::from("hours,heap_bytes,queue_bytes,queued,dropped,disk_bytes,disk_written\n");
    for sample in samples {
        let Sample { hours, heap_bytes, queue_bytes, queued, dropped, disk_bytes, disk_written } = sample;
        writeln!(figures, "{hours:.2},{heap_bytes},{queue_bytes},{queued},{dropped},{disk_bytes},{disk_written}")
            .unwrap();
    }
    std::fs::write(folder.join("week.csv"), figures).unwrap();
    std::fs::write(folder.join("week.svg"), chart(samples)).unwrap();
}

type Figure = fn(&Sample) -> u64;

/// Three lines over a week, in KiB.
fn chart(samples: &[Sample]) -> String {
    const WIDTH: f64 = 760.0;
    const HEIGHT: f64 = 320.0;
    let lines: [(&str, &str, Figure); 3] = [
        ("heap of the process", "#1f77b4", |sample| sample.heap_bytes),
        ("the log on the disk", "#d62728", |sample| sample.disk_bytes),
        ("messages that wait for the bridge", "#2ca02c", |sample| sample.queue_bytes),
    ];
    let most = samples.iter().flat_map(|sample| lines.map(|(_, _, of)| of(sample))).max().unwrap() as f64 * 1.1;
    let x = |hours: f64| 70.0 + hours / 168.0 * (WIDTH - 90.0);
    let y = |bytes: f64| HEIGHT - 40.0 - bytes / most * (HEIGHT - 80.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for day in 0..=7_u8 {
        let at = x(f64::from(day) * 24.0);
        writeln!(svg, "<line x1=\"{at:.1}\" y1=\"40\" x2=\"{at:.1}\" y2=\"280\" stroke=\"#ddd\"/>").unwrap();
        writeln!(svg, "<text x=\"{at:.1}\" y=\"298\" text-anchor=\"middle\">day {day}</text>").unwrap();
    }
    for part in 0..=4_u8 {
        let bytes = most * f64::from(part) / 4.0;
        writeln!(
            svg,
            "<text x=\"64\" y=\"{:.1}\" text-anchor=\"end\">{:.0} KiB</text>",
            y(bytes) + 4.0,
            bytes / 1_024.0
        )
        .unwrap();
    }
    for (place, (name, colour, of)) in (0..).zip(lines) {
        let points: Vec<String> =
            samples.iter().map(|sample| format!("{:.1},{:.1}", x(sample.hours), y(of(sample) as f64))).collect();
        writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        )
        .unwrap();
        let at = 70 + place * 220;
        writeln!(svg, "<text x=\"{at}\" y=\"24\" fill=\"{colour}\">{name}</text>").unwrap();
    }
    svg.push_str("</svg>\n");
    svg
}
