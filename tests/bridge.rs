//! Bridges of the real program: to a real mosquitto, over TLS and through cuts, to another gateway in a ring, and to upstreams
//! that misbehave.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::pki;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use support::client::{Client, lasting_connect_packet, packet, publish_packet, tcp, text};
use support::{Folder, Process, free_ports, plain_listener, portcullis, run};

/// A real broker, with a plain port and, if asked for, one with TLS that wants certificates of clients.
struct Mosquitto {
    _process: Process,
    _folder: Folder,
    port: u16,
}

impl Mosquitto {
    fn start(name: &str, port: u16, tls: Option<(u16, &Path)>) -> Self {
        Self::start_with(name, port, tls, None)
    }

    /// `acl` is what clients may do; without one, everything.
    fn start_with(name: &str, port: u16, tls: Option<(u16, &Path)>, acl: Option<&str>) -> Self {
        let folder = Folder::new(name);
        let mut text = format!(
            "user root\nallow_anonymous true\nlog_dest stderr\nmax_queued_messages 5000\nlistener {port} 127.0.0.1\n"
        );
        if let Some((port, pki)) = tls {
            let file = |name: &str| pki.join(name).display().to_string();
            text.push_str(&format!(
                "listener {port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
                file("fabrikam_root_ca.crt"),
                file("mqtts-endpoint.crt"),
                file("mqtts-endpoint.key"),
            ));
        }
        if let Some(acl) = acl {
            text.push_str(&format!("acl_file {}\n", folder.write("acl", acl).display()));
        }
        let conf = folder.write("mosquitto.conf", text);
        let system = Path::new("/usr/sbin/mosquitto");
        let program = if system.exists() { system } else { Path::new("mosquitto") };
        let mut process = Process::start(Command::new(program).arg("-c").arg(conf));
        process.wait_for("running");
        Self { _process: process, _folder: folder, port }
    }
}

/// A gateway with one bridge.
struct Gateway {
    process: Option<Process>,
    folder: Folder,
    port: u16,
}

impl Gateway {
    /// `remote` is what stands below `remote`, `more` the rest of the spec, one line each.
    fn start(name: &str, port: u16, remote: &str, more: &str) -> Self {
        let folder = Folder::new(name);
        Self::start_in(folder, port, remote, more)
    }

    fn start_in(folder: Folder, port: u16, remote: &str, more: &str) -> Self {
        folder.write("site/listener.yaml", plain_listener(port));
        folder.write(
            "site/gateway.yaml",
            "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\n\
             spec: {board: host, sysIntervalSeconds: 0}\n---\n\
             apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\n\
             spec: {diagnostics: {metrics: {prometheusPort: 0}}}\n",
        );
        folder.write(
            "site/bridge.yaml",
            format!(
                "apiVersion: portcullis.edge/v1\nkind: BrokerBridge\nmetadata: {{name: cloud}}\nspec:\n  \
                 remote: {{{remote}}}\n  backoff: {{minSeconds: 1, maxSeconds: 1}}\n{more}"
            ),
        );
        let mut gateway = Self { process: None, folder, port };
        gateway.bake();
        gateway.run();
        gateway
    }

    fn bake(&self) {
        let (site, blob) = (self.folder.join("site"), self.folder.join("site/site.blob"));
        let baked = run(&["bake", site.to_str().unwrap(), "--out", blob.to_str().unwrap()]);
        assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    }

