//! The table of targets: what each is called by cargo, by Debian, by its linker, its emulator and its ELF header.
//!
//! A new target is one more row in [`FOREIGN`]; nothing else in this tool names a target.

use std::path::Path;
use std::process::Command;

use crate::elf::Machine;
use crate::process::{Outcome, capture};

/// One machine that a release binary is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The name on our command line and in `target/dist/portcullis-NAME`.
    pub name: &'static str,
    /// Cargo's name.
    pub triple: String,
    /// The C compiler that links for it; none where the host's own does.
    pub linker: Option<&'static str>,
    /// The user-mode emulator that runs it; none where the host itself does.
    pub runner: Option<&'static str>,
    /// Debian's name of the architecture; empty for the host, whose packages are not foreign.
    pub debian: &'static str,
    /// Debian's packages that bring the linker and the static C library.
    pub linker_packages: [&'static str; 2],
    /// Most bytes of its release binary. Gateways keep two of them, in flash, and load them into the memory of a small board.
    pub bytes_max: u64,
    /// Whether it is a gateway's machine.
    pub is_gateway: bool,
}

/// The names that `--target` accepts, apart from `all`.
pub const NAMES: [&str; 3] = ["aarch64", "armv7", "host"];

struct Row {
    name: &'static str,
    triple: &'static str,
    linker: &'static str,
    runner: &'static str,
    debian: &'static str,
    linker_packages: [&'static str; 2],
    bytes_max: u64,
}

const MEBIBYTE: u64 = 1 << 20;

/// The gateways' machines.
const FOREIGN: [Row; 2] = [
    Row {
        name: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        linker: "aarch64-linux-gnu-gcc",
        runner: "qemu-aarch64",
        debian: "arm64",
        linker_packages: ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        // Four without metrics, pages, commands for a running broker and the bridge with its client, which take half a one, and
        // updates, which take an eighth; the linker rounds up to 64 KiB.
        bytes_max: 4 * MEBIBYTE + 7 * MEBIBYTE / 8,
    },
    Row {
        name: "armv7",
        triple: "armv7-unknown-linux-gnueabihf",
        linker: "arm-linux-gnueabihf-gcc",
        runner: "qemu-arm",
        debian: "armhf",
        linker_packages: ["gcc-arm-linux-gnueabihf", "libc6-dev-armhf-cross"],
        bytes_max: 5 * MEBIBYTE,
    },
];

impl Target {
    /// The target with this name of ours.
    pub fn named(name: &str) -> Outcome<Option<Self>> {
        Ok(all()?.into_iter().find(|target| target.name == name))
    }

    /// The machine that a binary of this target must say it is for.
    pub fn machine(&self) -> Option<Machine> {
        Machine::of_triple(&self.triple)
    }

    /// The program that takes symbols out of a binary: a neighbour of the linker.
    pub fn strip(&self) -> String {
        self.linker.map_or_else(|| "strip".to_owned(), |linker| linker.replace("gcc", "strip"))
    }

    /// A command that runs this program of the target here.
    pub fn command(&self, program: &Path) -> Command {
        match self.runner {
            Some(runner) => {
                let mut command = Command::new(runner);
                command.arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    /// Whether another machine than this one is needed to run it.
    pub fn is_foreign(&self) -> bool {
        self.runner.is_some()
    }

    /// Cargo's environment variable for a key of this target, as in `CARGO_TARGET_<TRIPLE>_LINKER`.
    pub fn cargo_variable(&self, key: &str) -> String {
        format!("CARGO_TARGET_{}_{key}", self.triple.to_uppercase().replace('-', "_"))
    }
}

/// The gateways' targets. One that has the host's own triple needs neither a cross linker nor an emulator.
pub fn foreign() -> Outcome<Vec<Target>> {
    let host = host_triple()?;
    let target = |row: &Row| {
        let is_host = row.triple == host;
        Target {
            name: row.name,
            triple: row.triple.to_owned(),
            linker: (!is_host).then_some(row.linker),
            runner: (!is_host).then_some(row.runner),
            debian: row.debian,
            linker_packages: row.linker_packages,
            bytes_max: row.bytes_max,
            is_gateway: true,
        }
    };
    Ok(FOREIGN.iter().map(target).collect())
}

/// The gateways' targets and the host.
pub fn all() -> Outcome<Vec<Target>> {
    let mut targets = foreign()?;
    targets.push(Target {
        name: "host",
        triple: host_triple()?,
        linker: None,
        runner: None,
        debian: "",
        linker_packages: ["gcc", "libc6-dev"],
        // Made for speed, and not for flash.
        bytes_max: 7 * MEBIBYTE + MEBIBYTE / 2,
        is_gateway: false,
    });
    Ok(targets)
}

/// The triple of the machine this runs on, as the compiler in use tells it.
pub fn host_triple() -> Outcome<String> {
    let told = capture(Command::new("rustc").arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_on_the_command_line_has_a_target() {
        for name in NAMES {
            assert!(Target::named(name).unwrap().is_some(), "{name}");
        }
    }

    #[test]
    fn the_variable_of_a_target_is_spelt_as_cargo_reads_it() {
        let target = Target::named("armv7").unwrap().unwrap();
        assert_eq!(target.cargo_variable("LINKER"), "CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER");
    }
}
