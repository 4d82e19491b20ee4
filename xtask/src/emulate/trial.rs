//! The test of an image: the vendor's tutorial against an emulated gateway, the plug pulled under load, the power button.
//!
//! What a killed emulator shows is a loss of power at any moment to a card that keeps the order of what it was told to keep. The host
//! keeps what the emulator wrote, so that a flush that is missing would not be noticed here; `cargo xtask crash` looks for those.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::machine::{self, Emulator, Kind, Machine};
use super::time_server;
use crate::image::boards::Board;
use crate::image::{self, Options};
use crate::process::{self, Failure, Outcome};
use crate::targets::Target;
use crate::{build, install, workspace};

/// A machine that shares two cores with others takes its time.
const PATIENCE: Duration = Duration::from_secs(300);
/// Messages that are sent until the plug is pulled, and a few more each time.
const ACKNOWLEDGED_MIN: usize = 40;
const TOPIC: &str = "telemetry/temperature";

/// Makes an image of the tutorial's configuration and tries it.
pub fn run(
    emulator: &Emulator,
    kind: Kind,
    board: &Board,
    times: u32,
    programs: Option<PathBuf>,
    folder: &Path,
) -> Outcome {
    if process::find("mosquitto_pub").is_none() {
        install::packages(&["mosquitto-clients"])?;
    }
    let target = Target::named(board.target)?.ok_or_else(|| Failure::new("there is no such target"))?;
    let broker = match &programs {
        Some(folder) => folder.join(format!("portcullis-{}", target.name)),
        None => build::program(&target, "portcullis", &[])?.0,
    };
    let site = Site::make(&target, &broker, &folder.join("site"))?;
    // A Raspberry Pi has no clock that runs without power, and a gateway without a time takes no certificates. The emulator's network has
    // this machine at this address.
    let settings = folder.join("gateway.cfg");
    workspace::write(&settings, &format!("hostname=trial\nntp=10.0.2.2:{}\n", time_server::start()?))?;
    let made = image::make(&Options {
        board: board.name.to_owned(),
        configuration: site.configuration.clone(),
        settings: Some(settings),
        data_mebibytes: 64,
        rescue: false,
        programs,
        out: Some(folder.join("tutorial.img")),
        number: 1,
        update_key: None,
        sign: None,
    })?;
    let card = folder.join("card.img");
    machine::card(&made.image, &card)?;
    let site = Site { port: machine::free_ports()?, ..site };
    let boot = machine::prepare(kind, board, &card, folder)?;
    let start = || -> Outcome<Machine> { Machine::start(emulator, kind, &boot, &card, site.port) };

    let mut gateway = start()?;
    let ready = gateway.wait_for("the broker is ready", PATIENCE)?;
    let reached = site.until_reached(&mut gateway)?;
    println!(
        "first start: broker ready after {:.1} s, CONNACK after {:.1} s",
        ready.as_secs_f32(),
        reached.as_secs_f32()
    );
    site.tutorial()?;
    site.subscribe()?;
    let mut lost = 0_usize;
    let mut books = BTreeSet::new();
    for round in 1..=times {
        let wanted = ACKNOWLEDGED_MIN + 37 * usize::try_from(round).unwrap_or(0);
        let acknowledged = site.publish_until(round, wanted, || gateway.pull_plug())?;
        gateway = start()?;
        let _ = gateway.wait_for("the broker is ready", PATIENCE)?;
        let reached = site.until_reached(&mut gateway)?;
        let received = site.receive()?;
        let missing = acknowledged.difference(&received).count();
        println!(
            "plug pulled, {round} of {times}: {} acknowledged, {} received, {missing} lost; CONNACK after {:.1} s",
            acknowledged.len(),
            received.len(),
            reached.as_secs_f32()
        );
        lost += missing;
        books.extend(acknowledged);
    }
    if lost > 0 {
        return Err(Failure::new(format!("{lost} of {} acknowledged messages are lost", books.len())));
    }
    if kind.is_virtual() {
        let pressed = Instant::now();
        gateway.press_power_button()?;
        let _ = gateway.wait_for("switching off", PATIENCE)?;
        gateway.show_all();
        println!("power button: off after {:.1} s", pressed.elapsed().as_secs_f32());
    } else {
        gateway.pull_plug()?;
    }
    println!("all {} acknowledged messages arrived, over {times} losses of power", books.len());
    Ok(())
}

