//! Updates of an emulated gateway: kept, refused, gone back from, and with the plug pulled on the way.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::machine::{Machine, Seen, With};
use super::site::PATIENCE;
use super::trial::{Bench, new_key};
use crate::process::{Failure, Outcome};
use crate::workspace;

/// How long an update may take until it is kept or has gone back: a trial of five minutes, and two starts.
const UPDATE_TIME: Duration = Duration::from_secs(1_200);
/// Exit codes of `portcullis update`.
const KEPT: i32 = 0;
const NOT_KEPT: i32 = 1;

/// Everything that an update can come to.
pub fn run(bench: &Bench<'_>, gateway: &mut Machine, is_short: bool) -> Outcome {
    let first = bench.folder.join("version-1.update");
    let second = made(bench, 2, &bench.programs)?;
    refusals(bench, gateway, &first, &second)?;

    let acknowledged = bench.site.publish_until(90, 20, || Ok(()))?;
    expect(bench, gateway, &second, KEPT, "A to B")?;
    runs(bench, gateway, 2)?;
    let received = bench.site.receive()?;
    if !acknowledged.is_subset(&received) {
        return Err(Failure::new("messages from before the update are lost"));
    }
    println!("update kept: version 2 runs, {} messages from before it arrived", acknowledged.len());
    expect(bench, gateway, &first, NOT_KEPT, "the version before, once more")?;

    // PID 1 ends at once, and the kernel with it: nothing of the new version is left that could take it back.
    let dead = made(bench, 3, &swapped(bench, "portcullis", "portcullis-init")?)?;
    expect(bench, gateway, &dead, NOT_KEPT, "a version whose kernel dies")?;
    runs(bench, gateway, 2)?;
    configurations(bench, gateway, is_short)?;
    if is_short {
        return Ok(());
    }
    // PID 1 lives, its broker does not.
    let sick = made(bench, 4, &swapped(bench, "portcullis-init", "portcullis")?)?;
    expect(bench, gateway, &sick, NOT_KEPT, "a version whose broker ends")?;
    runs(bench, gateway, 2)?;
    let fifth = made(bench, 5, &bench.programs)?;
    for (moment, after) in [
        ("an update is here", 2),
        ("is being written to slot", 2),
        ("starting slot a portcullis.trial", 2),
        ("this system is on trial", 2),
    ] {
        cut(bench, gateway, &fifth, moment)?;
        runs(bench, gateway, after)?;
        println!("plug pulled at \"{moment}\": version {after} runs");
    }
    expect(bench, gateway, &fifth, KEPT, "B to A, after all that")?;
    runs(bench, gateway, 5)
}

/// What must not get as far as a slot.
fn refusals(bench: &Bench<'_>, gateway: &mut Machine, first: &Path, second: &Path) -> Outcome {
    expect(bench, gateway, first, NOT_KEPT, "the version that runs")?;
    let changed = bench.folder.join("changed.update");
    fs::copy(second, &changed).map_err(|error| Failure::file("write", &changed, &error))?;
    let change = || -> std::io::Result<()> {
        let mut file = File::options().write(true).open(&changed)?;
        file.seek(SeekFrom::Start(3_000_000))?;
        file.write_all(b"changed")
    };
    change().map_err(|error| Failure::file("write", &changed, &error))?;
    expect(bench, gateway, &changed, NOT_KEPT, "a changed byte")?;
    let stranger = new_key(&bench.folder.join("stranger.pem"))?;
    let slot = bench.folder.join("version-2.slot");
    let board = bench.board().name;
    for (what, key, board) in [("a key of somebody else", &stranger, board), ("another board", &bench.key, "rpi9")] {
        let bundle = bundle(bench, key, board, 2, ("--slot", &slot))?;
        expect(bench, gateway, &bundle, NOT_KEPT, what)?;
    }
    runs(bench, gateway, 1)
}

/// Configurations: kept, and gone back from.
fn configurations(bench: &Bench<'_>, gateway: &mut Machine, is_short: bool) -> Outcome {
    let blob = |board: &str, name: &str, sources: &Path| -> Outcome<PathBuf> {
        let out = bench.folder.join(name);
        let text = |path: &Path| path.display().to_string();
        let (code, said) = bench.site.portcullis(&["bake", &text(sources), "--board", board, "--out", &text(&out)])?;
        if code == Some(0) { Ok(out) } else { Err(Failure::new(format!("no blob: {said}"))) }
    };
    let board = bench.board().name;
    let good = blob(board, "good.blob", &bench.site.configuration)?;
    let update = bundle(bench, &bench.key, board, 7, ("--blob", &good))?;
    expect(bench, gateway, &update, KEPT, "a configuration")?;
    expect(bench, gateway, &update, NOT_KEPT, "the same configuration again")?;
    if is_short {
        return Ok(());
    }
    // It names a certificate that this gateway has not got, and so never gets a port.
    let sources = bench.folder.join("site-without-certificate");
    workspace::remove_folder(&sources)?;
    workspace::make_folder(&sources.join("trust/fabrikam-ca"))?;
    for name in ["abac-authz.authorization.json", "listener.yaml", "x509-auth.x509.json", "gateway.yaml"] {
        let from = bench.site.configuration.join(name);
        let text = fs::read_to_string(&from).map_err(|error| Failure::file("read", &from, &error))?;
        workspace::write(&sources.join(name), &text.replace("broker-server-cert", "no-such-cert"))?;
    }
    let trust = "trust/fabrikam-ca/client_ca.pem";
    let from = bench.site.configuration.join(trust);
    fs::copy(&from, sources.join(trust)).map_err(|error| Failure::file("copy", &from, &error))?;
    let bad = blob(board, "bad.blob", &sources)?;
    let update = bundle(bench, &bench.key, board, 8, ("--blob", &bad))?;
    expect(bench, gateway, &update, NOT_KEPT, "a configuration without its certificate")?;
    let _ = bench.site.until_reached(gateway)?;
    Ok(())
}

