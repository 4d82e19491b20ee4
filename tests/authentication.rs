//! The methods beside X.509, against the whole program: passwords and tokens that are judged here; renewal, expiry, changed
//! files. Servers that are asked have files of their own.
//! Numbers are those of the scenario catalogue.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::pki;
use std::io::Write as _;
use std::time::Duration;
use support::client::{Client, certificates, key, tcp, tls};
use support::login::{BY_TOKEN, Issuer, OFFLINE, auth, connect, log_in, now, site};
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
    let (mut second, reason) = with("client2", "password2");
    assert_eq!(reason, 0);
    // The deny list of the operator knows user names too.
    site.folder.write("site/revocation/deny.yaml", "- username: client2\n");
    second.is_disconnected(0x87);
    assert_eq!(with("client2", "password2").1, 0x87);
}

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

#[test]
fn explain_heeds_what_is_revoked_beside_a_blob() {
    let folder = Folder::new("explain-revoked");
    pki::demo::create(&folder.join("demo")).unwrap();
    let listener = "ports: [{port: 8883, authenticationRef: certs, authorizationRef: rules, tls: {mode: Manual, manual: {secretRef: server}}}]";
    folder.write("site/all.listener.yaml", listener);
    folder.write("site/certs.x509.json", r#"{"trustedClientCaCert": "fabrikam"}"#);
    folder.write("site/trust/fabrikam/ca.pem", std::fs::read(folder.join("demo/fabrikam_root_ca.crt")).unwrap());
    folder.write(
        "site/rules.authorization.yaml",
        "[{principals: {usernames: [heater]}, brokerResources: [{method: Connect}]}]",
    );
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let baked = support::run(&["bake", &path("site"), "--out", &path("site.blob")]);
    assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
    let explained = || {
        let output =
            support::run(&["explain", &path("site.blob"), "--certificate", &path("demo/heater.crt"), "connect"]);
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert_eq!(explained().0, Some(0), "{}", explained().1);
    folder.write("revocation/deny.yaml", "- subject: CN = heater\n");
    let (code, said) = explained();
    assert!(code == Some(1) && said.contains("denied by line 1 of the deny list"), "{said}");
    folder.write("revocation/deny.yaml", "- subjekt: CN = heater\n");
    assert_eq!(explained().0, Some(4));
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
    for bad in [
        issuer.token("other", 600),
        forged,
        b"x".to_vec(),
        Vec::new(),
        vec![0; 300],
        vec![0xFF; 300],
        vec![b'a'; 65_535],
    ] {
        assert_eq!(log_in(port, &connect("f", None, None, Some(("K8S-SAT", &bad)))).1, 0x87);
        assert_eq!(log_in(port, &connect("f", Some("K8S-SAT"), Some(&bad), None)).1, 0x87);
    }
    // A token that ends takes its connection with it, without a word.
    let (mut client, reason) =
        log_in(port, &connect("g", None, None, Some(("K8S-SAT", &issuer.token("my-audience", 6)))));
    assert_eq!(reason, 0);
    assert_eq!(client.receive(), None, "closed without DISCONNECT");
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
    // The loop hears of it a moment later.
    let end = std::time::Instant::now() + support::PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < end, "the port opens");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut early = Client::accepted(tls(port, &first, None).expect("TLS"), "early");
    let second = install(&site.folder, "second");
    let end = std::time::Instant::now() + support::PATIENCE;
    let late = loop {
        match tls(port, &second, None) {
            Ok(stream) => break stream,
            Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    Client::accepted(late, "late").ping();
    early.ping();
    // Half a change keeps the old one.
    site.folder.write("site/secrets/server/tls.key", "no key");
    site.process.wait_for("the old one stays in use");
    Client::accepted(tls(port, &second, None).expect("TLS"), "third").ping();
    early.ping();
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

#[test]
fn passwd_makes_changes_and_takes_out_users_and_keeps_the_rest() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new("passwd");
    let file = folder.join("users/passwords.toml");
    let passwd = &|arguments: &[&str], password: &str| {
        let mut command = support::portcullis(&[&["passwd", file.to_str().unwrap()], arguments].concat());
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        // A command that is refused may have ended before it reads.
        let _ = child.stdin.take().unwrap().write_all(password.as_bytes());
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    assert_eq!(passwd(&["client1", "--attribute", "floor=floor1"], "secret\n").0, Some(0));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let made = std::fs::read_to_string(&file).unwrap();
    assert!(made.contains("$argon2id$v=19$m=19456,t=2,p=1$") && made.contains("floor = \"floor1\""), "{made}");
    assert!(!made.contains("secret"), "{made}");
    folder.write("users/passwords.toml", format!("# the first floor\n{made}"));
    let (status, said) = passwd(&["client 2", "--algorithm", "pbkdf2-sha512"], "other");
    assert_eq!((status, said.contains("'client 2' added")), (Some(0), true), "{said}");
    let users = portcullis::authentication::Passwords::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(users.find("client1").verify(b"secret").is_ok());
    assert!(users.find("client 2").verify(b"other").is_ok());
    assert_eq!(passwd(&["client 2", "--delete"], "").0, Some(0));
    let left = std::fs::read_to_string(&file).unwrap();
    assert!(left.starts_with("# the first floor\n") && !left.contains("client 2"), "{left}");
    for (arguments, password, expected) in [
        (&["nobody", "--delete"][..], "", "no user 'nobody'"),
        (&["client1"], "\n", "empty"),
        (&["client1"], "", "empty"),
        (&["client1", "--attribute", &format!("a={}", "x".repeat(5_000))], "x\n", "attributes"),
    ] {
        let (status, said) = passwd(arguments, password);
        assert!(status != Some(0) && said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), left, "unchanged");
    }
    assert!(!file.with_extension("toml.new").exists());
    // What a link leads to is changed, and its mode stays. Two at once lose nothing.
    let real = folder.join("real.toml");
    std::fs::rename(&file, &real).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(&real, &file).unwrap();
    std::thread::scope(|scope| {
        for user in ["a", "b", "c"] {
            scope.spawn(move || assert_eq!(passwd(&[user, "--algorithm", "pbkdf2-sha512"], "x\n").0, Some(0)));
        }
    });
    assert!(std::fs::symlink_metadata(&file).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    let users = portcullis::authentication::Passwords::parse(&std::fs::read_to_string(&real).unwrap()).unwrap();
    assert_eq!(users.len(), 4);
    folder.write("users/passwords.toml", "[broken");
    assert_eq!(passwd(&["client1"], "x\n").0, Some(3));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[broken");
}

#[test]
fn a_clock_that_stands_before_its_last_known_time_is_waited_for_and_an_absurd_record_is_not_believed() {
    let day = 24 * 3_600;
    for (recorded, reason, said) in [
        (portcullis::time::UnixTime(now() + day).to_string(), 0x88, "last-known-time and start again"),
        ("2099-01-01T00:00:00Z".to_owned(), 0, "last-known-time: 2099-01-01T00:00:00Z cannot be; not believed"),
        (portcullis::time::UnixTime(now() - day).to_string(), 0, " ready"),
    ] {
        let (folder, port, issuer) = (Folder::new("clock"), free_ports(1), Issuer::new());
        folder.write("site/keys/cluster-keys/keys.json", issuer.keys());
        folder.write("site/secrets/users/passwords.toml", PASSWORDS);
        folder.write("site/state/last-known-time", &recorded);
        let mut site = site(folder, port, &format!("{BY_TOKEN}{BY_PASSWORD}"), OFFLINE);
        site.process.wait_for(said);
        let token = issuer.token("my-audience", 600);
        assert_eq!(log_in(port, &connect("c", None, None, Some(("K8S-SAT", &token)))).1, reason, "{recorded}");
        assert_eq!(log_in(port, &connect("d", Some("client1"), Some(b"password"), None)).1, 0, "{recorded}");
        site.process.terminate();
        site.process.wait();
        // A clock of a few seconds is not recorded.
        assert_eq!(std::fs::read_to_string(site.folder.join("site/state/last-known-time")).unwrap(), recorded);
    }
}
