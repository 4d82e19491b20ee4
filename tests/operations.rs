//! What operators and supervisors see of the whole program: health, the service manager, log lines.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::distinguished_name::DistinguishedName;
use portcullis::pki::{Issued, Template};
use portcullis::time::UnixTime;
use serde_json::Value;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};
use support::client::{Client, packet, tcp, text};
use support::login::now;
use support::{Folder, PATIENCE, Process, Site, free_ports, plain_listener, portcullis, run};

/// `portcullis health --json` of the broker in this folder: exit code, and what it says.
fn health(folder: &Folder) -> (Option<i32>, Value) {
    let Output { status, stdout, stderr } = run(&["health", "--json", "--control", &control(folder)]);
    let said = String::from_utf8(stdout).unwrap();
    (
        status.code(),
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&stderr))),
    )
}

/// Bakes the site in this folder; the command that runs it.
fn baked(folder: &Folder, arguments: &[&str]) -> Command {
    let (source, blob) = (folder.join("site"), folder.join("site/site.blob"));
    let (source, blob) = (source.to_str().unwrap(), blob.to_str().unwrap());
    let baked = run(&["bake", source, "--out", blob]);
    assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    portcullis(&[&["run", "--config", blob], arguments].concat())
}

fn start(folder: &Folder, arguments: &[&str]) -> Process {
    Process::start(&mut baked(folder, arguments))
}

fn control(folder: &Folder) -> String {
    folder.join("site/state/control.sock").to_str().unwrap().to_owned()
}

