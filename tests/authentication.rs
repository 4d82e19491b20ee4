//! The methods beside X.509, against the whole program: passwords, tokens, custom servers; renewal, expiry, changed files.
//! Numbers are those of the scenario catalogue.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use portcullis::pki;
use std::io::{BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use support::client::{Client, certificates, key, packet, tcp, text, tls};
use support::{Folder, Site, free_ports, plain_listener};

/// Of the vendor's documentation: client1 with "password", client2 with "password2".
const PASSWORDS: &str = r#"
[client1]
password = "$pbkdf2-sha512$i=100000,l=64$HqJwOCHweNk1pLryiu3RsA$KVSvxKYcibIG5S5n55RvxKRTdAAfCUtBJoy5IuFzdSZyzkwvUcU+FPawEWFPn+06JyZsndfRTfpiEh+2eSJLkg"
attributes = { floor = "floor1" }
[client2]
password = "$pbkdf2-sha512$i=100000,l=64$+H7jXzcEbq2kkyvpxtxePQ$jTzW6fSesiuNRLMIkDDAzBEILk7iyyDZ3rjlEwQap4UJP4TaCR+EXQXNukO7qNJWlPPP8leNnJDCBgX/255Ezw"
attributes = { floor = "floor2" }
"#;

/// CONNECT of MQTT 5 with what of credentials is there.
fn connect(
    identifier: &str,
    username: Option<&str>,
    password: Option<&[u8]>,
    enhanced: Option<(&str, &[u8])>,
) -> Vec<u8> {
    let flags = 0x02 | u8::from(username.is_some()) << 7 | u8::from(password.is_some()) << 6;
    let mut body = [&text("MQTT")[..], &[5, flags, 0, 0]].concat();
    body.extend(properties(enhanced));
    body.extend(text(identifier));
    body.extend(username.map(text).unwrap_or_default());
    if let Some(password) = password {
        body.extend((password.len() as u16).to_be_bytes());
        body.extend(password);
    }
    packet(0x10, &body)
}

/// A property section with Authentication Method and Authentication Data.
fn properties(enhanced: Option<(&str, &[u8])>) -> Vec<u8> {
    let mut section = Vec::new();
    if let Some((method, data)) = enhanced {
        section.push(0x15);
        section.extend(text(method));
        section.push(0x16);
        section.extend((data.len() as u16).to_be_bytes());
        section.extend(data);
    }
    let mut length = section.len();
    let mut bytes = Vec::new();
    loop {
        bytes.push((length % 128) as u8 | if length >= 128 { 0x80 } else { 0 });
        length /= 128;
        if length == 0 {
            break;
        }
    }
    bytes.extend(section);
    bytes
}

fn auth(method: &str, data: &[u8]) -> Vec<u8> {
    packet(0xF0, &[&[0x19][..], &properties(Some((method, data)))].concat())
}

/// Sends a CONNECT and gives the client with the Reason Code of the answer.
fn log_in(port: u16, connect: &[u8]) -> (Client, u8) {
    let mut client = Client::new(tcp(port));
    client.send(connect);
    let connack = client.receive().expect("a CONNACK");
    assert_eq!(connack.first, 0x20, "{connack:?}");
    (client, connack.body[1])
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A listener on loopback whose clients authenticate by `methods`, and a rule for everybody with an attribute.
fn site(folder: Folder, port: u16, methods: &str, gateway: &str) -> Site {
    let references = "      authenticationRef: logins\n      authorizationRef: rules\n";
    folder.write("site/listener.yaml", plain_listener(port) + references);
    folder.write(
        "site/logins.yaml",
        format!(
            "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerAuthentication\nmetadata: {{name: logins}}\n\
             spec:\n  authenticationMethods:\n{methods}"
        ),
    );
    folder.write(
        "site/rules.authorization.json",
        r#"[{"principals": {"attributes": [{"floor": "floor1"}, {"floor": "floor2"}]},
             "brokerResources": [{"method": "Connect"}, {"method": "Publish", "topics": ["floors/#"]}]},
            {"principals": {"attributes": [{"group": "authz-sat"}]},
             "brokerResources": [{"method": "Connect"}, {"method": "Publish", "topics": ["odd-numbered-orders"]},
                                 {"method": "Subscribe", "topics": ["orders"]}]}]"#,
    );
    if !gateway.is_empty() {
        let head = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:\n";
        folder.write("site/gateway.yaml", format!("{head}{gateway}"));
    }
    Site::start_in(folder)
}

