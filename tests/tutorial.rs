//! The vendor's tutorial, line for line: `portcullis demo` and the mosquitto clients.
//!
//! Scenarios 1 to 8 of the semantics that the broker reproduces; the numbers are in the tests' names.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use std::process::Command;
use support::{Demo, Process};

fn mosquitto(program: &str, demo: &Demo, client: &str, port: u16, arguments: &[&str]) -> Command {
    // The clients buffer what they print into a pipe; `stdbuf` (coreutils) makes them print line by line.
    let mut command = Command::new("stdbuf");
    command
        .args(["-oL", program])
        .args(["-i", client, "-V", "mqttv5", "-d", "-h", "localhost", "-p", &port.to_string()])
        .args(["--key", &demo.file(&format!("{client}.key")), "--cert", &demo.file(&format!("{client}.crt"))])
        .args(["--cafile", &demo.file("contoso_root_ca.crt")])
        .args(arguments);
    command
}

fn publish(demo: &Demo, client: &str, port: u16, topic: &str, message: &str) -> Vec<String> {
    let arguments = ["-t", topic, "-m", message, "-q", "1"];
    let mut process = Process::start(&mut mosquitto("mosquitto_pub", demo, client, port, &arguments));
    process.wait();
    process.output()
}

fn assert_lines(output: &[String], expected: &[&str]) {
    let mut rest = output.iter();
    for line in expected {
        assert!(rest.any(|candidate| candidate.contains(line)), "no {line:?} in order in:\n{}", output.join("\n"));
    }
}

#[test]
fn the_tutorial_runs_line_for_line() {
    let mut demo = Demo::start("tutorial");
    let (port, open) = (demo.port, demo.port + 1);

    // 1: without authorization every authenticated client may publish; no subscriber is no failure.
    assert_lines(
        &publish(&demo, "thermostat", open, "example/topic", "example temperature measurement"),
        &[
            "Client thermostat sending CONNECT",
            "Client thermostat received CONNACK (0)",
            "Client thermostat sending PUBLISH (d0, q1, r0, m1, 'example/topic', ... (31 bytes))",
            "Client thermostat received PUBACK (Mid: 1, RC:0)",
            "Client thermostat sending DISCONNECT",
        ],
    );
    // With authorization, what no rule allows is denied.
    assert_lines(
        &publish(&demo, "thermostat", port, "example/topic", "example temperature measurement"),
        &["received CONNACK (0)", "received PUBACK (Mid: 1, RC:135)"],
    );

    // 2
    let humidity = publish(&demo, "thermostat", port, "telemetry/humidity", "example temperature measurement");
    assert_lines(
        &humidity,
        &["Client thermostat received CONNACK (0)", "Client thermostat received PUBACK (Mid: 1, RC:135)"],
    );
    // Written to the other stream, so its place among the lines is not fixed.
    assert_lines(&humidity, &["Warning: Publish 1 failed: Not authorized."]);
    demo.process.wait_for(
        "audit denied client='thermostat' user='thermostat' method=X509 action=publish resource='telemetry/humidity'",
    );

    // 4: the heater is told 135 for heartbeats and stays connected.
    let mut refused =
        Process::start(&mut mosquitto("mosquitto_sub", &demo, "heater", port, &["-q", "1", "-t", "health/heartbeat"]));
    refused.wait_for("Subscribed (mid: 1): 135");
    assert_lines(
        &refused.output(),
        &[
            "Client heater sending CONNECT",
            "Client heater received CONNACK (0)",
            "Client heater sending SUBSCRIBE (Mid: 1, Topic: health/heartbeat, QoS: 1, Options: 0x00)",
            "Client heater received SUBACK",
            "Subscribed (mid: 1): 135",
        ],
    );
    drop(refused);

    // 5: it may listen to temperatures, which arrive.
    let mut heater = Process::start(&mut mosquitto(
        "mosquitto_sub",
        &demo,
        "heater",
        port,
        &["-q", "1", "-t", "telemetry/temperature"],
    ));
    heater.wait_for("Subscribed (mid: 1): 1");

    // 3 and 6: temperature from the thermostat, heartbeat from the lightbulb, both acknowledged.
    let arguments = ["-t", "telemetry/temperature", "-m", "21", "-q", "1", "--repeat", "3", "--repeat-delay", "0.2"];
    let mut thermostat = Process::start(&mut mosquitto("mosquitto_pub", &demo, "thermostat", port, &arguments));
    let arguments = ["-t", "health/heartbeat", "-m", "beat", "-q", "1", "--repeat", "3", "--repeat-delay", "0.2"];
    let mut lightbulb = Process::start(&mut mosquitto("mosquitto_pub", &demo, "lightbulb", port, &arguments));
    thermostat.wait();
    lightbulb.wait();
    for mid in 1..=3 {
        assert_lines(&thermostat.output(), &[&format!("received PUBACK (Mid: {mid}, RC:0)")]);
        assert_lines(&lightbulb.output(), &[&format!("received PUBACK (Mid: {mid}, RC:0)")]);
    }
    // The thermostat's last message is behind all heartbeats that could have come.
    assert_lines(
        &publish(&demo, "thermostat", port, "telemetry/temperature", "the last one"),
        &["received PUBACK (Mid: 1, RC:0)"],
    );
    heater.wait_for("the last one");
    let received = heater.output();
    assert_eq!(received.iter().filter(|line| line.contains("received PUBLISH")).count(), 4, "{received:?}");
    assert!(!received.iter().any(|line| line.contains("beat")), "{received:?}");

    // 7: the thermostat's own entry is found first and takes the intermediate's attribute away.
    assert_lines(&publish(&demo, "thermostat", port, "health/heartbeat", "x"), &["received PUBACK (Mid: 1, RC:135)"]);
    // 8: the heater has no entry of its own: intermediate's attribute and user name rule together.
    let mut other =
        mosquitto("mosquitto_pub", &demo, "heater", port, &["-t", "health/heartbeat", "-m", "x", "-q", "1"]);
    let other = other.args(["-i", "heater-too"]).output().expect("mosquitto_pub runs");
    let text = String::from_utf8_lossy(&other.stdout);
    assert!(text.contains("received PUBACK (Mid: 1, RC:0)"), "{text}");

    // Stops on SIGTERM and tells its clients.
    demo.process.terminate();
    assert!(demo.process.wait().success());
    heater.wait_for("Received DISCONNECT (139)");
}

#[test]
fn the_demo_uses_what_is_there_and_overwrites_nothing() {
    let demo = Demo::start("again");
    let read = |name: &str| std::fs::read(demo.file(name)).expect("the file is there");
    let before: Vec<_> = ["thermostat.crt", "thermostat.key", "contoso_root_ca.key"].map(read).into();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(demo.file("thermostat.key")).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let Demo { folder, process, .. } = demo;
    drop(process);
    let directory = folder.join("demo");
    let port = support::free_ports(2);
    let mut again = Process::start(&mut support::portcullis(&[
        "demo",
        "--dir",
        directory.to_str().expect("a plain path"),
        "--port",
        &port.to_string(),
    ]));
    again.wait_for(" ready");
    let read = |name: &str| std::fs::read(directory.join(name)).expect("the file is there");
    let after: Vec<_> = ["thermostat.crt", "thermostat.key", "contoso_root_ca.key"].map(read).into();
    assert_eq!(before, after);
}
