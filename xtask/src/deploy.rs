//! `cargo xtask deploy HOST`: a new version onto a gateway, and the old one back if the new one is not well.
//!
//! Comes in: a package for the gateway's architecture, which is asked of it, and ssh. Goes out: the new version running and ready, or
//! the previous version as it was. **Invariant:** nothing on the gateway is changed before the package of the previous version is
//! kept there, or it is known that there is none. **Invariant:** until the new version was seen to be well, the previous one is what
//! the next deploy goes back to, whatever power does in between.
//!
//! Everything that changes the gateway is one script that runs there to its end, so that a connection that breaks leaves no
//! half: what the script does not get to say, it has done all the same.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lexopt::ValueExt as _;

use crate::deb::{self, Contents, Maintainer};
use crate::process::{self, Failure, Outcome};
use crate::targets;
use crate::workspace;

const HELP: &str = "\
Installs Portcullis on a gateway over ssh, and goes back if it does not get well.

Usage: cargo xtask deploy HOST [--package FILE] [--config FOLDER] [--seconds N]
                          [--dry-run] [--ssh PROGRAM]

HOST is what ssh takes: gateway, pi@gateway, or a name of ~/.ssh/config. It runs
Debian or one of its children, with systemd; the user is root or may use sudo
without a password, which is found out before anything else.

  --package FILE   install this package (default: one is built for the gateway's
                   architecture, its version with the time behind it)
  --config FOLDER  replace /etc/portcullis by these sources too, but for its secrets
                   and revocation lists. The new version checks them there first
  --seconds N      how long it may take until `portcullis health` is content (60)
  --dry-run        say what would be done; the gateway is only asked what it is
  --ssh PROGRAM    another program than ssh, with the same arguments

The previous version and configuration stay in /var/lib/portcullis-deploy, and what the
gateway said, which goes on by itself when the connection breaks. They come
back by themselves when the new one cannot be installed, refuses the configuration,
or is not well in time, but for checks that were not passed before either. What a power
cut there ends half way, the next deploy finishes.";

/// What the gateway does. `@SECONDS@` is how long it waits for health. Standard input is an archive with `new.deb` and perhaps
/// `sources/`; exit code 0: the new version is well, or no worse than the one before was, 10: the previous one is, 11: neither.
const SCRIPT: &str = include_str!("../../cross/debian/deploy");

/// What the gateway says of itself, a line each, and what changes nothing there: its architecture, how its package is and of which
/// version, and whether the user is root or may become it without a password.
const QUESTIONS: &str = "dpkg --print-architecture; \
    dpkg-query -W -f '${db:Status-Status} ${Version}\\n' portcullis 2>/dev/null || echo none; \
    if [ \"$(id -u)\" = 0 ] || sudo -n sh -c : </dev/null >/dev/null 2>&1; then echo root; fi";

/// What the command line says.
#[derive(Debug)]
struct Options {
    host: String,
    package: Option<PathBuf>,
    configuration: Option<PathBuf>,
    seconds: u32,
    dry_run: bool,
    ssh: PathBuf,
    /// Where the files of the gateway begin, for tests without a gateway; empty otherwise.
    root: String,
}

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let Some(options) = parse(arguments)? else {
        println!("{HELP}");
        return Ok(());
    };
    let told = Answers::ask(&options)?;
    let architecture = told.architecture;
    println!("{}: {architecture}, portcullis {}", options.host, told.version.as_deref().unwrap_or("is not installed"));
    if !told.allows_root {
        return Err(Failure::new(format!(
            "the user may not become root on {} without a password: log in as root, or allow it `sudo` without one",
            options.host
        )));
    }
    let package = match &options.package {
        Some(package) => package.clone(),
        None if options.dry_run => {
            println!("would build a package for {architecture}");
            return said(&options);
        }
        None => build(&architecture)?,
    };
    check(&package, &architecture)?;
    if options.dry_run {
        println!("would install {}", package.display());
        return said(&options);
    }
    let archive = archive(&package, &options)?;
    let outcome = install(&options, &archive);
    let removed = fs::remove_file(&archive).map_err(|error| Failure::file("remove", &archive, &error));
    outcome.and(removed)
}