const BY_PASSWORD: &str = "  - method: UsernamePassword\n    usernamePasswordSettings: {secretRef: users}\n";

#[test]
fn scenario_59_passwords_of_the_vendors_format_let_their_users_in() {
    let (folder, port) = (Folder::new("s59"), free_ports(1));
    folder.write("site/secrets/users/passwords.toml", PASSWORDS);
    let mut site = site(folder, port, BY_PASSWORD, "");
    let with = |user: &str, password: &str| log_in(port, &connect(user, Some(user), Some(password.as_bytes()), None));
    let (mut first, reason) = with("client1", "password");
    assert_eq!(reason, 0);
    assert_eq!((first.publish("floors/1", b"x"), first.publish("else", b"x")), (0, 135));
    for (user, password) in [("client1", "password2"), ("client1", ""), ("nobody", "password"), ("Client1", "password")]
    {
        assert_eq!(with(user, password).1, 0x86, "{user}");
    }
    // Neither name nor password: no credentials at all. A token method is unknown here.
    assert_eq!(log_in(port, &connect("c", None, None, None)).1, 0x87);
    assert_eq!(log_in(port, &connect("c", None, None, Some(("K8S-SAT", b"x")))).1, 0x8C);
    // AUTH cannot renew what was no enhanced authentication.
    let (mut client, reason) = with("client2", "password2");
    assert_eq!(reason, 0);
    client.send(&auth("K8S-SAT", b"x"));
    client.is_disconnected(0x82);
    // A client identifier belongs to who made the session; the first stays.
    let stolen = connect("client1", Some("client2"), Some(b"password2"), None);
    assert_eq!(log_in(port, &stolen).1, 0x87);
    first.ping();
    // A user that is taken out of the file is out at once.
    let rest = &PASSWORDS[PASSWORDS.find("[client2]").unwrap()..];
    site.folder.write("site/secrets/users/passwords.toml", rest);
    first.is_disconnected(0x87);
    site.process.wait_for("read again, 1 users");
    assert_eq!(with("client1", "password").1, 0x86);
    assert_eq!(with("client2", "password2").1, 0);
    // A file that is broken changes nothing.
    site.folder.write("site/secrets/users/passwords.toml", "[client2");
    site.process.wait_for("the users from before stay in force");
    assert_eq!(with("client2", "password2").1, 0);
}

/// An issuer of tokens.
struct Issuer(SigningKey);

impl Issuer {
    fn new() -> Self {
        Self(SigningKey::from_slice(&[7; 32]).unwrap())
    }

    fn keys(&self) -> String {
        let point = self.0.verifying_key().to_encoded_point(false);
        let coordinate = |bytes: Option<&p256::FieldBytes>| Base64UrlUnpadded::encode_string(bytes.unwrap());
        format!(
            r#"{{"keys": [{{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k1", "use": "sig", "x": "{}", "y": "{}"}}]}}"#,
            coordinate(point.x()),
            coordinate(point.y())
        )
    }

