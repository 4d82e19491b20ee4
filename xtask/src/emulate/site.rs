//! A site as the trials have it: certificates and configuration of the vendor's tutorial, and clients of its gateway.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::machine::{self, Machine};
use crate::process::{self, Failure, Outcome};
use crate::targets::Target;
use crate::workspace;

/// A machine that shares two cores with others takes its time.
pub const PATIENCE: Duration = Duration::from_secs(300);
/// What the tutorial's thermostat publishes, and its heater may read.
const TOPIC: &str = "telemetry/temperature";
/// What opens the door for updates to the tutorial's clients.
const GATEWAY: &str = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:\n  bind: {diagnostics: [0.0.0.0]}\n  \
    diagnosticsTls: {secretRef: broker-server-cert, trustedClientCaCert: fabrikam-ca, updates: Allowed}\n";

/// The tutorial's certificates, its configuration, and where its gateway is.
pub struct Site {
    pki: PathBuf,
    /// The sources.
    pub configuration: PathBuf,
    /// The first of the gateway's ports here.
    pub port: u16,
    target: Target,
    program: PathBuf,
}

impl Site {
    /// Has `portcullis demo` make the certificates, and puts them where `bake` and the image look.
    pub fn make(target: &Target, broker: &Path, folder: &Path) -> Outcome<Self> {
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
        workspace::write(&configuration.join("gateway.yaml"), GATEWAY)?;
        Ok(Self { pki, configuration, port: 0, target: target.clone(), program: broker.to_owned() })
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
    pub fn until_reached(&self, gateway: &mut Machine) -> Outcome<Duration> {
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
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
    pub fn tutorial(&self) -> Outcome {
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

    /// Whether a message that must be safe is refused for want of room.
    pub fn is_out_of_room(&self) -> Outcome {
        let said = self.says("mosquitto_pub", "thermostat", &["-t", TOPIC, "-m", "no room"])?;
        let is_refused = said.contains("RC:151");
        if is_refused { Ok(()) } else { Err(Failure::new(format!("a full card takes a message:\n{said}"))) }
    }

    /// Whether somebody who came in before does not any more.
    pub fn is_put_out(&self, name: &str) -> Outcome {
        let said = self.says("mosquitto_pub", name, &["-t", "health/heartbeat", "-m", "x"])?;
        if said.contains("received CONNACK (0)") {
            return Err(Failure::new(format!("{name} still comes in")));
        }
        println!("{name} is put out");
        Ok(())
    }

    /// Runs `portcullis` with these arguments; its exit code, and what it says.
    pub fn portcullis(&self, arguments: &[&str]) -> Outcome<(Option<i32>, String)> {
        said(self.target.command(&self.program).args(arguments).stdin(Stdio::null()))
    }

    /// `portcullis update`, with this file or without one.
    pub fn update(&self, file: Option<&Path>) -> Command {
        let path = |name: &str| self.pki.join(name);
        let mut command = self.target.command(&self.program);
        command.arg("update").args(file).args(["--to", &format!("localhost:{}", self.port.saturating_add(2))]);
        command.arg("--cafile").arg(path("contoso_root_ca.crt"));
        command.arg("--cert").arg(path("thermostat.crt")).arg("--key").arg(path("thermostat.key"));
        command.stdin(Stdio::null());
        command
    }

    /// What the gateway says of itself.
    pub fn asked(&self) -> Outcome<(Option<i32>, String)> {
        said(&mut self.update(None))
    }

    /// A session that outlives its connections.
    pub fn subscribe(&self) -> Outcome {
        let said = self.says("mosquitto_sub", "heater", &["-t", TOPIC, "-c", "-x", "86400", "-E", "-W", "60"])?;
        if said.contains("Subscribed (mid: 1): 1") {
            Ok(())
        } else {
            Err(Failure::new(format!("no subscription:\n{said}")))
        }
    }

    /// Publishes numbered messages, and has something done when `wanted` are acknowledged and more are on their way; returns all that
    /// have been acknowledged then.
    pub fn publish_until(
        &self,
        round: u32,
        wanted: usize,
        then: impl FnOnce() -> Outcome,
    ) -> Outcome<BTreeSet<String>> {
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
    pub fn receive(&self) -> Outcome<BTreeSet<String>> {
        let said = self.says("mosquitto_sub", "heater", &["-t", TOPIC, "-c", "-x", "86400", "-W", "15"])?;
        Ok(said.lines().filter(|line| line.starts_with("message ")).map(str::to_owned).collect())
    }
}

/// The exit code of a command, and what it says.
fn said(command: &mut Command) -> Outcome<(Option<i32>, String)> {
    println!("$ {}", process::shown(command));
    let output = command.output().map_err(|error| Failure::new(format!("portcullis cannot be started: {error}")))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    said.lines().for_each(|line| println!("  {}", machine::shown(line)));
    Ok((output.status.code(), said))
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
