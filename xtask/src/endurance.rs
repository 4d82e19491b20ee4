//! `cargo xtask fuzz`, `cargo xtask simulate` and `cargo xtask kill`: the long forms of tests that the gate runs for a moment.
//!
//! All run an optimised build of the same tests, with the time, the number of seeds or of kills given in the environment.

use std::ffi::OsString;

use lexopt::ValueExt as _;

use crate::process::{self, Failure, Outcome};
use crate::workspace;

const FUZZ_HELP: &str = "\
Gives the codec, the matcher and the broker bytes that nobody would send.

Usage: cargo xtask fuzz [--target NAME] [--seconds N] [--seed N]

  --target NAME   frame, round_trip (properties included), topic_match,
                  broker_sessions, authorization; all of them without it
  --seconds N     for each target (default: 60)
  --seed N        one case again, as a failure printed it";

const SIMULATE_HELP: &str = "\
Runs the product's own turn with simulated clients against a model.

Usage: cargo xtask simulate [--seeds N] [--seed N]

  --seeds N   so many seeds (default: 2000)
  --seed N    one seed again, as a failure printed it";

const KILL_HELP: &str = "\
Kills the broker under load, over and over, and compares what clients get with what
was acknowledged to them.

Usage: cargo xtask kill [--times N] [--seed N]

  --times N   so many kills (default: 200)
  --seed N    the same moments again, as far as a machine does anything twice";

/// Runs `fuzz`.
pub fn fuzz(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("fuzz", error);
    let (mut target, mut seconds, mut seed) = (None, 60_u64, None::<u64>);
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("target") => {
                target = Some(parser.value().and_then(|value| value.string()).map_err(|error| usage(&error))?);
            }
            lexopt::Arg::Long("seconds") => seconds = number(&mut parser).map_err(|error| usage(&error))?,
            lexopt::Arg::Long("seed") => seed = Some(number(&mut parser).map_err(|error| usage(&error))?),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{FUZZ_HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let mut command = workspace::cargo("test");
    command.args(["--release", "--locked", "--test", "fuzz", "--"]).args(target).args([
        "--nocapture",
        "--test-threads",
        "2",
    ]);
    match seed {
        Some(seed) => command.env("PORTCULLIS_FUZZ_SEED", seed.to_string()),
        None => command.env("PORTCULLIS_FUZZ_SECONDS", seconds.to_string()),
    };
    process::run(&mut command)
}

/// Runs `simulate`.
pub fn simulate(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("simulate", error);
    let (mut seeds, mut seed) = (2_000_u64, None::<u64>);
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("seeds") => seeds = number(&mut parser).map_err(|error| usage(&error))?,
            lexopt::Arg::Long("seed") => seed = Some(number(&mut parser).map_err(|error| usage(&error))?),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{SIMULATE_HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let mut command = workspace::cargo("test");
    command.args(["--release", "--locked", "--test", "simulation", "--", "--nocapture"]);
    match seed {
        Some(seed) => command.env("PORTCULLIS_SIMULATION_SEED", seed.to_string()),
        None => command.env("PORTCULLIS_SIMULATION_SEEDS", seeds.to_string()),
    };
    process::run(&mut command)
}

/// Runs `kill`.
pub fn kill(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("kill", error);
    let (mut times, mut seed) = (200_u64, None::<u64>);
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("times") => times = number(&mut parser).map_err(|error| usage(&error))?,
            lexopt::Arg::Long("seed") => seed = Some(number(&mut parser).map_err(|error| usage(&error))?),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{KILL_HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let mut command = workspace::cargo("test");
    command.args(["--release", "--locked", "--test", "durability", "--", "kills::", "--nocapture"]);
    command.env("PORTCULLIS_KILLS", times.to_string());
    if let Some(seed) = seed {
        command.env("PORTCULLIS_KILL_SEED", seed.to_string());
    }
    process::run(&mut command)
}

fn number(parser: &mut lexopt::Parser) -> Result<u64, lexopt::Error> {
    parser.value()?.parse()
}
