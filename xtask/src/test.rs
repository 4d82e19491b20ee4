//! `cargo xtask test`: the gate.
//!
//! Every check and every test, on the host and, under emulation, on the gateways' machines. The steps stand in the order in
//! which a mistake is cheapest to find.
//!
//! The gateways' programs are tested in the profile of the tests, so that each dependency is compiled once for a machine; the
//! release profile is built, and tested, for the host.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::emulate::trial;
use crate::process::{self, Failure, Outcome};
use crate::targets::{self, Target};
use crate::toolchain::Toolchain;
use crate::{build, compare, conformance, deb, install, left_out, licences, tidy, workspace};

const HELP: &str = "\
Installs what is missing, then runs every check and every test.

Usage: cargo xtask test [--host-only]

  --host-only   without the ARM targets: quick, and no gate";

/// The tests of the whole program that also run against the binaries of the gateways' machines and of the release profile.
const PROGRAM_TESTS: [&str; 3] = ["tutorial", "scenarios", "conformance"];

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
    left_out::begin()?;
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
    let smoke = compare::Asked { smoke: true, only: None, seconds: None, save: false };
    let release = if host_only { None } else { Target::named("host")? };
    let release = tests_beside(release.as_ref(), &foreign)?;
    step("a minute of the benchmarks", || compare::run(&smoke))?;
    if let Some((binary, bytes)) = release {
        println!("{}: {bytes} bytes", binary.display());
        step("program tests of the release build", || program_tests(&binary, None))?;
        step("a package of it", || deb::trial::short(&deb::named("host")?, &binary))?;
    }
    if let Some(target) = foreign.iter().find(|target| target.name == "aarch64") {
        step("an image in an emulator", || trial::gate(&image_programs(target)?))?;
    }
    let parts = left_out::parts()?;
    if !parts.is_empty() {
        println!("\nLEFT OUT, {} parts:\n  {}", parts.len(), parts.join("\n  "));
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

/// The tests here and on the gateways' machines, and beside them a release build; where its program is, and its size in bytes.
///
/// Many tests wait, and the linker of the release profile is busy on one core.
fn tests_beside(release: Option<&Target>, foreign: &[Target]) -> Outcome<Option<(PathBuf, u64)>> {
    thread::scope(|scope| {
        let release = release.map(|target| scope.spawn(|| build::release(target, &["--quiet"])));
        step("tests", tests)?;
        for target in foreign {
            step(&format!("tests on {}", target.name), || foreign_tests(target))?;
        }
        let Some(release) = release else { return Ok(None) };
        release.join().map_err(|_| Failure::new("the thread of the release build panicked"))?.map(Some)
    })
}

/// The unit tests of all rooms, run under emulation, and the tests of the whole program against a broker under emulation.
fn foreign_tests(target: &Target) -> Outcome {
    let binary = foreign_build(target)?;
    foreign_unit_tests(target)?;
    // What one machine does without an allocation another might not.
    process::run(foreign_cargo(target)?.args(["--test", "allocation", "--", "no_message_costs"]))?;
    program_tests(&binary, target.runner)
}

/// Builds the unit tests and the program for a gateway's machine; where the program is.
///
/// They are asked for together, as a test of the whole program asks for it: cargo would otherwise choose other features for
/// the program's dependencies, and compile a third of them again.
fn foreign_build(target: &Target) -> Outcome<PathBuf> {
    process::run(foreign_cargo(target)?.args(["--no-run", "--test", PROGRAM_TESTS[0]]))?;
    let binary = workspace::cross_build_folder().join(&target.triple).join("debug/portcullis");
    build::check(&binary, target)?;
    Ok(binary)
}

/// A folder with the programs that were tested, as an image takes them.
fn image_programs(target: &Target) -> Outcome<PathBuf> {
    let folder = workspace::target_folder().join("appliance/tested");
    workspace::make_folder(&folder)?;
    for name in ["portcullis", "portcullis-init"] {
        let built = workspace::cross_build_folder().join(&target.triple).join("debug").join(name);
        let stripped = folder.join(format!("{name}-{}", target.name));
        process::run(Command::new(target.strip()).arg("-s").arg("-o").arg(&stripped).arg(&built))?;
    }
    Ok(folder)
}

/// `cargo test` of the unit tests for a gateway's machine.
fn foreign_cargo(target: &Target) -> Outcome<Command> {
    let mut command = workspace::cargo("test");
    command.args(["--package", "portcullis", "--lib", "--locked", "--quiet"]);
    command.arg("--target-dir").arg(workspace::cross_build_folder());
    Toolchain::of(target)?.apply(target, &[], &mut command);
    Ok(command)
}

/// The unit tests of all rooms, built for a gateway's machine and run under emulation.
fn foreign_unit_tests(target: &Target) -> Outcome {
    let run = |threads: Option<&str>, filters: &[&str]| -> Outcome {
        let mut command = foreign_cargo(target)?;
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

/// The tests of the whole program, run here, against this broker, under an emulator where one is named.
fn program_tests(binary: &Path, runner: Option<&str>) -> Outcome {
    let mut command = workspace::cargo("test");
    command.args(["--package", "portcullis", "--locked", "--quiet"]);
    for name in PROGRAM_TESTS {
        command.arg("--test").arg(name);
    }
    command.env("PORTCULLIS_BINARY", binary);
    if let Some(runner) = runner {
        command.env("PORTCULLIS_RUNNER", runner);
    }
    process::run(&mut command)
}
