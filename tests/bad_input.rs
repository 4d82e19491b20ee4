//! What a peer must not send, and what must not be started. After each the broker still serves its other clients.
//!
//! MQTT 5 chapter 4.13 and the cases of our own reliability list; every test names its rule.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use support::client::{Client, certificates, connect_packet, key, packet, publish_packet, tcp, text, tls, tls_refusal};
use support::{Demo, Folder, Site, free_ports, plain_listener, run};

/// A broker without TLS, and a client that must not notice anything.
struct Plain {
    site: Site,
    port: u16,
    bystander: Client,
}

impl Plain {
    fn start(name: &str) -> Self {
        let port = free_ports(1);
        let site = Site::start(name, &[("listener.yaml", plain_listener(port))]);
        let mut bystander = Client::accepted(tcp(port), "bystander");
        assert_eq!(bystander.subscribe(&["canary"]), [1]);
        Self { site, port, bystander }
    }

    fn client(&self, identifier: &str) -> Client {
        Client::accepted(tcp(self.port), identifier)
    }

    /// The bystander is still there, and a message still finds its way.
    fn still_serves(&mut self) {
        assert!(self.site.process.is_alive());
        let mut canary = self.client("canary");
        assert_eq!(canary.publish("canary", b"alive"), 0);
        assert_eq!(self.bystander.message(), ("canary".to_owned(), b"alive".to_vec()));
        self.bystander.ping();
    }
}

/// Sends bytes on a fresh connection and returns all that comes back until the broker closes.
fn answer(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = tcp(port);
    // The broker may have closed before the last byte is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("not closed: {error}"),
    }
}

#[test]
fn what_is_not_a_connect_is_closed_on_its_first_byte() {
    let mut broker = Plain::start("first-byte");
    for first in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        b"\x00",
        b"\xC0\x00",
        b"\xF0\x00",
        b"\x30\xFF\xFF\xFF\x7F",
        b"\x82\x80\x80\x80\x80\x01",
        b"\x11\x00",
    ] {
        assert_eq!(answer(broker.port, first), b"", "{first:?}");
    }
    broker.still_serves();
}

#[test]
fn every_cut_of_a_connect_is_closed_with_malformed_packet() {
    let mut broker = Plain::start("cut-connect");
    let whole = connect_packet("cut", 60);
    for cut in 2..whole.len() {
        let shortened = packet(0x10, &whole[2..cut]);
        let reply = answer(broker.port, &shortened);
        assert!(matches!(reply.get(..4), Some([0x20, 3, 0, 0x81 | 0x82])), "cut at {cut}: {reply:02x?}");
    }
    broker.still_serves();
}

#[test]
fn a_packet_above_the_maximum_is_refused_from_its_header() {
    let mut broker = Plain::start("oversized");
    // CONNECT and PUBLISH that promise 256 MB.
    let refusal = answer(broker.port, b"\x10\xFF\xFF\xFF\x7F\x00\x04MQTT\x05");
    assert_eq!((refusal[0], &refusal[2..4]), (0x20, &[0, 0x95][..]));
    let mut client = broker.client("large");
    client.send(b"\x32\xFF\xFF\xFF\x7F\x00\x01a");
    client.is_disconnected(0x95);
    broker.still_serves();
}

#[test]
fn a_malformed_remaining_length_is_a_malformed_packet() {
    let mut broker = Plain::start("remaining-length");
    assert_eq!(answer(broker.port, b"\x10\x80\x80\x80\x80\x01"), b"");
    let mut client = broker.client("length");
    client.send(b"\x30\xFF\xFF\xFF\xFF\x01");
    client.is_disconnected(0x81);
    broker.still_serves();
}

#[test]
fn what_a_client_must_not_send_is_refused_with_its_own_code() {
    let mut broker = Plain::start("forbidden");
    let port = broker.port;
    let fresh = |name: &str| Client::accepted(tcp(port), name);
    let mut alias = fresh("alias");
    alias.send(&packet(0x30, &[&text("a")[..], &[3, 0x23, 0, 17], b"x"].concat()));
    alias.is_disconnected(0x94);
    let mut unknown_alias = fresh("unknown-alias");
    unknown_alias.send(&packet(0x30, &[&text("")[..], &[3, 0x23, 0, 1], b"x"].concat()));
    unknown_alias.is_disconnected(0x82);
    let mut auth = fresh("auth");
    auth.send(&packet(0xF0, &[0x19, 0]));
    auth.is_disconnected(0x82);
    let mut twice = fresh("twice");
    twice.send(&connect_packet("twice", 0));
    twice.is_disconnected(0x82);
    let mut server_only = fresh("server-only");
    server_only.send(&packet(0xD0, &[]));
    server_only.is_disconnected(0x82);
    // MQTT 3.1 is told so in its own words.
    let old = packet(0x10, &[&text("MQIsdp")[..], &[3, 2, 0, 0], &text("old")].concat());
    assert_eq!(answer(broker.port, &old), [0x20, 2, 0, 1]);
    // Enhanced authentication: no method is known.
    let method = packet(0x10, &[&text("MQTT")[..], &[5, 2, 0, 0, 8, 0x15], &text("SCRAM"), &text("m")].concat());
    let refusal = answer(broker.port, &method);
    assert_eq!((refusal[0], &refusal[2..4]), (0x20, &[0, 0x8C][..]));
    broker.still_serves();
}

