//! How much logins disturb clients that are connected: the answer times of one that sends PINGREQ and of one that publishes
//! with QoS 1, over TLS, without and with a hundred logins a second of one kind, in the same run.
//!
//! Load and clients are on the machine of the broker and take their share of it: what is printed is an upper bound for the
//! broker, and the ratio is worth more than the times.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

use portcullis::pki;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::client::{Client, certificates, connect_packet, key, publish_packet, tcp, tls};
use support::login::{Issuer, connect};
use support::{Folder, Process, free_ports, portcullis, run};

/// Logins a second, of all threads together.
const LOGINS_PER_SECOND: u32 = 100;
/// Threads that log in: as many may be under way, more than the broker lets wait for an answer.
const THREADS: u32 = 128;
/// Between two questions of a measuring client.
const PAUSE: Duration = Duration::from_millis(2);
/// Ticks of processor time a second in /proc; a constant of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a login is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A mutual handshake with a chain that is not trusted.
    BadChain,
    /// A mutual handshake, CONNECT, and the end.
    Handshake,
    /// A token whose signature is wrong; without TLS.
    BadToken,
    /// A password that is wrong, Argon2id; without TLS.
    WrongPassword,
}

const KINDS: [(&str, Kind); 4] = [
    ("bad-chain", Kind::BadChain),
    ("handshake", Kind::Handshake),
    ("bad-token", Kind::BadToken),
    ("wrong-password", Kind::WrongPassword),
];

/// The broker: mutual TLS at `port`, tokens and passwords without TLS at the next.
struct Broker {
    demo: PathBuf,
    port: u16,
    process: Process,
    _folder: Folder,
}

fn start() -> Broker {
    let (folder, port) = (Folder::new("bench-logins"), free_ports(2));
    let demo = folder.join("demo");
    pki::demo::create(&demo).unwrap();
    for (from, to) in [
        ("fabrikam_root_ca.crt", "trust/client-ca/ca.pem"),
        ("mqtts-endpoint.crt", "secrets/server/tls.crt"),
        ("mqtts-endpoint.key", "secrets/server/tls.key"),
    ] {
        folder.write(&format!("site/{to}"), std::fs::read(demo.join(from)).unwrap());
    }
    folder.write("site/keys/cluster-keys/keys.json", Issuer::new().keys());
    let algorithm = portcullis::authentication::PasswordAlgorithm::Argon2id;
    let hash = portcullis::authentication::hash_password(b"right", algorithm, &[7; 16]).unwrap();
    folder.write("site/secrets/users/passwords.toml", format!("[user]\npassword = \"{hash}\"\n"));
    let authentication = |name: &str, methods: &str| {
        let head = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerAuthentication\n";
        let text = format!("{head}metadata: {{name: {name}}}\nspec:\n  authenticationMethods:\n{methods}");
        folder.write(&format!("site/{name}.yaml"), text);
    };
    authentication("certificates", "  - method: X509\n    x509Settings: {trustedClientCaCert: client-ca}\n");
    let passwords = "  - method: UsernamePassword\n    usernamePasswordSettings: {secretRef: users}\n";
    authentication("others", &format!("{}{passwords}", support::login::BY_TOKEN));
    folder.write(
        "site/ports.listener.yaml",
        format!(
            "serviceType: ClusterIp\nports:\n- port: {port}\n  authenticationRef: certificates\n  tls: {{mode: Manual, manual: \
             {{secretRef: server}}}}\n- port: {}\n  authenticationRef: others\n",
            port + 1
        ),
    );
    let head = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:\n";
    folder.write("site/gateway.yaml", format!("{head}{}", support::login::OFFLINE));
    let text = |path: PathBuf| path.to_str().expect("a plain path").to_owned();
    let (site, blob) = (text(folder.join("site")), text(folder.join("site/site.blob")));
    let baked = run(&["bake", &site, "--out", &blob]);
    assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    let mut process = Process::start(&mut portcullis(&["run", "--config", &blob]));
    process.wait_for(" ready");
    Broker { demo, port, process, _folder: folder }
}

impl Broker {
    /// Processor time so far, seconds.
    fn processor_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("Linux");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        // utime and stime, fields 14 and 15 of proc(5).
        [11, 12].iter().map(|at| fields[*at].parse::<f64>().expect("a number")).sum::<f64>() / TICKS_PER_SECOND
    }

    fn client(&self, identifier: &str) -> Client {
        let identity = (certificates(&self.demo.join("heater.crt")), key(&self.demo.join("heater.key")));
        let stream = tls(self.port, &self.demo.join("contoso_root_ca.crt"), Some(identity)).expect("TLS");
        Client::accepted(stream, identifier)
    }
}