    fn run(&mut self) {
        let (blob, state) = (self.folder.join("site/site.blob"), self.folder.join("state"));
        let arguments =
            ["run", "--config", blob.to_str().unwrap(), "--state", state.to_str().unwrap(), "--log", "debug"];
        self.process = Some(Process::start(&mut portcullis(&arguments)));
        self.process().wait_for(" ready");
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    fn kill_and_run(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal("-KILL");
        process.wait();
        let said = process.output().join("\n");
        assert!(!said.contains("panicked") && !said.contains("damaged"), "{said}");
        self.run();
    }

    fn wait_for(&mut self, part: &str) -> String {
        self.process().wait_for(part)
    }
}

const MAPS: &str = "  out: [{local: \"sensors/#\", remote: \"site/7/sensors/#\"}]\n  \
                    in: [{local: \"commands/#\", remote: \"site/7/commands/#\"}]\n";

/// A session that lasts, so that nothing of what the bridge sends is missed.
fn lasting(port: u16, name: &str, filter: &str) -> Client {
    let mut client = Client::new(tcp(port));
    client.send(&lasting_connect_packet(name, None, false));
    assert_eq!(client.receive().expect("a CONNACK").body[1], 0);
    assert_eq!(client.subscribe(&[filter]), [1]);
    client
}

/// Numbers of messages until the last, each the first time it comes; the topic is the same.
fn numbers_until(client: &mut Client, last: u32) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    let mut order = Vec::new();
    while !seen.contains(&last) {
        let (_, payload) = client.message();
        let number = String::from_utf8(payload).unwrap().parse().unwrap();
        if seen.insert(number) {
            order.push(number);
        }
    }
    order
}

#[test]
fn messages_cross_both_ways_over_tls_with_certificates() {
    let folder = Folder::new("bridge-tls");
    pki::demo::create(&folder.join("demo")).unwrap();
    let ports = free_ports(3);
    let mosquitto = Mosquitto::start("bridge-tls-upstream", ports, Some((ports + 1, &folder.join("demo"))));
    let demo = |file: &str| std::fs::read(folder.join(&format!("demo/{file}"))).unwrap();
    folder.write("site/trust/cluster-ca/ca.pem", demo("contoso_root_ca.crt"));
    folder.write("site/secrets/uplink/tls.crt", demo("thermostat.crt"));
    folder.write("site/secrets/uplink/tls.key", demo("thermostat.key"));
    // The first host is nobody's.
    let remote = format!(
        "hosts: [\"127.0.0.1:1\", \"127.0.0.1:{}\"], clientId: gateway-7, tls: {{caCertConfigMap: cluster-ca, serverName: \
         localhost}}, auth: {{x509: {{secretRef: uplink}}}}",
        ports + 1
    );
    let mut gateway = Gateway::start_in(folder, ports + 2, &remote, MAPS);
    let mut upstream = Client::accepted(tcp(mosquitto.port), "watcher");
    assert_eq!(upstream.subscribe(&["#"]), [1]);
    gateway.wait_for("bridge 'cloud': connected to 127.0.0.1");
    let mut local = Client::accepted(tcp(gateway.port), "local");
    assert_eq!(local.subscribe(&["commands/#"]), [1]);
    assert_eq!(local.publish("sensors/a/b", b"21"), 0);
    assert_eq!(local.publish("elsewhere", b"not for the upstream"), 0);
    assert_eq!(local.publish("sensors", b"22"), 0);
    assert_eq!(upstream.message(), ("site/7/sensors/a/b".to_owned(), b"21".to_vec()));
    assert_eq!(upstream.message(), ("site/7/sensors".to_owned(), b"22".to_vec()));
    // The subscription may be on its way yet.
    let mut publisher = Client::accepted(tcp(mosquitto.port), "publisher");
    publisher.send(&publish_packet("site/7/commands/valve", 1 << 3, 0, b"retained"));
    publisher.ping();
    assert_eq!(publisher.publish("site/7/commands/pump", b"on"), 0);
    // Retained or live, the first of two comes.
    while local.message() != ("commands/pump".to_owned(), b"on".to_vec()) {}
}