/// What is known of a gateway before anything is done to it.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    /// Debian's name of it.
    architecture: String,
    /// That is installed; behind what dpkg calls its state, where it was interrupted.
    version: Option<String>,
    /// Whether a deploy can do anything there.
    allows_root: bool,
}

impl Answers {
    fn ask(options: &Options) -> Outcome<Self> {
        let told = process::capture(&mut remote(options, QUESTIONS))?;
        let mut lines = told.lines();
        let architecture = lines.next().unwrap_or_default().to_owned();
        let package = lines.next().unwrap_or_default();
        let is_there = !["none", "config-files ", "not-installed"].iter().any(|state| package.starts_with(state));
        let version = is_there.then(|| package.strip_prefix("installed ").unwrap_or(package).to_owned());
        Ok(Self { architecture, version, allows_root: lines.next() == Some("root") })
    }
}

fn parse(arguments: Vec<OsString>) -> Outcome<Option<Options>> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: lexopt::Error| Failure::usage("deploy", &error);
    let mut host = None;
    let mut options = Options {
        host: String::new(),
        package: None,
        configuration: None,
        seconds: 60,
        dry_run: false,
        ssh: PathBuf::from("ssh"),
        root: String::new(),
    };
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            lexopt::Arg::Long("package") => options.package = Some(parser.value().map_err(usage)?.into()),
            lexopt::Arg::Long("config") => options.configuration = Some(parser.value().map_err(usage)?.into()),
            lexopt::Arg::Long("seconds") => {
                options.seconds = parser.value().and_then(|value| value.parse()).map_err(usage)?;
            }
            lexopt::Arg::Long("dry-run") => options.dry_run = true,
            lexopt::Arg::Long("ssh") => options.ssh = parser.value().map_err(usage)?.into(),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(None),
            lexopt::Arg::Value(value) if host.is_none() => host = Some(value.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    // ssh would take it for an option.
    let host = host.filter(|host| !host.is_empty() && !host.starts_with('-'));
    options.host =
        host.ok_or_else(|| Failure::new("deploy needs a HOST; `cargo xtask deploy --help` tells the options"))?;
    Ok(Some(options))
}

/// A command on the gateway. Nobody is there to type a password.
fn remote(options: &Options, command: &str) -> Command {
    let mut ssh = Command::new(&options.ssh);
    ssh.args(["-o", "BatchMode=yes", "-o", "ServerAliveInterval=15"]).arg(&options.host).arg(command);
    ssh
}

/// What else a dry run says.
fn said(options: &Options) -> Outcome {
    println!("would keep the version that is there, install, wait {} s for health, and else go back", options.seconds);
    if let Some(folder) = &options.configuration {
        println!("would replace /etc/portcullis by {}, but for its secrets and revocation lists", folder.display());
    }
    Ok(())
}

/// Builds a package whose version is higher than that of any package before it.
fn build(architecture: &str) -> Outcome<PathBuf> {
    let mut found = None;
    for target in targets::all()? {
        if deb::architecture(&target)? == architecture {
            found = Some(target);
            break;
        }
    }
    let target = found.ok_or_else(|| Failure::new(format!("there is no target for Debian's {architecture}")))?;
    let now = process::capture(Command::new("date").args(["-u", "+%Y%m%d%H%M%S"]))?;
    let version = format!("{}+{}", env!("CARGO_PKG_VERSION"), now.trim());
    let binary = deb::released(&target)?;
    Contents { target, version, maintainer: Maintainer::of_environment()?, binary, out: workspace::dist_folder() }
        .pack()
}

