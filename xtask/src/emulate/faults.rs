//! What a person has to be told of: no cable, no time, a card that cannot be written, one that has spoiled a slot.
//!
//! A card that turns read-only while it runs, and a full one, are not here: nothing makes the emulator's card do so.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use super::machine::With;
use super::site::PATIENCE;
use super::trial::Bench;
use crate::image::{disk, fat};
use crate::process::{Failure, Outcome};

/// One start with each of them.
pub fn run(bench: &Bench<'_>) -> Outcome {
    world(bench)?;
    spoiled(bench)
}

/// A slot that the card has spoiled gives way to the other one.
fn spoiled(bench: &Bench<'_>) -> Outcome {
    let mut gateway = bench.start(With::default())?;
    let _ = bench.site.until_reached(&mut gateway)?;
    let (_, said) = bench.site.asked()?;
    gateway.pull_plug()?;
    let (slot, [a, b]) = (if said.contains(" in slot a;") { "a" } else { "b" }, disk::SLOTS);
    let start = if slot == "a" { a.start } else { b.start };
    // In the middle of what is loaded.
    let at = u64::try_from(start * fat::SECTOR).unwrap_or(0) + (6 << 20);
    let fault = |error: &std::io::Error| Failure::file("write", &bench.card, error);
    let mut card = File::options().write(true).open(&bench.card).map_err(|error| fault(&error))?;
    card.seek(SeekFrom::Start(at)).and_then(|_| card.write_all(&[0xA5; 4_096])).map_err(|error| fault(&error))?;
    let mut gateway = bench.start(With::default())?;
    let _ = gateway.wait_for(&format!("slot {slot} does not start"), PATIENCE)?;
    let _ = bench.site.until_reached(&mut gateway)?;
    let (_, said) = bench.site.asked()?;
    if said.contains(&format!(" in slot {slot};")) {
        return Err(Failure::new(format!("the spoiled slot is said to run:\n{said}")));
    }
    println!("a slot that the card has spoiled: the other one serves");
    gateway.pull_plug()
}

fn world(bench: &Bench<'_>) -> Outcome {
    let mut gateway = bench.start(With { cable: false, ..With::default() })?;
    let _ = gateway.wait_for("no cable", PATIENCE)?;
    gateway.plug_in()?;
    let reached = bench.site.until_reached(&mut gateway)?;
    println!("no cable: said; with it, CONNACK after {:.1} s in all", reached.as_secs_f32());
    gateway.pull_plug()?;

    bench.clock.set_silent(true);
    let mut gateway = bench.start(With { clock: false, ..With::default() })?;
    let _ = gateway.wait_for("the clock is not set", PATIENCE)?;
    bench.clock.set_silent(false);
    let _ = gateway.wait_for("the clock was set", PATIENCE)?;
    let reached = bench.site.until_reached(&mut gateway)?;
    println!("no time server: said; with one, CONNACK after {:.1} s in all", reached.as_secs_f32());
    gateway.pull_plug()?;

    let mut gateway = bench.start(With { writable: false, ..With::default() })?;
    let _ = gateway.wait_for("can only be read", PATIENCE)?;
    let _ = bench.site.until_reached(&mut gateway)?;
    let (_, said) = bench.site.asked()?;
    if !said.contains("can only be read") {
        return Err(Failure::new(format!("a card that can only be read is not told of:\n{said}")));
    }
    println!("a card that can only be read: served, and told");
    gateway.pull_plug()
}
