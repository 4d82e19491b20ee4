//! `cargo xtask install`: what `test` and `build` need beside cargo.
//!
//! On Debian and its children the packages are installed, with sudo where we are not root. Elsewhere the list is printed:
//! guessing at another system's package names would only look like help.

use std::ffi::OsString;
use std::process::Command;

use crate::process::{self, Failure, Outcome};
use crate::targets::{self, Target};
use crate::{only_help, toolchain, workspace};

const HELP: &str = "\
Installs what `cargo xtask test` and `cargo xtask build` need on this machine.

Usage: cargo xtask install

On Debian and its children: mosquitto, its clients, OpenSSL, strace and chromium for the
tests (with paho-mqtt, MQTT.js and playwright-core below target/interop, by python3's pip
and by npm, and promtool, unpacked from its package), cross
linkers and the emulator for the ARM targets, and, where rustup has not the ARM
targets, Debian's own Rust compiler with the matching ARM standard libraries. Uses
sudo when not root. On other systems it says what is missing.";

/// What the tests of the host need: package and a program in it.
const TEST_PACKAGES: [(&str, &str); 5] = [
    ("mosquitto", "mosquitto"),
    ("mosquitto-clients", "mosquitto_pub"),
    ("openssl", "openssl"),
    ("strace", "strace"),
    ("chromium", "chromium"),
];
/// The Python client, as pip names it.
const PAHO: &str = "paho-mqtt==2.1.0";
/// The JavaScript client, and what drives the browser (and brings none), as npm names them; and where they are then.
const MODULES: [(&str, &str); 2] = [("mqtt@5.16.0", "mqtt"), ("playwright-core@1.65.1", "playwright-core")];
/// The package with promtool.
const PROMETHEUS_PACKAGE: &str = "prometheus";
/// The emulator for ARM binaries.
const EMULATOR_PACKAGE: &str = "qemu-user";

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    if only_help("install", HELP, arguments)? {
        return Ok(());
    }
    for_tests()?;
    for_targets(&targets::all()?)
}

/// Installs what the host's tests need.
pub fn for_tests() -> Outcome {
    let missing: Vec<&str> = TEST_PACKAGES
        .iter()
        .filter(|(_, program)| process::find(program).is_none())
        .map(|(package, _)| *package)
        .collect();
    packages(&missing)?;
    client_libraries()?;
    promtool()
}

/// Unpacks the checker of metrics below the target folder. Its package is not installed: it would start a server.
fn promtool() -> Outcome {
    let folder = workspace::root().join("target/interop/prometheus");
    if process::find("promtool").is_some() || folder.join("usr/bin/promtool").is_file() {
        return Ok(());
    }
    if process::find("apt-get").is_none() {
        return Err(Failure::new("promtool is missing on this machine: it comes with Prometheus"));
    }
    workspace::make_folder(&folder)?;
    process::run(Command::new("apt-get").current_dir(&folder).args(["-qq", "download", PROMETHEUS_PACKAGE]))?;
    let entries = std::fs::read_dir(&folder).map_err(|error| Failure::file("read", &folder, &error))?;
    let package = entries.filter_map(Result::ok).map(|entry| entry.path());
    let package = package.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let package = package.ok_or_else(|| Failure::new(format!("cannot get the package {PROMETHEUS_PACKAGE}")))?;
    process::run(Command::new("dpkg").arg("-x").arg(package).arg(&folder))
}

/// Puts what `tests/interop.rs` and `tests/status_page.rs` drive below the target folder, where it is not there yet.
fn client_libraries() -> Outcome {
    let folder = workspace::root().join("target/interop");
    let python = folder.join("python");
    if !python.join("paho").is_dir() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&python).arg(PAHO);
        process::run(&mut pip)?;
    }
    let node = folder.join("node");
    if MODULES.iter().any(|(_, folder)| !node.join("node_modules").join(folder).is_dir()) {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&node);
        npm.args(MODULES.map(|(package, _)| package));
        process::run(&mut npm)?;
    }
    Ok(())
}

/// Installs what building for `targets`, and running what was built, needs.
pub fn for_targets(targets: &[Target]) -> Outcome {
    let mut missing = Vec::new();
    for target in targets {
        let linker = target.linker.unwrap_or("cc");
        if process::find(linker).is_none() {
            missing.extend(target.linker_packages);
        }
        if target.runner.is_some_and(|runner| process::find(runner).is_none()) {
            missing.push(EMULATOR_PACKAGE);
        }
    }
    missing.dedup();
    packages(&missing)?;
    toolchain::prepare(targets)
}

/// Installs Debian packages, or says that they are missing.
pub fn packages(names: &[&str]) -> Outcome {
    if names.is_empty() {
        return Ok(());
    }
    if process::find("apt-get").is_none() {
        return Err(Failure::new(format!(
            "missing on this machine: {0}. These are Debian's names; install what your system calls them. \
             For the ARM targets `rustup target add {1}` serves as well",
            names.join(", "),
            "aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf"
        )));
    }
    // The lists of a fresh machine are empty or old.
    let update = process::run(as_root("apt-get")?.arg("-qq").arg("update"));
    if let Err(failure) = update {
        println!("note: {failure}; going on with the lists that are there");
    }
    process::run(as_root("apt-get")?.args(["-qq", "-y", "--no-install-recommends", "install"]).args(names))
}

/// The program, by way of sudo when we are not root.
fn as_root(program: &str) -> Outcome<Command> {
    let is_root = process::capture(Command::new("id").arg("-u"))?.trim() == "0";
    let mut command = if is_root {
        let mut command = Command::new("env");
        command.arg("DEBIAN_FRONTEND=noninteractive");
        command
    } else {
        let mut command = Command::new("sudo");
        command.arg("DEBIAN_FRONTEND=noninteractive");
        command
    };
    command.arg(program);
    Ok(command)
}