    fn token(&self, audience: &str, seconds: u64) -> Vec<u8> {
        let header = Base64UrlUnpadded::encode_string(br#"{"alg":"ES256","kid":"k1"}"#);
        let claims = format!(
            r#"{{"iss":"https://cluster","aud":["{audience}"],"exp":{},"sub":"system:serviceaccount:iot:mqtt-client"}}"#,
            now() + seconds
        );
        let signed = format!("{header}.{}", Base64UrlUnpadded::encode_string(claims.as_bytes()));
        let signature: Signature = self.0.sign(signed.as_bytes());
        format!("{signed}.{}", Base64UrlUnpadded::encode_string(&signature.to_bytes())).into_bytes()
    }
}

const BY_TOKEN: &str = "  - method: ServiceAccountToken\n    serviceAccountTokenSettings: {audiences: [my-audience]}\n";
const OFFLINE: &str = "  serviceAccountTokens:\n    issuers: [{issuer: 'https://cluster', keysConfigMap: cluster-keys}]\n    \
                       attributes: {iot/mqtt-client: {group: authz-sat}}\n";

#[test]
fn explain_judges_a_token_as_the_broker_does() {
    let (folder, port, issuer) = (Folder::new("explain-token"), free_ports(1), Issuer::new());
    folder.write("site/keys/cluster-keys/keys.json", issuer.keys());
    folder.write("good", issuer.token("my-audience", 600));
    folder.write("foreign", issuer.token("another", 600));
    let site = site(folder, port, BY_TOKEN, OFFLINE);
    for (token, code, part) in [
        ("good", 0, "authenticated by a service-account token\n  attributes group='authz-sat'"),
        ("foreign", 1, "denied: refused at authentication: token refused: the token is for another audience"),
    ] {
        let path = |name: &str| site.folder.join(name).to_str().unwrap().to_owned();
        let (blob, token) = (path("site/site.blob"), path(token));
        let output = support::run(&["explain", &blob, "--token", &token, "--client-id", "c", "subscribe", "orders"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.code() == Some(code) && text.contains(part), "{text}");
    }
}

/// [MQTT-3.15.2-1] [MQTT-4.12.0-5] [MQTT-4.12.1-2]
#[test]
fn scenario_38_a_service_account_token_is_a_credential_and_can_be_renewed() {
    let (folder, port, issuer) = (Folder::new("s38"), free_ports(1), Issuer::new());
    folder.write("site/keys/cluster-keys/keys.json", issuer.keys());
    let mut site = site(folder, port, BY_TOKEN, OFFLINE);
    let good = issuer.token("my-audience", 600);
    let mut client = Client::new(tcp(port));
    client.send(&connect("c", None, None, Some(("K8S-SAT", &good))));
    // Answered directly, without an AUTH before it, and with the method.
    let connack = client.receive().unwrap();
    assert_eq!((connack.first, connack.body[1]), (0x20, 0));
    assert!(connack.body.windows(10).any(|window| window == b"\x15\x00\x07K8S-SAT"), "{connack:?}");
    assert_eq!(client.publish("odd-numbered-orders", b"x"), 0);
    assert_eq!(client.subscribe(&["orders", "orders/#"]), [1, 135]);
    // The form of older clients.
    assert_eq!(log_in(port, &connect("d", Some("K8S-SAT"), Some(&good), None)).1, 0);

    client.send(&auth("K8S-SAT", &issuer.token("my-audience", 900)));
    let answer = client.receive().unwrap();
    assert_eq!((answer.first, answer.body[0]), (0xF0, 0), "{answer:?}");
    assert!(answer.body.windows(10).any(|window| window == b"\x15\x00\x07K8S-SAT"), "{answer:?}");
    client.ping();
    // Another method, and a bad token.
    client.send(&auth("other", b"x"));
    client.is_disconnected(0x82);
    let (mut client, _) = log_in(port, &connect("e", None, None, Some(("K8S-SAT", &good))));
    client.send(&auth("K8S-SAT", &issuer.token("other-audience", 900)));
    client.is_disconnected(0x87);

    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    for bad in [issuer.token("other", 600), forged, b"x".to_vec(), Vec::new(), vec![b'a'; 65_000]] {
        assert_eq!(log_in(port, &connect("f", None, None, Some(("K8S-SAT", &bad)))).1, 0x87);
    }
    // A token that ends takes its connection with it, without a word.
    let (mut client, reason) =
        log_in(port, &connect("g", None, None, Some(("K8S-SAT", &issuer.token("my-audience", 2)))));
    assert_eq!(reason, 0);
    assert_eq!(client.receive(), None, "closed without DISCONNECT");
    site.process.wait_for("credential expired");
}

/// A request that the custom server got: its first line, its fields, its body.
type Seen = Arc<Mutex<Vec<(String, Vec<String>, String)>>>;

/// A custom authentication server that says to each request what `answer` says: status and body; `None`: it hangs up.
fn custom_server(folder: &Folder, answer: impl Fn(&str) -> Option<(u16, String)> + Send + 'static) -> (u16, Seen) {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(portcullis::crypto::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            certificates(&folder.join("demo/mqtts-endpoint.crt")),
            key(&folder.join("demo/mqtts-endpoint.key")),
        )
        .unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let connection = rustls::ServerConnection::new(Arc::new(config.clone())).unwrap();
            let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream));
            let Some((line, fields, body)) = request(&mut stream) else { continue };
            let said = answer(&body);
            noted.lock().unwrap().push((line, fields, body));
            let Some((status, body)) = said else { continue };
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.get_mut().write_all((head + &body).as_bytes());
            stream.get_mut().conn.send_close_notify();
            let _ = stream.get_mut().flush();
        }
    });
    (port, seen)
}