/// Asks until the broker's probe has been around.
fn probed(folder: &Folder) -> (Option<i32>, Value) {
    let end = Instant::now() + PATIENCE;
    loop {
        let (code, health) = health(folder);
        if health["state"] != "Unknown" {
            return (code, health);
        }
        assert!(Instant::now() < end, "{health}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn check<'a>(health: &'a Value, name: &str) -> (bool, &'a str) {
    let found = health["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
    (found["ok"].as_bool().unwrap(), found["detail"].as_str().unwrap())
}

/// A site with a listener whose certificate ends in so many seconds.
fn site_with_certificate(name: &str, seconds: u64, gateway: &str) -> Folder {
    let folder = Folder::new(name);
    let name = |text: &str| DistinguishedName::parse(text).unwrap();
    let (begin, end) = (UnixTime(now() - 60), UnixTime(now() + seconds));
    let authority = Issued::root(&Template::authority(name("CN=Here"), None, begin, end)).unwrap();
    let leaf = authority.issue(&Template::leaf(name("CN=localhost"), begin, end)).unwrap();
    folder.write("site/secrets/server/tls.crt", leaf.certificate_pem().unwrap());
    folder.write("site/secrets/server/tls.key", leaf.key_pem().unwrap().as_bytes());
    let tls = "      tls: {mode: Manual, manual: {secretRef: server}}\n";
    folder.write("site/listener.yaml", plain_listener(free_ports(1)) + tls);
    let head = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:\n";
    folder.write("site/gateway.yaml", format!("{head}  sysIntervalSeconds: 0\n{gateway}"));
    folder
}

#[test]
fn a_gateway_is_ready_when_every_check_is_passed() {
    let site = Site::start_in(site_with_certificate("well", 30 * 86_400, ""));
    let (code, health) = probed(&site.folder);
    assert_eq!((code, &health["state"], &health["ready"]), (Some(0), &"Available".into(), &true.into()), "{health}");
    let names: Vec<_> =
        health["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["probe", "listeners", "store", "clock", "certificates"]);
    let text = run(&["health", "--control", &control(&site.folder)]);
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("Available, ready\n"));
}

#[test]
fn a_certificate_that_ends_soon_keeps_a_gateway_from_being_ready_and_not_from_serving() {
    let mut site = Site::start_in(site_with_certificate("soon", 2 * 86_400, ""));
    let (code, health) = probed(&site.folder);
    assert_eq!((code, &health["state"], &health["ready"]), (Some(1), &"Degraded".into(), &false.into()), "{health}");
    let (is_ok, detail) = check(&health, "certificates");
    assert!(!is_ok && detail.starts_with("'server' ends 20"), "{detail}");
    assert!(check(&health, "probe").0 && check(&health, "listeners").0);
    site.process.terminate();
    assert!(site.process.wait().success());
    // Who renews every other day says so.
    let site = Site::start_in(site_with_certificate("renewed", 2 * 86_400, "  readyCertificateDays: 1\n"));
    assert_eq!(probed(&site.folder).0, Some(0));
}

#[test]
fn a_clock_that_is_not_set_keeps_a_gateway_from_being_ready() {
    for (policy, ready) in [("Enforce", false), ("AssumeBuildDate", true)] {
        let folder = site_with_certificate("clock", 30 * 86_400, &format!("  clockPolicy: {policy}\n"));
        folder.write("site/state/last-known-time", UnixTime(now() + 86_400).to_string());
        let site = Site::start_in(folder);
        let (code, health) = probed(&site.folder);
        assert_eq!((code, check(&health, "clock").0), (Some(i32::from(!ready)), ready), "{health}");
        assert!(check(&health, "clock").1.contains("not set"), "{health}");
    }
}

#[test]
fn a_broker_without_a_place_for_its_probe_is_degraded_and_says_which_operation_failed() {
    let folder = Folder::new("crowded");
    let port = free_ports(1);
    folder.write("site/listener.yaml", plain_listener(port));
    // The smallest board; its tables are taken by clients that stay.
    folder.write(
        "site/gateway.yaml",
        "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec: {board: zero2w}\n",
    );
    // A watchdog has it probe twice a second instead of twice a minute.
    let manager = UnixDatagram::bind(folder.join("notify.sock")).unwrap();
    let mut command = baked(&folder, &[]);
    command.env("NOTIFY_SOCKET", folder.join("notify.sock")).env("WATCHDOG_USEC", "1000000");
    let mut process = Process::start(&mut command);
    process.wait_for(" ready");
    probed(&folder);
    let status = run(&["status", "--json", "--control", &control(&folder)]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let sessions = status["tables"].as_array().unwrap().iter().find(|table| table["name"] == "sessions").unwrap();
    let capacity = sessions["capacity"].as_u64().unwrap();
    let lasting = support::client::lasting_connect_packet;
    for number in 0..capacity {
        // Between two rounds of the probe, its place is free for a moment.
        let end = Instant::now() + PATIENCE;
        loop {
            let mut client = Client::new(tcp(port));
            client.send(&lasting(&format!("c{number}"), None, true));
            let answer = client.receive().unwrap();
            if answer.body[1] == 0 {
                break;
            }
            assert!(number + 1 == capacity && Instant::now() < end, "{number} of {capacity}: {answer:?}");
        }
    }
    process.wait_for("BrokerProbeFailed: Probe failed: Failed Operation ");
    // A round that was under way when the last place went, or that was not answered in time, has failed elsewhere.
    let end = Instant::now() + PATIENCE;
    let (code, health) = loop {
        let (code, health) = health(&folder);
        let (_, detail) = check(&health, "probe");
        if detail.starts_with("Probe failed: Failed Operation CONNECT (1/5)") && health["state"] == "Degraded" {
            break (code, health);
        }
        assert!(Instant::now() < end, "{health}");
        thread::sleep(Duration::from_millis(20));
    };
    drop(manager);
    assert_eq!((code, &health["state"]), (Some(1), &"Degraded".into()), "{health}");
}

/// A service manager's end of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram);

impl Manager {
    fn heard(&self) -> String {
        let mut buffer = [0; 4_096];
        let count = self.0.recv(&mut buffer).expect("word from the broker");
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    /// Waits for a message that begins so, and returns it and what came before.
    fn wait_for(&self, begin: &str) -> (String, Vec<String>) {
        let mut before = Vec::new();
        loop {
            let message = self.heard();
            if message.starts_with(begin) {
                return (message, before);
            }
            before.push(message);
        }
    }
}

#[test]
fn the_service_manager_hears_of_start_work_reload_and_end() {
    let folder = Folder::new("notify");
    folder.write("site/listener.yaml", plain_listener(free_ports(1)));
    let abstract_name = format!("portcullis-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
    let path = folder.join("notify.sock");
    for (socket, name) in [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (UnixDatagram::bind_addr(&address).unwrap(), format!("@{abstract_name}")),
    ] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let manager = Manager(socket);
        let mut command = baked(&folder, &[]);
        let mut process = Process::start(command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "1000000"));
        assert_eq!(manager.heard(), "READY=1");
        assert_eq!(process.count_to(1, "listening on 127.0.0.1"), 1, "ready means that clients can come");
        for _ in 0..3 {
            manager.wait_for("WATCHDOG=1");
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let (status, _) = manager.wait_for("STATUS=");
            if status == "STATUS=Available, 0 connections" {
                break;
            }
            assert!(Instant::now() < end, "{status}");
        }
        process.signal("-HUP");
        let (reloading, _) = manager.wait_for("RELOADING=1");
        let microseconds = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(microseconds.parse::<u64>().unwrap() > 0);
        manager.wait_for("READY=1");
        process.terminate();
        let (_, before) = manager.wait_for("STOPPING=1");
        assert!(!before.iter().any(|message| message.starts_with("READY")), "{before:?}");
        assert!(process.wait().success());
    }
}

#[test]
fn a_watchdog_that_is_for_another_process_is_not_fed() {
    let folder = Folder::new("watchdog");
    let path = folder.join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    folder.write("site/listener.yaml", plain_listener(free_ports(1)));
    let mut command = baked(&folder, &[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000").env("WATCHDOG_PID", "1");
    let process = Process::start(&mut command);
    let manager = Manager(socket);
    // The first round tells, like any other; a second one within the watchdog's time is not made.
    manager.wait_for("STATUS=");
    process.terminate();
    let (_, before) = manager.wait_for("STOPPING=1");
    assert!(!before.iter().any(|message| message == "WATCHDOG=1"), "{before:?}");
}

#[test]
fn what_a_log_says_is_bounded_a_second_and_what_is_left_out_is_counted() {
    let folder = Folder::new("flood");
    let port = free_ports(1);
    folder.write("site/listener.yaml", plain_listener(port));
    // At the level of operation: who asks for details gets more of them.
    let mut process = start(&folder, &["--log", "info"]);
    process.wait_for(" ready");
    let refused = support::client::connect_packet("$inside/probe", 0);
    let count = 400;
    // All are there before the first one is answered: many are refused in one second, on a slow machine too.
    let mut clients: Vec<Client> = (0..count).map(|_| Client::new(tcp(port))).collect();
    clients.iter_mut().for_each(|client| client.send(&refused));
    for client in &mut clients {
        assert_eq!(client.receive().unwrap().body[1], 0x85);
    }
    let said = process.wait_for("lines of authentication were left out in one second");
    assert!(said.contains("WARN"), "{said}");
    let lines = process.count("client '$inside/probe' refused");
    assert!(lines >= 50 && lines < count, "{lines} lines");
}

#[test]
fn lines_of_json_are_objects_and_levels_change_while_the_broker_runs() {
    let folder = Folder::new("json");
    let socket = folder.join("control.sock");
    let socket = socket.to_str().unwrap();
    let port = free_ports(1);
    folder.write("site/listener.yaml", plain_listener(port));
    folder.write(
        "site/broker.yaml",
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\n\
                                      spec: {diagnostics: {logs: {level: warn}}}\n",
    );
    let mut process = start(&folder, &["--control", socket, "--log-format", "json"]);
    let level = |arguments: &[&str]| {
        let output = run(&[&["log"], arguments, &["--control", socket]].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    // Not even "ready" is said at this level.
    let end = Instant::now() + PATIENCE;
    while level(&[]) != (Some(0), "warn\n".to_owned()) {
        assert!(Instant::now() < end, "{:?}", level(&[]));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(level(&["warn,broker=info"]), (Some(0), "warn,broker=info\n".to_owned()));
    assert_eq!(level(&["warn,brokr=info"]).0, Some(2));
    let hostile = "a\"b\\c\n\u{1b}[31m\u{202E}";
    let mut client = Client::new(tcp(port));
    let name = [&[0, 4][..], b"MQTT", &[5, 2, 0, 0, 0], &text(hostile)].concat();
    client.send(&packet(0x10, &name));
    assert_eq!(client.receive().unwrap().body[1], 0);
    process.wait_for("connected");
    process.signal("-USR1");
    process.wait_for("SIGUSR1: the log level is debug");
    process.signal("-USR1");
    process.wait_for("SIGUSR1: the log level is trace");
    process.signal("-USR1");
    process.wait_for("SIGUSR1: the log level is warn");
    process.terminate();
    assert!(process.wait().success());
    let mut messages = Vec::new();
    for line in process.output() {
        let object: Value = serde_json::from_str(&line).unwrap_or_else(|fault| panic!("{fault}: {line}"));
        let keys: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["level", "message", "room", "time"], "{line}");
        messages.push((object["room"].as_str().unwrap().to_owned(), object["message"].as_str().unwrap().to_owned()));
    }
    let connected: Vec<_> = messages.iter().filter(|(_, message)| message.ends_with("not authenticated")).collect();
    let said = "client 'a\"b\\u{5c}c\\u{a}\\u{1b}[31m\\u{202e}' connected, not authenticated";
    assert_eq!(connected, [&("broker".to_owned(), said.to_owned())]);
}