#[test]
fn the_example_is_a_configuration() {
    let folder = Folder::new("bridge-example");
    let (site, blob) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("config/bridge"), folder.join("site.blob"));
    let checked = run(&["check", site.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let baked = run(&["bake", site.to_str().unwrap(), "--out", blob.to_str().unwrap()]);
    assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    let shown = run(&["inspect", blob.to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    for line in [
        "bridge 'cloud', TLS",
        "  to mqtt-standby.example.com, port 8883",
        "  here 'cloud', authorization bridge-rules",
        "  queue of 10000 messages and",
        "  in: here 'commands/#', there 'sites/7/commands/#', QoS at most 1",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    assert!(shown.lines().any(|line| line.contains("bridges")), "the memory budget has them: {shown}");
}

/// Between a bridge and its upstream: lets connections through or not, and cuts them after a number of bytes.
struct Proxy {
    port: u16,
    is_open: Arc<AtomicBool>,
    /// Bytes until the next cut.
    budget: Arc<AtomicU64>,
}

impl Proxy {
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_open = Arc::new(AtomicBool::new(false));
        let budget = Arc::new(AtomicU64::new(u64::MAX));
        let (opened, left) = (Arc::clone(&is_open), Arc::clone(&budget));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(near) = stream else { return };
                if !opened.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (opened, left) = (Arc::clone(&opened), Arc::clone(&left));
                    thread::spawn(move || carry(from, to, &opened, &left));
                }
            }
        });
        Self { port, is_open, budget }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_open: &AtomicBool, budget: &AtomicU64) {
    let mut buffer = [0; 512];
    while let Ok(count) = from.read(&mut buffer) {
        let left = budget.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            Some(if left == u64::MAX { left } else { left.saturating_sub(count as u64) })
        });
        let left = left.unwrap();
        let passed = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        if !is_open.load(Ordering::SeqCst) || to.write_all(&buffer[..passed]).is_err() || passed < count || count == 0 {
            break;
        }
    }
    for stream in [&from, &to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[test]
fn what_was_acknowledged_reaches_mosquitto_in_order_after_kills_and_cuts() {
    let ports = free_ports(2);
    let mosquitto = Mosquitto::start("bridge-cuts-upstream", ports, None);
    let proxy = Proxy::start(mosquitto.port);
    let remote = format!("hosts: [\"127.0.0.1:{}\"], clientId: gateway-7", proxy.port);
    let mut gateway = Gateway::start("bridge-cuts", ports + 1, &remote, MAPS);
    let mut upstream = lasting(mosquitto.port, "watcher", "site/7/sensors/#");
    // What was published before the bridge has its session would be for nobody.
    gateway.wait_for("bridge 'cloud': 127.0.0.1");
    let mut next = 0;
    let mut publish = |gateway: &Gateway, count: u32| {
        let mut local = Client::accepted(tcp(gateway.port), "local");
        for _ in 0..count {
            assert_eq!(local.publish("sensors/a", next.to_string().as_bytes()), 0);
            next += 1;
        }
        next - 1
    };
    // The upstream is away, and the power goes twice.
    publish(&gateway, 150);
    gateway.kill_and_run();
    publish(&gateway, 150);
    gateway.kill_and_run();
    let last = publish(&gateway, 50);
    // It comes back, and is cut again and again.
    proxy.is_open.store(true, Ordering::SeqCst);
    let budget = Arc::clone(&proxy.budget);
    let cuts = thread::spawn(move || {
        for cut in 0..12_u64 {
            budget.store(400 + cut * 331, Ordering::SeqCst);
            while budget.load(Ordering::SeqCst) > 0 {
                thread::sleep(Duration::from_millis(20));
                if budget.load(Ordering::SeqCst) == 400 + cut * 331 && cut > 8 {
                    // Everything may be through.
                    break;
                }
            }
        }
        budget.store(u64::MAX, Ordering::SeqCst);
    });
    assert_eq!(numbers_until(&mut upstream, last), (0..=last).collect::<Vec<_>>());
    proxy.budget.store(u64::MAX, Ordering::SeqCst);
    drop(cuts);
    // And the power goes while it is connected.
    gateway.kill_and_run();
    let last = publish(&gateway, 20);
    let seen = numbers_until(&mut upstream, last);
    assert!(seen.ends_with(&(last - 19..=last).collect::<Vec<_>>()), "{seen:?}");
}

/// Publishes numbers with QoS 1, as many at once as mosquitto allows.
fn publish_at_once(client: &mut Client, topic: &str, numbers: std::ops::Range<u32>) {
    let numbers: Vec<u32> = numbers.collect();
    for window in numbers.chunks(20) {
        let packets: Vec<Vec<u8>> = (1..)
            .zip(window)
            .map(|(identifier, number)| {
                let mut body = text(topic);
                body.extend_from_slice(&[0, identifier, 0]);
                body.extend_from_slice(number.to_string().as_bytes());
                packet(0x32, &body)
            })
            .collect();
        client.send(&packets.concat());
        for _ in window {
            assert_eq!(client.receive().expect("a PUBACK").first, 0x40);
        }
    }
}

#[test]
fn a_burst_of_the_upstream_arrives_in_order_though_it_exceeds_the_receive_maximum() {
    let ports = free_ports(2);
    let mosquitto = Mosquitto::start("bridge-burst-upstream", ports, None);
    let proxy = Proxy::start(mosquitto.port);
    proxy.is_open.store(true, Ordering::SeqCst);
    let remote = format!("hosts: [\"127.0.0.1:{}\"], clientId: gateway-7", proxy.port);
    let mut gateway = Gateway::start("bridge-burst", ports + 1, &remote, MAPS);
    let mut local = Client::accepted(tcp(gateway.port), "local");
    assert_eq!(local.subscribe(&["commands/a"]), [1]);
    let mut publisher = Client::accepted(tcp(mosquitto.port), "publisher");
    gateway.wait_for("bridge 'cloud': connected");
    // The subscription may be on its way yet: this one is retained.
    let retained = [text("site/7/commands/a"), b"\x000".to_vec()].concat();
    publisher.send(&packet(0x31, &retained));
    assert_eq!(local.message().1, b"0");
    let mut upstream = lasting(mosquitto.port, "watcher", "site/7/sensors/#");
    publish_at_once(&mut publisher, "site/7/commands/a", 1..1_001);
    assert_eq!(numbers_until(&mut local, 1_000), (1..=1_000).collect::<Vec<_>>());
    // Not one connection has ended for it, and the other direction has not stopped.
    assert_eq!(local.publish("sensors/a", b"up"), 0);
    assert_eq!(upstream.message().1, b"up");
    assert_eq!(gateway.process().count("bridge 'cloud': connected"), 1);
    // The same behind a cut: what waits comes in one burst with the new connection.
    proxy.budget.store(4_000, Ordering::SeqCst);
    publish_at_once(&mut publisher, "site/7/commands/a", 1_001..1_501);
    proxy.budget.store(u64::MAX, Ordering::SeqCst);
    let seen = numbers_until(&mut local, 1_500);
    assert_eq!(seen, (1_001..=1_500).collect::<Vec<_>>());
}

#[test]
fn what_the_upstream_refuses_for_good_does_not_hold_up_what_follows() {
    let ports = free_ports(2);
    let acl = "topic readwrite site/7/sensors/good\ntopic read site/7/#\n";
    let mosquitto = Mosquitto::start_with("bridge-acl-upstream", ports, None, Some(acl));
    let remote = format!("hosts: [\"127.0.0.1:{ports}\"], clientId: gateway-7");
    let mut gateway = Gateway::start("bridge-acl", ports + 1, &remote, MAPS);
    let mut upstream = lasting(mosquitto.port, "watcher", "site/7/sensors/#");
    gateway.wait_for("bridge 'cloud': connected");
    let mut local = Client::accepted(tcp(gateway.port), "local");
    for topic in ["sensors/bad", "sensors/good", "sensors/bad", "sensors/good"] {
        assert_eq!(local.publish(topic, topic.as_bytes()), 0);
    }
    for _ in 0..2 {
        assert_eq!(upstream.message(), ("site/7/sensors/good".to_owned(), b"sensors/good".to_vec()));
    }
    gateway.wait_for("the upstream refuses a message (1 so far)");
}

#[test]
fn rules_apply_to_a_bridge_and_it_begins_anew_when_they_or_its_maps_change() {
    let ports = free_ports(2);
    let mosquitto = Mosquitto::start("bridge-rules-upstream", ports, None);
    let remote = format!("hosts: [\"127.0.0.1:{ports}\"], clientId: gateway-7");
    let rules = |may_publish: &str| {
        format!(
            "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerAuthorization\nmetadata: {{name: rules}}\nspec: \
             {{authorizationPolicies: {{rules: [{{principals: {{attributes: [{{site: hq}}]}}, brokerResources: [{{method: \
             Connect}}, {{method: Subscribe, topics: [\"sensors/#\"]}}, {{method: Publish, topics: [\"{may_publish}\"]}}]}}]}}}}\n"
        )
    };
    let folder = Folder::new("bridge-rules");
    folder.write("site/rules.yaml", rules("commands/good"));
    let identity = "  identity: {username: cloud, attributes: {site: hq}}\n  authorizationRef: rules\n";
    let mut gateway = Gateway::start_in(folder, ports + 1, &remote, &format!("{identity}{MAPS}"));
    gateway.wait_for("bridge 'cloud': connected");
    let mut local = Client::accepted(tcp(gateway.port), "local");
    assert_eq!(local.subscribe(&["commands/#"]), [1]);
    let mut upstream = lasting(mosquitto.port, "watcher", "site/7/#");
    // Until its subscription is there, what is published is not for it.
    let mut publisher = Client::accepted(tcp(mosquitto.port), "publisher");
    while gateway.process().count("this broker refuses a message of the upstream") == 0 {
        assert_eq!(publisher.publish("site/7/commands/bad", b"x"), 0);
        thread::sleep(Duration::from_millis(20));
    }
    // The other way round, and with another map: nobody else notices.
    gateway.folder.write("site/rules.yaml", rules("commands/bad"));
    gateway.bake();
    gateway.process().wait_for_another("bridge 'cloud': connected", 1);
    let has_come = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&has_come);
    let good = thread::spawn(move || {
        while !seen.load(Ordering::SeqCst) {
            assert_eq!(publisher.publish("site/7/commands/bad", b"y"), 0);
            thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(local.message().0, "commands/bad");
    has_come.store(true, Ordering::SeqCst);
    good.join().unwrap();
    let maps = "  out: [{local: \"sensors/one\", remote: \"site/7/one\"}]\n";
    let bridge = std::fs::read_to_string(gateway.folder.join("site/bridge.yaml")).unwrap().replace(MAPS, maps);
    gateway.folder.write("site/bridge.yaml", bridge);
    gateway.bake();
    gateway.process().wait_for_another("bridge 'cloud': connected", 2);
    assert_eq!(local.publish("sensors/two", b"2"), 0);
    assert_eq!(local.publish("sensors/one", b"1"), 0);
    // What was published to the commands came before.
    let (mut topic, mut payload) = upstream.message();
    while topic.starts_with("site/7/commands/") {
        (topic, payload) = upstream.message();
    }
    assert_eq!((topic.as_str(), payload.as_slice()), ("site/7/one", &b"1"[..]));
}

#[test]
fn two_gateways_that_bridge_each_other_do_not_loop() {
    let ports = free_ports(2);
    let maps = "  out: [{local: \"x/#\", remote: \"x/#\"}]\n";
    let remote = |number: u16, to: u16| format!("hosts: [\"127.0.0.1:{to}\"], clientId: ring-{number}");
    let mut first = Gateway::start("bridge-ring-1", ports, &remote(1, ports + 1), maps);
    let mut second = Gateway::start("bridge-ring-2", ports + 1, &remote(2, ports), maps);
    first.wait_for("bridge 'cloud': connected");
    second.wait_for("bridge 'cloud': connected");
    let mut clients = [ports, ports + 1].map(|port| {
        let mut client = Client::accepted(tcp(port), "local");
        assert_eq!(client.subscribe(&["x/#"]), [1]);
        client
    });
    let mut came: [Vec<Vec<u8>>; 2] = [Vec::new(), Vec::new()];
    for (number, payload) in [(0_usize, "a"), (1, "b"), (0, "c"), (1, "d"), (0, "e")] {
        clients[number].publish("x/1", payload.as_bytes());
        for (client, came) in clients.iter_mut().zip(&mut came) {
            loop {
                let (_, got) = client.message();
                came.push(got.clone());
                if got == payload.as_bytes() {
                    break;
                }
            }
        }
    }
    // Whatever goes round has had the time of four messages to come again.
    for client in &mut clients {
        client.ping();
    }
    let once: Vec<Vec<u8>> = ["a", "b", "c", "d", "e"].map(|text| text.as_bytes().to_vec()).to_vec();
    assert_eq!(came, [once.clone(), once]);
}

/// An upstream that does what a test says, one connection after the other. Returns its port.
fn upstream(behave: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            behave(stream);
        }
    });
    port
}

