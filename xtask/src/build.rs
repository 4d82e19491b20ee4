//! `cargo xtask build`: static release binaries in `target/dist/`, and their sizes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use lexopt::ValueExt as _;

use crate::process::{self, Failure, Outcome};
use crate::targets::{self, NAMES, Target};
use crate::toolchain::Toolchain;
use crate::{elf, install, workspace};

const HELP: &str = "\
Makes static release binaries in target/dist/ and prints their sizes.

Usage: cargo xtask build [--target aarch64|armv7|host|all]

  --target NAME   one target (default: host); all of them with `all`";

/// What the compiler is told for release binaries beside their profile: no tables for unwinding from between any two
/// instructions. A panic ends the process and names its place in the source, and there are no symbols to show a stack with.
const RELEASE_FLAGS: [&str; 2] = ["-C", "force-unwind-tables=no"];

/// Gateways keep two binaries in flash: theirs is made small, and takes a tenth more time for a small message.
const GATEWAY_PROFILE: [&str; 4] = [
    "--config",
    "profile.release.package.portcullis.opt-level=\"s\"",
    "--config",
    "profile.release.package.rustls-rustcrypto.opt-level=\"s\"",
];

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("build", error);
    let mut name = "host".to_owned();
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("target") => {
                name = parser.value().and_then(|value| value.string()).map_err(|error| usage(&error))?;
            }
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let wanted = if name == "all" {
        targets::all()?
    } else {
        let target = Target::named(&name)?;
        vec![target.ok_or_else(|| {
            Failure::new(format!("there is no target `{name}`; it is one of {}, all", NAMES.join(", ")))
        })?]
    };
    install::for_targets(&wanted)?;
    let mut built = Vec::new();
    for target in wanted {
        built.push((target.name, release(&target, &[])?));
    }
    for (name, (path, bytes)) in built {
        println!("{name:8} {bytes:>9} bytes  {}", path.display());
    }
    Ok(())
}

/// Builds the release binary of a target, with further options of `cargo build`; where it is, and its size in bytes.
pub fn release(target: &Target, options: &[&str]) -> Outcome<(PathBuf, u64)> {
    let (kept, bytes) = program(target, "portcullis", options)?;
    check_size(bytes, target)?;
    Ok((kept, bytes))
}

/// Builds a program of the package for release, static and without symbols; where it is, and its size in bytes.
pub fn program(target: &Target, name: &str, options: &[&str]) -> Outcome<(PathBuf, u64)> {
    let toolchain = Toolchain::of(target)?;
    let mut command = workspace::cargo("build");
    command.args(["--release", "--package", "portcullis", "--bin", name, "--locked"]).args(options);
    command.arg("--target-dir").arg(workspace::cross_build_folder());
    toolchain.apply(target, &RELEASE_FLAGS, &mut command);
    if target.is_gateway {
        command.args(GATEWAY_PROFILE);
    }
    process::run(&mut command)?;
    let made = workspace::cross_build_folder().join(&target.triple).join("release").join(name);
    check(&made, target)?;
    workspace::make_folder(&workspace::dist_folder())?;
    let kept = workspace::dist_folder().join(format!("{name}-{}", target.name));
    // What the C library brings into a static binary keeps its symbols, whatever the profile says.
    process::run(Command::new(target.strip()).arg("-s").arg("-o").arg(&kept).arg(&made))?;
    let bytes = check(&kept, target)?;
    Ok((kept, bytes))
}

/// The size in bytes of a binary that is right for a target. One that is dynamic, or for another machine, would fail on the
/// gateway and not here.
pub fn check(binary: &Path, target: &Target) -> Outcome<u64> {
    let file = std::fs::read(binary).map_err(|error| Failure::file("read", binary, &error))?;
    let header =
        elf::read(&file).ok_or_else(|| Failure::new(format!("the binary for {} is no ELF file", target.name)))?;
    if header.wants_interpreter {
        return Err(Failure::new(format!("the binary for {} is not static", target.name)));
    }
    if target.machine().is_some() && header.machine != target.machine() {
        let machine = header.machine.map_or_else(|| "another machine".to_owned(), |machine| machine.to_string());
        return Err(Failure::new(format!("the binary for {} is for {machine}", target.name)));
    }
    Ok(u64::try_from(file.len()).unwrap_or(u64::MAX))
}

/// Refuses a release binary of more bytes than its target's limit, so that what makes it grow is noticed when it comes.
fn check_size(bytes: u64, target: &Target) -> Outcome {
    if bytes <= target.bytes_max {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the binary for {} takes {bytes} bytes; xtask/src/targets.rs allows {}",
        target.name, target.bytes_max
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_of_more_bytes_than_its_target_allows_is_refused() {
        for name in NAMES {
            let target = Target::named(name).unwrap().unwrap();
            assert!(check_size(target.bytes_max, &target).is_ok());
            assert!(check_size(target.bytes_max + 1, &target).is_err());
        }
    }
}
