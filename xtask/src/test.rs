//! `cargo xtask test`: the gate.
//!
//! Every check and every test, on the host and, under emulation, on the gateways' machines. The steps stand in the order in
//! which a mistake is cheapest to find.

use std::ffi::OsString;
use std::time::Instant;

use crate::process::{self, Failure, Outcome};
use crate::targets::{self, Target};
use crate::toolchain::Toolchain;
use crate::{build, conformance, install, licences, tidy, workspace};

const HELP: &str = "\
Installs what is missing, then runs every check and every test.

Usage: cargo xtask test [--host-only]

  --host-only   without the ARM targets: quick, and no gate";

/// The tests of the whole program that also run against the cross-built binaries.
const FOREIGN_PROGRAM_TESTS: [&str; 3] = ["tutorial", "scenarios", "conformance"];

/// The rooms whose unit tests start the openssl program.
const START_OPENSSL: [&str; 2] = ["tls::tests", "crypto::signatures"];

/// Unit tests that take minutes under emulation and whose subject does not depend on the machine: a hundred thousand rounds of
/// a hash that other tests compare with its published values, and tables of a hundred thousand entries.
const SLOW_UNDER_EMULATION: [&str; 3] = [
    "passwords::tests::the_published_hashes_verify",
    "passwords::tests::new_hashes_verify",
    "a_hundred_thousand_entries",
];

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("test", error);
    let mut host_only = false;
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("host-only") => host_only = true,
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let foreign: Vec<Target> =
        if host_only { Vec::new() } else { targets::foreign()?.into_iter().filter(Target::is_foreign).collect() };
    let begin = Instant::now();
    step("install", install::for_tests)?;
    if !foreign.is_empty() {
        step("install for the ARM targets", || install::for_targets(&foreign))?;
    }
    step("formatting", || process::run(workspace::cargo("fmt").args(["--all", "--check"])))?;
    step("tidy", tidy::check)?;
    step("clippy", clippy)?;
    step("documentation", documentation)?;
    step("licences", licences::check)?;
    step("conformance list", conformance::check)?;
    step("tests", tests)?;
    for target in &foreign {
        step(&format!("unit tests on {}", target.name), || foreign_unit_tests(target))?;
        step(&format!("program tests on {}", target.name), || foreign_program_tests(target))?;
    }
    if !host_only {
        step("static build for the host", || {
            let host =
                Target::named("host")?.ok_or_else(|| Failure::new("the host has no row in the table of targets"))?;
            build::release(&host).map(|(path, bytes)| println!("{}: {bytes} bytes", path.display()))
        })?;
    }
    println!("\nall passed in {} s", begin.elapsed().as_secs());
    Ok(())
}

fn step(name: &str, run: impl FnOnce() -> Outcome) -> Outcome {
    println!("\n== {name}");
    let begin = Instant::now();
    run()?;
    println!("== {name}: passed in {} s", begin.elapsed().as_secs());
    Ok(())
}

fn clippy() -> Outcome {
    let mut command = workspace::cargo("clippy");
    command.args(["--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"]);
    process::run(&mut command)
}

fn documentation() -> Outcome {
    let mut command = workspace::cargo("doc");
    command.args(["--workspace", "--no-deps", "--document-private-items", "--locked", "--quiet"]);
    process::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> Outcome {
    process::run(workspace::cargo("test").args(["--workspace", "--locked", "--quiet"]))
}

/// The unit tests of all rooms, built for a gateway's machine and run under emulation.
fn foreign_unit_tests(target: &Target) -> Outcome {
    let run = |threads: Option<&str>, filters: &[&str]| -> Outcome {
        let mut command = workspace::cargo("test");
        command.args(["--package", "portcullis", "--lib", "--locked", "--quiet"]);
        command.arg("--target-dir").arg(workspace::cross_build_folder());
        Toolchain::of(target)?.apply(target, &mut command);
        if let Some(threads) = threads {
            command.env("RUST_TEST_THREADS", threads);
        }
        process::run(command.arg("--").args(filters))
    };
    let skips = |names: &[&'static str]| names.iter().flat_map(|name| ["--skip", name]).collect::<Vec<_>>();
    // A program with several threads that starts another one can hang under qemu-user 7.2 for good.
    run(Some("1"), &START_OPENSSL)?;
    run(None, &skips(&[START_OPENSSL.as_slice(), &SLOW_UNDER_EMULATION].concat()))
}

/// The tests of the whole program, run here, against a gateway's broker under emulation.
fn foreign_program_tests(target: &Target) -> Outcome {
    let (binary, bytes) = build::release(target)?;
    println!("{}: {bytes} bytes", binary.display());
    let mut command = workspace::cargo("test");
    command.args(["--package", "portcullis", "--locked", "--quiet"]);
    for name in FOREIGN_PROGRAM_TESTS {
        command.arg("--test").arg(name);
    }
    command.env("PORTCULLIS_BINARY", binary);
    if let Some(runner) = target.runner {
        command.env("PORTCULLIS_RUNNER", runner);
    }
    process::run(&mut command)
}
