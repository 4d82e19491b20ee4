//! The load generator against its own forwarder: what is published arrives, once and in order, with and without TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../support/ports.rs"]
mod ports;

use serde_json::Value;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long the forwarder may take to open its port.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn load(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_load"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn flow(tls: Option<&str>, arguments: &str) -> Value {
    let port = ports::free(1).unwrap();
    let port_text = port.to_string();
    let tls: Vec<&str> = tls.map_or_else(Vec::new, |folder| vec!["--tls", folder]);
    let mut server = Server(load(&["forward", "--port", &port_text]).args(&tls).spawn().unwrap());
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(server.0.try_wait().unwrap().is_none(), "the forwarder has ended");
        assert!(Instant::now() < end, "the forwarder does not open its port");
        thread::sleep(Duration::from_millis(5));
    }
    let mut command = load(&["flow", "--port", &port_text, "--pid", &server.0.id().to_string()]);
    command.args(&tls).args(arguments.split_whitespace()).args(["--seconds", "0.3", "--warm-up", "0.1"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_is_published_arrives_once_and_in_order() {
    let folder = std::env::temp_dir().join(format!("portcullis-load-{}", std::process::id()));
    let pki = folder.to_str().unwrap();
    assert!(load(&["pki", pki, "--clients", "2"]).status().unwrap().success());
    for tls in [None, Some(pki)] {
        for arguments in [
            "--publishers 3 --subscribers 3 --qos 0",
            "--publishers 3 --subscribers 3 --qos 2 --payload 70000 --window 4",
            "--shape fan --publishers 2 --subscribers 5 --qos 1 --window 16",
            "--publishers 2 --subscribers 2 --rate 200",
        ] {
            let result = flow(tls, arguments);
            assert!(result["delivered"].as_u64().unwrap() > 0, "{arguments}: {result}");
            let faults = ["lost", "disordered", "refused"].map(|name| result[name].as_u64().unwrap());
            assert_eq!(faults, [0; 3], "{arguments}: {result}");
        }
    }
    let _ = std::fs::remove_dir_all(folder);
}

#[test]
fn a_mistake_on_the_command_line_is_named() {
    for (arguments, named) in [
        (&["flow", "--qos", "3"][..], "--qos"),
        (&["flow", "--payload", "3"], "--payload"),
        (&["flow", "--publishers", "3"], "pairs"),
        (&["flow", "--shape", "fan", "--topics", "3"], "--topics"),
        (&["flew"], "flew"),
    ] {
        let output = load(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(named), "{said}");
    }
}
