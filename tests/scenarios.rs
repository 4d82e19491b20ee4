//! The scenario catalogue of the model whose semantics the broker reproduces, against the whole program. The numbers are
//! those of the catalogue; the first eight also run with the mosquitto clients, in `tutorial.rs`.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::distinguished_name::DistinguishedName;
use portcullis::pki::{self, Issued, Template};
use portcullis::time::UnixTime;
use std::time::SystemTime;
use support::client::{Client, certificates, key, packet, publish_packet, tcp, text, tls, tls_refusal};
use support::{Demo, Folder, Site, free_ports, plain_listener, run};

/// Connects one of the tutorial's clients to a port of the demo.
fn client(demo: &Demo, name: &str, port: u16) -> Client {
    client_as(demo, name, name, port)
}

fn client_as(demo: &Demo, name: &str, identifier: &str, port: u16) -> Client {
    let file = |ending: &str| demo.folder.join("demo").join(format!("{name}.{ending}"));
    let authority = demo.folder.join("demo/contoso_root_ca.crt");
    let identity = (certificates(&file("crt")), key(&file("key")));
    Client::accepted(tls(port, &authority, Some(identity)).expect("a TLS connection"), identifier)
}

#[test]
fn scenario_01_without_authorization_and_subscriber_a_publish_succeeds() {
    let demo = Demo::start("s01");
    assert_eq!(client(&demo, "thermostat", demo.port + 1).publish("example/topic", b"x"), 0);
}

#[test]
fn scenarios_02_to_14_of_the_tutorial() {
    let demo = Demo::start("s02");
    let port = demo.port;
    let mut heater = client(&demo, "heater", port);
    let mut thermostat = client(&demo, "thermostat", port);
    let mut hygrometer = client(&demo, "hygrometer", port);
    let mut lightbulb = client(&demo, "lightbulb", port);

    // 9, which holds 4 and 5.
    let filters = ["telemetry/temperature", "health/heartbeat", "telemetry/humidity"];
    assert_eq!(heater.subscribe(&filters), [1, 135, 1], "9");
    // 2: refused, the connection stays, and nobody gets it.
    assert_eq!(thermostat.publish("telemetry/humidity", b"refused"), 135, "2");
    thermostat.ping();
    // 14: refused without a word.
    hygrometer.send(&publish_packet("telemetry/temperature", 0, 0, b"refused"));
    hygrometer.ping();
    // 7: the leaf's entry comes first and takes the intermediate's attribute away.
    assert_eq!(thermostat.publish("health/heartbeat", b"refused"), 135, "7");
    // 6: the attribute of the intermediate.
    assert_eq!(lightbulb.publish("health/heartbeat", b"beat"), 0, "6");
    // 3 and 5: what is allowed arrives, and it is the first thing that does.
    assert_eq!(thermostat.publish("telemetry/temperature", b"21"), 0, "3");
    assert_eq!(heater.message(), ("telemetry/temperature".to_owned(), b"21".to_vec()), "5");
    // 8: user name and the intermediate's attribute together.
    assert_eq!(heater.publish("health/heartbeat", b"beat"), 0, "8");
    // 10: a filter wider than what is allowed is refused whole.
    assert_eq!(heater.subscribe(&["telemetry/+", "telemetry/#", "#"]), [135, 135, 135], "10");
    // 12
    assert_eq!(lightbulb.subscribe(&["telemetry/temperature"]), [135], "12");
    // 11: a shared subscription is judged by its filter.
    let mut sharing = client_as(&demo, "heater", "heater-shared", port);
    assert_eq!(sharing.subscribe(&["$share/g1/telemetry/humidity", "$share/g1/health/heartbeat"]), [1, 135], "11");
    assert_eq!(hygrometer.publish("telemetry/humidity", b"50"), 0);
    assert_eq!(sharing.message(), ("telemetry/humidity".to_owned(), b"50".to_vec()), "11");
    assert_eq!(heater.message(), ("telemetry/humidity".to_owned(), b"50".to_vec()));
    heater.ping();
}

