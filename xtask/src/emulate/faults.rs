//! What a person has to be told of: no cable, no time, a card that cannot be written or turns so, is full, or has spoiled a slot.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::Command;

use super::machine::{Machine, With};
use super::site::PATIENCE;
use super::trial::Bench;
use super::updates;
use crate::image::{disk, fat};
use crate::process::{self, Failure, Outcome};

/// One start with each of them.
pub fn run(bench: &Bench<'_>) -> Outcome {
    world(bench)?;
    worn_out(bench)?;
    full(bench)?;
    spoiled(bench)
}

/// A card that takes no more writes while messages come: what was acknowledged is there once it does again.
fn worn_out(bench: &Bench<'_>) -> Outcome {
    let mut gateway = bench.start(With::default())?;
    let _ = bench.site.until_reached(&mut gateway)?;
    let acknowledged = bench.site.publish_until(95, 40, || {
        gateway.wear_out()?;
        gateway.wait_for("has turned read-only", PATIENCE).map(|_| ())
    })?;
    let _ = bench.site.until_reached(&mut gateway)?;
    told(bench, "can only be read")?;
    gateway.pull_plug()?;
    let mut gateway = bench.start(With::default())?;
    let _ = bench.site.until_reached(&mut gateway)?;
    let missing = acknowledged.difference(&bench.site.receive()?).count();
    if missing > 0 {
        return Err(Failure::new(format!("{missing} of {} acknowledged messages are lost", acknowledged.len())));
    }
    println!("a card that turns read-only: told; all {} acknowledged messages are there", acknowledged.len());
    switch_off(&mut gateway)
}

/// A data partition without room: what must be safe is refused and said, an update too, and all is well once there is room.
fn full(bench: &Bench<'_>) -> Outcome {
    let data = format!("{}?offset={}", bench.card.display(), disk::data(0).start * fat::SECTOR);
    let free = |what: &str| -> Outcome<u64> {
        let said = process::capture(Command::new("dumpe2fs").args(["-h", &data]))?;
        let number = said.lines().find_map(|line| line.strip_prefix(what)?.trim().parse().ok());
        number.ok_or_else(|| Failure::new(format!("dumpe2fs does not say \"{what}\"")))
    };
    let filler = bench.folder.join("filler");
    // Its own tables take some.
    let bytes = free("Free blocks:")?.saturating_sub(64) * free("Block size:")?;
    let contents = vec![0xA5; usize::try_from(bytes).unwrap_or(0)];
    std::fs::write(&filler, contents).map_err(|error| Failure::file("write", &filler, &error))?;
    let write = format!("write {} filler", filler.display());
    process::run(Command::new("debugfs").args(["-w", "-R", &write, &data]))?;
    let mut gateway = bench.start(With::default())?;
    let _ = gateway.wait_for("store full", PATIENCE)?;
    let _ = bench.site.until_reached(&mut gateway)?;
    bench.site.is_out_of_room()?;
    updates::refused(bench, &mut gateway, "less than 16 MiB left")?;
    switch_off(&mut gateway)?;
    process::run(Command::new("debugfs").args(["-w", "-R", "rm filler", &data]))?;
    let mut gateway = bench.start(With::default())?;
    let _ = bench.site.until_reached(&mut gateway)?;
    let acknowledged = bench.site.publish_until(96, 40, || Ok(()))?;
    if !acknowledged.is_subset(&bench.site.receive()?) {
        return Err(Failure::new("acknowledged messages are lost after a full card"));
    }
    println!("a full card: said, what must be safe is refused, and goes on once there is room");
    gateway.pull_plug()
}

/// Whether the gateway tells a person so.
fn told(bench: &Bench<'_>, wanted: &str) -> Outcome {
    let (_, said) = bench.site.asked()?;
    if said.contains(wanted) { Ok(()) } else { Err(Failure::new(format!("\"{wanted}\" is not told:\n{said}"))) }
}

/// As a person does who wants the card.
pub fn switch_off(gateway: &mut Machine) -> Outcome {
    gateway.press_power_button()?;
    let _ = gateway.wait_for("switching off", PATIENCE)?;
    gateway.show_all();
    Ok(())
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
    told(bench, "can only be read")?;
    println!("a card that can only be read: served, and told");
    gateway.pull_plug()
}
