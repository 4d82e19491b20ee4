//! The TLS service of the whole program: sessions that are resumed.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::pki;
use rustls::HandshakeKind;
use support::client::{Client, certificates, key, tls_again, tls_config};
use support::{Folder, Site, free_ports, plain_listener};

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
             "brokerResources": [{"method": "Connect"}, {"method": "Publish", "topics": ["floors/#"]}]}]"#,
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
