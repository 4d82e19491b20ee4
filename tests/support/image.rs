//! A broker as PID 1 of an image starts it, with the test in the place of PID 1: it is told of updates, and says what the machine
//! would say.

use super::{Folder, PATIENCE, Process, portcullis, run};
use portcullis::bundle::{Kind, Manifest, signed_header};
use portcullis::pki;
use sha2::{Digest as _, Sha256};
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What a machine says on which all is well.
pub const WELL: &str = "board=host\nrelease=0.0.9\nversion=7\nslot=a\ntrial=no\ndata=kept\nconfiguration=a\n\
                        configurationVersion=3\nnetwork=eth0 10.0.2.15/24 by DHCP\nclock=set by 10.0.2.2\nupdate=idle\n";

/// The machine with its broker.
pub struct Image {
    pub process: Process,
    told: UnixDatagram,
    /// Goes last.
    pub folder: Folder,
}

impl Image {
    /// Bakes `site` below `folder`, which is there already, and runs the blob on a machine that says `machine`.
    pub fn start(folder: Folder, machine: &str) -> Self {
        let (site, blob) = (folder.join("site"), folder.join("site/site.blob"));
        let baked = run(&["bake", site.to_str().unwrap(), "--out", blob.to_str().unwrap()]);
        assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
        folder.write("machine", machine);
        let told = UnixDatagram::bind(folder.join("notify")).expect("a socket");
        told.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let process = Self::run_broker(&folder);
        Self { folder, process, told }
    }

    fn run_broker(folder: &Folder) -> Process {
        let blob = folder.join("site/site.blob");
        let mut command = portcullis(&["run", "--config", blob.to_str().unwrap(), "--log", "debug"]);
        command.env("PORTCULLIS_MACHINE", folder.join("machine")).env("NOTIFY_SOCKET", folder.join("notify"));
        let mut process = Process::start(&mut command);
        process.wait_for(" ready");
        process
    }

    /// Ends the broker, and starts it again.
    pub fn restart(&mut self) {
        self.process.terminate();
        assert!(self.process.wait().success());
        self.restart_ended();
    }

    /// Starts the broker again, which has ended.
    pub fn restart_ended(&mut self) {
        self.process = Self::run_broker(&self.folder);
    }

    /// The machine says this from now on.
    pub fn says(&self, lines: &str) {
        let fresh = self.folder.write("machine.new", lines);
        std::fs::rename(fresh, self.folder.join("machine")).unwrap();
    }

    /// Waits until the broker has told of an update, and takes its file away.
    pub fn takes_update(&self) -> Vec<u8> {
        self.waits_for_word();
        let path = self.incoming();
        let bytes = std::fs::read(&path).expect("the file that was told of");
        std::fs::remove_file(path).unwrap();
        bytes
    }

    /// Waits until the broker has told of an update.
    pub fn waits_for_word(&self) {
        let end = Instant::now() + PATIENCE;
        let mut datagram = [0; 4_096];
        while Instant::now() < end {
            if let Ok(bytes) = self.told.recv(&mut datagram)
                && datagram[..bytes] == *b"X_PORTCULLIS_UPDATE=1"
            {
                return;
            }
        }
        panic!("nothing was told; the broker said:\n{}", self.process.output().join("\n"));
    }

    /// Whether the broker has told of an update that nobody has waited for.
    pub fn has_word(&self) -> bool {
        self.told.set_nonblocking(true).unwrap();
        let mut datagram = [0; 4_096];
        let mut found = false;
        while let Ok(bytes) = self.told.recv(&mut datagram) {
            found |= datagram[..bytes].starts_with(b"X_PORTCULLIS_UPDATE");
        }
        self.told.set_nonblocking(false).unwrap();
        found
    }

    pub fn incoming(&self) -> PathBuf {
        self.folder.join("site/state/update/incoming")
    }

    pub fn partial(&self) -> PathBuf {
        self.folder.join("site/state/update/incoming.partial")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("site/state/control.sock")
    }

    /// A stream to the control socket.
    pub fn control(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("a control socket");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A document of the control socket: status, and what it says.
    pub fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let (status, text) = ask(self.control(), &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"), b"");
        let body = text.split_once("\r\n\r\n").expect("a head").1;
        (status, serde_json::from_str(body).unwrap_or_else(|_| serde_json::Value::String(body.trim().to_owned())))
    }

    /// What the broker says of the update: state, text, version.
    pub fn update(&self) -> (String, String, u64) {
        let (status, document) = self.get("/api/v1/update");
        assert_eq!(status, 200, "{document}");
        let update = &document["update"];
        let text = |name: &str| update[name].as_str().unwrap_or_default().to_owned();
        (text("state"), text("text"), update["version"].as_u64().unwrap_or(0))
    }
}

/// An update for `board` with a payload of so many bytes, signed by a key of the tests.
pub fn bundle(kind: Kind, board: &str, version: u64, payload_bytes: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload_bytes).map(|at| (at % 251) as u8).collect();
    let manifest = Manifest {
        kind,
        board: board.to_owned(),
        version,
        release: "0.1.0 (test)".to_owned(),
        bytes: payload_bytes as u64,
        digest: Sha256::digest(&payload).into(),
    };
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    [signed_header(&manifest, &key).unwrap().into_bytes(), payload].concat()
}

/// The head of a POST of an update with these fields.
pub fn post(fields: &str) -> String {
    format!("POST /api/v1/update HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n")
}

/// Sends a request and reads to the end: the status and everything. The other side may have heard enough before its end.
pub fn ask(mut stream: impl Read + Write, head: &str, body: &[u8]) -> (u16, String) {
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let last = text.rfind("HTTP/1.1 ").and_then(|at| text.get(at + 9..at + 12)).and_then(|code| code.parse().ok());
    (last.unwrap_or_else(|| panic!("no answer: {text:?}")), text)
}

/// Sends an update with its length.
pub fn send(stream: impl Read + Write, bundle: &[u8], fields: &str) -> (u16, String) {
    ask(stream, &post(&format!("Content-Length: {}\r\n{fields}", bundle.len())), bundle)
}

/// A Broker with its diagnostics on this port.
pub fn broker_resource(port: u16) -> String {
    format!(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {{name: default}}\nspec: {{diagnostics: \
         {{metrics: {{prometheusPort: {port}}}}}}}\n"
    )
}

/// A site with an open port of MQTT on loopback, and the diagnostics behind it: on loopback, or over TLS with a `guard`.
pub fn site(name: &str, mqtt: u16, guard: Option<&str>) -> Folder {
    let folder = Folder::new(name);
    folder.write("site/listener.yaml", super::plain_listener(mqtt));
    folder.write("site/broker.yaml", broker_resource(mqtt + 1));
    let Some(guard) = guard else { return folder };
    pki::demo::create(&folder.join("demo")).unwrap();
    let copy = |from: &str, to: &str| folder.write(&format!("site/{to}"), std::fs::read(folder.join(from)).unwrap());
    copy("demo/fabrikam_root_ca.crt", "trust/readers/root.pem");
    copy("demo/mqtts-endpoint.crt", "secrets/server/tls.crt");
    copy("demo/mqtts-endpoint.key", "secrets/server/tls.key");
    folder.write("site/secrets/metrics/token", "correct horse battery staple\n");
    folder.write(
        "site/gateway.yaml",
        format!(
            "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {{name: default}}\nspec:\n  bind: {{diagnostics: \
             [0.0.0.0]}}\n  diagnosticsTls: {{secretRef: server, {guard}}}\n"
        ),
    );
    folder
}