fn request(stream: &mut impl std::io::BufRead) -> Option<(String, Vec<String>, String)> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut fields = Vec::new();
    loop {
        let mut field = String::new();
        stream.read_line(&mut field).ok()?;
        if field.trim().is_empty() {
            break;
        }
        fields.push(field.trim().to_owned());
    }
    let length = fields.iter().find_map(|field| field.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((line.trim().to_owned(), fields, String::from_utf8(body).ok()?))
}

/// A site whose logins go to a custom server first, and to tokens where that one does not answer.
fn custom_site(name: &str, answer: impl Fn(&str) -> Option<(u16, String)> + Send + 'static) -> (Site, u16, Seen) {
    let (folder, port) = (Folder::new(name), free_ports(1));
    pki::demo::create(&folder.join("demo")).unwrap();
    let root = std::fs::read(folder.join("demo/contoso_root_ca.crt")).unwrap();
    folder.write("site/trust/custom-ca/ca.pem", root);
    folder.write("site/keys/cluster-keys/keys.json", Issuer::new().keys());
    let (server, seen) = custom_server(&folder, answer);
    let methods = format!(
        "  - method: Custom\n    customSettings:\n      endpoint: https://localhost:{server}\n      \
         caCertConfigMap: custom-ca\n      headers: {{header_key: header_value}}\n{BY_TOKEN}"
    );
    (site(folder, port, &methods, OFFLINE), port, seen)
}

