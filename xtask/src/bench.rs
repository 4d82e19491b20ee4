//! `cargo xtask bench`: measurements that a person reads. No gate depends on a time.

use std::ffi::OsString;

use lexopt::ValueExt as _;

use crate::process::{self, Failure, Outcome};
use crate::{compare, workspace};

const HELP: &str = "\
Measures the release build on this machine.

Usage: cargo xtask bench [--only TEXT] [--seconds N] [--save] [--smoke]
       cargo xtask bench logins [--seconds N] [--kind NAME]
       cargo xtask bench handshakes
       cargo xtask bench decisions
       cargo xtask bench durability [--seconds N]
       cargo xtask bench budget

Without a name: CPU time and memory of the broker, of mosquitto where that is installed,
and of a bare forwarder, under the same load in one run, plaintext and mutual TLS

  --only TEXT   only cases with this in their names (`pairs`, `paced`, `idle`, ...)
  --seconds N   for each case and server (default: 2, and up to 5)
  --save        table, figures and chart replace those in tests/load/results
  --smoke       a minute in the tests' profile: says that it works, and nothing else

logins: how long connected clients wait for their answers while a hundred logins a
second arrive, and while none do

  --seconds N   for each phase (default: 10; of durability 3)
  --kind NAME   bad-chain, handshake, bad-token, wrong-password; all without it

handshakes: what a client with a certificate costs that connects and leaves: one that
is new, one that is known, one that resumes its session

decisions: what an authorization decision costs with 10 to 10,000 rules

durability: QoS 1 with the disk, beside mosquitto where that is installed; bytes that
go to the disk; the time to come back with 100,000 retained messages

budget: round trips of a connected client while every table of the smallest board is
full, beside an idle broker; the memory in use, beside what the broker promises";

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("bench", error);
    let (mut name, mut seconds, mut kind) = (None, None::<f64>, None);
    let (mut smoke, mut save, mut only) = (false, false, None);
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("seconds") => {
                seconds = Some(parser.value().and_then(|value| value.parse()).map_err(|error| usage(&error))?);
            }
            lexopt::Arg::Long("smoke") => smoke = true,
            lexopt::Arg::Long("save") => save = true,
            lexopt::Arg::Long("only") => {
                only = Some(parser.value().and_then(|value| value.string()).map_err(|error| usage(&error))?);
            }
            lexopt::Arg::Long("kind") => kind = Some(parser.value().map_err(|error| usage(&error))?),
            lexopt::Arg::Value(value) if name.is_none() => name = Some(value),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let name = match name.as_ref().and_then(|name| name.to_str()) {
        Some(name @ ("logins" | "handshakes" | "decisions" | "durability" | "budget")) => name,
        None => return compare::run(&compare::Asked { smoke, only, seconds, save }),
        Some(other) => {
            return Err(Failure::new(format!(
                "`{other}` is no measurement: logins, handshakes, decisions, durability and budget are"
            )));
        }
    };
    let mut command = workspace::cargo("bench");
    command.args(["--package", "portcullis", "--locked", "--bench", name, "--"]);
    if let Some(seconds) = seconds {
        command.args(["--seconds", &seconds.to_string()]);
    }
    if let Some(kind) = kind {
        command.arg("--kind").arg(kind);
    }
    process::run(&mut command)
}