fn reads_connect(stream: &mut TcpStream) {
    let mut buffer = [0; 1_024];
    let _ = stream.read(&mut buffer);
}

/// Answers what a bridge says, until the connection ends. `connack` is the answer to CONNECT, and `answer` that to a PUBLISH;
/// `None` ends the connection. Messages are told to `came`: the first byte, and the topic.
fn serve(
    stream: TcpStream,
    connack: &[u8],
    came: &std::sync::mpsc::Sender<(u8, String)>,
    answer: impl Fn(&str) -> Option<Vec<u8>>,
) {
    let mut peer = Client::new(stream);
    let connect = peer.receive();
    if connect.is_none() {
        return;
    }
    peer.send(connack);
    while let Some(got) = peer.receive() {
        match got.first >> 4 {
            8 => peer.send(&packet(0x90, &[got.body[0], got.body[1], 0, 1])),
            12 => peer.send(&[0xD0, 0]),
            3 => {
                let topic_bytes = usize::from(got.body[1]);
                let topic = String::from_utf8(got.body[2..2 + topic_bytes].to_vec()).unwrap();
                let identifier = [got.body[2 + topic_bytes], got.body[3 + topic_bytes]];
                let answer = answer(&topic);
                let _ = came.send((got.first, topic));
                let Some(answer) = answer else { return };
                if answer.is_empty() {
                    peer.send(&packet(0x40, &identifier));
                } else {
                    peer.send(&answer);
                    return;
                }
            }
            _ => return,
        }
    }
}

