//! The disk under the real broker stalls, fails, is full, or may not be written to. Errors and stalls are put into the system
//! calls of the thread that writes, by strace; a full disk is a small tmpfs. Where either is not permitted, the test says so
//! and shows nothing.

use super::Gateway;
use super::support::client::{Packet, publish_packet};
use super::support::wire::{Connect, Heard, Publish, Wire};
use super::support::{PATIENCE, Process, left_out, portcullis};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// The thread of `process` that writes the log. A thread takes its name itself, so one that has not run yet is waited for.
fn store_thread(process: u32) -> OsString {
    for _ in 0..2_000 {
        let mut tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|task| task.unwrap());
        let is_store =
            |task: &DirEntry| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "store\n");
        if let Some(store) = tasks.find(is_store) {
            return store.file_name();
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("no thread that writes");
}

/// A fault in the system calls of the thread that writes the log, until it is dropped.
struct Fault(Process);

impl Fault {
    /// `calls` as strace names them, `what` as its `inject` takes it. `None`, and a line, where strace is not permitted.
    fn begin(gateway: &mut Gateway, calls: &str, what: &str) -> Option<Self> {
        let store = store_thread(gateway.process().id());
        let mut command = Command::new("strace");
        command.arg("-p").arg(store).args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}")]);
        let mut process = Process::start(&mut command);
        while process.count("attached") == 0 {
            if !process.is_alive() {
                left_out(&format!("strace is not permitted here: {}", process.output().join("\n")));
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Some(Self(process))
    }

    fn end(mut self) {
        self.0.terminate();
        self.0.wait();
    }
}

/// A small file system in memory, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None`, and a line, where mounting is not permitted.
    fn new(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        let output = output.expect("mount exists");
        if !output.status.success() {
            left_out(&format!("mounting is not permitted here: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A client whose session ends with its connection.
fn passing(port: u16, identifier: &str) -> Wire {
    Wire::resume(port, &Connect { clean_start: true, expiry: 0, ..Connect::lasting(identifier) }, false)
}

/// A session that lasts and is away, subscribed with QoS 2 to `filter`.
fn leave_subscriber(port: u16, identifier: &str, filter: &str) {
    assert_eq!(Wire::resume(port, &Connect::lasting(identifier), false).subscribe(filter, 2), Some(2));
}

/// QoS 0 from one connected client to another, and PINGREQ, pass.
fn the_rest_goes_on(port: u16) {
    let (mut from, mut to) = (passing(port, "passing-1"), passing(port, "passing-2"));
    assert_eq!(to.subscribe("passing", 1), Some(1));
    for number in 0..20_u8 {
        from.send(&publish_packet("passing", 0, 0, &[number]));
        assert_eq!(to.message().payload, [number]);
        from.ping();
    }
    assert_eq!(from.publish("passing", b"QoS 1 to whom nothing is kept for"), Some(0));
    assert_eq!(to.message().qos, 1);
}

/// All that waits for a session, acknowledged with QoS 1.
fn drain(port: u16, identifier: &str, count: usize) -> Vec<Publish> {
    let mut wire = Wire::resume(port, &Connect::lasting(identifier), true);
    let messages = (0..count).map(|_| wire.message()).collect();
    assert_eq!(wire.receive(Duration::from_millis(100)), Heard::Nothing, "no more than was acknowledged");
    messages
}

/// A disk that stalls holds back what must be safe, and nothing else.
#[test]
fn a_disk_that_stalls_holds_back_only_what_must_be_safe() {
    let mut gateway = Gateway::start("stall", "{}");
    let port = gateway.port;
    leave_subscriber(port, "away", "kept/#");
    let mut live = Wire::resume(port, &Connect::lasting("live"), false);
    assert_eq!(live.subscribe("kept/#", 2), Some(2));
    let mut publisher = passing(port, "publisher");
    // Longer than any test: the stall ends with strace.
    let Some(fault) = Fault::begin(&mut gateway, "fdatasync", "delay_enter=600s") else { return };
    publisher.send(&publish_packet("kept/1", 2, 1, b"exactly once"));
    publisher.send(&publish_packet("kept/1", 1, 2, b"at least once"));
    publisher.send(&publish_packet("kept/0", 0, 0, b"at most once"));
    gateway.process().wait_for("store slow");
    the_rest_goes_on(port);
    publisher.ping();
    assert_eq!(live.message().payload, b"at most once", "QoS 0 overtakes what waits");
    live.ping();
    assert_eq!(publisher.receive(Duration::from_millis(50)), Heard::Nothing, "not safe, not acknowledged");
    fault.end();
    assert_eq!(publisher.expect(), Packet { first: 0x50, body: vec![0, 1] });
    assert_eq!(publisher.expect(), Packet { first: 0x40, body: vec![0, 2] });
    assert_eq!([live.message().payload, live.message().payload], [&b"exactly once"[..], b"at least once"]);
    gateway.kill_and_run();
    let mut away = Wire::resume(port, &Connect::lasting("away"), true);
    assert_eq!([away.message().qos, away.message().qos], [2, 1]);
}

/// A disk that stalls for longer than there is room for what comes: the rest is refused, and what is acknowledged is there.
#[test]
fn what_finds_no_room_while_the_disk_stalls_is_refused() {
    const MESSAGES: u16 = 60;
    let mut gateway = Gateway::start("long-stall", "{}");
    let port = gateway.port;
    leave_subscriber(port, "away", "kept");
    let mut publisher = passing(port, "publisher");
    let Some(fault) = Fault::begin(&mut gateway, "fdatasync", "delay_enter=600s") else { return };
    for identifier in 1..=MESSAGES {
        publisher.send(&publish_packet("kept", 1, identifier, &[identifier as u8; 60_000]));
    }
    gateway.process().wait_for("store slow");
    the_rest_goes_on(port);
    assert_eq!(publisher.receive(Duration::from_millis(20)), Heard::Nothing, "not safe, not acknowledged");
    fault.end();
    let mut kept = Vec::new();
    for identifier in 1..=MESSAGES {
        let puback = publisher.expect();
        assert_eq!(puback.body[..2], identifier.to_be_bytes());
        match puback.body.get(2) {
            None => kept.push(identifier as u8),
            Some(reason) => assert_eq!(*reason, 0x97),
        }
    }
    assert!((1..usize::from(MESSAGES)).contains(&kept.len()), "{} of {MESSAGES} kept", kept.len());
    gateway.kill_and_run();
    let messages = drain(port, "away", kept.len());
    assert_eq!(messages.iter().map(|message| message.payload[0]).collect::<Vec<_>>(), kept);
}

/// F-io, F-sync, P12.
#[test]
fn what_could_not_be_written_is_not_acknowledged_before_it_is_written_anew() {
    let mut gateway = Gateway::start("errors", "{}");
    let port = gateway.port;
    leave_subscriber(port, "away", "kept");
    let mut publisher = passing(port, "publisher");
    let mut kept = Vec::new();
    for (round, (call, error)) in
        [("pwrite64", "EIO"), ("fdatasync", "EIO"), ("pwrite64", "ENOSPC")].into_iter().enumerate()
    {
        let Some(fault) = Fault::begin(&mut gateway, call, &format!("error={error}")) else { return };
        let held = format!("held {round}");
        publisher.send(&publish_packet("kept", 1, 1, held.as_bytes()));
        gateway.process().wait_for_another("store failed", round);
        let mut other = passing(port, "other");
        assert_eq!(other.publish("kept", b"refused"), Some(0x83));
        let lasting = Wire::connect(port, &Connect::lasting("new")).expect("an answer");
        assert_eq!(lasting.2, 0x88, "a session that cannot be kept");
        the_rest_goes_on(port);
        assert_eq!(publisher.receive(Duration::from_millis(20)), Heard::Nothing, "not safe, not acknowledged");
        fault.end();
        gateway.process().wait_for_another("store works again", round);
        assert_eq!(publisher.expect(), Packet { first: 0x40, body: vec![0, 1] });
        let after = format!("after {round}");
        assert_eq!(publisher.publish("kept", after.as_bytes()), Some(0));
        kept.extend([held, after]);
    }
    gateway.kill_and_run();
    let messages = drain(port, "away", kept.len());
    let messages: Vec<_> = messages.into_iter().map(|message| String::from_utf8(message.payload).unwrap()).collect();
    assert_eq!(messages, kept);
}

/// Each first error of each call that the log makes, once: it finds back by itself, and nothing is lost.
#[test]
fn one_error_of_any_call_is_survived() {
    let mut gateway = Gateway::start("one-error", "{}");
    let port = gateway.port;
    leave_subscriber(port, "away", "kept");
    let mut publisher = passing(port, "publisher");
    let mut number = 0_u32;
    for call in ["pwrite64", "fdatasync"] {
        for when in [1, 2] {
            let Some(fault) = Fault::begin(&mut gateway, call, &format!("error=EIO:when={when}")) else { return };
            for _ in 0..4 {
                number += 1;
                // Held until the log has found back.
                while publisher.publish("kept", &number.to_be_bytes()) != Some(0) {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            fault.end();
            gateway.kill_and_run();
            publisher = passing(port, "publisher");
        }
    }
    let numbers: Vec<u32> = drain(port, "away", number as usize)
        .into_iter()
        .map(|message| u32::from_be_bytes(message.payload.try_into().unwrap()))
        .collect();
    assert_eq!(numbers, (1..=number).collect::<Vec<_>>());
}

/// F-full: what is new is refused, what makes room goes on, and there is room again.
#[test]
fn a_full_disk_refuses_what_is_new_until_something_is_taken_away() {
    let mut gateway = Gateway::new("full", "{}");
    let (port, state) = (gateway.port, gateway.state.clone());
    let Some(_mount) = Mount::new(&state, "size=20m") else { return };
    gateway.run();
    leave_subscriber(port, "away", "kept");
    let publish_until_full = |first: u32| {
        let mut publisher = passing(port, "publisher");
        for number in first..first + 1_000 {
            let mut payload = vec![7; 60_000];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            match publisher.publish("kept", &payload) {
                Some(0) => {}
                Some(0x97) => return number,
                other => panic!("PUBACK {other:02x?}"),
            }
        }
        panic!("20 MB took 60");
    };
    let full = publish_until_full(0);
    assert!(full > 20, "{full} messages");
    gateway.process().wait_for("store full");
    the_rest_goes_on(port);
    let (_, _, reason) = Wire::connect(port, &Connect::lasting("new")).expect("an answer");
    assert_eq!(reason, 0x97, "a session that finds no room");
    gateway.kill_and_run();
    for (number, message) in drain(port, "away", full as usize).into_iter().enumerate() {
        assert_eq!(message.payload[..4], (number as u32).to_be_bytes());
    }
    gateway.process().wait_for("store has room again");
    // Now somebody else fills it.
    let filler = state.join("filler");
    let _ = std::fs::write(&filler, vec![1; 20 << 20]);
    let full = publish_until_full(0);
    std::fs::remove_file(filler).unwrap();
    gateway.process().wait_for_another("store has room again", 1);
    assert_eq!(passing(port, "publisher").publish("kept", b"the last one"), Some(0));
    gateway.kill_and_run();
    let messages = drain(port, "away", full as usize + 1);
    assert_eq!(messages.last().unwrap().payload, b"the last one");
    drop(gateway.process.take());
}

/// Bytes that the process gave to the disk, and when its files were changed.
fn written(gateway: &mut Gateway) -> (String, BTreeMap<PathBuf, SystemTime>) {
    let io = std::fs::read_to_string(format!("/proc/{}/io", gateway.process().id())).expect("Linux");
    let bytes = io.lines().find(|line| line.starts_with("write_bytes")).expect("a count").to_owned();
    let files = std::fs::read_dir(&gateway.state).unwrap().map(|entry| entry.unwrap().path());
    (bytes, files.map(|path| (path.clone(), path.metadata().unwrap().modified().unwrap())).collect())
}

/// F-wear: flash is not worn by clients that keep nothing, nor by what the broker says about itself.
#[test]
fn nothing_is_written_while_nothing_changes() {
    let mut gateway = Gateway::new("idle", "{}");
    gateway.bake(1);
    gateway.run();
    let port = gateway.port;
    let mut lasting = Wire::resume(port, &Connect::lasting("lasting"), false);
    assert_eq!(lasting.subscribe("telemetry", 2), Some(2));
    let mut publisher = passing(port, "publisher");
    // What they did is written in a moment.
    let (mut before, end) = (written(&mut gateway), Instant::now() + PATIENCE);
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = written(&mut gateway);
        if now == before {
            break;
        }
        assert!(Instant::now() < end, "it writes on and on: {now:?}");
        before = now;
    }
    for number in 0..40_u8 {
        publisher.send(&publish_packet("telemetry", 0, 0, &[number]));
        assert_eq!(lasting.message().payload, [number]);
        lasting.ping();
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(written(&mut gateway), before);
}

/// The error of a broker that does not start on `state`.
fn refusal(gateway: &Gateway, state: &Path) -> String {
    let (blob, state) = (gateway.blob.to_str().unwrap(), state.to_str().unwrap());
    let mut process = Process::start(&mut portcullis(&["run", "--config", blob, "--state", state]));
    assert!(!process.wait().success());
    process.output().join("\n")
}

#[test]
fn a_second_broker_on_the_same_state_folder_is_refused() {
    let mut gateway = Gateway::start("first", "{}");
    let second = Gateway::new("second", "{}");
    let said = refusal(&second, &gateway.state);
    assert!(said.contains("another broker is running on it"), "{said}");
    // The lock ends with the process, however it ends.
    gateway.kill_and_run();
}

#[test]
fn a_state_folder_that_cannot_be_written_to_is_said_at_start() {
    let gateway = Gateway::new("read-only", "{}");
    let Some(_mount) = Mount::new(&gateway.state, "size=20m,ro") else { return };
    let said = refusal(&gateway, &gateway.state);
    assert!(said.contains("Read-only file system") && said.contains("make it writable"), "{said}");
}

#[test]
fn a_state_folder_without_room_is_said_at_start() {
    let mut gateway = Gateway::new("small", "{}");
    let Some(_mount) = Mount::new(&gateway.state, "size=1m") else { return };
    gateway.run();
    gateway.process().wait_for("store full");
    let (_, _, reason) = Wire::connect(gateway.port, &Connect::lasting("new")).expect("an answer");
    assert_eq!(reason, 0x97);
    the_rest_goes_on(gateway.port);
    drop(gateway.process.take());
}