#[test]
fn scenario_13_a_client_of_mqtt_3_1_1_cannot_be_told_and_is_denied_all_the_same() {
    let demo = Demo::start("s13");
    let mut hears_all = client(&demo, "heater", demo.port);
    assert_eq!(hears_all.subscribe(&["telemetry/humidity"]), [1]);
    let file = |ending: &str| demo.folder.join("demo").join(format!("thermostat.{ending}"));
    let identity = (certificates(&file("crt")), key(&file("key")));
    let stream = tls(demo.port, &demo.folder.join("demo/contoso_root_ca.crt"), Some(identity));
    let mut thermostat = Client::new(stream.expect("a TLS connection"));
    thermostat.send(b"\x10\x16\x00\x04MQTT\x04\x02\x00\x00\x00\x0athermostat");
    assert_eq!(thermostat.receive().map(|packet| (packet.first, packet.body)), Some((0x20, vec![0, 0])));
    // Without properties, and answered as if it had gone well.
    let mut body = text("telemetry/humidity");
    body.extend_from_slice(b"\x00\x05refused");
    thermostat.send(&packet(0x32, &body));
    assert_eq!(thermostat.receive().map(|packet| (packet.first, packet.body)), Some((0x40, vec![0, 5])));
    let mut hygrometer = client(&demo, "hygrometer", demo.port);
    assert_eq!(hygrometer.publish("telemetry/humidity", b"50"), 0);
    assert_eq!(hears_all.message(), ("telemetry/humidity".to_owned(), b"50".to_vec()));
    thermostat.ping();
}

#[test]
fn scenarios_15_and_16_unknown_authority_and_missing_intermediate() {
    let demo = Demo::start("s15");
    let authority = demo.folder.join("demo/contoso_root_ca.crt");
    let strangers = Factory::new("CN=Fabrikam Root CA", "CN=Fabrikam Intermediate CA 1");
    let refusal = tls_refusal(tls(demo.port, &authority, Some(strangers.identity("CN=thermostat"))));
    assert!(refusal.contains("UnknownCA") || refusal.contains("DecryptError"), "{refusal}");
    let elsewhere = Factory::new("CN=Elsewhere Root CA", "CN=Elsewhere CA");
    let refusal = tls_refusal(tls(demo.port, &authority, Some(elsewhere.identity("CN=thermostat"))));
    assert!(refusal.contains("UnknownCA"), "{refusal}");
    let file = |ending: &str| demo.folder.join("demo").join(format!("thermostat.{ending}"));
    let mut chain = certificates(&file("crt"));
    chain.truncate(1);
    let refusal = tls_refusal(tls(demo.port, &authority, Some((chain, key(&file("key"))))));
    assert!(refusal.contains("UnknownCA"), "{refusal}");
    let refusal = tls_refusal(tls(demo.port, &authority, None));
    assert!(refusal.contains("CertificateRequired"), "{refusal}");
    let expired = elsewhere.expired("CN=thermostat");
    assert!(!tls_refusal(tls(demo.port, &authority, Some(expired))).is_empty());
    assert_eq!(client(&demo, "thermostat", demo.port).publish("telemetry/temperature", b"x"), 0, "still serving");
}

type Identity = (Vec<rustls::pki_types::CertificateDer<'static>>, rustls::pki_types::PrivateKeyDer<'static>);

/// A root and an intermediate of a maker of devices.
struct Factory {
    root: Issued,
    intermediate: Issued,
}

fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
}

fn name(text: &str) -> DistinguishedName {
    DistinguishedName::parse(text).unwrap()
}

fn authority(subject: &str) -> Template {
    Template::authority(name(subject), None, UnixTime(now().0 - 60), now().plus_seconds(3_600))
}

impl Factory {
    fn new(root: &str, intermediate: &str) -> Self {
        let root = Issued::root(&authority(root)).unwrap();
        let intermediate = root.issue(&authority(intermediate)).unwrap();
        Self { root, intermediate }
    }

    fn identity_of(&self, template: &Template, extra: &[&Issued]) -> Identity {
        use rustls::pki_types::pem::PemObject as _;
        let leaf = self.intermediate.issue(template).unwrap();
        let mut chain = vec![leaf.certificate_der().unwrap(), self.intermediate.certificate_der().unwrap()];
        chain.extend(extra.iter().map(|certificate| certificate.certificate_der().unwrap()));
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(leaf.key_pem().unwrap().as_bytes()).unwrap();
        (chain.into_iter().map(Into::into).collect(), key)
    }

    fn identity(&self, subject: &str) -> Identity {
        self.identity_of(&Template::leaf(name(subject), UnixTime(now().0 - 60), now().plus_seconds(600)), &[])
    }