/// One login, to its end.
fn log_in(kind: Kind, demo: &Path, port: u16) {
    let mutual = |certificate: &str, key_of: &str| {
        let identity = (certificates(&demo.join(certificate)), key(&demo.join(key_of)));
        tls(port, &demo.join("contoso_root_ca.crt"), Some(identity))
    };
    let answer = |mut client: Client, connect: &[u8]| {
        client.send(connect);
        client.receive()
    };
    match kind {
        Kind::BadChain => {
            // The chain of the server is of another authority than that of the clients. With TLS 1.3 its refusal comes
            // with the first read.
            if let Ok(mut stream) = mutual("mqtts-endpoint.crt", "mqtts-endpoint.key") {
                let _ = std::io::Read::read(&mut stream, &mut [0; 16]);
            }
        }
        Kind::Handshake => {
            let stream = mutual("thermostat.crt", "thermostat.key").expect("TLS");
            drop(answer(Client::new(stream), &connect_packet("", 0)));
        }
        Kind::BadToken => {
            let mut token = Issuer::new().token("my-audience", 600);
            let end = token.len() - 2;
            token[end] = if token[end] == b'A' { b'B' } else { b'A' };
            drop(answer(Client::new(tcp(port + 1)), &connect("t", None, None, Some(("K8S-SAT", &token)))));
        }
        Kind::WrongPassword => {
            drop(answer(Client::new(tcp(port + 1)), &connect("p", Some("user"), Some(b"wrong"), None)));
        }
    }
}

/// What one phase gave.
struct Phase {
    pings: Vec<Duration>,
    publishes: Vec<Duration>,
    logins: usize,
    processor_seconds: f64,
}

/// Asks over and over for so long; the times to the answers, in order.
fn measure(mut ask: impl FnMut(), time: Duration) -> Vec<Duration> {
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        let asked = Instant::now();
        ask();
        times.push(asked.elapsed());
        thread::sleep(PAUSE);
    }
    times.sort_unstable();
    times
}

fn phase(broker: &Broker, load: Option<Kind>, time: Duration) -> Phase {
    let (mut pinger, mut publisher) = (broker.client("pinger"), broker.client("publisher"));
    let (stop, done, port, demo) = (AtomicBool::new(false), AtomicUsize::new(0), broker.port, &broker.demo);
    let before = broker.processor_seconds();
    thread::scope(|scope| {
        let (stop, done) = (&stop, &done);
        if let Some(kind) = load {
            let gap = Duration::from_secs(1) * THREADS / LOGINS_PER_SECOND;
            let one = move |first: Duration| {
                let mut due = Instant::now() + first;
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    log_in(kind, demo, port);
                    // Behind the plan, it does not catch up in a burst.
                    due = (due + gap).max(Instant::now());
                    done.fetch_add(1, Ordering::Relaxed);
                }
            };
            for number in 0..THREADS {
                scope.spawn(move || one(gap * number / THREADS));
            }
        }
        let publishes = scope.spawn(move || {
            let packet = publish_packet("bench", 1, 7, &[0; 64]);
            measure(
                || {
                    publisher.send(&packet);
                    publisher.receive().expect("a PUBACK");
                },
                time,
            )
        });
        let pings = measure(|| pinger.ping(), time);
        let publishes = publishes.join().expect("no panic");
        let processor_seconds = broker.processor_seconds() - before;
        let logins = done.load(Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        Phase { pings, publishes, logins, processor_seconds }
    })
}

fn milliseconds(times: &[Duration], share: f64) -> f64 {
    let at = ((times.len() - 1) as f64 * share) as usize;
    times[at].as_secs_f64() * 1_000.0
}

fn print(name: &str, phase: &Phase, time: Duration) {
    let figures = |times: &[Duration]| {
        let [median, late, last] = [0.5, 0.99, 1.0].map(|share| milliseconds(times, share));
        format!("{median:7.2} {late:7.2} {last:7.2}")
    };
    println!(
        "{name:16} {}   {}   {:8.0} {:8.2}",
        figures(&phase.pings),
        figures(&phase.publishes),
        phase.logins as f64 / time.as_secs_f64(),
        phase.processor_seconds / time.as_secs_f64()
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut time = Duration::from_secs(10);
    let mut only = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => {
                let seconds =
                    arguments.next().and_then(|seconds| seconds.parse().ok()).expect("--seconds takes a number");
                time = Duration::from_secs(seconds);
            }
            "--kind" => only = arguments.next(),
            other => panic!("unknown option {other}"),
        }
    }
    let broker = start();
    println!("                 ping ms                   publish ms               logins   processors");
    println!("load                 p50     p99     max       p50     p99     max  per second  of the broker");
    for (name, kind) in KINDS.into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        let quiet = phase(&broker, None, time);
        let loaded = phase(&broker, Some(kind), time);
        print("none", &quiet, time);
        print(name, &loaded, time);
        let ratio = |share| milliseconds(&loaded.pings, share) / milliseconds(&quiet.pings, share);
        println!("  pings are slower by {:.1} at p50, {:.1} at p99\n", ratio(0.5), ratio(0.99));
    }
}