#[test]
fn scenarios_24_to_35_a_custom_server_decides() {
    let answer = |body: &str| match body {
        _ if body.contains("\"client1\"") => Some((200, r#"{"attributes": {"floor": "floor1"}}"#.to_owned())),
        _ if body.contains("\"deny\"") => Some((403, r#"{"reason": 135}"#.to_owned())),
        _ if body.contains("\"banned\"") => Some((403, r#"{"reason": 138}"#.to_owned())),
        _ if body.contains("\"zero\"") => Some((403, r#"{"reason": 0}"#.to_owned())),
        _ if body.contains("\"five\"") => Some((403, r#"{"reason": 5}"#.to_owned())),
        _ if body.contains("\"none\"") => Some((403, "{}".to_owned())),
        _ if body.contains("\"garbage\"") => Some((403, "no".to_owned())),
        _ if body.contains("\"long\"") => Some((200, "x".repeat(1 << 20))),
        _ if body.contains("\"down\"") => None,
        _ if body.contains("\"version\"") => Some((422, r#"{"supportedVersions": ["0.5.0"]}"#.to_owned())),
        _ if body.contains("\"auth\"") && body.contains("Z29vZA") => {
            Some((200, r#"{"attributes": {"floor": "floor2"}, "expiry": "2099-01-01T00:00:00Z"}"#.to_owned()))
        }
        _ if body.contains("\"auth\"") => Some((403, r#"{"reason": 135}"#.to_owned())),
        _ => Some((200, r#"{"attributes": {"floor": "floor1"}, "expiry": "2098-01-01T00:00:00Z"}"#.to_owned())),
    };
    let (_site, port, seen) = custom_site("custom", answer);
    let with = |user: &str| log_in(port, &connect(user, Some(user), Some(b"password1"), None)).1;
    // 24, 31
    let (mut client, reason) = log_in(port, &connect("client1", Some("client1"), Some(b"password1"), None));
    assert_eq!((reason, client.publish("floors/1", b"x"), client.publish("else", b"x")), (0, 0, 135));
    let (line, fields, body) = seen.lock().unwrap().first().cloned().unwrap();
    assert_eq!(line, "POST /?api-version=0.5.0 HTTP/1.1");
    assert!(fields.contains(&"header_key: header_value".to_owned()), "{fields:?}");
    assert!(fields.contains(&"Content-Type: application/json".to_owned()), "{fields:?}");
    assert!(body.contains(r#""password":"cGFzc3dvcmQx""#) && body.contains(r#""type":"connect""#), "{body}");
    // 25: a refusal is the end, whatever else the client has.
    let token = Issuer::new().token("my-audience", 600);
    let both = |user: &str| log_in(port, &connect("t", Some(user), None, Some(("K8S-SAT", &token)))).1;
    assert_eq!(both("deny"), 135);
    // 26, 27: a server that does not answer is passed over.
    assert_eq!((both("down"), with("down")), (0, 135));
    // 29
    assert_eq!((with("zero"), with("five"), with("none"), with("banned")), (135, 135, 135, 138));
    assert_eq!((both("garbage"), both("long"), with("long")), (0, 0, 135));
    // 30: asked just twice.
    let before = seen.lock().unwrap().len();
    assert_eq!(both("version"), 0);
    assert_eq!(seen.lock().unwrap().len() - before, 2);
    // 33, 35: renewal.
    let (mut client, reason) = log_in(port, &connect("r", None, None, Some(("mine", b"first"))));
    assert_eq!((reason, client.publish("floors/1", b"x")), (0, 0));
    client.send(&auth("mine", b"good"));
    let answer = client.receive().unwrap();
    assert_eq!((answer.first, answer.body[0]), (0xF0, 0), "{answer:?}");
    client.ping();
    client.send(&auth("mine", b"bad"));
    client.is_disconnected(0x87);
}

#[test]
fn scenarios_32_and_34_what_the_server_grants_ends_and_a_silent_server_delays() {
    let expiry = portcullis::time::UnixTime(now() + 4).to_string();
    let answer = move |body: &str| match body {
        _ if body.contains("\"auth\"") => None,
        _ => Some((200, format!(r#"{{"attributes": {{"floor": "floor1"}}, "expiry": "{expiry}"}}"#))),
    };
    let (mut site, port, _) = custom_site("custom-expiry", answer);
    let (mut client, reason) = log_in(port, &connect("c", None, None, Some(("mine", b"x"))));
    assert_eq!(reason, 0);
    client.send(&auth("mine", b"x"));
    let answer = client.receive().unwrap();
    assert_eq!((answer.first, answer.body[0]), (0xF0, 0x18), "to be tried again, and still connected: {answer:?}");
    assert_eq!(client.receive(), None, "at its end it is closed without DISCONNECT");
    site.process.wait_for("credential expired");
}

#[test]
fn a_server_certificate_is_waited_for_and_replaced_while_clients_stay() {
    let (folder, port) = (Folder::new("rotation"), free_ports(1));
    let tls_settings = "      tls:\n        mode: Manual\n        manual:\n          secretRef: server\n";
    folder.write("site/listener.yaml", plain_listener(port) + tls_settings);
    let mut site = Site::start_in(folder);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody is let in without a certificate");
    let install = |folder: &Folder, generation: &str| {
        let demo = folder.join(generation);
        pki::demo::create(&demo).unwrap();
        for (file, name) in [("mqtts-endpoint.crt", "tls.crt"), ("mqtts-endpoint.key", "tls.key")] {
            folder.write(&format!("site/secrets/server/{name}"), std::fs::read(demo.join(file)).unwrap());
        }
        demo.join("contoso_root_ca.crt")
    };
    let first = install(&site.folder, "first");
    site.process.wait_for("server certificate 'server' read again");
    let mut early = Client::accepted(tls(port, &first, None).expect("TLS"), "early");
    let second = install(&site.folder, "second");
    let end = std::time::Instant::now() + Duration::from_secs(20);
    let late = loop {
        match tls(port, &second, None) {
            Ok(stream) => break stream,
            Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
        }
    };
    Client::accepted(late, "late").ping();
    early.ping();
    // Half a change keeps the old one.
    site.folder.write("site/secrets/server/tls.key", "no key");
    site.process.wait_for("the old one stays in use");
    Client::accepted(tls(port, &second, None).expect("TLS"), "third").ping();
}

/// Runs OpenSSL in a folder.
fn openssl(folder: &Folder, arguments: &str) {
    let output = std::process::Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder.path())
        .output()
        .expect("openssl is installed");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_keys_of_a_chain_are_of_one_algorithm_unless_the_gateway_says_otherwise() {
    for (setting, accepted) in [("", false), ("  sameKeyAlgorithm: false\n", true)] {
        let (folder, port) = (Folder::new("same-key"), free_ports(1));
        pki::demo::create(&folder.join("demo")).unwrap();
        folder.write("leaf.ext", "extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\nbasicConstraints=CA:false\n");
        openssl(&folder, "req -x509 -newkey ed25519 -nodes -keyout root.key -out root.pem -subj /CN=Root -days 2");
        openssl(
            &folder,
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -out leaf.csr -subj /CN=leaf",
        );
        openssl(
            &folder,
            "x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile leaf.ext -out leaf.pem -days 1",
        );
        let copy =
            |from: &str, to: &str| folder.write(&format!("site/{to}"), std::fs::read(folder.join(from)).unwrap());
        copy("root.pem", "trust/client-ca/root.pem");
        copy("demo/mqtts-endpoint.crt", "secrets/server/tls.crt");
        copy("demo/mqtts-endpoint.key", "secrets/server/tls.key");
        folder.write("site/certs.x509.json", "{}");
        let head = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:\n  sysIntervalSeconds: 0\n";
        folder.write("site/gateway.yaml", format!("{head}{setting}"));
        let tls_settings = "      authenticationRef: certs\n      tls:\n        mode: Manual\n        manual:\n          secretRef: server\n";
        folder.write("site/listener.yaml", plain_listener(port) + tls_settings);
        let identity = (certificates(&folder.join("leaf.pem")), key(&folder.join("leaf.key")));
        let authority = folder.join("demo/contoso_root_ca.crt");
        let mut site = Site::start_in(folder);
        let stream = tls(port, &authority, Some(identity));
        if accepted {
            Client::accepted(stream.expect("TLS"), "c").ping();
        } else {
            assert!(!support::client::tls_refusal(stream).is_empty());
            site.process.wait_for("sameKeyAlgorithm");
        }
    }
}
