//! The servers that are compared: their configurations, their start, their end.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::cases::Case;
use crate::process::{self, Failure, Outcome};
use crate::{ports, workspace};

/// How long a server may take to open its port.
const PATIENCE: Duration = Duration::from_secs(20);

/// One of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// The floor: no broker, but the least that one has to do.
    Forwarder,
    /// Ours.
    Portcullis,
    /// Debian's package.
    Mosquitto,
}

impl Server {
    /// In the order in which they are measured.
    pub const ALL: [Self; 3] = [Self::Forwarder, Self::Portcullis, Self::Mosquitto];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarder => "forwarder",
            Self::Portcullis => "portcullis",
            Self::Mosquitto => "mosquitto",
        }
    }
}

/// Where the programs are.
pub struct Programs {
    /// The broker.
    pub portcullis: PathBuf,
    /// The load generator, which is the forwarder too.
    pub load: PathBuf,
}

/// A folder for one run, which goes away with it.
pub struct Folder {
    path: PathBuf,
    /// Where the programs are.
    pub programs: Programs,
}

/// A server that runs; it is ended when this is dropped.
pub struct Running {
    /// Its process.
    pub process: Child,
    /// The port of the case.
    pub port: u16,
}

impl Running {
    /// Ends it.
    pub fn stop(&mut self) {
        // Fails when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program with as many descriptors as the system allows, on a processor of its own where there are as many.
pub fn pinned(index: usize, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n \"$(ulimit -H -n)\"; exec \"$@\"", "sh"]);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    if processors > index && process::find("taskset").is_some() {
        command.args(["taskset", "-c", &index.to_string()]);
    }
    command.arg(program);
    command
}

impl Folder {
    /// A folder with certificates.
    pub fn new(programs: Programs) -> Outcome<Self> {
        let path = workspace::target_folder().join(format!("bench-{}", std::process::id()));
        workspace::make_folder(&path)?;
        let folder = Self { path, programs };
        process::capture(Command::new(&folder.programs.load).arg("pki").arg(folder.pki()).args(["--clients", "64"]))?;
        Ok(folder)
    }

    /// Where the certificates are.
    pub fn pki(&self) -> PathBuf {
        self.path.join("pki")
    }

    /// Bytes of the broker's executable.
    pub fn binary_bytes(&self) -> Outcome<u64> {
        let file = std::fs::metadata(&self.programs.portcullis);
        file.map(|file| file.len()).map_err(|error| Failure::file("look at", &self.programs.portcullis, &error))
    }

