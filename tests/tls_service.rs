//! The TLS service of the whole program: sessions that are resumed, certificates that the gateway issues to itself.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::distinguished_name::DistinguishedName;
use portcullis::pki::{self, Issued, Template};
use portcullis::time::UnixTime;
use rustls::HandshakeKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Instant, SystemTime};
use support::client::{Client, certificates, key, tls, tls_again, tls_config, tls_refusal};
use support::{Folder, PATIENCE, Process, Site, free_ports, plain_listener, portcullis, run};

/// Writes a site whose clients show certificates of the demo, and the attributes of one of them.
fn mutual_site(folder: &Folder, port: u16) {
    pki::demo::create(&folder.join("demo")).unwrap();
    let copy = |from: &str, to: &str| folder.write(&format!("site/{to}"), std::fs::read(folder.join(from)).unwrap());
    copy("demo/fabrikam_root_ca.crt", "trust/client-ca/root.pem");
    copy("demo/mqtts-endpoint.crt", "secrets/server/tls.crt");
    copy("demo/mqtts-endpoint.key", "secrets/server/tls.key");
    folder.write(
        "site/certs.x509.json",
        r#"{"trustedClientCaCert": "client-ca",
            "authorizationAttributes": {"one": {"subject": "CN = heater", "attributes": {"floor": "floor1"}}}}"#,
    );
    folder.write(
        "site/rules.authorization.json",
        r#"[{"principals": {"attributes": [{"floor": "floor1"}]},
             "brokerResources": [{"method": "Connect"}, {"method": "Publish", "topics": ["floors/#"]}]},
            {"principals": {"usernames": ["thermostat"]}, "brokerResources": [{"method": "Connect"}]}]"#,
    );
    let settings = "      authenticationRef: certs\n      authorizationRef: rules\n      tls:\n        mode: Manual\n        \
                    manual:\n          secretRef: server\n";
    folder.write("site/listener.yaml", plain_listener(port) + settings);
}

#[test]
fn a_resumed_client_has_the_identity_and_attributes_of_its_certificate() {
    let (folder, port) = (Folder::new("resumed"), free_ports(1));
    mutual_site(&folder, port);
    let identity = (certificates(&folder.join("demo/heater.crt")), key(&folder.join("demo/heater.key")));
    let config = tls_config(&folder.join("demo/contoso_root_ca.crt"), Some(identity));
    let mut site = Site::start_in(folder);
    for (round, kind) in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed].into_iter().enumerate() {
        let stream = tls_again(port, &config).expect("TLS");
        assert_eq!(stream.conn.handshake_kind(), Some(kind));
        let name = format!("heater-{round}");
        let mut client = Client::accepted(stream, &name);
        assert_eq!((client.publish("floors/1", b"x"), client.publish("else", b"x")), (0, 135));
        let line = site.process.wait_for(&format!("client '{name}' connected"));
        assert!(line.contains("as 'heater'") && line.contains("floor"), "{line}");
    }
    let accepted = site.process.output().iter().filter(|line| line.contains("client certificate accepted")).count();
    assert_eq!(accepted, 1, "only the whole handshake shows a certificate");
}

#[test]
fn a_change_of_trust_ends_the_tickets_also_of_those_who_stay_trusted() {
    let (folder, port) = (Folder::new("tickets-end"), free_ports(1));
    mutual_site(&folder, port);
    let configs = ["heater", "thermostat"].map(|name| {
        let file = |ending: &str| folder.join(&format!("demo/{name}.{ending}"));
        let identity = (certificates(&file("crt")), key(&file("key")));
        tls_config(&folder.join("demo/contoso_root_ca.crt"), Some(identity))
    });
    let mut site = Site::start_in(folder);
    let kind = |config: &_| {
        let stream = tls_again(port, config).expect("TLS");
        let kind = stream.conn.handshake_kind().unwrap();
        Client::accepted(stream, "c").ping();
        kind
    };
    for config in &configs {
        assert_eq!([kind(config), kind(config)], [HandshakeKind::Full, HandshakeKind::Resumed]);
    }
    let mut stays = Client::accepted(tls_again(port, &configs[0]).expect("TLS"), "stays");
    let mut goes = Client::accepted(tls_again(port, &configs[1]).expect("TLS"), "goes");
    site.folder.write("site/revocation/deny.yaml", "- subject: CN = thermostat\n");
    goes.is_disconnected(0x87);
    stays.ping();
    let [heater, thermostat] = &configs;
    assert_eq!(kind(heater), HandshakeKind::Full);
    assert_eq!(kind(heater), HandshakeKind::Resumed);
    assert!(!tls_refusal(tls_again(port, thermostat)).is_empty());
    site.process.wait_for("refused by TLS");
}

