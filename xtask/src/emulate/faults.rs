//! What a person has to be told of: no cable, no time, a card that cannot be written.
//!
//! A card that turns read-only while it runs, and a full one, are not here: nothing makes the emulator's card do so.

use super::machine::With;
use super::site::PATIENCE;
use super::trial::Bench;
use crate::process::{Failure, Outcome};

/// One start with each of them.
pub fn run(bench: &Bench<'_>) -> Outcome {
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
