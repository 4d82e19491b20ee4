//! What was acknowledged outlives the process: the real broker is killed and started again on the same state folder, its disk
//! fails, stalls and fills, and clients that keep books compare what they get with what they were promised.
//!
//! `PORTCULLIS_KILLS=n` kills so many times, `PORTCULLIS_KILL_SEED` draws the same moments again; `cargo xtask kill` does both.
#![allow(clippy::expect_used, clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod disk;
mod kills;
mod load;
mod loners;
mod time;

use std::path::PathBuf;
use support::wire::{Connect, Wire};
use support::{Folder, Process, free_ports, plain_listener, portcullis, run};

/// A broker that is started again and again on the same state.
struct Gateway {
    process: Option<Process>,
    blob: PathBuf,
    state: PathBuf,
    port: u16,
    /// Goes last.
    folder: Folder,
}

impl Gateway {
    /// One that keeps its state below its own folder. `broker` is the body of a Broker resource.
    fn new(name: &str, broker: &str) -> Self {
        let folder = Folder::new(name);
        let port = free_ports(1);
        folder.write("site/listener.yaml", plain_listener(port));
        let head = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\nspec:";
        folder.write("site/broker.yaml", format!("{head} {broker}\n"));
        let (blob, state) = (folder.join("site/site.blob"), folder.join("state"));
        let gateway = Self { process: None, blob, state, port, folder };
        // The broker's own messages would be noise in what is measured here.
        gateway.bake(0);
        gateway
    }

    /// Bakes the blob again, for `$SYS` topics every so many seconds.
    fn bake(&self, sys_interval_seconds: u16) {
        let head = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:";
        let spec = format!("{head} {{board: host, sysIntervalSeconds: {sys_interval_seconds}}}\n");
        self.folder.write("site/gateway.yaml", spec);
        let site = self.folder.join("site");
        let baked = run(&["bake", site.to_str().unwrap(), "--out", self.blob.to_str().unwrap()]);
        assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    }

    /// One that runs.
    fn start(name: &str, broker: &str) -> Self {
        let mut gateway = Self::new(name, broker);
        gateway.run();
        gateway
    }

    /// Starts a process, which may not be ready yet.
    fn launch(&mut self) {
        let (blob, state) = (self.blob.to_str().unwrap(), self.state.to_str().unwrap());
        let mut command = portcullis(&["run", "--config", blob, "--state", state, "--log", "info"]);
        self.process = Some(Process::start(&mut command));
    }

    fn run(&mut self) {
        self.launch();
        self.process().wait_for(" ready");
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    /// SIGKILL. What it had said is judged: no kill damages anything.
    fn kill(&mut self) {
        let mut process = self.process.take().expect("it was started");
        process.signal("-KILL");
        process.wait();
        let said = process.output().join("\n");
        for fault in ["damaged", "panicked", "do not fit"] {
            assert!(!said.contains(fault), "{said}");
        }
    }

    /// Returns once all that the broker has done so far is on the disk: the log has one order, and CONNACK waits for the record of
    /// a session that lasts.
    fn settle(&self) {
        let settled = Wire::connect(self.port, &Connect::lasting("settles"));
        assert_eq!(settled.expect("the broker is there").2, 0, "settles: Reason Code");
    }

    fn kill_and_run(&mut self) {
        self.kill();
        self.run();
    }
}
