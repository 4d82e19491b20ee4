//! Clients that we did not write, over TCP, TLS and WebSockets, with MQTT 5.0 and 3.1.1: paho-mqtt, MQTT.js and the
//! mosquitto clients. `cargo xtask install` puts the first two below `target/interop`.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Folder, Process, Site, free_ports};

/// A broker with four ports in a row, without authentication: TCP, WebSockets, TLS, WebSockets over TLS.
struct Open {
    site: Site,
    port: u16,
}

impl Open {
    fn start(name: &str) -> Self {
        let folder = Folder::new(name);
        let port = free_ports(4);
        portcullis::pki::demo::create(&folder.join("demo")).unwrap();
        for (file, name) in [("mqtts-endpoint.crt", "tls.crt"), ("mqtts-endpoint.key", "tls.key")] {
            folder
                .write(&format!("site/secrets/server/{name}"), std::fs::read(folder.join("demo").join(file)).unwrap());
        }
        let mut ports = String::new();
        for offset in 0..4 {
            let protocol = if offset % 2 == 0 { "Mqtt" } else { "WebSockets" };
            let tls = if offset < 2 { "" } else { ", tls: {mode: Manual, manual: {secretRef: server}}" };
            ports.push_str(&format!("  - {{port: {}, protocol: {protocol}{tls}}}\n", port + offset));
        }
        folder.write("site/open.listener.yaml", format!("ports:\n{ports}"));
        Self { site: Site::start_in(folder), port }
    }

    fn authority(&self) -> PathBuf {
        self.site.folder.join("demo/contoso_root_ca.crt")
    }

    fn run_script(&self, mut command: Command) {
        for offset in 0..4 {
            command.arg((self.port + offset).to_string());
        }
        command.arg(self.authority());
        let mut process = Process::start(&mut command);
        let status = process.wait();
        let said = process.output().join("\n");
        assert!(status.success(), "{said}");
        assert_eq!(said.matches("ok ").count(), 8, "{said}");
    }
}

fn installed(what: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop").join(what);
    assert!(folder.is_dir(), "{} is missing: run `cargo xtask install`", folder.display());
    folder
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

/// [MQTT-4.2.0-1] [MQTT-6.0.0-4]
#[test]
fn paho_speaks_both_versions_over_all_transports() {
    let broker = Open::start("paho");
    let mut command = Command::new("python3");
    command.arg(script("client.py")).env("PYTHONPATH", installed("python"));
    broker.run_script(command);
}

#[test]
fn mqtt_js_speaks_both_versions_over_all_transports() {
    let broker = Open::start("mqttjs");
    let mut command = Command::new("node");
    command.arg(script("client.cjs")).env("NODE_PATH", installed("node").join("node_modules"));
    broker.run_script(command);
}

#[test]
fn clients_of_both_versions_exchange_messages() {
    let broker = Open::start("versions");
    let port = broker.port.to_string();
    for (publisher, subscriber) in [("mqttv5", "mqttv311"), ("mqttv311", "mqttv5")] {
        for qos in ["0", "1", "2"] {
            let topic = format!("from/{publisher}/{qos}");
            let common = ["-p", port.as_str(), "-t", topic.as_str(), "-q", qos];
            let mut subscribe = Command::new("stdbuf");
            subscribe.args(["-oL", "mosquitto_sub", "-V", subscriber, "-d", "-C", "1"]).args(common);
            let mut subscribe = Process::start(&mut subscribe);
            subscribe.wait_for("Subscribed");
            let mut publish = Command::new("mosquitto_pub");
            publish.args(["-V", publisher, "-m", "hello there"]).args(common);
            if publisher == "mqttv5" {
                publish.args(["-D", "publish", "user-property", "name", "value"]);
            }
            assert!(publish.status().expect("mosquitto_pub runs").success());
            subscribe.wait_for("hello there");
            assert!(subscribe.wait().success());
        }
    }
}

/// Publishes 100 messages of each QoS to itself; `$module` is rumqttc's client of one version, `$incoming` takes topic and
/// payload out of its event.
macro_rules! rumqttc_round {
    ($name:expr, $port:expr, $client:path, $options:path, $qos:path, $event:pat => $payload:expr) => {{
        use $client as Client;
        use $options as Options;
        use $qos as QoS;
        let mut options = Options::new($name, "localhost", $port);
        options.set_keep_alive(Duration::from_secs(5));
        let (client, mut connection) = Client::new(options, 400);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let topic = format!("{}/{qos:?}", $name);
            client.subscribe(topic.as_str(), qos).unwrap();
            for number in 0..100_u8 {
                client.publish(topic.as_str(), qos, false, vec![number]).unwrap();
            }
        }
        let mut received = 0;
        let end = Instant::now() + support::PATIENCE;
        for event in connection.iter() {
            if let $event = event.expect("the connection holds") {
                assert_eq!($payload, [(received % 100) as u8]);
                received += 1;
            }
            assert!(Instant::now() < end, "{received} of 300");
            if received == 300 {
                break;
            }
        }
    }};
}

#[test]
fn rumqttc_speaks_both_versions() {
    use rumqttc::v5::mqttbytes::QoS as QoS5;
    let broker = Open::start("rumqttc");
    rumqttc_round!("rumqttc-5", broker.port, rumqttc::v5::Client, rumqttc::v5::MqttOptions, QoS5,
        rumqttc::v5::Event::Incoming(rumqttc::v5::mqttbytes::v5::Packet::Publish(publish)) => publish.payload.as_ref());
    rumqttc_round!("rumqttc-4", broker.port, rumqttc::Client, rumqttc::MqttOptions, rumqttc::QoS,
        rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) => publish.payload.as_ref());
}