#[test]
fn a_message_for_which_the_upstream_ends_the_connection_does_not_hold_up_what_follows() {
    let (told, came) = std::sync::mpsc::channel();
    // Retain Available: 0.
    let port = upstream(move |stream| {
        serve(stream, &[0x20, 5, 0, 0, 2, 0x25, 0], &told, |topic| {
            Some(if topic.ends_with("/bad") { vec![0xE0, 2, 0x95, 0] } else { Vec::new() })
        });
    });
    let remote = format!("hosts: [\"127.0.0.1:{port}\"], clientId: gateway-7");
    let mut gateway = Gateway::start("bridge-poison", free_ports(1), &remote, MAPS);
    gateway.wait_for("bridge 'cloud': connected");
    let mut local = Client::accepted(tcp(gateway.port), "local");
    for topic in ["sensors/1", "sensors/bad", "sensors/2", "sensors/3"] {
        let body = [text(topic), vec![0, 7, 0], b"x".to_vec()].concat();
        local.send(&packet(0x33, &body));
        assert_eq!(local.receive().expect("a PUBACK").first, 0x40);
    }
    gateway.wait_for("the upstream has ended the connection: 0x95");
    gateway.wait_for("whenever it gets a message, which is dropped (1 so far)");
    let mut order = Vec::new();
    while order.last().is_none_or(|topic| topic != "site/7/sensors/3") {
        let (first, topic) = came.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(first & 1, 0, "{topic}: without the RETAIN flag");
        if !order.contains(&topic) && !topic.ends_with("/bad") {
            order.push(topic);
        }
    }
    assert_eq!(order, ["1", "2", "3"].map(|name| format!("site/7/sensors/{name}")));
}

