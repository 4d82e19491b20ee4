//! `cargo xtask fuzz`, `simulate`, `crash` and `kill`: the long forms of tests that the gate runs for a moment.
//!
//! All run an optimised build of the same tests, with the time or the number of seeds, states or kills given in the environment.

use std::ffi::OsString;

use lexopt::ValueExt as _;

use crate::process::{self, Failure, Outcome};
use crate::workspace;

const FUZZ_HELP: &str = "\
Gives the codec, the matcher and the broker bytes that nobody would send.

Usage: cargo xtask fuzz [--target NAME] [--seconds N] [--seed N]

  --target NAME   frame, round_trip (properties included), topic_match,
                  broker_sessions, authorization, http; all of them without it
  --seconds N     for each target (default: 60)
  --seed N        one case again, as a failure printed it";

const SIMULATE_HELP: &str = "\
Runs the product's own turn with simulated clients against a model.

Usage: cargo xtask simulate [--seeds N] [--seed N]

  --seeds N   so many seeds (default: 2000)
  --seed N    one seed again, as a failure printed it";

const CRASH_HELP: &str = "\
Takes the power from the log at every moment, and reads what is left.

Usage: cargo xtask crash [--states N] [--seed N]

  --states N   so many crash states (default: 100000)
  --seed N     one workload again, as a failure printed it";

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
    let form = Seeded {
        command: "simulate",
        help: SIMULATE_HELP,
        test: "simulation",
        filter: None,
        count: ("seeds", 2_000, "PORTCULLIS_SIMULATION_SEEDS"),
        seed: "PORTCULLIS_SIMULATION_SEED",
    };
    form.run(arguments)
}

/// Runs `crash`.
pub fn crash(arguments: Vec<OsString>) -> Outcome {
    let form = Seeded {
        command: "crash",
        help: CRASH_HELP,
        test: "crash",
        filter: None,
        count: ("states", 100_000, "PORTCULLIS_CRASH_STATES"),
        seed: "PORTCULLIS_CRASH_SEED",
    };
    form.run(arguments)
}

/// Runs `kill`.
pub fn kill(arguments: Vec<OsString>) -> Outcome {
    let form = Seeded {
        command: "kill",
        help: KILL_HELP,
        test: "durability",
        filter: Some("kills::"),
        count: ("times", 200, "PORTCULLIS_KILLS"),
        seed: "PORTCULLIS_KILL_SEED",
    };
    form.run(arguments)
}

/// A test that takes a number of cases, or the seed of one, from the environment.
struct Seeded {
    command: &'static str,
    help: &'static str,
    test: &'static str,
    /// Which tests of it; all if not said.
    filter: Option<&'static str>,
    /// The option, how many without it, and the variable.
    count: (&'static str, u64, &'static str),
    /// The variable.
    seed: &'static str,
}

impl Seeded {
    fn run(&self, arguments: Vec<OsString>) -> Outcome {
        let mut parser = lexopt::Parser::from_args(arguments);
        let usage = |error: &lexopt::Error| Failure::usage(self.command, error);
        let (option, mut count, variable) = self.count;
        let mut seed = None::<u64>;
        while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
            match argument {
                lexopt::Arg::Long(name) if name == option => {
                    count = number(&mut parser).map_err(|error| usage(&error))?;
                }
                lexopt::Arg::Long("seed") => seed = Some(number(&mut parser).map_err(|error| usage(&error))?),
                lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                    println!("{}", self.help);
                    return Ok(());
                }
                other => return Err(usage(&other.unexpected())),
            }
        }
        let mut command = workspace::cargo("test");
        command.args(["--release", "--locked", "--test", self.test, "--"]).args(self.filter).arg("--nocapture");
        command.env(variable, count.to_string());
        if let Some(seed) = seed {
            command.env(self.seed, seed.to_string());
        }
        process::run(&mut command)
    }
}

fn number(parser: &mut lexopt::Parser) -> Result<u64, lexopt::Error> {
    parser.value()?.parse()
}