fn made(bench: &Bench<'_>, number: u64, programs: &Path) -> Outcome<PathBuf> {
    let none = || Failure::new("the image brought no update");
    bench.image(number, programs)?.update.ok_or_else(none)
}

/// An update of its own, signed with this key.
fn bundle(bench: &Bench<'_>, key: &Path, board: &str, version: u64, payload: (&str, &Path)) -> Outcome<PathBuf> {
    let out = bench.folder.join(format!("{board}-{version}.update"));
    let text = |path: &Path| path.display().to_string();
    let (what, file) = payload;
    let (code, said) = bench.site.portcullis(&[
        "bundle",
        "--key",
        &text(key),
        "--board",
        board,
        "--version",
        &version.to_string(),
        what,
        &text(file),
        "--out",
        &text(&out),
    ])?;
    if code == Some(0) { Ok(out) } else { Err(Failure::new(format!("no update could be made: {said}"))) }
}

/// A folder of programs in which both are this one.
fn swapped(bench: &Bench<'_>, kept: &str, other: &str) -> Outcome<PathBuf> {
    let folder = bench.folder.join(format!("only-{kept}"));
    workspace::make_folder(&folder)?;
    let target = bench.board().target;
    let from = bench.programs.join(format!("{kept}-{target}"));
    for name in [kept, other] {
        let to = folder.join(format!("{name}-{target}"));
        fs::copy(&from, &to).map_err(|error| Failure::file("copy", &from, &error))?;
    }
    Ok(folder)
}

/// Sends an update and starts the gateway as often as it ends, until the command says how it came out.
fn expect(bench: &Bench<'_>, gateway: &mut Machine, file: &Path, wanted: i32, what: &str) -> Outcome {
    let begin = Instant::now();
    let (mut command, said) = sent(bench, file)?;
    let code = loop {
        if let Some(status) = command.0.try_wait().map_err(|error| Failure::file("wait for", file, &error))? {
            break status.code();
        }
        if begin.elapsed() > UPDATE_TIME {
            return Err(Failure::new(format!("update, {what}: nothing came of it")));
        }
        match gateway.look(Duration::from_millis(200)) {
            Seen::Line(_) | Seen::Nothing => {}
            Seen::End => *gateway = bench.start(With::default())?,
        }
    };
    let said = fs::read_to_string(&said).unwrap_or_default();
    said.lines().for_each(|line| println!("  {line}"));
    if code != Some(wanted) {
        return Err(Failure::new(format!("update, {what}: exit code {code:?} and not {wanted}")));
    }
    println!("update, {what}: as it should be, after {} s", begin.elapsed().as_secs());
    Ok(())
}

/// A command that is ended with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `portcullis update FILE` on its way, and the file with what it says.
fn sent(bench: &Bench<'_>, file: &Path) -> Outcome<(Running, PathBuf)> {
    let said = bench.folder.join("update.said");
    let output = File::create(&said).map_err(|error| Failure::file("write", &said, &error))?;
    let errors = output.try_clone().map_err(|error| Failure::file("write", &said, &error))?;
    let mut command = bench.site.update(Some(file));
    command.stdout(output).stderr(errors);
    let child = command.spawn().map_err(|error| Failure::new(format!("portcullis cannot be started: {error}")))?;
    Ok((Running(child), said))
}

/// Sends an update and pulls the plug when the console says this.
fn cut(bench: &Bench<'_>, gateway: &mut Machine, file: &Path, moment: &str) -> Outcome {
    let (_command, _) = sent(bench, file)?;
    let end = Instant::now() + PATIENCE;
    loop {
        match gateway.look(Duration::from_millis(50)) {
            Seen::Line(line) if line.contains(moment) => break,
            Seen::Line(_) | Seen::Nothing => {}
            Seen::End => *gateway = bench.start(With::default())?,
        }
        if Instant::now() > end {
            return Err(Failure::new(format!("the console did not say \"{moment}\"")));
        }
    }
    gateway.pull_plug()?;
    *gateway = bench.start(With::default())?;
    let _ = gateway.wait_for("the broker is ready", PATIENCE)?;
    bench.site.until_reached(gateway).map(|_| ())
}

/// Whether this version runs and says so.
fn runs(bench: &Bench<'_>, gateway: &mut Machine, version: u64) -> Outcome {
    let _ = bench.site.until_reached(gateway)?;
    let (_, said) = bench.site.asked()?;
    if said.contains(&format!("version {version} in slot")) {
        Ok(())
    } else {
        Err(Failure::new(format!("version {version} does not run; the gateway says:\n{said}")))
    }
}