    fn expired(&self, subject: &str) -> Identity {
        self.identity_of(&Template::leaf(name(subject), UnixTime(now().0 - 60), UnixTime(now().0 - 1)), &[])
    }
}

/// A site with one TLS port: certificates of the demo for the broker, `trust` as the ConfigMap `client-ca`,
/// `authorizationAttributes` and rules as given.
struct Plant {
    site: Site,
    port: u16,
}

impl Plant {
    fn start(test: &str, trust: &[&Issued], attributes: &str, rules: &str) -> Self {
        let folder = Folder::new(test);
        let port = free_ports(1);
        pki::demo::create(&folder.join("demo")).unwrap();
        for (file, name) in [("mqtts-endpoint.crt", "tls.crt"), ("mqtts-endpoint.key", "tls.key")] {
            folder
                .write(&format!("site/secrets/server/{name}"), std::fs::read(folder.join("demo").join(file)).unwrap());
        }
        for (index, certificate) in trust.iter().enumerate() {
            folder.write(&format!("site/trust/client-ca/any-name-{index}.txt"), certificate.certificate_pem().unwrap());
        }
        folder.write("site/certs.x509.json", format!("{{\"authorizationAttributes\": {attributes}}}"));
        folder.write("site/rules.authorization.json", rules);
        let tls = "      tls:\n        mode: Manual\n        manual:\n          secretRef: server\n";
        let references = "      authenticationRef: certs\n      authorizationRef: rules\n";
        folder.write("site/listener.yaml", plain_listener(port) + references + tls);
        Self { site: Site::start_in(folder), port }
    }

    fn connect(&self, identity: Identity) -> Client {
        let authority = self.site.folder.join("demo/contoso_root_ca.crt");
        Client::accepted(tls(self.port, &authority, Some(identity)).expect("a TLS connection"), "device")
    }
}

/// Everybody in `usernames` may connect; whoever has an attribute may publish to the topic of its name and value.
fn rules(usernames: &str, attributes: &[(&str, &str)]) -> String {
    let mut rules = vec![format!(
        "{{\"principals\": {{\"usernames\": [{usernames}]}}, \"brokerResources\": [{{\"method\": \"Connect\"}}]}}"
    )];
    for (name, value) in attributes {
        rules.push(format!(
            "{{\"principals\": {{\"attributes\": [{{\"{name}\": \"{value}\"}}]}}, \
             \"brokerResources\": [{{\"method\": \"Publish\", \"topics\": [\"{name}/{value}\"]}}]}}"
        ));
    }
    format!("[{}]", rules.join(","))
}

#[test]
fn scenario_17_all_authorities_of_the_bundle_are_trusted_whatever_their_file_is_called() {
    let (first, second) = (Factory::new("CN=First", "CN=I1"), Factory::new("CN=Second", "CN=I2"));
    let plant = Plant::start("s17", &[&first.root, &second.root], "{}", &rules("\"a\", \"b\"", &[]));
    plant.connect(first.identity("CN=a")).ping();
    plant.connect(second.identity("CN=b")).ping();
}

#[test]
fn scenario_18_the_bundle_may_hold_only_the_intermediate() {
    let factory = Factory::new("CN=Root", "CN=Intermediate");
    let plant = Plant::start("s18", &[&factory.intermediate], "{}", &rules("\"a\"", &[]));
    plant.connect(factory.identity("CN=a")).ping();
}

#[test]
fn scenario_19_an_appended_certificate_lends_nothing() {
    let factory = Factory::new("CN=Root", "CN=Plain Intermediate");
    let stranger = Issued::root(&authority("CN=Fabrikam Intermediate CA 1")).unwrap();
    let plant = Plant::start(
        "s19",
        &[&factory.root],
        r#"{"i": {"subject": "CN = Fabrikam Intermediate CA 1", "attributes": {"manufacturer": "fabrikam"}}}"#,
        &rules("\"a\"", &[("manufacturer", "fabrikam")]),
    );
    let template = Template::leaf(name("CN=a"), UnixTime(now().0 - 60), now().plus_seconds(600));
    let mut client = plant.connect(factory.identity_of(&template, &[&stranger]));
    assert_eq!(client.publish("manufacturer/fabrikam", b"x"), 135);
}