/// [MQTT-3.1.4-2]
#[test]
fn a_resumed_client_is_judged_at_connect_like_any_other() {
    let (folder, port) = (Folder::new("resumed-refused"), free_ports(1));
    mutual_site(&folder, port);
    // The client's certificate outlives its authority, so that the ticket is good for longer than the trust.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let name = |text: &str| DistinguishedName::parse(text).unwrap();
    let authority = Template::authority(name("CN=Brief"), None, UnixTime(now - 60), UnixTime(now + 12));
    let authority = Issued::root(&authority).unwrap();
    let leaf = Template::leaf(name("CN=heater"), UnixTime(now - 60), UnixTime(now + 86_400));
    let leaf = authority.issue(&leaf).unwrap();
    folder.write("site/trust/client-ca/root.pem", authority.certificate_pem().unwrap());
    let chain = folder.write("leaf.crt", leaf.certificate_pem().unwrap());
    let secret = folder.write("leaf.key", leaf.key_pem().unwrap().as_bytes());
    let config = tls_config(&folder.join("demo/contoso_root_ca.crt"), Some((certificates(&chain), key(&secret))));
    let mut site = Site::start_in(folder);
    let mut client = Client::accepted(tls_again(port, &config).expect("TLS"), "first");
    assert_eq!(client.receive(), None, "its credential ends with the authority");
    // The last second of a certificate still belongs to it.
    let end = Instant::now() + PATIENCE;
    let refused = loop {
        let stream = tls_again(port, &config).expect("TLS");
        assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Resumed));
        match Client::connect(stream, "again").1 {
            0 => assert!(Instant::now() < end, "accepted for ever"),
            reason => break reason,
        }
    };
    assert_eq!(refused, 0x87);
    site.process.wait_for("the trusted authority is expired");
}

/// Runs OpenSSL and returns what it says; it must succeed.
fn openssl(folder: &Folder, arguments: &str) -> String {
    let output = std::process::Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder.path())
        .stdin(std::process::Stdio::null())
        .output()
        .expect("openssl is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {said}");
    said
}

/// Writes a site with one port of mode Automatic.
fn automatic_site(folder: &Folder, port: u16, more: &str) {
    let settings = "      tls:\n        mode: Automatic\n        certManagerCertificateSpec:\n          \
                    issuerRef: {name: plant, kind: Issuer}\n          secretName: served\n";
    folder.write("site/listener.yaml", plain_listener(port) + settings + more);
}

/// An authority of two certificates, made by OpenSSL with keys of this kind, as the issuer `plant`; its root is `root.pem`.
fn authority(folder: &Folder, kind: &str) {
    folder.write(
        "ca.ext",
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n\
                 subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
    );
    openssl(
        folder,
        &format!(
            "req -x509 -newkey {kind} -nodes -keyout root.key -out root.pem -subj /CN=Root -days 900 -addext keyUsage=critical,keyCertSign"
        ),
    );
    openssl(folder, &format!("req -newkey {kind} -nodes -keyout ca.key -out ca.csr -subj /CN=Plant"));
    openssl(
        folder,
        "x509 -req -in ca.csr -CA root.pem -CAkey root.key -CAcreateserial -extfile ca.ext -out ca.pem -days 800",
    );
    let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
    folder.write("site/issuers/plant/tls.key", read("ca.key"));
    folder.write("site/issuers/plant/tls.crt", [read("ca.pem"), read("root.pem")].concat());
}

