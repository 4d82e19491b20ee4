//! Which compiler and which standard library a target is built with.
//!
//! Where rustup has the target, rustup's. Else Debian's compiler with Debian's standard library for the foreign
//! architecture: see `debian.rs` and `cross/README.md`.

use std::path::PathBuf;
use std::process::Command;

use crate::debian;
use crate::process::{self, Outcome};
use crate::targets::{self, Target};

/// How cargo is told to build for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// The compiler in use has the target's standard library.
    Own,
    /// Debian's compiler, with a sysroot of ours.
    Debian {
        /// The sysroot.
        sysroot: PathBuf,
    },
}

impl Toolchain {
    /// The toolchain for a target. Makes Debian's sysroot when it is needed and not there yet.
    pub fn of(target: &Target) -> Outcome<Self> {
        if has_library(target)? { Ok(Self::Own) } else { Ok(Self::Debian { sysroot: debian::sysroot(target)? }) }
    }

    /// Adds to a cargo command what this toolchain and target need, and further flags for the compiler. Statically linked
    /// throughout.
    pub fn apply(&self, target: &Target, further: &[&str], command: &mut Command) {
        let mut flags =
            ["-C", "target-feature=+crt-static"].iter().chain(further).copied().collect::<Vec<_>>().join(" ");
        if let Self::Debian { sysroot } = self {
            command.env("RUSTC", debian::COMPILER);
            flags.push_str(" --sysroot ");
            flags.push_str(&sysroot.to_string_lossy());
        }
        command.arg("--target").arg(&target.triple);
        command.env(target.cargo_variable("RUSTFLAGS"), flags);
        if let Some(linker) = target.linker {
            command.env(target.cargo_variable("LINKER"), linker);
        }
        if let Some(runner) = target.runner {
            command.env(target.cargo_variable("RUNNER"), runner);
        }
    }
}

/// Installs compilers and standard libraries for `targets`.
pub fn prepare(targets: &[Target]) -> Outcome {
    for target in targets {
        Toolchain::of(target)?;
    }
    Ok(())
}

/// Whether the compiler in use has the standard library of a target.
fn has_library(target: &Target) -> Outcome<bool> {
    if target.triple == targets::host_triple()? {
        return Ok(true);
    }
    let sysroot = process::capture(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(sysroot.trim()).join("lib/rustlib").join(&target.triple).join("lib").is_dir())
}
