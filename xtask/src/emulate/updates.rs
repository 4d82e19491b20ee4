//! Updates of an emulated gateway: kept, refused, gone back from, and with the plug pulled on the way.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use super::machine::{Machine, Seen, With};
use super::site::PATIENCE;
use super::trial::{Bench, Extent, new_key};
use crate::process::{Failure, Outcome};
use crate::workspace;

/// How long an update may take until it is kept or has gone back: a trial of five minutes, and two starts.
const UPDATE_TIME: Duration = Duration::from_secs(1_200);
/// How an update has to come out.
#[derive(Debug, Clone, Copy)]
enum Wanted<'a> {
    /// It is kept, after a trial.
    Kept,
    /// It is refused, with these words of why.
    Refused(&'a str),
    /// It was tried and not kept, with these words of why.
    Back(&'a str),
}

use Wanted::{Back, Kept, Refused};

/// What the console says when a system, or a configuration, is tried.
const TRIALS: [&str; 3] = ["portcullis.trial", "trying it", "has other network settings; starting it on trial"];

/// What a kernel says that has died and cannot start the machine again.
const HALTED: &str = "Reboot failed -- System halted";

/// One whose kernel dies: it is taken, written, tried, and gone back from by U-Boot.
pub fn gate(bench: &Bench<'_>, gateway: &mut Machine) -> Outcome {
    dead(bench, gateway, 2, 1)
}

/// Everything that an update can come to.
pub fn run(bench: &Bench<'_>, gateway: &mut Machine, extent: Extent) -> Outcome {
    let first = bench.folder.join("version-1.update");
    let second = made(bench, 2, &bench.programs)?;
    refusals(bench, gateway, &first, &second)?;
    kept(bench, gateway, &second)?;
    dead(bench, gateway, 3, 2)?;
    expect(bench, gateway, &first, Refused("is not newer than 2"), "the version before, once more")?;
    configurations(bench, gateway, extent)?;
    if extent == Extent::Whole { broken_and_cut(bench, gateway) } else { Ok(()) }
}

/// The system that the card has, as an update, is refused with these words.
pub fn refused(bench: &Bench<'_>, gateway: &mut Machine, why: &str) -> Outcome {
    expect(bench, gateway, &bench.folder.join("version-1.update"), Refused(why), "for a card without room")
}

/// Version 2 is kept and has the messages from before.
fn kept(bench: &Bench<'_>, gateway: &mut Machine, second: &Path) -> Outcome {
    let acknowledged = bench.site.publish_until(90, 20, || Ok(()))?;
    expect(bench, gateway, second, Kept, "A to B")?;
    runs(bench, gateway, 2)?;
    let received = bench.site.receive()?;
    if !acknowledged.is_subset(&received) {
        return Err(Failure::new("messages from before the update are lost"));
    }
    println!("update kept: version 2 runs, {} messages from before it arrived", acknowledged.len());
    Ok(())
}

/// PID 1 of this version ends at once, and the kernel with it: nothing of it is left that could take it back.
fn dead(bench: &Bench<'_>, gateway: &mut Machine, version: u64, before: u64) -> Outcome {
    let dead = made(bench, version, &swapped(bench, "portcullis", "portcullis-init")?)?;
    expect(bench, gateway, &dead, Back("it said nothing"), "a version whose kernel dies")?;
    runs(bench, gateway, before)
}

/// A version whose broker does not live, and the plug pulled on the way of others.
fn broken_and_cut(bench: &Bench<'_>, gateway: &mut Machine) -> Outcome {
    // PID 1 lives, its broker does not.
    let sick = made(bench, 4, &swapped(bench, "portcullis-init", "portcullis")?)?;
    expect(bench, gateway, &sick, Back("not ready within"), "a version whose broker ends")?;
    runs(bench, gateway, 2)?;
    let fifth = made(bench, 5, &bench.programs)?;
    let sixth = made(bench, 6, &bench.programs)?;
    for (file, moment, after) in [
        (&fifth, "an update is here", 2),
        (&fifth, "is being written to slot", 2),
        (&fifth, "starting slot a portcullis.trial", 2),
        (&fifth, "this system is on trial", 2),
        // It is written down that it is to be tried, and the next start does so.
        (&fifth, "starting it on trial", 5),
        (&sixth, "this system is kept", 6),
    ] {
        cut(bench, gateway, file, moment)?;
        runs(bench, gateway, after)?;
        println!("plug pulled at \"{moment}\": version {after} runs");
    }
    Ok(())
}

/// What must not get as far as a slot.
fn refusals(bench: &Bench<'_>, gateway: &mut Machine, first: &Path, second: &Path) -> Outcome {
    expect(bench, gateway, first, Refused("is not newer than 1"), "the version that runs")?;
    let changed = bench.folder.join("changed.update");
    fs::copy(second, &changed).map_err(|error| Failure::file("write", &changed, &error))?;
    let change = || -> std::io::Result<()> {
        let mut file = File::options().write(true).open(&changed)?;
        file.seek(SeekFrom::Start(3_000_000))?;
        file.write_all(b"changed")
    };
    change().map_err(|error| Failure::file("write", &changed, &error))?;
    expect(bench, gateway, &changed, Refused("it is damaged"), "a changed byte")?;
    let stranger = new_key(&bench.folder.join("stranger.pem"))?;
    let slot = bench.folder.join("version-2.slot");
    let board = bench.board().name;
    for (what, key, board, why) in [
        ("a key of somebody else", &stranger, board, "its signature"),
        ("another board", &bench.key, "rpi9", "is for the board rpi9"),
    ] {
        let bundle = bundle(bench, key, board, 2, &["--slot", &text(&slot)])?;
        expect(bench, gateway, &bundle, Refused(why), what)?;
    }
    runs(bench, gateway, 1)
}

/// Configurations: kept, and gone back from.
fn configurations(bench: &Bench<'_>, gateway: &mut Machine, extent: Extent) -> Outcome {
    let blob = |board: &str, name: &str, sources: &Path| -> Outcome<PathBuf> {
        let out = bench.folder.join(name);
        let (code, said) = bench.site.portcullis(&["bake", &text(sources), "--board", board, "--out", &text(&out)])?;
        if code == Some(0) { Ok(out) } else { Err(Failure::new(format!("no blob: {said}"))) }
    };
    let board = bench.board().name;
    let good = blob(board, "good.blob", &bench.site.configuration)?;
    let update = bundle(bench, &bench.key, board, 7, &["--blob", &text(&good)])?;
    expect(bench, gateway, &update, Kept, "a configuration")?;
    expect(bench, gateway, &update, Refused("is not newer than 7"), "the same configuration again")?;
    if extent != Extent::Whole {
        return Ok(());
    }
    let moved = changed_site(bench, "gateway.yaml", "spec:", "spec:\n  network: {hostname: renamed}")?;
    let moved = blob(board, "moved.blob", &moved)?;
    let update = bundle(bench, &bench.key, board, 8, &["--blob", &text(&moved)])?;
    expect(bench, gateway, &update, Kept, "a configuration with other network settings")?;
    // Its ports' certificate is one that this gateway has not got: they never open.
    let bad = changed_site(bench, "listener.yaml", "broker-server-cert", "no-such-cert")?;
    let bad = blob(board, "bad.blob", &bad)?;
    let update = bundle(bench, &bench.key, board, 9, &["--blob", &text(&bad)])?;
    expect(bench, gateway, &update, Back("no certificate to listen with"), "a configuration without its certificate")?;
    let _ = bench.site.until_reached(gateway)?;
    // Somebody is put out, by a list that goes with the blob.
    let denied = bench.folder.join("revocation");
    workspace::make_folder(&denied)?;
    workspace::write(&denied.join("deny.yaml"), "- subject: CN = lightbulb\n  reason: stolen\n")?;
    let update = bundle(bench, &bench.key, board, 10, &["--blob", &text(&good), "--with", &text(&denied)])?;
    expect(bench, gateway, &update, Kept, "a configuration with a list of who is denied")?;
    bench.site.is_put_out("lightbulb")
}

/// The site's sources with one of them changed.
fn changed_site(bench: &Bench<'_>, file: &str, from: &str, to: &str) -> Outcome<PathBuf> {
    let sources = bench.folder.join("changed-site");
    workspace::remove_folder(&sources)?;
    workspace::make_folder(&sources.join("trust/fabrikam-ca"))?;
    for name in ["abac-authz.authorization.json", "listener.yaml", "x509-auth.x509.json", "gateway.yaml"] {
        let source = bench.site.configuration.join(name);
        let text = fs::read_to_string(&source).map_err(|error| Failure::file("read", &source, &error))?;
        let text = if name == file { text.replace(from, to) } else { text };
        workspace::write(&sources.join(name), &text)?;
    }
    let trust = "trust/fabrikam-ca/client_ca.pem";
    let source = bench.site.configuration.join(trust);
    fs::copy(&source, sources.join(trust)).map_err(|error| Failure::file("copy", &source, &error))?;
    Ok(sources)
}

fn made(bench: &Bench<'_>, number: u64, programs: &Path) -> Outcome<PathBuf> {
    let none = || Failure::new("the image brought no update");
    bench.image(number, programs)?.update.ok_or_else(none)
}

/// An update of its own, signed with this key.
fn bundle(bench: &Bench<'_>, key: &Path, board: &str, version: u64, payload: &[&str]) -> Outcome<PathBuf> {
    let out = bench.folder.join(format!("{board}-{version}.update"));
    let (key, number, out_text) = (text(key), version.to_string(), text(&out));
    let words = ["bundle", "--key", &key, "--board", board, "--version", &number, "--out", &out_text];
    let (code, said) = bench.site.portcullis(&[&words, payload].concat())?;
    if code == Some(0) { Ok(out) } else { Err(Failure::new(format!("no update could be made: {said}"))) }
}

fn text(path: &Path) -> String {
    path.display().to_string()
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
fn expect(bench: &Bench<'_>, gateway: &mut Machine, file: &Path, wanted: Wanted<'_>, what: &str) -> Outcome {
    let begin = Instant::now();
    let mut is_tried = false;
    let (mut command, said) = sent(bench, file)?;
    let code = loop {
        if let Some(status) = command.0.try_wait().map_err(|error| Failure::file("wait for", file, &error))? {
            break status.code();
        }
        if begin.elapsed() > UPDATE_TIME {
            return Err(Failure::new(format!("update, {what}: nothing came of it")));
        }
        match gateway.look(Duration::from_millis(200)) {
            Seen::Line(line) => {
                is_tried |= TRIALS.iter().any(|trial| line.contains(trial));
                // A Raspberry Pi is reset by its watchdog's driver, which is loaded by PID 1: somebody pulls the plug.
                if line.contains(HALTED) {
                    gateway.pull_plug()?;
                    *gateway = bench.start(With::default())?;
                }
            }
            Seen::Nothing => {}
            Seen::End => *gateway = bench.start(With::default())?,
        }
    };
    let said = fs::read_to_string(&said).unwrap_or_default();
    said.lines().for_each(|line| println!("  {line}"));
    let (is_as_wanted, is_to_be_tried) = match wanted {
        Kept => (code == Some(0), true),
        Refused(why) => (code == Some(1) && said.contains(why), false),
        Back(why) => (code == Some(1) && said.contains(why), true),
    };
    if !is_as_wanted || is_tried != is_to_be_tried {
        return Err(Failure::new(format!("update, {what}: not {wanted:?} (exit code {code:?}, tried: {is_tried})")));
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

/// Whether this version runs, and for good.
fn runs(bench: &Bench<'_>, gateway: &mut Machine, version: u64) -> Outcome {
    let begin = Instant::now();
    loop {
        let _ = bench.site.until_reached(gateway)?;
        let (_, said) = bench.site.asked()?;
        // A trial takes its time.
        let is_on_trial = said.contains("runs for a trial");
        if said.contains(&format!("version {version} in slot")) && !is_on_trial {
            return Ok(());
        }
        if !is_on_trial || begin.elapsed() > PATIENCE {
            return Err(Failure::new(format!("version {version} does not run; the gateway says:\n{said}")));
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}
