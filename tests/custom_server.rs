//! Custom authentication servers, against the whole program: the vendor's contract, and what a server may do wrong.
//! Numbers are those of the scenario catalogue.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use base64ct::{Base64, Encoding as _};
use portcullis::distinguished_name::DistinguishedName;
use portcullis::pki::{self, Issued, Template};
use portcullis::time::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::time::Duration;
use support::client::{Client, certificates, key, tcp, tls};
use support::https::{HttpsServer, Identity, Reply, Request};
use support::login::{BY_TOKEN, Issuer, OFFLINE, auth, connect, log_in, now, site};
use support::{Folder, Site, free_ports};

/// What the broker sends, by version 0.5.0 of the vendor's OpenAPI document and by the vendor's own server for what that
/// leaves out. Returns the body.
fn assert_contract(request: &Request) -> Value {
    assert_eq!(request.line, "POST /?api-version=0.5.0 HTTP/1.1");
    assert_eq!(request.values("Content-Type"), ["application/json"]);
    assert_eq!(request.values("Content-Length"), [request.body.len().to_string()]);
    assert_eq!(request.values("Host").len(), 1);
    assert_eq!(request.values("header_key"), ["header_value"], "the configured field");
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    let is_base64 = |value: &Value| Base64::decode_vec(value.as_str().expect("a string")).is_ok();
    for (name, value) in body.as_object().expect("an object") {
        let good = match name.as_str() {
            "type" => value == "connect" || value == "auth",
            "username" => body["type"] == "connect" && value.is_string(),
            "password" => body["type"] == "connect" && is_base64(value),
            "certs" => {
                let pem = value.as_str().expect("a string").as_bytes();
                body["type"] == "connect" && CertificateDer::pem_slice_iter(pem).all(|one| one.is_ok())
            }
            "enhancedAuthentication" => {
                let members = value.as_object().expect("an object");
                members.iter().all(|(name, value)| match name.as_str() {
                    "method" => value.is_string(),
                    "data" => is_base64(value),
                    _ => false,
                })
            }
            _ => false,
        };
        assert!(good, "{name}: {body}");
    }
    assert!(body["type"].is_string(), "{body}");
    assert!(body["type"] == "connect" || body["enhancedAuthentication"]["data"].is_string(), "{body}");
    body
}

/// Who asks: the user name, or the data of the enhanced authentication as text.
fn asker(request: &Request) -> String {
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    let data = || Base64::decode_vec(body["enhancedAuthentication"]["data"].as_str()?).ok();
    match body["username"].as_str() {
        Some(name) => name.to_owned(),
        None => data().and_then(|data| String::from_utf8(data).ok()).unwrap_or_default(),
    }
}

/// A site whose demo certificates the custom server uses too.
struct Bench {
    site: Site,
    port: u16,
    server: HttpsServer,
}

impl Bench {
    /// Clients are judged by the custom server, then by their tokens.
    fn start(name: &str, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_methods(name, answer, |port| format!("{}{BY_TOKEN}", custom(port, "")))
    }

    fn with_methods(
        name: &str,
        answer: impl Fn(&str) -> Reply + Send + Sync + 'static,
        methods: impl Fn(u16) -> String,
    ) -> Self {
        let (folder, port) = (demo_folder(name), free_ports(1));
        let server = HttpsServer::start(endpoint(&folder), move |request| answer(&asker(request)));
        let methods = methods(server.port);
        Self { site: site(folder, port, &methods, OFFLINE), port, server }
    }

    /// The Reason Code for a client with this user name and a password, and no token.
    fn alone(&self, user: &str) -> u8 {
        log_in(self.port, &connect(user, Some(user), Some(b"password1"), None)).1
    }

    /// The same for a client that also has a good token. `None`: that let it in, the server did not decide.
    fn with_token(&self, user: &str) -> Option<u8> {
        let token = Issuer::new().token("my-audience", 600);
        let (mut client, reason) = log_in(self.port, &connect("t", Some(user), None, Some(("K8S-SAT", &token))));
        // Only the service account of the token may do this.
        let by_token = reason == 0 && client.publish("odd-numbered-orders", b"x") == 0;
        (!by_token).then_some(reason)
    }
}

/// A folder with the demo's certificates, and what the methods of this file refer to.
fn demo_folder(name: &str) -> Folder {
    let folder = Folder::new(name);
    pki::demo::create(&folder.join("demo")).unwrap();
    let root = std::fs::read(folder.join("demo/contoso_root_ca.crt")).unwrap();
    folder.write("site/trust/custom-ca/ca.pem", root);
    folder.write("site/keys/cluster-keys/keys.json", Issuer::new().keys());
    folder
}

