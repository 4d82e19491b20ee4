//! `cargo xtask deb-test`: a package is what it should be.
//!
//! The short form needs no root and no network: the package is made twice and compared, looked at by lintian, systemd-analyze, mandoc
//! and the shells whose completions it has, and its program is run as its unit says, from a folder. The long form installs it in a
//! Debian of its architecture, under the emulator where that is foreign, and does there what `cross/debian/trial` says, or boots systemd with it and
//! does what `cross/debian/trial-systemd` says.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lexopt::ValueExt as _;

use super::chroot::{Chroot, With};
use super::{Contents, Maintainer, named, released};
use crate::process::{self, Failure, Outcome};
use crate::targets::Target;
use crate::{install, left_out, ports, workspace};

const HELP: &str = "\
Makes a Debian package and tries it.

Usage: cargo xtask deb-test [--target aarch64|armv7|host] [--binary FILE]
                            [--chroot] [--systemd] [--suite NAME]

  --target NAME  one target (default: host)
  --binary FILE  pack this static binary instead of building one
  --chroot       also install, reload, upgrade, remove and purge it in a Debian of
                 its architecture, under the emulator where that is foreign. Needs
                 root, and fetches that Debian with mmdebstrap: minutes
  --systemd      also boot systemd with it, and see what the unit's sandbox, credentials,
                 reload and watchdog do, and what a deploy over ssh does, as root and
                 through sudo. For this machine's architecture; needs root
  --suite NAME   that Debian's release (default: bookworm)";

/// What the short form looks at a package with: Debian's package and a program in it. systemd-analyze is used where it is there.
const PACKAGES: [(&str, &str); 2] = [("lintian", "lintian"), ("mandoc", "mandoc")];
/// Greatest exposure that systemd-analyze may find, tenths.
const EXPOSURE_MAX: &str = "--threshold=15";
/// How long the program may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("deb-test", error);
    let (mut chroot, mut systemd) = (false, false);
    let (mut name, mut binary, mut suite) = ("host".to_owned(), None, "bookworm".to_owned());
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("target") => {
                name = parser.value().and_then(|value| value.string()).map_err(|error| usage(&error))?;
            }
            lexopt::Arg::Long("binary") => {
                binary = Some(PathBuf::from(parser.value().map_err(|error| usage(&error))?));
            }
            lexopt::Arg::Long("suite") => {
                suite = parser.value().and_then(|value| value.string()).map_err(|error| usage(&error))?;
            }
            lexopt::Arg::Long("chroot") => chroot = true,
            lexopt::Arg::Long("systemd") => systemd = true,
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let target = named(&name)?;
    let binary = match binary {
        Some(binary) => binary,
        None => released(&target)?,
    };
    if systemd && target.is_foreign() {
        return Err(Failure::new(
            "systemd is not booted under the emulator: --systemd is for this machine's architecture",
        ));
    }
    short(&target, &binary)?;
    if chroot {
        long(&target, &binary, &suite, With::Nothing)?;
    }
    if systemd { long(&target, &binary, &suite, With::Systemd) } else { Ok(()) }
}

/// The short form. Where there is no dpkg-deb, only says so.
pub fn short(target: &Target, binary: &Path) -> Outcome {
    if process::find("dpkg-deb").is_none() {
        return left_out::tell("the package: dpkg-deb is missing");
    }
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(_, program)| process::find(program).is_none()).map(|(package, _)| *package).collect();
    install::packages(&missing)?;
    let folder = workspace::target_folder().join("deb-test");
    workspace::remove_folder(&folder)?;
    let package = pack(target, binary, env!("CARGO_PKG_VERSION"), &folder.join("one"))?;
    let again = pack(target, binary, env!("CARGO_PKG_VERSION"), &folder.join("two/deeper"))?;
    if bytes(&package)? != bytes(&again)? {
        return Err(Failure::new(format!("{} and {} differ", package.display(), again.display())));
    }
    process::run(Command::new("lintian").args(["--allow-root", "--fail-on", "error"]).arg(&package))?;
    let root = folder.join("root");
    process::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&root))?;
    units(&root)?;
    texts(&root)?;
    from_a_folder(&root, &folder, target)?;
    println!("{}: passed", package.display());
    Ok(())
}

/// Makes a package in a folder that need not be there.
fn pack(target: &Target, binary: &Path, version: &str, out: &Path) -> Outcome<PathBuf> {
    workspace::make_folder(out)?;
    let maintainer = Maintainer::of_environment()?;
    let (target, binary, out) = (target.clone(), binary.to_owned(), out.to_owned());
    Contents { target, version: version.to_owned(), maintainer, binary, out }.pack()
}

fn bytes(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|error| Failure::file("read", path, &error))
}