#[test]
fn an_upstream_that_takes_no_qos_1_gets_nothing_until_it_does() {
    let (told, came) = std::sync::mpsc::channel();
    let is_better = Arc::new(AtomicBool::new(false));
    let better = Arc::clone(&is_better);
    let port = upstream(move |stream| {
        // Maximum QoS: 0.
        let connack: &[u8] =
            if better.load(Ordering::SeqCst) { &[0x20, 3, 0, 0, 0] } else { &[0x20, 5, 0, 0, 2, 0x24, 0] };
        serve(stream, connack, &told, |_| Some(Vec::new()));
    });
    let remote = format!("hosts: [\"127.0.0.1:{port}\"], clientId: gateway-7");
    let mut gateway = Gateway::start("bridge-qos-0", free_ports(1), &remote, MAPS);
    gateway.wait_for("the upstream takes QoS 0 only");
    let mut local = Client::accepted(tcp(gateway.port), "local");
    assert_eq!(local.publish("sensors/1", b"x"), 0);
    assert!(came.try_recv().is_err());
    is_better.store(true, Ordering::SeqCst);
    let (first, topic) = came.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!((first & 0b110, topic.as_str()), (0b010, "site/7/sensors/1"));
}

#[test]
fn an_upstream_that_misbehaves_is_its_bridges_trouble_and_nobody_elses() {
    let mut held = Vec::new();
    let connack = [0x20, 3, 0, 0, 0];
    let publish = |topic: &str, qos: u8| {
        let mut body = text(topic);
        body.extend_from_slice(if qos > 0 { &[0, 1] } else { &[] });
        body.extend_from_slice(b"\0evil");
        packet(0x30 | qos << 1, &body)
    };
    let told = |bytes: Vec<u8>| {
        upstream(move |mut stream| {
            reads_connect(&mut stream);
            let _ = stream.write_all(&connack);
            let _ = stream.write_all(&bytes);
            // What follows is read until the bridge has had enough.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        })
    };
    let cases: [(&str, &str, u16); 8] = [
        ("closed", "has closed the connection", upstream(drop)),
        (
            "half",
            "has closed the connection",
            upstream(|mut stream| {
                reads_connect(&mut stream);
                let _ = stream.write_all(&[0x20, 3, 0]);
            }),
        ),
        (
            "refusing",
            "says 0x87",
            upstream(|mut stream| {
                reads_connect(&mut stream);
                let _ = stream.write_all(&[0x20, 3, 0, 0x87, 0]);
                let _ = stream.read(&mut [0; 16]);
            }),
        ),
        ("garbage", "what MQTT does not allow", told(vec![0xFF; 64])),
        ("endless", "what MQTT does not allow", told(vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F])),
        ("wildcard", "has no name here", told(publish("site/7/commands/+", 1))),
        ("system", "has no name here", told(publish("$SYS/broker/uptime", 0))),
        ("unasked", "what MQTT does not allow", told(publish("site/7/commands/x", 2))),
    ];
    for (name, fault, port) in cases {
        let remote = format!("hosts: [\"127.0.0.1:{port}\"], clientId: gateway-7");
        let mut gateway = Gateway::start(&format!("bridge-bad-{name}"), free_ports(1), &remote, MAPS);
        let mut local = Client::accepted(tcp(gateway.port), "local");
        assert_eq!(local.subscribe(&["#"]), [1]);
        gateway.wait_for(fault);
        assert_eq!(local.publish("sensors/a", b"mine"), 0, "{name}");
        assert_eq!(local.message().1, b"mine", "{name}: nothing of the upstream's has come in");
        local.ping();
        assert!(!gateway.process().output().iter().any(|line| line.contains("panicked")), "{name}");
        held.push(gateway);
    }
    let mut silent_ones = Vec::new();
    // TLS where nobody speaks it, and nobody at all where somebody is asked for.
    let silent = upstream(std::mem::forget);
    for (name, tls, fault) in [("tls", ", tls: {}", "no connection in time"), ("silent", "", "does not answer")] {
        let remote = format!("hosts: [\"127.0.0.1:{silent}\"], clientId: gateway-7{tls}");
        let gateway = Gateway::start(&format!("bridge-bad-{name}"), free_ports(1), &remote, MAPS);
        let mut local = Client::accepted(tcp(gateway.port), "local");
        assert_eq!(local.publish("sensors/a", b"mine"), 0, "{name}");
        local.ping();
        silent_ones.push((gateway, fault));
    }
    // Both are found out at the same time.
    for (mut gateway, fault) in silent_ones {
        gateway.wait_for(fault);
    }
}
