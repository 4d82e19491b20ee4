//! Attribute-based rules against the whole program: the rows 42 to 52 of the catalogue, each with `cache` on and off.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::authentication::{PasswordAlgorithm, hash_password};
use std::fmt::Write as _;
use support::client::{Client, lasting_connect_packet, packet, text};
use support::login::{connect, log_in};
use support::{Folder, Site, free_ports, run};

const CACHES: [&str; 2] = ["Enabled", "Disabled"];

/// A broker whose users have the attributes that are given, all with the password `pw`, and whose rules are `rules`.
fn site(name: &str, cache: &str, users: &[(&str, &str)], rules: &str) -> (Site, u16) {
    let (folder, port) = (Folder::new(name), free_ports(1));
    let hash = hash_password(b"pw", PasswordAlgorithm::Argon2id, &[7; 16]).unwrap();
    let mut passwords = String::new();
    for (user, attributes) in users {
        write!(passwords, "[{user:?}]\npassword = {hash:?}\nattributes = {{ {attributes} }}\n").unwrap();
    }
    folder.write("site/secrets/users/passwords.toml", passwords);
    let methods = "authenticationMethods: [{method: UsernamePassword, usernamePasswordSettings: {secretRef: users}}]";
    folder.write("site/users.authentication.yaml", methods);
    folder.write(
        "site/rules.authorization.yaml",
        format!("authorizationPolicies:\n  cache: {cache}\n  rules: {rules}\n"),
    );
    let listener =
        format!("serviceType: ClusterIp\nports: [{{port: {port}, authenticationRef: users, authorizationRef: rules}}]");
    folder.write("site/all.listener.yaml", listener);
    (Site::start_in(folder), port)
}

fn log_in_as(port: u16, user: &str, identifier: &str) -> (Client, u8) {
    log_in(port, &connect(identifier, Some(user), Some(b"pw"), None))
}

fn admitted(port: u16, user: &str, identifier: &str) -> Client {
    let (client, reason) = log_in_as(port, user, identifier);
    assert_eq!(reason, 0, "{user} as {identifier}");
    client
}

#[test]
fn scenarios_42_and_52_an_attribute_map_is_a_conjunction() {
    for cache in CACHES {
        let users =
            [("half", "city = 'seattle'"), ("whole", "city = 'seattle', organization = 'contoso'"), ("none", "")];
        let rules = "[{principals: {clientIds: [temperature-sensor], attributes: [{city: seattle, organization: contoso}]},
            brokerResources: [{method: Connect}, {method: Publish, topics: ['/sensor/{principal.clientId}', '/sensor/{principal.attributes.organization}']},
            {method: Subscribe, topics: ['/commands/{principal.attributes.organization}']}]}]";
        let (_site, port) = site("s42", cache, &users, rules);
        assert_eq!(log_in_as(port, "half", "a").1, 0x87);
        let mut whole = admitted(port, "whole", "b");
        assert_eq!(whole.publish("/sensor/contoso", b""), 0);
        assert_eq!(whole.publish("/sensor/b", b""), 0);
        assert_eq!(whole.publish("/sensor/temperature-sensor", b""), 135);
        assert_eq!(whole.subscribe(&["/commands/contoso", "/commands/+", "$share/g/commands/contoso"]), [1, 135, 135]);
        // By its client identifier, and without the attribute that its topics need.
        let mut named = admitted(port, "none", "temperature-sensor");
        assert_eq!(named.publish("/sensor/temperature-sensor", b""), 0);
        assert_eq!((named.publish("/sensor/", b""), named.publish("/sensor/contoso", b"")), (135, 135), "49");
    }
}

#[test]
fn scenarios_43_and_52_a_building_confines_client_identifiers_and_topics() {
    for cache in CACHES {
        let users = [("b22", "building = 'building22'"), ("star", "building = '*'"), ("empty", "building = ''")];
        let rules = "[{principals: {attributes: [{building: building22}, {building: '*'}, {building: ''}]},
            brokerResources: [{method: Connect, clientIds: ['{principal.attributes.building}*'], topics: []},
            {method: Publish, clientIds: [], topics: ['sensors/{principal.attributes.building}/{principal.clientId}/sensor']}]}]";
        let (_site, port) = site("s43", cache, &users, rules);
        let mut client = admitted(port, "b22", "building22-7");
        for identifier in ["building23-7", "x", "building2"] {
            assert_eq!(log_in_as(port, "b22", identifier).1, 0x87, "{identifier}");
        }
        for _ in 0..2 {
            assert_eq!(client.publish("sensors/building22/building22-7/sensor", b""), 0);
            assert_eq!(client.publish("sensors/building23/building22-7/sensor", b""), 135);
            assert_eq!(client.publish("sensors/building22/building22-8/sensor", b""), 135);
        }
        // 46: a value has no meaning of its own, and one that is empty is none.
        assert_eq!(log_in_as(port, "star", "building22-9").1, 0x87, "46");
        assert_eq!(log_in_as(port, "star", "*9").1, 0, "46");
        assert_eq!(log_in_as(port, "empty", "anything").1, 0x87, "46");
    }
}