/// What systemd says of the units, where it is installed.
fn units(root: &Path) -> Outcome {
    if process::find("systemd-analyze").is_none() {
        return left_out::tell("the units of the package: systemd-analyze is missing");
    }
    let folder = root.join("usr/lib/systemd/system");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=yes", "--no-pager", EXPOSURE_MAX]).arg(folder.join("portcullis.service"));
    let told = process::capture(&mut security)?;
    println!("{}", told.lines().last().unwrap_or_default());
    // It wants the programs that units start.
    for name in ["bin/sh", "bin/sleep", "bin/systemctl"] {
        let file = root.join(name);
        workspace::make_folder(file.parent().unwrap_or(root))?;
        fs::copy(root.join("usr/bin/portcullis"), &file).map_err(|error| Failure::file("write", &file, &error))?;
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(format!("--root={}", root.display()));
    let output = verify
        .args(["portcullis.service", "portcullis-bake.path", "portcullis-bake.service"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::new(format!("systemd-analyze could not be started: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What it does not know it says and forgives.
    if output.status.success() && !said.contains("portcullis") {
        Ok(())
    } else {
        Err(Failure::new(format!("systemd-analyze verify: {}", said.trim())))
    }
}

/// The manual, and the completions of shells that are installed.
fn texts(root: &Path) -> Outcome {
    let page = root.join("portcullis.1");
    let text = process::capture(Command::new("gzip").arg("-dc").arg(root.join("usr/share/man/man1/portcullis.1.gz")))?;
    workspace::write(&page, &text)?;
    process::run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&page))?;
    let share = root.join("usr/share");
    for (shell, file) in [
        ("bash", "bash-completion/completions/portcullis"),
        ("zsh", "zsh/vendor-completions/_portcullis"),
        ("fish", "fish/vendor_completions.d/portcullis.fish"),
    ] {
        if process::find(shell).is_some() {
            process::run(Command::new(shell).arg("-n").arg(share.join(file)))?;
        }
    }
    if process::find("bash").is_none() {
        return Ok(());
    }
    // What a person would see who presses the key behind these words.
    let ask = |words: &str| {
        let script = format!(
            ". {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _portcullis; echo \"${{COMPREPLY[*]}}\"",
            share.join("bash-completion/completions/portcullis").display()
        );
        process::capture(Command::new("bash").args(["-c", &script]))
    };
    for (words, wanted) in [
        ("portcullis he", "health"),
        ("portcullis run --no", "--no-fallback"),
        ("portcullis bake x --board zer", "zero2w"),
    ] {
        let told = ask(words)?;
        if told.trim() != wanted {
            return Err(Failure::new(format!("bash completes `{words}` to `{}`, not to `{wanted}`", told.trim())));
        }
    }
    Ok(())
}

/// Bakes and runs what was unpacked below `root` as its unit says, with folders below `folder`, until it is ready and well.
fn from_a_folder(root: &Path, folder: &Path, target: &Target) -> Outcome {
    let unit = root.join("usr/lib/systemd/system/portcullis.service");
    let unit = fs::read_to_string(&unit).map_err(|error| Failure::file("read", &unit, &error))?;
    let sockets = Sockets::new()?;
    let (sources, state, runtime) = (root.join("etc/portcullis"), folder.join("state"), sockets.0.join("runtime"));
    for made in [&state, &runtime] {
        workspace::make_folder(made)?;
    }
    // Another broker may be running here.
    let port = ports::free(1).ok_or_else(|| Failure::new("no port is free"))?;
    for (name, former, next) in [
        ("listener.yaml", "port: 1883", format!("port: {port}")),
        ("gateway.yaml", "/etc/portcullis", sources.display().to_string()),
    ] {
        let file = sources.join(name);
        let text = fs::read_to_string(&file).map_err(|error| Failure::file("read", &file, &error))?;
        if !text.contains(former) {
            return Err(Failure::new(format!("{} does not say `{former}`", file.display())));
        }
        workspace::write(&file, &text.replacen(former, &next, 1))?;
    }
    let socket_path = sockets.0.join("notify");
    let manager = UnixDatagram::bind(&socket_path).map_err(|error| Failure::file("bind", &socket_path, &error))?;
    manager.set_read_timeout(Some(PATIENCE)).map_err(|error| Failure::file("use", &socket_path, &error))?;
    let command = |line: &str| {
        let mut words = line.split(' ').map(|word| {
            word.replace("/usr/bin", &root.join("usr/bin").to_string_lossy())
                .replace("/etc/portcullis", &sources.to_string_lossy())
                .replace("/var/lib/portcullis", &state.to_string_lossy())
        });
        let program = words.next().unwrap_or_default();
        let mut command = target.runner.map_or_else(
            || Command::new(&program),
            |runner| {
                let mut command = Command::new(runner);
                command.arg(&program);
                command
            },
        );
        command.args(words).env("STATE_DIRECTORY", &state).env("RUNTIME_DIRECTORY", &runtime);
        command.env("NOTIFY_SOCKET", &socket_path).stdin(Stdio::null());
        command
    };
    process::run(&mut command(line(&unit, "ExecStartPre")?))?;
    let told = process::capture(&mut command("/usr/bin/portcullis inspect /var/lib/portcullis/portcullis.blob"))?;
    limited(&told, line(&unit, "MemoryMax")?)?;
    let log = folder.join("journal");
    let file = fs::File::create(&log).map_err(|error| Failure::file("write", &log, &error))?;
    let child = command(line(&unit, "ExecStart")?).stderr(file).spawn();
    let mut broker = Broker(child.map_err(|error| Failure::new(format!("the broker could not be started: {error}")))?);
    let outcome = served(&manager).and_then(|()| {
        process::run(&mut command(line(&unit, "ExecReload")?))?;
        let health = format!("/usr/bin/portcullis health --control {}", runtime.join("control.sock").display());
        healthy(|| command(&health))
    });
    let ended = broker.end();
    let said = || fs::read_to_string(&log).unwrap_or_default();
    outcome.and(ended).map_err(|failure| Failure::new(format!("{failure}; the broker said:\n{}", said())))
}

/// A folder for sockets, which goes away with this value. Their names may have 107 bytes (unix(7)), which a deep checkout exceeds.
struct Sockets(PathBuf);

impl Sockets {
    fn new() -> Outcome<Self> {
        let folder = std::env::temp_dir().join(format!("portcullis-{}", std::process::id()));
        workspace::remove_folder(&folder)?;
        // For the eyes of this user: others may put things beside it.
        let made = fs::DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| Failure::file("make", &folder, &error)).map(|()| Self(folder))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A line of the unit, without the mark for failures that do not count.
fn line<'a>(unit: &'a str, key: &str) -> Outcome<&'a str> {
    let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let found = found.ok_or_else(|| Failure::new(format!("portcullis.service has no {key}")))?;
    Ok(found.trim_start_matches('-'))
}

/// That the unit's limit is made of the budget that the blob is baked for, as `inspect` prints it.
fn limited(inspected: &str, limit: &str) -> Outcome {
    let budget = inspected.split("memory budget ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    let budget = budget.ok_or_else(|| Failure::new("`portcullis inspect` prints no memory budget"))?;
    if limit.parse() == Ok(budget + budget / 2) {
        return Ok(());
    }
    Err(Failure::new(format!("MemoryMax={limit} is not one and a half times the budget of {budget} bytes")))
}

/// Waits until the broker says that it is ready.
fn served(manager: &UnixDatagram) -> Outcome {
    let mut buffer = [0; 1_024];
    loop {
        let length = manager.recv(&mut buffer).map_err(|_| Failure::new("the broker does not say READY=1"))?;
        if buffer.get(..length).is_some_and(|told| told.starts_with(b"READY=1")) {
            return Ok(());
        }
    }
}

/// Waits until `health`, asked anew each time, is content: the broker looks at itself only once it serves.
fn healthy(health: impl Fn() -> Command) -> Outcome {
    let begin = Instant::now();
    loop {
        match process::capture(&mut health()) {
            Err(failure) if begin.elapsed() > PATIENCE => return Err(failure),
            Err(_) => thread::sleep(Duration::from_millis(200)),
            Ok(told) => {
                print!("{told}");
                return Ok(());
            }
        }
    }
}

/// A running broker, which ends with this value.
struct Broker(Child);

impl Broker {
    /// Ends it as systemd does; it must end well.
    fn end(&mut self) -> Outcome {
        process::run(Command::new("kill").arg(self.0.id().to_string()))?;
        let status = self.0.wait().map_err(|error| Failure::new(format!("the broker is lost: {error}")))?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("the broker ended with {status}"))) }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It has ended, unless something failed before that.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The long form: the life of two versions in a Debian of the target's architecture.
fn long(target: &Target, binary: &Path, suite: &str, with: With) -> Outcome {
    let folder = workspace::target_folder().join("deb-test");
    let version = env!("CARGO_PKG_VERSION");
    let packages = [
        pack(target, binary, version, &folder.join("old"))?,
        pack(target, binary, &format!("{version}+next"), &folder.join("new"))?,
    ];
    let chroot = Chroot::of(target, suite, with, &folder)?;
    let trials = workspace::root().join("cross/debian");
    match with {
        With::Nothing => chroot.run(&trials.join("trial"), &packages),
        With::Systemd => {
            let [old, new] = packages;
            let own = std::env::current_exe();
            let own = own.map_err(|error| Failure::new(format!("where is this program? {error}")))?;
            chroot.boot(&trials.join("trial-systemd"), &[old, new, own])
        }
    }
}