/// The tutorial's certificates, its configuration, and where its gateway is.
struct Site {
    pki: PathBuf,
    configuration: PathBuf,
    port: u16,
}

impl Site {
    /// Has `portcullis demo` make the certificates, and puts them where `bake` and the image look.
    fn make(target: &Target, broker: &Path, folder: &Path) -> Outcome<Self> {
        let (pki, configuration) = (folder.join("pki"), folder.join("config"));
        workspace::remove_folder(folder)?;
        workspace::make_folder(folder)?;
        let mut command = target.command(broker);
        let port = machine::free_ports()?.to_string();
        command.arg("demo").arg("--dir").arg(&pki).args(["--port", &port]);
        let mut demo = started(command.stdout(Stdio::piped()))?;
        let guide = demo.stdout.take().map(BufReader::new);
        let is_made = guide.is_some_and(|guide| {
            guide.lines().map_while(Result::ok).any(|line| line.contains("Ctrl-C stops the broker"))
        });
        end(&mut demo);
        if !is_made {
            return Err(Failure::new("`portcullis demo` makes no certificates"));
        }
        let copy = |from: PathBuf, to: PathBuf| -> Outcome {
            if let Some(folder) = to.parent() {
                workspace::make_folder(folder)?;
            }
            std::fs::copy(&from, &to).map(|_| ()).map_err(|error| Failure::file("copy", &from, &error))
        };
        let tutorial = workspace::root().join("config/tutorial");
        for name in ["abac-authz.authorization.json", "listener.yaml", "x509-auth.x509.json"] {
            copy(tutorial.join(name), configuration.join(name))?;
        }
        for (from, to) in [
            ("fabrikam_root_ca.crt", "trust/fabrikam-ca/client_ca.pem"),
            ("mqtts-endpoint.crt", "secrets/broker-server-cert/tls.crt"),
            ("mqtts-endpoint.key", "secrets/broker-server-cert/tls.key"),
        ] {
            copy(pki.join(from), configuration.join(to))?;
        }
        Ok(Self { pki, configuration, port: 0 })
    }

    fn client(&self, program: &str, name: &str, arguments: &[&str]) -> Command {
        let file = |name: &str| self.pki.join(name).display().to_string();
        // The clients buffer what they print into a pipe; `stdbuf` (coreutils) makes them print line by line.
        let mut command = Command::new("stdbuf");
        command.args(["-oL", program, "-i", name, "-V", "mqttv5", "-d", "-h", "localhost", "-q", "1"]);
        command.args(["-p", &self.port.to_string(), "--cafile", &file("contoso_root_ca.crt")]);
        command.args(["--cert", &file(&format!("{name}.crt")), "--key", &file(&format!("{name}.key"))]);
        command.args(arguments);
        command
    }

