//! A configuration that changes while the broker serves, and one that is broken when it starts: against the whole program.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::distinguished_name::DistinguishedName;
use portcullis::pki::{self, Issued, Template};
use portcullis::time::UnixTime;
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;
use support::client::{
    Client, Packet, certificates, key, lasting_connect_packet, publish_packet, tcp, tls, tls_refusal,
};
use support::{Folder, Process, free_ports, plain_listener, portcullis, run};

/// "password" of the vendor's documentation.
const HASH: &str = "$pbkdf2-sha512$i=100000,l=64$HqJwOCHweNk1pLryiu3RsA$KVSvxKYcibIG5S5n55RvxKRTdAAfCUtBJoy5IuFzdSZyzkwvUcU+FPawEWFPn+06JyZsndfRTfpiEh+2eSJLkg";

/// What is said when a change is done.
const IN_FORCE: &str = "the new configuration is in force";
/// What is said when it is not.
const STAYS: &str = "the configuration from before stays in force";

/// A folder with sources below `site/`, a blob beside it, and a broker that runs it.
struct Gateway {
    process: Process,
    /// Goes last.
    folder: Folder,
}

impl Gateway {
    /// Bakes `folder` and runs its blob.
    fn start(folder: Folder) -> Self {
        bake(&folder, "site.blob");
        let mut process = start(&folder, &[]);
        process.wait_for(" ready");
        Self { process, folder }
    }

    /// Bakes again, so that the blob is replaced by another file, and waits until it is in force.
    fn change(&mut self) {
        let before = self.process.count(IN_FORCE);
        bake(&self.folder, "site.blob");
        self.process.wait_for_another(IN_FORCE, before);
    }
}

fn start(folder: &Folder, options: &[&str]) -> Process {
    let blob = folder.join("site.blob");
    let arguments = [&["run", "--config", blob.to_str().unwrap(), "--log", "debug"], options].concat();
    Process::start(&mut portcullis(&arguments))
}

fn bake(folder: &Folder, name: &str) {
    let (site, blob) = (folder.join("site"), folder.join(name));
    let baked = run(&["bake", site.to_str().unwrap(), "--out", blob.to_str().unwrap()]);
    assert!(baked.status.success(), "{}", String::from_utf8_lossy(&baked.stderr));
}

/// Rules: who may use which topics.
fn rules(folder: &Folder, principals: &[(&str, &[&str])]) {
    let rule = |(principal, topics): &(&str, &[&str])| {
        format!(
            r#"{{"principals": {principal}, "brokerResources": [{{"method": "Connect"}},
                {{"method": "Publish", "topics": {topics:?}}}, {{"method": "Subscribe", "topics": {topics:?}}}]}}"#
        )
    };
    let rules: Vec<String> = principals.iter().map(rule).collect();
    folder.write("site/rules.authorization.json", format!("[{}]", rules.join(",\n")));
}

/// A port whose clients show passwords; `rules` are to follow.
fn with_users(name: &str, port: u16, users: &[&str]) -> Folder {
    let folder = Folder::new(name);
    folder.write(
        "site/listener.yaml",
        plain_listener(port) + "      authenticationRef: logins\n      authorizationRef: rules\n",
    );
    folder.write(
        "site/logins.authentication.json",
        r#"{"authenticationMethods": [{"method": "UsernamePassword", "usernamePasswordSettings": {"secretRef": "users"}}]}"#,
    );
    let entries = users.iter().map(|user| format!("[{user}]\npassword = \"{HASH}\"\n"));
    folder.write("secrets/users/passwords.toml", entries.collect::<String>());
    folder
}

/// Connects to a lasting session; says whether it was there.
fn log_in(port: u16, user: &str, clean_start: bool) -> (Client, bool) {
    let mut client = Client::new(tcp(port));
    client.send(&lasting_connect_packet(user, Some((user, "password")), clean_start));
    let connack = client.receive().expect("a CONNACK");
    assert_eq!((connack.first, connack.body[1]), (0x20, 0), "{connack:?}");
    (client, connack.body[0] == 1)
}

