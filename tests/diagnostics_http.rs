//! The doors of the diagnostics, from outside: what is refused and bounded, and that MQTT never pays for it.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use support::client::{Client, certificates, key, tcp, tls, tls_refusal};
use support::image::{self, broker_resource};
use support::{Folder, PATIENCE, Process, Site, free_ports, plain_listener, portcullis, run};

/// A broker without authentication, with its diagnostics on the port behind that of MQTT.
struct Gateway {
    site: Site,
    mqtt: u16,
    http: u16,
}

impl Gateway {
    fn start(name: &str) -> Self {
        let mqtt = free_ports(2);
        let files = [("listener.yaml", plain_listener(mqtt)), ("broker.yaml", broker_resource(mqtt + 1))];
        Self { site: Site::start(name, &files), mqtt, http: mqtt + 1 }
    }

    fn get(&self, path: &str) -> (u16, String) {
        ask(tcp(self.http), &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Who is served by MQTT whatever happens next door.
    fn serves_mqtt(&self) {
        Client::accepted(tcp(self.mqtt), "somebody").ping();
    }
}

/// Sends a request and reads to the end: the status and everything.
fn ask(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    // The answer may come, and the connection end, before everything is said.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
    answer(stream)
}

fn answer(mut stream: impl Read) -> (u16, String) {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {text:?}")), text)
}

fn body(text: &str) -> &str {
    text.split_once("\r\n\r\n").expect("a head").1
}

#[test]
fn whatever_is_no_request_gets_an_answer_and_the_end() {
    let gateway = Gateway::start("http-refused");
    let http = gateway.http;
    let with = |fields: &str| format!("GET /healthz HTTP/1.1\r\n{fields}\r\n");
    let long = |bytes: usize| "a".repeat(bytes);
    for (request, expected) in [
        (with("Host: localhost\r\n"), 200),
        (with(&format!("Host: 127.0.0.1:{http}\r\n")), 200),
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), 200),
        (with(""), 400),
        (with("Host: localhost\r\nHost: localhost\r\n"), 400),
        (with("Host: evil.example\r\n"), 421),
        (with("Host: localhost.evil.example:80\r\n"), 421),
        (with("Host: localhost\r\nTransfer-Encoding: chunked\r\n"), 501),
        (with("Host: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n"), 400),
        (with("Host: localhost\r\nContent-Length: 3\r\n"), 400),
        (with(&format!("Host: localhost\r\nX: {}\r\n", long(1_000_000))), 431),
        (with(&format!("Host: localhost\r\n{}", "X: y\r\n".repeat(100))), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", long(3_000)), 414),
        ("DELETE /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
        ("POST /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 403),
        ("POST /api/v1/clients/x/disconnect HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 403),
        (format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{}", long(1_000_000)), 413),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET /%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET /..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 404),
        ("GET /api%2Fv1%2Fstatus HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 404),
        ("GET //metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 404),
        ("GET /metrics%00 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 404),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400),
    ] {
        let (status, text) = ask(tcp(http), &request);
        let shown: String = request.chars().take(100).collect();
        assert_eq!(status, expected, "{shown:?}: {text}");
        assert!(
            text.contains("\r\nConnection: close\r\n") && text.contains("\r\nCache-Control: no-store\r\n"),
            "{text}"
        );
    }
    gateway.serves_mqtt();
}

#[test]
fn a_connection_has_one_request() {
    let gateway = Gateway::start("http-pipelined");
    let one = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (status, text) = ask(tcp(gateway.http), &one.repeat(100));
    assert_eq!((status, text.matches("HTTP/1.1").count(), body(&text)), (200, 1, "ok\n"));
    let (status, text) = ask(tcp(gateway.http), &one.replace("GET", "HEAD"));
    assert_eq!((status, body(&text)), (200, ""));
    assert!(text.contains("\r\nContent-Length: 3\r\n"), "{text}");
    // Who has said everything and closes his side gets his answer all the same.
    let mut stream = tcp(gateway.http);
    stream.write_all(one.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(stream).0, 200);
}

#[test]
fn who_takes_his_time_costs_a_seat_for_a_while_and_mqtt_nothing() {
    let gateway = Gateway::start("http-slow");
    let mut slow: Vec<TcpStream> = (0..8).map(|_| tcp(gateway.http)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HTTP/1.1\r\nX").unwrap();
    }
    // Seats are taken in the order of connections: the ninth finds none.
    let (status, _) = gateway.get("/healthz");
    assert_eq!(status, 503);
    gateway.serves_mqtt();
    // The control socket has seats of its own.
    let control = UnixStream::connect(gateway.site.folder.join("site/state/control.sock")).unwrap();
    assert_eq!(ask(control, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").0, 200);
    for mut stream in slow {
        // A byte more does not begin the time anew.
        let _ = stream.write_all(b"-");
        assert_eq!(answer(stream).0, 408);
    }
    assert_eq!(gateway.get("/healthz").0, 200);
}

#[test]
fn who_does_not_read_his_answer_keeps_nobody_else_waiting() {
    let gateway = Gateway::start("http-unread");
    let mut unread: Vec<TcpStream> = (0..7).map(|_| tcp(gateway.http)).collect();
    for stream in &mut unread {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    }
    for _ in 0..20 {
        assert_eq!(gateway.get("/healthz").0, 200);
    }
    gateway.serves_mqtt();
}

#[test]
fn pages_of_elsewhere_can_load_nothing_and_are_loaded_by_nobody() {
    let gateway = Gateway::start("http-fields");
    let (status, text) = gateway.get("/");
    assert_eq!(status, 200);
    for field in [
        "X-Content-Type-Options: nosniff",
        "Referrer-Policy: no-referrer",
        "default-src 'none'; script-src 'sha256-",
        "frame-ancestors 'none'",
    ] {
        assert!(text.contains(field), "{field}: {text}");
    }
    assert!(!text.contains("unsafe-inline"), "{text}");
}

#[test]
fn the_control_socket_is_for_owner_and_group_and_belongs_to_one_broker() {
    let gateway = Gateway::start("http-control");
    let path = gateway.site.folder.join("site/state/control.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let other = free_ports(1);
    let folder = Folder::new("http-control-other");
    folder.write("site/listener.yaml", plain_listener(other));
    folder.write("site/broker.yaml", broker_resource(0));
    let (site, blob) = (folder.join("site"), folder.join("site.blob"));
    let (site, blob) = (site.to_str().unwrap(), blob.to_str().unwrap());
    assert!(run(&["bake", site, "--out", blob]).status.success());
    let refused = run(&["run", "--config", blob, "--control", path.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("another broker answers on it"), "{said}");
    // A path that no socket can have is an error where it was asked for, and none in a deep state folder.
    let deep = format!("{}/{}", folder.text(), "x".repeat(120));
    let refused = run(&["run", "--config", blob, "--control", &format!("{deep}/c.sock")]);
    assert_eq!(refused.status.code(), Some(4));
    let mut process = Process::start(&mut portcullis(&["run", "--config", blob, "--state", &deep]));
    assert!(process.wait_for("no control socket").contains("name a shorter one with --control"));
    process.wait_for(" ready");
    process.terminate();
    process.wait();
    drop(gateway.site.process);
    // It was killed: its socket lies there, and is replaced.
    assert!(path.exists());
    let mut process = Process::start(&mut portcullis(&["run", "--config", blob, "--control", path.to_str().unwrap()]));
    process.wait_for(" ready");
    assert!(UnixStream::connect(&path).is_ok());
    process.terminate();
    process.wait();
    assert!(!path.exists(), "removed at the end");
}

#[test]
fn a_port_that_was_asked_for_must_be_free() {
    let first = Gateway::start("http-taken");
    let folder = Folder::new("http-taken-other");
    folder.write("site/listener.yaml", plain_listener(free_ports(1)));
    folder.write("site/broker.yaml", broker_resource(first.http));
    let (site, blob) = (folder.join("site"), folder.join("site.blob"));
    let (site, blob) = (site.to_str().unwrap(), blob.to_str().unwrap());
    assert!(run(&["bake", site, "--out", blob]).status.success());
    let refused = run(&["run", "--config", blob]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("diagnostics: cannot listen on 127.0.0.1"), "{said}");
}

/// A site whose diagnostics leave the machine, with the demo's certificates.
fn exposed(name: &str, guard: &str) -> (Folder, u16) {
    let mqtt = free_ports(2);
    (image::site(name, mqtt, Some(guard)), mqtt + 1)
}

#[test]
fn beyond_this_machine_it_takes_a_token() {
    let (folder, port) = exposed("http-token", "tokenSecretRef: metrics");
    let site = Site::start_in(folder);
    let authority = site.folder.join("demo/contoso_root_ca.crt");
    let get = |fields: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: gateway.example\r\n{fields}\r\n");
        ask(tls(port, &authority, None).expect("TLS"), &request)
    };
    assert_eq!(get("Authorization: Bearer correct horse battery staple\r\n").0, 200);
    let (status, text) = get("");
    assert_eq!(status, 401);
    assert!(text.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{text}");
    assert_eq!(get("Authorization: Bearer correct horse battery stapl\r\n").0, 401);
    assert_eq!(get("Authorization: Bearer \r\n").0, 401);
    // Others renew it, and nobody says so.
    site.folder.write("site/secrets/metrics/token", "another one that is long enough");
    assert_eq!(get("Authorization: Bearer correct horse battery staple\r\n").0, 401);
    assert_eq!(get("Authorization: Bearer another one that is long enough\r\n").0, 200);
    // Reading only, and nothing in clear.
    let post = "POST /api/v1/clients/x/disconnect HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer another one that is long \
                enough\r\n\r\n";
    assert_eq!(ask(tls(port, &authority, None).expect("TLS"), post).0, 403);
    let mut plain = tcp(port);
    plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    let _ = plain.read_to_end(&mut heard);
    assert!(!heard.starts_with(b"HTTP"), "{heard:?}");
}

#[test]
fn beyond_this_machine_it_takes_a_certificate_and_a_withdrawn_one_is_none() {
    let (folder, port) = exposed("http-certificate", "trustedClientCaCert: readers");
    let mut site = Site::start_in(folder);
    let authority = site.folder.join("demo/contoso_root_ca.crt");
    let identity = |name: &str| {
        let file = |ending: &str| site.folder.join(&format!("demo/{name}.{ending}"));
        Some((certificates(&file("crt")), key(&file("key"))))
    };
    let request = "GET /metrics HTTP/1.1\r\nHost: gateway.example\r\n\r\n";
    let (status, text) = ask(tls(port, &authority, identity("heater")).expect("TLS"), request);
    assert_eq!(status, 200);
    assert!(text.contains("aio_broker_publishes_received"), "{text}");
    assert!(!tls_refusal(tls(port, &authority, None)).is_empty());
    let strange = identity("mqtts-endpoint");
    assert!(!tls_refusal(tls(port, &authority, strange)).is_empty());
    site.folder.write("site/revocation/deny.yaml", "- subject: CN = heater\n");
    site.process.wait_for("deny");
    let again = || {
        tls(port, &authority, identity("heater")).and_then(|mut stream| {
            stream.write_all(request.as_bytes())?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).map(|_| bytes)
        })
    };
    let end = std::time::Instant::now() + PATIENCE;
    // The folder is looked at once a second.
    while again().is_ok_and(|bytes| bytes.starts_with(b"HTTP/1.1 200")) {
        assert!(std::time::Instant::now() < end, "still let in");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(ask(tls(port, &authority, identity("thermostat")).expect("TLS"), request).0, 200);
}

#[test]
fn what_should_guard_the_door_must_be_there() {
    let (folder, _) = exposed("http-unguarded", "tokenSecretRef: metrics");
    folder.write("site/secrets/metrics/token", "short");
    let (site, blob) = (folder.join("site"), folder.join("site/site.blob"));
    let (site, blob) = (site.to_str().unwrap(), blob.to_str().unwrap());
    assert!(run(&["bake", site, "--out", blob]).status.success());
    let refused = run(&["run", "--config", blob]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("a token has at least 16 characters"), "{said}");
}