/// What the server shows of itself.
fn endpoint(folder: &Folder) -> Identity {
    Identity {
        chain: certificates(&folder.join("demo/mqtts-endpoint.crt")),
        key: key(&folder.join("demo/mqtts-endpoint.key")),
        client_authority: None,
    }
}

/// The method, with more of its settings.
fn custom(port: u16, more: &str) -> String {
    format!(
        "  - method: Custom\n    customSettings:\n      endpoint: https://localhost:{port}\n      \
         caCertConfigMap: custom-ca\n      headers: {{header_key: header_value}}\n{more}"
    )
}

fn accept() -> Reply {
    Reply::json(200, json!({ "attributes": { "floor": "floor1" } }))
}

#[test]
fn scenarios_24_to_27_and_31_a_servers_verdict_is_the_end_and_its_silence_is_none() {
    let bench = Bench::start("s24", |user| match user {
        "bare" => Reply::json(200, "{}"),
        "deny" => Reply::json(403, json!({ "reason": 135 })),
        "down" => Reply::HangUp,
        _ => accept(),
    });
    // 24: accepted without attributes is accepted, and the token is not looked at; here no rule lets it connect.
    assert_eq!((bench.with_token("bare"), bench.alone("bare")), (Some(0x87), 0x87));
    let (mut client, reason) = log_in(bench.port, &connect("c", Some("client1"), Some(b"password1"), None));
    assert_eq!((reason, client.publish("floors/1", b"x"), client.publish("else", b"x")), (0, 0, 135));
    // 25, 26, 27
    assert_eq!((bench.with_token("deny"), bench.alone("deny")), (Some(135), 135));
    assert_eq!((bench.with_token("down"), bench.alone("down")), (None, 135));
    // 31
    let seen = bench.server.seen();
    let bodies: Vec<Value> = seen.iter().map(assert_contract).collect();
    let expected = json!({ "type": "connect", "username": "client1", "password": "cGFzc3dvcmQx" });
    assert_eq!(bodies[2], expected, "nothing that it did not show; its client identifier neither");
}

#[test]
fn scenario_28_a_token_that_comes_first_decides_and_the_server_is_not_asked() {
    let answer = |_: &str| accept();
    let bench = Bench::with_methods("s28", answer, |port| format!("{BY_TOKEN}{}", custom(port, "")));
    let token = Issuer::new().token("other-audience", 600);
    for bad in [&token[..], b"", &[0; 65_535]] {
        assert_eq!(log_in(bench.port, &connect("c", None, None, Some(("K8S-SAT", bad)))).1, 135);
        // The form of older clients.
        assert_eq!(log_in(bench.port, &connect("c", Some("K8S-SAT"), Some(bad), None)).1, 135);
    }
    assert_eq!(bench.server.seen().len(), 0);
    assert_eq!(bench.alone("client1"), 0, "who has no token is the server's");
}

#[test]
fn scenario_29_a_reason_never_reads_as_success_or_as_what_connack_cannot_carry() {
    let bench = Bench::start("s29", |user| match user {
        "garbage" => Reply::json(403, "no"),
        "none" => Reply::json(403, "{}"),
        reason => Reply::Json(403, format!("{{\"reason\": {reason}, \"message\": \"a\\nb\"}}")),
    });
    for reason in
        ["0", "5", "16", "24", "127", "142", "255", "256", "391", "-121", "135.5", "1e2", "null", "\"136\"", "[136]"]
    {
        assert_eq!(bench.alone(reason), 135, "{reason}");
    }
    assert_eq!((bench.alone("none"), bench.with_token("0")), (135, Some(135)));
    // What CONNACK may carry goes through, as a failure.
    for reason in [0x80, 0x85, 0x88, 0x8A, 0x9F] {
        assert_eq!(bench.alone(&reason.to_string()), reason);
    }
    assert_eq!((bench.with_token("garbage"), bench.alone("garbage")), (None, 135));
    assert!(bench.site.process.output().iter().all(|line| line != "b"), "what the server says stays on its line");
}