#[test]
fn invalid_topics_and_filters_are_answered_where_they_stand() {
    let mut broker = Plain::start("topics");
    let mut client = broker.client("filters");
    let codes = client.subscribe(&["a", "a/#/b", "a+", "$share/g", "$share//a", "$share/g/a", "#"]);
    assert_eq!(codes, [1, 0x8F, 0x8F, 0x8F, 0x8F, 1, 1]);
    assert_eq!(client.publish("$SYS/x", b""), 0x90);
    assert_eq!(client.publish(&"/".repeat(30_000), b""), 0x90);
    assert_eq!(client.subscribe(&[&"/".repeat(30_000)]), [0x8F]);
    let mut wildcard = broker.client("wildcard");
    wildcard.send(&publish_packet("a/+", 1, 1, b""));
    wildcard.is_disconnected(0x90);
    let mut empty = broker.client("empty");
    empty.send(&publish_packet("", 1, 1, b""));
    empty.is_disconnected(0x82);
    let mut no_filter = broker.client("no-filter");
    no_filter.send(&packet(0x82, &[0, 1, 0]));
    no_filter.is_disconnected(0x82);
    broker.still_serves();
}

#[test]
fn packets_may_come_byte_by_byte_or_hundreds_at_once() {
    let mut broker = Plain::start("segments");
    let mut slow = Client::new(tcp(broker.port));
    for byte in connect_packet("slow", 0) {
        slow.send(&[byte]);
    }
    assert_eq!(slow.receive().map(|connack| connack.body[1]), Some(0));
    for byte in publish_packet("a", 1, 3, b"x") {
        slow.send(&[byte]);
    }
    assert_eq!(slow.receive().map(|puback| puback.first), Some(0x40));
    let mut fast = broker.client("fast");
    assert_eq!(fast.subscribe(&["many"]), [1]);
    let burst: Vec<u8> = (1..=600_u16).flat_map(|id| publish_packet("many", 0, id, &id.to_be_bytes())).collect();
    slow.send(&burst);
    for id in 1..=600_u16 {
        assert_eq!(fast.message().1, id.to_be_bytes());
    }
    broker.still_serves();
}

#[test]
fn a_newer_connection_takes_the_session_over() {
    let mut broker = Plain::start("takeover");
    let mut older = broker.client("same");
    let mut newer = broker.client("same");
    older.is_disconnected(0x8E);
    newer.ping();
    broker.still_serves();
}

#[test]
fn a_will_is_published_unless_the_client_says_goodbye() {
    let mut broker = Plain::start("will");
    let with_will = |identifier: &str| {
        let body =
            [&text("MQTT")[..], &[5, 0x0E, 0, 0, 0], &text(identifier), &[0], &text("wills"), &text("gone")].concat();
        let mut client = Client::new(tcp(broker.port));
        client.send(&packet(0x10, &body));
        assert_eq!(client.receive().map(|connack| connack.body[1]), Some(0));
        client
    };
    let (mut polite, rude) = (with_will("polite"), with_will("rude"));
    let mut watcher = broker.client("watcher");
    assert_eq!(watcher.subscribe(&["wills"]), [1]);
    polite.send(&[0xE0, 0]);
    assert_eq!(polite.receive(), None);
    drop(rude);
    assert_eq!(watcher.message(), ("wills".to_owned(), b"gone".to_vec()));
    watcher.ping();
    broker.still_serves();
}

#[test]
fn a_silent_client_is_closed_after_one_and_a_half_keep_alive_periods() {
    let mut broker = Plain::start("keep-alive");
    let mut silent = Client::new(tcp(broker.port));
    silent.send(&connect_packet("silent", 1));
    assert_eq!(silent.receive().map(|connack| connack.body[1]), Some(0));
    silent.is_disconnected(0x8D);
    broker.still_serves();
}