#[test]
fn scenario_20_the_entry_of_the_leaf_decides_alone() {
    let factory = Factory::new("CN=Root", "CN=Contoso Intermediate CA");
    let plant = Plant::start(
        "s20",
        &[&factory.root],
        r#"{"intermediate": {"subject": "CN = Contoso Intermediate CA", "attributes": {"city": "seattle", "foo": "bar"}},
            "smart-fan": {"subject": "CN = smart-fan", "attributes": {"building": "17"}}}"#,
        &rules("\"smart-fan\"", &[("building", "17"), ("city", "seattle")]),
    );
    let mut client = plant.connect(factory.identity("CN=smart-fan"));
    assert_eq!((client.publish("building/17", b"x"), client.publish("city/seattle", b"x")), (0, 135));
}

#[test]
fn scenarios_21_and_22_the_unsent_root_grants_and_spelling_does_not_matter() {
    let documented = "CN = Contoso Root CA Cert, OU = Engineering, C = US";
    for (subject, encoded) in [
        (documented, documented),
        (documented, "C=US,OU=Engineering,CN=Contoso Root CA Cert"),
        ("CN=Root", "CN = Root"),
    ] {
        let factory = Factory::new(encoded, "CN=Intermediate");
        let plant = Plant::start(
            "s21",
            &[&factory.root],
            &format!(r#"{{"root": {{"subject": "{subject}", "attributes": {{"organization": "contoso"}}}}}}"#),
            &rules("\"a\"", &[("organization", "contoso")]),
        );
        assert_eq!(plant.connect(factory.identity("CN=a")).publish("organization/contoso", b"x"), 0, "{encoded}");
    }
}

/// Bakes one listener and one X.509 authentication, and returns what was refused.
fn refused(test: &str, ports: &str) -> String {
    let folder = Folder::new(test);
    let root = Issued::root(&authority("CN=Root")).unwrap();
    folder.write("site/trust/client-ca/ca.pem", root.certificate_pem().unwrap());
    folder.write("site/certs.x509.json", "{}");
    folder.write("site/rules.authorization.json", "[]");
    folder.write("site/edge.listener.yaml", format!("ports:\n{ports}"));
    let output = run(&["check", folder.join("site").to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    said
}

#[test]
fn scenario_23_x509_on_a_port_without_tls_is_refused_with_the_port() {
    let said = refused("s23", "  - port: 1883\n    authenticationRef: certs\n");
    assert!(said.contains("1883") && said.contains("TLS"), "{said}");
}

#[test]
fn scenario_39_without_authentication_every_connect_is_accepted() {
    let port = free_ports(1);
    let _site = Site::start("s39", &[("listener.yaml", plain_listener(port))]);
    let mut anybody = Client::accepted(tcp(port), "anybody");
    assert_eq!((anybody.subscribe(&["#"]), anybody.publish("a", b"x")), (vec![1], 0));
}

#[test]
fn scenario_40_authorization_without_authentication_is_refused() {
    let said = refused("s40", "  - port: 1883\n    authorizationRef: rules\n");
    assert!(said.contains("authenticationRef"), "{said}");
}

#[test]
fn scenario_41_a_policy_without_rules_denies_everybody() {
    let factory = Factory::new("CN=Root", "CN=Intermediate");
    let plant = Plant::start("s41", &[&factory.root], "{}", "[]");
    let server = plant.site.folder.join("demo/contoso_root_ca.crt");
    let stream = tls(plant.port, &server, Some(factory.identity("CN=a"))).expect("a TLS connection");
    assert_eq!(Client::connect(stream, "device").1, 135);
}

#[test]
fn scenario_60_a_filter_is_covered_whole_or_refused() {
    let factory = Factory::new("CN=Root", "CN=Intermediate");
    let allowed = |topic: &str| {
        format!(
            "[{{\"principals\": {{\"usernames\": [\"a\"]}}, \"brokerResources\": [{{\"method\": \"Connect\"}}, \
             {{\"method\": \"Subscribe\", \"topics\": [\"{topic}\"]}}]}}]"
        )
    };
    for (pattern, wide, narrow) in [("a/+", "a/#", "a/+"), ("+", "#", "x")] {
        let plant = Plant::start("s60", &[&factory.root], "{}", &allowed(pattern));
        let mut client = plant.connect(factory.identity("CN=a"));
        assert_eq!(client.subscribe(&[wide, narrow]), [135, 1], "{pattern}");
    }
}