#[test]
fn scenarios_44_and_45_identifiers_are_compared_and_never_widen_a_rule() {
    for cache in CACHES {
        let users = [("a", ""), ("+", ""), ("#", ""), ("a/b", ""), ("$SYS", ""), ("wild", "")];
        let rules = "[{principals: {usernames: ['{principal.clientId}']},
            brokerResources: [{method: Connect}, {method: Subscribe, topics: ['clients/{principal.clientId}/#', '{principal.username}/#']},
            {method: Publish, topics: ['clients/{principal.clientId}/x', '{principal.clientId}/y']}]}]";
        let (_site, port) = site("s44", cache, &users, rules);
        assert_eq!(log_in_as(port, "a", "b").1, 0x87, "44");
        let mut plain = admitted(port, "a", "a");
        assert_eq!((plain.publish("clients/a/x", b""), plain.publish("clients/b/x", b"")), (0, 135));
        let asked = ["clients/a/#", "clients/a", "clients/a/+/b", "clients/+/x", "clients/b/x", "a/#", "#"];
        assert_eq!(plain.subscribe(&asked), [1, 1, 1, 135, 135, 1, 135]);
        for user in ["+", "#", "a/b", "$SYS"] {
            let mut client = admitted(port, user, user);
            let own = format!("clients/{user}/x");
            let asked = ["clients/+/x", "clients/#", "clients/a/b/x", "#", "+/#", "$SYS/#", "$SYS/broker/uptime"];
            assert_eq!(client.subscribe(&asked), [135; 7], "45 {user}");
            let may = if user == "$SYS" { 0 } else { 135 };
            if !user.contains(['+', '#']) {
                assert_eq!(client.publish(&own, b""), may, "{user}");
            }
            assert_eq!(client.publish("a/y", b""), 135, "{user}");
        }
    }
}

#[test]
fn scenario_48_a_rule_for_nobody_or_everybody_is_refused() {
    for (name, principals) in [("s48a", "{}"), ("s48b", "{attributes: [{}]}"), ("s48c", "{usernames: ['']}")] {
        let folder = Folder::new(name);
        folder.write("x.listener.yaml", "ports: [{port: 1883}]");
        let rules = format!("- principals: {principals}\n  brokerResources: [{{method: Connect}}]\n");
        folder.write("x.authorization.yaml", rules);
        let checked = run(&["check", &folder.text()]);
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && said.contains("x.authorization.yaml:1:"), "{said}");
    }
}

/// A CONNECT with a Will of QoS 1.
fn with_will(user: &str, identifier: &str, topic: &str, delay_seconds: u8) -> Vec<u8> {
    let mut body = text("MQTT");
    // Version, flags (user, password, Will with QoS 1, Clean Start), keep-alive, Session Expiry Interval of a minute.
    body.extend_from_slice(&[5, 0b1100_1110, 0, 0, 5, 0x11, 0, 0, 0, 60]);
    body.extend_from_slice(&text(identifier));
    body.extend_from_slice(&[5, 0x18, 0, 0, 0, delay_seconds]);
    body.extend_from_slice(&text(topic));
    body.extend_from_slice(&text("gone"));
    body.extend_from_slice(&text(user));
    body.extend_from_slice(&text("pw"));
    packet(0x10, &body)
}

#[test]
fn scenario_50_a_will_is_a_publish() {
    let rules = "[{principals: {usernames: [a, b]}, brokerResources: [{method: Connect},
        {method: Publish, topics: ['status/{principal.username}']}, {method: Subscribe, topics: ['status/+', 'other']}]}]";
    let (mut site, port) = site("s50", "Enabled", &[("a", ""), ("b", "")], rules);
    let mut watcher = admitted(port, "b", "watcher");
    assert_eq!(watcher.subscribe(&["status/+", "other"]), [1, 1]);
    for topic in ["status/b", "other", "$SYS/broker/uptime"] {
        let (_, reason) = log_in(port, &with_will("a", "a", topic, 0));
        assert!(reason == 0x87 || (topic.starts_with('$') && reason >= 0x80), "{topic}: {reason:#x}");
    }
    site.process
        .wait_for("audit denied client='a' user='a' method=UsernamePassword action=will resource='other' rule=none");
    let (client, reason) = log_in(port, &with_will("a", "a", "status/a", 0));
    assert_eq!(reason, 0);
    drop(client);
    assert_eq!(watcher.message(), ("status/a".to_owned(), b"gone".to_vec()), "nothing that was denied came before it");
}