    /// Starts a server for a case, and waits until its port takes connections.
    pub fn start(&self, server: Server, case: &Case) -> Outcome<Running> {
        let port = ports::free(1).ok_or_else(|| Failure::new("no port is free"))?;
        let mut command = match server {
            Server::Forwarder => {
                let mut command = pinned(0, &self.programs.load);
                command.args(["forward", "--port", &port.to_string()]);
                if case.tls {
                    command.arg("--tls").arg(self.pki());
                }
                command
            }
            Server::Portcullis => self.portcullis(port, case)?,
            Server::Mosquitto => self.mosquitto(port, case)?,
        };
        let log = self.path.join("server.log");
        let file = std::fs::File::create(&log).map_err(|error| Failure::file("write", &log, &error))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let process = command.spawn().map_err(|error| Failure::new(format!("{}: {error}", server.name())))?;
        let mut running = Running { process, port };
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let has_ended = running.process.try_wait().is_ok_and(|status| status.is_some());
            if has_ended || begin.elapsed() > PATIENCE {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(Failure::new(format!("{} does not open its port: {}", server.name(), said.trim())));
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(running)
    }

    /// Sessions of the load end with their connections: the state folder is there, and nothing is kept in it.
    fn portcullis(&self, port: u16, case: &Case) -> Outcome<Command> {
        let site = self.path.join("site");
        let _ = std::fs::remove_dir_all(&site);
        let place = |name: &str| -> Outcome<PathBuf> {
            workspace::make_folder(&site.join(name))?;
            Ok(site.join(name))
        };
        copy(&self.pki().join("ca.crt"), &place("trust/load-ca")?.join("ca.crt"))?;
        copy(&self.pki().join("server.crt"), &place("secrets/server")?.join("tls.crt"))?;
        copy(&self.pki().join("server.key"), &place("secrets/server")?.join("tls.key"))?;
        workspace::write(&site.join("site.yaml"), &resources(port, case))?;
        let blob = self.path.join("site.blob");
        let mut bake = Command::new(&self.programs.portcullis);
        process::capture(bake.arg("bake").arg(&site).arg("--out").arg(&blob).args([
            "--board",
            "host",
            "--embed-secrets",
        ]))?;
        let state = self.path.join("state");
        let _ = std::fs::remove_dir_all(&state);
        let mut command = pinned(0, &self.programs.portcullis);
        command.args(["run", "--log", "warn", "--config"]).arg(&blob).arg("--state").arg(&state);
        Ok(command)
    }

    fn mosquitto(&self, port: u16, case: &Case) -> Outcome<Command> {
        let pki = self.pki();
        let mut text = format!(
            "user root\npersistence false\nlog_type none\nallow_anonymous true\nset_tcp_nodelay true\n\
             max_inflight_messages 0\nmax_queued_messages 0\nmax_queued_bytes 0\nlistener {port} 127.0.0.1\n"
        );
        if case.tls {
            let (ca, certificate, key) = (pki.join("ca.crt"), pki.join("server.crt"), pki.join("server.key"));
            let _ = write!(
                text,
                "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
                ca.display(),
                certificate.display(),
                key.display()
            );
        }
        let file = self.path.join("mosquitto.conf");
        workspace::write(&file, &text)?;
        let program = process::find("mosquitto").ok_or_else(|| Failure::new("mosquitto is not installed"))?;
        let mut command = pinned(0, &program);
        command.arg("-c").arg(&file);
        Ok(command)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The broker's resources for a case.
fn resources(port: u16, case: &Case) -> String {
    const VENDOR: &str = "mqttbroker.iotoperations.azure.com/v1";
    let mut text = format!(
        "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {{name: default}}\n\
         spec: {{board: host, sysIntervalSeconds: 0}}\n---\n\
         apiVersion: {VENDOR}\nkind: Broker\nmetadata: {{name: default}}\n\
         spec: {{advanced: {{clients: {{subscriberQueueLimit: {{length: 100000, strategy: None}}}}}}}}\n---\n\
         apiVersion: {VENDOR}\nkind: BrokerListener\nmetadata: {{name: bench}}\n\
         spec:\n  serviceType: ClusterIp\n  ports:\n    - port: {port}\n"
    );
    if case.tls {
        text.push_str("      authenticationRef: x509\n      tls: {mode: Manual, manual: {secretRef: server}}\n");
        if case.rules.is_some() {
            text.push_str("      authorizationRef: rules\n");
        }
        let _ = write!(
            text,
            "---\napiVersion: {VENDOR}\nkind: BrokerAuthentication\nmetadata: {{name: x509}}\nspec:\n  \
             authenticationMethods:\n    - method: X509\n      x509Settings:\n        trustedClientCaCert: load-ca\n        \
             authorizationAttributes: {{load: {{subject: \"CN = Load Root CA\", attributes: {{site: load}}}}}}\n"
        );
    }
    if let Some(rules) = case.rules {
        let _ = write!(
            text,
            "---\napiVersion: {VENDOR}\nkind: BrokerAuthorization\nmetadata: {{name: rules}}\nspec:\n  \
             authorizationPolicies:\n    cache: Enabled\n    rules:\n"
        );
        let mut rule = |topic: &str| {
            let _ = writeln!(
                text,
                "      - {{principals: {{attributes: [{{site: load}}]}}, brokerResources: [{{method: Connect}}, \
                 {{method: Publish, topics: [\"{topic}\"]}}, {{method: Subscribe, topics: [\"{topic}\"]}}]}}"
            );
        };
        rule("load/#");
        for number in 1..rules {
            rule(&format!("plant/{number}/+"));
        }
    }
    text
}

fn copy(from: &Path, to: &Path) -> Outcome {
    std::fs::copy(from, to).map(|_| ()).map_err(|error| Failure::file("write", to, &error))
}