/// Connects until the server shows a certificate that `wanted` likes and that `root` vouches for.
fn until_shown(port: u16, root: &Path, wanted: impl Fn(&[u8]) -> bool) -> Client {
    let end = Instant::now() + PATIENCE;
    loop {
        match tls(port, root, None) {
            Ok(stream) if wanted(&stream.conn.peer_certificates().unwrap()[0]) => {
                return Client::accepted(stream, "late");
            }
            Ok(_) => {}
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        assert!(Instant::now() < end, "the certificate stays as it is");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_certificate_of_mode_automatic_is_what_openssl_accepts() {
    let kinds = ["ec -pkeyopt ec_paramgen_curve:P-256", "ec -pkeyopt ec_paramgen_curve:P-384", "ed25519"];
    for (kind, (algorithm, shown)) in
        kinds.into_iter().zip([("Ed25519", "ED25519"), ("Ec256", "P-256"), ("Ec384", "P-384")])
    {
        let (folder, port) = (Folder::new("automatic"), free_ports(1));
        authority(&folder, kind);
        let more = format!(
            "          duration: 48h\n          renewBefore: 1h\n          privateKey: {{algorithm: {algorithm}, \
             rotationPolicy: Always}}\n          san: {{dns: [localhost, '*.plant.example'], ip: [127.0.0.1, '::1']}}\n"
        );
        automatic_site(&folder, port, &more);
        let mut site = Site::start_in(folder);
        let folder = &site.folder;
        for name in ["a.plant.example", "localhost"] {
            let verify =
                "verify -x509_strict -purpose sslserver -CAfile root.pem -untrusted site/secrets/served/tls.crt";
            openssl(folder, &format!("{verify} -verify_hostname {name} site/secrets/served/tls.crt"));
        }
        let text = openssl(folder, "x509 -noout -text -in site/secrets/served/tls.crt");
        for part in [
            "Issuer: CN = Plant",
            "Subject: CN = served",
            "Digital Signature",
            "TLS Web Server Authentication",
            "DNS:localhost, DNS:*.plant.example, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1",
            "Subject Key Identifier",
            "Authority Key Identifier",
            shown,
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let said = openssl(
            folder,
            &format!(
                "s_client -connect 127.0.0.1:{port} -CAfile root.pem -verify_return_error -verify_hostname localhost -showcerts"
            ),
        );
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 2, "leaf and intermediate, without the root: {said}");
        let mode = |path: &str| std::fs::metadata(folder.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("site/secrets/served/tls.key"), mode("site/secrets/served")), (0o600, 0o700));
        site.process.wait_for("server certificate 'served': issued by 'plant'");
        Client::accepted(tls(port, &site.folder.join("root.pem"), None).expect("TLS"), "c").ping();
    }
}

#[test]
fn a_gateway_makes_its_own_authority_and_keeps_what_it_issued_over_a_restart() {
    let (folder, port) = (Folder::new("self-issued"), free_ports(1));
    automatic_site(&folder, port, "");
    let mut site = Site::start_in(folder);
    let line = site.process.wait_for("made the authority 'plant'");
    let root = site.folder.join("site/issuers/plant/tls.crt");
    assert!(line.contains(&root.display().to_string()), "{line}");
    openssl(
        &site.folder,
        "verify -x509_strict -purpose sslserver -CAfile site/issuers/plant/tls.crt -verify_hostname localhost -verify_ip 127.0.0.1 site/secrets/served/tls.crt",
    );
    Client::accepted(tls(port, &root, None).expect("TLS"), "first").ping();
    let issued = certificates(&site.folder.join("site/secrets/served/tls.crt"));
    site.process.terminate();
    assert!(site.process.wait().success());
    let blob = site.folder.join("site/site.blob");
    let mut again = Process::start(&mut portcullis(&["run", "--config", blob.to_str().unwrap()]));
    again.wait_for(" ready");
    let stream = tls(port, &root, None).expect("TLS");
    assert_eq!(stream.conn.peer_certificates().unwrap(), issued);
    assert!(!again.output().iter().any(|line| line.contains("issued by")));
}

#[test]
fn a_certificate_is_renewed_and_follows_its_authority_while_clients_stay() {
    let (folder, port) = (Folder::new("renewed"), free_ports(1));
    authority(&folder, "ed25519");
    // Due two seconds after it was issued.
    automatic_site(
        &folder,
        port,
        "          duration: 1h\n          renewBefore: 3598s\n          san: {dns: [localhost]}\n",
    );
    let mut site = Site::start_in(folder);
    let root = site.folder.join("root.pem");
    let stream = tls(port, &root, None).expect("TLS");
    let first = stream.conn.peer_certificates().unwrap()[0].to_vec();
    let mut early = Client::accepted(stream, "early");
    until_shown(port, &root, |leaf| *leaf != first[..]).ping();
    // A broken authority changes nothing; another one issues anew.
    let key = std::fs::read(site.folder.join("ca.key")).unwrap();
    site.folder.write("site/issuers/plant/tls.key", "no key");
    site.process.wait_for("the old one stays in use");
    Client::accepted(tls(port, &root, None).expect("TLS"), "meanwhile").ping();
    authority(&site.folder, "ec -pkeyopt ec_paramgen_curve:P-256");
    assert_ne!(std::fs::read(site.folder.join("ca.key")).unwrap(), key);
    until_shown(port, &root, |_| true).ping();
    early.ping();
}

#[test]
fn a_broken_authority_is_refused_at_start() {
    let (folder, port) = (Folder::new("broken-authority"), free_ports(1));
    automatic_site(&folder, port, "");
    let (site, blob) = (folder.join("site"), folder.join("site.blob"));
    let (site, blob) = (site.to_str().unwrap(), blob.to_str().unwrap());
    assert!(run(&["bake", site, "--out", blob]).status.success());
    for (file, content, reason) in [
        ("issuers/plant/tls.crt", "no certificate", "is missing"),
        ("issuers/plant/tls.key", "no key", "tls.key holds no private key"),
    ] {
        folder.write(file, content);
        let mut process = Process::start(&mut portcullis(&["run", "--config", blob]));
        assert!(!process.wait().success());
        process.wait_for(reason);
        assert!(!folder.join("secrets").exists());
    }
}