#[test]
fn a_will_obeys_the_rules_of_when_it_is_published() {
    let rules = |topics: &str| {
        format!("[{{principals: {{usernames: [a, b]}}, brokerResources: [{{method: Connect}}, {{method: Publish, topics: [{topics}]}},
            {{method: Subscribe, topics: ['#']}}]}}]")
    };
    let (mut site, port) = site("will-later", "Enabled", &[("a", ""), ("b", "")], &rules("status, other"));
    let mut watcher = admitted(port, "b", "watcher");
    assert_eq!(watcher.subscribe(&["#"]), [1]);
    let (client, reason) = log_in(port, &with_will("a", "a", "status", 2));
    assert_eq!(reason, 0);
    drop(client);
    let policy = format!("authorizationPolicies:\n  rules: {}\n", rules("other"));
    site.folder.write("site/rules.authorization.yaml", policy);
    let (source, blob) = (site.folder.join("site"), site.folder.join("site/site.blob"));
    assert!(run(&["bake", source.to_str().unwrap(), "--out", blob.to_str().unwrap()]).status.success());
    site.process.wait_for("audit denied client='a' user='a' method=UsernamePassword action=will resource='status'");
    assert_eq!(admitted(port, "b", "second").publish("other", b"x"), 0);
    assert_eq!(watcher.message(), ("other".to_owned(), b"x".to_vec()), "the Will was not published");
}

#[test]
fn retained_and_queued_messages_come_through_allowed_subscriptions_only() {
    let rules = "[{principals: {usernames: [writer]}, brokerResources: [{method: Connect}, {method: Publish, topics: ['secret/#', 'open/#']}]},
        {principals: {usernames: [reader]}, brokerResources: [{method: Connect}, {method: Publish, topics: ['open/#']}, {method: Subscribe, topics: ['open/#']}]}]";
    let (_site, port) = site("retained", "Enabled", &[("writer", ""), ("reader", "")], rules);
    let mut writer = admitted(port, "writer", "w");
    let retained = |topic: &str| {
        let mut body = text(topic);
        body.extend_from_slice(&[0, 9, 0, b'r']);
        packet(0x33, &body)
    };
    for topic in ["secret/a", "open/a"] {
        writer.send(&retained(topic));
        assert_eq!(writer.receive().unwrap().first, 0x40);
    }
    let (mut reader, reason) = log_in(port, &lasting_connect_packet("r", Some(("reader", "pw")), false));
    assert_eq!(reason, 0);
    assert_eq!(reader.subscribe(&["#", "secret/#", "+/a", "open/#"]), [135, 135, 135, 1]);
    assert_eq!(reader.message(), ("open/a".to_owned(), b"r".to_vec()));
    // Not even the empty message that clears one.
    reader.send(&packet(0x33, &[text("secret/a"), vec![0, 9, 0]].concat()));
    let answer = reader.receive().unwrap();
    assert_eq!((answer.first, &answer.body[..3]), (0x40, &[0, 9, 0x87][..]));
    drop(reader);
    assert_eq!((writer.publish("secret/b", b"x"), writer.publish("open/b", b"x")), (0, 0));
    let (mut reader, reason) = log_in(port, &lasting_connect_packet("r", Some(("reader", "pw")), false));
    assert_eq!(reason, 0);
    assert_eq!(reader.message(), ("open/b".to_owned(), b"x".to_vec()), "what came while it was away");
    reader.ping();
}

#[test]
fn a_client_that_is_denied_over_and_over_is_named_a_few_times_and_counted() {
    let rules = "[{principals: {usernames: [a]}, brokerResources: [{method: Connect}, {method: Subscribe, topics: ['$SYS/#']}]}]";
    let (mut site, port) = site("audit", "Enabled", &[("a", "")], rules);
    let mut client = admitted(port, "a", "a\u{1b}'x");
    for _ in 0..200 {
        assert_eq!(client.publish("no\u{7f}where", b""), 135);
    }
    drop(client);
    site.process.wait_for("audit denied client='a\\u{1b}\\u{27}x' user='a' method=UsernamePassword unsaid=190");
    let said = site.process.output().iter().filter(|line| line.contains("action=publish resource=")).count();
    assert_eq!(said, 10);
    let mut client = admitted(port, "a", "b");
    assert_eq!(client.subscribe(&["$SYS/broker/authorization/denied/publish"]), [1]);
    // Retained from before, and again within ten seconds.
    while client.message().1 != b"200" {}
}
