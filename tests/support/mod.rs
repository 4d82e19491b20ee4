//! What the tests of the whole program share: a broker process, a folder that goes away, a plain MQTT client.
//!
//! The broker under test is the one cargo built, or the file in `PORTCULLIS_BINARY`; `PORTCULLIS_RUNNER` names an emulator
//! for a foreign one. Everything is on loopback, bounded in time, and ended by the process it started.

#![allow(dead_code, clippy::expect_used, clippy::unwrap_used)] // each test uses its part

pub mod client;
pub mod full;
pub mod https;
pub mod image;
pub mod login;
pub mod ports;
pub mod wire;

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take. Long, because emulators on busy machines are slow; nothing waits this long in a good run.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a service manager tells a service.
const SERVICE_VARIABLES: [&str; 7] = [
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
];

/// A command line that runs the broker under test.
pub fn portcullis(arguments: &[&str]) -> Command {
    let binary = std::env::var("PORTCULLIS_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_portcullis").to_owned());
    let mut command = match std::env::var("PORTCULLIS_RUNNER") {
        Ok(runner) => {
            let mut command = Command::new(runner);
            command.arg(binary);
            command
        }
        Err(_) => Command::new(binary),
    };
    // A broker obeys the service manager, and the tests may be a service's.
    for variable in SERVICE_VARIABLES {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the broker's executable to its end.
pub fn run(arguments: &[&str]) -> Output {
    portcullis(arguments).output().expect("the executable starts")
}

/// Says that a test shows nothing, and why; also where the output of tests that pass is kept back, and to the gate, which sums up.
pub fn left_out(why: &str) {
    let test = thread::current().name().unwrap_or_default().to_owned();
    let line = format!("{test}: {}", why.split_whitespace().collect::<Vec<_>>().join(" "));
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {line}");
    if let Some(file) = std::env::var_os("PORTCULLIS_LEFT_OUT") {
        let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the gate's file");
        writeln!(file, "{line}").expect("the gate's file");
    }
}

/// A folder of its own for a test, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("portcullis-{name}-{}-{:?}", std::process::id(), thread::current().id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn text(&self) -> String {
        self.0.to_str().expect("a plain path").to_owned()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, content).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The first of `count` neighbouring ports that nobody has.
pub fn free_ports(count: u16) -> u16 {
    ports::free(count).expect("neighbouring free ports")
}

/// A process whose output is collected line by line.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    news: Receiver<()>,
}

impl Process {
    /// Starts a command; standard output and error are collected together.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sender, news) = channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        for stream in streams {
            let (lines, sender) = (Arc::clone(&lines), sender.clone());
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    lines.lock().expect("no panic while locked").push(line);
                    let _ = sender.send(());
                }
            });
        }
        Self { child, lines, news }
    }

    /// Waits for a line that contains `part`, and returns it.
    pub fn wait_for(&mut self, part: &str) -> String {
        self.wait_for_another(part, 0)
    }

    /// Waits for a line that contains `part` behind as many others that do, and returns it.
    pub fn wait_for_another(&mut self, part: &str, others: usize) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.output().into_iter().filter(|line| line.contains(part)).nth(others) {
                return line;
            }
            let rest = end.saturating_duration_since(Instant::now());
            assert!(!rest.is_zero(), "waited in vain for {part:?}; got:\n{}", self.output().join("\n"));
            if self.news.recv_timeout(rest.min(Duration::from_millis(200))).is_err()
                && self.child.try_wait().expect("own child").is_some()
            {
                self.read_out();
                let said = self.output().join("\n");
                assert!(self.count(part) > others, "the program ended before it said {part:?}; it said:\n{said}");
            }
        }
    }

    /// How many lines contain `part` so far.
    pub fn count(&self, part: &str) -> usize {
        self.output().iter().filter(|line| line.contains(part)).count()
    }

    /// Everything printed so far.
    pub fn output(&self) -> Vec<String> {
        self.lines.lock().expect("no panic while locked").clone()
    }

    /// How many lines contain `part`. Waits until there are as many as expected: the program may have written what the threads
    /// that collect it have not read.
    pub fn count_to(&self, expected: usize, part: &str) -> usize {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let count = self.count(part);
            if count >= expected || Instant::now() >= end {
                return count;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end of the program.
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("own child") {
                self.read_out();
                return status;
            }
            assert!(Instant::now() < end, "the program does not end; it said:\n{}", self.output().join("\n"));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until all is collected that the program said, which has ended: the threads that do so end with the pipes.
    fn read_out(&self) {
        let end = Instant::now() + PATIENCE;
        while self.news.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("own child").is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends a signal, named as `kill` takes it.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("kill exists");
        assert!(status.success());
    }

    /// Process identifier.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker that serves `demo` on two neighbouring ports.
pub struct Demo {
    pub port: u16,
    pub process: Process,
    /// Goes last.
    pub folder: Folder,
}

impl Demo {
    pub fn start(name: &str) -> Self {
        let folder = Folder::new(name);
        let port = free_ports(2);
        let directory = folder.join("demo");
        let directory = directory.to_str().expect("a plain path");
        let mut process = Process::start(&mut portcullis(&["demo", "--dir", directory, "--port", &port.to_string()]));
        process.wait_for(" ready");
        Self { port, process, folder }
    }

    pub fn file(&self, name: &str) -> String {
        self.folder.join("demo").join(name).to_str().expect("a plain path").to_owned()
    }
}

/// A broker that runs a configuration made for one test.
pub struct Site {
    pub process: Process,
    /// Goes last.
    pub folder: Folder,
}

impl Site {
    /// Writes `files` below a folder, bakes them, and runs the blob.
    pub fn start(name: &str, files: &[(&str, String)]) -> Self {
        let folder = Folder::new(name);
        for (name, content) in files {
            folder.write(&format!("site/{name}"), content);
        }
        Self::start_in(folder)
    }

    /// Bakes `site` below `folder`, which is there already, and runs the blob.
    pub fn start_in(folder: Folder) -> Self {
        let (site, blob) = (folder.join("site"), folder.join("site/site.blob"));
        let (site, blob) = (site.to_str().expect("a plain path"), blob.to_str().expect("a plain path"));
        let baked = run(&["bake", site, "--out", blob]);
        assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
        let mut process = Process::start(&mut portcullis(&["run", "--config", blob, "--log", "debug"]));
        process.wait_for(" ready");
        Self { process, folder }
    }
}

/// A plain listener on loopback, without authentication.
pub fn plain_listener(port: u16) -> String {
    format!(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata:\n  name: plain\nspec:\n  \
         serviceType: ClusterIp\n  ports:\n    - port: {port}\n"
    )
}