#[test]
fn scenario_30_a_common_version_is_asked_for_once_more() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let bench = Bench::start("s30", move |user| match user {
        "other" => Reply::json(422, json!({ "supportedVersions": ["0.6.0", "1.0.0"] })),
        "twice" => Reply::json(422, json!({ "supportedVersions": ["0.5.0"] })),
        "once" if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 => {
            Reply::json(422, json!({ "supportedVersions": ["0.4.0", "0.5.0"] }))
        }
        _ => accept(),
    });
    for (user, outcome, requests) in [("once", Some(0), 2), ("twice", None, 2), ("other", None, 1)] {
        let before = bench.server.seen().len();
        assert_eq!(bench.with_token(user), outcome, "{user}");
        assert_eq!(bench.server.seen().len() - before, requests, "{user}");
    }
    bench.server.seen().iter().for_each(|request| drop(assert_contract(request)));
}

#[test]
fn scenario_31_the_chain_of_the_client_is_sent_its_own_first() {
    let (folder, port) = (demo_folder("s31"), free_ports(1));
    let server = HttpsServer::start(endpoint(&folder), |_| accept());
    for (file, name) in [("mqtts-endpoint.crt", "tls.crt"), ("mqtts-endpoint.key", "tls.key")] {
        let content = std::fs::read(folder.join(&format!("demo/{file}"))).unwrap();
        folder.write(&format!("site/secrets/server/{name}"), content);
    }
    // The listener with TLS stands beside the one that every site has.
    let (tls_port, demo) = (free_ports(1), folder.join("demo"));
    folder.write(
        "site/tls.listener.yaml",
        format!(
            "serviceType: ClusterIp\nports:\n- port: {tls_port}\n  authenticationRef: logins\n  authorizationRef: rules\n  \
             tls: {{mode: Manual, manual: {{secretRef: server}}}}\n"
        ),
    );
    let _site = site(folder, port, &custom(server.port, ""), "");
    let chain = certificates(&demo.join("thermostat.crt"));
    let identity = (chain.clone(), key(&demo.join("thermostat.key")));
    let stream = tls(tls_port, &demo.join("contoso_root_ca.crt"), Some(identity)).expect("TLS");
    let mut client = Client::new(stream);
    client.send(&connect("c", Some("client1"), Some(b"password1"), None));
    assert_eq!(client.receive().expect("a CONNACK").body[1], 0);
    let body = assert_contract(&server.seen()[0]);
    assert_eq!((&body["username"], &body["password"]), (&json!("client1"), &json!("cGFzc3dvcmQx")));
    let pem = body["certs"].as_str().unwrap().as_bytes();
    assert_eq!(CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect::<Vec<_>>(), chain);
}

#[test]
fn scenarios_33_and_35_a_credential_is_renewed_or_its_client_is_out() {
    let bench = Bench::start("s33", |data| match data {
        "bad" => Reply::json(403, json!({ "reason": 135 })),
        _ => Reply::json(200, json!({ "attributes": { "floor": "floor2" }, "expiry": "2099-01-01T00:00:00Z" })),
    });
    let (mut client, reason) = log_in(bench.port, &connect("r", None, None, Some(("mine", b"first"))));
    assert_eq!((reason, client.publish("floors/1", b"x")), (0, 0));
    client.send(&auth("mine", b"good"));
    let answer = client.receive().unwrap();
    assert_eq!((answer.first, answer.body[0]), (0xF0, 0), "{answer:?}");
    client.ping();
    client.send(&auth("mine", b"bad"));
    client.is_disconnected(0x87);
    let bodies: Vec<Value> = bench.server.seen().iter().map(assert_contract).collect();
    let types: Vec<&Value> = bodies.iter().map(|body| &body["type"]).collect();
    assert_eq!(types, ["connect", "auth", "auth"]);
    assert_eq!(bodies[1]["enhancedAuthentication"], json!({ "method": "mine", "data": "Z29vZA==" }));
}

#[test]
fn scenarios_32_and_34_what_the_server_grants_ends_and_a_silent_server_delays() {
    let mut bench = Bench::start("s34", |data| match data {
        "first" => {
            let expiry = UnixTime(now() + 6).to_string();
            Reply::json(200, json!({ "attributes": { "floor": "floor1" }, "expiry": expiry }))
        }
        _ => Reply::HangUp,
    });
    let (mut client, reason) = log_in(bench.port, &connect("c", None, None, Some(("mine", b"first"))));
    assert_eq!(reason, 0);
    client.send(&auth("mine", b"x"));
    let answer = client.receive().unwrap();
    assert_eq!((answer.first, answer.body[0]), (0xF0, 0x18), "to be tried again, and still connected: {answer:?}");
    assert_eq!(client.receive(), None, "at its end it is closed without DISCONNECT");
    bench.site.process.wait_for("credential expired");
}

