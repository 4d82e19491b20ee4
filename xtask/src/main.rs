//! The only build entry of Portcullis: `cargo xtask COMMAND`.
//!
//! Comes in: a command line. Goes out: an exit code, and text for the person (or the log of a gate) who reads it.
//! Each command is one file; what they share (running programs, the table of targets, the toolchains) is beside them.
//! Nothing here is part of the broker, and no command asks a question: all of them run without a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a build tool talks to the person who started it")]

mod bench;
mod build;
mod compare;
mod conformance;
mod deb;
mod debian;
mod deploy;
mod elf;
mod emulate;
mod endurance;
mod flash;
mod image;
mod install;
mod left_out;
mod licences;
#[path = "../../tests/support/ports.rs"]
mod ports;
mod process;
mod targets;
mod test;
mod tidy;
mod toolchain;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use process::{Failure, Outcome};

const HELP: &str = "\
The build entry of Portcullis.

Usage: cargo xtask COMMAND [options]

Commands:
  test         install what is missing, then every check and every test, on three targets
  build        static release binaries in target/dist/
  deb          Debian packages of them
  deb-test     a package looked at and run, or its whole life in a Debian of its machine
  deploy       a new version onto a gateway over ssh, and back if it is not well
  fuzz         bytes that nobody would send, for as long as you like
  simulate     the turn with simulated clients against a model, seed by seed
  crash        the log without power at any moment, state by state
  kill         the broker killed under load: what was acknowledged must be there
  bench        what messages and connections cost, beside mosquitto and the least that is possible
  conformance  normative statements of MQTT 5.0 that no test names
  tidy         the arrow check between rooms, and the rules for files
  image        the image of an SD card that starts straight into the broker
  emulate      such an image in qemu, and the test of it
  flash        an image onto an SD card
  licences     licences, sources and advisories of the dependencies
  install      only what `test` and `build` need on this machine

`cargo xtask COMMAND --help` tells the options.";

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.is_empty() {
        eprintln!("{HELP}");
        return ExitCode::FAILURE;
    }
    let command = arguments.remove(0);
    match run(&command.to_string_lossy(), arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, arguments: Vec<OsString>) -> Outcome {
    match command {
        "test" => test::run(arguments),
        "build" => build::run(arguments),
        "deb" => deb::run(arguments),
        "deb-test" => deb::trial::run(arguments),
        "deploy" => deploy::run(arguments),
        "tidy" => tidy::run(arguments),
        "licences" => licences::run(arguments),
        "fuzz" => endurance::fuzz(arguments),
        "simulate" => endurance::simulate(arguments),
        "crash" => endurance::crash(arguments),
        "kill" => endurance::kill(arguments),
        "bench" => bench::run(arguments),
        "conformance" => conformance::run(arguments),
        "install" => install::run(arguments),
        "flash" => flash::run(arguments),
        "image" => image::run(arguments),
        "emulate" => emulate::run(arguments),
        "help" | "-h" | "--help" => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(Failure::new(format!("there is no command `{other}`; `cargo xtask --help` lists them"))),
    }
}

/// Accepts no option but `--help`, for the commands that have none. Returns whether help was asked for and printed.
fn only_help(command: &str, help: &str, arguments: Vec<OsString>) -> Outcome<bool> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut asked = false;
    while let Some(argument) = parser.next().map_err(|error| Failure::usage(command, &error))? {
        match argument {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => asked = true,
            other => return Err(Failure::usage(command, &other.unexpected())),
        }
    }
    if asked {
        println!("{help}");
    }
    Ok(asked)
}
