//! What a person has to be told of: no cable, no time, a card that cannot be written.

use super::machine::With;
use super::site::PATIENCE;
use super::trial::Bench;
use crate::process::{Failure, Outcome};

/// One start with each of them.
pub fn run(bench: &Bench<'_>) -> Outcome {
    let mut gateway = bench.start(With { cable: false, ..With::default() })?;
    let _ = gateway.wait_for("no cable", PATIENCE)?;
    let _ = gateway.wait_for("the broker is ready", PATIENCE)?;
    gateway.plug_in()?;
    let reached = bench.site.until_reached(&mut gateway)?;
    println!("no cable: said; with it, CONNACK after {:.1} s in all", reached.as_secs_f32());
    gateway.pull_plug()?;

    let mut gateway = bench.start(With { writable: false, ..With::default() })?;
    let _ = gateway.wait_for("DEGRADED", PATIENCE)?;
    let _ = gateway.wait_for("the broker is ready", PATIENCE)?;
    let _ = bench.site.until_reached(&mut gateway)?;
    let (_, said) = bench.site.asked()?;
    if !said.contains("can only be read") {
        return Err(Failure::new(format!("a card that can only be read is not told of:\n{said}")));
    }
    println!("a card that can only be read: served, and told");
    gateway.pull_plug()
}
