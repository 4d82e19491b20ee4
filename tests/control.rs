//! What a running broker says of itself through its control socket, compared with what its clients did.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::pki;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::client::{Client, lasting_connect_packet, packet, publish_packet, subscribe_packet, tcp, text};
use support::{Folder, PATIENCE, Site, free_ports, login, run};

/// Where the tests' control socket is.
fn socket(site: &Site) -> PathBuf {
    site.folder.join("site/state/control.sock")
}

/// Runs a command against a site: exit code, standard output, standard error.
fn told(site: &Site, arguments: &[&str]) -> (i32, String, String) {
    let socket = socket(site);
    let output = run(&[arguments, &["--control", socket.to_str().unwrap()]].concat());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The JSON of a command.
fn asked(site: &Site, arguments: &[&str]) -> Value {
    let (code, output, errors) = told(site, &[arguments, &["--json"]].concat());
    assert_eq!((code, errors.as_str()), (0, ""), "{arguments:?}");
    serde_json::from_str(&output).unwrap()
}

/// A request over a stream: status, and the document or line.
fn exchange(mut stream: impl std::io::Read + std::io::Write, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.trim().to_owned())))
}

fn through_socket(site: &Site, method: &str, path: &str, body: &str) -> (u16, Value) {
    let stream = UnixStream::connect(socket(site)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, method, path, body)
}

/// A port on which users of `users` log in and rules decide, and one behind it that is open. `diagnostics` is the port of the
/// read-only door.
fn site(name: &str, port: u16, diagnostics: u16) -> Site {
    let folder = Folder::new(name);
    let passwords = folder.join("site/secrets/users/passwords.toml");
    folder.write("site/secrets/users/note", "");
    for (user, floor) in [("anna", "floor1"), ("otto", "floor9")] {
        let mut command = support::portcullis(&[
            "passwd",
            passwords.to_str().unwrap(),
            user,
            "--attribute",
            &format!("floor={floor}"),
        ]);
        let mut child =
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
        assert!(child.wait().unwrap().success());
    }
    let broker = format!(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {{name: default}}\nspec:\n  \
         diagnostics: {{metrics: {{prometheusPort: {diagnostics}}}}}\n"
    );
    folder.write("site/broker.yaml", broker);
    let open = format!(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {{name: open}}\nspec:\n  \
         serviceType: ClusterIp\n  ports: [{{port: {}}}]\n",
        port + 1
    );
    folder.write("site/open.yaml", open);
    let users = "    - {method: UsernamePassword, usernamePasswordSettings: {secretRef: users}}\n";
    login::site(folder, port, users, "")
}

fn log_in(port: u16, identifier: &str, user: &str) -> (Client, u8) {
    login::log_in(port, &login::connect(identifier, Some(user), Some(b"secret"), None))
}

/// A member, or nothing.
fn at<'a>(document: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(document, |value, name| value.get(name).unwrap_or(&Value::Null))
}

fn rows<'a>(document: &'a Value, name: &str) -> &'a Vec<Value> {
    document[name].as_array().unwrap()
}