#[test]
fn scenario_51_a_changed_blob_takes_only_what_it_forbids() {
    let port = free_ports(1);
    let folder = with_users("s51", port, &["a", "b", "c"]);
    let (a, b, c) = (r#"{"usernames": ["a"]}"#, r#"{"usernames": ["b"]}"#, r#"{"usernames": ["c"]}"#);
    rules(&folder, &[(a, &["a/#", "b/#", "x/#", "y/#"]), (b, &["b/#"]), (c, &["x/#", "y/#"])]);
    let gateway = Gateway::start(folder);
    let ((mut first, _), (mut second, _), (mut stored, _)) =
        (log_in(port, "a", true), log_in(port, "b", true), log_in(port, "c", true));
    assert_eq!(first.subscribe(&["a/#"]), [1]);
    assert_eq!(second.subscribe(&["b/#"]), [1]);
    assert_eq!(stored.subscribe(&["x/#", "y/#"]), [1, 1]);
    drop(stored);
    for topic in ["x/1", "y/1"] {
        assert_eq!(first.publish(topic, b"before"), 0);
    }

    // The first goes on all the time; each of its messages comes back to it.
    rules(&gateway.folder, &[(a, &["a/#", "b/#", "x/#", "y/#"]), (c, &["x/#"])]);
    bake(&gateway.folder, "site.blob");
    let mut sent = 0_u16;
    let mut left = 200;
    while left > 0 {
        sent += 1;
        first.send(&publish_packet("a/1", 1, 7, &sent.to_be_bytes()));
        let (mut acknowledged, mut arrived) = (false, false);
        while !(acknowledged && arrived) {
            let Packet { first: kind, body } = first.receive().expect("it stays connected");
            match kind >> 4 {
                4 => {
                    assert_eq!(body, [0, 7]);
                    acknowledged = true;
                }
                3 => {
                    assert_eq!(body[body.len() - 2..], sent.to_be_bytes(), "none is lost, none comes twice");
                    first.send(&[0x40, 2, body[5], body[6]]);
                    arrived = true;
                }
                _ => panic!("{kind:#04x} {body:02x?}"),
            }
        }
        left -= u32::from(gateway.process.count(IN_FORCE) > 0);
    }
    second.is_disconnected(0x87);
    let mut refused = Client::new(tcp(port));
    refused.send(&lasting_connect_packet("b", Some(("b", "password")), false));
    assert_eq!(refused.receive().map(|connack| connack.body[1]), Some(0x87));

    // The stored session has lost one filter and what waited for it.
    for topic in ["y/2", "x/2", "b/2"] {
        assert_eq!(first.publish(topic, b"after"), 0);
    }
    let (mut stored, present) = log_in(port, "c", false);
    assert!(present);
    assert_eq!([stored.message().0, stored.message().0], ["x/1", "x/2"]);
    assert_eq!(first.publish("y/3", b"after"), 0);
    stored.ping();
    first.ping();
}

#[test]
fn sighup_without_a_change_harms_nobody() {
    let port = free_ports(1);
    let folder = with_users("sighup", port, &["a"]);
    rules(&folder, &[(r#"{"usernames": ["a"]}"#, &["a/#"])]);
    let mut gateway = Gateway::start(folder);
    let kept = gateway.folder.join("state/last-good.blob");
    let inode = std::fs::metadata(&kept).unwrap().ino();
    let (mut client, _) = log_in(port, "a", true);
    assert_eq!(client.subscribe(&["a/#"]), [1]);
    for round in 0..3 {
        gateway.process.signal("-HUP");
        gateway.process.wait_for_another(IN_FORCE, round);
        assert_eq!(client.publish("a/1", b"x"), 0);
        assert_eq!(client.message().0, "a/1");
    }
    assert_eq!(gateway.process.count("SIGHUP"), 3);
    assert_eq!(std::fs::metadata(&kept).unwrap().ino(), inode, "the same blob is not written again");
    client.ping();
}

#[test]
fn a_blob_that_is_damaged_or_half_written_changes_nothing() {
    let port = free_ports(1);
    let folder = with_users("damaged", port, &["a"]);
    let a = r#"{"usernames": ["a"]}"#;
    rules(&folder, &[(a, &["a/#"])]);
    let mut gateway = Gateway::start(folder);
    let (mut client, _) = log_in(port, "a", true);
    rules(&gateway.folder, &[(a, &["a/#", "b/#"])]);
    bake(&gateway.folder, "new.blob");
    let blob = std::fs::read(gateway.folder.join("new.blob")).unwrap();
    let in_force = std::fs::read(gateway.folder.join("site.blob")).unwrap();

    // In place, and only its first half.
    gateway.folder.write("site.blob", &blob[..blob.len() / 2]);
    let said = gateway.process.wait_for(STAYS);
    assert!(said.contains("truncated") && said.contains("site.blob"), "{said}");
    let mut damaged = blob.clone();
    *damaged.last_mut().unwrap() ^= 1;
    gateway.folder.write("site.blob", &damaged);
    assert!(gateway.process.wait_for_another(STAYS, 1).contains("damaged"));
    // What is wrong is said once, not every second: these take several.
    std::fs::remove_file(gateway.folder.join("site.blob")).unwrap();
    gateway.process.wait_for_another(STAYS, 2);
    assert_eq!(gateway.process.count(STAYS), 3);
    assert_eq!((client.publish("a/1", b"x"), client.publish("b/1", b"x")), (0, 0x87));
    assert_eq!(std::fs::read(gateway.folder.join("state/last-good.blob")).unwrap(), in_force);

    // The rest of it.
    gateway.folder.write("site.blob", &blob);
    gateway.process.wait_for(IN_FORCE);
    assert_eq!((client.publish("a/1", b"x"), client.publish("b/1", b"x")), (0, 0));
    assert_eq!(std::fs::read(gateway.folder.join("state/last-good.blob")).unwrap(), blob);
}

#[test]
fn what_needs_a_restart_is_refused_with_its_name() {
    let port = free_ports(2);
    let folder = with_users("restart", port, &["a"]);
    let a = r#"{"usernames": ["a"]}"#;
    rules(&folder, &[(a, &["a/#"])]);
    let mut gateway = Gateway::start(folder);
    let (mut client, _) = log_in(port, "a", true);
    let references = "      authenticationRef: logins\n      authorizationRef: rules\n";
    gateway.folder.write("site/listener.yaml", plain_listener(port + 1) + references);
    rules(&gateway.folder, &[(a, &["a/#", "b/#"])]);
    bake(&gateway.folder, "site.blob");
    let said = gateway.process.wait_for(STAYS);
    assert!(said.contains("only a restart can change ports[0].port;"), "{said}");
    assert_eq!(client.publish("b/1", b"x"), 0x87, "none of it is in force");
    // A file beside the blob that cannot be used keeps the rest from changing too.
    gateway.folder.write("site/listener.yaml", plain_listener(port) + references);
    gateway.folder.write("secrets/users/passwords.toml", "[a]\npassword = 7\n");
    bake(&gateway.folder, "site.blob");
    assert!(gateway.process.wait_for_another(STAYS, 1).contains("passwords.toml"));
    assert_eq!((client.publish("a/1", b"x"), client.publish("b/1", b"x")), (0, 0x87));
}

#[test]
fn limits_change_for_who_connects_from_now_on() {
    let port = free_ports(1);
    let folder = Folder::new("limits");
    folder.write("site/listener.yaml", plain_listener(port));
    let limits = |folder: &Folder, receive_maximum: u16| {
        let broker = "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {name: default}\n\
                      spec: {advanced: {clients: {maxReceiveMaximum: ";
        folder.write("site/broker.yaml", format!("{broker}{receive_maximum}}}}}}}\n"));
    };
    limits(&folder, 7);
    let mut gateway = Gateway::start(folder);
    let announced = |port: u16| {
        let mut client = Client::new(tcp(port));
        client.send(&lasting_connect_packet("", None, true));
        let connack = client.receive().expect("a CONNACK");
        let at = connack.body.windows(3).position(|part| part[0] == 0x21 && part[1] == 0).expect("Receive Maximum");
        (client, connack.body[at + 2])
    };
    let (mut former, seven) = announced(port);
    limits(&gateway.folder, 1);
    gateway.change();
    assert_eq!((seven, announced(port).1), (7, 1));
    // Two at a time, as was announced to it.
    let pair = [publish_packet("a", 1, 1, b"x"), publish_packet("a", 1, 2, b"x")].concat();
    former.send(&pair);
    assert_eq!([former.receive().unwrap().first, former.receive().unwrap().first], [0x40, 0x40]);
}

/// An authority, and the certificate of one client in a file with its key.
fn authority(folder: &Folder, name: &str) -> Issued {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (from, to) = (UnixTime(now - 60), UnixTime(now + 86_400));
    let subject = |name: &str| DistinguishedName::parse(&format!("CN = {name}")).unwrap();
    let root = Issued::root(&Template::authority(subject(&format!("{name} root")), None, from, to)).unwrap();
    let leaf = root.issue(&Template::leaf(subject(name), from, to)).unwrap();
    folder.write(&format!("{name}.crt"), leaf.certificate_pem().unwrap());
    folder.write(&format!("{name}.key"), leaf.key_pem().unwrap().as_bytes());
    root
}

#[test]
fn an_authority_that_is_taken_away_takes_its_clients_along_and_nobody_else() {
    let (folder, port) = (Folder::new("trust"), free_ports(1));
    pki::demo::create(&folder.join("demo")).unwrap();
    for ending in ["crt", "key"] {
        let file = std::fs::read(folder.join(&format!("demo/mqtts-endpoint.{ending}"))).unwrap();
        folder.write(&format!("secrets/server/tls.{ending}"), file);
    }
    for name in ["stays", "goes"] {
        let root = authority(&folder, name);
        folder.write(&format!("site/trust/clients/{name}.pem"), root.certificate_pem().unwrap());
    }
    folder.write(
        "site/listener.yaml",
        plain_listener(port)
            + "      authenticationRef: certificates\n      authorizationRef: rules\n      \
               tls: {mode: Manual, manual: {secretRef: server}}\n",
    );
    // Attribute and rule get another name at once, which nobody is to notice.
    let named = |folder: &Folder, attribute: &str| {
        let entry = |client: &str| {
            format!(r#""{client}": {{"subject": "CN = {client} root", "attributes": {{"{attribute}": "all"}}}}"#)
        };
        let entries = format!("{}, {}", entry("stays"), entry("goes"));
        folder.write(
            "site/certificates.x509.json",
            format!(r#"{{"trustedClientCaCert": "clients", "authorizationAttributes": {{{entries}}}}}"#),
        );
        rules(folder, &[(&format!(r#"{{"attributes": [{{"{attribute}": "all"}}]}}"#), &["a/#"])]);
    };
    named(&folder, "group");
    let mut gateway = Gateway::start(folder);
    let folder = &gateway.folder;
    let stream = |folder: &Folder, name: &str| {
        let identity = (certificates(&folder.join(&format!("{name}.crt"))), key(&folder.join(&format!("{name}.key"))));
        tls(port, &folder.join("demo/contoso_root_ca.crt"), Some(identity))
    };
    let connect = |name: &str, clean_start| {
        let mut client = Client::new(stream(folder, name).expect("a TLS connection"));
        client.send(&lasting_connect_packet(name, None, clean_start));
        let connack = client.receive().expect("a CONNACK");
        assert_eq!(connack.body[1], 0, "{connack:?}");
        (client, connack.body[0])
    };
    let ((mut stays, _), (mut goes, _)) = (connect("stays", true), connect("goes", true));
    assert_eq!((stays.subscribe(&["a/#"]), goes.subscribe(&["a/#"])), (vec![1], vec![1]));
    std::fs::remove_file(folder.join("site/trust/clients/goes.pem")).unwrap();
    named(folder, "team");
    bake(folder, "site.blob");
    gateway.process.wait_for(IN_FORCE);
    goes.is_disconnected(0x87);
    let refused = tls_refusal(stream(folder, "goes"));
    assert!(refused.contains("CA") || refused.contains("ertificate"), "{refused}");
    assert_eq!(stays.publish("a/1", b"x"), 0);
    assert_eq!(stays.message().0, "a/1", "it has its subscription still");

    // Who is not there comes under new names when it comes back, and loses nothing.
    drop(stays);
    named(folder, "crew");
    bake(folder, "site.blob");
    gateway.process.wait_for_another(IN_FORCE, 1);
    let (mut stays, present) = connect("stays", false);
    assert_eq!((present, stays.publish("a/2", b"x")), (1, 0));
    assert_eq!(stays.message().0, "a/2");
}

#[test]
fn clients_whose_judge_is_another_must_come_again_and_without_one_must_go() {
    let port = free_ports(1);
    let folder = with_users("methods", port, &["a"]);
    rules(&folder, &[(r#"{"usernames": ["a"]}"#, &["a/#"])]);
    let mut gateway = Gateway::start(folder);
    let (mut client, _) = log_in(port, "a", true);
    // The users of another file: a password that one of them had is not theirs.
    let folder = &gateway.folder;
    std::fs::create_dir(folder.join("secrets/others")).unwrap();
    std::fs::copy(folder.join("secrets/users/passwords.toml"), folder.join("secrets/others/passwords.toml")).unwrap();
    let methods = std::fs::read_to_string(folder.join("site/logins.authentication.json")).unwrap();
    folder.write("site/logins.authentication.json", methods.replace("users", "others"));
    gateway.change();
    client.is_disconnected(0x98);
    // It comes again, to the session that it had.
    let (mut client, present) = log_in(port, "a", false);
    assert!(present);
    gateway.folder.write(
        "site/logins.authentication.json",
        r#"{"authenticationMethods": [{"method": "Custom", "customSettings": {"endpoint": "https://localhost:9"}}]}"#,
    );
    gateway.change();
    client.is_disconnected(0x87);
}

#[test]
fn the_last_good_blob_takes_the_place_of_a_broken_one() {
    let port = free_ports(1);
    let folder = Folder::new("last-good");
    folder.write("site/listener.yaml", plain_listener(port));
    let mut gateway = Gateway::start(folder);
    Client::accepted(tcp(port), "c").ping();
    gateway.process.terminate();
    assert!(gateway.process.wait().success());
    let folder = &gateway.folder;
    let good = std::fs::read(folder.join("site.blob")).unwrap();
    let kept = std::fs::read(folder.join("state/last-good.blob")).unwrap();
    assert_eq!(good, kept);

    folder.write("site.blob", &good[..good.len() - 1]);
    let mut refusing = start(folder, &["--no-fallback"]);
    assert_eq!(refusing.wait().code(), Some(3));
    let mut elsewhere = start(folder, &["--state", folder.join("other").to_str().unwrap()]);
    assert_eq!(elsewhere.wait().code(), Some(3), "nothing was in force there");

    let mut process = start(folder, &[]);
    process.wait_for(" ready");
    let (fault, said) = (process.wait_for("truncated"), process.wait_for("the last configuration that was in force"));
    assert!(fault.contains("ERROR") && fault.contains("site.blob"), "{fault}");
    assert!(said.contains("ERROR") && said.contains("state/last-good.blob"), "{said}");
    Client::accepted(tcp(port), "c").ping();
    // A mended blob is in force without a restart.
    folder.write("site.blob", &good);
    process.wait_for(IN_FORCE);
    process.terminate();
    assert!(process.wait().success());

    // What is not the configuration's fault is not mended by an older one.
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free again");
    let mut process = start(folder, &[]);
    assert_eq!(process.wait().code(), Some(4));
    assert_eq!(process.count("last configuration"), 0);
    drop(listener);
    // Neither blob can be used: one attempt, and the fault of the first.
    for name in ["site.blob", "state/last-good.blob"] {
        folder.write(name, b"no blob");
    }
    let mut process = start(folder, &[]);
    assert_eq!(process.wait().code(), Some(3));
    assert_eq!(process.count("no last good configuration"), 1);
}

#[test]
fn sighup_does_not_end_a_broker_that_has_nothing_to_read_again() {
    let mut demo = support::Demo::start("hangup");
    demo.process.signal("-HUP");
    demo.process.wait_for("SIGHUP: there is no configuration file to read again");
}