/// That a package is ours, and for the gateway's architecture.
fn check(package: &PathBuf, architecture: &str) -> Outcome {
    let field = |name: &str| process::capture(Command::new("dpkg-deb").arg("-f").arg(package).arg(name));
    let (name, machine) = (field("Package")?, field("Architecture")?);
    if name.trim() == "portcullis" && machine.trim() == architecture {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} is {} for {}, and the gateway wants portcullis for {architecture}",
        package.display(),
        name.trim(),
        machine.trim()
    )))
}

/// What goes over the line: the package, and the sources if they are asked for.
fn archive(package: &PathBuf, options: &Options) -> Outcome<PathBuf> {
    let folder = workspace::target_folder().join("deploy");
    workspace::remove_folder(&folder)?;
    workspace::make_folder(&folder.join("sources"))?;
    let new = folder.join("new.deb");
    fs::copy(package, &new).map_err(|error| Failure::file("copy", package, &error))?;
    let mut parts = vec!["new.deb"];
    if let Some(sources) = &options.configuration {
        if sources.join("secrets").exists() {
            println!("note: {}/secrets stays here: keys do not travel with configurations", sources.display());
        }
        let mut pack = Command::new("tar");
        pack.args(["-cf", "-", "--exclude=./secrets", "--exclude=./issuers", "--exclude=./revocation", "-C"])
            .arg(sources)
            .arg(".");
        let mut packing = pack.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(lost("tar"))?;
        let mut unpack = Command::new("tar");
        unpack.args(["-xf", "-", "-C"]).arg(folder.join("sources"));
        let output = packing.stdout.take().ok_or_else(|| Failure::new("no output of tar"))?;
        let status = unpack.stdin(output).status().map_err(lost("tar"))?;
        let packed = packing.wait().map_err(lost("tar"))?;
        if !status.success() || !packed.success() {
            return Err(Failure::new(format!("cannot pack {}", sources.display())));
        }
        parts.push("sources");
    }
    let archive = folder.with_extension("tar");
    let mut command = Command::new("tar");
    command.args(["--owner=0", "--group=0", "-cf"]).arg(&archive).arg("-C").arg(&folder).args(parts);
    process::run(&mut command)?;
    workspace::remove_folder(&folder)?;
    Ok(archive)
}

fn lost(program: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::new(format!("`{program}`: {error}"))
}

/// The script as a command for the gateway's shell, as root. Who may not become root gets no further than that.
fn command(options: &Options) -> String {
    let script = SCRIPT.replace("@SECONDS@", &options.seconds.to_string());
    let script = format!("root='{}'\n{script}", options.root);
    // The shell reads the script as an argument, because its input is the archive.
    let quoted = script.replace('\'', "'\\''");
    format!(
        "script='{quoted}'; if [ \"$(id -u)\" = 0 ]; then exec sh -c \"$script\"; \
         elif sudo -n sh -c : </dev/null >/dev/null 2>&1; then exec sudo -n sh -c \"$script\"; \
         else echo 'gateway: the user may not become root without a password'; exit 12; fi"
    )
}

/// Sends the archive into the script on the gateway.
fn install(options: &Options, archive: &PathBuf) -> Outcome {
    let command = command(options);
    let input = fs::File::open(archive).map_err(|error| Failure::file("read", archive, &error))?;
    println!("$ {} {} …", options.ssh.display(), options.host);
    let status = remote(options, &command).stdin(input).status().map_err(lost("ssh"))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(10) => Err(Failure::new("the new version did not get well; the previous one is back and well")),
        Some(11) => Err(Failure::new("the new version did not get well, and the previous one is not well either")),
        Some(12) => Err(Failure::new("nothing was changed on the gateway")),
        // Of ssh itself.
        Some(255) | None => Err(Failure::new(format!(
            "the connection was lost ({status}); the gateway goes on by itself. What it says is in \
             /var/lib/portcullis-deploy/said there"
        ))),
        Some(_) => Err(Failure::new(format!(
            "it stopped half way on the gateway ({status}): see /var/lib/portcullis-deploy/said"
        ))),
    }
}

#[cfg(test)]
mod tests;