#[test]
fn clients_are_shown_as_they_connected_whatever_they_are_called() {
    let port = free_ports(3);
    let site = site("control-clients", port, port + 2);
    let hostile = "q\"\\'\u{1}\u{9b}2J\u{202e}\u{fc}<img src=x onerror=alert(1)>";
    let names = ["..", ".", hostile, "a/b?c=d&e%2F", &"\u{4e2d}".repeat(42)];
    let mut clients: Vec<Client> = names.iter().map(|name| Client::accepted(tcp(port + 1), name)).collect();
    let (mut anna, reason) = log_in(port, "anna-1", "anna");
    assert_eq!(reason, 0);

    let listed = asked(&site, &["clients"]);
    let mut found: Vec<&str> = rows(&listed, "clients").iter().map(|row| row["clientId"].as_str().unwrap()).collect();
    found.retain(|name| !name.starts_with("$inside/"));
    found.sort_unstable();
    let mut expected = [&names[..], &["anna-1"]].concat();
    expected.sort_unstable();
    assert_eq!(found, expected);
    let (_, table, _) = told(&site, &["clients"]);
    assert!(table.contains("q\"\\'\\u{1}\\u{9b}2J\\u{202e}\u{fc}<img") && !table.contains('\u{9b}'), "{table}");
    let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "the last column is of numbers:\n{table}");

    anna.send(&subscribe_packet(1, &["$share/g/x", "floors/+"], 1));
    anna.receive().unwrap();
    let one = asked(&site, &["client", "anna-1"]);
    let expected = json!({
        "clientId": "anna-1", "username": "anna", "method": "UsernamePassword", "attributes": {"floor": "floor1"},
        "listener": "plain", "protocol": "MQTT 5", "keepAliveSeconds": 0, "expiresUnix": null, "queued": 0, "inFlight": 0,
        "category": "uncategorized", "filtersMore": 0,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&one[name], value, "{name}");
    }
    assert!(one["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(login::now().abs_diff(one["connectedUnix"].as_u64().unwrap()) <= PATIENCE.as_secs());
    // No rule lets anybody subscribe.
    assert_eq!((one["subscriptions"].as_u64(), rows(&one, "filters").len()), (Some(0), 0));

    clients[2].send(&subscribe_packet(1, &["$share/g/x", &"f".repeat(60_000)], 0b10_1101));
    assert_eq!(clients[2].receive().unwrap().first, 0xE0, "No Local on a shared subscription is a protocol error");
    clients[3].send(&subscribe_packet(1, &["$share/g/x"], 0b10_1001));
    clients[3].receive().unwrap();
    clients[3].send(&subscribe_packet(1, &[&"f".repeat(60_000)], 0b10_1101));
    clients[3].receive().unwrap();
    let one = asked(&site, &["client", names[3]]);
    let filters = rows(&one, "filters");
    assert_eq!(filters[0]["filter"], "f".repeat(1_024));
    assert_eq!((&filters[0]["cut"], &filters[0]["noLocal"]), (&json!(true), &json!(true)));
    let shared = json!({
        "filter": "$share/g/x", "qos": 1, "noLocal": false, "retainAsPublished": true, "retainHandling": 2,
        "identifier": null
    });
    assert_eq!(filters[1], shared);
    for name in ["..", "."] {
        assert_eq!(asked(&site, &["client", name])["clientId"], name);
        let path = format!("/api/v1/clients/{}", name.replace('.', "%2e"));
        assert_eq!(through_socket(&site, "GET", &path, "").0, 400, "no path can have such a segment");
    }
    assert_eq!(through_socket(&site, "GET", "/api/v1/clients/a%2Fb%3Fc=d&e%252F", "").1["clientId"], names[3]);

    let (code, output, errors) = told(&site, &["client", "nobody"]);
    assert_eq!((code, output.as_str()), (1, ""));
    assert_eq!(errors, "portcullis: no client 'nobody' is connected\n");
    assert_eq!(
        through_socket(&site, "GET", "/api/v1/clients/nobody", ""),
        (404, json!({"error": "no such client is connected"}))
    );
}

#[test]
fn pages_have_every_client_once() {
    let port = free_ports(1);
    let site = Site::start("control-pages", &[("listener.yaml", support::plain_listener(port))]);
    let names: Vec<String> = (0..450).map(|number| format!("client-{number:04}-{}", "\u{1}".repeat(100))).collect();
    let _clients: Vec<Client> = names.iter().map(|name| Client::accepted(tcp(port), name)).collect();
    let (mut found, mut after, mut pages) = (Vec::new(), "0".to_owned(), 0);
    loop {
        let (status, page) = through_socket(&site, "GET", &format!("/api/v1/clients?limit=1000&after={after}"), "");
        assert_eq!(status, 200);
        // A row of these has a thousand bytes: fewer than 200 fit.
        assert!((1..=200).contains(&rows(&page, "clients").len()), "{}", rows(&page, "clients").len());
        found.extend(rows(&page, "clients").iter().map(|row| row["clientId"].as_str().unwrap().to_owned()));
        pages += 1;
        match page["next"].as_u64() {
            Some(next) => after = next.to_string(),
            None => break,
        }
    }
    found.retain(|name| !name.starts_with("$inside/"));
    found.sort_unstable();
    assert!(pages > 3 && found == names, "{pages} pages, {} rows", found.len());
    let all = asked(&site, &["clients"]);
    assert!(rows(&all, "clients").len() >= 450);
    for (query, status) in [("limit=0", 200), ("limit=x", 400), ("after=-1", 400), ("after=4294967295", 200)] {
        let (found, page) = through_socket(&site, "GET", &format!("/api/v1/sessions?{query}"), "");
        assert_eq!(found, status, "{query}: {page}");
    }
}

#[test]
fn a_client_that_is_disconnected_is_told_and_its_will_is_published() {
    let port = free_ports(1);
    let site = Site::start("control-disconnect", &[("listener.yaml", support::plain_listener(port))]);
    let mut watcher = Client::accepted(tcp(port), "watcher");
    assert_eq!(watcher.subscribe(&["gone"]), [1]);
    let mut client = Client::new(tcp(port));
    let head = [&text("MQTT")[..], &[5, 0b0000_0110, 0, 0, 0]].concat();
    client.send(&packet(0x10, &[&head[..], &text("c 1"), &[0], &text("gone"), &text("will")].concat()));
    assert_eq!(client.receive().unwrap().first, 0x20);
    let (code, output, _) = told(&site, &["disconnect", "c 1"]);
    assert_eq!((code, output.as_str()), (0, "client 'c 1' is disconnected\n"));
    client.is_disconnected(0x98);
    assert_eq!(watcher.message(), ("gone".to_owned(), b"will".to_vec()));
    let (code, _, errors) = told(&site, &["disconnect", "c 1"]);
    assert_eq!((code, errors.as_str()), (1, "portcullis: no client 'c 1' is connected\n"));
    assert_eq!(asked(&site, &["disconnect", "watcher"]), json!({"disconnected": true}));
    watcher.is_disconnected(0x98);
    // Nobody is kept out.
    Client::accepted(tcp(port), "watcher").ping();
}

#[test]
fn sessions_and_retained_messages_are_those_that_clients_left() {
    let port = free_ports(1);
    let site = Site::start("control-sessions", &[("listener.yaml", support::plain_listener(port))]);
    let mut lasting = Client::new(tcp(port));
    lasting.send(&lasting_connect_packet("lasting", None, true));
    lasting.receive().unwrap();
    assert_eq!(lasting.subscribe(&["a/#"]), [1]);
    lasting.send(&[0xE0, 0]);
    assert_eq!(lasting.receive(), None);
    let mut publisher = Client::accepted(tcp(port), "publisher");
    let long = format!("a/{}", "\u{fc}".repeat(30_000));
    for topic in ["a/1", "a/1", long.as_str()] {
        let mut publish = publish_packet(topic, 1, 7, b"payload");
        publish[0] |= 1;
        publisher.send(&publish);
        publisher.receive().unwrap();
    }
    let sessions = asked(&site, &["sessions"]);
    let one = rows(&sessions, "sessions").iter().find(|row| row["clientId"] == "lasting").unwrap();
    let expires = one["expiresInSeconds"].as_u64().unwrap();
    assert!((3_600 - PATIENCE.as_secs()..=3_600).contains(&expires), "{expires}");
    let expected = json!({
        "clientId": "lasting", "connected": false, "expiresInSeconds": expires, "queued": 3, "inFlight": 0,
        "subscriptions": 1, "owner": null
    });
    assert_eq!(one, &expected);
    let retained = asked(&site, &["retained"]);
    let mine = |row: &&Value| row["topic"].as_str().unwrap().starts_with("a/");
    let mut found: Vec<Value> = rows(&retained, "retained").iter().filter(mine).cloned().collect();
    found.sort_by_key(|row| row["topic"].as_str().unwrap().len());
    assert_eq!(found[0], json!({"topic": "a/1", "qos": 1, "payloadBytes": 7, "expiresInSeconds": null}));
    let cut = format!("a/{}", "\u{fc}".repeat(511));
    assert_eq!(found[1], json!({"topic": cut, "cut": true, "qos": 1, "payloadBytes": 7, "expiresInSeconds": null}));
    assert_eq!(found.len(), 2);
    let (_, table, _) = told(&site, &["sessions"]);
    assert!(table.lines().any(|line| line.starts_with("lasting") && line.contains(" no ")), "{table}");
}

#[test]
fn status_counts_what_was_done_and_names_the_rule_that_comes_nearest() {
    let port = free_ports(3);
    let mut site = site("control-status", port, port + 2);
    let before = asked(&site, &["status"]);
    let (mut anna, _) = log_in(port, "anna", "anna");
    for _ in 0..5 {
        assert_eq!(anna.publish("floors/1", b"1234"), 0);
    }
    assert_eq!(anna.publish("other\u{9b}", b"x"), 0x87);
    let (_, reason) = log_in(port, "otto", "otto");
    assert_eq!(reason, 0x87);
    let (_, reason) = login::log_in(port, &login::connect("mallory", Some("anna"), Some(b"guess"), None));
    assert_eq!(reason, 0x86);

    // A connection that was refused may not have ended yet.
    let end = Instant::now() + PATIENCE;
    let status = loop {
        let status = asked(&site, &["status"]);
        let plain = rows(&status, "listeners").iter().find(|row| row["name"] == "plain").unwrap();
        if plain["connections"] == 1 {
            break status;
        }
        assert!(Instant::now() < end, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let counter = |document: &Value, name: &str| at(document, &["counters", name]).as_u64().unwrap();
    assert!(counter(&status, "publishesReceived") >= counter(&before, "publishesReceived") + 6);
    assert_eq!(
        ["deniedPublish", "deniedConnect", "authenticationRefused"].map(|name| counter(&status, name)),
        [1, 1, 1]
    );
    let listener = rows(&status, "listeners").iter().find(|row| row["name"] == "plain").unwrap();
    let expected = json!({
        "name": "plain", "port": port, "addresses": ["127.0.0.1", "::1"], "protocol": "Mqtt", "tls": "None",
        "certificateNotAfterUnix": null, "authentication": "logins", "authorization": "rules", "connections": 1
    });
    assert_eq!(listener, &expected);
    let table = |name: &str| rows(&status, "tables").iter().find(|row| row["name"] == name).unwrap().clone();
    assert!(table("connections")["used"].as_u64().unwrap() >= 1 && table("connections")["refused"] == 0);

    let denials = rows(&status, "denials");
    let texts = |row: &Value| ["clientId", "action", "resource"].map(|name| row[name].as_str().unwrap().to_owned());
    assert_eq!(texts(&denials[0]), ["mallory", "connect", "mallory"]);
    assert_eq!((&denials[0]["username"], &denials[0]["rule"]), (&Value::Null, &Value::Null));
    assert_eq!(denials[0]["explain"], "wrong user name or password");
    assert_eq!(texts(&denials[1]), ["otto", "connect", "otto"]);
    assert!(denials[1]["rule"].as_str().unwrap().contains("rules.authorization.json:1"), "{}", denials[1]);
    assert!(denials[1]["explain"].as_str().unwrap().contains("floor9"), "{}", denials[1]);
    assert_eq!(texts(&denials[2]), ["anna", "publish", "other\u{9b}"]);
    assert_eq!((&denials[2]["username"], &denials[2]["listener"]), (&json!("anna"), &json!("plain")));
    assert!(denials[2]["explain"].as_str().unwrap().contains("floors/#"), "{}", denials[2]);

    let explained = through_socket(&site, "GET", "/api/v1/explain?clientId=anna&action=publish&topic=other", "").1;
    assert_eq!((&explained["decision"], at(&explained, &["identity", "assumed"])), (&json!("denied"), &json!(false)));
    assert_eq!(at(&explained, &["identity", "attributes"]), &json!({"floor": "floor1"}));
    let explained = through_socket(&site, "GET", "/api/v1/explain?clientId=anna", "").1;
    assert_eq!((&explained["decision"], rows(&explained, "grants").len()), (&json!("allowed"), 2));
    let explained = through_socket(&site, "GET", "/api/v1/explain?clientId=x&username=y&action=connect", "").1;
    assert_eq!((&explained["decision"], at(&explained, &["identity", "assumed"])), (&json!("denied"), &json!(true)));
    for query in ["", "clientId=a&action=fly", "clientId=a&action=publish&topic=%23", "clientId=a&port=1"] {
        let (status, answer) = through_socket(&site, "GET", &format!("/api/v1/explain?{query}"), "");
        assert!(status == 400 && answer["error"].is_string(), "{query}: {answer}");
    }
    // The command that needs no broker says the same.
    let blob = site.folder.join("site/site.blob");
    let arguments = ["explain", blob.to_str().unwrap(), "--username", "anna", "--client-id", "anna", "--attribute"];
    let offline =
        run(&[&arguments[..], &["floor=floor1", "--port", &port.to_string(), "publish", "other", "--json"]].concat());
    let mut offline: Value = serde_json::from_slice(&offline.stdout).unwrap();
    let mut online = through_socket(&site, "GET", "/api/v1/explain?clientId=anna&action=publish&topic=other", "").1;
    // Nobody has proved anything to it.
    for document in [&mut offline, &mut online] {
        let identity = document["identity"].as_object_mut().unwrap();
        assert!(identity.remove("assumed").is_some() && identity.remove("method").is_some());
    }
    assert_eq!(online, offline);
    let (code, page, _) = told(&site, &["status"]);
    assert!(code == 0 && page.contains("publish 'other\\u{9b}'") && page.contains("LISTENER"), "{page}");
    let top = asked(&site, &["top", "--once"]);
    assert!(at(&top, &["perSecond", "publishesReceived"]).is_u64() && rows(&top, "tables").len() > 10, "{top}");
    let history = through_socket(&site, "GET", "/api/v1/history", "").1;
    assert_eq!((&history["stepSeconds"], at(&history, &["series"]).as_object().unwrap().len()), (&json!(10), 7));

    // Another configuration in force is another digest, and its rules are asked from then on.
    site.folder.write(
        "site/rules.authorization.json",
        r##"[{"principals": {"usernames": ["anna"]}, "brokerResources": [{"method": "Connect"}, {"method": "Publish", "topics": ["#"]}]}]"##,
    );
    let (folder, blob) = (site.folder.join("site"), site.folder.join("site/site.blob"));
    assert!(run(&["bake", folder.to_str().unwrap(), "--out", blob.to_str().unwrap()]).status.success());
    site.process.wait_for("the new configuration is in force");
    let after = asked(&site, &["status"]);
    assert_ne!(at(&after, &["configuration", "digest"]), at(&status, &["configuration", "digest"]));
    let explained = through_socket(&site, "GET", "/api/v1/explain?clientId=anna&action=publish&topic=other", "").1;
    assert_eq!(explained["decision"], "allowed");
}

#[test]
fn status_knows_when_the_certificates_of_ports_and_authorities_end() {
    let (folder, port) = (Folder::new("control-certificates"), free_ports(1));
    pki::demo::create(&folder.join("demo")).unwrap();
    let copy = |from: &str, to: &str| folder.write(&format!("site/{to}"), std::fs::read(folder.join(from)).unwrap());
    copy("demo/fabrikam_root_ca.crt", "trust/client-ca/root.pem");
    let pair = ["key", "crt"].map(|kind| std::fs::read(folder.join(&format!("demo/mqtts-endpoint.{kind}"))).unwrap());
    folder.write("site/certs.x509.json", r#"{"trustedClientCaCert": "client-ca"}"#);
    let tls = "      authenticationRef: certs\n      tls: {mode: Manual, manual: {secretRef: server}}\n";
    folder.write("site/listener.yaml", support::plain_listener(port) + tls);
    let mut site = Site::start_in(folder);
    let first = asked(&site, &["status"]);
    let listener = &rows(&first, "listeners")[0];
    assert_eq!((&listener["tls"], &listener["certificateNotAfterUnix"]), (&json!("AwaitsCertificate"), &Value::Null));

    site.folder.write("site/secrets/server/tls.key", &pair[0]);
    site.folder.write("site/secrets/server/tls.crt", &pair[1]);
    site.process.wait_for("server certificate 'server' read again");
    // The certificate goes to the loop as this line is written.
    let end = Instant::now() + PATIENCE;
    let status = loop {
        let status = asked(&site, &["status"]);
        if rows(&status, "listeners")[0]["tls"] == "Manual" {
            break status;
        }
        assert!(Instant::now() < end, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let row = |kind: &str| rows(&status, "certificates").iter().find(|row| row["kind"] == kind).unwrap().clone();
    let (server, trust) = (row("server"), row("trust"));
    assert_eq!((&server["name"], &trust["name"]), (&json!("server"), &json!("client-ca")));
    assert_eq!(trust["subject"], "CN=Fabrikam Root CA");
    assert_eq!(rows(&status, "listeners")[0]["certificateNotAfterUnix"], server["notAfterUnix"]);
    let days = |row: &Value| (row["notAfterUnix"].as_u64().unwrap() - login::now()).div_ceil(86_400);
    assert!(days(&server) < days(&trust) && days(&trust).abs_diff(3_650) < 5, "{server} {trust}");
    let (_, page, _) = told(&site, &["status"]);
    assert!(page.contains("CERTIFICATE") && page.contains("CN=Fabrikam Root CA"), "{page}");
}

#[test]
fn only_the_socket_takes_changes_and_only_of_its_user_and_group() {
    let port = free_ports(3);
    let mut site = site("control-doors", port, port + 2);
    let metadata = socket(&site).metadata().unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    let client = Client::accepted(tcp(port + 1), "c");
    let door = || TcpStream::connect(("127.0.0.1", port + 2)).unwrap();
    assert_eq!(exchange(door(), "GET", "/api/v1/clients/c", "").0, 200);
    for path in ["/api/v1/clients/c/disconnect", "/api/v1/client/disconnect?clientId=c", "/api/v1/log"] {
        assert_eq!(exchange(door(), "POST", path, "trace").0, 403, "{path}");
    }
    assert_eq!(exchange(door(), "GET", "/api/v1/clients/c", "").0, 200, "it is still there");
    for (method, path, status) in [
        ("GET", "/api/v1/clients/c/disconnect", 405),
        ("POST", "/api/v1/status", 405),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1", 404),
        ("GET", "/api/v2/status", 404),
    ] {
        assert_eq!(through_socket(&site, method, path, "").0, status, "{method} {path}");
    }
    assert_eq!(through_socket(&site, "POST", "/api/v1/log", "loud").0, 400);
    assert_eq!(through_socket(&site, "POST", "/api/v1/log", "warn,broker=debug").0, 200);
    site.process.wait_for("by the operator");
    assert_eq!(through_socket(&site, "POST", "/api/v1/clients/c/disconnect", "").0, 200);
    drop(client);
}

#[test]
fn where_no_broker_is_that_is_said() {
    let folder = Folder::new("control-nobody");
    let (absent, stale, file) = (folder.join("absent.sock"), folder.join("stale.sock"), folder.write("file", "x"));
    drop(UnixListener::bind(&stale).unwrap());
    for (path, part) in [
        (&absent, "no broker has its control socket there"),
        (&stale, "no broker listens there any more"),
        (&file, "no broker listens there any more"),
    ] {
        let output = run(&["status", "--control", path.to_str().unwrap()]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(4) && errors.contains(part), "{errors}");
    }
    let output = support::portcullis(&["clients"])
        .current_dir(folder.path())
        .env("PORTCULLIS_CONTROL", &absent)
        .output()
        .unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("absent.sock"), "the variable names it");
    // Something that is no broker, and something that says nothing whole.
    for answer in ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"] {
        let path = folder.join("strange.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let stranger = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let _ = stream.read(&mut [0; 1_024]);
            let _ = stream.write_all(answer.as_bytes());
        });
        let output = run(&["status", "--control", path.to_str().unwrap()]);
        stranger.join().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(4) && errors.contains("what answers is not a broker"), "{errors}");
    }
}