    /// What a client says that ends by itself, whatever its exit code is.
    fn says(&self, program: &str, name: &str, arguments: &[&str]) -> Outcome<String> {
        let output = self.client(program, name, arguments).stdin(Stdio::null()).output();
        let output = output.map_err(|error| Failure::new(format!("{program} could not be started: {error}")))?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Until a client gets its CONNACK; when that was, counted from the power.
    fn until_reached(&self, gateway: &mut Machine) -> Outcome<Duration> {
        while gateway.begin.elapsed() < PATIENCE {
            let said = self.says("mosquitto_pub", "thermostat", &["-t", TOPIC, "-m", "reached"])?;
            gateway.show();
            if said.contains("received CONNACK (0)") {
                return Ok(gateway.begin.elapsed());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(Failure::new("no client reaches the gateway"))
    }

    /// The tutorial's questions, and its answers.
    fn tutorial(&self) -> Outcome {
        for (program, name, arguments, answer) in [
            ("mosquitto_pub", "thermostat", &["-t", "example/topic", "-m", "x"][..], "RC:135"),
            ("mosquitto_pub", "thermostat", &["-t", "telemetry/humidity", "-m", "x"], "RC:135"),
            ("mosquitto_sub", "heater", &["-t", "health/heartbeat", "-W", "20", "-E"], "Subscribed (mid: 1): 135"),
            ("mosquitto_sub", "heater", &["-t", TOPIC, "-W", "20", "-E"], "Subscribed (mid: 1): 1"),
            ("mosquitto_pub", "lightbulb", &["-t", "health/heartbeat", "-m", "x"], "received PUBACK (Mid: 1"),
        ] {
            let said = self.says(program, name, arguments)?;
            if !said.contains(answer) {
                return Err(Failure::new(format!("{name} {}: no \"{answer}\" in\n{said}", arguments.join(" "))));
            }
            println!("tutorial: {name} {}: {answer}", arguments.join(" "));
        }
        Ok(())
    }

    /// A session that outlives its connections.
    fn subscribe(&self) -> Outcome {
        let said = self.says("mosquitto_sub", "heater", &["-t", TOPIC, "-c", "-x", "86400", "-E", "-W", "60"])?;
        if said.contains("Subscribed (mid: 1): 1") {
            Ok(())
        } else {
            Err(Failure::new(format!("no subscription:\n{said}")))
        }
    }

    /// Publishes numbered messages, and has something done when `wanted` are acknowledged and more are on their way; returns all that
    /// have been acknowledged then.
    fn publish_until(&self, round: u32, wanted: usize, then: impl FnOnce() -> Outcome) -> Outcome<BTreeSet<String>> {
        let mut command = self.client("mosquitto_pub", "thermostat", &["-t", TOPIC, "-l"]);
        let mut publisher = started(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let (Some(mut input), Some(output)) = (publisher.stdin.take(), publisher.stdout.take()) else {
            return Err(Failure::new("the publisher has no pipes"));
        };
        let text = move |number: usize| format!("message {round}-{number}");
        let writer = std::thread::spawn(move || {
            // The pipe holds some thousand lines; with the publisher it ends.
            for number in 1..=50_000 {
                if writeln!(input, "{}", text(number)).is_err() {
                    return;
                }
            }
        });
        // Packet Identifiers count from 1, like the messages.
        let number = |line: String| -> Option<usize> {
            line.split_once("received PUBACK (Mid: ")?.1.strip_suffix(", RC:0)")?.parse().ok()
        };
        let (sender, numbers) = channel();
        let reader = std::thread::spawn(move || {
            for number in BufReader::new(output).lines().map_while(Result::ok).filter_map(number) {
                if sender.send(number).is_err() {
                    return;
                }
            }
        });
        let mut acknowledged = BTreeSet::new();
        let limit = Instant::now() + PATIENCE;
        while acknowledged.len() < wanted {
            let Ok(number) = numbers.recv_timeout(limit.saturating_duration_since(Instant::now())) else { break };
            acknowledged.insert(text(number));
        }
        let done = then();
        end(&mut publisher);
        let _ = (writer.join(), reader.join());
        acknowledged.extend(numbers.try_iter().map(text));
        done?;
        if acknowledged.len() < wanted {
            return Err(Failure::new(format!("only {} messages were acknowledged", acknowledged.len())));
        }
        Ok(acknowledged)
    }

    /// What waits in the session.
    fn receive(&self) -> Outcome<BTreeSet<String>> {
        let said = self.says("mosquitto_sub", "heater", &["-t", TOPIC, "-c", "-x", "86400", "-W", "15"])?;
        Ok(said.lines().filter(|line| line.starts_with("message ")).map(str::to_owned).collect())
    }
}

fn started(command: &mut Command) -> Outcome<Child> {
    println!("$ {}", process::shown(command));
    command
        .spawn()
        .map_err(|error| Failure::new(format!("`{}` could not be started: {error}", process::shown(command))))
}

/// Ends a program that was started here.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
