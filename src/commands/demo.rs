//! `portcullis demo`: the factory tutorial on one machine.

use super::CommandError;
use super::paths::{Control, Paths};
use super::start::{Candidate, start};
use crate::config::{self, LoadOptions};
use crate::pki;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of `demo`.
#[derive(Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// Where certificates and keys are kept.
    pub directory: PathBuf,
    /// Port with authorization; the one behind it has none.
    pub port: u16,
}

/// The port that `config/tutorial` gives to the listener with authorization; its neighbour has none.
const TUTORIAL_PORT: u16 = 8883;

/// One command of the tutorial.
struct Step {
    title: &'static str,
    /// Begins with the program's name; `{client}` is replaced by the client's options.
    command: &'static str,
    client: &'static str,
    /// On the port without authorization.
    open: bool,
    answer: &'static str,
    reason: &'static str,
}

const STEPS: [Step; 7] = [
    Step {
        title: "Authentication alone: the thermostat may publish anywhere",
        command: "mosquitto_pub -t \"example/topic\" -m \"example temperature measurement\" -q 1",
        client: "thermostat",
        open: true,
        answer: "CONNACK (0), PUBACK (Mid: 1, RC:0)",
        reason: "this port has no authorization; its certificate leads to the Fabrikam root",
    },
    Step {
        title: "With authorization: the same topic is not in any rule",
        command: "mosquitto_pub -t \"example/topic\" -m \"example temperature measurement\" -q 1",
        client: "thermostat",
        open: false,
        answer: "CONNACK (0), PUBACK (Mid: 1, RC:135), Warning: Publish 1 failed: Not authorized.",
        reason: "what no rule allows is denied",
    },
    Step {
        title: "The thermostat may not publish humidity",
        command: "mosquitto_pub -t \"telemetry/humidity\" -m \"example temperature measurement\" -q 1",
        client: "thermostat",
        open: false,
        answer: "CONNACK (0), PUBACK (Mid: 1, RC:135), Warning: Publish 1 failed: Not authorized.",
        reason: "CN = thermostat gives group=thermostat_group, which may publish telemetry/temperature only",
    },
    Step {
        title: "It may publish temperature; leave this running",
        command: "mosquitto_pub -t \"telemetry/temperature\" -m \"example temperature measurement\" -q 1 --repeat 10000 --repeat-delay 3",
        client: "thermostat",
        open: false,
        answer: "PUBACK (Mid: 1, RC:0), and so on",
        reason: "the rule for group=thermostat_group",
    },
    Step {
        title: "The heater may not listen to heartbeats",
        command: "mosquitto_sub -q 1 -t \"health/heartbeat\"",
        client: "heater",
        open: false,
        answer: "CONNACK (0), SUBACK, Subscribed (mid: 1): 135",
        reason: "user name heater may subscribe to telemetry/temperature and telemetry/humidity only",
    },
    Step {
        title: "It may listen to temperatures; leave this running",
        command: "mosquitto_sub -q 1 -t \"telemetry/temperature\"",
        client: "heater",
        open: false,
        answer: "Subscribed (mid: 1): 1, then the thermostat's messages",
        reason: "the rule for user name heater, which is the CN of its certificate",
    },
    Step {
        title: "The lightbulb may send heartbeats; the heater does not get them",
        command: "mosquitto_pub -q 1 -t \"health/heartbeat\" -m \"example heartbeat\" --repeat 100 --repeat-delay 3",
        client: "lightbulb",
        open: false,
        answer: "PUBACK (Mid: 1, RC:0), and so on",
        reason: "its intermediate, CN = Fabrikam Intermediate CA 1, gives manufacturer=fabrikam",
    },
];

/// Makes certificates, bakes `config/tutorial`, prints what to try, and serves until a signal.
///
/// # Errors
/// [`CommandError::CannotStart`] when files cannot be made or ports not be bound.
pub fn run(options: &DemoOptions, out: &mut dyn Write) -> Result<(), CommandError> {
    let cannot = |error: &dyn core::fmt::Display| CommandError::CannotStart(error.to_string());
    let report = pki::demo::create(&options.directory).map_err(|error| cannot(&error))?;
    let read = |name: &str| {
        let path = options.directory.join(name);
        std::fs::read_to_string(&path).map_err(|error| cannot(&format_args!("cannot read {}: {error}", path.display())))
    };
    let (authority, chain, key) =
        (read("fabrikam_root_ca.crt")?, read("mqtts-endpoint.crt")?, read("mqtts-endpoint.key")?);
    let mut files = config::TUTORIAL_FILES.to_vec();
    files.push(("trust/fabrikam-ca/client_ca.pem", &authority));
    files.push(("secrets/broker-server-cert/tls.crt", &chain));
    files.push(("secrets/broker-server-cert/tls.key", &key));
    let load_options = LoadOptions { embed_secrets: true, ..LoadOptions::default() };
    let loaded = config::load_embedded(&files, &load_options)
        .map_err(|found| CommandError::ConfigurationRefused(found.to_string()))?;
    let mut configuration = loaded.configuration;
    for port in &mut configuration.ports {
        port.port = options.port + (port.port - TUTORIAL_PORT);
    }
    let text = guide(options, &report.to_string());
    let paths =
        Paths { state: None, control: Control::Absent, ..Paths::beside(&options.directory, &configuration.gateway) };
    start(Candidate::new(configuration, paths)?, None, |_| {
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| CommandError::CannotStart(format!("cannot print: {error}")))
    })
}

fn guide(options: &DemoOptions, certificates: &str) -> String {
    let directory = quoted(&options.directory);
    let mut text = format!(
        "{certificates}\n\
         Portcullis serves MQTT over TLS on port {port} (rules of config/tutorial) and on port {open} (no rules).\n\
         Paste these into another terminal; they need mosquitto-clients. Ctrl-C stops the broker.\n",
        port = options.port,
        open = options.port + 1,
    );
    for (number, step) in (1..).zip(&STEPS) {
        let port = options.port + u16::from(step.open);
        let (command, client) = (step.command, step.client);
        text.push_str(&format!(
            "\n{number}. {title}\n\n\
             {command} -i {client} -V mqttv5 -d -h localhost -p {port} \\\n    \
             --key {directory}/{client}.key --cert {directory}/{client}.crt --cafile {directory}/contoso_root_ca.crt\n\n   \
             answers: {answer}\n   because: {reason}\n",
            title = step.title,
            answer = step.answer,
            reason = step.reason,
        ));
    }
    text.push('\n');
    text
}

/// The folder as a shell takes it.
fn quoted(directory: &Path) -> String {
    let text = directory.display().to_string();
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_names_the_chosen_folder_and_ports() {
        let options = DemoOptions { directory: PathBuf::from("my demo"), port: 18883 };
        let text = guide(&options, "");
        assert!(text.contains("-i heater -V mqttv5 -d -h localhost -p 18883"), "{text}");
        assert!(text.contains("-p 18884"), "{text}");
        assert!(text.contains("--cert 'my demo'/heater.crt"), "{text}");
    }
}