/// A response with a body of known length.
fn whole(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn an_answer_that_is_not_understood_to_its_end_is_no_verdict() {
    const GOOD: &str = r#"{"attributes":{"floor":"floor1"}}"#;
    let wrong = |name: &str| -> Option<Reply> {
        let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n").into_bytes();
        Some(match name {
            "not HTTP" => Reply::Last(b"220 mail.example ESMTP\r\n".to_vec()),
            "not TLS after all" => Reply::HangUp,
            "an end before the answer" => Reply::Last(Vec::new()),
            "half a head" => Reply::Last(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
            "half a body" => Reply::Last([head("Content-Length: 100\r\n"), GOOD.into()].concat()),
            "two lengths" => Reply::Bytes([head("Content-Length: 33\r\nContent-Length: 34\r\n"), GOOD.into()].concat()),
            "length and chunks" => {
                Reply::Bytes([head("Content-Length: 33\r\nTransfer-Encoding: chunked\r\n"), GOOD.into()].concat())
            }
            "half a chunk" => Reply::Last([head("Transfer-Encoding: chunked\r\n"), b"21\r\n{".to_vec()].concat()),
            "compression" => Reply::Bytes([head("Transfer-Encoding: gzip\r\n"), GOOD.into()].concat()),
            "a mebibyte" => Reply::Bytes(whole("200 OK", "", &" ".repeat(1 << 20))),
            "a mebibyte until the end" => Reply::Last([head(""), vec![b' '; 1 << 20]].concat()),
            "a mebibyte in chunks" => {
                let chunks = "400\r\n".to_owned() + &" ".repeat(1 << 10) + "\r\n";
                Reply::Bytes([head("Transfer-Encoding: chunked\r\n"), chunks.repeat(1 << 10).into()].concat())
            }
            "endless fields" => Reply::Bytes([&b"HTTP/1.1 200 OK\r\n"[..], &b"A: b\r\n".repeat(100_000)].concat()),
            "an endless field" => Reply::Bytes([&b"HTTP/1.1 200 OK\r\nA: "[..], &vec![b'a'; 1 << 20]].concat()),
            "endless patience" => Reply::Bytes(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000)),
            "a redirect" => Reply::Bytes(whole("302 Found", "Location: https://localhost/\r\n", GOOD)),
            "no content" => Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
            "a body of nothing" => Reply::json(200, ""),
            "text" => Reply::json(200, "welcome"),
            "a list" => Reply::json(200, "[]"),
            "a number for an attribute" => Reply::json(200, r#"{"attributes":{"floor":1}}"#),
            "null for an attribute" => Reply::json(200, r#"{"attributes":{"floor":null}}"#),
            "an attribute twice" => Reply::json(200, r#"{"attributes":{"floor":"floor1","floor":"floor2"}}"#),
            "attributes twice" => Reply::json(200, r#"{"attributes":{},"attributes":{"floor":"floor1"}}"#),
            "half a character" => Reply::json(200, r#"{"attributes":{"floor":"\ud800"}}"#),
            "an expiry that is none" => Reply::json(200, r#"{"attributes":{"floor":"floor1"},"expiry":"soon"}"#),
            "an expiry in seconds" => Reply::json(200, r#"{"attributes":{"floor":"floor1"},"expiry":4102444800}"#),
            "a refusal twice" => Reply::json(403, r#"{"reason":135,"reason":0}"#),
            status => return status.parse().ok().map(|status| Reply::json(status, GOOD)),
        })
    };
    let names = [
        "not HTTP",
        "not TLS after all",
        "an end before the answer",
        "half a head",
        "half a body",
        "two lengths",
        "length and chunks",
        "half a chunk",
        "compression",
        "a mebibyte",
        "a mebibyte until the end",
        "a mebibyte in chunks",
        "endless fields",
        "an endless field",
        "endless patience",
        "a redirect",
        "no content",
        "a body of nothing",
        "text",
        "a list",
        "a number for an attribute",
        "null for an attribute",
        "an attribute twice",
        "attributes twice",
        "half a character",
        "an expiry that is none",
        "an expiry in seconds",
        "a refusal twice",
        "201",
        "400",
        "401",
        "404",
        "405",
        "415",
        "429",
        "500",
        "502",
        "503",
    ];
    let bench = Bench::start("wrong", move |user| wrong(user).unwrap_or_else(accept));
    for name in names {
        assert_eq!((bench.with_token(name), bench.alone(name)), (None, 135), "{name}");
        // Nothing of it is left over for the next one.
        assert_eq!(bench.alone("client1"), 0, "after {name}");
    }
    let errors = bench.site.process.count_to(2 * names.len(), "ERROR");
    assert_eq!(errors, 2 * names.len(), "each is told to the operator");
}

#[test]
fn an_answer_is_understood_in_every_form_that_http_has() {
    const GOOD: &str = r#"{"attributes":{"floor":"floor1"}}"#;
    let bench = Bench::start("forms", |user| match user {
        "chunks" => {
            let chunks: String = GOOD.chars().map(|letter| format!("1;x=y\r\n{letter}\r\n")).collect();
            Reply::Bytes(
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\nA: b\r\n\r\n").into(),
            )
        }
        "until the end" => Reply::Last(format!("HTTP/1.1 200 OK\r\n\r\n{GOOD}").into()),
        "version 1.0" => Reply::Last(format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{GOOD}", GOOD.len()).into()),
        "continue" => Reply::Bytes([&b"HTTP/1.1 100 Continue\r\n\r\n"[..], &whole("200 OK", "", GOOD)].concat()),
        "lower case" => Reply::Bytes(
            format!("HTTP/1.1 200\r\ncontent-length: {}\r\nconnection: keep-alive\r\n\r\n{GOOD}", GOOD.len()).into(),
        ),
        _ => Reply::HangUp,
    });
    for name in ["chunks", "until the end", "version 1.0", "continue", "lower case"] {
        assert_eq!(bench.alone(name), 0, "{name}");
    }
}

#[test]
fn what_is_granted_must_fit_and_must_last() {
    let bench = Bench::start("granted", |user| match user {
        "ended" => Reply::json(200, json!({ "attributes": { "floor": "floor1" }, "expiry": "2020-01-01T00:00:00Z" })),
        "before time began" => {
            Reply::json(200, json!({ "attributes": { "floor": "floor1" }, "expiry": "0001-01-01T00:00:00Z" }))
        }
        "too long" => Reply::json(200, json!({ "attributes": { "floor": "floor1", "other": "x".repeat(600) } })),
        "too many" => {
            let mut attributes: serde_json::Map<_, _> = (0..16).map(|n| (format!("n{n}"), json!(""))).collect();
            attributes.insert("floor".to_owned(), json!("floor1"));
            Reply::json(200, json!({ "attributes": attributes }))
        }
        _ => accept(),
    });
    for name in ["ended", "before time began", "too long", "too many"] {
        assert_eq!((bench.alone(name), bench.with_token(name)), (0x87, Some(0x87)), "{name}");
    }
    let mut process = bench.site.process;
    process.wait_for("attributes do not fit");
    process.wait_for("verdict is expired");
}

#[test]
fn a_connection_to_the_server_is_kept_and_one_that_died_meanwhile_costs_nothing() {
    let bench = Bench::start("kept", |_| accept());
    assert_eq!((bench.alone("a"), bench.alone("b")), (0, 0));
    bench.server.restart();
    assert_eq!((bench.alone("c"), bench.alone("d")), (0, 0));
    let connections: Vec<usize> = bench.server.seen().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 1, 1]);
}

/// A leaf for these hosts that is valid from `begin` to `end`, under `root`.
fn leaf(root: &Issued, host: &str, begin: u64, end: u64) -> Identity {
    let subject = DistinguishedName::parse("CN=server").expect("a name");
    let mut template = Template::leaf(subject, UnixTime(begin), UnixTime(end));
    template.hosts = vec![pki::Host::Name(host.to_owned())];
    let issued = root.issue(&template).unwrap();
    Identity {
        chain: vec![issued.certificate_der().unwrap().into()],
        key: PrivateKeyDer::from_pem_slice(issued.key_pem().unwrap().as_bytes()).unwrap(),
        client_authority: None,
    }
}

#[test]
fn nothing_is_sent_to_a_server_that_does_not_prove_its_name() {
    let (folder, port, day) = (Folder::new("names"), free_ports(1), 24 * 3_600);
    let authority = |name: &str| {
        let (begin, end) = (UnixTime(now() - 30 * day), UnixTime(now() + 30 * day));
        Issued::root(&Template::authority(DistinguishedName::parse(name).expect("a name"), None, begin, end)).unwrap()
    };
    let (ours, other) = (authority("CN=ours"), authority("CN=other"));
    folder.write("site/trust/custom-ca/ca.pem", ours.certificate_pem().unwrap());
    folder.write("site/keys/cluster-keys/keys.json", Issuer::new().keys());
    let (begin, end) = (now() - day, now() + day);
    let demanding = Identity {
        client_authority: Some(other.certificate_der().unwrap().into()),
        ..leaf(&ours, "localhost", begin, end)
    };
    let identities = [
        leaf(&ours, "localhost", now() - 20 * day, begin),
        leaf(&ours, "localhost", end, now() + 20 * day),
        leaf(&other, "localhost", begin, end),
        leaf(&ours, "elsewhere", begin, end),
        demanding,
    ];
    let servers = identities.map(|identity| HttpsServer::start(identity, |_| accept()));
    // Each is passed over, and the last word is the token's.
    let methods: String = servers.iter().map(|server| custom(server.port, "")).collect();
    let mut site = site(folder, port, &format!("{methods}{BY_TOKEN}"), OFFLINE);
    let token = Issuer::new().token("my-audience", 600);
    assert_eq!(log_in(port, &connect("c", Some("c"), None, Some(("K8S-SAT", &token)))).1, 0);
    for why in ["certificate expired", "not valid yet", "UnknownIssuer", "not valid for name", "CertificateRequired"] {
        let line = site.process.wait_for(why);
        assert!(line.contains("ERROR") && line.contains("the custom server does not answer"), "{line}");
    }
    assert!(servers.iter().all(|server| server.seen().is_empty()), "credentials stay here");
}

#[test]
fn a_server_that_demands_a_certificate_gets_it() {
    let (folder, port) = (demo_folder("mutual"), free_ports(1));
    // The demo's clients are issued below this authority.
    let client_authority = certificates(&folder.join("demo/fabrikam_root_ca.crt")).pop();
    let server = HttpsServer::start(Identity { client_authority, ..endpoint(&folder) }, |_| accept());
    for (file, name) in [("thermostat.crt", "tls.crt"), ("thermostat.key", "tls.key")] {
        let content = std::fs::read(folder.join(&format!("demo/{file}"))).unwrap();
        folder.write(&format!("site/secrets/broker-client/{name}"), content);
    }
    let shown = custom(server.port, "      auth: {x509: {secretRef: broker-client}}\n");
    let _site = site(folder, port, &shown, "");
    assert_eq!(log_in(port, &connect("c", Some("c"), None, None)).1, 0);
    assert_contract(&server.seen()[0]);
}

/// Logins that the broker lets wait at a time.
const WAITING_MAX: usize = 32;

#[test]
fn while_a_server_hangs_the_others_are_served_and_no_more_than_a_few_wait() {
    let bench = Bench::start("hangs", |user| if user == "live" { accept() } else { Reply::Silence });
    let (mut live, reason) = log_in(bench.port, &connect("live", Some("live"), None, None));
    assert_eq!(reason, 0);
    // Where the first ones have waited their time before there are enough, it takes some more.
    let mut logins: Vec<Client> = Vec::new();
    while bench.site.process.count("too many logins wait for an answer") == 0 {
        assert!(logins.len() < 10 * WAITING_MAX, "all of them wait");
        let mut client = Client::new(tcp(bench.port));
        client.send(&connect(&format!("w{}", logins.len()), Some("waits"), None, None));
        logins.push(client);
        if logins.len() > WAITING_MAX {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    live.ping();
    assert_eq!(live.publish("floors/1", b"x"), 0);
    // Who waited hears that nobody decided, who did not is to try again. Then there is room.
    let reasons: Vec<u8> = logins.iter_mut().map(|client| client.receive().expect("a CONNACK").body[1]).collect();
    assert!(reasons.iter().all(|reason| matches!(reason, 135 | 136)) && reasons.contains(&136), "{reasons:?}");
    assert!(reasons.iter().filter(|reason| **reason == 135).count() >= WAITING_MAX, "{reasons:?}");
    assert_eq!(bench.alone("live"), 0);
}

#[test]
fn a_server_that_accepts_and_says_nothing_or_says_it_slowly_is_passed_over() {
    // One that takes connections and never speaks TLS, and one whose answer never ends.
    let dumb = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let dumb_port = dumb.local_addr().unwrap().port();
    let answer = |_: &str| Reply::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n");
    let methods = |port| format!("{}{}{BY_TOKEN}", custom(dumb_port, ""), custom(port, ""));
    let mut bench = Bench::with_methods("slow", answer, methods);
    assert_eq!(bench.with_token("c"), None);
    bench.site.process.wait_for("the custom server does not answer: no connection in time");
    bench.site.process.wait_for("the custom server does not answer: no answer in time");
}