#[test]
fn a_connection_without_connect_is_closed_at_its_deadline_whatever_it_sends() {
    let port = free_ports(1);
    let gateway = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata:\n  name: default\nspec:\n  connectDeadlineSeconds: 3\n";
    let _site = Site::start("deadline", &[("l.yaml", plain_listener(port)), ("g.yaml", gateway.to_owned())]);
    let mut client = Client::accepted(tcp(port), "honest");
    let mut dripping = tcp(port);
    dripping.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    // A CONNECT that never becomes whole; each byte would reset a deadline that bytes can reset.
    let whole = connect_packet(&"x".repeat(100), 0);
    let mut closed = false;
    for byte in whole.iter().take(100) {
        if dripping.write_all(&[*byte]).is_err() {
            closed = true;
            break;
        }
        let mut buffer = [0; 16];
        if let Ok(0) = dripping.read(&mut buffer) {
            closed = true;
            break;
        }
    }
    assert!(closed, "ten seconds of dripping were allowed");
    client.ping();
}

#[test]
fn tls_and_plain_do_not_mix_and_cost_nobody_else() {
    let mut demo = Demo::start("mixed");
    let authority = demo.folder.join("demo/contoso_root_ca.crt");
    let identity = (certificates(&demo.folder.join("demo/heater.crt")), key(&demo.folder.join("demo/heater.key")));
    let mut bystander = Client::accepted(tls(demo.port, &authority, Some(identity)).expect("TLS"), "heater");
    // Plain MQTT on the TLS port: an alert at most, then the end.
    let reply = answer(demo.port, &connect_packet("plain", 0));
    assert!(reply.is_empty() || reply[0] == 0x15, "{reply:02x?}");
    // Garbage in place of a handshake, and a handshake that stops in the middle.
    answer(demo.port, &[0x16, 3, 1, 0xFF, 0xFF, 1]);
    let mut stalled = tcp(demo.port);
    stalled.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC]).expect("the broker listens");
    // No certificate.
    assert!(tls_refusal(tls(demo.port, &authority, None)).contains("CertificateRequired"));
    bystander.ping();
    assert!(demo.process.is_alive());
}

#[test]
fn a_broken_blob_is_refused_with_its_reason_and_exit_code_3() {
    let folder = Folder::new("blobs");
    let port = free_ports(1);
    let source = folder.write("site/listener.yaml", plain_listener(port));
    let blob = folder.join("good.blob");
    let (source, path) = (source.to_str().expect("a path"), blob.to_str().expect("a path"));
    assert!(run(&["bake", source, "--out", path]).status.success());
    let good = std::fs::read(&blob).expect("a blob");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("short", good[..10].to_vec()),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("flipped", flipped),
        ("longer", [&good[..], b"x"].concat()),
        ("yaml", plain_listener(port).into_bytes()),
    ] {
        let path = folder.write(name, bytes);
        for arguments in [["run", "--config"].as_slice(), &["inspect"]] {
            let output = run(&[arguments, &[path.to_str().expect("a path")]].concat());
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(3), "{name}: {said}");
            assert!(said.contains(name), "the file is named: {said}");
        }
    }
    let output = run(&["run", "--config", folder.join("missing").to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn what_keeps_the_broker_from_starting_is_said_with_exit_code_4() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let folder = Folder::new("cannot-start");
    folder.write("site/listener.yaml", plain_listener(port));
    let (site, blob) = (folder.join("site"), folder.join("site/site.blob"));
    let (site, blob) = (site.to_str().expect("a path"), blob.to_str().expect("a path"));
    assert!(run(&["bake", site, "--out", blob]).status.success());
    let output = run(&["run", "--config", blob]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains(&port.to_string()) && said.contains("another broker"), "{said}");
    drop(taken);

    // TLS: the key is not a key, or another's.
    let listener = plain_listener(free_ports(1))
        + "      tls:\n        mode: Manual\n        manual:\n          secretRef: server\n";
    folder.write("site/listener.yaml", listener);
    assert!(run(&["bake", site, "--out", blob]).status.success());
    let demo = folder.join("certificates");
    portcullis::pki::demo::create(&demo).expect("certificates");
    let pem = |name: &str| std::fs::read(demo.join(name)).expect("a file");
    folder.write("site/secrets/server/tls.crt", pem("mqtts-endpoint.crt"));
    for key in [b"no key at all".to_vec(), pem("heater.key")] {
        folder.write("site/secrets/server/tls.key", key);
        let output = run(&["run", "--config", blob]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains("secret 'server'"), "{said}");
        assert!(!said.contains("PRIVATE"), "{said}");
    }
}

#[test]
fn a_reset_in_the_middle_of_a_packet_leaves_nothing_behind() {
    let mut broker = Plain::start("resets");
    for round in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port)).expect("the broker accepts");
        stream.write_all(&connect_packet(&format!("r{round}"), 0)[..8]).expect("the broker listens");
        drop(stream);
    }
    broker.still_serves();
}
